"""Colours of blocks as the pages use them (docs/transcripts.py): in `console` terminals, what is typed, keys, and what appeared; in `python`
excerpts, where `…` leaves lines out."""

from __future__ import annotations

from typing import Any

from pygments.lexer import RegexLexer, bygroups, inherit
from pygments.lexers.python import PythonLexer
from pygments.token import Comment, Generic, Keyword, Text, Whitespace
from sphinx.application import Sphinx


class Console(RegexLexer):
    name = "socklab console"
    aliases = ("console",)
    tokens = {  # noqa: RUF012 - so it is in RegexLexer
        "root": [
            (r"^(\[[\w-]+\])(\n)", bygroups(Generic.Heading, Whitespace)),
            (r"^([$>] )(.*)(\n)", bygroups(Generic.Prompt, Generic.Strong, Whitespace)),
            (r"^(\^[CD])(\n)", bygroups(Keyword, Whitespace)),
            (r"^( *…)(\n)", bygroups(Comment, Whitespace)),
            (r"^.*\n", Generic.Output),
            (r".+", Text),
        ]
    }


class Excerpt(PythonLexer):
    name = "socklab excerpt"
    aliases = ("python",)
    tokens = {"root": [(r"^( *)(…)(\n)", bygroups(Whitespace, Comment, Whitespace)), inherit]}  # noqa: RUF012


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_lexer("console", Console)
    app.add_lexer("python", Excerpt)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
