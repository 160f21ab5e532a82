"""Published verdicts and correlations, computed again from the rows by SciPy alone."""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

RESULTS = Path(__file__).parents[2] / "docs" / "results"
PAGES = {
    "cifar10": ("CIFAR-10", 10),
    "cifar100": ("CIFAR-100", 100),
    "cifar10_w8": ("CIFAR-10 w8", 10),
}
CLASSES = {name: classes for name, (_, classes) in PAGES.items()} | {"digits": 10}
SEEDS = {"digits": 10, "cifar10_w8": 5}  # pages whose claims have intervals
CONTROLS = {"qat": "control", "ptq_bn": "fp32_bn"}


def read(name):
    """Return baselines by mode and seed, and the quantized rows with their states."""
    lines = (RESULTS / name / "results.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    full = {(r["mode"], r["seed"]): r for r in rows if r["target"] == "none"}
    quantized = [r for r in rows if r["target"] != "none"]
    for row in quantized:
        row["state"] = judge(row, full, 2 / CLASSES[name])
    return full, quantized


def judge(row, full, chance):
    base = full["fp32", row["seed"]]
    if row["accuracy"] < chance <= base["accuracy"]:
        return "collapsed"
    moved = {"emd_mean": 0.0, "floor_sampling": 0.0}
    if row["mode"] != "ptq":
        moved = full[CONTROLS[row["mode"]], row["seed"]]
    excess = row["emd_mean"] - moved["emd_mean"]
    below = np.hypot(
        min(row["emd_mean"], row["floor_sampling"]), moved["floor_sampling"]
    )
    above = np.hypot(
        row["floor_sampling"], min(moved["emd_mean"], moved["floor_sampling"])
    )
    if excess - below > 0:
        return "drift"
    if row["mode"] == "ptq":
        return "no drift"
    return "below" if excess + above < 0 else "cannot tell"


@pytest.mark.parametrize("name", CLASSES)
def test_states_are_the_pages(name):
    _, quantized = read(name)
    main = [r for r in quantized if not r["quantize_all"] and r["site"] != "pre_fire"]
    drifted = Counter(row["mode"] for row in main if row["state"] == "drift")
    states = Counter(row["state"] for row in main)
    text = (RESULTS / f"{name}.md").read_text("utf-8")
    (found,) = re.findall(r"Firing drifts in .*?collapsed", text)
    numbers = [
        int(number) for number in re.findall(r"(\d+) (?:of|cannot|show|coll)", found)
    ]
    there = {row["mode"] for row in main}
    modes = [drifted[mode] for mode in ("ptq", "ptq_bn", "qat") if mode in there]
    rest = [states[state] for state in ("cannot tell", "no drift", "collapsed")]
    assert numbers == [states["drift"], *modes, *filter(None, rest)]


def measures(full, row):
    base, mean = full["fp32", row["seed"]], lambda key: np.mean(list(row[key].values()))
    return {
        "EMD": row["emd_mean"],
        "paired shift": mean("paired_shift"),
        "mean shift": np.mean(np.abs(list(row["mean_shift"].values()))),
        "synaptic operations": abs(np.log(row["synops"] / base["synops"])),
        "accuracy lost": base["accuracy"] - row["accuracy"],
    }


@pytest.mark.parametrize("name", PAGES)
def test_partial_correlations_are_the_pages(name):
    full, quantized = read(name)
    rows = [measures(full, row) for row in quantized if row["state"] != "collapsed"]
    # Differences of accuracies that are equal to rounding are ties.
    values = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    ranks = {k: stats.rankdata(np.round(x / max(x), 12)) for k, x in values.items()}
    published = json.loads((RESULTS / "predictors.json").read_text("utf-8"))["given"]
    lines = [line for line in published if line["study"] == PAGES[name][0]]
    assert len(lines) == 4
    for line in lines:
        for outcome in ("synaptic operations", "accuracy lost"):
            keys = line["measure"], outcome, line["given"]
            precision = np.linalg.inv(np.corrcoef([ranks[key] for key in keys]))
            partial = -precision[0, 1] / np.sqrt(precision[0, 0] * precision[1, 1])
            assert partial == pytest.approx(line[outcome][0], abs=1e-9)


def mean_by_seed(rows, value):
    """Return for each seed the mean of a number over its rows."""
    seeds = sorted({row["seed"] for row in rows})
    return np.array(
        [np.mean([value(row) for row in rows if row["seed"] == seed]) for seed in seeds]
    )


def best_by_seed(rows, value):
    """Return for each seed the least of a number over its rows."""
    seeds = sorted({row["seed"] for row in rows})
    return np.array(
        [min(value(row) for row in rows if row["seed"] == seed) for seed in seeds]
    )


@pytest.mark.parametrize("name", SEEDS)
def test_effects_of_claims_are_the_pages(name):
    """Claims 2 to 7 by t-tests at 95 % over the 15 effects of a page."""
    full, quantized = read(name)
    qat = [row for row in quantized if row["mode"] == "qat"]
    # The fourth is asked of each mode that has three bit widths.
    modes = [
        [row for row in quantized if row["mode"] == mode]
        for mode in ("ptq", "ptq_bn", "qat")
    ]
    fine = [rows for rows in modes if len({row["bits"] for row in rows}) > 2]

    def emd(row):
        return row["emd_mean"]

    def loss(row):
        return 100 * (full["control", row["seed"]]["accuracy"] - row["accuracy"])

    def above_control(row):
        return row["emd_mean"] - full["control", row["seed"]]["emd_mean"]

    uniform = [r for r in qat if (r["target"], r["method"]) == ("weights", "uniform")]
    fell = {(r["grid"], r["bits"]) for r in uniform if r["state"] == "collapsed"}
    alive = [r for r in uniform if (r["grid"], r["bits"]) not in fell]
    lq_net = [r for r in qat if (r["target"], r["method"]) == ("weights", "lq_net")]
    membranes = [r for r in qat if r["target"] == "membrane"]
    lq_membranes = [r for r in membranes if r["method"] == "lq_net"]
    two, four = (
        [r for r in membranes if (r["method"], r["bits"]) == ("uniform", bits)]
        for bits in (2, 4)
    )

    def clips(rows):
        wide, narrow = (
            mean_by_seed([r for r in rows if r["clip"] == c], emd) for c in (10, 1)
        )
        return wide - narrow

    def signs(value):
        signed, unsigned = (
            mean_by_seed([r for r in two if r["signed"] is s], value)
            for s in (True, False)
        )
        return unsigned - signed

    def back_first(finest):
        """Shares are ratios of means, with the deviations of part - share * whole."""
        ways, leads = {}, []
        for row in finest:
            keys = ("target", "method", "grid", "clip", "signed")
            ways.setdefault(tuple(row[key] for key in keys), []).append(row)
        for rows in ways.values():
            lead = 0
            lines = {
                bits: [
                    mean_by_seed([r for r in rows if r["bits"] == bits], value)
                    for value in (lambda row: row["accuracy"], emd)
                ]
                for bits in (2, 4, 6)
            }
            (a2, e2), (a4, e4), (a6, e6) = lines.values()
            if (a6 - a2).mean() <= 0.01 or not (e6 < e2 / 2).all():
                continue
            for sign, part, whole in ((1, a4 - a2, a6 - a2), (-1, e4 - e2, e6 - e2)):
                share = part.mean() / whole.mean()
                lead += sign * (share + (part - share * whole) / whole.mean())
            leads.append(lead)
        return [np.mean(leads, axis=0)] if leads else []

    expected = {
        2: [clips(alive)],
        4: [lead for rows in fine for lead in back_first(rows)],
        3: [mean_by_seed(lq_net, f) for f in (loss, above_control)] + [clips(lq_net)],
        6: [signs(lambda row: 100 * row["accuracy"]), signs(emd)],
    }
    if four:
        expected[5] = [mean_by_seed(rows, loss) for rows in (two, four)]
        expected[5] += [mean_by_seed(four, above_control)]
    if lq_membranes:
        expected[7] = [best_by_seed(lq_membranes, loss)]
    lines = (RESULTS / f"{name}.md").read_text("utf-8").splitlines()
    lines = [re.sub(r" \(\d+ methods?\)", "", line) for line in lines]
    measured = {int(x[0]) for x in lines if re.match(r"[2-7]\. .*\[[-+]", x)}
    unfinished = {int(x[0]) for x in lines if "**not finished yet**" in x}
    assert set(expected) - unfinished == measured
    for number in measured:
        values = expected[number]
        [line] = [line for line in lines if line.startswith(f"{number}. ")]
        found = re.findall(
            r"([-+][\d.]+)(?: points)? \[([-+][\d.]+), ([-+][\d.]+)\]", line
        )
        assert len(found) == len(values)
        for printed, own in zip(found, values, strict=True):
            assert len(own) == SEEDS[name]
            test = stats.ttest_1samp(own, 0).confidence_interval(1 - 0.05 / 15)
            for text, number_ in zip(printed, (own.mean(), *test), strict=True):
                digits = len(text.partition(".")[2])
                assert float(text) == pytest.approx(number_, abs=0.6 * 10**-digits)


@pytest.mark.parametrize("name", SEEDS)
def test_equal_accuracy_is_the_pages(name):
    """Is a setting surely within a point of its control, and 1.5 times as far?"""
    [line] = [
        line
        for line in (RESULTS / f"{name}.md").read_text("utf-8").splitlines()
        if line.startswith("1. ")
    ]
    if "**not finished yet**" in line:
        pytest.skip("rows of this study are missing")
    full, quantized = read(name)
    settings = {}
    for row in quantized:
        keys = ("mode", "target", "method", "grid", "clip", "signed", "bits")
        settings.setdefault(tuple(row[key] for key in keys), []).append(row)
    settings = {k: rows for k, rows in settings.items() if k[0] != "ptq"}
    fell = {
        k
        for k, rows in settings.items()
        if any(row["state"] == "collapsed" for row in rows)
    }
    settings = {k: rows for k, rows in settings.items() if k not in fell}
    level, found = 1 - 0.05 / 15 / len(settings), []
    for rows in settings.values():
        moved = [full[CONTROLS[row["mode"]], row["seed"]] for row in rows]
        pairs = list(zip(rows, moved, strict=True))
        lost = [100 * (m["accuracy"] - row["accuracy"]) for row, m in pairs]
        far = [np.log(row["emd_mean"] / m["emd_mean"]) for row, m in pairs]
        lost, far = (
            (np.mean(x), *stats.ttest_1samp(x, 0).confidence_interval(level))
            for x in (lost, far)
        )
        found.append((np.exp(far), lost))
    sure = [x for x in found if x[0][1] > 1.5 and x[1][1] > -1 and x[1][2] < 1]
    assert ("**reproduced**" if sure else "**not decidable") in line
    number = r"([-+.\d]+)"
    printed = [
        [
            float(x)
            for x in re.findall(rf"{number} {unit} \[{number}, {number}\]", line)[0]
        ]
        for unit in ("times", "points")
    ]
    assert any(
        np.allclose(printed[0], far, atol=6e-3, rtol=0)
        and np.allclose(printed[1], lost, atol=6e-3, rtol=0)
        for far, lost in sure or found
    )
