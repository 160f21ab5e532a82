"""Options of the methods of `QuantSpec`: refuse those that a method does not have."""

from typing import Any

import numpy as np

from snnjax import _checks
from snnjax.quantize import checks
from snnjax.quantize.dorefa import check_bits as check_dorefa
from snnjax.quantize.lqnet import check_bits as check_lq_net
from snnjax.quantize.lsq import check_bits as check_lsq
from snnjax.quantize.mint import check_bits as check_mint
from snnjax.quantize.powers import check_bits as check_powers
from snnjax.quantize.uniform import GRIDS
from snnjax.quantize.uniform import check_numbers as check_uniform

OWN_BITS = {"binary": 1, "ternary": 2}  # of methods that have no choice
ROUNDINGS = ("nearest", "stochastic")


def is_one_bit(spec: Any) -> bool:
    """Return True for the number 1; of several numbers, or a traced one, False."""
    return isinstance(spec.bits, (int, float)) and spec.bits == 1


def check_options(spec: Any) -> None:
    """Raise ValueError where a `QuantSpec` has an option that its method has not."""
    if spec.grid is not None:
        _checks.require_one_of("grid", spec.grid, GRIDS)
    _checks.require_one_of("rounding", spec.rounding, ROUNDINGS)
    if spec.clip is not None:
        _checks.require_positive("clip", spec.clip)
    match spec.method:
        case "uniform":
            grid = spec.grid or ("mid_rise" if is_one_bit(spec) else "mid_tread")
            check_uniform(bits=spec.bits, clip=1.0, grid=grid)
        case "dorefa":
            check_dorefa(spec.bits)
        case "lsq":
            check_lsq(spec.bits, signed=spec.signed)
        case "lq_net":
            check_lq_net(spec.bits)
        case "mint":
            check_mint(spec.bits)
        case "power_of_two":
            check_powers(spec.bits)
        case "binary" | "ternary":
            own = OWN_BITS[spec.method]
            checks.require_bits(spec.bits, own, own, spec.method)
    given = spec.clip is not None or spec.clip_rule
    if spec.method == "dorefa" and given:
        raise ValueError("dorefa has no clip: its levels reach from -1 to 1")
    if spec.method in OWN_BITS and given:
        raise ValueError(
            f"{spec.method} has no clip: its levels are of the weights' mean magnitude"
        )
    if spec.codes is not None and spec.method != "lq_net":
        raise ValueError(f"codes is for lq_net, got method {spec.method!r}")
    if not isinstance(spec.zero_point, bool):
        raise ValueError(
            "zero_point must be True or False, got "
            f"{_checks.format_value(spec.zero_point)}"
        )
    if spec.zero_point and spec.method != "lsq":
        raise ValueError(f"zero_point is for lsq, got method {spec.method!r}")
    if not spec.signed and spec.method not in ("uniform", "lsq", "lq_net"):
        raise ValueError(f"{spec.method}'s levels are symmetric: signed must be True")
    if spec.per_channel and spec.method in ("dorefa", "lq_net", "mint"):
        raise ValueError(
            "per_channel is for uniform, lsq, binary, ternary and power_of_two, got "
            f"method {spec.method!r}"
        )
    if spec.method != "uniform":
        refused: list[tuple[str, Any]] = [("group_size", None), ("rounding", "nearest")]
        if spec.method not in ("binary", "ternary", "power_of_two"):
            refused.append(("pow2", False))
        if spec.method != "power_of_two":
            refused.insert(0, ("clip_rule", None))
        for name, default in refused:
            value = getattr(spec, name)
            if value != default:
                name = "clip" if name == "clip_rule" else name
                raise ValueError(
                    f"{name} = {value!r} is for uniform, got method {spec.method!r}"
                )
    if spec.group_size is not None:
        _checks.require_whole("group_size", spec.group_size, 1)
        if spec.per_channel:
            raise ValueError(
                "group_size has several bounds in each channel: leave out per_channel"
            )
    several = "per_channel" if spec.per_channel else "group_size"
    if getattr(spec, several) and spec.clip is not None and not np.ndim(spec.clip):
        raise ValueError(
            f"{several} takes its bounds from the weights: leave out clip, or give "
            f"the name of a rule, got {spec.clip}"
        )
