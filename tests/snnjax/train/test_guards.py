"""What training does with a NaN, with a layer that falls silent, and with bad input."""

import collections
import pickle
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import training
from flax import nnx
from programs import equations

from snnjax import calibrate, data, models, neurons, train
from snnjax.data.order import epoch_order
from snnjax.layers import BatchNorm, QuantConv, QuantLinear, Spiking
from snnjax.quantize import QuantSpec
from snnjax.train import guards
from snnjax.train.step import _make_train_step

N, BATCH, BRIGHT = 12, 4, 7  # images, of which one is bright
LIMIT = 2.0  # normalized; only the bright image is above


def dataset(n=N):
    images = np.random.default_rng(0).integers(0, 100, (n, 5, 4, 1)).astype(np.uint8)
    images[BRIGHT] = 255
    return data.from_arrays(images, np.arange(n) % 3, num_classes=3)


class Net(nnx.Module):
    """Two layers, of which a batch with the bright image does something to one."""

    def __init__(self, bright=lambda h: h):
        rngs = nnx.Rngs(0)
        self.conv = QuantConv(1, 6, kernel_size=3, padding=1, rngs=rngs)
        self.bn = BatchNorm(6)
        self.sn1 = Spiking(neurons.LIF())
        self.sn2 = Spiking(neurons.LIF())
        self.fc = QuantLinear(6, 3, rngs=rngs)
        self.bright = bright

    def __call__(self, x, *, timesteps, train=False, record=lambda s: s):
        h = self.bn(self.conv(x, train=train), train=train, repeats=timesteps)
        s1 = self.sn1(4 * jnp.broadcast_to(h, (timesteps, *h.shape)))
        h = jax.lax.cond(x.max() > LIMIT, self.bright, lambda h: h, 3 * s1)
        s2 = self.sn2(h)
        spikes = {"sn1": record(s1), "sn2": record(s2)}
        return self.fc(s2.mean((2, 3)), train=train), spikes


def poisoned(h):
    return h * jnp.nan


def silenced(h):
    return jnp.full_like(h, -100)


def fit(model, steps, *, start=None, **options):
    """Every step, with states that no later step takes."""
    options = {"seed": 1, "batch_size": BATCH, "timesteps": 2} | options
    rates = np.full(steps, 0.1, np.float32)
    return [
        progress._replace(state=jax.tree.map(jnp.copy, progress.state))
        for progress in training.steps(model, dataset(), rates, start=start, **options)
    ]


def bright_steps(steps, seed=1):
    """At which steps the batch has the bright image; steps count from 0."""
    per_epoch = N // BATCH
    found = []
    for step in range(steps):
        epoch, place = divmod(step, per_epoch)
        order = epoch_order(seed, epoch, N)
        found.append(BRIGHT in order[place * BATCH : (place + 1) * BATCH])
    return found


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    return all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))


# A loss or gradient that is not finite


@pytest.fixture(scope="module")
def network():
    model = models.sew_resnet8(3, width=4, in_channels=1, rngs=nnx.Rngs(0))
    # Its gradient is masked where a weight is beyond the clip, or NaN.
    model = calibrate.quantize(model, {"layer2.*conv1": QuantSpec(bits=4)})
    return nnx.split(model)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layer", "reached", "loss_is_finite"),
    [
        ("conv1", {"conv1"}, True),
        ("layer1.0.conv2", {"layer1.0.conv1", "conv1"}, True),
        ("layer2.0.conv1", {"layer1.0.conv1", "layer1.0.conv2", "conv1"}, True),
        ("layer2.0.downsample.0", {"layer1.0.conv1", "conv1"}, True),
        ("layer3.0.conv2", {"layer2.0.downsample.0", "layer3.0.conv1"}, True),
        ("fc", {"layer3.0.conv2", "layer3.0.downsample.0", "conv1"}, False),
    ],
)
def test_a_nan_is_traced_to_its_layer(network, layer, reached, loss_is_finite):
    model = nnx.merge(*network, copy=True)
    module = model
    for name in layer.split("."):
        module = module[int(name)] if name.isdigit() else getattr(module, name)
    kernel = module.kernel
    kernel.set_value(kernel.get_value().at[..., 0, 0].set(jnp.nan))
    with pytest.raises(
        train.NonFiniteError, match=r"at step 1 of 2 .*go back to"
    ) as error:
        fit(model, 2)
    assert f"from {layer} on towards the input" in str(error.value)
    assert error.value.step == 1
    assert np.isfinite(error.value.loss) == loss_is_finite
    kernels = {x.removesuffix(".kernel") for x in error.value.layers if "kernel" in x}
    assert kernels >= {layer, *reached}
    # Nothing nearer to the output.
    order = [synapse.name for synapse in model.synapses()]
    assert max(map(order.index, kernels)) == order.index(layer)


