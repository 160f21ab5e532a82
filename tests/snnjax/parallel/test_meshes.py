"""BatchNorm on several devices, and what a mesh and its networks must be."""

import re

import numpy as np
import pytest
import several


@pytest.fixture(scope="module")
def found():
    return several.run("pieces", devices=8)


@pytest.mark.slow
def test_batch_norm_is_that_of_the_whole_batch(found):
    """Results, both gradients and running averages, against one device and NumPy."""
    for far in found["float64"].values():
        assert far < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("offset", [0, 100, 10_000])
def test_batch_norm_loses_the_square_of_mean_over_deviation(found, offset):
    """In float32, of the variance, whose part between devices is a difference."""
    mean_over_deviation = offset / 10
    lost = 4 * np.finfo(np.float32).eps * (1 + mean_over_deviation**2)
    assert found[f"float32 {offset:g}"]["many"] < lost
    assert found[f"float32 {offset:g}"]["one"] < 1e-6


@pytest.mark.slow
def test_batch_norm_counts_from_its_running_mean(found):
    """The variance loses what the devices' means were rounded by, not their square."""
    rounded = 1e4 * np.finfo(np.float32).eps
    assert found["float32 from near"]["many"] < 2 * 10 * rounded / 10**2
    assert found["float32 10000"]["many"] > 1e-2


@pytest.mark.slow
def test_networks_that_fill_the_cores_keep_to_their_own(found):
    expected = ["8 on 2", "4 on 2", "8 on 4", "4 on 4", "8 on 8"]
    assert found["kept to their cores"] == expected


SAID = {
    "too many devices": "at most 8.* got 9; .*device_count=9",
    "no device": "at least one, got none",
    "half a device": "devices must be a whole .*got 0.5",
    "configs": "divide the number of devices, 8, got 3",
    "no configs": "at least 1, got 0",
    "share": "batch_size must be a multiple of 8.* got 12",
    "foreign": r"axes \('config', 'data'\), got \('data',\); train.make_mesh",
    "no mesh": "got int; train.make_mesh",
    "foreign evaluation": r"got \('data',\); train.make_mesh",
    "number": "multiple of 2.* got 3",
    "none": "at least one network, got none",
    "keys": "random keys .* mesh=None",
    "another's": "start is the state of another network",
    "steps": r"after one step for all networks, got the steps \[0, 2\]",
    "start": "another number of them",
}
UNLIKE = ("layers", "quantizer", "grid", "basis", "evaluated", "neuron", "width")
SAID |= dict.fromkeys((*UNLIKE, "dtype"), "one structure, and network 1 differs")


@pytest.mark.slow
@pytest.mark.parametrize("mistake", SAID)
def test_a_mistake_is_told_in_one_sentence(found, mistake):
    said = found["refused"][mistake]
    assert re.search(SAID[mistake], said), said
    assert "\n" not in said
    assert ". " not in said


@pytest.mark.slow
def test_every_mistake_is_looked_at(found):
    assert set(found["refused"]) == set(SAID)
