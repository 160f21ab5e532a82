"""conv2d against XLA's own convolution, forward and both gradients."""

import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snnjax.conv import chunks, conv2d
from snnjax.conv.winograd import INPUT, KERNEL, OUTPUT

# One for each way: (N, H, W, C), (k, l, K), strides, padding.
WAYS = {
    "winograd": ((5, 16, 17, 64), (3, 3, 65), 1, 1),
    "winograd, wide padding": ((9, 12, 12, 64), (3, 3, 64), 1, ((2, 0), (3, 2))),
    "winograd, kernel gradient only": ((7, 9, 6, 32), (3, 3, 40), 1, 0),
    "columns": ((5, 15, 16, 32), (3, 3, 33), 2, 1),
    "columns, uneven strides": ((9, 15, 16, 33), (3, 3, 32), (2, 3), 1),
    "columns, 1x1": ((5, 16, 15, 32), (1, 1, 40), 2, 0),
    "columns, 5x3": ((5, 8, 9, 32), (5, 3, 32), 1, ((2, 2), (1, 1))),
    "stem, phases": ((64, 33, 32, 16), (3, 3, 32), 2, ((1, 1), (0, 2))),
    "stem, few channels": ((5, 9, 9, 16), (3, 3, 64), 1, 1),
    "stem": ((4, 9, 9, 3), (3, 3, 16), 1, 1),
    "stem, neighbours": ((5, 18, 17, 3), (3, 3, 16), 1, 1),
    "stem, neighbours of 8": ((5, 18, 18, 8), (3, 4, 8), 1, ((0, 2), (2, 1))),
    "stem, 7x7": ((4, 15, 15, 3), (7, 7, 8), 2, 3),
}


def native(x, w, strides, padding):
    pair = (strides, strides) if isinstance(strides, int) else strides
    pads = ((padding,) * 2,) * 2 if isinstance(padding, int) else padding
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, w, pair, pads, dimension_numbers=layout)


def drawn(shape, kernel, dtype, seed=0):
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.normal(size=shape), dtype)
    w = rng.normal(size=(*kernel[:2], shape[-1], kernel[2]))
    return x, jnp.asarray(w, dtype)


def with_gradients(conv, x, w, seed=1):
    @jax.jit
    def all_three(x, w):
        y, pull = jax.vjp(conv, x, w)
        dy = np.random.default_rng(seed).normal(size=y.shape)
        return y, *pull(jnp.asarray(dy, y.dtype))

    return all_three(x, w)


def assert_same(x, w, strides, padding, *, tolerance, keep=None):
    fast = lambda x, w: conv2d(x, w, strides=strides, padding=padding, keep=keep)  # noqa: E731
    found = with_gradients(fast, x, w)
    expected = with_gradients(lambda x, w: native(x, w, strides, padding), x, w)
    for name, a, b in zip(("y", "dx", "dw"), found, expected, strict=True):
        assert a.shape == b.shape, name
        assert a.dtype == b.dtype, name
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        scale = np.abs(b).max() if b.size else 1
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * scale, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_every_way_is_the_convolution_in_float64(way, x64, monkeypatch):
    monkeypatch.setattr(chunks, "ELEMENTS", 2**17)  # several chunks, some not full
    shape, kernel, strides, padding = WAYS[way]
    x, w = drawn(shape, kernel, jnp.float64)
    assert_same(x, w, strides, padding, tolerance=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_float32_rounds_little(way):
    shape, kernel, strides, padding = WAYS[way]
    x, w = drawn(shape, kernel, jnp.float32)
    assert_same(x, w, strides, padding, tolerance=1e-5)


@pytest.mark.parametrize("way", ["winograd", "columns", "stem"])
def test_bfloat16_keeps_its_dtype(way):
    shape, kernel, strides, padding = WAYS[way]
    x, w = drawn(shape, kernel, jnp.bfloat16)
    assert_same(x, w, strides, padding, tolerance=2e-2)


@pytest.mark.slow
@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.data())
def test_any_shape(data):
    integer = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    channels = st.sampled_from([1, 3, 8, 17, 32, 64])
    shape = (integer(1, 9), integer(3, 19), integer(3, 19), data.draw(channels))
    kernel = (integer(1, 3), data.draw(st.sampled_from([1, 3])), data.draw(channels))
    padding = ((integer(0, 2), integer(0, 2)), (integer(0, 2), integer(0, 2)))
    x, w = drawn(shape, kernel, jnp.float32)
    assert_same(x, w, (integer(1, 3), integer(1, 2)), padding, tolerance=2e-5)


def test_the_fast_ways_are_taken():
    """On a CPU no kernel gradient is left to XLA where there are enough channels."""
    for way, (shape, kernel, strides, padding) in WAYS.items():
        x, w = drawn(shape, kernel, jnp.float32)
        loss = lambda w: conv2d(x, w, strides=strides, padding=padding).sum()  # noqa: B023, E731
        text = jax.jit(jax.grad(loss)).lower(w).as_text()
        assert ("convolution" in text) == way.startswith("stem"), way


def test_filters_are_minimal():
    """F(4, 3) of Lavin and Gray: exact in rational numbers, so up to rounding here."""
    rng = np.random.default_rng(0)
    d, g = rng.normal(size=6), rng.normal(size=3)
    found = OUTPUT @ ((KERNEL @ g) * (INPUT @ d))
    np.testing.assert_allclose(found, np.correlate(d, g), rtol=1e-12)
    assert INPUT.dtype.kind == "i"  # spikes are transformed without rounding


