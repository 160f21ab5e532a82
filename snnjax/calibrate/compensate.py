r"""Round weights so that the errors of some make up for those of others.

The objective of one output channel is quadratic,

.. math:: E(\hat w) = (\hat w - w)^T H (\hat w - w)

with H the second moment of the channel's inputs. All of it is in NumPy's float64.
"""

from collections.abc import Callable

import numpy as np

Nearest = Callable[[np.ndarray, int], np.ndarray]

_SWEEPS = 20


def quadratic_error(rounded: np.ndarray, w: np.ndarray, hessian: np.ndarray):
    """Compute the objective of each channel: ``[C]`` for ``rounded``, ``w`` [n, C]."""
    error = np.asarray(rounded, np.float64) - np.asarray(w, np.float64)
    return np.einsum("ic,ic->c", error, np.asarray(hessian, np.float64) @ error)


def round_with_compensation(
    w: np.ndarray, hessian: np.ndarray, nearest: Nearest, *, damping: float = 0.01
) -> np.ndarray:
    r"""Round row by row; the rows that are left make up for each error.

    After row i is rounded, with the error e of each channel, the others move by

    .. math:: \delta_j = -e\, [H_F^{-1}]_{ji} / [H_F^{-1}]_{ii}

    with F the rows that are not rounded yet: the least of the objective with row i held
    at its level. Rows of large diagonal come first. Single rows are then rounded again,
    each to the best level given the others, until none changes; and where rounding to
    the nearest is no worse in the objective, a channel keeps that.

    Args:
        w: weights ``[n, C]``, float64.
        hessian: H ``[n, n]``, symmetric and positive semidefinite.
        nearest: ``nearest(values [C], row)``, the nearest levels of each channel.
        damping: added to H's diagonal for the compensation, as a share of its mean.

    Returns:
        Levels ``[n, C]``, of no larger objective than the nearest ones' in any channel.

    Source: Frantar et al., `GPTQ <https://arxiv.org/abs/2210.17323>`_, 2023.
    """
    w, hessian = np.asarray(w, np.float64), np.asarray(hessian, np.float64)
    rows = len(w)
    plain = np.stack([nearest(w[i], i) for i in range(rows)])
    diagonal = np.diag(hessian)
    if not diagonal.max(initial=0) > 0:
        return plain  # the inputs are silent: no choice matters
    order = np.argsort(-diagonal, kind="stable")
    damped = hessian + damping * diagonal.mean() * np.eye(rows)
    inverse = np.linalg.inv(damped[np.ix_(order, order)])
    # Row i of the factor is the inverse of what is left from i on, over its root.
    factor = np.linalg.cholesky(inverse).T
    left, compensated = w[order].copy(), np.empty_like(w)
    for place, row in enumerate(order):
        level = nearest(left[place], row)
        compensated[row] = level
        error = (left[place] - level) / factor[place, place]
        left[place + 1 :] -= np.outer(factor[place, place + 1 :], error)
    starts = [descend(start, w, hessian, nearest) for start in (compensated, plain)]
    best = min_by_channel([plain, *starts], w, hessian)
    return best


def round_up_to_scale(
    w: np.ndarray, hessian: np.ndarray, nearest: Nearest, *, damping: float = 0.01
) -> np.ndarray:
    r"""Round where each channel's scale is free, as in front of BatchNorm.

    Of the nearest levels, `round_with_compensation` and the same for the weights times
    the scale that the nearest levels have, each channel gets the one of least error up
    to its scale,

    .. math:: 1 - \frac{(\hat w^T H w)^2}{(\hat w^T H \hat w)(w^T H w)}

    among those whose objective is no larger than the nearest levels'. Bounds far beyond
    the weights make scales that a compensation for the weights as they are would fight.
    """
    w, hessian = np.asarray(w, np.float64), np.asarray(hessian, np.float64)
    plain = np.stack([nearest(row, i) for i, row in enumerate(w)])
    inner = lambda a, b: np.einsum("ic,ic->c", a, hessian @ b)  # noqa: E731
    size = inner(w, w)
    scale = inner(plain, w) / np.where(size > 0, size, 1)
    scale = np.where(scale > 0, scale, 1)
    candidates = [plain] + [
        round_with_compensation(s * w, hessian, nearest, damping=damping)
        for s in (1.0, scale)
    ]
    limit = quadratic_error(plain, w, hessian)
    errors = []
    for rounded in candidates:
        product = inner(rounded, rounded) * size
        cosine = inner(rounded, w) ** 2 / np.where(product > 0, product, 1)
        allowed = quadratic_error(rounded, w, hessian) <= limit * (1 + 1e-12)
        errors.append(np.where(allowed, 1 - cosine, np.inf))
    best = np.argmin(np.stack(errors), axis=0)
    return np.take_along_axis(np.stack(candidates), best[None, None], axis=0)[0]


def descend(
    rounded: np.ndarray, w: np.ndarray, hessian: np.ndarray, nearest: Nearest
) -> np.ndarray:
    """Round single rows to the best level given the others, until none changes."""
    rounded = np.array(rounded, np.float64)
    slope = hessian @ (rounded - w)
    for _ in range(_SWEEPS):
        changed = False
        for i in map(int, np.flatnonzero(np.diag(hessian) > 0)):
            level = nearest(rounded[i] - slope[i] / hessian[i, i], i)
            # Only where the objective falls: equal levels must not alternate.
            step = level - rounded[i]
            gain = step * (2 * slope[i] + step * hessian[i, i])
            step = np.where(gain < -1e-12 * np.abs(slope[i] * step), step, 0)
            if np.any(step):
                rounded[i] += step
                # The level itself, without the rounding error of the sum.
                rounded[i] = np.where(step != 0, level, rounded[i])
                slope += np.outer(hessian[:, i], step)
                changed = True
        if not changed:
            break
    return rounded


def min_by_channel(
    candidates: list[np.ndarray], w: np.ndarray, hessian: np.ndarray
) -> np.ndarray:
    """Return for each channel the first candidate of least objective."""
    errors = np.stack([quadratic_error(c, w, hessian) for c in candidates])
    best = np.argmin(errors, axis=0)
    return np.take_along_axis(np.stack(candidates), best[None, None], axis=0)[0]
