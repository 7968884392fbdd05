"""A process that draws histories while they are written: socklab/live.py starts it, so that drawing takes no time from the plays.

Orders come as lines, [ID, WHAT, ARGUMENT]: draw (the path of a history), more (was written), end. Answers are lines of ID, a tab and a
batch of marks as JSON; null: what follows is another play; nothing: this was the end.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from typing import IO

from socklab.diagram import Drawing, Mark
from socklab.history import Event
from socklab.page import MOST

YIELDS = 19  # to the plays, by all it can (nice(2)): they come first


class _History:
    """One that is being written."""

    def __init__(self, path: str) -> None:
        self._file: IO[bytes] = open(path, "rb")  # noqa: SIM115 - until close()
        self._rest = b""
        self._drawing = Drawing()
        self._seen = 0

    def drawn(self) -> list[Mark]:
        """The marks that are new or have changed, by what has been written since."""
        changed: dict[str, Mark] = {}
        for event in self._events():
            self._seen += 1
            if self._seen <= MOST or event.kind == "verdict":
                changed |= {mark["id"]: mark for mark in self._drawing.feed(event)}
        return list(changed.values())

    def _events(self) -> Iterator[Event]:
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        for line in lines:
            yield Event.from_json(line.decode("utf-8", "surrogateescape"))

    def close(self) -> None:
        self._file.close()


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends with its input
    os.nice(YIELDS)
    histories: dict[str, _History] = {}
    for line in sys.stdin.buffer:
        id_, what, argument = json.loads(line)
        try:
            _do(histories, id_, what, argument)
        except Exception:  # a play that cannot be drawn takes no other with it
            traceback.print_exc()
            if id_ in histories:
                histories.pop(id_).close()
            _tell(id_, "")


def _do(histories: dict[str, _History], id_: str, what: str, argument: str) -> None:
    if what == "draw":
        if id_ in histories:
            histories.pop(id_).close()
            _tell(id_, "null")
        histories[id_] = _History(argument)
    elif id_ in histories and (marks := histories[id_].drawn()):
        _tell(id_, json.dumps(marks, ensure_ascii=True, separators=(",", ":")))
    if what == "end":
        if id_ in histories:
            histories.pop(id_).close()
        _tell(id_, "")


def _tell(id_: str, text: str) -> None:
    sys.stdout.write(f"{id_}\t{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
