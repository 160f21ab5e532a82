"""The remedy that an error names works: each case fails, and its remedy does not.

A case is (call that fails, words of the error, the same call with the remedy).
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from snnjax import (
    calibrate,
    data,
    distill,
    encoding,
    firing,
    integer,
    layers,
    models,
    neurons,
    surrogate,
    train,
)
from snnjax.quantize import QuantSpec

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (8, 4, 4, 1)).astype(np.uint8)
LABELS = np.arange(8) % 3
TRAINS = RNG.poisson(1.0, (8, 5, 6))
PIXELS = jnp.asarray(IMAGES, jnp.float32) / 255
STEPS = jnp.stack([PIXELS] * 5)
RAGGED = [np.ones((t, 6), np.uint8) for t in (3, 4, 5)]
X = jnp.asarray(RNG.uniform(0, 2, (6, 2, 4)), jnp.float32)


class Net(nnx.Module):
    """A network of one's own, with what a newcomer leaves out."""

    def __init__(self, fault=""):
        self.fault, rngs = fault, nnx.Rngs(0)
        self.fc1 = layers.QuantLinear(16, 8, rngs=rngs)
        self.bn = layers.BatchNorm(8)
        self.sn = layers.Spiking(neurons.LIF())
        self.fc2 = layers.QuantLinear(8, 3, rngs=rngs)

    def __call__(self, x, *, timesteps=4, train=None, record=None):
        x = jnp.stack([x.reshape(len(x), -1)] * timesteps)
        h = self.bn(self.fc1(x, train=train), train=train)
        s = self.sn(h)
        y = self.fc2(s, train=train)
        record = (lambda s: s) if record is None or self.fault == "record" else record
        y = y.mean(0) if self.fault == "mean" else y
        kept = {"sn": record(s)}
        if self.fault == "graded":
            kept["pooled"] = record(h)
        y = (y, y) if self.fault == "outputs" else y
        more = (0,) if self.fault == "three" else ()
        return y if self.fault == "logits" else (y, kept, *more)


class Steps(Net):
    """A network of one's own that takes T from its sequence."""

    def __call__(self, x, *, timesteps=4, train=None, record=None):
        s = self.sn(self.bn(self.fc1(x.reshape(*x.shape[:2], -1)), train=train))
        return self.fc2(s), {"sn": s if record is None else record(s)}


def fit(model, dataset=None, **options):
    usual = dict(optimizer=optax.sgd(0.1), steps=2, batch_size=4, seed=0, timesteps=2)
    dataset = data.from_arrays(IMAGES, LABELS) if dataset is None else dataset
    return train.fit(model, dataset, **usual | options)


def sequential(neuron=None, **parts):
    rngs = nnx.Rngs(0)
    chosen = {
        "fc1": layers.QuantLinear(6, 4, rngs=rngs),
        "sn1": layers.Spiking(neuron or neurons.LIF()),
        "fc2": layers.QuantLinear(4, 3, rngs=rngs),
    }
    return models.Sequential(chosen | parts, in_shape=(6,))


def loop(in_front):
    """A recurrent connection of LQ-Net, its kernel quantized in the loop or before."""
    spec = QuantSpec("lq_net", bits=2)
    layer = layers.QuantLinear(4, 4, quant=spec, rngs=nnx.Rngs(0))
    layer.train()

    def run(layer):
        kernel = layer.quantized_kernel(train=True) if in_front else None

        def step(spikes, x):
            back = spikes @ kernel if in_front else layer(spikes)
            spikes = surrogate.atan(x + back - 1)
            return spikes, spikes

        return jax.lax.scan(step, jnp.zeros((2, 4)), X)[1]

    return nnx.jit(run)(layer)


def curvature(model):
    """A gradient penalty."""
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    x = 3 * jnp.ones((1, 4, 4, 1))

    def loss(params, x):
        net = nnx.merge(graphdef, params, rest, copy=True)
        return net(x, timesteps=2)[0].sum()

    def penalty(params):
        return (jax.grad(loss, argnums=1)(params, x) ** 2).sum()

    return jax.grad(penalty)(params)


