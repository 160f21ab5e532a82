"""Names of runs, and their way through a row."""

import pytest

from experiments.study.config import CHOICES, StudyConfig
from experiments.study.grid import RunSpec, name_row, planned

NONE = dict.fromkeys(
    ("method", "grid", "clip", "signed", "site", "quantize_all", "bits")
)


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"target": "none", **NONE, "mode": "control", "seed": 3}, "control-s3"),
        (
            NONE
            | {"target": "weights", "method": "lq_net", "grid": None, "clip": 10.0}
            | {"signed": True, "bits": 2, "mode": "ptq_bn", "seed": 0},
            "weights-lq_net-signed-clip10-b2-ptq_bn-s0",
        ),
        (
            NONE
            | {"target": "membrane", "method": "uniform", "grid": "mid_tread"}
            | {"clip": 1.0, "signed": False, "bits": 8, "mode": "qat", "seed": 0},
            "membrane-uniform-mid_tread-unsigned-clip1-b8-qat-s0",
        ),
    ],
)
def test_row_names(row, name):
    assert name_row(row) == name


def test_a_spec_survives_a_row():
    for spec in planned(StudyConfig(ablation_bits=(2,))):
        assert RunSpec.from_row(spec.to_row()) == spec


MORE = {
    "only": ("weights", None),
    "modes": (("ptq",), ("ptq", "ptq_bn", "qat")),
    "bits": ((2, 9), (2, 4, 9)),
    "qat_bits": ((2,), (2, 8)),
    "repeat": (False, True),
    "repeat_qat_bits": ((2,), (2, 8)),
    "ablation_bits": ((), (2,)),
    "grid": (("mid_tread",), ("mid_rise", "mid_tread")),
}


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_adds_runs_and_takes_none_away(name):
    others = {"repeat": True} if name == "repeat_qat_bits" else {}
    fewer, more = (
        planned(StudyConfig(**others | {name: value})) for value in MORE[name]
    )
    assert set(fewer) < set(more)
