"""Control when values are computed, and recompute them in the backward pass.

XLA's CPU scheduler starts any operation whose inputs are ready, which extends the
lifetime of buffers, and it merges a recomputation with the original value, which it
then keeps. `jax.lax.optimization_barrier` is removed before either decision; a
dependency on data is not. A TPU needs both.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

Tree = TypeVar("Tree")


def delay_until(x: Array, other: Array, *, force_recompute: bool = False) -> Array:
    """Return x, but not before ``other`` is computed, by adding a zero made of it.

    With ``force_recompute`` whatever depends on x is recomputed, on a TPU too. A TPU
    sums bfloat16 in float32, so it already holds x in float32 and would keep that copy.
    """
    late = other[(0,) * other.ndim] > jnp.inf
    if force_recompute:
        x, late = jax.lax.optimization_barrier((x, late))
    return x + late.astype(x.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def rematerialize(
    function: Callable[..., Tree], keep: DTypeLike | None, first: Array, *rest: Any
) -> Tree:
    """Call ``function(first, *rest)``; keep only the arguments for the backward pass.

    Like `jax.checkpoint`, but recomputation waits until the cotangent is available.

    Args:
        function: closes over nothing but what is static. Its first result is an array
            that the loss depends on.
        keep: dtype in which ``first`` is kept, or None. With a dtype there are no
            second derivatives.
        first: first argument of ``function``.
        rest: other arguments, pytrees.
    """
    return function(first, *rest)


def _rematerialize_fwd(function, keep, first, *rest):
    kept = first if keep is None else first.astype(keep)
    return function(first, *rest), (kept, rest)


def _rematerialize_bwd(function, keep, residuals, cotangents):
    first, rest = residuals
    known = jax.tree.leaves(cotangents)[0]
    if keep is not None:
        known = forbid_second_derivative(known, KEPT_BLOCKS)
    # In float32 there is no second copy, and a TPU needs no barrier.
    narrow = jnp.finfo(known.dtype).bits < 32
    first = delay_until(first, known, force_recompute=narrow).astype(known.dtype)
    return jax.vjp(function, first, *rest)[1](cotangents)


rematerialize.defvjp(_rematerialize_fwd, _rematerialize_bwd)


KEPT_BLOCKS = (
    "second derivatives need the inputs of blocks, which remat keeps as int8 spikes in "
    'training; make the network with remat="none", or take it in evaluation mode'
)
NEEDS_INPUTS = (
    "second derivatives need the inputs of convolutions, which training keeps as int8 "
    "spikes; call layers.keep_inputs(model), or take the network in evaluation mode"
)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def forbid_second_derivative(x: Array, reason: str) -> Array:
    """Return x; differentiating it raises NotImplementedError with the reason."""
    return x


def _raise_reason(reason, *_):
    raise NotImplementedError(reason)


forbid_second_derivative.defvjp(lambda x, reason: (x, None), _raise_reason)
