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
    unsigned = QuantSpec(bits=2, signed=False, grid="mid_rise")  # clip 1
    np.testing.assert_allclose(unsigned(jnp.array([-5.0, 5])), [1 / 7, 1], 1e-6)


@pytest.mark.parametrize("bits", [4, np.int64(4), np.array([4, 4]), [4, 4]])
def test_whole_numbers_and_lists_are_leaves_as_well(bits):
    for given in (bits, jnp.asarray(bits)):
        spec = QuantSpec(bits=given, clip=[0.5, 1.0], grid="mid_rise")
        assert {leaf.dtype for leaf in jax.tree.leaves(spec)} == {np.dtype("float32")}
        x = jnp.array([[-0.8, 0.8]])
        expected = quantize.uniform(
            x, bits=4, clip=np.float32([0.5, 1.0]), grid="mid_rise"
        )
        np.testing.assert_array_equal(spec(x), expected)


@pytest.mark.slow
def test_a_fitted_spec_takes_other_bits():
    w = jnp.array([[0.5, -2.0], [0.1, 1.0]])
    fitted = QuantSpec(bits=4, per_channel=True).fit(w)
    np.testing.assert_allclose(fitted.clip, [0.5, 2.0], 3e-7)
    other = dataclasses.replace(fitted, bits=2)
    expected = dataclasses.replace(other, clip=fitted.clip)
    for got in (other, other.fit(10 * w)):
        np.testing.assert_array_equal(got.clip, expected.clip)
        np.testing.assert_array_equal(got(w), expected(w))


def test_spec_none_is_the_identity():
    x = jnp.linspace(-2, 2, 5)
    assert QuantSpec(method="none")(x) is x
    assert jax.tree.leaves(QuantSpec(method="none")) == []


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (dict(method="lsqq", bits=2), "method must be one of .*got 'lsqq'"),
        (dict(), "'uniform' needs bits"),
        (dict(method="lq_net", clip=1.0), "'lq_net' needs bits"),
        (dict(bits=0), "takes whole bits from 2 to 16, got 0"),
        (dict(bits=17), "from 2 to 16, got 17"),
        (dict(bits=2.5), r"from 2 to 16, got 2\.5"),
        (dict(bits=np.nan), "from 2 to 16, got nan"),
        (dict(bits=17, grid="mid_rise"), "from 1 to 16, got 17"),
        (dict(bits=jnp.float32(2.5)), r"whole bits.*got 2\.5"),
        (dict(bits=jnp.int32(0), method="lsq"), "whole bits.*got 0"),
        (dict(bits=4, clip=jnp.float32(-1)), "clip must be positive.*got -1"),
        (dict(bits=4, clip="max"), "clip must be one of"),
        (dict(method="lsq", bits=4, clip="mse"), "clip = 'mse' is for uniform"),
        (dict(method="dorefa", bits=4, clip="mse"), "dorefa has no clip"),
        (dict(method="lsq", bits=4, pow2=True), "pow2 = True is for uniform"),
        (dict(method="mint", bits=4, rounding="stochastic"), "is for uniform"),
        (dict(bits=4, rounding="up"), "rounding must be one of"),
        (dict(bits=4, group_size=0), "group_size must be at least 1"),
        (dict(bits=4, group_size=3, per_channel=True), "leave out per_channel"),
        (dict(bits=4, group_size=3, clip=2.0), "leave out clip, or give"),
        (
            dict(bits=1, grid="mid_tread"),
            "the mid_tread grid takes whole bits from 2 to 16, got 1",
        ),
        (dict(bits=2, grid="mid"), "grid must be one of .*got 'mid'"),
        (dict(bits=2, clip=0), "clip must be positive and finite, got 0"),
        (dict(bits=2, clip=-1.0), "clip must be positive and finite, got -1"),
        (dict(bits=2, clip=np.inf), "clip must be positive and finite, got inf"),
        (dict(bits=2, clip=np.float32("nan")), "clip must be positive and finite"),
        (dict(method="lq_net", bits=9), "from 1 to 8, got 9"),
        (dict(method="lq_net", bits=2, clip=-1), "clip must be positive"),
        (dict(method="mint", bits=2, signed=False), "signed must be True"),
        (dict(method="mint", bits=2, signed=False), "mint's levels are symmetric"),
        (dict(method="mint", bits=1), "mint takes whole bits from 2 to 16, got 1"),
        (dict(method="lsq", bits=1), "signed lsq takes whole bits from 2 to 16"),
        (dict(method="lsq", bits=4, clip=-1.0), "clip must be positive"),
        (dict(method="dorefa", bits=17), "dorefa takes whole bits from 1 to 16"),
        (dict(method="dorefa", bits=2, clip=1.0), "dorefa has no clip"),
        (dict(method="mint", bits=2, per_channel=True), "per_channel is for uniform"),
        (dict(bits=2, clip=1.0, per_channel=True), "leave out clip, .*got 1.0"),
        (dict(method="binary", bits=2), "binary takes whole bits from 1 to 1, got 2"),
        (dict(method="ternary", clip=1.0), "ternary has no clip"),
        (dict(method="power_of_two", bits=6), "whole bits from 2 to 5, got 6"),
        (dict(method="power_of_two", bits=3, group_size=4), "is for uniform"),
        (dict(method="binary", signed=False), "binary's levels are symmetric"),
        (dict(method="lq_net", bits=2, codes=(0, 2)), "codes must be"),
        (dict(bits=2, codes=(0, 1)), "codes is for lq_net"),
        (dict(bits=2, zero_point=True), "zero_point is for lsq"),
    ],
)
def test_bad_specs_are_refused(fields, says):
    with pytest.raises(ValueError, match=says):
        QuantSpec(**fields)


