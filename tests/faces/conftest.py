"""Small labs for the faces: a folder with a compose file, a server and a scenario, and the command line run in it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent

ECHO = (ROOT / "services" / "eventloop.py").read_text()

SCENARIO = """\
title: What is sent comes back
service: echo
clients: [alice]
steps:
  - connect: alice
  - send: {alice: hello}
  - expect: {alice: hello}
    within: 1s
"""


@dataclass
class Folder:
    """A lab of its own in an empty folder."""

    path: Path
    services: dict[str, str] = field(default_factory=dict)

    def service(self, name: str, program: str, *, command: str | None = None, contract: str = "echo") -> None:
        """Add a service; `program` becomes NAME.py."""
        (self.path / f"{name}.py").write_text(program)
        command = command or f"python {name}.py --host 0.0.0.0 --port 5000"
        self.services[name] = (
            f"    command: {command}\n    expose: ['5000']\n    labels: {{socklab.contract: {contract}}}\n"
        )
        text = "services:\n" + "".join(f"  {name}:\n{body}" for name, body in self.services.items())
        (self.path / "docker-compose.yml").write_text(text)

    def scenario(self, text: str = SCENARIO, name: str = "echo.scenario.yaml") -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def run(self, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """`socklab ARGUMENTS` in this folder."""
        argv = [sys.executable, "-m", "socklab", *arguments]
        return subprocess.run(
            argv,
            cwd=self.path,
            capture_output=True,
            text=True,
            timeout=100,
            env={**os.environ, **(env or {})},
        )

    def pytest(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`pytest ARGUMENTS` in this folder."""
        argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
        return subprocess.run(argv, cwd=self.path, capture_output=True, text=True, timeout=100)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A folder with an echo server that keeps its contract, and one scenario."""
    made = Folder(tmp_path)
    made.service("echo", ECHO)
    made.scenario()
    return made


@pytest.fixture(params=["process", "netns"])
def backend(request: pytest.FixtureRequest, netns_works: Callable[[], str | None]) -> str:
    """Each embedded backend in turn."""
    if request.param == "netns" and (reason := netns_works()):
        pytest.skip(reason)
    return str(request.param)


@pytest.fixture(scope="session")
def netns_works() -> Callable[[], str | None]:
    """Why netns does not work on this machine, or None."""
    import asyncio

    from socklab.backends.netns import Netns

    async def probe() -> str | None:
        netns = Netns()
        try:
            return await netns.probe()
        finally:
            await netns.close()

    reason = asyncio.run(probe())
    return lambda: reason
