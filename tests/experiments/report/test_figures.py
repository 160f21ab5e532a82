"""The figures: what is drawn is what the rows say, and can be read."""

import struct

import matplotlib
import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.text import Text

from experiments.report import figures, formats, layer_figures, names
from experiments.report.figures import method_style, plain_log_ticks

LAYERS = ("sn1", "layer1.0.sn1", "layer2.0.downsample_sn")


def a_row(bits=2, mode="qat", emd=0.01, accuracy=0.9, **more):
    return {
        "target": "weights",
        "method": "uniform",
        "grid": "mid_rise",
        "clip": 1.0,
        "signed": True,
        "bits": bits,
        "mode": mode,
        "seed": 0,
        "accuracy": accuracy,
        "emd_mean": emd,
        "site": None,
        "quantize_all": None,
        "emd": {name: emd * (i + 1) / 2 for i, name in enumerate(LAYERS)},
    } | more


WAYS = [
    {"method": method, "grid": grid, "clip": clip}
    for method, grid in (
        ("uniform", "mid_rise"),
        ("uniform", "mid_tread"),
        ("lq_net", None),
    )
    for clip in (1.0, 10.0)
] + [{"target": "membrane", "grid": "mid_tread", "signed": s} for s in (True, False)]
NAMES = [
    "uniform mid-rise narrow",
    "uniform mid-rise wide",
    "uniform mid-tread narrow",
    "uniform mid-tread wide",
    "LQ-Net narrow",
    "LQ-Net wide",
    "membrane signed",
    "membrane unsigned",
]


def lines_of(axis):
    return {
        line.get_label(): line
        for line in axis.lines
        if not line.get_label().startswith("_")
    }


def smallest_font(figure):
    texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text()]
    return min(text.get_fontsize() for text in texts)


def firing(name, counts, observations=10):
    return layer_figures.Firing(
        name, counts, observations, dict.fromkeys(counts, 0.0125)
    )


def test_names_order_and_styles_are_distinct():
    rows = [a_row(**way) for way in WAYS]
    assert [names.method_name(row) for row in rows] == NAMES
    shuffled = sorted(reversed(rows), key=names.method_order)
    assert [names.method_name(row) for row in shuffled] == NAMES
    styles = [
        (s["color"], str(s["linestyle"]), s["marker"]) for s in map(method_style, rows)
    ]
    assert len(set(styles)) == len(WAYS)
    # Without colour, marker and dashes still tell all methods apart.
    assert len({style[1:] for style in styles}) == len(WAYS)


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ({"clip": 3.0}, "uniform mid-rise clip 3.0"),
        ({"target": "both", "method": "lsq", "grid": None}, "both lsq narrow"),
        ({"target": "none", "seed": 1}, "full precision, seed 1"),
        (
            {"target": "membrane", "grid": "mid_rise", "site": "pre_fire"},
            "membrane signed mid-rise pre-fire",
        ),
        ({"quantize_all": True}, "uniform mid-rise narrow everywhere"),
        ({"quantize_all": False}, "uniform mid-rise narrow"),
    ],
)
def test_names_of_other_rows(more, name):
    row = a_row(**more)
    assert names.method_name(row) == name
    method_style(row)
    names.method_order(row)


@pytest.mark.parametrize(
    ("emd", "text"),
    [
        (0.0, "0.0000"),
        (0.00474, "0.0047"),
        (0.000321, "0.00032"),
        (2.64e-05, "0.000026"),
    ],
)
def test_emd_text(emd, text):
    assert formats.emd_text(emd) == text


@pytest.mark.parametrize(
    ("low", "high"), [(1e-6, 0.2), (2e-5, 3e-3), (0.015, 250), (0.02, 0.05), (2, 3)]
)
def test_log_axis_labels(low, high):
    axis = Figure().subplots().xaxis
    axis.axes.set_xscale("log")
    axis.axes.set_xlim(low, high)
    plain_log_ticks(axis, low, high)
    ticks = axis.get_majorticklocs()
    labels = axis.get_major_formatter().format_ticks(ticks)
    assert sum(low <= tick <= high for tick in ticks) >= 2
    np.testing.assert_allclose([float(label) for label in labels], ticks, rtol=1e-12)
    assert set("".join(labels)) <= set("0123456789.")


def test_over_bits():
    rows = [
        a_row(bits=bits, emd=0.04 / bits, accuracy=0.9 + bits / 100, **way)
        for bits in (8, 2)
        for way in WAYS
    ]
    panels = [
        figures.Panel("QAT", rows, 0.98, 0.004),
        figures.Panel("PTQ", rows[:1], None, None),
    ]
    figure = figures.over_bits(panels)
    (top, _), (bottom, bottom_right) = np.reshape(figure.axes[:4], (2, 2))
    assert list(lines_of(top)) == NAMES
    x, y = lines_of(bottom)["LQ-Net wide"].get_data()
    np.testing.assert_allclose(x, [2, 8])
    np.testing.assert_allclose(y, [0.02, 0.005])
    # The accuracy axis is drawn by error and labelled by accuracy.
    np.testing.assert_allclose(lines_of(top)["LQ-Net wide"].get_ydata(), [8, 2])
    assert top.yaxis.get_major_formatter()(5, None) == "95"
    assert top.get_ylim()[0] > top.get_ylim()[1]
    assert bottom.get_yscale() == "log"
    (band,) = bottom.patches
    assert band.get_extents().transformed(bottom.transData.inverted()).y1 == (
        pytest.approx(0.004)
    )
    assert len(bottom_right.patches) == 0
    assert len(lines_of(bottom_right)) == 1
    assert list(bottom.get_xticks()) == [2, 8]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == NAMES
    assert smallest_font(figure) >= 8


