"""Training a row: what a kill, damage and bad numbers do to it."""

import json

import jax
import numpy as np
import pytest
from flax import nnx

from experiments import stopping
from experiments.study.config import StudyConfig
from experiments.training import Trainer
from snnjax import data, models, train

STEPS = 6


class Shown:
    """What is said, kept."""

    def __init__(self):
        self.printed, self.images = [], 0

    def say(self, text):
        pass

    def print(self, text):
        self.printed.append(text)

    def shows_now(self):
        return False

    def advance(self, images):
        self.images += images


@pytest.fixture
def make(tmp_path):
    """Trainers of one run folder, as processes after each other would have them."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 8, 8, 1), np.uint8)
    dataset = data.from_arrays(images, np.arange(40) % 10, num_classes=10)

    def trainer(**options):
        options = dict(width=4, timesteps=2, batch_size=16, save_seconds=0) | options
        return Trainer(StudyConfig(**options), dataset, tmp_path, Shown())

    return trainer


def network():
    return models.SEWResNet(10, blocks=(1,), width=4, in_channels=1, rngs=nnx.Rngs(0))


def rates(peak=0.05):
    return train.one_cycle(STEPS, peak)


def stopped_at(trainer, step, monkeypatch):
    """Train until a signal comes in this step."""
    advance, heard = Shown.advance, []

    def signal(self, images):
        advance(self, images)
        if self.images == 16 * step:
            heard.append(15)

    with monkeypatch.context() as patch:
        patch.setattr(Shown, "advance", signal)
        patch.setattr(stopping, "heard", lambda: sum(heard))
        with pytest.raises(stopping.Stopped, match=f"step {step} of {STEPS}"):
            trainer.train(["fp32-s0"], [network()], rates(), seed=0)


def assert_same(a, b):
    for x, y in zip(*(jax.tree.leaves(nnx.split(m)[1]) for m in (a, b)), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.fixture
def undisturbed(make, tmp_path):
    trainer = make(save_seconds=1e9)
    [trained] = trainer.train(["other"], [network()], rates(), seed=0)
    assert trainer.shown.images == 16 * STEPS
    assert trainer.shown.printed == []
    return trained


@pytest.mark.slow
def test_a_stopped_row_goes_on_exactly(make, undisturbed, monkeypatch):
    stopped_at(make(), 4, monkeypatch)
    again = make()
    [trained] = again.train(["fp32-s0"], [network()], rates(), seed=0)
    assert_same(trained, undisturbed)
    assert again.shown.images == 16 * STEPS


@pytest.mark.slow
def test_damage_costs_time_and_nothing_else(make, undisturbed, monkeypatch):
    stopped_at(make(), 4, monkeypatch)
    states = make().states("fp32-s0")
    (states / "4" / "about" / "metadata").write_text("{")
    again = make()
    [trained] = again.train(["fp32-s0"], [network()], rates(), seed=0)
    assert_same(trained, undisturbed)
    (said,) = again.shown.printed
    assert "step 4" in said
    assert "that of step 3 takes its place" in said

    for about in states.glob("*/about/metadata"):
        about.write_text("{")
    again = make()
    [trained] = again.train(["fp32-s0"], [network()], rates(), seed=0)
    assert_same(trained, undisturbed)
    assert "trained from the beginning" in again.shown.printed[0]


def test_states_of_another_run_are_refused(make, monkeypatch):
    stopped_at(make(), 2, monkeypatch)
    with pytest.raises(ValueError, match=r"weight_decay is 0\.0005 there and 0\.1 now"):
        make(weight_decay=0.1).train(["fp32-s0"], [network()], rates(), seed=0)


def test_the_log_has_every_step_once(make, monkeypatch):
    monkeypatch.setattr("experiments.training.LOG_STEPS", 1)
    trainer = make()
    stopped_at(trainer, 4, monkeypatch)
    make().train(["fp32-s0"], [network()], rates(), seed=0)
    lines = [json.loads(line) for line in trainer.log.path.read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    for line, rate in zip(lines, rates(), strict=True):
        assert line["row"] == "fp32-s0"
        assert line["learning_rate"] == rate
        assert line["loss"] > 0
        assert line["skipped"] == 0
        assert set(line["dead"]) == {"sn1", "layer1.0.sn1", "layer1.0.sn2"}


def test_what_is_not_finite_names_row_step_layer_and_where_it_goes_on(make):
    wild = np.array(rates())
    wild[2:] = 3e38
    with pytest.raises(
        ValueError, match=r"fp32-s0: the loss is .* at step \d of 6"
    ) as e:
        make().train(["fp32-s0"], [network()], wild, seed=0)
    assert "goes on from step" in str(e.value)


def test_a_silent_layer_is_told(make):
    trainer = make(silent_above=1e-9)
    trainer.train(["fp32-s0"], [network()], rates(), seed=0)
    assert any("fell silent" in said for said in trainer.shown.printed)
