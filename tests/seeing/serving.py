"""`socklab serve` as a program, and requests to it as one sends them by hand."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SLOW = """\
title: A slow play
about: Long enough to be looked at while it goes on.
service: chat
clients: [alice, bob]
steps:
  - connect: everyone
  - send: {alice: first}
  - expect: {everyone: first}
  - wait: 1s
    note: for whoever looks
  - send: {bob: second}
  - expect: {everyone: second}
"""
FAILING = """\
title: A play that fails
service: chat
clients: [alice]
steps:
  - connect: alice
  - send: {alice: hello}
  - expect: {alice: goodbye}
    within: 300ms
"""


class Server:
    """`socklab serve`, and requests to it as one sends them by hand."""

    def __init__(self, folder: Path, *options: str) -> None:
        (folder / "slow.scenario.yaml").write_text(SLOW)
        (folder / "failing.scenario.yaml").write_text(FAILING)
        words = ["-m", "socklab", "serve", "--port", "0", "--runs", str(folder / "runs"), "--compose"]
        command = [sys.executable, *words, str(ROOT / "docker-compose.yml"), *options, str(folder)]
        self.complaints = folder / "stderr.txt"
        with self.complaints.open("w") as stderr:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        self.port = int(self.url.split(":")[2].split("/")[0])

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()
        assert self.complaints.read_text() == "", "it ends quietly, also while somebody looks on"

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {k.replace("_", "-"): v for k, v in headers.items()})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text

    def play(self, title: str) -> str:
        """Begin a play; its id."""
        scenarios = json.loads(self.ask("GET", "/scenarios")[1])
        asked = next(s["id"] for s in scenarios if s["title"] == title)
        return str(json.loads(self.ask("POST", "/plays", {"scenario": asked})[1])["id"])

    def marks(self, play: str, after: str = "") -> list[tuple[str, Any]]:
        """All batches of marks up to the end of a play, behind the one called `after`, with their names."""
        text = self.ask("GET", f"/plays/{play}/marks", **({"Last_Event_ID": after} if after else {}))[1]
        found = []
        for block in text.split("\n\n"):
            lines = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
            if "id" in lines:
                found.append((lines["id"], json.loads(lines["data"])))
        return found
