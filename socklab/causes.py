"""Likely causes in plain words, for a failed play: what a good teacher would say who saw the history. Pure.

Each rule looks for evidence and says nothing where there is none; the first that speaks is told. What a rule cannot know, the
scenario's own `hint:` may.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from socklab import holdings
from socklab.dialect import CHUNKS, PLAIN, Dialect
from socklab.history import Event, joined
from socklab.matching import DATAGRAM, LINE, STREAM, Inbox, shown
from socklab.scenario import Step

RIGHT_BEHIND = 0.5e9  # ns; what happens within this time of a server's end may well be why


def likely(
    events: Sequence[Event],
    clients: Sequence[str],
    framing: str = LINE,
    dialect: Dialect = PLAIN,
    step: Step | None = None,
) -> str:
    """The cause of a failure that concerns these clients; empty where nothing is known."""
    story = _Story(events, tuple(clients), framing, dialect, step)
    by_framing = {LINE: _CHAT, STREAM: _ECHO, DATAGRAM: _DATAGRAMS}[framing]
    if dialect.frames == CHUNKS and framing == STREAM:
        by_framing = ()  # a chat without lines: no rule of an echo holds
    for rule in (*_FIRST, *by_framing):
        if cause := rule(story):
            return cause
    if step is not None and step.hint:
        return step.hint
    return next((cause for rule in _LAST if (cause := rule(story))), "")


def of_start(events: Iterable[Event], why: str) -> str:
    """Why a program did not become a server: `why` is what was seen of it, the rest it printed."""
    listed = list(events)
    if excess := next((e.data["excess"] for e in listed if e.data.get("excess")), ""):
        return f"before it listened, it {excess}"
    printed = "\n".join([str(e.data["text"])[:400] for e in listed if e.kind == "log"][-40:])
    for pattern, cause in _AT_THE_START:
        if re.search(pattern, printed):
            return cause
    if "listens on IPv6 only" in why:
        return "its socket takes IPv6 only"
    if "listens on 127." in why or "listens on ::1" in why:
        return "it binds the loopback address, which nobody else reaches"
    if "listens on port" in why:
        return "its port is written into the program: it does not take the one that it is told"
    if "its socket on that port is one of UDP" in why:
        return "it opens a UDP socket (SOCK_DGRAM) where a TCP one (SOCK_STREAM) is wanted"
    if "its socket on that port is one of TCP" in why:
        return "it opens a TCP socket (SOCK_STREAM) where a UDP one (SOCK_DGRAM) is wanted"
    if "does not listen" in why:
        return (
            _asks_a_question(printed)
            or "it never listens: listen() is missing, or it waits for something else first"
        )
    return _last_error(listed)


_AT_THE_START = (
    (r"EOFError|NoSuchElementException|end of file when reading", "it asks for something at the keyboard, and nobody sits there: take host and port from the command line"),
    (r"[Cc]annot assign requested address|EADDRNOTAVAIL", "it binds an address that this host does not have, one of its author's network: bind 0.0.0.0"),
    (r"[Aa]ddress already in use|EADDRINUSE", "its port is taken: a second socket of its own on it, or SO_REUSEADDR is not set"),
    (r"SyntaxError|IndentationError", "the program has a syntax error"),
    (r"ModuleNotFoundError: (.*)|ImportError: (.*)", "a module that it imports is not installed here"),
    (r"IndexError: list index out of range|[Uu]sage:|ArrayIndexOutOfBounds", "it wants other arguments than it got: put {host} and {port} where it takes them"),
    (r"can't open file|No such file or directory|Cannot find module|ClassNotFoundException|Could not find or load", "a file that it needs is not there"),
    (r"[Pp]ermission denied|EACCES", "it may not have what it asks for: a port below 1024, or a file"),
    (r"NameError|TypeError|AttributeError|UnboundLocalError", "it fails before it listens, by an error of its own"),
)  # fmt: skip


def _asks_a_question(printed: str) -> str:
    lines = [line for line in printed.splitlines() if line.strip()]
    if lines and re.search(r"[?:>]\s*$", lines[-1]):
        return f"it asks at the keyboard ({shown(lines[-1].encode(), 40)}), and nobody sits there"
    return ""


@dataclass
class _Story:
    """A history, told from the side of those who were not content."""

    events: Sequence[Event]
    clients: tuple[str, ...]
    framing: str
    dialect: Dialect
    step: Step | None
    _inboxes: dict[str, Inbox] = field(default_factory=dict)

    def inbox(self, name: str) -> Inbox:
        """All that a client received."""
        if name not in self._inboxes:
            inbox = self._inboxes[name] = Inbox(self.framing, self.dialect)
            for event in self.of(name):
                inbox.feed(event)
        return self._inboxes[name]

    def of(self, name: str) -> list[Event]:
        return [e for e in self.events if e.node == name]

    def got(self, name: str) -> list[bytes]:
        """The messages of its latest connection; the unfinished one too."""
        inbox = self.inbox(name)
        return [m.data for m in inbox.messages[inbox.first :]] + (
            [bytes(inbox._partial)] if inbox._partial else []
        )

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

    def heard(self, line: _Line) -> list[str]:
        """Who got a line; of a sender that is not to hear itself nothing is known."""
        return [n for n in self.everyone if (self.dialect.echo or n != line.who) and _in(line, self.got(n))]

    def unread(self, client: str) -> int | None:
        """Bytes of a client that lay in the server's socket at the end; None where its kernel was not asked."""
        seen = (e for e in reversed(self.events) if e.kind == "sockets" and e.node == "server")
        mine = next((e for e in seen if e.data.get("peer") == client), None)
        return int(mine.data.get("recv-q", 0)) if mine is not None else None

    @cached_property
    def lines(self) -> list[_Line]:
        """All lines that were said."""
        found: list[_Line] = []
        open_: dict[str, tuple[bytes, int]] = {}
        for event in self.events:
            if event.kind in ("connected", "closed", "aborted", "half-closed"):
                rest, pieces = open_.pop(event.node, (b"", 0))
                if rest:
                    found.append(_Line(event.node, rest, event.t, pieces, 1, ended=False))
            elif event.kind == "sent" and not event.data.get("join"):
                before, pieces = open_.pop(event.node, (b"", 0))
                chunks = len(event.data["chunks"])
                whole, rest = self.dialect.split(before + joined(event.data["chunks"]))
                for number, text in enumerate(whole):
                    cut = (pieces if number == 0 else 0) + (chunks if chunks > len(whole) else 1)
                    found.append(
                        _Line(event.node, text, event.t, cut, len(whole) if chunks < len(whole) else 1)
                    )
                if rest:
                    open_[event.node] = (rest, pieces + chunks)
        found += [
            _Line(name, rest, 1 << 62, pieces, 1, ended=False) for name, (rest, pieces) in open_.items()
        ]
        return [line for line in found if line.text]

    @cached_property
    def exit(self) -> Event | None:
        return next(
            (e for e in reversed(self.events) if e.kind == "exited" and not e.data.get("expected")), None
        )

    def wanted(self, name: str) -> list[re.Pattern[bytes]]:
        """What the failed step expected of a client, as far as it is text."""
        found = []
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
        return next((e.t for e in reversed(self.events) if e.kind == "connected" and e.node == name), 0)

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
class _Line:
    who: str
    text: bytes
    t: int
    pieces: int
    """In how many pieces it was sent."""
    beside: int
    """How many lines went out in one segment with it, itself included."""
    ended: bool = True
    """It had its newline."""


