"""The page: every row, safe to open, nothing loaded from anywhere."""

import dataclasses
import json
import re
import shlex

import pytest
from planted import WEIGHTS, a_row, check_html, grid, make_run, quantized, reference
from studied import a_run

from experiments import command_line, report
from experiments.report import findings, table
from experiments.report.judged import judge
from experiments.study.command import make_command
from experiments.study.config import StudyConfig
from experiments.study.presets import PRESETS
from experiments.study.store import StudyStore


def test_page_has_every_row(full_run):
    path, page = full_run
    text = page.read_text()
    checker = check_html(text)
    rows = StudyStore(path).rows()
    states = r'<tr class="(reference|no_drift|below_margin|drift|cannot_tell)">'
    assert len(re.findall(states, text)) == len(rows) == 102
    assert not checker.loads
    drawn = set(re.findall(r'class="spec" data-chart="(\w+)"', text))
    assert drawn == {"scatter", "over_bits", "layers", "rates", "flows"}
    assert {file.stem for file in (path / "figures").iterdir()} == drawn - {"scatter"}
    assert "default-src 'none'" in text
    assert page.stat().st_size < 1.5e6
    assert "prefers-color-scheme:dark" in text


def test_page_has_findings_definitions_and_command(full_run):
    path, page = full_run
    text = page.read_text()
    rows = StudyStore(path).rows()
    for sentence in findings(judge(rows)):
        assert sentence.replace("'", "&#x27;") in text
        assert sentence in (path / "table.md").read_text()
    assert table.markdown(judge(rows)) in (path / "table.md").read_text()
    assert "|mean shift| &lt;= EMD &lt;= paired shift" in text
    assert "python -m experiments.study" in text
    assert "6.5 minutes" in text
    assert "1a2b3c4" in text
    assert "Unfinished" not in text
    assert not list(path.rglob("*.part"))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], ["baseline (2 of 2)", "weights PTQ (24 of 24)", "No row is finished"]),
        ([a_row("fp32")], ["baseline (1 of 2)", "control (2 of 2)"]),
        (
            reference((0, 1)) + grid(modes=("ptq",), bits=(2, 8)),
            ["weights PTQ (12 of 24)", "membrane QAT (8 of 8)"],
        ),
    ],
)
@pytest.mark.usefixtures("undrawn")
def test_unfinished_run_lists_missing_rows(tmp_path, rows, said):
    path = make_run(tmp_path / "run", rows)
    text = report.write(path).read_text()
    check_html(text)
    for words in said:
        assert words in text


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("seed", [pytest.param(0, marks=pytest.mark.nightly), 1])
def test_histograms_use_the_seeds_baseline(tmp_path, seed):
    rows = [
        *reference((0, 1)),
        quantized(WEIGHTS[0], 2, "qat", seed=seed, emd=0.02),
        quantized(WEIGHTS[0], 2, "qat", seed=1 - seed),
    ]
    path = make_run(tmp_path / "run", rows)
    (path / "firing" / f"fp32-s{1 - seed}.npz").unlink()
    assert "No histograms" not in report.write(path).read_text()
    (path / "firing" / f"fp32-s{seed}.npz").unlink()
    (path / "figures" / "rates.png").unlink()
    assert "no spike counts of baseline." in report.write(path).read_text()
    assert not (path / "figures" / "rates.png").exists()


@pytest.mark.usefixtures("undrawn")
def test_everything_is_escaped(tmp_path):
    evil = "<script>alert('&')</script>"
    rows = [row | {"dataset": evil} for row in reference()]
    rows.append(quantized(WEIGHTS[0], 2, "qat", method=evil, dataset=evil))
    rows[0]["emd"] = rows[-1]["emd"] = {"<b>sn1": 0.1}
    path = tmp_path / "a <i>&run"
    make_run(path, [], config=None, versions={"<u>v": "1 & 2"})
    (path / "results.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    text = report.write(path).read_text()
    check_html(text)
    for raw in (evil, "<i>", "<u>", "<b>sn1", "1 & 2"):
        assert raw not in text
    assert "&lt;u&gt;v" in text


def test_command_makes_the_same_config():
    config = StudyConfig(
        dataset="cifar10", only="weights", modes=("ptq", "qat"), bits=(2, 8)
    )
    words = make_command(config.resolve().numbers())
    assert words == (
        "python -m experiments.study --dataset cifar10 --only weights "
        "--modes ptq qat --bits 2 8"
    )
    tiny = StudyConfig(tiny=True, width=8).resolve().numbers()
    assert make_command(tiny) == "python -m experiments.study --width 8 --tiny"
    small = PRESETS["paper-small"].resolve()
    assert make_command(small.numbers()) == (
        "python -m experiments.study --preset paper-small"
    )


def test_command_names_loaded_baselines():
    options = dict(baselines="a/fp32-s{seed}.safetensors", decay_input=False)
    config = StudyConfig(width=64, epochs=3, **options).resolve()
    assert make_command(config.numbers()) == (
        "python -m experiments.study --width 64 --no-decay-input "
        "--baselines 'a/fp32-s{seed}.safetensors'"
    )


@pytest.mark.parametrize("name", ["", *PRESETS])
def test_command_parses_to_the_same_config(name, monkeypatch):
    """Flags that are off, nothing and empty lists have words of their own."""
    config = dataclasses.replace(
        PRESETS.get(name, StudyConfig()),
        dataset="digits",
        augment=False,
        qat_bits=None,
        ablation_bits=(),
        grid=("mid_rise",),
    ).resolve()
    words = shlex.split(make_command(config.numbers()))
    monkeypatch.setattr("sys.argv", ["study", *words[3:]])
    read = command_line.parse(StudyConfig, program="study", presets=PRESETS)
    assert read.resolve().numbers() == config.numbers()


def test_main_rows():
    config = StudyConfig(bits=(2,), modes=("ptq",), ablation_bits=(2,), site="pre_fire")
    one = a_run(config)
    left = one.judged.drop(index=one.judged_main.index)
    assert set(zip(left["site"], left["quantize_all"], strict=True)) == {
        (None, True),
        ("post_reset", False),
    }
    assert len(one.judged_main) == 4 + 8
