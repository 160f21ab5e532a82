"""Where real images lie that TFDS has prepared."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def data_dir(name: str) -> Path:
    """The folder that has the data set; without one the test is skipped."""
    places = [os.environ.get("SNNJAX_DATA_DIR"), ROOT.parent / "shared/data/tfds"]
    for place in filter(None, places):
        if list(Path(place, name).glob("*/dataset_info.json")):
            return Path(place)
    pytest.skip(f"no {name} in $SNNJAX_DATA_DIR or {places[-1]}")
