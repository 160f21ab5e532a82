import dataclasses
import io
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from rich.console import Console

from experiments.beyond import __main__ as beyond
from experiments.beyond import (
    arms,
    comparison,
    findings,
    losses,
    report,
    sensitivity,
    tuning,
)
from experiments.beyond.config import PRESETS, BeyondConfig
from experiments.beyond.networks import Networks
from snnjax import calibrate, checkpoint, data, distill, models, train
from snnjax.quantize import QuantSpec

RESULTS = Path(__file__).parents[3] / "docs" / "results"


def row(quantizer, arm, seed, emd, accuracy=0.9, part="ptq"):
    spec = arms.RunSpec(part, quantizer, arm, seed)
    measures = {"emd_mean": emd, "paired_shift_mean": 2 * emd, "time_w1_mean": 0.1}
    rest = {"accuracy": accuracy, "operations": 50.0, "seconds": 3.0, "versions": {}}
    place = {"part": part, "quantizer": quantizer, "arm": arm, "seed": seed}
    return place | measures | rest | {"name": spec.name}


def test_names_of_rows_are_unique_file_names():
    specs = arms.list_specs(BeyondConfig(seeds=(0, 1)))
    names = [spec.name for spec in specs]
    assert len(set(names)) == len(names)
    assert not any(set(name) & set('/\\ ,()"') for name in names)
    assert {spec.part for spec in arms.list_specs(BeyondConfig(only="qat"))} == {"qat"}


def test_ratios_are_of_the_same_seed():
    rows = [
        row("a", arms.PTQ_BN, 0, 0.1),
        row("a", arms.PTQ_BN, 1, 0.2),
        row("a", arms.BEST, 0, 0.05, accuracy=0.91),
        row("a", arms.BEST, 1, 0.05, accuracy=0.91),
    ]
    base = [
        {"part": "fp32", "seed": s, "operations": 100.0, "accuracy": 0.9}
        | {"mean_rate": 0.1, "floor_sampling": 0.001}
        for s in (0, 1)
    ]
    [first, best] = report._lines(rows, base, arms.PTQ_BN)
    assert first["ratio"] == "1.00"
    # The mean of 1/2 and 1/4, and 12.7 / sqrt(2) of their standard deviation.
    assert best["ratio"] == best["ratio of it"] == "0.38 ± 1.59"
    assert best["operations"] == "0.500"
    [line] = comparison.compare_arms(rows, arms.PTQ_BN).to_dict("records")
    assert line["emd_mean"] == line["paired_shift_mean"] == pytest.approx(0.375)
    assert line["accuracy"] == pytest.approx(1)
    assert not line["below"]  # two seeds so far apart decide nothing
    pages = (report.to_markdown, report.to_details)
    assert all(arms.BEST in page([*base, *rows], BeyondConfig()) for page in pages)


def test_a_difference_in_every_seed_is_below():
    ratios = {"near": (0.5, 0.51, 0.52), "far": (0.9, 0.7, 1.1)}
    rows = [row("a", arms.PTQ_BN, seed, 0.1) for seed in range(3)]
    rows += [
        row("a", arm, seed, ratio * 0.1)
        for arm, own in ratios.items()
        for seed, ratio in enumerate(own)
    ]
    found = comparison.compare_arms(rows, arms.PTQ_BN).set_index("arm")["below"]
    assert found.to_dict() == {"near": True, "far": False}
    assert comparison.compare_arms(rows[:3], arms.PTQ_BN).empty


def test_a_chain_is_compared_with_chains():
    """A rival that is calibrated too counts against the chain, not against training."""
    rival = "membranes (as MD-SNN)"
    emds = {losses.PLAIN: 0.1, losses.KEPT: 0.05, rival: 0.06}
    emds |= {losses.KEPT_AND_MATCHED: 0.04, f"{rival}, fire_match": 0.03}
    rows = [
        row("a", arm, seed, emd * (1 + seed / 100), part="qat")
        for arm, emd in emds.items()
        for seed in range(3)
    ]
    _, alone, _, chained = findings.judge_losses(rows)
    assert alone.startswith(f"{losses.KEPT} is below the best")
    assert chained.startswith(f"{losses.KEPT_AND_MATCHED} is below the best")
    assert "1 of 1 quantizers" in alone
    assert "0 of 1 quantizers (not with a)" in chained
    one_seed = [row for row in rows if row["seed"] == 0]
    assert not findings.judge_losses(one_seed)


def test_what_failed_is_told():
    failed = {"part": "qat", "quantizer": "a", "arm": "b", "seed": 3, "failed": "so"}
    [sentence] = findings.list_failed([failed], "qat")
    assert "a b (seed 3)" in sentence
    rows = [row("a", arm, 0, 0.1, part="qat") for arm in (losses.PLAIN, losses.KEPT)]
    rows.append(failed)
    base = {"part": "fp32", "seed": 0, "operations": 100.0, "accuracy": 0.9}
    base |= {"mean_rate": 0.1, "floor_sampling": 0.001}
    assert sentence in report.to_markdown([base, *rows], BeyondConfig())


