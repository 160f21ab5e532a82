"""Edges and correlations of the experiment on SANA-FE's Loihi."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import twins

from experiments.chip import __main__ as chip
from snnjax import cost, models


def test_edges_are_the_synapses(tmp_path):
    model = twins.make(models.SEWResNet, blocks=(1, 1), width=3)
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 1)).astype(np.float32)
    chip.record(model, x, (6, 6), tmp_path / "net.npz")
    with np.load(tmp_path / "net.npz") as arrays:
        assert arrays["spikes.sn1"].shape == (2 * 4, 6 * 6 * 3)
        for row in model.synapses((6, 6)):
            if row.reads_input:
                continue
            target = row.name.replace("conv", "sn")
            target = target.replace("downsample.0", "downsample_sn")
            for source in row.sources:
                pairs = arrays[f"edges.|{source}|{target}"]
                assert len(np.unique(pairs, axis=0)) == len(pairs)
                leaving = np.bincount(
                    pairs[:, 0], minlength=arrays[f"spikes.{source}"].shape[1]
                )
                if row.kernel_size:
                    fan_out = np.repeat(cost.fan_out(row).ravel(), row.in_shape[-1])
                else:
                    fan_out = np.full(len(leaving), 10)
                np.testing.assert_array_equal(leaving, fan_out)


def test_correlations_have_intervals():
    drawn = np.random.default_rng(0)
    rows = [{"a": i, "b": i + drawn.normal(), "c": drawn.normal()} for i in range(30)]
    strong, weak = chip.correlate(rows, "a", "b"), chip.correlate(rows, "a", "c")
    assert strong[1] > 0.9
    assert weak[1] < 0 < weak[2]
    assert strong[1] <= strong[0] <= strong[2]


@pytest.mark.nightly
def test_a_run(tmp_path):
    python = os.environ.get("SNNJAX_SANAFE_PYTHON")
    if not python:
        pytest.skip("$SNNJAX_SANAFE_PYTHON names no python with sanafe")
    config = chip.ChipConfig(
        python, tmp_path / "chip.md", images=2, width=4, epochs=1, tuning_epochs=1
    )
    chip.run(config)
    text = (tmp_path / "chip.jsonl").read_text()
    rows = [json.loads(row) for row in text.splitlines()]
    assert len(rows) >= 12
    assert all(row["energy"] > 0 and row["time"] > 0 for row in rows)


def test_the_published_page_follows_from_its_rows():
    folder = Path(chip.__file__).parents[2] / "docs" / "results"
    lines = (folder / "chip.jsonl").read_text().splitlines()
    page = chip.format_page(list(map(json.loads, lines)), chip.ChipConfig("python"))
    found, published = (
        re.findall(r"-?\d+\.\d+", text)
        for text in (page, (folder / "chip.md").read_text())
    )
    last = [10.0 ** -len(number.partition(".")[2]) for number in published]
    apart = np.abs(np.array(found, float) - np.array(published, float))
    assert (apart <= 1.01 * np.array(last)).all()
