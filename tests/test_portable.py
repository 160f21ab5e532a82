"""The library is imported and writes its files where POSIX is missing."""

import ast
import subprocess
import sys
from pathlib import Path, PureWindowsPath

import pytest

from snnjax import _paths

ROOT = Path(__file__).parents[1]
LIBRARY = sorted((ROOT / "snnjax").rglob("*.py"))
# Modules of the standard library that Windows does not have.
POSIX = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "termios", "tty"}

# Refuses these modules to code of this project alone: on Windows others do without.
WITHOUT_POSIX = f"""
import builtins

real = builtins.__import__


def refuse(name, globals=None, *rest, **more):
    asker = (globals or {{}}).get("__name__", "")
    if name in {POSIX!r} and asker.split(".")[0] in ("snnjax", "experiments"):
        raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
    return real(name, globals, *rest, **more)


builtins.__import__ = refuse
"""
IMPORT_ALL = """
import importlib, pkgutil, snnjax

for module in pkgutil.walk_packages(snnjax.__path__, "snnjax."):
    importlib.import_module(module.name)
"""
WRITE_FILES = """
import numpy as np
from snnjax import firing, runs, report

with runs.Store.open("run", {"seed": 0}) as store:
    store.append({"name": "a", "accuracy": 1.0}, {"counts": np.arange(3)})
with runs.Store.open("run", {"seed": 0}) as store:
    assert len(store.rows()) == 1
counts = firing.FiringCounts({"layer1.0.sn1": np.array([1, 2])}, 4)
firing.save_counts(counts, "a.npz")
report.compare(firing.load_counts("a.npz"), counts).to_json("card.json")
"""


def run(code: str, folder: Path) -> None:
    command = [sys.executable, "-c", code]
    subprocess.run(command, cwd=folder, check=True)


@pytest.mark.slow
@pytest.mark.parametrize("code", [IMPORT_ALL, WRITE_FILES], ids=["imports", "files"])
def test_without_posix(code, tmp_path):
    run(WITHOUT_POSIX + code, tmp_path)


@pytest.mark.slow
def test_without_avx(tmp_path):
    run(
        "import os; os.environ['XLA_FLAGS'] = '--xla_cpu_max_isa=SSE4_2'\n"
        "from snnjax import examples, train\n"
        "model, _, test = examples.digits()\n"
        "accuracy = train.evaluate(model, test).accuracy\n"
        "assert abs(accuracy - 0.969) < 0.01, accuracy",
        tmp_path,
    )


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: str(p.relative_to(ROOT)))
def test_posix_modules_and_encodings(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    guarded = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.Try)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and node not in guarded:
            names = {alias.name.split(".")[0] for alias in node.names}
            assert not names & POSIX, f"line {node.lineno}: only POSIX has this"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            texts = {"read_text": 1, "write_text": 2}
            if node.func.attr in texts and ast.unparse(node.func.value) != "self":
                given = len(node.args) >= texts[node.func.attr]
                named = any(word.arg == "encoding" for word in node.keywords)
                assert given or named, f"line {node.lineno}: Windows is not UTF-8"


@pytest.mark.parametrize(
    "path", [r"C:\runs\one", r"\\server\share\run", PureWindowsPath(r"C:\runs")]
)
def test_paths_with_other_separators_are_local(path):
    assert not _paths.is_remote(path)
    assert _paths.require_local_path("folder", path).name
