"""The Python of the README, and of the pages under docs, runs as it stands."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
WITH_CODE = [page for page in PAGES if "```python" in page.read_text(encoding="utf-8")]


def run_blocks(text: str, name: str) -> dict:
    """Every block of a page in order, and the names they leave."""
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        exec(compile(block, name, "exec"), names)
    return names


# One epoch shows that it runs, and learns: an accuracy better than chance.
@pytest.mark.parametrize(
    ("epochs", "accuracy"),
    [
        pytest.param(1, 0.2, marks=pytest.mark.slow),
        pytest.param(5, 0.8, marks=pytest.mark.nightly),
    ],
)
def test_every_block_runs_in_order(epochs, accuracy):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    steps = "{} * train.steps_per_epoch"
    assert steps.format(5) in text
    names = run_blocks(text.replace(steps.format(5), steps.format(epochs)), "README.md")
    assert names["steps"] == epochs * (1438 // 32)
    # What the text around them promises.
    assert names["before"].accuracy > accuracy
    assert names["report"].emd_mean > 0
    assert names["w1"] == 0.375
    assert names["spikes"].shape == (4, 3)


@pytest.mark.nightly
@pytest.mark.parametrize("page", WITH_CODE, ids=lambda path: path.name)
def test_every_block_of_a_page_runs(page):
    assert run_blocks(page.read_text(encoding="utf-8"), page.name)


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda p: p.name)
def test_every_link_to_a_file_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
