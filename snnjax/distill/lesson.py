"""A teacher and a loss, as an argument of a training step."""

import dataclasses
import functools
from typing import Any

import jax
from flax import nnx
from jax import Array

from snnjax import _checks
from snnjax.distill.combined import firing
from snnjax.distill.loss import Loss, LossSum, as_loss
from snnjax.distill.recording import record


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
        loss: `Loss`, or a sum of such.
        graphdef: the teacher's structure, or None.
    """

    state: Any
    loss: Loss | LossSum
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
