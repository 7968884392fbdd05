"""The gate on real links: every fault and every pair of faults, held against the packets counted at both ends."""

from __future__ import annotations

import asyncio

import pytest

from socklab import faults
from socklab.backends import Backend
from socklab.backends.docker import Docker
from socklab.backends.netns import Netns
from socklab.measure import Measured, cases, measure
from tests.docker_engine import need_engine


def measured(backend_class: type[Netns] | type[Docker]) -> list[tuple[faults.Faults, Measured]]:
    async def whole() -> list[tuple[faults.Faults, Measured]]:
        backend: Backend = backend_class()
        try:
            if reason := await backend.probe():
                pytest.skip(reason)
            asked = cases()
            return list(zip(asked, await measure(backend, asked), strict=True))
        finally:
            await backend.close()

    return asyncio.run(whole())


def wrong(results: list[tuple[faults.Faults, Measured]]) -> list[str]:
    return [f"{result}: {'; '.join(found)}" for put, result in results if (found := result.wrong(put))]


@pytest.mark.timeout(300)
def test_every_fault_and_every_pair_is_as_asked_on_netns() -> None:
    assert wrong(measured(Netns)) == []


@pytest.mark.timeout(300)
def test_every_fault_and_every_pair_is_as_asked_on_docker() -> None:
    need_engine()
    assert wrong(measured(Docker)) == []
