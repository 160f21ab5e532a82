"""Neurons as a layer."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from snnjax import _checks, _pytree
from snnjax.layers.observe import Observable
from snnjax.layers.state import Stateful
from snnjax.layers.variables import (
    Hyperparameters,
    LearnedGrid,
    LearnedScale,
    LearnedTau,
    check_spec,
    value_of,
)
from snnjax.neurons import IF, LI, LIF, PLIF, Neuron
from snnjax.neurons.modules import find_leak
from snnjax.neurons.step import check_reach, check_site
from snnjax.quantize import QuantSpec

# Numbers that can be learned, and how a training step keeps them in their range.
_LEARNABLE = {
    "tau": LearnedTau,
    "tau_syn": LearnedTau,
    "v_threshold": LearnedScale,
    "alpha": LearnedScale,
}
_NO_STATE: Any = object()


class Spiking(Stateful, Observable):
    """A layer of neurons, its membrane quantized if asked.

    Args:
        neuron: `neurons.LIF`, `neurons.IF`, `neurons.CubaLIF` or one of
            `neurons.from_step`; or `neurons.PLIF`, whose ``w`` becomes a parameter of
            this layer.
        quant: quantizer of the membrane: uniform, LSQ, LQ-Net or MINT.
        site: ``"post_reset"``, the stored membrane, or ``"pre_fire"``, the one compared
            with the threshold.
        learn: numbers of the neuron that become parameters of this layer, such as
            ``("v_threshold", "tau")``: one for the layer, or one a channel where the
            neuron has them as ``[C]``. A step of `train` keeps thresholds and slopes
            positive and time constants above 1, see `project_scales`.

    Raises:
        ValueError: a neuron that is none of these, a number that it has not, or as
            `quantize`.
    """

    def __init__(
        self,
        neuron: Neuron | LI,
        *,
        quant: QuantSpec | None = None,
        site: str = "post_reset",
        learn: Sequence[str] = (),
    ):
        self._check_neuron(neuron)
        self.w = None
        self.carried = nnx.data(None)
        names = ("w", *learn) if isinstance(neuron, PLIF) else tuple(learn)
        for name in dict.fromkeys(names):
            self.learn(name, _learned_value(neuron, name))
            neuron = _pytree.replace(neuron, **{name: None})
        self.neuron = Hyperparameters(neuron)
        self.axis_name: str | None = None  # see `synchronize`
        self.quantize(quant, site=site)

    @staticmethod
    def _check_neuron(neuron: Any) -> None:
        if not isinstance(neuron, Neuron):
            raise ValueError(
                "neuron must be a neurons.LIF(), neurons.IF(), neurons.PLIF(), "
                "neurons.CubaLIF() or one of neurons.from_step, got "
                f"{_checks.format_value(neuron)}"
            )

    def learn(self, name: str, value: ArrayLike) -> None:
        """Make a number of the neuron a parameter that begins with this value."""
        kind = _LEARNABLE.get(name, nnx.Param)
        setattr(self, name, nnx.data(kind(jnp.asarray(value))))

    def quantize(self, spec: QuantSpec | None, *, site: str = "post_reset") -> None:
        """Put a quantizer on the membrane, or take it off (None, or method "none").

        Raises:
            ValueError: a method of weights only, a bound for each channel, MINT at
                another site than post_reset, or an unknown site.
        """
        check_site("site", site)
        check_spec(spec)
        if spec is not None and spec.method == "none":
            spec = None
        if spec is not None:
            spec.check_membrane(site)
            threshold = getattr(self.learned_neuron(), "v_threshold", None)
            check_reach(spec, site, threshold)
        scale = None
        if spec is not None and spec.learns_membrane_scale:
            scale = spec.init_scale()
        quant = None if spec is None else Hyperparameters(spec, site=site)
        self.quant = nnx.data(quant)
        kind: Any = LearnedScale
        if spec is not None and spec.method == "lq_net":
            kind = nnx.Param  # a basis may have either sign
        elif spec is not None and spec.zero_point:
            kind = LearnedGrid
        self.quant_scale = nnx.data(None if scale is None else kind(scale))
        self.site = site

    def learned_numbers(self) -> dict[str, nnx.Param]:
        """Return the numbers of the neuron that are parameters of this layer."""
        names = _pytree.data_fields(self.neuron.kind)
        found = {name: getattr(self, name, None) for name in names}
        return {k: x for k, x in found.items() if isinstance(x, nnx.Param)}

    def learned_neuron(self) -> Neuron | LI:
        """The neuron, with the learned numbers of this layer."""
        learned = {k: x.get_value() for k, x in self.learned_numbers().items()}
        return _pytree.replace(self.neuron.get_value(), **learned)

    def __call__(self, x_seq: ArrayLike, *, v_init: Any = _NO_STATE) -> Any:
        """Currents ``[T, B, ...]`` to spikes ``[T, B, ...]``.

        Args:
            x_seq: currents, time first.
            v_init: the state before the first step, None at rest. Where it is given,
                the result is (spikes, state after the last step), as of `neurons.lif`.
                Without it the layer begins at rest, or where `run_piece` carries on.
        """
        if v_init is not _NO_STATE:
            return self.run(x_seq, v_init)
        spikes, end = self.run(x_seq, self.start_state())
        self.keep_state(end)
        return spikes

    def run(self, x_seq: ArrayLike, v_init: Any) -> tuple[Array, Any]:
        """Return the spikes ``[T, B, ...]`` and the state after the last step.

        ``v_init`` is the state before the first step, None at rest.
        """
        self._show(x_seq, v_init)
        return self.advance(x_seq, v_init, steps=math.prod(np.shape(x_seq)[:1]))

    def advance(
        self, x_seq: ArrayLike, v_init: Any, *, steps: int
    ) -> tuple[Array, Any]:
        """Run as `run` does, of which observers do not see the currents.

        ``steps`` is T of the sequence of which ``x_seq`` is a part, for the gradient of
        a learned scale.
        """
        neuron = self.learned_neuron()
        return neuron(
            x_seq,
            v_init=v_init,
            membrane_quantizer=self._membrane_quantizer(neuron, steps),
            membrane_site=self.site,
        )

    def _membrane_quantizer(self, neuron: Any, steps: int) -> Any:
        quantizer = None
        if self.quant is not None:
            scale = value_of(self.quant_scale)
            if scale is not None:
                # 1 / sqrt(N) with the N of all steps, of which the neuron quantizes one
                # at a time, and of all devices.
                parts = steps
                if self.axis_name is not None:
                    parts *= jax.lax.axis_size(self.axis_name)
                scale = _scale_gradient(scale, parts**-0.5)
            quantizer = self.quant.get_value().bind_membrane(
                site=self.site, leak=find_leak(neuron), scale=scale
            )
        return quantizer

    def potentials(self, x_seq: Array, v_init: ArrayLike | None = None) -> Array:
        """Compute the membrane potentials before firing, ``[T, B, ...]``.

        Those that are compared with the threshold, of the currents ``[T, B, ...]``
        from the state ``v_init``, None at rest.
        """
        neuron = self.learned_neuron()
        if not isinstance(neuron, (LIF, IF, PLIF)):
            raise ValueError(
                "neuron must be of one potential (LIF, IF, PLIF) to show it, got "
                f"{type(neuron).__name__}"
            )
        quantizer = self._membrane_quantizer(neuron, len(x_seq))
        # No potential fires here: what is left is the charged membrane.
        charge = _pytree.replace(neuron, v_threshold=jnp.float32(_NEVER))
        before = quantizer if self.site == "pre_fire" else None

        def step(v, x):
            _, h = charge(
                x[None], v_init=v, membrane_quantizer=before, membrane_site="pre_fire"
            )
            _, v = neuron(
                x[None],
                v_init=v,
                membrane_quantizer=quantizer,
                membrane_site=self.site,
            )
            return v, h

        start: Any = v_init
        if start is None:
            start = 0.0 if neuron.v_reset is None else neuron.v_reset
        dtype = np.promote_types(x_seq.dtype, np.float32)
        v = jnp.broadcast_to(jnp.asarray(start, dtype), x_seq.shape[1:])
        return jax.lax.scan(step, v, x_seq)[1]


_NEVER = 1e30  # a threshold that no potential reaches


def _learned_value(neuron: Neuron | LI, name: str) -> ArrayLike:
    """Return the number that learning starts from; ValueError where there is none."""
    numbers = _pytree.data_fields(type(neuron))
    reserved = name in vars(Spiking) or name in ("neuron", "quant", "site")
    value = getattr(neuron, name, None) if name in numbers else None
    if value is None or reserved:
        known = [n for n in numbers if getattr(neuron, n) is not None]
        raise ValueError(
            f"learn must name numbers that the neuron has, among {known}, got {name!r}"
        )
    return value


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _scale_gradient(x: Array, factor: float) -> Array:
    """x, whose gradient is ``factor`` times as large."""
    return x


_scale_gradient.defvjp(lambda x, factor: (x, None), lambda factor, _, d: (factor * d,))


class Readout(Spiking):
    """Leaky integrators that never fire: the membranes are the output ``[T, B, C]``.

    A layer to read logits out of spikes at each step; its state carries on, and its
    membrane is quantized, as those of `Spiking`.

    Args:
        neuron: `neurons.LI` with its time constant.
        quant: quantizer of the membrane.
        learn: ``("tau",)`` makes the time constant a parameter.

    Raises:
        ValueError: another neuron, or as `Spiking`.
    """

    def __init__(
        self,
        neuron: LI | None = None,
        *,
        quant: QuantSpec | None = None,
        learn: Sequence[str] = (),
    ):
        super().__init__(LI() if neuron is None else neuron, quant=quant, learn=learn)

    @staticmethod
    def _check_neuron(neuron: Any) -> None:
        if not isinstance(neuron, LI):
            raise ValueError(
                "the neuron of a Readout must be a neurons.LI(), got "
                f"{_checks.format_value(neuron)}; layers.Spiking takes neurons that "
                "fire"
            )
