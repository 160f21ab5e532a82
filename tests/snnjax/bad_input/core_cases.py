"""Bad input to single functions: spikes, neurons, encodings, quantizers, convolution.

A case is what is called and what the error must say: a regular expression, or None
where it must work.
"""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from snnjax import conv, encoding, neurons, quantize, surrogate

X = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
KEY = jax.random.key(0)
STATE = quantize.LqState(jnp.ones((2, 3)), jnp.zeros((), jnp.int32))
IMAGE, KERNEL = np.ones((1, 4, 4, 2), np.float32), np.ones((3, 3, 2, 2), np.float32)
OBJECTS = np.array([None, None])

SURROGATES = (
    *("atan", "sigmoid", "fast_sigmoid", "triangular", "superspike", "piecewise_exp"),
    *("rectangular", "erf", "soft_sign", "leaky_k_relu", "straight_through"),
)
conv2d = partial(conv.conv2d, IMAGE, KERNEL)


def not_floating(name, function, *rest, **options):
    """The dtypes that no function of real numbers takes."""
    for kind, bad, says in (
        ("integers", np.ones((2, 3), np.int32), "int32"),
        ("complex", np.ones((2, 3), np.complex64), "complex64"),
        ("strings", np.array(["a", "b"]), "<U1 of shape \\(2,\\)"),
        ("a string", "high", "'high'"),
        ("objects", OBJECTS, "object of shape \\(2,\\)"),
        ("None", None, "None"),
        ("ragged", [[1.0], [1.0, 2.0]], "\\[\\[1.0\\], \\[1.0, 2.0\\]\\]"),
    ):
        must = (
            "floating point" if kind in ("integers", "complex") else "an array of num"
        )
        says = f"must be {must}.*, got {says}"
        yield f"{name}: {kind}", partial(function, bad, *rest, **options), says


def text_of(value):
    """How a message shows it, as a regular expression."""
    return re.escape(" ".join(str(value).split()))


def numbers(name, function, argument, bad, says):
    """Values of one argument that it cannot have."""
    for value in bad:
        text = f"{says}.*got .*{text_of(value)}"
        yield (
            f"{name}: {argument}={value}",
            partial(function, **{argument: value}),
            text,
        )


def cases():
    """Name, call, what the error says."""
    for name in SURROGATES:
        spike = getattr(surrogate, name)
        yield from not_floating(f"surrogate.{name}", spike)
        slope = (
            "slope" if name == "fast_sigmoid" else "k" if "relu" in name else "alpha"
        )
        bad = (0, -1.0, np.nan, np.inf, np.float32(-2), np.array(-2.0))
        yield from numbers(
            f"surrogate.{name}",
            partial(spike, X),
            slope,
            bad,
            f"{slope} must be positive and finite",
        )
        wrong = partial(spike, X, np.ones(5, np.float32))
        yield f"surrogate.{name}: shape", wrong, f"{slope} .*\\(2, 3\\).*\\(5,\\)"
        yield f"surrogate.{name}: text", partial(spike, X, "steep"), f"{slope}.*'steep'"
        yield f"surrogate.{name}: empty", partial(spike, X[:0]), None
    for leak in (np.nan, np.inf, -np.inf):
        call = partial(surrogate.leaky_k_relu, X, leak=leak)
        yield (
            f"surrogate.leaky_k_relu: {leak}",
            call,
            f"leak must be finite, got {leak}",
        )
    summed = surrogate.custom(lambda x, a: jnp.sum(x))
    yield (
        "surrogate.custom: a sum",
        lambda: jax.grad(lambda x: summed(x, 1.0).sum())(X),
        "each element of x alone",
    )
    yield (
        "surrogate.custom: no function",
        lambda: surrogate.custom(3),
        "relaxation must be a function.*got 3",
    )
    yield from neuron_cases()
    yield from encoding_cases()
    yield from conv_cases()
    yield from derivative_cases()


