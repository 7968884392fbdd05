"""The judge: what the history so far says of each expectation. Pure, and driven by events alone.

The rig feeds it events as they happen, the performer asks it; `again` feeds it a recorded history and comes to the same verdict.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from socklab import holdings
from socklab.dialect import PLAIN, Dialect
from socklab.endless import Endless
from socklab.history import Event, Past, joined
from socklab.matching import DATAGRAM, LINE, Inbox, State, Watch, shown
from socklab.scenario import Scenario, variant
from socklab.sockets import GONE, fits, told, told_bounds
from socklab.source import Source
from socklab.steps import Step
from socklab.verdict import Reception, Tail, Verdict

JOIN_GRACE = 1.0  # seconds after a connect in which a line may pass a newcomer by (contract chat, clause 4)
ASSERTING = {"expect", "quiet", "sockets", "steady", "wait", "note"}
"""Verbs that do nothing to the lab; `quiet` counts from the beginning of the last step that did something."""


LIMIT = 2.0  # seconds a step may take unless it says `within:`


@dataclass(frozen=True)
class Limit:
    """How long a step may take, in seconds: what the scenario asks for, and what is waited in this play."""

    asked: float
    waited: float

    def __str__(self) -> str:
        waited = "" if self.waited == self.asked else f" (waited {self.waited:g}s)"
        return f"within {self.asked:g}s{waited}"


class Failed(Exception):
    """The server is wrong: what was expected, what came, whom it concerns, and at which step."""

    def __init__(
        self,
        expected: str,
        got: str,
        clients: Sequence[str] = (),
        step: Step | None = None,
        raced: bool = False,
        overtaken: bool = False,
    ) -> None:
        super().__init__(f"expected {expected}; got {got}")
        self.expected = expected
        self.got = got
        self.clients = tuple(clients)
        self.step = step
        self.raced = raced
        """It could be a race that a right server may lose: play it again with a longer gap."""
        self.overtaken = overtaken
        """What is missing was passed over, and may still come."""
        self.rounds: list[str] = []
        """Of each repeat: in which it happened, the outermost first: `round 3 of 10`."""


@dataclass
class Waiting:
    """An `expect` step that has begun: a watch for each client (or server) of it."""

    step: Step
    watches: list[tuple[str, Watch]]
    _open: list[Watch] = field(init=False)

    def __post_init__(self) -> None:
        self._open = [watch for _, watch in self.watches]

    def settled(self) -> bool:
        """Whether all are met, or one has failed, by what has come so far."""
        self._open = [watch for watch in self._open if watch.advance() is not State.MET]
        return not self._open or any(watch.state is State.FAILED or watch.endless for watch in self._open)


@dataclass
class _Guard:
    """An expectation with `once` or `exactly` that was met. It has to stay so until a message like it is sent again."""

    watch: Watch
    client: str
    step: Step


class Judge:
    """The state of one play as far as its verdict goes."""

    def __init__(self, scenario: Scenario, framing: str, dialect: Dialect = PLAIN) -> None:
        servers = ["server", *scenario.services]
        self.framing = framing
        self.clients = [client.name for client in scenario.clients]
        self.inboxes = {
            **{name: Inbox(LINE) for name in servers},
            **{name: Inbox(framing, dialect) for name in self.clients},
            "wire": Inbox(LINE),
        }
        self._got = {name: Reception() for name in self.clients}
        self._on_the_wire = Tail(6, _on_the_wire)
        self.values: dict[str, str] = dict(scenario.values)
        self._guards: list[_Guard] = []
        self._begun: dict[str, int] = {}
        self._acted = 0
        self._tables: dict[tuple[str, str], Mapping[str, Any]] = {}
        self._ports: set[int] = set()
        """Where servers listen: UDP answers come from there, or a client would throw them away."""
        self._holdings: dict[str, Mapping[str, int]] = {}
        self._loads: dict[str, Mapping[str, Any]] = {}
        self._steady: dict[str, tuple[Mapping[str, int], int]] = {}
        """Of each server what it held at its first `steady:`, and how many had connected by then."""
        self._said = array("q")
        self._joined = array("q")
        self._ends_expected: set[str] = set()

    def feed(self, event: Event) -> None:
        """Take in the next event. Raises nothing: what is wrong is found when a step asks."""
        if event.kind == "step":
            path = str(event.data["path"])
            if event.data["phase"] == "begin":
                self._begun[path] = event.t
                if event.data["verb"] == "send":
                    self._said.append(event.t)
                if event.data["verb"] not in ASSERTING:
                    self._release(lambda watch: watch.expectation.log)  # the server may log anything of it
            else:
                begun = self._begun.pop(path, event.t)
                if event.data["verb"] not in ASSERTING:
                    self._acted = max(self._acted, begun)
            return
        if event.node in self._got:
            self._got[event.node].feed(event)
        elif event.kind == "wire":
            self._on_the_wire.add(event)
        if event.kind == "connected":
            self._joined.append(event.t)
            self._ends_expected.discard(event.node)
        elif event.kind == "signalled" and event.data["signal"] in ("SIGTERM", "SIGKILL"):
            self._ends_expected.add(event.node)
        elif event.kind == "spawned":
            self._ends_expected.discard(event.node)
        if event.kind == "sent":
            said = joined(event.data["chunks"])
            self._release(lambda watch: watch.concerns(said))
        if event.kind == "load":
            self._loads[event.node] = event.data
        if event.kind == "holdings":
            self._holdings[event.node] = event.data
        if event.kind == "spawned":
            self._steady.pop(event.node, None)  # another process holds what it holds
        if event.kind == "sockets":
            self._tables[event.node, event.data["peer"]] = event.data
        if event.kind == "ready":
            self._ports.add(int(event.data["port"]))
        if event.kind == "received" and "from" in event.data and event.data["from"][1] not in self._ports:
            return  # from somebody whom this client has not asked
        where = "wire" if event.kind == "wire" else event.node
        if where in self.inboxes:
            self.inboxes[where].feed(event)

    def _release(self, may_come_again: Callable[[Watch], bool]) -> None:
        """What was to come once is judged by what came until now, if from here on it may rightly come again."""
        self._guards = [g for g in self._guards if g.watch.violated() or not may_come_again(g.watch)]

    @property
    def asked_to_end(self) -> list[str]:
        """Clients whose connection was to end, and did."""
        return [name for name in self.clients if name in self._ends_expected]

    # expect

    def expect(self, step: Step) -> Waiting:
        """Begin to wait for what a step expects."""
        return Waiting(step, [(name, Watch(e, self.inboxes[name], self.values)) for name, e in step.expects])

    def conclude(self, waiting: Waiting, limit: Limit | None = None) -> None:
        """The end of an `expect` step. Raises Failed for what was not met within its limit, and Endless."""
        waiting.settled()
        for name, watch in waiting.watches:
            _must_end(name, watch)
        unmet = [(name, watch) for name, watch in waiting.watches if watch.state is not State.MET]
        if unmet:
            raise self._unmet(waiting.step, unmet, limit or _asked(waiting.step))
        for name, watch in waiting.watches:
            if watch.expectation.once or watch.expectation.kind in ("exactly", "sent"):
                self._guards.append(_Guard(watch, name, waiting.step))
            if watch.expectation.kind in ("exit", "eof", "reset"):
                self._ends_expected.add(name)
            if waiting.step.capture and watch.captured is not None:
                self.values[waiting.step.capture] = watch.captured
        self.check_guards()

    def _unmet(self, step: Step, unmet: list[tuple[str, Watch]], limit: Limit) -> Failed:
        told = unmet[:4]
        more = f" (and {len(unmet) - 4} more)" if len(unmet) > 4 else ""
        waited = any(watch.state is State.WAITING for _, watch in unmet)
        expected = "; ".join(f"{name}: {watch.told}" for name, watch in told) + more
        reasons = "; ".join(
            text for _, watch in told if (text := watch.reason or (watch.missing() if watch.several else ""))
        )
        came = "; ".join(self._came(name) for name, _ in told)
        names = [name for name, _ in unmet]
        return Failed(
            expected + (f", {limit}" if waited else ""),
            came + (f" ({reasons})" if reasons else ""),
            names,
            step,
            self._raced(names),
            any(watch.overtaken for _, watch in unmet),
        )

    def _came(self, name: str) -> str:
        if name in self._got:
            return f"{name}: {self._got[name]}"
        if name == "wire":
            return f"on the wire: {self._on_the_wire.told(', ') or 'nothing of the kind'}"
        return "(see the log)"

    def _raced(self, names: Sequence[str]) -> bool:
        """Whether something was said so soon after a connect that a right server may have passed one of these by."""
        if self.framing != LINE or not any(name in self.clients for name in names):
            return False
        grace, said = int(JOIN_GRACE * 1e9), sorted(self._said)
        nexts = ((joined_, bisect_left(said, joined_)) for joined_ in self._joined)
        return any(at < len(said) and said[at] - joined_ < grace for joined_, at in nexts)

    def check_guards(self) -> None:
        """Raises Failed if something came that `once` or `exactly` forbade, and Endless."""
        for guard in self._guards:
            _must_end(guard.client, guard.watch)
            if wrong := guard.watch.violated():
                raise Failed(
                    f"{guard.client}: {guard.watch.told}",
                    f"{guard.client}: {wrong}",
                    [guard.client],
                    guard.step,
                )

    def forgive(self) -> None:
        """What came too much has been told; whoever plays on is not told of it again."""
        self._guards = [guard for guard in self._guards if not guard.watch.violated()]

    # quiet

    def may_be_quiet(self, name: str, step: Step) -> None:
        """Raises Failed where silence would prove nothing."""
        ended = self.inboxes[name].ended
        if ended and self.framing != DATAGRAM:
            raise Failed(
                f"{name}: silence on an open connection",
                f"{name}: its connection has ended ({ended}), so silence proves nothing",
                [name],
                step,
            )

    def broke_silence(self, name: str) -> bool:
        """Whether something came since the last step that did something."""
        return bool(self.inboxes[name].since(self._acted))

    def conclude_quiet(self, name: str, window: float, step: Step) -> None:
        """Raises Failed with what came."""
        if came := self.inboxes[name].since(self._acted):
            texts = " ".join(shown(m.data) for m in came[:4])
            raise Failed(f"{name}: nothing for {window:g}s", f"{name}: {texts}", [name], step)

    # sockets

    def unlike(self, step: Step) -> list[tuple[str, str, Mapping[str, str]]]:
        """What of a `sockets` step the kernel has not said, by what it said last."""
        return [
            (who, peer, wanted)
            for who, peer, wanted in step.sockets
            if not fits(wanted, self._tables.get((who, peer), {"state": GONE}))
        ]

    def conclude_sockets(self, step: Step, limit: Limit | None = None) -> None:
        """Raises Failed with what the kernel said instead."""
        if unlike := self.unlike(step):
            expected = "; ".join(
                f"{who}: its socket to {peer} {told_bounds(wanted)}" for who, peer, wanted in unlike
            )
            got = "; ".join(
                f"{who}: {told(self._tables.get((who, peer), {'state': GONE}))}" for who, peer, _ in unlike
            )
            raise Failed(f"{expected}, {limit or _asked(step)}", got, [who for who, _, _ in unlike], step)

    # load

    def conclude_load(self, step: Step) -> None:
        """Raises Failed where not everything reached everyone who was there."""
        for name, load in step.loads:
            came = self._loads[name]
            if came["wrong"]:
                raise Failed(
                    f"{name}: every message once, whole and in order ({load})",
                    f"{name}: {'; '.join(came['wrong'])}; {came['heard']:,} came",
                    [name],
                    step,
                )

    # steady

    def growth(self, name: str) -> dict[str, int]:
        """What a server holds more than at its first `steady:`, and should not; by what its process was last seen to hold."""
        if name not in self._steady or name not in self._holdings:
            return {}
        before, joined_ = self._steady[name]
        return holdings.grown(before, self._holdings[name], len(self._joined) - joined_)

    def conclude_steady(self, step: Step) -> None:
        """Raises Failed with what has grown."""
        for name in step.names:
            if self.growth(name):
                before, joined_ = self._steady[name]
                clients = len(self._joined) - joined_
                raise Failed(
                    f"{name}: to hold what it held before {clients} clients came and went: {holdings.told(before)}",
                    f"{name}: {holdings.told(self._holdings[name])}",
                    step=step,
                )
            if name in self._holdings:
                self._steady.setdefault(name, (self._holdings[name], len(self._joined)))

    # the end

    def conclude_play(self) -> None:
        """When all steps are done. Raises Failed for what came too much, and for a server that is gone unasked."""
        self.check_guards()
        for name, inbox in self.inboxes.items():
            if name not in self.clients and inbox.status is not None and name not in self._ends_expected:
                how = f"by signal {-inbox.status}" if inbox.status < 0 else f"with status {inbox.status}"
                raise Failed(f"{name} to stay up", f"its process ended {how}")


def _must_end(name: str, watch: Watch) -> None:
    if watch.endless:
        raise Endless(
            f"{name}: {watch.expectation}: this regular expression comes to no end with what came; let no repetition stand in another"
        )


def _asked(step: Step) -> Limit:
    asked = LIMIT if step.within is None else step.within
    return Limit(asked, asked)


def _on_the_wire(event: Event) -> str:
    return f"{event.data['from']}→{event.data['to']} {' '.join(event.data['words'])}"


def again(events: Past) -> tuple[Verdict, int, str]:
    """Judge a recorded history again: verdict, line of the step (0: none), reason.

    A play that was skipped, or in which the lab broke, or whose server never came up, is as it was. Raises ValueError for a
    history that has no beginning or no end.
    """
    begin: Event | None = None
    end: Event | None = None
    stepped = False
    for end in events:
        if begin is None and end.kind == "play":
            begin = end
        stepped = stepped or end.kind == "step"
    if end is None or end.kind != "verdict":
        raise ValueError("this history has no verdict at its end; the play was broken off")
    recorded = Verdict(end.data["verdict"]), int(end.data["line"]), str(end.data["reason"])
    if begin is None or not stepped or recorded[0] in (Verdict.SKIP, Verdict.ERROR):
        return recorded
    scenario = scenario_of(events)
    judge = Judge(scenario, str(begin.data["framing"]), Dialect.of(begin.data.get("dialect", {})))
    waiting: dict[str, Waiting] = {}
    try:
        for event in islice(events, len(events) - 1):
            judge.feed(event)
            if event.kind == "step":
                _judge_step(judge, scenario, event, waiting)
        judge.conclude_play()
    except Failed as exc:
        return Verdict.FAIL, exc.step.line if exc.step else 0, str(exc)
    return (Verdict.PASS, 0, "") if recorded[0] is Verdict.PASS else recorded


def _judge_step(judge: Judge, scenario: Scenario, event: Event, waiting: dict[str, Waiting]) -> None:
    path, phase = str(event.data["path"]), event.data["phase"]
    step = step_at(scenario, path, judge.values)
    if phase == "broken off":
        waiting.pop(path, None)
    elif step.verb == "expect":
        if phase == "begin":
            waiting[path] = judge.expect(step)
        else:
            judge.conclude(waiting.pop(path))
    elif step.verb == "sockets" and phase != "begin":
        judge.conclude_sockets(step)
    elif step.verb == "load" and phase != "begin":
        judge.conclude_load(step)
    elif step.verb == "steady" and phase != "begin":
        judge.conclude_steady(step)
    elif step.verb == "quiet" and phase != "begin":
        for name, window in step.windows:
            judge.conclude_quiet(name, window, step)


def scenario_of(events: Past) -> Scenario:
    """The scenario of a history, with all steps that a person typed. Raises ScenarioError, and LookupError where there is no play."""
    begin = next((e for e in events if e.kind == "play"), None)
    if begin is None:
        raise LookupError("this history has no play in it")
    typed = "".join(str(e.data["text"]) for e in events if e.kind == "typed")
    source = Source.parse(str(begin.data["scenario"]) + typed, Path(str(begin.data["path"])))
    return variant(source, str(begin.data["service"]), begin.data["values"])


def step_at(scenario: Scenario, path: str, values: dict[str, str]) -> Step:
    """The step with a path such as 3, 3.1 (in together: or during:) or 3.2.1 (round 2 of a repeat:)."""
    numbers = [int(part) for part in path.split(".")]
    steps: Sequence[Step] = scenario.steps
    step = steps[numbers[0] - 1]
    rest = numbers[1:]
    while rest:
        if step.verb == "repeat":
            values["round"] = str(rest[0])
            rest = rest[1:]
        step = (step.steps or step.during)[rest[0] - 1]
        rest = rest[1:]
    return step
