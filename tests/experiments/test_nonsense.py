"""Every option of every experiment, with a value that makes no sense."""

import dataclasses
import sys

import pytest

from experiments.benchmark import __main__ as benchmark
from experiments.emd_gradients import __main__ as emd_gradients
from experiments.report import __main__ as report
from experiments.study import __main__ as study

WORDS = {
    "study": {
        "dataset": ["mnist", ""],
        "data_dir": [],  # any path may come to be; a wrong one is below
        "model": ["resnet"],
        "width": ["0", "-1", "2.5", "wide", "nan"],
        "timesteps": ["0", "-4", "four"],
        "surrogate": ["relu"],
        "reset": ["none"],
        "decay_input": [],
        "epochs": ["0", "-1", "1e3"],
        "baselines": ["fp32-s0.safetensors", "none/{seed}.safetensors"],
        "qat_epochs": ["0", "x"],
        "seeds": ["0 0", "a", "1.5"],
        "only": ["bias"],
        "modes": ["ptq ptq", "finetune"],
        "bits": ["1", "17", "2 2", "two", "2.5"],
        "repeat": [],
        "qat_bits": ["3", "2 2", "two"],
        "repeat_qat_bits": ["2", "x"],  # without --repeat
        "ablation_bits": ["3", "4 4", "1.5"],
        "grid": ["even", "mid_rise mid_rise"],
        "membrane_grid": ["even", "mid_rise mid_rise"],
        "site": ["somewhere"],
        "quantize_all": [],
        "emd": ["l2"],
        "precision": ["low"],
        "batch_size": ["0", "-3", "100000"],
        "augment": [],
        "optimizer": ["lamb"],
        "schedule": ["step"],
        "warmup_epochs": ["1", "-1", "x"],  # of one cycle
        "cutout": ["-1", "x"],
        "warm_start": ["1", "-0.1", "nan"],
        "warm_start_timesteps": ["0", "x"],
        "average": ["1", "-0.1", "nan"],
        "held_out": ["-1", "100000"],
        "train_images": ["0", "x"],
        "label_smoothing": ["1", "-0.1", "nan", "some"],
        "learning_rate": ["0", "-1", "nan", "inf", "fast"],
        "qat_learning_rate": ["0", "-1", "nan", "inf"],
        "weight_decay": ["-1", "nan", "inf"],
        "out": [],  # any path may come to be
        "cache": [],
        "save_seconds": ["-1", "nan", "soon"],
        "on_nonfinite": ["ignore"],
        "silent_above": ["0", "-1", "1.5", "nan", "x"],
        "devices": ["0", "-1", "all"],
        "coordinator": ["localhost"],  # without the other two
        "num_processes": ["2", "0", "some"],
        "process_id": ["0", "first"],
        "dry_run": [],
        "extend": [],
        "tiny": [],
    },
}
COMMANDS = {"study": study, "benchmark": benchmark, "emd_gradients": emd_gradients}


def no_cluster(*_, **options):
    """What JAX does where it sees none, in a process that has begun already."""
    raise ValueError("coordinator_address should be defined.")


def last_words(module, arguments, monkeypatch, capsys) -> tuple[object, str]:
    monkeypatch.setattr(sys, "argv", ["command", *arguments])
    monkeypatch.setattr("snnjax.process.tune", lambda: None)
    monkeypatch.setattr("snnjax.compilation_cache.enable", lambda *_: None)
    monkeypatch.setattr("jax.distributed.initialize", no_cluster)
    with pytest.raises(SystemExit) as ended:
        module.main()
    code = ended.value.code
    if isinstance(code, str):
        return 1, code
    return code, capsys.readouterr().err


def assert_said(code, said):
    assert code not in (0, None)
    assert said.strip()
    assert "Traceback" not in said


def test_the_table_has_every_option():
    fields = {field.name for field in dataclasses.fields(study.StudyConfig)}
    assert set(WORDS["study"]) == fields


@pytest.mark.parametrize(
    ("option", "value"),
    [(o, v) for o, values in WORDS["study"].items() for v in values],
)
def test_a_study_refuses(option, value, tmp_path, monkeypatch, capsys):
    arguments = [f"--{option.replace('_', '-')}", *(value.split() or [""])]
    arguments += ["--out", str(tmp_path / "run")]
    code, said = last_words(study, arguments, monkeypatch, capsys)
    assert_said(code, said)
    # By its name, as it is typed or as the config has it.
    assert option.replace("_", "-") in said.replace("_", "-")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("module", COMMANDS.values(), ids=COMMANDS)
def test_an_option_that_is_not_there(module, monkeypatch, capsys):
    code, said = last_words(module, ["--speed", "9"], monkeypatch, capsys)
    assert_said(code, said)
    assert "--speed" in said


@pytest.mark.parametrize(
    ("module", "arguments", "names"),
    [
        (benchmark, ["--only", "everything"], "only"),
        (benchmark, ["--runs", "0"], "runs"),
        (benchmark, ["--batch", "-1"], "batch"),
        (benchmark, ["--timesteps", "0"], "timesteps"),
        (benchmark, ["--networks", "vgg"], "vgg"),
        (benchmark, ["--python", "spyx"], "spyx"),
        (benchmark, ["--against", "brian"], "against"),
        (report, ["nowhere"], "nowhere"),
        (report, [], "run"),
        (study, ["--dataset", "cifar10", "--data-dir", "nowhere"], "nowhere"),
    ],
)
def test_others_refuse(module, arguments, names, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, said = last_words(module, arguments, monkeypatch, capsys)
    assert_said(code, said)
    assert names in said.lower()
    assert not list(tmp_path.iterdir())
