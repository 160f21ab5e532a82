"""Functions that measure, under JAX's strict promotion modes, which projects set."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import cost, emd, firing, models, spiketrain
from snnjax.firing import FiringCounts

rng = np.random.default_rng(0)
X, Y = (jnp.asarray(rng.random(n), jnp.float32) for n in (20, 7))
C, D = jnp.asarray(rng.integers(0, 40, 20)), jnp.asarray(rng.integers(0, 9, 7), "uint8")
CLOUD = jnp.asarray(rng.random((20, 2)), jnp.float32)
HALF, EIGHT = jnp.bfloat16(0.5), jnp.asarray(rng.random((6, 3, 5)) < 0.3)
TRAINS = {
    "unrolled": (EIGHT.astype(jnp.float32), EIGHT[::-1]),
    "scanned": tuple(
        jnp.asarray(rng.random((40, 3)) < 0.3, dtype) for dtype in ("bfloat16", "int32")
    ),
}
A = FiringCounts({"a": C}, 40)
B = FiringCounts({"a": C.astype(jnp.int16)}, 50)

CALLS = {
    "layer_emd": (lambda x, y: emd.layer_emd({"a": x}, {"a": y}, (40, 50)), C, D),
    "layer_emd sorted": (lambda x, y: emd.layer_emd({"a": x}, {"a": y}, 10**6), C, D),
    "emd sorted": (lambda x, y: emd.emd_from_counts(x, y, (10**6, 10**5)), C, D),
    "ks_from_counts": (lambda x, y: emd.ks_from_counts(x, y, (40, 50)), C, D),
    "histogram_emd": (emd.histogram_emd, jnp.stack([X, X]), C, HALF),
    "soft_cdf": (lambda x, t: emd.soft_cdf(x, points=8, temperature=t), X, HALF),
    "soft_cdf_distance": (
        lambda x, t: emd.soft_cdf_distance(x, t, temperature=0.1),
        X,
        jnp.linspace(0, 1, 8, dtype=jnp.bfloat16),
    ),
    "sliced": (emd.sliced, CLOUD, CLOUD[:7]),
    "total": (firing.total, EIGHT, jnp.ones(3, jnp.uint8)),
    "total_by_group": (
        lambda s, g: firing.total_by_group(s, g, 2),
        EIGHT,
        jnp.array([0, 1, 1], jnp.uint8),
    ),
    "FiringCounts +": (lambda a, b: a + b, A, B),
    "latency_total": (spiketrain.latency_total, EIGHT, jnp.ones(3, jnp.uint8)),
}
for kind, (x, y) in {
    "equal": (X, X[::-1]),
    "unequal": (X, Y),
    "integers": (C, Y),
    "bfloat16": (X.astype(jnp.bfloat16), Y),
}.items():
    CALLS |= {
        f"wasserstein_1d {kind}": (emd.wasserstein_1d, x, y),
        f"weighted {kind}": (emd.wasserstein_1d, x, y, jnp.ones(20, jnp.int32)),
        f"wasserstein_p_1d {kind}": (
            lambda x, y: emd.wasserstein_p_1d(x, y, p=3),
            x,
            y,
        ),
        f"ott {kind}": (emd.ott_wasserstein_1d, x, y),
    }
CALLS |= {
    "sinkhorn": (lambda x, y: emd.sinkhorn_divergence(x, y, epsilon=0.1), X, Y),
    "plan": (lambda x, y, e: emd.transport_plan(x, y, epsilon=e), X, Y, HALF),
    "sinkhorn's gradient": (
        jax.grad(lambda x, y: emd.sinkhorn_divergence(x, y, epsilon=0.1)),
        X,
        Y,
    ),
    "wasserstein's gradient": (jax.grad(jax.jit(emd.wasserstein_1d)), X, Y),
    "soft gradient": (
        jax.grad(
            lambda x: emd.soft_cdf_distance(x, jnp.linspace(0, 1, 8), temperature=0.1)
        ),
        X,
    ),
}
for kind, (x, y) in TRAINS.items():
    CALLS |= {
        f"isi {kind}": (spiketrain.isi, x, y),
        f"spike {kind}": (spiketrain.spike, x, y),
        f"latency {kind}": (spiketrain.latency, x),
        f"time_wasserstein {kind}": (spiketrain.time_wasserstein, x, y),
    }
    for distance, option in (
        (spiketrain.van_rossum, "tau"),
        (spiketrain.victor_purpura, "cost"),
        (spiketrain.time_wasserstein, "unmatched"),
    ):
        for number in (2.0, HALF, jnp.int32(2)):
            CALLS[f"{distance.__name__} {kind} {jnp.result_type(number)} {option}"] = (
                lambda x, y, n, f=distance, o=option: f(x, y, **{o: n}),
                x,
                y,
                number,
            )

HOST = {
    "report": lambda: firing.report(A, B),
    "report by ott": lambda: firing.report(A, B, method="ott"),
    "verdict": lambda: firing.verdict(A, B),
    "flow": lambda: emd.flow(X, Y),
    "from_spikes": lambda: FiringCounts.from_spikes({"a": EIGHT}),
    "energy": lambda: cost.energy(jnp.int32(3), jnp.float32(2)),
    "memory_bits": lambda: cost.memory_bits([(jnp.int32(3), 2.5)]),
}


@contextlib.contextmanager
def strict():
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_strict_modes_change_nothing(name):
    function, *arguments = CALLS[name]
    for call in (function, jax.jit(lambda *a: function(*a))):
        expected = call(*arguments)
        with strict():
            found = call(*arguments)
        for x, y in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
            np.testing.assert_allclose(
                np.asarray(x, np.float64), np.asarray(y, np.float64), rtol=1e-6
            )


@pytest.mark.parametrize("name", HOST)
def test_strict_modes_change_nothing_on_the_host(name):
    expected = HOST[name]()
    with strict():
        found = HOST[name]()
    for x, y in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("timesteps", [2, 12])
def test_networks_run_under_strict_dtype_promotion(timesteps):
    model = models.SEWResNet(5, blocks=(1,), width=2, in_channels=1, rngs=nnx.Rngs(0))
    with jax.numpy_dtype_promotion("strict"):
        logits, _ = model(jnp.ones((1, 8, 8, 1)), timesteps=timesteps)
    assert logits.shape == (timesteps, 1, 5)
