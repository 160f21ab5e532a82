import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from programs import equations

from snnjax import calibrate, cost, firing, models, neurons
from snnjax.conv import neighbours
from snnjax.quantize import QuantSpec


def vgg(make=models.spiking_vgg_small, **options):
    defaults = {"width": 2, "image_size": (17, 12), "in_channels": 3}
    model = make(5, **(defaults | options), rngs=nnx.Rngs(0))
    draw = np.random.default_rng(0)
    for _, norm in nnx.iter_modules(model):
        if hasattr(norm, "scale"):
            shape = norm.scale.shape
            norm.scale.set_value(jnp.asarray(draw.uniform(2, 3, shape), jnp.float32))
            norm.bias.set_value(jnp.asarray(draw.normal(1, 1, shape), jnp.float32))
    return model


def images():
    return np.random.default_rng(0).normal(size=(2, 17, 12, 3)).astype(np.float32)


def abstract(make, **options):
    make = functools.partial(make, **options)
    return nnx.split(nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0))))


@pytest.mark.parametrize(
    ("make", "classes", "expected"),
    [
        (models.spiking_vgg_small, 10, 4_660_106),
        (models.spiking_vgg16, 10, 14_724_042),
        (models.spiking_vgg16, 100, 14_770_212),
    ],
)
def test_parameters(make, classes, expected):
    _, state = abstract(make, num_classes=classes)
    leaves = jax.tree.leaves(nnx.filter_state(state, nnx.Param))
    assert sum(leaf.size for leaf in leaves) == expected


def reference(model, x, timesteps):
    """The network in numpy and float64."""

    def conv(x, w):
        x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (2, 3))
        return np.einsum("tbhwcij,ijck->tbhwk", windows, np.asarray(w, float))

    h, found, i = np.broadcast_to(x.astype(float), (timesteps, *x.shape)), {}, 0
    for stage, number in enumerate(model.stages, start=1):
        for _ in range(number):
            i += 1
            norm = getattr(model, f"bn{i}")
            scale, bias, mean, var = (
                np.asarray(v.get_value(), float)
                for v in (norm.scale, norm.bias, norm.mean, norm.var)
            )
            h = conv(h, getattr(model, f"conv{i}").kernel.get_value())
            h = (h - mean) / np.sqrt(var + 1e-5) * scale + bias
            v, out = np.zeros(h.shape[1:]), []
            for current in h:
                v = v + (current - v) / 2
                out.append((v >= 1).astype(float))
                v = v * (v < 1)
            h = found[f"sn{i}"] = np.array(out)
        rows, columns = h.shape[2] // 2 * 2, h.shape[3] // 2 * 2
        blocks = h[:, :, :rows, :columns]
        blocks = blocks.reshape(*h.shape[:2], rows // 2, 2, columns // 2, 2, -1)
        h = found[f"pool{stage}"] = blocks.max((3, 5))
    w, b = (np.asarray(v.get_value(), float) for v in (model.fc.kernel, model.fc.bias))
    return h.reshape(*h.shape[:2], -1) @ w + b, found


def test_forward_is_numpys():
    model = vgg()
    logits, spikes = model(images(), timesteps=3, outputs=True)
    expected, found = reference(model, images(), 3)
    assert set(spikes) == set(found)
    for name, train in found.items():
        np.testing.assert_array_equal(spikes[name], train, err_msg=name)
        assert 0 < train.mean() < 1
    np.testing.assert_allclose(logits, expected, atol=1e-5)


@pytest.mark.parametrize("size", [(32, 32), (35, 64)])
@pytest.mark.parametrize("make", [models.spiking_vgg_small, models.spiking_vgg16])
def test_synapses_are_the_convolutions_of_the_program(make, size, monkeypatch):
    # XLA's own algorithm, whose program has the layer's numbers.
    monkeypatch.setattr(neighbours, "count_neighbours", lambda *channels: 1)
    graphdef, state = abstract(make, width=4, in_channels=2, image_size=size)
    x = jax.ShapeDtypeStruct((3, *size, 2), jnp.float32)
    program = jax.make_jaxpr(lambda s, x: nnx.merge(graphdef, s)(x))(state, x)
    found = []
    for equation in equations(program.jaxpr):
        if equation.primitive.name not in ("conv_general_dilated", "dot_general"):
            continue
        image, *_, out = (v.aval.shape for v in (*equation.invars, *equation.outvars))
        if equation.primitive.name == "conv_general_dilated":
            params = equation.params
            found.append(
                (params["window_strides"], params["padding"], image[1:], out[1:])
            )
        else:
            found.append((image[-1], out[-1]))
    *convs, fc = nnx.merge(graphdef, state).synapses()
    assert [(s.strides, s.padding, s.in_shape, s.out_shape) for s in convs] == found[
        :-1
    ]
    assert (np.prod(fc.in_shape), fc.out_shape[-1]) == found[-1]
    assert fc.kernel_size == fc.in_shape[:2]


@pytest.mark.slow
def test_operations_are_counted_behind_the_pooling():
    model = vgg()
    _, counts = model(images(), timesteps=3, record=firing.total, outputs=True)
    operations = cost.synaptic_operations(model.synapses(), counts, images=2)
    assert set(operations) == {*(f"conv{i}" for i in range(2, 7)), "fc"}
    # Each of the linear layer's inputs has one synapse to each class.
    assert operations["fc"] == counts["pool3"].sum() * 5 / 2
    _, counts = model(images(), timesteps=3, record=firing.total)
    with pytest.raises(ValueError, match=r"pool1.*outputs=True"):
        cost.synaptic_operations(model.synapses(), counts, images=2)


@pytest.mark.nightly
def test_it_is_quantized_and_trained_like_the_others():
    spec = QuantSpec("lsq", bits=4)
    membrane = QuantSpec(bits=4, clip=1.0, signed=False, grid="mid_tread")
    model = vgg(weight_quant=spec, membrane_quant=membrane, neuron=neurons.PLIF())
    lines = calibrate.describe(model).splitlines()
    assert len(lines) == 13
    floats = [line.split()[0] for line in lines if line.endswith("float")]
    assert sorted(floats) == ["conv1", "fc", "sn1"]
    again = calibrate.quantize(vgg(), {r"conv[2-6]": spec})
    assert "4 bit lsq, signed" in calibrate.describe(again)
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def loss(params):
        model = nnx.merge(graphdef, params, rest, copy=True)
        return jnp.square(model(images(), timesteps=2, train=True)[0]).sum()

    for path, gradient in nnx.to_flat_state(jax.jit(jax.grad(loss))(params)):
        assert jnp.any(gradient.get_value() != 0), path


def test_the_linear_layer_starts_as_spikingjellys():
    fc = models.spiking_vgg_small(width=8, rngs=nnx.Rngs(0)).fc
    assert 0.0095 < np.std(fc.kernel) < 0.0105
    assert not np.asarray(fc.bias).any()


def test_a_scale_is_fitted_to_the_kernel_that_the_linear_layer_has():
    spec = QuantSpec(bits=4, method="lsq")
    options = dict(weight_quant=spec, quantize_all=True, rngs=nnx.Rngs(0))
    fc = models.spiking_vgg_small(width=8, **options).fc
    expected = spec.init_scale(fc.kernel.get_value())
    np.testing.assert_array_equal(fc.quant_scale[...], expected)
