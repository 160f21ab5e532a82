"""QuantSpec: a quantization method and its numbers."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike

from snnjax import _arrays, _checks, _pytree
from snnjax.quantize import checks
from snnjax.quantize.dorefa import check_bits as check_dorefa
from snnjax.quantize.dorefa import dorefa
from snnjax.quantize.lq_levels import lq_levels, lq_levels_init
from snnjax.quantize.lqnet import check_bits as check_lq_net
from snnjax.quantize.lsq import check_bits as check_lsq
from snnjax.quantize.lsq import code_bounds, lsq, lsq_init
from snnjax.quantize.membrane import quantize_leaked, quantize_stored
from snnjax.quantize.mint import check_bits as check_mint
from snnjax.quantize.mint import mint, mint_init
from snnjax.quantize.uniform import check_numbers as check_uniform
from snnjax.quantize.uniform import uniform

METHODS = ("uniform", "dorefa", "lsq", "lq_net", "mint", "none")
WEIGHTS_ONLY = ("dorefa",)  # methods that cannot quantize a membrane


def _static(default: Any) -> Any:
    return dataclasses.field(default=default, metadata={"static": True})


@dataclasses.dataclass(frozen=True)
class QuantSpec:
    """Quantization method and its numbers, a registered dataclass.

    ``bits`` and ``clip`` are float32 leaves: networks that differ only in them share
    one compiled program. The rest is static. LQ-Net's number of basis vectors is a
    shape, so each of its bit widths compiles its own program.

    Attributes:
        method: ``"uniform"`` (`quantize.uniform`), ``"lsq"``, ``"mint"``, ``"dorefa"``
            (of weights only), ``"lq_net"`` (of weights `quantize.lq_net`, of membranes
            `quantize.lq_levels`), or ``"none"``.
        bits: 1 to 16 (mid-tread, signed LSQ and MINT 2 to 16; LQ-Net 1 to 8).
        clip: positive bound of the levels. Uniform: 1 where not given. LQ-Net: bounds
            the weights before they are encoded and sets the first basis; 1 where not
            given. LSQ and MINT learn the bound and this is its first value; where not
            given, the method's own from the weights, and 1 for membranes. DoReFa has
            none: its levels reach from -1 to 1.
        signed: levels on both sides of zero; uniform and LSQ have a choice, and LQ-Net
            of membranes.
        grid: ``"mid_rise"`` or ``"mid_tread"``, of uniform; the others have their own.
        per_channel: for weights by uniform or LSQ, a bound for each output channel
            instead of ``clip``: the largest magnitude, or LSQ's initial step. `fit`
            stores the bounds that it takes from weights in ``clip``.

    Raises:
        ValueError: unknown method or grid, bits missing, bits or clip out of range, or
            an option that the method does not have.
    """

    method: str = _static("uniform")
    bits: Any = None
    clip: Any = None
    signed: bool = _static(True)
    grid: str = _static("mid_rise")
    per_channel: bool = _static(False)

    def __post_init__(self):
        _checks.require_one_of("method", self.method, METHODS)
        if self.method == "none":
            return
        if self.bits is None:
            raise ValueError(f"method {self.method!r} needs bits")
        self._check_options()
        bounded = self.method in ("uniform", "lq_net") and not self.per_channel
        if bounded and self.clip is None:
            object.__setattr__(self, "clip", 1.0)
        for name in ("bits", "clip"):
            value = getattr(self, name)
            if isinstance(value, (list, tuple)):
                value = jnp.asarray(value, np.float32)
            elif isinstance(value, np.ndarray):
                value = value.astype(np.float32)
            object.__setattr__(self, name, _pytree.to_leaf(value))

    def _check_options(self) -> None:
        if self.clip is not None:
            _checks.require_positive("clip", self.clip)
        match self.method:
            case "uniform":
                clip = 1.0 if self.clip is None else self.clip
                check_uniform(bits=self.bits, clip=clip, grid=self.grid)
            case "dorefa":
                check_dorefa(self.bits)
            case "lsq":
                check_lsq(self.bits, signed=self.signed)
            case "lq_net":
                check_lq_net(self.bits)
            case "mint":
                check_mint(self.bits)
        if self.method == "dorefa" and self.clip is not None:
            raise ValueError("dorefa has no clip: its levels reach from -1 to 1")
        if not self.signed and self.method not in ("uniform", "lsq", "lq_net"):
            raise ValueError(
                f"{self.method}'s levels are symmetric: signed must be True"
            )
        if self.per_channel and self.method not in ("uniform", "lsq"):
            raise ValueError(
                f"per_channel is for uniform and lsq, got method {self.method!r}"
            )
        if self.per_channel and self.clip is not None and not np.ndim(self.clip):
            raise ValueError(
                "per_channel takes its bounds from the weights: leave out clip, got "
                f"{self.clip}"
            )

    def fit(self, w: ArrayLike) -> "QuantSpec":
        """Return the spec for these weights, with the clips of a per-channel uniform.

        Raises:
            ValueError: weights that are not floating point, or empty.
        """
        if self.method != "uniform" or self.clip is not None:
            return self
        w = _checks.require_floating("w", w)
        checks.require_nonempty("w", w)
        largest = jnp.max(jnp.abs(w), axis=tuple(range(w.ndim - 1)))
        clip = jnp.where(largest == 0, 1, largest).astype(_arrays.compute_dtype(w))
        return _pytree.replace(self, clip=clip)

    @property
    def learns_scale(self) -> bool:
        """Return True if the gradient learns a scale: LSQ's step or MINT's scale."""
        return self.method in ("lsq", "mint")

    @property
    def learns_membrane_scale(self) -> bool:
        """Return True if the gradient learns a membrane's scale or LQ-Net basis."""
        return self.learns_scale or self.method == "lq_net"

    def init_scale(self, w: ArrayLike | None = None) -> Array:
        """Compute the initial learned scale, for weights or (None) for a membrane.

        Raises:
            ValueError: the method learns no scale there.
        """
        if self.method == "lq_net" and w is None:
            if np.ndim(self.bits):
                got = _checks.format_value(self.bits)
                raise ValueError(f"bits must be one number for a membrane, got {got}")
            bits = int(self.bits)
            return lq_levels_init(bits=bits, clip=self.clip, signed=self.signed)
        if not self.learns_scale:
            raise ValueError(f"{self.method!r} learns no scale")
        bits = jnp.asarray(self.bits)
        clip = 1.0 if self.clip is None else self.clip
        if self.method == "mint":
            if w is None or self.clip is not None:
                return jnp.asarray(clip, jnp.float32)
            return mint_init(w, bits=bits)
        if w is None or self.clip is not None:
            return jnp.asarray(clip / code_bounds(bits, signed=self.signed)[1])
        return lsq_init(w, bits=bits, signed=self.signed, per_channel=self.per_channel)

    def check_membrane(self, site: str, scale: Array | None = None) -> None:
        """Raise ValueError unless it can quantize a membrane at this site."""
        if self.method in WEIGHTS_ONLY:
            raise ValueError(
                f"{self.method} makes levels of weights, not of a membrane; use method "
                '"uniform", "lsq", "lq_net" or "mint"'
            )
        if self.method == "lq_net" and scale is None:
            self.init_scale()  # raises its own errors about bits and clip
        if self.per_channel:
            raise ValueError(
                "per_channel bounds come from weights; a membrane has none"
            )
        if self.method == "mint" and site != "post_reset":
            raise ValueError('MINT quantizes the stored membrane: site "post_reset"')

    def bind_membrane(
        self, *, site: str, leak: Array | None, scale: Array | None = None
    ) -> Partial:
        """Return the function from a neuron's membrane to its levels.

        Neurons call this method of any quantizer that defines it.

        Args:
            site: where the membrane is quantized, see `neurons.lif`.
            leak: the share of the membrane that a step leaves; None without leak.
            scale: the learned scale; None is the one that learning starts from.

        Raises:
            ValueError: a method of weights only, a bound for each channel, MINT at
                another site than post_reset.
        """
        self.check_membrane(site, scale)
        if self.learns_membrane_scale and scale is None:
            scale = self.init_scale()
        if self.method != "mint" or leak is None:
            return Partial(quantize_stored, self, scale)
        return Partial(quantize_leaked, self, scale, leak)

    def __call__(self, x: ArrayLike, scale: ArrayLike | None = None) -> Array:
        """Quantize ``x``.

        Args:
            x: weights or membrane potentials.
            scale: learned scale of LSQ or MINT (default `init_scale`), or the basis
                when LQ-Net quantizes a membrane.

        Raises:
            ValueError: LQ-Net without a basis.
        """
        match self.method:
            case "none":
                return jnp.asarray(x)
            case "uniform":
                return uniform(
                    x,
                    bits=self.bits,
                    clip=self.fit(x).clip,
                    signed=self.signed,
                    grid=self.grid,
                )
            case "dorefa":
                return dorefa(x, bits=self.bits)
            case "lsq":
                step = self.init_scale(x) if scale is None else scale
                return lsq(x, step, bits=self.bits, signed=self.signed)
            case "mint":
                scale = self.init_scale(x) if scale is None else scale
                return mint(x, scale, bits=self.bits)
            case "lq_net" if scale is not None:
                return lq_levels(x, scale, signed=self.signed)
        raise ValueError(
            f"{self.method!r} has a state (its basis); layers.QuantConv holds "
            "it, or call quantize.lq_net(w, state)"
        )


_pytree.register(QuantSpec)
