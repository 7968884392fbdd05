"""Crowds of several agents that make one load: what one says is checked where another hears it. Real agents, real servers, wrong ones too."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from socklab import check, load
from socklab.backends.outside import Outside
from socklab.contracts import CONTRACTS
from socklab.guest import Guest
from socklab.load import Load, Measured, Subject
from tests.clients.test_crowd import (
    Alters,
    Cuts,
    Doubles,
    Interleaves,
    Loses,
    LosesFirstLines,
    LosesItsNewline,
    Sixth,
)
from tests.clients.wrong_servers import Chat, End, Fault, Registry

LAST = 4
"""The last to arrive: of two who speak and three who listen, the one who is alone in the second agent."""


class ForTheLast(Fault):
    """A fault for the one in the second agent only."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault

    def of(self, message: bytes, receiver: int) -> Any:
        return self.fault.of(message, receiver) if receiver == LAST else [message]


def measured(contract: str, address: Any, agents: int = 2, **more: Any) -> Measured:
    """Two speak, three listen."""
    what = Load(
        kind="fan-out", senders=2, receivers=3, agents=agents, **{"rate": 400, "seconds": 0.2, **more}
    )

    async def all_of_it() -> Measured:
        host, port = address
        guest = Guest(Path.cwd(), at=(host, port))
        order = check.Order(contract=CONTRACTS[contract], guest=guest, command=(), port=port)
        service = order.topology.service(order.model)
        subject = Subject("yours", order.topology, service, load.speech_of(contract))
        backend = Outside(host)
        try:
            return await load.measure(subject, what, backend, pin=False, patience=4)
        finally:
            await backend.close()

    return asyncio.run(all_of_it())


def counts(found: Measured) -> list[str]:
    return [each for each in found.wrong if not each.startswith("the first: ")]


@pytest.mark.parametrize("agents", [2, 3])
@pytest.mark.parametrize(("contract", "kind"), [("chat", Chat), ("registry", Registry)])
def test_a_right_server_is_right(contract: str, kind: Any, agents: int) -> None:
    with kind() as server:
        found = measured(contract, server.address, agents)

    assert (found.wrong, found.cannot) == ((), "")
    assert found.per_second > 0
    assert found.clock_error == 0
    assert {"p50", "p99"} <= found.percentiles.keys()


def test_first_lines_that_another_agent_misses_are_said_again() -> None:
    with Chat(ForTheLast(LosesFirstLines())) as server:
        found = measured("chat", server.address)

    assert (found.wrong, found.cannot) == ((), "")


@pytest.mark.parametrize(
    ("fault", "wrong"),
    [
        (Loses, ["3 lost"]),
        (Doubles, ["3 doubled"]),
        (Alters, ["3 lost", "3 damaged"]),
        (Cuts, ["3 lost", "3 damaged"]),
        (LosesItsNewline, ["6 lost", "3 damaged"]),
        (Interleaves, ["6 lost", "3 damaged"]),
        (lambda: ForTheLast(Loses()), ["1 lost"]),
        (lambda: ForTheLast(Doubles()), ["1 doubled"]),
        (lambda: ForTheLast(Alters()), ["1 lost", "1 damaged"]),
    ],
    ids=[
        "loses", "doubles", "alters", "cuts", "loses-a-newline", "interleaves",
        "loses-for-the-last", "doubles-for-the-last", "alters-for-the-last",
    ],
)  # fmt: skip
def test_a_wrong_chat_is_told_exactly_so(fault: Any, wrong: list[str]) -> None:
    """As by one agent; and the listener's own agent has the example."""
    with Chat(fault()) as server:
        found = measured("chat", server.address)

    assert counts(found) == wrong
    assert found.wrong[-1].startswith("the first: ")


@pytest.mark.parametrize(
    ("fault", "wrong"),
    [(Loses, ["3 lost"]), (Doubles, ["3 doubled"]), (lambda: ForTheLast(Alters()), ["1 lost", "1 damaged"])],
    ids=["loses", "doubles", "alters-for-the-last"],
)
def test_a_wrong_registry_is_told_exactly_so(fault: Any, wrong: list[str]) -> None:
    with Registry(fault()) as server:
        assert counts(measured("registry", server.address)) == wrong


def test_what_a_dropped_sender_did_not_say_is_not_lost() -> None:
    """Those who listen elsewhere cannot know that it is gone."""

    class DropsTheFirst(Sixth):
        def sixth(self, message: bytes, receiver: int) -> list[bytes]:
            if receiver == 0:
                raise End(True)
            return [message]

    with Chat(DropsTheFirst()) as server:
        found = measured("chat", server.address, rate=200, seconds=0.7)

    assert "1 client: reset" in found.wrong
    lost = re.search(r"(\d+) lost", " ".join(found.wrong))
    assert not lost or int(lost[1]) < 30  # of 300 that it did not say; those on their way are
