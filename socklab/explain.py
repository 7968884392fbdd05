"""What each step of a scenario will do, in plain words, before anything is played. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from socklab.language import FAULT_VERBS
from socklab.scenario import Scenario
from socklab.source import printable
from socklab.steps import LoadOptions, Payload, Step

_CLIENTS = {
    "half-close": "{who} says FIN: it sends nothing more, and goes on reading",
    "close": "{who} closes: FIN",
    "abort": "{who} ends the connection with RST; what is unsent is thrown away",
    "stall": "{who} stops reading, with a small receive buffer: soon the server's send() finds no room",
    "read": "{who} reads again",
    "kill": "{who} gets SIGKILL: the process ends at once, and its kernel says FIN or RST for it",
    "stop": "{who} gets SIGTERM; done when it listens no more, and it is killed if it goes on listening",
    "pause": "{who} is frozen (SIGSTOP): its kernel goes on acknowledging, nobody reads",
    "continue": "{who} goes on (SIGCONT)",
    "restart": "{who} is ended if it runs, and started again on the same address",
    "unplug": "the cable of {who} is pulled: its interfaces go away, and sends fail at once",
    "plug": "the cable of {who} is plugged in again",
    "steady": "look into the process of {who}: it may hold no more descriptors, threads, children and memory than at the first look",
}


def scenario(play: Scenario) -> Iterator[str]:
    """A line for each step, those within others indented."""
    variant = f" [{play.variant}]" if play.variant else ""
    yield f"{play.path}{variant}  {printable(play.title)}"
    hosts = [f"{c.name} (on the host of {c.beside})" if c.beside else c.name for c in play.clients]
    yield f"  the server {play.service} is started, and when its kernel listens the clients are there: {_some(hosts)}"
    yield from _steps(play, play.steps, 1)
    yield "  at the end: nothing came that was to come once only, and the server still runs"


def _steps(play: Scenario, steps: Iterable[Step], depth: int) -> Iterator[str]:
    for step in steps:
        pad = "  " * depth
        for text in _step(play, step):
            yield f"{pad}{step.line:>3}: {text}"
        inner = step.steps or step.during
        if inner:
            yield from _steps(play, inner, depth + 1)
            if step.during:
                yield f"{pad}     and then that is undone"


def _step(play: Scenario, step: Step) -> Iterator[str]:
    within = "" if step.within is None else f", within {step.within:g}s"
    match step.verb:
        case "connect":
            for name, options in step.connects:
                to = options.to or "the server"
                port = f" port {options.port}" if options.port else ""
                how = (
                    f", and that must fail: {options.fails}"
                    if options.fails
                    else "; done when the server has accepted it"
                )
                yield f"{name} connects to {to}{port}{how}"
        case "send":
            for name, payloads in step.sends:
                yield f"{name} sends {' and then '.join(map(_payload, payloads))}; done when its kernel has it all"
        case "expect":
            for name, expectation in step.expects:
                limit = within or ", within 2s"
                if name == "wire":
                    yield f"there must be {expectation}{limit}"
                else:
                    verb = "must have printed" if expectation.log else "must get"
                    yield f"{name} {verb} {expectation}{limit}".replace(
                        "must get its process to end", "must end"
                    )
        case "load":
            for name, load in step.loads:
                yield _load(play, name, load)
        case "quiet":
            for name, window in step.windows:
                yield f"{name} must get nothing for {window:g}s, counted from the last step that did something"
        case "sockets":
            for who, peer, wanted in step.sockets:
                yield f"the kernel of {who} must say of its socket to {peer}: {', '.join(f'{k} {v}' for k, v in wanted.items())}"
        case "set":
            for name, options_ in step.options:
                yield f"{name} sets {', '.join(f'{k}={v}' for k, v in options_)} on its socket"
        case "heal":
            yield f"link faults are undone: {_links(step.links) or 'all of them'}"
        case "together":
            yield "all of these at once; done when all are"
        case "repeat":
            yield f"{step.times} times over{within}:"
        case "wait":
            yield f"{step.seconds:g}s pass"
        case "note":
            yield printable(step.note or "")
            return
        case verb if verb in FAULT_VERBS:
            told = step.fault.get("told") or ""
            lasts = f", for {step.lasts:g}s" if step.lasts else ""
            yield (
                f"{verb} {told}".rstrip()
                + f" on {_links(step.links)}{lasts}; it holds before the next step begins"
            )
        case verb:
            yield _CLIENTS[verb].format(who=_some(step.names)) + within
    if step.note:
        yield f"({printable(step.note)})"


def _load(play: Scenario, name: str, load: LoadOptions) -> str:
    """Who says something, and who must hear it."""
    of = next(client.of for client in play.clients if client.name == name)
    match play.contract:
        case "chat" | "registry" as contract:
            order = " and in order" if contract == "chat" else ""
            speak = f"{load.senders:,} of {name}'s {of:,} {'say' if load.senders > 1 else 'says'}"
            return f"{speak} {load}; the other {of - load.senders:,} listen, and each must hear every message once, whole{order}"
        case "echo" | "udp-echo":
            return f"each of {name}'s {of:,} says {load}, together; all must come back to who said it, once and whole"
        case _:
            return f"{name} says {load}; every message must come once, whole and in order to everyone it is owed to"


def _payload(payload: Payload) -> str:
    if payload.text is None:
        said = repr(payload.raw[:40])[1:] + ("…" if len(payload.raw) > 40 else "")
    else:
        said = f'"{printable(payload.text, 60)}"'
    if payload.repeat > 1:
        said += f" {payload.repeat} times over, as one message"
    if payload.lines:
        said += f", {payload.lines} lines"
    if payload.pieces:
        said += (
            ", byte by byte" if payload.pieces == ("each",) else f", in pieces of {', '.join(payload.pieces)}"
        )
    return said


def _links(links: Iterable[tuple[str, str]]) -> str:
    return _some([f"{a}→{b}" for a, b in links])


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:6]) + (f" and {len(listed) - 6} more" if len(listed) > 6 else "")
