"""Style of the figures: colours, letters, lines, axes, size.

A figure is drawn for the page that shows it: 100 CSS pixels an inch, twice as many
in the file, and no letter under 8 points, so that nothing falls below 9 pixels
where a phone shows it at 85 %.
"""

from typing import Any

import numpy as np
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from experiments.study.grid import CLIPS
from snnjax.runs import Row

WIDTH = 9.6
GREY = "#6b6b6b"
PALE = "#dedede"
DARKER = "#c4c4c4"
# Okabe and Ito's colours, which the colour-blind distinguish, and markers show the
# family; narrow and signed are solid, wide and unsigned are dashed.
_FAMILIES = {
    ("weights", "uniform", "mid_rise"): ("#0072B2", "o"),
    ("weights", "uniform", "mid_tread"): ("#D55E00", "s"),
    ("weights", "lq_net", None): ("#009E73", "^"),
    ("membrane", "uniform", None): ("#B5579A", "D"),
    ("membrane", "lq_net", None): ("#56B4E9", "v"),
}
STYLE = {
    "font.size": 8.5,
    "text.parse_math": False,  # a run may have dollars in its name
    "axes.titlesize": 9.5,
    "axes.labelsize": 8.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.axisbelow": True,
    "grid.color": "#ececec",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
}


def method_style(row: Row) -> dict[str, Any]:
    """Return the line style of the row's method."""
    membrane = row["target"] == "membrane"
    grid = row["grid"] if not membrane and row["method"] == "uniform" else None
    family = (row["target"], row["method"], grid)
    colour, marker = _FAMILIES.get(family, ("black", "v"))
    second = not row["signed"] if membrane else row["clip"] != CLIPS["narrow"]
    return {
        "color": colour,
        "marker": marker,
        "linestyle": (0, (4, 2)) if second else "-",
        "markerfacecolor": "white" if second else colour,
    }


def plain_log_ticks(axis: Axis, low: float, high: float) -> None:
    """Set ticks such as 0.02 and 0.05 in place of powers of ten."""
    # No more than labels have room for in the smallest panel.
    choices = {
        2: range(1, 10),
        6: (1, 1.5, 2, 3, 4, 6, 8),
        100: (1, 2, 5),
        2000: (1, 3),
    }
    subs = next((s for most, s in choices.items() if high / low < most), (1,))
    axis.set_major_locator(LogLocator(subs=tuple(map(float, subs))))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(_plain))


def _plain(value: float, _: int | None) -> str:
    return np.format_float_positional(value, precision=3, fractional=False, trim="-")
