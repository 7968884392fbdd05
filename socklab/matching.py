"""Holding what came against what was expected. Pure: no sockets, no clock.

An Inbox is all that one client (or a server's log) has received so far; a Watch is one expectation being waited for.
A Watch reads each message once, so waiting costs what comes, not what has come.

How bytes become messages is the service's framing:
    line      a message ends with \\n (a \\r before it is dropped); at the end of the connection the rest is one too
    datagram  each datagram is a message
    stream    there are no messages: texts are looked for in the bytes (TCP echo)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from socklab.history import Event, joined
from socklab.scenario import Expectation, Pattern, expand, expand_regex

LINE, DATAGRAM, STREAM = "line", "datagram", "stream"


@dataclass(frozen=True)
class Message:
    data: bytes
    t: int

    @property
    def text(self) -> str:
        return self.data.decode(errors="surrogateescape")


@dataclass
class Inbox:
    """All that one node has received, in order; a new connection goes on with the same list."""

    framing: str
    messages: list[Message] = field(default_factory=list)
    stream: bytearray = field(default_factory=bytearray)
    """The current connection's bytes as they came."""
    arrivals: list[tuple[int, int]] = field(default_factory=list)
    """(time, length of `stream` afterwards) for each chunk."""
    sent: bytearray = field(default_factory=bytearray)
    """What the client sent on the current connection."""
    connection: int = 0
    ended: str | None = None
    """eof, reset or error: the current connection has no more to give. For a server: exited."""
    errors: list[str] = field(default_factory=list)
    status: int | None = None
    """A server's exit status."""
    read_to: int = 0
    """Messages (stream: bytes) that an expectation has read, or passed over."""
    positions: dict[str, int] = field(default_factory=dict)
    """Each pattern's own position."""
    _partial: bytes = b""
    _errors_read: int = 0

    def feed(self, event: Event) -> None:
        """Take in an event of this node; kinds that say nothing about reception are ignored."""
        kind = event.kind
        if kind == "received":
            self._receive(event.content, event.t)
        elif kind == "connected":
            if self.connection:
                self._flush(event.t)
                self.stream.clear()
                self.arrivals.clear()
                self.sent.clear()
                if self.framing == STREAM:
                    self.positions.clear()
                    self.read_to = 0
            self.connection += 1
            self.ended = None
        elif kind == "sent":
            self.sent += joined(event.data["chunks"])
        elif kind in ("eof", "reset"):
            self._flush(event.t)
            self.ended = kind
        elif kind == "error":
            self.errors.append(str(event.data.get("error")))
            if event.data.get("closed"):
                self._flush(event.t)
                self.ended = "error"
        elif kind == "log":
            self.messages.append(Message(str(event.data["text"]).encode(errors="surrogateescape"), event.t))
        elif kind == "spawned":
            self.ended, self.status = None, None
        elif kind == "exited":
            self.ended, self.status = "exited", int(event.data["status"])

    def _receive(self, data: bytes, t: int) -> None:
        if self.framing == DATAGRAM:
            self.messages.append(Message(data, t))
            return
        self.stream += data
        self.arrivals.append((t, len(self.stream)))
        if self.framing == LINE:
            *lines, self._partial = (self._partial + data).split(b"\n")
            self.messages += [Message(line.removesuffix(b"\r"), t) for line in lines]

    def _flush(self, t: int) -> None:
        if self._partial:
            self.messages.append(Message(self._partial, t))
            self._partial = b""

    def since(self, t: int) -> list[Message]:
        """What came at or after a time and no expectation has read. A stream's bytes count as one message a chunk."""
        if self.framing != STREAM:
            fresh = [m for m in self.messages[self.read_to :] if m.t >= t]
            if self._partial and self.arrivals and self.arrivals[-1][0] >= t:
                fresh.append(Message(self._partial, self.arrivals[-1][0]))
            return fresh
        result, start = [], 0
        for when, end in self.arrivals:
            begin = max(start, self.read_to)
            if when >= t and begin < end:
                result.append(Message(bytes(self.stream[begin:end]), when))
            start = end
        return result


class State(Enum):
    WAITING = "waiting"
    MET = "met"
    FAILED = "failed"


