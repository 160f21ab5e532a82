"""Rank correlations of EMD and its rivals with what changed."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from experiments.report.formats import markdown_table
from experiments.report.judged import ROUNDING
from experiments.report.names import MODE_NAMES
from experiments.report.rank_correlation import Bootstrap, bootstrap, spearman
from experiments.study.config import MODES

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
    base = base.set_index("seed")[["synops", "mean_rate", "accuracy"]].add_suffix(
        "_base"
    )
    some = judged[~judged["full"]].join(base, on="seed")
    operations = some["synops_base"]
    some = some.assign(
        **{name: some[key].astype(float) for name, key in PREDICTORS.items()},
        **dict(
            zip(
                OUTCOMES,
                (
                    100 * (some["synops"] - operations).abs() / operations.clip(1e-12),
                    (some["mean_rate"] - some["mean_rate_base"]).abs(),
                    100 * (some["accuracy_base"] - some["accuracy"]),
                ),
                strict=True,
            )
        ),
    )
    return some.dropna(subset=[*PREDICTORS, *OUTCOMES])


def correlate(some: pd.DataFrame, *, within: bool = False) -> np.ndarray:
    """Return the rank correlations ``[predictors, outcomes]`` of `bootstrap_points`."""
    x, y, strata = _arrays(some, within)
    return spearman(x, y, np.ones((1, len(x))), strata)[0]


def bootstrap_points(some: pd.DataFrame, *, within: bool = False) -> Bootstrap:
    """Return the rank correlations of rows, resampled by setting.

    Args:
        some: the rows.
        within: rank them within their mode and seed. A mode moves a measure and
            accuracy by itself: re-estimated BatchNorm moves spikes in time and restores
            accuracy. Over all modes that hides what orders the networks of each.
    """
    x, y, strata = _arrays(some, within)
    return bootstrap(x, y, list(some["setting"]), strata)


def _arrays(
    some: pd.DataFrame, within: bool
) -> tuple[np.ndarray, np.ndarray, list[tuple]]:
    x, y = (some[list(names)].to_numpy(float) for names in (PREDICTORS, OUTCOMES))
    strata = zip(some["mode"] * within, some["seed"] * within, strict=True)
    return x, y, list(strata)


def split_points(found: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Split all rows and each mode: all, not collapsed, near the baseline.

    A network at three times chance did not collapse, and is of no use.
    """
    modes = {MODE_NAMES[mode]: found[found["mode"] == mode] for mode in MODES}
    for title, some in ({"all": found} | modes).items():
        alive = some[some["state"] != "collapsed"]
        near = alive[alive["loss"] <= NEAR / 100 + ROUNDING]
        before = 0
        for words, each in (
            ("", some),
            (_ALIVE, alive),
            (f", within {NEAR} points", near),
        ):
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
        tables[title] = bootstrap_points(some, within=title in within)
        intervals = tables[title].intervals
        for p, predictor in enumerate(PREDICTORS):
            line = {"rows of": title, "n": str(len(some)), "measure": predictor}
            line |= {"rows of": "", "n": ""} if p else {}
            for o, outcome in enumerate(OUTCOMES):
                line[outcome.split(",")[0]] = _cell(intervals[:, p, o])
            lines.append(line)
    mains = [f"all{a}{b}" for b in (", ranked within", "") for a in (_ALIVE, "")]
    main = next(title for title in mains if title in tables)
    table = markdown_table(lines, ("rows of", "measure"))
    return table, conclude(tables[main], main)


def describe_rows(judged: pd.DataFrame, found: pd.DataFrame) -> str:
    """Describe the rows: how many, of what, and how many are left out."""
    seeds = sorted(set(found["seed"]))
    modes = [MODE_NAMES[m] for m in MODES if m in set(found["mode"])]
    text = f"{len(found)} quantized rows ({', '.join(modes)}; "
    text += f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
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


def conclude(table: Bootstrap, title: str) -> str:
    """Name the measure that orders each outcome best, and its lead over the next."""
    parts, names = [], list(PREDICTORS)
    for o, outcome in enumerate(OUTCOMES):
        values, low, _ = table.intervals[:, :, o]
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
        if np.isnan(values[other]):
            parts.append(text)
            continue
        difference = table.difference(best, other)[:, o]
        # By the printed digits: 0.00 is not above 0.
        apart = "above 0" if difference[1] >= 0.005 else "not distinct from 0"
        parts.append(
            f"{text}, by {names[other]} {values[other]:.2f}; the difference, "
            f"{_cell(difference)} by the same resamples, is {apart}"
        )
    if not parts:
        return ""
    text = f'Over the rows of "{title}" {"; ".join(parts)}. '
    return f"{text}The best is named after the fact, which flatters its lead."
