"""A session: a lab in which a person plays a step at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from socklab import topology
from socklab.backends import LabError
from socklab.backends.netns import Netns
from socklab.conductor import Options
from socklab.judge import again, scenario_of
from socklab.scenario import by_hand
from socklab.session import Session
from socklab.source import ScenarioError
from socklab.topology import TopologyError
from socklab.verdict import Result, Verdict
from tests.conductor.lab import ROOT

Doing = Callable[[Session], Awaitable[None]]


@asynccontextmanager
async def session(service: str = "chat", options: Options | None = None) -> AsyncIterator[Session]:
    backend = Netns()
    try:
        if reason := await backend.probe():
            pytest.skip(reason)
        scenario = by_hand(service, ["alice", "bob"])
        made = Session(
            scenario, topology.read(ROOT / "docker-compose.yml"), backend, options or Options(capture=False)
        )
        assert await made.begin() is None
        yield made
    finally:
        await backend.close()


def played(doing: Doing, service: str = "chat", options: Options | None = None) -> Result:
    """The result of a session in which somebody does this."""

    async def whole() -> Result:
        async with session(service, options) as made:
            try:
                await doing(made)
            finally:
                result = await made.end()
            return result

    return asyncio.run(whole())


def test_steps_are_done_as_they_come() -> None:
    async def doing(lab: Session) -> None:
        for step in ("connect: everyone", "- send: {alice: hello}", "  - expect: {everyone: hello}"):
            assert await lab.do(step) is None

    assert played(doing).verdict is Verdict.PASS


def test_a_step_that_fails_is_told_and_the_session_goes_on() -> None:
    async def doing(lab: Session) -> None:
        await lab.do("connect: everyone")
        failure = await lab.do("{expect: {bob: hello}, within: 50ms}")
        assert failure is not None
        assert failure.expected == 'bob: "hello", within 0.05s'
        await lab.do("send: {alice: hello}")
        assert await lab.do("expect: {bob: hello}") is None

    result = played(doing)

    assert result.verdict is Verdict.FAIL
    assert result.failure is not None
    assert result.failure.step == "{expect: {bob: hello}, within: 50ms}"


def test_what_came_too_much_is_told_once() -> None:
    async def doing(lab: Session) -> None:
        await lab.do("connect: everyone")
        await lab.do("send: {alice: [hello, hello]}")
        await lab.do("expect: {bob: [hello, hello]}")
        assert await lab.do("expect: {bob: {text: hello, once: true}}") is not None
        assert await lab.do("expect: {alice: hello}") is None

    assert played(doing).verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nonsense", 'expected a step, got "nonsense"'),
        ("send: {dora: hello}", 'no client "dora"'),
        ("send: {alice: hello}\n- send: {alice: again}", "not valid YAML"),
        ("", "expected a step"),
        ("send: {alice: {bytes: 1}", "not valid YAML"),
    ],
)
def test_a_text_that_is_no_step_is_refused_and_changes_nothing(text: str, told: str) -> None:
    async def doing(lab: Session) -> None:
        await lab.do("connect: everyone")
        before = list(lab.rig.history)
        with pytest.raises(ScenarioError, match=told):
            await lab.do(text)
        assert list(lab.rig.history) == before
        assert await lab.do("send: {alice: hello}") is None
        assert await lab.do("expect: {bob: hello}") is None

    assert played(doing).verdict is Verdict.PASS


def test_what_cannot_be_done_here_and_now_is_said_and_the_session_goes_on() -> None:
    async def doing(lab: Session) -> None:
        await lab.do("connect: everyone")
        with pytest.raises(LabError, match="alice is connected already"):
            await lab.do("connect: alice")
        with pytest.raises(LabError, match="begin it with --ipv6"):
            await lab.do("connect: {bob: {over: ipv6}}")
        assert await lab.do("expect: {bob: never}\nwithin: 10ms\nas: word") is not None
        with pytest.raises(LabError, match="nothing was caught as 'word'"):
            await lab.do('send: {alice: "{word}"}')
        assert await lab.do("send: {alice: hello}") is None

    played(doing)


def test_a_step_that_is_broken_off_is_no_failure() -> None:
    """Ctrl-C ends what is waited for, not the session."""

    async def doing(lab: Session) -> None:
        await lab.do("connect: everyone")
        waiting = asyncio.ensure_future(lab.do("expect: {bob: hello}\nwithin: 60s"))
        begun = lab.rig.until(lambda: any(e.data.get("verb") == "expect" for e in lab.rig.history), 5)
        assert await begun
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await lab.do("send: {alice: hello}")
        assert await lab.do("expect: {bob: hello}") is None

    result = played(doing)

    assert result.verdict is Verdict.PASS
    assert again(list(result.events)) == (Verdict.PASS, 0, "")


def test_steps_of_several_people_come_one_after_another() -> None:
    async def doing(lab: Session) -> None:
        await lab.do("connect: everyone")
        steps = [lab.do(f"send: {{{who}: from {who}}}") for who in ("alice", "bob")]
        await asyncio.gather(*steps, lab.do("expect: {everyone: {any_order: [from alice, from bob]}}"))

    result = played(doing)

    assert result.verdict is Verdict.PASS
    phases = [e.data["phase"] for e in result.events if e.kind == "step"]
    assert phases == ["begin", "end"] * (len(phases) // 2)


def test_links_are_cut_and_healed_by_hand() -> None:
    async def doing(lab: Session) -> None:
        await lab.do("cut: {between: [alice, server]}")
        await lab.do("send: {alice: lost}")
        assert await lab.do("quiet: {alice: 100ms}") is None
        await lab.do("heal: all")
        await lab.do("send: {alice: found}")
        assert await lab.do("expect: {alice: found}") is None

    result = played(doing, "udp-echo")

    assert result.verdict is Verdict.PASS
    assert any(e.kind == "packet" and e.data["fate"] == "dropped" for e in result.events)


def test_a_server_that_was_killed_by_hand_is_missed_by_nobody_else() -> None:
    async def doing(lab: Session) -> None:
        await lab.do("connect: alice")
        await lab.do("kill: server")
        assert await lab.do("expect: {alice: eof}") is None
        await lab.do("restart: server")
        assert await lab.do("connect: alice") is None

    assert played(doing).verdict is Verdict.PASS


def test_a_session_is_judged_again_from_its_history(tmp_path: Path) -> None:
    async def doing(lab: Session) -> None:
        await lab.do("connect: everyone")
        await lab.do("send: {alice: hello}")
        await lab.do("expect: {bob: hello}")
        await lab.do("expect: {bob: never}\nwithin: 10ms")
        await lab.do("note: the end")

    result = played(doing, options=Options(runs=tmp_path))
    events = list(result.events)

    assert [step.verb for step in scenario_of(events).steps] == [
        "note",
        "connect",
        "send",
        "expect",
        "expect",
        "note",
    ]
    verdict, line, _ = again(events)
    assert (verdict, line) == (Verdict.FAIL, 9)
    assert result.folder is not None
    assert {"history.jsonl", "report.html", "capture.pcapng"} <= {f.name for f in result.folder.iterdir()}


def test_what_does_not_fit_together_is_found_before_anything_starts() -> None:
    with pytest.raises(TopologyError, match='no service "chatt"'):
        Session(by_hand("chatt", ["alice"]), topology.read(ROOT / "docker-compose.yml"), Netns(), Options())
    with pytest.raises(ScenarioError, match='"everyone" is a word of the language'):
        by_hand("chat", ["everyone"])
