"""Every distance on a mesh of eight devices, few steps and many."""

import subprocess
import sys

import pytest

PROGRAM = """
import os
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
import functools, jax, numpy as np
from jax.sharding import PartitionSpec as P
from snnjax import spiketrain

mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
distances = (
    functools.partial(spiketrain.van_rossum, tau=2.0),
    functools.partial(spiketrain.victor_purpura, cost=0.5),
    spiketrain.time_wasserstein,
    spiketrain.isi,
    spiketrain.spike,
    lambda x, y: spiketrain.latency(x),
)
batch = P(None, "data")
for steps in (4, 20):
    x, y = np.random.default_rng(0).random((2, steps, 16, 3)) < 0.3
    together = lambda x, y: [distance(x, y) for distance in distances]
    sharded = jax.shard_map(
        together, mesh=mesh, in_specs=(batch, batch), out_specs=P("data")
    )
    for on_mesh, alone in zip(jax.jit(sharded)(x, y), together(x, y), strict=True):
        np.testing.assert_allclose(on_mesh, alone, rtol=1e-6, atol=1e-6)
    total = jax.shard_map(
        lambda x: jax.lax.psum(spiketrain.latency_total(x), "data"),
        mesh=mesh, in_specs=batch, out_specs=P(),
    )
    assert np.array_equal(jax.jit(total)(x), spiketrain.latency_total(x))
"""


@pytest.mark.slow
def test_distances_work_inside_shard_map():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
