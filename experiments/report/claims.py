"""The paper's claims: what speaks for or against each in a run, and one judge of all.

The claims themselves are data, in words.toml: title, the paper's numbers, the rule in
words, the rows that it rests on (``where``), and how its evidence is counted
(``quantifier``). A rule here returns 1 for what speaks for the claim, -1 for what
speaks against it, 0 for what tells nothing. With seeds enough the sizes of `effects`
decide instead.
"""

import math
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import pandas as pd

from experiments.report import effects
from experiments.report.effects import CLIPS_APART, EQUAL_APART, TRAINED
from experiments.report.judged import (
    FEWEST,
    POINT,
    ROUNDING,
    SETTING,
    baselines,
    compare_emds,
    group_settings,
    has_learned,
)
from experiments.report.pairs import equal_accuracy_pairs, match_pairs
from experiments.report.run import Run, plan, select_main
from experiments.report.words import CLAIMS
from experiments.study.config import MODES
from experiments.study.grid import CLIPS
from experiments.study.names import MODE_NAMES
from experiments.tables import count, emd_text, percent

REPRODUCED = "reproduced"
NOT_REPRODUCED = "not reproduced"
UNDECIDED = "not decidable at this size"
UNFINISHED = "not finished yet"
NOT_RUN = "not part of this run"

LEAD = 0.05  # share by which a method's accuracy recovers before its EMD
# Accuracy this close to a point's loss decides nothing: it is within chance.
MARGIN = 0.005


class Judgement(NamedTuple):
    """The verdict on a claim, its reason, and a run's numbers beside the paper's."""

    verdict: str
    why: str
    ours: str


class Found(NamedTuple):
    """What speaks for a claim (1), against it (-1) or neither way (0).

    Attributes:
        signs: by the names of what was looked at.
        unit: what that is, in the plural.
        shown: settings to print with their numbers.
        text: a sentence before these.
    """

    signs: pd.Series
    unit: str
    shown: pd.DataFrame
    text: str = ""


def select(rows: pd.DataFrame, *, bits: Collection[int] = (), **wanted: Any):
    """Return the rows with some values of their columns."""
    for name, value in wanted.items():
        rows = rows[rows[name] == value]
    return rows[rows["bits"].isin(bits)] if bits else rows


def judge_claims(run: Run) -> list[Judgement]:
    """Judge the paper's claims by the run's rows of its own site and scope."""
    planned = select_main(plan(run.rows, run.config), run.config)
    planned = planned[planned["target"] != "none"]
    bases = baselines(run.judged_main)[["accuracy", "dataset"]].to_numpy()
    learned = all(has_learned(*base) for base in bases)
    # The mode of most bit widths, of equal ones that which trains most.
    widths = planned.groupby("mode")["bits"].nunique()
    finest = max(run.config.modes, key=lambda m: (widths.get(m, 0), MODES.index(m)))
    found = []
    for key, rule in RULES.items():
        where = dict(CLAIMS[key].get("where", {}))
        if key == "accuracy_first":
            where["mode"] = finest
        own, wanted = select(run.judged_main, **where), select(planned, **where)
        one = _judge(CLAIMS[key]["quantifier"], rule(own, wanted), own)
        if (seeds := effects.count_seeds(own)) >= FEWEST:
            one = _decide(effects.MEASURES[key](own), seeds, one.ours)
        left = int((~wanted["done"].astype(bool)).sum())
        if not len(wanted):
            one = one._replace(verdict=NOT_RUN, why="this run has no such rows")
        elif left and (one.verdict, key) != (REPRODUCED, "equal_accuracy"):
            why = f"{left} of its {len(wanted)} rows are missing"
            one = one._replace(verdict=UNFINISHED, why=why)
        if not learned and one.verdict != NOT_RUN:
            one = one._replace(verdict=UNDECIDED, why="the baseline has not learned")
        found.append(one)
    return found


def _decide(found: list[effects.Effect], seeds: int, ours: str) -> Judgement:
    """Judge a claim by effects over seeds: by all of them for it, or one against."""
    signs = {effect.sign for effect in found}
    verdict = NOT_REPRODUCED if -1 in signs else UNDECIDED
    verdict = REPRODUCED if signs == {1} else verdict
    text = "; ".join(map(str, found)) or "no settings can be compared"
    needed = effects.estimate_deciding_seeds(found, seeds)
    if verdict == UNDECIDED and math.isfinite(needed):
        text += f"; some {math.ceil(needed)} seeds would decide"
    return Judgement(verdict, f"{text}; {seeds} seeds", ours)


