"""A session that was listened to, as a scenario that says the same and expects what came. Pure."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from socklab.errors import UserError
from socklab.history import Past, from_wire
from socklab.judge import ASSERTING, scenario_of
from socklab.matching import DATAGRAM, LINE, STREAM
from socklab.scenario import as_item
from socklab.steps import Expectation, Pattern, Step

NAMES = ("alice", "bob", "carol", "dave", "erin", "frank")
_VOLATILE = re.compile(
    r"(?P<address>(?:\d{1,3}\.){3}\d{1,3}(?::\d+)?)|(?P<time>\d{1,2}:\d\d(?::\d\d)?(?:\.\d+)?)|(?P<date>\d{4}-\d\d-\d\d)"
)
_LOOSELY = {"address": r"[\d.]+(:\d+)?", "time": r"\d{1,2}:\d\d(:\d\d)?(\.\d+)?", "date": r"\d{4}-\d\d-\d\d"}
"""What differs from play to play, and what stands for it."""


class NothingDone(UserError):
    """A session of which no scenario can be made yet."""


@dataclass(frozen=True)
class Moment:
    """What happened: connected, said, half-closed, aborted (the client's doing), got, eof, reset, refused (the server's)."""

    who: str
    kind: str
    data: bytes = b""
    t: int = 0
    """Nanoseconds of a monotonic clock."""


@dataclass(frozen=True)
class Typed:
    """A step that a person gave, as it was written, and what it means. What it makes clients do follows as moments."""

    text: str
    step: Step
    t: int = 0


def name_of(number: int) -> str:
    """What the n-th client (from 0) is called."""
    return NAMES[number] if number < len(NAMES) else f"client{number + 1}"


def scenario(title: str, service: str, framing: str, moments: Sequence[Moment]) -> str:
    """The text of a scenario file."""
    clients = list(dict.fromkeys(moment.who for moment in moments))
    head = [
        f"title: {json.dumps(title, ensure_ascii=False)}",
        f"service: {service}",
        f"clients: [{', '.join(clients)}]",
        "steps:\n",
    ]
    return "\n".join(head) + _items(_Steps(framing).of(moments))


def of_session(events: Past, title: str) -> str:
    """The same of a session (socklab/session.py): the steps that were typed and passed, and expectations of what came unexpected.

    Raises NothingDone, and ScenarioError and LookupError for what is no history of a session."""
    whole = scenario_of(events)
    begin = next(event for event in events if event.kind == "play")
    given = len(whole.steps) - sum(event.kind == "typed" for event in events)
    ended = {event.data["path"] for event in events if event.kind == "step" and event.data["phase"] == "end"}
    clients = set(begin.data["clients"])
    moments: list[Moment | Typed] = []
    for event in events:
        if event.kind == "typed":
            given += 1
            if str(given) in ended:
                moments.append(Typed(str(event.data["text"]), whole.steps[given - 1], event.t))
        elif event.node in clients and event.kind in ("connected", "received", "sent", "eof", "reset"):
            data = event.content if event.kind == "received" else b""
            if event.kind == "sent":
                chunks = [from_wire(chunk) for chunk in event.data["chunks"]]
                moments += [Moment(event.node, "sent", chunk, event.t) for chunk in chunks]
            else:
                kind = "got" if event.kind == "received" else event.kind
                moments.append(Moment(event.node, kind, data, event.t))
    if not moments:
        raise NothingDone("nothing was done yet, so there is nothing to save")
    head, _, _ = str(begin.data["scenario"]).partition("\nsteps:\n")
    head = re.sub(
        r"(?m)^title:.*$", lambda _: f"title: {json.dumps(title, ensure_ascii=False)}", head, count=1
    )
    return f"{head}\nsteps:\n" + _items(_Steps(str(begin.data["framing"]), typed=True).of(moments))


def _items(steps: Iterable[str]) -> str:
    return "".join(as_item(step) for step in steps)


class _Steps:
    """Steps from moments. All that comes between two things that clients do is expected behind the first of them."""

    def __init__(self, framing: str, typed: bool = False) -> None:
        self.framing = framing
        self.typed = typed
        """The steps are given; what clients did is only to be compared with what they got."""
        self.steps: list[str] = []
        self.got: dict[str, list[bytes]] = {}
        """What came to each since the last thing that a client did."""
        self.ends: dict[str, str] = {}
        """Whose connection ended since, and how."""
        self.open: dict[str, bytes] = {}
        """The beginning of a line whose end has not come yet."""
        self.said: dict[str, list[bytes]] = {}
        self.had: dict[str, list[bytes]] = {}
        """All on the connection that each has now."""
        self.done = 0
        """When a client last did something, and when the last of what came since came."""
        self.last = 0
        self.looked: list[tuple[str, Expectation]] = []
        """What a person has typed, or will, to expect by himself."""

    def of(self, moments: Sequence[Moment | Typed]) -> list[str]:
        self.looked = [
            each for m in moments if isinstance(m, Typed) for s in m.step.walk() for each in s.expects
        ]
        for moment in moments:
            if isinstance(moment, Typed):
                if moment.step.verb not in ASSERTING:
                    self._flush(moment.t)
                self.steps.append(moment.text)
            else:
                self._take(moment)
        self._flush(0)
        return self.steps

    def _take(self, moment: Moment) -> None:
        who = moment.who
        if moment.kind == "got":
            self.got.setdefault(who, []).append(moment.data)
            self.last = moment.t
            return
        if moment.kind in ("eof", "reset", "refused"):
            self.ends[who] = "{error: refused}" if moment.kind == "refused" else moment.kind
            self.last = moment.t
            return
        if not self.typed:
            self._flush(moment.t)
        if moment.kind in ("said", "sent"):
            self.said.setdefault(who, []).append(moment.data)
        elif moment.kind == "connected":
            self.said[who], self.had[who], self.open[who] = [], [], b""
        if self.typed:
            return
        if moment.kind == "said":
            self.steps.append(f"send: {{{who}: {self._payload(moment.data)}}}")
        else:
            verb = {"connected": "connect", "half-closed": "half-close", "aborted": "abort"}[moment.kind]
            self.steps.append(f"{verb}: {who}")

    def _payload(self, data: bytes) -> str:
        if self.framing == LINE and data.endswith(b"\n"):
            texts = [line.decode(errors="replace") for line in data[:-1].split(b"\n")]
            if all(_plain(text) for text in texts) and "\n".join(texts).encode() + b"\n" == data:
                shown = [json.dumps(text, ensure_ascii=False) for text in texts]
                return shown[0] if len(shown) == 1 else _bytes(data)
        text = data.decode(errors="replace")
        if self.framing != LINE and text and text.encode() == data and "{" not in text and "}" not in text:
            return json.dumps(text, ensure_ascii=True)
        return _bytes(data)

    def _flush(self, now: int) -> None:
        """What came since a client last did something, as one step where that can be said."""
        wanted: dict[str, str] = {}
        within = self._within()
        for who, chunks in self.got.items():
            self.had.setdefault(who, []).extend(chunks)
            patterns = self._patterns(who, chunks)
            if len(patterns) > 1 and any(pattern.startswith("{") for pattern in patterns):
                # A list holds texts only.
                self.steps += [f"expect: {{{who}: {pattern}}}{within}" for pattern in patterns]
            elif patterns:
                wanted[who] = patterns[0] if len(patterns) == 1 else self._several(patterns)
        if wanted:
            each = ", ".join(f"{who}: {pattern}" for who, pattern in wanted.items())
            self.steps.append(f"expect: {{{each}}}{within}")
        for who, how in self.ends.items():
            if not any(name == who and e.kind in ("eof", "reset") for name, e in self.looked):
                self.steps.append(f"expect: {{{who}: {how}}}{within}")
        self.got.clear()
        self.ends.clear()
        self.done = now

    def _within(self) -> str:
        """A limit where what came took its time: twice as long."""
        took = (self.last - self.done) / 1e9
        return f"\nwithin: {math.ceil(2 * took)}s" if self.done and took > 1 else ""

    def _several(self, patterns: Sequence[str]) -> str:
        listed = f"[{', '.join(patterns)}]"
        return f"{{any_order: {listed}}}" if self.framing == DATAGRAM else listed

    def _patterns(self, who: str, chunks: Sequence[bytes]) -> list[str]:
        if self.framing == STREAM:
            if b"".join(self.had[who]) == b"".join(self.said.get(who, [])):
                return ["{exactly: sent}"]
            return [_expected(b"".join(chunks))]
        if self.framing == DATAGRAM:
            if Counter(self.had[who]) == Counter(self.said.get(who, [])):
                return ["{exactly: sent}"]
            return [_expected(m) for m in chunks if not self._looked_for(who, m)]
        *messages, rest = (self.open.get(who, b"") + b"".join(chunks)).split(b"\n")
        self.open[who] = rest
        if who in self.ends and rest:
            messages.append(rest)
        lines = [line for message in messages if (line := message.removesuffix(b"\r"))]
        return [_expected(line) for line in lines if not self._looked_for(who, line)]

    def _looked_for(self, who: str, message: bytes) -> bool:
        return any(name == who and _covers(p, message) for name, e in self.looked for p in e.patterns)


def _covers(pattern: Pattern, message: bytes) -> bool:
    """Whether a message may be what a pattern is about; a text with {placeholders} may be about any."""
    if isinstance(pattern.value, bytes):
        return pattern.value in message
    text = message.decode(errors="surrogateescape")
    if pattern.kind == "any" or "{" in pattern.value:
        return True
    return bool(re.search(pattern.value, text)) if pattern.kind == "regex" else pattern.value in text


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
