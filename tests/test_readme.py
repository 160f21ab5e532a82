"""The Python of the README, and of the pages under docs, runs as it stands."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
WITH_CODE = [page for page in PAGES if "```python" in page.read_text(encoding="utf-8")]


def run_blocks(path: Path) -> dict:
    """Every block in order, and the names they leave."""
    text = path.read_text(encoding="utf-8")
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        exec(compile(block, path.name, "exec"), names)
    return names


def test_every_block_runs_in_order():
    names = run_blocks(ROOT / "README.md")
    # What the text around them promises.
    assert names["before"].accuracy > 0.8
    assert names["report"].emd_mean > 0
    assert names["w1"] == 0.375
    assert names["spikes"].shape == (4, 3)


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_CODE, ids=lambda path: path.name)
def test_every_block_of_a_page_runs(page):
    assert run_blocks(page)


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda p: p.name)
def test_every_link_to_a_file_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
