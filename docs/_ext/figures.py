"""Draw the figures that follow from published rows, when a build of the site begins."""

from pathlib import Path

import headline
import speed
from sphinx.application import Sphinx

FIGURES = {
    "accuracy_hides_firing.png": headline.draw,
    "training_steps.png": speed.draw,
}


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the drawings to the beginning of a build."""
    folder = Path(app.srcdir) / "images" / "built"
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in FIGURES.items():
        path = folder / name
        app.connect("builder-inited", lambda _, draw=draw, path=path: draw(path))
    return {"parallel_read_safe": True}
