"""Networks of named layers do what the ready-made ones do; the protocol is checked."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from snnjax import (
    calibrate,
    checkpoint,
    cost,
    data,
    firing,
    layers,
    models,
    neurons,
    train,
)
from snnjax.quantize import QuantSpec


def network(**more):
    rngs = nnx.Rngs(0)
    parts = {
        "conv1": layers.QuantConv(1, 4, kernel_size=3, padding=1, rngs=rngs),
        "bn1": layers.BatchNorm(4),
        "sn1": layers.Spiking(neurons.LIF(v_threshold=jnp.ones(4)), learn=("tau",)),
        "pool1": layers.AvgPool(2),
        "conv2": layers.QuantConv(
            4, 8, kernel_size=3, padding=1, groups=2, use_bias=True, rngs=rngs
        ),
        "sn2": layers.Spiking(neurons.CubaLIF(v_threshold=0.3)),
        "pool2": layers.MaxPool(2),
        "drop": layers.Dropout(0.1, rngs=rngs),
        "flat": layers.Flatten(),
        "rec": layers.Recurrent(32, neurons.IF(v_threshold=0.2), rngs=rngs),
        "fc": layers.QuantLinear(32, 10, rngs=rngs),
        "out": layers.Readout(),
    }
    return models.Sequential(parts | more, in_shape=(8, 8, 1))


@pytest.mark.slow
def test_a_network_goes_all_the_way(tmp_path):
    images = data.load("digits", "train", limit=128)
    net = network()
    before = nnx.to_pure_dict(nnx.state(net, nnx.Param))
    net = train.fit(
        net, images, steps=3, optimizer=optax.adam(1e-2), batch_size=32, seed=0
    )
    after = nnx.to_pure_dict(nnx.state(net, nnx.Param))
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), before, after)
    assert all(jax.tree.leaves(moved))
    spec = QuantSpec(bits=4, grid="mid_tread")
    rules = {r"conv\d|rec\.feedback": QuantSpec("lq_net", bits=3)}
    rules |= {r"sn\d|rec\.sn|out": spec}
    quantized = calibrate.reestimate_batchnorm(
        calibrate.quantize(net, rules), images, batch_size=32
    )
    assert calibrate.describe(quantized).count(" bit ") == 7
    found = [train.evaluate(m, images, outputs=True) for m in (net, quantized)]
    report = firing.report(*(e.counts for e in found))
    assert set(report.emd) == {"sn1", "sn2", "rec.sn"}
    operations = cost.synaptic_operations(net.synapses(), found[0].spikes, 128)
    assert set(operations) == {"conv2", "rec.feedback", "fc"}
    path = checkpoint.export(tmp_path / "net.safetensors", quantized)
    again = checkpoint.load(path)
    x = data.network_input(images.images[:4], images.mean, images.std)
    logits, spikes = again(x)
    assert np.array_equal(logits, quantized(x)[0])
    assert spikes["sn1"].shape == (4, 4, 8, 8, 4)


@pytest.mark.slow
def test_a_still_image_is_a_sequence_of_it():
    net = network()
    x = jnp.asarray(np.random.default_rng(0).normal(0, 2, (2, 8, 8, 1)), jnp.float32)
    still, spikes = net(x, timesteps=5)
    shown, other = net(jnp.stack([x] * 5), timesteps=5)
    np.testing.assert_allclose(still, shown, atol=1e-5)
    assert all(np.array_equal(spikes[k], other[k]) for k in spikes)


def test_synapses_are_those_of_one_spike():
    """Synaptic operations of one spike, by the layers' own linear maps."""
    net = network()
    rows = {row.name: row for row in net.synapses()}
    reached = cost.fan_out(rows["conv2"])
    for h, w, c in [(0, 0, 0), (3, 4, 1), (7, 7, 3)]:
        spike = jnp.zeros((1, 1, 8, 8, 4)).at[0, 0, h, w, c].set(1.0)
        net.conv2.bias.set_value(jnp.zeros(8))
        seen = net.conv2(net.pool1(spike))
        assert int((seen != 0).sum()) == reached[h, w]


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        (layers.AvgPool, [[2.5, 4.5], [10.5, 12.5]]),
        (layers.SumPool, [[10, 18], [42, 50]]),
        (layers.MaxPool, [[5, 7], [13, 15]]),
    ],
)
def test_pooling(pool, expected):
    x = jnp.arange(16.0).reshape(1, 1, 4, 4, 1)
    assert pool(2)(x)[0, 0, :, :, 0].tolist() == expected
    flat = jnp.arange(4.0).reshape(1, 1, 4, 1)
    two = [flat[0, 0, :2, 0], flat[0, 0, 2:, 0]]
    reduce = {"AvgPool": np.mean, "SumPool": np.sum, "MaxPool": np.max}[pool.__name__]
    assert pool((2,))(flat)[0, 0, :, 0].tolist() == [float(reduce(a)) for a in two]
    assert pool(None)(x).shape == (1, 1, 1, 1, 1)


def test_dropout_holds_one_mask_over_time():
    drop = layers.Dropout(0.5, rngs=nnx.Rngs(0))
    y = np.asarray(drop(jnp.ones((6, 3, 50))))
    assert (y == y[:1]).all()
    assert {0.0, 2.0} == set(np.unique(y))
    assert len({row.tobytes() for row in y[0]}) == 3
    drop.eval()
    assert (drop(jnp.ones((6, 3, 50))) == 1).all()


