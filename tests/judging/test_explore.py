"""`socklab explore`: random histories find what is wrong, and leave it as a small scenario that fails in the same way."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from random import Random

import pytest

from socklab import player
from socklab.check import Order
from socklab.conductor import Options
from socklab.contracts import CONTRACTS
from socklab.explore import Exploration, Explorer
from socklab.guest import Guest
from socklab.random_histories import MODELS, generate, scenario, smaller, steps_of
from socklab.scenario import plays
from socklab.source import Source
from tests.judging.conftest import ROOT, Run

WRONG = ROOT / "tests" / "zoo" / "wrong"


@pytest.mark.parametrize("contract", MODELS)
@pytest.mark.parametrize("links", [True, False])
def test_every_history_is_a_scenario(contract: str, links: bool) -> None:
    """What is generated, and all that is smaller, can be played; and the same seed gives the same."""
    for number in range(60):
        acts = generate(contract, Random(f"7-{number}"), links)
        assert acts == generate(contract, Random(f"7-{number}"), links)
        for history in [acts, *smaller(contract, acts, links)[:10]]:
            text = scenario(contract, CONTRACTS[contract].model, history, links, "t")
            (play,) = plays(Source.parse(text, Path("t.scenario.yaml")))
            assert play.contract == contract


def test_what_is_smaller_has_fewer_acts_or_plainer_ones() -> None:
    acts = generate("chat", Random("1-5"), True)
    for history in smaller("chat", acts, True):
        assert len(history) < len(acts) or sum(a.how != "" for a in history) <= sum(a.how != "" for a in acts)
        assert steps_of("chat", history, True)[0]


@pytest.mark.parametrize("service", ["chat", "chat_eventloop"])
def test_a_right_server_is_not_called_wrong(run: Run, service: str) -> None:
    program = str(ROOT / "services" / f"{service}.py")

    done = run("explore", "chat", "--histories", "60", "--", "python3", program, "--host", "{host}", "--port", "{port}")  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    assert "60 histories" in done.stdout
    assert "no failure" in done.stdout


@pytest.mark.parametrize(
    ("name", "contract", "cause"),
    [
        ("chat-first-line-only", "chat", "only the first was delivered"),
        ("echo-strips-white-space", "echo", "strip() takes white space away"),
        ("registry-twice-is-two", "registry", "registered more than once"),
        ("udp-echo-ends-at-an-empty-datagram", "udp-echo", "ended in the middle of the play"),
    ],
)
def test_what_is_found_is_a_small_scenario_that_fails_again(
    run: Run, tmp_path: Path, name: str, contract: str, cause: str
) -> None:
    start = ("--", "python3", str(WRONG / f"{name}.py"), "{host}", "{port}")

    found = run("explore", contract, "--seed", "3", *start)

    assert found.returncode == 1, found.stdout + found.stderr
    assert cause in found.stdout
    path = tmp_path / f"{contract}-seed3-1.scenario.yaml"
    text = path.read_text()
    assert re.search(r"# Found by: socklab explore .*--seed 3.*\(seed 3, history \d+\)", text)
    assert len(re.findall(r"^  - ", text, re.MULTILINE)) <= 8
    again = run("play", path.name, "--no-runs", *start)
    assert again.returncode == 1
    assert cause in again.stdout


def test_a_failure_that_is_made_smaller_is_told_as_one() -> None:
    """The smaller histories that fail, too, are the same failure."""
    program = str(WRONG / "chat-first-line-only.py")
    command = ("python3", program, "{host}", "{port}")
    order = Order(contract=CONTRACTS["chat"], guest=Guest(folder=WRONG), command=command)
    told: list[str] = []

    async def explored() -> Exploration:
        backend, _ = await player.choose("auto")
        try:
            return await Explorer(order, backend, Options(), seed=3).explore(400, 60.0, tell=told.append)
        finally:
            await backend.close()

    (found,) = asyncio.run(explored()).found

    smaller = [text for text in told if "made smaller" in text]
    assert smaller
    assert all(text.startswith(f"history {found.number} fails, and is made smaller: ") for text in smaller)
    assert all(re.fullmatch(r"\d+ histories", text) for text in told if text not in smaller)
