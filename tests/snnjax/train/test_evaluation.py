"""What evaluation counts beside neurons, and what it refuses."""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from training import steps

from snnjax import cost, data, integer, layers, models, neurons, train
from snnjax.quantize import QuantSpec

T = 2


def dataset(n=10, channels=2):
    draw = np.random.default_rng(n)
    images = draw.integers(0, 256, (n, 8, 8, channels)).astype(np.uint8)
    return data.from_arrays(images, draw.integers(0, 5, n), num_classes=5)


@functools.cache
def network(kind):
    options = dict(in_channels=2, neuron=neurons.LIF(v_threshold=0.05))
    options |= dict(rngs=nnx.Rngs(1))
    if kind == "vgg":
        options |= dict(stages=((1, 1), (1, 2)), width=3, image_size=(8, 8))
        return models.SpikingVGG(5, **options)
    return models.SEWResNet(5, blocks=(1, 1), width=3, connect=kind, **options)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["add", "and", "vgg"])
def test_all_that_feeds_synapses_is_counted(kind):
    """Of images that do not fill a batch, what the network itself records of each."""
    model, images = network(kind), dataset()
    found = train.evaluate(model, images, timesteps=T, batch_size=4, outputs=True)
    x = data.normalize(images.images, images.mean, images.std)
    _, recorded = model(x, timesteps=T, outputs=True)
    assert set(found.spikes) == set(recorded)
    for name, trains in recorded.items():
        expected = np.asarray(trains, int).sum((0, 1))
        np.testing.assert_array_equal(found.spikes[name], expected)
    assert sum(x.sum() for x in found.source_counts.values()) > 0
    operations = cost.synaptic_operations(model.synapses((8, 8)), found.spikes, 10)
    assert min(operations.values()) > 0
    plain = train.evaluate(model, images, timesteps=T, batch_size=4)
    assert plain.source_counts == {}
    assert set(plain.spikes) == set(found.counts.spikes)
    assert plain.accuracy == found.accuracy


def spoilt(where, value=np.nan):
    """A copy with a NaN in a parameter, or in a running statistic."""
    model = nnx.clone(network("add"))
    leaf = functools.reduce(getattr, where.split("."), model)
    leaf.set_value(leaf.get_value().at[0].set(value))
    return model


@pytest.mark.parametrize("where", ["conv1.kernel", "layer2.0.bn1.var", "fc.bias"])
def test_nan_in_the_network_is_told_and_not_counted(where):
    """A membrane that is NaN does not fire: all would seem to be measured."""
    with pytest.raises(train.NonFiniteError, match=f"NaN or infinity in {where}"):
        train.evaluate(spoilt(where), dataset(), timesteps=T)
    good = network("add")
    with pytest.raises(train.NonFiniteError, match=f"NaN or infinity in {where}"):
        train.evaluate([good, spoilt(where, np.inf)], dataset(), timesteps=T)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_damaged_images_are_refused(value):
    """Their membranes are NaN, and silent."""
    images = dataset()
    x = np.array(data.normalize(images.images, images.mean, images.std))
    x[2, 0, 0, 0] = value
    with pytest.raises(ValueError, match="images of a batch must be finite"):
        train.evaluate(network("add"), [(x, images.labels)], timesteps=T)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda m: m.conv1.quant.bits.set_value(jnp.float32(2.5)), "conv1"),
        (lambda m: m.conv1.quant.clip.set_value(jnp.float32(-1)), "conv1"),
        (lambda m: m.sn1.neuron.tau.set_value(jnp.float32(0.5)), "sn1"),
        (lambda m: m.sn1.neuron.v_threshold.set_value(jnp.float32(0)), "sn1"),
    ],
    ids=["bits", "clip", "tau", "threshold"],
)
def test_numbers_out_of_their_range_are_refused(change, name):
    """A compiled program would count what they fire all the same."""
    model = nnx.clone(network("add"))
    model.conv1.quantize(QuantSpec(bits=4, clip=1.0))
    change(model)
    for measure in (train.evaluate, functools.partial(train.fit, **FIT)):
        with pytest.raises(ValueError, match=f"{name} has a number out of range"):
            measure(model, dataset(), timesteps=T)
    with pytest.raises(ValueError, match=f"{name} has a number out of range"):
        integer.from_model(model, image_size=(8, 8))


FIT = dict(optimizer=train.sgd(0.1), batch_size=4, seed=0, steps=1)


class Broken(nnx.Module):
    """NaN among the logits of dark images, which no number of it tells."""

    def __init__(self):
        self.scale = nnx.Param(jnp.ones(5))

    def __call__(self, x, *, timesteps, train=False, record=None):
        logits = jnp.sqrt(x.mean((1, 2, 3)) + 0.05)[:, None] * self.scale.get_value()
        spikes = jnp.zeros((timesteps, len(x), 1))
        kept = spikes if record is None else record(spikes)
        return jnp.broadcast_to(logits, (timesteps, *logits.shape)), {"sn": kept}


