"""YAML as it is written: a tree of scalars, lists and maps in which everything remembers its line and column.

PyYAML reads the syntax; what a scalar means is decided by who asks for it, so `no`, `007` and `1:30` stay the text that
stands there. What would make a file mean more than it shows (aliases, merge keys, tags, duplicate keys) is refused.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from codecs import BOM_UTF8
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from socklab.errors import UserError

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

MAX_FILE = 256 << 10  # bytes; a scenario is read by people, and long texts are made by repeat:
MAX_DEPTH = 32  # the deepest sensible scenario has about ten
MAX_MESSAGE = 500  # characters of a message; what it quotes may be as long as the file

_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")  # where libyaml begins a new line
_FOREIGN = re.compile(
    "[^\t\n\r -~\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)  # what YAML forbids


@dataclass(frozen=True)
class Mark:
    """A place in a file; line and column count from 1."""

    line: int
    column: int


class ScenarioError(UserError):
    """A file that cannot be played, with the place and the way out.

    `str()` gives `file:line:column: message`, and below it the line with a caret.
    """

    def __init__(
        self, message: str, path: Path | str, mark: Mark | None = None, line_text: str | None = None
    ) -> None:
        self.message = message = printable(message, MAX_MESSAGE)
        self.path = path
        self.mark = mark
        where = f"{path}:{mark.line}:{mark.column}" if mark else f"{path}"
        text = f"{printable(where)}: {message}"
        if mark and line_text is not None:
            shown, caret = _window(line_text, mark.column)
            text += f"\n    {shown}\n    {caret}"
        super().__init__(text)


def _window(line: str, column: int, width: int = 100) -> tuple[str, str]:
    """The part of a line around a column, and a caret under it."""
    start = max(0, column - 1 - width // 2) if len(line) > width else 0
    part = "".join(c if c.isprintable() else " " for c in line[start : start + width])
    return part, " " * cells(part[: column - 1 - start]) + "^"


def cells(text: str) -> int:
    """How many columns of a terminal a text takes."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def printable(text: str, limit: int | None = None) -> str:
    """A text that drives no terminal: what is not printable as an escape; at most `limit` characters."""
    if limit is not None and len(text) > limit:
        text = text[:limit] + "…"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class Problem(Exception):
    """Something wrong at a place, before it is known which file the place is in."""

    def __init__(self, mark: Mark, message: str) -> None:
        super().__init__(message)
        self.mark = mark
        self.message = message


@dataclass(frozen=True)
class Scalar:
    text: str
    plain: bool
    """Written without quotes."""
    mark: Mark

    @property
    def empty(self) -> bool:
        return self.plain and self.text in ("", "~", "null", "Null", "NULL")


@dataclass(frozen=True)
class Seq:
    items: tuple[Tree, ...]
    mark: Mark


@dataclass(frozen=True)
class Map:
    items: tuple[tuple[Scalar, Tree], ...]
    mark: Mark

    def get(self, key: str) -> Tree | None:
        return next((value for name, value in self.items if name.text == key), None)


Tree = Scalar | Seq | Map


def kind_of(tree: Tree) -> str:
    """What a tree is, in words for a message."""
    if isinstance(tree, Map):
        return "a map"
    if isinstance(tree, Seq):
        return "a list"
    return "nothing" if tree.empty else f'"{tree.text}"' if len(tree.text) < 40 else "a text"


def nearest(word: str, known: Iterable[str]) -> str:
    """` Did you mean "x"?` for a word close to a known one, else nothing."""
    if len(word) > 100:
        return ""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f' Did you mean "{close[0]}"?' if close else ""


@dataclass(frozen=True)
class Source:
    """A file's text and its tree."""

    path: Path
    text: str
    lines: tuple[str, ...] = field(repr=False)
    tree: Tree = field(repr=False)

    def error(self, problem: Problem) -> ScenarioError:
        return _error(problem, self.path, self.lines)

    @classmethod
    def read(cls, path: Path) -> Source:
        """Read a file. Raises ScenarioError, also for a file that cannot be read."""
        try:
            with path.open("rb") as file:
                raw = file.read(MAX_FILE + 1)
        except OSError as exc:
            raise ScenarioError(f"cannot be read: {exc.strerror}", path) from None
        if len(raw) > MAX_FILE:
            raise ScenarioError(
                f"is larger than {MAX_FILE >> 10} KiB; a scenario is one file that people read", path
            )
        raw = raw.removeprefix(BOM_UTF8)
        try:
            text = raw.decode()
        except UnicodeDecodeError as exc:
            before = _BREAK.split(raw[: exc.start].decode())
            shown = raw[exc.start :].partition(b"\n")[0].decode(errors="replace")
            raise ScenarioError(
                "is not UTF-8 at this place; save the file as UTF-8",
                path,
                Mark(len(before), len(before[-1]) + 1),
                before[-1] + shown,
            ) from None
        return cls.parse(text, path)

    @classmethod
    def parse(cls, text: str, path: Path) -> Source:
        """Parse a text as if it stood in `path`. Raises ScenarioError."""
        lines = _BREAK.split(text)
        if len(lines) > 1 and not lines[-1]:
            lines.pop()
        try:
            tree = _Builder(text, tuple(lines)).build()
        except Problem as problem:
            raise _error(problem, path, lines) from None
        return cls(path, text, tuple(lines), tree)


def _error(problem: Problem, path: Path, lines: Sequence[str]) -> ScenarioError:
    mark = problem.mark
    if mark.line > len(lines):  # the file ended too early: show the end of its last line
        mark = Mark(len(lines), len(lines[-1]) + 1)
    return ScenarioError(problem.message, path, mark, lines[mark.line - 1])


