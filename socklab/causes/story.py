"""A history as the rules read it: who said what, who got what, and small questions that several of them ask. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from socklab.dialect import Dialect
from socklab.history import Event, joined
from socklab.matching import Inbox
from socklab.steps import Step

RIGHT_BEHIND = 0.5e9  # ns; what happens within this time of a server's end may well be why


@dataclass
class Story:
    """A history, told from the side of those who were not content."""

    events: Sequence[Event]
    clients: tuple[str, ...]
    framing: str
    dialect: Dialect
    step: Step | None
    asked_to_end: frozenset[str] = frozenset()
    """Whose connection was to end, as a step before has found that it did."""
    _inboxes: dict[str, Inbox] = field(default_factory=dict)
    _got: dict[str, list[bytes]] = field(default_factory=dict)
    _wanted: dict[str, list[re.Pattern[bytes]]] = field(default_factory=dict)
    _missing: dict[str, list[Line]] = field(default_factory=dict)

    @cached_property
    def _by_node(self) -> dict[str, list[Event]]:
        found: dict[str, list[Event]] = {}
        for event in self.events:
            found.setdefault(event.node, []).append(event)
        return found

    def inbox(self, name: str) -> Inbox:
        """All that a client received."""
        if name not in self._inboxes:
            inbox = self._inboxes[name] = Inbox(self.framing, self.dialect)
            for event in self.of(name):
                inbox.feed(event)
        return self._inboxes[name]

    def of(self, name: str) -> list[Event]:
        return self._by_node.get(name, [])

    def got(self, name: str) -> list[bytes]:
        """The messages of its latest connection; the unfinished one too."""
        if name not in self._got:
            inbox = self.inbox(name)
            unfinished = [bytes(inbox._partial)] if inbox._partial else []
            self._got[name] = [m.data for m in inbox.messages.behind(inbox.first)] + unfinished
        return self._got[name]

    @cached_property
    def everyone(self) -> list[str]:
        begin = next((e for e in self.events if e.kind == "play"), None)
        return [str(name) for name in begin.data["clients"]] if begin else []

    @cached_property
    def said(self) -> list[tuple[str, Event, bytes]]:
        """Who said what, a `sent` event each."""
        return [
            (e.node, e, joined(e.data["chunks"]))
            for e in self.events
            if e.kind == "sent" and not e.data.get("join")
        ]

    def heard(self, line: Line) -> list[str]:
        """Who got a line; of a sender that is not to hear itself nothing is known."""
        return [n for n in self.everyone if (self.dialect.echo or n != line.who) and is_in(line, self.got(n))]

    def unread(self, client: str) -> int | None:
        """Bytes of a client that lay in the server's socket at the end; None where its kernel was not asked."""
        seen = (e for e in reversed(self.events) if e.kind == "sockets" and e.node == "server")
        mine = next((e for e in seen if e.data.get("peer") == client), None)
        return int(mine.data.get("recv-q", 0)) if mine is not None else None

    @cached_property
    def lines(self) -> list[Line]:
        """All lines that were said."""
        found: list[Line] = []
        open_: dict[str, tuple[bytes, int]] = {}
        for event in self.events:
            if event.kind in ("connected", "closed", "aborted", "half-closed"):
                rest, pieces = open_.pop(event.node, (b"", 0))
                if rest:
                    found.append(Line(event.node, rest, event.t, pieces, 1, ended=False))
            elif event.kind == "sent" and not event.data.get("join"):
                before, pieces = open_.pop(event.node, (b"", 0))
                chunks = len(event.data["chunks"])
                whole, rest = self.dialect.split(before + joined(event.data["chunks"]))
                for number, text in enumerate(whole):
                    cut = (pieces if number == 0 else 0) + (chunks if chunks > len(whole) else 1)
                    found.append(
                        Line(event.node, text, event.t, cut, len(whole) if chunks < len(whole) else 1)
                    )
                if rest:
                    open_[event.node] = (rest, pieces + chunks)
        found += [Line(name, rest, 1 << 62, pieces, 1, ended=False) for name, (rest, pieces) in open_.items()]
        return [line for line in found if line.text]

    @cached_property
    def exit(self) -> Event | None:
        return next(
            (e for e in reversed(self.events) if e.kind == "exited" and not e.data.get("expected")), None
        )

    def wanted(self, name: str) -> list[re.Pattern[bytes]]:
        """What the failed step expected of a client, as far as it is text."""
        if name in self._wanted:
            return self._wanted[name]
        found = self._wanted[name] = []
        for who, expectation in self.step.expects if self.step else ():
            for pattern in expectation.patterns if who == name else ():
                if pattern.kind == "regex":
                    found.append(re.compile(str(pattern.value).encode(errors="surrogateescape")))
                elif pattern.kind in ("contains", "is") and isinstance(pattern.value, str):
                    text = re.sub(r"\\\{\w+\\\}", ".*", re.escape(pattern.value))
                    found.append(re.compile(text.encode(errors="surrogateescape")))
        return found

    def is_wanted(self, name: str, text: bytes) -> bool:
        wanted = self.wanted(name)
        return not wanted or any(pattern.search(text) for pattern in wanted)

    def connected_at(self, name: str) -> int:
        return next((e.t for e in reversed(self.of(name)) if e.kind == "connected"), 0)

    def present(self, name: str, t: int) -> bool:
        """Whether a client was connected at a time, as far as it knows itself."""
        here = False
        for event in self.of(name):
            if event.t > t:
                break
            if event.kind == "connected":
                here = True
            elif event.kind in ("closed", "aborted", "eof", "reset"):
                here = False
        return here

    def before(self, t: int, within: float) -> Event | None:
        """What a client did right before a time: that it left, rather than that it spoke, and that it spoke, rather than came."""
        mine = [e for e in self.events if t - within <= e.t <= t]
        for kinds in (("aborted",), ("closed", "half-closed"), ("sent",), ("connected",)):
            if acts := [e for e in mine if e.kind in kinds]:
                quits = [e for e in acts if e.kind == "sent" and joined(e.data["chunks"]).strip() == b"quit"]
                return (quits or acts)[-1]
        return None


