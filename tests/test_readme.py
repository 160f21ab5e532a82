"""The Python of the README, and of the pages of the site, runs as it is printed."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = sorted(
    page
    for page in (ROOT / "docs").rglob("*.md")
    if "results" not in page.relative_to(ROOT / "docs").parts[:-1]
)
CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)  # cells are run by the build
WITH_CODE = [page for page in PAGES if CODE.search(page.read_text(encoding="utf-8"))]
# Runs with torch and SpikingJelly, in an environment of its own: $SNNJAX_PEERS_PYTHON.
WITH_TORCH = {"pytorch.md"}

# Where the README says how long to train.
LENGTHS = (
    r"(\bepochs ?= ?)\d+",
    r"(\bepoch in range\()\d+(?=\))",
    r"()\d+(?= \* train\.steps_per_epoch)",
)


def run_blocks(text: str, name: str) -> dict:
    """Run every block of a page in order; return the names they leave."""
    names: dict = {}
    for block in CODE.findall(text):
        exec(compile(block, name, "exec"), names)
    return names


def shorten(text: str) -> str:
    """Replace the lengths of training by one epoch."""
    counts = []
    for pattern in LENGTHS:
        text, count = re.subn(pattern, r"\g<1>1", text)
        counts.append(count)
    assert sum(counts), "the README trains nothing"
    return text


# One epoch shows that it runs, and learns: an accuracy better than chance.
@pytest.mark.parametrize(
    ("edit", "accuracy"),
    [
        pytest.param(shorten, 0.2, id="one epoch", marks=pytest.mark.slow),
        pytest.param(str, 0.97, id="whole", marks=pytest.mark.nightly),
    ],
)
def test_readme_runs(edit, accuracy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run_blocks(edit(README.read_text(encoding="utf-8")), README.name)
    # What the text around them promises.
    assert names["before"].accuracy == pytest.approx(0.969, abs=0.01)
    assert names["report"].emd_mean == pytest.approx(0.0035, abs=0.001)
    assert names["w1"] == 0.375
    assert names["spikes"].shape == (4, 3)
    trained = names["train"].evaluate(names["model"], names["test"])
    assert trained.accuracy > accuracy
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {"reference.npz", "quantized.npz", "restored.npz"}


def test_readme_is_short():
    text = README.read_text(encoding="utf-8")
    lines = text.splitlines()
    assert len(lines) <= 120
    assert len(text.split()) <= 1100
    assert lines.index("```python") < 40
    # On the package index it stands alone.
    assert not re.findall(r"\]\((?!https://)", text)


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_CODE, ids=lambda path: path.stem)
def test_page_runs(page, tmp_path, monkeypatch):
    if page.name in WITH_TORCH:
        pytest.skip("needs torch: test_page_with_torch_runs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    assert run_blocks(page.read_text(encoding="utf-8"), page.name)


@pytest.mark.nightly
@pytest.mark.parametrize("name", sorted(WITH_TORCH))
def test_page_with_torch_runs(name, tmp_path):
    python = os.environ.get("SNNJAX_PEERS_PYTHON")
    if not python:
        pytest.skip("$SNNJAX_PEERS_PYTHON: a Python with snnjax, torch, spikingjelly")
    (page,) = (page for page in PAGES if page.name == name)
    blocks = CODE.findall(page.read_text(encoding="utf-8"))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [python, "-c", "\n".join(blocks)]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda p: p.name)
def test_links_to_files_resolve(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
