"""The Python of the README, and of the pages under docs, runs as it is printed."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").glob("*.md"))
WITH_CODE = [page for page in PAGES if "```python" in page.read_text(encoding="utf-8")]

# Where the README says how long to train: `fit`'s epochs, and the loop of one's own.
LENGTHS = (
    r"(\bepochs ?= ?)\d+",
    r"(\bepoch in range\()\d+(?=\))",
    r"()\d+(?= \* train\.steps_per_epoch)",
)


def run_blocks(text: str, name: str) -> dict:
    """Run every block of a page in order; return the names they leave."""
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
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
        pytest.param(shorten, 0.2, id="one epoch"),
        pytest.param(str, 0.8, id="whole", marks=pytest.mark.nightly),
    ],
)
def test_readme_runs(edit, accuracy):
    names = run_blocks(edit(README.read_text(encoding="utf-8")), README.name)
    # What the text around them promises.
    assert names["before"].accuracy > accuracy
    assert names["report"].emd_mean > 0
    assert names["w1"] == 0.375
    assert names["spikes"].shape == (4, 3)


@pytest.mark.nightly
@pytest.mark.parametrize("page", WITH_CODE, ids=lambda path: path.name)
def test_page_runs(page):
    assert run_blocks(page.read_text(encoding="utf-8"), page.name)


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda p: p.name)
def test_links_to_files_resolve(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
