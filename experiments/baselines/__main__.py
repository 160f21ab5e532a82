"""Publish trained baselines: their checkpoints, how they learned, how they fire.

    python -m experiments.baselines --runs runs/cifar10-sew_resnet8-w64 --data-dir DIR

A run is the folder of a study whose baselines are trained; other rows may be missing.
"""

import dataclasses
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from experiments.baselines import page
from experiments.command_line import run_as_command
from experiments.study.config import StudyConfig
from experiments.study.images import load_images
from experiments.study.names import checkpoint_name
from experiments.study.presets import PRESETS
from experiments.study.store import StudyStore
from snnjax import checkpoint, firing, train
from snnjax.report import charts
from snnjax.runs import Row, jsonl

TIMESTEPS = range(1, 9)
LARGEST = 5e6  # bytes of a published file
HEAD = "fc"  # behind it nothing fires


@dataclasses.dataclass(frozen=True)
class BaselinesConfig:
    """Publish trained baselines: checkpoints, learning curves, firing at T = 1 to 8."""

    runs: tuple[Path, ...] = ()
    """Folders of studies; without one the page is written from its rows."""
    ablations: tuple[Path, ...] = ()
    """Studies of the recipe with an option changed, tested on held-out images."""
    data_dir: Path | None = None
    """Prepared TFDS data; else $TFDS_DATA_DIR, then ~/tensorflow_datasets."""
    out: Path = Path("docs/results/baselines.md")
    """The page; rows and figures go beside it, checkpoints to checkpoints/."""


def publish(run: Path, config: BaselinesConfig, rows: list[Row]) -> Iterator[Row]:
    """Yield the rows that are missing of a run, and copy its checkpoints.

    A file of more than `LARGEST` bytes is published with its head in float16; rows are
    of the published network, and the first has what it was before.

    Raises:
        ValueError: the run holds no finished baseline, or one that is not of all its
            images, or another was published by its name, of which the rows are.
    """
    store = StudyStore(run)
    study = StudyConfig.from_numbers(store.info()["config"])
    if study.held_out or study.train_images or study.tiny:
        raise ValueError(f"{run} is of a part of the images; give it as an ablation")
    trained = [
        (seed, file)
        for seed in study.seeds
        if (file := store.weights_of(f"fp32-s{seed}")).is_file()
    ]
    if not trained:
        raise ValueError(f"{run} holds no finished baseline; run its study first")
    study = dataclasses.replace(study, data_dir=config.data_dir)
    train_set, test = load_images(study)
    for seed, file in trained:
        name = checkpoint_name(study.dataset, study.model, study.width, seed)
        target = config.out.parent / "checkpoints" / f"{name}.safetensors"
        content = _read_small(file)
        if target.is_file() and target.read_bytes() != content:
            raise ValueError(
                f"{target} holds another network; to publish that of {run} remove it "
                f"and the rows of {name} in {config.out.with_suffix('.jsonl')}"
            )
        jsonl.write_file(target, content)
        key: Row = {"network": name, "part": "training"}
        if not _has(rows, key):
            row = key | read_training(run, f"fp32-s{seed}")
            row["images"] = [len(train_set), len(test)]
            if content != file.read_bytes():
                before = train.evaluate(checkpoint.load(file), test)
                rates = firing.summary(before.counts)
                row["in_float32"] = [before.accuracy, rates.mean_rate]
            yield row
        model = checkpoint.load(target)
        for timesteps in TIMESTEPS:
            key = {"network": name, "part": "firing", "timesteps": timesteps}
            if not _has(rows, key):
                found = train.evaluate(model, test, timesteps=timesteps)
                yield key | {"accuracy": found.accuracy} | measure(found.counts)


def _read_small(file: Path) -> bytes:
    """Return the file, or where it is too large one with the head in float16.

    Raises:
        ValueError: that is too large too.
    """
    if file.stat().st_size <= LARGEST:
        return file.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        half = Path(folder) / file.name
        checkpoint.export(half, checkpoint.load(file), half=HEAD)
        content = half.read_bytes()
    if len(content) > LARGEST:
        raise ValueError(
            f"{file} has more than {LARGEST / 1e6:g} MB; publish it elsewhere"
        )
    return content


def _has(rows: list[Row], key: Row) -> bool:
    return any(key.items() <= row.items() for row in rows)


def read_training(run: Path, name: str) -> Row:
    """Return the learning curve of a run, its seconds, and its config."""
    lines = [line for line in jsonl.read(run / "log.jsonl") if line["row"] == name]
    numbers = StudyStore(run).info()["config"]
    seconds, before = 0.0, 0
    for line in lines:
        images = (line["step"] - before) * numbers["batch_size"]
        seconds, before = seconds + images / line["images_per_second"], line["step"]
    curve = [[x["step"], round(x["loss"], 4), x["accuracy"]] for x in lines]
    return {"seconds": round(seconds), "curve": curve, "config": numbers}


def measure(counts: firing.FiringCounts) -> Row:
    """Return mean rate, dead and saturated shares, of all layers and of each."""
    one = {
        layer: firing.FiringCounts({layer: spikes}, counts.observations)
        for layer, spikes in counts.spikes.items()
    }
    return {
        **firing.summary(counts)._asdict(),
        "layers": {name: list(firing.summary(each)) for name, each in one.items()},
    }


def read_ablation(run: Path) -> Row:
    """Return what a study changes in its preset, and its accuracy.

    Raises:
        ValueError: the study has no baseline yet, or tested on the test images.
    """
    numbers = StudyStore(run).info()["config"]
    rows = [row for row in jsonl.read(run / "results.jsonl") if row["mode"] == "fp32"]
    if not rows or not numbers["held_out"]:
        raise ValueError(f"{run} must hold a baseline, tested on held-out images")
    preset = PRESETS[f"baseline-{numbers['dataset']}"].resolve().numbers()
    same = ("dataset", "held_out", "train_images", "width", "epochs")
    changed = {
        key: value
        for key, value in numbers.items()
        if key not in (*same, "seeds", "qat_learning_rate")  # none of a baseline's
        and json.dumps(value) != json.dumps(preset.get(key))
    }
    accuracies = {f"s{row['seed']}": row["accuracy"] for row in rows}
    size = {key: numbers[key] for key in same}
    return {"part": "ablation", "changed": changed} | size | {"accuracies": accuracies}


def run(config: BaselinesConfig) -> None:
    """Measure what is missing, and write the page."""
    path = config.out.with_suffix(".jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)  # for rows that are appended
    jsonl.drop_partial_line(path)
    rows = jsonl.read(path)
    for folder in config.runs:
        for row in publish(folder, config, rows):
            jsonl.append(path, row)
            rows.append(row)
    for folder in config.ablations:
        row = read_ablation(folder)
        same = {key: value for key, value in row.items() if key != "accuracies"}
        if _has(rows, same) and not _has(rows, row):
            raise ValueError(
                f"the ablation of {folder} is in {path} with other accuracies; remove "
                "its line there to publish these"
            )
        if not _has(rows, row):
            jsonl.append(path, row)
            rows.append(row)
    if not any(row["part"] == "training" for row in rows):
        raise ValueError("runs must name a folder: there are no rows yet")
    folder = config.out.with_suffix("")
    jsonl.write_file(folder / "curves.png", charts.to_png(page.draw_curves(rows)))
    jsonl.write_file(config.out, page.to_markdown(rows).encode())


if __name__ == "__main__":
    run_as_command(run, BaselinesConfig, program="python -m experiments.baselines")
