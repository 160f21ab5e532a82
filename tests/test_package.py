"""The wheel has what it promises, and works with the core dependencies alone."""

import email
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
# Modules of the extras, which a bare installation does not have.
OPTIONAL = (
    *("altair", "jinja2", "matplotlib", "nir", "pandas", "sklearn", "torch", "tyro"),
    "vl_convert",
)
MOST_BYTES = 300_000  # of network and images for the README's example
BARE = f"""
import importlib.abc, re, sys


class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {OPTIONAL!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


sys.meta_path.insert(0, Missing())
sys.path.insert(0, sys.argv[1])
text = open(sys.argv[2], encoding="utf-8").read()
exec(re.findall(r"```python\\n(.*?)```", text, flags=re.DOTALL)[0])
import snnjax
from snnjax import cli

assert snnjax.__file__.startswith(sys.argv[1]), snnjax.__file__
assert cli.main(["compare", "reference.npz", "restored.npz"]) == 0
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "-w",
        folder,
        ROOT,
    ]
    subprocess.run(build, check=True)
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.mark.nightly
def test_it_holds_the_library_and_nothing_else(wheel):
    tops = {path.name for path in wheel.iterdir()}
    assert {name for name in tops if not name.endswith(".dist-info")} == {"snnjax"}
    assert (wheel / "snnjax" / "py.typed").exists()
    assert list((wheel / "snnjax" / "report" / "templates").glob("*.html"))
    size = sum(path.stat().st_size for path in (wheel / "snnjax/examples").iterdir())
    assert size <= MOST_BYTES


@pytest.mark.nightly
def test_its_metadata_stand_alone(wheel):
    (path,) = wheel.glob("*.dist-info/METADATA")
    metadata = email.message_from_string(path.read_text(encoding="utf-8"))
    assert len(metadata.get_all("Project-URL")) >= 4
    assert not re.findall(r"\]\((?!https://)", metadata.get_payload())


@pytest.mark.nightly
def test_the_readme_runs_with_the_core_alone(wheel, tmp_path):
    command = [sys.executable, "-c", BARE, str(wheel), str(ROOT / "README.md")]
    subprocess.run(command, cwd=tmp_path, check=True)


def test_extras_that_are_documented_exist():
    text = (ROOT / "docs" / "start" / "install.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\[([a-z]+)\]`", text))
    assert len(named) > 5
    assert named <= set(PYPROJECT["project"]["optional-dependencies"])
