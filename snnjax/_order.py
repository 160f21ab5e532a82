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
import numpy as np
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


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def compute_once(
    function: Callable[..., Tree], known: Array | None, first: Array, *rest: Any
) -> Tree:
    """Call ``function(first, *rest)`` so that a CPU computes its results just once.

    XLA for CPUs fuses an elementwise function into each of its consumers, and into
    each part of a concatenation: it made spikes twice and currents up to seven times.
    The results of a loop it computes once; so this is a loop of one turn, of which it
    does not know that.

    Args:
        function: closes over nothing but what is static.
        known: an array that is computed before, where ``first`` has been used already
            and what is made of it was not kept.
        first: an array that the results depend on.
        rest: other arguments, pytrees.
    """
    # Traced once for the three calls of it: its shapes, and a branch a platform.
    function = jax.jit(function, inline=True)

    def call(known, first, *rest):
        first = first if known is None else _recompute_from(first, known)
        return function(first, *rest)

    loop = partial(_run_in_loop, function)
    return jax.lax.platform_dependent(known, first, *rest, cpu=loop, default=call)


def _run_in_loop(function, known, first, *rest):
    shapes, structure = jax.tree.flatten(jax.eval_shape(function, first, *rest))
    # Gradients of whole numbers have no values.
    places = [i for i, s in enumerate(shapes) if s.dtype != jax.dtypes.float0]
    known = first if known is None else known
    late = (known[(0,) * known.ndim] > jnp.inf).astype(jnp.int32)
    # It varies over a mesh as the results do.
    late = late + (first[(0,) * first.ndim] > jnp.inf).astype(jnp.int32)
    room = [jnp.full(shapes[i].shape, late.astype(shapes[i].dtype)) for i in places]

    def turn(state):
        # What does not depend on the loop's state would be moved out of it.
        x = first + (state[0] > 1).astype(first.dtype)
        leaves = jax.tree.leaves(function(x, *rest))
        return state[0] + 1, [leaves[i] for i in places]

    first_turn = (jnp.zeros_like(late), room)
    _, found = jax.lax.while_loop(lambda state: state[0] <= late, turn, first_turn)
    leaves = [np.zeros(s.shape, jax.dtypes.float0) for s in shapes]
    for i, leaf in zip(places, found, strict=True):
        leaves[i] = leaf
    return jax.tree.unflatten(structure, leaves)


def _compute_once_fwd(function, known, first, *rest):
    found, pullback = jax.vjp(function, first, *rest)
    return found, (known, pullback)


def _compute_once_bwd(function, residuals, cotangents):
    known, pullback = residuals
    return jax.tree.map(jnp.zeros_like, known), *pullback(cotangents)


compute_once.defvjp(_compute_once_fwd, _compute_once_bwd)


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
            second derivatives, and gradients are NaN where it does not hold ``first``.
        first: first argument of ``function``.
        rest: other arguments, pytrees.
    """
    return function(first, *rest)


def _rematerialize_fwd(function, keep, first, *rest):
    kept = first if keep is None else first.astype(keep)
    exact = True if keep is None else jnp.all(kept.astype(first.dtype) == first)
    return function(first, *rest), (kept, exact, rest)


def _rematerialize_bwd(function, keep, residuals, cotangents):
    first, exact, rest = residuals
    known = jax.tree.leaves(cotangents)[0]
    if keep is not None:
        known = forbid_second_derivative(known, KEPT_BLOCKS)
    first = _recompute_from(first, known)
    if keep is not None:
        first = jnp.where(exact, first, jnp.nan)
    return jax.vjp(function, first, *rest)[1](cotangents)


rematerialize.defvjp(_rematerialize_fwd, _rematerialize_bwd)


def _recompute_from(first, known):
    """Return first, in known's dtype; what is made of it waits for ``known``."""
    # In float32 there is no second copy, and a TPU needs no barrier.
    narrow = jnp.finfo(known.dtype).bits < 32
    return delay_until(first, known, force_recompute=narrow).astype(known.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def rematerialize_elementwise(
    function: Callable[..., Tree],
    prepare: Callable[..., Array],
    first: Array,
    others: Any,
    *rest: Any,
) -> Tree:
    """Call ``function(prepare(first, others), *rest)``, and keep only the arguments.

    As `rematerialize`, for functions of single elements: `compute_once` makes the
    results, and the gradient by what ``prepare`` returns, once each.
    """

    def run(first, others, *rest):
        return function(prepare(first, others), *rest)

    return compute_once(run, None, first, others, *rest)


def _rematerialize_elementwise_fwd(function, prepare, first, others, *rest):
    found = rematerialize_elementwise(function, prepare, first, others, *rest)
    return found, (first, others, rest)


def _rematerialize_elementwise_bwd(function, prepare, residuals, cotangents):
    first, others, rest = residuals
    known = jax.tree.leaves(cotangents)[0]

    def pull(first, others, rest, cotangents):
        return jax.vjp(function, prepare(first, others), *rest)[1](cotangents)

    between, *found = compute_once(pull, known, first, others, rest, cotangents)
    return *jax.vjp(prepare, first, others)[1](between), *found


rematerialize_elementwise.defvjp(
    _rematerialize_elementwise_fwd, _rematerialize_elementwise_bwd
)


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
