"""QuantSpec: a quantization method and its numbers."""

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike

from snnjax import _arrays, _checks, _pytree
from snnjax.quantize import checks, codes
from snnjax.quantize.clips import fit_clip, spread_groups
from snnjax.quantize.dorefa import dorefa
from snnjax.quantize.lq_levels import lq_levels, lq_levels_init
from snnjax.quantize.lqnet import Codes, check_codes
from snnjax.quantize.lsq import code_bounds, lsq, lsq_init
from snnjax.quantize.membrane import quantize_leaked, quantize_stored
from snnjax.quantize.mint import mint, mint_init
from snnjax.quantize.nearest import round_up_to_pow2
from snnjax.quantize.options import OWN_BITS, check_options, is_one_bit
from snnjax.quantize.powers import power_of_two
from snnjax.quantize.signs import binary, ternary
from snnjax.quantize.uniform import round_clip_to_pow2, uniform

METHODS = ("uniform", "dorefa", "lsq", "lq_net", "mint", "binary", "ternary")
METHODS += ("power_of_two", "none")
# Methods that cannot quantize a membrane.
WEIGHTS_ONLY = ("dorefa", "binary", "ternary", "power_of_two")


def _static(default: Any, **metadata: Any) -> Any:
    return dataclasses.field(default=default, metadata={"static": True} | metadata)


