"""The committed baselines are the networks of the committed tables."""

import json
import math
from pathlib import Path

import cifar
import pytest

from snnjax import checkpoint, data, firing, train

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "docs/results"
FILES = sorted((RESULTS / "checkpoints").glob("cifar*.safetensors"))
# The network of the page of baselines, and a study's; all of them by night.
FIRST = ("cifar10-sew_resnet8-w64-s0", "cifar100-sew_resnet8-w16-s0")
CHECKPOINTS = [
    *(
        pytest.param(path, 250, id=path.stem, marks=pytest.mark.slow)
        for path in FILES
        if path.stem in FIRST
    ),
    *(
        pytest.param(path, 1000, id=f"{path.stem}-1000", marks=pytest.mark.nightly)
        for path in FILES
    ),
]


def first_images(name: str, images: int) -> data.Dataset:
    return data.load(name, "test", data_dir=cifar.data_dir(name), limit=images)


def table_row(name):
    """Return the row of a checkpoint, of the page of baselines or of its study."""
    for row in read_rows("baselines.jsonl"):
        if row.get("network") == name and row.get("timesteps") == 4:
            return row
    dataset, network, width, seed = name.rsplit("-", 3)
    [row] = [
        row
        for path in RESULTS.glob(f"{dataset}*/results.jsonl")
        for row in read_rows(path.relative_to(RESULTS))
        if (row["dataset"], row["mode"]) == (dataset, "fp32")
        and (row["model"], f"w{row['width']}", f"s{row['seed']}")
        == (network, width, seed)
    ]
    return row


def read_rows(name):
    return map(json.loads, (RESULTS / name).read_text().splitlines())


@pytest.mark.skipif(not FILES, reason="no baseline is published yet")
@pytest.mark.parametrize(("path", "images"), CHECKPOINTS)
def test_a_baseline_has_the_accuracy_and_the_rate_of_its_table(path, images):
    dataset = path.stem.partition("-")[0]
    row = table_row(path.stem)
    assert path.stat().st_size <= 5e6
    model = checkpoint.load(path)
    found = train.evaluate(model, first_images(dataset, images), batch_size=50)
    # So many images of the table's: within three standard errors of its accuracy.
    p = row["accuracy"]
    assert abs(found.accuracy - p) <= 3 * math.sqrt(p * (1 - p) / images)
    rate = firing.report(found.counts, found.counts).mean_rate
    assert math.isclose(rate, row["mean_rate"], rel_tol=0.03)
