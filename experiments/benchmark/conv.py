"""Compare the convolutions of a SEW-ResNet18 with XLA's own, in this process."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from experiments.benchmark.config import BenchmarkConfig
from experiments.benchmark.timing import Comparison, Comparisons, Work, make_timer
from snnjax.conv import conv2d

# Height and width, channels in and out, kernel, stride.
SHAPES = (
    (32, 3, 64, 3, 1),
    *((32 // 2**i, 64 * 2**i, 64 * 2**i, 3, 1) for i in range(4)),
    *((32 // 2**i, 64 * 2**i, 128 * 2**i, 3, 2) for i in range(3)),
    *((32 // 2**i, 64 * 2**i, 128 * 2**i, 1, 2) for i in range(3)),
)
MEASURES = ("forward seconds", "with gradients seconds")


def compare_convolutions(config: BenchmarkConfig, peers: object) -> Comparisons:
    """Yield forward, and forward with both gradients, of each shape."""
    del peers
    rng = np.random.default_rng(0)
    for size, c_in, c_out, kernel, stride in SHAPES:
        # The stem sees a still image, all others T of them.
        images = config.batch * (1 if c_in == 3 else config.timesteps)

        def draw(*shape):
            return jnp.asarray(rng.normal(size=shape), jnp.float32)

        x = draw(images, size, size, c_in)
        w = draw(kernel, kernel, c_in, c_out)
        dy = draw(images, size // stride, size // stride, c_out)
        pads = ((kernel // 2,) * 2,) * 2

        def ours(x, w, stride=stride, pads=pads):
            return conv2d(x, w, strides=stride, padding=pads)

        def native(x, w, stride=stride, pads=pads):
            layout = ("NHWC", "HWIO", "NHWC")
            return lax.conv_general_dilated(
                x, w, (stride, stride), pads, dimension_numbers=layout
            )

        functions = {"snnjax conv2d": ours, "lax conv_general_dilated": native}
        work: Work = {name: _time(f, x, w, dy) for name, f in functions.items()}
        title = f"{images}x{size}x{size}x{c_in} to {c_out}, {kernel}x{kernel}"
        yield Comparison(f"{title}, stride {stride}", work, MEASURES)


def _time(convolve, x, w, dy):
    forward = jax.jit(convolve)

    @jax.jit
    def gradients(x, w, dy):
        y, backward = jax.vjp(convolve, x, w)
        return y, backward(dy)

    functions = (
        lambda: forward(x, w).block_until_ready(),
        lambda: jax.block_until_ready(gradients(x, w, dy)),
    )
    return make_timer(**dict(zip(MEASURES, functions, strict=True)))
