"""Check of the built site: every link within it leads to a page, file or anchor."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError


class Page(HTMLParser):
    """Links and anchors of an HTML page."""

    def __init__(self, text: str):
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect what a tag links to and its anchor."""
        for name, value in attrs:
            if value and name in ("href", "src"):
                self.links.add(value)
            elif value and name == "id":
                self.anchors.add(value)


def find_broken_links(folder: Path) -> list[str]:
    """Return each relative link of the pages below a folder that leads nowhere."""
    pages = {
        path.resolve(): Page(path.read_text(encoding="utf-8"))
        for path in sorted(folder.rglob("*.html"))
        if "_static" not in path.parts
    }
    broken = []
    for path, page in pages.items():
        for link in sorted(page.links):
            address, anchor = urldefrag(link)
            if ":" in address or address.startswith("//"):
                continue
            target = (path.parent / unquote(address.partition("?")[0])).resolve()
            target = path if not address else target
            known = pages[target].anchors if target in pages else {anchor}
            # "#" alone is the top of a page.
            if not target.exists() or (anchor and unquote(anchor) not in known):
                broken.append(f"{path.relative_to(folder.resolve())}: {link}")
    return broken


def check(app: Sphinx, error: Exception | None) -> None:
    """Fail the build where a link is broken."""
    if error is not None or app.builder.name != "html":
        return
    if broken := find_broken_links(Path(app.outdir)):
        raise ExtensionError("broken links:\n" + "\n".join(broken))


def setup(app: Sphinx) -> dict[str, bool]:
    """Check links when a build ends."""
    app.connect("build-finished", check)
    return {"parallel_read_safe": True}
