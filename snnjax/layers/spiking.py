"""Neurons as a layer."""

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
from snnjax.layers.variables import (
    Hyperparameters,
    LearnedScale,
    check_spec,
    value_of,
)
from snnjax.neurons import PLIF, Neuron
from snnjax.neurons.step import check_site, leak_factor
from snnjax.quantize import QuantSpec


class Spiking(Observable):
    """A layer of neurons, its membrane quantized if asked.

    Args:
        neuron: `neurons.LIF`, `neurons.IF` or `neurons.PLIF`, whose ``w`` becomes a
            parameter of this layer.
        quant: quantizer of the membrane: uniform, LSQ, LQ-Net or MINT.
        site: ``"post_reset"``, the stored membrane, or ``"pre_fire"``, the one compared
            with the threshold.

    Raises:
        ValueError: a neuron that is none of these, or as `quantize`.
    """

    def __init__(
        self,
        neuron: Neuron,
        *,
        quant: QuantSpec | None = None,
        site: str = "post_reset",
    ):
        if not isinstance(neuron, Neuron):
            raise ValueError(
                "neuron must be a neurons.LIF(), neurons.IF() or neurons.PLIF(), got "
                f"{_checks.format_value(neuron)}"
            )
        if isinstance(neuron, PLIF):
            self.w = nnx.Param(jnp.asarray(neuron.w))
            neuron = _pytree.replace(neuron, w=None)
        else:
            self.w = None
        self.neuron = Hyperparameters(neuron)
        self.axis_name: str | None = None  # see `synchronize`
        self.quantize(quant, site=site)

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
        scale = None
        if spec is not None and spec.learns_membrane_scale:
            scale = spec.init_scale()
        quant = None if spec is None else Hyperparameters(spec, site=site)
        self.quant = nnx.data(quant)
        # LQ-Net's basis may have either sign.
        kind = nnx.Param if spec is None or spec.method == "lq_net" else LearnedScale
        self.quant_scale = nnx.data(None if scale is None else kind(scale))
        self.site = site

    def learned_neuron(self) -> Neuron:
        """The neuron, a `neurons.PLIF` with the ``w`` of this layer."""
        neuron = self.neuron.get_value()
        if self.w is None:
            return neuron
        return _pytree.replace(neuron, w=self.w.get_value())

    def __call__(self, x_seq: ArrayLike) -> Array:
        """Currents ``[T, B, ...]`` to spikes ``[T, B, ...]``."""
        self._show(x_seq)
        neuron = self.learned_neuron()
        spikes, _ = neuron(
            x_seq,
            membrane_quantizer=self._membrane_quantizer(neuron),
            membrane_site=self.site,
        )
        return spikes

    def _membrane_quantizer(self, neuron: Neuron) -> Any:
        quantizer = None
        if self.quant is not None:
            scale = value_of(self.quant_scale)
            if scale is not None and self.axis_name is not None:
                # 1 / sqrt(N) with the N of all devices.
                scale = _scale_gradient(
                    scale, jax.lax.axis_size(self.axis_name) ** -0.5
                )
            tau, w = (getattr(neuron, name, None) for name in ("tau", "w"))
            quantizer = self.quant.get_value().bind_membrane(
                site=self.site, leak=leak_factor(tau, w), scale=scale
            )
        return quantizer

    def potentials(self, x_seq: Array) -> Array:
        """Compute the membrane potentials before firing, ``[T, B, ...]``.

        Those that are compared with the threshold, of the currents ``[T, B, ...]``.
        """
        neuron = self.learned_neuron()
        quantizer = self._membrane_quantizer(neuron)
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

        rest = 0.0 if neuron.v_reset is None else neuron.v_reset
        dtype = np.promote_types(x_seq.dtype, np.float32)
        v = jnp.full(x_seq.shape[1:], rest, dtype)
        return jax.lax.scan(step, v, x_seq)[1]


_NEVER = 1e30  # a threshold that no potential reaches


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _scale_gradient(x: Array, factor: float) -> Array:
    """x, whose gradient is ``factor`` times as large."""
    return x


_scale_gradient.defvjp(lambda x, factor: (x, None), lambda factor, _, d: (factor * d,))
