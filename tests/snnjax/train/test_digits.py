"""Digits are learnt by `fit` and by a loop of one's own, compiled as users compile."""

import optax
import pytest
from flax import nnx
from loops import nnx_loop

from snnjax import data, models, train


@pytest.mark.nightly
@pytest.mark.parametrize("way", ["fit", "nnx"])
def test_digits_are_learnt_to_97_percent(way):
    train_set, test_set = data.load("digits", "train"), data.load("digits", "test")
    model = models.sew_resnet8(10, width=16, in_channels=1, rngs=nnx.Rngs(0))
    # The rate falls to 0: with a constant one the accuracy hangs on rounding.
    steps = 12 * (len(train_set) // 32)
    tx = optax.adam(optax.cosine_decay_schedule(3e-3, steps))
    if way == "fit":
        model = train.fit(
            model, train_set, epochs=12, optimizer=tx, batch_size=32, seed=0
        )
    else:
        nnx_loop(model, train_set, tx, epochs=12)
    assert train.evaluate(model, test_set).accuracy >= 0.97


@pytest.mark.nightly
def test_adam_as_it_stands_trains():
    """The shortest call, with a rate that stays."""
    images = data.load("digits", "train")
    model = models.sew_resnet8(10, width=16, in_channels=1, rngs=nnx.Rngs(0))
    model = train.fit(
        model, images, epochs=8, optimizer=optax.adam(3e-3), batch_size=32, seed=0
    )
    assert train.evaluate(model, data.load("digits", "test")).accuracy > 0.9
