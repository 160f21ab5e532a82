"""The README is short, stands alone, and its Python runs as it is printed."""

import re

import pytest
from printed_code import PAGES, README, find_blocks, run_blocks

# Where the README says how long to train.
LENGTHS = (
    r"(\bepochs ?= ?)\d+",
    r"(\bepoch in range\()\d+(?=\))",
    r"()\d+(?= \* train\.steps_per_epoch)",
)


def shorten(text: str) -> str:
    """Replace the lengths of training by one epoch."""
    for pattern in LENGTHS:
        text = re.sub(pattern, r"\g<1>1", text)
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
    blocks = [edit(block) for block in find_blocks(README)]
    names = run_blocks(blocks, README.name)
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


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_to_files_resolve(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
