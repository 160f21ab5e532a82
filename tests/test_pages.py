"""The Python of the site's pages runs as it is printed."""

import os
import subprocess

import pytest
from printed_code import PAGES, ROOT, find_blocks, run_blocks

WITH_CODE = [page for page in PAGES if find_blocks(page)]
# Runs with torch and SpikingJelly, in an environment of its own.
WITH_TORCH = "pytorch.md"


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_CODE, ids=lambda path: path.stem)
def test_page_runs(page, tmp_path, monkeypatch):
    if page.name == WITH_TORCH:
        pytest.skip("needs torch: test_page_with_torch_runs")
    monkeypatch.chdir(tmp_path)
    run_blocks(find_blocks(page), page.name)


@pytest.mark.nightly
def test_page_with_torch_runs(tmp_path):
    python = os.environ.get("SNNJAX_PEERS_PYTHON")
    if not python:
        pytest.skip("$SNNJAX_PEERS_PYTHON: a Python with snnjax, torch, spikingjelly")
    (page,) = (page for page in WITH_CODE if page.name == WITH_TORCH)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [python, "-c", "\n".join(find_blocks(page))]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
