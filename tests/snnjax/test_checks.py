"""Argument checks see the values of concrete JAX arrays, and no traced ones."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import _checks, emd, neurons, quantize


def check_half(value):
    _checks.require_values(value, lambda x: x % 1 == 0, "n must be whole")


CHECKS = [
    (_checks.require_positive, [-1.0, 0.0, np.nan, np.inf], [1.0, 2.0]),
    (_checks.require_finite, [np.nan, -np.inf], [0.0, -3.0]),
    (_checks.require_positive_number, [0.0, np.nan, np.inf], [1e-30, 3.0]),
    (lambda _, value: check_half(value), [0.5, np.nan], [0.0, 4.0]),
]


@pytest.mark.parametrize(("check", "bad", "good"), CHECKS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_concrete_jax_arrays_are_checked_in_and_outside_jit(check, bad, good, dtype):
    for value in bad:
        array = jnp.asarray(value, dtype)
        with pytest.raises(ValueError, match="must be"):
            check("n", array)
        with pytest.raises(ValueError, match="must be"):
            jax.jit(lambda x, array=array: (check("n", array), x)[1])(1.0)
        # Nothing is known of a traced one.
        jax.jit(lambda x: (check("n", x), x)[1])(array)
    for value in good:
        check("n", jnp.asarray(value, jnp.float32))


@pytest.mark.parametrize("check", [_checks.require_positive, _checks.require_finite])
def test_one_bad_element_of_an_array_is_enough(check):
    value = jnp.ones((3, 4)).at[2, 1].set(jnp.nan)
    with pytest.raises(ValueError, match="must be"):
        check("n", value)
    check("n", jnp.ones((3, 4)))


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda x: neurons.lif(jnp.ones((2, 3)), v_threshold=x), "v_threshold"),
        (lambda x: neurons.lif(jnp.ones((2, 3)), tau=x), "tau"),
        (lambda x: quantize.uniform(jnp.ones(3), bits=4, clip=x), "clip"),
        (lambda x: emd.soft_cdf(jnp.ones(3), points=2, temperature=x), "temperature"),
        (lambda x: emd.histogram_emd(jnp.ones(3), jnp.ones(3), x), "bin_width"),
        (lambda x: emd.wasserstein_1d(jnp.ones(1), jnp.ones(1), x[None]), "x_weights"),
    ],
)
def test_public_functions_refuse_a_concrete_negative_number(call, argument):
    with pytest.raises(ValueError, match=argument):
        call(jnp.float32(-0.5))


def test_fractional_bits_are_refused_as_a_jax_array_too():
    with pytest.raises(ValueError, match="bits"):
        quantize.uniform(jnp.ones(3), bits=jnp.float32(2.5), clip=1.0)


@pytest.mark.slow
def test_checks_of_python_numbers_start_no_backend():
    program = (
        "from snnjax import _checks; import jax\n"
        "_checks.require_positive('n', 2.0); _checks.require_finite('n', [1, 2])\n"
        "_checks.require_positive_number('n', 3)\n"
        "from jax._src import xla_bridge; assert not xla_bridge._backends\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True)
    assert done.returncode == 0, done.stderr