@dataclass(frozen=True)
class Line:
    who: str
    text: bytes
    t: int
    pieces: int
    """In how many pieces it was sent."""
    beside: int
    """How many lines went out in one segment with it, itself included."""
    ended: bool = True
    """It had its newline."""


Rule = Callable[[Story], str]


CLOSED = re.compile(r"(cut|reject)(,|$)")
"""A fault that lets nothing through, from its beginning."""


def ended_by_the_server(story: Story) -> Iterator[tuple[str, Event]]:
    """Clients that the server has closed unasked, with the event."""
    for client in story.clients or story.everyone:
        if client in story.asked_to_end:
            continue
        since = story.connected_at(client)
        mine = [
            e for e in story.of(client) if e.kind in ("eof", "reset", "closed", "aborted") and e.t >= since
        ]
        if mine and mine[0].kind in ("eof", "reset"):
            yield client, mine[0]


def who_stalls(story: Story, but: str) -> list[str]:
    """Who does not read at the end."""
    state: dict[str, bool] = {}
    for event in story.events:
        if event.kind in ("stalled", "reading", "closed", "aborted", "connected"):
            state[event.node] = event.kind == "stalled"
    return [name for name, stalled in state.items() if stalled and name != but]


def who_is_cut_off(story: Story, t: int, but: str) -> str:
    """Who else was behind a link that let nothing through at a time."""
    return next((end for end in _cut_off(story, t) if end in story.everyone and end != but), "")


def _cut_off(story: Story, t: int) -> list[str]:
    """The ends of all links that let nothing through at a time."""
    links: dict[str, str] = next(
        (e.data["links"] for e in reversed(story.events) if e.kind == "fault" and e.t <= t), {}
    )
    return [end for link, fault in links.items() if CLOSED.match(fault) for end in link.split("→")]


def why_no_room(story: Story, name: str, t: int) -> str:
    """What kept the buffers of a client full at a time; empty: nothing that is known."""
    reads = [e.kind for e in story.of(name) if e.kind in ("stalled", "reading", "connected") and e.t <= t]
    if reads and reads[-1] == "stalled":
        return "did not read"
    return "was cut off" if name in _cut_off(story, t) else ""


def for_each(rule: Callable[[Story, str, list[bytes]], str]) -> Rule:
    def each(story: Story) -> str:
        return next(
            (cause for c in story.clients if c in story.everyone and (cause := rule(story, c, story.got(c)))),
            "",
        )

    return each


def is_in(line: Line, got: Iterable[bytes]) -> bool:
    return any(_stands_in(line.text, each) for each in got)


def _stands_in(text: bytes, data: bytes) -> bool:
    """Whether a text is in what came; `line 2` is not in `line 20`."""
    at = data.find(text)
    while at >= 0:
        end = at + len(text)
        before, behind = data[max(at - 1, 0) : at], data[end : end + 1]
        if not (text[:1].isdigit() and before.isdigit()) and not (text[-1:].isdigit() and behind.isdigit()):
            return True
        at = data.find(text, at + 1)
    return False


def lines_missing(story: Story, client: str) -> list[Line]:
    """The lines that were said while the client was there and that it did not get."""
    if client in story._missing:
        return story._missing[client]
    since, got = story.connected_at(client), story.got(client)
    whole = b"\n".join(got)  # one search in all of it, where no text has that in it
    quits = (story.dialect.quit or "quit").encode()
    story._missing[client] = [
        line for line in story.lines
        if line.ended and story.is_wanted(client, line.text) and line.t > since and line.text.strip() not in (quits, b"")
        and not (_stands_in(line.text, whole) and (b"\n" not in line.text or is_in(line, got)))
    ]  # fmt: skip
    return story._missing[client]


def quit_said(story: Story, name: str, since: int, t: int) -> bool:
    quit_ = (story.dialect.quit or "quit").encode()
    return any(
        who == name and since < e.t < t and quit_ in (line.strip() for line in data.split(b"\n"))
        for who, e, data in story.said
    )
