"""The tree of pages at the side is what the index pages say: each heading of `index.md` with the pages that are linked under it, in that
order. So an index is plain Markdown, and stands once. A page that none names is a warning of Sphinx, which fails the build.

Pages of the other edition cannot be in a tree of this one; the root's stand below it, under the same headings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from docs.pages import address, between, edition, is_page, links


def sections(index: Path) -> dict[str, list[tuple[Path, str]]]:
    """Heading → pages linked under it and what the links say. A page is named once."""
    found: dict[str, list[tuple[Path, str]]] = {}
    seen = {index}
    for heading, path, text in links(index):
        if is_page(path) and path not in seen:
            seen.add(path)
            found.setdefault(heading, []).append((path, text))
    return found


def _grow(app: Sphinx, docname: str, source: list[str]) -> None:
    if Path(docname).name != "index":
        return
    index = Path(app.srcdir) / f"{docname}.md"
    for heading, pages in sections(index).items():
        own = [path.relative_to(app.srcdir).with_suffix("") for path, _ in pages if _follows(path, index)]
        if own:
            listed = "\n".join(f"/{path.as_posix()}" for path in own)
            caption = f":caption: {heading}\n" if heading else ""
            source[0] += f"\n\n```{{toctree}}\n:hidden:\n{caption}\n{listed}\n```\n"


def _follows(path: Path, index: Path) -> bool:
    """Whether a page belongs below this index, and not beside or above it."""
    return edition(path) == edition(index) and path.is_relative_to(index.parent)


def _elsewhere(app: Sphinx, pagename: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    root = Path(app.srcdir) / "index.md"
    here = address(Path(app.srcdir) / f"{pagename}.md")
    others = {
        heading: [(between(here, address(path)), text) for path, text in pages if edition(path) != edition(root)]
        for heading, pages in sections(root).items()
    }  # fmt: skip
    context["elsewhere"] = {heading: pages for heading, pages in others.items() if heading and pages}


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", _grow)
    app.connect("html-page-context", _elsewhere)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
