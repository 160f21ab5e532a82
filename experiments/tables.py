"""Numbers and tables as the experiments' pages print them."""

import math
import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

TEXT_COLUMNS = ("run", "method", "mode", "verdict")


def count(number: int, noun: str) -> str:
    """Return a number with its noun in singular or plural.

    >>> count(1, "pair"), count(2, "pair")
    ('1 pair', '2 pairs')
    """
    return f"{number} {noun}{'s' * (number != 1)}"


def plain(value: Any) -> str:
    """Print an option's value or values; None ("not set") differs from no values."""
    values = value if isinstance(value, list) else [value]
    return ", ".join("not set" if v is None else str(v) for v in values) or "none"


def percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def points(share: float) -> str:
    return f"{100 * share:.2f}"


def list_seeds(seeds: Collection[int]) -> str:
    """Print seeds, a run of them by its ends.

    >>> list_seeds({0, 1, 2}), list_seeds([5, 1])
    ('0 to 2', '1, 5')
    """
    first, last = min(seeds), max(seeds)
    if last - first == len(seeds) - 1 > 1:
        return f"{first} to {last}"
    return ", ".join(map(str, sorted(seeds)))


def is_missing(value: Any) -> bool:
    """Return True for None and NaN, which stand for no value in a frame."""
    return value is None or value != value


def emd_text(emd: float | None) -> str:
    """Print four decimals, as the paper does; two digits where these say nothing."""
    if emd is None or is_missing(emd):
        return "-"
    if emd == 0 or emd >= 0.00095:
        return f"{emd:.4f}"
    return np.format_float_positional(emd, precision=2, fractional=False, trim="-")


def signed_emd(emd: float) -> str:
    return f"{'-' if emd < 0 else '+'}{emd_text(abs(emd))}"


def spread(values: Sequence[float], show: Callable[[float], str]) -> str:
    """Print the mean, with the sample standard deviation where there are several."""
    if not all(map(math.isfinite, values)):
        return "nan"
    text = show(statistics.fmean(values))
    if len(values) == 1:
        return text
    decimals = len(text.partition(".")[2])  # as many as the mean
    scale = 100 if show is points else 1
    return f"{text} ± {scale * statistics.stdev(values):.{decimals}f}"


def markdown_table(
    lines: Sequence[Mapping[str, str]], text_columns: Sequence[str] = TEXT_COLUMNS
) -> str:
    """Return lines of one table, each by its columns: text left, numbers right.

    >>> print(markdown_table([{"method": "LQ-Net", "EMD": "0.1"}]), end="")
    | method | EMD |
    | ------ | --: |
    | LQ-Net | 0.1 |
    """
    widths = {k: max(2, len(k), *(len(c[k]) for c in lines)) for k in lines[0]}
    rule = {
        k: "-" * w if k in text_columns else "-" * (w - 1) + ":"
        for k, w in widths.items()
    }
    text = ""
    for line in ({k: k for k in widths}, rule, *lines):
        padded = (
            line[k].ljust(w) if k in text_columns else line[k].rjust(w)
            for k, w in widths.items()
        )
        text += f"| {' | '.join(padded)} |\n"
    return text
