"""The study as a whole, on digits and a network of width 4."""

import dataclasses
import io
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from experiments.command_line import parse
from experiments.console import Bar
from experiments.study import __main__ as study
from experiments.study import recipe
from experiments.study.config import StudyConfig
from experiments.study.grid import grid, name_row, planned
from experiments.study.images import load_images
from experiments.study.store import StudyStore
from snnjax import checkpoint, firing, runs, surrogate, train

ROOT = Path(__file__).parents[3]
# LQ-Net, the slowest to compile, ends at 8 bits; one grid stands for both.
OPTIONS = dict(tiny=True, width=4, timesteps=2, bits=(2, 9), modes=("ptq", "qat"))
OPTIONS |= dict(grid=("mid_rise",))
# For what is about stopping and going on: every kind of row, few of each.
SHORT = OPTIONS | dict(only="membrane", bits=(2,))
KEYS = {
    *(
        "dataset",
        "model",
        "width",
        "surrogate",
        "reset",
        "seed",
        "target",
        "method",
        "grid",
        "clip",
    ),
    *("signed", "site", "quantize_all", "bits", "mode", "accuracy", "mean_rate"),
    "dead_fraction",
    *("saturated_fraction", "emd_mean", "emd", "paired_shift", "mean_shift"),
    "emd_mean_epoch_before",
    *("floor_control", "floor_seed", "floor_sampling", "synops", "precision"),
    *("accuracy_by_step", "accuracy_noisy", "synops_largest"),
    *("ks", "latency_emd", "latency_emd_mean", "time_w1", "time_w1_mean"),
    *("weight_memory_bits", "membrane_memory_bits", "platform", "devices", "seconds"),
    *("config_hash", "versions"),
}


def quiet() -> Console:
    return Console(file=io.StringIO())


def numbers(folder: StudyStore) -> list[dict]:
    """Rows without what a clock or a folder name decides."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in folder.rows()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that nothing disturbed, and all it printed."""
    console = quiet()
    out = tmp_path_factory.mktemp("study") / "run"
    folder = study.run(StudyConfig(out=out, **OPTIONS), console)
    return folder, console.file.getvalue()


def without_hash(rows: list[dict]) -> list[dict]:
    """Rows in the order of their names, without the hash of their config."""
    return sorted((row | {"config_hash": ""} for row in rows), key=name_row)


