"""The estimate of a training step's memory against XLA's account of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import data, models, train

CASES = [
    ("sew_resnet8", 8, 16, "none"),
    ("sew_resnet8", 8, 16, "block"),
    ("sew_resnet8", 16, 32, "none"),
    ("sew_resnet8", 16, 128, "block"),
    ("sew_resnet8", 64, 8, "block"),
    ("sew_resnet18", 16, 32, "none"),
    ("sew_resnet18", 64, 32, "none"),
    ("sew_resnet18", 64, 32, "block"),
]


def images(number):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (number, 32, 32, 3), np.uint8)
    return data.from_arrays(pixels, rng.integers(0, 10, number), num_classes=10)


def compiled(model, dataset, batch_size, timesteps):
    tx = train.sgd(0.1, weight_decay=5e-4)
    step = train.make_train_step(train.split(model)[0], tx, timesteps=timesteps)
    indices = np.arange(batch_size, dtype=np.int32)
    rest = (data.on_device(dataset), indices, jax.random.key(0))
    return step.lower(train.init(model, tx), *rest).compile()


@pytest.mark.nightly
@pytest.mark.parametrize(("name", "width", "batch_size", "remat"), CASES)
def test_within_a_quarter_of_what_xla_says(name, width, batch_size, remat):
    network = getattr(models, name)
    model = network(10, width=width, remat=remat, rngs=nnx.Rngs(0))
    dataset = images(256)
    found = train.estimate_memory(model, dataset, batch_size=batch_size)
    said = compiled(model, dataset, batch_size, 4).memory_analysis()
    expected = (
        said.temp_size_in_bytes
        + said.argument_size_in_bytes
        + said.output_size_in_bytes
        - said.alias_size_in_bytes
    )
    assert found == pytest.approx(expected, rel=0.25)


@pytest.mark.nightly
def test_blocks_made_again_take_less_the_longer_the_sequence():
    def needed(remat, timesteps):
        model = models.sew_resnet18(10, width=8, remat=remat, rngs=nnx.Rngs(0))
        return train.estimate_memory(
            model, images(64), batch_size=32, timesteps=timesteps
        )

    for timesteps in (4, 16):
        none, block, full = (needed(r, timesteps) for r in ("none", "block", "full"))
        assert full < block < none
    assert needed("none", 16) > 3.5 * needed("none", 4)


@pytest.mark.parametrize("name", ["batch_size", "timesteps"])
def test_nonsense_is_refused(name):
    model = models.sew_resnet8(10, width=4, rngs=nnx.Rngs(0))
    sizes = {"batch_size": 4, "timesteps": 4, name: 0}
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        train.estimate_memory(model, images(8), **sizes)


@pytest.mark.nightly
@pytest.mark.parametrize("remat", ["block", "full"])
def test_what_is_made_again_is_what_was(remat):
    """The same loss, statistics, counts and gradients, to the last bits of rounding."""
    dataset = images(8)
    x = data.normalize(
        jnp.asarray(dataset.images), jnp.asarray(dataset.mean), jnp.asarray(dataset.std)
    )

    def run(remat):
        model = models.SEWResNet(
            10, blocks=(2, 1), width=8, remat=remat, rngs=nnx.Rngs(0)
        )
        graphdef, params, rest = train.split(model)

        @jax.jit
        def gradient(params):
            def loss(params):
                model = nnx.merge(graphdef, params, rest, copy=True)
                record = lambda s: jnp.sum(s != 0)  # noqa: E731
                logits, counts = model(x, timesteps=3, train=True, record=record)
                return jnp.mean(logits**2), (counts, train.split(model)[2])

            return jax.value_and_grad(loss, has_aux=True)(params)

        return jax.tree.map(np.asarray, gradient(params))

    (loss, (counts, rest)), grads = run(remat)
    (plain, (expected, moved)), slopes = run("none")
    assert loss == plain
    assert counts == expected
    for a, b in zip(*map(jax.tree.leaves, (rest, moved)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    for a, b in zip(*map(jax.tree.leaves, (grads, slopes)), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max())


def test_an_unknown_remat_is_refused():
    with pytest.raises(ValueError, match="remat must be one of"):
        models.sew_resnet8(10, width=4, remat="all", rngs=nnx.Rngs(0))
