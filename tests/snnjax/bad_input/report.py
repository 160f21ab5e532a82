"""Run the cases of a module as a user would: no hook that checks types.

``python -m tests.snnjax.bad_input.report core_cases`` writes a JSON line for each case.
"""

import importlib
import json
import sys
import traceback
from pathlib import Path

import jax

LIBRARY = str(Path(__file__).parents[3] / "snnjax")


def outcome(call) -> dict:
    """What came of a call: its error, and whether the library itself raised it."""
    try:
        call()
    except Exception as error:
        raised = traceback.extract_tb(error.__traceback__)[-1].filename
        return {
            "error": type(error).__name__,
            "message": str(error),
            "ours": raised.startswith(LIBRARY),
        }
    return {"error": None, "message": "", "ours": True}


if __name__ == "__main__":
    # Else JAX hides its own frames, and an error of its looks like ours.
    jax.config.update("jax_traceback_filtering", "off")
    jax.config.update("jax_disable_most_optimizations", True)
    for name in sys.argv[1:]:
        module = importlib.import_module(f"tests.snnjax.bad_input.{name}")
        for case, call, says in module.cases():
            found = {"module": name, "case": case, "says": says, **outcome(call)}
            sys.stdout.write(json.dumps(found) + "\n")
