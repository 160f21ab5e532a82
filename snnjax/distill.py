r"""Distances between a student's and its teacher's firing, as losses for training.

A loss takes the recordings of two networks on the same batch and returns a scalar:
``train.fit(..., teacher=model, distill=distill.firing())`` adds it to the loss of the
labels. Called without recordings, a loss of this module returns itself with the numbers
that it is given: ``distill.paired_rates(weight=3.0)``; they are traced, so sweeping
them does not compile again. In a loop of your own, in training or not::

    student = distill.record(model, images)
    taught = distill.record(teacher, images)
    distance = distill.firing(student, taught)
    total = train.cross_entropy(student.logits, labels) + distance

Distances are relative to the teacher's own variance, layer by layer, so that a weight
means the same for every network. Any function of two recordings is a loss too; one that
reads ``membranes`` says so by an attribute, ``function.needs_membranes = True``. Where
sequences have different lengths, means are over the steps of each; a function of your
own that leaves the others out, by ``Recording.mask``, says ``function.takes_mask =
True``.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from snnjax import _checks, emd
from snnjax.layers import Readout, Spiking, observe
from snnjax.layers.observe import observable_layers

# Below this variance of rates, a deviation of 1 %, a layer counts as silent.
_LEAST_VARIANCE = 1e-4


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["logits", "spikes", "membranes", "mask"],
    meta_fields=["axis_name"],
)
@dataclasses.dataclass(frozen=True)
class Recording:
    """Recording of a network's pass over a batch, see `record`.

    Attributes:
        logits: ``[T, B, classes]``.
        spikes: ``{layer: [T, B, neurons...]}``.
        membranes: ``{layer: [T, B, neurons...]}``, potentials before firing; {} unless
            they were asked for.
        axis_name: mesh axis along which B is one of equal parts: distances are those of
            the whole batch.
        mask: True for the steps of each sequence, bool ``[T, B]``; None is all.
    """

    logits: Array
    spikes: Mapping[str, Array]
    membranes: Mapping[str, Array]
    axis_name: str | None = None
    mask: Array | None = None


# No argument is by keyword alone: transformations of nnx refuse such functions.
def record(
    model: nnx.Module,
    images: ArrayLike,
    timesteps: int = 4,
    train: bool | None = None,
    membranes: bool = False,
    axis_name: str | None = None,
    mask: Array | None = None,
) -> Recording:
    """Run a network, and record what the losses compare.

    Args:
        model: a network that is called as those of `models`, of `layers`.
        images: a batch, as the network takes it.
        timesteps: T.
        train: as of the network; None follows ``.train()`` and ``.eval()``.
        membranes: record potentials too, which are computed a second time for it.
        axis_name: of the recording.
        mask: of the recording.
    """
    observers = {}
    if membranes:
        layers = observable_layers(model).items()
        observers = {
            name: Spiking.potentials
            for name, x in layers
            if isinstance(x, Spiking) and not isinstance(x, Readout)
        }
    with observe(model, observers) as found:
        options = {} if train is None else {"train": train}
        logits, spikes = model(images, timesteps=timesteps, **options)
    return Recording(logits, spikes, found, axis_name, mask)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["numbers"],
    meta_fields=["function", "options"],
)
@dataclasses.dataclass(frozen=True)
class Loss:
    """A loss with its numbers: ``loss(student, teacher)``, a pytree of the numbers.

    Attributes:
        function: of this module, or any of two recordings.
        numbers: traced keyword arguments.
        options: static ones, pairs of name and value.
    """

    function: Callable[..., Array]
    numbers: Mapping[str, Any]
    options: tuple[tuple[str, Any], ...] = ()

    def __call__(self, student: Any, teacher: Any) -> Array:
        """Return the distance of two recordings."""
        return self.function(student, teacher, **self.numbers, **dict(self.options))

    @property
    def needs_membranes(self) -> bool:
        """Return True if the function reads membranes."""
        return getattr(self.function, "needs_membranes", False)

    @property
    def takes_mask(self) -> bool:
        """Return True if the function leaves out what is behind a sequence's end."""
        return hasattr(self.function, "bind") or getattr(
            self.function, "takes_mask", False
        )


