import inspect
import itertools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import emd, firing
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


def made(count, observations, **options):
    return FiringCounts({"a": jnp.array([count, 0])}, observations, **options)


def test_jax_sums_counts_as_plus_does():
    parts = [made(3, 8), made(5, 12), made(1, 4)]
    right = parts[0] + parts[1] + parts[2]
    assert right == made(9, 24)
    mapped = jax.tree.map(lambda *leaves: sum(leaves), *parts)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)
    summed = jax.tree.map(lambda leaf: leaf.sum(0), stacked)
    start = jax.tree.map(jnp.zeros_like, parts[0])
    carried, _ = jax.lax.scan(
        lambda total, part: (jax.tree.map(jnp.add, total, part), None), start, stacked
    )
    plus, _ = jax.lax.scan(lambda total, part: (total + part, None), start, stacked)
    psummed = jax.vmap(lambda c: jax.lax.psum(c, "d"), axis_name="d", out_axes=None)
    for merged in (mapped, summed, carried, plus, psummed(stacked)):
        assert merged == right
        assert merged != parts[0]
        assert merged.observations == 24
        assert type(merged.observations) is int
        np.testing.assert_array_equal(merged.rates()["a"], [9 / 24, 0])
        assert firing.report(right, merged).emd == {"a": 0.0}


def test_a_shard_counts_its_own_images():
    mesh = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    spikes = jnp.asarray(trains())

    def count(part):
        return jax.lax.psum(FiringCounts.from_spikes({"a": part}), "d")

    specs = dict(in_specs=jax.P(None, "d"), out_specs=jax.P())
    found = jax.jit(jax.shard_map(count, mesh=mesh, **specs))(spikes)
    assert found == FiringCounts({"a": firing.total(spikes)}, T * B)


def test_an_overflow_inside_jit_is_refused_when_the_counts_are_read():
    merge = jax.jit(lambda a, b: a + b)
    for counts in (
        made(1, 2**30),
        FiringCounts({"a": np.array([1, 0], np.uint8)}, 200),
    ):
        merged = merge(counts, counts)
        assert merged.observations == -1
        # It stays so, also where a second overflow would be positive again.
        assert merge(merge(merged, merged), counts).observations == -1
        for read in (merged.rates, lambda m=merged: firing.summary(m)):
            with pytest.raises(ValueError, match=r"observations must be .* got -1"):
                read()


def test_stacked_and_traced_counts_and_empty_sums_are_not_compared():
    counts = made(1, 4)
    empty = jax.tree.map(jnp.zeros_like, counts)
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), counts)
    for wrong in (empty, stacked):
        with pytest.raises(ValueError, match="observations must be one"):
            firing.summary(wrong)
    for read in (firing.summary, FiringCounts.rates):
        with pytest.raises(ValueError, match="outside"):
            jax.jit(read)(counts)
    measure = inspect.unwrap(emd.emd_from_counts)  # beartype would refuse first
    with pytest.raises(ValueError, match="compare them outside"):
        jax.jit(lambda c: measure(c.spikes["a"], c.spikes["a"], c.observations))(counts)


def test_groups_sum_to_the_whole_and_add_group_by_group():
    groups = {"a": jnp.array([[1, 0], [2, 0]])}
    counts = made(3, 8, groups=groups, inputs_id="test set")
    assert np.asarray(counts.group_observations).tolist() == [4, 4]
    twice = counts + counts
    assert twice == jax.tree.map(jnp.add, counts, counts)
    assert np.asarray(twice.group_observations).tolist() == [8, 8]
    assert twice.inputs_id == "test set"
    assert jax.jit(lambda c: c)(counts) == counts
    for wrong, message in (
        (lambda: made(4, 8, groups=groups), "must sum to the whole"),
        (lambda: made(3, 9, groups=groups), "9 observations are not 2 equal groups"),
        (lambda: made(3, 8, groups={"b": groups["a"]}), "groups must be"),
        (lambda: made(3, 8, groups={"a": jnp.ones(2, int)}), "groups of a must be"),
        (
            lambda: made(3, 8, groups=groups, group_observations=np.array([4, 5])),
            "group_observations must sum",
        ),
        (
            lambda: made(3, 8, groups=groups, group_observations=np.array([8, 0])),
            "group_observations must be at least 1",
        ),
        (lambda: made(3, 8, group_observations=np.array([4, 4])), "needs groups"),
        (lambda: counts + made(3, 8, inputs_id="test set"), "equally many groups"),
        (lambda: counts + made(3, 8, groups=groups), "different inputs_id"),
    ):
        with pytest.raises(ValueError, match=message):
            wrong()


def test_from_spikes_counts_a_batch():
    spikes = {"a": trains(), "b": trains(shape=(3,))}
    counts = FiringCounts.from_spikes(spikes)
    assert counts.observations == T * B
    np.testing.assert_array_equal(counts.spikes["b"], spikes["b"].sum((0, 1)))
    for wrong in ({}, {"a": trains(), "b": trains(b=B + 1)}):
        with pytest.raises(ValueError, match="spikes must"):
            FiringCounts.from_spikes(wrong)


def test_totals_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="sum to at most 2147483647, got 4000000000"):
        firing.total(np.full((2, 1, 1), 2e9))
    with pytest.raises(ValueError, match="sum to at most 16777216"):
        firing.total_by_group(np.full((2, 1, 1), 2.0**24), np.zeros(1, int), 1)


def test_rates_are_of_whole_numbers_from_0():
    for wrong in ([0.5, 0.25], [-5, 2]):
        with pytest.raises(ValueError, match="counts of a must be"):
            FiringCounts({"a": np.array(wrong)}, 4).rates()
    parts = [FiringCounts({"a": np.array([1, 2])}, 4)] * 2
    assert sum(parts) == parts[0] + parts[1]
