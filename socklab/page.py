"""A report: one HTML file that needs nothing but a browser. Pure: made of marks (socklab/diagram.py)."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files

from socklab.diagram import Mark

SCRIPTS = ("dom.js", "diagram.js", "page.js", "report.js")
"""Of a report."""
LIVE = ("dom.js", "diagram.js", "page.js", "live.js")
BY_HAND = ("dom.js", "diagram.js", "page.js", "hand.js", "live.js")
INDEX = ("dom.js", "serve.js")
"""Of the live page, of one with a lab for playing by hand, and of the list of scenarios."""
FILES = frozenset(("page.css", *BY_HAND, *INDEX))
MOST = 100_000
"""Marks of a page: with more, browsers take their time. Of a longer play it shows the beginning and the end."""


@cache
def static(name: str) -> str:
    """A file of the page, as it is in the package."""
    return (files("socklab") / "static" / name).read_text(encoding="utf-8")


def packed(marks: Iterable[Mark]) -> str:
    """Marks as the page's script unpacks them: nothing that was sent stands in the page as text."""
    data = json.dumps(list(marks), ensure_ascii=False, separators=(",", ":")).encode(
        "utf-8", "backslashreplace"
    )
    return base64.b64encode(gzip.compress(data, mtime=0)).decode()


def report(marks: Sequence[Mark]) -> str:
    """The page. It can load nothing and run nothing but its own script, whatever the play's text contains."""
    title = next((str(m["title"]) for m in marks if m["mark"] == "play"), "a play")
    script, policy = _script()
    head = f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<style>\n{static("page.css")}</style>\n'
    data = f'<script type="application/octet-stream" id="marks">{packed(marks)}</script>\n'
    return _document(title, head, f"{static('report.html')}{data}<script>{script}</script>\n")


@cache
def _script() -> tuple[str, str]:
    """A report's script, and the policy under which nothing else runs."""
    script = "\n".join(static(name) for name in SCRIPTS)
    known = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        script,
        f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{known}'",
    )


def live(body: str, title: str, scripts: Sequence[str]) -> str:
    """A page of `socklab serve`, which loads its script and style."""
    hand = static("hand.html") if scripts is BY_HAND else ""
    content = static(body).replace("<!-- by hand -->", hand)
    tags = "".join(f'<script src="/static/{name}"></script>\n' for name in scripts)
    head = '<link rel="icon" href="data:,">\n<link rel="stylesheet" href="/static/page.css">\n'
    return _document(title, head, f"{content}{tags}")


def _document(title: str, head: str, body: str) -> str:
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)} · socklab</title>\n{head}</head>\n<body>\n{body}</body>\n</html>\n"
    )
