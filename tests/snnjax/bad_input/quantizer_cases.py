"""Bad input to quantizers, and to the spec that names them."""

from functools import partial

import jax
import numpy as np

from snnjax import quantize
from tests.snnjax.bad_input.core_cases import FIVE, STATE, X
from tests.snnjax.bad_input.table import INF, NAN, NOT_FLOATING, allowed, refused

BITS, OTHER_BITS = [0, 17, 2.5], [-1, NAN, INF, np.array(0), "4"]
CLIPS, OTHER_CLIPS = [0], [NAN, INF, np.array([1.0, -1.0, 1.0]), "1"]


def cases():
    """Yield the cases of this module."""
    scales = {"step": [*CLIPS, FIVE], "scale": [*CLIPS, FIVE]}
    for function, good, learned in (
        (quantize.uniform, {"x": X, "clip": 1.0}, None),
        (quantize.lsq, {"x": X, "step": 0.1}, "step"),
        (quantize.mint, {"x": X, "scale": 0.1}, "scale"),
        (quantize.dorefa, {"w": X}, None),
    ):
        bad = {next(iter(good)): NOT_FLOATING, "bits": [*BITS, np.full(5, 4)]}
        bad |= {learned: scales[learned]} if learned else {}
        yield from refused(function, good | {"bits": 4}, **bad)
        traced = jax.jit(lambda bits, f=function, good=good: f(**good, bits=bits))
        yield allowed(f"{function.__name__}: traced bits", partial(traced, 4))
    good = {"x": X, "bits": 4, "clip": 1.0}
    yield from refused(quantize.uniform, good, clip=[*CLIPS, *OTHER_CLIPS, FIVE])
    yield from refused(quantize.uniform, good, bits=OTHER_BITS, grid=["middle"])
    for function, options in (
        (quantize.uniform, {"clip": 1.0, "grid": "mid_tread"}),
        (quantize.uniform, {"clip": 1.0, "grid": "mid_tread", "signed": False}),
        (quantize.lsq, {"step": 0.1}),
        (quantize.mint, {"scale": 0.1}),
    ):
        yield from refused(function, {"x": X, "bits": 4, **options}, bits=[1])
    unsigned = partial(quantize.lsq, X, 0.1, bits=0, signed=False)
    yield "lsq: no unsigned bit", unsigned, "bits", 0
    x = [*NOT_FLOATING, X[:0]]
    yield from refused(quantize.lsq_init, {"x": X, "bits": 4}, x=x, bits=BITS)
    yield from refused(quantize.mint_init, {"w": X, "bits": 4}, w=x, bits=BITS)
    yield allowed("dorefa: empty", partial(quantize.dorefa, X[:0], bits=2))
    yield from lq_cases()
    yield from spec_cases()


def spec_cases():
    """`QuantSpec`."""
    spec = quantize.QuantSpec
    for method in ("uniform", "lsq", "mint", "dorefa", "lq_net"):
        good = {"method": method, "bits": 4}
        yield from refused(spec, good, bits=BITS, clip=CLIPS)
        yield f"QuantSpec: {method} without bits", partial(spec, method), "bits", method
    yield from refused(spec, {"bits": 2}, method=["quaternary"], grid=["mid"])
    for options, word, value in (
        ({"bits": 1, "grid": "mid_tread"}, "bits", 1),
        ({"method": "lsq", "bits": 1}, "bits", 1),
        ({"method": "mint", "bits": 1}, "bits", 1),
        ({"method": "lq_net", "bits": 9}, "bits", 9),
        ({"method": "mint", "bits": 2, "signed": False}, "signed", "mint"),
        ({"method": "mint", "bits": 2, "per_channel": True}, "per_channel", "mint"),
        ({"bits": 2, "clip": 1.0, "per_channel": True}, "clip", 1.0),
    ):
        yield f"QuantSpec: {options}", partial(spec, **options), word, value
    with_state = partial(spec("lq_net", bits=2), X)
    yield "QuantSpec: lq_net without its state", with_state, "state", "lq_net"
    yield from refused(spec(bits=2, per_channel=True), {}, x=[X[:0]], named="w")


def lq_cases():
    """LQ-Net, with its state."""
    yield from refused(
        quantize.lq_fit,
        {"w": X, "bits": 2},
        w=[*NOT_FLOATING, X[0], X[:0], X * NAN],
        bits=[0, 9, 2.5, NAN, "2", None],
        clip=[0, NAN, np.ones((5, 1), np.float32)],
        iterations=[-1, 1.5],
        init=["x"],
    )
    no_clip = partial(quantize.lq_fit, X, bits=2, init="clip")
    yield "lq_fit: no clip", no_clip, "clip", "clip"
    traced = jax.jit(lambda bits: quantize.lq_fit(X, bits=bits))
    yield "lq_fit: traced bits", partial(traced, 2), "bits", "traced"
    bits = jax.numpy.int32(2)
    yield allowed("lq_fit: JAX's bits", partial(quantize.lq_fit, X, bits=bits))
    for function in (quantize.lq_net, quantize.lq_update):
        good = {"w": X, "state": STATE}
        bad = [*NOT_FLOATING, X[:, :2]]
        yield from refused(function, good, w=bad, state=[STATE.basis])
    good = {"w": X, "basis": STATE.basis}
    bad = [*NOT_FLOATING, X[:, :2]]
    basis = [np.ones((2, 3), np.int32), np.ones(3, np.float32)]
    yield from refused(quantize.lq_solve, good, w=bad, basis=basis)
    level_bits = {"bits": [1, 9, 2.5], "clip": [0, np.ones(3)]}
    yield from refused(quantize.lq_levels_init, {"bits": 2}, **level_bits)
    unsigned = partial(quantize.lq_levels_init, bits=9, signed=False)
    yield "lq_levels_init: unsigned", unsigned, "bits", 9
    bad = {"x": NOT_FLOATING, "basis": [STATE.basis, np.ones(9, np.float32)]}
    yield from refused(quantize.lq_levels, {"x": X, "basis": STATE.basis[0]}, **bad)
