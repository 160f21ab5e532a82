"""Bad input to surrogates, neurons, encodings and convolution."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from snnjax import conv, encoding, neurons, quantize, surrogate
from tests.snnjax.bad_input.table import (
    NAN,
    NO_SIZE,
    NOT_FLOATING,
    NOT_POSITIVE,
    OBJECTS,
    OTHER_DTYPES,
    OTHER_POSITIVES,
    OTHER_SIZES,
    allowed,
    refused,
)

X = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
STATE = quantize.LqState(jnp.ones((2, 3)), jnp.zeros((), jnp.int32))
IMAGE, KERNEL = np.ones((1, 4, 4, 2), np.float32), np.ones((3, 3, 2, 2), np.float32)
FIVE = np.ones(5, np.float32)

SLOPES = {
    **dict.fromkeys(
        ("atan", "sigmoid", "triangular", "superspike", "piecewise_exp"), "alpha"
    ),
    **dict.fromkeys(("rectangular", "erf", "soft_sign", "straight_through"), "alpha"),
    **{"fast_sigmoid": "slope", "leaky_k_relu": "k"},
}


def cases():
    """Yield the cases of this module."""
    for name, slope in SLOPES.items():
        function = getattr(surrogate, name)
        bad = {"x": NOT_FLOATING, slope: [*NOT_POSITIVE, FIVE]}
        yield from refused(function, {"x": X}, **bad)
        yield allowed(f"surrogate.{name}: empty", partial(function, X[:0]))
    more = {"x": OTHER_DTYPES, "alpha": [*OTHER_POSITIVES, np.array(-2.0)]}
    yield from refused(surrogate.atan, {"x": X}, **more)
    yield from refused(surrogate.leaky_k_relu, {"x": X}, leak=[NAN])
    yield from refused(surrogate.custom, {}, relaxation=[3])
    summed = surrogate.custom(lambda x, a: jnp.sum(x))
    gradient = partial(jax.grad(lambda x: summed(x, 1.0).sum()), X)
    yield "surrogate.custom: a sum", gradient, "x", X
    yield from neuron_cases()
    yield from encoding_cases()
    yield from conv_cases()
    yield from forward_mode_cases()


def neuron_cases():
    """Neurons as functions, as modules and one step at a time."""
    potentials = {"v_threshold": [*NOT_POSITIVE, FIVE], "v_reset": [NAN, "low", FIVE]}
    potentials["alpha"] = [*NOT_POSITIVE, FIVE]
    shared = potentials | {
        "membrane_site": ["pre"],
        "membrane_quantizer": [4],
        "surrogate": ["atan"],
    }
    tau = {"tau": [1.0, NAN, np.array(1.0), np.array([0.5, 2, 2])]}
    sequences = shared | {
        "x_seq": [*NOT_FLOATING, X[:0], X[0, 0]],
        "v_init": [FIVE, np.ones(3, np.complex64)],
    }
    for function in (neurons.lif, neurons.if_, neurons.plif):
        bad = sequences | (tau if function is not neurons.if_ else {})
        yield from refused(function, {"x_seq": X}, **bad)
        for some in (X[:, :0], X[:, :1]):
            name = f"neurons.{function.__name__}: shape {some.shape}"
            yield allowed(name, partial(function, some))
    yield from refused(neurons.plif, {"x_seq": X}, w=[NAN])
    scalars = {key: bad[:-1] for key, bad in potentials.items()}
    scalars["v_threshold"] = [*scalars["v_threshold"], np.array([1.0, -1.0])]
    for made in (neurons.LIF, neurons.IF, neurons.PLIF):
        bad = {} if made is neurons.IF else {"tau": [1, NAN]}
        yield from refused(made, {}, **scalars, **bad)
    yield from refused(neurons.PLIF, {}, w=[NAN])
    yield from refused(
        neurons.step,
        {"v": X[0], "x": X[0], "tau": 2.0},
        v=[np.ones(3, np.int32)],
        x=[np.ones(3, np.int32), X[0, :2]],
        tau=[0.5],
        v_threshold=[np.ones((9, 1, 1), np.float32)],
        membrane_site=["pre"],
        membrane_quantizer=[4],
    )
    for spec, word in (
        (quantize.QuantSpec("dorefa", bits=2), "dorefa"),
        (quantize.QuantSpec(bits=2, per_channel=True), "per_channel"),
    ):
        call = partial(neurons.lif, X, membrane_quantizer=spec)
        yield f"neurons.lif: {word}", call, word, word


def encoding_cases():
    """Images to inputs."""
    light = np.full((2, 3), 0.5, np.float32)
    outside = [np.array([0.5, bad], np.float32) for bad in (NAN, -0.1, 1.1)]
    for function, good in (
        (encoding.poisson, {"key": jax.random.key(0)}),
        (encoding.latency, {}),
        (encoding.direct, {}),
    ):
        good |= {"x": light, "timesteps": 2}
        bad = (
            [*NOT_FLOATING, *outside] if function is not encoding.direct else [OBJECTS]
        )
        yield from refused(function, good, x=bad, timesteps=NO_SIZE)
        empty = partial(function, **{**good, "x": light[:0]})
        yield allowed(f"encoding.{function.__name__}: empty", empty)
    steps = [*OTHER_SIZES, jnp.array(2.0)]
    yield from refused(encoding.direct, {"x": light}, timesteps=steps)
    yield from refused(encoding.latency, {"x": light, "timesteps": 2}, method=["exp"])
    yield from refused(encoding.poisson, {"x": light, "timesteps": 2}, key=[0])


def conv_cases():
    """Convolution."""
    yield from refused(
        conv.conv2d,
        {"x": IMAGE, "w": KERNEL},
        x=[
            *(IMAGE[0], IMAGE.astype(np.int32), IMAGE.astype(np.complex64)),
            *(IMAGE[..., :1], "image"),
        ],
        w=[KERNEL[0], KERNEL[:0], jnp.asarray(KERNEL, jnp.bfloat16)],
        strides=[0, (1, 0), 1.5, (1,), "2", None],
        padding=[-1, ((0, 0), (0, -1)), 1.5, (1, 1), "SAME", None],
    )
    small = partial(conv.conv2d, IMAGE[:, :2], KERNEL)
    yield "conv2d: kernel larger than the image", small, "kernel", IMAGE[0, :2, :, 0]
    yield allowed("conv2d: no image", partial(conv.conv2d, IMAGE[:0], KERNEL))


def forward_mode_cases():
    """Forward mode, which functions with a backward pass of their own refuse."""
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
        jvp = partial(jax.jvp, function, (X,), (X,))
        yield f"{name}: jvp", jvp, "custom_vjp", "forward-mode"
    jvp = partial(jax.jvp, partial(conv.conv2d, IMAGE), (KERNEL,), (KERNEL,))
    yield "conv2d: jvp", jvp, "custom_vjp", "forward-mode"
