"""What all tests may ask of this machine."""

from __future__ import annotations

import asyncio

import pytest

from socklab.backends.netns import Netns


@pytest.fixture(scope="session")
def why_no_netns() -> str | None:
    async def probe() -> str | None:
        backend = Netns()
        try:
            return await backend.probe()
        finally:
            await backend.close()

    return asyncio.run(probe())
