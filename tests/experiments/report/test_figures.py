"""The figures of a run: what they draw is what its rows say."""

import numpy as np
import pandas as pd
import pytest
from planted import LAYERS, a_row, make_run
from studied import a_run

from experiments import tables
from experiments.report import figures, run
from experiments.study import names
from experiments.study.config import StudyConfig
from snnjax.report import charts

WEIGHTS = [
    {"method": method, "grid": grid, "clip": clip}
    for method, grid in (
        ("uniform", "mid_rise"),
        ("uniform", "mid_tread"),
        ("lq_net", None),
    )
    for clip in (1.0, 10.0)
]
MEMBRANE = [
    {"target": "membrane", "grid": "mid_tread", "signed": s} for s in (True, False)
]
WAYS = WEIGHTS + MEMBRANE
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
FIRST = ("weights", "uniform", "mid_rise", 1.0, True)


def of_way(bits=2, mode="qat", **more):
    row = dict(zip(("target", "method", "grid", "clip", "signed"), FIRST, strict=True))
    return a_row(mode, **{"bits": bits, "quantize_all": None} | row | more)


def data_of(chart):
    """The rows that a chart has as its data, one frame for each set."""
    return [pd.DataFrame(rows) for rows in chart.to_dict()["datasets"].values()]


def draw_over_bits(rows):
    (frame,) = data_of(figures.draw_over_bits({"a run": a_run(rows=rows)}))
    return frame


def draw_layer_map(rows):
    chart = figures.draw_layer_map(a_run(rows=rows))
    (frame,) = data_of(chart)
    return frame.set_index(["mode", "configuration", "layer"])["emd"], chart.to_dict()


def find_channels(spec, channel):
    """All encodings of a channel in a specification."""
    if isinstance(spec, list):
        return [found for part in spec for found in find_channels(part, channel)]
    if not isinstance(spec, dict):
        return []
    own = [spec["encoding"][channel]] if channel in spec.get("encoding", {}) else []
    parts = [value for key, value in spec.items() if key != "datasets"]
    return own + find_channels(parts, channel)


def test_names_order_and_styles_are_distinct():
    rows = [of_way(**way) for way in WAYS]
    assert [names.method_name(row) for row in rows] == NAMES
    shuffled = sorted(reversed(rows), key=names.row_order)
    assert [names.method_name(row) for row in shuffled] == NAMES
    drawn = a_run(rows=[a_row("fp32"), *reversed(rows)])
    spec = figures.draw_over_bits({"a run": drawn}).to_dict()
    looks = []
    for channel in ("color", "shape", "strokeDash"):
        scales = [found["scale"] for found in find_channels(spec, channel)]
        assert all(scale == scales[0] for scale in scales)
        assert scales[0]["domain"] == NAMES
        looks.append([str(value) for value in scales[0]["range"]])
    colours, shapes, dashes = looks
    assert len(set(zip(colours, shapes, dashes, strict=True))) == len(WAYS)
    # Without colour, marker and dashes still tell all methods apart.
    assert len(set(zip(shapes, dashes, strict=True))) == len(WAYS)


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
    row = of_way(**more)
    assert names.method_name(row) == name
    names.row_order(row)


@pytest.mark.parametrize(
    ("emd", "text"),
    [
        (0.0, "0.0000"),
        (0.00474, "0.0047"),
        (0.000321, "0.00032"),
        (2.64e-05, "0.000026"),
        (float("nan"), "-"),
        (None, "-"),
    ],
)
def test_emd_text(emd, text):
    assert tables.emd_text(emd) == text


def test_over_bits():
    rows = [
        of_way(bits, emd=0.04 / bits, accuracy=0.9 + bits / 100, **way)
        for bits in (8, 2)
        for way in WAYS
    ]
    ptq = of_way(mode="ptq", emd=0.02, accuracy=0.92)
    control = a_row("control", emd=0.0047, accuracy=0.98)
    frame = draw_over_bits([a_row("fp32", accuracy=0.97), control, *rows, ptq])
    assert list(frame["mode"].drop_duplicates()) == ["PTQ", "QAT"]
    qat = frame[frame["mode"] == "QAT"]
    assert list(qat["method"].drop_duplicates()) == NAMES
    line = qat[qat["method"] == "LQ-Net wide"].set_index("bits")
    np.testing.assert_allclose(line["emd"][[2, 8]], [0.02, 0.005])
    np.testing.assert_allclose(line["accuracy"][[2, 8]], [0.92, 0.98])
    # The accuracy axis is drawn by error.
    np.testing.assert_allclose(line["error"][[2, 8]], [8, 2])
    np.testing.assert_allclose(line["margin"], 0.0047)
    # QAT is set against the better of baseline and control, PTQ against the baseline.
    np.testing.assert_allclose(qat["base"], 2)
    np.testing.assert_allclose(frame[frame["mode"] == "PTQ"]["base"], 3)


