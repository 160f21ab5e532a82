"""Imports run one way, importing is light, and every public name is documented.

A room is a top-level module or package of ``snnjax`` or of ``experiments``; who imports
whom is read from the sources.
"""

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import snnjax

ROOT = Path(__file__).parents[1]
PACKAGES = ("snnjax", "experiments")
FILES = sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))
LIBRARY = [path for path in FILES if path.is_relative_to(ROOT / "snnjax")]

# Experiments that others build on; no other room imports one of the rest.
SHARED = {"study", "report"}
# What modules import of others when they are imported, beside the standard library.
CORE = {"jax", "numpy", "jaxtyping"}
FLAX = CORE | {"flax"}
OTHERS = {
    **{"layers": FLAX, "models": FLAX, "integer": FLAX},
    "calibrate": FLAX | {"optax"},
    **{"interop": FLAX, "firing": CORE | {"scipy"}},
    **{"train": FLAX | {"optax"}, "distill": FLAX | {"optax"}},
    **{"runs": FLAX | {"orbax", "etils"}, "checkpoint": FLAX | {"orbax"}},
    "report": CORE | {"scipy"},
}
# Heavy or optional: inside the functions that need them, and in these rooms alone.
INSIDE = {
    **{"ott": {"emd"}, "tensorflow_datasets": {"data"}, "tensorflow": set()},
    **{
        "PIL": {"data", "report"},
        "sklearn": {"data"},
        "safetensors": {"checkpoint", "interop"},
    },
    "etils": {"_paths"},
    **{"nir": {"interop"}, "torch": {"interop"}, "scipy": {"emd", "firing", "report"}},
    **{"altair": {"report"}, "pandas": {"report"}, "jinja2": {"report"}},
    **{"markupsafe": {"report"}, "zstandard": {"compilation_cache"}},
    **{"vl_convert": {"report"}, "flax": {"report"}},
}
# Loaded by the functions that draw, which need the extra `report`.
DRAWING = {"charts.py", "page.py", "traces.py"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
STANDARD = set(sys.stdlib_module_names)


def imports_of(nodes) -> set[str]:
    """Names of the modules that these nodes import, whole."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            module = node.module or ""
            # Of a package a module of its own may be imported.
            if module in PACKAGES:
                found |= {f"{module}.{alias.name}" for alias in node.names}
            else:
                found.add(module)
    return found


def at_import(tree) -> list[ast.AST]:
    """Nodes that run when a module is imported: no function's, no type checker's."""
    nodes, found = list(tree.body), []
    while nodes:
        node = nodes.pop()
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(
            node.test
        )
        if not typing_only and not isinstance(
            node, (ast.FunctionDef, ast.AsyncFunctionDef)
        ):
            found.append(node)
            nodes += ast.iter_child_nodes(node)
    return found


def room_of(path: Path) -> tuple[str, ...]:
    """Package and room of a file; a command, ``__main__``, is a room of its own."""
    package, *parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[-1] == "__main__":
        return package, ".".join(parts)
    return package, parts[0]


def rooms_imported(path: Path) -> set[tuple[str, str]]:
    """Rooms that a file imports, at once or inside a function; not for types alone."""
    tree = ast.parse(path.read_text())
    inside = [
        n for f in ast.walk(tree) if isinstance(f, FUNCTIONS) for n in ast.walk(f)
    ]
    names = imports_of([*at_import(tree), *inside])
    parts = [name.split(".") for name in names if name.split(".")[0] in PACKAGES]
    return {(p[0], p[1] if len(p) > 1 else "__init__") for p in parts}


def test_the_library_does_not_know_the_experiments():
    for path in LIBRARY:
        imported = rooms_imported(path)
        assert {package for package, _ in imported} <= {"snnjax"}, path
        if room_of(path)[1].startswith("_"):  # private modules: helpers of all rooms
            assert all(room.startswith("_") for _, room in imported), path


@pytest.mark.parametrize("package", PACKAGES)
def test_no_circle_among_rooms(package):
    """Without one the rooms lie on floors: each above all that it imports."""
    graph = {}
    for path in FILES:
        own, room = room_of(path)
        if own == package:
            others = {name for top, name in rooms_imported(path) if top == package}
            graph.setdefault(room, set()).update(others - {room})
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: str(p.relative_to(ROOT)))
def test_rooms_load_only_what_they_may(path):
    tree, (_, room) = ast.parse(path.read_text()), room_of(path)
    now, ever = (
        {name.split(".")[0] for name in imports_of(nodes)} - STANDARD - {"snnjax"}
        for nodes in (at_import(tree), ast.walk(tree))
    )
    if room == "__init__":
        assert not ever
    if room != "report" or path.name not in DRAWING:
        assert now <= OTHERS.get(room, CORE)
    for name in ever - OTHERS.get(room, CORE):
        assert room in INSIDE.get(name, ()), f"{room} imports {name}"


def test_experiments_stand_alone():
    mains = (ROOT / "experiments").glob("*/__main__.py")
    alone = {path.parent.name for path in mains} - SHARED
    assert len(alone) >= 5
    for path in FILES:
        _, room = room_of(path)
        for package, other in rooms_imported(path):
            if package == "experiments" and other in alone:
                assert room.split(".")[0] == other, f"{path} imports {other}"


def test_experiments_load_nothing_heavy_at_import():
    for path in FILES:
        names = imports_of(at_import(ast.parse(path.read_text())))
        loaded = {name.split(".")[0] for name in names}
        assert not loaded & {"ott", "tensorflow_datasets", "tensorflow"}, path


def run_python(code: str) -> None:
    """Run code in a new process."""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_snnjax_loads_nothing_else():
    run_python(
        "import sys, snnjax;"
        "loaded = [m for m in sys.modules if m.startswith('snnjax.')];"
        "assert not loaded and 'jax' not in sys.modules, loaded"
    )


def test_the_core_loads_neither_flax_nor_ott_nor_a_device():
    run_python(
        "import sys, jax;"
        "from snnjax import surrogate, neurons, quantize, emd, firing, spiketrain;"
        "neurons.LIF(), quantize.QuantSpec(bits=4, clip=1.0);"
        "heavy = {'flax', 'ott', 'orbax', 'optax', 'tensorflow_datasets'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules);"
        "assert not jax._src.xla_bridge.backends_are_initialized()"
    )


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        ("data", "ott tensorflow_datasets flax optax orbax sklearn"),
        ("cost", "ott tensorflow_datasets orbax sklearn"),
        ("train, layers, models, calibrate", "ott tensorflow_datasets orbax"),
    ],
)
def test_modules_load_only_what_they_need(modules, absent):
    run_python(
        f"import sys; from snnjax import {modules};"
        f"loaded = set({absent.split()}) & set(sys.modules); assert not loaded, loaded"
    )


def public():
    """Yield each public thing of the library with its name."""
    for info in pkgutil.walk_packages(snnjax.__path__, "snnjax."):
        if info.name.endswith("__main__"):
            continue
        module = importlib.import_module(info.name)
        yield info.name, module
        for name, thing in vars(module).items():
            if name.startswith("_") or getattr(thing, "__module__", "") != info.name:
                continue
            if inspect.isclass(thing) or inspect.isfunction(thing):
                yield f"{info.name}.{name}", thing
            if inspect.isclass(thing):
                for method, function in vars(thing).items():
                    if inspect.isfunction(function) and not method.startswith("_"):
                        yield f"{info.name}.{name}.{method}", function


def test_every_public_thing_has_a_docstring():
    mute = [name for name, thing in public() if not (thing.__doc__ or "").strip()]
    assert not mute


def test_only_commands_print():
    for path in LIBRARY:
        if room_of(path)[1] in ("cli", "__main__"):
            continue
        calls = [
            n for n in ast.walk(ast.parse(path.read_text())) if type(n) is ast.Call
        ]
        assert not [c for c in calls if getattr(c.func, "id", "") == "print"], path


def test_types_are_shipped():
    assert (ROOT / "snnjax" / "py.typed").exists()
    assert snnjax.__version__
