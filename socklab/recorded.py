"""A session that was listened to, as a scenario that says the same and expects what came. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from socklab.matching import LINE

NAMES = ("alice", "bob", "carol", "dave", "erin", "frank")
_VOLATILE = re.compile(
    r"(?P<address>(?:\d{1,3}\.){3}\d{1,3}(?::\d+)?)|(?P<time>\d{1,2}:\d\d(?::\d\d)?(?:\.\d+)?)|(?P<date>\d{4}-\d\d-\d\d)"
)
_LOOSELY = {"address": r"[\d.]+(:\d+)?", "time": r"\d{1,2}:\d\d(:\d\d)?(\.\d+)?", "date": r"\d{4}-\d\d-\d\d"}
"""What differs from play to play, and what stands for it."""


@dataclass(frozen=True)
class Moment:
    """What happened: connected, said, half-closed, aborted (the client's doing), got, eof, reset (the server's)."""

    who: str
    kind: str
    data: bytes = b""


def name_of(number: int) -> str:
    """What the n-th client (from 0) is called."""
    return NAMES[number] if number < len(NAMES) else f"client{number + 1}"


def scenario(title: str, service: str, framing: str, moments: Sequence[Moment]) -> str:
    """The text of a scenario file."""
    clients = list(dict.fromkeys(moment.who for moment in moments))
    lines = [
        f"title: {json.dumps(title, ensure_ascii=False)}",
        f"service: {service}",
        f"clients: [{', '.join(clients)}]",
        "steps:",
    ]
    return "\n".join([*lines, *(f"  - {step}" for step in _Steps(framing).of(moments))]) + "\n"


class _Steps:
    def __init__(self, framing: str) -> None:
        self.framing = framing
        self.steps: list[str] = []
        self.got: dict[str, list[bytes]] = {}
        """What came to each since the last thing that a client did."""
        self.open: dict[str, bytes] = {}
        """The beginning of a line whose end has not come yet."""
        self.said: dict[str, bytes] = {}
        self.had: dict[str, bytes] = {}

    def of(self, moments: Iterable[Moment]) -> list[str]:
        for moment in moments:
            if moment.kind == "got":
                self.got.setdefault(moment.who, []).append(moment.data)
                continue
            if moment.kind in ("eof", "reset"):
                self._expect(ended=moment.who)
                self.steps.append(f"expect: {{{moment.who}: {moment.kind}}}")
                continue
            self._expect()
            if moment.kind == "said":
                self.said[moment.who] = self.said.get(moment.who, b"") + moment.data
                self.steps.append(f"send: {{{moment.who}: {self._payload(moment.data)}}}")
            elif moment.kind == "connected":
                self.steps.append(f"connect: {moment.who}")
            elif moment.kind in ("half-closed", "aborted"):
                self.steps.append(
                    f"{'half-close' if moment.kind == 'half-closed' else 'abort'}: {moment.who}"
                )
        self._expect()
        return self.steps

    def _payload(self, data: bytes) -> str:
        if self.framing == LINE and data.endswith(b"\n"):
            texts = [line.decode(errors="replace") for line in data[:-1].split(b"\n")]
            if all(_plain(text) for text in texts) and "\n".join(texts).encode() + b"\n" == data:
                shown = [json.dumps(text, ensure_ascii=False) for text in texts]
                return shown[0] if len(shown) == 1 else _bytes(data)
        text = data.decode(errors="replace")
        if self.framing != LINE and text.encode() == data and "{" not in text:
            return json.dumps(text, ensure_ascii=True)
        return _bytes(data)

    def _expect(self, ended: str = "") -> None:
        """What came since a client last did something, as one step where that can be said."""
        wanted: dict[str, str] = {}
        for who, chunks in self.got.items():
            self.had[who] = self.had.get(who, b"") + b"".join(chunks)
            patterns = self._patterns(who, chunks, who == ended)
            if len(patterns) > 1 and any(pattern.startswith("{") for pattern in patterns):
                self.steps += [
                    f"expect: {{{who}: {pattern}}}" for pattern in patterns
                ]  # a list holds texts only
            elif patterns:
                wanted[who] = patterns[0] if len(patterns) == 1 else f"[{', '.join(patterns)}]"
        self.got.clear()
        if wanted:
            each = ", ".join(f"{who}: {pattern}" for who, pattern in wanted.items())
            self.steps.append(f"expect: {{{each}}}")

    def _patterns(self, who: str, chunks: Sequence[bytes], ended: bool) -> list[str]:
        if self.framing == LINE:
            *messages, rest = (self.open.pop(who, b"") + b"".join(chunks)).split(b"\n")
            if ended and rest:
                messages.append(rest)
            elif rest:
                self.open[who] = rest
            return [_expected(m) for message in messages if (m := message.removesuffix(b"\r"))]
        if self.had[who] == self.said.get(who):
            return ["{exactly: sent}"]
        return [_expected(b"".join(chunks))]


def _expected(message: bytes) -> str:
    """A pattern for a message, loose where it would differ the next time."""
    text = message.decode(errors="replace")
    if text.encode() != message or not _plain(text):
        return _bytes(message)
    if not _VOLATILE.search(text) and not text.startswith("/"):
        return json.dumps(text, ensure_ascii=False)
    loose, at = "", 0
    for found in _VOLATILE.finditer(text):
        loose += re.escape(text[at : found.start()]) + _LOOSELY[str(found.lastgroup)]
        at = found.end()
    loose += re.escape(text[at:])
    return json.dumps("/" + loose.replace("\\ ", " ").replace("/", "\\/") + "/", ensure_ascii=False)


def _plain(text: str) -> bool:
    """Whether it can stand as a text: a line that can be seen, with no braces, which would stand for values."""
    return bool(text) and text.isprintable() and not set("{}") & set(text) and text == text.strip()


_ESCAPED = {9: "\\t", 10: "\\n", 13: "\\r", 34: '\\"', 92: "\\\\"}


def _bytes(data: bytes) -> str:
    """Exactly these bytes, as readable as YAML can have them."""
    shown = "".join(_ESCAPED.get(b) or (chr(b) if 32 <= b < 127 else f"\\x{b:02x}") for b in data)
    return f'{{bytes: "{shown}"}}'
