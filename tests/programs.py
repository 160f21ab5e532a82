"""What a traced program does."""

import jax


def equations(jaxpr):
    """Every equation, those of inner programs too."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(list(equation.params.values())):
            value = getattr(value, "jaxpr", value)
            if hasattr(value, "eqns"):
                yield from equations(value)