@pytest.mark.slow
def test_a_network_that_does_not_tell_its_order():
    model = Net(bright=poisoned)
    first = bright_steps(9).index(True)
    with pytest.raises(train.NonFiniteError) as error:
        fit(model, 9)
    assert error.value.step == first + 1
    assert error.value.layers == ("bn.bias", "bn.scale", "conv.kernel")
    assert "in bn.bias, bn.scale, conv.kernel;" in str(error.value)
    sent = pickle.loads(pickle.dumps(error.value))
    assert vars(sent) == vars(error.value)
    assert str(sent) == str(error.value)
    model.fc.bias.set_value(jnp.full(3, jnp.nan))
    with pytest.raises(
        train.NonFiniteError, match=r"is nan .* bn.scale, conv.kernel and 2 more param"
    ):
        fit(model, 9)


@pytest.fixture(scope="module")
def skipping():
    """A run with LQ-Net's state beside BatchNorm's, some of whose batches are bad."""
    spec = QuantSpec("lq_net", bits=2)
    model = calibrate.quantize(Net(bright=poisoned), {"conv": spec})
    options = {"on_nonfinite": "skip", "silent_above": 0.5}
    before = train.init(model, train.sgd(training.table([0.1] * 9)))
    return model, options, before, fit(model, 9, **options)


def test_a_skipped_step_changes_nothing_but_its_count(skipping):
    _, _, before, history = skipping
    skipped, bright = 0, bright_steps(9)
    assert 2 < sum(bright) < 9
    for step, (progress, bad) in enumerate(zip(history, bright, strict=True), 1):
        state = progress.state
        skipped += bad
        assert (int(state.step[0]), int(state.skipped[0])) == (step, skipped)
        for name in ("params", "model_state", "opt_state"):
            assert same(getattr(state, name), getattr(before, name)) == bad, name
        assert bool(progress.metrics.finite.all()) != bad
        before = state


@pytest.mark.parametrize("stopped", [1, 4, 8])
def test_a_resumed_run_skips_and_reports_as_the_run_never_stopped(skipping, stopped):
    model, options, _, history = skipping
    rest = fit(model, 9, start=history[stopped - 1].state, **options)
    assert same(rest[-1].state, history[-1].state)
    for now, before in zip(rest, history[stopped:], strict=True):
        assert same(now.metrics, before.metrics)
    # Which layers were above is not kept: the first step names all that are.
    assert set(rest[0].silent) >= set(history[stopped].silent)
    later = [progress.silent for progress in history[stopped + 1 :]]
    assert [progress.silent for progress in rest[1:]] == later


@pytest.mark.slow
def test_skipping_gives_up(monkeypatch):
    assert guards.MOST_SKIPPED == 100
    monkeypatch.setattr(guards, "MOST_SKIPPED", 3)
    model = Net(bright=poisoned)
    fit(model, 9, on_nonfinite="skip")  # never three in a row
    model.fc.kernel.set_value(jnp.full((6, 3), jnp.nan))
    with pytest.raises(
        train.NonFiniteError, match=r"3 steps in a row, all skip"
    ) as error:
        fit(model, 9, on_nonfinite="skip")
    assert error.value.step == 3


@pytest.mark.parametrize("on_nonfinite", ["stop", "skip"])
def test_the_state_is_donated(on_nonfinite):
    rates, options = np.full(2, 0.1, np.float32), {"seed": 1, "batch_size": BATCH}
    run = training.steps(
        Net(), dataset(), rates, timesteps=2, on_nonfinite=on_nonfinite, **options
    )
    state = next(run).state
    assert not any(x.is_deleted() for x in jax.tree.leaves(state))
    next(run)
    assert all(x.is_deleted() for x in jax.tree.leaves(state))


