"""model.train() and model.eval() mean what they mean in flax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import calibrate, layers, models, neurons
from snnjax.quantize import QuantSpec

X = jnp.asarray(np.random.default_rng(0).normal(2.0, 3.0, (2, 4, 8, 8, 1)), jnp.float32)
SLOW = pytest.mark.slow


def chain() -> nnx.Sequential:
    spec = QuantSpec("lq_net", bits=2)
    rngs = nnx.Rngs(0)
    conv = layers.QuantConv(1, 4, kernel_size=3, padding=1, quant=spec, rngs=rngs)
    return nnx.Sequential(conv, layers.BatchNorm(4), layers.Spiking(neurons.LIF()))


def network(**options) -> models.SEWResNet:
    spec = QuantSpec("lq_net", bits=2)
    rngs = nnx.Rngs(0)
    return models.sew_resnet8(
        3, width=2, in_channels=1, weight_quant=spec, rngs=rngs, **options
    )


def moving(model: nnx.Module) -> list[list[np.ndarray]]:
    """Copy what training moves beside the gradient: statistics, LQ-Net's bases."""
    kinds = (nnx.BatchStat, layers.QuantState)
    return [[*map(np.array, jax.tree.leaves(nnx.state(model, k)))] for k in kinds]


def moves(model: nnx.Module, call) -> bool:
    """Return whether the call moves them: both kinds or neither."""
    before = moving(model)
    call()
    statistics, bases = (
        any((a != b).any() for a, b in zip(old, new, strict=True))
        for old, new in zip(before, moving(model), strict=True)
    )
    assert statistics == bases
    return statistics


@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize(
    ("make", "jit"),
    [(chain, False), (chain, True), pytest.param(network, True, marks=SLOW)],
)
def test_the_mode_decides_where_train_is_none(make, jit, graph):
    with nnx.set_graph_mode(graph), nnx.set_graph_updates(graph):
        model = make()
        options = {} if make is chain else {"timesteps": 2}

        def run(model, x):
            model(x, **options)

        def call():
            (nnx.jit(run) if jit else run)(model, X)

        # A new layer trains as flax's do; a new network does not.
        assert moves(model, call) == (make is chain)
        model.train()
        assert moves(model, call)
        model.eval()
        assert not moves(model, call)


@pytest.mark.nightly
@pytest.mark.parametrize("remat", ["none", "block", "full"])
def test_the_mode_equals_the_argument(remat):
    by_argument, by_mode = network(remat=remat), network(remat=remat)
    by_mode.train()

    def loss(model, train):
        return jnp.square(model(X, timesteps=2, train=train)[0]).mean()

    gradients = nnx.jit(nnx.grad(loss), static_argnums=1)
    one, two = gradients(by_argument, True), gradients(by_mode, None)
    call = nnx.jit(
        lambda model, train: model(X, timesteps=2, train=train)[0], static_argnums=1
    )
    assert moves(by_mode, lambda: call(by_mode, None))
    assert not moves(by_mode, lambda: call(by_mode, False))
    assert moves(by_argument, lambda: call(by_argument, True))
    jax.tree.map(np.testing.assert_array_equal, one, two)
    jax.tree.map(np.testing.assert_array_equal, moving(by_argument), moving(by_mode))


@SLOW
def test_each_mode_compiles_once():
    model, traces = network(), []

    @nnx.jit
    def run(model, x):
        traces.append(1)
        return model(x, timesteps=2)[0]

    for _ in range(2):
        model.train()
        run(model, X)
        model.eval()
        run(model, X)
    assert len(traces) == 2


@SLOW
def test_functions_that_return_a_model_return_it_in_evaluation_mode():
    model = network()
    model.train()
    fitted = calibrate.reestimate_batchnorm(model, [X], timesteps=2)
    quantized = calibrate.quantize(model, {".*conv1": QuantSpec(bits=4)})
    run = nnx.jit(lambda model: model(X, timesteps=2)[0])
    for result in (fitted, quantized):
        assert not moves(result, lambda result=result: run(result))
    assert moves(model, lambda: run(model))