def test_over_bits_labels_its_axes_by_accuracy():
    control = a_row("control", emd=0.0047)
    rows = [a_row("fp32"), control, of_way(emd=0.01), of_way(4, emd=0.1)]
    run = a_run(rows=rows)
    spec = figures.draw_over_bits({"a run": run}).to_dict()
    axes = {y["field"]: y for y in find_channels(spec, "y") if "axis" in y}
    assert axes["error"]["axis"]["labelExpr"].startswith("format(100 - datum.value")
    assert axes["error"]["scale"]["reverse"]
    assert axes["emd"]["scale"]["type"] == axes["error"]["scale"]["type"] == "log"
    low, high = axes["emd"]["scale"]["domain"]
    assert low < 0.0047 < 0.1 < high
    # The two axes of a panel have different fields and the same bits.
    assert {x["field"] for x in find_channels(spec, "x")} == {"bits"}


@pytest.mark.parametrize("third", [False, True])
def test_over_bits_of_several_seeds(third):
    """A line does not lead from the mean of two seeds to one of them."""
    rows = [
        of_way(bits, seed=seed, emd=emd, accuracy=accuracy)
        for bits, seed, emd, accuracy in (
            (2, 0, 0.01, 0.80),
            (2, 1, 0.03, 0.90),
            (4, 0, 0.02, 0.95),
            *([(4, 1, 0.02, 0.95)] * third),
        )
    ]
    frame = draw_over_bits([a_row("fp32"), a_row("fp32", seed=1), *rows])
    frame = frame.set_index("bits")
    error, emd = (15, 0.02) if third else (20, 0.01)
    np.testing.assert_allclose(frame["error"][[2, 4]], [error, 5])
    np.testing.assert_allclose(frame["emd"][[2, 4]], [emd, 0.02])
    # The ends are those of all seeds: a bar at the bits of two.
    for key, ends in (("error", [10, 20]), ("emd", [0.01, 0.03])):
        found = [frame[f"{key}_{end}"][2] for end in ("low", "high")]
        np.testing.assert_allclose(np.sort(found), ends)
        assert frame[f"{key}_low"][4] == frame[f"{key}_high"][4]


@pytest.mark.parametrize("emd", [0.0, 0.01])
def test_over_bits_of_extremes(emd):
    none = dict.fromkeys(("floor_control", "floor_seed", "floor_sampling"), 0.0)
    rows = [
        a_row("fp32", accuracy=1.0, floor_sampling=0.0),
        of_way(emd=emd, accuracy=1.0, **none),
        of_way(4, emd=emd, accuracy=0.0, **none),
    ]
    run = a_run(rows=rows)
    chart = figures.draw_over_bits({"a run": run})
    (frame,) = data_of(chart)
    # On a logarithmic axis all values are positive.
    shown = frame[["error", "error_low", "error_high", "emd", "emd_low", "emd_high"]]
    assert (shown > 0).all(axis=None)
    assert charts.to_png(chart).startswith(b"\x89PNG")


def test_nothing_is_drawn_without_quantized_rows():
    assert figures.draw_run(a_run(rows=[a_row("fp32"), a_row("control")])) == []
    assert figures.draw_runs([a_run(rows=[a_row("fp32")])]) == []


