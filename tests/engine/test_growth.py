"""A long play costs an event what it cost at the beginning: counted in function calls and bytes, for times are the machine's."""

from __future__ import annotations

import sys
import tracemalloc
from itertools import count
from pathlib import Path
from typing import Any

from socklab.diagram import drawn
from socklab.history import Event, History
from socklab.judge import Judge, again
from socklab.scenario import Scenario, plays
from socklab.source import Source
from socklab.verdict import Verdict

CLIENTS = [f"c{number}" for number in range(10)]
ROUNDS = 2000
TEXT = f"""\
title: Many rounds
service: chat
clients: [{", ".join(CLIENTS)}]
steps:
  - connect: everyone
  - repeat:
      times: {ROUNDS}
      steps:
        - send: {{c0: "line {{round}}."}}
        - expect: {{everyone: "line {{round}}."}}
"""
QUARTER = ROUNDS // 4


class Game:
    """A play as its events alone: a judge that is fed and asked, and a history."""

    def __init__(self, kept: int) -> None:
        self.scenario: Scenario = plays(Source.parse(TEXT, Path("many.scenario.yaml")))[0]
        self.judge = Judge(self.scenario, "line")
        self.history = History(kept=kept)
        self._clock = count(1)
        self.happen("play", scenario=TEXT, path="many.scenario.yaml", service="chat", values={}, framing="line", title="Many", nodes=dict.fromkeys(CLIENTS, "10.0.0.2"))  # fmt: skip
        for name in CLIENTS:
            self.happen("connected", name, connection=1, local=["10.0.0.2", 5], protocol="tcp")
        self._step("2", 7, "repeat", "begin")

    def happen(self, kind: str, node: str = "", **data: Any) -> None:
        event = Event(next(self._clock), kind, node, data)
        self.history.add(event)
        self.judge.feed(event)

    def _step(self, path: str, line: int, verb: str, phase: str) -> None:
        self.happen("step", line=line, path=path, verb=verb, text=verb, phase=phase)

    def round(self, number: int) -> None:
        send, expect = self.scenario.steps[1].steps
        text = f"line {number}.\n"
        self.judge.values["round"] = str(number)
        self._step(f"2.{number}.1", send.line, "send", "begin")
        self.happen("sent", "c0", chunks=[{"text": text}], size=len(text), to="server")
        self._step(f"2.{number}.1", send.line, "send", "end")
        self._step(f"2.{number}.2", expect.line, "expect", "begin")
        waiting = self.judge.expect(expect)
        for name in CLIENTS:
            assert not waiting.settled()
            self.happen("received", name, text=text)
        assert waiting.settled()
        self._step(f"2.{number}.2", expect.line, "expect", "end")
        self.judge.conclude(waiting)

    def end(self) -> None:
        self._step("2", 7, "repeat", "end")
        self.judge.conclude_play()
        self.happen("verdict", verdict="pass", reason="", line=0)


def calls(game: Game, first: int) -> int:
    """How many functions, also of C, are called in a quarter of the rounds."""
    seen = 0

    def called(_: object, what: str, __: object) -> None:
        nonlocal seen
        seen += what in ("call", "c_call")

    sys.setprofile(called)
    try:
        for number in range(first, first + QUARTER):
            game.round(number)
    finally:
        sys.setprofile(None)
    return seen


def test_an_event_costs_no_more_than_at_the_beginning() -> None:
    """Within one part in twenty: buffers are written now and then, and garbage is collected."""
    game = Game(kept=100)
    early = calls(game, 1)
    for number in range(1 + QUARTER, 1 + 3 * QUARTER):
        game.round(number)
    late = calls(game, 1 + 3 * QUARTER)

    assert late <= early * 1.05
    game.end()
    assert again(game.history) == (Verdict.PASS, 0, "")


def test_an_event_stays_in_memory_as_what_its_client_got_and_little_more() -> None:
    """A line of ten bytes as 300 at most, its place among all that was expected included; as an object it would be 1,000."""
    game = Game(kept=100)
    for number in range(1, 1 + QUARTER):
        game.round(number)
    tracemalloc.start()
    for number in range(1 + QUARTER, 1 + ROUNDS):
        game.round(number)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert grown / (3 * QUARTER * (len(CLIENTS) + 5)) <= 300


def test_of_a_long_play_the_beginning_and_the_end_are_drawn() -> None:
    """And where something is left out, this is said."""
    game = Game(kept=100)
    for number in range(1, 201):
        game.round(number)
    game.end()
    marks, whole = drawn(game.history, 400), drawn(game.history)
    note = next(mark for mark in marks if mark["id"] == "left out")

    assert len(marks) < 450 < len(whole)
    assert f"{len(whole) - len(marks) + 1:,} marks from here on are not drawn" in note["text"]
    assert {mark["id"] for mark in marks if mark["mark"] in ("lane", "verdict", "play")} == {
        mark["id"] for mark in whole if mark["mark"] in ("lane", "verdict", "play")
    }
    at = marks.index(note)
    assert marks[:at] == whole[:at]
    assert marks[at + 1 :] == whole[len(whole) - len(marks) + at + 1 :]
