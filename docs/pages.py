"""Which Markdown is a page of which edition, and where its links lead. English is in docs/, Korean in docs/ko/."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.token import Token

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
KO = DOCS / "ko"
MARKDOWN = MarkdownIt("commonmark").enable("table")


def edition(path: Path) -> Path:
    """The folder of the edition to which a page belongs."""
    return KO if path.is_relative_to(KO) else DOCS


def is_page(path: Path) -> bool:
    return path.suffix == ".md" and path.is_relative_to(DOCS) and path.is_file()


def address(path: Path) -> str:
    """Of a page, in the site: `ko/lessons/index.html`."""
    return path.relative_to(DOCS).with_suffix(".html").as_posix()


def counterpart(path: Path) -> Path:
    """The page in the other edition, be it there or not."""
    there = KO if edition(path) == DOCS else DOCS
    return there / path.relative_to(edition(path))


def between(source: str, target: str) -> str:
    """The link from one address of the site to another."""
    return Path(os.path.relpath(target, Path(source).parent)).as_posix()


def links(page: Path) -> Iterator[tuple[str, Path, str]]:
    """In the order of the page: the heading (of level 2) under which a link into this repository stands, where it leads, its text."""
    heading = ""
    tokens = iter(MARKDOWN.parse(page.read_text(encoding="utf-8")))
    for token in tokens:
        if token.type == "heading_open" and token.tag == "h2":
            heading = next(tokens).content
        elif token.type == "inline":
            yield from ((heading, path, text) for path, text in _within(page, token.children or []))


def _within(page: Path, tokens: list[Token]) -> Iterator[tuple[Path, str]]:
    target, said = "", ""
    for token in tokens:
        if token.type == "link_open":
            target, said = str(token.attrs["href"]).partition("#")[0], ""
        elif token.type == "link_close":
            if target and "://" not in target and not target.startswith("mailto:"):
                yield (page.parent / unquote(target)).resolve(), said
            target = ""
        elif target:
            said += token.content


@cache
def every() -> tuple[Path, ...]:
    """All pages of both editions."""
    return tuple(sorted(DOCS.rglob("*.md")))
