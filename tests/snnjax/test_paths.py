"""Paths of buckets: refused without a client, where they would be local folders."""

import importlib.util
from typing import ClassVar

import numpy as np
import pytest
from etils.epath import backend
from flax import nnx

from snnjax import checkpoint, data, layers, models, runs
from snnjax.interop import spikingjelly

TREE = {"w": np.ones(3)}
CALLS = {
    "export": lambda: checkpoint.export("gs://b/net.safetensors", TREE),
    "load": lambda: checkpoint.load("s3://b/net.safetensors", TREE),
    "save": lambda: checkpoint.save("s3://b/state", TREE),
    "exists": lambda: checkpoint.exists("gs://b/state"),
    "remove": lambda: checkpoint.remove("gs://b/state"),
    "checkpoints": lambda: runs.RunCheckpoints("gs://b/run"),
    "store": lambda: runs.Store("s3://b/run"),
    "data_dir": lambda: data.load("cifar10", "test", data_dir="gs://b/tfds"),
    "npz": lambda: data.from_npz("gs://b/data.npz"),
    "spikingjelly": lambda: spikingjelly.load(
        models.sew_resnet8(2, rngs=nnx.Rngs(0)), "gs://b/net.safetensors"
    ),
}
CLIENTS = any(importlib.util.find_spec(name) for name in ("gcsfs", "s3fs"))


@pytest.mark.skipif(CLIENTS, reason="a client of buckets is installed")
@pytest.mark.parametrize("name", CALLS)
def test_schemes_are_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"must be a local path.*got '(gs|s3)://"):
        CALLS[name]()
    assert not list(tmp_path.iterdir())


@pytest.fixture
def bucket(monkeypatch):
    """Return a bucket ``gs://b`` in memory."""
    memory = pytest.importorskip("fsspec.implementations.memory")

    class Bucket(memory.MemoryFileSystem):
        store: ClassVar = {}
        pseudo_dirs: ClassVar = [""]
        protocol = "gs"

        @classmethod
        def _strip_protocol(cls, path):
            return super()._strip_protocol("/" + str(path).removeprefix("gs://"))

    fake = Bucket()
    monkeypatch.setattr(backend.fsspec_backend, "_get_filesystem", lambda name: fake)
    return fake


def test_files_of_a_bucket_are_written_and_read(bucket, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = layers.QuantLinear(3, 2, rngs=nnx.Rngs(0))
    path = "gs://b/run/net.safetensors"
    assert not checkpoint.exists(path)
    checkpoint.export(path, model, {"width": 3})
    assert checkpoint.exists(path)
    assert checkpoint.config(path) == {"width": 3}
    loaded = checkpoint.load(path, layers.QuantLinear(3, 2, rngs=nnx.Rngs(1)))
    np.testing.assert_array_equal(loaded.kernel, model.kernel)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="there is no file"):
        checkpoint.load("gs://b/other.safetensors", model)
