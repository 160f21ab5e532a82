"""Optimizers and schedules whose numbers are traced: others do not compile again.

Any optax transformation trains a network. `optax.sgd(0.1)` compiles its learning rate
into the program; these keep it, or the numbers of its schedule, in the optimizer's
state: a baseline and its fine-tuning, or a sweep of rates, share one compiled step.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.tree_util import Partial
from optax import contrib

from snnjax import _checks, _pytree
from snnjax.train import checks, sharding

Number = Any  # a float, or an array of no axes


@dataclasses.dataclass(frozen=True)
class CosineSchedule:
    r"""Learning rates that rise to a peak and fall along half a cosine.

    .. math::
        r_k &= r_0 + (r_p - r_0) w(k / u) && k < u \\
        r_k &= r_e + (r_p - r_e) (1 + \cos(\pi (k - u) / (n - u))) / 2 && k \ge u

    with :math:`w(x) = x`, or :math:`(1 - \cos \pi x) / 2` where the rise is smooth.
    Callable as every optax schedule; all its numbers are leaves.

    Attributes:
        start: rate of the first step, :math:`r_0`.
        peak: highest rate, :math:`r_p`.
        end: rate after the last step, :math:`r_e`.
        rise: steps up to the peak, :math:`u`.
        steps: all steps, :math:`n`.
        smooth: 1 if the rise is half a cosine, 0 if it is a line.
    """

    start: Number
    peak: Number
    end: Number
    rise: Number
    steps: Number
    smooth: Number

    def __call__(self, count: Any) -> Array:
        """Return the learning rate of step ``count``, which starts at 0."""
        count = jnp.asarray(count, jnp.float32)
        start, peak, end, rise, steps, smooth = (
            jnp.asarray(getattr(self, f.name), jnp.float32)
            for f in dataclasses.fields(self)
        )
        up = count / jnp.maximum(rise, 1)
        up = jnp.where(smooth > 0, (1 - jnp.cos(jnp.pi * up)) / 2, up)
        down = jnp.clip((count - rise) / jnp.maximum(steps - rise, 1), 0, 1)
        down = (1 + jnp.cos(jnp.pi * down)) / 2
        falling = end + (peak - end) * down
        return jnp.where(count < rise, start + (peak - start) * up, falling)


_pytree.register(CosineSchedule)


def one_cycle(steps: int, peak: float) -> CosineSchedule:
    """Return a schedule along half a cosine to ``peak``, and along another down.

    The rise starts at ``peak / 25`` and takes 30 % of the steps; the end is
    ``peak / 250,000``. The same rates as `optax.cosine_onecycle_schedule`.

    Raises:
        ValueError: no steps, or a peak that is not a finite number from 0.
    """
    checks.check_whole(steps=steps)
    checks.check_number(peak=peak)
    return CosineSchedule(peak / 25, peak, peak / 25e4, int(0.3 * steps), steps, 1)


def cosine(steps: int, start: float, warmup: int = 0) -> CosineSchedule:
    """Return a schedule from ``start`` down to 0 along half a cosine.

    Before it, ``warmup`` of the steps rise in a line: step k has
    ``start * (k + 1) / (warmup + 1)``.

    Raises:
        ValueError: no steps, a start that is not a finite number from 0, or a warm-up
            that takes all steps.
    """
    checks.check_whole(steps=steps)
    checks.check_whole(0, warmup=warmup)
    checks.check_number(start=start)
    if warmup >= steps:
        raise ValueError(f"warmup must be below the {steps} steps, got {warmup}")
    return CosineSchedule(start / (warmup + 1), start, 0, warmup, steps, 0)


def sgd(
    learning_rate: float | Callable[[Any], Any],
    *,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
) -> optax.GradientTransformation:
    """Return SGD with Nesterov momentum, decay of the kernels, and a traced rate.

    Args:
        learning_rate: a number, or a schedule: of `one_cycle` and `cosine`, whose
            numbers are traced too, or any other function of the step.
        weight_decay: of kernels; biases, BatchNorm and quantizers do not decay.
        momentum: of the velocity; 0 is plain SGD.

    Raises:
        ValueError: a number that is not finite and from 0.

    >>> import optax
    >>> optimizer = sgd(one_cycle(100, peak=0.1), weight_decay=5e-4)
    >>> isinstance(optimizer, optax.GradientTransformation)
    True
    """
    checks.check_number(weight_decay=weight_decay, momentum=momentum)
    return _with_rate(_sgd(float(weight_decay), float(momentum)), learning_rate)


def adamw(
    learning_rate: float | Callable[[Any], Any],
    *,
    weight_decay: float = 1e-4,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> optax.GradientTransformation:
    """Return Adam with decoupled weight decay of the kernels, and a traced rate.

    Decay is ``learning_rate * weight_decay * kernel``, as in optax.adamw and in
    Loshchilov and Hutter, 2019, algorithm 2.

    Args:
        learning_rate: as of `sgd`.
        weight_decay: as of `sgd`.
        b1: decay of the mean of gradients.
        b2: decay of the mean of their squares.
        eps: added to the root.

    Raises:
        ValueError: a number that is not finite and from 0, or b1 or b2 not below 1.
    """
    checks.check_number(weight_decay=weight_decay, b1=b1, b2=b2, eps=eps)
    if max(b1, b2) >= 1:
        raise ValueError(f"b1 and b2 must be below 1, got {b1} and {b2}")
    core = _adamw(*map(float, (weight_decay, b1, b2, eps)))
    return _with_rate(core, learning_rate)


def muon(
    learning_rate: float | Callable[[Any], Any],
    *,
    weight_decay: float = 0.0,
    momentum: float = 0.95,
    adam_share: float = 0.2,
) -> optax.GradientTransformation:
    r"""Return Muon for convolutions and Adam for the rest, with a traced rate.

    The momentum of a convolution's kernel, as a matrix of its inputs and outputs, is
    brought near the closest semi-orthogonal one by five Newton-Schulz iterations and
    scaled by :math:`\sqrt{\max(1, outputs / inputs)}`. Decay is
    ``learning_rate * weight_decay * kernel``. Adam's mean looks ahead as well (Dozat,
    2016).

    Args:
        learning_rate: as of `sgd`; 0.02 is usual.
        weight_decay: as of `sgd`, of linear kernels too.
        momentum: decay of the mean of gradients, with Nesterov's look ahead.
        adam_share: learning rate of Adam over that of Muon.

    Raises:
        ValueError: a number that is not finite and from 0, or a momentum not below 1.

    Source: Jordan et al., `Muon <https://kellerjordan.github.io/posts/muon/>`_, 2024,
    as optax.contrib.muon, which takes linear kernels for Muon too.
    """
    numbers = dict(weight_decay=weight_decay, momentum=momentum, adam_share=adam_share)
    checks.check_number(**numbers)
    if momentum >= 1:
        raise ValueError(f"momentum must be below 1, got {momentum}")
    return _with_rate(_muon(*map(float, numbers.values())), learning_rate)


# Equal numbers make one transformation, for which a step is compiled once.
@functools.cache
def _sgd(weight_decay, momentum):
    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask=decay_mask),
        optax.trace(momentum, nesterov=True),
    )


@functools.cache
def _adamw(weight_decay, b1, b2, eps):
    return optax.chain(
        optax.scale_by_adam(b1, b2, eps),
        optax.add_decayed_weights(weight_decay, mask=decay_mask),
    )


@functools.cache
def _muon(weight_decay, momentum, adam_share):
    # Rates below 0 leave the sign to `_with_rate`.
    return optax.chain(
        contrib.muon(
            -1.0,
            beta=momentum,
            adam_learning_rate=-adam_share,
            muon_weight_dimension_numbers=_matrices,
        ),
        optax.add_decayed_weights(weight_decay, mask=decay_mask),
    )


def _matrices(params: Any) -> Any:
    """Say how a convolution's kernel, ``[..., in, out]``, is a matrix; else None."""

    def matrix(is_kernel: bool, leaf: Any) -> contrib.MuonDimensionNumbers | None:
        if not is_kernel or jnp.ndim(leaf) < 3:
            return None
        *inputs, output = range(jnp.ndim(leaf))
        return contrib.MuonDimensionNumbers(tuple(inputs), output)

    return jax.tree.map(matrix, decay_mask(params), params)


