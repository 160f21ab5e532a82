"""Rows and runs whose truth is known, for the tests of the report."""

import itertools
import json
from html.parser import HTMLParser

import numpy as np

from experiments.study.config import StudyConfig
from experiments.study.store import RowFiring, StudyStore
from snnjax.firing import FiringCounts

LAYERS = ("sn1", "layer1.0.sn1", "layer1.0.sn2")
OBSERVATIONS = 400
FLOOR = 0.0047
WEIGHTS = [
    ("weights", method, grid, clip, True)
    for method, grid in (
        ("uniform", "mid_rise"),
        ("uniform", "mid_tread"),
        ("lq_net", None),
    )
    for clip in (1.0, 10.0)
]
MEMBRANE = [("membrane", "uniform", "mid_tread", 1.0, s) for s in (True, False)]


def a_row(mode, *, target="none", emd=0.0, accuracy=0.978, bits=None, seed=0, **more):
    quantized = target != "none"
    layers = {
        name: emd * factor for name, factor in zip(LAYERS, (0.5, 1, 1.5), strict=True)
    }
    return {
        "dataset": "digits",
        "model": "sew_resnet8",
        "width": 16,
        "seed": seed,
        "target": target,
        "method": None,
        "grid": None,
        "clip": None,
        "signed": None,
        "site": None,
        "quantize_all": None,
        "bits": bits,
        "mode": mode,
        "accuracy": accuracy,
        "mean_rate": 0.1234,
        "dead_fraction": 0.412,
        "saturated_fraction": 0.013,
        "emd_mean": emd,
        "emd": layers,
        "paired_shift": {name: 2 * value for name, value in layers.items()},
        "mean_shift": dict.fromkeys(LAYERS, 0.0),
        "ks": {name: min(1, 10 * value) for name, value in layers.items()},
        "latency_emd": {name: 3 * value for name, value in layers.items()},
        "time_w1": {name: 4 * value for name, value in layers.items()},
        "floor_control": FLOOR if quantized else None,
        "floor_seed": 0.0040 if quantized else None,
        "floor_sampling": 0.0012,
    } | more


def quantized(way, bits, mode, **more):
    names = ("target", "method", "grid", "clip", "signed")
    return a_row(mode, bits=bits, **dict(zip(names, way, strict=True)) | more)


def reference(seeds=(0,)):
    return [
        row
        for seed in seeds
        for row in (
            a_row("fp32", seed=seed),
            a_row("control", emd=FLOOR, accuracy=0.980, seed=seed),
            a_row("fp32_bn", emd=0.0002, accuracy=0.977, seed=seed),
        )
    ]


def grid(emd=0.003, modes=("ptq", "ptq_bn", "qat"), bits=(2, 4, 6, 8), **more):
    return [
        quantized(way, b, mode, emd=emd, **more)
        for mode in modes
        for way in WEIGHTS + MEMBRANE
        for b in bits
    ]


def make_run(path, rows, config=None, **info):
    config = config or StudyConfig()
    run = StudyStore(path)
    path.mkdir(parents=True)
    about = {
        "config": config.numbers(),
        "config_hash": config.hash(),
        "versions": {"snnjax": "0.1.0"},
    }
    run.write_text("config.json", json.dumps(about | info))
    generator = np.random.default_rng(0)
    for row in rows:
        counts = {
            name: generator.integers(0, OBSERVATIONS, (4, 4, 3)) for name in LAYERS
        }
        run.append_firing(row, RowFiring(FiringCounts(counts, OBSERVATIONS), counts))
    return path


def read_table(text):
    """The first Markdown table of a text: a dictionary a line."""
    lines = itertools.dropwhile(lambda li: not li.startswith("|"), text.splitlines())
    lines = itertools.takewhile(lambda li: li.startswith("|"), lines)
    head, _, *body = ([c.strip() for c in li.strip("|").split("|")] for li in lines)
    return [dict(zip(head, line, strict=True)) for line in body]


class Checker(HTMLParser):
    """Balanced tags, and every address the page would load."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self):
        super().__init__()
        self.open, self.loads, self.rows = [], [], 0

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        self.rows += tag == "tr"
        assert tag not in ("link", "iframe", "object")
        self.loads += [v for k, v in attrs if k in ("src", "href", "srcset", "data")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag


def check_html(page):
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    return checker