class Watch:
    """One expectation on one inbox, from the moment its step began.

    `advance()` takes in what has come since the last call. `state` is WAITING, MET or FAILED; `reason` says in words
    what is missing or wrong. After MET, `violated()` tells whether something came that `once` or `exactly` forbids.
    """

    def __init__(self, expectation: Expectation, inbox: Inbox, values: Mapping[str, str]) -> None:
        self.expectation = expectation
        self.inbox = inbox
        self.state = State.WAITING
        self.reason = ""
        self.captured: str | None = None
        e = expectation
        self._single = (
            _Matcher(e.patterns[0], values, e.family)
            if len(e.patterns) == 1 and e.kind in ("sequence", "set")
            else None
        )
        self._matchers = [_Matcher(p, values) for p in e.patterns] if self._single is None else []
        self._total = e.count if self._single else len(e.patterns)
        self._found: set[int] = set()
        self._next = 0
        self._key = (
            f"{e.kind}:{e.log}:{[(p.kind, expand_value(p, {**values, 'n': '{n}'})) for p in e.patterns]}"
        )
        start = inbox.positions.get(self._key, 0)
        if e.patterns and e.patterns[0].kind == "any":
            start = max(start, inbox.read_to)
        self._at = start
        self._furthest = 0
        self._doubled: str | None = None
        self._compared = 0

    # what is asked

    def advance(self) -> State:
        if self.state is State.WAITING:
            kind = self.expectation.kind
            if kind in ("sequence", "set"):
                self._read()
            elif kind == "exactly":
                self._exactly()
            elif kind == "sent":
                self._echoed()
            else:
                self._ending()
            if (
                self.state is State.WAITING
                and self.inbox.ended
                and kind in ("sequence", "set", "exactly", "sent")
            ):
                ended = {
                    "eof": "was closed by the server",
                    "reset": "was reset",
                    "error": "broke",
                    "exited": "has ended",
                }
                what = "the server" if self.inbox.ended == "exited" else "the connection"
                self._fail(f"{self._missing()}; {what} {ended[self.inbox.ended]}, so it cannot come any more")
        elif self.state is State.MET and (self.expectation.once or self.expectation.kind == "exactly"):
            self._look_for_more()
        return self.state

    def violated(self) -> str | None:
        """What came too much since the expectation was met, in words."""
        self.advance()
        return self._doubled

    @property
    def several(self) -> bool:
        """Whether it is about more than one message, so that how many came is worth telling."""
        return self._total > 1 or self.expectation.kind == "sent"

    def missing(self) -> str:
        """What a waiting expectation waits for, in words."""
        return self._missing()

    def concerns(self, data: bytes) -> bool:
        """Whether a message with this content, sent now, would count as one more match."""
        if self.expectation.kind == "exactly":
            return True
        matchers = [self._single] if self._single else self._matchers
        lines = data.split(b"\n") if self.inbox.framing == LINE else [data]
        return any(m.match(Message(line, 0)) is not None for m in matchers for line in lines)

    # how it is found out

    def _met(self) -> None:
        self.state = State.MET
        self.inbox.positions[self._key] = self._at
        self.inbox.read_to = max(self.inbox.read_to, self._at)

    def _fail(self, reason: str) -> None:
        self.state = State.FAILED
        self.reason = reason

    def _read(self) -> None:
        if self.inbox.framing == STREAM and not self.expectation.log:
            self._read_stream()
            return
        messages = self.inbox.messages
        while self._at < len(messages) and self.state is State.WAITING:
            message = messages[self._at]
            self._at += 1
            self._take(message)
            if len(self._found) == self._total:
                self._met()
        if self.state is State.MET and self.expectation.once:
            self._look_for_more()

    def _take(self, message: Message) -> None:
        """Hold one message against the patterns that are still open."""
        ordered = self.expectation.kind == "sequence"
        index = self._index(message)
        if index is None:
            return
        if index in self._found:
            if self.expectation.once:
                self._fail(f"{self._name(index)} came twice")
            return
        if ordered and index != self._next:
            if self.expectation.once and index > self._next:
                self._fail(f"{self._name(index)} came before {self._name(self._next)}")
            return
        self._found.add(index)
        self._next = index + 1

    def _index(self, message: Message) -> int | None:
        """Which of the patterns this message is; the next open one first."""
        if self._single:
            found = self._single.match(message)
            if found is None:
                return None
            if self._single.family:
                return found.number - 1 if 1 <= found.number <= self._total else None
            self.captured = found.text
            return self._next if self._next < self._total else 0
        open_first = [self._next] if self._next < self._total else []
        for i in [*open_first, *(i for i in range(self._total) if i != self._next)]:
            if (i not in self._found or self.expectation.once) and self._matchers[i].match(message):
                return i
        return None

    def _read_stream(self) -> None:
        data = self.inbox.stream
        if self.expectation.kind == "set":
            for i in range(self._total):
                if i not in self._found and (span := self._matcher(i).find(data, 0, self._at)) is not None:
                    self._found.add(i)
                    self._furthest = max(self._furthest, span[1])
            if len(self._found) == self._total:
                self._at = self._furthest
                self._met()
            return
        while self._next < self._total:
            span = self._matcher(self._next).find(data, self._at, self.inbox.read_to)
            if span is None:
                return
            self.captured = bytes(data[span[0] : span[1]]).decode(errors="surrogateescape")
            self._at = span[1]
            self._found.add(self._next)
            self._next += 1
        self._met()
        if self.expectation.once:
            self._look_for_more()

    def _matcher(self, index: int) -> _Matcher:
        return self._single.member(index + 1) if self._single else self._matchers[index]

    def _look_for_more(self) -> None:
        if self._doubled is not None:
            return
        if self.inbox.framing == STREAM and not self.expectation.log:
            if self.expectation.kind == "exactly":
                extra = bytes(self.inbox.stream[self._at :])
                self._doubled = f"{shown(extra)} came on top" if extra else None
            else:
                for i in range(self._total):
                    if self._matcher(i).find(self.inbox.stream, self._at, self._at):
                        self._doubled = f"{self._name(i)} came twice"
            return
        messages = self.inbox.messages
        while self._at < len(messages) and self._doubled is None:
            message = messages[self._at]
            self._at += 1
            if self.expectation.kind == "exactly":
                self._doubled = f"{shown(message.data)} came on top"
            elif (index := self._index(message)) is not None:
                self._doubled = (
                    f"{self._name(index)} came twice"
                    if self._total == 1 or self._matchers or self.expectation.family
                    else "one more came"
                )

    def _exactly(self) -> None:
        if self.inbox.framing == STREAM:
            wanted = b"".join(m.value for m in self._exact())
            got = bytes(self.inbox.stream[self._at : self._at + len(wanted)])
            if not wanted.startswith(got):
                self._fail(f"{difference(wanted, got)}")
            elif got == wanted:
                self._at += len(wanted)
                self._met()
                self._look_for_more()
            return
        messages = self.inbox.messages
        while self._at < len(messages) and self.state is State.WAITING:
            message = messages[self._at]
            matcher = self._exact()[self._next]
            self._at += 1
            if matcher.match(message) is None:
                self._fail(f"message {self._next + 1} was to be {matcher}, and {shown(message.data)} came")
                return
            self._next += 1
            if self._next == self._total:
                self._met()
                self._look_for_more()

    def _exact(self) -> list[_Matcher]:
        for matcher in self._matchers:
            matcher.whole()
        return self._matchers

    def _echoed(self) -> None:
        sent, got = self.inbox.sent, self.inbox.stream
        if self.inbox.framing == DATAGRAM:
            got = bytearray(b"".join(m.data for m in self.inbox.messages))
        step = min(len(sent), len(got))
        if sent[self._compared : step] != got[self._compared : step]:
            self._fail(difference(bytes(sent), bytes(got[:step])))
        elif len(got) > len(sent):
            self._fail(
                f"{shown(bytes(got[len(sent) :]))} came on top of the {len(sent)} bytes that were sent"
            )
        elif len(got) == len(sent):
            self._at = len(self.inbox.messages) if self.inbox.framing == DATAGRAM else len(got)
            self._met()
        self._compared = step

    def _ending(self) -> None:
        inbox, kind = self.inbox, self.expectation.kind
        if kind == "exit":
            if inbox.status is not None:
                if str(inbox.status) == self.expectation.word:
                    self._met()
                else:
                    how = f"by signal {-inbox.status}" if inbox.status < 0 else f"with status {inbox.status}"
                    self._fail(f"its process ended {how}")
        elif kind == "error":
            fresh = inbox.errors[inbox._errors_read :]
            if self.expectation.word in fresh:
                inbox._errors_read += fresh.index(self.expectation.word) + 1
                self._met()
        elif inbox.ended == kind:
            self._met()
        elif inbox.ended == "reset" and kind == "eof":
            self._fail("the connection was reset (RST) instead of closed (FIN)")

    def _name(self, index: int) -> str:
        if self._single and self._single.family:
            return f'"{self._single.member(index + 1).value.decode(errors="replace")}"'
        return str(self._single or self._matchers[index])

    def _missing(self) -> str:
        e = self.expectation
        if e.kind == "sent":
            return f"{self._compared} of {len(self.inbox.sent)} bytes came back"
        if e.kind in ("eof", "reset", "error", "exit"):
            return f"{e} did not come" if e.kind == "error" else f"waited for {e}"
        if self._total == 1:
            return f"{self._name(0)} did not come"
        if e.kind == "exactly":
            return f"{self._next} of {self._total} messages came"
        if e.count > 1 and not e.family:
            return f"{self._name(0)} came {len(self._found)} times of {self._total}"
        absent = [i for i in range(self._total) if i not in self._found]
        names = ", ".join(self._name(i) for i in absent[:3]) + (", …" if len(absent) > 3 else "")
        return f"{len(self._found)} of {self._total} came; missing: {names}"


