"""Holding what came against what was expected. Pure: no sockets, no clock.

An Inbox is all that one client (or a server's log) has received so far; a Watch is one expectation being waited for.
A Watch reads each message once, so waiting costs what comes, not what has come. What has come is kept as bytes on end, for a text that
is expected now may have come long ago on this connection. Mostly one of its words has never come, so there is nothing to look for.

How bytes become messages is the service's framing:
    line      a message ends with \\n (a \\r before it is dropped); at the end of the connection the rest is one too
    datagram  each datagram is a message
    stream    there are no messages: texts are looked for in the bytes (TCP echo)
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from sys import intern

from socklab.dialect import LINES, PLAIN, Dialect
from socklab.endless import Endless, ended
from socklab.history import Event, from_wire, joined
from socklab.steps import UNKILLED, Expectation, Pattern
from socklab.texts import compile_regex, expand, expand_regex

LINE, DATAGRAM, STREAM = "line", "datagram", "stream"


INDEXED = 400
"""Bytes of a message of which the words are kept."""
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Message:
    data: bytes
    t: int

    @property
    def text(self) -> str:
        return self.data.decode(errors="surrogateescape")


class Messages:
    """Messages in the order in which they came. Each takes its bytes, 16 more, and its place in the index of words."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._ends = array("Q")
        self._times = array("q")
        self._words: set[str] = set()
        """All that came."""
        self._long = False
        """There are messages whose words are not among them."""

    def append(self, message: Message) -> None:
        self._data += message.data
        self._ends.append(len(self._data))
        self._times.append(message.t)
        if len(message.data) <= INDEXED:
            self._words.update(map(intern, _WORD.findall(message.text)))
        else:
            self._long = True

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> Message:
        return Message(bytes(self._data[self._begin(index) : self._ends[index]]), self._times[index])

    def __iter__(self) -> Iterator[Message]:
        return self.behind(0)

    def behind(self, count: int) -> Iterator[Message]:
        """Those behind the first `count`."""
        return (self[index] for index in range(count, len(self)))

    def holding(self, text: bytes, words: frozenset[str], at: int) -> int:
        """The first message from `at` on that may hold this text, with these words whole, which is for the caller to look at;
        `len()` where none does."""
        if not text or at >= len(self):
            return at
        if not self._long and not words <= self._words:
            return len(self)
        found = self._data.find(text, self._begin(at))
        return bisect_right(self._ends, found) if found >= 0 else len(self)

    def _begin(self, index: int) -> int:
        return self._ends[index - 1] if index else 0


