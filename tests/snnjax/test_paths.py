"""Paths of buckets are refused: they would be folders in the working directory."""

import numpy as np
import pytest

from snnjax import checkpoint, data, runs

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
}


@pytest.mark.parametrize("name", CALLS)
def test_schemes_are_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"must be a local path, got '(gs|s3)://"):
        CALLS[name]()
    assert not list(tmp_path.iterdir())
