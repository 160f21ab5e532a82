"""Publish trained baselines: their checkpoints, how they learned, how they fire.

    python -m experiments.baselines --runs runs/cifar10-sew_resnet8-w64 --data-dir DIR

A run is the folder of a study whose baselines are trained; other rows may be missing.
"""

import dataclasses
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd

from experiments.command_line import run_as_command
from experiments.console import format_duration
from experiments.study.command import make_command
from experiments.study.config import StudyConfig
from experiments.study.images import load_images
from experiments.study.names import DATASET_NAMES, MODEL_NAMES, checkpoint_name
from experiments.study.presets import PRESETS
from experiments.study.store import StudyStore
from experiments.tables import markdown_table, percent
from snnjax import checkpoint, firing, train
from snnjax.report import charts
from snnjax.runs import Row, jsonl

TIMESTEPS = range(1, 9)
IN_LAYERS = (1, 4, 8)  # the T of the tables of layers
LARGEST = 5e6  # bytes of a published file
SIZE = ("width", "epochs", "train_images", "held_out")
OPTIMIZERS = {"sgd": "SGD", "adamw": "Adam", "muon": "Muon"}
SCHEDULES = {"one_cycle": "one cycle", "cosine": "a cosine"}
# An option and whether it is on, in words.
CHANGES = {
    ("label_smoothing", False): "labels not smoothed",
    ("average", False): "weights not averaged",
    ("warm_start", True): "{value:.0%} of the steps at T = 1",
    ("warm_start", False): "all steps at T = 4",
    ("augment", False): "images neither cropped nor mirrored",
    ("cutout", True): "a square of {value} x {value} pixels cut out",
    ("decay_input", True): "current divided by tau",
    ("weight_decay", True): "a decay of {value:g}",
}
CHOSEN = (
    "Options were chosen on training images that were held out, and each network was "
    "tested once; but before seed 0 of CIFAR-10 one of 10 epochs was tested, of "
    "85.8%.\n\n"
)


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

    A file of more than `LARGEST` bytes is published with its kernels in float16; rows
    are of the published network, and the first has what it was before.

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
    """Return the file, or one with kernels in float16 where it is too large."""
    if file.stat().st_size <= LARGEST:
        return file.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        half = Path(folder) / file.name
        checkpoint.export(half, checkpoint.load(file), half=True)
        return half.read_bytes()


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
    same = ("held_out", "train_images", "width", "epochs")
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


def _signed(share: float) -> str:
    return f"{100 * share:+.1f}"


def _show_rates(rate: float, dead: float, saturated: float) -> dict[str, str]:
    return {
        "mean rate": f"{rate:.4f}",
        "dead": percent(dead),
        "saturated": percent(saturated),
    }


def draw_curves(rows: list[Row]) -> alt.TopLevelMixin:
    """Draw the accuracy of training batches over epochs, a line a network."""
    frame = pd.DataFrame(
        {
            "network": _title(row["network"]),
            "epoch": row["config"]["epochs"] * step / row["curve"][-1][0],
            "accuracy": 100 * accuracy,
        }
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
            x=alt.X("epoch:Q", title="epoch"),
            y=alt.Y("accuracy:Q", title="accuracy of training batches, %"),
            color=colour.scale(domain=names, range=charts.COLOURS).legend(
                orient="bottom", labelLimit=400, columns=1
            ),
        )
    )


def _training_lines(rows: list[Row]) -> Iterator[Mapping[str, str]]:
    tested = {row["network"]: row for row in _select(rows, "firing") if _is_usual(row)}
    for row in _select(rows, "training"):
        if row["network"] not in tested:  # publishing was stopped
            continue
        found, numbers = tested[row["network"]], row["config"]
        shown = _show_rates(*(found[key] for key in firing.RateSummary._fields))
        yield {
            "network": _title(row["network"]),
            "accuracy": percent(found["accuracy"]),
            **{key: shown[key] for key in ("mean rate", "dead")},
            "images": " / ".join(f"{number:,}" for number in row["images"]),
            "epochs": str(numbers["epochs"]),
            "time": format_duration(row["seconds"]),
        }


def _is_usual(row: Row) -> bool:
    return row["timesteps"] == StudyConfig().timesteps


def _compare_halves(rows: list[Row]) -> str:
    """Return a sentence for each network whose published kernels are rounded."""
    text = ""
    for row in _select(rows, "training"):
        tested = [r for r in rows if r.get("network") == row["network"]]
        found = [r for r in tested if r["part"] == "firing" and _is_usual(r)]
        if "in_float32" in row and found:
            accuracy, rate = row["in_float32"]
            text += (
                f"\nThe kernels of {_title(row['network'])}, are published in float16, "
                f"for a file below 5 MB: {100 * accuracy:.2f}% and a mean rate of "
                f"{rate:.5f} in float32 are {100 * found[0]['accuracy']:.2f}% and "
                f"{found[0]['mean_rate']:.5f}.\n"
            )
    return text


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
    text = f"{markdown_table(at_each)}\n{markdown_table(of_layers, ('layer',))}\n"
    usual = [row["accuracy"] for row in rows if _is_usual(row)]
    others = [
        row["accuracy"] - usual[0] for row in rows if usual and not _is_usual(row)
    ]
    if others:
        text += (
            f"Its last steps were trained at T = {StudyConfig().timesteps}. At other T "
            f"its accuracy changes by {_signed(min(others))} to {_signed(max(others))} "
            "points. "
        )
    return text + f"At most {100 * most:.2g}% of a layer's neurons are saturated.\n"