Rule = Callable[[_Story], str]


# ── what concerns any server ──────────────────────────────────────────────────────────────────────────────────────────


def _took_too_much(story: _Story) -> str:
    note = next((e for e in story.events if e.data.get("excess")), None)
    return f"the server {note.data['excess']}" if note else ""


def _died(story: _Story) -> str:
    end = story.exit
    if end is None:
        return ""
    what = _last_error(e for e in story.events if e.t <= end.t)
    status = int(end.data["status"])
    if not what and status == -13:
        what = (
            "SIGPIPE: it sent to a client that was gone, and the signal ends the process unless it is ignored"
        )
    elif not what and status < 0:
        what = f"signal {-status}" + (", a memory error" if status in (-11, -6, -7) else "")
    elif not what:
        what = f"it ended by itself, with status {status}"
    last = story.before(end.t, RIGHT_BEHIND)
    return f"the server's process ended in the middle of the play: {what}" + (
        f", right behind {_act(last)}" if last else ""
    )


def _act(event: Event) -> str:
    """What a client did, in words."""
    if event.kind == "sent":
        return f"{event.node}'s {shown(joined(event.data['chunks'])[:60])}"
    return (
        f"{event.node}'s "
        + {
            "closed": "FIN",
            "half-closed": "FIN",
            "aborted": "RST",
            "connected": "connect",
        }[event.kind]
    )


_EXPLAINED = {
    "BrokenPipeError": "it sent to a client that was gone (EPIPE), and nobody caught it",
    "ConnectionResetError": "a client ended with RST (ECONNRESET), and nobody caught it",
    "UnicodeDecodeError": "it takes bytes for text: decode() fails at what is no UTF-8",
    "changed size during iteration": "one thread changed the list of clients while another went through it",
    "OutOfMemoryError": "it ran out of memory",
}


def _last_error(events: Iterable[Event]) -> str:
    """The last line of the server's own complaint, explained where it is a known one."""
    printed = [
        str(e.data["text"]).encode(errors="surrogateescape").decode(errors="replace")
        for e in events
        if e.kind == "log"
    ]
    named = re.compile(r"^\s*(?:\w+\.)*\w*(?:Error|Exception|panicked|Exit)\b.*")
    error = next((text for text in reversed(printed) if named.match(text)), "")
    if not error:
        error = next(
            (t for t in reversed(printed) if re.search(r"(?i)panic|exception|fatal|segmentation|error:", t)),
            "",
        )
    if not error:
        return ""
    told = shown(error.strip().encode(), 120)[1:-1]
    explained = next((words for name, words in _EXPLAINED.items() if name in error), "")
    return f"{explained} ({told})" if explained else told


def _a_thread_died(story: _Story) -> str:
    """It goes on, but one of its workers printed a traceback."""
    printed = [e for e in story.events if e.kind == "log" and not str(e.data["text"]).startswith("{")]
    if not any(
        re.search(
            r"Traceback|Exception in thread|panicked at|Unhandled|Exception happened|exception was never",
            str(e.data["text"]),
        )
        for e in printed
    ):
        return ""
    error = _last_error(printed)
    return f"a worker of the server failed: {error}" if error else ""


_CLOSED = re.compile(r"(cut|reject)(,|$)")
"""A fault that lets nothing through, from its beginning."""


