"""Experiment scripts: run them from the repository's root with ``python -m``."""

from importlib.util import find_spec

for _name in ("tyro", "rich"):
    if find_spec(_name) is None:
        raise ModuleNotFoundError(
            f"the experiments need {_name}, run: pip install -e '.[experiments]'"
        )
