"""Lists for few steps, arrays for many: the same numbers."""

import importlib
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax.spiketrain import sequences

# The compiled cores, which would remember how they were traced.
CORES = {
    "isi": lambda core, x, y: core(x, y),
    "spike": lambda core, x, y: core(x, y),
    "van_rossum": lambda core, x, y: core(x, y, jnp.float32(2)),
}


@pytest.mark.parametrize("name", CORES)
def test_both_ways_are_equal(name, monkeypatch):
    x, y = np.random.default_rng(0).random((2, 5, 50)) < 0.3
    x[:, 0] = y[:, 1] = False
    module = importlib.import_module(f"snnjax.spiketrain.{name}")
    core = inspect.unwrap(getattr(module, f"_{name}"))
    found = []
    for longest in (16, 2):
        monkeypatch.setattr(sequences, "UNROLL", longest)
        assert isinstance(sequences.as_sequence(jnp.asarray(x)), list) == (
            longest == 16
        )
        found.append(jax.jit(lambda x, y: CORES[name](core, x, y))(x, y))
    np.testing.assert_allclose(*found, 2e-6, 1e-7)


@pytest.mark.parametrize("kind", [list, jnp.asarray])
def test_both_kinds_go_through_time_in_order_and_back(kind):
    @jax.jit
    def run(x):
        x = kind(x)

        def step(carry, now):
            return 10 * carry + now[0], carry

        start = jnp.float32(0)
        (last, seen), (first, behind) = (
            sequences.scan_steps(step, start, x, reverse=reverse)
            for reverse in (False, True)
        )
        whole = sequences.concatenate((x[4],), x)
        assert isinstance(whole, list) == isinstance(seen, list) == (kind is list)
        assert len(whole) == 6
        assert len(seen) == 5
        total = sequences.sum_steps(whole)
        return last, seen[2], first, behind[2], total

    found = [float(value) for value in run(jnp.arange(5.0))]
    assert found == [1234, 1, 43210, 43, 14]
