"""The results page of planted studies."""

import re
import statistics

import pytest
from planted import read_table as table
from studied import BASE, CONFIG, a_run, is_row, quantized, rows_of

from experiments.report import results
from experiments.study.config import StudyConfig
from experiments.tables import emd_text, spread


def section(text, title):
    return re.split(rf"^##+ {re.escape(title)}$", text, flags=re.M)[1].split("\n## ")[0]


def two_seeds(row):
    """LQ-Net wide, 4 bit QAT, differs by its seed."""
    if is_row(row, "LQ-Net wide", 4, "qat"):
        return {
            "accuracy": (0.88, 0.895)[row["seed"]],
            "emd": (0.0010, 0.0014)[row["seed"]],
        }
    if is_row(row, "uniform mid-rise wide", 4, "qat"):
        return {"emd": 0.02}
    if is_row(row, "uniform mid-tread wide", 2, "qat"):
        return {"emd": 0.1, "accuracy": 0.1}
    return {}


@pytest.fixture(scope="module")
def page():
    return results.detail(a_run(tell=two_seeds))


def test_paper_table(page):
    lines = table(section(page, "QAT"))
    assert len(lines) == 8
    assert list(lines[0]) == ["method", "2 bit", "4 bit", "8 bit"]
    by_name = {line["method"]: line for line in lines}
    accuracy = statistics.fmean((88, 89.5)), statistics.stdev((88, 89.5))
    assert by_name["LQ-Net wide"]["4 bit"] == (
        f"{accuracy[0]:.1f} ± {accuracy[1]:.1f} / 0.0012 ± 0.0003"
    )
    # A drift that accuracy hides is bold, a collapse italic.
    assert by_name["uniform mid-rise wide"]["4 bit"].startswith("**90.0 ± 0.0 / 0.0200")
    assert by_name["uniform mid-tread wide"]["2 bit"].startswith("*10.0 ±")
    assert by_name["LQ-Net narrow"]["2 bit"] == "90.0 ± 0.0 / 0.0005 ± 0.0000"
    assert "± the sample standard deviation" in section(page, "Accuracy and EMD")


def test_one_seed_has_no_deviation():
    run = a_run(StudyConfig(bits=(2,), modes=("ptq",)), lambda row: {"emd": 0.002})
    text = section(results.detail(run), "Accuracy and EMD")
    assert "±" not in text
    assert table(text)[0]["2 bit"] == "**90.0 / 0.0020**"


def test_all_measures(page):
    lines = table(section(page, "Weights, QAT"))
    (line,) = [li for li in lines if (li["method"], li["bits"]) == ("LQ-Net wide", "4")]
    assert line | {"mean rate": ""} == {
        "method": "LQ-Net wide",
        "mode": "QAT",
        "bits": "4",
        "seed": "0, 1",
        "accuracy %": "88.75",
        "EMD": "0.0012 [0.0007, 0.0017]",
        # From the lowest end of two to the highest: -0.0010 and -0.0006, each with
        # 0.0005 * sqrt(2) on either side.
        "above margin": "-0.0008 [-0.0017, +0.00011]",
        "operations %": "+0.0 [+0.0, +0.0]",
        "verdict": "cannot tell",
        "mean rate": "",
        "dead %": "41.2",
        "saturated %": "1.3",
        # The rows plant multiples of the EMD.
        "paired shift": "0.0024",
        "KS": "0.0120",
        "latency EMD": "0.0036",
        "time-W1": "0.0048",
    }
    verdicts = {(li["method"], li["bits"]): li["verdict"] for li in lines}
    assert verdicts["uniform mid-rise wide", "4"] == "drift"
    assert verdicts["uniform mid-tread wide", "2"] == "collapsed"
    assert verdicts["LQ-Net narrow", "4"] == "drift below the margin"


def test_seeds_are_judged_one_by_one():
    def tell(row):
        this = is_row(row, "LQ-Net wide", 4, "qat")
        return {"emd": (0.002, 0.02)[row["seed"]]} if this else {}

    text = results.detail(a_run(tell=tell))
    cells = {line["method"]: line for line in table(section(text, "QAT"))}
    assert cells["LQ-Net wide"]["4 bit"].startswith("90.0 ±")
    lines = table(section(text, "Weights, QAT"))
    (line,) = [li for li in lines if (li["method"], li["bits"]) == ("LQ-Net wide", "4")]
    assert line["verdict"] == "drift in 1 of 2"