def test_what_decides_results_decides_the_hash():
    config = BeyondConfig().resolve()
    assert config.hash() == BeyondConfig(seeds=(7,), only="ptq").resolve().hash()
    assert config.hash() != BeyondConfig(images=64).resolve().hash()
    assert PRESETS["small"].study().dataset == "cifar10"
    for wrong in ({"width": 0}, {"images": 0}, {"seeds": ()}, {"train_images": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            BeyondConfig(**wrong)


def test_a_dry_run_lists_the_rows_and_writes_nothing(tmp_path):
    out, text = tmp_path / "run", io.StringIO()
    config = BeyondConfig(dry_run=True, out=out, only="qat", seeds=(0,))
    beyond.run(config, Console(file=text))
    assert not out.exists()
    number = len(arms.TRAINED) * len(losses.LOSSES | losses.MATCHED_AFTER) + 1
    # Three quantizers are uniform.
    number += 3 * len(losses.SCALED_FIRST)
    assert f"{number} rows, {number} missing" in text.getvalue()


def test_rows_measured_together_are_of_one_baseline_and_not_trained():
    specs = arms.list_specs(BeyondConfig(seeds=(0, 1)))
    groups = list(beyond.list_groups(specs, images=10_000))
    assert [spec for group in groups for spec in group] == specs
    for group in groups:
        assert len({(s.part, s.quantizer, s.seed) for s in group}) == 1
        assert len(group) == 1 or group[0].part not in arms.TRAINING
    assert max(map(len, groups)) == 4
    assert all(len(group) == 1 for group in beyond.list_groups(specs, images=359))


def test_networks_train_on_the_images_asked_for(tmp_path):
    config = BeyondConfig(train_images=96, out=tmp_path).resolve()
    assert len(Networks(config, tmp_path).train_set) == 96
    rows = [row("a", arm, 0, 0.1, part="qat") for arm in (losses.PLAIN, losses.KEPT)]
    text = report.to_markdown(rows, config)
    assert "4 epochs of 96 training images" in text


def test_rounding_is_learned_for_kernels_of_few_levels_on_digits():
    few = {
        spec.quantizer
        for spec in arms.list_specs(BeyondConfig(only="ptq"))
        if spec.arm in arms.RECONSTRUCTED
    }
    assert all(arms.find_quantizer(name).spec.bits <= 3 for name in few)
    assert not any("membrane" in name for name in few)
    assert len(few) == 5
    cifar = arms.list_specs(PRESETS["small"])
    assert not any(spec.arm in arms.RECONSTRUCTED for spec in cifar)


def test_baselines_of_cifar_are_the_published_ones(tmp_path, monkeypatch):
    digits = data.load("digits", "test")
    monkeypatch.setattr(data, "load", lambda *_, **__: digits)
    config = dataclasses.replace(PRESETS["small"], baselines=tmp_path).resolve()
    made = Networks(config, tmp_path)
    name = "cifar10-sew_resnet8-w64-s1"
    with pytest.raises(ValueError, match=f"{name}.*must hold the baseline"):
        made.baseline(1)
    model = models.sew_resnet8(10, width=2, in_channels=1, rngs=nnx.Rngs(0))
    checkpoint.export(tmp_path / f"{name}.safetensors", model)
    assert made.baseline(1).conv1.kernel.shape == model.conv1.kernel.shape


def test_the_numbers_of_least_score_that_keep_accuracy_are_chosen():
    """Of three trials the nearest costs 2 points, so that the second is chosen."""
    arm = losses.KEPT
    names = [name for name, (a, _) in losses.TRIALS.items() if a == arm][:3]
    rows = []
    for seed in arms.TUNING_SEEDS:
        found = zip(names, (0.08, 0.05, 0.01), (0.9, 0.9, 0.88), strict=True)
        rows += [row("a", n, seed, emd, acc, "tune") for n, emd, acc in found]
        rows.append(row("a", losses.PLAIN, seed, 0.1, part="tune"))
    scores = tuning.score_trials(rows)
    assert scores[names[1]]["score"] == pytest.approx(0.5)
    assert tuning.choose_trials(rows) == {arm: losses.TRIALS[names[1]][1]}


def test_figures_are_drawn_of_what_is_measured(tmp_path):
    rows = [
        row(arms.name_budget(bits), arm, seed, 0.1 / bits, part="memory")
        for bits in arms.BUDGETS
        for arm in (arms.SAME_BITS, arms.ALLOCATED)
        for seed in (0, 1)
    ]
    rows += [row("a", arm, 0, 0.1, part="inputs") for arm in arms.INPUTS]
    base = {"part": "fp32", "operations": 100.0, "accuracy": 0.9, "mean_rate": 0.1}
    rows += [base | {"seed": seed, "floor_sampling": 0.001} for seed in (0, 1)]
    files = report.make_files(rows, BeyondConfig())
    pages = {"beyond.md", "beyond_details.md"}
    assert set(files) == pages | {"beyond/memory.png", "beyond/inputs.png"}
    text = files["beyond.md"].decode()
    assert all(f"({name})" in text for name in files if name.endswith(".png"))
    assert set(report.make_files(rows[-2:], BeyondConfig())) == pages


@pytest.mark.slow
def test_sensitivities_are_of_each_kernel_alone():
    """By hand in float64: the mean squared gradient of a kernel, times its rounding."""
    digits = data.load("digits", "train", limit=6)
    model = models.sew_resnet8(10, width=2, in_channels=1, rngs=nnx.Rngs(0))
    kernel, bits = "layer1.0.conv1", 3
    found = sensitivity.measure_fisher(model, digits, [kernel])
    graphdef, params, rest = train.split(model)

    @jax.jit
    @jax.grad
    def slope(params, x, labels):
        network = nnx.merge(graphdef, params, rest, copy=True)
        network.eval()
        return train.cross_entropy(network(x)[0], labels)

    squares = 0.0
    for i in range(len(digits.images)):
        one = slice(i, i + 1)
        x = data.normalize(digits.images[one], digits.mean, digits.std)
        own = slope(params, x, digits.labels[one])["layer1"][0]["conv1"]["kernel"]
        squares += np.asarray(own.get_value(), float) ** 2 / len(digits.images)
    w = np.asarray(model.layer1[0].conv1.kernel.get_value())
    spec = QuantSpec(bits=bits, clip="mse")
    rounded = calibrate.quantize(model, {kernel.replace(".", r"\."): spec})
    q = np.asarray(rounded.layer1[0].conv1.quantized_kernel(), float)
    expected = np.sum(squares * (w - q) ** 2) / 2
    assert found[kernel][bits] == pytest.approx(expected, rel=1e-4)
    assert expected > 0
    lost = sensitivity.measure_accuracy_lost(model, digits, [kernel])
    assert set(lost[kernel]) == set(sensitivity.BITS)
    assert all(-1 <= cost <= 1 for cost in lost[kernel].values())


@pytest.mark.nightly
def test_a_run_resumes_and_measures_together_what_it_does_alone(tmp_path, monkeypatch):
    quiet = Console(file=io.StringIO())
    config = BeyondConfig(tiny=True, out=tmp_path / "run", only="ptq", cache=None)
    beyond.run(config, quiet)
    results = (tmp_path / "run" / "results.jsonl").read_bytes()
    assert len(results.splitlines()) == 1 + len(arms.list_specs(config.resolve()))
    beyond.run(config, quiet)
    assert (tmp_path / "run" / "results.jsonl").read_bytes() == results
    assert "fire_match" in (tmp_path / "run" / "beyond.md").read_text()
    monkeypatch.setattr("experiments.study.grid.MANY", 1)
    beyond.run(dataclasses.replace(config, out=tmp_path / "two"), quiet)
    rows = [
        {json.loads(line)["name"]: json.loads(line) | {"seconds": 0} for line in lines}
        for lines in (
            results.splitlines(),
            (tmp_path / "two" / "results.jsonl").read_bytes().splitlines(),
        )
    ]
    assert rows[0] == rows[1]


@pytest.mark.slow
def test_a_calibrated_arm_takes_the_trained_network(tmp_path, monkeypatch):
    config = BeyondConfig(tiny=True, out=tmp_path).resolve()
    networks = Networks(config, tmp_path)
    baseline = models.sew_resnet8(10, width=2, in_channels=1, rngs=nnx.Rngs(0))
    quantizer = arms.TRAINED[0]
    trained, chained = (
        arms.RunSpec("qat", quantizer.name, arm, 0)
        for arm in (losses.PLAIN, f"{losses.PLAIN}, fire_match")
    )
    model = calibrate.quantize(baseline, quantizer.rules)
    kernel = model.conv1.kernel.get_value() + 0.25
    model.conv1.kernel.set_value(kernel)
    calls = []
    monkeypatch.setattr(train, "fit", lambda *args, **kw: calls.append(args) or model)
    monkeypatch.setattr(calibrate, "fire_match", lambda model, *args, **kw: model)
    networks._train(trained, model, baseline)
    found = networks._train(chained, model, baseline)
    assert len(calls) == 1
    one, other = (jax.tree.leaves(nnx.state(x)) for x in (found, model))
    assert all(map(np.array_equal, one, other))
    # Without the file it is trained now.
    networks._file(trained.name).unlink()
    networks._train(chained, model, baseline)
    assert len(calls) == 2


def read_rows(name):
    lines = (RESULTS / f"{name}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("name", "preset"), [("beyond", "digits"), ("beyond_cifar10", "small")]
)
def test_published_pages_are_those_of_their_rows(name, preset):
    rows, config = read_rows(name), PRESETS[preset].resolve()
    assert report.to_markdown(rows, config) == (RESULTS / f"{name}.md").read_text()
    details = (RESULTS / f"{name}_details.md").read_text()
    assert report.to_details(rows, config) == details


def test_the_numbers_of_losses_are_those_that_tuning_chose():
    rows = read_rows("beyond")
    tuned = [row for row in rows if row["part"] == "tune"]
    assert tuning.choose_trials(tuned) == losses.CHOSEN
    defaults = distill.firing().numbers
    for name, number in losses.CHOSEN[losses.KEPT].items():
        assert float(defaults[name]) == number
