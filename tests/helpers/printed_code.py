"""The Python that pages print, to run it."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
# The site's pages, but for results, which commands write.
PAGES = sorted(
    page
    for page in (ROOT / "docs").rglob("*.md")
    if "results" not in page.relative_to(ROOT / "docs").parts[:-1]
)


def find_blocks(page: Path) -> list[str]:
    """Return the Python blocks of a page; the site's build runs its cells."""
    text = page.read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


def run_blocks(blocks: list[str], name: str) -> dict:
    """Run blocks in order; return the names that they leave."""
    names: dict = {}
    for block in blocks:
        exec(compile(block, name, "exec"), names)
    return names
