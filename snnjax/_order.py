"""What the backward pass makes again, and when.

XLA for CPUs runs whatever is ready, so that work which could wait holds its memory
early, and it finds out that something made again is there already, and keeps that.
`jax.lax.optimization_barrier` is gone by the time it decides. A dependency on data is
not. On a TPU both are needed.
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
    """Give x, but not before ``other`` is known: x plus what is always zero.

    With ``anew`` what is made of x is made again, on a TPU too: that sums bfloat16 in
    float32, finds that it has x in float32 already, and would keep it until then.
    """
    late = other[(0,) * other.ndim] > jnp.inf
    if force_recompute:
        x, late = jax.lax.optimization_barrier((x, late))
    return x + late.astype(x.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def remade(
    function: Callable[..., Tree], keep: DTypeLike | None, first: Array, *rest: Any
) -> Tree:
    """``function(first, *rest)``; the backward pass keeps only the arguments.

    As `jax.checkpoint`, but nothing is made again before the cotangent is there.

    Args:
        function: closes over nothing but what is static. Its first result is an array
            that the loss depends on.
        keep: keep ``first`` in this dtype, or None. Then there are no second
            derivatives.
        first: what ``function`` begins with.
        rest: trees.
    """
    return function(first, *rest)


def _rematerialize_fwd(function, keep, first, *rest):
    kept = first if keep is None else first.astype(keep)
    return function(first, *rest), (kept, rest)


def _rematerialize_bwd(function, keep, residuals, cotangents):
    first, rest = residuals
    known = jax.tree.leaves(cotangents)[0]
    if keep is not None:
        known = forbid_second_derivative(known)
    # In float32 there is no second copy: a TPU then chooses well by itself.
    narrow = jnp.finfo(known.dtype).bits < 32
    first = delay_until(first, known, force_recompute=narrow).astype(known.dtype)
    return jax.vjp(function, first, *rest)[1](cotangents)


remade.defvjp(_rematerialize_fwd, _rematerialize_bwd)


@jax.custom_vjp
def forbid_second_derivative(x: Array) -> Array:
    """x, whose gradient is refused: what it depends on was not kept."""
    return x


def _refuse(*_):
    raise NotImplementedError(
        "second derivatives need the inputs of convolutions, which were kept as spikes "
        "only; use conv2d(..., keep=None) or QuantConv(..., spikes=False)"
    )


forbid_second_derivative.defvjp(lambda x: (x, None), _refuse)
