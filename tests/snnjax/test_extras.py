"""A missing extra is an error that names the command that installs it."""

import importlib
import sys

import altair as alt
import pytest
from flax import nnx

from snnjax import data, models
from snnjax.interop import nir, spikingjelly
from snnjax.report import charts


def load_again(name):
    """Return a call that imports a module as if for the first time."""

    def call(_):
        sys.modules.pop(name, None)
        importlib.import_module(name)

    return call


@pytest.mark.parametrize(
    ("package", "call", "command"),
    [
        ("nir", nir.graph, "pip install 'snnjax[interop]'"),
        ("sklearn", lambda _: data.load("digits", "test"), "'snnjax[experiments]'"),
        ("torch", lambda m: spikingjelly.load(m, "weights.pth"), "pip install torch"),
        ("altair", load_again("snnjax.report.charts"), "'snnjax[report]'"),
        ("pandas", load_again("snnjax.report.traces"), "'snnjax[report]'"),
        ("vl_convert", lambda _: charts.to_png(alt.Chart()), "'snnjax[report]'"),
    ],
)
def test_error_names_the_install_command(monkeypatch, package, call, command):
    model = models.sew_resnet8(2, width=4, in_channels=1, rngs=nnx.Rngs(0))
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.startswith("snnjax.report.")]:
        monkeypatch.setitem(sys.modules, name, sys.modules[name])  # put back at the end
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises((ImportError, ValueError)) as caught:
        call(model)
    assert command in str(caught.value)
    assert package in str(caught.value) or "scikit-learn" in str(caught.value)
