"""`train.fit` as users of optax and flax call it, and the loop of Flax's own."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from loops import nnx_loop
from programs import compilations
from test_train import Net, assert_equal, dataset, quantized

from snnjax import data, models, train
from snnjax.quantize import QuantSpec
from snnjax.train.step import _make_train_step

OPTIONS = {"batch_size": 4, "seed": 3, "timesteps": 2}


def params(model):
    return train.split(model)[1]


def distance(a, b):
    pairs = zip(jax.tree.leaves(params(a)), jax.tree.leaves(params(b)), strict=True)
    return max(float(jnp.max(jnp.abs(x - y))) for x, y in pairs)


def by_loss():
    """Make a transformation that takes the loss, as `optax.contrib` has some."""

    def update(updates, state, params=None, *, value, **extra):
        return jax.tree.map(lambda x: value * x, updates), state

    return optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)


@pytest.mark.slow
@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: optax.adam(1e-2),
        lambda: optax.sgd(optax.cosine_decay_schedule(0.1, 4), momentum=0.9),
        lambda: optax.chain(optax.clip_by_global_norm(0.1), optax.adam(1e-2)),
        lambda: optax.inject_hyperparams(optax.sgd)(learning_rate=0.1),
        lambda: optax.adamw(1e-2, mask=train.decay_mask),
        lambda: optax.chain(optax.adam(1e-2), by_loss()),
    ],
    ids=["adam", "schedule", "clipping", "inject_hyperparams", "mask", "by loss"],
)
def test_any_optax_transformation_trains(optimizer):
    """The same numbers as by `nnx.Optimizer` in a loop of one's own."""
    first, images = Net(), dataset()
    model = train.fit(first, images, steps=2, optimizer=optimizer(), **OPTIONS)
    assert distance(model, first) > 1e-4
    mine = Net()
    mine.train()
    tx = nnx.Optimizer(mine, optimizer(), wrt=nnx.Param)
    for batch in data.train_batches(data.epoch_order(3, 0, len(images)), 4):
        x = data.network_input(images.images[batch], images.mean, images.std)
        compute = nnx.value_and_grad(loss_in_training, has_aux=True)
        (loss, logits), grads = compute(mine, x, images.labels[batch])
        assert logits.shape == (4, 10)
        takes_more = isinstance(tx.tx, optax.GradientTransformationExtraArgs)
        tx.update(mine, grads, **({"value": loss} if takes_more else {}))
    assert distance(model, mine) < 1e-4


def loss_in_training(model, x, labels):
    """As `train.loss_fn`; these networks take their mode as an argument."""
    logits, _ = model(x, timesteps=2, train=True)
    return train.cross_entropy(logits, labels), logits.mean(0)


def test_the_result_is_in_evaluation_mode_and_the_argument_as_it_was():
    first = Net()
    first.train()
    before = jax.tree.map(np.array, nnx.split(first)[1])
    model = train.fit(first, dataset(), epochs=1, optimizer=optax.adam(1e-2), **OPTIONS)
    assert model.bn1.use_running_average
    assert not first.bn1.use_running_average
    assert_equal(before, jax.tree.map(np.array, nnx.split(first)[1]))


def test_a_sequence_of_one_network_gives_a_list():
    options = OPTIONS | {"steps": 1, "optimizer": train.sgd(0.1)}
    [one] = train.fit([Net()], dataset(), **options)
    alone = train.fit(Net(), dataset(), **options)
    assert_equal(params(one), params(alone))


@pytest.mark.slow
def test_networks_side_by_side_have_each_its_learning_rate():
    schedules = train.one_cycle(4, 0.1), train.one_cycle(4, 0.3)
    images, options = dataset(), OPTIONS | {"steps": 4}
    both = train.fit(
        [Net(), Net()], images, optimizer=list(map(train.sgd, schedules)), **options
    )
    for model, schedule in zip(both, schedules, strict=True):
        alone = train.fit(Net(), images, optimizer=train.sgd(schedule), **options)
        assert distance(model, alone) < 1e-6
    assert distance(*both) > 1e-3


@pytest.mark.parametrize(
    "optimizer",
    [
        train.sgd,
        pytest.param(train.adamw, marks=pytest.mark.slow),
        pytest.param(train.muon, marks=pytest.mark.slow),
    ],
)
def test_learning_rates_bits_and_clips_compile_once(optimizer):
    rates = [(0.1, 0.2), (train.one_cycle(9, 0.1), train.cosine(7, 0.3, warmup=2))]
    for kind in rates:
        _make_train_step.cache_clear()
        for i, rate in enumerate(kind):
            model = quantized(QuantSpec(bits=2 + i, clip=1.0 + i))
            with compilations() as found:
                run = train.steps(
                    model, dataset(), steps=2, optimizer=optimizer(rate), **OPTIONS
                )
                list(run)
            assert bool(found) == (i == 0)


def test_callbacks_get_every_step_and_validation_ends_each_epoch():
    steps, checked = [], []

    def note(progress):
        steps.append(progress.step)
        if progress.validation is not None:
            checked.append((progress.step, progress.validation[0].accuracy))

    images = dataset()  # of 11: two batches of 4 an epoch
    model = train.fit(
        Net(),
        images,
        steps=5,
        optimizer=train.sgd(0.1),
        validation=images,
        callbacks=[note],
        **OPTIONS,
    )
    assert steps == [1, 2, 3, 4, 5]
    assert [step for step, _ in checked] == [2, 4, 5]
    found = train.evaluate(model, images, timesteps=2)
    assert found.accuracy == checked[-1][1]


