"""The report's words: templates, captions, claims, definitions."""

import tomllib
from pathlib import Path
from typing import Any

import jinja2

from experiments.tables import emd_text

_FOLDER = Path(__file__).parent / "templates"
_WORDS = tomllib.loads((_FOLDER / "words.toml").read_text("utf-8"))
CAPTIONS: dict[str, str] = _WORDS["captions"]
CLAIMS: dict[str, dict[str, Any]] = _WORDS["claims"]
DEFINITIONS: dict[str, str] = _WORDS["definitions"]


def render(template: str, **values: Any) -> str:
    """Fill in a template of Markdown."""
    loader = jinja2.FileSystemLoader(_FOLDER)
    environment = jinja2.Environment(
        loader=loader,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["emd"] = emd_text
    return environment.get_template(template).render(**values)