@dataclass
class Inbox:
    """All that one node has received, in order. A new connection goes on with the same list, from `first` on."""

    framing: str
    dialect: Dialect = PLAIN
    messages: Messages = field(default_factory=Messages)
    stream: bytearray = field(default_factory=bytearray)
    """The current connection's bytes as they came."""
    arrivals: array[int] = field(default_factory=lambda: array("q"))
    """When each chunk of `stream` came."""
    ends: array[int] = field(default_factory=lambda: array("q"))
    """The length of `stream` after each."""
    sent: bytearray = field(default_factory=bytearray)
    """What the client sent on the current connection (not over UDP)."""
    sent_messages: list[bytes] = field(default_factory=list)
    """The datagrams that the client sent."""
    first: int = 0
    """The first message of the current connection; what came before it is no concern of a new expectation."""
    connection: int = 0
    ended: str | None = None
    """eof, reset or error: the current connection has no more to give. For a server: exited."""
    errors: list[str] = field(default_factory=list)
    status: int | None = None
    """A server's exit status."""
    fed: int = 0
    """How many events it has taken in."""
    read_to: int = 0
    """Messages (stream: bytes) that an expectation has read, or passed over."""
    positions: dict[str, int] = field(default_factory=dict)
    """Each pattern's own position."""
    _partial: bytearray = field(default_factory=bytearray)
    _own: bytearray = field(default_factory=bytearray)
    _errors_read: int = 0

    def feed(self, event: Event) -> None:
        """Take in an event of this node; kinds that say nothing about reception are ignored."""
        kind = event.kind
        self.fed += 1
        if kind == "received":
            self._receive(event.content, event.t)
        elif kind == "connected":
            if self.connection:
                self._begin_again(event.t)
            self.connection += 1
            self.ended = None
        elif kind == "sent":
            if self.framing == LINE and not self.dialect.echo and not event.data.get("join"):
                self._hear_itself(event)
            for chunk in event.data["chunks"]:
                if self.framing == DATAGRAM:
                    self.sent_messages.append(from_wire(chunk))
                else:
                    self.sent += from_wire(chunk)
        elif kind in ("closed", "aborted"):
            self._flush(event.t)
        elif kind in ("eof", "reset"):
            self._flush(event.t)
            self.ended = kind
        elif kind == "error":
            self.errors.append(str(event.data.get("error")))
            if event.data.get("closed"):
                self._flush(event.t)
                self.ended = "error"
        elif kind == "wire":
            words = [f"from:{event.data['from']}", f"to:{event.data['to']}", *event.data["words"]]
            self.messages.append(Message(" ".join(words).encode(), event.t))
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
        self.arrivals.append(t)
        self.ends.append(len(self.stream))
        if self.framing == LINE:
            self._partial += data
            if b"\n" in data or self.dialect.frames != LINES:
                whole, rest = self.dialect.split(bytes(self._partial))
                for message in whole:
                    if not self.dialect.ignores(message):
                        self.messages.append(Message(message, t))
                self._partial = bytearray(rest)
            if self._partial and self.dialect.is_prompt(
                self._partial, len(self._partial) == len(self.stream)
            ):
                self._partial.clear()  # what comes next is a message of its own

    def _hear_itself(self, event: Event) -> None:
        """In this dialect nobody hears itself: what a client says counts as heard by it, and an echo would be one too many."""
        self._own += joined(event.data["chunks"])
        whole, rest = self.dialect.split(bytes(self._own))
        self._own = bytearray(rest)
        for message in whole:
            if self.dialect.quit is not None and message == self.dialect.quit.encode():
                break
            if message:
                self.messages.append(Message(message, event.t))

    def _flush(self, t: int) -> None:
        if self._partial and not self.dialect.ignores(self._partial):
            self.messages.append(Message(bytes(self._partial), t))
        self._partial.clear()
        self._own.clear()

    def _begin_again(self, t: int) -> None:
        """A new connection, open since `t`. Its first bytes may be known already: they can be quicker than its own event."""
        old = sum(when < t for when in self.arrivals)
        if old == len(self.arrivals):
            self._flush(t)
        self.first = len(self.messages)
        while self.first and self.messages[self.first - 1].t >= t:
            self.first -= 1
        cut = self.ends[old - 1] if old else 0
        del self.stream[:cut]
        self.arrivals = self.arrivals[old:]
        self.ends = array("q", (end - cut for end in self.ends[old:]))
        self.sent.clear()
        self.sent_messages.clear()
        self.positions.clear()
        self.read_to = 0 if self.framing == STREAM else max(self.read_to, self.first)

    def since(self, t: int) -> list[Message]:
        """What came at or after a time and no expectation has read. A stream's bytes count as one message a chunk."""
        if self.framing != STREAM:
            fresh = [m for m in self.messages.behind(self.read_to) if m.t >= t]
            if self._partial and self.arrivals and self.arrivals[-1] >= t:
                fresh.append(Message(bytes(self._partial), self.arrivals[-1]))
            return fresh
        result, start = [], self.read_to
        unread = bisect_right(self.ends, self.read_to)
        for when, end in zip(self.arrivals[unread:], self.ends[unread:], strict=True):
            if when >= t:
                result.append(Message(bytes(self.stream[start:end]), when))
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
        self.expectation = e = expectation
        self.inbox = inbox
        self.state = State.WAITING
        self.reason = ""
        self.endless = False
        """A regular expression came to no end with what has come: this cannot be told."""
        self.captured: str | None = None
        self.overtaken = False
        """Something came before what stands before it: that may be lost, or only late."""
        self._values = dict(values)
        # All that `exactly` speaks of has one position, whatever was expected. Many clients expect the same.
        texts = [(p.kind, expand_value(p, {**values, "n": "{n}"})) for p in e.patterns]
        self._regexes = any(p.kind == "regex" for p in e.patterns)
        self._key = "exactly" if e.kind == "exactly" else intern(f"{e.kind}:{e.log}:{texts}")
        self._doubled: str | None = None
        self._looked_at = -1
        """What the inbox had taken in when `violated` last looked."""
        self._begin()

    def _begin(self) -> None:
        """Where it starts to read, with nothing found yet."""
        e, inbox, values = self.expectation, self.inbox, self._values
        self._single = (
            _Matcher(e.patterns[0], values, e.family)
            if len(e.patterns) == 1 and e.kind in ("sequence", "set")
            else None
        )
        self._matchers = [_Matcher(p, values) for p in e.patterns] if self._single is None else []
        self._total = e.count if self._single else len(e.patterns)
        self._texts = [m.text_in_it for m in ([self._single] if self._single else self._matchers)]
        self._searchable = all(text for text, _ in self._texts)
        self._connection = inbox.connection
        self._at = inbox.first if e.kind == "sent" else inbox.positions.get(self._key, inbox.first)
        if self._single and self._single.kind == "any":
            self._at = max(self._at, inbox.read_to)
        self._start = self._at
        self._ahead = [self._at] * len(self._texts)
        """Of each of `_texts`, the next message that may hold it, as far as has been looked."""
        self._next = 0
        self._found: set[int] = set()
        self._holders: dict[int, list[int]] = {}
        """Of `set`: which pattern is held by a message, and which patterns that message could hold."""
        self._furthest = 0
        self._owed: Counter[bytes] = Counter()
        """Of `sent`: the datagrams that have not come back."""
        self._counted = 0
        self._compared = 0

    # what is asked

    def advance(self) -> State:
        if not self._regexes:
            self._look()
        elif not self.endless:
            try:
                with ended():
                    self._look()
            except Endless:
                self.endless = True
        return self.state

    def _look(self) -> None:
        if self.state is State.WAITING:
            kind = self.expectation.kind
            if self.inbox.framing == STREAM and self._connection != self.inbox.connection:
                self._begin()  # a new connection is a new stream
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
                how = {
                    "eof": "was closed by the server",
                    "reset": "was reset",
                    "error": "broke",
                    "exited": "has ended",
                }
                what = "the server" if self.inbox.ended == "exited" else "the connection"
                self._fail(f"{self._missing()}; {what} {how[self.inbox.ended]}, so it cannot come any more")
        elif (
            self.state is State.MET
            and (self.expectation.once or self.expectation.kind in ("exactly", "sent"))
            and self._connection == self.inbox.connection
        ):
            self._look_for_more()

    def violated(self) -> str | None:
        """What came too much since the expectation was met, in words. It is asked often, mostly when nothing has come."""
        if self._looked_at != self.inbox.fed:
            self._looked_at = self.inbox.fed
            self.advance()
        return self._doubled

    @property
    def several(self) -> bool:
        """Whether it is about more than one message, so that how many came is worth telling."""
        return self._total > 1 or self.expectation.kind == "sent"

    @property
    def told(self) -> str:
        """What is expected, with the values of its {placeholders}; {n} stands for the numbers it runs through."""
        filled = (
            p
            if isinstance(p.value, bytes)
            else replace(p, value=expand_value(p, {**self._values, "n": _N}).replace(_N, "{n}"))
            for p in self.expectation.patterns
        )
        return str(replace(self.expectation, patterns=tuple(filled)))

    def missing(self) -> str:
        """What a waiting expectation waits for, in words."""
        return self._missing()

    def concerns(self, data: bytes) -> bool:
        """Whether something that holds this, sent now, could rightly count as one more match. True in doubt: how a server
        decorates a text, or where the border of a message is, cannot be told from what is said."""
        if self.expectation.kind == "exactly" or self.inbox.framing == STREAM:
            return True
        if self.inbox.framing == LINE and not data.endswith(b"\n"):
            return True
        matchers = [self._single] if self._single else self._matchers
        return any(matcher.could_be_in(data) for matcher in matchers)

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
        while self.state is State.WAITING and self._go_on() < len(messages):
            message = messages[self._at]
            self._at += 1
            self._take(message)
            if len(self._found) == self._total:
                self._met()
        if self.state is State.MET and self.expectation.once:
            self._look_for_more()

    def _go_on(self) -> int:
        """To the next message that may be one of the patterns."""
        messages = self.inbox.messages
        if self._searchable:
            self._ahead = [
                messages.holding(*text, max(ahead, self._at))
                for text, ahead in zip(self._texts, self._ahead, strict=True)
            ]
            self._at = min(self._ahead)
        return self._at

    def _take(self, message: Message) -> None:
        """Hold one message against the patterns that are still open."""
        fitting = self._fitting(message)
        if not fitting:
            return
        if self.expectation.kind == "set":
            if (pattern := self._hold(fitting)) is not None:
                self._found.add(pattern)
            elif self.expectation.once:
                self._fail(f"{self._name(fitting[0])} came twice")
        elif self._next in fitting:
            self._found.add(self._next)
            self._next += 1
        elif self.expectation.once:
            if fitting[0] < self._next:
                self._fail(f"{self._name(fitting[0])} came twice")
            else:
                self.overtaken = True
                self._fail(f"{self._name(fitting[0])} came before {self._name(self._next)}")

    def _fitting(self, message: Message) -> list[int]:
        """Which of the patterns this message is, the likeliest first."""
        if self._single is None:
            return [i for i, matcher in enumerate(self._matchers) if matcher.match(message) is not None]
        if self._single.family:
            return [n - 1 for n in self._single.numbers(message) if n <= self._total]
        found = self._single.match(message)
        if found is None:
            return []
        if len(self._found) < self._total:
            self.captured = found
        return [self._next if self._next < self._total else 0]

    def _hold(self, fitting: list[int]) -> int | None:
        """Let a message hold one of its patterns; others may change theirs for it (`a` and `a b` both fit the line `a b`).

        The pattern that is held now and was not before; None where all that it fits are taken for good.
        """
        came_from: dict[int, tuple[int | None, list[int]]] = {}
        todo: deque[tuple[int | None, list[int]]] = deque([(None, fitting)])
        while todo:
            giver, wanted = todo.popleft()
            for pattern in wanted:
                if pattern in came_from:
                    continue
                came_from[pattern] = (giver, wanted)
                if pattern in self._holders:
                    todo.append((pattern, self._holders[pattern]))
                    continue
                free: int | None = pattern
                while free is not None:
                    previous, message = came_from[free]
                    self._holders[free] = message
                    free = previous
                return pattern
        return None

    def _read_stream(self) -> None:
        data = self.inbox.stream
        if self._single and self._single.kind == "any":
            # A stream has no messages: so many bytes at least, and how they are cut says nothing.
            begin = max(self._at, self.inbox.read_to)
            if len(data) - begin >= self._total:
                self.captured = bytes(data[begin:]).decode(errors="surrogateescape")
                self._at = len(data)
                self._found = set(range(self._total))
                self._met()
            return
        if self.expectation.kind == "set":
            for i in range(self._total):
                if i not in self._found and (span := self._seek(i, self._start)) is not None:
                    self._found.add(i)
                    self._furthest = max(self._furthest, span.end)
                    self.captured = span.text
            if len(self._found) == self._total:
                self._at = self._furthest
                self._met()
            return
        while self._next < self._total:
            span = self._seek(self._next, self._at)
            if span is None:
                return
            self.captured = span.text
            self._at = span.end
            self._found.add(self._next)
            self._next += 1
        self._met()
        if self.expectation.once:
            self._look_for_more()

    def _seek(self, index: int, start: int) -> _Span | None:
        return self._matcher(index).find(self.inbox.stream, start, self.inbox.read_to)

    def _matcher(self, index: int) -> _Matcher:
        return self._single.member(index + 1) if self._single else self._matchers[index]

    def _look_for_more(self) -> None:
        if self._doubled is not None:
            return
        if self.expectation.kind == "sent":
            self._look_for_more_than_sent()
            return
        if self.inbox.framing == STREAM:
            if self.expectation.kind == "exactly":
                extra = bytes(self.inbox.stream[self._at :])
                self._doubled = f"{shown(extra)} came on top" if extra and not self._loose else None
            elif not (self._single and self._single.kind == "any"):
                for i in range(self._total):
                    if self._matcher(i).stands_in(self.inbox.stream, self._at):
                        self._doubled = f"{self._name(i)} came twice"
            return
        messages = self.inbox.messages
        exactly = self.expectation.kind == "exactly"
        while self._doubled is None and (self._at if exactly else self._go_on()) < len(messages):
            message = messages[self._at]
            self._at += 1
            if exactly:
                self._doubled = f"{shown(message.data)} came on top"
            elif fitting := self._fitting(message):
                self._doubled = (
                    f"{self._name(fitting[0])} came twice"
                    if self._total == 1 or self._matchers or self.expectation.family
                    else "one more came"
                )

    def _look_for_more_than_sent(self) -> None:
        """What a client sends is known before any of it can come back."""
        inbox = self.inbox
        if inbox.framing == DATAGRAM:
            owed = inbox.first + len(inbox.sent_messages)
            more = len(inbox.messages) > owed
            extra = inbox.messages[owed].data if more else b""
        else:
            extra = bytes(inbox.stream[len(inbox.sent) :])
            more = bool(extra)
        if more:
            self._doubled = f"{shown(extra)} came on top of what was sent"

    def _exactly(self) -> None:
        if self.inbox.framing == STREAM and self._loose:
            got_text = bytes(self.inbox.stream[self._at :]).decode(errors="surrogateescape")
            if joined_regex(self._matchers).fullmatch(got_text):
                self._at = len(self.inbox.stream)
                self._met()
            return
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

    @property
    def _loose(self) -> bool:
        """Whether a regex is part of what is to be exactly all: then more may fit as well as less."""
        return any(matcher.kind == "regex" for matcher in self._matchers)

    def _exact(self) -> list[_Matcher]:
        for matcher in self._matchers:
            matcher.whole()
        return self._matchers

    def _echoed(self) -> None:
        if self.inbox.framing == DATAGRAM:
            self._echoed_datagrams()
            return
        sent, got = self.inbox.sent, self.inbox.stream
        step = min(len(sent), len(got))
        if sent[self._compared : step] != got[self._compared : step]:
            self._fail(difference(bytes(sent), bytes(got[:step])))
        elif len(got) > len(sent):
            self._fail(
                f"{shown(bytes(got[len(sent) :]))} came on top of the {len(sent)} bytes that were sent"
            )
        elif len(got) == len(sent):
            self._at = len(self.inbox.messages if self.inbox.framing == LINE else got)
            self._met()
        self._compared = step

    def _echoed_datagrams(self) -> None:
        """Each as it was sent, and once; in what order, UDP does not promise."""
        inbox = self.inbox
        self._owed.update(inbox.sent_messages[self._counted :])
        self._counted = len(inbox.sent_messages)
        while self._at < len(inbox.messages):
            data = inbox.messages[self._at].data
            self._at += 1
            if not self._owed[data]:
                twice = data in inbox.sent_messages
                self._fail(f"{shown(data)} came {'once too often' if twice else 'and was not sent'}")
                return
            self._owed[data] -= 1
            self._compared += 1
        if self._compared == self._counted:
            self._met()

    def _ending(self) -> None:
        inbox, kind = self.inbox, self.expectation.kind
        if kind == "exit":
            if inbox.status is not None:
                word = self.expectation.word
                if str(inbox.status) == word or (word == UNKILLED and inbox.status != -9):
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
        elif inbox.ended == "error":
            self._fail(f"the connection broke ({inbox.errors[-1]})")

    def _name(self, index: int) -> str:
        if self._single and self._single.family:
            return str(self._single.member(index + 1))
        return str(self._single or self._matchers[index])

    def _missing(self) -> str:
        e = self.expectation
        if e.kind == "sent" and self.inbox.framing == DATAGRAM:
            return f"{self._compared} of {self._counted} datagrams came back"
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
class _Span:
    """Where something stands in a stream, and what was caught there."""

    end: int
    text: str