@pytest.mark.parametrize(
    ("layer", "in_shape"),
    [
        (layers.QuantConv(1, 8, kernel_size=5, padding=2, rngs=nnx.Rngs(0)), (40, 1)),
        (layers.QuantConv(40, 8, kernel_size=(3,), padding=1, rngs=nnx.Rngs(0)), (40,)),
        (nnx.Conv(4, 4, kernel_size=(3, 3), rngs=nnx.Rngs(0)), (12, 4)),
        (layers.MaxPool(3, strides=1, padding=1), (40, 8)),
        (layers.AvgPool(None), (40, 8)),
    ],
)
def test_a_layer_that_would_run_over_the_batch_is_refused(layer, in_shape):
    parts = {"first": layer, "sn": layers.Spiking(neurons.LIF()), "f": layers.Flatten()}
    with pytest.raises(ValueError, match=r"first, .*axes in front of the channels"):
        models.Sequential(parts, in_shape=in_shape)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_pooling_sums_in_float32(dtype):
    """In bfloat16 itself sums of ones stop at 256, in float16 at 2,048."""
    x = jnp.ones((1, 1, 64, 64, 1), dtype)
    for pool, expected in ((layers.AvgPool(None), 1), (layers.SumPool(32), 1024)):
        y = pool(x)
        assert y.dtype == dtype
        np.testing.assert_array_equal(np.asarray(y, np.float32), expected)


@pytest.mark.parametrize("axes", [1, 2])
def test_dilated_and_grouped_convolutions_are_sums(axes):
    size, stride = ((5,), (2,)) if axes == 1 else ((3, 2), (1, 2))
    conv = layers.QuantConv(
        4,
        6,
        kernel_size=size,
        strides=stride,
        padding=2,
        dilation=2,
        groups=2,
        rngs=nnx.Rngs(0),
    )
    shape = (2, 11, 4) if axes == 1 else (2, 11, 9, 4)
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    w = np.asarray(conv.kernel.get_value(), np.float64)
    padded = np.pad(x.astype(np.float64), [(0, 0), *[(2, 2)] * axes, (0, 0)])
    y = np.asarray(conv(jnp.asarray(x)))
    for place in np.ndindex(*y.shape[1:-1]):
        starts = [p * s for p, s in zip(place, stride, strict=True)]
        taps = [range(a, a + 2 * k, 2) for a, k in zip(starts, size, strict=True)]
        window = padded[np.ix_(range(2), *taps, range(4))]
        for g in range(2):
            part = window[..., 2 * g : 2 * g + 2].reshape(2, -1)
            kernel = w[..., 3 * g : 3 * g + 3].reshape(-1, 3)
            np.testing.assert_allclose(
                y[(slice(None), *place, slice(3 * g, 3 * g + 3))],
                part @ kernel,
                atol=1e-5,
            )


def test_layers_that_do_not_fit_are_refused():
    rngs = nnx.Rngs(0)
    kept = layers.QuantConv(4, 8, kernel_size=3, padding=1, spikes=True, rngs=rngs)
    with pytest.raises(ValueError, match="fc"):
        network(fc=layers.QuantLinear(31, 10, rngs=rngs))
    with pytest.raises(ValueError, match="spikes=False"):
        network(conv2=kept)
    with pytest.raises(ValueError, match="neurons"):
        models.Sequential({"flat": layers.Flatten()}, in_shape=(3,))
    with pytest.raises(ValueError, match="shapes"):
        models.Sequential({"shapes": layers.Spiking(neurons.IF())}, in_shape=(3,))


def test_gradients_of_graded_inputs_kept_as_spikes_are_nan():
    conv = layers.QuantConv(2, 3, kernel_size=3, spikes=True, rngs=nnx.Rngs(0))
    graphdef, params, rest = nnx.split(conv, nnx.Param, ...)

    @jax.jit
    def slope(params, x):
        return jax.grad(
            lambda p: (nnx.merge(graphdef, p, rest, copy=True)(x) ** 2).sum()
        )(params)

    spikes = jnp.ones((2, 5, 5, 2))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(slope(params, spikes)))
    graded = jax.tree.leaves(slope(params, 0.3 * spikes))
    assert all(np.isnan(x).all() for x in graded)
    with pytest.raises(ValueError, match="spikes=False"):
        conv(0.3 * spikes)


class Own(nnx.Module):
    """A network whose faults are chosen."""

    def __init__(self, fault=""):
        self.fc = layers.QuantLinear(64, 10, rngs=nnx.Rngs(0))
        self.sn = layers.Spiking(neurons.LIF())
        self.fault = fault

    def __call__(self, x, *, timesteps=4, train=None, record=None):
        x = jnp.stack([x.reshape(len(x), -1)] * timesteps)
        s = self.sn(2 * x)
        kept = {"sn": s, "graded": s.mean(-1, keepdims=True)}
        if self.fault != "graded":
            del kept["graded"]
        if record is not None and self.fault != "record":
            kept = {name: record(value) for name, value in kept.items()}
        y = self.fc(s, train=train)
        return y[0] if self.fault == "no time" else y, kept


@pytest.mark.parametrize("fault", ["record", "no time", "graded"])
def test_networks_called_otherwise_are_refused(fault):
    images = data.load("digits", "train", limit=64)
    options = dict(optimizer=optax.sgd(0.1), batch_size=32, steps=1, seed=0)
    train.evaluate(Own(), images)
    with pytest.raises(ValueError, match=r"record|logits|spikes"):
        train.evaluate(Own(fault), images)
    with pytest.raises(ValueError, match=r"record|logits|spikes"):
        train.fit(Own(fault), images, silent_above=0.9, **options)
