"""Both editions: a page that has a Korean one is built the same there, shows the same, and leads to the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.pages import DOCS, KO, MARKDOWN, counterpart, edition, every, is_page

FIRST = DOCS / "index.md"
"""Not held: each edition lists there what there is in its language."""
BOTH = [page for page in every() if edition(page) == DOCS and counterpart(page).is_file() and page != FIRST]


def name(page: Path) -> str:
    return str(page.relative_to(DOCS))


def led(page: Path, target: str) -> tuple[str, ...]:
    """Where a link or a picture leads, said alike for both editions. Headings have other names in the other one."""
    if "://" in target:
        return (target,)
    file, _, anchor = target.partition("#")
    there = (page.parent / file).resolve() if file else page
    if is_page(there) and counterpart(there).is_file():
        english = there if edition(there) == DOCS else counterpart(there)
        stays = edition(there) == edition(page)
        return ("its edition" if stays else "the other edition", str(english), "#" if anchor else "")
    return (str(there), anchor)


def skeleton(page: Path) -> Iterator[tuple[str, ...]]:
    """The build of a page, without its words: headings, paragraphs, lists, tables, blocks with their text, pictures, links."""
    for token in MARKDOWN.parse(page.read_text(encoding="utf-8")):
        if token.type in ("fence", "code_block"):
            yield token.info, token.content
        elif token.type == "inline":
            for child in token.children or ():
                if child.type in ("image", "link_open"):
                    yield child.type, *led(page, str(child.attrs.get("src") or child.attrs.get("href")))
        elif token.type.endswith("_open"):
            yield token.type, token.tag


@pytest.mark.parametrize("page", BOTH, ids=name)
def test_both_editions_have_the_same_build_the_same_blocks_and_the_same_links(page: Path) -> None:
    assert list(skeleton(counterpart(page))) == list(skeleton(page))


def test_a_korean_page_has_an_english_one_but_for_the_terms() -> None:
    alone = [page for page in every() if edition(page) == KO and not counterpart(page).is_file()]
    assert alone == [KO / "terms.md"]
