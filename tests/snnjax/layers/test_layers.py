import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P
from scipy.signal import correlate

from snnjax import layers, neurons, quantize, surrogate
from snnjax.layers import (
    BatchNorm,
    QuantConv,
    QuantLinear,
    Spiking,
    batch_norm,
    inspect,
)
from snnjax.quantize import QuantSpec

EPSILON = 1e-5


def normal(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def value(variable):
    return np.asarray(variable.get_value(), float)


def conv(*sizes, seed=0, **options):
    return QuantConv(*sizes, **options, rngs=nnx.Rngs(seed))


def reference_conv(x, w, strides, padding):
    """[B, H, W, C] by [k, k, C, K], in float64, as torch defines it."""
    x = np.pad(x.astype(float), ((0, 0), (padding,) * 2, (padding,) * 2, (0, 0)))
    full = [
        [
            sum(
                correlate(image[..., c], w[..., c, k].astype(float), "valid")
                for c in range(x.shape[-1])
            )
            for k in range(w.shape[-1])
        ]
        for image in x
    ]
    return np.moveaxis(full, 1, -1)[:, ::strides, ::strides]


# Convolution and linear layer


@pytest.mark.parametrize(
    ("kernel_size", "strides", "padding", "size"),
    [
        (1, 1, 0, (4, 5)),
        (1, 2, 0, (5, 6)),
        (3, 1, 1, (5, 8)),
        (3, 2, 1, (8, 7)),
        (3, 2, 0, (6, 7)),
        (7, 2, 3, (9, 8)),
        (7, 1, 3, (8, 5)),
    ],
)
@pytest.mark.parametrize("lead", [(2,), (3, 2)])
def test_conv_is_the_sum_over_windows(kernel_size, strides, padding, size, lead):
    layer = conv(3, 4, kernel_size=kernel_size, strides=strides, padding=padding)
    x = normal(*lead, *size, 3)
    y = layer(jnp.asarray(x))
    w = value(layer.kernel)
    expected = reference_conv(x.reshape(-1, *size, 3), w, strides, padding)
    assert y.shape == (*lead, *expected.shape[1:])
    np.testing.assert_allclose(y.reshape(expected.shape), expected, atol=2e-5)


def test_initial_kernels_are_fan_out_normal():
    layer = conv(32, 96, kernel_size=3)
    w = value(layer.kernel) / np.sqrt(2 / (9 * 96))
    assert abs(w.mean()) < 0.02
    assert abs(w.std() - 1) < 0.02
    # A truncated normal has neither these tails nor this fourth moment.
    assert np.abs(w).max() > 3.5
    assert abs((w**4).mean() - 3) < 0.15
    assert (
        value(conv(32, 96, kernel_size=3, seed=1).kernel) != value(layer.kernel)
    ).all()


def test_linear_is_a_matrix_product_of_torchs_first_values():
    layer = QuantLinear(64, 50, rngs=nnx.Rngs(0))
    w, b = value(layer.kernel), value(layer.bias)
    for values in (w, b):
        assert 0.9 / 8 < np.abs(values).max() <= 1 / 8
        assert abs(values.std() * 8 - 3**-0.5) < 0.08
    x = normal(3, 2, 64)
    np.testing.assert_allclose(layer(x), x.astype(float) @ w + b, atol=1e-5)


def test_computation_in_bfloat16_keeps_float32_parameters():
    x = jnp.asarray(normal(2, 5, 5, 3))
    layer = conv(3, 4, kernel_size=3, dtype=jnp.bfloat16)
    linear = QuantLinear(3, 2, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    assert layer(x).dtype == linear(x).dtype == jnp.bfloat16
    assert layer.kernel.dtype == linear.bias.dtype == jnp.float32
    same = conv(3, 4, kernel_size=3)(x.astype(jnp.bfloat16))
    np.testing.assert_array_equal(layer(x), same)


# Quantized kernels


@pytest.mark.parametrize("grid", ["mid_rise", "mid_tread"])
def test_kernel_is_quantized_and_set_free_again(grid):
    layer = conv(2, 3, kernel_size=3, quant=QuantSpec(bits=3, clip=0.5, grid=grid))
    w = value(layer.kernel)
    if grid == "mid_rise":
        levels = (np.arange(8) - 3.5) / 3.5 * 0.5
    else:
        levels = np.arange(-3, 4) / 3 * 0.5
    nearest = levels[np.abs(w[..., None] - levels).argmin(-1)]
    x = normal(1, 3, 3, 2)
    np.testing.assert_allclose(layer.quantized_kernel(), nearest, atol=1e-6)
    np.testing.assert_allclose(layer(x)[0, 0, 0], np.tensordot(x[0], nearest, 3), 1e-4)
    for off in (None, QuantSpec("none")):
        layer.quantize(QuantSpec(bits=3))
        layer.quantize(off)
        assert layer.quant is None
        np.testing.assert_array_equal(layer.quantized_kernel(), value(layer.kernel))


def lq_layer():
    layer = conv(2, 3, kernel_size=3, quant=QuantSpec("lq_net", bits=2, clip=0.3))
    # As if training had moved the weights since the basis was fitted.
    layer.kernel.set_value(layer.kernel + normal(3, 3, 2, 3) / 10)
    return layer


@pytest.mark.slow
@pytest.mark.parametrize("jit", [False, True])
def test_lq_net_uses_its_basis_and_training_then_moves_it(jit):
    layer = lq_layer()
    graphdef, state = nnx.split(layer)
    x = normal(2, 4, 4, 2)

    def step(state, train):
        layer = nnx.merge(graphdef, state, copy=True)
        return layer(x, train=train), nnx.state(layer)

    step = jax.jit(step, static_argnums=1) if jit else step
    w = np.clip(value(layer.kernel), -0.3, 0.3)
    before = quantize.LqState(*layer.quant_state.get_value())
    levels = np.array([[-1, -1], [1, -1], [-1, 1], [1, 1]]) @ np.asarray(before.basis)
    flat = w.reshape(-1, 3)
    nearest = np.abs(flat[:, None] - levels).argmin(1)
    hat = np.take_along_axis(levels, nearest, 0).reshape(w.shape)
    expected = reference_conv(x, hat, 1, 0)
    for train in (True, False):
        y, new = step(state, train)
        np.testing.assert_allclose(y, expected, atol=1e-5)
        after = quantize.LqState(*new["quant_state"].get_value())
        if train:
            learned = quantize.lq_update(jnp.asarray(w, jnp.float32), before)
            assert np.abs(after.basis - before.basis).max() > 1e-4
            np.testing.assert_allclose(after.basis, learned.basis, rtol=1e-5)
            assert (before.count, after.count) == (0, 1)
        else:
            np.testing.assert_array_equal(after.basis, before.basis)
            assert after.count == 0


def test_stateful_layers_inside_a_gradient():
    class Net(nnx.Module):
        def __init__(self):
            self.conv, self.norm = lq_layer(), BatchNorm(3)

        def __call__(self, x):
            return self.norm(self.conv(x, train=True), train=True)

    x = jnp.asarray(normal(2, 4, 4, 2))
    graphdef, params, rest = nnx.split(Net(), nnx.Param, ...)

    @jax.jit
    def step(params, rest):
        def loss(params):
            net = nnx.merge(graphdef, params, rest, copy=True)
            y = net(x)
            return jnp.sum(y**3), nnx.split(net, nnx.Param, ...)[2]

        return jax.value_and_grad(loss, has_aux=True)(params)

    (_, new), grads = step(params, rest)
    assert jax.tree.structure(new) == jax.tree.structure(rest)
    assert jax.tree.structure(grads) == jax.tree.structure(params)
    assert np.abs(grads["conv"]["kernel"].get_value()).max() > 0
    assert (new["norm"]["mean"].get_value() != 0).all()
    assert new["conv"]["quant_state"].get_value().count == 1
    assert rest["conv"]["quant_state"].get_value().count == 0


@pytest.mark.slow
def test_lq_net_gradient_goes_straight_through_up_to_the_clip():
    layer = lq_layer()
    at = layer.kernel.get_value().at[0, 0, 0].set([0.3, -0.3, 0.31])
    layer.kernel.set_value(at)
    graphdef, params, rest = nnx.split(layer, nnx.Param, ...)

    def loss(params):
        layer = nnx.merge(graphdef, params, rest, copy=True)
        return jnp.sum(layer.quantized_kernel(train=True) * 3)

    grad = jax.grad(loss)(params)["kernel"].get_value()
    inside = np.abs(layer.kernel.get_value()) <= np.float32(0.3)
    assert inside[0, 0, 0].tolist() == [True, True, False]
    assert 0 < inside.mean() < 1
    np.testing.assert_array_equal(grad, 3.0 * inside)


# BatchNorm


def reference_norm(x, scale, bias, mean=None, var=None):
    axes = tuple(range(x.ndim - 1))
    mean = x.mean(axes) if mean is None else mean
    var = x.var(axes) if var is None else var
    return (x - mean) / np.sqrt(var + EPSILON) * scale + bias


def norm_layer(features):
    layer = BatchNorm(features)
    layer.scale.set_value(jnp.asarray(normal(features, seed=1)))
    layer.bias.set_value(jnp.asarray(normal(features, seed=2)))
    layer.mean.set_value(jnp.asarray(normal(features, seed=3)))
    layer.var.set_value(jnp.asarray(normal(features, seed=4) ** 2 + 0.1))
    return layer


@pytest.mark.parametrize("shape", [(6, 3), (4, 5, 2, 3), (3, 2, 5, 2, 3)])
def test_norm_and_its_running_statistics(shape):
    x = normal(*shape) * 3 + 5
    layer = norm_layer(3)
    scale, bias, mean, var = (
        value(v) for v in (layer.scale, layer.bias, layer.mean, layer.var)
    )
    wide, axes = x.astype(float), tuple(range(x.ndim - 1))
    y = layer(x, train=False)
    np.testing.assert_allclose(
        y, reference_norm(wide, scale, bias, mean, var), rtol=1e-4, atol=1e-4
    )
    np.testing.assert_array_equal(value(layer.mean), mean)
    y = layer(x, train=True)
    np.testing.assert_allclose(y, reference_norm(wide, scale, bias), atol=2e-5)
    # torch: momentum 0.1, the variance unbiased.
    unbiased = wide.var(axes, ddof=1)
    np.testing.assert_allclose(
        value(layer.mean), 0.9 * mean + 0.1 * wide.mean(axes), 1e-5
    )
    np.testing.assert_allclose(value(layer.var), 0.9 * var + 0.1 * unbiased, 1e-5)


def test_norm_of_a_still_image_counts_its_copies():
    x = normal(2, 3, 1, 4)
    once, copied = norm_layer(4), norm_layer(4)
    y = once(x, train=True, repeats=5)
    copies = np.broadcast_to(x, (5, *x.shape))
    np.testing.assert_allclose(copied(copies, train=True)[2], y, atol=1e-5)
    np.testing.assert_allclose(value(once.var), value(copied.var), rtol=1e-6)
    np.testing.assert_allclose(value(once.mean), value(copied.mean), rtol=1e-6)
    plain = norm_layer(4)
    plain(x, train=True)
    assert (np.abs(value(plain.var) - value(once.var)) > 1e-3).all()


@pytest.mark.slow
def test_norm_gradient_is_that_of_the_formula():
    arguments = [normal(2, 3, 2, 4) * 2 + 1, normal(4, seed=1), normal(4, seed=2)]
    weights = normal(2, 3, 2, 4, seed=3)

    def plain(x, scale, bias):
        mean = jnp.mean(x, (0, 1, 2))
        var = jnp.mean((x - mean) ** 2, (0, 1, 2))
        y = (x - mean) / jnp.sqrt(var + EPSILON) * scale + bias
        return jnp.sum(weights * y)

    def ours(x, scale, bias):
        return jnp.sum(weights * layers.batch_norm(x, scale, bias)[0])

    found = jax.grad(ours, argnums=(0, 1, 2))(*arguments)
    expected = jax.grad(plain, argnums=(0, 1, 2))(*arguments)
    wide, step = [a.astype(float) for a in arguments], 1e-6
    for i, (grad, autodiff) in enumerate(zip(found, expected, strict=True)):
        np.testing.assert_allclose(grad, autodiff, atol=2e-5)
        direction = normal(*grad.shape, seed=9).astype(float)
        ends = []
        for sign in (1, -1):
            moved = list(wide)
            moved[i] = wide[i] + sign * step * direction
            ends.append(np.sum(weights * reference_norm(*moved)))
        slope = (ends[0] - ends[1]) / (2 * step)
        np.testing.assert_allclose(np.sum(grad * direction), slope, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("mixed_dtypes")
def test_norm_in_low_precision_keeps_float32_statistics():
    x = jnp.asarray(normal(64, 4) + 100, jnp.bfloat16)
    layer = BatchNorm(4, param_dtype=jnp.bfloat16)
    y = layer(x, train=True)
    assert y.dtype == layer(x, train=False).dtype == layer.scale.dtype == jnp.bfloat16
    assert layer.mean.dtype == layer.var.dtype == jnp.float32
    exact = np.asarray(x, float)
    np.testing.assert_allclose(value(layer.mean), 0.1 * exact.mean(0), rtol=1e-6)
    np.testing.assert_allclose(
        value(layer.var), 0.9 + 0.1 * exact.var(0, ddof=1), rtol=1e-6
    )
    scale, bias = layer.scale.get_value(), layer.bias.get_value()
    grad = jax.grad(lambda x: layers.batch_norm(x, scale, bias)[0].sum())(x)
    assert grad.dtype == jnp.bfloat16


# Neurons


def reference_spikes(x, site, levels):
    """LIF, tau 2, threshold 1, reset to 0, its membrane on a grid."""
    on_grid = lambda v: levels[np.abs(v[..., None] - levels).argmin(-1)]  # noqa: E731
    v, spikes = np.zeros(x.shape[1:]), []
    for current in x.astype(float):
        h = v + (current - v) / 2
        h = on_grid(h) if site == "pre_fire" else h
        spikes.append(h >= 1)
        v = np.where(h >= 1, 0, h)
        v = on_grid(v) if site == "post_reset" else v
    return np.array(spikes, float)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [5, 11])  # unrolled, and scanned
def test_membranes_are_quantized_at_either_site(steps):
    x = normal(steps, 40, 3) * 2 + 0.5
    spec = QuantSpec(bits=2, signed=False, grid="mid_tread")
    layer = Spiking(neurons.LIF())
    trains = {"none": np.asarray(layer(x))}
    for site in ("post_reset", "pre_fire"):
        layer.quantize(spec, site=site)
        trains[site] = np.asarray(layer(x))
        levels = np.arange(4) / 3
        np.testing.assert_array_equal(trains[site], reference_spikes(x, site, levels))
    assert len({train.tobytes() for train in trains.values()}) == 3
    layer.quantize(QuantSpec("none"))
    np.testing.assert_array_equal(layer(x), trains["none"])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lsq", "mint"])
def test_a_learned_scale_is_a_parameter(method):
    spec = QuantSpec(method, bits=4)
    layer = conv(3, 5, kernel_size=3, quant=spec)
    w = value(layer.kernel)
    np.testing.assert_array_equal(value(layer.quant_scale), spec.init_scale(w))
    scale = spec.init_scale(w) * 0.7
    layer.quant_scale.set_value(scale)
    np.testing.assert_array_equal(layer.quantized_kernel(), spec(w, scale))
    graphdef, params, rest = nnx.split(layer, nnx.Param, ...)

    def loss(params):
        layer = nnx.merge(graphdef, params, rest, copy=True)
        return layer(jnp.ones((1, 4, 4, 3))).sum()

    assert jax.grad(loss)(params)["quant_scale"].get_value() != 0
    layer.quantize(None)
    assert not nnx.state(layer, layers.Hyperparameter)
    assert set(nnx.state(layer, nnx.Param)) == {"kernel"}


@pytest.mark.slow
def test_a_clip_for_each_channel_is_taken_from_the_weights():
    layer = conv(3, 5, kernel_size=3, quant=QuantSpec(bits=3, per_channel=True))
    w = value(layer.kernel)
    got = np.asarray(layer.quantized_kernel())
    np.testing.assert_allclose(
        np.abs(got).max((0, 1, 2)), np.abs(w).max((0, 1, 2)), 3e-7
    )
    each = conv(3, 5, kernel_size=3, quant=QuantSpec("lsq", bits=3, per_channel=True))
    assert value(each.quant_scale).shape == (5,)


@pytest.mark.slow
def test_plif_learns_a_time_constant_in_each_layer():
    layer = Spiking(neurons.PLIF(tau=3.0))
    x = normal(5, 2, 7)
    np.testing.assert_array_equal(layer(x), neurons.plif(x, tau=3.0)[0])
    graphdef, params, rest = nnx.split(layer, nnx.Param, ...)
    (w,) = jax.tree.leaves(params)
    assert w.shape == ()
    # Reset and threshold; w is kept once.
    assert sorted(map(float, jax.tree.leaves(rest))) == [0, 1]

    def loss(params):
        return (x * nnx.merge(graphdef, params, rest, copy=True)(x)).sum()

    assert jax.tree.leaves(jax.grad(loss)(params))[0] != 0


def mint_neuron(x, scale, bits, leak=0.5, threshold=0.5):
    """MINT's published neuron, hard reset: what is stored has leaked already."""
    top, u, spikes = 2 ** (bits - 1) - 1, np.zeros(x.shape[1:]), []
    for current in x:
        h = u + current
        s = h >= threshold
        u = leak * h * (1 - s)
        u = scale / top * np.round(top * np.clip(np.tanh(u) / scale, -1, 1))
        spikes.append(s)
    return np.array(spikes)


@pytest.mark.slow
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_mint_membranes_are_quantized_after_the_leak(bits, x64, mixed_dtypes):
    x = np.random.default_rng(0).normal(0.2, 0.4, (9, 400))
    neuron = neurons.LIF(tau=2.0, v_threshold=0.5, decay_input=False)
    layer = Spiking(neuron, quant=QuantSpec("mint", bits=bits, clip=0.375))
    expected = mint_neuron(x, 0.375, bits)
    np.testing.assert_array_equal(layer(x), expected)
    assert (expected != mint_neuron(x, 0.375, 16)).any() or bits == 8
    assert value(layer.quant_scale) == 0.375
    slower = neurons.LIF(tau=4.0, v_threshold=0.5, decay_input=False)
    layer = Spiking(slower, quant=QuantSpec("mint", bits=bits, clip=0.375))
    np.testing.assert_array_equal(layer(x), mint_neuron(x, 0.375, bits, leak=0.75))


def test_lsq_on_a_membrane_starts_as_mid_tread():
    x = normal(6, 40)
    lsq = Spiking(neurons.LIF(), quant=QuantSpec("lsq", bits=4, signed=False))
    uniform = QuantSpec(bits=4, clip=1.0, signed=False, grid="mid_tread")
    np.testing.assert_array_equal(lsq(x), Spiking(neurons.LIF(), quant=uniform)(x))
    assert value(lsq.quant_scale) == np.float32(1 / 15)


def lif_with_a_learned_step(x, step):
    def quantizer(v):
        return quantize.lsq(v, step, bits=4)

    return neurons.lif(x, membrane_quantizer=quantizer)[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "function",
    [
        lambda x, p: quantize.lsq(x, p, bits=4),
        lambda x, p: quantize.mint(x, p, bits=4),
        lambda x, p: quantize.uniform(p, bits=4, clip=1 + x[0, 0] ** 2),
        lambda x, p: surrogate.atan(p - 0.2, 1 + x[0, 0] ** 2),
        lif_with_a_learned_step,
        lambda x, p: batch_norm(x, p, 0.5 * p)[0] ** 2,
    ],
    ids=["lsq", "mint", "uniform", "surrogate", "lif", "batch_norm"],
)
def test_what_is_equal_on_all_devices_has_a_gradient_inside_shard_map(function):
    # JAX checks what varies over the devices on one of them too.
    mesh = jax.sharding.Mesh(jax.devices()[:1], ("data",))
    # So many steps that a neuron is a loop.
    x, p = jnp.asarray(normal(9, 6, 4)), jnp.full(4, 0.3)

    def part(x, p):
        return jax.lax.psum(jnp.sum(x * function(x, p)), "data")

    parts = P(None, "data"), P()
    whole = jax.shard_map(part, mesh=mesh, in_specs=parts, out_specs=P())
    on_mesh = jax.jit(jax.grad(whole, (0, 1)))(x, p)
    alone = jax.jit(jax.grad(lambda x, p: jnp.sum(x * function(x, p)), (0, 1)))(x, p)
    for got, expected in zip(on_mesh, alone, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    assert np.abs(on_mesh[1]).max() > 0


def test_batch_norm_evaluates_in_the_inputs_precision(x64):
    layer = BatchNorm(3)
    layer.mean.set_value(jnp.asarray([0.1, 0.2, 0.3], jnp.float32))
    x = normal(5, 3)
    mean, var = (np.float64(value(v)) for v in (layer.mean, layer.var))
    layer.eval()
    np.testing.assert_allclose(layer(jnp.asarray(x)), (x - mean) / np.sqrt(var + 1e-5))


# Groups, sizes of each axis, bias


@pytest.mark.parametrize("groups", [1, 2, pytest.param(4, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("method", ["uniform", "lsq", "lq_net", "mint", "dorefa"])
def test_groups_are_convolutions_of_their_channels(groups, method):
    spec = QuantSpec(method, bits=3)
    layer = conv(4, 8, kernel_size=3, padding=1, groups=groups, quant=spec)
    assert layer.kernel.shape == (3, 3, 4 // groups, 8)
    x = normal(2, 6, 5, 4)
    got, w = np.asarray(layer(x)), layer.quantized_kernel()
    inputs, outputs = np.split(x, groups, -1), np.split(w, groups, -1)
    alone = [
        jax.lax.conv_general_dilated(
            jnp.asarray(a, jnp.float32),
            jnp.asarray(b),
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        for a, b in zip(inputs, outputs, strict=True)
    ]
    np.testing.assert_allclose(got, np.concatenate(alone, -1), 1e-4, 1e-5)


def test_sizes_of_each_axis_and_bias():
    layer = conv(
        *(3, 6),
        kernel_size=(1, 5),
        strides=(1, 2),
        padding=(0, 2),
        groups=3,
        use_bias=True,
        quant=QuantSpec(bits=4, per_channel=True),
    )
    assert layer.kernel.shape == (1, 5, 1, 6)
    assert np.shape(layer.quant.get_value().clip) == (6,)
    x = normal(2, 4, 8, 3)
    before = np.asarray(layer(x))
    assert before.shape == (2, 4, 4, 6)
    layer.bias.set_value(jnp.arange(6.0))
    np.testing.assert_allclose(layer(x), before + np.arange(6), 1e-5, 1e-5)
    assert set(nnx.state(layer, nnx.Param)) == {"kernel", "bias"}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (dict(groups=3), "groups must divide in_features"),
        (dict(groups=0), "groups must be at least 1"),
        (dict(kernel_size=(3, 0)), "kernel_size must be at least 1"),
        (dict(strides=(1, 0)), "strides must be at least 1"),
        (dict(padding=(0, -1)), "padding must be at least 0"),
    ],
)
def test_bad_geometry(options, says):
    with pytest.raises(ValueError, match=says):
        conv(4, 8, **(dict(kernel_size=3) | options))


# Scales stay positive; zeros stay zero


@pytest.mark.parametrize("method", ["lsq", "mint"])
def test_a_step_that_makes_a_scale_negative_is_cut(method):
    layer = conv(3, 5, kernel_size=3, quant=QuantSpec(method, bits=4))
    old = nnx.state(layer, nnx.Param)
    first = float(value(layer.quant_scale))
    for change, expected in ((-2.0, 0.5), (-1.0, 0.5), (-0.9, 0.1), (1.0, 2.0)):
        new = jax.tree.map(lambda x: x + change * first, old)  # noqa: B023
        got = jax.jit(layers.project_scales)(old, new)
        scale = float(got["quant_scale"].get_value())
        np.testing.assert_allclose(scale, expected * first, 1e-5)
        np.testing.assert_array_equal(
            got["kernel"].get_value(), new["kernel"].get_value()
        )


def test_a_membranes_zero_point_may_have_any_sign_and_its_step_stays_positive():
    spec = QuantSpec("lsq", bits=2, clip=[1.0, 0.5], zero_point=True)
    layer = Spiking(neurons.IF(), quant=spec)
    np.testing.assert_array_equal(value(layer.quant_scale), [[1.0, 0.5], [2, 2]])
    old = nnx.state(layer, nnx.Param)
    new = jax.tree.map(lambda x: x - 3, old)
    got = layers.project_scales(old, new)["quant_scale"].get_value()
    np.testing.assert_array_equal(got, [[0.5, 0.25], [-1, -1]])


@pytest.mark.slow
def test_the_gradient_of_a_membranes_step_counts_all_steps():
    """N of 1 / sqrt(N Q) is of T steps, of which the scan quantizes one at a time."""
    x, cotangent = (jnp.asarray(normal(4, 2, 6), jnp.float32) for _ in range(2))
    spec = QuantSpec("lsq", bits=3, clip=0.7)
    layer = Spiking(neurons.IF(), quant=spec)
    graphdef, params, rest = nnx.split(layer, nnx.Param, ...)

    def by_layer(params):
        layer = nnx.merge(graphdef, params, rest, copy=True)
        return jnp.sum(layer(x) * cotangent)

    def by_function(scale):
        quantizer = spec.bind_membrane(site="post_reset", leak=None, scale=scale)
        spikes, _ = neurons.IF()(x, membrane_quantizer=quantizer)
        return jnp.sum(spikes * cotangent)

    got = jax.grad(by_layer)(params)["quant_scale"].get_value()
    expected = jax.grad(by_function)(value(layer.quant_scale))
    assert expected != 0
    np.testing.assert_allclose(got, expected / 2, 1e-5)


def test_a_membranes_basis_may_have_either_sign():
    layer = Spiking(neurons.IF(), quant=QuantSpec("lq_net", bits=3))
    old = nnx.state(layer, nnx.Param)
    new = jax.tree.map(lambda x: -x, old)
    got = layers.project_scales(old, new)["quant_scale"].get_value()
    np.testing.assert_array_equal(got, new["quant_scale"].get_value())


@pytest.mark.parametrize(
    ("spec", "warned"),
    [
        (QuantSpec(bits=4, grid="mid_rise"), True),
        (QuantSpec(bits=1, per_channel=True), False),  # whole channels
        (QuantSpec("dorefa", bits=4), True),
        (QuantSpec("binary"), True),
        (QuantSpec("ternary"), False),
        (QuantSpec(bits=4), False),
        (QuantSpec("lsq", bits=4), False),
        (QuantSpec("mint", bits=4), False),
        (QuantSpec("lq_net", bits=4), False),
    ],
)
def test_levels_without_zero_on_pruned_weights_are_warned_about(spec, warned):
    layer = conv(4, 8, kernel_size=3)
    w = np.array(layer.kernel.get_value())
    w[..., :2] = 0
    layer.kernel.set_value(jnp.asarray(w))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        layer.quantize(spec, name="layer1.0.conv1")
        layer.quantize(spec, name="layer1.0.conv1")
    texts = [str(w.message) for w in caught]
    assert len(texts) == 2 * warned
    assert all("25% of the weights of layer1.0.conv1 are 0" in text for text in texts)
    if not warned:
        assert jnp.abs(layer.quantized_kernel()[..., :2]).max() < 0.01


def test_stochastic_rounding_draws_in_training_alone():
    spec = QuantSpec(bits=3, clip="absmax", rounding="stochastic")
    layer = conv(4, 8, kernel_size=3, quant=spec)
    nearest = QuantSpec(bits=3, clip="absmax")(layer.kernel.get_value())
    for _ in range(2):
        np.testing.assert_array_equal(layer.quantized_kernel(train=False), nearest)
    drawn = [np.asarray(layer.quantized_kernel(train=True)) for _ in range(3)]
    assert len({x.tobytes() for x in drawn}) == 3
    assert layer.quant_state.get_value().count == 3
    np.testing.assert_array_equal(layer.quantized_kernel(train=False), nearest)
    again = conv(4, 8, kernel_size=3, quant=spec)
    np.testing.assert_array_equal(again.quantized_kernel(train=True), drawn[0])


def test_a_report_of_bits_for_each_channel():
    """DoReFa's levels have no bound, and need no codes."""
    spec = QuantSpec("dorefa", bits=[4, 2, 3])
    layer = layers.QuantLinear(8, 3, quant=spec, rngs=nnx.Rngs(0))
    found = inspect.kernel_error(layer)
    w, levels = layer.kernel.get_value(), layer.quantized_kernel(train=False)
    expected = jnp.sqrt(jnp.mean((w - levels) ** 2) / jnp.mean(w**2))
    assert found.beyond == 0
    assert found.rms == pytest.approx(float(expected), rel=1e-5)
