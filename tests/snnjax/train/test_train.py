import collections
import dataclasses
import functools
import importlib
import itertools
import re

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from programs import compilations, equations
from training import alone, steps, table

from snnjax import calibrate, data, models, neurons, surrogate, train
from snnjax.data.order import epoch_order
from snnjax.layers import BatchNorm, QuantConv, QuantLinear, Spiking
from snnjax.quantize import QuantSpec
from snnjax.train.step import _make_train_step


class Net(nnx.Module):
    """Two spiking layers with everything a network of ours has."""

    def __init__(self, seed=0, neuron=None):
        rngs = nnx.Rngs(seed)
        self.conv1 = QuantConv(1, 4, kernel_size=3, strides=2, padding=1, rngs=rngs)
        self.bn1 = BatchNorm(4)
        self.sn1 = Spiking(neuron or neurons.LIF())
        self.conv2 = QuantConv(4, 6, kernel_size=3, padding=1, rngs=rngs)
        self.bn2 = BatchNorm(6)
        self.sn2 = Spiking(neuron or neurons.LIF())
        self.fc = QuantLinear(6, 10, rngs=rngs)

    def __call__(self, x, *, timesteps=4, train=False, record=lambda s: s):
        h = self.bn1(self.conv1(x, train=train), train=train, repeats=timesteps)
        s1 = self.sn1(2 * jnp.broadcast_to(h, (timesteps, *h.shape)))
        s2 = self.sn2(2 * self.bn2(self.conv2(s1, train=train), train=train))
        spikes = {"sn1": record(s1), "sn2": record(s2)}
        return self.fc(s2.mean((2, 3)), train=train), spikes


class Softmax(nnx.Module):
    """Softmax regression, whose gradient is known; the "time" is only repetition."""

    def __init__(self):
        self.fc = QuantLinear(12, 3, rngs=nnx.Rngs(0))

    def __call__(self, x, *, timesteps=4, train=False, record=None):
        logits = self.fc(x.reshape(len(x), -1))
        # Of another size at each step, so that only the mean over time is right.
        steps = jnp.arange(timesteps, dtype=logits.dtype)
        return logits * steps[:, None, None], {}


def dataset(n=11, shape=(6, 5, 1), classes=10):
    draw = np.random.default_rng(n)
    images = draw.integers(0, 256, (n, *shape)).astype(np.uint8)
    return data.from_arrays(images, draw.integers(0, classes, n), num_classes=classes)


def quantized(spec=None, **options):
    target = "sn." if spec is None or options.pop("membrane", False) else "conv."
    spec = spec or QuantSpec("none")
    return calibrate.quantize(Net(**options), {target: spec})


def fitted(model, rates, **options):
    options = {"seed": 3, "batch_size": 4, "timesteps": 2} | options
    return list(steps(model, options.pop("data", dataset()), rates, **options))


def assert_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True):
        np.testing.assert_array_equal(x, y)


def copied(tree):
    return jax.tree.map(np.array, tree)


# The step