def as_loss(loss: Any) -> Loss:
    """Return a function of two recordings as a `Loss`; ValueError for no function."""
    if isinstance(loss, Loss):
        return loss
    _checks.require_callable("distill", loss, "such as distill.firing()")
    configurable = hasattr(loss, "bind")
    return loss() if configurable else Loss(loss, {})


def _configurable(function: Callable[..., Array]) -> Callable[..., Any]:
    """Let a loss return itself with its numbers where no recordings are given."""
    parameters = inspect.signature(function).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    @functools.wraps(function)
    def call(student: Any = None, teacher: Any = None, **numbers: Any) -> Any:
        if student is not None:
            return function(student, teacher, **numbers)
        if unknown := set(numbers) - set(defaults):
            raise ValueError(
                f"{function.__name__} takes {', '.join(defaults)}, got "
                f"{', '.join(sorted(unknown))}"
            )
        values = defaults | numbers
        static = {name for name, x in defaults.items() if isinstance(x, int)}
        for name in values:
            if name in static:
                _checks.require_whole(name, values[name], 1)
            else:
                expected = f"{name} must be a finite number from 0"
                _checks.require_values(
                    values[name], lambda x: (x >= 0) & (x < np.inf), expected
                )
        traced = {
            name: jnp.asarray(x, jnp.float32)
            for name, x in values.items()
            if name not in static
        }
        options = tuple((name, int(values[name])) for name in sorted(static))
        return Loss(call, traced, options)

    setattr(call, "bind", True)  # noqa: B010
    return call


@_configurable
def logits(
    student: Recording | ArrayLike,
    teacher: Recording | ArrayLike,
    *,
    weight: ArrayLike = 1.0,
    temperature: ArrayLike = 2.0,
) -> Array:
    r"""Distil the logits' mean over time.

    .. math:: w\, \theta^2\, \frac1B \sum_b
              \mathrm{KL}\big(\sigma(t_b / \theta) \,\|\, \sigma(s_b / \theta)\big)

    Args:
        student: a recording, or logits ``[T, B, classes]``.
        teacher: the same of the teacher.
        weight: w.
        temperature: :math:`\theta`.

    Source: Hinton et al., `Distilling the Knowledge in a Neural Network
    <https://arxiv.org/abs/1503.02531>`_, 2015.
    """
    s, t = _pair(student, teacher, "logits")
    axis, mask = _axis_of(student), _mask_of(student)
    log_s, log_t = (
        jax.nn.log_softmax(_mean_over_time(x, mask) / temperature) for x in (s, t)
    )
    each = jnp.sum(jnp.exp(log_t) * (log_t - log_s), axis=-1)
    return _mean(each, axis) * weight * temperature**2


@_configurable
def paired_rates(student: Any, teacher: Any, *, weight: ArrayLike = 1.0) -> Array:
    r"""Compare each neuron's rate in each image with the teacher's.

    .. math:: \frac{w}{L} \sum_l \frac{\langle (r_{bi} - r^T_{bi})^2 \rangle}
              {\mathrm{Var}(r^T_{bi})}

    with means over the images and neurons of layer l, rates over the T steps.

    Args:
        student: a recording, or ``{layer: spikes [T, B, neurons...]}``.
        teacher: the same of the teacher.
        weight: w.
    """
    return _mean_of_layers(student, teacher, "spikes", _compare_images) * weight


def _compare_images(s, t, axis, mask):
    s, t = (_mean_over_time(x, mask) for x in (s, t))
    return _relative_square(s, t, axis)


@_configurable
def membrane(student: Any, teacher: Any, *, weight: ArrayLike = 1.0) -> Array:
    r"""Compare each neuron's membrane potential, before firing, with the teacher's.

    .. math:: \frac{w}{L} \sum_l \frac{\langle (u_{tbi} - u^T_{tbi})^2 \rangle}
              {\mathrm{Var}(u^T_{tbi})}

    Args:
        student: a recording with membranes, or ``{layer: [T, B, neurons...]}``.
        teacher: the same of the teacher.
        weight: w.

    Source: the idea of MD-SNN (arXiv 2512.04443, 2025). Its code was not at hand.
    Differs from the paper in: it is relative to the teacher's variance, in all layers.
    """
    return _mean_of_layers(student, teacher, "membranes", _compare_potentials) * weight


