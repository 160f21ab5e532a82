"""What the house promises: imports run one way, importing is light, nothing is mute."""

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import snnjax

ROOT = Path(__file__).parents[1]
LIBRARY = sorted((ROOT / "snnjax").rglob("*.py"))
EXPERIMENTS = sorted((ROOT / "experiments").rglob("*.py"))

# What each module of the library may import of the library.
ALLOWED = {
    "_axes": set(),
    "_checks": set(),
    "_pytree": set(),
    "_wide": set(),
    "_order": set(),
    "conv": {"_axes", "_checks", "_order", "conv"},
    "encoding": {"_checks"},
    "surrogate": {"_axes", "_checks"},
    "cost": {"_checks"},
    "data": {"_checks", "_pytree", "data"},
    "_named_arrays": {"_pytree"},
    "checkpoint": {"_named_arrays", "runs"},
    "runs": {"_checks", "_named_arrays", "runs", "train"},
    "neurons": {"_axes", "_checks", "_pytree", "neurons", "quantize", "surrogate"},
    "quantize": {"_axes", "_checks", "_pytree", "quantize"},
    "emd": {"_checks", "_wide", "emd"},
    "spiketrain": {"_checks", "spiketrain"},
    "firing": {"_checks", "emd", "firing"},
    "layers": {
        *("_axes", "_checks", "_pytree", "conv", "layers", "neurons", "quantize"),
    },
    "models": {"_checks", "_order", "cost", "layers", "models", "neurons", "quantize"},
    "calibrate": {"_checks", "cost", "layers", "models", "neurons", "quantize"},
    "interop": {"_checks", "calibrate", "cost", "layers", "models", "neurons"},
    "train": {
        *("_checks", "_pytree", "data", "firing", "layers"),
        *("cost", "spiketrain", "train"),
    },
}
# And of others at the top of the file, beside the standard library.
CORE = {"jax", "numpy", "jaxtyping"}
OTHERS = {
    "layers": CORE | {"flax"},
    "models": CORE | {"flax"},
    "calibrate": CORE | {"flax"},
    "interop": CORE | {"flax"},
    "train": CORE | {"flax", "optax"},
    "checkpoint": CORE | {"flax"},
    "runs": CORE | {"orbax"},
}
# Heavy or optional: only inside the functions that need them.
INSIDE = {
    "ott": {"emd"},
    "tensorflow_datasets": {"data"},
    "PIL": {"data"},
    "sklearn": {"data"},
    "safetensors": {"checkpoint", "interop"},
    "nir": {"interop"},
    "torch": {"interop"},
}


def module_of(path: Path) -> str:
    return path.relative_to(ROOT / "snnjax").with_suffix("").parts[0]


def imported(nodes) -> set[str]:
    """Modules imported by these nodes: ``snnjax.x``, or the top name of another."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "snnjax":
            names = [f"snnjax.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [node.module or ""]
        else:
            continue
        for name in names:
            parts = name.split(".")
            found.add(".".join(parts[:2]) if parts[0] == "snnjax" else parts[0])
    return found


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path):
    tree, module = ast.parse(path.read_text()), module_of(path)
    if module == "__init__":
        assert imported(ast.walk(tree)) == set()
        return
    everywhere, on_top = imported(ast.walk(tree)), imported(tree.body)
    ours = {name.removeprefix("snnjax.") for name in everywhere if "snnjax" in name}
    assert ours <= ALLOWED[module]
    others = {name for name in on_top if not name.startswith("snnjax")}
    assert others - set(sys.stdlib_module_names) <= OTHERS.get(module, CORE)
    lazy = everywhere - on_top - set(sys.stdlib_module_names)
    for name in lazy:
        assert name.startswith("snnjax") or module in INSIDE.get(name, ())


def test_the_plan_has_no_circle():
    def follow(module, way):
        for other in ALLOWED[module] - {module}:
            assert other not in way, (*way, other)
            follow(other, (*way, other))

    for module in ALLOWED:
        follow(module, (module,))


def test_the_library_does_not_know_the_experiments():
    for path in LIBRARY:
        assert "experiments" not in imported(ast.walk(ast.parse(path.read_text())))


def test_what_is_heavy_is_never_imported_at_once():
    for path in [*LIBRARY, *EXPERIMENTS]:
        at_once = imported(ast.parse(path.read_text()).body)
        assert not at_once & {"ott", "tensorflow_datasets", "tensorflow"}, path


def test_no_experiment_imports_another():
    shared = {"command_line", "compilation_cache", "console", "huge_pages"}
    shared |= {"one_at_a_time", "provenance"}
    for path in (ROOT / "experiments").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "experiments":
                assert {alias.name for alias in node.names} <= shared
            elif isinstance(node, ast.ImportFrom) and node.module:
                parts = node.module.split(".")
                assert parts[0] != "experiments" or parts[1] in shared


def test_importing_snnjax_loads_nothing_else():
    code = (
        "import sys, time; start = time.perf_counter(); import snnjax;"
        "assert time.perf_counter() - start < 0.3;"
        "loaded = [m for m in sys.modules if m.startswith('snnjax.')];"
        "assert not loaded and 'jax' not in sys.modules, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_functional_core_needs_neither_flax_nor_ott_nor_a_device():
    code = (
        "import sys, jax;"
        "from snnjax import surrogate, neurons, quantize, emd, firing, cost;"
        "from snnjax import spiketrain;"
        "neurons.LIF(), quantize.QuantSpec(bits=4, clip=1.0);"
        "heavy = {'flax', 'ott', 'orbax', 'optax', 'tensorflow_datasets'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules);"
        "assert not jax._src.xla_bridge.backends_are_initialized()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        ("data", "ott tensorflow_datasets flax optax orbax sklearn"),
        ("train, layers, models, calibrate", "ott tensorflow_datasets orbax"),
    ],
)
def test_modules_load_only_what_they_need(modules, absent):
    code = (
        f"import sys; from snnjax import {modules};"
        f"loaded = set({absent.split()}) & set(sys.modules); assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def public():
    for info in pkgutil.walk_packages(snnjax.__path__, "snnjax."):
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


def test_the_library_prints_nothing_and_files_stay_small():
    for path in LIBRARY:
        text = path.read_text()
        calls = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Call)]
        assert not [c for c in calls if getattr(c.func, "id", "") == "print"]
        assert len(text.splitlines()) <= 400, path


def test_types_are_shipped():
    assert (ROOT / "snnjax" / "py.typed").exists()
    assert snnjax.__version__