@pytest.mark.slow
@pytest.mark.parametrize("augment", [False, True])
def test_steps_are_sgd_with_nesterov_and_decay_of_kernels(augment):
    model, images = Softmax(), dataset(11, (2, 3, 2), 3)
    rates = np.array([0.5, 0.2, 0.1, 0.4], np.float32)
    options = {"timesteps": 3, "weight_decay": 0.1, "augment": augment}
    history = fitted(model, rates, data=images, **options)
    w, b = (np.asarray(v.get_value(), float) for v in (model.fc.kernel, model.fc.bias))
    trace_w, trace_b = np.zeros_like(w), np.zeros_like(b)
    for step, (rate, progress) in enumerate(zip(rates, history, strict=True)):
        epoch, place = divmod(step, 2)
        indices = epoch_order(3, epoch, 11)[4 * place : 4 * place + 4]
        batch, labels = images.images[indices], images.labels[indices]
        if augment:
            key = jax.random.fold_in(jax.random.key(3), step)
            batch = np.asarray(data.augment(key, batch))
        x = ((batch / 255 - images.mean) / images.std).reshape(4, -1)
        logits = (x @ w + b) * np.mean([0, 1, 2])
        share = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        loss = -np.log(share[range(4), labels]).mean()
        np.testing.assert_allclose(progress.metrics.loss, loss, rtol=1e-4)
        assert progress.metrics.accuracy == (logits.argmax(1) == labels).mean()
        error = (share - np.eye(3)[labels]) / 4
        grad_w, grad_b = x.T @ error + 0.1 * w, error.sum(0)
        trace_w, trace_b = 0.9 * trace_w + grad_w, 0.9 * trace_b + grad_b
        w, b = w - rate * (grad_w + 0.9 * trace_w), b - rate * (grad_b + 0.9 * trace_b)
        assert (progress.step, progress.steps) == (step + 1, 4)
    fc = train.model_from_state(model, history[-1].state).fc
    np.testing.assert_allclose(fc.kernel.get_value(), w, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(fc.bias.get_value(), b, rtol=1e-4, atol=1e-5)


def test_training_learns_and_moves_all_but_the_numbers():
    images = dataclasses.replace(dataset(8), labels=np.arange(8))
    spec = QuantSpec("lq_net", bits=2)
    model = calibrate.quantize(Net(), {"conv2": spec, "sn1": QuantSpec(bits=4)})
    history = fitted(model, np.full(60, 0.05), data=images, batch_size=8)
    losses = [float(progress.metrics.loss) for progress in history]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    result = train.model_from_state(model, history[-1].state)
    for (path, a), (_, b) in zip(
        *(nnx.to_flat_state(nnx.state(m)) for m in (model, result)), strict=True
    ):
        for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True):
            fixed = bool({"neuron", "quant"} & set(path))
            assert np.array_equal(x, y) == fixed, path
    assert result.conv2.quant_state.get_value().count == 60


# What a study sweeps does not recompile


SWEPT = {
    "weights": lambda: (
        quantized(QuantSpec(bits=b, clip=c)) for b, c in ((2, 1.0), (8, 10), (16, 0.5))
    ),
    "membrane": lambda: (
        quantized(QuantSpec(bits=b, clip=c, signed=False), membrane=True)
        for b, c in ((2, 1.0), (8, 0.5))
    ),
    "lq_net": lambda: (
        quantized(QuantSpec("lq_net", bits=2, clip=c)) for c in (1.0, 10.0)
    ),
    "neuron": lambda: (
        quantized(neuron=neurons.LIF(tau=tau, v_threshold=v, v_reset=v / 2, alpha=a))
        for tau, v, a in ((2.0, 1, 2.0), (1.5, 0.5, 3))
    ),
}


@pytest.mark.parametrize("what", SWEPT)
def test_a_sweep_compiles_once(what):
    _make_train_step.cache_clear()
    train.make_eval_step.cache_clear()
    results = []
    for i, model in enumerate(SWEPT[what]()):
        with compilations() as found:
            history = fitted(model, np.full(3, 0.1 * (i + 1), np.float32))
            result = train.model_from_state(model, history[-1].state)
            train.evaluate(result, dataset(), timesteps=2, batch_size=4)
        if i == 0:
            assert len(found) >= 2  # else the counter counts nothing
        else:
            assert not found
        results.append(float(history[-1].metrics.loss))
    assert len(set(results)) == len(results)
    assert _make_train_step.cache_info().misses == 1
    assert train.make_eval_step.cache_info().misses == 1


def custom_vjps(model, timesteps):
    """How often each surrogate and quantizer occurs in a training step's program."""
    graphdef, *_ = train.split(model)
    tx, images = train.sgd(0.1), dataset()
    step = train.make_train_step(graphdef, tx, timesteps=timesteps)
    program = jax.make_jaxpr(step)(
        train.init(model, tx),
        data.on_device(images),
        np.arange(4, dtype=np.int32),
        jax.random.key(0),
    )
    found = collections.Counter(
        re.search(r"name=(\w+)", str(equation)).group(1)
        for equation in equations(program.jaxpr)
        if equation.primitive.name.startswith("custom_vjp")
    )
    others = (
        "_conv2d",
        "center",
        "_normalize",
        "rematerialize_elementwise",
        "compute_once",
        "forbid_second_derivative",
    )
    return {name: found[name] for name in found if name not in others}