def undrawn(config: StudyConfig) -> StudyStore:
    """A run without its report, which takes longer than what most tests are about."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study.report, "write", lambda path: path / "report.html")
        return study.run(config, quiet())


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """The same with few rows."""
    out = tmp_path_factory.mktemp("study") / "run"
    return undrawn(StudyConfig(out=out, **SHORT))


def copy_of(folder: StudyStore, tmp_path, lines: int, rest: str = "") -> StudyStore:
    """The run as a kill after some rows would have left it."""
    shutil.copytree(folder.path, tmp_path / "run")
    copy = StudyStore(tmp_path / "run")
    kept = copy.results.read_text().splitlines(keepends=True)[:lines]
    copy.results.write_text("".join(kept) + rest)
    return copy


@pytest.mark.slow
def test_every_row_is_there_once_and_whole(finished):
    folder, _ = finished
    config = StudyConfig(**OPTIONS).resolve()
    expected = [spec.name for spec in planned(config)]
    rows = folder.rows()
    assert [name_row(row) for row in rows] == expected
    assert all(set(row) == KEYS for row in rows)
    for row in rows:
        for name in ("accuracy", "mean_rate", "dead_fraction", "saturated_fraction"):
            assert 0 <= row[name] <= 1
        assert row["accuracy_by_step"][-1] == row["accuracy"]
        assert len(row["accuracy_by_step"]) == config.timesteps
        assert 0 < row["synops_largest"] < row["synops"]
    noisy = [row["accuracy_noisy"] for row in rows]
    assert 0 < min(noisy) < max(noisy) <= 1


@pytest.mark.slow
def test_shifts_bound_the_distance_in_every_layer(finished):
    for row in finished[0].rows():
        assert len(row["emd"]) == 9
        assert row["emd_mean"] == pytest.approx(sum(row["emd"].values()) / 9, rel=1e-12)
        for layer, distance in row["emd"].items():
            assert (
                abs(row["mean_shift"][layer]) <= distance <= row["paired_shift"][layer]
            )
            # Spikes that stay away cost T/2 = 1 step each; none is as late as T = 2.
            assert row["paired_shift"][layer] * 2 <= row["time_w1"][layer] + 1e-12
            assert row["latency_emd"][layer] <= 2 * row["time_w1"][layer] + 1e-12
            assert 0 <= row["ks"][layer] <= 1
        for name in ("latency_emd", "time_w1"):
            mean = sum(row[name].values()) / 9
            assert row[f"{name}_mean"] == pytest.approx(mean, rel=1e-12)
            # Equal spikes are equal in time.
            assert mean == 0 or row["mode"] != "fp32"
            assert mean > 0 or not any(row["paired_shift"].values())


@pytest.mark.slow
def test_the_floors_are_distances_of_the_references(finished):
    rows = {name_row(row): row for row in finished[0].rows()}
    for seed in (0, 1):
        control = rows[f"control-s{seed}"]
        assert control["floor_control"] == control["emd_mean"] > 0
        assert rows[f"fp32-s{seed}"]["emd_mean"] == 0
    assert rows["control-s0"]["floor_seed"] == rows["control-s1"]["floor_seed"] > 0
    for row in rows.values():
        if row["target"] != "none":
            for floor in ("floor_control", "floor_seed", "floor_sampling"):
                assert row[floor] == rows["control-s0"][floor]


@pytest.mark.slow
def test_a_step_compiles_once_for_each_structure(finished):
    (start,) = finished[0].info()["starts"]
    structures = {
        "full precision",
        "weights uniform mid_rise",
        "weights lq_net 2 bit",
        "membrane signed",
        "membrane unsigned",
    }
    for function in ("train_step", "eval_step"):
        assert start["compilations"][function] == dict.fromkeys(structures, 1)


@pytest.mark.slow
def test_quantized_memory_counts_bits(finished):
    rows = {name_row(row): row for row in finished[0].rows()}
    full, two = rows["fp32-s0"], rows["weights-uniform-mid_rise-signed-clip1-b2-ptq-s0"]
    # SEW-ResNet8 of width 4: the kernels of its blocks, at 2 bits instead of 32.
    kernels = 9 * (4 * 4 + 4 * 4) + 9 * (4 * 8 + 8 * 8) + 4 * 8
    kernels += 9 * (8 * 16 + 16 * 16) + 8 * 16
    saved = full["weight_memory_bits"] - two["weight_memory_bits"]
    assert saved == 30 * kernels
    assert full["membrane_memory_bits"] == two["membrane_memory_bits"]


@pytest.mark.slow
def test_what_is_printed_and_written(finished):
    folder, printed = finished
    assert str(folder.path / "report.html") in printed.replace("\n", "")
    for name in ("table.md", "report.html", "results.jsonl", "config.json"):
        assert (folder.path / name).stat().st_size > 0
    assert list((folder.path / "figures").glob("*.png"))
    assert (folder.path / "checkpoints" / "fp32-s0.safetensors").is_file()
    assert not list(folder.path.rglob("*.part"))
    assert not list(folder.path.rglob("*-partial"))


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(0, marks=pytest.mark.nightly),
        pytest.param(3, marks=pytest.mark.slow),
        pytest.param(6, marks=pytest.mark.nightly),
    ],
)
def test_a_killed_run_goes_on_to_the_same_numbers(short, tmp_path, lines):
    copy = copy_of(short, tmp_path, lines, rest='{"dataset": "dig')
    undrawn(StudyConfig(out=copy.path, **SHORT))
    assert numbers(copy) == numbers(short)


@pytest.mark.slow
def test_it_goes_on_without_the_spike_counts_of_the_controls(short, tmp_path):
    copy = copy_of(short, tmp_path, 4)
    for path in (copy.path / "firing").iterdir():
        if not path.name.startswith("fp32-"):
            path.unlink()
    undrawn(StudyConfig(out=copy.path, **SHORT))
    assert numbers(copy) == numbers(short)


@pytest.mark.nightly
def test_two_runs_write_the_same_numbers(short, tmp_path):
    again = undrawn(StudyConfig(out=tmp_path / "again", **SHORT))
    assert numbers(again) == numbers(short)


@pytest.mark.slow
def test_baselines_of_another_run_give_its_numbers(short, tmp_path):
    """How they were trained is no part of the run then."""
    shutil.copytree(short.path / "checkpoints", tmp_path / "trained")
    baselines = str(tmp_path / "trained/fp32-s{seed}.safetensors")
    options = SHORT | dict(baselines=baselines, epochs=7, learning_rate=5.0)
    config = StudyConfig(out=tmp_path / "run", **options)
    loaded = undrawn(config)
    assert without_hash(numbers(loaded)) == without_hash(numbers(short))
    lines = (loaded.path / "log.jsonl").read_text().splitlines()
    assert not any(json.loads(line)["row"].startswith("fp32") for line in lines)
    assert "epochs" not in loaded.info()["config"]
    shutil.rmtree(tmp_path / "trained")  # the run has its copies
    assert numbers(undrawn(config)) == numbers(loaded)


def test_a_baseline_of_another_network_is_refused(tmp_path):
    config = StudyConfig(out=tmp_path / "run", **SHORT)
    path = tmp_path / "fp32-s{seed}.safetensors"
    model = recipe.make_model(config, load_images(config)[0], 0)
    for seed, width in ((0, 4), (1, 8)):
        wide = dataclasses.replace(config, width=width)
        model = recipe.make_model(wide, load_images(config)[0], seed)
        checkpoint.export(str(path).replace("{seed}", str(seed)), model)
    with pytest.raises(ValueError, match=r"baselines, seed 1: .*another network"):
        undrawn(dataclasses.replace(config, baselines=str(path)))
    assert not config.out.exists()


@pytest.mark.slow
def test_a_study_is_extended_in_the_middle_of_training(
    short, finished, tmp_path, monkeypatch
):
    out = copy_of(short, tmp_path, len(short.rows()) - 1).path  # the last one is QAT
    partial, advance, stopped = "checkpoints/*-qat-s0-partial/*", Bar.advance, []

    def stop(self, images):
        if not stopped and list(out.glob(partial)):
            stopped.append(signal.raise_signal(signal.SIGTERM))
        advance(self, images)

    with monkeypatch.context() as patch:
        patch.setattr(Bar, "advance", stop)
        with pytest.raises(runs.PreemptedError):
            undrawn(StudyConfig(out=out, save_seconds=0.0, **SHORT))
    assert list(out.glob(partial))
    more = SHORT | dict(bits=OPTIONS["bits"])
    with pytest.raises(ValueError, match=r"bits is \[2\] there and \[2, 9\] now"):
        undrawn(StudyConfig(out=out, **more))
    extended = undrawn(StudyConfig(out=out, extend=True, **more))
    names = {name_row(row) for row in extended.rows()}
    in_one_go = [row for row in numbers(finished[0]) if name_row(row) in names]
    assert without_hash(numbers(extended)) == without_hash(in_one_go)
    info = extended.info()
    assert info["config"]["bits"] == list(OPTIONS["bits"])

    left_out = r"holds membrane-.*-b9-.*bits is \[2, 9\] there and \[2\] now"
    with pytest.raises(ValueError, match=left_out):
        undrawn(StudyConfig(out=out, extend=True, **SHORT))
    assert extended.info() == info
    seeds = SHORT | dict(seeds=(0,))
    with pytest.raises(ValueError, match="another config: seeds is "):
        undrawn(StudyConfig(out=out, extend=True, **seeds))


@pytest.mark.slow
def test_training_stopped_in_the_middle_goes_on_exactly(short, tmp_path, monkeypatch):
    copy = copy_of(short, tmp_path, 0)
    shutil.rmtree(copy.path / "checkpoints")
    advance, calls = Bar.advance, []

    def stop(self, images):
        calls.append(images)
        if len(calls) == 3:
            raise KeyboardInterrupt
        advance(self, images)

    with monkeypatch.context() as patch:
        patch.setattr(Bar, "advance", stop)
        with pytest.raises(KeyboardInterrupt) as kept:
            undrawn(StudyConfig(out=copy.path, save_seconds=0.0, **SHORT))
    assert kept.tb is not None, "its frames live on, as in a notebook"
    assert (copy.path / "checkpoints" / "fp32-s0-partial").is_dir()
    undrawn(StudyConfig(out=copy.path, **SHORT))
    assert numbers(copy) == numbers(short)


@pytest.mark.slow
def test_a_signal_saves_what_was_trained(short, tmp_path, monkeypatch):
    copy = copy_of(short, tmp_path, 0)
    shutil.rmtree(copy.path / "checkpoints")
    advance, calls = Bar.advance, []

    def stop(self, done):
        calls.append(done)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGTERM)
        advance(self, done)

    config = StudyConfig(out=copy.path, save_seconds=1e9, **SHORT)
    with monkeypatch.context() as patch:
        patch.setattr(Bar, "advance", stop)
        with pytest.raises(runs.PreemptedError) as stopped:
            undrawn(config)
    assert stopped.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert any((copy.path / "checkpoints").iterdir())
    undrawn(config)
    assert numbers(copy) == numbers(short)
    # The time of the run that was stopped is not lost.
    *_, cut, rest = copy.info()["starts"]
    assert cut["rows"] + rest["rows"] == len(copy.rows())
    assert min(cut["seconds"], rest["seconds"]) > 0


@pytest.mark.nightly
def test_a_control_tells_whether_its_firing_still_moves(tmp_path):
    options = SHORT | {"modes": ("ptq",), "seeds": (0,), "qat_epochs": 2}
    config = StudyConfig(out=tmp_path / "two", **options).resolve()
    _, control, *quantized = undrawn(config).rows()
    assert {row["emd_mean_epoch_before"] for row in quantized} == {None}
    # One epoch of its two, by hand.
    train_set, test_set = load_images(config)
    baseline = checkpoint.load(
        config.out / "checkpoints/fp32-s0.safetensors",
        recipe.make_model(config, train_set, 0),
    )
    per_epoch = train.steps_per_epoch(train_set, config.batch_size)
    schedule = train.cosine(2 * per_epoch, config.qat_learning_rate)
    run = train.steps(
        baseline,
        train_set,
        optimizer=train.sgd(schedule, weight_decay=config.weight_decay),
        steps=2 * per_epoch,
        seed=0,
        batch_size=config.batch_size,
        timesteps=config.timesteps,
    )
    for progress in itertools.islice(run, per_epoch):
        state = progress.state
    options = {"timesteps": config.timesteps, "batch_size": 128}
    before, after = (
        train.evaluate(model, test_set, **options).counts
        for model in (baseline, train.model_from_state(baseline, state))
    )
    expected = firing.report(before, after).emd_mean
    assert control["emd_mean_epoch_before"] == pytest.approx(expected, rel=1e-6)
    assert control["emd_mean"] != control["emd_mean_epoch_before"] != 0
    assert not list((config.out / "checkpoints").glob("*epoch-before*"))


@pytest.mark.slow
def test_ott_finds_the_same_distances(finished, tmp_path):
    options = SHORT | {"modes": ("ptq",), "seeds": (0,)}
    out = tmp_path / "ott"
    folder = undrawn(StudyConfig(out=out, emd="ott", **options))
    exact = {name_row(row): row for row in finished[0].rows()}
    assert len(folder.rows()) == 2 + 2
    for row in folder.rows():
        for layer, distance in row["emd"].items():
            same = exact[name_row(row)]["emd"][layer]
            assert math.isclose(distance, same, rel_tol=1e-5, abs_tol=1e-6)


@pytest.mark.nightly
def test_neuron_grid_and_site_can_be_chosen_and_every_row_says_so(
    tmp_path, monkeypatch
):
    chosen = ["--surrogate", "triangular", "--reset", "soft", "--site", "pre_fire"]
    chosen += ["--grid", "mid_tread", "--membrane-grid", "mid_rise"]
    chosen += ["--only", "membrane"]
    arguments = ["--tiny", "--width", "2", "--timesteps", "1", "--bits", "2"]
    arguments += ["--modes", "ptq", "--seeds", "0", "--out", str(tmp_path / "run")]
    monkeypatch.setattr("sys.argv", ["study", *arguments, *chosen])
    config = parse(StudyConfig, program="study")
    rows = {name_row(row): row for row in undrawn(config).rows()}
    assert len(rows) == 2 + 2
    for row in rows.values():
        assert (row["surrogate"], row["reset"]) == ("triangular", "soft")
    rise = rows["membrane-uniform-mid_rise-unsigned-prefire-clip1-b2-ptq-s0"]
    assert (rise["grid"], rise["site"]) == ("mid_rise", "pre_fire")
    assert {spec.grid for spec in grid(dataclasses.replace(config, only=None))} == {
        *("mid_tread", "mid_rise", None)
    }
    usual = recipe.make_model(StudyConfig(), load_images(config)[0], 0).sn1.neuron
    model = recipe.make_model(config, load_images(config)[0], 0)
    assert usual.get_value().v_reset == 0
    assert model.sn1.neuron.get_value().v_reset is None
    assert model.sn1.neuron.get_value().surrogate is surrogate.triangular


@pytest.mark.slow
def test_another_config_is_refused_and_nothing_changes(finished):
    folder, _ = finished
    before = folder.results.read_bytes(), (folder.path / "config.json").read_bytes()
    other = StudyConfig(out=folder.path, **(OPTIONS | {"learning_rate": 0.2}))
    with pytest.raises(ValueError, match=r"learning_rate is 0\.1 there and 0\.2 now"):
        study.run(other, quiet())
    after = folder.results.read_bytes(), (folder.path / "config.json").read_bytes()
    assert after == before


@pytest.mark.slow
@pytest.mark.parametrize(("epochs", "there"), [(1, 3), (2, 0)])
def test_dry_run_lists_what_is_left_of_the_same_run(short, tmp_path, epochs, there):
    copy, console = copy_of(short, tmp_path, 3), quiet()
    options = SHORT | dict(out=copy.path, epochs=epochs, dry_run=True)
    study.run(StudyConfig(**options), console)
    printed = console.file.getvalue()
    assert f"{there} of 8 rows are there" in printed
    assert ("fp32-s0" in printed) == (there == 0)
    assert "control-s1" in printed
    assert len(copy.rows()) == 3


@pytest.mark.slow
def test_dry_run_lists_the_rows_and_writes_nothing(tmp_path):
    console = quiet()
    config = StudyConfig(out=tmp_path / "dry", dry_run=True, **OPTIONS)
    study.run(config, console)
    printed = console.file.getvalue()
    assert "membrane-uniform-mid_tread-unsigned-clip1-b9-qat-s0" in printed
    assert "Expected time" in printed
    assert "MB" in printed
    assert not (tmp_path / "dry").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(dataset="cifar10", data_dir=Path("nowhere")), "download_and_prepare"),
        (dict(batch_size=10_000), "expected 1 to 1438, the number of training"),
    ],
)
def test_bad_input_is_one_error_and_nothing_is_written(tmp_path, options, message):
    out = tmp_path / "out"
    start = time.monotonic()
    with pytest.raises(ValueError, match=message):
        study.run(StudyConfig(out=out, **options), quiet())
    assert time.monotonic() - start < 1
    assert not out.exists()


@pytest.mark.slow
def test_the_command_line_says_what_is_wrong_in_one_line(tmp_path):
    command = [sys.executable, "-m", "experiments.study", "--out", str(tmp_path)]
    (tmp_path / "mine.txt").write_text("not a run")
    environment = os.environ | {"SNNJAX_KEEP_MEMORY": "0"}
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "not a run folder" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.slow
def test_networks_evaluated_together_have_the_rows_of_each_alone(
    finished, tmp_path, monkeypatch
):
    alone, _ = finished
    together = copy_of(alone, tmp_path, 0)
    kept = [
        row
        for row in alone.rows()
        if (row["mode"], row["target"]) != ("ptq", "membrane")
    ]
    together.results.write_text("".join(f"{json.dumps(row)}\n" for row in kept))
    monkeypatch.setattr("experiments.study.grid.MANY", 1)
    again = undrawn(StudyConfig(**OPTIONS, out=together.path))
    rows = {name_row(row): row for row in again.rows()}
    assert len(rows) > len(kept)
    for row in alone.rows():
        own = rows[name_row(row)]
        assert own | {"seconds": 0} == row | {"seconds": 0}
        ours, theirs = again.firing(own), alone.firing(row)
        for name, spikes in theirs.counts.spikes.items():
            np.testing.assert_array_equal(ours.counts.spikes[name], spikes)
