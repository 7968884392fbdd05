"""The history of a play: one ordered list of events, and nothing that happened is outside it.

It suffices to judge the play again, to show it and to draw it. On disk it is `history.jsonl`, one event a line. Of a long play only the
newest events are kept in memory, too; the others are read again from there by whoever goes through them.
Times are nanoseconds of the conductor's monotonic clock (clock_gettime(2), CLOCK_MONOTONIC), which all processes of one
machine share, containers too. What comes from another machine is told in this time; how exactly, a note says.

docs/reference/events.md says what kinds there are and what their `data` holds; a test holds it against plays.
"""

from __future__ import annotations

import base64
import json
import tempfile
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any

KEPT = 20_000
"""Events of a history that are kept in memory: about 1 KB each."""
MOST = 1 << 30
"""Bytes that are sent or received in one piece."""
LONGEST = 1 << 28
"""Characters of an event as a line; what is longer was written by nobody who plays."""


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
    """Events in the order in which the conductor learned of them, each written as it comes.

    With a path they are written there. Without one all are kept in memory as long as they are few; then they go to a nameless file,
    which lasts as long as this object.
    """

    def __init__(self, path: Path | None = None, kept: int = KEPT) -> None:
        """Raises OSError when the file cannot be made."""
        self.path = path
        self.write_error: OSError | None = None
        self._recent: deque[Event] = deque(maxlen=kept)
        self._first: Event | None = None
        self._count = 0
        self._file: IO[str] | None = None
        self._where = path
        """What is opened to read the events again."""
        if path is not None:
            self._file = path.open("w", encoding="utf-8", errors="surrogateescape")

    def add(self, event: Event) -> None:
        """A full disk does not end a play: `write_error` keeps the first failure, and the play's verdict tells of it."""
        if self._count == self._recent.maxlen and self.path is None:
            self._go_to_disk()
        self._first = self._first or event
        self._recent.append(event)
        self._count += 1
        self._write(event)

    def flush(self) -> None:
        """What has been added so far can be read in the file."""
        if self._file:
            try:
                self._file.flush()
            except OSError as exc:
                self.write_error = self.write_error or exc

    def close(self) -> None:
        """Nothing more is written."""
        if self._file:
            try:
                self._file.flush() if self.path is None else self._file.close()
            except OSError as exc:
                self.write_error = self.write_error or exc
            self._file = None

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Event]:
        """All of them; where they could not be written, those that are left. Raises OSError when the file is gone."""
        self.flush()
        if self._count == len(self._recent) or self.write_error is not None or self._where is None:
            return iter(list(self._recent))
        return islice(events_of(self._where), self._count)

    def ends(self, most: int = KEPT) -> list[Event]:
        """The first, and the newest that are kept, `most` of them: all, where there are no more."""
        recent = list(self._recent)[-most:]
        return recent if self._first is None or recent[0] is self._first else [self._first, *recent]

    def _write(self, event: Event) -> None:
        if self._file:
            try:
                self._file.write(event.to_json() + "\n")
            except OSError as exc:
                self.write_error = self.write_error or exc

    def _go_to_disk(self) -> None:
        try:
            file = tempfile.TemporaryFile("w+", encoding="utf-8", errors="surrogateescape")  # noqa: SIM115
        except OSError as exc:
            self.write_error = self.write_error or exc
            return
        weakref.finalize(self, file.close)
        self._file, self._where = file, Path(f"/proc/self/fd/{file.fileno()}")
        for event in self._recent:
            self._write(event)


Past = History | Sequence[Event]
"""What has happened, to be gone through as often as one likes."""


def events_of(path: Path) -> Iterator[Event]:
    """A history from disk, as it is read. Raises OSError, or NoHistory with the line that is no event."""
    with path.open(encoding="utf-8", errors="surrogateescape") as file:
        for number, line in enumerate(iter(lambda: file.readline(LONGEST), ""), 1):
            try:
                if len(line) == LONGEST:
                    raise ValueError(f"is no event: longer than {LONGEST:,} characters")
                yield Event.from_json(line)
            except ValueError as exc:
                raise NoHistory(f"{path}:{number}: {exc}") from None


class NoHistory(ValueError):
    """A file that holds something else than events; the message says where."""


def read(path: Path) -> list[Event]:
    """A whole history from disk. Raises as `events_of` does."""
    return list(events_of(path))


def to_wire(data: bytes) -> dict[str, str]:
    """Bytes as JSON can carry them: {"text": …} if they are UTF-8, else {"base64": …}."""
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def from_wire(data: dict[str, Any]) -> bytes:
    """The bytes of {"text": …} or {"base64": …}, `repeat` times if it says so. Raises ValueError for more than MOST of them."""
    raw = str(data["text"]).encode() if "text" in data else base64.b64decode(data.get("base64", ""))
    repeat = int(data.get("repeat", 1))
    if len(raw) * repeat > MOST:
        raise ValueError(f"fewer than {len(raw) * repeat:,} bytes in one piece")
    return raw * repeat


def joined(chunks: Iterable[dict[str, Any]]) -> bytes:
    return b"".join(from_wire(chunk) for chunk in chunks)


def size_of(chunks: Iterable[dict[str, Any]]) -> int:
    """How many bytes they are together."""
    return sum(len(from_wire({**chunk, "repeat": 1})) * int(chunk.get("repeat", 1)) for chunk in chunks)