@pytest.mark.parametrize(
    "name",
    [
        "atan",
        *(
            pytest.param(name, marks=pytest.mark.nightly)
            for name in ("sigmoid", "fast_sigmoid", "triangular")
        ),
    ],
)
def test_surrogates_and_quantizers_are_custom_vjps(name):
    neuron = neurons.LIF(surrogate=getattr(surrogate, name))
    rules = {
        "conv1": QuantSpec(bits=2),
        "sn.": QuantSpec(bits=4, signed=False, grid="mid_tread"),
        "conv2|fc": QuantSpec("lq_net", bits=2),
    }
    model = Net(neuron=neuron)
    quantized = calibrate.quantize(model, rules)
    # Two layers of neurons, each quantizing its membrane at each of 3 steps.
    assert custom_vjps(model, timesteps=3) == {"_spike": 6}
    expected = {"_spike": 6, "_uniform": 1 + 6, "_lq_net": 2}
    assert custom_vjps(quantized, timesteps=3) == expected
    # Longer sequences are scanned.
    assert set(custom_vjps(quantized, timesteps=12)) == set(expected)


@pytest.mark.slow
def test_the_surrogate_decides_the_gradient():
    kernels = []
    for function in (surrogate.atan, surrogate.triangular):
        state = fitted(Net(neuron=neurons.LIF(surrogate=function)), [0.1])[-1].state
        kernels.append(np.asarray(state.params["conv1"]["kernel"].get_value()))
    assert (kernels[0] != kernels[1]).any()


# Stopping and going on


@pytest.fixture(scope="module")
def lq_run():
    model, rates = quantized(QuantSpec("lq_net", bits=2)), train.one_cycle(7, 0.2)
    options = {"seed": 5, "batch_size": 4, "timesteps": 2, "augment": True}
    rates = [rates(step) for step in range(7)]
    states = [copied(train.init(model, train.sgd(table(rates), weight_decay=5e-4)))]
    for progress in steps(model, dataset(), rates, **options):
        states.append(copied(progress.state))
    return model, rates, options, states


@pytest.mark.parametrize("stopped", range(8))
def test_a_resumed_run_is_the_run_never_stopped(lq_run, stopped):
    model, rates, options, states = lq_run
    start = jax.tree.map(jnp.asarray, states[stopped])
    state = start
    for progress in steps(model, dataset(), rates, start=start, **options):
        state = progress.state
    assert_equal(state, states[-1])
    assert state.step == 7
    # The state resumed from is still there, to resume from again.
    assert_equal(start, states[stopped])


@pytest.mark.slow
def test_runs_differ_by_seed_and_augmentation():
    kernels = []
    for other in ({}, {}, {"seed": 6}, {"augment": True}, {"weight_decay": 0.1}):
        images = dataset(11, (2, 3, 2), 3)
        state = fitted(Softmax(), [0.1] * 3, data=images, **other)[-1].state
        kernels.append(np.asarray(state.params["fc"]["kernel"].get_value()))
    assert len({kernel.tobytes() for kernel in kernels}) == 4
    assert kernels[0].tobytes() == kernels[1].tobytes()


def test_training_leaves_the_model_alone(lq_run):
    model, _, _, states = lq_run
    graphdef, params, rest = train.split(model)
    assert_equal((params, rest), alone(states[0][:2]))
    assert graphdef == train.split(quantized(QuantSpec("lq_net", bits=2)))[0]


def test_a_state_of_a_longer_run_is_refused(lq_run):
    model, rates, options, states = lq_run
    optimizer = train.sgd(table(rates), weight_decay=5e-4)
    options = options | {"augment": data.augment, "start": states[-1]}
    with pytest.raises(ValueError, match=r"has done 7 steps, more than the 5"):
        train.steps(model, dataset(), steps=5, optimizer=optimizer, **options)


@pytest.mark.slow
def test_a_state_of_another_network_or_optimizer_is_refused():
    model, wider = (
        models.sew_resnet8(10, width=width, in_channels=1, rngs=nnx.Rngs(0))
        for width in (4, 8)
    )

    def begin(start, **options):
        options = {"seed": 0, "batch_size": 4, "timesteps": 1} | options
        next(steps(model, dataset(), np.full(2, 0.1), start=start, **options))

    others = wider, calibrate.quantize(model, {"conv1": QuantSpec(bits=2)})
    for other in others:
        with pytest.raises(ValueError, match="start is the state of another network"):
            begin(train.init(other, train.sgd(table([0.1, 0.1]))))
    with pytest.raises(ValueError, match="start is the state of another optimizer"):
        begin(train.init(model, train.sgd(0.1)), optimizer=train.adamw)


