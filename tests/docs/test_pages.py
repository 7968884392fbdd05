"""Every page: what it runs comes as it says, and each command of socklab that it names is one that socklab takes."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs import reference, transcripts
from docs.pages import MARKDOWN, ROOT
from docs.transcripts import blocks
from socklab import cli
from socklab.cli import judging

EVERY = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
GUIDES = [page for page in EVERY if not re.match(r"docs/(ko/|lessons/\d)", str(page.relative_to(ROOT)))]
"""Lessons are run by test_lessons.py."""


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", [p for p in GUIDES if blocks(p.read_text(encoding="utf-8"))], ids=name)
def test_what_a_page_shows_is_so(page: Path, namespaces: None) -> None:
    done = transcripts.apart([str(page)])
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("page", GUIDES, ids=name)
def test_commands_stand_in_blocks_that_say_what_they_are(page: Path) -> None:
    """An indented block is looked at by nobody."""
    tokens = MARKDOWN.parse(page.read_text(encoding="utf-8"))

    assert [token.content for token in tokens if token.type == "code_block"] == []


def commands(page: Path) -> Iterator[tuple[int, str]]:
    """What could be a command line in a page and is not run: in blocks of `sh`, and in `code` of a sentence."""
    for token in MARKDOWN.parse(page.read_text(encoding="utf-8")):
        line = token.map[0] + 1 if token.map else 0
        if token.type == "fence" and token.info.strip() == "sh":
            text = re.sub(r"\\\n\s*", " ", token.content)
            yield from enumerate(text.splitlines(), line + 1)
        elif token.type == "inline":
            for child in token.children or ():
                if child.type == "code_inline":
                    yield line, child.content


def wrong_with(command: str) -> str:
    """What socklab would say of a command line that it does not take; empty: it takes it. Nothing of it is done."""
    words = shlex.split(command, comments=True)[1:]
    if words[:1] and words[0] in judging.COMMANDS and "--" in words:
        words = words[: words.index("--")]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            cli._parser().parse_args(words)
    except SystemExit as ended:
        return said.getvalue().strip() if ended.code else ""
    return ""


@pytest.mark.parametrize("page", EVERY, ids=name)
def test_commands_are_such_as_socklab_takes(page: Path) -> None:
    wrong = []
    for line, text in commands(page):
        for part in re.split(r"\s&&\s|\s\|\s|;\s|\s>\s", re.sub(r"\s#\s.*", "", text)):
            part = re.sub(r"^(?:\w+=\S+ +)+", "", part.strip())
            if not part.startswith("socklab ") or part.removeprefix("socklab ") in (
                *reference.commands(),
                "= true",
            ):
                continue  # a command's name alone stands for the command
            if said := wrong_with(part):
                wrong.append(f"{name(page)}:{line}: {part}\n    {said}")

    assert not wrong, "\n".join(wrong)
