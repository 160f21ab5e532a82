"""Published baselines: rows follow from the checkpoints, the page from the rows."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

from experiments import baselines
from experiments.baselines import BaselinesConfig
from experiments.study.config import StudyConfig
from experiments.study.presets import PRESETS
from experiments.study.store import StudyStore
from snnjax import checkpoint, data, models, train
from snnjax.runs import jsonl

NAME = "digits-sew_resnet8-w2-s0"


@pytest.fixture
def run_path(tmp_path):
    """A run whose first baseline is trained, and the second is not."""
    path = tmp_path / "run"
    model = models.sew_resnet8(10, width=2, in_channels=1, rngs=nnx.Rngs(0))
    checkpoint.export(path / "checkpoints" / "fp32-s0.safetensors", model)
    study = StudyConfig(width=2, batch_size=10).resolve()
    StudyStore(path).write_info(study.numbers())
    speeds = [(50, 100.0), (100, 50.0)]  # 5 s and 10 s
    for step, speed in speeds:
        line = {"row": "fp32-s0", "step": step, "loss": 2.0, "accuracy": 0.5}
        jsonl.append(path / "log.jsonl", line | {"images_per_second": speed})
    jsonl.append(path / "log.jsonl", {"row": "fp32-s1", "step": 50})
    return path


def test_rows_are_of_the_checkpoint(tmp_path, run_path, monkeypatch):
    monkeypatch.setattr(baselines, "TIMESTEPS", (1, 4))
    config = BaselinesConfig(runs=(run_path,), out=tmp_path / "out" / "baselines.md")
    baselines.run(config)
    rows = jsonl.read(tmp_path / "out" / "baselines.jsonl")
    [training] = [row for row in rows if row["part"] == "training"]
    assert training["seconds"] == 15
    assert training["curve"] == [[50, 2.0, 0.5], [100, 2.0, 0.5]]
    model = checkpoint.load(tmp_path / "out" / "checkpoints" / f"{NAME}.safetensors")
    for timesteps in (1, 4):
        found = train.evaluate(model, data.load("digits", "test"), timesteps=timesteps)
        [row] = [row for row in rows if row.get("timesteps") == timesteps]
        assert row["accuracy"] == found.accuracy
        for name, rates in found.counts.rates().items():
            expected = [np.mean(rates), np.mean(rates < 0.05), np.mean(rates > 0.95)]
            np.testing.assert_allclose(row["layers"][name], expected, rtol=1e-6)
    page = config.out.read_text()
    assert f"{100 * found.accuracy:.1f}%" in page
    assert "15 seconds" in page
    # Nothing is measured twice, and the page follows from the rows alone.
    monkeypatch.setattr(train, "evaluate", None)
    baselines.run(config)
    baselines.run(dataclasses.replace(config, runs=()))
    assert jsonl.read(tmp_path / "out" / "baselines.jsonl") == rows
    assert config.out.read_text() == page


def test_the_page_is_that_of_its_rows():
    folder = Path(__file__).parents[3] / "docs" / "results"
    rows = jsonl.read(folder / "baselines.jsonl")
    assert (folder / "baselines.md").read_text() == baselines.to_markdown(rows)
    for row in rows:
        if "network" in row:
            assert (folder / "checkpoints" / f"{row['network']}.safetensors").is_file()


def test_an_ablation_is_what_it_changes_in_the_preset(tmp_path, run_path):
    options = dict(average=0.0, held_out=5000, train_images=100, seeds=(3,), width=4)
    study = dataclasses.replace(PRESETS["baseline-cifar10"], **options).resolve()
    folder = tmp_path / "ablation"
    folder.mkdir()
    StudyStore(folder).write_info(study.numbers())
    results = folder / "results.jsonl"
    results.touch()
    with pytest.raises(ValueError, match="must hold a baseline"):
        baselines.read_ablation(folder)
    jsonl.append(results, {"mode": "fp32", "seed": 3, "accuracy": 0.25})
    jsonl.append(results, {"mode": "control", "seed": 3, "accuracy": 0.5})
    row = baselines.read_ablation(folder)
    assert row["changed"] == {"average": 0.0}
    assert (row["train_images"], row["width"]) == (100, 4)
    assert row["accuracies"] == {"s3": 0.25}


def test_another_network_does_not_take_the_rows_of_the_published_one(
    tmp_path, run_path, monkeypatch
):
    monkeypatch.setattr(baselines, "TIMESTEPS", (4,))
    config = BaselinesConfig(runs=(run_path,), out=tmp_path / "out" / "baselines.md")
    baselines.run(config)
    target = tmp_path / "out" / "checkpoints" / f"{NAME}.safetensors"
    before = target.read_bytes()
    other = models.sew_resnet8(10, width=2, in_channels=1, rngs=nnx.Rngs(1))
    checkpoint.export(run_path / "checkpoints" / "fp32-s0.safetensors", other)
    with pytest.raises(ValueError, match=f"rows of {NAME}"):
        baselines.run(config)
    assert target.read_bytes() == before


def test_a_run_without_a_baseline_is_refused(tmp_path, run_path):
    (run_path / "checkpoints" / "fp32-s0.safetensors").unlink()
    out = tmp_path / "out" / "baselines.md"
    with pytest.raises(ValueError, match="holds no finished baseline"):
        baselines.run(BaselinesConfig(runs=(run_path,), out=out))
    with pytest.raises(ValueError, match="there are no rows yet"):
        baselines.run(BaselinesConfig(out=out))
    assert not out.exists()
