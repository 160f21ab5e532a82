"""Numbers and fixed prose as the report prints them."""

import math
import statistics
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent
_PROSE = tomllib.loads((FOLDER / "prose.toml").read_text("utf-8"))

CAPTIONS: dict[str, str] = _PROSE["captions"]
CLAIMS: dict[str, dict[str, str]] = _PROSE["claims"]
DEFINITIONS: dict[str, str] = _PROSE["definitions"]
PAGE: dict[str, str] = _PROSE["page"]
RULES: str = _PROSE["rules"]


def count(number: int, noun: str) -> str:
    """Return a number with its noun in singular or plural.

    >>> count(1, "pair"), count(2, "pair")
    ('1 pair', '2 pairs')
    """
    return f"{number} {noun}{'s' * (number != 1)}"


def percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def points(share: float) -> str:
    return f"{100 * share:.2f}"


def emd_text(emd: float | None) -> str:
    """Print four decimals, as the paper does; two digits where these say nothing."""
    if emd is None:
        return "-"
    if emd == 0 or emd >= 0.00095:
        return f"{emd:.4f}"
    return np.format_float_positional(emd, precision=2, fractional=False, trim="-")


def spread(values: Sequence[float], show: Callable[[float], str]) -> str:
    """Print the mean, with the sample standard deviation where there are several."""
    text = show(statistics.fmean(values))
    if len(values) == 1 or not all(map(math.isfinite, values)):
        return text
    decimals = len(text.partition(".")[2])  # as many as the mean
    scale = 100 if show is points else 1
    return f"{text} ± {scale * statistics.stdev(values):.{decimals}f}"


def plain(value: Any) -> str:
    """Print an option's value or values; None ("not set") differs from no values."""
    values = value if isinstance(value, list) else [value]
    return ", ".join("not set" if v is None else str(v) for v in values) or "none"
