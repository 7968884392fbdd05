"""What happened, in words: an event as a line that a person reads. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from socklab import holdings
from socklab.history import Event, from_wire
from socklab.matching import shown
from socklab.sockets import told


def in_words(event: Event) -> tuple[str, str] | None:
    """Who → whom, and what; None for what tells a person nothing more."""
    node, data = event.node, event.data
    match event.kind:
        case "received":
            return f"{node} ←", shown(event.content, 90)
        case "sent":
            chunks = data["chunks"]
            first = from_wire({**chunks[0], "repeat": min(int(chunks[0].get("repeat", 1)), 100)})
            pieces = f" … in {len(chunks)} sends" if len(chunks) > 1 else ""
            size = f" … ({data['size']} bytes)" if data["size"] > 60 else ""
            return f"{node} →", f"{shown(first[:60])}{pieces or size}"
        case "connected" if data.get("protocol") == "udp":
            return f"{node}", f"has a socket, {_endpoint(data.get('local'))}; nobody knows of it yet"
        case "connected":
            return (
                f"{node} →",
                f"connected, {_endpoint(data.get('local'))} to {_endpoint(data.get('remote'))}",
            )
        case "refused":
            return f"{node} →", f"connect failed: {data['error']}"
        case "eof":
            return f"{node} ←", "end of file (FIN)"
        case "reset":
            return f"{node} ←", "connection reset (RST)"
        case "error":
            return f"{node} ←", f"error: {data.get('error')}"
        case "crowd":
            return f"{node} →", f"{data['connected']:,} clients connected"
        case "load":
            return f"{node}", told_load(data)
        case "half-closed" | "closed" | "aborted" | "stalled" | "reading":
            return f"{node}", event.kind
        case "set":
            return f"{node}", "set " + ", ".join(f"{k}={v}" for k, v in data["options"].items())
        case "log":
            return f"{node} log", safe(str(data["text"]))
        case "spawned":
            return f"{node}", f"started, process {data['pid']}"
        case "ready":
            return f"{node}", f"ready: {data['protocol']} {data['address']}" + (
                f":{data['port']}" if data["port"] else ""
            )
        case "exited":
            return (
                f"{node}",
                f"ended {'by signal ' + str(-data['status']) if data['status'] < 0 else 'with status ' + str(data['status'])}",
            )
        case "packet" if data["fate"] == "delayed":
            return None  # the gate's count tells it, and there may be many
        case "packet":
            return f"{data['from']} → {data['to']}", f"packet {fate_of(data)}: {safe(str(data['what']))}"
        case "wire":
            return (
                f"{data['from']} ⇢ {data['to']}",
                f"wire: {' '.join(data['words'])} ({safe(str(data['what']))})",
            )
        case "sockets":
            whose = "listening socket" if data["peer"] == "listen" else f"socket to {data['peer']}"
            return f"{node}", f"kernel: {whose} {told(data)}"
        case "holdings":
            return f"{node}", f"holds {holdings.told(data)}"
        case "counted":
            return "packets", "; ".join(counted(link, of) for link, of in data["links"].items())
        case "signalled":
            return f"{node}", f"{data['signal']}"
        case "fault":
            links = data["links"]
            return "links", ", ".join(f"{link}: {kind}" for link, kind in links.items()) or "all whole"
        case "unplugged" | "plugged":
            return node, event.kind
        case "note":
            return node or "lab", f"note: {safe(str(data['text']))}"
        case "verdict":
            return "verdict", f"{data['verdict']} {safe(str(data['reason']))}".rstrip()
    return None


def fate_of(packet: Mapping[str, Any]) -> str:
    """What became of a packet, and through which fault if that does not say it: `dropped (loss 10%)`; of a connect `failed: timed out`."""
    fate, by = str(packet["fate"]), str(packet["by"])
    if packet.get("what") == "connect":
        return f"failed: {by}"
    return fate if by in ("", fate) else f"{fate} ({by})"


def counted(link: str, of: Mapping[str, Any]) -> str:
    """What a gate counted on a link: `alice→server: loss 10% asked, 31 of 296 dropped`."""
    parts = [
        f"{of[what]} {what}"
        for what in ("dropped", "refused", "delayed", "duplicated", "reordered", "corrupted")
        if of.get(what)
    ]
    if of.get("delayed"):
        late = of.get("late", 0.0)  # what is nothing is not counted
        parts.append(f"by {of['held'] / of['delayed'] * 1e3:.1f} ms, at most {late * 1e3:.1f} ms late")
    asked = f"{of['asked']} asked, " if of.get("asked") else ""
    packets = "1 packet" if of["seen"] == 1 else f"{of['seen']} packets"
    return f"{link}: {asked}of {packets} {', '.join(parts) or 'all passed'}"


def duration(seconds: float | None) -> str:
    """`120 µs`, `3.4 ms`, `1.2 s`; a dash for none."""
    if seconds is None:
        return "–"
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def told_load(data: Mapping[str, Any]) -> str:
    """`said 2,000 messages; 198,000 came, 99,000/s, p50 210 µs, p99 0.9 ms`"""
    parts = [f"said {data['said']:,} messages; {data['heard']:,} came", f"{data['per_second']:,.0f}/s"]
    parts += [f"{name} {duration(seconds)}" for name, seconds in data["latency"].items()]
    return ", ".join([*parts, *(safe(str(what)) for what in data["wrong"])])


def safe(text: str) -> str:
    """A text that cannot drive the terminal."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text
    )


def _endpoint(value: object) -> str:
    if isinstance(value, list) and len(value) >= 2:
        host, port = value[0], value[1]
        return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
    return str(value) if value else "?"
