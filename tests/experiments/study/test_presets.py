"""Studies by name, and the rows of repeated seeds and of the ablation."""

import collections
import dataclasses
import sys

import pytest
from flax import nnx

from experiments.command_line import parse
from experiments.study.config import StudyConfig
from experiments.study.grid import grid, planned
from experiments.study.presets import PRESETS, presets
from experiments.study.recipe import ALL_MEMBRANES, ALL_WEIGHTS
from snnjax import calibrate, models
from snnjax.quantize import QuantSpec


def asked(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["study", *words])
    there = presets(tiny="--tiny" in words)
    return parse(StudyConfig, program="study", description="A study.", presets=there)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_config_that_options_override(monkeypatch, name):
    assert asked(monkeypatch, "--preset", name) == PRESETS[name]
    mine = asked(monkeypatch, "--epochs", "9", f"--preset={name}", "--seeds", "7")
    assert (mine.epochs, mine.seeds) == (9, (7,))
    assert mine.model == PRESETS[name].model


def test_without_a_preset_the_defaults_are_as_before(monkeypatch):
    assert asked(monkeypatch) == StudyConfig()


def test_an_unknown_preset_is_refused_with_those_there_are(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        asked(monkeypatch, "--preset", "paper")
    said = capsys.readouterr().err
    assert all(name in said for name in PRESETS)


def test_help_names_the_presets(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        asked(monkeypatch, "--help")
    said = capsys.readouterr().out
    assert all(name in said for name in PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_can_be_tried_tiny(monkeypatch, name):
    config = asked(monkeypatch, "--preset", name, "--tiny").resolve()
    assert set(config.qat_bits or config.bits) <= set(config.bits) == {2, 8}
    assert (config.epochs, config.qat_epochs, config.warmup_epochs) == (1, 1, 0)
    assert config.model == PRESETS[name].model
    mine = asked(monkeypatch, "--tiny", "--preset", name, "--epochs", "9").resolve()
    assert (mine.epochs, mine.qat_epochs) == (9, 1)


@pytest.mark.parametrize("preset", [[], ["--preset", "paper-cifar10"]])
def test_an_optimizer_brings_its_learning_rates(monkeypatch, preset):
    def rates(*words):
        config = asked(monkeypatch, *preset, *words).resolve()
        return config.learning_rate, config.qat_learning_rate

    assert rates() == (0.1, 0.01)
    assert rates("--optimizer", "adamw") == (0.001, 0.0001)
    words = ["--optimizer", "adamw", "--learning-rate", "0.003"]
    assert rates(*words) == (0.003, 0.0001)


@pytest.mark.parametrize("name", PRESETS)
def test_rows_have_names_of_their_own(name):
    rows = planned(PRESETS[name])
    assert len({row.name for row in rows}) == len(rows)


def count(rows, *keys):
    return collections.Counter(tuple(getattr(row, key) for key in keys) for row in rows)


def test_the_papers_grid_is_run_by_every_seed():
    config = PRESETS["paper-cifar100"]
    rows = [row for row in grid(config) if not ablation(row, config)]
    assert count(rows, "seed", "mode") == {
        (seed, mode): number
        for seed in (0, 1, 2)
        for mode, number in {"ptq": 32, "ptq_bn": 32, "qat": 40}.items()
    }


def ablation(row, config):
    site = row.site or config.site
    return row.quantize_all != config.quantize_all or site != config.site


def test_dear_rows_are_fewer_where_that_is_asked_for():
    config = PRESETS["paper-small"]
    rows = [row for row in grid(config) if not ablation(row, config)]
    trained = [row for row in rows if row.mode == "qat"]
    assert count(trained, "seed", "bits") == {(0, 2): 8, (0, 4): 8, (1, 2): 8}
    assert count(rows, "seed", "mode")[1, "ptq"] == 32


def test_the_ablation_is_the_other_site_and_scope_of_the_first_seed():
    config = PRESETS["paper-small"]
    others = [row for row in grid(config) if ablation(row, config)]
    assert count(others, "target", "site", "quantize_all", "seed", "bits") == {
        ("weights", None, True, 0, 2): 18,
        ("weights", None, True, 0, 4): 18,
        ("membrane", "pre_fire", False, 0, 2): 6,
        ("membrane", "pre_fire", False, 0, 4): 6,
    }
    # What differs from the main grid is that alone.
    names = {row.name for row in grid(config)}
    for row in others:
        plain = dataclasses.replace(
            row, quantize_all=False, site=row.site and config.site
        )
        assert plain.name in names


@pytest.mark.parametrize("name", ["weight_quant", "membrane_quant"])
def test_everywhere_is_what_a_model_means_by_quantize_all(name):
    spec = QuantSpec(bits=4, clip=1.0, grid="mid_tread")
    made = {"width": 2, "rngs": nnx.Rngs(0)}
    rule = ALL_WEIGHTS if name == "weight_quant" else ALL_MEMBRANES
    quantized = calibrate.quantize(models.sew_resnet8(10, **made), {rule: spec})
    wanted = models.sew_resnet8(10, **{name: spec}, quantize_all=True, **made)
    assert calibrate.layer_bits(quantized) == calibrate.layer_bits(wanted)
    blocks = models.sew_resnet8(10, **{name: spec}, **made)
    assert calibrate.layer_bits(quantized) != calibrate.layer_bits(blocks)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"qat_bits": (3,)}, "qat_bits must be some of bits"),
        ({"ablation_bits": (2, 2)}, "ablation_bits must be some of bits .*each once"),
        ({"repeat_qat_bits": (2,)}, "repeat_qat_bits needs repeat"),
        ({"warmup_epochs": 3}, "warmup_epochs is of the cosine schedule"),
        ({"warmup_epochs": 30, "schedule": "cosine"}, "within 0 and the 30 epochs"),
        ({"label_smoothing": 1.0}, "label_smoothing must lie within"),
        ({"optimizer": "lamb"}, "optimizer must be one of .*'lamb'"),
        ({"schedule": "step"}, "schedule must be one of .*'step'"),
    ],
)
def test_bad_plans_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        StudyConfig(**options)
