"""Scripts for snnTorch: Python that needs neither JAX nor us, and its weights."""

import ast
import json

import numpy as np
import pytest
import twins
from flax import nnx

from snnjax import layers, models, neurons
from snnjax.interop import snntorch
from snnjax.quantize import QuantSpec

SPEC = QuantSpec(bits=4, clip="absmax")


def test_files(tmp_path):
    model = twins.make(
        models.SpikingVGG, stages=((1, 1), (1, 2)), image_size=(8, 6), weight_quant=SPEC
    )
    path = snntorch.write(model, tmp_path / "there" / "net")
    tree = ast.parse(path.read_text())
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in [getattr(node, "module", None) or node.names[0].name]
    }
    assert imported == {"pathlib", "numpy", "snntorch", "torch"}
    with np.load(path.parent / "weights.npz", allow_pickle=False) as arrays:
        shapes = {name: arrays[name].shape for name in arrays.files}
        kernel = arrays["conv2.weight"]
        below = np.nextafter(np.float32(1), np.float32(0))
    assert shapes["conv2.weight"] == (8, 4, 3, 3)
    assert shapes["fc.weight"] == (10, 16)
    assert f"neurons(0.5, {float(below)!r})" in path.read_text()
    described = json.loads((path.parent / "quantizers.json").read_text())["nodes"]
    codes = kernel / np.array(described["conv2"]["scale"])[:, None, None, None]
    np.testing.assert_allclose(codes, np.rint(codes), atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(connect="iand"), 'connect="add"'),
        (dict(neuron=neurons.LIF(v_reset=None)), "reset to 0"),
        (dict(neuron=neurons.LIF(v_reset=-0.5)), "reset to 0"),
        (dict(membrane_quant=QuantSpec(bits=4)), "membrane of layer1.0.sn1"),
        (dict(neuron=neurons.LIF(tau=np.full(4, 2.0))), "one tau"),
    ],
)
def test_what_tools_do_not_read_is_refused(options, message, tmp_path):
    model = twins.make(models.SEWResNet, blocks=(1,), **options)
    with pytest.raises(ValueError, match=message):
        snntorch.write(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_one_axis_and_linear_layers_at_each_position(tmp_path):
    rngs = nnx.Rngs(0)
    model = models.Sequential(
        {
            "conv": layers.QuantConv(2, 3, kernel_size=(3,), strides=2, rngs=rngs),
            "sn1": layers.Spiking(neurons.LIF()),
            "pool": layers.MaxPool((2,)),
            "each": layers.QuantLinear(3, 5, rngs=rngs),
            "sn2": layers.Spiking(neurons.LIF()),
            "flatten": layers.Flatten(),
            "fc": layers.QuantLinear(20, 4, rngs=rngs),
        },
        in_shape=(17, 2),
    )
    path = snntorch.write(model, tmp_path)
    text = path.read_text()
    assert "nn.Conv1d(2, 3, (3,), stride=(2,), padding=(0,)" in text
    assert "nn.functional.max_pool1d(sn1, (2,), (2,), (0,))" in text
    assert "nn.Conv1d(3, 5, 1)" in text
    with np.load(tmp_path / "weights.npz") as arrays:
        conv, each, fc = (arrays[f"{n}.weight"] for n in ("conv", "each", "fc"))
    # With 1 / tau in the weights, and channels in front.
    kernel = np.asarray(model.conv.kernel.get_value())
    np.testing.assert_allclose(conv, kernel.transpose(2, 1, 0) / 2, rtol=1e-6)
    kernel = np.asarray(model.each.kernel.get_value())
    np.testing.assert_allclose(each, kernel.T[..., None] / 2, rtol=1e-6)
    kernel = np.asarray(model.fc.kernel.get_value()).reshape(4, 5, 4)
    np.testing.assert_array_equal(fc, kernel.transpose(2, 1, 0).reshape(4, 20))
