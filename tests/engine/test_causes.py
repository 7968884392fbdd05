"""Likely causes: what a history shows, and nothing where it shows nothing. The zoo holds the rules against real servers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from socklab import causes
from socklab.history import Event
from socklab.matching import DATAGRAM, LINE, STREAM
from socklab.scenario import plays
from socklab.source import Source

TRACEBACK = ("server", "log", {"stream": "stderr", "text": "ValueError: not enough values to unpack"})
PLAY = ("", "play", {"clients": ["alice", "bob"], "nodes": {"alice": "10.71.0.3", "bob": "10.71.0.4"}})


def told(*events: tuple[str, str, dict[str, Any]]) -> list[Event]:
    """Events of (node, kind, data), a second apart."""
    return [Event(t * 1_000_000_000, kind, node, data) for t, (node, kind, data) in enumerate(events, 1)]


def said(who: str, text: str) -> tuple[str, str, dict[str, Any]]:
    return who, "sent", {"chunks": [{"text": text}], "size": len(text)}


def got(who: str, text: str) -> tuple[str, str, dict[str, Any]]:
    return who, "received", {"text": text}


@pytest.mark.parametrize(
    ("events", "cause"),
    [
        ([], ""),
        ([TRACEBACK, ("server", "exited", {"status": 1})], "the server's process ended in the middle of the play: ValueError: not enough values to unpack"),
        ([("server", "exited", {"status": -11})], "the server's process ended in the middle of the play: signal 11, a memory error"),
        ([("server", "exited", {"status": -13})], "the server's process ended in the middle of the play: SIGPIPE"),
        ([("server", "exited", {"status": 0, "expected": True})], "the server does not run: the scenario has ended it"),
        ([("server", "exited", {"status": 0, "expected": True}), ("server", "spawned", {})], ""),
        ([("server", "signalled", {"signal": "SIGSTOP"})], "the server is paused"),
        ([("server", "signalled", {"signal": "SIGSTOP"}), ("server", "signalled", {"signal": "SIGCONT"})], ""),
        ([("server", "signalled", {"signal": "SIGSTOP"}), got("bob", "x")], ""),
        ([("bob", "connected", {}), got("bob", "x"), ("server", "signalled", {"signal": "SIGKILL"}), ("bob", "eof", {})], ""),
        ([("", "fault", {"links": {"bob→server": "cut"}})], "the link bob → server is still under a fault (cut); heal it first?"),
        ([("", "fault", {"links": {"bob→server": "cut"}}), ("", "fault", {"links": {}})], ""),
        ([("", "fault", {"links": {"carol→server": "cut"}})], ""),
        ([("", "fault", {"links": {"bob→carol": "cut"}})], ""),
        ([("", "fault", {"links": {"bob→server": "drop the 1st data"}})], ""),
        ([("alice", "connected", {}), ("bob", "connected", {}), ("bob", "note", {"waiting": True})], "the server has not accepted bob's connection: it serves one client at a time"),
        ([("bob", "connected", {}), ("bob", "note", {"waiting": True})], "the server has not accepted bob's connection, and nobody else is there"),
        ([("bob", "note", {"waiting": True}), got("bob", "x")], ""),
        ([("server", "note", {"excess": "has 900 children, and may have 200"})], "the server has 900 children, and may have 200"),
    ],
)  # fmt: skip
def test_a_cause_is_told_where_the_history_shows_one(
    events: list[tuple[str, str, dict[str, Any]]], cause: str
) -> None:
    """In plain words, and only about those whom the failure concerns."""
    likely = causes.likely(told(PLAY, *events), ["bob"])

    assert likely.startswith(cause)
    assert bool(likely) == bool(cause)


def asked_for(recv_q: int) -> tuple[str, str, dict[str, Any]]:
    """What the server's kernel said of alice's connection when the step had failed."""
    return "server", "sockets", {"peer": "alice", "state": "ESTABLISHED", "send-q": 0, "recv-q": recv_q}


@pytest.mark.parametrize(
    ("evidence", "cause"),
    [
        (
            [asked_for(6)],
            "the server waits in recv() for bob, who is silent, and does not serve alice meanwhile",
        ),
        (
            [asked_for(0)],
            "the server reads what alice says and sends it to nobody: is its list of clients empty, or the first line taken for a name (--dialect join={name})?",
        ),
        ([], "the server waits in recv() for bob, who is silent, and does not serve alice meanwhile"),
    ],
)
def test_what_the_server_has_not_read_tells_who_is_to_blame(
    evidence: list[tuple[str, str, dict[str, Any]]], cause: str
) -> None:
    told_ = told(PLAY, *CONNECTED, said("alice", "hello\n"), *evidence)

    assert causes.likely(told_, ["alice", "bob"], LINE) == cause


CONNECTED = [("alice", "connected", {}), ("bob", "connected", {})]


@pytest.mark.parametrize(
    ("framing", "events", "cause"),
    [
        (LINE, [said("alice", "one\ntwo\n"), got("bob", "one two\n")], "lines that came in one segment were delivered as one"),
        (LINE, [said("alice", "one\ntwo\n"), got("bob", "one\n")], "only the first was delivered"),
        (LINE, [said("alice", "hello\n"), got("alice", "hello\n")], "bob"),
        (LINE, [said("bob", "hello\n"), got("alice", "hello\n")], "the sender does not get its own line"),
        (LINE, [said("alice", "hello\n"), got("bob", "hello")], "without the newline"),
        (LINE, [said("alice", "fo"), said("alice", "ur\n"), got("bob", "fo\n"), got("bob", "ur\n")], "delivered as several"),
        (LINE, [said("alice", "fo"), said("alice", "ur\n"), got("bob", "<alice> fo\n"), got("bob", "<alice> ur\n")], "delivered as several"),
        (LINE, [said("alice", "fo"), said("alice", "ur\n"), got("bob", "ur\n")], "only the end was delivered"),
        (LINE, [said("alice", "fo"), said("alice", "ur\n"), got("bob", "four\n")], ""),
        (LINE, [said("alice", "bye"), ("alice", "half-closed", {}), got("bob", "byealice has left\n")], "every line that is delivered ends with a newline"),
        (LINE, [said("alice", "  hello\n"), got("bob", "hello\n")], "strip()"),
        (LINE, [said("alice", "hello\n"), got("bob", "hello\n"), got("bob", "hello\n")], "2 times"),
        (LINE, [said("alice", "unfinis"), ("alice", "aborted", {}), said("bob", "hello\n"), got("bob", "unfinishello\n")], "outlives its client"),
        (LINE, [said("bob", "\n"), ("bob", "eof", {})], "an empty line"),
        (STREAM, [said("bob", "hello"), got("bob", "HELLO")], "an echo changes nothing"),
        (STREAM, [said("bob", "hello"), got("bob", "You said: hello")], 'it sends "You said: "'),
        (STREAM, [said("bob", "a\0b"), got("bob", "a")], "C string"),
        (STREAM, [said("bob", "hello"), got("alice", "hello")], "alice got what bob said"),
        (DATAGRAM, [said("bob", "x" * 2000), got("bob", "x" * 1024)], "recvfrom(1024)"),
        (DATAGRAM, [said("bob", "#REG"), got("bob", "#REG"), said("alice", "#REG"), got("bob", "#REG")], "a command is between one client and the server"),
        (DATAGRAM, [said("bob", "#REG"), got("bob", "ok"), said("alice", "psst"), got("bob", "psst")], "alice has not registered"),
        (LINE, [said("alice", "hello\n"), got("bob", "hello\n")], ""),
    ],
)  # fmt: skip
def test_what_the_messages_show(
    framing: str, events: list[tuple[str, str, dict[str, Any]]], cause: str
) -> None:
    likely = causes.likely(told(PLAY, *CONNECTED, *events), ["bob"], framing)

    assert cause in likely
    assert bool(likely) == bool(cause)


def test_the_scenarios_own_hint_is_told_where_no_rule_speaks() -> None:
    text = "title: t\nservice: chat\nclients: [bob]\nsteps:\n  - connect: bob\n  - {quiet: {bob: 1s}, hint: it talks to itself}\n"
    (play,) = plays(Source.parse(text, Path("t.scenario.yaml")))

    assert causes.likely(told(PLAY, *CONNECTED), ["bob"], LINE, step=play.steps[1]) == "it talks to itself"
    assert (
        causes.likely(told(PLAY, ("server", "exited", {"status": 1})), ["bob"], LINE, step=play.steps[1])
        != ""
    )


@pytest.mark.parametrize(
    ("printed", "why", "cause"),
    [
        ("OSError: [Errno 99] Cannot assign requested address", "ended", "one of its author's network"),
        ("OSError: [Errno 98] Address already in use", "ended", "its port is taken"),
        ("EOFError: EOF when reading a line", "ended", "at the keyboard"),
        ("Enter port: ", "runs, but does not listen on tcp port 1", "it asks at the keyboard"),
        ("", "runs, but does not listen on tcp port 1", "it never listens"),
        ("", "… it listens on port 9999 instead", "its port is written into the program"),
        ("SyntaxError: invalid syntax", "ended", "a syntax error"),
    ],
)
def test_why_a_program_did_not_become_a_server(printed: str, why: str, cause: str) -> None:
    assert cause in causes.of_start(told(("server", "log", {"stream": "stderr", "text": printed})), why)


def test_who_was_to_be_thrown_out_is_no_cause() -> None:
    """alice's endless line ended her connection, as a step before has asked; that bob hears nothing has another cause."""
    events = told(
        PLAY,
        *CONNECTED,
        said("alice", "x" * 70_000 + "\n"),
        ("alice", "eof", {}),
        said("bob", "still here\n"),
    )

    assert "thrown out" in causes.likely(events, ["bob"], LINE)
    assert "thrown out" not in causes.likely(events, ["bob"], LINE, asked_to_end=["alice"])


def test_a_line_does_not_stand_in_one_with_a_longer_number() -> None:
    own = [said("alice", "line 2\n"), got("alice", "line 2\n")]

    assert causes.likely(told(PLAY, *CONNECTED, *own, got("bob", "line 20\n")), ["bob"], LINE)
    assert causes.likely(told(PLAY, *CONNECTED, *own, got("bob", "<line 2>\n")), ["bob"], LINE) == ""
