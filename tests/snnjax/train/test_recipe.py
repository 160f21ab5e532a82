"""What a training run is made with: optimizers, schedules, smoothed labels."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_train import Net, Softmax, assert_equal, dataset, fitted, quantized
from training import steps

from snnjax import neurons, train
from snnjax.quantize import QuantSpec


def softmax_run(rates, smoothing=0.0, gradient_step=None):
    """Softmax regression by hand in float64: losses, and the parameters at the end."""
    model, images = Softmax(), dataset(8, (2, 3, 2), 3)
    w, b = (np.asarray(v.get_value(), float) for v in (model.fc.kernel, model.fc.bias))
    x = ((images.images[:4] / 255 - images.mean) / images.std).reshape(4, -1)
    target = np.eye(3)[images.labels[:4]] * (1 - smoothing) + smoothing / 3
    params, losses = {"w": w, "b": b}, []
    for rate in rates:
        logits = (x @ params["w"] + params["b"]) * 0.5  # its mean over 2 time steps
        share = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        losses.append(-(target * np.log(share)).sum(1).mean())
        error = 0.5 * (share - target) / 4
        params = gradient_step(params, {"w": x.T @ error, "b": error.sum(0)}, rate)
    return losses, params


def run(rates, **options):
    images = dataset(8, (2, 3, 2), 3)
    first = dataclasses.replace(
        images, images=images.images[:4], labels=images.labels[:4]
    )
    history = fitted(Softmax(), rates, data=first, weight_decay=0.1, **options)
    fc = train.model_from_state(Softmax(), history[-1].state).fc
    return [float(h.metrics.loss) for h in history], fc


@pytest.mark.slow
def test_adamw_is_optax_adamw_with_decay_of_kernels():
    rates = [0.1, 0.3, 0.2]
    with jax.enable_x64():
        state = None

        def step(params, gradient, rate):
            nonlocal state
            tx = optax.adamw(rate, weight_decay=0.1, mask={"w": True, "b": False})
            params = jax.tree.map(jnp.asarray, params)
            state = tx.init(params) if state is None else state
            updates, state = tx.update(gradient, state, params)
            return jax.tree.map(np.asarray, optax.apply_updates(params, updates))

        losses, params = softmax_run(rates, gradient_step=step)
    found, fc = run(rates, optimizer=train.adamw)
    np.testing.assert_allclose(found, losses, rtol=1e-4)
    np.testing.assert_allclose(fc.kernel.get_value(), params["w"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(fc.bias.get_value(), params["b"], rtol=1e-4, atol=1e-5)


def test_muon_makes_the_steps_of_convolutions_nearly_orthogonal():
    """The first step: Newton-Schulz in float64, and the sign of Adam's gradients."""
    nadam = 0.9 * 0.1 / (1 - 0.9**2) + 1  # by Dozat, 2016: its mean looks ahead
    rng = np.random.default_rng(0)
    shapes = {"conv": (3, 3, 2, 8), "wide": (1, 1, 3, 12), "fc": (6, 5)}
    params = {
        name: {"kernel": jnp.asarray(rng.normal(size=shape), jnp.float32)}
        for name, shape in shapes.items()
    }
    params["norm"] = {"scale": jnp.ones(4)}
    gradients = jax.tree.map(lambda x: jnp.sin(9 * x) + 0.1, params)
    tx = train.muon(0.5, weight_decay=0.1, adam_share=0.25)
    updates, _ = tx.update(gradients, tx.init(params), params)
    for name, shape in shapes.items():
        g = np.asarray(gradients[name]["kernel"], float)
        if name == "fc":
            step = 0.25 * nadam * np.sign(g)
        else:
            x = g.reshape(-1, shape[-1]) / np.linalg.norm(g)
            for _ in range(5):
                a = x.T @ x
                x = 3.4445 * x + x @ (-4.7750 * a + 2.0315 * a @ a)
            step = x.reshape(shape) * np.sqrt(max(1, x.shape[1] / x.shape[0]))
        expected = -0.5 * (step + 0.1 * np.asarray(params[name]["kernel"], float))
        np.testing.assert_allclose(updates[name]["kernel"], expected, atol=2e-5)
    scale = -0.5 * 0.25 * nadam * np.sign(gradients["norm"]["scale"])
    np.testing.assert_allclose(updates["norm"]["scale"], scale, rtol=1e-5)


@pytest.mark.parametrize("smoothing", [0.1, 0.6])
def test_label_smoothing_is_cross_entropy_with_mixed_labels(smoothing):
    losses, _ = softmax_run([0.1], smoothing, lambda params, *_: params)
    found, _ = run([0.1], label_smoothing=smoothing)
    np.testing.assert_allclose(found, losses, rtol=1e-5)
    assert abs(found[0] - run([0.1])[0][0]) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", [train.sgd, train.adamw, train.muon])
