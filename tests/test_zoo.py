"""The zoo proves the judge: each wrong server is caught by the scenario that is named for it, with the cause that is named, and each
right one, in whatever language, passes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from socklab import check, conductor, player
from socklab.check import Order
from socklab.conductor import Options
from socklab.contracts import CONTRACTS
from socklab.guest import Guest
from socklab.report import name_of
from socklab.verdict import Result, Verdict
from tests.zoo.catalogue import Server, servers

WRONG, RIGHT = servers("wrong"), servers("right")

pytestmark = pytest.mark.timeout(300)  # whoever comes first waits until a hundred servers were played


def order_of(server: Server, folder: Path) -> Order | None:
    command = server.command(folder)
    if command is None:
        return None
    return Order(contract=CONTRACTS[server.contract], guest=Guest(folder=server.file.parent), command=command)


async def telling(server: Server, order: Order, backend: player.Backend) -> Result:
    """What the scenario that is named first says of a wrong server; of several plays, the first that fails. A fault that is a race
    of its own threads does not show in every play: three rounds."""
    name = server.caught_by[0]
    plays = [p for file in check.asked(order) for p in file.plays if name in ("start", name_of(p))]
    assert plays, f"{server.name}: no scenario {name} is asked of it"
    for play in plays[:1] if name == "start" else plays * 3:
        result = await conductor.play(play, order.topology, backend, Options())
        if result.verdict is not Verdict.PASS:
            return result
    return result


@pytest.fixture(scope="module")
def caught(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result | None]:
    """Wrong server → what is said of it; None where it cannot be built here."""
    folder = tmp_path_factory.mktemp("zoo")

    async def all_of_them() -> dict[str, Result | None]:
        backend, _ = await player.choose("auto")
        gate = asyncio.Semaphore(player.at_once(backend))

        async def one(server: Server) -> Result | None:
            order = order_of(server, folder)
            if order is None:
                return None
            async with gate:
                return await telling(server, order, backend)

        try:
            results = await asyncio.gather(*map(one, WRONG))
        finally:
            await backend.close()
        return {server.name: result for server, result in zip(WRONG, results, strict=True)}

    return asyncio.run(all_of_them())


def test_there_are_many_of_them() -> None:
    assert len(WRONG) >= 40
    assert len({server.head["language"] for server in RIGHT}) >= 8


@pytest.mark.parametrize("server", WRONG, ids=lambda s: s.name)
def test_a_wrong_server_is_caught_and_the_cause_named(
    server: Server, caught: dict[str, Result | None]
) -> None:
    result = caught[server.name]
    if result is None:
        pytest.skip("no compiler for it here")
    if result.verdict is Verdict.SKIP:
        pytest.skip(result.reason)

    assert result.verdict is Verdict.FAIL, result.reason
    assert result.failure is not None
    assert server.cause.search(result.failure.cause), result.failure.lines()


@pytest.mark.parametrize("server", RIGHT, ids=lambda s: s.name)
def test_a_right_server_keeps_its_contract_in_any_language(server: Server, tmp_path: Path) -> None:
    order = order_of(server, tmp_path)
    if order is None:
        pytest.skip(f"needs {server.head.get('packages', 'what starts it')}")

    async def checked() -> check.Report:
        backend, _ = await player.choose("auto")
        try:
            return await check.check(order, backend, Options())
        finally:
            await backend.close()

    report = asyncio.run(checked())

    assert report.never_started is None
    assert [(item.name, item.telling.reason) for item in report.failed] == []
    assert report.points == report.possible > 0
