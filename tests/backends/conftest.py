"""Both embedded backends, and a way to run a coroutine with one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from socklab.backends import Backend, Network, Node
from socklab.backends.netns import Netns
from socklab.backends.process import Process

LAB = [Network("lab")]
TWO = [Node("server", ("lab",)), Node("alice", ("lab",))]

Run = Callable[[Callable[[Any], Awaitable[Any]]], Any]


@pytest.fixture(params=[Netns, Process], ids=["netns", "process"])
def run(request: pytest.FixtureRequest, why_no_netns: str | None) -> Run:
    """Run a coroutine function with a backend of each kind, and close the backend afterwards."""
    if request.param is Netns and why_no_netns:
        pytest.skip(why_no_netns)

    def runner(body: Callable[[Backend], Awaitable[Any]]) -> Any:
        async def whole() -> Any:
            backend = request.param()
            try:
                async with asyncio.timeout(60):
                    return await body(backend)
            finally:
                await backend.close()

        return asyncio.run(whole())

    return runner
