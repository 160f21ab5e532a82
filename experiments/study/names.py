"""The report's names of modes and methods, and their order."""

from typing import Any

from experiments.study.grid import CLIPS
from snnjax.runs import Row

MODE_NAMES = {
    "fp32": "baseline",
    "control": "control",
    "fp32_bn": "baseline+BN",
    "ptq": "PTQ",
    "ptq_bn": "PTQ+BN",
    "qat": "QAT",
}
DATASET_NAMES = {"digits": "digits", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
MODEL_NAMES = {"sew_resnet8": "SEW-ResNet8", "sew_resnet18": "SEW-ResNet18"}


def checkpoint_name(dataset: str, model: str, width: int, seed: int) -> str:
    """Name a published baseline: its file, without the ending.

    >>> checkpoint_name("cifar10", "sew_resnet8", 64, 0)
    'cifar10-sew_resnet8-w64-s0'
    """
    return f"{dataset}-{model}-w{width}-s{seed}"


def method_name(row: Row) -> str:
    """Name what the row quantizes and how, without its bits and mode.

    >>> method_name(dict(target="weights", method="uniform", grid="mid_rise",
    ...                  clip=10.0, signed=True, site=None,
    ...                  quantize_all=False))
    'uniform mid-rise wide'
    """
    if row["target"] == "none":
        return f"full precision, seed {row['seed']}"
    clips = {bound: name for name, bound in CLIPS.items()}
    clip = clips.get(row["clip"], f"clip {row['clip']}")
    sign = "signed" if row["signed"] else "unsigned"
    method = {"lq_net": "LQ-Net"}.get(row["method"], row["method"])
    grid = (row["grid"] or "").replace("_", "-")
    if row["target"] == "membrane":
        parts = ["membrane", method * (method != "uniform"), sign]
        parts.append(clip * (clip != "narrow"))
        parts.append(grid * (grid != "mid-tread"))
        parts.append("pre-fire" * (row["site"] == "pre_fire"))
    else:
        target = row["target"] * (row["target"] != "weights")
        parts = [target, method, grid, clip, sign * (not row["signed"])]
    parts.append("everywhere" * bool(row["quantize_all"]))
    return " ".join(part for part in parts if part)


def setting_name(row: Row) -> str:
    """Name method and bits: what the rows of several seeds and modes have in common."""
    name = method_name(row)
    return name if row["target"] == "none" else f"{name} {row['bits']} bit"


def row_order(row: Row) -> tuple[Any, ...]:
    """Sort key of the tables' lines: full precision, weights, membrane, the rest."""
    targets, methods = ("none", "weights", "membrane"), (None, "uniform", "lq_net")
    return (
        (*targets, row["target"]).index(row["target"]),
        bool(row["quantize_all"]),
        row["site"] == "pre_fire",
        list(MODE_NAMES).index(row["mode"]),
        (*methods, row["method"]).index(row["method"]),
        row["grid"] or "",
        row["clip"] or 0.0,
        not row["signed"],
        row["bits"] or 0,
        row["seed"],
        row.get("run", ""),
    )
