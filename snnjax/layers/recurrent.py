"""Recurrent layer: neurons that receive their own spikes a step later."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from snnjax import _checks
from snnjax.layers.linear import QuantLinear, QuantScale, add_bias
from snnjax.layers.spiking import Spiking
from snnjax.layers.state import Stateful
from snnjax.layers.variables import check_features
from snnjax.neurons import Neuron
from snnjax.quantize import QuantSpec

FEEDBACKS = ("all_to_all", "one_to_one")


class Recurrent(Stateful):
    r"""A layer of neurons whose spikes come back to them a step later.

    .. math:: S_t = \mathrm{neuron}(X_t + W S_{t-1} + b)

    The weights are those of ``feedback``: a `QuantLinear` from all neurons to all, or a
    `QuantScale` with a weight for each neuron (and no b). It is quantized under the
    name ``feedback``, the membrane under ``sn``, in front of them this layer's name.
    A quantizer with a state moves it once a call, not once a time step.

    Args:
        features: neurons.
        neuron: as of `Spiking`.
        feedback: ``"all_to_all"`` or ``"one_to_one"``.
        weight_quant: quantizer of the feedback's weights.
        membrane_quant: quantizer of the membrane.
        site: as of `Spiking`.
        learn: as of `Spiking`.
        dtype: of the product with the weights; None is the input's.
        param_dtype: of the weights.
        rngs: for the weights of all-to-all feedback.

    Raises:
        ValueError: an unknown feedback, or as `Spiking` and `QuantLinear`.

    Source: SpikingJelly's ``LinearRecurrentContainer`` with a sum, snnTorch's
    ``RLeaky`` (``all_to_all``).
    """

    def __init__(
        self,
        features: int,
        neuron: Neuron,
        *,
        feedback: str = "all_to_all",
        weight_quant: QuantSpec | None = None,
        membrane_quant: QuantSpec | None = None,
        site: str = "post_reset",
        learn: tuple[str, ...] = (),
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        _checks.require_one_of("feedback", feedback, FEEDBACKS)
        if feedback == "all_to_all":
            self.feedback: Any = QuantLinear(
                features,
                features,
                quant=weight_quant,
                dtype=dtype,
                param_dtype=param_dtype,
                rngs=rngs,
            )
        else:
            self.feedback = QuantScale(
                features, quant=weight_quant, param_dtype=param_dtype
            )
        self.sn = Spiking(neuron, quant=membrane_quant, site=site, learn=learn)
        self.carried = nnx.data(None)

    def __call__(self, x: ArrayLike, *, train: bool | None = None) -> Array:
        """Currents ``[T, B, C]`` to spikes ``[T, B, C]``.

        ``train``: update LQ-Net's basis; None follows ``.train()`` and ``.eval()``.

        Raises:
            ValueError: x of another shape, or not floating point.
        """
        x = check_features(x, "T B C", self.feedback.kernel.shape[0])
        if not len(x):
            raise ValueError(f"x must have at least one time step, got {x.shape}")
        w = self.feedback.quantized_kernel(train=train)
        bias = getattr(self.feedback, "bias", None)
        before = self.start_state()
        if before is None:
            before = jnp.zeros(x.shape[1:], x.dtype)
        start = neuron = self.sn.start_state()

        def step(carry, current):
            spikes, neuron = carry
            # In the dtype of the layer, as the feedback called by itself computes it.
            dtype = getattr(self.feedback, "dtype", None) or spikes.dtype
            s, weights = spikes.astype(dtype), w.astype(dtype)
            each = isinstance(self.feedback, QuantScale)
            back = s * weights.reshape(1, -1) if each else s @ weights
            current = current + add_bias(back, bias).astype(current.dtype)
            spikes, neuron = self.sn.advance(current[None], neuron, steps=len(x))
            kept = (spikes[0], current if self.sn.is_observed else ())
            return (spikes[0], neuron), kept

        # The first step by itself: it makes the state where there was none.
        carry, first = step((before, neuron), x[0])
        (last, neuron), rest = jax.lax.scan(step, carry, x[1:])
        self.keep_state(last)
        self.sn.keep_state(neuron)
        join = lambda a, b: jnp.concatenate([a[None], b])  # noqa: E731
        spikes, currents = jax.tree.map(join, first, rest)
        if self.sn.is_observed:
            self.sn._show(currents, start)  # all at once: the body of a loop cannot
        return spikes
