"""A play as it goes on, in words: of each node what it is, what happened to it last, and what it waits for. Pure.

It is fed the events of the play and holds expectations against them as the play's own judge does.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from socklab.dialect import Dialect
from socklab.endless import Endless
from socklab.history import Event
from socklab.judge import Failed, Judge, Waiting, step_at
from socklab.matching import State
from socklab.scenario import Scenario
from socklab.words import in_words

_STATES = {
    "connected": "connected",
    "half-closed": "half-closed",
    "closed": "closed",
    "aborted": "aborted",
    "stalled": "does not read",
    "reading": "connected",
    "refused": "refused",
    "eof": "closed by the server",
    "reset": "reset",
    "unplugged": "unplugged",
    "plugged": "",
    "spawned": "starts",
    "ready": "listens",
    "exited": "ended",
}
_OPEN = {"connected", "half-closed", "does not read"}


@dataclass
class Lane:
    """One client or server: its state, and the last thing that happened to it, in words."""

    state: str = ""
    last: str = ""


@dataclass
class Lanes:
    """All of one play."""

    scenario: Scenario
    lanes: dict[str, Lane] = field(default_factory=dict)
    servers: set[str] = field(default_factory=set)
    over: bool = False
    _steps: dict[str, Event] = field(default_factory=dict)
    """The steps that go on, the innermost last."""
    _waiting: dict[str, Waiting] = field(default_factory=dict)
    _judge: Judge | None = None
    _unread: list[Event] = field(default_factory=list)

    def feed(self, event: Event) -> None:
        if event.kind == "play":
            self._begin(event)
        elif event.kind == "verdict":
            self.over, self._judge = True, None
            self._unread.clear()
        elif self._judge is not None:
            if event.kind == "step":
                self._go_on(event)
            self._unread.append(event)

    def _begin(self, event: Event) -> None:
        """It begins, or it begins again with a longer gap."""
        clients = event.data["clients"]
        self.lanes = {name: Lane() for name in [*clients, "server", *self.scenario.services]}
        self.servers = set(self.lanes) - set(clients)
        self.over = False
        self._steps.clear()
        self._waiting.clear()
        self._judge = Judge(self.scenario, event.data["framing"], Dialect.of(event.data["dialect"]))

    def _go_on(self, event: Event) -> None:
        path = str(event.data["path"])
        self._steps.pop(path, None)
        if event.data["phase"] == "begin":
            self._steps[path] = event

    def _catch_up(self) -> None:
        """Take in what has come. Only who looks at a single play asks for it, so many side by side cost next to nothing."""
        if self._judge is None:
            return
        for event in self._unread:
            self._judge.feed(event)
            if event.kind == "step":
                self._step(event)
            elif event.node in self.lanes:
                self._happened(self.lanes[event.node], event)
        self._unread.clear()

    def _step(self, event: Event) -> None:
        assert self._judge is not None
        path = str(event.data["path"])
        if event.data["phase"] != "begin":
            if waiting := self._waiting.pop(path, None):
                try:
                    self._judge.conclude(waiting)
                except (Failed, Endless):
                    pass  # the play's own judge says so
        elif event.data["verb"] == "expect":
            self._waiting[path] = self._judge.expect(step_at(self.scenario, path, self._judge.values))

    def _happened(self, lane: Lane, event: Event) -> None:
        lane.state = _STATES.get(event.kind, lane.state)
        if event.kind == "signalled" and event.data["signal"] in ("SIGSTOP", "SIGCONT"):
            lane.state = "paused" if event.data["signal"] == "SIGSTOP" else "listens"
        if told := in_words(event):
            way = told[0].removeprefix(event.node).strip()
            lane.last = f"{way} {told[1]}".strip()

    @property
    def step(self) -> tuple[int, str, int] | None:
        """Line, text and beginning (ns) of the step that goes on."""
        if not self._steps:
            return None
        event = list(self._steps.values())[-1]
        return int(event.data["line"]), str(event.data["text"]), event.t

    def waits(self) -> dict[str, str]:
        """Who waits, and for what."""
        self._catch_up()
        return {
            name: watch.told
            for waiting in self._waiting.values()
            for name, watch in waiting.watches
            if watch.advance() is State.WAITING
        }

    def state(self, name: str) -> str:
        """What a node is: `connected`; of a server also how many have a connection to it."""
        self._catch_up()
        lane = self.lanes[name]
        if name != "server" or lane.state != "listens":
            return lane.state
        many = sum(self.lanes[each].state in _OPEN for each in self.lanes if each not in self.servers)
        return f"listens, {many} connected" if many else lane.state
