"""A study's configuration, and the rows that follow from it."""

import dataclasses
import errno
import inspect
import json
import os
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from experiments.command_line import parse, run_as_command
from experiments.study.config import StudyConfig
from experiments.study.grid import CLIPS, grid, references
from snnjax import process, surrogate

KEYS = ["target", "method", "grid", "clip", "signed", "site", "quantize_all", "bits"]
KEYS += ["mode", "seed"]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("bits", (2, 1), "2..16.*got 1$"),
        ("bits", (17,), "2..16.*got 17$"),
        ("bits", (), "bits must be given"),
        ("bits", (4, 4), "each value once"),
        ("dataset", "mnist", "dataset must be one of .*digits.*'mnist'"),
        ("model", "resnet18", "model must be one of .*sew_resnet8.*'resnet18'"),
        ("modes", ("ptq", "lsq"), "modes must be one of .*'lsq'"),
        ("modes", (), "modes must be given"),
        ("only", "both", "only must be one of .*'both'"),
        ("surrogate", "custom", "surrogate must be one of .*'atan'.*'custom'"),
        ("reset", "zero", "reset must be one of .*'zero'"),
        ("site", "post", "site must be one of .*'post'"),
        ("grid", ("mid_rise", "uniform"), "grid must be one of .*'uniform'"),
        ("grid", (), "grid must be given"),
        ("membrane_grid", ("none",), "membrane_grid must be one of .*'none'"),
        ("membrane_grid", (), "membrane_grid must be given"),
        ("emd", "scipy", "emd must be one of"),
        ("precision", "high", "precision must be one of"),
        ("timesteps", 0, "timesteps must be at least 1, got 0"),
        ("width", 0, "width must be at least 1"),
        ("epochs", -1, "epochs must be at least 1"),
        ("qat_epochs", 0, "qat_epochs must be at least 1"),
        ("batch_size", 0, "batch_size must be at least 1"),
        ("seeds", (), "seeds must be given"),
        ("seeds", (3, 3), "each value once; got .3, 3"),
        ("learning_rate", 0.0, "learning_rate must be positive"),
        ("qat_learning_rate", float("nan"), "qat_learning_rate must be positive"),
        ("weight_decay", -1e-4, "weight_decay must be >= 0"),
        ("baselines", "fp32-s0.safetensors", "path with .seed. in it.*'fp32-s0"),
    ],
)
def test_bad_values_are_refused(field, value, said):
    with pytest.raises(ValueError, match=said):
        StudyConfig(**{field: value})


def test_hash_leaves_out_where_things_lie():
    config = StudyConfig()
    there = StudyConfig(out=Path("a"), data_dir=Path("b"), dry_run=True, cache=None)
    assert there.hash() == config.hash()
    assert there.numbers() == config.numbers()
    for one in (config, StudyConfig(tiny=True), StudyConfig(optimizer="adamw")):
        assert one.resolve().hash() == one.hash()
    assert len(config.hash()) == 12


CHANGED = {
    "dataset": "cifar10",
    "model": "sew_resnet18",
    "width": 8,
    "timesteps": 8,
    "epochs": 4,
    "qat_epochs": 1,
    "seeds": (0,),
    "only": "weights",
    "modes": ("qat",),
    "bits": (2, 4),
    "surrogate": "triangular",
    "reset": "soft",
    "grid": ("mid_tread",),
    "membrane_grid": ("mid_rise",),
    "site": "pre_fire",
    "quantize_all": True,
    "repeat": True,
    "qat_bits": (4,),
    "repeat_qat_bits": (2,),
    "warmup_epochs": 1,
    "ablation_bits": (2,),
    "optimizer": "adamw",
    "schedule": "cosine",
    "label_smoothing": 0.1,
    "augment": False,
    "emd": "ott",
    "precision": "default",
    "batch_size": 8,
    "learning_rate": 0.2,
    "qat_learning_rate": 0.02,
    "weight_decay": 0.0,
    "on_nonfinite": "skip",
    "cutout": 8,
    "decay_input": False,
    "warm_start": 0.5,
    "warm_start_timesteps": 2,
    "average": 0.9,
    "held_out": 10,
    "train_images": 100,
    "tiny": True,
}


# What these can only be given with.
WITH = {"repeat_qat_bits": {"repeat": True}, "warmup_epochs": {"schedule": "cosine"}}


def test_hash_changes_with_everything_else():
    fields = {field.name for field in dataclasses.fields(StudyConfig)}
    places = {"out", "data_dir", "dry_run", "cache", "save_seconds"}
    places |= {"silent_above", "devices", "coordinator", "num_processes", "process_id"}
    places |= {"extend"}
    assert set(CHANGED) == fields - places - {"baselines"}
    for key, value in CHANGED.items():
        plain = StudyConfig(**WITH.get(key, {}))
        assert dataclasses.replace(plain, **{key: value}).hash() != plain.hash(), key