def _under_a_fault(story: _Story) -> str:
    links: dict[str, str] = next((e.data["links"] for e in reversed(story.events) if e.kind == "fault"), {})
    for client in story.clients:
        cut = [link for link in links if client in link.split("→") and "server" in link.split("→")]
        if cut and _CLOSED.match(links[cut[0]]):
            return f"the link {cut[0].replace('→', ' → ')} is still under a fault ({links[cut[0]]}); heal it first?"
    return ""


def _not_accepted(story: _Story) -> str:
    for client in story.clients:
        mine = story.of(client)
        if any(e.kind == "note" and e.data.get("waiting") for e in mine) and not any(
            e.kind == "received" for e in mine
        ):
            return f"the server has not accepted {client}'s connection: it serves one client at a time, or waits for another one in recv() or send()"
    return ""


def _leaks(story: _Story) -> str:
    if story.step is None or story.step.verb != "steady":
        return ""
    seen: dict[str, list[Event]] = {}
    for event in story.events:
        if event.kind == "holdings":
            seen.setdefault(event.node, []).append(event)
    for events in seen.values():
        clients = sum(e.kind == "connected" and e.t > events[0].t for e in story.events)
        growth = holdings.grown(events[0].data, events[-1].data, clients)
        if growth:
            what = next(iter(growth))
            why = {
                "descriptors": "a socket is not closed when its client leaves",
                "threads": "a thread does not end when its client leaves",
                "zombies": "children end, and nobody waits for them (waitpid)",
                "children": "a child process does not end when its client leaves",
                "memory": "what is kept for a client is not freed when it leaves",
            }[what]
            return f"{why}: {holdings.told_growth(growth)} more after {clients} clients came and went"
    return ""


def _ended_by_the_server(story: _Story) -> Iterator[tuple[str, Event]]:
    """Clients that the server has closed, with the event."""
    for client in story.clients or story.everyone:
        since = story.connected_at(client)
        mine = [
            e for e in story.of(client) if e.kind in ("eof", "reset", "closed", "aborted") and e.t >= since
        ]
        if mine and mine[0].kind in ("eof", "reset"):
            yield client, mine[0]


def _was_reset(story: _Story) -> str:
    for client, event in _ended_by_the_server(story):
        if event.kind == "reset":
            return f"{client}'s connection was reset: the server closed the socket with data unread, or its process died"
    return ""


def _turned_away(story: _Story) -> str:
    """The server closed a connection at once that others had for long, or one on which nobody spoke for a while."""
    if story.step is not None and any(e.kind in ("eof", "reset") for _, e in story.step.expects):
        return ""
    for client, event in _ended_by_the_server(story):
        mine = story.of(client)
        since = story.connected_at(client)
        said = [e.t for who, e, _ in story.said if who == client and since <= e.t <= event.t]
        heard = [e.t for e in mine if e.kind == "received" and e.t >= since]
        if any(e.kind == "half-closed" and e.t >= since for e in mine):
            continue
        idle = event.t - max([since, *said, *heard])
        if idle >= 0.3e9 and (heard or not said):
            return f"the server closed {client}'s connection after {idle / 1e9:.1f}s of silence: an idle connection stays open"
        if heard or (said and story.framing == LINE) or event.t - since >= 0.3e9:
            continue
        before = sum(e.kind == "connected" and e.t < since for e in story.events)
        here = sum(story.present(name, since) for name in story.everyone if name != client)
        if max(here, before) >= 3:
            most = f"{here} clients at once" if here >= 3 else f"{before} clients in its life"
            return f"the server takes no more than {most}: it closed {client}'s connection at once"
    return ""


# ── echo ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _never_closes(story: _Story) -> str:
    if story.step is None:
        return ""
    for client, expectation in story.step.expects:
        if expectation.kind != "eof" or client not in story.clients:
            continue
        mine = story.of(client)
        if any(e.kind in ("eof", "reset") for e in mine[-3:]):
            continue
        if any(e.kind == "half-closed" for e in mine):
            return f'the server does not close when {client} has half-closed: recv() returned b"", and close() is missing'
        quits = [data for who, _, data in story.said if who == client]
        if quits and quits[-1].rstrip(b"\r\n") == (story.dialect.quit or "quit").encode():
            return f"{client} said {story.dialect.quit}, and the server does not close its connection"
    return ""


def _reset_at_half_close(story: _Story) -> str:
    for client, event in _ended_by_the_server(story):
        if event.kind == "reset" and any(e.kind == "half-closed" for e in story.of(client)):
            return f"{client} half-closed and got RST: the server closed with data unread or unsent (SO_LINGER 0?)"
    return ""


def _others_bytes(story: _Story) -> str:
    one = "the server has one buffer, or one socket variable, for all"
    sent = {name: bytes(story.inbox(name).sent) for name in story.everyone}
    for client in story.everyone:
        got = bytes(story.inbox(client).stream)
        if sent[client].startswith(got):
            continue
        same = next(
            (i for i, (a, b) in enumerate(zip(got, sent[client], strict=False)) if a != b),
            min(len(got), len(sent[client])),
        )
        strange = got[same : same + 8]
        if same < len(sent[client]) and strange in sent[client]:
            continue
        others = [
            n
            for n in story.everyone
            if n != client
            and len(strange) >= 2
            and sent[n]
            and (strange in sent[n] or strange.startswith(sent[n]))
        ]
        if others and (client in story.clients or others[0] in story.clients):
            return f"{client} got what {others[0]} said: {one}"
    return ""


