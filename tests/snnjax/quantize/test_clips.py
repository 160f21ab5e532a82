"""Bounds by rule, groups, powers of 2, stochastic rounding, pruned channels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import quantize
from snnjax.quantize import QuantSpec


def weights(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.standard_t(3, shape) * 0.2, jnp.float32)


def error(spec, w):
    return float(jnp.sum(jnp.square(spec(w) - w)))


def test_rules_of_the_bound():
    w = weights(500, 6)
    size = np.abs(np.asarray(w))
    for per_channel, axis in ((False, None), (True, 0)):
        expected = {
            "absmax": size.max(axis),
            "percentile": np.percentile(size, 99.9, axis),
        }
        for rule, bound in expected.items():
            fitted = QuantSpec(bits=4, clip=rule, per_channel=per_channel).fit(w)
            # The percentile interpolates in float32.
            np.testing.assert_allclose(fitted.clip, bound, 1e-4)
            assert (np.asarray(fitted.clip) >= bound * (1 - 1e-4)).all()


@pytest.mark.slow
@pytest.mark.parametrize("grid", ["mid_rise", "mid_tread"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_mse_leaves_the_least_error(grid, bits):
    w = weights(400, 3)
    for more in ({}, {"per_channel": True}, {"group_size": 50}):
        best = error(QuantSpec(bits=bits, grid=grid, clip="mse", **more), w)
        for rule in ("absmax", "percentile"):
            other = QuantSpec(bits=bits, grid=grid, clip=rule, **more)
            assert best <= error(other, w) * 1.02
    for clip in (0.2, 0.5, 1.0, 2.0):
        assert error(QuantSpec(bits=bits, grid=grid, clip="mse"), w) <= 1.02 * error(
            QuantSpec(bits=bits, grid=grid, clip=clip), w
        )


@pytest.mark.slow
def test_groups_are_tensors_of_their_own():
    w = weights(3, 3, 5, 4)  # 45 rows: groups of 8 leave a last one of 5
    spec = QuantSpec(bits=4, group_size=8).fit(w)
    assert np.shape(spec.clip) == (6, 4)
    got = np.asarray(spec(w)).reshape(45, 4)
    columns = w.reshape(45, 4)
    for g in range(6):
        rows = columns[8 * g : 8 * g + 8]
        alone = QuantSpec(bits=4, per_channel=True)(rows)
        np.testing.assert_array_equal(got[8 * g : 8 * g + 8], alone)


@pytest.mark.parametrize("grid", ["mid_rise", "mid_tread"])
@pytest.mark.parametrize("signed", [True, False])
def test_power_of_2_steps(grid, signed):
    w = weights(50, 6)
    for bits in (2, 3, 4, 8, 16):
        for clip in (1.0, 0.3, 7.0, "absmax"):
            spec = QuantSpec(bits=bits, clip=clip, grid=grid, signed=signed, pow2=True)
            codes, scale = spec.encode(w)
            assert np.all(np.frexp(scale)[0] == 0.5)
            np.testing.assert_array_equal(codes.astype(np.float32) * scale, spec(w))
            bound = np.max(np.asarray(spec.bounds(w)))
            given = float(spec.fit(w).clip)
            assert given <= bound < 2 * given * (1 + 1e-6)


@pytest.mark.slow
def test_stochastic_rounding_keeps_the_mean():
    w = jnp.linspace(-1.2, 1.2, 25)
    for grid in ("mid_rise", "mid_tread"):
        spec = QuantSpec(bits=3, clip=1.0, grid=grid, rounding="stochastic")
        keys = jax.random.split(jax.random.key(0), 4000)
        drawn = jax.vmap(lambda k: spec(w, key=k))(keys)  # noqa: B023
        nearest = quantize.uniform(w, bits=3, clip=1.0, grid=grid)
        np.testing.assert_array_equal(spec(w), nearest)
        levels = jnp.unique(
            quantize.uniform(jnp.linspace(-1, 1, 999), bits=3, clip=1.0, grid=grid)
        )
        assert jnp.isin(drawn, levels).all()
        np.testing.assert_allclose(drawn.mean(0), jnp.clip(w, -1, 1), atol=0.02)
        gradient = jax.grad(lambda w: spec(w, key=keys[0]).sum())(w)  # noqa: B023
        np.testing.assert_array_equal(gradient, jnp.abs(w) <= 1)


@pytest.mark.parametrize("bits", [1, 2, 3, 8])
@pytest.mark.parametrize("grid", ["mid_rise", "mid_tread"])
@pytest.mark.parametrize("more", [{"per_channel": True}, {"group_size": 9}])
@pytest.mark.parametrize("rule", ["absmax", "percentile", "mse"])
def test_a_channel_of_zeros_stays_zero(bits, grid, more, rule):
    if bits == 1 and grid == "mid_tread":
        pytest.skip("1 bit has no mid-tread grid")
    w = weights(9, 4).at[:, 2].set(0)
    got = QuantSpec(bits=bits, grid=grid, clip=rule, **more)(w)
    assert jnp.abs(got[:, 2]).max() < 1e-30
    assert jnp.abs(got[:, :2]).max() > 0.01


def test_a_channel_of_zeros_by_learned_scales():
    w = weights(9, 4).at[:, 2].set(0)
    spec = QuantSpec("lsq", bits=4, per_channel=True)
    scale = spec.init_scale(w)
    others = np.delete(np.asarray(scale), 2)
    np.testing.assert_allclose(scale[2], others.mean(), 1e-6)
    assert (spec(w)[:, 2] == 0).all()
    assert (QuantSpec("mint", bits=4)(w)[:, 2] == 0).all()


def test_lq_net_of_a_channel_of_zeros():
    w = weights(9, 4).at[:, 2].set(0)
    got = quantize.lq_net(w, quantize.lq_fit(w, bits=2, clip=1.0))
    assert jnp.abs(got[:, 2]).max() < 1e-3 * jnp.abs(w).max()


def test_mint_of_more_bits_is_not_worse():
    for seed in range(3):
        w = weights(60, 7, seed=seed)
        errors = [
            float(jnp.sum(jnp.square(QuantSpec("mint", bits=b)(w) - jnp.tanh(w))))
            for b in (2, 3, 4, 6, 8, 12, 16)
        ]
        assert (np.diff(errors) < 0).all()


def test_a_last_group_that_is_not_full_has_the_bound_of_its_weights():
    """What fills it counts in no rule."""
    w = np.random.default_rng(0).normal(size=(13, 3)).astype(np.float32)
    for rule in ("mse", "percentile", "absmax"):
        clip = QuantSpec(bits=2, clip=rule, group_size=8).fit(w).clip
        alone = QuantSpec(bits=2, clip=rule, group_size=5).fit(w[8:]).clip
        np.testing.assert_array_equal(clip[1], alone[0])


@pytest.mark.slow
def test_bits_of_each_channel_in_groups_or_with_a_bound_of_each():
    w = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    bits = [2, 3, 4]
    grouped = QuantSpec(bits=bits, clip="mse", group_size=4)(w)
    for i, b in enumerate(bits):
        alone = QuantSpec(bits=b, clip="mse", group_size=4)(w[:, i : i + 1])
        np.testing.assert_array_equal(grouped[:, i : i + 1], alone)
    with pytest.raises(ValueError, match="per_channel=True, or give clip"):
        QuantSpec(bits=bits, clip="mse")(w)
