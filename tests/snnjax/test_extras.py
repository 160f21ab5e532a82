"""A missing extra is an error that names the command that installs it."""

import sys

import pytest
from flax import nnx

from snnjax import data, models
from snnjax.interop import nir, spikingjelly


@pytest.mark.parametrize(
    ("package", "call", "command"),
    [
        ("nir", nir.graph, "pip install 'snnjax[interop]'"),
        ("sklearn", lambda _: data.load("digits", "test"), "'snnjax[experiments]'"),
        ("torch", lambda m: spikingjelly.load(m, "weights.pth"), "pip install torch"),
    ],
)
def test_error_names_the_install_command(monkeypatch, package, call, command):
    model = models.sew_resnet8(2, width=4, in_channels=1, rngs=nnx.Rngs(0))
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises((ImportError, ValueError)) as caught:
        call(model)
    assert command in str(caught.value)
    assert package in str(caught.value) or "scikit-learn" in str(caught.value)