@dataclass(frozen=True)
class _Match:
    text: str
    number: int = 0


class _Matcher:
    """A pattern with its values filled in, ready to hold messages against."""

    def __init__(self, pattern: Pattern, values: Mapping[str, str], family: bool = False) -> None:
        self.pattern = pattern
        self.values = values
        self.family = family
        self.kind = pattern.kind
        self._members: dict[int, _Matcher] = {}
        self._literals: list[bytes] = []
        """What has to stand in a message for the expression to match at all."""
        if family:
            mark = "\x00n\x00"  # no text of a scenario has a NUL in it
            filled = expand_value(pattern, {**values, "n": mark})
            body = (
                filled.replace(re.escape(mark), "([0-9]+)").replace(mark, "([0-9]+)")
                if self.kind == "regex"
                else "([0-9]+)".join(map(re.escape, filled.split(mark)))
            )
            self._regex = re.compile(body if self.kind == "regex" else _bounded(body))
            if self.kind == "contains":
                self._literals = [part.encode(errors="surrogateescape") for part in filled.split(mark)]
            return
        filled = expand_value(pattern, values)
        self.text = filled
        self.value = (
            pattern.value if isinstance(pattern.value, bytes) else filled.encode(errors="surrogateescape")
        )
        if self.kind == "contains":
            self._regex = re.compile(_bounded(re.escape(filled)))
            self._literals = [self.value]
        elif self.kind == "regex":
            self._regex = re.compile(filled)

    def __str__(self) -> str:
        return str(
            Pattern(
                self.kind, self.value if self.kind == "bytes" else "" if self.kind == "any" else self.text
            )
        )

    def member(self, number: int) -> _Matcher:
        if not self.family:
            return self
        if number not in self._members:
            self._members[number] = _Matcher(self.pattern, {**self.values, "n": str(number)})
        return self._members[number]

    def whole(self) -> None:
        """From here on a text is the whole message."""
        if self.kind == "contains":
            self.kind = "is"

    def match(self, message: Message) -> _Match | None:
        if self.kind == "any":
            return _Match(message.text)
        if self.kind == "is":
            return _Match(message.text) if message.data == self.value else None
        if self.kind == "bytes":
            return _Match(message.text) if self.value in message.data else None
        if any(part not in message.data for part in self._literals):
            return None  # told much faster than by the expression
        found = self._regex.search(message.text)
        if found is None:
            return None
        if self.family:
            digits = next((g for g in found.groups() if g), "0")
            return _Match(found[0], int(digits) if str(int(digits)) == digits else 0)
        return _Match(found[1] if found.groups() and found[1] is not None else found[0])

    def find(self, data: bytearray, start: int, fresh: int) -> tuple[int, int] | None:
        """Where this stands in a stream from `start` on; `fresh` is where no expectation has read yet."""
        if self.kind == "any":
            begin = max(start, fresh)
            return (begin, len(data)) if len(data) > begin else None
        if self.kind == "regex":
            found = re.compile(self.text.encode(errors="surrogateescape")).search(data, start)
            return found.span() if found else None
        if self.kind == "is":
            return self._whole_in(data, start, fresh)
        at = data.find(self.value, start)
        return (at, at + len(self.value)) if at >= 0 else None

    def _whole_in(self, data: bytearray, start: int, fresh: int) -> tuple[int, int] | None:
        """A stream has no messages, so "the whole" is a line of it, or all that nobody has read yet."""
        for begin in {start, fresh}:
            if bytes(data[begin:]).strip(b"\r\n") == self.value:
                return (begin, len(data))
        position = start
        for line in bytes(data[start:]).splitlines(keepends=True):
            if line.endswith(b"\n") and line.rstrip(b"\r\n") == self.value:
                return (position, position + len(line))
            position += len(line)
        return None


def expand_value(pattern: Pattern, values: Mapping[str, str]) -> str:
    if isinstance(pattern.value, bytes):
        return repr(pattern.value)
    return expand_regex(pattern.value, values) if pattern.kind == "regex" else expand(pattern.value, values)


def _bounded(regex: str) -> str:
    """No letter or digit beside it, so that `a1` is not found in `a10`."""
    return rf"(?<![^\W_])(?:{regex})(?![^\W_])"


def shown(data: bytes, limit: int = 60) -> str:
    """Bytes for a message: readable, in quotes, never anything that drives a terminal."""
    text = data[: limit + 1].decode(errors="backslashreplace")
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    more = f"… ({len(data)} bytes)" if len(data) > limit else ""
    return f'"{safe[:limit]}"{more}'


def difference(wanted: bytes, got: bytes) -> str:
    """Where two byte strings part, with a little of both."""
    at = next(
        (i for i, (a, b) in enumerate(zip(wanted, got, strict=False)) if a != b), min(len(wanted), len(got))
    )
    return f"byte {at} differs: {shown(wanted[at : at + 20])} was expected, {shown(got[at : at + 20])} came"
