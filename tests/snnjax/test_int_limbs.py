"""The oracle is Python's own integers and fractions."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import _int_limbs

BASE = 1 << 15


def to_limbs(values, limbs):
    digits = [[(v >> (15 * i)) % BASE for v in values] for i in range(limbs)]
    return [jnp.asarray(d, jnp.int32) for d in digits]


def to_ints(limbs):
    return sum(np.asarray(d).astype(object) << (15 * i) for i, d in enumerate(limbs))


def random_ints(bits, size, seed=0):
    """Of every length up to ``bits``, both ends included."""
    rng = np.random.default_rng(seed)
    digits = rng.integers(0, BASE, (size, 9)).tolist()
    wide = [sum(d << (15 * i) for i, d in enumerate(row)) for row in digits]
    lengths = rng.integers(1, bits + 1, size).tolist()
    ints = [v % 2**n for v, n in zip(wide, lengths, strict=True)]
    return [*ints, 0, 1, 2**bits - 1]


def is_carried(limbs):
    return all(np.all((np.asarray(d) >= 0) & (np.asarray(d) < BASE)) for d in limbs)


@pytest.mark.parametrize("kind", [jnp.asarray, np.asarray])
def test_split_keeps_every_int32(kind):
    values = [0, 1, BASE - 1, BASE, 2**29, 2**30, 2**31 - 1]
    limbs = _int_limbs.split_limbs(kind(np.array(values, np.int32)))
    assert len(limbs) == 3
    assert all(d.dtype == np.int32 for d in limbs)
    assert to_ints(limbs).tolist() == values


def test_split_of_host_integers_goes_beyond_32_bits():
    values = random_ints(45, 100)
    assert to_ints(_int_limbs.split_limbs(np.array(values))).tolist() == values


def test_carry_keeps_the_value_and_the_sign():
    rng = np.random.default_rng(1)
    raw = rng.integers(-(2**30), 2**30, (4, 1000))
    raw[-1] = rng.integers(-5, 5, 1000)
    raw[:, 0] = -(2**30)
    limbs = _int_limbs.propagate_carries([jnp.asarray(d, jnp.int32) for d in raw])
    assert to_ints(limbs).tolist() == to_ints(raw).tolist()
    assert is_carried(limbs[:-1])


@pytest.mark.parametrize(("limbs_x", "limbs_y"), [(1, 1), (3, 3), (6, 3), (2, 5)])
def test_multiply(limbs_x, limbs_y):
    xs, ys = random_ints(15 * limbs_x, 500), random_ints(15 * limbs_y, 500, seed=1)
    product = _int_limbs.multiply(to_limbs(xs, limbs_x), to_limbs(ys, limbs_y))
    assert to_ints(product).tolist() == [x * y for x, y in zip(xs, ys, strict=True)]
    assert is_carried(product)


def test_multiply_by_a_constant():
    xs = random_ints(45, 100)
    product = _int_limbs.multiply(
        to_limbs(xs, 3), _int_limbs.split_limbs(np.asarray(2**31 - 1))
    )
    assert to_ints(product).tolist() == [x * (2**31 - 1) for x in xs]


def test_absolute_difference():
    # Neighbours too: there every limb borrows.
    xs = [*random_ints(90, 500), 2**60, 2**60 - 1, 2**90 - 1, 0]
    ys = [*random_ints(90, 500, seed=1), 2**60 - 1, 2**60, 0, 2**90 - 1]
    difference = _int_limbs.absolute_difference(to_limbs(xs, 6), to_limbs(ys, 6))
    expected = [abs(x - y) for x, y in zip(xs, ys, strict=True)]
    assert to_ints(difference).tolist() == expected
    assert is_carried(difference)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2, BASE - 1, BASE, BASE + 1, 70_000, 300_001])
def test_total(size):
    xs = (random_ints(45, 1000) * (size // 1000 + 1))[:size]
    summed = _int_limbs.sum_limbs(to_limbs(xs, 3))
    assert [d.shape for d in summed] == [()] * 4
    assert to_ints(summed) == sum(xs)


def test_total_of_the_largest_numbers():
    size = 2**21
    limbs = _int_limbs.sum_limbs([jnp.full(size, BASE - 1, jnp.int32)] * 3)
    assert to_ints(limbs) == size * (2**45 - 1)


@pytest.mark.parametrize("bits", [1, 14, 15, 16, 24, 31, 45, 62, 90, 119])
def test_ratio_is_within_two_roundings(bits):
    ratio = jax.jit(_int_limbs.divide, static_argnums=1)
    for seed, denominator in enumerate(random_ints(bits, 3)[:3]):
        denominator |= 1 << (bits - 1)
        numbers = [v % (denominator + 1) for v in random_ints(bits, 500, seed)]
        numbers += [denominator, denominator - 1]
        got = ratio(to_limbs(numbers, 9), denominator)
        assert got.dtype == jnp.float32
        for number, value in zip(numbers, got.tolist(), strict=True):
            assert abs(Fraction(value) * denominator - number) <= 1.2e-7 * number
            assert 0 <= value <= 1


def test_a_sum_past_32_bits_inside_jit():
    # 2**29 neurons, each moved by 40,000: near 2**44.
    counts = [2**29, 2**29 - 1, 12_345] * 1000
    moved = jax.jit(lambda x: _int_limbs.sum_limbs(_int_limbs.split_limbs(x)))(
        jnp.asarray(counts)
    )
    assert to_ints(moved) == sum(counts)
