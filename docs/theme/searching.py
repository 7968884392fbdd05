"""Search without a server, in both languages.

Sphinx looks for words in an index that is a script, so a page that was opened as a file has it, too. It knows no Korean: there a word
stands with its particles and endings (소켓을, 소켓에서는), so each beginning of a word of two syllables or more is in the index, and particles of what
is asked for are left away where two syllables remain. Parts of pages around what was found stand in a script beside the index, for a page
from a file may not fetch another."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.search.en import SearchEnglish

PARTICLES = (
    "으로부터", "에서부터", "이라고는", "에서는", "에서도", "으로는", "으로도", "에게서", "까지는", "부터는", "이라는", "이라고", "처럼은",
    "에서", "에게", "에는", "에도", "으로", "로는", "로도", "까지", "부터", "처럼", "보다", "마다", "조차", "밖에", "라는", "라고", "이나", "이란",
    "이며", "와는", "과는", "와의", "과의", "만을", "만이", "들은", "들이", "들을", "들의",
    "을", "를", "이", "가", "은", "는", "에", "의", "와", "과", "도", "만", "로", "나", "들",
)  # fmt: skip
"""Longest first."""
_HANGUL = re.compile(r"[가-힣]+|[^\W가-힣]+")


def stem(word: str) -> str:
    """A Korean word without its particle."""
    for particle in PARTICLES:
        if word.endswith(particle) and len(word) > len(particle):
            return word.removesuffix(particle)
    return word


def terms(word: str) -> set[str]:
    """Under what a Korean word is found."""
    return {word, stem(word), *(word[:end] for end in range(2, len(word)))}


class SearchKorean(SearchEnglish):
    """`alice가` is two words; English ones are looked for as in English pages."""

    lang = "ko"
    stopwords = SearchEnglish.stopwords | {particle for particle in PARTICLES if len(particle) == 1}
    js_splitter_code = (
        f"const PARTICLES = {json.dumps(PARTICLES, ensure_ascii=False)};"
        + r"""
var splitQuery = (query) =>
  (query.match(/[가-힣]+|(?:(?![가-힣])[\p{Letter}\p{Number}_])+/gu) || []).map((word) => {
    const particle = /[가-힣]/.test(word) && PARTICLES.find((each) => word.endsWith(each));
    return particle && word.length - particle.length > 1 ? word.slice(0, -particle.length) : word;
  });
"""
    )

    def split(self, input: str) -> list[str]:
        found: list[str] = []
        for word in _HANGUL.findall(input):
            found += sorted(terms(word)) if re.match("[가-힣]", word) else [word]
        return found


def _collect(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Text of a page, for what stands around what was found: its prose, its blocks. Written when all pages are."""
    prose, blocks = [], []
    for element in doctree.findall(nodes.TextElement):
        if isinstance(element, nodes.literal_block):
            blocks.append(element.astext())
        elif not isinstance(element.parent, nodes.TextElement):
            prose.append(element.astext())
    app.env.__dict__.setdefault("page_texts", {})[docname] = [_plain(prose), _plain(blocks)]


def _plain(texts: list[str]) -> str:
    return " ".join(" ".join(texts).split())


def _write(app: Sphinx, failure: Exception | None) -> None:
    if failure is None:
        texts = json.dumps(getattr(app.env, "page_texts", {}), ensure_ascii=False, separators=(",", ":"))
        (Path(app.outdir) / "_static" / "texts.js").write_text(f"window.TEXTS={texts};\n", encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_search_language(SearchKorean)
    app.connect("doctree-resolved", _collect)
    app.connect("build-finished", _write)
    return {"parallel_read_safe": True, "parallel_write_safe": False}
