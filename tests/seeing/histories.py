"""Histories made by hand, to be drawn."""

from __future__ import annotations

from typing import Any

from socklab.history import Event

MS = 1_000_000

# What a server or a client may send to whoever looks at it.
HOSTILE = [
    "<script>document.title='broken'</script>",
    "</script><script>document.title='broken'</script>",
    "<img src=x onerror=\"document.title='broken'\">",
    "]]>--><!--",
    "\x1b[2J\x1b]0;broken\x07\x00\x08",
    "\u202egnp.exe \u2028 \ufeff \ud7ff",
    "%s {n} ${x} `x` \\",
    "x" * 1_000_000,
]


def events(*told: tuple[int, str, str, dict[str, Any]]) -> list[Event]:
    """Events of (ms, node, kind, data)."""
    return [Event(ms * MS, kind, node, data) for ms, node, kind, data in told]


def play_of(framing: str = "line", **more: Any) -> tuple[int, str, str, dict[str, Any]]:
    nodes = {"server": "10.71.0.2", "alice": "10.71.0.3", "bob": "10.71.0.4"}
    data = {"title": "A play", "scenario": "title: A play\nsteps:\n  - send: {alice: hi}\n", "path": "a.yaml"}
    return (
        0,
        "",
        "play",
        {**data, "service": "chat", "backend": "netns", "framing": framing, "nodes": nodes, **more},
    )


def connected(ms: int, who: str, port: int, protocol: str = "tcp") -> tuple[int, str, str, dict[str, Any]]:
    host = "0.0.0.0" if protocol == "udp" else {"alice": "10.71.0.3", "bob": "10.71.0.4"}[who]
    return (
        ms,
        who,
        "connected",
        {"protocol": protocol, "local": [host, port], "remote": ["10.71.0.2", 1], "connection": 1},
    )


def sent(ms: int, who: str, text: str) -> tuple[int, str, str, dict[str, Any]]:
    return ms, who, "sent", {"chunks": [{"text": text}], "size": len(text.encode()), "to": "server"}


def got(ms: int, who: str, text: str) -> tuple[int, str, str, dict[str, Any]]:
    return ms, who, "received", {"text": text}


def fault(ms: int, **links: str) -> tuple[int, str, str, dict[str, Any]]:
    return ms, "", "fault", {"links": {link.replace("_", "→"): text for link, text in links.items()}}
