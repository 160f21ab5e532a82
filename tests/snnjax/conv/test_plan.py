"""The plan of a convolution: what it says, and that conv2d follows it."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax.conv import conv2d, plan

SHAPES = {
    "many channels": ((32, 16, 16, 64), (3, 3, 64, 64), 1, 1),
    "few channels": ((32, 16, 16, 16), (3, 3, 16, 16), 1, 1),
    "strided": ((8, 16, 16, 16), (3, 3, 16, 32), 2, 1),
    "strided 1x1": ((8, 16, 16, 16), (1, 1, 16, 32), 2, 0),
    "groups": ((8, 16, 16, 16), (3, 3, 8, 32), 1, 1),
}


@pytest.mark.parametrize("name", SHAPES)
def test_xla_is_always_a_candidate(name):
    x, w, strides, padding = SHAPES[name]
    groups = x[-1] // w[2]
    for choice in plan(x, w, strides=strides, padding=padding, groups=groups):
        assert choice.candidates[0] == "xla"
        assert choice.path in choice.candidates
        assert choice.reason


def test_arrays_and_shapes_are_the_same():
    x, w = jnp.zeros((2, 8, 8, 3)), jnp.zeros((3, 3, 3, 16))
    assert plan(x, w, padding=1) == plan(x.shape, w.shape, padding=1)
    abstract = jax.eval_shape(lambda: (x, w))
    assert plan(*abstract, padding=1) == plan(x, w, padding=1)


def test_what_fits_no_convolution_is_refused():
    with pytest.raises(ValueError, match="the same C"):
        plan((1, 8, 8, 4), (3, 3, 5, 8))
    with pytest.raises(ValueError, match="x must be an array or its shape"):
        plan(8, (3, 3, 5, 8))


def test_measuring_chooses_the_fastest_and_conv2d_follows(monkeypatch):
    x, w = (2, 6, 6, 5), (3, 3, 5, 4)
    module = sys.modules["snnjax.conv.plan"]
    monkeypatch.setattr(module, "_MEASURED", {})
    found = plan(x, w, padding=1, measure=True)
    for choice in found:
        fastest = choice.candidates[int(np.argmin(choice.seconds))]
        assert choice.path == fastest
        assert min(choice.seconds) > 0
    assert plan(x, w, padding=1) == found

    for path in ("winograd", "xla"):  # whichever was the fastest
        for key, choice in module._MEASURED.items():
            module._MEASURED[key] = choice._replace(path=path)
        program = jax.jit(lambda x, w: conv2d(x, w, padding=1)).lower(
            jax.ShapeDtypeStruct(x, jnp.float32), jax.ShapeDtypeStruct(w, jnp.float32)
        )
        assert ("dot_general" in program.as_text()) == (path == "winograd")
