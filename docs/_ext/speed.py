"""Figure of the page on performance: training steps beside SpikingJelly's.

Drawn from the samples of the published benchmark at each build of the site.
"""

import json
from pathlib import Path
from statistics import median

DOCS = Path(__file__).parents[1]
SAMPLES = DOCS / "results" / "benchmark.json"
NAMES = {
    "sew_resnet8-w16": "SEW-ResNet8\nwidth 16",
    "sew_resnet8-w64": "SEW-ResNet8\nwidth 64",
    "sew_resnet18-w64": "SEW-ResNet18\nwidth 64",
    "conv3": "three\nconvolutions",
}
COLOURS = {
    "snnjax": "#9ecae1",
    "snnjax, a device a core": "#1f77b4",
    "SpikingJelly": "#fdbe85",
    "SpikingJelly, channels-last": "#d95f02",
    "snnTorch": "#807dba",
}


def read_samples(path: Path = SAMPLES) -> dict[str, dict[str, list[float]]]:
    """Return the seconds of each contender's steps, by network."""
    results = json.loads(path.read_text(encoding="utf-8"))["results"]
    return {
        result["title"].split(", ")[1]: result["samples"]["seconds"]
        for result in results
    }


def draw(path: Path) -> None:
    """Draw each step's time, divided by that of SpikingJelly's faster format."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.4), dpi=140, layout="constrained")
    axes = figure.subplots()
    width, samples = 0.17, read_samples()
    for place, contenders in enumerate(samples.values()):
        theirs = [v for k, v in contenders.items() if k.startswith("SpikingJelly")]
        unit = min(median(seconds) for seconds in theirs)
        names = [name for name in COLOURS if name in contenders]
        for i, name in enumerate(names):
            seconds = contenders[name]
            times = sorted(s / unit for s in seconds)
            middle = median(times)
            error = [[middle - times[0]], [times[-1] - middle]]
            x = place + (i - (len(names) - 1) / 2) * width
            axes.bar(
                x, middle, width * 0.92, color=COLOURS[name], yerr=error, ecolor="0.4"
            )
    for name, color in COLOURS.items():
        axes.bar(0, 0, color=color, label=name)
    axes.axhline(1, color="0.4", lw=0.8, ls=":")
    axes.set_xticks(range(len(samples)), [NAMES[name] for name in samples], fontsize=8)
    axes.set_ylabel(
        "time of a training step\n(SpikingJelly's faster format = 1)", fontsize=8
    )
    axes.tick_params(axis="y", labelsize=8)
    axes.set_ylim(0, 2.2)  # the legend has its place above
    axes.legend(loc="upper center", ncols=3, frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Software": None})
