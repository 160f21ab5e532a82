"""The shortest command line of a study."""

import dataclasses
import shlex
from typing import Any

from experiments.study.config import StudyConfig
from experiments.study.presets import presets


def make_command(config: dict[str, Any]) -> str:
    """Return the shortest command line that runs ``config``."""
    tiny = bool(config.get("tiny"))
    options = {
        name: _options(config, dataclasses.replace(usual, tiny=tiny).resolve())
        for name, usual in ({"": StudyConfig()} | presets(tiny=tiny)).items()
    }
    name = min(options, key=lambda name: len(options[name]))
    words = ["python", "-m", "experiments.study"]
    words += ["--preset", name] if name else []
    words += [word for option in options[name] for word in option]
    return shlex.join(words + ["--tiny"] * tiny)


def _options(config: dict[str, Any], usual: StudyConfig) -> list[list[str]]:
    """Return the options that turn ``usual`` into ``config``."""
    plain, options = usual.numbers(), []
    names = {field.name for field in dataclasses.fields(StudyConfig)}
    for name, value in config.items():
        if name in names and value != plain.get(name):
            flag = name.replace("_", "-")
            if isinstance(value, bool):
                options.append([f"--{flag}" if value else f"--no-{flag}"])
            else:
                values = value if isinstance(value, list) else [value]
                options.append([f"--{flag}", *map(str, values)])
    return options