_WHOLE_BUFFER = (
    "it sends its whole buffer, not the n bytes that recv() gave (or one more, the NUL behind a C string)"
)


def _changed_bytes(story: _Story) -> str:
    """What an echo did to the bytes."""
    for client in story.clients:
        inbox = story.inbox(client)
        sent, got = bytes(inbox.sent), bytes(inbox.stream)
        if not sent or not got or sent.startswith(got):
            continue
        if any(other.startswith(got) for other in (sent.upper(), sent.lower(), sent.title(), sent[::-1])):
            return "it sends back something else than it got: an echo changes nothing"
        if (added := _added_before(sent, got)) or got.endswith(sent):
            added = added or got[: -len(sent)]
            first = next((e for e in story.of(client) if e.kind in ("received", "sent")), None)
            when = (
                "before anything was said"
                if first is not None and first.kind == "received"
                else "before the echo"
            )
            return f"it sends {shown(added, 40)} {when}: an echo adds nothing"
        if got.startswith(sent) and len(got) > len(sent) and not got[len(sent) :].strip(b"\0"):
            return _WHOLE_BUFFER
        if got.startswith(sent) and len(got) > len(sent):
            return f"it adds {shown(got[len(sent) :], 40)}: an echo adds nothing"
        if "\ufffd".encode() in got and "\ufffd".encode() not in sent:
            return 'it takes bytes for text: decode() with errors="replace" puts U+FFFD for what is no UTF-8'
        if got.strip() == sent.strip() or b"".join(sent.split()).startswith(b"".join(got.split())):
            return "strip() takes white space away from what was sent"
        at = next(
            (i for i, (a, b) in enumerate(zip(got, sent, strict=False)) if a != b), min(len(got), len(sent))
        )
        if sent[at : at + 1] == b"\0":
            return "it treats bytes as a C string: what stands behind a NUL is lost (strlen)"
        if got[at : at + 1] == b"\0":
            return _WHOLE_BUFFER
        piece = got[at : at + 64]
        later = sent.find(piece, at + 1) if len(piece) >= 16 else -1
        if later > at:
            how_many = (
                f"{later - at:,} of them " if sent.count(piece) == 1 else ""
            )  # a pattern tells no distance
            return f"it loses bytes on the way, {how_many}behind byte {at:,}: {_why_lost(at)}"
        first = next((e for e in story.of(client) if e.kind in ("received", "sent")), None)
        if first is not None and first.kind == "received":
            return f"it says {shown(first.content, 40)} before it is asked: an echo adds nothing"
        return f"it sends back something else than it got, from byte {at:,} on"
    return ""


def _added_before(sent: bytes, got: bytes) -> bytes:
    """What stands before the beginning of what was sent."""
    start = sent[: max(1, min(len(sent), 12))]
    at = got.find(start)
    return got[:at] if 0 < at <= 200 and (len(start) > 2 or got[at:] == sent[: len(got) - at]) else b""


def _why_lost(at: int) -> str:
    if at and at & (at - 1) == 0 and at <= 65536:
        return f"only the first {at} of what recv() gave are sent back"
    return "send() may take less than it is given, and what it returned was not looked at (sendall)"


def _less_came(story: _Story) -> str:
    """The beginning of what was sent, and no more."""
    for client in story.clients:
        inbox = story.inbox(client)
        sent, got = bytes(inbox.sent), bytes(inbox.stream)
        if len(got) >= len(sent) or not sent.startswith(got):
            continue
        mine = story.of(client)
        if inbox.ended and got and any(e.kind == "half-closed" for e in mine):
            return f"at the client's FIN {len(sent) - len(got):,} of {len(sent):,} bytes were still owed, and the server closed without them"
        if sent[len(got) : len(got) + 1] == b"\0":
            return "it treats bytes as a C string: what stands behind a NUL is lost (strlen)"
        if inbox.ended and got:
            return f"it closes the connection after {len(got):,} bytes: it answers once, and an echo goes on until the client ends"
        if inbox.ended and (event := next((e for _, e in _ended_by_the_server(story)), None)):
            return f"the server closed {client}'s connection instead of answering ({event.kind})"
        if (
            b"\n" not in sent[len(got) :]
            and not inbox.ended
            and not got.endswith(sent[-1:])
            and (not got or got.endswith(b"\n"))
        ):
            return "it waits for a newline (readline()) where bytes are to come back as they are"
        if got and got.strip() == sent.strip():
            return "strip() takes white space away from what was sent"
        if b"\n" in sent[len(got) :] and sent[len(got) :].isspace():
            return "strip() takes white space away from what was sent"
        if len(got) >= 256 and len(got) & (len(got) - 1) == 0:
            return f"only the first {len(got)} bytes of what recv() gave are sent back"
        if others := _stalled(story, client):
            return f"the server waits in send() to {others[0]}, who does not read, and everyone waits with it"
        if len(got) > 1024:
            return "send() may take less than it is given, and what it returned was not looked at (sendall)"
    return ""


def _stalled(story: _Story, but: str) -> list[str]:
    """Who does not read at the end."""
    state: dict[str, bool] = {}
    for event in story.events:
        if event.kind in ("stalled", "reading", "closed", "aborted", "connected"):
            state[event.node] = event.kind == "stalled"
    return [name for name, stalled in state.items() if stalled and name != but]


