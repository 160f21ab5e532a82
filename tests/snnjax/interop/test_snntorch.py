"""Scripts for snnTorch: Python that needs neither JAX nor us, and its weights."""

import ast
import json

import numpy as np
import pytest
import twins

from snnjax import models, neurons
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