def _compare_potentials(s, t, axis, mask):
    return _relative_square(_widen(s), _widen(t), axis, mask)


setattr(membrane, "needs_membranes", True)  # noqa: B010


@_configurable
def sorted_w2(student: Any, teacher: Any, *, weight: ArrayLike = 1.0) -> Array:
    r"""Compare the distributions of the neurons' rates, by squared W2 in one dimension.

    .. math:: \frac{w}{L} \sum_l \frac{\frac1n \sum_i (r_{(i)} - r^T_{(i)})^2}
              {\mathrm{Var}(r^T_i)}

    with rates over the batch and the T steps, sorted. Neurons may swap their rates at
    no cost: use it beside `paired_rates`.

    Args:
        student: a recording, or ``{layer: spikes [T, B, neurons...]}``.
        teacher: the same of the teacher.
        weight: w.
    """
    return _mean_of_layers(student, teacher, "spikes", _compare_sorted) * weight


def _compare_sorted(s, t, axis, mask):
    s, t = (_batch_rates(x, axis, mask) for x in (s, t))
    # The batch is in the rates already: every device has all of them.
    return _relative_square(jnp.sort(s), jnp.sort(t), None)


@_configurable
def soft_cdf(
    student: Any,
    teacher: Any,
    *,
    weight: ArrayLike = 1.0,
    temperature: ArrayLike = 0.02,
    points: int = 32,
) -> Array:
    r"""Compare the distribution functions of the neurons' rates, blurred.

    .. math:: \frac{w}{L} \sum_l \frac{1}{\mathrm{sd}(r^T_i)}
              \frac1K \sum_k \big(F(t_k) - F^T(t_k)\big)^2

    with `emd.soft_cdf` of the rates over the batch and the T steps. Nothing is sorted.

    Args:
        student: a recording, or ``{layer: spikes [T, B, neurons...]}``.
        teacher: the same of the teacher.
        weight: w.
        temperature: of the blur, in the unit of rates.
        points: K.
    """

    def compare(s, t, axis, mask):
        s, t = (jnp.clip(_batch_rates(x, axis, mask), 0, 1) for x in (s, t))
        cdf = lambda x: emd.soft_cdf(x, points=points, temperature=temperature)  # noqa: E731
        apart = jnp.mean(jnp.square(cdf(s) - cdf(t)))
        return apart / jnp.sqrt(jnp.maximum(jnp.var(t), _LEAST_VARIANCE))

    return _mean_of_layers(student, teacher, "spikes", compare) * weight


@_configurable
def sliced_w2(
    student: Any, teacher: Any, *, weight: ArrayLike = 1.0, directions: int = 16
) -> Array:
    r"""Compare the joint distribution of the channels' rates, by sliced W2 squared.

    Each image and position is a point whose coordinates are the rates of the channels;
    the points are projected on random directions, the same at every call, and sorted.

    .. math:: \frac{w}{L} \sum_l \frac{\sum_d \langle (p_{d(j)} - p^T_{d(j)})^2 \rangle}
              {\sum_d \mathrm{Var}(p^T_{dj})}

    Args:
        student: a recording, or ``{layer: spikes [T, B, neurons...]}``.
        teacher: the same of the teacher.
        weight: w.
        directions: how many.

    Source: Bonneel et al., `Sliced and Radon Wasserstein Barycenters of Measures
    <https://doi.org/10.1007/s10851-014-0506-3>`_, 2015.
    """

    def compare(s, t, axis, mask):
        projected = []
        for x in (s, t):
            points = _mean_over_time(x, mask)
            points = points.reshape(-1, points.shape[-1])
            along = jax.random.normal(
                jax.random.key(0), (points.shape[-1], directions), points.dtype
            )
            along = along / jnp.linalg.norm(along, axis=0)
            points = jnp.matmul(points, along, precision="highest")
            if axis is not None:
                points = jax.lax.all_gather(points, axis, axis=0, tiled=True)
            projected.append(jnp.sort(points, axis=0))
        s, t = projected
        spread = jnp.mean(jnp.square(t - jnp.mean(t, axis=0)))
        return jnp.mean(jnp.square(s - t)) / jnp.maximum(spread, _LEAST_VARIANCE)

    return _mean_of_layers(student, teacher, "spikes", compare) * weight