def test_the_best_network_is_kept():
    """At a rate that destroys the network later epochs are worse than the first."""
    images, kept = dataset(), []

    def note(progress):
        if progress.validation is not None:
            accuracies = [found.accuracy for found in progress.validation]
            states = [train.model_from_state(Net(), progress.state, i) for i in (0, 1)]
            kept.append((accuracies, states))

    best = train.fit(
        [Net(), Net(1)],
        images,
        epochs=4,
        optimizer=train.sgd(2.0),
        validation=images,
        callbacks=[note],
        keep_best=True,
        **OPTIONS,
    )
    for i, model in enumerate(best):
        accuracies = [found[i] for found, _ in kept]
        first = int(np.argmax(accuracies))
        assert_equal(params(model), params(kept[first][1][i]))
        found = train.evaluate(model, images, timesteps=2)
        assert found.accuracy == max(accuracies)
    assert len({tuple(found) for found, _ in kept}) > 1  # else nothing was chosen


def test_a_loss_of_ones_own():
    def squared(logits, labels):
        error = logits.mean(0) - jax.nn.one_hot(labels, logits.shape[-1])
        return jnp.mean(error**2)

    options = OPTIONS | {"steps": 1, "optimizer": train.sgd(0.1)}
    [mine] = train.steps(Net(), dataset(), loss=squared, **options)
    [usual] = train.steps(Net(), dataset(), **options)
    assert mine.metrics.loss[0] < 0.5 < usual.metrics.loss[0]


def test_augmentation_of_ones_own():
    def blacken(key, images, *, part):
        assert len(part) == 2
        return jnp.zeros_like(images)

    options = OPTIONS | {"steps": 1, "optimizer": train.sgd(0.1)}
    images = dataset()
    black = dataclasses.replace(images, images=np.zeros_like(images.images))
    [augmented] = train.steps(Net(), dataset(), augment=blacken, **options)
    [expected] = train.steps(Net(), black, **options)
    np.testing.assert_allclose(augmented.metrics.loss, expected.metrics.loss, rtol=1e-6)


# The loop of Flax


def small():
    return models.sew_resnet8(10, width=4, in_channels=1, rngs=nnx.Rngs(0))


@pytest.mark.slow
def test_a_network_in_evaluation_mode_is_refused_by_loss_fn():
    model, x = small(), jnp.zeros((2, 8, 8, 1))
    with pytest.raises(ValueError, match=r"model .*evaluation mode.*model.train\(\)"):
        train.loss_fn(model, x, jnp.zeros(2, int))
    model.train()
    model.layer1[0].bn1.eval()  # one that is frozen on purpose
    loss, logits = train.loss_fn(model, x, jnp.zeros(2, int), timesteps=2)
    assert loss.shape == ()
    assert logits.shape == (2, 10)


@pytest.mark.nightly
def test_the_nnx_loop_is_fit():
    """The same batches make the same network, BatchNorm's statistics included."""
    train_set = data.load("digits", "train", limit=128)
    fitted = train.fit(
        small(), train_set, epochs=1, optimizer=optax.adam(3e-3), batch_size=32, seed=0
    )
    model = small()
    start = nnx.split(model, nnx.Param, ...)[2]
    before = [np.array(x) for x in jax.tree.leaves(start)]
    metrics = nnx_loop(model, train_set, optax.adam(3e-3), epochs=1)
    assert set(metrics) == {"loss", "accuracy"}
    assert distance(model, fitted) < 1e-3
    after = jax.tree.leaves(nnx.split(model, nnx.Param, ...)[2])
    assert any((np.asarray(a) != b).any() for a, b in zip(after, before, strict=True))
    for mine, its in zip(
        after, jax.tree.leaves(nnx.split(fitted, nnx.Param, ...)[2]), strict=True
    ):
        np.testing.assert_allclose(mine, its, rtol=2e-2, atol=1e-3)


@pytest.mark.slow
def test_loss_fn_takes_options_under_nnx():
    model, x = small(), jnp.ones((2, 8, 8, 1))
    model.train()
    smoothed = train.smoothed_cross_entropy(0.1)
    options = functools.partial(train.loss_fn, timesteps=2, loss=smoothed)
    differentiate = nnx.jit(nnx.value_and_grad(options, has_aux=True))
    (loss, _), _ = differentiate(model, x, jnp.zeros(2, int))
    model = small()
    model.train()
    compute = nnx.jit(lambda m, x, labels: train.loss_fn(m, x, labels, 2, smoothed))
    expected, _ = compute(model, x, jnp.zeros(2, int))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [None, 1])
def test_a_run_traces_its_step_once(devices):
    """At the call, where what the loss returns is found out."""
    traced = []

    def loss(logits, labels, *, mask=None):
        traced.append(logits.shape)
        return train.cross_entropy(logits, labels)

    mesh = devices and train.make_mesh(devices)
    options = OPTIONS | {"loss": loss, "optimizer": train.sgd(0.1), "mesh": mesh}
    run = train.steps(Net(), dataset(), steps=2, **options)
    assert len(traced) == 1
    assert len(list(run)) == 2
    assert len(traced) == 1


def test_an_average_of_weights_takes_any_transformation():
    for inner in (train.sgd(0.1), optax.chain(optax.adam(1e-2), by_loss())):
        tx = train.average_weights(inner, 0.5)
        train.fit(Net(), dataset(), steps=1, optimizer=tx, **OPTIONS)


def test_a_state_of_other_bits_is_refused():
    eight, two = (quantized(QuantSpec(bits=b, clip=1.0)) for b in (8, 2))
    options = {"optimizer": train.sgd(0.1), "steps": 2} | OPTIONS
    options["start"] = train.init(eight, train.sgd(0.1))
    with pytest.raises(ValueError, match=r"quant.bits is 8.0 there and 2.0 here"):
        train.steps(two, dataset(), **options)
    train.steps(eight, dataset(), **options)