def test_hash_of_loaded_baselines_leaves_out_how_others_are_trained():
    loaded = StudyConfig(baselines="a/{seed}.safetensors")
    assert loaded.hash() != StudyConfig().hash()
    assert loaded.hash() != StudyConfig(baselines="b/{seed}.safetensors").hash()
    training = ("epochs", "schedule", "warmup_epochs", "learning_rate", "average")
    for key in (*training, "warm_start", "warm_start_timesteps"):
        options = WITH.get(key, {}) | {key: CHANGED[key]}
        assert dataclasses.replace(loaded, **options).hash() == loaded.hash(), key


@pytest.mark.parametrize(
    "config",
    [
        StudyConfig(),
        StudyConfig(**CHANGED),
        StudyConfig(baselines="runs/a/checkpoints/fp32-s{seed}.safetensors"),
    ],
)
def test_numbers_survive_json(config):
    numbers = json.loads(json.dumps(config.numbers()))
    assert StudyConfig.from_numbers(numbers) == config
    assert StudyConfig.from_numbers(numbers | {"of another version": 1}) == config


def test_resolve_names_the_run_folder():
    assert StudyConfig(width=8).resolve().out == Path("runs/digits-sew_resnet8-w8")
    assert StudyConfig(out=Path("mine"), tiny=True).resolve().out == Path("mine")


def test_tiny_is_small():
    config = StudyConfig(tiny=True).resolve()
    assert config.out == Path("runs/digits-sew_resnet8-w16-tiny")
    assert (config.epochs, config.qat_epochs, config.bits) == (1, 1, (2, 8))
    assert config.batch_size == StudyConfig().batch_size
    assert config.resolve() == config
    assert len(grid(config)) == 16 * 3


def test_tiny_does_not_drop_what_was_asked_for():
    with pytest.raises(ValueError, match=r"tiny has the bits \(2, 8\), and qat_bits"):
        StudyConfig(tiny=True, qat_bits=(4, 6)).resolve()
    assert StudyConfig(tiny=True, qat_bits=(2, 4)).resolve().qat_bits == (2,)
    assert StudyConfig(tiny=True, qat_bits=()).resolve().qat_bits == ()


def test_grid_is_the_papers_in_three_modes():
    rows = grid(StudyConfig())
    assert len(rows) == 32 * 3
    assert len({row.name for row in rows}) == 96
    assert all(list(row.to_row()) == KEYS for row in rows)
    assert {row.seed for row in rows} == {0}
    weights = [row for row in rows if row.target == "weights"]
    assert {(row.method, row.grid) for row in weights} == {
        ("uniform", "mid_rise"),
        ("uniform", "mid_tread"),
        ("lq_net", None),
    }
    assert {row.clip for row in weights} == set(CLIPS.values()) == {1.0, 10.0}
    assert {(row.signed, row.site) for row in weights} == {(True, None)}
    membranes = [row for row in rows if row.target == "membrane"]
    assert len(weights) + len(membranes) == 96
    assert {(r.method, r.grid, r.clip, r.site) for r in membranes} == {
        ("uniform", "mid_tread", 1.0, "post_reset")
    }
    assert {row.signed for row in membranes} == {True, False}


def test_grid_and_site_are_those_asked_for():
    options = dict(grid=("mid_tread",), membrane_grid=("mid_rise",), site="pre_fire")
    rows = grid(StudyConfig(**options))
    found = {(r.target, r.method, r.grid, r.site) for r in rows}
    assert found == {
        ("weights", "uniform", "mid_tread", None),
        ("weights", "lq_net", None, None),
        ("membrane", "uniform", "mid_rise", "pre_fire"),
    }


def test_membranes_may_have_lq_nets_levels():
    """Up to 8 bits: they are kept in a table."""
    config = StudyConfig(membrane_grid=("lq_net",), only="membrane", bits=(2, 8, 9))
    rows = grid(config)
    assert {(r.method, r.grid, r.bits) for r in rows} == {
        ("lq_net", None, bits) for bits in (2, 8)
    }
    # The number of basis vectors is a shape: each has programs of its own.
    assert len({row.compile_key for row in rows}) == 2 * 2


def test_every_surrogate_of_the_library_can_be_chosen():
    surrogates = get_args(get_type_hints(StudyConfig)["surrogate"])
    public = {name for name, f in vars(surrogate).items() if inspect.isfunction(f)}
    public = {name for name in public if not name.startswith("_")}
    assert set(surrogates) == public - {"custom"}
    for name in surrogates:
        assert getattr(surrogate, name)(1.0) == 1