# Evaluation


def program(model):
    """Three steps of a network, compiled."""
    return jax.jit(lambda x: model(x, timesteps=3))


@pytest.fixture(scope="module")
def evaluated():
    """A network that fires, and what it does with each image alone."""
    images, model = dataset(11), Net()
    for norm in (model.bn1, model.bn2):
        norm.bias.set_value(norm.bias.get_value() + 0.5)
    correct, spikes, run = [], [], program(model)
    for image, label in zip(images.images, images.labels, strict=True):
        x = data.normalize(image[None], images.mean, images.std)
        logits, trains = run(x)
        correct.append(int(np.asarray(logits, float).mean(0).argmax() == label))
        spikes.append({k: np.asarray(v, int) for k, v in trains.items()})
    return model, images, correct, spikes


@pytest.mark.parametrize("batch_size", [1, 4, 11, 16])
def test_evaluation_is_the_sum_over_single_images(evaluated, batch_size):
    model, images, correct, spikes = evaluated
    steps = []
    found = train.evaluate(
        model,
        images,
        timesteps=3,
        batch_size=batch_size,
        on_step=lambda: steps.append(1),
    )
    assert len(steps) == -(-11 // batch_size)
    assert found.accuracy == sum(correct) / 11
    assert found.time_w1 is None
    assert found.counts.observations == 3 * 11
    # Fewer images than groups: each image is one.
    for counts, image in zip(found.groups, spikes, strict=True):
        assert counts.observations == 3
        for layer, trains in image.items():
            np.testing.assert_array_equal(counts.spikes[layer], trains.sum((0, 1)))
            assert counts.spikes[layer].dtype == np.int32
    for layer in ("sn1", "sn2"):
        total = sum(image[layer].sum((0, 1)) for image in spikes)
        np.testing.assert_array_equal(found.counts.spikes[layer], total)
        assert 0 < total.mean() < 33
        trains = np.concatenate([image[layer] for image in spikes], axis=1)
        first = np.where(trains.any(0), trains.argmax(0), 3).sum(0)
        np.testing.assert_array_equal(found.latencies[layer], first)


def test_images_are_counted_by_their_place(evaluated, monkeypatch):
    model, images, _, spikes = evaluated
    for module in ("evaluate", "eval_step"):
        module = importlib.import_module(f"snnjax.train.{module}")
        monkeypatch.setattr(module, "NUM_GROUPS", 4)
    train.make_eval_step.cache_clear()
    found = train.evaluate(model, images, timesteps=3, batch_size=3)
    train.make_eval_step.cache_clear()
    assert [counts.observations for counts in found.groups] == [9, 9, 9, 6]
    for place, counts in enumerate(found.groups):
        for layer in ("sn1", "sn2"):
            expected = sum(image[layer].sum((0, 1)) for image in spikes[place::4])
            np.testing.assert_array_equal(counts.spikes[layer], expected)


@pytest.mark.parametrize("batch_size", [4, 16])
def test_spike_times_are_compared_image_by_image(evaluated, batch_size):
    model, images, _, spikes = evaluated
    other = Net(seed=1)
    for norm in (other.bn1, other.bn2):
        norm.bias.set_value(norm.bias.get_value() + 0.5)
    options = dict(timesteps=3, batch_size=batch_size)
    found = train.evaluate(other, images, reference=model, **options)
    x = data.normalize(images.images, images.mean, images.std)
    trains = {k: np.asarray(v, int) for k, v in program(other)(x)[1].items()}
    for layer, now in trains.items():
        before = np.concatenate([image[layer] for image in spikes], axis=1)
        # Of three steps: every spike that stays costs nothing, one moves or stays away.
        moved = [
            least_moves(np.flatnonzero(a), np.flatnonzero(b))
            for a, b in zip(before.reshape(3, -1).T, now.reshape(3, -1).T, strict=True)
        ]
        assert found.time_w1[layer] == pytest.approx(np.mean(moved), rel=1e-12)
        assert np.mean(moved) > 0
    same = train.evaluate(model, images, reference=model, **options)
    assert same.time_w1 == {"sn1": 0, "sn2": 0}


def least_moves(a, b):
    """Of all matchings of the shorter with some of the longer; one left over is 1.5."""
    a, b = sorted((a, b), key=len)
    ways = [np.abs(a - some).sum() for some in itertools.permutations(b, len(a))]
    return min(ways) + 1.5 * (len(b) - len(a))


@pytest.mark.slow
def test_a_reference_of_other_layers_is_refused(evaluated):
    model, images, _, _ = evaluated
    other = models.sew_resnet8(width=2, in_channels=1, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="same layers; only in one of the two"):
        train.evaluate(model, images, reference=other, timesteps=3)
    with pytest.raises(ValueError, match="do not fit into int32"):
        train.evaluate(model, images, reference=model, timesteps=20_000)


def test_evaluation_sees_accuracy(evaluated):
    model, images, _, _ = evaluated
    x = data.normalize(images.images, images.mean, images.std)
    right = np.asarray(program(model)(x)[0].mean(0).argmax(-1), np.int32)
    for labels, expected in ((right, 1), ((right + 1) % 10, 0)):
        other = dataclasses.replace(images, labels=labels)
        found = train.evaluate(model, other, timesteps=3, batch_size=4)
        assert found.accuracy == expected


def test_accuracy_by_step_is_that_of_fewer_steps(evaluated):
    model, images, *_ = evaluated
    x = data.normalize(images.images, images.mean, images.std)
    second = np.asarray(program(model)(x)[0][:2].mean(0).argmax(-1), np.int32)
    images = dataclasses.replace(images, labels=second)
    found = train.evaluate(model, images, timesteps=3).accuracy_by_step
    fewer = [train.evaluate(model, images, timesteps=t).accuracy for t in (1, 2, 3)]
    assert found.tolist() == fewer
    assert max(fewer[0], fewer[2]) < fewer[1] == 1


# Errors


def test_a_loss_that_is_not_finite():
    with pytest.raises(
        FloatingPointError, match=r"at step 2 of 3.*lower learning rate"
    ):
        fitted(Softmax(), [3e38, 1, 1], data=dataset(8, (2, 3, 2), 3))


# Learning rates


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 1000])
def test_schedules(steps):
    up_and_down, down = (
        np.array([schedule(k) for k in range(steps)])
        for schedule in (train.one_cycle(steps, 0.4), train.cosine(steps, 0.4))
    )
    for rates in (up_and_down, down):
        assert np.isfinite(rates).all()
        assert rates.max() == np.float32(0.4)
        assert rates.min() >= 0
    angle = np.pi * np.arange(steps) / steps
    np.testing.assert_allclose(down, 0.2 * (1 + np.cos(angle)), atol=1e-6)
    if steps >= 10:
        peak = steps * 3 // 10
        assert up_and_down.argmax() == peak
        np.testing.assert_allclose(up_and_down[0], 0.4 / 25, rtol=1e-5)
        assert (np.diff(up_and_down[: peak + 1]) > 0).all()
        assert (np.diff(up_and_down[peak:]) < 0).all()
        assert up_and_down[-1] < 0.4 * (2 / steps)