@pytest.mark.parametrize("way", ["winograd", "columns"])
def test_spikes_kept_as_int8_change_nothing(way):
    shape, kernel, strides, padding = WAYS[way]
    x, w = drawn(shape, kernel, jnp.float32)
    spikes = sum((x > i).astype(jnp.float32) for i in (0, 1))

    def conv(keep):
        return functools.partial(conv2d, strides=strides, padding=padding, keep=keep)

    for a, b in zip(
        with_gradients(conv(jnp.int8), spikes, w),
        with_gradients(conv(None), spikes, w),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    residuals = jax.eval_shape(lambda x, w: jax.vjp(conv(jnp.int8), x, w)[1], spikes, w)
    assert [r.dtype for r in jax.tree.leaves(residuals)].count(jnp.int8) == 1


@pytest.mark.slow
@pytest.mark.parametrize("way", ["winograd", "columns"])
def test_second_derivatives(way, x64):
    shape, kernel, strides, padding = WAYS[way]
    x, w = drawn(shape, kernel, jnp.float64)

    def curved(conv):
        loss = lambda x, w: jnp.sum(conv(x, w) ** 3)  # noqa: E731
        slope = jax.grad(loss, argnums=(0, 1))
        return jax.jit(
            jax.grad(lambda x, w: sum(jnp.sum(g**2) for g in slope(x, w)), (0, 1))
        )(x, w)

    fast = curved(lambda x, w: conv2d(x, w, strides=strides, padding=padding))
    for a, b in zip(
        fast, curved(lambda x, w: native(x, w, strides, padding)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * np.abs(b).max())


@pytest.mark.slow
def test_second_derivatives_without_the_input_are_refused():
    x, w = drawn((2, 6, 6, 4), (3, 3, 4), jnp.float32)
    loss = lambda w: jnp.sum(conv2d(x, w, keep="int8") ** 2)  # noqa: E731
    jax.grad(loss)(w)
    with pytest.raises(NotImplementedError, match="second derivatives"):
        jax.grad(lambda w: jnp.sum(jax.grad(loss)(w)))(w)


@pytest.mark.parametrize(
    ("images", "elements", "size"),
    [
        (128, chunks.ELEMENTS // 8, 8),
        (128, chunks.ELEMENTS // 7, 4),  # a divisor of 128
        (127, chunks.ELEMENTS // 8, 8),  # 127 has none: the last chunk is filled up
        (128, 10 * chunks.ELEMENTS, 1),
        (3, 1, 3),
    ],
)
def test_chunks_fit_and_divide(images, elements, size):
    assert chunks.choose_chunk_size(images, elements) == size


PROGRAM = """
import os
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
import jax, numpy as np
from jax.sharding import PartitionSpec as P
from snnjax.conv import chunks, conv2d
chunks.ELEMENTS = 2**16

mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
rng = np.random.default_rng(0)
for c, strides in ((64, 1), (32, 1), (32, 2)):
    x = rng.normal(size=(40, 17, 17, c)).astype("float32")
    w = rng.normal(size=(3, 3, c, c)).astype("float32")
    loss = lambda x, w: (conv2d(x, w, strides=strides, padding=1) ** 2).sum()
    step = lambda x, w: jax.grad(loss, 1)(x, w)  # summed, since w is the same on all
    on_mesh = jax.jit(jax.shard_map(
        step, mesh=mesh, in_specs=(P("data"), P()), out_specs=P(),
    ))(x, w)
    alone = jax.jit(jax.grad(loss, 1))(x, w)
    np.testing.assert_allclose(on_mesh, alone, rtol=0, atol=1e-5 * abs(alone).max())
"""


@pytest.mark.slow
def test_inside_shard_map():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        env=os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]


X, W = jnp.zeros((2, 5, 5, 3)), jnp.zeros((3, 3, 3, 4))


@pytest.mark.parametrize(
    ("x", "w", "options", "message"),
    [
        (X[0], W, {}, r"x must be \[N, H, W, C\].*got shapes \(5, 5, 3\)"),
        (X, W[..., :2, :], {}, "with the same C"),
        (X.astype(int), W.astype(int), {}, "floating-point dtype, got int32"),
        (X.astype(jnp.bfloat16), W, {}, "one floating-point dtype, got bfloat16 and"),
        (X, W, {"strides": 0}, "strides must be at least 1, got 0"),
        (X, W, {"padding": -1}, "padding must be at least 0"),
        (X[:, :2], W, {}, r"kernel \(3, 3\) is larger than the image \(2, 5\)"),
    ],
)
def test_nonsense_is_refused(x, w, options, message):
    with pytest.raises(ValueError, match=message):
        conv2d(x, w, **options)


@pytest.mark.parametrize("keep", [None, jnp.int8])
@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("groups", [2, 64])
def test_groups(groups, strides, keep):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(0, 2, (2, 9, 10, 64)), jnp.float32)
    w = jnp.asarray(rng.normal(size=(3, 3, 64 // groups, 128)), jnp.float32)

    def own(x, w):
        return conv2d(x, w, strides=strides, padding=1, groups=groups, keep=keep)

    def xla(x, w):
        return jax.lax.conv_general_dilated(
            *(x, w, (strides, strides), ((1, 1), (1, 1))),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    pairs = zip(with_gradients(own, x, w), with_gradients(xla, x, w), strict=True)
    for found, expected in pairs:
        np.testing.assert_allclose(found, expected, 1e-5, 1e-4)


@pytest.mark.parametrize(
    ("shape", "groups", "says"),
    [
        ((3, 3, 4, 8), 2, "same C"),
        ((3, 3, 2, 7), 2, "groups must divide 7"),
        ((3, 3, 4, 8), 0, "groups must be at least 1"),
    ],
)
def test_bad_groups(shape, groups, says):
    with pytest.raises(ValueError, match=says):
        conv2d(jnp.ones((1, 8, 8, 4)), jnp.ones(shape), groups=groups)