def _cut_off(story: _Story, t: int, but: str) -> str:
    """Who else was behind a link that let nothing through at a time."""
    links: dict[str, str] = next(
        (e.data["links"] for e in reversed(story.events) if e.kind == "fault" and e.t <= t), {}
    )
    cut = [link.split("→") for link, fault in links.items() if _CLOSED.match(fault)]
    return next((end for ends in cut for end in ends if end in story.everyone and end != but), "")


def _blocked_by_another(story: _Story) -> str:
    """Accepted, and not served, while others are in the middle of something."""
    for client in story.clients:
        mine = [(e, data) for who, e, data in story.said if who == client]
        if not mine or any(e.kind == "received" and e.t > mine[-1][0].t for e in story.of(client)):
            continue
        t = mine[-1][0].t
        if others := _stalled(story, client):
            return f"the server waits in send() to {others[0]}, who does not read, and everyone waits with it"
        here = [name for name in story.everyone if name != client and story.present(name, t)]
        answered = [n for n in here if any(e.kind == "received" for e in story.of(n))]
        nothing = not any(e.kind == "received" for e in story.of(client))
        if story.framing == STREAM and nothing and len(answered) >= 2:
            return f"the server serves no more than {len(answered)} clients at once: {client} waits until one leaves"
        silent = [
            n for n in here if not any(e.t > story.connected_at(n) for who, e, _ in story.said if who == n)
        ]
        half = [
            line.who
            for line in story.lines
            if not line.ended and line.t == 1 << 62 and story.present(line.who, t)
        ]
        if half and story.framing == LINE:
            return f"the server waits for the end of {half[0]}'s unfinished line (readline()), and everyone waits with it"
        heard = any(e.kind == "received" and e.t > t for e in story.events)
        if heard or not here:
            continue
        if away := _cut_off(story, t, but=client):
            return f"the server waits in send() to {away}, who is cut off, and everyone waits with it"
        if silent and story.unread(client) != 0:
            return f"the server waits in recv() for {silent[0]}, who is silent, and does not serve {client} meanwhile"
    return ""


# ── chat ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _for_each(rule: Callable[[_Story, str, list[bytes]], str]) -> Rule:
    def each(story: _Story) -> str:
        return next(
            (cause for c in story.clients if c in story.everyone and (cause := rule(story, c, story.got(c)))),
            "",
        )

    return each


def _lines_were_joined(story: _Story, client: str, got: list[bytes]) -> str:
    for first, second in zip(story.lines, story.lines[1:], strict=False):
        if first.who != second.who or first.text in second.text or second.text in first.text:
            continue
        for line in got:
            if first.text in line and second.text in line[line.find(first.text) + len(first.text) :]:
                if first.beside > 1 or second.beside > 1:
                    return (
                        "lines that came in one segment were delivered as one: recv() is taken for a message"
                    )
                return "lines are delivered without the newline that ends them"
    return ""


