"""Compare single functions in this process: convolutions, distances of layers."""

from collections.abc import Callable, Container
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from experiments.benchmark.config import BenchmarkConfig
from experiments.benchmark.timing import Comparison, Comparisons, Work, make_timer
from snnjax import emd
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


def compare_distances(config: BenchmarkConfig, peers: Container[str]) -> Comparisons:
    """Yield exact W1 from counts, from samples, weighted, and with gradients."""
    n, k = config.neurons, config.observations
    rng = np.random.default_rng(0)

    def layer(size: int, tail: float) -> np.ndarray:
        return rng.binomial(k, rng.beta(0.3, tail, size)).astype(np.int32)

    x, y = layer(n, 2.0), layer(n, 2.1)
    rates = x / k, y / k
    small = tuple(np.float32(r) for r in rates)
    weights = tuple(np.float32(rng.random(n)) for _ in range(2))
    many_x, many_y = np.tile(x, 10), np.tile(y, 10)
    on_device = jax.device_put((*small, *weights))
    inside = jax.jit(emd.wasserstein_1d)
    gradient = jax.jit(jax.value_and_grad(emd.wasserstein_1d))

    by_scipy, weighted_by_scipy, by_pot = {}, {}, {}
    if "scipy" in peers:
        from scipy.stats import wasserstein_distance

        by_scipy["scipy"] = lambda: wasserstein_distance(*rates)
        weighted_by_scipy["scipy"] = lambda: wasserstein_distance(*rates, *weights)
    if "pot" in peers:
        import ot  # pyrefly: ignore[missing-import]

        by_pot["POT wasserstein_1d"] = lambda: ot.wasserstein_1d(*rates, p=1)
        by_pot["POT emd2_1d"] = lambda: ot.emd2_1d(*rates, metric="cityblock")

    def from_counts(x, y):
        return lambda: emd.emd_from_counts(x, y, k)

    def run_to_end(function, *arrays):
        return lambda: jax.block_until_ready(function(*arrays))

    yield _comparison(
        f"counts of {n:,} neurons at {k:,}",
        {"emd_from_counts": from_counts(x, y)} | by_scipy | by_pot,
    )
    yield _comparison(
        "ten times the neurons",
        {
            f"emd_from_counts, {10 * n:,}": from_counts(many_x, many_y),
            f"emd_from_counts, {n:,}": from_counts(x, y),
        },
    )
    yield _comparison(
        f"{n:,} samples",
        {
            "wasserstein_1d": lambda: emd.wasserstein_1d(*rates),
            "wasserstein_1d in jit": run_to_end(inside, *on_device[:2]),
            "its value_and_grad in jit": run_to_end(gradient, *on_device[:2]),
        }
        | by_scipy
        | by_pot,
    )
    yield _comparison(
        f"{n:,} weighted samples",
        {
            "wasserstein_1d": lambda: emd.wasserstein_1d(*rates, *weights),
            "wasserstein_1d in jit": run_to_end(inside, *on_device),
        }
        | weighted_by_scipy,
    )


def _comparison(title: str, functions: dict[str, Callable[[], Any]]) -> Comparison:
    work = {row: make_timer(seconds=f) for row, f in functions.items()}
    return Comparison(title, work)
