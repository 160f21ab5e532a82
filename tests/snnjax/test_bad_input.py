"""Bad input is refused: a ValueError of the library names the argument and the value.

The cases run in processes of their own, as users have it: in this one jaxtyping's
checks would come first.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = (
    *("core_cases", "density_cases", "firing_cases"),
    *("network_cases", "outside_cases", "quantizer_cases", "training_cases"),
)


@pytest.fixture(scope="module")
def complaints():
    """Complaints of each module's cases, from two processes at a time."""
    command = [sys.executable, "-m", "tests.snnjax.bad_input.report"]
    pairs = (MODULES[::2], MODULES[1::2])
    running = [
        subprocess.Popen(
            [*command, *names],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for names in pairs
    ]
    found = {name: [] for name in MODULES}
    for process in running:
        out, err = process.communicate()
        assert process.returncode == 0, err
        # Nor a warning, which would come before the error.
        assert "Warning" not in err, err
        for outcome in map(json.loads, out.splitlines()):
            found[outcome["module"]].append((outcome["case"], outcome["complaint"]))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_errors_name_the_argument(complaints, module):
    assert len(complaints[module]) > 10
    assert [pair for pair in complaints[module] if pair[1]] == []
