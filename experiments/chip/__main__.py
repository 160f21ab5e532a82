"""Record networks on digits, play them on SANA-FE's Loihi, and write a table."""

import dataclasses
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.chip import networks
from experiments.command_line import run_as_command
from experiments.rank_correlation import bootstrap, estimate
from snnjax import cost, data, firing, train
from snnjax.models import network_graph

PAYS = ("energy", "time", "messages")
TELLS = ("emd", "paired_shift", "mean_rate", "operations")


@dataclasses.dataclass(frozen=True)
class ChipConfig:
    """The price of the firing of quantized networks on a chip."""

    sanafe_python: str
    """Python of an environment with the package sanafe."""
    out: Path = Path("docs/results/chip.md")
    """The page that is written; rows go beside it, as .jsonl."""
    images: int = 20
    """Test images that are played on the chip, each for 4 steps."""
    width: int = 8
    """Channels of the SEW-ResNet8's first stage."""
    epochs: int = 8
    """Epochs of the full-precision network."""
    tuning_epochs: int = 4
    """Epochs of QAT and of the control."""
    seed: int = 0
    """Of the network and the order of batches."""


def list_edges(row, sources, spiking):
    """Yield source, target and pairs of neurons of a row of the connection table."""
    height, wide, inputs = (1, 1, *row.in_shape)[-3:]
    kernel = row.kernel_size or (1, 1)
    strides, padding = row.strides or (1, 1), row.padding or ((0, 0), (0, 0))
    out_height, out_wide, outputs = (1, 1, *row.out_shape)[-3:]
    pairs = []
    for i in range(out_height):
        for j in range(out_wide):
            for r in range(kernel[0]):
                for q in range(kernel[1]):
                    y = i * strides[0] + r - padding[0][0]
                    x = j * strides[1] + q - padding[1][0]
                    if 0 <= y < height and 0 <= x < wide:
                        source = (y * wide + x) * inputs + np.arange(inputs)
                        target = (i * out_wide + j) * outputs + np.arange(outputs)
                        grid = np.meshgrid(source, target, indexing="ij")
                        pairs.append(np.stack(grid, -1).reshape(-1, 2))
    for source in sources:
        yield source, spiking, np.concatenate(pairs)


def record(model: Any, x, size, path: Path) -> None:
    """Write a network's spikes, images one after another in time, and its edges."""
    _, spikes = jax.jit(lambda model, x: model(x))(model, x)
    arrays: dict[str, Any] = {}
    for name, train_ in spikes.items():
        train_ = np.asarray(train_, np.uint8).swapaxes(0, 1)  # [B, T, H, W, C]
        arrays[f"spikes.{name}"] = train_.reshape(-1, int(np.prod(train_.shape[2:])))
    steps = len(next(iter(arrays.values())))
    layers = {node.weights: node.spiking for node in network_graph(model)}
    for row in model.synapses(size):
        if row.reads_input:
            continue
        target = layers[row.name]
        if target is None:  # the logits, which see every position of a channel
            target = row.name
            arrays[f"spikes.{target}"] = np.zeros((steps, row.out_shape[-1]), np.uint8)
            positions = [
                arrays[f"spikes.{s}"].shape[1] // row.in_shape[-1] for s in row.sources
            ]
            for source, number in zip(row.sources, positions, strict=True):
                neurons = np.arange(number * row.in_shape[-1])
                grid = np.meshgrid(neurons, np.arange(row.out_shape[-1]), indexing="ij")
                pairs = np.stack(grid, -1).reshape(-1, 2)
                arrays[f"edges.|{source}|{target}"] = pairs.astype(np.int32)
            continue
        for source, _, pairs in list_edges(row, row.sources, target):
            arrays[f"edges.|{source}|{target}"] = pairs.astype(np.int32)
    np.savez(path, **arrays)


def correlate(rows, one: str, other: str) -> tuple[float, float, float]:
    """Return Spearman's correlation, with a 95 % interval over networks."""
    x, y = (np.array([[row[key]] for row in rows], float) for key in (one, other))
    value, low, high = estimate(bootstrap(x, y, range(len(rows))))[:, 0, 0]
    return float(value), float(low), float(high)


