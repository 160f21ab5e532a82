"""Run the cases of a module as a user would: no hook that checks types.

``python -m tests.snnjax.bad_input.report core_cases`` writes a JSON line for each case:
its complaint, or null.
"""

import importlib
import json
import re
import reprlib
import sys
import traceback
from pathlib import Path

import jax
import numpy as np

LIBRARY = str(Path(__file__).parents[3] / "snnjax")
FORWARD_MODE = "custom_vjp"  # refused by JAX itself, in words of its own


def complaint(call, argument: str | None, value) -> str | None:
    """What is wrong with how a call ended."""
    try:
        call()
    except Exception as error:
        if argument is None:
            return f"should work, but {error!r}"
        return complaint_of(error, argument, value)
    return None if argument is None else "raised no error"


def complaint_of(error: Exception, argument: str, value) -> str | None:
    """What is wrong with an error: its type, its origin, or what it leaves out."""
    message = str(error)
    raised = traceback.extract_tb(error.__traceback__)[-1].filename
    if not isinstance(error, (ValueError, TypeError)):
        return f"is no ValueError: {error!r}"
    if not raised.startswith(LIBRARY) and argument != FORWARD_MODE:
        return f"comes from outside the library: {error!r}"
    if not re.search(rf"(?<!\w){re.escape(argument)}", message):
        return f"does not name {argument}: {message}"
    if not any(text in message for text in texts_of(value)):
        return f"does not show {texts_of(value)}: {message}"
    # The command that prepares data has a line of its own.
    if message.count("\n") > message.count("with:\npython"):
        return f"is more than a line: {message}"
    return None


def texts_of(value) -> set[str]:
    """The texts of which an error shows one: value, shape, dtype or bounds."""
    texts = {" ".join(text.split()) for text in (str(value), reprlib.repr(value))}
    if callable(value) or isinstance(value, dict) or hasattr(value, "__len__"):
        texts.add(f"got {type(value).__name__}")
    if isinstance(value, (list, tuple)):
        texts |= {repr(value), str(value)}
        texts |= {text for item in value for text in texts_of(item)}
    if isinstance(value, dict):
        texts |= {str(key) for key in value}
    if not hasattr(value, "dtype"):
        return texts
    value = np.asarray(value)
    texts |= {str(value.dtype), str(value.shape), str(list(value.shape))}
    if value.size == 0:
        texts.add("empty")
    elif np.issubdtype(value.dtype, np.number):
        bounds = {str(value.min()), str(value.max())}
        texts |= {"NaN" if text in ("nan", "inf") else text for text in bounds} | bounds
    return texts


if __name__ == "__main__":
    # Else JAX hides its own frames, and an error of its looks like ours.
    jax.config.update("jax_traceback_filtering", "off")
    jax.config.update("jax_disable_most_optimizations", True)
    for name in sys.argv[1:]:
        module = importlib.import_module(f"tests.snnjax.bad_input.{name}")
        for case, call, argument, value in module.cases():
            found = {"case": case, "complaint": complaint(call, argument, value)}
            sys.stdout.write(json.dumps({"module": name, **found}) + "\n")