def sew(**options):
    options = dict(blocks=(1,), width=4, in_channels=1, rngs=nnx.Rngs(0)) | options
    return models.SEWResNet(3, **options)


def recurrent_calls(state_of_last):
    """A step of a stream, from rest by mistake or with the last step's state."""
    net = sequential()
    x = jnp.asarray(TRAINS, jnp.float32).swapaxes(0, 1)
    _, state = layers.run_piece(net, x[:2], None)
    return layers.run_piece(net, x[2:], state if state_of_last else {"other": 1})


def own_loss(logits, labels):
    return -jnp.mean(
        jax.nn.log_softmax(logits.mean(0))[jnp.arange(len(labels)), labels]
    )


def masked_loss(logits, labels, mask=None):
    return train.cross_entropy(logits, labels, mask=mask)


def of_lengths():
    padded, lengths = data.pad_sequences(RAGGED)
    return data.from_arrays(padded, [0, 1, 2], lengths=lengths)


def signals(*in_shape):
    """Train a convolution over a signal of 6 samples, as it is or as a map."""
    axes = len(in_shape) - 1
    kernel = (3,) if axes == 1 else (1, 3)
    parts = {
        "conv": layers.QuantConv(1, 2, kernel_size=kernel, rngs=nnx.Rngs(0)),
        "sn": layers.Spiking(neurons.LIF()),
        "flatten": layers.Flatten(),
        "fc": layers.QuantLinear(8, 3, rngs=nnx.Rngs(1)),
    }
    frames = TRAINS.reshape(8, 5, *in_shape)
    return fit(models.Sequential(parts, in_shape=in_shape), [(frames, LABELS)], **BATCH)


def count_twin(**options):
    """Count differences of a twin on counts of events."""
    quant = {"fc.": QuantSpec(bits=4, clip=1.0)}
    model = calibrate.quantize(sequential(), quant)
    twin = integer.from_model(model, timesteps=5, **options)
    return integer.count_differences(twin, model, TRAINS.swapaxes(0, 1))


def masked_pair(mask):
    """Compare recordings of which one has a mask."""
    x = jnp.asarray(TRAINS, jnp.float32).swapaxes(0, 1)
    one, other = (
        distill.record(sequential(), x, 5, mask=each) for each in (mask, MASK)
    )
    return distill.paired_rates(one, other)


MASK = jnp.ones((5, 8), bool)
LENGTHS = dict(batch_size=3, timesteps=5)
PRE_FIRE = dict(quant=QuantSpec(bits=4, clip=0.5), site="pre_fire")

