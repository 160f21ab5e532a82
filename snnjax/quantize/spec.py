"""QuantSpec: which quantizer, with which numbers."""

import dataclasses
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from snnjax.quantize.lqnet import check_bits
from snnjax.quantize.uniform import check, uniform

METHODS = ("uniform", "lq_net", "none")


@dataclasses.dataclass(frozen=True)
class QuantSpec:
    """A quantization method and its numbers, a registered dataclass.

    ``bits`` and ``clip`` are float32 leaves: networks that differ only in them share
    one compiled program. ``method``, ``grid`` and ``signed`` are static. LQ-Net's
    number of basis vectors is a shape, so there each bit width compiles anew.

    Attributes:
        method: ``"uniform"`` (`quantize.uniform`), ``"lq_net"`` (`quantize.lq_net`;
            weights only) or ``"none"``.
        bits: 1 to 16 (mid-tread 2 to 16); LQ-Net 1 to 8.
        clip: positive bound; 1 where not given. For LQ-Net it bounds the weights
            before they are encoded and sets the first basis.
        signed: levels on both sides of zero.
        grid: ``"mid_rise"`` or ``"mid_tread"``; LQ-Net learns its own.

    Raises:
        ValueError: unknown method or grid, bits or clip out of range or missing.
    """

    method: str = dataclasses.field(default="uniform", metadata={"static": True})
    bits: Any = None
    clip: Any = None
    signed: bool = dataclasses.field(default=True, metadata={"static": True})
    grid: str = dataclasses.field(default="mid_rise", metadata={"static": True})

    def __post_init__(self):
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {METHODS}, got {self.method!r}")
        # jax rebuilds the dataclass with placeholders in its leaves; check numbers.
        if self.method == "none":
            return
        if self.bits is None:
            raise ValueError(f"method {self.method!r} needs bits")
        if self.clip is None:
            object.__setattr__(self, "clip", 1.0)
        clip: Any = self.clip
        check(bits=self.bits, clip=clip, grid=self.grid)
        if self.method == "lq_net":
            check_bits(self.bits)
            if not self.signed:
                raise ValueError("lq_net's levels are symmetric: signed must be True")
        for name in ("bits", "clip"):
            value = getattr(self, name)
            if isinstance(value, (int, float, np.number)):
                object.__setattr__(self, name, np.asarray(value, np.float32))

    def __call__(self, x: ArrayLike) -> Array:
        """Quantize ``x`` by a method without state (LQ-Net has one: its basis)."""
        if self.method == "none":
            return jax.numpy.asarray(x)
        if self.method == "uniform":
            return uniform(
                x, bits=self.bits, clip=self.clip, signed=self.signed, grid=self.grid
            )
        raise ValueError(
            f"{self.method!r} has a state (its basis); layers.QuantConv holds "
            "it, or call quantize.lq_net(w, state)"
        )


jax.tree_util.register_dataclass(QuantSpec)