CLIP_RULES = ("absmax", "percentile", "mse")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class QuantSpec:
    """Quantization method and its numbers, a registered dataclass.

    ``bits`` and ``clip`` are float32 leaves: networks that differ only in them share
    one compiled program. The rest is static. LQ-Net's number of basis vectors is a
    shape, so each of its bit widths compiles its own program. Specs are equal where
    their numbers are, to float32; ``repr`` evaluates back to an equal spec.

    Attributes:
        method: ``"uniform"`` (`quantize.uniform`), ``"lsq"``, ``"mint"``, ``"dorefa"``
            (of weights only), ``"lq_net"`` (of weights `quantize.lq_net`, of membranes
            `quantize.lq_levels`), of weights alone ``"binary"``, ``"ternary"`` and
            ``"power_of_two"`` (`quantize.power_of_two`), or ``"none"``.
        bits: 1 to 16 (mid-tread, signed LSQ and MINT 2 to 16; LQ-Net 1 to 8; powers of
            two 2 to 5). Binary has 1 and ternary 2, also where not given.
        clip: positive bound of the levels. Uniform: 1 where not given, or for weights
            the name of a rule, by which `fit` takes it from them: ``"absmax"``, the
            largest magnitude; ``"percentile"``, the 99.9th of the magnitudes;
            ``"mse"``, the bound of least squared error. Powers of two: the largest
            level, likewise; where not given it is by ``"mse"``. LQ-Net: bounds the
            weights before they are encoded; 1 where not given.
            LSQ and MINT learn the bound and this is its first value; where not given,
            the method's own from the weights, and 1 for membranes; of several numbers,
            each channel of a membrane learns its own. DoReFa has none: its levels reach
            from -1 to 1; nor have binary and ternary.
        signed: levels on both sides of zero; uniform and LSQ have a choice, and LQ-Net
            of membranes.
        grid: ``"mid_rise"`` or ``"mid_tread"``, of uniform; the others have their own.
            Where not given it is mid-tread, which has a zero; 1 bit, which has none, is
            mid-rise on weights and refused on membranes.
        per_channel: for weights by uniform, LSQ, powers of two, binary or ternary, a
            bound for each output channel instead of one: by the rule in ``clip``
            (where not given ``"absmax"``, of powers of two ``"mse"``), or LSQ's
            initial step. `fit` stores the
            bounds that it takes from weights in ``clip``.
        group_size: for weights by uniform, a bound for each group of so many
            consecutive weights of an output channel, in the kernel's order.
        rounding: ``"nearest"``, or for weights by uniform ``"stochastic"``, which needs
            a ``key`` at each call; without one it is to the nearest. `layers` draw keys
            in training and round to the nearest in evaluation.
        pow2: for uniform, round the bound up so that the step is a power of 2; for
            powers of two, so that the largest level is one; for binary and ternary,
            round the magnitude to the nearest one.
        clip_rule: the rule that was given as ``clip``; leave it out.
        codes: of LQ-Net's weights, ``(-1, 1)`` where not given; with ``(0, 1)`` zero is
            a level, and the levels need not be symmetric.
        zero_point: LSQ of a membrane learns a zero point beside the step, see
            `quantize.lsq`; ``signed`` chooses the one that learning starts from.

    Raises:
        ValueError: unknown method or grid, bits missing, bits or clip out of range, or
            an option that the method does not have.
    """

    method: str = _static("uniform")
    bits: Any = None
    clip: Any = None
    signed: bool = _static(True)
    grid: str | None = _static(None)
    per_channel: bool = _static(False)
    group_size: int | None = _static(None)
    rounding: str = _static("nearest")
    pow2: bool = _static(False)
    clip_rule: str | None = _static(None)
    codes: tuple[int, int] | None = _static(None, later=True)
    zero_point: bool = _static(False, later=True)

    def __post_init__(self):
        _checks.require_one_of("method", self.method, METHODS)
        if self.method == "none":
            return
        if self.bits is None:
            self._set("bits", OWN_BITS.get(self.method))
        if self.bits is None:
            raise ValueError(f"method {self.method!r} needs bits")
        for name in ("bits", "clip"):
            self._set(name, _as_number(getattr(self, name)))
        if isinstance(self.clip, str):
            _checks.require_one_of("clip", self.clip, CLIP_RULES)
            self._set("clip_rule", self.clip)
            self._set("clip", None)
        elif self.clip is self.clip_rule is None:
            if self.method == "power_of_two":
                self._set("clip_rule", "mse")
            elif self.method == "uniform" and (self.per_channel or self.group_size):
                self._set("clip_rule", "absmax")
        if self.method == "lq_net":
            codes = check_codes((-1, 1) if self.codes is None else self.codes)
            self._set("codes", None if codes == (-1, 1) else codes)
        check_options(self)
        bounded = self.method in ("uniform", "lq_net")
        if bounded and self.clip is self.clip_rule is None:
            self._set("clip", 1.0)
        if self.method != "uniform":
            self._set("grid", None)
        elif self.grid is None and not is_one_bit(self):
            self._set("grid", "mid_tread")

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _content(self) -> tuple:
        fields = dataclasses.fields(self)
        return tuple(_hashable(getattr(self, field.name)) for field in fields)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, QuantSpec):
            return NotImplemented
        return self._content() == other._content()

    def __hash__(self) -> int:
        return hash(self._content())

    def _changed_fields(self) -> dict[str, Any]:
        """Return what differs from the defaults, as plain values."""
        fields = {field.name: field.default for field in dataclasses.fields(self)}
        values = {name: _plain(getattr(self, name)) for name in fields}
        if self.clip is None and self.clip_rule is not None:
            values |= {"clip": self.clip_rule, "clip_rule": None}
        return {name: x for name, x in values.items() if x != fields[name]}

    def __repr__(self) -> str:
        parts = (f"{name}={value!r}" for name, value in self._changed_fields().items())
        return f"QuantSpec({', '.join(parts)})"

    def to_json(self) -> str:
        """Write it as a JSON object of what differs from the defaults.

        Raises:
            ValueError: its numbers are traced.

        >>> QuantSpec(bits=4, clip=2.0).to_json()
        '{"bits": 4, "clip": 2.0, "grid": "mid_tread"}'
        """
        try:
            return json.dumps(self._changed_fields(), allow_nan=False)
        except (TypeError, ValueError):
            raise ValueError(f"bits and clip must be numbers, got {self!r}") from None

    @classmethod
    def from_json(cls, text: str) -> "QuantSpec":
        """Read what `to_json` wrote.

        Raises:
            ValueError: no JSON object, unknown names, or as `QuantSpec`.
        """
        try:
            fields = json.loads(text)
        except (TypeError, ValueError) as error:
            raise ValueError(f"text is not JSON: {error}") from None
        known = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(fields, dict) or not set(fields) <= known:
            raise ValueError(
                f"text must be a JSON object of {sorted(known)}, got "
                f"{_checks.format_value(text)}"
            )
        return cls(**fields)

    def fit(self, w: ArrayLike) -> "QuantSpec":
        """Return the spec for these weights, with the bounds that its rule takes.

        Bounds are rounded up to numbers of which all levels are exact multiples of the
        step, by one unit in the last place or two. A channel or group of zeros gets the
        least bound whose levels are normal numbers: its levels are 0 to rounding.

        Raises:
            ValueError: weights that are not floating point, or empty.
        """
        if self.method not in ("uniform", "power_of_two") or self.clip is not None:
            return self
        w = _checks.require_floating("w", w)
        checks.require_nonempty("w", w)
        clip = fit_clip(
            _arrays.widen(w),
            self.clip_rule or "absmax",
            bits=self.bits,
            signed=self.signed,
            grid=(self.grid or "mid_rise") if self.method == "uniform" else None,
            per_channel=self.per_channel,
            group_size=self.group_size,
        )
        return _pytree.replace(self, clip=clip)

    def bounds(self, w: Array) -> ArrayLike:
        """Return the clip in a shape that broadcasts to ``w``."""
        clip = self.fit(w).clip
        if self.group_size is not None:
            clip = spread_groups(jnp.asarray(clip), w.shape, self.group_size)
        if self.pow2:
            work = _arrays.compute_dtype(w)
            bits, clip = (
                _arrays.match_rank(jnp.asarray(a, work), w.ndim)
                for a in (self.bits, clip)
            )
            grid = self.grid or "mid_rise"
            if self.method == "power_of_two":
                return round_up_to_pow2(clip)
            clip = round_clip_to_pow2(clip, bits, signed=self.signed, grid=grid)
        return clip

    def encode(self, w: ArrayLike, state: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """Return whole-number codes and their scale: see `codes.encode`.

        Args:
            w: weights, not traced.
            state: the learned scale of LSQ or MINT (default `init_scale`); LQ-Net's
                `LqState`, or its basis where `lq_levels` quantizes.
        """
        return codes.encode(self, w, state)

    def decode(self, values: ArrayLike, scale: ArrayLike) -> np.ndarray:
        """Return the levels of `encode`'s codes, to the bit, float32."""
        return codes.decode(self, values, scale)

    @property
    def has_zero(self) -> bool:
        """Return True if zero is a level, whatever the numbers are."""
        if self.method == "uniform":
            return self.grid == "mid_tread"
        if self.method == "lq_net":
            return self.codes == (0, 1)
        return self.method not in ("dorefa", "binary")

    @property
    def lq_codes(self) -> Codes:
        """The two codes of LQ-Net's weights."""
        return self.codes or (-1, 1)

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
        bits = jnp.asarray(self.bits, jnp.float32)
        clip = 1.0 if self.clip is None else self.clip
        if self.method == "mint":
            if w is None or self.clip is not None:
                return jnp.asarray(clip, jnp.float32)
            return mint_init(w, bits=bits)
        if w is None or self.clip is not None:
            low, top = code_bounds(bits, signed=self.signed)
            step = jnp.asarray(clip, jnp.float32) / top
            if w is None and self.zero_point:
                return jnp.stack([step.reshape(-1), jnp.full(step.size, -low)])
            return step
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
        for name in ("per_channel", "group_size", "clip_rule"):
            if getattr(self, name):
                raise ValueError(
                    f"{name} bounds come from weights, and a membrane has none: give "
                    "clip a number, as clip=1.0"
                )
        if self.method == "lq_net" and self.codes == (0, 1):
            raise ValueError(
                "codes is for LQ-Net's weights; a membrane's levels have a zero "
                "already: leave it out"
            )
        if self.rounding != "nearest":
            raise ValueError(
                "rounding must be 'nearest' on a membrane, which has no key"
            )
        if self.method == "uniform" and self.grid is None:
            raise ValueError(
                "bits = 1 has no grid with a zero: a neuron without input would not "
                'stay at rest; take 2 bits, or ask for grid="mid_rise" by name'
            )
        if self.method == "mint" and site != "post_reset":
            raise ValueError('MINT quantizes the stored membrane: site "post_reset"')

    def check_reach(self, v_threshold: ArrayLike) -> None:
        """Raise ValueError where the highest level lies below a threshold.

        A membrane that is quantized before it fires then never fires. Checked of
        uniform levels and where neither they nor the threshold are traced.
        """
        known = (self.bits, self.clip, v_threshold)
        if self.method != "uniform" or any(
            isinstance(x, jax.core.Tracer) for x in known
        ):
            return
        with jax.ensure_compile_time_eval():
            shape = np.broadcast_shapes(np.shape(self.bits), np.shape(self.clip))
            top = np.asarray(self(jnp.full(shape, 1e30, jnp.float32)))
        if np.any(top < (1 - 1e-6) * np.asarray(v_threshold, np.float64)):
            raise ValueError(
                f"clip must let the levels reach v_threshold={v_threshold} at the site "
                f"pre_fire, got levels up to {_checks.format_value(top)}, at which the "
                "neuron never fires; take a wider clip, a lower threshold, or the site "
                "post_reset"
            )

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

    def __call__(
        self,
        x: ArrayLike,
        scale: ArrayLike | None = None,
        *,
        key: Array | None = None,
    ) -> Array:
        """Quantize ``x``.

        Args:
            x: weights or membrane potentials.
            scale: learned scale of LSQ or MINT (default `init_scale`), of LSQ with a
                zero point the step and it; or the basis when LQ-Net quantizes a
                membrane.
            key: a random key, with which stochastic rounding rounds.

        Raises:
            ValueError: LQ-Net without a basis.
        """
        match self.method:
            case "none":
                return jnp.asarray(x)
            case "uniform":
                x = _checks.require_floating("x", x)
                return uniform(
                    x,
                    bits=self.bits,
                    clip=self.bounds(x),
                    signed=self.signed,
                    grid=self.grid or "mid_rise",
                    key=key if self.rounding == "stochastic" else None,
                )
            case "dorefa":
                return dorefa(x, bits=self.bits)
            case "lsq":
                step, zero = self.init_scale(x) if scale is None else scale, None
                if self.zero_point:
                    learned: Any = self.init_scale() if scale is None else scale
                    step, zero = learned
                return lsq(x, step, bits=self.bits, signed=self.signed, zero_point=zero)
            case "binary":
                return binary(x, per_channel=self.per_channel, pow2=self.pow2)
            case "ternary":
                return ternary(x, per_channel=self.per_channel, pow2=self.pow2)
            case "power_of_two":
                x = _checks.require_floating("x", x)
                return power_of_two(x, bits=self.bits, clip=self.bounds(x))
            case "mint":
                scale = self.init_scale(x) if scale is None else scale
                return mint(x, scale, bits=self.bits)
            case "lq_net" if scale is not None:
                return lq_levels(x, scale, signed=self.signed)
        raise ValueError(
            f"{self.method!r} has a state (its basis); layers.QuantConv holds "
            "it, or call quantize.lq_net(w, state)"
        )


_pytree.register(QuantSpec, leaves_from_numbers=True)


def _as_number(value: Any) -> Any:
    """Return Python numbers for single ones, float32 copies of arrays."""
    if isinstance(value, (list, tuple)):
        value = jnp.asarray(value, np.float32)
    if isinstance(value, Array) and not isinstance(value, jax.core.Tracer):
        value = np.asarray(value)
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "iuf":
        if value.ndim == 0:
            value = value.item()
        else:
            return value.astype(np.float32)
    if isinstance(value, float) and value.is_integer():
        return value
    return _pytree.to_leaf(value) if isinstance(value, Array) else value


def _plain(value: Any) -> Any:
    """Return an array's numbers as lists, each as short as float32 allows."""
    if isinstance(value, jax.core.Tracer) or not hasattr(value, "dtype"):
        return value
    seen = np.asarray(value)
    if seen.dtype.kind not in "iuf":
        return value
    numbers = np.array([float(str(x)) for x in seen.ravel()], np.float64)
    return numbers.reshape(seen.shape).tolist()


def _hashable(value: Any) -> Any:
    """Return what is equal for equal numbers of float32."""
    if isinstance(value, jax.core.Tracer):
        return id(value)
    if isinstance(value, bool) or not (
        isinstance(value, (int, float)) or hasattr(value, "dtype")
    ):
        return value
    try:
        seen = np.asarray(value, np.float32)
    except (TypeError, ValueError):
        return id(value)
    return seen.shape, seen.tobytes()
