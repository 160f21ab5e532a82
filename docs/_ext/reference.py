"""Reference pages from the docstrings: one page a module, every public name on it.

A public name of a package is what its ``__init__`` offers; of a single module, what it
defines. A public name without a docstring fails the build.
"""

import importlib
import inspect
import re
import types
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

MODULES = {
    "Measure": ["firing", "emd", "spiketrain", "cost", "report", "report.traces"],
    "Quantize": ["quantize", "neurons", "surrogate", "encoding", "layers", "models"],
    "Preserve and restore": ["calibrate", "distill"],
    "Train": [
        *("data", "train", "runs", "checkpoint", "conv", "examples"),
        *("process", "compilation_cache"),
    ],
    "Deploy": [
        "integer",
        "interop.spikingjelly",
        "interop.nir",
        "interop.snntorch",
        "interop.torch",
    ],
}


def find_public_names(module: types.ModuleType) -> list[str]:
    """Return the public names of a module, in the order of its source."""
    is_package = hasattr(module, "__path__")
    names = []
    for name, thing in vars(module).items():
        home = getattr(thing, "__module__", None) or ""
        own = home.startswith("snnjax.") if is_package else home == module.__name__
        constant = is_package and isinstance(thing, (int, float, str, tuple))
        if not name.startswith("_") and (own or constant):
            names.append(name)
    return names


def describe_name(module: types.ModuleType, name: str) -> str:
    """Return the directive that documents a public name."""
    thing = getattr(module, name)
    place = f"{module.__name__}.{name}"
    if inspect.isclass(thing):
        return f".. autoclass:: {place}\n   :members:\n   :show-inheritance:\n"
    if callable(thing) and hasattr(thing, "__name__"):
        return f".. autofunction:: {place}\n"
    return f".. autodata:: {place}\n"


def write_page(module: types.ModuleType) -> str:
    """Return the reStructuredText of a module's page.

    Raises:
        ExtensionError: a public function or class has no docstring.
    """
    names = find_public_names(module)
    for name in names:
        thing = getattr(module, name)
        if callable(thing) and not (inspect.getdoc(thing) or "").strip():
            raise ExtensionError(f"{module.__name__}.{name} has no docstring")
    title = module.__name__.removeprefix("snnjax.")
    lines = [title, "=" * len(title), "", f".. automodule:: {module.__name__}", ""]
    return "\n".join(lines + [describe_name(module, name) for name in names])


def write_pages(app: Sphinx) -> None:
    """Write all reference pages; leave unchanged ones as they are."""
    folder = Path(app.srcdir) / "reference"
    folder.mkdir(exist_ok=True)
    contents = ["Reference", "=========", ""]
    pages = {}
    for group, rooms in MODULES.items():
        contents += [f".. toctree::\n   :caption: {group}\n   :maxdepth: 1\n"]
        for room in rooms:
            module = importlib.import_module(f"snnjax.{room}")
            pages[f"{room}.rst"] = write_page(module)
            contents.append(f"   {room}")
        contents.append("")
    pages["index.rst"] = "\n".join(contents)
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def show_signature(app, what, name, thing, options, signature, returns):
    """Replace what autodoc sees of a class or a default by what a user writes.

    Flax's metaclass hides the constructor's arguments; types and functions among the
    defaults are shown by their names.
    """
    if what == "class" and isinstance(thing, type) and "*args" in (signature or ""):
        parameters = list(inspect.signature(thing.__init__).parameters.values())[1:]
        bare = [p.replace(annotation=inspect.Parameter.empty) for p in parameters]
        signature = str(inspect.Signature(bare))
    if signature:
        signature = re.sub(r"<class '(?:[\w.]*\.)?(\w+)'>", r"\1", signature)
        signature = re.sub(r"<function (?:[\w.<>]*\.)?(\w+)[^>]*>", r"\1", signature)
    return signature, returns


def skip_field(app, what, name, thing, skip, options):
    """Leave out the fields of a named tuple, which its docstring describes."""
    is_field = (getattr(thing, "__doc__", "") or "").startswith(
        "Alias for field number"
    )
    return True if is_field else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the writer with Sphinx."""
    app.connect("builder-inited", write_pages)
    app.connect("autodoc-process-signature", show_signature)
    app.connect("autodoc-skip-member", skip_field)
    return {"parallel_read_safe": True}
