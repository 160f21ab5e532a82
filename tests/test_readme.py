"""The README is short, stands alone, and its Python runs as it is printed."""

import re

import jax.numpy as jnp
import pytest
from flax import nnx
from printed_code import PAGES, README, find_blocks, run_blocks

from snnjax import models, train

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


# What the loop takes from the blocks before it.
FOR_THE_LOOP = """
import jax.numpy as jnp
from snnjax import examples, train
_, digits, test = examples.digits()
"""
FEWER = "digits, test = digits.subset(slice(96)), test.subset(slice(128))"


def test_what_is_measured_and_restored(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run_blocks(find_blocks(README)[:-1], README.name)
    # What the text around them promises.
    assert names["before"].accuracy == pytest.approx(0.969, abs=0.01)
    assert names["report"].emd_mean == pytest.approx(0.0035, abs=0.001)
    assert names["w1"] == 0.375
    assert names["spikes"].shape == (4, 3)
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {"reference.npz", "quantized.npz", "restored.npz"}


def test_the_loop_runs():
    loop = shorten(find_blocks(README)[-1])
    names = run_blocks([FOR_THE_LOOP, FEWER, loop], README.name)
    assert int(names["optimizer"].step[...]) == 3
    assert 0 < float(names["metrics"].compute()["accuracy"]) < 1
    made = models.sew_resnet8(10, width=16, in_channels=1, rngs=nnx.Rngs(0))
    moved = jnp.abs(names["model"].fc.kernel[...] - made.fc.kernel[...])
    assert 0.003 < float(moved.max()) < 0.01  # by adam, a rate a step at most


# One epoch shows that it learns: an accuracy better than chance.
@pytest.mark.slow
def test_the_loop_learns_in_one_epoch():
    loop = shorten(find_blocks(README)[-1])
    names = run_blocks([FOR_THE_LOOP, loop], README.name)
    assert train.evaluate(names["model"], names["test"]).accuracy > 0.2


@pytest.mark.nightly
def test_readme_runs_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run_blocks(find_blocks(README), README.name)
    assert train.evaluate(names["model"], names["test"]).accuracy > 0.97


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
