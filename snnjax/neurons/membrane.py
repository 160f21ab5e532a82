"""A `QuantSpec` on a membrane: its scale is learned or fixed, never of the batch.

LQ-Net's scale there is its basis.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike

from snnjax.quantize import QuantSpec
from snnjax.quantize.spec import OF_WEIGHTS


def check(spec: QuantSpec, site: str) -> None:
    """Raise ValueError unless it can quantize a membrane at this site."""
    if spec.method in OF_WEIGHTS:
        raise ValueError(
            f"{spec.method} makes levels of weights, not of a membrane; use method "
            '"uniform", "lsq", "lq_net" or "mint"'
        )
    if spec.method == "lq_net":
        spec.first_scale()  # has its own to say about bits and clip
    if spec.per_channel:
        raise ValueError("per_channel bounds come from weights; a membrane has none")
    if spec.method == "mint" and site != "post_reset":
        raise ValueError('MINT quantizes the stored membrane: site "post_reset"')


def ready(
    quantizer: Callable[[Array], Array] | None,
    site: str,
    tau: ArrayLike | None,
    w: ArrayLike | None = None,
) -> Callable[[Array], Array] | None:
    """A spec as the function of such a neuron's membrane; all else as it is.

    Raises:
        ValueError: as `check`.
    """
    if not isinstance(quantizer, QuantSpec):
        return quantizer
    check(quantizer, site)
    return of_spec(quantizer, None, leak_of(tau, w))


def leak_of(tau: ArrayLike | None, w: ArrayLike | None) -> Array | None:
    """What a step leaves of a membrane, by LIF's tau or PLIF's w; None without leak."""
    if w is not None:
        return jax.nn.sigmoid(-jnp.asarray(w))
    return None if tau is None else 1 - 1 / jnp.asarray(tau)


def of_spec(spec: QuantSpec, scale: Array | None, leak: Array | None) -> Partial:
    """Membrane to levels; without a ``scale``, by the one that learning starts from."""
    if spec.learned_on_membrane and scale is None:
        scale = spec.first_scale()
    if spec.method != "mint" or leak is None:
        return Partial(_stored, spec, scale)
    # MINT stores the membrane after the leak, which the neuron takes next.
    return Partial(_leaked, spec, scale, leak)


def _stored(spec, scale, v):
    return spec(v, scale)


def _leaked(spec, scale, leak, v):
    # Where nothing is left, what is stored does not matter, but is to be a number.
    some = leak > 0
    leak = jnp.where(some, leak, 1)
    return jnp.where(some, spec(leak * v, scale) / leak, 0)