@pytest.mark.parametrize("third", [False, True])
def test_over_bits_of_several_seeds(third):
    """A line does not lead from the mean of two seeds to one of them."""
    rows = [
        a_row(bits=bits, seed=seed, emd=emd, accuracy=accuracy)
        for bits, seed, emd, accuracy in (
            (2, 0, 0.01, 0.80),
            (2, 1, 0.03, 0.90),
            (4, 0, 0.02, 0.95),
            *([(4, 1, 0.02, 0.95)] * third),
        )
    ]
    figure = figures.over_bits([figures.Panel("QAT", rows, 0.98, 0.004)])
    top, bottom = figure.axes
    (name,) = lines_of(top)
    error, emd = (15, 0.02) if third else (20, 0.01)
    np.testing.assert_allclose(lines_of(top)[name].get_ydata(), [error, 5])
    np.testing.assert_allclose(lines_of(bottom)[name].get_ydata(), [emd, 0.02])
    if third:
        return
    # One bar, at the bits of two seeds.
    for axis, ends in ((top, [20, 10]), (bottom, [0.01, 0.03])):
        (bars,) = axis.collections
        (bar,) = bars.get_segments()
        np.testing.assert_allclose(np.sort(bar[:, 1]), np.sort(ends))
        np.testing.assert_allclose(bar[:, 0], 2)


@pytest.mark.parametrize("emd", [0.0, 0.01])
def test_over_bits_of_extremes(emd):
    rows = [a_row(emd=emd, accuracy=1.0), a_row(bits=4, emd=emd, accuracy=0.0)]
    figures.png(figures.over_bits([figures.Panel("QAT", rows, 1.0, 0.0)]))
    figures.png(figures.over_bits([figures.Panel("QAT", [], None, None)]))


def test_layer_map():
    rows = [a_row(bits=b, mode=m, emd=0.1 / b) for b in (2, 8) for m in ("ptq", "qat")]
    control = a_row(mode="control", emd=0.004)
    figure = layer_figures.layer_map(rows[:-1], [control], lower=0.006, floor=0.03)
    meshes = [m for axis in figure.axes[:2] for m in axis.findobj(QuadMesh)]
    ptq, qat = (np.ma.filled(m.get_array(), np.nan).reshape(3, 3) for m in meshes)
    # control, 2 bit, 8 bit; three layers
    np.testing.assert_allclose(ptq[0], [0.002, 0.004, 0.006])
    np.testing.assert_allclose(ptq[1], [0.025, 0.05, 0.075])
    np.testing.assert_allclose(qat[1], ptq[1])
    assert np.isnan(qat[2]).all()  # this row is not finished
    ticks = [text.get_text().split() for text in figure.axes[0].get_yticklabels()]
    assert [words[-2:] for words in ticks[1:]] == [["2", "bit"], ["8", "bit"]]
    # Within the lower floor: the colour under the scale, a neutral grey.
    mesh = meshes[0]
    red, green, blue, _ = mesh.cmap(mesh.norm(0.005))
    assert red == green == blue
    assert smallest_font(figure) >= 8


def test_layer_map_of_several_seeds():
    rows = [a_row(seed=seed, emd=emd) for seed, emd in ((0, 0.02), (1, 0.06))]
    controls = [a_row(mode="control", emd=emd) for emd in (0.001, 0.003)]
    figure = layer_figures.layer_map(rows, controls, lower=0.001)
    (mesh,) = figure.axes[0].findobj(QuadMesh)
    shown = np.reshape(mesh.get_array(), (2, 3))
    np.testing.assert_allclose(shown, [[0.001, 0.002, 0.003], [0.02, 0.04, 0.06]])


@pytest.mark.parametrize("floor", [None, 0.0, 0.5])
@pytest.mark.parametrize("lower", [None, 0.0, 0.5])
@pytest.mark.parametrize("emd", [0.0, 0.01])
def test_layer_map_without_drift_or_floor(emd, lower, floor):
    figures.png(layer_figures.layer_map([a_row(emd=emd)], lower=lower, floor=floor))


def test_histograms():
    base = firing("baseline", {"sn1": np.zeros((2, 2, 3), np.int32)})
    half = firing("other", {"sn1": np.array([0] * 6 + [9] * 6).reshape(2, 2, 3)})
    figure = layer_figures.rate_histograms(base, [half])
    axis = figure.axes[0]
    filled, line = axis.patches
    assert filled.get_data().values[0] == 1
    values = line.get_data().values
    assert values[0] == 0.5
    assert values[int(0.9 * 25)] == 0.5
    assert "EMD 0.0125" in [text.get_text() for text in axis.texts]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["baseline", "other"]
    assert smallest_font(figure) >= 8


@pytest.mark.parametrize("layers", [1, 4, 20])
def test_histogram_panels(layers):
    counts = {f"layer{i}": np.arange(8).reshape(2, 4) for i in range(layers)}
    figure = layer_figures.rate_histograms(firing("baseline", counts), [])
    shown = [axis.get_title(loc="left") for axis in figure.axes if axis.get_visible()]
    assert shown == list(counts)


def test_rates_over_one_are_in_the_last_bin():
    base = firing("baseline", {"layer1.0.out": np.array([25, 10])})
    filled = layer_figures.rate_histograms(base, []).axes[0].patches[0]
    assert filled.get_data().values[-1] == 1


def test_png_is_deterministic():
    before = dict(matplotlib.rcParams)
    panels = [figures.Panel("QAT", [a_row()], 0.98, 0.004)]
    first, second = (figures.png(figures.over_bits(panels)) for _ in range(2))
    assert first == second
    assert first.startswith(b"\x89PNG")
    assert struct.unpack(">II", first[16:24]) == (1920, 1280)
    assert dict(matplotlib.rcParams) == before
