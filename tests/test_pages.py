"""The Python of the site's pages runs as it is printed."""

import json
import os
import subprocess
import sys

import pytest
from printed_code import PAGES, ROOT, find_blocks, run_blocks

WITH_CODE = [page for page in PAGES if find_blocks(page)]
# Runs with torch, SpikingJelly and snnTorch, in an environment of its own.
WITH_TORCH = ROOT / "docs" / "howto" / "pytorch.ipynb"
# Sets up JAX before it starts.
OWN_PROCESS = "performance.md"
# In less than ten seconds each.
QUICK = {"checkpoints", "coming_from", "emd", "grids", "own_network", "recurrent"}
QUICK |= {"significance"}


def mark(page):
    """Return the page as a parameter, nightly unless it is quick."""
    kind = pytest.mark.slow if page.stem in QUICK else pytest.mark.nightly
    return pytest.param(page, marks=kind, id=page.stem)


@pytest.mark.parametrize("page", list(map(mark, WITH_CODE)))
def test_page_runs(page, tmp_path, monkeypatch):
    if page.name == OWN_PROCESS:
        return run_apart(sys.executable, find_blocks(page), tmp_path)
    monkeypatch.chdir(tmp_path)
    run_blocks(find_blocks(page), page.name)


@pytest.mark.nightly
def test_page_with_torch_runs(tmp_path):
    python = os.environ.get("SNNJAX_PEERS_PYTHON")
    if not python:
        pytest.skip("$SNNJAX_PEERS_PYTHON: a Python with snnjax, torch, its libraries")
    cells = json.loads(WITH_TORCH.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    run_apart(python, code, tmp_path)


def run_apart(python, blocks, folder):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [python, "-c", "\n".join(blocks)]
    subprocess.run(command, cwd=folder, env=environment, check=True)