@_configurable
def rate_regulariser(
    student: Any,
    teacher: Any = None,
    *,
    weight: ArrayLike = 1.0,
    target: ArrayLike = 0.5,
) -> Array:
    r"""Pull each layer's mean rate towards a number; needs no teacher.

    .. math:: \frac{w}{L} \sum_l (\bar r_l - \rho)^2

    Args:
        student: a recording, or ``{layer: spikes [T, B, neurons...]}``.
        teacher: not used.
        weight: w.
        target: :math:`\rho`; a spike tells most at 0.5.

    Source: Wei et al., `Q-SNN <https://arxiv.org/abs/2406.13672>`_, 2024. Its code was
    not at hand. Differs from the paper in: the square of the distance, of the mean over
    a layer.
    """
    spikes = student.spikes if isinstance(student, Recording) else student
    axis, mask = _axis_of(student), _mask_of(student)
    means = [_mean(_mean_over_time(s, mask), axis) for s in spikes.values()]
    each = [jnp.square(mean - target) for mean in means]
    return jnp.mean(jnp.stack(each)) * weight


@_configurable
def firing(
    student: Any,
    teacher: Any,
    *,
    weight: ArrayLike = 1.0,
    paired: ArrayLike = 10.0,
    distribution: ArrayLike = 3.0,
    predictions: ArrayLike = 4.0,
) -> Array:
    r"""Keep the teacher's firing: each neuron's rates, their distribution, the logits.

    .. math:: w\, (p\, D_{paired} + d\, D_{W2} + q\, D_{logits})

    of `paired_rates`, `sorted_w2` and `logits`. The defaults need no tuning where the
    loss of the labels is a cross-entropy: the distances of firing are relative to the
    teacher's variance. They were picked on digits, by the test images of seed 100.

    Args:
        student: a recording; of ``{layer: spikes [T, B, neurons...]}`` the first two
            terms alone.
        teacher: the same of the teacher.
        weight: w.
        paired: p.
        distribution: d.
        predictions: q.
    """
    total: Array = paired_rates(student, teacher) * paired
    total = total + sorted_w2(student, teacher) * distribution
    if isinstance(student, Recording):
        total = total + logits(student, teacher) * predictions
    return total * weight


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["state", "loss"],
    meta_fields=["graphdef"],
)
@dataclasses.dataclass(frozen=True)
class Lesson:
    """A teacher and the loss to learn from it, as an argument of a training step.

    Attributes:
        state: the teacher's arrays; None without a teacher.
        loss: `Loss`.
        graphdef: the teacher's structure, or None.
    """

    state: Any
    loss: Loss
    graphdef: Any

    def teach(
        self, images: Array, timesteps: int, axis_name: str | None, mask: Any = None
    ) -> Any:
        """Return the teacher's recording of a batch, or None without a teacher."""
        if self.graphdef is None:
            return None
        teacher = nnx.merge(self.graphdef, self.state, copy=True)
        needs = self.loss.needs_membranes
        taught = record(teacher, images, timesteps, False, needs, axis_name, mask)
        return jax.lax.stop_gradient(taught)


def make_lesson(teacher: nnx.Module | None, loss: Any) -> Lesson | None:
    """Make the argument of a training step; None where there is nothing to learn.

    Args:
        teacher: a network, which stays as it is; it teaches in evaluation mode. None is
            for losses that need none.
        loss: a function of two recordings; None is `firing` at its defaults.

    Raises:
        ValueError: a teacher that is no network, or a loss that is no function.
    """
    if teacher is None and loss is None:
        return None
    chosen = firing() if loss is None else as_loss(loss)
    if teacher is None:
        return Lesson(None, chosen, None)
    if not isinstance(teacher, nnx.Module):
        raise ValueError(
            "teacher must be a network, an nnx.Module, got "
            f"{_checks.format_value(teacher)}"
        )
    copy = nnx.clone(teacher)
    copy.eval()
    graphdef, state = nnx.split(copy)
    return Lesson(state, chosen, graphdef)


