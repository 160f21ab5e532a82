"""Bad input to quantizers."""

from functools import partial

import jax
import numpy as np

from snnjax import quantize
from tests.snnjax.bad_input.core_cases import STATE, X, not_floating, numbers, text_of

# Of each quantizer a good call, to be spoilt.
uniform = partial(quantize.uniform, X, bits=4, clip=1.0)
lsq = partial(quantize.lsq, X, 0.1, bits=4)
mint = partial(quantize.mint, X, 0.1, bits=4)
dorefa = partial(quantize.dorefa, X, bits=4)
lq_fit = partial(quantize.lq_fit, X, bits=2)


def cases():
    """Name, call, what the error says."""
    yield from quantizer_cases()


def quantizer_cases():
    """Quantizers, and the spec that names them."""
    some = {"uniform": uniform, "lsq": lsq, "mint": mint, "dorefa": dorefa}
    bits = (0, -1, 33, 2.5, np.nan, np.inf, np.array(0), "4")
    for name, call in some.items():
        yield from numbers(f"quantize.{name}", call, "bits", bits, "bits")
        function = partial(call.func, **call.keywords)
        yield from not_floating(f"quantize.{name}", function, *call.args[1:])
        bad = partial(call, bits=np.full(5, 4))
        yield f"quantize.{name}: bits' shape", bad, "bits .*\\(2, 3\\).*\\(5,\\)"
        traced = jax.jit(lambda bits, call=call: call(bits=bits))
        yield f"quantize.{name}: traced bits", partial(traced, 4), None
    clips = (0, -1, np.nan, np.inf, np.array([1.0, -1.0, 1.0]), "1")
    yield from numbers("quantize.uniform", uniform, "clip", clips, "clip must be")
    bad = partial(uniform, clip=np.ones(5, np.float32))
    yield "quantize.uniform: clip's shape", bad, "clip .*\\(2, 3\\).*\\(5,\\)"
    bad = partial(uniform, grid="middle")
    yield "quantize.uniform: grid", bad, "grid .*'mid_rise', 'mid_tread'.*got 'middle'"
    bad = partial(uniform, bits=1, grid="mid_tread")
    yield "quantize.uniform: 1 bit with a zero", bad, "bits from 2 to 16, got 1"
    for name, method in (("step", quantize.lsq), ("scale", quantize.mint)):
        for value in clips:
            says = f"{name} must be .*got .*{text_of(value)}"
            where = f"quantize.{method.__name__}: {name}={value}"
            yield where, partial(method, X, value, bits=4), says
        bad = partial(method, X, np.ones(5, np.float32), bits=4)
        says = f"{name} .*\\(2, 3\\).*\\(5,\\)"
        yield f"quantize.{method.__name__}: {name}'s shape", bad, says
    for name in ("lsq_init", "mint_init"):
        function = getattr(quantize, name)
        yield from numbers(f"quantize.{name}", partial(function, X), "bits", bits, "bi")
        yield from not_floating(f"quantize.{name}", function, bits=4)
        bad = partial(function, X[:0], bits=4)
        yield f"quantize.{name}: empty", bad, "is empty"
    yield "quantize.dorefa: empty", partial(quantize.dorefa, X[:0], bits=2), None
    yield from lq_cases()
    for method in ("uniform", "lsq", "mint", "dorefa", "lq_net"):
        spec = partial(quantize.QuantSpec, method)
        yield from numbers(f"QuantSpec {method}", spec, "bits", bits, "bits")
        yield f"QuantSpec {method}: no bits", spec, f"'{method}' needs bits"
        clip = partial(spec, bits=4)
        yield from numbers(f"QuantSpec {method}", clip, "clip", clips, "clip must be")
    yield (
        "QuantSpec: method",
        partial(quantize.QuantSpec, "ternary", bits=2),
        "method .*'uniform'.*got 'ternary'",
    )
    spec = quantize.QuantSpec("lq_net", bits=2)
    yield "QuantSpec lq_net: called", partial(spec, X), "'lq_net' has a state"
    spec = quantize.QuantSpec("dorefa", bits=2)
    yield "QuantSpec dorefa: scale", spec.first_scale, "'dorefa' learns no scale"
    spec = quantize.QuantSpec(bits=2, per_channel=True)
    yield "QuantSpec per channel: empty", partial(spec, X[:0]), "w is empty"


def lq_cases():
    """LQ-Net, with its state."""
    bits = (0, -1, 9, 2.5, np.nan, "2", None)
    yield from numbers("quantize.lq_fit", lq_fit, "bits", bits, "bits")
    clips = (0, -1, np.nan, np.inf)
    yield from numbers("quantize.lq_fit", lq_fit, "clip", clips, "clip must be")
    yield (
        "quantize.lq_fit: iterations",
        partial(lq_fit, iterations=-1),
        "iterations must be .*got -1",
    )
    yield (
        "quantize.lq_fit: half",
        partial(lq_fit, iterations=1.5),
        "iterations must be .*got 1.5",
    )
    yield "quantize.lq_fit: init", partial(lq_fit, init="x"), "init .*got 'x'"
    yield "quantize.lq_fit: no clip", partial(lq_fit, init="clip"), "needs clip"
    bad = partial(lq_fit, clip=np.ones((5, 1), np.float32))
    yield "quantize.lq_fit: clip's shape", bad, "clip .*\\(3,\\).*\\(5, 1\\)"
    traced = jax.jit(lambda bits: lq_fit(bits=bits))
    yield "quantize.lq_fit: traced bits", partial(traced, 2), "that is not traced"
    yield "quantize.lq_fit: jax's bits", partial(lq_fit, bits=jax.numpy.int32(2)), None
    yield from not_floating("quantize.lq_fit", quantize.lq_fit, bits=2)
    yield (
        "quantize.lq_fit: rank",
        partial(quantize.lq_fit, X[0], bits=2),
        "\\[..., C_out\\], got shape \\(3,\\)",
    )
    yield (
        "quantize.lq_fit: empty",
        partial(quantize.lq_fit, X[:0], bits=2),
        "w is empty",
    )
    yield (
        "quantize.lq_fit: NaN",
        partial(quantize.lq_fit, X * np.nan, bits=2),
        "w has NaN or infinite",
    )
    for name in ("lq_net", "lq_update"):
        function = getattr(quantize, name)
        yield from not_floating(f"quantize.{name}", function, STATE)
        bad = partial(function, X[:, :2], STATE)
        yield f"quantize.{name}: channels", bad, "basis .*\\(2, 2\\) and \\(2, 3\\)"
        bad = partial(function, X, STATE.basis)
        yield f"quantize.{name}: a basis alone", bad, "state must be .*LqState"
    solve = quantize.lq_solve
    yield from not_floating("quantize.lq_solve", solve, STATE.basis)
    bad = partial(solve, X, np.ones((2, 3), np.int32))
    yield "quantize.lq_solve: integer basis", bad, "basis must be floating.*int32"
    bad = partial(solve, X[:, :2], STATE.basis)
    yield "quantize.lq_solve: channels", bad, "basis .*\\(2, 2\\) and \\(2, 3\\)"
