"""Published baselines: rows follow from the checkpoints, the page from the rows."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

from experiments.baselines import __main__ as baselines
from experiments.baselines import page
from experiments.baselines.__main__ import BaselinesConfig
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
    written = config.out.read_text()
    assert f"{100 * found.accuracy:.1f}%" in written
    assert "15 seconds" in written
    # Nothing is measured twice, and the page follows from the rows alone.
    monkeypatch.setattr(train, "evaluate", None)
    baselines.run(config)
    baselines.run(dataclasses.replace(config, runs=()))
    assert jsonl.read(tmp_path / "out" / "baselines.jsonl") == rows
    assert config.out.read_text() == written


def test_the_page_is_that_of_its_rows():
    folder = Path(__file__).parents[3] / "docs" / "results"
    rows = jsonl.read(folder / "baselines.jsonl")
    assert (folder / "baselines.md").read_text() == page.to_markdown(rows)
    for row in rows:
        if "network" in row:
            assert (folder / "checkpoints" / f"{row['network']}.safetensors").is_file()


def test_a_file_that_is_too_large_has_its_head_in_float16(
    tmp_path, run_path, monkeypatch
):
    monkeypatch.setattr(baselines, "TIMESTEPS", (4,))
    file = run_path / "checkpoints" / "fp32-s0.safetensors"
    monkeypatch.setattr(baselines, "LARGEST", file.stat().st_size - 1)
    config = BaselinesConfig(runs=(run_path,), out=tmp_path / "out" / "baselines.md")
    baselines.run(config)
    published = tmp_path / "out" / "checkpoints" / f"{NAME}.safetensors"
    assert published.stat().st_size < file.stat().st_size
    test = data.load("digits", "test")
    training, measured = jsonl.read(tmp_path / "out" / "baselines.jsonl")
    before, after = (
        train.evaluate(checkpoint.load(path), test) for path in (file, published)
    )
    assert training["in_float32"][0] == before.accuracy
    assert measured["accuracy"] == after.accuracy
    assert f"Before it was {100 * before.accuracy:.2f}%" in config.out.read_text()
    baselines.run(config)  # the same network again


def make_ablation(folder, accuracies, **changed):
    """Write the rows of a study of the preset in which options are changed."""
    options = dict(held_out=5000, train_images=100, width=4, learning_rate=None)
    options |= dict(seeds=tuple(accuracies)) | changed
    study = dataclasses.replace(PRESETS["baseline-cifar10"], **options).resolve()
    folder.mkdir()
    StudyStore(folder).write_info(study.numbers())
    results = folder / "results.jsonl"
    results.touch()
    for seed, accuracy in accuracies.items():
        jsonl.append(results, {"mode": "fp32", "seed": seed, "accuracy": accuracy})
        jsonl.append(results, {"mode": "control", "seed": seed, "accuracy": 0.0})
    return folder


def test_an_ablation_is_what_it_changes_in_the_preset(tmp_path):
    with pytest.raises(ValueError, match="must hold a baseline"):
        baselines.read_ablation(make_ablation(tmp_path / "none", {}, seeds=(0,)))
    row = baselines.read_ablation(make_ablation(tmp_path / "a", {3: 0.25}, average=0.0))
    assert row["changed"] == {"average": 0.0}
    assert (row["train_images"], row["width"]) == (100, 4)
    assert row["accuracies"] == {"s3": 0.25}


def test_ablations_stand_beside_the_recipe(tmp_path):
    arms = {
        "sgd": make_ablation(
            tmp_path / "sgd", {0: 0.5}, optimizer="sgd", weight_decay=5e-4
        ),
        "adam": make_ablation(tmp_path / "adam", {0: 0.3}, optimizer="adamw"),
        "flip": make_ablation(tmp_path / "flip", {0: 0.59}, augment=False),
        "recipe": make_ablation(tmp_path / "recipe", {0: 0.6, 1: 0.61}),
    }
    config = BaselinesConfig(ablations=(*arms.values(),), out=tmp_path / "x.md")
    rows = [baselines.read_ablation(folder) for folder in arms.values()]
    lines = list(page.list_ablations(rows))
    assert [line["points beside the recipe"] for line in lines] == [
        *("", "-10.0", "-30.0", "-1.0")
    ]
    assert [line["seed 1"] for line in lines] == ["61.0%", "", "", ""]
    assert lines[1]["change"] == "SGD at a rate of 0.1, a decay of 0.0005"
    assert lines[2]["change"] == "Adam at a rate of 0.001"
    others = [row | {"dataset": "cifar100"} for row in rows]
    assert page.show_ablations([*rows, *others]).count("none: the recipe") == 2
    for row in rows:
        jsonl.append(config.out.with_suffix(".jsonl"), row)
    again = make_ablation(tmp_path / "again", {0: 0.7}, augment=False)
    with pytest.raises(ValueError, match="with other accuracies"):
        baselines.run(dataclasses.replace(config, ablations=(again,)))


def test_a_run_of_some_images_is_no_baseline(tmp_path):
    part = make_ablation(tmp_path / "part", {0: 0.5})
    with pytest.raises(ValueError, match="give it as an ablation"):
        baselines.run(BaselinesConfig(runs=(part,), out=tmp_path / "x.md"))


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