# A layer that falls silent


@pytest.mark.parametrize("n", [1, 7, 20, 40, 60, 100, 512])
def test_dead_is_what_exact_counts_say(n):
    counts = np.arange(n + 1)
    found = guards.dead_fractions({"a": jnp.float32(counts) / jnp.float32(n)}, n)
    dead = [Fraction(int(c), n) < Fraction(1, 20) for c in counts]
    assert float(found["a"]) == pytest.approx(np.mean(dead), rel=1e-6)


@pytest.mark.slow
def test_layers_are_reported_when_they_fall_silent():
    history = fit(Net(bright=silenced), 11, silent_above=0.99)[:9]
    bright, said = bright_steps(9), []
    for progress, now, before in zip(history, bright, [False, *bright], strict=False):
        said.append(progress.silent)
        assert progress.silent == (("sn2",) if now and not before else ())
        assert (float(progress.metrics.dead["sn2"]) == 1) == now
        assert float(progress.metrics.dead["sn1"]) < 0.99
    assert said.count(("sn2",)) > 1
    # A layer may fall silent for good, too.
    state = history[-1].state
    bias = state.params["bn"]["bias"]
    bias.set_value(jnp.full((1, 6), -100.0))
    last = fit(Net(bright=silenced), 11, start=state, silent_above=0.99)
    assert [progress.silent for progress in last] == [("sn1", "sn2"), ()]


def penalty(rates, target):
    return target * sum(jnp.sum(r) for r in rates.values())


@pytest.mark.slow
def test_the_dead_are_counted_beside_a_penalty():
    model, batch = Net(), epoch_order(1, 0, N)[:BATCH]
    zero = jnp.float32(0)
    plain, both = (
        fit(model, 1, silent_above=0.5, **options)[0].metrics.dead
        for options in ({}, {"penalty": penalty, "target": zero})
    )
    images = dataset()
    x = data.normalize(images.images[batch], images.mean, images.std)
    graphdef, params, rest = train.split(model)

    @jax.jit
    def fired(params):
        model = nnx.merge(graphdef, params, rest, copy=True)
        return model(x, timesteps=2, train=True)[1]

    for layer, s in fired(params).items():
        dead = np.mean(np.asarray(s, int).sum((0, 1)) < 0.05 * 2 * BATCH)
        assert float(plain[layer]) == float(both[layer]) == pytest.approx(dead)
    assert 0 < plain["sn1"] < 1


def test_a_sweep_of_fractions_compiles_once():
    _make_train_step.cache_clear()
    for above in (0.5, 0.9):
        fit(Net(), 1, silent_above=above)
    assert _make_train_step.cache_info().misses == 1


def primitives(**options):
    model, tx, images = Net(), train.sgd(0.1), dataset()
    step = train.make_train_step(train.split(model)[0], tx, timesteps=2, **options)
    program = jax.make_jaxpr(step)(
        train.init(model, tx),
        data.on_device(images),
        np.arange(BATCH, dtype=np.int32),
        jax.random.key(0),
    )
    return collections.Counter(e.primitive.name for e in equations(program.jaxpr))


def test_what_is_not_asked_for_is_not_computed():
    plain = primitives()
    state = train.init(Net(), train.sgd(0.1))
    # A flag for the loss and one for each parameter.
    flags = 1 + len(jax.tree.leaves(state.params))
    assert plain["reduce_and"] == flags
    more = primitives(on_nonfinite="skip")
    arrays = len(jax.tree.leaves(state[:3]))
    assert more["select_n"] - plain["select_n"] == arrays
    dead = primitives(dead=True) - plain
    assert dead["reduce_sum"] / 2 == 2  # rates and fractions of 2 layers
    assert dead["lt"] == 2 * 2  # and whether what they record is spikes
    assert dead["select_n"] == 0


# Bad input


def test_one_image_is_a_batch():
    assert np.isfinite(fit(Net(), 1, batch_size=1)[0].metrics.loss).all()
