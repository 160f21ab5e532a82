"""Rank correlations of EMD and its rivals with what changed, and their intervals."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from experiments.report.formats import markdown_table
from experiments.report.judged import ROUNDING
from experiments.report.names import MODE_NAMES
from experiments.study.config import MODES

FEWEST = 8  # settings that a correlation is taken over
NEAR = 5  # points of accuracy that a network of use may lose
RESAMPLES = 2000
LEVEL = 95
_ALIVE = ", not collapsed"

PREDICTORS = {
    "EMD": "emd_mean",
    "paired shift": "mean.paired_shift",
    "time-W1": "mean.time_w1",
    "mean shift": "mean.mean_shift",
}
OUTCOMES = [
    "change of synaptic operations, %",
    "change of mean rate",
    "loss of accuracy, points",
]


def collect_points(judged: pd.DataFrame) -> pd.DataFrame:
    """Return the quantized rows of one run that have all measures and a baseline.

    With a column for each of `PREDICTORS` and `OUTCOMES`.
    """
    base = judged[judged["mode"] == "fp32"].drop_duplicates("seed", keep="last")
    base = base.set_index("seed")[["synops", "mean_rate", "accuracy"]]
    some = judged[~judged["full"]].join(base.add_suffix("_base"), on="seed")
    added, before = some["synops"] - some["synops_base"], some["synops_base"]
    outcomes = (
        100 * added.abs() / before.clip(1e-12),
        (some["mean_rate"] - some["mean_rate_base"]).abs(),
        100 * (some["accuracy_base"] - some["accuracy"]),
    )
    some = some.assign(
        **{name: some[key].astype(float) for name, key in PREDICTORS.items()},
        **dict(zip(OUTCOMES, outcomes, strict=True)),
    )
    return some.dropna(subset=[*PREDICTORS, *OUTCOMES])


def bootstrap(
    x: np.ndarray,
    y: np.ndarray,
    groups: Sequence[object],
    strata: Sequence[object] | None = None,
    resamples: int = RESAMPLES,
) -> np.ndarray:
    """Return Spearman's rank correlations of all rows, and of resamples behind them.

    Whole groups are resampled: rows of one group (networks of one quantizer, in several
    modes and seeds) are not independent.

    Args:
        x: ``[rows, predictors]``.
        y: ``[rows, outcomes]``.
        groups: the group of each row.
        strata: the stratum of each row, where rows are ranked within their own.
        resamples: number of resamples.

    Returns:
        ``[1 + resamples, predictors, outcomes]``; NaN where something never varies.
    """
    of, names = pd.factorize(pd.Series(list(groups), dtype=object))
    drawn = np.random.default_rng(0).integers(len(names), size=(resamples, len(names)))
    times = [np.ones(len(names))]
    times += [np.bincount(d, minlength=len(names)) for d in drawn]
    strata = [0] * len(x) if strata is None else strata
    return spearman(x, y, np.stack(times)[:, of].astype(float), strata)


def estimate(correlations: np.ndarray) -> np.ndarray:
    """Return the estimate and its percentile interval's ends, of `bootstrap`."""
    ends = (50 - LEVEL / 2, 50 + LEVEL / 2)
    of_all, resampled = correlations[0], correlations[1:]
    # A resample may hold one value alone; of what never varies there is no interval.
    blank = np.isnan(resampled).all(0)
    low, high = np.nanpercentile(np.where(blank, 0, resampled), ends, axis=0)
    return np.where(np.isnan(of_all) | blank, np.nan, np.stack([of_all, low, high]))


def spearman(
    x: np.ndarray, y: np.ndarray, weights: np.ndarray, strata: Sequence[object]
) -> np.ndarray:
    """Return Pearson's correlations of ranks, each row counted by its weight.

    Ranks are shares of a row's stratum, from its middle. SciPy's take no weights.
    """
    of = pd.factorize(pd.Series(list(strata), dtype=object))[0]
    same = (of[:, None] == of).astype(float)
    total = np.maximum(weights @ same, 1e-12)[..., None]
    unit = []
    for values in (x, y):
        # So many rows are smaller, and half of those that are equal: the middle rank.
        before = (values[:, None] > values) + (values[:, None] == values) / 2
        before = before * same[..., None]
        ranks = np.einsum("sj,ijc->sic", weights, before, optimize=True) / total - 0.5
        length = np.sqrt(np.einsum("si,sic->sc", weights, ranks**2))[:, None]
        unit.append(ranks / np.where(length > 1e-9, length, np.nan))
    return np.einsum("si,sip,sio->spo", weights, *unit, optimize=True)


