"""Bad input gets a sentence of ours: what was expected, what came.

In processes of their own, as users have it: in this one jaxtyping's checks would come
first.
"""

import json
import re
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
def outcomes():
    """What came of the cases of each module; the processes run beside each other."""
    command = [sys.executable, "-m", "tests.snnjax.bad_input.report"]
    pairs = (MODULES[:2], MODULES[2:])
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
        # Nor a warning, which would come before the sentence.
        assert "Warning" not in err, err
        for outcome in map(json.loads, out.splitlines()):
            found[outcome["module"]].append(outcome)
    return found


def complaint(outcome) -> str | None:
    """What is wrong with an outcome."""
    error, message = outcome["error"], outcome["message"]
    if outcome["says"] is None:
        return f"should work, but {error}: {message}" if error else None
    if error is None:
        return "was taken without a word"
    if error not in ("ValueError", "TypeError"):
        return f"{error} instead of a ValueError: {message}"
    if not re.search(outcome["says"], message):
        return f"does not say {outcome['says']!r}: {message}"
    # Forward mode is refused by JAX, whose sentence is good.
    forward = outcome["case"].endswith((": jvp", ": jacfwd"))
    if not outcome["ours"] and not forward:
        return f"comes from outside the library: {message}"
    # The command that prepares data has a line of its own.
    if message.count("\n") > message.count("with:\npython"):
        return f"is more than a sentence: {message}"
    return None


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_bad_input_gets_a_sentence(outcomes, module):
    complaints = {o["case"]: complaint(o) for o in outcomes[module]}
    assert len(outcomes[module]) > 20
    assert {case: why for case, why in complaints.items() if why} == {}
