"""EMD and paired shift of recordings of torch libraries, see make_recordings.py."""

import json
from pathlib import Path

import numpy as np
import pytest

from snnjax import report
from snnjax.firing import FiringCounts

PATH = Path(__file__).with_name("recordings.json")
MADE = {k: v for k, v in json.loads(PATH.read_text()).items() if k != "versions"}


@pytest.mark.parametrize("library", MADE)
def test_recordings_of_torch_networks(library):
    one, two = (
        FiringCounts(
            {layer["layer"]: np.array(layer["counts"][i]) for layer in MADE[library]},
            MADE[library][0]["observations"],
        )
        for i in (0, 1)
    )
    card = report.compare(one, two)
    for layer in MADE[library]:
        found = card.layers[layer["layer"]]
        # W1 by SciPy, paired shift by NumPy, of the raw spikes.
        assert found["emd"] == pytest.approx(layer["w1"], abs=1e-6)
        assert found["paired_shift"] == pytest.approx(layer["paired_shift"], abs=1e-6)