# Flax


@pytest.fixture
def simple_nnx():
    names = ("nnx_graph_mode", "nnx_graph_updates")
    before = {name: getattr(flax.config, name) for name in names}
    _make_train_step.cache_clear()
    train.make_eval_step.cache_clear()
    for name in names:
        flax.config.update(name, False)
    yield
    for name in names:
        flax.config.update(name, before[name])
    _make_train_step.cache_clear()
    train.make_eval_step.cache_clear()


def trained_and_evaluated():
    rules = {"conv2": QuantSpec("lq_net", bits=1), "sn2": QuantSpec(bits=4)}
    model = calibrate.quantize(Net(), rules)
    history = fitted(model, [0.1, 0.1])
    model = train.model_from_state(model, history[-1].state)
    batches = [data.normalize(dataset().images, 0.5 * np.ones(1), np.ones(1))]
    model = calibrate.reestimate_batchnorm(model, batches, timesteps=2)
    found = train.evaluate(model, dataset(), timesteps=2, batch_size=4)
    return history[-1].state, found.accuracy, dict(found.counts.spikes)


@pytest.mark.slow
def test_all_works_without_nnx_graph_mode(request):
    expected = copied(trained_and_evaluated())
    request.getfixturevalue("simple_nnx")
    found = trained_and_evaluated()
    for a, b in zip(*map(jax.tree.leaves, (expected, found)), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_our_models_trace_without_nnx_graph_mode(simple_nnx):
    model = models.SEWResNet(
        10, blocks=(1, 1), width=4, in_channels=1, rngs=nnx.Rngs(0)
    )
    rules = {r"layer2.0.downsample.0": QuantSpec("lq_net", bits=1)}
    model = calibrate.quantize(model, rules)
    spikes = jax.eval_shape(lambda x: model(x)[1], np.zeros((2, 6, 5, 1), np.float32))
    # Every neuron fires once more in the backward pass, which keeps no membranes; a CPU
    # and other platforms each have a branch of the program.
    expected = {"_spike": 2 * 2 * 3 * len(spikes), "_lq_net": 1}
    assert custom_vjps(model, timesteps=3) == expected


# A penalty on firing


def mean_rate(rates, strength):
    return strength * jnp.mean(jnp.stack([jnp.mean(r) for r in rates.values()]))


@pytest.mark.slow
def test_a_penalty_is_added_to_the_loss_and_moves_the_parameters():
    plain = fitted(Net(), [0.1])[0]
    none, some = (
        fitted(Net(), [0.1], penalty=mean_rate, target=jnp.float32(s))[0]
        for s in (0, 3)
    )
    # Another program, which may round otherwise.
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-8),
        none.state.params,
        plain.state.params,
    )
    assert float(none.metrics.loss) == pytest.approx(
        float(plain.metrics.loss), rel=1e-6
    )
    # What the first batch fires, with statistics of that batch.
    order = epoch_order(3, 0, 11)
    x = data.normalize(dataset().images[order[:4]], dataset().mean, dataset().std)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def penalty_of(params):
        graphdef, _, rest = train.split(Net())
        model = nnx.merge(graphdef, params, rest, copy=True)
        _, spikes = model(x, timesteps=2, train=True)
        return mean_rate({k: s.mean((0, 1)) for k, s in spikes.items()}, 3), spikes

    (_, spikes), slopes = penalty_of(train.split(Net())[1])
    rate = np.mean([np.mean(s) for s in spikes.values()])
    assert rate > 0
    added = float(some.metrics.loss) - float(plain.metrics.loss)
    assert added == pytest.approx(3 * rate, rel=1e-5)
    # SGD's first Nesterov step is -lr (1 + momentum) times the gradient.
    moved = jax.tree.map(jnp.subtract, some.state.params, plain.state.params)
    for slope, change in zip(*map(jax.tree.leaves, (slopes, moved)), strict=True):
        np.testing.assert_allclose(change[0], -0.1 * 1.9 * slope, atol=1e-6)
    assert max(np.abs(slope).max() for slope in jax.tree.leaves(slopes)) > 1e-3


