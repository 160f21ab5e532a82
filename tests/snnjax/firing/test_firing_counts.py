import itertools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import firing
from snnjax.firing import FiringCounts

T, B, SHAPE = 4, 3, (5, 2, 7)


def trains(t=T, b=B, shape=SHAPE, rate=0.3, seed=0):
    return np.random.default_rng(seed).random((t, b, *shape)) < rate


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.uint8, bool])
@pytest.mark.parametrize(
    "mask", [None, [1, 0, 1], [0.0, 0.0, 0.0], [True, True, False]]
)
def test_total_counts_the_spikes_of_each_neuron(dtype, mask):
    spikes = trains()
    kept = range(B) if mask is None else [b for b in range(B) if mask[b]]
    expected = np.zeros(SHAPE, int)
    for t, b in itertools.product(range(T), kept):
        expected += spikes[t, b]
    mask = None if mask is None else np.array(mask)
    for function in (firing.total, jax.jit(firing.total)):
        total = function(jnp.asarray(spikes, dtype), mask)
        assert total.dtype == jnp.int32
        np.testing.assert_array_equal(total, expected)


def test_total_is_exact_where_the_spikes_own_type_is_not():
    t, b = 7, 43  # 301 is no bfloat16, 2**24 + 1 no float32
    assert firing.total(jnp.ones((t, b, 2), jnp.bfloat16)).tolist() == [301, 301]
    big = np.zeros((2, 1), np.float32)
    big[:, 0] = 2**24, 1
    assert int(firing.total(big)) == 2**24 + 1


def test_total_takes_the_whole_numbers_of_an_add_network():
    spikes = np.random.default_rng(0).integers(0, 4, (T, B, 6)).astype(np.float32)
    total = firing.total(spikes, np.array([1, 0, 1]))
    np.testing.assert_array_equal(total, spikes[:, [0, 2]].sum((0, 1)))


def test_merged_in_any_order_the_counts_are_those_of_one_pass():
    parts = [trains(b=b, seed=b) for b in (2, 3, 1)]
    expected = np.concatenate(parts, axis=1).sum((0, 1))
    counts = [FiringCounts({"a": firing.total(p)}, T * p.shape[1]) for p in parts]
    for a, b, c in itertools.permutations(counts):
        for merged in (
            (a + b) + c,
            a + (b + c),
            jax.jit(lambda *x: x[0] + x[1])(a + b, c),
        ):
            assert merged.observations == T * 6
            assert merged.spikes["a"].dtype == jnp.int32
            np.testing.assert_array_equal(merged.spikes["a"], expected)
    np.testing.assert_array_equal(merged.rates()["a"], expected / (T * 6))
    assert merged.rates()["a"].dtype == np.float64


def test_counts_that_could_overflow_are_not_merged():
    def full(k, dtype=np.int32):
        return FiringCounts({"a": np.array([k], dtype)}, k)

    half = 2**30
    assert (full(half) + full(half - 1)).spikes["a"].tolist() == [2**31 - 1]
    with pytest.raises(
        ValueError, match="2147483648 observations do not fit into int32"
    ):
        full(half) + full(half)
    assert (full(200, np.uint8) + full(55, np.uint8)).spikes["a"].tolist() == [255]
    with pytest.raises(ValueError, match="300 observations do not fit into uint8"):
        full(200, np.uint8) + full(100, np.uint8)
    assert (full(200, np.uint8) + full(100)).spikes["a"].tolist() == [300]
    with pytest.raises(ValueError, match="counts of a must be integers, got float32"):
        full(2, np.float32) + full(2, np.float32)


EIGHT_DEVICES = """
import os
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
import jax, numpy as np
from jax.sharding import PartitionSpec as P
from snnjax import emd, firing

assert jax.device_count() == 8
rng = np.random.default_rng(0)
spikes = (rng.random((2, 4, 24, 5, 7)) < [[[[[0.2]]]], [[[[0.4]]]]]).astype(np.float32)
mask = rng.random(24) < 0.8
mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

def step(x, y, mask):
    counts = [jax.lax.psum(firing.total(s, mask), "data") for s in (x, y)]
    return *counts, emd.emd_from_counts(*counts, 4 * 24)

batch = P(None, "data")
sharded = jax.jit(jax.shard_map(
    step, mesh=mesh, in_specs=(batch, batch, P("data")), out_specs=P()
))
x, y, w1 = sharded(*spikes, mask)
once = [spikes[i][:, mask].sum((0, 1)) for i in range(2)]
assert np.array_equal(x, once[0]) and np.array_equal(y, once[1])
assert x.dtype == np.int32
expected = emd.emd_from_counts(np.int64(once[0]), np.int64(once[1]), 96)
assert abs(w1 / expected - 1) < 2e-7
"""


@pytest.mark.slow
def test_counts_of_eight_devices_are_those_of_one_pass():
    done = subprocess.run(
        [sys.executable, "-c", EIGHT_DEVICES], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("wrong", [0.5, -1.0, np.nan, np.inf])
def test_what_is_no_spike_is_not_counted(wrong):
    """Membranes or rates would count as silence, or as something else."""
    spikes = np.ones((T, B, 2), np.float32)
    spikes[1, 1, 1] = wrong
    for array in (spikes, jnp.asarray(spikes)):
        with pytest.raises(ValueError, match="spikes must be whole numbers from 0"):
            firing.total(array)
        with pytest.raises(ValueError, match="spikes must be whole numbers from 0"):
            firing.total_by_group(array, np.ones(B, int), 2)


def test_inside_jit_both_count_the_same():
    half = jnp.full((T, B, 2), 1.5)
    total = jax.jit(firing.total)(half)
    by_group = jax.jit(lambda s: firing.total_by_group(s, np.zeros(B, int), 1))(half)
    np.testing.assert_array_equal(total, by_group[0])
