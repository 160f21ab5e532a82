"""Resample groups of inputs: tests by relabelled groups, spread by bootstrap.

Private. Rows are groups of inputs, columns are neurons. Two recordings of the same
inputs are resampled jointly, group by group; two of other inputs independently.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

CLASSES = 16  # of neurons by rate, in the test
BLOCK = 2**22  # numbers at a time


class Groups(NamedTuple):
    """Rates of a layer by group, and the observations behind each.

    Attributes:
        x, y: float64 ``[groups, neurons]``, of the reference and of the other network.
        of_x, of_y: observations ``[groups]``.
        joint: True where row g of both is the same inputs.
    """

    x: np.ndarray
    y: np.ndarray
    of_x: np.ndarray
    of_y: np.ndarray
    joint: bool

    @property
    def mean_x(self) -> np.ndarray:
        """Rates of the reference over all groups."""
        return self.of_x @ self.x / self.of_x.sum()

    @property
    def mean_y(self) -> np.ndarray:
        """Rates of the other network over all groups."""
        return self.of_y @ self.y / self.of_y.sum()

    @property
    def pooled(self) -> np.ndarray:
        """Rates over all groups, whichever recording they are labelled as."""
        sizes = np.concatenate([self.of_x, self.of_y])
        return sizes @ np.concatenate([self.x, self.y]) / sizes.sum()


def equalize_groups(layer: Groups, alpha: float) -> Groups:
    """Merge the smaller groups of one recording, so that both have groups of one size.

    Means of few inputs are more skewed than those of many, and groups that are not
    distributed alike cannot be relabelled: the test would find drift too often. Where
    too few groups would be left for a test, they stay as they are.
    """
    if layer.joint:
        return layer
    ratio = float(np.median(layer.of_x) / np.median(layer.of_y))
    merged = layer
    if round(ratio) > 1:
        y, of_y = _merge_groups(layer.y, layer.of_y, round(ratio))
        merged = layer._replace(y=y, of_y=of_y)
    elif round(1 / ratio) > 1:
        x, of_x = _merge_groups(layer.x, layer.of_x, round(1 / ratio))
        merged = layer._replace(x=x, of_x=of_x)
    number = count_relabellings(False, merged.of_x, merged.of_y)
    return merged if number * alpha >= 2 else layer


def _merge_groups(
    rates: np.ndarray, sizes: np.ndarray, times: int
) -> tuple[np.ndarray, np.ndarray]:
    number = max(min(4, len(sizes)), len(sizes) // times)
    member = np.arange(len(sizes)) % number == np.arange(number)[:, None]
    merged = member @ sizes
    return member @ (sizes[:, None] * rates) / merged[:, None], merged


def count_relabellings(joint: bool, of_x: np.ndarray, of_y: np.ndarray) -> int:
    """Count the relabellings of groups that a test tells from one another."""
    if joint:
        return 2 ** (len(of_x) - 1)
    number = math.comb(len(of_x) + len(of_y), len(of_x))
    return number // 2 if len(of_x) == len(of_y) else number


def draw_contrasts(
    joint: bool, of_x: np.ndarray, of_y: np.ndarray, number: int, rng
) -> np.ndarray:
    """Draw relabellings, as weights of the rows of `center`; the first is as recorded.

    Without drift the two recordings of a group can change places, and so can any two
    groups of two recordings of other inputs.
    """
    if joint:
        signs = rng.choice([-1.0, 1.0], (number + 1, len(of_x)))
        signs[0] = 1.0
        return signs
    ours, theirs = np.sqrt(of_x) / of_x.sum(), np.sqrt(of_y) / of_y.sum()
    weights = np.tile(np.concatenate([-ours, theirs]), (number + 1, 1))
    weights[1:] = rng.permuted(weights[1:], axis=1)
    # Rows have no component along the roots of the sizes, which a relabelling of groups
    # of several sizes has: without it all are of one length.
    roots = np.concatenate([np.sqrt(of_x), np.sqrt(of_y)])
    along = (weights @ roots) ** 2 / (roots @ roots)
    length = np.sum(weights**2, axis=1)
    return weights * np.sqrt(length / np.maximum(length - along, 0.1 * length))[:, None]


def center(layer: Groups) -> np.ndarray:
    """Return the rows whose sum, weighted by a contrast, is the change of the rates.

    For the same inputs: the weighted differences of the groups. For others: what sets
    each group apart from all, times the root of its observations, so that groups of
    other sizes vary alike.
    """
    if layer.joint:
        share = (layer.of_x / layer.of_x.sum())[:, None]
        return share * (layer.y - layer.x)
    sizes = np.concatenate([layer.of_x, layer.of_y])
    rates = np.concatenate([layer.x, layer.y])
    return np.sqrt(sizes)[:, None] * (rates - sizes @ rates / sizes.sum())


def compute_statistics(
    rows: np.ndarray, contrasts: np.ndarray, rates: np.ndarray
) -> np.ndarray:
    """Compute three statistics of a change, for each contrast: ``[3, contrasts]``.

    The change that all neurons share; that of the means of 16 classes of neurons by
    rate, which sees what an EMD sees; and that of single neurons. In all, directions in
    which the groups vary anyway count less.
    """
    order = np.argsort(rates, kind="stable")
    parts = np.array_split(order, min(CLASSES, rates.size))
    classes = np.stack([rows[:, part].mean(axis=1) for part in parts], axis=1)
    return np.stack(
        [_shared(rows, contrasts), *(_hotelling(r, contrasts) for r in (classes, rows))]
    )


def _shared(rows: np.ndarray, contrasts: np.ndarray) -> np.ndarray:
    """Compute the size of the change that all neurons share.

    Up to a factor its estimate by generalized least squares, where groups vary as their
    ridge-regularized covariance says.
    """
    energies, directions, ridge = _decompose(rows)
    if not ridge:
        return np.zeros(len(contrasts))
    mean = directions.T @ rows.mean(axis=1)
    return np.abs(contrasts @ directions @ (mean / (energies + ridge)))


def _hotelling(rows: np.ndarray, contrasts: np.ndarray) -> np.ndarray:
    """Compute a ridge-regularized Hotelling statistic of each contrast."""
    power = np.mean(rows**2, axis=0)
    floor = 0.1 * power.mean()
    if floor == 0:
        return np.zeros(len(contrasts))
    energies, directions, ridge = _decompose(rows / np.sqrt(power + floor))
    return (contrasts @ directions) ** 2 @ (energies / (energies + ridge))


def _decompose(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Decompose the inner products of groups; also return the ridge to add.

    They are all that a statistic needs, however many the neurons.
    """
    energies, directions = np.linalg.eigh(rows @ rows.T)
    energies = np.where(energies > 1e-9 * energies[-1], energies, 0.0)
    positive = energies[energies > 0]
    return energies, directions, float(np.median(positive)) if positive.size else 0.0