def neuron_cases():
    """Neurons, as functions and with their numbers."""
    positive = (0.0, -1.0, np.nan, np.inf, np.array(-1.0))
    for name in ("lif", "if_", "plif"):
        run = getattr(neurons, name)
        call, name = partial(run, X), f"neurons.{name}"
        yield from not_floating(name, run)
        yield f"{name}: T=0", partial(run, X[:0]), "T at least 1, got shape \\(0, 3\\)"
        yield f"{name}: scalar", partial(run, 1.0), "\\[T, ...\\].*got shape \\(\\)"
        yield f"{name}: no neurons", partial(run, X[:, :0]), None
        yield f"{name}: one neuron", partial(run, X[:, :1]), None
        yield from numbers(name, call, "v_threshold", positive, "v_threshold must be")
        yield from numbers(name, call, "alpha", positive, "alpha must be")
        yield from numbers(name, call, "v_reset", (np.nan, np.inf), "v_reset must be f")
        for argument in ("v_threshold", "v_reset", "alpha"):
            bad = partial(call, **{argument: np.ones(5, np.float32)})
            yield (
                f"{name}: shape of {argument}",
                bad,
                f"{argument} .*\\(3,\\).*\\(5,\\)",
            )
            bad = partial(call, **{argument: "low"})
            yield f"{name}: {argument} a string", bad, f"{argument} must be .*'low'"
        if name != "neurons.if_":
            bad = (1.0, 0, -2.0, np.nan, np.inf, np.array(1.0), np.array([0.5, 2, 2]))
            yield from numbers(name, call, "tau", bad, "tau must be")
        bad = partial(call, v_init=np.ones(5, np.float32))
        yield f"{name}: shape of v_init", bad, "v_init .*\\(3,\\), got \\(5,\\)"
        bad = partial(call, v_init=np.ones(3, np.complex64))
        yield f"{name}: v_init complex", bad, "v_init must be real.*complex64"
        bad = partial(call, membrane_site="pre")
        yield f"{name}: site", bad, "membrane_site .*'pre_fire'.*got 'pre'"
        bad = partial(call, membrane_quantizer=4)
        yield f"{name}: quantizer", bad, "membrane_quantizer must be .*function.*got 4"
        bad = partial(call, surrogate="atan")
        yield f"{name}: surrogate", bad, "surrogate must be .*function.*got 'atan'"
    for made in (neurons.LIF, neurons.IF, neurons.PLIF):
        name = f"neurons.{made.__name__}"
        bad = (*positive, np.array([1.0, -1.0]))
        yield from numbers(name, made, "v_threshold", bad, "v_threshold must be")
        yield from numbers(name, made, "alpha", bad, "alpha must be")
        yield from numbers(name, made, "v_reset", (np.nan, np.inf), "v_reset must be f")
        for argument in ("v_threshold", "v_reset", "alpha"):
            bad = partial(made, **{argument: "low"})
            yield f"{name}: {argument} a string", bad, f"{argument} must be .*'low'"
        if made is not neurons.IF:
            yield from numbers(name, made, "tau", (1, -2.0, np.nan), "tau must be")
    yield from numbers("neurons.PLIF", neurons.PLIF, "w", (np.nan,), "w must be finite")
    call = partial(neurons.plif, X)
    yield from numbers("neurons.plif", call, "w", (np.nan, np.inf), "w must be finite")
    step = partial(neurons.step, X[0], tau=2.0)
    v = X[0].astype(int)
    bad = partial(neurons.step, v, X[0], tau=2.0)
    yield "neurons.step: integer v", bad, "v must be floating point, got int"
    yield "neurons.step: integer x", partial(step, v), "x must be floating point.*int"
    yield "neurons.step: shapes", partial(step, X[0, :2]), "x .*\\(3,\\).*\\(2,\\)"
    bad = partial(step, X[0], membrane_site="pre")
    yield "neurons.step: site", bad, "membrane_site .*got 'pre'"
    bad = partial(step, X[0], membrane_quantizer=4)
    yield "neurons.step: quantizer", bad, "membrane_quantizer must be .*function.*got 4"


