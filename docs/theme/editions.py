"""From each page to the same page in the other language, and the words of the theme that Sphinx does not translate."""

from __future__ import annotations

import gettext
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from docs.pages import address, between, counterpart

WORDS = {
    "en": {"other": "한국어", "tag": "ko", "only": "이 문서는 영어로만 있습니다", "search_other": "한국어 문서에서 찾기"},
    "ko": {"other": "English", "tag": "en", "only": "this page is in Korean only", "search_other": "Search the English pages, where the reference is"},
}  # fmt: skip
KOREAN = {
    "On this page": "이 페이지에서",
    "Back to top": "맨 위로",
    "Skip to content": "본문으로 건너뛰기",
    "Home": "처음",
    "Searching": "찾는 중",
    "Made with ": "만든 도구: ",
}
LABELS = {
    "Toggle Light / Dark / Auto color theme": "밝게 / 어둡게 / 자동",
    "Toggle site navigation sidebar": "차례 열고 닫기",
    "Toggle table of contents sidebar": "이 페이지의 차례 열고 닫기",
    "Toggle navigation of": "차례 펼치고 접기:",
}
"""What Furo has in English in all languages."""


class _Korean(gettext.NullTranslations):
    def gettext(self, message: str) -> str:
        return KOREAN.get(message, message)


def _translate(app: Sphinx) -> None:
    if app.config.language == "ko":
        app.translator.add_fallback(_Korean())


def _labels(language: str, text: str) -> str:
    if language == "ko":
        for english, korean in LABELS.items():
            text = text.replace(english, korean)
    return text


def _switch(app: Sphinx, pagename: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    page = Path(app.srcdir) / f"{pagename}.md"
    there = counterpart(page)
    exists = there.is_file() or pagename == "search" or pagename.startswith("source/")
    other = address(there if exists else counterpart(Path(app.srcdir) / "index.md"))
    words = WORDS[app.config.language]
    context |= {
        "edition": between(address(page), other),
        "edition_name": words["other"],
        "edition_language": words["tag"],
        "edition_only": "" if exists else words["only"],
        "search_other": words["search_other"],
        "labels": lambda text: _labels(app.config.language, text),
    }


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("builder-inited", _translate, priority=400)
    app.connect("html-page-context", _switch)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