def compute_p_values(statistics: list[np.ndarray]) -> list[float]:
    """Compute p-values of layers, corrected for all layers and statistics.

    Each statistic is standardized by its relabellings; the largest of all, relabelling
    by relabelling, is what a layer's largest is set against (Westfall and Young's
    single-step maximum).
    """
    standardized = []
    for of_layer in statistics:
        spread = of_layer.std(axis=1, keepdims=True)
        mean = of_layer.mean(axis=1, keepdims=True)
        # A statistic that relabelling does not change tells nothing; rounding moves it.
        constant = spread <= 1e-9 * np.abs(mean)
        z = np.where(constant, 0.0, (of_layer - mean) / np.where(constant, 1.0, spread))
        standardized.append(z.max(axis=0))
    largest = np.max(standardized, axis=0)
    return [float(np.mean(largest >= z[0] - 1e-9)) for z in standardized]


class Resample(NamedTuple):
    """Resampled rates ``[draws, neurons]``, float32.

    Attributes:
        x: of the reference.
        y: of the other network.
        twin: of a second recording of the reference, as noisy as ``y``.
    """

    x: np.ndarray
    y: np.ndarray
    twin: np.ndarray


def bootstrap(layer: Groups, draws: int, rng) -> Iterator[Resample]:
    """Resample groups with replacement, in blocks of draws."""
    mean_x, mean_y = (each.astype(np.float32) for each in (layer.mean_x, layer.mean_y))
    apart_x = layer.x.astype(np.float32) - mean_x
    apart_y = layer.y.astype(np.float32) - mean_y
    step = max(1, BLOCK // mean_x.size)
    for start in range(0, draws, step):
        number = min(step, draws - start)
        ours = _draw_weights(layer.of_x, number, rng)
        theirs = ours if layer.joint else _draw_weights(layer.of_y, number, rng)
        noise_x, noise_y = ours @ apart_x, theirs @ apart_y
        yield Resample(mean_x + noise_x, mean_y + noise_y, mean_x + noise_y)


def _draw_weights(sizes: np.ndarray, draws: int, rng) -> np.ndarray:
    """Draw how often each group is chosen more than once, times its share."""
    groups = len(sizes)
    chosen = rng.multinomial(groups, np.full(groups, 1 / groups), draws) - 1.0
    # Resampled sums vary (groups - 1) / groups as much as the sums themselves.
    weights = chosen * (sizes / sizes.sum()) * (groups / (groups - 1)) ** 0.5
    return weights.astype(np.float32)