def run(config: ChipConfig) -> None:
    digits = data.load("digits", "test")
    size = digits.images.shape[1:3]
    x = data.normalize(digits.images[: config.images], digits.mean, digits.std)
    rows: list[dict[str, Any]] = []
    reference: Any = None
    model: Any
    script = Path(__file__).with_name("play.py")
    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name, "recording.npz")
    config.out.parent.mkdir(parents=True, exist_ok=True)
    for name, model in networks.make_networks(
        config.width, config.epochs, config.tuning_epochs, config.seed
    ):
        evaluation = train.evaluate(model, digits)
        reference = evaluation.counts if reference is None else reference
        compared = firing.report(reference, evaluation.counts)
        operations = cost.synaptic_operations(
            model.synapses(size), evaluation.counts.spikes, len(digits.images)
        )
        record(model, x, size, path)
        command = [config.sanafe_python, str(script), str(path)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"SANA-FE stopped: {done.stderr.strip()[-300:]}")
        chip = json.loads(done.stdout.strip().splitlines()[-1])
        rows.append(
            {
                "network": name,
                "accuracy": evaluation.accuracy,
                "emd": compared.emd_mean,
                "paired_shift": float(np.mean(list(compared.paired_shift.values()))),
                "mean_rate": compared.mean_rate,
                "operations": sum(operations.values()),
                "energy": chip["energy"]["total"] / config.images,
                "time": chip["time"] / config.images,
                "messages": chip["messages"] / config.images,
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    folder.cleanup()
    lines = "".join(f"{json.dumps(row)}\n" for row in rows)
    config.out.with_suffix(".jsonl").write_text(lines)
    config.out.write_text(format_page(rows, config))


def _changes(base, rows):
    """Return the rows but the base, and by how much they differ from it."""
    measured = (*PAYS, *TELLS[2:])
    return [
        row | {f"size of {k} change": abs(row[k] - base[k]) for k in measured}
        for row in rows
        if row is not base
    ]


def _finding(rows) -> str:
    def format_ranks(table, pays, tells):
        each = ((name, *correlate(table, pays, key)) for key, name in tells.items())
        return ", ".join(
            f"{r:z.2f} with {name} ({low:z.2f} to {high:z.2f})"
            for name, r, low, high in each
        )

    shown = {"paired_shift": "the paired shift", "emd": "the EMD"}
    level = {"operations": "synaptic operations", "mean_rate": "the mean rate"}
    change = {"size of operations change": "that of operations"}
    ranks = format_ranks(rows, "energy", level | shown)
    changed = _changes(rows[0], rows)
    changes = format_ranks(changed, "size of energy change", change | shown)
    return (
        f"Rank correlation of a network's energy: {ranks}. Of the size of its change "
        f"by quantization: {changes}."
    )


def format_page(rows, config: ChipConfig) -> str:
    """Return the table of networks, and the rank correlations, as Markdown."""
    text = [
        "# What a chip would pay",
        "",
        f"**{_finding(rows)}**",
        "",
        f"SEW-ResNet8 of width {config.width} on digits, {config.images} test images, "
        "4 time steps, on SANA-FE 2.2.9's model of Loihi (Davies et al., 2018; "
        "experiments/chip/play.py says what is charged). Per image; the first layer, "
        "which sees pixels, is not on the chip. Accuracy, EMD, paired shift, mean rate "
        "and operations are of all test images. One seed. Made by",
        "",
        "    python -m experiments.chip --sanafe-python PATH/bin/python",
        "",
        "| network | accuracy | EMD | paired shift | mean rate | synaptic operations | "
        "energy, nJ | time, µs | messages |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        text.append(
            f"| {row['network']} | {row['accuracy']:.3f} | {row['emd']:.4f} | "
            f"{row['paired_shift']:.4f} | {row['mean_rate']:.4f} | "
            f"{row['operations']:,.0f} | {row['energy'] * 1e9:.1f} | "
            f"{row['time'] * 1e6:.2f} | {row['messages']:,.0f} |"
        )
    best = max(row["accuracy"] for row in rows)
    equal = [row for row in rows if row["accuracy"] >= best - 0.02]
    for title, some in (
        ("All networks", rows),
        ("Networks within 2 points of the best accuracy", equal),
    ):
        changed = _changes(rows[0], some)
        kinds = (
            ("the chip pays", some, PAYS, TELLS),
            (
                "the size of the change in what the chip pays",
                changed,
                [f"size of {k} change" for k in PAYS],
                ["emd", "paired_shift", *(f"size of {k} change" for k in TELLS[2:])],
            ),
        )
        for what, table, pays, tells in kinds:
            text += ["", f"## {title} ({len(table)}): {what}", ""]
            text.append("Spearman's correlation, with 95 % intervals over networks.")
            text += [
                "",
                "| | " + " | ".join(tells) + " |",
                "|---" * (len(tells) + 1) + "|",
            ]
            for pay in pays:
                cells = (correlate(table, pay, tell) for tell in tells)
                shown = (
                    f"{r:z.2f} ({low:z.2f} to {high:z.2f})" for r, low, high in cells
                )
                text.append(f"| {pay} | " + " | ".join(shown) + " |")
    return "\n".join(text) + "\n"


if __name__ == "__main__":
    run_as_command(run, ChipConfig, program="python -m experiments.chip")
