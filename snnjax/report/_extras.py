"""Packages of the extra ``report``: one that is missing is an error with its remedy."""

import importlib
from types import ModuleType


def import_extra(name: str) -> ModuleType:
    """Import a module of the extra.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise explain(error) from None


def explain(error: ModuleNotFoundError) -> ModuleNotFoundError:
    """Return the error that says how to install what is missing."""
    return ModuleNotFoundError(
        f"{error.name} is not installed: pip install 'snnjax[report]'"
    )
