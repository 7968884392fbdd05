"""A report: one HTML file that needs nothing but a browser. Pure: made of marks (socklab/diagram.py)."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
from collections.abc import Iterable, Sequence
from importlib.resources import files

from socklab.diagram import Mark

SCRIPTS = ("diagram.js", "page.js", "report.js")
FILES = ("diagram.js", "page.js", "live.js", "serve.js", "page.css")
"""What the live page loads."""


def static(name: str) -> str:
    """A file of the page, as it is in the package."""
    return (files("socklab") / "static" / name).read_text(encoding="utf-8")


MOST = 200_000
"""Events of which a page is made without being asked for."""


def packed(marks: Iterable[Mark]) -> str:
    """Marks as the page's script unpacks them: nothing that was sent stands in the page as text."""
    data = json.dumps(list(marks), ensure_ascii=False, separators=(",", ":")).encode(
        "utf-8", "backslashreplace"
    )
    return base64.b64encode(gzip.compress(data, mtime=0)).decode()


def report(marks: Sequence[Mark]) -> str:
    """The page. It can load nothing and run nothing but its own script, whatever the play's text contains."""
    script = "\n".join(static(name) for name in SCRIPTS)
    known = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{known}'"
    title = next((str(m["title"]) for m in marks if m["mark"] == "play"), "a play")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)} · socklab</title>\n<style>\n{static('page.css')}</style>\n</head>\n<body>\n"
        f"{static('report.html')}"
        f'<script type="application/octet-stream" id="marks">{packed(marks)}</script>\n'
        f"<script>{script}</script>\n</body>\n</html>\n"
    )


def live(body: str, title: str, scripts: Sequence[str]) -> str:
    """A page of `socklab serve`, which loads its script and style."""
    tags = "".join(f'<script src="/static/{name}"></script>\n' for name in scripts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{html.escape(title)} · socklab</title>\n<link rel="icon" href="data:,">\n'
        f'<link rel="stylesheet" href="/static/page.css">\n</head>\n<body>\n{static(body)}{tags}</body>\n</html>\n'
    )