def encoding_cases():
    """Images to inputs."""
    light = np.full((2, 3), 0.5, np.float32)
    poisson, latency = partial(encoding.poisson, KEY), encoding.latency
    for name, encode in (("poisson", poisson), ("latency", latency)):
        name = f"encoding.{name}"
        yield from not_floating(name, encode, timesteps=2)
        for bad, says in ((np.nan, "nan to nan"), (-0.1, "-0.1 to"), (1.1, "to 1.1")):
            call = partial(encode, np.array([0.5, bad], np.float32), timesteps=2)
            yield f"{name}: {bad}", call, f"x must lie in \\[0, 1\\], got .*{says}"
        yield f"{name}: empty", partial(encode, light[:0], timesteps=2), None
    for name, encode in (
        ("poisson", partial(poisson, light)),
        ("latency", partial(latency, light)),
        ("direct", partial(encoding.direct, light)),
    ):
        bad = (0, -1, 2.5, np.nan, "4", None, jnp.array(2.0), True)
        yield from numbers(
            f"encoding.{name}", encode, "timesteps", bad, "timesteps must be "
        )
    bad = partial(latency, light, timesteps=2, method="exp")
    yield "encoding.latency: method", bad, "method .*'linear', 'log'.*got 'exp'"
    bad = partial(encoding.direct, OBJECTS, timesteps=2)
    yield "encoding.direct: objects", bad, "x must be an array of numbers, got object"
    bad = partial(encoding.poisson, 0, light, timesteps=2)
    yield "encoding.poisson: a seed", bad, "key must be .*jax.random.key.*got 0"


def conv_cases():
    """Convolution."""
    run = conv.conv2d
    yield "conv2d: rank of x", partial(run, IMAGE[0], KERNEL), "x .*\\(4, 4, 2\\)"
    yield "conv2d: rank of w", partial(run, IMAGE, KERNEL[0]), "w .*\\(3, 2, 2\\)"
    bad = partial(run, IMAGE[..., :1], KERNEL)
    yield "conv2d: channels", bad, "same C.*\\(1, 4, 4, 1\\)"
    bad = partial(run, IMAGE.astype(int), KERNEL)
    yield "conv2d: integers", bad, "floating-point dtype, got int"
    bad = partial(run, IMAGE.astype(np.complex64), KERNEL.astype(np.complex64))
    yield "conv2d: complex", bad, "floating-point dtype, got complex64"
    bad = partial(run, "image", KERNEL)
    yield "conv2d: a string", bad, "x must be an array of numbers, got 'image'"
    yield from numbers("conv2d", conv2d, "strides", (0, -1, (1, 0)), "strides must be")
    bad = (1.5, (1,), (1, 1, 1), "2", None)
    for value in bad:
        says = f"strides must be .*got {value!r}".replace("(", ".").replace(")", ".")
        yield f"conv2d: strides={value!r}", partial(conv2d, strides=value), says
    for value in (-1, ((0, 0), (0, -1)), 1.5, (1, 1), ((1, 1),), "SAME", None):
        says = f"padding must be .*got {value!r}".replace("(", ".").replace(")", ".")
        yield f"conv2d: padding={value!r}", partial(conv2d, padding=value), says
    bad = partial(run, IMAGE[:, :2], KERNEL)
    yield "conv2d: nothing left", bad, "kernel \\(3, 3\\) is larger.*\\(2, 4\\)"
    yield "conv2d: no image", partial(run, IMAGE[:0], KERNEL), None
    yield (
        "conv2d: no kernel",
        partial(run, IMAGE, KERNEL[:0]),
        "w must .*at least 1.*\\(0, 3, 2, 2\\)",
    )


def derivative_cases():
    """Forward mode, and second derivatives that are refused."""
    forward = "forward-mode.*custom_vjp|custom_vjp.*forward|forward-mode"
    calls = {
        "surrogate.atan": surrogate.atan,
        "neurons.lif": lambda x: neurons.lif(x)[0],
        "quantize.uniform": lambda x: quantize.uniform(x, bits=4, clip=1.0),
        "quantize.lsq": lambda x: quantize.lsq(x, 0.1, bits=4),
        "quantize.mint": lambda x: quantize.mint(x, 0.1, bits=4),
        "quantize.dorefa": lambda x: quantize.dorefa(x, bits=4),
        "quantize.lq_net": lambda x: quantize.lq_net(x, STATE),
    }
    for name, function in calls.items():
        yield f"{name}: jvp", partial(jax.jvp, function, (X,), (X,)), forward
        yield f"{name}: jacfwd", partial(jax.jacfwd(function), X), forward
    convolve = partial(conv.conv2d, IMAGE)
    yield "conv2d: jvp", partial(jax.jvp, convolve, (KERNEL,), (KERNEL,)), forward
