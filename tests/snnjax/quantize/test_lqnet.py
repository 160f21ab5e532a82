"""LQ-Net against the paper's Algorithm 1, transcribed in numpy float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import quantize
from snnjax.quantize import LqState

net = jax.jit(quantize.lq_net)
solve = jax.jit(quantize.lq_solve)
update = jax.jit(quantize.lq_update)
fit = jax.jit(quantize.lq_fit, static_argnames=("bits", "init", "iterations", "codes"))

SIZES = [(27, 1), (27, 2), (27, 3), (27, 4), (27, 8), (288, 5), (576, 6), (1152, 7)]
SIZES += [(4608, 1), (4608, 8)]


def weights(*shape, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, shape)


def state(basis):
    return LqState(jnp.asarray(basis), jnp.zeros((), jnp.int32))


def encode(w, basis):
    """The nearest of all 2^b signed sums, a tie to the lower, and its codes."""
    codes = np.array(list(itertools.product([-1.0, 1.0], repeat=len(basis))))
    levels = codes @ basis
    order = np.argsort(levels, kind="stable")
    nearest = order[np.argmin(np.abs(w[:, None] - levels[order]), axis=1)]
    return levels[nearest], codes[nearest]


def error(w, basis):
    """Squared error of each channel, in float64."""
    w, basis = np.asarray(w, np.float64), np.asarray(basis, np.float64)
    channels = zip(w.T, basis.T, strict=True)
    return np.array([np.sum((c - encode(c, v)[0]) ** 2) for c, v in channels])


def transcription(w, basis):
    """One channel's (B'B + 1e-4 I)^-1 (B'w + 1e-4 v) and the condition of B'B."""
    _, b = encode(w, basis)
    gram, ridge = b.T @ b, 1e-4 * np.eye(len(basis))
    solved = np.linalg.solve(gram + ridge, b.T @ w + 1e-4 * basis)
    return solved, np.linalg.cond(gram)


BASES = {
    "ladder": [[0.05, 0.1], [0.1, 0.02], [0.2, 0.4]],
    "unsorted, negative": [[0.1, -0.2], [-0.3, 0.15], [0.05, 0.01]],
    "a zero and a double": [[0.0, 0.1], [0.1, 0.1], [0.2, 0.0]],
    "of one": [[-0.07, 0.3]],
    "of eight": np.sort(weights(8, 2, seed=5), axis=0)[::-1],
}


@pytest.mark.parametrize("basis", BASES.values(), ids=BASES)
def test_takes_the_nearest_level(basis, x64):
    basis, w = np.array(basis), weights(3, 3, 11, 2) * 3
    got = net(w, state(basis))
    for c in range(2):
        expected, _ = encode(w[..., c].ravel(), basis[:, c])
        np.testing.assert_allclose(np.ravel(got[..., c]), expected, 1e-12, 1e-15)


def test_a_tie_goes_to_the_lower_level():
    w = jnp.array([[-2.0], [0.0], [2.0], [2.000001]])  # levels -3, -1, 1, 3
    for basis in ([[1.0], [2.0]], [[-2.0], [1.0]]):
        assert net(w, state(basis)).ravel().tolist() == [-3, -1, 1, 3]


@pytest.mark.slow
def test_gradient_is_the_identity_and_the_basis_has_none():
    w, cotangent = weights(27, 3), weights(27, 3, seed=1)
    basis = jnp.full((2, 3), 0.01)  # most weights lie far beyond the top level
    _, pullback = jax.vjp(
        lambda w, v: quantize.lq_net(w, state(v)), jnp.float32(w), basis
    )
    by_w, by_basis = pullback(jnp.float32(cotangent))
    np.testing.assert_array_equal(by_w, np.float32(cotangent))
    np.testing.assert_array_equal(by_basis, 0)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
def test_solve_equals_the_transcription(bits, x64):
    w = weights(72 if bits < 8 else 4608, 4)
    basis = 0.2 * 2.0 ** np.arange(bits)[:, None] / (2**bits - 1)
    basis = basis * np.array([1, 0.8, -1, 1.2])
    got = solve(w, basis)
    for c in range(4):
        expected, condition = transcription(w[:, c], basis[:, c])
        assert condition < 1e3
        np.testing.assert_allclose(got[:, c], expected, 1e-7, 1e-10)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "bits"), SIZES)
def test_the_error_never_rises(n, bits):
    w = weights(n, 3).astype(np.float32)
    basis = np.full(3, 0.2) * 2.0 ** np.arange(bits)[:, None] / (2**bits - 1)
    basis = basis.astype(np.float32)
    errors = [error(w, basis)]
    for _ in range(8):
        basis = solve(w, basis)
        assert jnp.isfinite(basis).all()
        errors.append(error(w, basis))
    assert (np.diff(errors, axis=0) <= 1e-6 * np.array(errors[:-1])).all()
    assert (errors[-1] < errors[0]).all()


@pytest.mark.slow
@pytest.mark.parametrize(("n", "bits"), SIZES)
def test_fit_is_no_worse_than_the_best_uniform_clip(n, bits):
    w = weights(n, 3).astype(np.float32)
    fitted = error(w, fit(w, bits=bits).basis)
    half, w = 2.0 ** (bits - 1), w.astype(np.float64)

    def uniform_error(clip):
        delta = 2 * clip / (2 * half - 1)
        codes = np.clip(np.floor(w / delta), -half, half - 1)
        return np.sum((w - delta * (codes + 0.5)) ** 2, axis=0)

    clips = np.linspace(0.002, 1.4, 1000) * np.abs(w).max()
    errors = np.array([uniform_error(clip) for clip in clips])
    assert (fitted <= errors.min(axis=0)).all()  # each channel with a clip of its own
    assert fitted.sum() <= errors.sum(axis=1).min()


@pytest.mark.parametrize("value", [0.0, 0.3, -2.0])
@pytest.mark.parametrize("bits", [1, 2, 8])
def test_constant_weights_are_met(bits, value):
    w = np.full((27, 3), value, np.float32)
    fitted = fit(w, bits=bits)
    assert jnp.isfinite(fitted.basis).all()
    np.testing.assert_allclose(net(w, fitted), w, 1e-5, 1e-5)


@pytest.mark.slow
def test_channels_are_independent():
    w = weights(27, 3).astype(np.float32) * np.float32([0.1, 1, 100])
    together = fit(w, bits=2).basis
    for c in range(3):
        alone = fit(w[:, c : c + 1], bits=2).basis
        np.testing.assert_allclose(together[:, c : c + 1], alone, 1e-4)


def test_clip_bounds_the_weights_that_are_fitted():
    w = weights(27, 3).astype(np.float32)
    got = fit(w, bits=2, clip=0.05).basis
    expected = fit(np.clip(w, -0.05, 0.05), bits=2).basis
    np.testing.assert_allclose(got, expected, 1e-6)


@pytest.mark.parametrize(("shape", "n"), [((3, 3, 5, 7), 63), ((5, 7), 7)])
def test_the_published_first_basis(shape, n):
    got = fit(jnp.ones(shape), bits=3, init="paper", iterations=0)
    expected = 0.6745 * np.sqrt(2 / n) / 4 * np.array([1, 2, 4])
    np.testing.assert_allclose(got.basis, np.stack([expected] * 7, axis=1), 1e-5)
    assert got.count == 0


def test_first_basis_from_the_clip():
    got = fit(jnp.ones((5, 7)), bits=3, init="clip", clip=10.0, iterations=0)
    expected = 10 / 7 * np.array([1, 2, 4])  # the top level is 10
    np.testing.assert_allclose(got.basis, np.stack([expected] * 7, axis=1), 1e-5)


def test_update_is_the_zero_debiased_average(x64):
    learned = state(np.array([[0.05, 0.1], [0.12, -0.2]]))
    basis, shadow = np.array(learned.basis), np.zeros((2, 2))
    for t in range(1, 7):
        w = weights(40, 2, seed=t) * (1 + t / 4)
        solved = [transcription(w[:, c], basis[:, c])[0] for c in range(2)]
        shadow = 0.9 * shadow + 0.1 * np.stack(solved, axis=1)
        basis = shadow / (1 - 0.9**t)
        learned = update(w, learned)
        np.testing.assert_allclose(learned.basis, basis, 1e-8)
        assert learned.count == t


def test_the_first_update_replaces_the_basis_exactly():
    w, basis = weights(27, 3).astype(np.float32), np.float32(weights(3, 3, seed=1))
    first = update(w, state(basis))
    np.testing.assert_array_equal(first.basis, solve(w, basis))


def test_codes_zero_and_one_keep_a_zero():
    """Levels of Gaussian weights at 2 bits: error .136 of the variance, 37 % zeros."""
    w = np.random.default_rng(0).normal(0, 1, (20_000, 2)).astype(np.float32)
    fitted = fit(w, bits=2, codes=(0, 1))
    levels = np.asarray(quantize.lq_net(w, fitted, codes=(0, 1)))
    np.testing.assert_allclose(np.mean((levels - w) ** 2), 0.138, atol=0.003)
    np.testing.assert_allclose(np.mean(levels == 0), 0.37, atol=0.02)
    for c, basis in enumerate(np.asarray(fitted.basis).T):
        expected = {0.0, basis[0], basis[1], basis[0] + basis[1]}
        assert set(levels[:, c]) == expected


@pytest.mark.slow
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_codes_zero_and_one_solve_least_squares(bits, x64):
    w = weights(200, 3) + 0.02
    basis = 0.1 * 2.0 ** np.arange(bits)[:, None] * np.array([1, -1, 0.7])
    basis[-1] *= -1
    got = np.asarray(quantize.lq_solve(w, basis, codes=(0, 1)))
    codes = np.array(list(itertools.product([0.0, 1.0], repeat=bits)))
    for c in range(3):
        levels = codes @ basis[:, c]
        b = codes[np.argmin(np.abs(w[:, c, None] - levels), axis=1)]
        ridge = 1e-4 * np.eye(bits)
        expected = np.linalg.solve(b.T @ b + ridge, b.T @ w[:, c] + 1e-4 * basis[:, c])
        np.testing.assert_allclose(got[:, c], expected, 1e-7, 1e-10)


@pytest.mark.slow
def test_codes_zero_and_one_update_and_refuse_a_clip():
    w = weights(27, 3).astype(np.float32)
    fitted = fit(w, bits=2, codes=(0, 1))
    moved = quantize.lq_update(w, fitted, codes=(0, 1))
    solved = quantize.lq_solve(w, fitted.basis, codes=(0, 1))
    np.testing.assert_array_equal(moved.basis, solved)
    with pytest.raises(ValueError, match='init must be "uniform"'):
        quantize.lq_fit(w, bits=2, codes=(0, 1), init="paper")


def test_bfloat16_weights_keep_a_float32_basis():
    w = jnp.asarray(weights(27, 3), jnp.bfloat16)
    learned = update(w, state(np.float32(weights(3, 3))))
    assert (learned.basis.dtype, learned.count.dtype) == (jnp.float32, jnp.int32)
    assert net(w, learned).dtype == jnp.bfloat16
