"""Tables break lines before an interval and not within it."""

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

# "[0.1, 0.2]", "(0.1 to 0.2)" and "0.1 ± 0.2".
_INTERVAL = re.compile(r"[\[(][-+.\d]\S* (to )?[-+.\d]\S*[\])]|[-+.\d]+ ± \S+")


def keep_together(app: Sphinx, tree: nodes.document) -> None:
    """Put no-break spaces into the intervals of tables."""
    for cell in tree.findall(nodes.entry):
        for text in list(cell.findall(nodes.Text)):
            if isinstance(text.parent, nodes.literal):  # code, which may be copied
                continue
            kept = _INTERVAL.sub(lambda m: m[0].replace(" ", "\u00a0"), text)
            if kept != text:
                text.parent.replace(text, nodes.Text(kept))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register it."""
    app.connect("doctree-read", keep_together)
    return {"version": "1", "parallel_read_safe": True}
