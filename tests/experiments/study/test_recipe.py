"""Training a row: what a kill, damage and bad numbers do to it."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.study.config import StudyConfig
from experiments.study.recipe import Recipe, make_model
from experiments.study.store import StudyStore
from snnjax import data, models, runs, train
from snnjax.calibrate import batchnorm
from snnjax.runs import preemption

STEPS = 6


class FakeBar:
    """A bar that keeps what is printed."""

    def __init__(self):
        self.printed, self.images = [], 0

    def set_description(self, text):
        pass

    def print(self, text):
        self.printed.append(text)

    def should_refresh(self):
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
        options = dict(width=4, timesteps=2, batch_size=16, save_seconds=0.0) | options
        store = StudyStore(tmp_path)
        return Recipe(StudyConfig(**options), dataset, store, FakeBar())

    return trainer


def network():
    return models.SEWResNet(10, blocks=(1,), width=4, in_channels=1, rngs=nnx.Rngs(0))


def rates(peak=0.05):
    return train.one_cycle(STEPS, peak)


def stopped_at(trainer, step, monkeypatch):
    """Train until a signal comes in this step."""
    advance, received = FakeBar.advance, []

    def signal(self, images):
        advance(self, images)
        if self.images == 16 * step:
            received.append(15)

    with monkeypatch.context() as patch:
        patch.setattr(FakeBar, "advance", signal)
        patch.setattr(preemption, "received_signal", lambda: sum(received))
        with pytest.raises(runs.PreemptedError, match=f"step {step} of {STEPS}"):
            trainer.train(["fp32-s0"], [network()], rates(), STEPS, seed=0)


def assert_same(a, b):
    for x, y in zip(*(jax.tree.leaves(nnx.split(m)[1]) for m in (a, b)), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.fixture
def undisturbed(make, tmp_path):
    trainer = make(save_seconds=1e9)
    [trained] = trainer.train(["other"], [network()], rates(), STEPS, seed=0)
    assert trainer.bar.images == 16 * STEPS
    assert trainer.bar.printed == []
    return trained


@pytest.mark.slow
def test_a_stopped_row_resumes_exactly(make, undisturbed, monkeypatch):
    stopped_at(make(), 4, monkeypatch)
    again = make()
    [trained] = again.train(["fp32-s0"], [network()], rates(), STEPS, seed=0)
    assert_same(trained, undisturbed)
    assert again.bar.images == 16 * STEPS


@pytest.mark.slow
def test_damage_costs_time_and_nothing_else(make, undisturbed, monkeypatch):
    stopped_at(make(), 4, monkeypatch)
    states = make().store.states_of("fp32-s0")
    (states / "4" / "about" / "metadata").write_text("{")
    again = make()
    [trained] = again.train(["fp32-s0"], [network()], rates(), STEPS, seed=0)
    assert_same(trained, undisturbed)
    (said,) = again.bar.printed
    assert "step 4" in said
    assert "step 3 is loaded instead" in said

    for about in states.glob("*/about/metadata"):
        about.write_text("{")
    again = make()
    [trained] = again.train(["fp32-s0"], [network()], rates(), STEPS, seed=0)
    assert_same(trained, undisturbed)
    assert "starts from the beginning" in again.bar.printed[0]


def test_states_of_another_run_are_refused(make, monkeypatch):
    stopped_at(make(), 2, monkeypatch)
    with pytest.raises(ValueError, match=r"weight_decay is 0\.0005 there and 0\.1 now"):
        make(weight_decay=0.1).train(["fp32-s0"], [network()], rates(), STEPS, seed=0)


def test_the_log_has_every_step_once(make, monkeypatch):
    monkeypatch.setattr("experiments.study.recipe.LOG_STEPS", 1)
    trainer = make()
    stopped_at(trainer, 4, monkeypatch)
    make().train(["fp32-s0"], [network()], rates(), STEPS, seed=0)
    lines = [json.loads(line) for line in trainer.log.path.read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    for step, line in enumerate(lines):
        assert line["row"] == "fp32-s0"
        assert line["learning_rate"] == float(rates()(step))
        assert line["loss"] > 0
        assert line["skipped"] == 0
        assert set(line["dead"]) == {"sn1", "layer1.0.sn1", "layer1.0.sn2"}


def test_a_nonfinite_loss_names_row_step_layer_and_the_saved_step(make):
    def wild(step):
        return jnp.where(step < 2, 0.01, 3e38)

    with pytest.raises(
        ValueError, match=r"fp32-s0: the loss is .* at step \d of 6"
    ) as e:
        make().train(["fp32-s0"], [network()], wild, STEPS, seed=0)
    assert "resumes from step" in str(e.value)


def test_a_silent_layer_is_printed(make):
    trainer = make(silent_above=1e-9)
    trainer.train(["fp32-s0"], [network()], rates(), STEPS, seed=0)
    assert any("fell silent" in said for said in trainer.bar.printed)


@pytest.mark.slow
@pytest.mark.parametrize("augment", [True, False])
def test_batchnorm_is_reestimated_on_augmented_images(augment, tmp_path, monkeypatch):
    white = np.full((300, 32, 32, 3), 255, np.uint8)
    dataset = data.from_arrays(white, np.arange(300) % 10, num_classes=10)
    config = StudyConfig(dataset="cifar10", augment=augment, width=2, timesteps=1)
    recipe = Recipe(config, dataset, StudyStore(tmp_path), FakeBar())
    statistics = batchnorm._batch_statistics

    def reestimate():
        seen = []

        def record(graphdef, state, batch, *rest):
            seen.append(batch)
            return statistics(graphdef, state, batch, *rest)

        monkeypatch.setattr(batchnorm, "_batch_statistics", record)
        recipe._reestimate("fp32_bn-s0", make_model(config, dataset, 0))
        return np.stack(seen)

    batches = reestimate()
    assert batches.shape == (2, 128, 32, 32, 3)  # the rest is no full batch
    assert recipe.bar.images == pytest.approx(2 * 128 / 3)
    # A white image moved by up to 4 pixels each way has black at its border.
    black = (batches < 0).mean(axis=(0, 1, 4))
    kept = (1 - 20 / 9 / 32) ** 2 if augment else 1  # it moves 20 / 9 on average
    assert black.mean() == pytest.approx(1 - kept, abs=0.01)
    assert not black[4:-4, 4:-4].any()
    np.testing.assert_array_equal(batches, reestimate())
