"""The stream of one of our own programs: orders come in, answers and what happens go out, as JSON lines."""

from __future__ import annotations

import json
import os
from typing import Any


class Orders:
    """Both ends of the stream. An order {"id": 1, "do": "count"} is the worker's `do_count`, whose dict is the answer's rest."""

    def __init__(self, fd_in: int, fd_out: int, worker: object) -> None:
        self.fd_in, self.fd_out = fd_in, fd_out
        self._worker = worker
        self._partial = b""

    def fileno(self) -> int:
        return self.fd_in

    def take(self) -> bool:
        """Do what was ordered; what the kernel refuses is answered with its words. False at the end of the stream."""
        data = os.read(self.fd_in, 1 << 18)
        if not data:
            return False
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            order = json.loads(line)
            try:
                answer = getattr(self._worker, "do_" + order["do"])(order)
                self.say({"id": order["id"], "ok": True, **answer})
            except OSError as exc:
                self.say({"id": order["id"], "ok": False, "error": exc.strerror or str(exc)})
        return True

    def say(self, message: dict[str, Any]) -> None:
        data = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        while data:
            data = data[os.write(self.fd_out, data) :]