def test_only_kernels_decay(optimizer):
    """Where there is no gradient, only what decays moves."""
    lsq = {"method": "lsq", "bits": 3}
    for model in (quantized(QuantSpec(**lsq)), quantized(QuantSpec(**lsq), membrane=1)):
        tx = optimizer(1.0, weight_decay=0.25)
        params = train.split(model)[1]
        still = jax.tree.map(jnp.zeros_like, params)
        updates, _ = tx.update(still, tx.init(params), params)
        for path, update in jax.tree_util.tree_leaves_with_path(updates):
            name = jax.tree_util.keystr(path)
            assert jnp.any(update != 0) == ("kernel" in name), name


def test_optimizers_share_a_program_but_for_their_own_numbers():
    for make in (train.sgd, train.adamw, train.muon):
        one = make(0.1, weight_decay=0.5)
        same = make(train.cosine(9, 0.3), weight_decay=np.float64(0.5))
        assert same.update is one.update
        assert make(0.1, weight_decay=0.25).update is not one.update


@pytest.mark.parametrize("optimizer", [train.adamw, train.muon])
def test_a_run_is_resumed_exactly(optimizer):
    whole = fitted(Net(), [0.01] * 4, optimizer=optimizer)
    options = {"seed": 3, "batch_size": 4, "timesteps": 2, "optimizer": optimizer}
    begun = next(steps(Net(), dataset(), np.full(4, 0.01, np.float32), **options))
    rest = fitted(Net(), [0.01] * 4, optimizer=optimizer, start=begun.state)
    assert_equal(whole[-1].state, rest[-1].state)


def test_warm_up_is_a_line_to_the_peak():
    schedule = train.cosine(100, 0.4, warmup=10)
    rates = np.array([schedule(step) for step in range(100)])
    np.testing.assert_allclose(rates[:11], 0.4 * np.arange(1, 12) / 11, rtol=1e-6)
    place = np.arange(90) / 90
    np.testing.assert_allclose(
        rates[10:], 0.2 * (1 + np.cos(np.pi * place)), rtol=1e-5, atol=1e-8
    )


BAD = {
    "optimizer": (lambda: train.adamw(0.1, eps=-1.0), "eps must be a finite number"),
    "smoothing": (lambda: fitted(Net(), [0.1], label_smoothing=1.0), "below 1, got 1"),
    "less": (lambda: fitted(Net(), [0.1], label_smoothing=-0.1), "finite number from"),
    "warmup": (lambda: train.cosine(5, 0.1, 5), "below the 5 steps, got 5"),
    "warmup below 0": (lambda: train.cosine(5, 0.1, -1), "warmup must be at least 0"),
    "momentum": (lambda: train.adamw(0.1, b1=1.0), "b1 and b2 must be below 1"),
    "momentum of muon": (lambda: train.muon(0.1, momentum=1.0), "must be below 1"),
    "decay": (
        lambda: train.adamw(0.1, weight_decay=-0.1),
        "weight_decay must be a finite number",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_is_refused(name):
    call, said = BAD[name]
    with pytest.raises(ValueError, match=said):
        call()


@pytest.mark.parametrize("shape", [(), (3, 3, 4)])
def test_neurons_constants_do_not_decay(shape):
    params = train.split(Net(neuron=neurons.PLIF()))[1]
    w = params["sn1"]["w"]
    w.set_value(jnp.full(shape, w.get_value()))
    tx = train.sgd(1.0, weight_decay=0.25)
    updates, _ = tx.update(
        jax.tree.map(jnp.zeros_like, params), tx.init(params), params
    )
    assert not np.any(updates["sn1"]["w"].get_value())


@pytest.mark.parametrize(
    ("first", "other"),
    [(0.1, 0.2), (train.one_cycle(4, 0.1), train.one_cycle(9, 0.1))],
    ids=["rate", "schedule"],
)
def test_a_state_goes_on_at_its_own_rates_alone(first, other):
    """They are in the state: other ones would be without effect."""
    options = dict(batch_size=4, timesteps=2, seed=3)
    like = dict(optimizer=train.sgd(first), **options)
    *_, reached = train.steps(Net(), dataset(), steps=2, **like)
    state = jax.tree.map(np.array, reached.state)
    options["optimizer"] = train.sgd(other)
    with pytest.raises(ValueError, match="start is the state of another learning rate"):
        train.steps(Net(), dataset(), steps=4, start=state, **options)
    assert len(list(train.steps(Net(), dataset(), steps=4, start=state, **like))) == 2