def _describe_change(changed: Mapping[str, Any]) -> str:
    """Return the options of a row in words."""
    rest, words = dict(changed), []
    if "optimizer" in rest:
        rate, decay = rest.pop("learning_rate"), rest.pop("weight_decay", None)
        words.append(f"{OPTIMIZERS[rest.pop('optimizer')]} at a rate of {rate:g}")
        words += [f"a decay of {decay:g}"] * (decay is not None)
    for key, value in rest.items():
        told = CHANGES.get((key, bool(value)), f"{key} {{value}}")
        words.append(told.format(value=value))
    return ", ".join(words) or "none: the recipe"


def _ablation_lines(rows: list[Row]) -> Iterator[Mapping[str, str]]:
    [recipe] = [row["accuracies"] for row in rows if not row["changed"]] or [{}]
    seeds = sorted({seed for row in rows for seed in row["accuracies"]})
    for row in sorted(rows, key=lambda row: bool(row["changed"])):
        found = row["accuracies"]
        both = [seed for seed in seeds if seed in found and seed in recipe]
        change = [found[seed] - recipe[seed] for seed in both]
        yield {
            "change": _describe_change(row["changed"]),
            **{
                f"seed {seed[1:]}": percent(found[seed]) if seed in found else ""
                for seed in seeds
            },
            "points beside the recipe": (
                _signed(sum(change) / len(change)) if change and row["changed"] else ""
            ),
        }


def _show_ablations(rows: list[Row]) -> str:
    """Return a table for each size of network and training."""
    text = "\n## One option changed\n"
    sizes = dict.fromkeys(tuple(row[key] for key in SIZE) for row in rows)
    for size in sizes:
        own = [row for row in rows if tuple(row[key] for key in SIZE) == size]
        width, epochs, images, held_out = size
        [recipe] = [row["accuracies"] for row in own if not row["changed"]] or [{}]
        p = sum(recipe.values()) / len(recipe) if recipe else 0.5
        interval = 1.96 * (p * (1 - p) / held_out) ** 0.5
        text += (
            f"\nNetworks of width {width}, trained for {epochs} epochs on "
            f"{images or 'all':,} images; accuracy on {held_out:,} other training "
            f"images, which is known to {100 * interval:.1f} points by their number"
        )
        if len(recipe) > 1:
            apart = max(recipe.values()) - min(recipe.values())
            text += f", and the recipe's own seeds are {100 * apart:.1f} points apart"
        text += ". Changes of that size tell nothing.\n\n"
        text += markdown_table(list(_ablation_lines(own)), ("change",))
    return text


def _describe_recipe(numbers: Mapping[str, Any]) -> str:
    text = (
        f"The first {percent(numbers['warm_start'])} of the steps see an image for "
        f"{numbers['warm_start_timesteps']} time step, the last for "
        f"{numbers['timesteps']}. Batches of {numbers['batch_size']}, by "
        f"{OPTIMIZERS[numbers['optimizer']]} with a learning rate of "
        f"{numbers['learning_rate']:g} ({SCHEDULES[numbers['schedule']]}) and a decay "
        f"of {numbers['weight_decay']:g}, label smoothing of "
        f"{numbers['label_smoothing']:g}; "
    )
    text += "images are cropped and mirrored; " if numbers["augment"] else ""
    if not numbers["decay_input"]:
        text += "the current is not divided by tau, as it is in the paper's neurons; "
    return text + (
        f"the network is an average of the weights (decay {numbers['average']:g})."
    )


def to_markdown(rows: list[Row]) -> str:
    """Return the page."""
    training, ablations = _select(rows, "training"), _select(rows, "ablation")
    recipes = dict.fromkeys(_describe_recipe(row["config"]) for row in training)
    commands = []
    for row in training:
        seed = int(row["network"].rpartition("-s")[2])
        command = make_command(row["config"] | {"seeds": [seed]})
        commands.append(f"    {command} --data-dir DIR\n")
    text = "# Baselines\n\n"
    text += "Full-precision networks to quantize. " + CHOSEN
    text += markdown_table(list(_training_lines(rows)), ("network",))
    text += "\nImages: to train on / to test on"
    if any(row["config"]["dataset"] == "cifar100" for row in training):
        text += "; of CIFAR-100 half was at hand"
    text += f". {' '.join(recipes)} Made by\n\n{''.join(commands)}\nwhich quantize "
    text += "them too; the time is of training, by its log. Written here by `python -m "
    text += "experiments.baselines`. Dead neurons fire at a rate below 0.05, saturated "
    text += "ones above 0.95.\n`snnjax.checkpoint.load` reads the networks in "
    text += f"`docs/results/checkpoints`.\n{_compare_halves(rows)}\n"
    text += "![Accuracy of training batches over epochs](baselines/curves.png)\n"
    found = _select(rows, "firing")
    for network in dict.fromkeys(row["network"] for row in found):
        own = [row for row in found if row["network"] == network]
        text += f"\n## Firing at other T: {_title(network)}\n\n{_show_firing(own)}"
    return text + (_show_ablations(ablations) if ablations else "")


if __name__ == "__main__":
    run_as_command(run, BaselinesConfig, program="python -m experiments.baselines")
