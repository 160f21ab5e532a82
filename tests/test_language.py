"""Docstrings open with a verb or a noun, names say what they name, in plain words.

The lists are what a reader of optax or flax stumbled over. A new false alarm is solved
by a better name or sentence; there is no list of exceptions.
"""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(
    path for name in ("snnjax", "experiments") for path in (ROOT / name).rglob("*.py")
)
TREES = {str(p.relative_to(ROOT)): ast.parse(p.read_text()) for p in FILES}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DOCUMENTED = (ast.Module, ast.ClassDef, *FUNCTIONS)

OPENINGS = {"what", "whether", "which", "how", "of", "as", "where", "that"}

# Prepositions and adverbs.
PARTICLES = {
    *("after", "again", "alone", "anew", "apart", "aside", "before", "behind"),
    *("beside", "beyond", "by", "each", "ever", "for", "from", "here", "in"),
    *("like", "now", "of", "once", "only", "surely", "than", "then", "there"),
    *("together", "under", "with"),
    *("back", "into", "off", "on", "out", "through", "to", "up", "upon", "within"),
}
# Participles and finite verbs that say nothing of what comes back.
PARTICIPLES = {
    *("asked", "begun", "built", "called", "done", "drawn", "ended", "fallen"),
    *("fetched", "found", "given", "gone", "heard", "held", "holds", "kept", "known"),
    *("lacking", "left", "lost", "made", "meant", "needed", "put"),
    *("ready", "remade", "said", "seen", "settled", "shown", "shows", "sorted"),
    *("stacked", "stored", "taken", "told", "telling", "trained", "unnamed", "unseen"),
    *("unstacked", "used", "wanted", "watched", "written"),
}
# Riddles among the names of this project, whole.
RIDDLES = {
    *("by_all", "by_first", "of_all", "of_first", "kept_by_first", "shows_now"),
    *("with_elements", "quietly", "wide", "high", "level_of", "w_of", "leak_of"),
    *("images_of", "of_spec", "text_of", "complaint_of"),
}
# Phrases with a plainer one (DESIGN: the field's English).
SUBSTITUTIONS = tomllib.loads(
    (ROOT / "tests" / "substitutions.toml").read_text(encoding="utf-8")
)
BANNED = SUBSTITUTIONS["everywhere"]
# What commands write from templates and rows is theirs to change.
WRITTEN_BY_COMMANDS = ("results", "performance.md")
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "docs/**/*.ipynb")
    for page in ROOT.glob(pattern)
    if not set(WRITTEN_BY_COMMANDS) & set(page.relative_to(ROOT).parts)
)


def docstrings():
    """Yield place, name and docstring of whatever has one."""
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, DOCUMENTED) and (text := ast.get_docstring(node)):
                line = getattr(node, "lineno", 1)
                yield f"{path}:{line}", getattr(node, "name", ""), text


def functions():
    """Yield place and name of every function and method."""
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, FUNCTIONS) and not node.name.startswith("__"):
                yield f"{path}:{node.lineno}", node.name.strip("_")


def strings_raised(tree):
    """Yield line and text of the strings in raised errors, and in checks' calls."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and node.exc is not None:
            parts = [
                part.value
                for part in ast.walk(node.exc)
                if isinstance(part, ast.Constant) and isinstance(part.value, str)
            ]
            yield node.lineno, "".join(parts)


def is_bare(name: str) -> bool:
    """Tell whether each word of a name is a participle, a preposition or an adverb."""
    return name in RIDDLES or set(name.lower().split("_")) <= PARTICIPLES | PARTICLES


def test_docstrings_open_with_a_verb_or_a_noun():
    openings = [
        f"{place} {name}: {text.splitlines()[0]}"
        for place, name, text in docstrings()
        if re.split(r"\W", text.lstrip("`'\"*"), maxsplit=1)[0].lower() in OPENINGS
    ]
    listing = "\n".join(openings)
    assert not openings, f"{len(openings)} docstrings:\n{listing}"


def test_functions_have_names_that_say_what_they_do():
    bare = [f"{place} {name}" for place, name in functions() if is_bare(name)]
    listing = "\n".join(bare)
    assert not bare, f"{len(bare)} names:\n{listing}"


def test_exceptions_end_in_error():
    bases = re.compile(r"(Error|Exception|Interrupt)$")
    wrong = [
        f"{path}:{node.lineno} {node.name}"
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and any(bases.search(ast.unparse(base)) for base in node.bases)
        and not node.name.endswith("Error")
    ]
    assert not wrong


@pytest.mark.parametrize("where", ["docstrings", "errors", "pages"])
def test_words_are_plain(where):
    banned = BANNED
    if where == "pages":
        banned = BANNED | SUBSTITUTIONS["pages"]
        texts = [
            (str(page.relative_to(ROOT)), page.read_text(encoding="utf-8"))
            for page in PAGES
        ]
    elif where == "docstrings":
        texts = [(place, text) for place, _, text in docstrings()]
    else:
        texts = [
            (f"{path}:{line}", text)
            for path, tree in TREES.items()
            for line, text in strings_raised(tree)
        ]
    found = [
        f"{place}: {match.group()!r}: rather {rather}"
        for place, text in texts
        for pattern, rather in banned.items()
        for match in re.finditer(pattern, text, flags=re.IGNORECASE)
    ]
    listing = "\n".join(found)
    assert not found, f"{len(found)} phrases:\n{listing}"
