"""The packets of a play: heard from the nodes while it goes on, and at its end one `capture.pcapng`.

nodes (inside/capture.py) ──▶ Capture ──▶ wire and segment events, for the history
                                 └──────▶ spools ── write ──▶ capture.pcapng, with what the history says of each moment
"""

from __future__ import annotations

import base64
import heapq
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

from socklab import pcapng
from socklab.agents import Agent
from socklab.backends import Lab, LabError
from socklab.history import Event, Past
from socklab.inside.capture import FRAME, OUT, RECORD

SPOOL = 1 << 20  # bytes of packets of one node in memory; what is more waits on disk
_ETHERNET = 14  # bytes of an Ethernet header
_HEAD = 40  # bytes of a packet by which it is known again

OnWire = Callable[[dict[str, Any]], None]
_Row = tuple[int, int, int, bytes, bool, str]
"""Time, number of the interface, length, what there is of it, whether its node sent it, the node."""


class Capture:
    """What is read on the nodes of one lab."""

    def __init__(self, on_wire: OnWire, folder: Path | None) -> None:
        """With `folder`, packets are kept for `write`; else only what TCP did is told."""
        self._on_wire = on_wire
        self._folder = folder
        self._streams: list[Agent] = []
        self._spools: dict[tuple[str, str], IO[bytes]] = {}
        self._apart: dict[str, int] = {}
        """Of a node on another machine: nanoseconds by which its packets' times are to be set ahead, to be ours."""
        self._broken = ""
        self._problem: OSError | None = None

    async def begin(self, lab: Lab, addresses: Iterable[str], local: Sequence[str]) -> None:
        """Read all packets from here on. `addresses` are those of nodes on which we read; `local`: as in Lab.capture.

        Raises LabError."""
        captured = list(addresses)
        for node, stream in await lab.capture(local):
            self._streams.append(Agent(node or "the lab", stream, partial(self._heard, node), "capture"))
        try:
            for stream_ in self._streams:
                await stream_.ask("begin", captured=captured)
        except LabError as exc:
            raise LabError(self._broken or str(exc)) from None

    def _heard(self, node: str, message: dict[str, Any]) -> None:
        node = message.get("node") or node
        if message["event"] in ("wire", "segment"):
            self._on_wire({**message, "node": node})
        elif message["event"] == "broken":
            self._broken = f"packets cannot be read here: {message['why']}"
        elif self._folder is not None and self._problem is None:
            where = (node, message["device"])
            self._apart[node] = message.get("apart", 0)  # the latest is the best known
            try:
                if where not in self._spools:
                    self._spools[where] = tempfile.SpooledTemporaryFile(  # noqa: SIM115 (closed by close)
                        SPOOL, "w+b", dir=str(self._folder)
                    )
                self._spools[where].write(base64.b64decode(message["data"]))
            except OSError as exc:
                self._problem = exc

    async def sync(self) -> None:
        """Afterwards all that was on the wire before has been told."""
        for stream in self._streams:
            await stream.ask("sync")

    async def finish(self) -> int:
        """Hear the rest, and no more. How many packets the capture missed."""
        lost = 0
        for stream in self._streams:
            await stream.ask("sync")
            lost += (await stream.ask("count"))["lost"]
            stream.close()
        return lost

    def close(self) -> None:
        for stream in self._streams:
            stream.close()
        for spool in self._spools.values():
            spool.close()

    def write(self, path: Path, events: Past, names: Mapping[str, str]) -> None:
        """The file. `names` is what each node is called in it. Raises OSError."""
        if self._problem is not None:
            raise self._problem
        apart = time.time_ns() - time.monotonic_ns()
        steps, fates = _steps(events, apart), _fates(events)
        with path.open("wb") as file:
            file.write(pcapng.section(_about(events)))
            for node, device in self._spools:
                file.write(pcapng.interface(f"{names.get(node, node)} {device}", FRAME))
            for t, number, length, data, sent, node in self._rows():
                comments = []
                while steps and steps[0][0] <= t:
                    comments.append(steps.popleft()[1])
                if told := fates.get((names.get(node, node), _known_by(data))):
                    comments.append(told.popleft())
                file.write(pcapng.packet(number, t, data, length, sent, comments))

    def _rows(self) -> Iterator[_Row]:
        """All packets in the order of time; those of each interface are in order already."""
        each = [
            self._of(number, node, spool) for number, ((node, _), spool) in enumerate(self._spools.items())
        ]
        return heapq.merge(*each, key=lambda row: row[0])

    def _of(self, number: int, node: str, spool: IO[bytes]) -> Iterator[_Row]:
        apart = self._apart[node]
        spool.seek(0)
        while head := spool.read(RECORD.size):
            t, length, snapped, direction = RECORD.unpack(head)
            yield t + apart, number, length, spool.read(snapped), direction == OUT, node


async def why_no_capture(lab: Lab) -> str:
    """Why the packets of a lab cannot be read, or nothing."""
    capture = Capture(lambda _: None, None)
    try:
        await capture.begin(lab, [], [])
    except LabError as exc:
        return str(exc)
    finally:
        capture.close()
    return ""


def _about(events: Iterable[Event]) -> str:
    play = next((e for e in events if e.kind == "play"), None)
    return f"{play.data['title']} ({play.data['path']}, {play.data['service']})" if play else ""


def _steps(events: Iterable[Event], apart: int) -> deque[tuple[int, str]]:
    """When each step began (ns since 1970), and its text."""
    return deque(
        (e.t + apart, f"{e.data['line']}: {e.data['text']}")
        for e in events
        if e.kind == "step" and e.data["phase"] == "begin"
    )


def _fates(events: Iterable[Event]) -> Mapping[tuple[str, bytes], deque[str]]:
    """(sender, what a packet is known by) → what became of it on its way, in the order of those that look alike."""
    fates: dict[tuple[str, bytes], deque[str]] = defaultdict(deque)
    for event in events:
        if event.kind == "packet" and event.data["fate"] != "delayed":
            by = "" if event.data["by"] == event.data["fate"] else f" ({event.data['by']})"
            key = (event.data["from"], _known(bytes.fromhex(event.data["head"])))
            fates[key].append(f"{event.data['fate']} on its way to {event.data['to']}{by}")
    return fates


def _known_by(frame: bytes) -> bytes:
    return _known(frame[_ETHERNET : _ETHERNET + _HEAD])


def _known(head: bytes) -> bytes:
    """What of an IPv4 packet's head stays as it is until its gate has seen it: all but the checksums, which the kernel fills in late."""
    if len(head) < 28 or head[0] >> 4 != 4:
        return head
    start = (head[0] & 15) * 4
    transport = head[start:]
    if head[9] == 17:  # UDP
        transport = transport[:6] + transport[8:]
    elif head[9] == 6:  # TCP
        transport = transport[:16]
    return head[2:8] + head[12:20] + transport
