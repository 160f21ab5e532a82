"""What a traced program does."""

import contextlib

import jax

COMPILED = "/jax/core/compile/backend_compile_duration"


def equations(jaxpr):
    """Every equation, those of inner programs too."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(list(equation.params.values())):
            value = getattr(value, "jaxpr", value)
            if hasattr(value, "eqns"):
                yield from equations(value)


@contextlib.contextmanager
def compilations():
    """A list with an entry for each program that XLA compiles meanwhile."""
    found = []

    def listen(event, seconds, **_):
        if event == COMPILED:
            found.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