def _a_line_was_cut(story: _Story, client: str, got: list[bytes]) -> str:
    for line in story.lines:
        if line.pieces < 2 or any(line.text in each for each in got):
            continue
        size = max(3, len(line.text) // 8)  # fewer bytes are in anything
        begin, end = line.text[:size], line.text[-size:]
        starts = [i for i, each in enumerate(got) if begin in each]
        if starts and any(each.endswith(end) for each in got[starts[0] + 1 :]):
            return "a line that came in pieces was delivered as several: recv() is taken for a message"
        if starts and len(line.text) < 200:
            return "only a piece of a line was delivered: recv() is taken for a message"
    return ""


def _a_long_line_was_cut(story: _Story, client: str, got: list[bytes]) -> str:
    for line in story.lines:
        if len(line.text) < 1000 or any(line.text in each for each in got):
            continue
        for each in got:
            size = _common(each, line.text)
            if size >= 200 and size < len(line.text):
                of = len([e for e in got if len(e) >= 100 and any(e[-n:] in line.text for n in (60,))])
                if of > 1:
                    return f"a line of {len(line.text):,} bytes came out in pieces, the first of {size:,}: recv() is taken for a message, or others' lines come in between"
                return f"of a line of {len(line.text):,} bytes only the first {size:,} were delivered: a buffer's size is taken for the longest line"
    return ""


def _common(got: bytes, text: bytes) -> int:
    """How much of the beginning of a text stands at the end of, or inside, what was got."""
    at = got.find(text[:100])
    if at < 0:
        return 0
    size = 0
    for a, b in zip(got[at:], text, strict=False):
        if a != b:
            break
        size += 1
    return size


def _without_newline(story: _Story, client: str, got: list[bytes]) -> str:
    inbox = story.inbox(client)
    partial = bytes(inbox._partial)
    if partial and not inbox.ended and any(line.ended and line.text in partial for line in story.lines):
        return "lines are delivered without the newline that ends them"
    return ""


def _only_the_first(story: _Story, client: str, got: list[bytes]) -> str:
    segments: dict[tuple[str, int], list[_Line]] = {}
    for line in story.lines:
        if line.beside > 1 and line.t >= story.connected_at(client):
            segments.setdefault((line.who, line.t), []).append(line)
    for first, *rest in segments.values():
        came = any(_in(line, story.got(name)) for line in rest for name in story.everyone)
        if rest and _in(first, got) and not came:
            return (
                "of several lines in one segment only the first was delivered: recv() is taken for a message"
            )
    return ""


def _in(line: _Line, got: Iterable[bytes]) -> bool:
    return any(line.text in each for each in got)


def _missing(story: _Story, client: str, got: list[bytes]) -> list[_Line]:
    """The lines that were said while the client was there and that it did not get."""
    since = story.connected_at(client)
    quits = (story.dialect.quit or "quit").encode()
    return [
        line for line in story.lines
        if line.ended and story.is_wanted(client, line.text) and line.t > since and line.text.strip() not in (quits, b"") and not _in(line, got)
    ]  # fmt: skip


def _from_the_past(story: _Story, client: str, got: list[bytes]) -> str:
    since = story.connected_at(client)
    later = {line.text for line in story.lines if line.t >= since}
    for line in story.lines:
        if line.t < since and len(line.text) > 2 and line.text not in later and _in(line, got):
            return f"{client} got {shown(line.text, 40)}, which was said before it came: newcomers are told the past"
    return ""


def _behind_quit(story: _Story, client: str, got: list[bytes]) -> str:
    quit_ = (story.dialect.quit or "quit").encode()
    gone: set[str] = set()
    for line in story.lines:
        if line.text == quit_ and line.ended:
            gone.add(line.who)
        elif (
            line.who in gone
            and line.t > story.connected_at(line.who)
            and _in(line, got)
            and not _again(story, line)
        ):
            return f"what {line.who} said behind {quit_.decode()} was delivered: the rest of the segment is still worked off"
    return ""


def _again(story: _Story, line: _Line) -> bool:
    """Whether its sender connected anew between its quit and this line."""
    return sum(e.kind == "connected" for e in story.of(line.who)) > 1


def _twice(story: _Story, client: str, got: list[bytes]) -> str:
    counts = Counter(line.text for line in story.lines)
    for line in story.lines:
        came = sum(line.text in each for each in got)
        if (
            came <= counts[line.text]
            or len(line.text) < 2
            or not any(c.isalnum() for c in line.text.decode(errors="replace"))
            or any(line.text in o.text for o in story.lines if o.text != line.text)
        ):
            continue
        others = [n for n in story.everyone if n not in (client, line.who) and story.connected_at(n)]
        if line.who == client and not any(
            sum(line.text in e for e in story.got(o)) > counts[line.text] for o in others
        ):
            return "the sender gets its own line twice: once with all the others, and once more"
        return f"{client} got {shown(line.text, 40)} {came} times: it stands in the list of clients more than once, or a line is sent again"
    return ""


def _order(story: _Story, client: str, got: list[bytes]) -> str:
    places: dict[str, list[int]] = {}
    times = Counter(line.text for line in story.lines)
    for line in story.lines:
        if (
            times[line.text] == 1
            and not any(line.text in other.text for other in story.lines if other.text != line.text)
            and line.t > story.connected_at(client)
            and (at := [i for i, each in enumerate(got) if line.text in each])
        ):
            places.setdefault(line.who, []).append(min(at, key=lambda i: len(got[i])))
    for who, order in places.items():
        if order != sorted(order):
            return f"{who}'s lines overtook one another: each is delivered by a thread or task of its own"
    return ""


def _interleaved(story: _Story, client: str, got: list[bytes]) -> str:
    long = [line for line in story.lines if len(line.text) > 400]
    for each in got:
        senders = {
            line.who for line in story.lines if line.text and (line.text in each or line.text[:60] in each)
        }
        if len(senders) > 1 and (long or len(each) > 2 * max(len(line.text) for line in story.lines)):
            return "lines of different senders are mixed into one another: pieces are passed on as recv() gives them, or several threads send() on one socket without a lock"
    return ""


def _changed_text(story: _Story, client: str, got: list[bytes]) -> str:
    for line in story.lines:
        if _in(line, got) or line.t < story.connected_at(client):
            continue
        if any("\ufffd".encode() in each for each in got) and not line.text.isascii():
            return 'it takes bytes for text: decode() with errors="replace" puts U+FFFD for what is no UTF-8'
        text = line.text.strip()
        if text and text != line.text and any(each.endswith(text) or text in each for each in got):
            return "strip() takes away blanks that belong to the line"
        plain = line.text.decode(errors="ignore").encode()
        if plain != line.text and plain and any(plain in each for each in got):
            return "it takes bytes for text: what is no UTF-8 is left out"
    return ""


def _not_to_itself(story: _Story, client: str, got: list[bytes]) -> str:
    missing = _missing(story, client, got)
    others = [n for n in story.everyone if n != client]
    if any(line.who != other for other in story.clients for line in _missing(story, other, story.got(other))):
        return ""
    if (
        missing
        and all(line.who == client for line in missing)
        and any(_in(line, story.got(o)) for line in missing for o in others)
    ):
        return "the sender does not get its own line: it goes to the others only"
    alone = not any(story.present(name, line.t) for name in others for line in missing)
    if missing and alone and not got and all(line.who == client for line in missing):
        return f"{client} is alone in the room and does not hear itself: the sender is a member, too"
    return ""


def _passed_by(story: _Story, client: str, got: list[bytes]) -> str:
    """Others got a line, this client did not."""
    for line in _missing(story, client, got):
        heard = [n for n in story.heard(line) if n != client]
        if not heard or client == line.who:
            continue
        nodes: dict[str, str] = next((e.data["nodes"] for e in story.events if e.kind == "play"), {})
        twin = next(
            (n for n in story.everyone if n != client and nodes.get(n) and nodes.get(n) == nodes.get(client)),
            "",
        )
        if twin and twin in heard:
            return f"{client} and {twin} are on one host, and only {twin} hears: clients are told apart by their IP address alone"
        came_at = story.connected_at(client)
        leavers = [e.node for e in story.events if e.kind in ("closed", "aborted") and came_at < e.t < line.t]
        if leavers or any(_quit_said(story, n, came_at, line.t) for n in story.everyone):
            return f"after somebody left, {client} was passed by: the list of clients is changed while it is gone through, or one failed send() ends the round"
        spoke = any(who == client for who, e, _ in story.said if e.t > story.connected_at(client))
        if not spoke and not got and all(any(who == n for who, _, _ in story.said) for n in heard):
            return f"{client} has not said anything yet and hears nothing: a member is who is connected, not who has spoken"
        came = sorted((n for n in story.everyone if story.connected_at(n)), key=story.connected_at)
        newest = came[
            -max(len(heard), len(came) // 3) :
        ]  # a crowd comes nearly at once: its order is not exact
        if others := _stalled(story, client):
            return f"the server waits in send() to {others[0]}, who does not read, and everyone waits with it"
        if away := _cut_off(story, line.t, but=client):
            return f"the server waits in send() to {away}, who is cut off, and everyone waits with it"
        if client not in newest and set(heard) <= set(newest):
            return "only the newest clients hear: an older one's socket is overwritten by a newcomer's"
        return f"{client} was passed by, while {', '.join(heard[:3])} got it: the round through the clients ends too early"
    return ""


def _quit_said(story: _Story, name: str, since: int, t: int) -> bool:
    return any(who == name and since < e.t < t and data.strip() == b"quit" for who, e, data in story.said)


def _thrown_out(story: _Story) -> str:
    """The server closed a connection that it should not have closed: at what?"""
    if story.step is not None and any(e.kind in ("eof", "reset") for _, e in story.step.expects):
        return ""
    for client, event in [*_ended_by_the_server(story), *_thrown_others(story)]:
        said = [
            (e, data)
            for who, e, data in story.said
            if who == client and story.connected_at(client) <= e.t <= event.t
        ]
        if not said:
            continue
        quit_ = (story.dialect.quit or "quit").encode()
        last = said[-1][1]
        lines = [line for _, data in said[-3:] for line in data.split(b"\n")]
        if quit_ in (line.rstrip(b"\r") for line in lines):
            continue
        if any(quit_ in line for line in lines):
            return f"{client} was thrown out for a line in which {quit_.decode()} only occurs"
        if b"\n\n" in last or last in (b"\n", b"\r\n") or b"\n\r\n" in last:
            return f'{client} was thrown out for an empty line: the end of a connection is recv() giving b"", not an empty line'
        try:
            last.decode()
        except UnicodeDecodeError:
            return f"{client} was thrown out for bytes that are no UTF-8: it takes bytes for text"
        if b"\0" in last:
            return f"{client} was thrown out for a NUL byte"
        longest = max(len(line) for line in last.split(b"\n"))
        if longest > 1000:
            return f"{client} was thrown out for a line of {longest:,} bytes"
    return ""


def _thrown_others(story: _Story) -> Iterator[tuple[str, Event]]:
    for client in story.everyone:
        mine = [
            e
            for e in story.of(client)
            if e.kind in ("connected", "eof", "reset", "closed", "aborted", "half-closed")
        ]
        if (
            client not in story.clients
            and mine
            and mine[-1].kind in ("eof", "reset")
            and (len(mine) < 2 or mine[-2].kind == "connected")
        ):
            yield client, mine[-1]


def _last_line_lost(story: _Story, client: str, got: list[bytes]) -> str:
    for line in story.lines:
        said_last = not line.ended and line.t < 1 << 62 and line.who != client
        ends = [e for e in story.of(line.who) if e.kind in ("closed", "half-closed") and e.t >= line.t]
        if said_last and ends and story.is_wanted(client, line.text) and not _in(line, got):
            return f"what {line.who} said last, without a newline before its FIN, was lost: at the end of a connection the rest of the buffer is a line"
    return ""


def _nobody_heard(story: _Story) -> str:
    for client in story.clients:
        missing = _missing(story, client, story.got(client)) if client in story.everyone else []
        for line in missing:
            if story.heard(line):
                continue
            if others := _stalled(story, client):
                return f"the server waits in send() to {others[0]}, who does not read, and everyone waits with it"
            if away := _cut_off(story, story.events[-1].t, but=client):
                return f"the server waits in send() to {away}, who is cut off, and everyone waits with it"
            if story.unread(line.who) == 0 and not any(story.got(n) for n in story.everyone):
                return f"the server reads what {line.who} says and sends it to nobody: is its list of clients empty, or the first line taken for a name (--dialect join={{name}})?"
    return ""


# ── datagrams ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _datagram_cut(story: _Story, client: str, got: list[bytes]) -> str:
    every = {data for _, _, data in story.said}
    for data in every:
        for each in got:
            if each in every or not each:
                continue
            if len(each) >= 200 and len(each) < len(data) and data.startswith(each):
                return f"of a datagram of {len(data):,} bytes {len(each):,} came: recvfrom({len(each)}) throws the rest away"
            if each.strip() == data.strip():
                return "strip() takes white space away from what was sent"
            if len(data) > 2 and each.endswith(data):
                return f"it puts {shown(each[: -len(data)], 40)} before what was sent: a datagram is delivered unchanged"
    return ""


_REG, _DEREG = b"#REG", b"#DEREG"


def _registry(story: _Story) -> str:
    """What a registry did that one of the contract would not have done. A model of it goes along with what was said."""
    members: set[str] = set()
    nodes: dict[str, str] = next((e.data["nodes"] for e in story.events if e.kind == "play"), {})
    if not any(data.strip() == _REG for _, _, data in story.said):
        return ""
    got = {name: story.got(name) for name in story.everyone}
    heard = {
        name: [(e.t, e.content) for e in story.of(name) if e.kind == "received"] for name in story.everyone
    }
    times = Counter(data for _, _, data in story.said)
    owed: set[bytes] = set()
    for who, _, data in story.said:
        members = (
            members | {who}
            if data.strip() == _REG
            else members - {who}
            if data.strip() == _DEREG
            else members
        )
        if who in members:
            owed.add(data)
    members = set()
    for who, event, data in story.said:
        word = data.strip()
        answered = any(t > event.t for t, _ in heard[who])
        if word in (_REG, _DEREG):
            other = next((n for n in story.everyone if n != who and data in got[n]), "")
            if other:
                return f"{other} got {who}'s {shown(word)}: a command is between one client and the server, and is not delivered"
            if who in story.clients and not answered and not got[who]:
                if word != data:
                    return f"{shown(data)} is not taken for a command: white space around it does not count"
                if not any(word != d and w == who for w, _, d in story.said if d.strip() in (_REG, _DEREG)):
                    return f"{shown(word)} is not answered: a client cannot know whether it is registered"
            members = members | {who} if word == _REG else members - {who}
            continue
        for name in story.clients:
            came = sum(each == data for each in got.get(name, []))
            twin = next((n for n in members if n != name and nodes.get(n) == nodes.get(name)), "")
            if came and data not in owed:
                return f"{who} has not registered, and what it says is delivered: before anything is delivered, its sender is looked up"
            if came > times[data] and name in members:
                return f"{name} is registered more than once: a second #REG adds it again (a list where a set is wanted)"
            if who in members and name in members and not came and len(data) < 2000 and times[data] == 1:
                if twin and data in got.get(twin, []):
                    return f"{name} and {twin} are on one host, and only {twin} is known: clients are told apart by their IP address alone"
                if any(
                    d.strip() == _DEREG and nodes.get(w) == nodes.get(name) and w != name
                    for w, _, d in story.said
                ):
                    return f"when a client of the same host left, {name} was taken off with it: a client is address and port together"
                if data.upper().find(_REG) >= 0 or data.upper().find(_DEREG) >= 0:
                    return (
                        f"{shown(data)} is taken for a command, and is a text: only the exact command is one"
                    )
                if name == who and not any(data in got[n] for n in members - {name}) and len(members) > 1:
                    continue
                if name == who:
                    return "what is said goes to every member but its sender: the sender is one of them, too"
            if name not in members and came:
                return f"{name} is not registered, and hears what is said: who sends something is taken in, or #DEREG is not obeyed"
    return ""


def _datagram_from_elsewhere(story: _Story, client: str, got: list[bytes]) -> str:
    ready = next((e for e in story.events if e.kind == "ready"), None)
    for event in story.of(client):
        if (
            event.kind == "received"
            and ready is not None
            and (source := event.data.get("from"))
            and source[1] != ready.data["port"]
        ):
            return f"the answer came from port {source[1]}, not from the server's own: a second socket sends it, and many clients throw it away"
    return ""


def _to_another(story: _Story, client: str, got: list[bytes]) -> str:
    for who, _, data in story.said:
        if who == client and len(data) > 2 and data not in got:
            other = next(
                (
                    n
                    for n in story.everyone
                    if n != client
                    and data in story.got(n)
                    and not any(d == data for w, _, d in story.said if w == n)
                ),
                "",
            )
            if other and not got:
                return f"what {client} said went to {other}: the address of the first client is kept for all"
    return ""


def _silent_from_then_on(story: _Story) -> str:
    """It runs, but has not answered anybody since a certain datagram."""
    answered = [e.t for e in story.events if e.kind == "received"]
    later = [(who, e, data) for who, e, data in story.said if not answered or e.t > answered[-1]]
    if len(later) >= 1 and answered and later[0][2] == b"":
        return "since an empty datagram it answers nobody: an empty one is no end of anything in UDP"
    return ""


_FIRST: tuple[Rule, ...] = (_took_too_much, _died, _a_thread_died, _under_a_fault, _leaks, _not_accepted)
_ECHO: tuple[Rule, ...] = (
    _turned_away,
    _reset_at_half_close,
    _never_closes,
    _others_bytes,
    _changed_bytes,
    _blocked_by_another,
    _less_came,
)
_CHAT: tuple[Rule, ...] = (
    _turned_away,
    _never_closes,
    _for_each(_interleaved),
    _for_each(_lines_were_joined),
    _for_each(_without_newline),
    _for_each(_order),
    _for_each(_only_the_first),
    _for_each(_a_line_was_cut),
    _for_each(_a_long_line_was_cut),
    _for_each(_from_the_past),
    _for_each(_behind_quit),
    _for_each(_twice),
    _for_each(_changed_text),
    _thrown_out,
    _for_each(_last_line_lost),
    _for_each(_not_to_itself),
    _for_each(_passed_by),
    _blocked_by_another,
    _nobody_heard,
)
_DATAGRAMS: tuple[Rule, ...] = (
    _for_each(_datagram_from_elsewhere),
    _for_each(_datagram_cut),
    _registry,
    _for_each(_to_another),
    _silent_from_then_on,
)
_LAST: tuple[Rule, ...] = (_was_reset,)
