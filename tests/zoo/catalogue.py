"""The zoo's servers, as the first lines of their files describe them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

ZOO = Path(__file__).parent
_BUILT_BY = {".c": "gcc -O1 -o {out} {file}"}
_HEAD = re.compile(
    r"(?:#|//)\s*(fault|contract|caught by|cause|lesson|language|packages|build|program|start|dialect):\s*(.*)"
)


@dataclass(frozen=True)
class Server:
    file: Path
    head: dict[str, str]

    @property
    def name(self) -> str:
        return self.file.name

    @property
    def contract(self) -> str:
        return self.head["contract"]

    @property
    def caught_by(self) -> list[str]:
        """Scenarios that must fail, the most telling first; `start`: it never becomes a server."""
        return [name.strip() for name in self.head["caught by"].split(",")]

    @property
    def cause(self) -> re.Pattern[str]:
        """What its first scenario must say is wrong; … stands for what differs from play to play."""
        return re.compile(".*".join(re.escape(part) for part in self.head["cause"].split("…")), re.DOTALL)

    def command(self, folder: Path) -> tuple[str, ...] | None:
        """What starts it, built in a folder where that is needed; None where this machine lacks what it takes."""
        out = folder / self.file.stem
        start = self.head.get(
            "start", "{out} {host} {port}" if self._build else "python3 {file} {host} {port}"
        )
        words = [w.replace("{file}", str(self.file)).replace("{out}", str(out)) for w in shlex.split(start)]
        first = next(w for w in shlex.split(self._build or words[0]) if "=" not in w)
        if shutil.which(self.head.get("program", first)) is None:
            return None
        if self._build and not out.exists():
            subprocess.run(
                self._build.format(file=self.file, out=out), shell=True, check=True, capture_output=True
            )
        return tuple(words)

    @property
    def _build(self) -> str:
        return self.head.get("build", _BUILT_BY.get(self.file.suffix, ""))


def servers(kind: str) -> list[Server]:
    """All `wrong` ones, or all `right` ones."""
    found = []
    for file in sorted((ZOO / kind).iterdir()):
        if file.is_file() and file.suffix not in (".md", ".pyc"):
            lines = file.read_text().splitlines()[:16]
            head = {match[1]: match[2].strip() for line in lines if (match := _HEAD.match(line))}
            found.append(Server(file, head))
    return found