def correlate(
    some: pd.DataFrame, *, within: bool = False, resamples: int = RESAMPLES
) -> np.ndarray:
    """Return the rank correlations of rows, resampled by setting, see `bootstrap`.

    Args:
        some: the rows.
        within: rank them within their mode and seed. A mode moves a measure and
            accuracy by itself: re-estimated BatchNorm moves spikes in time and restores
            accuracy. Over all modes that hides what orders the networks of each.
        resamples: number of resamples.
    """
    x, y = (some[list(names)].to_numpy(float) for names in (PREDICTORS, OUTCOMES))
    strata = list(zip(some["mode"] * within, some["seed"] * within, strict=True))
    return bootstrap(x, y, list(some["setting"]), strata, resamples)


def split_points(found: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Split all rows and each mode: all, not collapsed, near the baseline.

    A network at three times chance did not collapse, and is of no use.
    """
    modes = {MODE_NAMES[mode]: found[found["mode"] == mode] for mode in MODES}
    for title, some in ({"all": found} | modes).items():
        alive = some[some["state"] != "collapsed"]
        near = alive[alive["loss"] <= NEAR / 100 + ROUNDING]
        parts = {"": some, _ALIVE: alive, f", within {NEAR} points": near}
        before = 0
        for words, each in parts.items():
            if has_enough(each) and len(each) != before:
                yield f"{title}{words}", each
                before = len(each)


def has_enough(found: pd.DataFrame) -> bool:
    """Return True if there are enough settings to take a correlation over."""
    return found["setting"].nunique() >= FEWEST


def tabulate_predictions(found: pd.DataFrame) -> tuple[str, str]:
    """Return the table of rank correlations, and the conclusions from it."""
    lines, tables = [], {}
    sets = dict(split_points(found))
    whole = {title: some for title, some in sets.items() if title.startswith("all")}
    within = {f"{title}, ranked within": some for title, some in whole.items()}
    # Within one mode and seed the ranks are the same.
    within = within if len(found[["mode", "seed"]].drop_duplicates()) > 1 else {}
    for title, some in (whole | within | sets).items():
        tables[title] = correlate(some, within=title in within)
        intervals = estimate(tables[title])
        for p, predictor in enumerate(PREDICTORS):
            first = ("", "") if p else (title, str(len(some)))
            line = {"rows of": first[0], "n": first[1], "measure": predictor}
            cells = {
                o.split(",")[0]: intervals[:, p, i] for i, o in enumerate(OUTCOMES)
            }
            lines.append(line | {name: _cell(values) for name, values in cells.items()})
    mains = [f"all{a}{b}" for b in (", ranked within", "") for a in (_ALIVE, "")]
    main = next(title for title in mains if title in tables)
    return markdown_table(lines, ("rows of", "measure")), conclude(tables[main], main)


def describe_rows(judged: pd.DataFrame, found: pd.DataFrame) -> str:
    """Describe the rows: how many, of what, and how many are left out."""
    modes = [MODE_NAMES[m] for m in MODES if m in set(found["mode"])]
    text = f"{len(found)} quantized rows ({', '.join(modes)}; "
    text += f"seeds {', '.join(map(str, sorted(set(found['seed']))))}"
    for name in ("site", "quantize_all"):
        if found[name].nunique() > 1:
            text += f"; both choices of {name}"
    text += f"; {(found['state'] == 'collapsed').sum()} collapsed"
    if left := (~judged["full"]).sum() - len(found):
        text += f"; {left} more lack a measure or their baseline"
    return f"{text})"


def _cell(values: np.ndarray) -> str:
    if np.isnan(values).any():
        return "-"
    return "{:.2f} [{:.2f}, {:.2f}]".format(*(values + 0.0))


def conclude(table: np.ndarray, title: str) -> str:
    """Name the measure that orders each outcome best, and its lead over the next."""
    parts, names = [], list(PREDICTORS)
    for o, outcome in enumerate(OUTCOMES):
        values, low, _ = estimate(table[:, :, o])
        if np.isnan(values).all():
            continue
        # What never varies comes last.
        best, second = np.argsort(-values, kind="stable")[:2]
        text = f"the {outcome.split(',')[0]} is ordered "
        if not np.any(low > 0):
            parts.append(f"{text}by none: no interval lies above 0")
            continue
        text += f"best by {names[best]} ({values[best]:.2f}"
        text += ")" if low[best] > 0 else ", its interval reaches 0)"
        other = 0 if best else second  # EMD, or the next one where EMD is best
        if not np.isnan(values[other]):
            difference = estimate(table[:, best, o] - table[:, other, o])
            # By the printed digits: 0.00 is not above 0.
            apart = "above 0" if difference[1] >= 0.005 else "not distinct from 0"
            text += f", by {names[other]} {values[other]:.2f}; the difference, "
            text += f"{_cell(difference)} by the same resamples, is {apart}"
        parts.append(text)
    if not parts:
        return ""
    text = f'Over the rows of "{title}" {"; ".join(parts)}. '
    return f"{text}The best is named after the fact, which flatters its lead."
