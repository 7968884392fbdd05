"""bench/tricks.py: each of its edits fits the text of today's servers, and what comes of it keeps its contract; what it is worth is not asked."""

import ast
import asyncio
from dataclasses import replace

import pytest

from bench import tricks
from socklab import load, player


def named(trick):
    return f"{trick.service}, {trick.without}"


@pytest.mark.parametrize("trick", tricks.TRICKS, ids=named)
def test_a_server_without_its_trick_keeps_its_contract(trick, tmp_path):
    async def measured(what):
        backend = player.backend("process")
        try:
            return await load.measure(trick.subject(tmp_path), what, backend, patience=4)
        finally:
            await backend.close()

    ast.parse(trick.text())  # and not only where it runs
    if isinstance(trick.load, load.Load):
        short = replace(trick.load, seconds=0.2, receivers=min(trick.load.receivers, 200))
    else:
        fewer = {"turns": 2} if isinstance(trick.load, tricks.Dialogue) else {"clients": 5}
        assert tricks.alone(trick.subject(tmp_path), replace(trick.load, **fewer))[trick.figure] > 0
        short = load.Load(kind="fan-out", senders=2, receivers=20, seconds=0.2)
    found = asyncio.run(measured(short))
    assert (found.wrong, found.cannot) == ((), "")
    assert found.per_second > 0


def test_an_edit_whose_text_is_gone_is_refused(tmp_path):
    trick = replace(tricks.TRICKS[0], edits=(("what stands nowhere", ""),))
    with pytest.raises(
        tricks.Stale, match=r"(?s)services/chat_eventloop\.py has 0 times .*what stands nowhere"
    ):
        trick.subject(tmp_path)


def test_the_table_in_the_docs_has_all_of_them():
    """It is measured by hand, so it can be behind."""
    page = tricks.PAGE.read_text()
    table = page.partition(tricks.START)[2].partition(tricks.END)[0]
    missing = [
        named(each)
        for each in tricks.TRICKS
        if f"{each.name}; without: {each.without} | {each.load.name}" not in table
    ]
    assert not missing
