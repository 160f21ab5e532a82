"""Writing reports: whole or not at all, of one run or several, and by command line."""

import re

import pytest
from planted import WEIGHTS, a_row, check_html, make_run, quantized, reference

from experiments import report
from experiments.report import __main__ as command_line
from experiments.report.__main__ import ReportConfig, make
from experiments.report.judged import judge


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("broken", "error"),
    [
        ("snnjax.report.charts.draw_rates", RuntimeError),
        ("experiments.report.page.html", RuntimeError),
        # Stopped while it writes: what was there is there still, whole.
        ("os.replace", KeyboardInterrupt),
    ],
)
def test_failure_leaves_the_old_report(tmp_path, monkeypatch, broken, error):
    path = make_run(tmp_path / "run", [*reference(), quantized(WEIGHTS[0], 2, "qat")])
    (path / "figures").mkdir()
    for name in ("report.html", "table.md", "figures/over_bits.png"):
        (path / name).write_text("old")
    files = {f: f.read_bytes() for f in path.rglob("*") if f.is_file()}

    def fail(*_):
        raise error

    monkeypatch.setattr(broken, fail)
    with pytest.raises(error):
        report.write(path)
    monkeypatch.undo()
    assert files == {f: f.read_bytes() for f in files}
    if error is RuntimeError:
        assert {f for f in path.rglob("*") if f.is_file()} == set(files)


@pytest.mark.usefixtures("undrawn")
def test_two_runs_are_compared(full_run, tmp_path):
    path, _ = full_run
    rows = [*reference(), quantized(WEIGHTS[0], 2, "ptq", emd=0.02, accuracy=0.9)]
    other = make_run(tmp_path / "other", rows)
    before = {f: f.read_bytes() for f in other.rglob("*") if f.is_file()}
    out = tmp_path / "compare"
    page = make(ReportConfig((path, other), out))
    text = page.read_text()
    check_html(text)
    assert page == out / "report.html"
    table = (out / "table.md").read_text()
    assert len(re.findall(r"^\| full +\|", table, re.M)) == 102
    assert len(re.findall(r"^\| other +\|", table, re.M)) == 4
    for sentence in report.findings(judge(rows)):
        assert sentence in table
    assert len(list((out / "figures").glob("over_bits_*.png"))) == 3
    assert before == {f: f.read_bytes() for f in other.rglob("*") if f.is_file()}


@pytest.mark.parametrize("case", ["absent", "no run", "none", "twice", "onto a run"])
def test_bad_folders_are_refused(full_run, tmp_path, case):
    path, _ = full_run
    empty = tmp_path / "empty"
    empty.mkdir()
    config, words = {
        "absent": (ReportConfig((tmp_path / "no",)), "does not exist"),
        "no run": (ReportConfig((path, empty), tmp_path / "o"), "no run folder"),
        "none": (ReportConfig(()), "at least one"),
        "twice": (ReportConfig((path, path), tmp_path / "o"), "given twice"),
        "onto a run": (ReportConfig((path,), path), "is a run folder"),
    }[case]
    with pytest.raises(ValueError, match=words):
        make(config)
    assert [p.name for p in tmp_path.rglob("*")] == ["empty"]


def test_main_prints_findings_or_one_line(tmp_path, monkeypatch, capsys):
    path = make_run(tmp_path / "run", [a_row("fp32")])
    monkeypatch.setattr("sys.argv", ["report", str(path)])
    command_line.main()
    printed = capsys.readouterr().out
    for sentence in report.findings(judge([a_row("fp32")])):
        assert sentence in printed
    assert str(path / "report.html") in printed
    monkeypatch.setattr("sys.argv", ["report", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"^error: .* no run folder"):
        command_line.main()


@pytest.mark.usefixtures("undrawn")
def test_os_errors_are_reported(full_run, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    argv = ["report", str(full_run[0]), "--out", str(tmp_path / "file" / "x")]
    monkeypatch.setattr("sys.argv", argv)
    with pytest.raises(SystemExit, match="Not a directory"):
        command_line.main()
