"""Likely causes that concern any server. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from socklab import holdings
from socklab.causes.story import (
    CLOSED,
    RIGHT_BEHIND,
    Rule,
    Story,
    ended_by_the_server,
    who_is_cut_off,
    who_stalls,
)
from socklab.history import Event, joined
from socklab.matching import LINE, STREAM, shown


def _took_too_much(story: Story) -> str:
    note = next((e for e in story.events if e.data.get("excess")), None)
    return f"the server {note.data['excess']}" if note else ""


def _died(story: Story) -> str:
    end = story.exit
    if end is None:
        return ""
    what = last_error(e for e in story.events if e.t <= end.t)
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
    "Broken pipe": "it sent to a client that was gone (EPIPE), and nobody caught it",
    "Connection reset": "a client ended with RST (ECONNRESET), and nobody caught it",
    "ERR_STREAM_WRITE_AFTER_END": "it writes to a connection that it has ended itself: whoever leaves has to be off the list before end()",
    "TimeoutError": "settimeout() ended a wait, and nobody caught it: that a client says nothing is no error",
    "Too many open files": "it has no descriptor left (EMFILE), and nobody caught it",
    "EPIPE": "it sent to a client that was gone (EPIPE), and nobody caught it",
    "ECONNRESET": "a client ended with RST (ECONNRESET), and nobody caught it",
    "BlockingIOError": "a call on a non-blocking socket would have had to wait (EAGAIN), and nobody caught it: what send() does not take has to be kept until there is room",
    "JSONDecodeError": "it takes a line for JSON, and a line is any bytes",
    "UnicodeDecodeError": "it takes bytes for text: decode() fails at what is no UTF-8",
    "Bad file descriptor": "it uses a socket that it has closed itself (EBADF): whoever leaves has to be off the list before close()",
    "changed size during iteration": "one thread changed the list of clients while another went through it",
    "OutOfMemoryError": "it ran out of memory",
}


def last_error(events: Iterable[Event]) -> str:
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


def _a_thread_died(story: Story) -> str:
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
    error = last_error(printed)
    return f"a worker of the server failed: {error}" if error else ""


def _under_a_fault(story: Story) -> str:
    links: dict[str, str] = next((e.data["links"] for e in reversed(story.events) if e.kind == "fault"), {})
    for client in story.clients:
        cut = [link for link in links if client in link.split("→") and "server" in link.split("→")]
        if cut and CLOSED.match(links[cut[0]]):
            return f"the link {cut[0].replace('→', ' → ')} is still under a fault ({links[cut[0]]}); heal it first?"
    return ""


def _does_not_run(story: Story) -> str:
    """The scenario itself has stopped the server, or ended it: whoever waits for an answer waits in vain."""
    if not story.clients or (story.step is not None and story.step.verb == "quiet"):
        return ""
    ends = {"eof", "reset"} & {e.kind for _, e in story.step.expects} if story.step is not None else set()
    fates: dict[str, Event] = {
        e.node: e for e in story.events if e.kind in ("spawned", "exited", "signalled")
    }
    for name, last in fates.items():
        if any(e.t > last.t for client in story.clients for e in story.of(client) if e.kind == "received"):
            continue
        if last.data.get("signal") == "SIGSTOP":
            return f"{_called(name)} is paused, and its process does nothing until it may go on; `continue: {name}` first?"
        if last.kind == "exited" and last.data.get("expected") and not ends:
            return f"{_called(name)} does not run: the scenario has ended it; `restart: {name}` first?"
    return ""


def _gets_slower(story: Story) -> str:
    """It takes ever longer to serve somebody, and holds things for nearly all who have left."""
    if story.step is None or story.step.verb not in ("connect", "repeat"):
        return ""
    held = next((e for e in reversed(story.events) if e.kind == "holdings"), None)
    left = sum(e.kind in ("closed", "aborted") for e in story.events)
    for what in ("zombies", "threads", "children", "descriptors") if held is not None else ():
        if held is not None and left >= MANY and held.data[what] >= 0.8 * left:
            loop = ' (at its end recv() gives b"": does the loop go on?)' if what == "threads" else ""
            return f"{_LEAKED[what]}{loop}: it has {held.data[what]} {what} when {left} clients came and went, and gets slower with each"
    return ""


MANY = 50  # clients; of fewer, a pool's threads may be as many


def _slow_to_accept(story: Story) -> str:
    if story.step is None or story.step.verb not in ("connect", "repeat"):
        return ""
    came = sum(e.kind == "connected" for e in story.events)
    waited = sum(e.kind == "note" and bool(e.data.get("waiting")) for e in story.events)
    if waited >= 3 and waited * 2 >= came:
        return f"{waited} of {came} connections waited in the accept queue: the server does something that takes its time between one accept() and the next"
    return ""


def _called(name: str) -> str:
    return "the server" if name == "server" else name


def _queue_is_full(story: Story) -> str:
    """A SYN that finds the accept queue full is dropped; to its client the network is silent."""
    for client in story.clients:
        last = next((e for e in reversed(story.of(client)) if e.kind in ("connected", "refused")), None)
        if last is None or last.kind != "refused" or last.data["error"] != "timed out":
            continue
        for event in reversed(story.events):
            if event.kind == "sockets" and event.data["peer"] == "listen" and event.t >= last.t:
                waiting, backlog = event.data.get("accept-queue", 0), event.data.get("backlog", 0)
                if waiting > backlog:
                    room = f", the backlog of listen() is {backlog}" if backlog else ""
                    return (
                        f"the accept queue of {_called(event.node)} is full: {waiting} connections wait for accept(){room}, and the kernel drops "
                        f"the SYN of {client} and of all who come now: call accept() again at once, whatever the clients do, or give listen() more"
                    )
    return ""


def _not_accepted(story: Story) -> str:
    for client in story.clients:
        mine = story.of(client)
        if any(e.kind == "note" and e.data.get("waiting") for e in mine) and not any(
            e.kind == "received" for e in mine
        ):
            t = story.connected_at(client)
            if not any(story.present(n, t) for n in story.everyone if n != client):
                return f"the server has not accepted {client}'s connection, and nobody else is there: it is not at its accept(), or has never come to it"
            return f"the server has not accepted {client}'s connection: it serves one client at a time, or waits for another one in recv() or send()"
    return ""


_LEAKED = {
    "descriptors": "a socket is not closed when its client leaves",
    "threads": "a thread does not end when its client leaves",
    "zombies": "children end, and nobody waits for them (waitpid)",
    "children": "a child process does not end when its client leaves",
    "memory": "what is kept for a client is not freed when it leaves",
}


def _leaks(story: Story) -> str:
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
            why = _LEAKED[next(iter(growth))]
            return f"{why}: {holdings.told_growth(growth)} more after {clients} clients came and went"
    return ""


def _was_reset(story: Story) -> str:
    for client, event in ended_by_the_server(story):
        if event.kind == "reset":
            return f"{client}'s connection was reset: the server closed the socket with data unread, or its process died"
    return ""


def turned_away(story: Story) -> str:
    """The server closed a connection at once that others had for long, or one on which nobody spoke for a while."""
    if story.step is not None and any(e.kind in ("eof", "reset") for _, e in story.step.expects):
        return ""
    for client, event in ended_by_the_server(story):
        mine = story.of(client)
        since = story.connected_at(client)
        said = [e.t for who, e, _ in story.said if who == client and since <= e.t <= event.t]
        heard = [e.t for e in mine if e.kind == "received" and e.t >= since]
        if any(e.kind == "half-closed" and e.t >= since for e in mine):
            continue
        if any(
            e.data.get("signal") in ("SIGKILL", "SIGTERM") and since <= e.t <= event.t for e in story.events
        ):
            continue  # the scenario ended it
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


def never_closes(story: Story) -> str:
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


def blocked_by_another(story: Story) -> str:
    """Accepted, and not served, while others are in the middle of something."""
    for client in story.clients:
        mine = [(e, data) for who, e, data in story.said if who == client]
        if not mine or any(e.kind == "received" and e.t > mine[-1][0].t for e in story.of(client)):
            continue
        t = mine[-1][0].t
        if others := who_stalls(story, client):
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
        if away := who_is_cut_off(story, t, but=client):
            return f"the server waits in send() to {away}, who is cut off, and everyone waits with it"
        if silent and story.unread(client) != 0:
            return f"the server waits in recv() for {silent[0]}, who is silent, and does not serve {client} meanwhile"
    return ""


FIRST: tuple[Rule, ...] = (
    _took_too_much,
    _died,
    _a_thread_died,
    _does_not_run,
    _under_a_fault,
    _leaks,
    _gets_slower,
    _queue_is_full,
    _slow_to_accept,
    _not_accepted,
)

LAST: tuple[Rule, ...] = (_was_reset,)
