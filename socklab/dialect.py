"""A server's own way to speak a contract: another quit word, a prompt for a name, no echo to the sender, other borders of messages.

It is data, a small file or a few options, so that the same scenarios judge servers that differ in this only. Pure.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from socklab.grammar import Field, Fields, ListOf, Shapes, Str, Text, choice
from socklab.source import Map, Mark, Problem, Scalar, ScenarioError, Source

PROMPTS = (b":", b">", b"?")
LINES, CHUNKS = "lines", "chunks"
_LENGTHS = {f"u{8 * size}{order}": (size, order) for size in (2, 4) for order in ("be", "le")} | {
    "u8": (1, "be")
}
_ENDINGS = {"lf": b"\n", "crlf": b"\r\n"}
_TEXTS = Shapes("a text or a list of texts", scalar=Text(), seq=ListOf(Text()))

DIALECT = Fields(
    {
        "quit": Field(Text(), "the line by which a client leaves; none: there is no such line"),
        "join": Field(_TEXTS, "lines that a client says first: {name} is what it is called"),
        "ignore": Field(
            _TEXTS, "regular expressions: lines that are no messages (a welcome, a prompt, who joined)"
        ),
        "echo": Field(choice("on", "off"), "whether the sender gets its own lines too"),
        "ending": Field(choice(*_ENDINGS), "how clients end a line"),
        "frames": Field(
            choice(LINES, CHUNKS, *_LENGTHS),
            "the borders of messages: lines, none at all (chunks), or a length before each, of 1, 2 or 4 bytes",
        ),
    },
    "a dialect",
)


@dataclass(frozen=True)
class Dialect:
    """How a server deviates from the contract's own words. The default is the contract."""

    quit: str | None = "quit"
    join: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    echo: bool = True
    ending: str = "lf"
    frames: str = LINES
    _ignored: tuple[re.Pattern[bytes], ...] = field(default=(), repr=False, compare=False)

    def __post_init__(self) -> None:
        """Raises re.error."""
        object.__setattr__(self, "_ignored", tuple(re.compile(t.encode()) for t in self.ignore))

    # what a client says

    def line(self, text: bytes) -> bytes:
        """A whole line as it goes out. Raises KeyError("quit") where there is no such word."""
        if text == b"quit":
            if self.quit is None:
                raise KeyError("quit")
            text = self.quit.encode()
        if self.frames in _LENGTHS:
            size, order = _LENGTHS[self.frames]
            return len(text).to_bytes(size, "big" if order == "be" else "little") + text
        return text + _ENDINGS[self.ending]

    def raw(self, data: bytes) -> bytes:
        """Bytes that a scenario gives as they are, with the lines in them as this server takes them."""
        if self.quit not in ("quit", None):
            data = re.sub(rb"(?m)^quit(?=\r?$)", lambda _: str(self.quit).encode(), data)
        if self.ending == "crlf":
            data = re.sub(rb"(?<!\r)\n", b"\r\n", data)
        return data

    def first_lines(self, name: str) -> list[bytes]:
        """What a client says when it has connected."""
        return [self.line(text.replace("{name}", name).encode()) for text in self.join]

    # what comes

    def split(self, data: bytes) -> tuple[list[bytes], bytes]:
        """Messages, and what is not one yet."""
        if self.frames in _LENGTHS:
            size, order = _LENGTHS[self.frames]
            messages = []
            while len(data) >= size:
                length = int.from_bytes(data[:size], "big" if order == "be" else "little")
                if len(data) < size + length:
                    break
                messages.append(data[size : size + length])
                data = data[size + length :]
            return messages, data
        *lines, rest = data.split(b"\n")
        return [line.removesuffix(b"\r") for line in lines], rest

    def ignores(self, message: bytes | bytearray) -> bool:
        return any(pattern.search(message) for pattern in self._ignored)

    def is_prompt(self, unfinished: bytes | bytearray, first: bool = False) -> bool:
        """Whether what has no newline yet will never have one: a question, or the first thing that a client gets (`first`)."""
        return (first or bool(unfinished.rstrip().endswith(PROMPTS))) and self.ignores(unfinished)

    # with the rest of the language

    def lacks(self, raw: bool, cut: bool, quits: bool, longest: int = 0) -> str:
        """Why a scenario cannot be asked in this dialect: one that sends raw bytes, cuts lines into pieces, quits, or says a line of
        `longest` bytes; or nothing."""
        if quits and self.quit is None:
            return "says quit, and this server's dialect has no word for it"
        if self.frames in _LENGTHS and raw:
            return f"sends lines as raw bytes, and this server's messages have a length before them ({self.frames})"
        if self.frames in _LENGTHS and longest >= (most := 256 ** _LENGTHS[self.frames][0]):
            return f"says {longest:,} bytes at once, and this server's messages have {most - 1:,} at most ({self.frames})"
        if self.frames == CHUNKS and (raw or cut):
            return "asks where a line ends, and this server has no lines, only chunks"
        return ""

    def as_data(self) -> dict[str, Any]:
        """What differs from the contract, for a history."""
        plain = Dialect()
        names = ("quit", "join", "ignore", "echo", "ending", "frames")
        return {n: getattr(self, n) for n in names if getattr(self, n) != getattr(plain, n)}

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Dialect:
        """From what `as_data` gave."""
        facts: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in data.items()}
        return cls(**facts)


PLAIN = Dialect()


def read(words: Iterable[str]) -> Dialect:
    """From files and `key=value` words, the later ones over the earlier. Raises ScenarioError."""
    dialect = PLAIN
    for word in words:
        key, sign, value = word.partition("=")
        if not value.isascii() and value.encode(errors="ignore") != os.fsencode(value):
            raise ScenarioError("is not UTF-8", f"--dialect {word}")
        if sign and re.fullmatch(r"[a-z]+", key):
            mark = Mark(1, 1)
            tree = Map(((Scalar(key, True, mark), Scalar(value, False, mark)),), mark)
            try:
                dialect = put(dialect, DIALECT.parse(tree))
            except Problem as problem:
                raise ScenarioError(problem.message, f"--dialect {word}") from None
        else:
            source = Source.read(Path(word))
            try:
                dialect = put(dialect, DIALECT.parse(source.tree))
            except Problem as problem:
                raise source.error(problem) from None
    return dialect


def put(dialect: Dialect, record: Any) -> Dialect:
    changes: dict[str, Any] = {}
    for name, value in record.items():
        if name in ("join", "ignore"):
            texts = value if isinstance(value, list) else [value]
            changes[name] = (*getattr(dialect, name), *map(str, texts))
            for text in texts if name == "ignore" else ():
                _check(text)
        elif name == "echo":
            changes[name] = value == "on"
        elif name == "quit":
            changes[name] = None if value == "none" else str(value)
        else:
            changes[name] = str(value)
    return replace(dialect, **changes)


def _check(text: Str) -> None:
    if not text:
        raise Problem(text.mark, "an empty regular expression: every line would be ignored")
    try:
        re.compile(text.encode())
    except (re.error, OverflowError, RecursionError) as exc:
        raise Problem(text.mark, f"not a regular expression: {exc}") from None
