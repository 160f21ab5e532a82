"""Rank correlations of EMD and its rivals with what changed, and their intervals."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from experiments.rank_correlation import RESAMPLES, bootstrap, estimate
from experiments.report.judged import ROUNDING
from experiments.study.config import MODES
from experiments.study.names import MODE_NAMES
from experiments.tables import markdown_table

FEWEST = 8  # settings that a correlation is taken over
NEAR = 5  # points of accuracy that a network of use may lose
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
        parts = {title: some, f"{title}{_ALIVE}": alive}
        parts[f"{title}, within {NEAR} points"] = near
        first = {len(parts[name]): name for name in reversed(parts)}
        for name in reversed(first.values()):
            if has_enough(parts[name]):
                yield name, parts[name]


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
