"""Run a function over a long sequence in chunks of time, and keep only its input.

Each chunk is small enough for the cache, and neither pass holds more of the sequence
than its input and its result: the backward pass makes the states between the chunks,
and then in each chunk what the gradient needs, again.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from snnjax._order import compute_once, delay_until


class Chunks(NamedTuple):
    """Division of a sequence.

    Attributes:
        steps: of the sequence.
        first: steps of the first chunk.
        length: steps of each other chunk.
        still: the input has no axis of time, and is what each step takes.
    """

    steps: int
    first: int
    length: int
    still: bool

    @property
    def number(self) -> int:
        """Number of chunks behind the first."""
        return (self.steps - self.first) // self.length

    def take(self, x: Array, i: Any) -> Array:
        """Return the input of chunk i behind the first."""
        return x if self.still else self.slice(x, i)

    def slice(self, x: Array, i: Any) -> Array:
        """Return the steps of chunk i behind the first."""
        begin = self.first + i * self.length
        return jax.lax.dynamic_slice_in_dim(x, begin, self.length)

    def write(self, x: Array, chunk: Array, i: Any) -> Array:
        """Write the steps of chunk i behind the first."""
        begin = self.first + i * self.length
        return jax.lax.dynamic_update_slice_in_dim(x, chunk, begin, 0)


def divide(steps: int, length: int, still: bool) -> Chunks:
    """Divide a sequence into chunks of this length, of which the first may be less."""
    return Chunks(steps, steps % length or length, length, still)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def run_in_chunks(
    function: Callable[..., tuple[Array, Any]],
    chunks: Chunks,
    x: Array,
    others: Any,
    start: Any,
) -> tuple[Array, Any]:
    """Return the outputs ``[T, ...]`` and the last state of a function in chunks.

    Args:
        function: ``function(length, x, others, state)`` of a chunk's steps to its
            outputs ``[length, ...]`` and the next state; it closes over nothing but
            what is static.
        chunks: division of the sequence.
        x: ``[T, ...]``, or one step.
        others: a pytree.
        start: the first state, or None.
    """
    head = x if chunks.still else x[: chunks.first]
    y, state = function(chunks.first, head, others, start)
    out = jnp.full((chunks.steps, *y.shape[1:]), _zero_after(x, y.dtype))
    out = jax.lax.dynamic_update_slice_in_dim(out, y, 0, 0)

    # Slices inside a fusion keep XLA from vectorizing it.
    call = partial(compute_once, partial(function, chunks.length), None)

    def run(i, carry):
        out, state = carry
        y, state = call(chunks.take(x, i), others, state)
        return chunks.write(out, y, i), state

    return jax.lax.fori_loop(0, chunks.number, run, (out, state))


def _zero_after(x: Array, dtype: Any) -> Array:
    """Return a zero that depends on x: a buffer of it is allocated when x is ready."""
    return delay_until(jnp.zeros((), dtype), x)


def _run_in_chunks_fwd(function, chunks, x, others, start):
    return run_in_chunks(function, chunks, x, others, start), (x, others, start)


def _run_in_chunks_bwd(function, chunks, residuals, cotangents):
    (x, others, start), (dy, d_state) = residuals, cotangents
    zero = _zero_after(dy, dy.dtype)
    leaves, structure = jax.tree.flatten(others)
    places = [i for i, leaf in enumerate(leaves) if _is_real(leaf)]
    numbers = [leaves[i] for i in places]

    def pull(length, x, leaves, state, dy, d_state):
        def call(x, numbers, state):
            merged = list(leaves)
            for i, number in zip(places, numbers, strict=True):
                merged[i] = number
            return function(length, x, jax.tree.unflatten(structure, merged), state)

        numbers = [leaves[i] for i in places]
        return jax.vjp(call, x, numbers, state)[1]((dy, d_state))

    head = x if chunks.still else x[: chunks.first]
    _, state = function(chunks.first, head + zero.astype(x.dtype), others, start)

    def next_state(x, others, state):
        return function(chunks.length, x, others, state)[1]

    def remember(i, carry):
        states, state = carry
        put = partial(jax.lax.dynamic_update_index_in_dim, index=i, axis=0)
        states = jax.tree.map(lambda whole, s: put(whole, s), states, state)
        chunk = chunks.take(x, i)
        return states, compute_once(next_state, None, chunk, others, state)

    def make_room(s):
        return jnp.full((chunks.number, *s.shape), zero.astype(s.dtype))

    rooms = jax.tree.map(make_room, state)
    states, _ = jax.lax.fori_loop(0, chunks.number, remember, (rooms, state))

    def run(turn, carry):
        i = chunks.number - 1 - turn
        dx, totals, d_state = carry
        state = jax.tree.map(lambda s: s[i], states)
        given = chunks.take(x, i), leaves, state, chunks.slice(dy, i), d_state
        pull_chunk = partial(pull, chunks.length)
        d_chunk, found, d_state = compute_once(pull_chunk, None, *given)
        dx = dx + d_chunk if chunks.still else chunks.write(dx, d_chunk, i)
        return dx, jax.tree.map(jnp.add, totals, found), d_state

    blank = lambda a: jnp.full(a.shape, zero.astype(a.dtype))  # noqa: E731
    d_state = jax.tree.map(lambda s: s + zero.astype(s.dtype), d_state)
    carry = blank(x), jax.tree.map(blank, numbers), d_state
    dx, totals, d_state = jax.lax.fori_loop(0, chunks.number, run, carry)
    d_head, found, d_start = pull(
        chunks.first, head, leaves, start, dy[: chunks.first], d_state
    )
    if chunks.still:
        dx = dx + d_head
    else:
        dx = jax.lax.dynamic_update_slice_in_dim(dx, d_head, 0, 0)
    gradients = [np.zeros(np.shape(leaf), jax.dtypes.float0) for leaf in leaves]
    for i, total, last in zip(places, totals, found, strict=True):
        gradients[i] = total + last
    return dx, jax.tree.unflatten(structure, gradients), d_start


run_in_chunks.defvjp(_run_in_chunks_fwd, _run_in_chunks_bwd)


def _is_real(x: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jnp.inexact)
