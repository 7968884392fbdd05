"""Who may join, what is said to those who come in vain, and who is taken."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from socklab.backends import Node, Unavailable
from socklab.backends.joined import Joined

ALICE = Node("alice", ("lab",))
SECRET = "for the tests"


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"SOCKLAB_SECRET": "/nowhere/secret"}, "/nowhere/secret: cannot be read"),
        ({"SOCKLAB_SECRET": "/dev/null"}, "/dev/null: is empty"),
        ({"SOCKLAB_GATHER": "lab=four"}, '"lab=four" says not how many'),
        ({"SOCKLAB_GATHER": "lab"}, '"lab" says not how many'),
    ],
)
def test_what_the_container_is_told_wrong_is_named(environment: dict[str, str], said: str) -> None:
    with pytest.raises(Unavailable, match=said):
        Joined.configured(environment)


def test_a_secret_is_read_without_its_newline(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}\n")

    backend = Joined.configured({"SOCKLAB_SECRET": str(tmp_path / "secret"), "SOCKLAB_GATHER": "lab=4 far=2"})

    assert backend.apart
    assert not Joined.configured({}).apart


async def joining(
    backend: Joined, port: int, **hello: Any
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    told = {"secret": SECRET, "name": "x", "networks": ["lab"], "gate": None, **hello}
    writer.write(json.dumps(told).encode() + b"\n")
    return reader, writer


def test_who_is_turned_away_and_who_is_taken() -> None:
    """A wrong secret is told of; clients are taken from the machine with the fewest at work."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]

    async def body() -> None:
        backend = Joined(port=port, secret=SECRET)
        streams = []
        try:
            async with asyncio.timeout(30):
                await backend._open()
                reader, writer = await joining(backend, port, secret="another")
                assert await reader.read() == b""
                writer.close()
                assert "another secret than ours" in backend.counted([ALICE])
                assert "docker service scale STACK_client=1" in backend.counted([ALICE])
                for name, clock in (("n1-1", "one"), ("n1-2", "one"), ("n2-1", "two")):
                    streams.append(await joining(backend, port, name=name, clock=clock))
                    while not any(joined.name == name for joined in backend._here):
                        await backend._came.wait()
                        backend._came.clear()
                taken = [joined.name for _ in range(3) if (joined := backend.take(ALICE)) is not None]
                assert taken == ["n1-1", "n2-1", "n1-2"]
                assert backend.take(ALICE) is None
        finally:
            for _, writer in streams:
                writer.close()
            await backend.close()

    asyncio.run(body())