def test_a_penalty_that_is_not_finite():
    with pytest.raises(FloatingPointError, match="that the penalty, if there is one"):
        fitted(Net(), [0.1], penalty=mean_rate, target=jnp.float32(np.nan))


def test_a_sweep_of_strengths_compiles_once():
    _make_train_step.cache_clear()
    model = Net()
    model.eval()
    step = train.make_train_step(
        train.split(model)[0],
        train.sgd(0.1, weight_decay=5e-4),
        timesteps=2,
        penalty=mean_rate,
    )
    for strength in (0.0, 1.0, 2.0):
        fitted(Net(), [0.1], penalty=mean_rate, target=jnp.float32(strength))
    assert step._cache_size() == 1
    assert _make_train_step.cache_info().misses == 1


LOGITS = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 5)), jnp.float32)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(
    ("logits", "labels", "what"),
    [
        (LOGITS, [0, 1, 2, -1], "labels must be classes from 0 to 4"),
        (LOGITS, [0, 1, 2, 5], "labels must be classes from 0 to 4"),
        (LOGITS, [0.0, 1.0, 2.0, 3.0], "labels must be integers"),
        (LOGITS, [[0], [1], [2], [3]], "labels must be integers"),
        (LOGITS, [0], "labels must be integers"),
        (LOGITS[0], [0, 1, 2, 3], "logits must be"),
    ],
)
def test_labels_that_are_no_classes_are_refused(logits, labels, what, smoothing):
    with pytest.raises(ValueError, match=what):
        train.cross_entropy(logits, jnp.asarray(labels), label_smoothing=smoothing)