CASES = {
    # Preconditions that only the documentation knew.
    "record is not applied": (
        lambda: fit(Net("record"), silent_above=0.9),
        "spikes if record is None else record",
        lambda: fit(Net(), silent_above=0.9),
    ),
    "logits of the mean": (
        lambda: fit(Net("mean")),
        r"jnp\.stack",
        lambda: fit(Net()),
    ),
    "only logits": (lambda: fit(Net("logits")), "two things", lambda: fit(Net())),
    "graded values": (
        lambda: train.evaluate(Net("graded"), data.from_arrays(IMAGES, LABELS)),
        "leave membranes",
        lambda: train.evaluate(Net(), data.from_arrays(IMAGES, LABELS)),
    ),
    "pooled spikes into spikes=True": (
        lambda: layers.QuantConv(1, 2, kernel_size=1, spikes=True, rngs=nnx.Rngs(0))(
            PIXELS
        ),
        "spikes=False",
        lambda: layers.QuantConv(1, 2, kernel_size=1, spikes=False, rngs=nnx.Rngs(0))(
            PIXELS
        ),
    ),
    "training in evaluation mode": (
        lambda: train.loss_fn(_mode(Net(), "eval"), PIXELS, LABELS),
        r"model\.train\(\)",
        lambda: train.loss_fn(_mode(Net(), "train"), PIXELS, LABELS),
    ),
    "a stream from nowhere": (
        lambda: recurrent_calls(False),
        "what run_piece",
        lambda: recurrent_calls(True),
    ),
    "one step without time": (
        lambda: layers.run_piece(sequential(), jnp.ones((2, 6)), None),
        r"x\[None\]",
        lambda: layers.run_piece(sequential(), jnp.ones((2, 6))[None], None),
    ),
    "membranes of a still image": (
        lambda: layers.record_membranes(sew(), PIXELS),
        r"encoding\.direct",
        lambda: layers.record_membranes(sew(), encoding.direct(PIXELS, timesteps=2)),
    ),
    "a loss without a mask": (
        lambda: fit(sequential(), of_lengths(), loss=own_loss, **LENGTHS),
        "mask",
        lambda: fit(sequential(), of_lengths(), loss=masked_loss, **LENGTHS),
    ),
    "several outputs": (
        lambda: fit(Net("outputs")),
        "one array of logits",
        lambda: fit(Net()),
    ),
    "three results": (lambda: fit(Net("three")), "tuple of 3", lambda: fit(Net())),
    "time steps of the default": (
        lambda: distill.record(Steps(), encoding.direct(PIXELS, timesteps=5)),
        "timesteps=5",
        lambda: distill.record(Steps(), encoding.direct(PIXELS, timesteps=5), 5),
    ),
    "time steps of the default, calibrated": (
        lambda: calibrate.correct_bias(Steps(), Steps(), [STEPS]),
        "timesteps=5",
        lambda: calibrate.correct_bias(Steps(), Steps(), [STEPS], timesteps=5),
    ),
    "signals of one axis": (
        lambda: signals(6, 1),
        r"in_shape=\(1, 6, 1\), kernel_size=\(1, k\)",
        lambda: signals(1, 6, 1),
    ),
    "counts of events for pixels": (
        count_twin,
        "full_scale=1",
        lambda: count_twin(full_scale=1.0),
    ),
    "a mask on one recording": (
        lambda: masked_pair(None),
        "both calls",
        lambda: masked_pair(MASK),
    ),
    "another mask": (
        lambda: masked_pair(MASK.at[4].set(False)),
        "one mask",
        lambda: masked_pair(MASK),
    ),
    "a weight for each layer": (
        lambda: distill.paired_rates(weight=np.ones(2)),
        "one number",
        lambda: distill.paired_rates(weight=1.0),
    ),
    "a loss without the teacher that it needs": (
        lambda: distill.firing(weight=2.0)(distill.record(Net(), PIXELS)),
        "teacher",
        lambda: distill.rate_regulariser(weight=2.0)(distill.record(Net(), PIXELS)),
    ),
    "spikes of one image": (
        lambda: firing.FiringCounts.from_spikes({"a": np.ones((4, 6))}),
        r"spikes\[:, None\]",
        lambda: firing.FiringCounts.from_spikes({"a": np.ones((4, 6))[:, None]}),
    ),
    # Two options that exclude each other.
    "levels below the threshold": (
        lambda: layers.Spiking(neurons.LIF(), **PRE_FIRE),
        "post_reset",
        lambda: layers.Spiking(neurons.LIF(), **PRE_FIRE | dict(site="post_reset")),
    ),
    "levels below the threshold, lower": (
        lambda: calibrate.quantize(
            sequential(), {"sn1": PRE_FIRE["quant"]}, membrane_site="pre_fire"
        ),
        "a lower threshold",
        lambda: calibrate.quantize(
            sequential(neurons.LIF(v_threshold=0.5)),
            {"sn1": PRE_FIRE["quant"]},
            membrane_site="pre_fire",
        ),
    ),
    "levels below the threshold, wider": (
        lambda: neurons.lif(
            X, membrane_quantizer=PRE_FIRE["quant"], membrane_site="pre_fire"
        ),
        "a wider clip",
        lambda: neurons.lif(
            X, membrane_quantizer=QuantSpec(bits=4, clip=1.0), membrane_site="pre_fire"
        ),
    ),
    "zero-init with AND": (
        lambda: sew(connect="and", zero_init_residual=True),
        'connect="add"',
        lambda: sew(connect="add", zero_init_residual=True),
    ),
    # Advice that is right for this case.
    "pixels in [0, 1]": (
        lambda: data.from_arrays(IMAGES / 255, LABELS),
        r"np\.round\(images \* 255\)",
        lambda: data.from_arrays(np.round(IMAGES / 255 * 255).astype(np.uint8), LABELS),
    ),
    "integer pixels": (
        lambda: data.from_arrays(IMAGES.astype(np.int32), LABELS),
        r"images\.astype\(np\.uint8\)",
        lambda: data.from_arrays(IMAGES.astype(np.int32).astype(np.uint8), LABELS),
    ),
    "no memory": (
        lambda: neurons.lif(X, tau=1.0),
        r"surrogate\.atan\(x_seq - v_threshold\)",
        lambda: surrogate.atan(X - 1.0),
    ),
    "second derivatives": (
        lambda: curvature(_mode(sew(), "train")),
        "keep_inputs",
        lambda: curvature(layers.keep_inputs(_mode(sew(), "train"))),
    ),
    "labels beyond the outputs": (
        lambda: fit(Net(), data.from_arrays(IMAGES, LABELS + 3)),
        "num_classes",
        lambda: fit(Net(), data.from_arrays(IMAGES, LABELS)),
    ),
    # Errors of lower layers.
    "sequences of different lengths": (
        lambda: data.from_arrays(RAGGED, [0, 1, 2]),
        r"data\.pad_sequences",
        of_lengths,
    ),
    "a learned quantizer in a scan": (
        lambda: loop(False),
        "in front of the loop",
        lambda: loop(True),
    ),
    "one-hot labels": (
        lambda: data.from_arrays(IMAGES, np.eye(8, dtype=int)[LABELS]),
        r"argmax\(-1\)",
        lambda: data.from_arrays(IMAGES, np.eye(8, dtype=int)[LABELS].argmax(-1)),
    ),
    "a network of other modules": (
        lambda: calibrate.quantize(
            nnx.Linear(2, 2, rngs=nnx.Rngs(0)), {".*": QuantSpec(bits=4, clip=1.0)}
        ),
        r"QuantLinear",
        lambda: calibrate.quantize(
            layers.QuantLinear(2, 2, rngs=nnx.Rngs(0)),
            {".*": QuantSpec(bits=4, clip=1.0)},
        ),
    ),
    "a rule for no layer": (
        lambda: calibrate.quantize(sequential(), {"fc": QuantSpec(bits=4, clip=1.0)}),
        "fc1",
        lambda: calibrate.quantize(sequential(), {"fc1": QuantSpec(bits=4, clip=1.0)}),
    ),
    # Batches that are read.
    "a generator": (
        lambda: fit(Net(), ((IMAGES[:4], LABELS[:4]) for _ in range(3))),
        "such as a list",
        lambda: fit(Net(), [(IMAGES[:4], LABELS[:4]) for _ in range(3)]),
    ),
    "arrays": (
        lambda: fit(Net(), IMAGES),
        r"data\.from_arrays\(images, labels\)",
        lambda: fit(Net(), data.from_arrays(IMAGES, LABELS)),
    ),
    "time in front": (
        lambda: fit(sequential(), [(TRAINS.swapaxes(0, 1), LABELS)], **BATCH),
        r"np\.moveaxis\(images, 1, 0\)",
        lambda: fit(
            sequential(), [(np.moveaxis(TRAINS.swapaxes(0, 1), 1, 0), LABELS)], **BATCH
        ),
    ),
}
BATCH = dict(batch_size=None, timesteps=5)


def _mode(model, name):
    getattr(model, name)()
    return model


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_remedy_works(case):
    fault, words, remedy = CASES[case]
    with pytest.raises((ValueError, NotImplementedError), match=words):
        fault()
    assert remedy() is not None
