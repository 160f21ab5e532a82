"""Figure of the first page: networks of equal accuracy fire differently.

Drawn from the published rows of CIFAR-10. The site draws it at each build; ``python
docs/_ext/headline.py`` draws the README's.
"""

import json
from pathlib import Path

DOCS = Path(__file__).parents[1]
ROWS = DOCS / "results" / "cifar10" / "results.jsonl"
README_FIGURE = DOCS / "images" / "accuracy_hides_firing.png"
MOST_LOST = 0.01  # of accuracy
FLOORS = {"floor_control": "fine-tuned in full precision", "floor_seed": "another seed"}


def select_rows(path: Path = ROWS) -> tuple[list[dict], list[dict]]:
    """Return baselines, and quantized networks that keep their accuracy, by EMD."""
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    baselines = {row["seed"]: row for row in rows if row["mode"] == "fp32"}
    kept = [
        row
        for row in rows
        if row["bits"] is not None
        and row["accuracy"] > baselines[row["seed"]]["accuracy"] - MOST_LOST
    ]
    return list(baselines.values()), sorted(kept, key=lambda row: row["emd_mean"])


def draw(path: Path) -> None:
    """Draw accuracy and EMD of each selected network."""
    from matplotlib.figure import Figure

    baselines, rows = select_rows()
    figure = Figure(figsize=(7.2, 3.6), dpi=140, layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[1, 1.6])
    for target, color in (("weights", "#1f77b4"), ("membrane", "#d95f02")):
        places = [i for i, row in enumerate(rows) if row["target"] == target]
        label = {"weights": "weights quantized", "membrane": "membranes quantized"}
        accuracy = [100 * rows[i]["accuracy"] for i in places]
        upper.plot(places, accuracy, "o", ms=4, color=color, label=label[target])
        emd = [1000 * rows[i]["emd_mean"] for i in places]
        lower.bar(places, emd, color=color)
    full = 100 * sum(row["accuracy"] for row in baselines) / len(baselines)
    upper.axhline(full, color="0.4", lw=0.8, ls=":")
    upper.set(ylabel="accuracy, %", ylim=(0, 100))
    upper.legend(loc="lower left", ncols=2, frameon=False, fontsize=8)
    title = f"{len(rows)} networks within a point of full precision ({full:.1f} %)"
    upper.set_title(title, fontsize=9, loc="left")
    for key, label in FLOORS.items():
        floor = 1000 * max(row.get(key) or 0 for row in rows)
        lower.axhline(floor, color="0.4", lw=0.8, ls=":")
        lower.annotate(label, (0, floor), fontsize=8, color="0.3", va="bottom")
    lower.set(ylabel="EMD of firing,\nspikes per 1,000 steps", xlabel="network")
    lower.set_xticks([])
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, metadata={"Software": None})


if __name__ == "__main__":
    draw(README_FIGURE)