def _judge(quantifier: str, found: Found, judged: pd.DataFrame) -> Judgement:
    """Judge a claim by its evidence, as if no row were missing."""
    signs = found.signs
    pro, contra, neither = (int((signs == sign).sum()) for sign in (1, -1, 0))
    why = f"of {len(signs)} {found.unit} {pro} for it, {contra} against"
    if contra:
        names = list(dict.fromkeys(signs.index[signs == -1].astype(str)))
        why += f", as {', '.join(names[:3])}"
    why += f"; seeds {', '.join(map(str, sorted(set(judged['seed']))))}"
    shown = [
        f"{s['setting']} {MODE_NAMES[s['mode']]} {percent(s['accuracy'])} / "
        f"{emd_text(s['emd_mean'])} ({s['verdict']}, "
        f"{count(len(s['seeds']), 'seed')})"
        for s in found.shown.to_dict("records")
    ]
    ours = "; ".join([found.text] * bool(found.text) + shown) or "not measured"
    verdict = count_evidence(quantifier, pro, contra, neither)
    return Judgement(verdict, why, ours)


def count_evidence(quantifier: str, pro: int, contra: int, neither: int) -> str:
    """Return the verdict of a claim that holds for some, most, every or each of them.

    - some: one for it reproduces it; it is not, where all speak against it.
    - most: more than half for it and none against reproduce it; it is not, where as
      many at least are against it as for it, and as tell nothing.
    - every: all for it reproduce it, and one against it is enough.
    - each: all for it reproduce it, and all against it contradict it.
    """
    total = pro + contra + neither
    for_it = {"some": pro > 0, "most": not contra and pro > neither}
    against = {"most": contra >= max(pro, neither), "every": contra > 0}
    if total and for_it.get(quantifier, pro == total):
        return REPRODUCED
    if contra and against.get(quantifier, contra == total):
        return NOT_REPRODUCED
    return UNDECIDED


def _keep(settings: pd.DataFrame) -> pd.Series:
    """Return 1 where accuracy and firing are kept, -1 where one is not, else 0."""
    lost = settings["loss"] >= POINT + MARGIN - ROUNDING
    lost |= settings["state"].isin(["collapsed", "drift"])
    kept = settings["loss"] <= POINT - MARGIN + ROUNDING
    kept &= settings["state"].isin(["no_drift", "below_margin"])
    return kept.astype(int) - lost.astype(int)


def equal_accuracy(judged: pd.DataFrame, planned: pd.DataFrame) -> Found:
    """Find pairs of settings that hide a drift in every seed of both."""
    same = equal_accuracy_pairs(judged)
    kept = same.select(same.keeps)
    _, _, high = compare_emds(kept.one, kept.other)
    rows = kept.names.assign(
        hides=kept.hides, small=high < EQUAL_APART, ratio=kept.ratio, at=kept.one.index
    )
    text = f"of {count(len(same), 'pair')} of equal accuracy {len(kept)} keep it, and "
    text += f"{rows['hides'].sum()} of these hide a drift"
    # A pair that was to run in one seed alone can hide nothing in another.
    ran = planned.groupby(SETTING).size()
    groups = rows.groupby(["mode", "far", "near"], sort=False)
    found = groups.agg({"hides": "sum", "small": "all", "ratio": "min"})
    full = [min(ran[m, far], ran[m, near]) for m, far, near in found.index]
    against = found["small"] & (found["hides"] == 0)
    signs = (found["hides"] == full).astype(int) - against.astype(int)
    if (signs > 0).any():
        best = found[signs > 0].sort_values(["hides", "ratio"]).index[-1]
        some = groups.get_group(best)
        text += ". The furthest apart of those in most seeds: "
        text += same.summarize(some.loc[some["ratio"].idxmin(), "at"])
        text += f", the least of {count(len(some), 'seed')}"
    signs.index = [f"{far} and {near}" for _, far, near in found.index]
    return Found(signs, "pairs of settings", judged[:0], text)


def wide_clip(judged: pd.DataFrame, planned: pd.DataFrame) -> Found:
    """Find pairs in which the wide clip's EMD is larger than the narrow one's."""
    clips = match_pairs(judged, "clip", CLIPS["wide"], CLIPS["narrow"])
    alive = clips.select(clips.collapsed == 0)
    shown = group_settings(judged[judged["bits"].isin([2, 6])])
    return Found(alive.signs.set_axis(alive.one["label"]), "pairs", shown)