def test_nan_logits_are_told_by_their_images():
    images = dataset()
    x = data.normalize(images.images, images.mean, images.std)
    dark = int((np.asarray(x).mean((1, 2, 3)) < -0.05).sum())
    assert 0 < dark < 10
    with pytest.raises(train.NonFiniteError, match=f"of {dark} of 10 images"):
        # The last batch is filled up with images that do not count.
        train.evaluate(Broken(), images, timesteps=T, batch_size=4)


def test_a_batch_is_no_larger_than_the_images():
    """Or a large number costs what so many images would."""
    model, images = network("add"), dataset()
    steps = []

    def evaluate(batch_size):
        start = time.perf_counter()
        found = train.evaluate(
            model,
            images,
            timesteps=T,
            batch_size=batch_size,
            on_step=lambda: steps.append(1),
        )
        return found, time.perf_counter() - start

    (whole, _), (again, _) = evaluate(10), evaluate(10)
    (large, seconds) = evaluate(10**7)
    assert len(steps) == 3
    assert whole.accuracy == again.accuracy == large.accuracy
    # Ten million images would not fit, and not be seen in minutes.
    assert seconds < 20


class Dropped(nnx.Module):
    """A network with random keys."""

    def __init__(self):
        self.net, self.drop = network("add"), nnx.Dropout(0.5, rngs=nnx.Rngs(0))

    def __call__(self, x, *, timesteps, train=False, record=None):
        x = self.drop(x, deterministic=not train)
        return self.net(x, timesteps=timesteps, train=train, record=record)


def test_random_keys_are_refused_in_a_sweep():
    models_ = [Dropped(), Dropped()]
    train.evaluate(models_[0], dataset(), timesteps=T)
    with pytest.raises(ValueError, match="random keys"):
        train.evaluate(models_, dataset(), timesteps=T)


@pytest.mark.slow
def test_a_network_kept_while_training_goes_on_stays_as_it_was():
    """The next step takes the arrays of the state."""
    model, images = network("add"), dataset()
    kept, expected = [], []
    rates = np.full(3, 0.1, np.float32)
    for progress in steps(model, images, rates, seed=0, batch_size=5, timesteps=T):
        kept.append(train.model_from_state(model, progress.state))
        expected.append(jax.tree.map(lambda x: np.array(x[0]), progress.state.params))
    for one, params in zip(kept, expected, strict=True):
        jax.tree.map(np.testing.assert_array_equal, nnx.state(one, nnx.Param), params)
        train.evaluate(one, images, timesteps=T)


@pytest.mark.slow
def test_seeds_that_differ_above_32_bits_draw_other_crops():
    def first(seed):
        rates = np.full(1, 0.1, np.float32)
        options = dict(seed=seed, batch_size=10, timesteps=T, augment=True)
        # One batch of all images: their order is no matter to the loss.
        progress = next(steps(network("add"), dataset(), rates, **options))
        return float(progress.metrics.loss)

    assert len({first(seed) for seed in (5, 2**32 + 5, 2**33 + 5)}) == 3


def test_layers_are_in_the_networks_order():
    """What comes out of jit is sorted; a report shows the first layer first."""
    counts = train.evaluate(network("add"), dataset(), timesteps=T).counts
    names = list(counts.spikes)
    assert names == list(counts.groups)
    assert names[0] == "sn1"
    assert names[1:3] == ["layer1.0.sn1", "layer1.0.sn2"]
    assert names.index("layer2.0.sn1") < names.index("layer2.0.downsample_sn")


class Silent(nnx.Module):
    """Neurons that never fire."""

    def __init__(self):
        self.fc = layers.QuantLinear(3, 5, rngs=nnx.Rngs(0))
        self.sn = layers.Spiking(neurons.LIF(v_threshold=100.0))
        self.out = layers.QuantLinear(5, 2, rngs=nnx.Rngs(1))

    def __call__(self, x, *, timesteps=4, record=lambda x: x, train=None):
        spikes = self.sn(self.fc(x))
        return self.out(spikes), {"sn": record(spikes)}


def test_a_silent_neuron_is_late_by_the_sequences_length():
    lengths = (2, 3, 2, 10)
    padded, lengths = data.pad_sequences([np.ones((n, 3), "f") for n in lengths])
    sequences = data.from_arrays(padded, [0, 1, 0, 1], lengths=lengths)
    found = train.evaluate(Silent(), sequences, timesteps=10)
    assert found.counts.observations == 17
    np.testing.assert_array_equal(found.latencies["sn"], 17)
