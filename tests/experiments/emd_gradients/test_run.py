"""The bench from its command to its report, on one loss and a network of width 2."""

import dataclasses
import io
import json
import re

import pytest
from rich.console import Console

from experiments.emd_gradients import __main__ as bench
from experiments.emd_gradients import drift_correction, estimators, report
from experiments.emd_gradients.__main__ import GradientsConfig
from experiments.emd_gradients.losses import LOSSES
from experiments.study.store import StudyStore


@pytest.fixture(scope="module")
def small():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimators, "DRAWS", 2)
        patch.setattr(estimators, "SIZES", (100,))
        patch.setattr(bench, "LOSSES", LOSSES[:1])
        loss = dataclasses.replace(LOSSES[0], strengths=(1.0, 10.0))
        patch.setattr(drift_correction, "TRAINED_BY", (loss,))
        yield patch


@pytest.fixture(scope="module")
def finished(small, tmp_path_factory):
    out = tmp_path_factory.mktemp("bench") / "run"
    bench.run(GradientsConfig(out=out, tiny=True, width=2), quiet())
    return out


def quiet():
    return Console(file=io.StringIO())


def rows_of(out):
    """Without what a clock decides."""
    lines = (out / "results.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return [{k: v for k, v in row.items() if k != "ms"} for row in rows]


@pytest.mark.nightly
def test_rows_and_files(finished):
    parts = [
        (row["part"], row["loss"], row.get("strength")) for row in rows_of(finished)
    ]
    assert parts == [
        ("estimator", "sorted W1", None),
        ("cost", "sorted W1", None),
        ("pull", "baseline", None),
        ("pull", "drifted", None),
        ("pull", "control", None),
        ("pull", "sorted W1", 1.0),
        ("pull", "sorted W1", 10.0),
    ]
    baseline, drifted = rows_of(finished)[2:4]
    assert baseline["emd_mean"] == 0 < drifted["emd_mean"]
    text = (finished / "emd_gradients.md").read_text()
    assert "| sorted W1 " in text
    assert "| control " in text
    for name in ("costs", "pull"):
        png = (finished / "figures" / f"{name}.png").read_bytes()
        assert png.startswith(b"\x89PNG")


@pytest.mark.nightly
def test_resumed_run_has_the_same_numbers(finished, tmp_path):
    lines = (finished / "results.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "results.jsonl").write_text("".join(lines[:3]) + '{"part": "pu')
    config = GradientsConfig(out=tmp_path, tiny=True, width=2)
    bench.run(config, quiet())
    assert rows_of(tmp_path) == rows_of(finished)


def test_another_config_is_refused(tmp_path):
    config = GradientsConfig(out=tmp_path, width=2, tiny=True)
    (tmp_path / "results.jsonl").write_text(
        json.dumps({"part": "x", "config_hash": config.resolve().hash()}) + "\n"
    )
    before = (tmp_path / "results.jsonl").read_bytes()
    with pytest.raises(ValueError, match="holds a run of another config"):
        bench.run(GradientsConfig(out=tmp_path, width=3, tiny=True), quiet())
    assert (tmp_path / "results.jsonl").read_bytes() == before


@pytest.mark.parametrize("options", [{"width": 0}, {"seeds": ()}, {"seeds": (1, 1)}])
def test_bad_options_are_refused(options):
    with pytest.raises(ValueError, match=f"^{next(iter(options))} must be"):
        GradientsConfig(**options)


def corrected(loss, strength, emd, accuracy=0.9, paired=0.02, seed=0):
    return dict(
        part="pull",
        loss=loss,
        strength=strength,
        seed=seed,
        emd_mean=emd,
        accuracy=accuracy,
        paired_shift_mean=paired,
        mean_rate=0.1,
        floor_sampling=0.002,
        train=dict(emd_mean=emd / 2, accuracy=accuracy),
    )


def test_strength_selection_and_findings():
    rows = [
        corrected(name, None, emd, seed=s)
        for name, emd in (("baseline", 0.0), ("control", 0.01))
        for s in (0, 1)
    ]
    for strength, emd, accuracy in ((1.0, 0.008, 0.9), (10.0, 0.005, 0.895)):
        rows += [corrected("a", strength, emd, accuracy, 0.03, seed=s) for s in (0, 1)]
    rows += [corrected("a", 100.0, 0.001, 0.5, seed=s) for s in (0, 1)]
    rows += [corrected("a", 1000.0, 0.0, seed=0)]  # the other seed failed
    rows += [corrected("b", 1.0, 0.012, paired=0.01, seed=s) for s in (0, 1)]
    found = report.select_strengths(rows)
    assert set(found.loc[found["loss"] == "a", "strength"]) == {10.0}
    rows += [corrected("c", 1.0, 0.012, accuracy=0.2, seed=s) for s in (0, 1)]
    # The floor; each loss's EMD and paired shift against the control's, and its seeds.
    floor, a, b = (re.findall(r"\d+[.\d]*", s) for s in report.findings(rows))
    assert floor == ["0.0020"]
    assert a == ["0.50", "2", "2", "1.50"]
    assert b == ["1.20", "0", "2", "0.50"]
    assert report.findings([]) == []
    text = report.to_markdown(rows)
    cells = [re.split(r" *\| *", line)[1:4] for line in text.splitlines()]
    for line in (["a", "10", "89.5 ± 0.0"], ["c", "none kept accuracy", "-"]):
        assert line in cells
    assert ["b", "1*"] in [line[:2] for line in cells]


def test_locked_folder_is_refused(tmp_path):
    """Both would write their rows, and the table count them twice."""
    pytest.importorskip("fcntl")
    with StudyStore(tmp_path) as other:
        other.lock()
        with pytest.raises(ValueError, match="another process is writing to"):
            bench.run(GradientsConfig(out=tmp_path, tiny=True, width=2), quiet())
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
