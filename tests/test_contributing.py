"""The worked example of CONTRIBUTING.md is a quantizer that keeps its rules."""

import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

PAGE = Path(__file__).parents[1] / "CONTRIBUTING.md"


@pytest.fixture(scope="module")
def names():
    names: dict = {}
    text = PAGE.read_text(encoding="utf-8")
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        exec(compile(block, PAGE.name, "exec"), names)
    return names


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_its_rows_hold(names, bits):
    x = np.random.default_rng(0).normal(0, 0.6, 500).astype(np.float32)
    quantize = lambda w: names["powers_of_two"](w, bits=bits, clip=1.0)  # noqa: E731
    got, pullback = jax.vjp(quantize, jnp.asarray(x))
    np.testing.assert_allclose(got, names["powers_forward"](x, bits, 1.0), rtol=1e-6)
    (gradient,) = pullback(jnp.ones(500))
    np.testing.assert_array_equal(
        gradient, names["powers_pullback"](np.ones(500), x, bits, 1.0)
    )


def test_it_passes_the_tests_of_conformance(names):
    sys.path.insert(0, str(Path(__file__).parent / "snnjax" / "quantize"))
    import test_conformance as conformance

    row = conformance.Row(
        names["powers_of_two"],
        names["powers_forward"],
        names["powers_pullback"],
        bits=(2, 3, 4),
        has_zero=False,
    )
    for clip in (1.0, 0.7):
        conformance.test_levels(row, clip)
        conformance.test_gradient_at_the_edge_and_beyond(row, clip)
        with jax.enable_x64(True):
            conformance.test_forward_is_the_formula(row, None, clip)
            conformance.test_gradient_is_the_written_rule(row, None, clip)
    conformance.test_monotone_and_idempotent(row)
    conformance.test_jit_equals_eager_and_nothing_recompiles(row)
    conformance.test_nan_stays_nan(row)
    conformance.test_jaxpr_shows_a_custom_vjp(row)


def test_it_refuses_bad_input(names):
    for wrong in (dict(bits=5, clip=1.0), dict(bits=2, clip=0.0)):
        with pytest.raises(ValueError, match=r"bits|clip"):
            names["powers_of_two"](jnp.ones(3), **wrong)
