"""The study's folder: the firing of its rows, and the data that it belongs to."""

import numpy as np
import pytest

from experiments.provenance import data_sum
from experiments.study.config import StudyConfig
from experiments.study.grid import RunSpec
from experiments.study.measure import FLOORS, Result
from experiments.study.store import RowFiring, StudyStore
from snnjax import data, runs
from snnjax.firing import FiringCounts

COUNTS = {"sn1": np.arange(12, dtype=np.int32).reshape(2, 2, 3)}
FIRING = RowFiring(FiringCounts(COUNTS, 400), {"sn1": COUNTS["sn1"] + 7})


def test_firing_round_trips(tmp_path):
    config = StudyConfig(out=tmp_path).resolve()
    row = RunSpec.reference("fp32", 0).to_row() | {"accuracy": 0.5, "emd_mean": 0.0}
    with StudyStore.open(tmp_path, config.numbers()) as store:
        store.append_firing(row, FIRING)
    again = StudyStore(tmp_path)
    assert again.rows() == [row]
    assert again.info()["config_hash"] == config.hash()
    counts, latencies = again.firing(row)
    assert counts.observations == 400
    assert list(counts.spikes) == list(latencies) == ["sn1"]
    np.testing.assert_array_equal(counts.spikes["sn1"], COUNTS["sn1"])
    np.testing.assert_array_equal(latencies["sn1"], COUNTS["sn1"] + 7)
    assert counts.spikes["sn1"].dtype == latencies["sn1"].dtype == np.int32
    assert (tmp_path / "firing" / "fp32-s0.npz").is_file()
    with pytest.raises(runs.MissingArraysError, match="control-s0"):
        again.firing(row | {"mode": "control"})


@pytest.mark.parametrize("key", ["mode", "quantize_all", "accuracy"])
def test_a_row_without_a_key_is_refused(tmp_path, key):
    row = RunSpec.reference("fp32", 0).to_row() | {"accuracy": 0.5, "emd_mean": 0.0}
    del row[key]
    store = StudyStore(tmp_path)
    runs.jsonl.append(store.results, row)
    with pytest.raises(ValueError, match=rf"line 1 is not a row.*'{key}'"):
        store.rows()
    with pytest.raises(ValueError, match="row must be a study's result"):
        Result.from_row(row)


def test_the_checksum_depends_on_images_labels_and_order():
    def sum_of(images, labels):
        arrays = np.asarray(images, np.uint8).reshape(2, 1, 1, 1), np.int32(labels)
        return data_sum(data.from_arrays(*arrays, num_classes=9))

    others = sum_of([1, 7], [3, 4]), sum_of([1, 2], [3, 8]), sum_of([2, 1], [3, 4])
    assert len({sum_of([1, 2], [3, 4]), *others}) == 4
    assert sum_of([1, 2], [3, 4]) == sum_of([1, 2], [3, 4])


def test_floors_are_keys_of_a_result():
    assert set(FLOORS) <= set(Result.__dataclass_fields__)
