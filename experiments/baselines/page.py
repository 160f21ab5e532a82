"""The page of baselines, made of its rows alone."""

from collections.abc import Iterator, Mapping
from typing import Any

import altair as alt
import pandas as pd

from experiments.console import format_duration
from experiments.study.command import make_command
from experiments.study.config import StudyConfig
from experiments.study.names import DATASET_NAMES, MODEL_NAMES
from experiments.tables import markdown_table, percent
from snnjax import firing
from snnjax.report import charts
from snnjax.runs import Row

IN_LAYERS = (1, 4, 8)  # the T of the tables of layers
SIZE = ("dataset", "width", "epochs", "train_images", "held_out")
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
# Of its first network another was tested before.
FORERUNNERS = {"cifar10-sew_resnet8-w64-s0": "of 10 epochs was tested, with 85.8%"}


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
    tested = _find_tested(rows)
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


def _find_tested(rows: list[Row]) -> dict[str, Row]:
    """Return the row at the T of training of each network that has one."""
    return {row["network"]: row for row in _select(rows, "firing") if _is_usual(row)}


def _compare_halves(rows: list[Row]) -> str:
    """Return a sentence for each network of which the head is published rounded."""
    text, tested = "", _find_tested(rows)
    for row in _select(rows, "training"):
        if "in_float32" in row and (found := tested.get(row["network"])):
            accuracy, rate = row["in_float32"]
            text += (
                f"\n{_title(row['network'])}: the head is published in float16, for a "
                f"file below 5 MB. Before it was {100 * accuracy:.2f}%, and is "
                f"{100 * found['accuracy']:.2f}%; the mean rate was {rate:.5f}, and "
                f"is {found['mean_rate']:.5f}.\n"
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
        if decay is not None:
            words.append(f"a decay of {decay:g}")
    for key, value in rest.items():
        told = CHANGES.get((key, bool(value)), f"{key} {{value}}")
        words.append(told.format(value=value))
    return ", ".join(words) or "none: the recipe"


def list_ablations(rows: list[Row]) -> Iterator[Mapping[str, str]]:
    """Yield a line of the table for each ablation, the recipe itself first."""
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


def show_ablations(rows: list[Row]) -> str:
    """Return a table for each size of network and training."""
    text = "\n## One option changed\n"
    sizes = dict.fromkeys(tuple(row[key] for key in SIZE) for row in rows)
    for size in sizes:
        own = [row for row in rows if tuple(row[key] for key in SIZE) == size]
        dataset, width, epochs, images, held_out = size
        [recipe] = [row["accuracies"] for row in own if not row["changed"]] or [{}]
        p = sum(recipe.values()) / len(recipe) if recipe else 0.5
        interval = 1.96 * (p * (1 - p) / held_out) ** 0.5
        text += (
            f"\n{DATASET_NAMES[dataset]}: networks of width {width}, trained for "
            f"{epochs} epochs on {f'{images:,}' if images else 'all'} images; accuracy "
            f"on {held_out:,} other training images, which is "
            f"known to {100 * interval:.1f} points by their number"
        )
        if len(recipe) > 1:
            apart = max(recipe.values()) - min(recipe.values())
            text += f", and the recipe's own seeds are {100 * apart:.1f} points apart"
        text += ". Changes of that size tell nothing, and in longer training on more "
        text += "images an option may be worth something else.\n\n"
        text += markdown_table(list(list_ablations(own)), ("change",))
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
    if numbers["average"]:
        text += (
            f"the network is an average (decay {numbers['average']:g}) of the weights"
        )
    return f"{text.removesuffix('; ')}."


def to_markdown(rows: list[Row]) -> str:
    """Return the page."""
    training, ablations = _select(rows, "training"), _select(rows, "ablation")
    recipes: dict[str, list[str]] = {}
    for row in training:
        recipes.setdefault(_describe_recipe(row["config"]), []).append(row["network"])
    if len(recipes) > 1:
        told = [f"{'; '.join(map(_title, x))}: {text}" for text, x in recipes.items()]
    else:
        told = [*recipes]
    commands = []
    for row in training:
        seed = int(row["network"].rpartition("-s")[2])
        command = make_command(row["config"] | {"seeds": [seed]})
        commands.append(f"    {command} --data-dir DIR\n")
    text = "# Baselines\n\n"
    text += "Full-precision networks to quantize. Options were chosen on training "
    text += "images that were held out, none by the test images"
    for name in FORERUNNERS.keys() & {row["network"] for row in training}:
        text += f"; but before {_title(name)}, another {FORERUNNERS[name]}"
    text += ".\n\n"
    text += markdown_table(list(_training_lines(rows)), ("network",))
    text += "\nImages: to train on / to test on"
    halves = [row for row in training if row["images"][0] == 25_000]
    text += "; of CIFAR-100 half was at hand" if halves else ""
    text += f". {' '.join(told)} Made by\n\n{''.join(commands)}\nwhich quantize "
    text += "them too; the time is of training, by its log. Written here by `python -m "
    text += "experiments.baselines`. Dead neurons fire at a rate below 0.05, saturated "
    text += "ones above 0.95.\n`snnjax.checkpoint.load` reads the networks in "
    text += f"`docs/results/checkpoints`.\n{_compare_halves(rows)}\n"
    text += "![Accuracy of training batches over epochs](baselines/curves.png)\n"
    found = _select(rows, "firing")
    for network in dict.fromkeys(row["network"] for row in found):
        own = [row for row in found if row["network"] == network]
        text += f"\n## Firing at other T: {_title(network)}\n\n{_show_firing(own)}"
    return text + (show_ablations(ablations) if ablations else "")