class _Matcher:
    """A pattern with its values filled in, ready to hold messages against."""

    def __init__(self, pattern: Pattern, values: Mapping[str, str], family: bool = False) -> None:
        self.pattern = pattern
        self.values = values
        self.family = family
        self.kind = pattern.kind
        self._members: dict[int, _Matcher] = {}
        self._searched = 0
        if family:
            filled = expand_value(pattern, {**values, "n": _N})
            self._literals = [p.encode(errors="surrogateescape") for p in filled.split(_N)]
            return
        self.text = expand_value(pattern, values)
        self.value = (
            pattern.value if isinstance(pattern.value, bytes) else self.text.encode(errors="surrogateescape")
        )
        self._literals = [self.value]
        """What has to stand in a message for a text to be in it; told much faster than by the expression."""

    @property
    def text_in_it(self) -> tuple[bytes, frozenset[str]]:
        """What stands in every message that it matches (empty where nothing is known to), and which of its words stand there whole."""
        if self.kind in ("any", "regex", "wire"):
            return b"", frozenset()
        if self.family or self.kind == "bytes":
            return max(self._literals, key=len), frozenset()
        text = self.text if self.kind == "contains" else self.value.decode(errors="surrogateescape")
        return self.value, frozenset(_WORD.findall(text))

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        if self.family:
            filled = expand_value(self.pattern, {**self.values, "n": _N})
            if self.kind == "regex":
                parts = filled.split(re.escape(_N))
            else:
                parts = [re.escape(part) for part in filled.split(_N)]
            body = parts[0] + "(?P<socklab_n>[1-9][0-9]{0,8})" + "(?P=socklab_n)".join(parts[1:])
            return compile_regex(body if self.kind == "regex" else _bounded(body))
        return compile_regex(self.text if self.kind == "regex" else _bounded(re.escape(self.text)))

    def __str__(self) -> str:
        return str(
            Pattern(
                self.kind, self.value if self.kind == "bytes" else "" if self.kind == "any" else self.text
            )
        )

    def member(self, number: int) -> _Matcher:
        """The text with this number in it."""
        if not self.family:
            return self
        if number not in self._members:
            self._members[number] = _Matcher(self.pattern, {**self.values, "n": str(number)})
        return self._members[number]

    def whole(self) -> None:
        """From here on a text is the whole message."""
        if self.kind == "contains":
            self.kind = "is"

    def match(self, message: Message) -> str | None:
        """What of the message it is, for a capture; None where it does not match."""
        if self.kind == "any":
            return message.text
        if self.kind == "wire":
            return message.text if set(self.text.split()) <= set(message.text.split()) else None
        if self.kind == "is":
            return message.text if message.data == self.value else None
        if self.kind == "bytes":
            return message.text if self.value in message.data else None
        if self.kind == "contains" and self.value not in message.data:
            return None
        found = self._regex.search(message.text)
        return _caught(found) if found else None

    def numbers(self, message: Message) -> list[int]:
        """Of a text with {n}: which numbers it is. From the right, because servers put what they add in front."""
        if self.kind == "contains" and any(part not in message.data for part in self._literals):
            return []
        found = [int(match["socklab_n"]) for match in self._regex.finditer(message.text)]
        return list(dict.fromkeys(reversed(found)))

    def could_be_in(self, data: bytes) -> bool:
        """Whether something sent could make a message that matches. True in doubt."""
        return self.kind in ("any", "regex", "wire") or all(part in data for part in self._literals)

    # streams

    def find(self, data: bytearray, start: int, fresh: int) -> _Span | None:
        """Where this stands in a stream from `start` on; `fresh` is where no expectation has read yet.

        What it finds ends as early as it can, so that it is the same however the stream was cut on its way.
        """
        if self.kind == "regex":
            return self._regex_in(data, start)
        if self.kind == "is":
            return self._whole_in(data, start, fresh)
        # What has been searched once does not change.
        at = data.find(self.value, max(start, self._searched - len(self.value) + 1))
        if at < 0:
            self._searched = len(data)
            return None
        return _Span(at + len(self.value), self.value.decode(errors="surrogateescape"))

    def _regex_in(self, data: bytearray, start: int) -> _Span | None:
        text = bytes(data[start:]).decode(errors="surrogateescape")
        found = self._regex.search(text)
        if found is None:
            return None
        low, high = found.start(), found.end()
        while low < high:
            middle = (low + high) // 2
            if self._regex.search(text, 0, middle):
                high = middle
            else:
                low = middle + 1
        found = self._regex.search(text, 0, low) or found
        return _Span(start + len(text[: found.end()].encode(errors="surrogateescape")), _caught(found))

    def _whole_in(self, data: bytearray, start: int, fresh: int) -> _Span | None:
        """A stream has no messages, so "the whole" is a line of it, or what comes first of all that nobody has read yet."""
        text = self.value.decode(errors="surrogateescape")
        ends = []
        for begin in {start, fresh}:
            while bytes(data[begin : begin + 1]) in (b"\r", b"\n"):
                begin += 1
            if data[begin : begin + len(self.value)] == self.value and len(data) > begin:
                ends.append(begin + len(self.value))
        position = start
        for line in bytes(data[start:]).split(b"\n")[:-1]:
            position += len(line) + 1
            if line.removesuffix(b"\r") == self.value:
                ends.append(position)
                break
        return _Span(min(ends), text) if ends else None

    def stands_in(self, data: bytearray, start: int) -> bool:
        """Whether it surely stands in a stream from `start` on: `a1` does not in `a10`, nor yet where a 0 may follow."""
        if self.kind in ("regex", "is"):
            return self.find(data, start, start) is not None
        at = data.find(self.value, start)
        while at >= 0 and self.value:
            before, behind = data[at - 1 : at] if at else b"", data[at + len(self.value) :][:1]
            joined_left = self.value[:1].isdigit() and before.isdigit()
            joined_right = self.value[-1:].isdigit() and (not behind or behind.isdigit())
            if not joined_left and not joined_right:
                return True
            at = data.find(self.value, at + 1)
        return False


_N = "\x00n\x00"  # stands for {n}: no text of a scenario has a NUL in it


def _caught(found: re.Match[str]) -> str:
    """The first group where there is one, else all of it."""
    return found[1] if found.re.groups and found[1] is not None else found[0]


def joined_regex(matchers: list[_Matcher]) -> re.Pattern[str]:
    """One regex for several texts and regexes, one behind the other."""
    return compile_regex(
        "".join(f"(?:{m.text})" if m.kind == "regex" else re.escape(m.text) for m in matchers)
    )


def expand_value(pattern: Pattern, values: Mapping[str, str]) -> str:
    if pattern.kind == "wire":
        return str(pattern.value)
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
