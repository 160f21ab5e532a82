"""Studies as the README has them, at the size and the speed that users see."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import cifar
import pytest
import quickly

from experiments.study.config import StudyConfig
from experiments.study.grid import name_row
from experiments.study.store import StudyStore

pytestmark = pytest.mark.nightly
ROOT = Path(__file__).parents[3]


def finished(folder, *options, minutes):
    """What the command makes of an empty folder, in so many minutes."""
    subprocess.run(
        [sys.executable, "-m", "experiments.study", *options, "--out", folder],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": quickly.not_so()},
        timeout=60 * minutes,
        check=True,
    )
    return StudyStore(folder)


def test_digits(tmp_path):
    folder = finished(tmp_path / "digits", minutes=8)
    rows = {name_row(row): row for row in folder.rows()}
    assert len(rows) == 6 + 96
    baseline = rows["fp32-s0"]["accuracy"]
    assert baseline >= 0.97
    eight = rows["weights-uniform-mid_rise-signed-clip1-b8-qat-s0"]
    assert abs(eight["accuracy"] - baseline) <= 0.01
    (start,) = folder.info()["starts"]
    assert set(start["compilations"]["train_step"].values()) == {1}
    assert len(start["compilations"]["train_step"]) == 1 + 2 + 4 + 2


def test_cifar10_tiny(tmp_path):
    there = cifar.data_dir("cifar10")
    options = ("--dataset", "cifar10", "--tiny", "--data-dir", there)
    folder = finished(tmp_path / "cifar", *options, minutes=4)
    assert len(folder.rows()) == 6 + 48
    info = folder.info()
    assert info["config"]["tiny"]
    config = StudyConfig(dataset="cifar10", tiny=True)
    assert info["config_hash"] == config.resolve().hash()
    assert dataclasses.replace(config).hash() == config.hash()
