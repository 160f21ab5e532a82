"""The report's fixed prose, kept apart from the code in ``prose.toml``."""

import tomllib
from pathlib import Path

FOLDER = Path(__file__).parent
_PROSE = tomllib.loads((FOLDER / "prose.toml").read_text("utf-8"))

CAPTIONS: dict[str, str] = _PROSE["captions"]
CLAIMS: dict[str, dict[str, str]] = _PROSE["claims"]
DEFINITIONS: dict[str, str] = _PROSE["definitions"]
PAGE: dict[str, str] = _PROSE["page"]
RULES: str = _PROSE["rules"]