def test_rows_of_one_program_lie_together():
    ptq, qat = (
        grid(StudyConfig(modes=modes)) for modes in (("ptq", "ptq_bn"), ("qat",))
    )
    for rows in (ptq, qat):
        programs = [(r.target, r.method, r.grid, r.signed) for r in rows]
        shifted = [None, *programs]
        starts = [a for a, b in zip(programs, shifted, strict=False) if a != b]
        assert len(starts) == len(set(programs)) == 5
    first = ptq[:16]
    assert [row.clip for row in first] == [1.0] * 8 + [10.0] * 8
    assert [row.bits for row in first] == [2, 2, 4, 4, 6, 6, 8, 8] * 2
    assert [row.mode for row in first] == ["ptq", "ptq_bn"] * 8
    assert [row.clip for row in qat[:8]] == [1.0] * 4 + [10.0] * 4
    assert [row.bits for row in qat[:8]] == [2, 4, 6, 8] * 2


def test_what_needs_no_training_comes_first():
    config = StudyConfig(seeds=(0, 1), repeat=True, ablation_bits=(2,))
    modes = [row.mode for row in grid(config)]
    first = modes.index("qat")
    assert set(modes[:first]) == {"ptq", "ptq_bn"}
    assert set(modes[first:]) == {"qat"}
    assert grid(config)[first:] == grid(dataclasses.replace(config, modes=("qat",)))


def test_grid_can_be_restricted():
    config = StudyConfig(modes=("qat",), bits=(2, 8, 16), seeds=(7, 1))
    both = [grid(dataclasses.replace(config, only=t)) for t in ("weights", "membrane")]
    assert [*both[0], *both[1]] == grid(config)
    assert {row.seed for row in grid(config)} == {7}
    # LQ-Net's table of levels ends at 8 bits.
    lq_net = [row.bits for row in both[0] if row.method == "lq_net"]
    assert lq_net == [2, 8, 2, 8]
    assert [row.bits for row in both[1]] == [2, 8, 16] * 2


def test_references_are_all_baselines_then_what_they_do_alone():
    rows = references(StudyConfig(seeds=(0, 5, 2), only="membrane"))
    names = [row.name for row in rows]
    modes = ("fp32", "control", "fp32_bn")
    assert names == [f"{mode}-s{seed}" for mode in modes for seed in (0, 5, 2)]
    for row in rows:
        assert list(row.to_row()) == KEYS
        assert row.target == "none"
        assert {row.to_row()[key] for key in KEYS[1:-2]} == {None}


def test_parse_reads_the_command_line(monkeypatch):
    words = "study --only weights --bits 2 8 --modes qat --seeds 3 --out a/b --tiny"
    monkeypatch.setattr("sys.argv", words.split())
    assert parse(StudyConfig, program="study") == StudyConfig(
        only="weights",
        bits=(2, 8),
        modes=("qat",),
        seeds=(3,),
        out=Path("a/b"),
        tiny=True,
    )


@pytest.mark.parametrize(
    ("refused", "said"),
    [
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/results.jsonl"),
            "error: runs/results.jsonl: No space left on device; make room there. "
            "Finished results are kept, and the same command resumes",
        ),
        (
            OSError(errno.EACCES, os.strerror(errno.EACCES), "runs"),
            "error: runs: Permission denied; give a folder that you may read and "
            "write. Finished results are kept, and the same command resumes",
        ),
        (OSError("a checkpoint could not be"), "error: a checkpoint could not be"),
        (ImportError("digits come with scikit"), "error: digits come with scikit"),
    ],
)
def test_what_the_system_refuses_is_one_sentence(monkeypatch, refused, said):
    def run(_):
        raise refused

    monkeypatch.setattr("sys.argv", ["study", "--cache", "None"])
    monkeypatch.setattr(process, "tune", lambda: None)
    with pytest.raises(SystemExit) as ended:
        run_as_command(run, StudyConfig, program="study")
    assert ended.value.code == said  # a string: Python prints it and exits with 1


def test_what_does_not_go_on_does_not_say_so(monkeypatch):
    def run(_):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), "a/b")

    monkeypatch.setattr("sys.argv", ["benchmark", "--cache", "None"])
    monkeypatch.setattr(process, "tune", lambda: None)
    with pytest.raises(SystemExit) as ended:
        run_as_command(run, StudyConfig, program="benchmark", resumes=False)
    assert ended.value.code == "error: a/b: Not a directory; give a folder, not a file"


@pytest.mark.parametrize("others", [(), ("mid_rise",), ("mid_tread",)])
def test_untrained_lq_net_membranes_are_no_twins_of_mid_tread(others):
    rows = grid(StudyConfig(membrane_grid=(*others, "lq_net"), only="membrane"))
    modes = {row.mode for row in rows if row.method == "lq_net"}
    assert modes == ({"qat"} if "mid_tread" in others else {"ptq", "ptq_bn", "qat"})
