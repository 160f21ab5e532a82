"""Codes and scales: their product is the quantized kernel; packed bytes come back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import layers, quantize
from snnjax.quantize import QuantSpec


def weights(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(0, 0.3, shape), jnp.float32)


def every_spec():
    for bits in (1, 2, 4, 8, 16):
        for grid in ("mid_rise", "mid_tread"):
            if bits == 1 and grid == "mid_tread":
                continue
            for more in (
                {},
                {"signed": False},
                {"clip": "mse"},
                {"clip": "percentile", "per_channel": True},
                {"group_size": 7},
                {"pow2": True},
            ):
                yield QuantSpec(bits=bits, grid=grid, **more)
        yield QuantSpec("dorefa", bits=bits)
        if bits > 1:
            yield QuantSpec("lsq", bits=bits)
            yield QuantSpec("lsq", bits=bits, per_channel=True)
            yield QuantSpec("lsq", bits=bits, signed=False)
            yield QuantSpec("mint", bits=bits)
        if bits <= 8:
            yield QuantSpec("lq_net", bits=bits)
            yield QuantSpec("lq_net", bits=bits, codes=(0, 1))
    for more in ({}, {"per_channel": True}, {"per_channel": True, "pow2": True}):
        yield QuantSpec("binary", **more)
        yield QuantSpec("ternary", **more)
        for bits in (2, 3, 5):
            yield QuantSpec("power_of_two", bits=bits, **more)
    yield QuantSpec("power_of_two", bits=4, clip=0.3)


def mark(spec):
    """Few bits and 4 are enough by day."""
    return () if spec.bits in (1, 4) else pytest.mark.nightly


@pytest.mark.parametrize(
    "spec",
    [pytest.param(spec, id=str(spec), marks=mark(spec)) for spec in every_spec()],
)
def test_codes_times_scale_is_the_kernel_to_the_bit(spec):
    w = weights(3, 3, 4, 5)
    if spec.method == "lq_net":
        state = quantize.lq_fit(w, bits=int(spec.bits), codes=spec.lq_codes)
        kernel = np.asarray(quantize.lq_net(w, state, codes=spec.lq_codes))
        codes, levels = spec.encode(w, state)
        assert codes.dtype == np.uint8
        assert levels.shape == (2**spec.bits, 5)
        np.testing.assert_array_equal(levels[codes, np.arange(5)], kernel)
        scale = levels
    else:
        codes, scale = spec.encode(w)
        kernel = np.asarray(spec(w))
        assert codes.dtype.kind == "i"
        assert scale.dtype == np.float32
        # In float32: NumPy multiplies int32 in float64.
        product = codes.astype(np.float32) * scale
        np.testing.assert_array_equal(product, kernel)
    np.testing.assert_array_equal(spec.decode(codes, scale), kernel)
    assert len(np.unique(codes)) <= 2**spec.bits
    if spec.method == "power_of_two":
        assert set(np.abs(codes[codes != 0])) <= set(2 ** np.arange(15))
    elif spec.bits <= 8 and (spec.has_zero or spec.method == "lq_net"):
        assert codes.dtype.itemsize == 1 or not spec.signed


def test_decode_of_a_bound_that_no_step_divides():
    for clip in np.random.default_rng(0).uniform(0.1, 1, 50):
        spec = QuantSpec(bits=5, clip=clip)
        w = weights(40, seed=1)
        codes, scale = spec.encode(w)
        np.testing.assert_array_equal(spec.decode(codes, scale), spec(w))
        np.testing.assert_allclose(codes * scale, spec(w), 1.3e-7)


@pytest.mark.parametrize("method", ["uniform", "lsq", "mint", "dorefa", "lq_net"])
def test_codes_of_a_layer(method):
    spec = QuantSpec(method, bits=3)
    conv = layers.QuantConv(4, 6, kernel_size=3, quant=spec, rngs=nnx.Rngs(0))
    codes, scale = conv.encode()
    decoded = conv.quant.get_value().decode(codes, scale)
    np.testing.assert_array_equal(decoded, conv.quantized_kernel())
    conv.quantize(None)
    with pytest.raises(ValueError, match="no quantizer"):
        conv.encode()


def test_bad_encoding():
    w = weights(4, 3)
    with pytest.raises(ValueError, match="'none' has no codes"):
        QuantSpec("none").encode(w)
    with pytest.raises(ValueError, match="NaN"):
        QuantSpec(bits=4).encode(w * np.nan)
    with pytest.raises(ValueError, match="LqState"):
        QuantSpec("lq_net", bits=2).encode(w)
    with pytest.raises(ValueError, match="LqState"):
        QuantSpec("lq_net", bits=2).encode(w, jnp.ones(2))
    with pytest.raises(ValueError, match="traced"):
        jax.jit(lambda w: QuantSpec(bits=4).encode(w)[0])(w)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 7, 8, 11, 16])
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("odd", [True, False])
def test_pack_and_unpack(bits, signed, odd):
    low = -(1 << bits - 1) if signed else 0
    codes = np.random.default_rng(bits).integers(low, low + (1 << bits), (7, 3, 5))
    codes = 2 * codes + 1 if odd else codes
    packed = quantize.pack(codes, bits, odd=odd)
    assert packed.dtype == np.uint8
    assert packed.size == -(-105 * bits // 8)
    got = quantize.unpack(packed, bits, codes.shape, signed=signed, odd=odd)
    np.testing.assert_array_equal(got, codes)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: quantize.pack(np.ones(3), 2), "codes must be integers"),
        (lambda: quantize.pack(np.array([4]), 2), "codes must fit in 2 bits"),
        (lambda: quantize.pack(np.array([-1, 2]), 2), "codes must fit in 2 bits"),
        (lambda: quantize.pack(np.array([2]), 2, odd=True), "codes must be odd"),
        (lambda: quantize.pack(np.array([1]), 17), "bits must be from 1 to 16"),
        (lambda: quantize.pack(np.array([1]), 0), "bits must be at least 1"),
        (lambda: quantize.unpack(np.zeros(2, np.uint8), 2, (3,)), "must be 1 bytes"),
        (lambda: quantize.unpack(np.zeros(1), 2, (3,)), "packed must be"),
    ],
)
def test_bad_packing(call, says):
    with pytest.raises(ValueError, match=says):
        call()


@pytest.mark.parametrize(
    ("ends", "dtype"),
    [((128, -128), np.int16), ((127, -128), np.int8), ((-128, -5), np.int8)],
)
def test_codes_at_the_ends_of_8_bits(ends, dtype):
    spec = QuantSpec(bits=9, clip=255.0, grid="mid_tread")
    w = jnp.array(ends, jnp.float32)[:, None]
    codes, scale = spec.encode(w)
    assert codes.dtype == dtype
    assert codes.ravel().tolist() == list(ends)
    np.testing.assert_array_equal(spec.decode(codes, scale), spec(w))


def test_a_zero_point_has_no_codes_of_weights():
    spec = QuantSpec("lsq", bits=4, zero_point=True)
    with pytest.raises(ValueError, match="zero_point is for membranes"):
        spec.encode(jnp.ones((3, 2)))


def test_bits_of_channels_have_any_rank():
    w = jax.random.normal(jax.random.key(0), (3, 3, 2, 4))
    bits = jnp.array([2, 3, 4, 6])
    for rule in ("mse", "absmax", "percentile"):
        flat, ranked = (
            QuantSpec(bits=x, clip=rule, per_channel=True).fit(w).clip
            for x in (bits, bits.reshape(1, 1, 1, 4))
        )
        np.testing.assert_array_equal(jnp.ravel(flat), jnp.ravel(ranked))


def test_a_truth_value_is_no_number_of_bits():
    with pytest.raises(ValueError, match="whole bits"):
        QuantSpec(bits=True)
