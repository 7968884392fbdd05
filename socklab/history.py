"""The history of a play: one ordered list of events, and nothing that happened is outside it.

It suffices to judge the play again, to show it and to draw it. On disk it is `history.jsonl`, one event a line.
Times are nanoseconds of the machine's monotonic clock (clock_gettime(2), CLOCK_MONOTONIC), which all processes of one
machine share, containers too.

What kinds there are, and what their `data` holds:

    play        scenario (its text), path, service, values, backend, framing, nodes: {name: address},
                networks: {name: [network]}                                    the first event
    step        line, path ("3" or "3.1"), verb, text, phase: begin | end | failed | broken off (the lab, or a person)
    typed       text      a step as lines of a file, which a person adds at the end of the scenario
    connected   local, remote, connection (counts from 1 for each client)     refused   error, message
    sent        bytes, to, chunks: [{text|base64, repeat}]                    received  text|base64, from (UDP)
    eof, reset, error (error, message)                     what the peer or the network did to the socket
    crowd       connected     so many clients in one program      load  said, heard (by all together), per_second, latency: {p50: s}, wrong
    half-closed, closed, aborted, stalled, reading, set    what the scenario made the client do
    spawned     argv, pid         ready  protocol, address, port              exited    status, expected
    log         stream, text      signalled  signal, group                    servers
    unplugged, plugged                            hosts whose interfaces are gone, are there again
    fault       links: {"a→b": "loss 10%, …"}      the link faults in force from here on; empty: none
    packet      from, to, fate: dropped | duplicated | corrupted | overtaken | delayed, by (the fault), ordinal, size, what, head (hex)
    wire        from, to (hosts, or addresses), words (SYN, RST, retransmission, …), sport, dport, seq, ack, window, what
    segment     from, to, sport, dport, seq, ack, size when a packet left that has something in it, or is the ACK of a SYN or a FIN: the first of them only
    sockets     peer (or listen), state, send-q, recv-q, accept-queue      what a node's kernel said of a socket
    holdings    descriptors, threads, children, zombies, memory (bytes)      what a server's process and those below it hold
    counted     links: {"a→b": {asked, seen, dropped, …}}      what the gates counted, at the end
    note        text              remarks of the lab itself
    verdict     verdict, reason, line; of a failure also expected, got, cause  the last event
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Event:
    """Something that happened: when (monotonic ns), what, to which node (empty: the lab), and the rest by kind."""

    t: int
    kind: str
    node: str = ""
    data: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        head: dict[str, Any] = {"t": self.t, "kind": self.kind}
        if self.node:
            head["node"] = self.node
        return json.dumps({**head, **self.data}, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, line: str) -> Event:
        """Raises ValueError for what is no event."""
        try:
            data = json.loads(line)
        except RecursionError:
            raise ValueError("not an event: nested too deep") from None
        if (
            not isinstance(data, dict)
            or type(data.get("t")) is not int
            or not isinstance(data.get("kind"), str)
        ):
            raise ValueError("not an event: it needs t and kind")
        return cls(data.pop("t"), data.pop("kind"), str(data.pop("node", "")), data)

    @property
    def content(self) -> bytes:
        """The bytes of a `received` event."""
        return from_wire(self.data)


class History:
    """Events in the order in which the conductor learned of them. With a path, each is written as it comes."""

    def __init__(self, path: Path | None = None) -> None:
        """Raises OSError when the file cannot be made."""
        self.events: list[Event] = []
        self.path = path
        self.write_error: OSError | None = None
        self._file = path.open("w", encoding="utf-8", errors="surrogateescape") if path else None

    def add(self, event: Event) -> None:
        """A full disk does not end a play: `write_error` keeps the first failure, and the play's verdict tells of it."""
        self.events.append(event)
        if self._file:
            try:
                self._file.write(event.to_json() + "\n")
            except OSError as exc:
                self.write_error = self.write_error or exc

    def flush(self) -> None:
        """What has been added so far can be read in the file."""
        if self._file:
            try:
                self._file.flush()
            except OSError as exc:
                self.write_error = self.write_error or exc

    def close(self) -> None:
        if self._file:
            try:
                self._file.close()
            except OSError as exc:
                self.write_error = self.write_error or exc
            self._file = None

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events)


def read(path: Path) -> list[Event]:
    """A history from disk. Raises OSError, or ValueError with the line that is no event."""
    events = []
    with path.open(encoding="utf-8", errors="surrogateescape") as file:
        for number, line in enumerate(file, 1):
            try:
                events.append(Event.from_json(line))
            except ValueError as exc:
                raise ValueError(f"{path}:{number}: {exc}") from None
    return events


def to_wire(data: bytes) -> dict[str, str]:
    """Bytes as JSON can carry them: {"text": …} if they are UTF-8, else {"base64": …}."""
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def from_wire(data: dict[str, Any]) -> bytes:
    """The bytes of {"text": …} or {"base64": …}, `repeat` times if it says so."""
    raw = str(data["text"]).encode() if "text" in data else base64.b64decode(data.get("base64", ""))
    repeat = data.get("repeat", 1)
    return raw * int(repeat)


def joined(chunks: Iterable[dict[str, Any]]) -> bytes:
    return b"".join(from_wire(chunk) for chunk in chunks)
