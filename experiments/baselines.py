"""Publish trained baselines: their checkpoints, how they learned, how they fire.

    python -m experiments.baselines --runs runs/cifar10-sew_resnet8-w64 --data-dir DIR

A run is the folder of a study whose baselines are trained; other rows may be missing.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd

from experiments.command_line import run_as_command
from experiments.console import format_duration
from experiments.study.command import make_command
from experiments.study.config import StudyConfig
from experiments.study.names import DATASET_NAMES, MODEL_NAMES, checkpoint_name
from experiments.study.presets import PRESETS
from experiments.study.store import StudyStore
from experiments.tables import markdown_table, percent
from snnjax import checkpoint, data, firing, train
from snnjax.report import charts
from snnjax.runs import Row, jsonl

TIMESTEPS = range(1, 9)
IN_LAYERS = (1, 4, 8)  # the T of the tables of layers


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

    Raises:
        ValueError: the run holds no finished baseline, or another was published by its
            name, of which the rows are.
    """
    store = StudyStore(run)
    study = StudyConfig.from_numbers(store.info()["config"])
    test = data.load(study.dataset, "test", data_dir=config.data_dir)
    trained = [
        (seed, file)
        for seed in study.seeds
        if (file := store.weights_of(f"fp32-s{seed}")).is_file()
    ]
    if not trained:
        raise ValueError(f"{run} holds no finished baseline; run its study first")
    for seed, file in trained:
        name = checkpoint_name(study.dataset, study.model, study.width, seed)
        target = config.out.parent / "checkpoints" / f"{name}.safetensors"
        if target.is_file() and target.read_bytes() != file.read_bytes():
            raise ValueError(
                f"{target} holds another network; to publish that of {run} remove it "
                f"and the rows of {name} in {config.out.with_suffix('.jsonl')}"
            )
        jsonl.write_file(target, file.read_bytes())
        key: Row = {"network": name, "part": "training"}
        if not _has(rows, key):
            yield key | read_training(run, f"fp32-s{seed}")
        model = checkpoint.load(file)
        for timesteps in TIMESTEPS:
            key = {"network": name, "part": "firing", "timesteps": timesteps}
            if not _has(rows, key):
                found = train.evaluate(model, test, timesteps=timesteps)
                yield key | {"accuracy": found.accuracy} | measure(found.counts)


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
    same = ("held_out", "train_images", "seeds", "width", "epochs")
    changed = {
        key: value
        for key, value in numbers.items()
        if key not in same and json.dumps(value) != json.dumps(preset.get(key))
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
        if not _has(rows, row):
            jsonl.append(path, row)
            rows.append(row)
    if not rows:
        raise ValueError("runs must name a folder: there are no rows yet")
    folder = config.out.with_suffix("")
    jsonl.write_file(folder / "curves.png", charts.to_png(draw_curves(rows)))
    jsonl.write_file(config.out, to_markdown(rows).encode())


def _select(rows: list[Row], part: str) -> list[Row]:
    return sorted(
        (row for row in rows if row["part"] == part),
        key=lambda row: (row.get("network", ""), row.get("timesteps", 0)),
    )


def _title(name: str) -> str:
    dataset, model, width, seed = name.rsplit("-", 3)
    model = f"{MODEL_NAMES[model]} of width {width[1:]}"
    return f"{DATASET_NAMES[dataset]}, {model}, seed {seed[1:]}"


def _show_rates(rate: float, dead: float, saturated: float) -> dict[str, str]:
    return {
        "mean rate": f"{rate:.4f}",
        "dead": percent(dead),
        "saturated": percent(saturated),
    }


def draw_curves(rows: list[Row]) -> alt.TopLevelMixin:
    """Draw the accuracy of training batches over steps, a line a network."""
    frame = pd.DataFrame(
        {"network": _title(row["network"]), "step": step, "accuracy": 100 * accuracy}
        for row in _select(rows, "training")
        for step, _, accuracy in row["curve"]
    )
    # A batch of 128 images alone says little.
    smooth = frame.groupby("network")["accuracy"].transform(
        lambda x: x.rolling(5, min_periods=1, center=True).mean()
    )
    names = list(dict.fromkeys(frame["network"]))
    colour = alt.Color("network:N", title=None, sort=names)
    return (
        alt.Chart(frame.assign(accuracy=smooth), width=560, height=260)
        .mark_line()
        .encode(
            x=alt.X("step:Q", title="training step"),
            y=alt.Y("accuracy:Q", title="accuracy of training batches, %"),
            color=colour.scale(domain=names, range=charts.COLOURS).legend(
                orient="bottom", labelLimit=400, columns=1
            ),
        )
    )


def _training_lines(rows: list[Row]) -> Iterator[Mapping[str, str]]:
    tested = {
        row["network"]: row
        for row in _select(rows, "firing")
        if row["timesteps"] == StudyConfig().timesteps
    }
    for row in _select(rows, "training"):
        found, numbers = tested[row["network"]], row["config"]
        yield {
            "network": _title(row["network"]),
            "accuracy": percent(found["accuracy"]),
            **_show_rates(*(found[key] for key in firing.RateSummary._fields)),
            "epochs": str(numbers["epochs"]),
            "time": format_duration(row["seconds"]),
        }


def _show_firing(rows: list[Row]) -> str:
    """Return a network's tables: firing at each T, and that of each layer at some."""
    at_each = [
        {
            "T": str(row["timesteps"]),
            "accuracy": percent(row["accuracy"]),
            **_show_rates(*(row[key] for key in firing.RateSummary._fields)),
        }
        for row in rows
    ]
    some = [row for row in rows if row["timesteps"] in IN_LAYERS]
    of_layers = []
    for layer in rows[0]["layers"]:
        found = {r["timesteps"]: _show_rates(*r["layers"][layer]) for r in some}
        line = {"layer": layer}
        for key in ("mean rate", "dead"):
            line |= {f"{key}, T = {t}": shown[key] for t, shown in found.items()}
        of_layers.append(line)
    every = [firing.RateSummary(*x) for row in rows for x in row["layers"].values()]
    most = max(rates.saturated_fraction for rates in every)
    return (
        f"{markdown_table(at_each)}\n{markdown_table(of_layers, ('layer',))}"
        f"\nAt these T {100 * most:.2g}% at most of a layer's neurons are saturated.\n"
    )


def _ablation_lines(rows: list[Row]) -> Iterator[Mapping[str, str]]:
    for row in _select(rows, "ablation"):
        changes = (f"{key} {value}" for key, value in row["changed"].items())
        accuracies = list(row["accuracies"].values())
        yield {
            "change": ", ".join(changes) or "none",
            "width": str(row["width"]),
            "epochs": str(row["epochs"]),
            "images": f"{row['train_images'] or 'all'}",
            "accuracy": ", ".join(map(percent, accuracies)),
        }


def _describe_recipe(numbers: Mapping[str, Any]) -> str:
    return (
        f"The first {percent(numbers['warm_start'])} of the steps see an image for "
        f"{numbers['warm_start_timesteps']} time step, the last for "
        f"{numbers['timesteps']}. Batches of {numbers['batch_size']}, by "
        f"{numbers['optimizer']} with a learning rate of {numbers['learning_rate']:g} "
        f"and a decay of {numbers['weight_decay']:g}, label smoothing of "
        f"{numbers['label_smoothing']:g}; the network is an average of the weights "
        f"(decay {numbers['average']:g})."
    )


def to_markdown(rows: list[Row]) -> str:
    """Return the page."""
    ablations = list(_ablation_lines(rows))
    configs = [row["config"] for row in _select(rows, "training")]
    recipes = dict.fromkeys(map(_describe_recipe, configs))
    commands = dict.fromkeys(
        f"    {make_command(numbers)} --data-dir DIR\n" for numbers in configs
    )
    text = "# Baselines\n\n"
    text += "Full-precision networks to quantize; test images were looked at once.\n\n"
    text += markdown_table(list(_training_lines(rows)), ("network",))
    text += f"\n{' '.join(recipes)} Made by\n\n"
    text += f"{''.join(commands)}\nand written here by `python -m experiments.baselines"
    text += "`. Dead neurons fire at a rate below 0.05, saturated ones above 0.95. The "
    text += "time is of training, by its log.\n"
    text += "`snnjax.checkpoint.load` reads the networks in `docs/results/checkpoints`."
    text += "\n\n![Accuracy of training batches over steps](baselines/curves.png)\n"
    found = _select(rows, "firing")
    for network in dict.fromkeys(row["network"] for row in found):
        own = [row for row in found if row["network"] == network]
        text += f"\n## Firing at other T: {_title(network)}\n\n{_show_firing(own)}"
    if ablations:
        text += "\n## What each part of the recipe is worth\n\n"
        text += "Accuracy on 5,000 training images that were held out.\n\n"
        text += markdown_table(ablations, ("change",))
    return text


if __name__ == "__main__":
    run_as_command(run, BaselinesConfig, program="python -m experiments.baselines")