def lq_net(judged: pd.DataFrame, planned: pd.DataFrame) -> Found:
    """Find settings that keep both, and clips that are no further apart."""
    settings = group_settings(judged)
    clips = match_pairs(judged, "clip", CLIPS["narrow"], CLIPS["wide"])
    clips = clips.select(clips.collapsed < 2)
    _, low, high = compare_emds(clips.one, clips.other)
    small = (low > -CLIPS_APART) & (high < CLIPS_APART)
    signs = [
        _keep(settings).set_axis(settings["setting"]),
        small.astype(int)
        .mask(clips.signs != 0, -1)
        .set_axis("clips of " + clips.one["setting"]),
    ]
    return Found(pd.concat(signs), "settings and pairs of clips", settings)


def accuracy_first(judged: pd.DataFrame, planned: pd.DataFrame) -> Found:
    """Find methods whose accuracy recovers before their EMD, with more bits."""
    done = planned.groupby("way")["done"].all()
    settings = group_settings(judged)
    shares = {
        way: _recover(line)
        for way, line in settings.groupby("way", sort=False)
        if len(line) > 2 and done[way]
    }
    shares = {way: share for way, share in shares.items() if share}
    lead = pd.Series(
        {k: one - other for k, (one, other) in shares.items()}, dtype=float
    )
    signs = (lead > LEAD).astype(int) - (lead < -LEAD).astype(int)
    text = "; ".join(f"{k} {a:.0%} / {f:.0%}" for k, (a, f) in shares.items())
    if text:
        mode = MODE_NAMES[settings["mode"].iloc[0]]
        text = f"back of accuracy / of EMD at the bits between, by {mode}: {text}"
    return Found(signs, "methods", judged[:0], text)


def _recover(line: pd.DataFrame) -> tuple[float, float] | None:
    """Return shares of accuracy and EMD that a method recovers at the bits between.

    Of what the most bits recover, the mean share over the bit widths between the
    fewest and the most; None for a method that lost too little to recover.
    """
    line = line.sort_values("bits")
    gains = line["accuracy"] - line["accuracy"].iloc[0]
    falls = line["emd_mean"].iloc[0] - line["emd_mean"]
    gain, fall = gains.iloc[-1], falls.iloc[-1]
    small = gain <= POINT + ROUNDING or fall <= line["emd_mean"].iloc[0] / 2
    if small or line["state"].iloc[-1] == "collapsed":
        return None
    return gains.iloc[1:-1].mean() / gain, falls.iloc[1:-1].mean() / fall


def four_bits(judged: pd.DataFrame, planned: pd.DataFrame) -> Found:
    """Find that 2 bits are too few for membranes, and 4 are enough."""
    settings = group_settings(judged)
    keeps = _keep(settings)
    signs = keeps.where(settings["bits"] == 4, -keeps)
    signs = signs.set_axis(settings["setting"])
    whole = settings["bits"].nunique() == 2
    return Found(signs if whole else signs[:0], "settings", settings)


def unsigned_membranes(judged: pd.DataFrame, planned: pd.DataFrame) -> Found:
    """Find seeds in which unsigned membranes are better by accuracy and firing."""
    pairs = match_pairs(judged, "signed", True, False)
    gains = pairs.other["accuracy"] - pairs.one["accuracy"]
    accuracy = (gains > POINT).astype(int) - (gains < -POINT).astype(int)
    both = (accuracy > 0) & (pairs.signs > 0)
    worse = (accuracy < 0) | (pairs.signs < 0)
    signs = (both.astype(int) - worse.astype(int)).where(pairs.collapsed < 2, 0)
    signs = signs.set_axis("seed " + pairs.one["seed"].astype(str))
    return Found(signs, "pairs", group_settings(judged))


def lq_membranes(judged: pd.DataFrame, planned: pd.DataFrame) -> Found:
    """Find settings that do not train."""
    settings = group_settings(judged)
    fell = (settings["state"] == "collapsed") | (settings["loss"] > TRAINED + ROUNDING)
    signs = (fell.astype(int) * 2 - 1).mask(settings["loss"].isna(), 0)
    return Found(signs.set_axis(settings["setting"]), "settings", settings)


RULES: dict[str, Callable[[pd.DataFrame, pd.DataFrame], Found]] = {
    "equal_accuracy": equal_accuracy,
    "wide_clip": wide_clip,
    "lq_net": lq_net,
    "accuracy_first": accuracy_first,
    "four_bits": four_bits,
    "unsigned": unsigned_membranes,
    "lq_membranes": lq_membranes,
}
