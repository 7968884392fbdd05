"""Playing a few steps on real namespaces."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from socklab import conductor, topology
from socklab.backends.netns import Netns
from socklab.conductor import Options
from socklab.scenario import plays
from socklab.source import Source
from socklab.verdict import Result

ROOT = Path(__file__).resolve().parent.parent.parent


def play(
    steps: str,
    service: str = "udp-echo",
    clients: str = "[alice, bob, carol]",
    options: Options | None = None,
) -> Result:
    """The result of these steps, written as in a file."""
    text = f"title: t\nservice: {service}\nclients: {clients}\nsteps:\n{steps}"

    async def whole() -> Result:
        backend = Netns()
        try:
            if reason := await backend.probe():
                pytest.skip(reason)
            (scenario,) = plays(Source.parse(text, Path("test.scenario.yaml")))
            return await conductor.play(
                scenario, topology.read(ROOT / "docker-compose.yml"), backend, options
            )
        finally:
            await backend.close()

    return asyncio.run(whole())