def test_a_method_with_state_is_not_called():
    with pytest.raises(ValueError, match="'lq_net' has a state"):
        QuantSpec(method="lq_net", bits=2)(jnp.ones(3))


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
            QuantSpec("binary", per_channel=True),
            None,
            lambda w: quantize.binary(w, per_channel=True),
        ),
        (
            QuantSpec("ternary", pow2=True),
            None,
            lambda w: quantize.ternary(w, pow2=True),
        ),
        (
            QuantSpec("power_of_two", bits=3, clip=0.4),
            None,
            lambda w: quantize.power_of_two(w, bits=3, clip=0.4),
        ),
        (
            QuantSpec(bits=3, per_channel=True),
            None,
            lambda w: quantize.uniform(
                w,
                bits=3,
                clip=QuantSpec(bits=3, per_channel=True).fit(w).clip,
                grid="mid_tread",
            ),
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
    np.testing.assert_allclose(mint.init_scale(w), 2 * mean() * 7**0.5, 1e-6)
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


EVERY = [
    QuantSpec("none"),
    QuantSpec(bits=1),
    QuantSpec(bits=4, clip=0.1),
    QuantSpec(bits=3, clip=1e-7, signed=False, grid="mid_rise"),
    QuantSpec(bits=[2, 4, 8], clip=[0.1, 1 / 3, 7e5]),
    QuantSpec(bits=4, clip="mse", per_channel=True),
    QuantSpec(bits=4, group_size=5, clip="percentile"),
    QuantSpec(bits=4, group_size=5).fit(weights(10, 3)),
    QuantSpec(bits=6, rounding="stochastic", pow2=True),
    QuantSpec("lsq", bits=4, per_channel=True, signed=False),
    QuantSpec("lq_net", bits=np.int64(2), clip=np.float64(0.7)),
    QuantSpec("mint", bits=np.float32(5), clip=jnp.float32(0.3)),
    QuantSpec("dorefa", bits=jnp.int32(1)),
]


@pytest.mark.parametrize("spec", EVERY, ids=str)
def test_json_repr_hash_and_equality(spec):
    same = [
        QuantSpec.from_json(spec.to_json()),
        eval(repr(spec), {"QuantSpec": QuantSpec}),
        jax.tree.map(jnp.asarray, spec),  # as a network holds it
        dataclasses.replace(spec),
    ]
    for other in same:
        assert (other == spec) is True
        assert hash(other) == hash(spec)
        assert jax.tree.structure(other) == jax.tree.structure(spec)
    others = [one for one in EVERY if one is not spec]
    assert all((one == spec) is False for one in others)
    assert spec != 4


@pytest.mark.parametrize("text", ["", "[1]", '{"bit": 4}', '{"bits": 2.5}', "4"])
def test_other_json_is_refused(text):
    with pytest.raises(ValueError, match=r"text|bits"):
        QuantSpec.from_json(text)


def test_a_traced_spec_has_no_json_and_equals_itself():
    @jax.jit
    def run(spec):
        assert spec == spec
        with pytest.raises(ValueError, match="must be numbers"):
            spec.to_json()
        return spec.bits

    run(QuantSpec(bits=4, clip=1.0))


def test_grids_where_none_is_named():
    w = jnp.array([-0.4, 0.0, 0.4])
    assert QuantSpec(bits=2).grid == QuantSpec(bits=[1 + 1, 3]).grid == "mid_tread"
    assert QuantSpec(bits=3)(w)[1] == 0
    np.testing.assert_array_equal(QuantSpec(bits=1)(w), [-1, 1, 1])
    with pytest.raises(ValueError, match="from 2 to 16"):
        QuantSpec(bits=[1, 2])
    with pytest.raises(ValueError, match='grid="mid_rise" by name'):
        QuantSpec(bits=1).check_membrane("post_reset")
    QuantSpec(bits=1, grid="mid_rise").check_membrane("post_reset")


@pytest.mark.parametrize(
    "spec",
    [
        QuantSpec(bits=4, clip="mse"),
        QuantSpec(bits=4, group_size=3),
        QuantSpec(bits=4, rounding="stochastic"),
    ],
)
def test_what_comes_from_weights_is_refused_on_membranes(spec):
    with pytest.raises(ValueError, match="membrane"):
        spec.check_membrane("post_reset")


@pytest.mark.parametrize("dtype", [jnp.float8_e4m3fn, jnp.float8_e5m2])
def test_8_bit_floats_are_quantized_in_float32(dtype):
    w = jnp.array([-0.5, 0.0, 0.25, 0.5]).astype(dtype)
    for spec in (QuantSpec(bits=3, clip=0.5), QuantSpec("lsq", bits=3)):
        got = spec(w)
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, spec(w.astype(jnp.float32)).astype(dtype))


@pytest.mark.parametrize("dtype", [jnp.int4, jnp.uint4, jnp.int8])
def test_integers_are_refused_by_name(dtype):
    for spec in (
        QuantSpec(bits=4),
        QuantSpec("lsq", bits=4),
        QuantSpec("mint", bits=4),
    ):
        with pytest.raises(ValueError, match=r"must be floating point, got u?int"):
            spec(jnp.ones(3).astype(dtype))
