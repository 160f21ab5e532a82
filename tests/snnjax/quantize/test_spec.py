"""QuantSpec: the methods by name, their numbers as leaves."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import quantize
from snnjax.quantize import QuantSpec


@pytest.mark.slow
def test_spec_is_the_function_with_bits_and_clip_as_leaves():
    x = jnp.linspace(-2.1, 2.1, 50)
    specs = [QuantSpec(bits=b, clip=c, grid="mid_tread") for b, c in [(2, 1), (8, 2.0)]]
    function = jax.jit(lambda spec, x: spec(x))
    for spec in specs:
        assert {leaf.dtype for leaf in jax.tree.leaves(spec)} == {np.dtype("float32")}
        expected = quantize.uniform(x, bits=spec.bits, clip=spec.clip, grid=spec.grid)
        np.testing.assert_array_equal(function(spec, x), expected)
    assert function._cache_size() == 1
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *specs)
    mapped = jax.vmap(function, in_axes=(0, None))(stacked, x)
    np.testing.assert_array_equal(mapped, np.stack([spec(x) for spec in specs]))
    unsigned = QuantSpec(bits=2, signed=False)  # mid-rise, clip 1
    np.testing.assert_allclose(unsigned(jnp.array([-5.0, 5])), [1 / 7, 1], 1e-6)


@pytest.mark.parametrize("bits", [4, np.int64(4), np.array([4, 4]), [4, 4]])
def test_whole_numbers_and_lists_are_leaves_as_well(bits):
    for given in (bits, jnp.asarray(bits)):
        spec = QuantSpec(bits=given, clip=[0.5, 1.0])
        assert {leaf.dtype for leaf in jax.tree.leaves(spec)} == {np.dtype("float32")}
        x = jnp.array([[-0.8, 0.8]])
        expected = quantize.uniform(x, bits=4, clip=np.float32([0.5, 1.0]))
        np.testing.assert_array_equal(spec(x), expected)


def test_a_fitted_spec_takes_other_bits():
    w = jnp.array([[0.5, -2.0], [0.1, 1.0]])
    fitted = QuantSpec(bits=4, per_channel=True).fit(w)
    other = dataclasses.replace(fitted, bits=2)
    expected = QuantSpec(bits=2, per_channel=True).fit(w)
    for got in (other, other.fit(10 * w)):
        np.testing.assert_array_equal(got.clip, expected.clip)
        np.testing.assert_array_equal(got(w), expected(w))


def test_spec_none_is_the_identity():
    x = jnp.linspace(-2, 2, 5)
    assert QuantSpec(method="none")(x) is x
    assert jax.tree.leaves(QuantSpec(method="none")) == []


def weights(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(0, 0.3, shape), jnp.float32)


@pytest.mark.parametrize(
    ("spec", "scale", "expected"),
    [
        (
            QuantSpec("lsq", bits=3),
            0.2,
            lambda w: quantize.lsq(w, 0.2, bits=3),
        ),
        (
            QuantSpec("lsq", bits=3, signed=False),
            0.2,
            lambda w: quantize.lsq(w, 0.2, bits=3, signed=False),
        ),
        (QuantSpec("mint", bits=3), 0.4, lambda w: quantize.mint(w, 0.4, bits=3)),
        (QuantSpec("dorefa", bits=3), None, lambda w: quantize.dorefa(w, bits=3)),
        (
            QuantSpec(bits=3, per_channel=True),
            None,
            lambda w: quantize.uniform(w, bits=3, clip=jnp.abs(w).max((0, 1, 2))),
        ),
    ],
)
def test_spec_calls_the_function_it_names(spec, scale, expected):
    w = weights(3, 3, 4, 5)
    np.testing.assert_array_equal(spec(w, scale), expected(w))


def test_first_scales():
    w = weights(3, 3, 4, 5)
    mean = np.abs(np.asarray(w, float)).mean
    lsq, mint = QuantSpec("lsq", bits=4), QuantSpec("mint", bits=4)
    np.testing.assert_allclose(lsq.init_scale(w), 2 * mean() / 7**0.5, 1e-6)
    np.testing.assert_allclose(mint.init_scale(w), 2 * mean() / 7**0.5, 1e-6)
    each = QuantSpec("lsq", bits=4, per_channel=True).init_scale(w)
    np.testing.assert_allclose(each, 2 * mean((0, 1, 2)) / 7**0.5, 1e-6)
    # A clip, and a membrane, whose weights there are none of.
    for spec, first in [(lsq, 1 / 7), (mint, 1.0)]:
        np.testing.assert_allclose(spec.init_scale(), first, 1e-6)
    wide = QuantSpec("lsq", bits=2, clip=3.0, signed=False)
    np.testing.assert_allclose(wide.init_scale(w), 1.0, 1e-6)
    assert (QuantSpec("lsq", bits=2).init_scale(jnp.zeros((3, 2)))) == 1
    with pytest.raises(ValueError, match="'uniform' learns no scale"):
        QuantSpec(bits=2).init_scale(w)


def test_jax_may_put_anything_where_numbers_were():
    spec = QuantSpec(bits=2, clip=1.0)
    assert jax.tree.leaves(jax.tree.map(lambda _: False, spec)) == [False, False]


def test_numbers_are_its_own():
    """A buffer used again would change every network that was made with it."""
    clip, bits = np.full(4, 0.1, np.float32), np.full(4, 3.0, np.float32)
    spec = QuantSpec(bits=bits, clip=clip)
    clip[:], bits[:] = 10, 8
    np.testing.assert_array_equal(spec.clip, np.float32(0.1))
    np.testing.assert_array_equal(spec.bits, 3)


@pytest.mark.parametrize(
    "clip",
    [
        2,
        2.0,
        np.float64(2),
        np.array(2),
        jnp.asarray(2),
        jnp.asarray(2.0),
        jnp.ones(()) * 2,
    ],
    ids=str,
)
def test_every_way_to_write_a_number_is_one_program(clip):
    traced = []

    @jax.jit
    def quantized(spec, x):
        traced.append(1)
        return spec(x)

    for one in (QuantSpec(bits=3, clip=1.0), QuantSpec(bits=3, clip=clip)):
        quantized(one, jnp.ones(3))
    assert len(traced) == 1