def test_pairs_are_counted(page):
    lines = {
        li["mode"]: li for li in table(section(page, "Equal accuracy, other firing"))
    }
    # 24 rows a seed: by PTQ two times 276 pairs. By QAT 231 and 253, as one collapsed
    # and LQ-Net wide is of equal accuracy in one seed; the drift is 21 and 22 of them.
    ptq, qat = list(lines["PTQ"].values()), list(lines["QAT"].values())
    assert ptq == ["PTQ", "552", "552", "0", "0"]
    assert qat[:3] == ["QAT", "484", "484"]
    assert qat[-1] == "43"


def test_baselines():
    rows = rows_of()
    for row in rows[:4]:
        row["accuracy"] = BASE + 0.01 * row["seed"]
    text = section(results.detail(a_run(rows=rows)), "Baselines")
    first, second, *_ = table(text)
    assert (first["mode"], first["seed"], first["accuracy %"]) == (
        *("baseline", "0", "90.00"),
    )
    assert second["accuracy %"] == "91.00"
    assert "- baseline: accuracy 90.50 ± 0.71 %" in text
    assert "mean EMD 0.0020 ± 0.0000" in text
    assert "two seeds are 0.0040 apart" in text


def test_digits_of_a_spread():
    assert spread([0.003, 0.0034], emd_text) == "0.0032 ± 0.0003"
    assert spread([3e-4, 5e-4], emd_text) == "0.0004 ± 0.0001"
    assert spread([6e-5, 6.2e-5], emd_text) == "0.000061 ± 0.000001"
    assert spread([5e-5, 7e-5], emd_text) == "0.00006 ± 0.00001"


def test_settled_control():
    rows = rows_of()
    control = next(r for r in rows if (r["mode"], r["seed"]) == ("control", 0))
    control["emd_mean_epoch_before"] = 0.001
    text = section(results.detail(a_run(rows=rows)), "Baselines")
    (line,) = [line for line in text.splitlines() if "from 0.0010 to 0.0020" in line]
    assert "seed 0" in line
    assert "+100 %" in line


def test_settings_with_more_seeds():
    """QAT at 2 bits of both seeds, at 4 of one: that one's own numbers lead along."""
    config = StudyConfig(
        bits=(2, 4), repeat=True, repeat_qat_bits=(2,), only="membrane"
    ).resolve()

    def by_seed(row):
        return {"accuracy": (0.80, 0.90)[row["seed"]]} if row["mode"] == "qat" else {}

    page = results.detail(a_run(config, by_seed))
    line = table(section(page, "QAT"))[0]
    assert list(line) == ["method", "2 bit, seeds 0, 1", "4 bit, seed 0"]
    assert [line[bits].partition(" /")[0] for bits in list(line)[1:]] == [
        *("85.0 ± 7.1", "80.0")
    ]
    assert list(table(section(page, "PTQ"))[0]) == ["method", "2 bit", "4 bit"]


def test_images_and_standard_error():
    text = results.summarize(a_run(images=[25_000, 5_000]))
    assert "\n25,000 training and 5,000 test images: not all of digits" in text
    assert "1,438 and 359" in text
    whole = results.summarize(a_run(images=[1_438, 359]))
    assert "\n1,438 training and 359 test images.\n" in whole
    text = results.detail(a_run(images=[25_000, 5_000]))
    # sqrt(0.9 * 0.1 / 5000)
    assert "is 0.42 points" in section(text, "Baselines")


@pytest.mark.slow
def test_ablation_has_its_own_tables():
    config = StudyConfig(bits=(2, 4, 8), repeat=True, ablation_bits=(2, 4))

    def other(row):
        far = row["quantize_all"] or row["site"] == "pre_fire"
        return {"emd": 0.03, "accuracy": 0.5} if far else {}

    plain, ablated = (results.detail(run) for run in (a_run(), a_run(config, other)))
    for title in ("Baselines", "Accuracy and EMD"):
        assert section(plain, title) == section(ablated, title)
    for mode in ("PTQ", "QAT"):
        lines = table(section(ablated, f"Weights everywhere, {mode}"))
        assert len(lines) == 6 * 2
        assert {line["verdict"] for line in lines} == {"drift"}
        assert len(table(section(ablated, f"Membrane pre-fire, {mode}"))) == 2 * 2
    assert "everywhere" not in plain.partition("## Definitions")[0]
    some = results.detail(a_run(config, rows=rows_of(config, other)[:-20]))
    assert "rows are missing." in section(some, "What the digests leave open")
    assert "### Membrane site" in ablated
    assert "### Scope" in ablated
    assert "\nNot part of this run.\n" in section(plain, "Scope")
    assert "### Grid type" in plain


