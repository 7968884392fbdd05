"""Agents, terminals, and what stands at the other end of a connection or a datagram."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clients.agent_process import LIMIT_S, Agent
from tests.clients.terminal import Terminal


@pytest.fixture
def agent() -> Iterator[Agent]:
    """An agent that must still be sound at the end: it ends when its control stream does."""
    made = Agent()
    try:
        yield made
        if made.process.poll() is None:
            assert made.end() == 0
    finally:
        made.clean_up()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.settimeout(LIMIT_S)
        yield made


@pytest.fixture(params=["127.0.0.1", "::1", "unix"])
def any_listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    """A listener of each family of streams."""
    if request.param == "unix":
        made = socket.socket(socket.AF_UNIX)
        made.bind(str(tmp_path / "socket"))
        made.listen()
    else:
        family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
        try:
            made = socket.create_server((request.param, 0), family=family)
        except OSError as exc:
            pytest.skip(f"no {request.param} on this machine: {exc}")
    made.settimeout(LIMIT_S)
    with made:
        yield made


@pytest.fixture
def peer() -> Iterator[socket.socket]:
    """A bound UDP socket: what stands at the other end of a datagram."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        made.bind(("127.0.0.1", 0))
        made.settimeout(LIMIT_S)
        yield made


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    """terminal(*argv, columns=80) starts a client at a terminal."""
    made: list[Terminal] = []

    def start(*argv: str, **how: int) -> Terminal:
        made.append(Terminal(*argv, **how))
        return made[-1]

    yield start
    for each in made:
        each.clean_up()