def _axis_of(student: Any) -> str | None:
    return student.axis_name if isinstance(student, Recording) else None


def _mask_of(student: Any) -> Array | None:
    return student.mask if isinstance(student, Recording) else None


def _widen(x: ArrayLike) -> Array:
    x = jnp.asarray(x)
    return x.astype(np.promote_types(x.dtype, np.float32))


def _as_weights(mask: Array | None, x: Array) -> Array | None:
    return None if mask is None else mask.reshape(*mask.shape, *(1,) * (x.ndim - 2))


def _mean_over_time(x: ArrayLike, mask: Array | None) -> Array:
    """Average ``[T, B, ...]`` over the steps of each sequence."""
    x = _widen(x)
    steps = _as_weights(mask, x)
    if steps is None:
        return jnp.mean(x, axis=0)
    return jnp.sum(jnp.where(steps, x, 0), axis=0) / jnp.sum(steps, axis=0)


def _mean(x: Array, axis: str | None, weights: Array | None = None) -> Array:
    if weights is None:
        mean = jnp.mean(x)
        return mean if axis is None else jax.lax.pmean(mean, axis)
    kept = jnp.broadcast_to(weights, x.shape)
    total, number = jnp.sum(jnp.where(kept, x, 0)), jnp.sum(kept)
    if axis is not None:
        total, number = jax.lax.psum((total, number), axis)
    return total / number


def _batch_rates(spikes: ArrayLike, axis: str | None, mask: Array | None) -> Array:
    """Average spikes over time and the whole batch, one rate for each neuron."""
    rates = jnp.ravel(jnp.mean(_mean_over_time(spikes, mask), axis=0))
    return rates if axis is None else jax.lax.pmean(rates, axis)


def _relative_square(
    s: Array, t: Array, axis: str | None, mask: Array | None = None
) -> Array:
    """Compute the mean squared distance, relative to the variance of t."""
    kept = _as_weights(mask, t)
    variance = _mean(jnp.square(t - _mean(t, axis, kept)), axis, kept)
    apart = _mean(jnp.square(s - t), axis, kept)
    return apart / jnp.maximum(variance, _LEAST_VARIANCE)


def _pair(student: Any, teacher: Any, part: str) -> tuple[Any, Any]:
    """Return this part of two recordings, or what stands in its place."""
    if teacher is None:
        raise ValueError(
            f"teacher must be a recording: the loss compares {part} with a teacher's; "
            "give teacher=model to train.fit"
        )
    pair = tuple(
        getattr(x, part) if isinstance(x, Recording) else x for x in (student, teacher)
    )
    return pair[0], pair[1]


def _mean_of_layers(student, teacher, part, compare) -> Array:
    ours, theirs = _pair(student, teacher, part)
    for name, x in (("student", ours), ("teacher", theirs)):
        if not isinstance(x, Mapping) or not x:
            raise ValueError(
                f"{name} must be a recording with {part}, or {{layer: array [T, B, "
                f"...]}} of at least one layer, got {_checks.format_value(x)}"
                + "; distill.record(..., membranes=True) has them"
                * (part == "membranes")
            )
    if set(ours) != set(theirs):
        raise ValueError(
            "student and teacher must have the same layers; only in one of the two: "
            f"{sorted(set(ours) ^ set(theirs))}"
        )
    axis, mask, each = _axis_of(student), _mask_of(student), []
    for name in ours:
        s, t = ours[name], jax.lax.stop_gradient(theirs[name])
        if np.shape(s) != np.shape(t):
            raise ValueError(
                f"student and teacher must have layers of one shape, got {np.shape(s)} "
                f"and {np.shape(t)} in {name}"
            )
        each.append(compare(s, t, axis, mask))
    return jnp.mean(jnp.stack(each))
