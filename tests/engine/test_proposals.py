"""Dialects are proposed by what histories show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from socklab.dialect import Dialect
from socklab.history import Event
from socklab.matching import LINE, STREAM
from socklab.proposals import proposed
from socklab.scenario import plays
from socklab.source import Source
from socklab.verdict import Failure, Result, Verdict

SCENARIO = plays(
    Source.parse("title: t\nservice: chat\nclients: [alice]\nsteps:\n  - connect: alice\n", Path("t.yaml"))
)[0]


def failed(*greetings: str, framing: str = LINE, cause: str = "") -> Result:
    told: list[tuple[str, str, dict[str, Any]]] = [("", "play", {"framing": framing})]
    told += [("alice", "received", {"text": text}) for text in greetings]
    events = [Event(t, kind, node, data) for t, (node, kind, data) in enumerate(told)]
    failure = Failure("t.yaml:5", "connect: alice", "x", "y", "", cause)
    return Result(SCENARIO, "netns", Verdict.FAIL, "x", failure, events=events)


def test_what_a_server_says_first_may_be_passed_over() -> None:
    assert proposed([failed("Welcome!\n")], Dialect()) == [
        "it greets with \"Welcome!\\n\": if that is meant, judge it with --dialect 'ignore=^Welcome!'"
    ]


def test_what_has_no_newline_is_taken_for_a_question() -> None:
    (said,) = proposed([failed("NICKNAME")], Dialect())

    assert "--dialect 'join={name}' --dialect 'ignore=^NICKNAME'" in said


def test_a_number_in_a_greeting_is_another_the_next_time_and_one_proposal_is_enough() -> None:
    said = proposed(
        [failed("client 1 is here\n"), failed("client 1 is here\n", "client 2 is here\n")], Dialect()
    )

    assert len(said) == 1
    assert "'ignore=^client'" in said[0]


def test_in_a_stream_of_bytes_there_is_nothing_to_pass_over() -> None:
    assert proposed([failed("Welcome!\n", framing=STREAM)], Dialect()) == []


def test_what_is_in_force_is_not_proposed() -> None:
    assert proposed([failed("Welcome!\n")], Dialect(ignore=("^Welcome",))) == []
