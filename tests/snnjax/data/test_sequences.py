"""Data that are no images: trains, counts, lengths, event recordings."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from snnjax import calibrate, data, layers, models, neurons, train

RNG = np.random.default_rng(0)
SEQUENCES = [RNG.poisson(1.0, (t, 6)).astype(np.int16) for t in RNG.integers(4, 15, 40)]
LABELS = RNG.integers(0, 3, 40)


def network():
    rngs = nnx.Rngs(0)
    return models.Sequential(
        {
            "fc1": layers.QuantLinear(6, 8, rngs=rngs),
            "bn": layers.BatchNorm(8),
            "sn": layers.Spiking(neurons.LIF()),
            "rec": layers.Recurrent(8, neurons.LIF(), rngs=rngs),
            "fc": layers.QuantLinear(8, 3, rngs=rngs),
        },
        in_shape=(6,),
    )


@pytest.mark.parametrize(
    ("dtype", "stored"),
    [(np.float32, np.uint8), (np.float64, np.uint8), (np.int16, np.uint8)],
)
@pytest.mark.parametrize("shape", [(4, 5, 3), (4, 5, 2, 2, 3)])
def test_counts_are_what_they_were(dtype, stored, shape):
    counts = RNG.poisson(1.0, shape).astype(dtype)
    found = data.from_arrays(counts, [0, 1, 1, 0])
    assert found.images.dtype == stored
    assert np.array_equal(found.images, counts)
    assert str(shape[1]) in repr(found)
    for other in (counts + 300, counts - 1):
        found = data.from_arrays(other.astype(dtype), [0, 1, 1, 0])
        assert found.images.dtype == np.float32
        assert np.array_equal(found.images, other)


@pytest.mark.nightly
def test_padding_counts_nowhere():
    padded, lengths = data.pad_sequences(SEQUENCES)
    dataset = data.from_arrays(padded, LABELS, lengths=lengths)
    steps = int(lengths.max())
    net = network()
    net = train.fit(
        net,
        dataset,
        steps=4,
        batch_size=16,
        seed=0,
        optimizer=optax.adam(1e-2),
        timesteps=steps,
    )
    found = train.evaluate(net, dataset, timesteps=steps, batch_size=16)
    counts, correct, alone = {}, 0, []
    for x, label in zip(SEQUENCES, LABELS, strict=True):
        logits, spikes = net(jnp.asarray(x, jnp.float32)[:, None], timesteps=len(x))
        correct += int(logits.mean(0).argmax() == label)
        alone.append(float(train.cross_entropy(logits, np.array([label]))))
        for name, s in spikes.items():
            counts[name] = counts.get(name, 0) + np.asarray(s).sum((0, 1))
    assert found.accuracy == correct / 40
    assert found.counts.observations == lengths.sum()
    for name, count in counts.items():
        assert np.array_equal(found.counts.spikes[name], count)
    x = data.network_input(dataset.images, dataset.mean, dataset.std)
    mask = jnp.arange(steps)[:, None] < lengths[None]
    loss = train.cross_entropy(net(x, timesteps=steps)[0], LABELS, mask=mask)
    assert float(loss) == pytest.approx(np.mean(alone), abs=1e-6)

    again = calibrate.reestimate_batchnorm(net, dataset, timesteps=steps, batch_size=40)
    rows = np.concatenate([net.fc1(jnp.asarray(x, jnp.float32)) for x in SEQUENCES])
    np.testing.assert_allclose(again.bn.mean.get_value(), rows.mean(0), atol=1e-6)
    np.testing.assert_allclose(again.bn.var.get_value(), rows.var(0, ddof=1), atol=1e-6)


def test_a_loss_without_a_mask_is_refused():
    padded, lengths = data.pad_sequences(SEQUENCES)
    dataset = data.from_arrays(padded, LABELS, lengths=lengths)
    options = dict(steps=1, batch_size=8, seed=0, optimizer=optax.sgd(0.1))
    options["timesteps"] = int(lengths.max())
    with pytest.raises(ValueError, match="mask"):
        train.fit(network(), dataset, loss=lambda y, labels: y.mean(), **options)


def test_ragged_lists_name_a_remedy_that_works():
    with pytest.raises(ValueError, match="pad_sequences"):
        data.from_arrays(SEQUENCES, LABELS)
    padded, lengths = data.pad_sequences(SEQUENCES)
    assert len(data.from_arrays(padded, LABELS, lengths=lengths)) == 40


@pytest.mark.parametrize(
    "names", [("x", "y", "t", "p"), ("x", "y", "timestamp", "polarity")]
)
@pytest.mark.parametrize("split_by", ["time", "count"])
def test_events_become_frames(names, split_by):
    n, size, steps = 1000, (5, 7), 4
    fields = [(names[0], "<u2"), (names[1], "<u2"), (names[2], "<u8"), (names[3], "i1")]
    events = np.zeros(n, fields)
    events[names[0]] = RNG.integers(0, 7, n)
    events[names[1]] = RNG.integers(0, 5, n)
    events[names[2]] = np.sort(RNG.integers(10**15, 10**15 + 10**6, n))
    events[names[3]] = RNG.integers(0, 2, n) * 2 - 1
    frames = data.frames_from_events(
        events, size=size, timesteps=steps, split_by=split_by
    )
    t = events[names[2]].astype(int)
    each = (t[-1] - t[0]) // steps
    expected = np.zeros((steps, *size, 2), int)
    for i, event in enumerate(events):
        x, y, when, p = event
        place = (int(when) - t[0]) // each if split_by == "time" else i // (n // steps)
        expected[min(place, steps - 1), y, x, int(p > 0)] += 1
    assert np.array_equal(frames, expected)
    shuffled = RNG.permutation(events) if split_by == "time" else events
    again = data.frames_from_events(
        shuffled, size=size, timesteps=steps, split_by=split_by
    )
    assert np.array_equal(again, frames)


def test_events_by_window_and_faults():
    events = dict(x=[0, 1, 2], y=[0, 0, 0], t=[0.0, 1.5, 4.0], on=[True, False, True])
    frames = data.frames_from_events(events, size=(1, 3), window=1.0)
    assert frames.sum((1, 2, 3)).tolist() == [1, 1, 0, 0, 1]
    with pytest.raises(ValueError, match="sensor"):
        data.frames_from_events(events, size=(1, 2), window=1.0)
    with pytest.raises(ValueError, match="field"):
        data.frames_from_events({"x": [0]}, size=(1, 2), window=1.0)
    with pytest.raises(ValueError, match="one of the two"):
        data.frames_from_events(events, size=(1, 3))
    with pytest.raises(ValueError, match="at most the 3 events"):
        data.frames_from_events(events, size=(1, 3), timesteps=4, split_by="count")


def test_an_empty_part_says_that_nothing_is_left():
    dataset = data.from_arrays(np.zeros((2, 3, 4), np.uint8), [0, 1])
    with pytest.raises(ValueError, match="leaves none of 2"):
        dataset.subset([])


def test_recurrent_layers_need_a_step():
    layer = layers.Recurrent(3, neurons.LIF(), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="at least one time step"):
        layer(jnp.zeros((0, 2, 3)))
