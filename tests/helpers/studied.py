"""Whole studies whose rows say what a test wants them to, for the results page."""

from pathlib import Path

from planted import a_row

from experiments.report.run import Run
from experiments.study.config import StudyConfig
from experiments.study.grid import planned
from experiments.study.names import method_name
from experiments.study.store import StudyStore

BITS = (2, 4, 8)
CONFIG = StudyConfig(bits=BITS, repeat=True).resolve()
MOVED = 0.002  # EMD of the control, and of re-estimated BatchNorm
NOISE = 0.0005  # half an interval
FLOORS = {"floor_control": MOVED, "floor_seed": 0.004, "floor_sampling": NOISE}
BASE = 0.90


def rows_of(config=CONFIG, tell=lambda row: {}):
    """A row for each that is planned; ``tell(row)`` says what is not the usual."""
    rows = []
    for part in (spec.to_row() for spec in planned(config)):
        full = part["target"] == "none"
        quiet = part["mode"] == "fp32"
        emd = MOVED if full else NOISE
        usual = {"accuracy": BASE, "emd": 0.0 if quiet else emd, "synops": 1000.0}
        usual |= dict.fromkeys(FLOORS) | {"floor_sampling": NOISE} if quiet else FLOORS
        told = usual | (tell(part) if not full else {})
        extra = {"seconds": 2.0} | {k: v for k, v in told.items() if k != "emd"}
        rows.append(a_row(**part | extra, emd=told["emd"]))
    return rows


def quantized(rows):
    """Those of them that are."""
    return [row for row in rows if row["target"] != "none"]


def a_run(config=CONFIG, tell=lambda row: {}, rows=None, **info):
    """A run as if it were loaded."""
    rows = rows_of(config, tell) if rows is None else rows
    about = {"config": config.numbers(), "config_hash": config.hash()}
    return Run("a-run", StudyStore(Path("nowhere")), about | info, rows)


def is_row(row, name, bits=None, mode=None):
    """Whether it is of this method, bits and mode."""
    return (
        method_name(row) == name
        and bits in (None, row["bits"])
        and mode in (None, row["mode"])
    )
