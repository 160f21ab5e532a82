"""Publishing: the published rows give the same page, byte for byte."""

import dataclasses
import json
import re

import pytest
from planted import make_run
from studied import CONFIG, rows_of

from experiments import report
from experiments.report import __main__ as command_line
from experiments.report.__main__ import ReportConfig, make
from experiments.study.store import StudyStore

FILES = {
    "digits.md",
    "digits_details.md",
    "digits/results.jsonl",
    "digits/config.json",
    "digits/over_bits.png",
    "digits/layers.png",
}


def files_of(path):
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file()
    }


@pytest.fixture
def run_path(tmp_path):
    path = make_run(tmp_path / "any-name", rows_of(), CONFIG)
    (path / "checkpoints").mkdir()
    for seed in (0, 1):
        (path / "checkpoints" / f"fp32-s{seed}.safetensors").write_bytes(b"w%d" % seed)
    return path


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_published_rows_reproduce_the_page(tmp_path, run_path):
    before = files_of(run_path)
    page = make(ReportConfig((run_path,), publish=tmp_path / "out"))
    assert page == tmp_path / "out" / "digits.md"
    published = files_of(tmp_path / "out")
    assert set(published) == FILES | {
        f"checkpoints/digits-sew_resnet8-w16-s{seed}.safetensors" for seed in (0, 1)
    }
    assert published["checkpoints/digits-sew_resnet8-w16-s1.safetensors"] == b"w1"
    for name in ("results.jsonl", "config.json"):
        assert json.loads(published[f"digits/{name}"].split(b"\n{")[0]) == (
            json.loads(before[name].split(b"\n{")[0])
        )
    assert published["digits/results.jsonl"] == before["results.jsonl"]
    assert files_of(run_path) == before
    # Again from the copies, which have neither spike counts nor checkpoints.
    report.publish(tmp_path / "out" / "digits", tmp_path / "again")
    assert files_of(tmp_path / "again") == {name: published[name] for name in FILES}
    report.publish(tmp_path / "out" / "digits", tmp_path / "out")
    assert files_of(tmp_path / "out") == published


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("finished", [0, 1, 4, 40])
def test_unfinished_run_is_published(tmp_path, finished):
    path = make_run(tmp_path / "run", rows_of()[:finished], CONFIG)
    with open(path / "results.jsonl", "a") as results:
        results.write('{"half a')
    page = report.publish(path, tmp_path / "out")
    assert "Unfinished" in page.read_text()
    # Whole lines alone are copied, and figures only where there is something to draw.
    copied = (tmp_path / "out" / "digits" / "results.jsonl").read_text()
    assert copied.count("\n") == finished
    assert "half a" not in copied
    drawn = {file.name for file in (tmp_path / "out").rglob("*.png")}
    assert bool(drawn) == (finished > 4)
    for line in page.read_text().splitlines():
        if line.startswith("!["):
            assert (tmp_path / "out" / line.partition("(")[2].rstrip(")")).exists()


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_large_checkpoints_are_not_published(tmp_path, run_path, monkeypatch):
    large = run_path / "checkpoints" / "fp32-s1.safetensors"
    copies = tmp_path / "out" / "checkpoints"
    argv = ["report", str(run_path), "--publish", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", argv)
    for size, seeds in ((3_200_000, "0"), (3_000_001, "0"), (3_000_000, "01")):
        large.write_bytes(bytes(size))
        command_line.main()
        there = {f"digits-sew_resnet8-w16-s{seed}.safetensors" for seed in seeds}
        assert {file.name for file in copies.iterdir()} == there


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_other_config_is_not_overwritten(tmp_path, run_path):
    out = tmp_path / "out"
    report.publish(run_path, out)
    before = files_of(out)
    config = dataclasses.replace(CONFIG, bits=(2, 4))
    other = make_run(tmp_path / "other", rows_of(config), config)
    with pytest.raises(ValueError, match=f"{CONFIG.hash()}, and this run is of") as got:
        report.publish(other, out)
    assert config.hash() in str(got.value)
    assert files_of(out) == before
    # By another name it lies beside, and makes itself again.
    (other / "checkpoints").mkdir()
    weights = other / "checkpoints" / "fp32-s0.safetensors"
    weights.write_bytes(b"another")
    with pytest.raises(ValueError, match=r"s0\.safetensors is a baseline of another"):
        report.publish(other, out, "digits_few")
    assert files_of(out) == before
    weights.unlink()
    page = make(ReportConfig((other,), publish=out, name="digits_few"))
    assert page == out / "digits_few.md"
    after = files_of(out)
    assert {name: after[name] for name in before} == before
    own = set(after) - set(before)
    assert own == {name.replace("digits", "digits_few", 1) for name in FILES}
    for path in (page, out / "digits_few_details.md"):
        text = path.read_text("utf-8")
        links = re.findall(r"\(([\w/]+\.(?:md|png))\)", text)
        assert links
        assert all((out / link).is_file() for link in links)
    assert "--publish docs/results --name digits_few\n" in text
    report.publish(out / "digits_few", out, "digits_few")
    assert files_of(out) == after
    # A study replaces its own page when it was extended.
    extended = make_run(tmp_path / "extended", rows_of(CONFIG), CONFIG)
    StudyStore(extended).extend(config.numbers())
    report.publish(extended, out)
    assert StudyStore(out / "digits").info()["config"]["bits"] == [2, 4]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"runs": ("run", "run2")}, "publish one run"),
        ({"out": "elsewhere"}, "without --out"),
        ({"name": "../digits"}, r"name must .* got '\.\./digits'"),
        ({"name": "index"}, "name must be digits, or digits_"),
        ({"name": "digits_details"}, "got 'digits_details'"),
        ({"name": "digits_2", "publish": None}, "give --publish too"),
        ({"publish": "run"}, "is a run folder"),
        ({"runs": ("absent",)}, "does not exist"),
    ],
)
def test_bad_arguments_are_refused(tmp_path, config, words):
    make_run(tmp_path / "run", [], CONFIG)
    asked = {"runs": ("run",), "publish": "out"} | config
    asked["runs"] = tuple(tmp_path / run for run in asked["runs"])
    for option in ("out", "publish"):
        if asked.get(option) is not None:
            asked[option] = tmp_path / asked[option]
    with pytest.raises(ValueError, match=words):
        make(ReportConfig(**asked))
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("undrawn")
def test_run_has_a_results_page(tmp_path, run_path):
    report.write(run_path)
    text = (run_path / "results.md").read_text()
    for name in ("over_bits", "layers"):
        assert f"](figures/{name}.png)" in text
        assert (run_path / "figures" / f"{name}.png").exists()
