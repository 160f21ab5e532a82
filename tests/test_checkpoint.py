"""Checkpoints: what is saved is what is loaded, whole or not at all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import calibrate, checkpoint, models, train
from snnjax.quantize import QuantSpec


def state(bits=2, width=4):
    model = models.sew_resnet8(10, width=width, in_channels=1, rngs=nnx.Rngs(0))
    spec = QuantSpec(method="lq_net", bits=bits, clip=1.0)
    model = calibrate.quantize(model, {r"layer1\.0\.conv1": spec})
    return train.init(model, train.sgd(0.0))


def same(a, b):
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(x, y) and x.dtype == y.dtype for x, y in leaves)


def test_save_and_load_are_the_identity(tmp_path):
    saved = state()
    checkpoint.save(tmp_path / "a", saved)
    zero = jax.tree.map(jnp.zeros_like, saved)
    loaded = checkpoint.load(tmp_path / "a", zero)
    assert same(loaded, saved)
    assert jax.tree.structure(loaded) == jax.tree.structure(saved)


def test_saving_again_replaces(tmp_path):
    first, second = {"x": jnp.zeros(3)}, {"x": jnp.ones(3)}
    checkpoint.save(tmp_path / "a", first)
    checkpoint.save(tmp_path / "a", second)
    assert same(checkpoint.load(tmp_path / "a", first), second)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("moment", ["before the rename", "after the old is gone"])
def test_a_kill_while_replacing_leaves_a_whole_one(tmp_path, monkeypatch, moment):
    first, second = {"x": jnp.zeros(3)}, {"x": jnp.ones(3)}
    checkpoint.save(tmp_path / "a", first)

    def killed(*_):
        raise KeyboardInterrupt

    target = "shutil.rmtree" if moment == "before the rename" else "Path.rename"
    with monkeypatch.context() as patch:
        patch.setattr(f"snnjax.checkpoint.{target}", killed)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(tmp_path / "a", second)
    assert checkpoint.exists(tmp_path / "a")
    assert same(checkpoint.load(tmp_path / "a", first), second)


def test_another_network_is_refused_with_the_difference(tmp_path):
    checkpoint.save(tmp_path / "a", state(bits=2))
    for other in (state(bits=3), state(width=5)):
        with pytest.raises(ValueError, match="another network"):
            checkpoint.load(tmp_path / "a", other)
    assert checkpoint.exists(tmp_path / "a")


def test_nothing_there(tmp_path):
    assert not checkpoint.exists(tmp_path / "a")
    with pytest.raises(ValueError, match="no checkpoint at"):
        checkpoint.load(tmp_path / "a", {"x": jnp.zeros(3)})
    checkpoint.remove(tmp_path / "a")


def test_remove(tmp_path):
    checkpoint.save(tmp_path / "a", {"x": jnp.zeros(3)})
    checkpoint.remove(tmp_path / "a")
    assert not list(tmp_path.iterdir())