def decay_mask(params: Any) -> Any:
    """Mark the parameters that decay: kernels.

    BatchNorm, biases, neurons' constants and quantizers' steps do not. For the ``mask``
    of optax's transformations; by name, since neurons may have a constant for each of
    them, ``[H, W, C]``.
    """

    def is_kernel(path, leaf):
        return "kernel" in (getattr(part, "key", None) for part in path)

    return jax.tree_util.tree_map_with_path(is_kernel, params)


class ScheduledState(NamedTuple):
    """State of an optimizer with a traced schedule.

    Attributes:
        inner: of the transformation before the rate.
        count: steps done, int32.
        schedule: a pytree that is called with the count.
    """

    inner: optax.OptState
    count: Array
    schedule: Any


@dataclasses.dataclass(frozen=True)
class _Constant:
    rate: Number

    def __call__(self, count: Any) -> Array:
        return jnp.asarray(self.rate, jnp.float32)


_pytree.register(_Constant)


def _with_rate(core, learning_rate) -> optax.GradientTransformation:
    if not callable(learning_rate):
        checks.check_number(learning_rate=learning_rate)
        learning_rate = _Constant(float(learning_rate))
    elif jax.tree_util.all_leaves([learning_rate]):  # a plain function: static
        learning_rate = Partial(learning_rate)

    def init(params):
        numbers = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), learning_rate)
        return ScheduledState(core.init(params), jnp.zeros((), jnp.int32), numbers)

    return optax.GradientTransformation(init, _traced_update(core))


def check_schedules(start: Any, first: Callable[[], Any]) -> None:
    """Raise ValueError unless the learning rates of a state are those given now.

    They are in the state: other ones would have no effect.

    Args:
        start: the state to go on from.
        first: makes the state of the networks and optimizers of now.
    """
    there = _find_schedules(start.opt_state)
    here = jax.jit(lambda: _find_schedules(first().opt_state))() if there else []
    for (path, now), then in zip(
        jax.tree_util.tree_leaves_with_path(here), jax.tree.leaves(there), strict=True
    ):
        if not np.array_equal(np.asarray(now), sharding.to_host(then)):
            name = _pytree.format_path(path[1:])
            raise ValueError(
                "start is the state of another learning rate: "
                f"{name} is {_checks.format_value(then)} there and "
                f"{_checks.format_value(now)} here; give the optimizer that it was "
                "made with, or go on from the network alone (train.model_from_state)"
            )


def _find_schedules(opt_state: Any) -> list[Any]:
    is_scheduled = lambda x: isinstance(x, ScheduledState)  # noqa: E731
    leaves = jax.tree.leaves(opt_state, is_leaf=is_scheduled)
    return [leaf.schedule for leaf in leaves if is_scheduled(leaf)]


# One function for all rates: a step is compiled for each.
@functools.cache
def _traced_update(core):
    def update(updates, state, params=None):
        updates, inner = core.update(updates, state.inner, params)
        rate = jnp.asarray(state.schedule(state.count))
        updates = jax.tree.map(lambda u: -rate.astype(u.dtype) * u, updates)
        return updates, ScheduledState(inner, state.count + 1, state.schedule)

    return update
