"""State of a layer that can be carried from one piece of a sequence to the next."""

from typing import Any, NamedTuple

from flax import errors, nnx


class Ends(NamedTuple):
    """State of a layer before and after a piece; None is at rest, or not called yet."""

    start: Any
    end: Any


class CarriedState(nnx.Variable):
    """The `Ends` of a layer while `run_piece` runs; a network at rest has none."""


class Stateful(nnx.Module):
    """A layer with a state, at rest at every call unless `run_piece` carries it on."""

    carried: CarriedState | None

    def start_state(self) -> Any:
        """Return the state that this call begins with, None at rest.

        Raises:
            ValueError: a second call in one piece.
        """
        if self.carried is None:
            return None
        start, end = self.carried.get_value()
        if end is not None:
            raise ValueError(
                f"a {type(self).__name__} layer is called twice in one pass, and has "
                "one state to carry on; use a layer of its own at each place"
            )
        return start

    def keep_state(self, end: Any) -> None:
        """Keep the state after this call for `run_piece`, where it runs."""
        if self.carried is not None:
            start = self.carried.get_value().start
            try:
                self.carried.set_value(Ends(start, end))
            except errors.TraceContextError:
                raise ValueError(
                    f"a {type(self).__name__} layer is called in a loop of JAX's own "
                    "(jax.lax.scan, jax.vmap), out of which its state cannot carry on; "
                    "call it on the whole piece [T, B, ...] at once"
                ) from None
