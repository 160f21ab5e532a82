"""The pages on sequences and on batches that are read run, and give what they say."""

import importlib.util
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


def run(page):
    """Run every Python block of a page in order; return the names they leave."""
    names: dict = {}
    text = (DOCS / page).read_text(encoding="utf-8")
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        exec(compile(block, page, "exec"), names)
    return names


@pytest.mark.slow
def test_sequences():
    pytest.importorskip("altair")
    run("sequences.md")


@pytest.mark.nightly
@pytest.mark.skipif(importlib.util.find_spec("grain") is None, reason="needs grain")
def test_batches():
    run("batches.md")


@pytest.mark.slow
def test_long_trains():
    names = run("long_trains.md")
    assert names["full"].accuracy > 0.9
    emd = {key: distance for key, (_, distance) in names["found"].items()}
    assert emd[4.0, 2] > 3 * emd[4.0, 8]  # few bits round the firing away
    assert emd[1.0, 8] > 3 * emd[4.0, 8]  # and so does a narrow bound, with many