def test_claims(page):
    text = section(page, "The paper's claims")
    verdicts = re.findall(r"^- Verdict: \*\*(.+)\*\* ", text, re.M)
    assert verdicts == ["not decidable at this size"] * 6 + ["not part of this run"]
    assert text.count("- Rule: ") == text.count("- Paper: ") == 7


@pytest.mark.slow
@pytest.mark.parametrize("finished", [0, 1, 4, 5, 20, 100])
def test_unfinished_run(finished):
    rows = rows_of(tell=two_seeds)
    run = a_run(rows=rows[:finished])
    text = results.summarize(run)
    assert "**Unfinished, rows still missing: " in text
    for page in (text, results.detail(run)):
        assert page.endswith("\n")
        nothing = run.judged_main["full"].all()
        assert ("No quantized network is finished yet." in page) == nothing
    assert "Unfinished" not in results.summarize(a_run(rows=rows))


@pytest.mark.slow
def test_origin():
    starts = [
        {"rows": 100, "seconds": 3600.0, "devices": 1, "commit": "abc1234"},
        {"rows": 48, "seconds": 1800.0, "devices": 2, "commit": None},
    ]
    run = a_run(versions={"jax": "0.10.2"}, starts=starts)
    text = section(results.detail(run), "How it was made")
    assert "python -m experiments.study --repeat --bits 2 4 8\n" in text
    assert "started 2 times and ran for 1.5 hours in all" in text
    assert "abc1234, None" in text
    starts[1]["rows"] = len(run.rows) - 100 + 3
    repeated = f"Of its {len(run.rows) + 3} rows 3 were computed twice"
    assert repeated not in text
    assert repeated in results.detail(run)
    assert "jax 0.10.2" in text
    options = dict(re.findall(r"^\| (\w+) +\| (.+?) +\|$", text, re.M))
    assert {
        name: options[name] for name in ("bits", "repeat", "only", "ablation_bits")
    } == {
        "bits": "2, 4, 8",
        "repeat": "True",
        "only": "not set",
        "ablation_bits": "none",
    }
    assert set(CONFIG.numbers()) <= set(options)
    once = results.detail(a_run(starts=starts[:1]))
    assert "started once and ran for 1.0 hours" in once
    assert "run time is not known" in results.detail(a_run())


def test_links():
    text = results.summarize(a_run())
    assert re.findall(r"^!\[[^]]+\]\((.+)\)$", text, re.M) == [
        "figures/over_bits.png",
        "figures/layers.png",
    ]
    assert "](cifar10/over_bits.png)" in results.summarize(a_run(), figures="cifar10")
    assert "](there.md)" in results.summarize(a_run(), details="there.md")
    assert "](there.md)" in results.detail(a_run(), "there")


def test_glance(page):
    """Show full precision and 8 methods, in the mode that trains most."""
    lines = table(results.summarize(a_run(tell=two_seeds)))
    assert list(lines[0]) == [
        *("method", "accuracy %", "EMD", "above margin", "operations %", "verdict"),
    ]
    assert lines[0]["accuracy %"] == "90.0 ± 0.0"
    assert lines[0]["EMD"] == "0.0020 ± 0.0000"
    of_two_bits = {
        line["method"]: line
        for title in ("Weights, QAT", "Membrane, QAT")
        for line in table(section(page, title))
        if line["bits"] == "2"
    }
    assert len(lines[1:]) == len(of_two_bits) == 8
    for line in lines[1:]:
        other = of_two_bits[line["method"]]
        for title in ("EMD", "above margin", "operations %", "verdict"):
            assert line[title] == other[title]


def test_glance_of_other_bits_and_modes():
    text = results.summarize(a_run(StudyConfig(bits=(8,), modes=("ptq",))))
    assert table(text)[0]["EMD"] == "0.0000"  # of the one seed that runs the grid
    assert "PTQ of 8 bits" in text


def test_row_order_does_not_matter(page):
    """Rows of a group may be finished in any order."""
    rows = rows_of(tell=two_seeds)
    own = quantized(rows)
    references = rows[: len(rows) - len(own)]
    assert results.detail(a_run(rows=references + own[::-1])) == page