class _Builder:
    def __init__(self, text: str, lines: tuple[str, ...]) -> None:
        self.text = text
        self.lines = lines

    def build(self) -> Tree:
        # Looked for here, because libyaml counts this place in bytes and Python in characters.
        if foreign := _FOREIGN.search(self.text):
            before = _BREAK.split(self.text[: foreign.start()])
            raise Problem(
                Mark(len(before), len(before[-1]) + 1),
                f"a character that YAML does not allow: U+{ord(foreign[0]):04X}",
            )
        try:
            self.events = yaml.parse(self.text, Loader=_Loader)
            return self._document()
        except yaml.MarkedYAMLError as exc:
            raise self._syntax(exc) from None
        except yaml.YAMLError as exc:  # libyaml gives no mark for a few of its errors
            raise Problem(Mark(1, 1), f"not valid YAML: {' '.join(str(exc).split())}") from None

    def _syntax(self, exc: yaml.MarkedYAMLError) -> Problem:
        place = exc.problem_mark or exc.context_mark
        mark = Mark(place.line + 1, place.column + 1) if place else Mark(1, 1)
        line = self.lines[mark.line - 1] if mark.line <= len(self.lines) else ""
        for number in range(mark.line, max(mark.line - 3, 0), -1):
            # A # inside { } swallows the closing brace, and the complaint comes lines later.
            text = self.lines[number - 1] if number <= len(self.lines) else ""
            found = re.search(r"\s(#[^\s,\]}]+)", text)
            before = text[: found.start()] if found else ""
            opened = max(before.rfind("{"), before.rfind("["))
            if found and opened >= 0 and not re.search("[\"'#]", before[opened:]):
                return Problem(
                    Mark(number, found.start(1) + 1),
                    f'YAML takes {found[1]} for a comment, write "{found[1]}"',
                )
        message = f"not valid YAML: {exc.problem or exc.context or 'syntax error'}"
        if "\t" in line[: mark.column + 1] and not line[: mark.column].strip():
            message += ". Indent with spaces, not tabs"
        elif re.search(r"[{\[]", line):
            message += '. Inside { } and [ ], quote every text that has { } [ ] , # or : in it, like "a: b"'
        elif line.count(": ") > 1:
            message += '. Quote a text that has ": " in it'
        return Problem(mark, message)

    def _next(self) -> yaml.Event:
        event = next(self.events)
        if isinstance(event, yaml.AliasEvent):
            raise Problem(
                _mark(event), "aliases (*name) are refused: a scenario says everything where it stands"
            )
        if isinstance(event, yaml.NodeEvent) and event.anchor is not None:
            raise Problem(
                _mark(event), "anchors (&name) are refused: a scenario says everything where it stands"
            )
        if tag := getattr(event, "tag", None):
            raise Problem(_mark(event), f"tags ({tag}) are refused: write the text in quotes instead")
        return event

    def _document(self) -> Tree:
        assert isinstance(self._next(), yaml.StreamStartEvent)
        event = self._next()
        if isinstance(event, yaml.StreamEndEvent):
            raise Problem(Mark(1, 1), "is empty; a scenario begins with a title: and has steps:")
        tree = self._node(self._next(), 0)
        self._next()  # the document's end
        event = self._next()
        if not isinstance(event, yaml.StreamEndEvent):
            raise Problem(_mark(event), "a second document (---); one file is one scenario")
        return tree

    def _node(self, event: yaml.Event, depth: int) -> Tree:
        if depth > MAX_DEPTH:
            raise Problem(_mark(event), f"nested more than {MAX_DEPTH} deep")
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event)
        mark = _mark(event)
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Tree] = []
            while not isinstance(event := self._next(), yaml.SequenceEndEvent):
                items.append(self._node(event, depth + 1))
            return Seq(tuple(items), mark)
        pairs: list[tuple[Scalar, Tree]] = []
        seen: dict[str, Mark] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            if not isinstance(key, Scalar):
                raise Problem(
                    key.mark,
                    f'a key must be a text, not {kind_of(key)}; quote a text with braces in it, like "{{n}}"',
                )
            if key.plain and key.text == "<<":
                raise Problem(
                    key.mark, "merge keys (<<) are refused: a scenario says everything where it stands"
                )
            if key.text in seen:
                raise Problem(
                    key.mark,
                    f'"{key.text}" stands here a second time; the first is in line {seen[key.text].line}',
                )
            seen[key.text] = key.mark
            pairs.append((key, self._node(self._next(), depth + 1)))
        return Map(tuple(pairs), mark)

    def _scalar(self, event: yaml.ScalarEvent) -> Scalar:
        # Only a plain scalar is "implicit" in the first sense of PyYAML's pair.
        plain = not event.style
        mark = _mark(event)
        if plain and event.value == "":
            self._lost_comment(event)
        return Scalar(event.value, plain, mark)

    def _lost_comment(self, event: yaml.ScalarEvent) -> None:
        """An empty value with a comment behind it: nearly always a text that YAML took for a comment."""
        assert event.end_mark is not None
        line, column = event.end_mark.line, event.end_mark.column
        rest = self.lines[line][column:] if line < len(self.lines) else ""
        found = re.match(r"\s*#([^\s,\]}]*)", rest)
        if found and found.group(1):
            text = f"#{found.group(1)}"
            raise Problem(
                Mark(line + 1, column + found.start(1)), f'YAML takes {text} for a comment, write "{text}"'
            )


def _mark(event: yaml.Event) -> Mark:
    start = event.start_mark
    assert start is not None  # a parser's events always have one
    return Mark(start.line + 1, start.column + 1)
