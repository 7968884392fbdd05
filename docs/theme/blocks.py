"""Colours of a `console` block as the pages use it (docs/transcripts.py): terminals, what is typed, keys, and what appeared."""

from __future__ import annotations

from typing import Any

from pygments.lexer import RegexLexer, bygroups
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


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_lexer("console", Console)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
