"""Sentences of the page: which losses keep firing, and with which numbers."""

import statistics
from collections.abc import Iterable, Sequence

from experiments.beyond import losses, tuning
from experiments.beyond.comparison import BOTH, compare, group_by_arm, is_below_1
from snnjax.runs import Row

# A network below this accuracy is dead, not quantized: no ratio to it says anything.
DEAD = 0.6


def list_failed(rows: Sequence[Row], part: str) -> list[str]:
    """Return a sentence on the networks whose loss became NaN or infinite."""
    failed = [row for row in rows if row["part"] == part and "failed" in row]
    names = ", ".join(f"{r['quantizer']} {r['arm']} (seed {r['seed']})" for r in failed)
    return [f"Left out, since the loss was not finite: {names}."] if failed else []


def judge_losses(rows: Sequence[Row]) -> list[str]:
    """Return sentences on `distill.firing`, and on what it leaves to `fire_match`."""
    known = [*losses.LOSSES, *losses.MATCHED_AFTER]
    kept = (losses.KEPT, losses.KEPT_AND_MATCHED)
    others = [
        arm for arm in known if arm not in (losses.PLAIN, *kept, *losses.PARTS_OF_IT)
    ]
    trained = [arm for arm in others if arm not in losses.MATCHED_AFTER]
    groups = group_by_arm(rows)
    return [
        *_judge_arm(groups, losses.KEPT, trained),
        *_judge_arm(groups, losses.KEPT_AND_MATCHED, others),
    ]


def _judge_arm(
    groups: dict[tuple[str, str], list[Row]], arm: str, rivals: Sequence[str]
) -> list[str]:
    """Compare an arm with plain training, and with the best of its rivals.

    Quantizers with one seed have no interval, and are not judged.
    """
    alive, below, beaten, compared = [], [], [], []
    for quantizer in dict.fromkeys(quantizer for quantizer, _ in groups):
        plain = groups.get((quantizer, losses.PLAIN), [])
        ours = groups.get((quantizer, arm), [])
        if not plain or len(ours) < 2:
            continue
        ratios = [compare(ours, plain, key) for key in BOTH]
        if statistics.fmean(row["accuracy"] for row in plain) >= DEAD:
            alive.append(quantizer)
            if all(map(is_below_1, ratios)):
                below.append(quantizer)
        others = [
            groups[quantizer, rival] for rival in rivals if (quantizer, rival) in groups
        ]
        seeds = set.intersection(*({r["seed"] for r in x} for x in (ours, *others)))
        if others and seeds:
            compared.append(quantizer)
            if all(
                _mean(ours, key, seeds) < min(_mean(x, key, seeds) for x in others)
                for key in BOTH
            ):
                beaten.append(quantizer)
    if not alive:
        return []
    return [
        f"{arm} is below plain training in both measures, by 95 % intervals over "
        f"seeds, with {len(below)} of the {len(alive)} quantizers that plain training "
        f"does not kill{_but(alive, below)}.",
        f"{arm} is below the best of {'; '.join(rivals)}, each measure's own, in both "
        f"measures with {len(beaten)} of {len(compared)} quantizers"
        f"{_but(compared, beaten)}.",
    ]


def list_numbers(rows: Sequence[Row], tuned: Sequence[Row]) -> list[str]:
    """Return a sentence on the numbers of each loss, and those that tuning chose."""
    chosen = tuning.choose_trials(tuned)
    sentences = []
    for arm in dict.fromkeys(row["arm"] for row in rows if row.get("numbers")):
        if arm not in losses.LOSSES:  # they have the numbers of such a one
            continue
        every = [row["numbers"] for row in rows if row["arm"] == arm]
        used = list(map(dict, dict.fromkeys(tuple(x.items()) for x in every)))
        text = " or ".join(losses.name_numbers(numbers) for numbers in used)
        if arm in chosen and used != [dict(chosen[arm])]:
            text += f"; the tuning chose {losses.name_numbers(chosen[arm])}"
        sentences.append(f"Numbers of {arm}: {text}.")
    if any("tuning" in sentence for sentence in sentences):
        sentences.append(
            "Losses above have other numbers than the tuning chose: they were trained "
            "before it, and this table does not yet decide between them."
        )
    return sentences


def _but(all_of: Iterable[str], those: Sequence[str]) -> str:
    rest = [name for name in all_of if name not in those]
    return f" (not with {', '.join(rest)})" if rest else ""


def _mean(rows: Sequence[Row], key: str, seeds: set[int]) -> float:
    return statistics.fmean(row[key] for row in rows if row["seed"] in seeds)