def test_layer_map():
    rows = [of_way(b, m, emd=0.1 / b) for b in (2, 8) for m in ("ptq", "qat")]
    control = a_row("control", emd=0.004)
    found, spec = draw_layer_map([a_row("fp32"), control, *rows[:-1]])
    name = "uniform mid-rise narrow"
    for mode in ("PTQ", "QAT"):
        np.testing.assert_allclose(found[mode, "control"], [0.002, 0.004, 0.006])
        at_two = found[mode, f"{name} 2 bit"]
        assert tuple(at_two.index) == LAYERS
        np.testing.assert_allclose(at_two, [0.025, 0.05, 0.075])
    assert ("PTQ", f"{name} 8 bit", "sn1") in found.index
    assert ("QAT", f"{name} 8 bit", "sn1") not in found.index  # not finished
    (y,) = find_channels(spec, "y")
    assert y["sort"] == ["control", f"{name} 2 bit", f"{name} 8 bit"]
    (x,) = find_channels(spec, "x")
    assert tuple(x["sort"]) == LAYERS


def test_layer_map_is_grey_up_to_the_margin():
    rows = [a_row("fp32"), a_row("control", emd=0.0012), of_way(emd=0.0012)]
    chart = figures.draw_layer_map(a_run(rows=rows))
    (frame,) = data_of(chart)
    # Up to the control's mean over layers, 0.0012, with 0.0006 and 0.0018 beside it.
    assert list(frame["above"]) == [False, False, True] * 2
    (colour,) = find_channels(chart.to_dict(), "color")
    red, green, blue = (colour["value"][i : i + 2] for i in (1, 3, 5))
    assert int(max(red, green, blue), 16) - int(min(red, green, blue), 16) < 16
    assert colour["value"] not in charts.HEAT


def test_layer_map_of_several_seeds():
    rows = [of_way(seed=seed, emd=emd) for seed, emd in ((0, 0.02), (1, 0.06))]
    controls = [
        a_row("control", seed=s, emd=emd) for s, emd in ((0, 0.001), (1, 0.003))
    ]
    found, _ = draw_layer_map([*controls, *rows])
    np.testing.assert_allclose(found["QAT", "control"], [0.001, 0.002, 0.003])
    shown = found["QAT", "uniform mid-rise narrow 2 bit"]
    np.testing.assert_allclose(shown, [0.02, 0.04, 0.06])


@pytest.mark.parametrize("margin", [[], [0.0], [0.5]])
@pytest.mark.parametrize("emd", [0.0, 0.01])
def test_layer_map_without_drift_or_margin(emd, margin):
    controls = [a_row("control", emd=each) for each in margin]
    chart = figures.draw_layer_map(a_run(rows=[*controls, of_way(emd=emd)]))
    (colour,) = find_channels(chart.to_dict(), "color")
    low, high = colour["condition"]["scale"]["domain"]
    assert 0 < low < high


def test_histograms_and_flows_are_of_the_stored_counts(tmp_path):
    rows = [a_row("fp32"), of_way(mode="ptq", quantize_all=False, emd=0.1)]
    made = run.load(make_run(tmp_path / "run", rows, StudyConfig()))
    rates, flows = figures.draw_run(made, only=["rates"])
    assert (rates.name, flows.name) == ("rates", "flows")
    (frame,) = data_of(rates.chart)
    assert list(frame["layer"].drop_duplicates()) == list(LAYERS)
    base, own = (made.folder.firing(row).counts.rates() for row in made.rows)
    for name, part in frame.groupby("network", sort=False):
        silent = part.drop_duplicates("layer").set_index("layer")["share"]
        for layer, rate in (base if name == "baseline" else own).items():
            assert silent[layer] == np.mean(rate < 0.04)
    shares = frame.groupby(["network", "layer"])["share"].sum()
    np.testing.assert_allclose(shares, 1)
    (frame,) = data_of(flows.chart)
    (title,) = frame["network"].unique()
    assert title.endswith(tables.emd_text(frame["work"].sum()))


def test_runs_side_by_side_are_panels_of_their_own():
    rows = [a_row("fp32"), of_way(mode="ptq", emd=0.01), of_way(emd=0.01)]
    one, two = a_run(rows=rows), a_run(rows=rows[:2])
    object.__setattr__(two, "name", "another")
    drawn = {picture.name: picture.chart for picture in figures.draw_runs([one, two])}
    assert list(drawn) == ["over_bits_ptq", "over_bits_qat"]
    (frame,) = data_of(drawn["over_bits_ptq"])
    assert list(frame["mode"]) == [one.name, "another"]
    (frame,) = data_of(drawn["over_bits_qat"])
    assert list(frame["mode"]) == [one.name]
