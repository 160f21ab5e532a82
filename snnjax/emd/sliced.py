"""Sliced W1: between clouds of points in more than one dimension."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from snnjax import _checks
from snnjax.emd.samples import prevent_constant_folding, sample_dtype, wasserstein_1d


def sliced(
    x: ArrayLike, y: ArrayLike, *, directions: ArrayLike | None = None
) -> float | Array:
    r"""Average W1 over projections of two clouds, such as (rate, latency) points.

    .. math:: SW_1 = \frac1L \sum_l W_1(\langle x, \theta_l\rangle,
              \langle y, \theta_l\rangle)

    Unlike the distances of the two marginals it sees, for example, that neurons that
    fire often no longer fire early. Scale the coordinates to one unit first
    (latency over T). It is at most the W1 of the clouds; for directions all around a
    plane and a common shift by d it is :math:`2/\pi\,|d|`.

    Gradient: as of `wasserstein_1d`, exactly 0 where the clouds are equal.

    Args:
        x: points ``[n, d]``.
        y: points ``[m, d]``.
        directions: unit vectors ``[L, d]``; None, for d = 2 only, is 64 directions,
            evenly around the half circle.

    Returns:
        A float (float64, on the host); inside ``jit`` an array.

    Raises:
        ValueError: clouds that are not ``[n, d]`` and ``[m, d]`` or have no points,
            directions of another dimension; outside ``jit`` also NaN, infinity and
            directions that are no unit vectors.

    Source: Bonneel et al., `Sliced and Radon Wasserstein Barycenters of Measures
    <https://doi.org/10.1007/s10851-014-0506-3>`_, 2015.

    >>> cloud = np.array([[0.0, 0.0], [1.0, 1.0]])
    >>> round(sliced(cloud, cloud + [0.3, 0.4]), 4)
    0.3183
    """
    shapes = np.shape(x), np.shape(y)
    if any(len(s) != 2 or 0 in s for s in shapes) or shapes[0][1] != shapes[1][1]:
        raise ValueError(f"x and y must be clouds [n, d] and [m, d], got {shapes}")
    if directions is None:
        if shapes[0][1] != 2:
            raise ValueError(
                f"for points in {shapes[0][1]} dimensions give directions [L, d]"
            )
        directions = _make_half_circle(64)
    for name, a in (("x", x), ("y", y), ("directions", directions)):
        _checks.require_real(name, a)
    size = np.shape(directions)
    if len(size) != 2 or size[1] != shapes[0][1] or not size[0]:
        raise ValueError(
            f"directions must be [L, {shapes[0][1]}], at least one, got {size}"
        )
    if any(isinstance(a, jax.core.Tracer) for a in (x, y, directions)):
        x, y, directions = (prevent_constant_folding(a) for a in (x, y, directions))
        dtype = sample_dtype(x, y)
        project = functools.partial(
            jnp.matmul, directions.astype(dtype), precision="highest"
        )
        along = jax.vmap(wasserstein_1d)(project(x.T), project(y.T))
        return jnp.sum(along / len(directions))  # a sum of many may overflow
    x, y, directions = (np.asarray(a, np.float64) for a in (x, y, directions))
    if not np.isfinite(directions).all():
        raise ValueError("directions has NaN or infinite entries")
    lengths = np.linalg.norm(directions, axis=1)
    if np.any(np.abs(lengths - 1) > 1e-3):
        raise ValueError(
            f"directions must be unit vectors, got lengths {lengths.min():g} to "
            f"{lengths.max():g}; divide them by np.linalg.norm(..., axis=1)[:, None]"
        )
    return sum(float(wasserstein_1d(x @ w, y @ w)) for w in directions) / len(
        directions
    )


def _make_half_circle(number: int) -> np.ndarray:
    angles = np.pi * (np.arange(number) + 0.5) / number
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)
