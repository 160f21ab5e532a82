"""Event frames [N, T, H, W, C] as a data set: what networks see of them, and when."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from training import steps

from snnjax import data, firing, models, train

T = 3


def frames(n=12):
    """Some events, at other places in each step."""
    few = np.random.default_rng(0).poisson(0.4, (n, T, 8, 8, 2))
    return (8 * few).astype(np.uint8)


def events(n=12):
    return data.from_arrays(frames(n), np.arange(n) % 3, num_classes=3)


def network():
    return models.SEWResNet(3, blocks=(1,), width=4, in_channels=2, rngs=nnx.Rngs(0))


def test_a_network_sees_the_counts_time_first():
    dataset = events()
    seen = data.network_input(dataset.images, dataset.mean, dataset.std)
    assert seen.dtype == jnp.float32
    np.testing.assert_array_equal(seen, np.moveaxis(frames(), 1, 0))


def test_mean_and_std_are_in_events():
    mean, std = np.float32([1, 2]), np.float32([2, 4])
    seen = data.network_input(frames(), mean, std)
    expected = (np.moveaxis(frames(), 1, 0) - np.float64(mean)) / std
    np.testing.assert_allclose(seen, expected, 1e-7)


def test_images_are_normalised():
    images, mean, std = frames()[:, 0], [0.1, 0.2], [0.3, 0.4]
    np.testing.assert_array_equal(
        data.network_input(images, mean, std), data.normalize(images, mean, std)
    )


@pytest.mark.parametrize("flip", [True, False])
def test_frames_move_as_a_whole(flip):
    key, images = jax.random.key(1), frames()
    moved = data.augment(key, images, pad=2, flip=flip)
    for t in range(T):
        alone = data.augment(key, images[:, t], pad=2, flip=flip)
        np.testing.assert_array_equal(moved[:, t], alone)
    assert (moved != images).any()


@pytest.mark.slow
def test_evaluation_is_the_model_on_these_frames():
    dataset, model = events(), network()
    found = train.evaluate(model, dataset, timesteps=T, batch_size=len(dataset))
    x = jnp.asarray(np.moveaxis(frames(), 1, 0), jnp.float32)
    logits, spikes = nnx.jit(lambda model, x: model(x, timesteps=T))(model, x)
    counts = {name: firing.total(s) for name, s in spikes.items()}
    assert set(found.counts.spikes) == set(counts)
    for name, total in counts.items():
        np.testing.assert_array_equal(found.counts.spikes[name], total)
    assert counts["sn1"].sum() > 0
    predicted = np.argmax(np.mean(logits, 0), -1)
    assert found.accuracy == np.mean(predicted == dataset.labels)
    assert found.counts.observations == T * len(dataset)


def first_loss(dataset, **options):
    rates, batch = np.float32([0.1]), len(dataset)
    step = steps(
        network(), dataset, rates, seed=0, batch_size=batch, timesteps=T, **options
    )
    return float(next(step).metrics.loss)


@pytest.mark.nightly
def test_training_sees_every_step_in_its_order():
    dataset = events()
    x = jnp.asarray(np.moveaxis(frames(), 1, 0), jnp.float32)
    logits, _ = network()(x, timesteps=T, train=True)
    losses = optax.softmax_cross_entropy_with_integer_labels(
        jnp.mean(logits, 0), dataset.labels
    )
    assert first_loss(dataset) == pytest.approx(float(losses.mean()), rel=1e-5)
    backwards = dataclasses.replace(dataset, images=frames()[:, ::-1])
    assert abs(first_loss(backwards) - first_loss(dataset)) > 1e-3


@pytest.mark.nightly
def test_the_same_frame_again_and_again_is_a_still_image():
    still = dataclasses.replace(
        data.from_arrays(5 * frames()[:, 0], np.arange(12) % 3),
        mean=np.zeros(2),
        std=np.ones(2),
    )
    images = np.repeat(still.images[:, None], T, 1)
    repeated = dataclasses.replace(still, images=images, std=np.full(2, 255))
    for augment in (False, True):
        expected = first_loss(still, augment=augment)
        assert first_loss(repeated, augment=augment) == pytest.approx(expected, 1e-5)


def test_frames_take_more_memory_than_an_image():
    dataset, model = events(), network()
    still = data.from_arrays(frames()[:, 0], dataset.labels)
    needed = [
        train.estimate_memory(model, d, batch_size=4, timesteps=T)
        for d in (still, dataset)
    ]
    assert needed[1] - needed[0] >= frames().nbytes - frames()[:, 0].nbytes


def test_other_lengths_and_ranks_are_refused():
    with pytest.raises(ValueError, match=r"3 time steps .* but timesteps is 4"):
        train.evaluate(network(), events())
    with pytest.raises(ValueError, match=r"3 time steps .* but timesteps is 2"):
        steps(network(), events(), [1.0], seed=0, batch_size=4, timesteps=2)
    for shape in [(8, 8), (2, 3, 3, 8, 8, 1), (2, 0, 8, 8, 1)]:
        with pytest.raises(ValueError, match=r"event frames \[N, T, H, W, C\]"):
            data.from_arrays(np.zeros(shape, np.uint8), np.zeros(shape[0], int))
    with pytest.raises(ValueError, match=r"event frames \[B, T, H, W, C\]"):
        data.network_input(np.zeros((8, 2), np.uint8), np.zeros(2), np.ones(2))
    with pytest.raises(ValueError, match=r"event frames \[B, T, H, W, C\]"):
        data.augment(jax.random.key(0), np.zeros((8, 8, 2), np.uint8))


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.uint8, bool])
def test_narrow_times_do_not_wrap(dtype):
    ends = (False, True) if dtype is bool else np.iinfo(dtype)
    ends = ends if dtype is bool else (ends.min, ends.max)
    events = dict(x=[0, 0], y=[0, 0], t=np.array(ends, dtype), p=[1, 1])
    frames = data.frames_from_events(events, size=(1, 1), timesteps=2)
    assert frames[..., 1].ravel().tolist() == [1, 1]


def test_times_that_are_not_finite_are_refused():
    events = dict(x=[0, 0], y=[0, 0], t=np.array([0.0, np.nan]), p=[1, 1])
    with pytest.raises(ValueError, match="t must be finite"):
        data.frames_from_events(events, size=(1, 1), timesteps=2)
