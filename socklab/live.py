"""Plays that are watched while they go on: each is a list of batches of marks, which any number of viewers read at their own pace.

    conductor ── history.jsonl ──▶ a process that draws (drawer.py) ──▶ batches ◀── read from any place on ── viewers

A viewer has no queue: it knows how far it has read, so one that stalls costs nothing, and one that comes again misses nothing. Drawing
in a process of its own takes no time from the play.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from socklab import conductor, layout
from socklab.backends import Backend, LabError
from socklab.conductor import Options
from socklab.history import Event, History
from socklab.scenario import Scenario
from socklab.session import Session
from socklab.topology import Topology
from socklab.verdict import Result, Verdict

TOGETHER = 0.03  # seconds for which events are gathered: nobody sees what is quicker
LAST = 5.0  # seconds for the last of a play to be drawn
KEPT = 50  # plays that have ended and can still be watched from their beginning; others leave a report
BY_HAND = 8  # labs that stand for somebody to play in by hand, at most
IDLE = 600.0  # seconds after which such a lab ends when nobody looks at it
_BEAT = 5.0  # seconds


class Feed:
    """A growing list of texts, and whoever waits for more of them."""

    def __init__(self) -> None:
        self.name = secrets.token_hex(4)
        """Differs from that of any other, also of a server that was here before."""
        self.texts: list[str] = []
        self.ended = False
        self.left = False
        """Whoever reads shall go: nothing more is told, though it has not ended."""
        self.viewers = 0
        self._more = asyncio.Event()

    def add(self, text: str) -> None:
        self.texts.append(text)
        self._wake()

    def end(self) -> None:
        self.ended = True
        self._wake()

    def leave(self) -> None:
        self.left = True
        self._wake()

    def _wake(self) -> None:
        self._more.set()
        self._more = asyncio.Event()

    async def read(self, after: int, rest: float) -> AsyncIterator[tuple[int, str] | None]:
        """Number and text of each behind the first `after`, as they come; None when there was nothing for `rest` seconds."""
        at = max(after, 0)
        while not self.left:
            while at < len(self.texts):
                at += 1
                yield at, self.texts[at - 1]
            if self.ended:
                return
            try:
                await asyncio.wait_for(self._more.wait(), rest)
            except TimeoutError:
                yield None


class Turns:
    """A backend for whoever plays. One that others want as well (`joined`) is held only while somebody does."""

    def __init__(self, choose: Callable[[], Awaitable[Backend]], held: bool) -> None:
        self._choose = choose
        self._held = held
        self._backend: Backend | None = None
        self._users = 0
        self._one_at_a_time = asyncio.Lock()

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[Backend]:
        """Raises Unavailable."""
        async with self._one_at_a_time:
            if self._backend is None:
                self._backend = await self._choose()
            backend = self._backend
            self._users += 1
        try:
            yield backend
        finally:
            self._users -= 1
            if not self._users and not self._held:
                await self.close()

    async def close(self) -> None:
        async with self._one_at_a_time:
            if self._backend is not None and not self._users:
                await self._backend.close()
                self._backend = None


class Drawer:
    """The process that draws (socklab/drawer.py), and where what it draws goes."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._plays: dict[str, Watched] = {}
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "socklab.drawer", stdin=pipe, stdout=pipe, limit=1 << 30
        )
        self._reading = asyncio.ensure_future(self._read())

    def begin(self, watched: Watched) -> None:
        self._plays[watched.id] = watched

    def order(self, id_: str, what: str, argument: str = "") -> None:
        if (
            self._process is not None
            and self._process.stdin is not None
            and not self._process.stdin.is_closing()
        ):
            self._process.stdin.write(json.dumps([id_, what, argument]).encode() + b"\n")

    async def end(self, watched: Watched) -> None:
        """Until all of a play is drawn that has been written."""
        self.order(watched.id, "end")
        if self._reading is not None and not self._reading.done():
            try:
                await asyncio.wait_for(watched.drawn.wait(), LAST)
            except TimeoutError:
                pass  # it is drawn in report.html
        del self._plays[watched.id]

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            id_, _, text = line.decode().rstrip("\n").partition("\t")
            if (watched := self._plays.get(id_)) is None:
                continue
            if text:
                watched.feed.add(text)
            else:
                watched.drawn.set()
        for watched in self._plays.values():
            watched.drawn.set()  # nothing more can come

    async def close(self) -> None:
        """Its input ends, and so does it."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            await self._process.wait()
        if self._reading is not None:
            await asyncio.gather(self._reading, return_exceptions=True)


@dataclass
class Watched:
    """One play."""

    id: str
    scenario: Scenario
    drawer: Drawer
    feed: Feed = field(default_factory=Feed)
    result: Result | None = None
    by_hand: bool = False
    """A person gives its steps."""
    session: Session | None = None
    """While steps can be given."""
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    """Its lab stands, or will not."""
    drawn: asyncio.Event = field(default_factory=asyncio.Event)
    """It has ended, and all of it is in the feed."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    rest: list[str] = field(default_factory=list)
    """Of a scenario that is played by hand, the steps that are still to come."""
    history: History | None = None
    """What has happened, once it has begun."""
    _waits: bool = False

    def opened(self, history: History) -> None:
        """A play begins; after a race it is played again, and what is watched from here on is another."""
        self.history = history
        assert history.path is not None
        self.drawer.order(self.id, "draw", str(history.path))

    def see(self, event: Event) -> None:
        """Have what has happened drawn soon if somebody looks, and no oftener than anybody can see."""
        if self.feed.viewers and not self._waits:
            self._waits = True
            asyncio.get_running_loop().call_later(TOGETHER, self.draw)

    def draw(self) -> None:
        """Have drawn what has happened so far."""
        self._waits = False
        if self.history is not None and self.result is None:
            self.history.flush()
            self.drawer.order(self.id, "more")

    @property
    def state(self) -> dict[str, Any]:
        verdict = "running" if self.result is None else str(self.result.verdict)
        reason = (
            ""
            if self.result is None
            else (self.result.failure.cause if self.result.failure else "") or self.result.reason
        )
        facts = {"id": self.id, "title": self.scenario.title, "label": self.scenario.label}
        return {
            **facts,
            "by_hand": self.by_hand,
            "path": str(self.scenario.path),
            "service": self.scenario.service,
            "verdict": verdict,
            "reason": reason,
        }


class Stage:
    """All plays of one server of pages."""

    def __init__(self, backend: Turns, options: Options, at_once: int) -> None:
        self._backend = backend
        self.options = options
        self.plays: dict[str, Watched] = {}
        self.reports: dict[str, Path] = {}
        """Of plays that have ended."""
        self.board = Feed()
        """The state of each play, whenever it changes."""
        self._drawer = Drawer()
        self._gate = asyncio.Semaphore(at_once)
        self._tasks: set[asyncio.Task[None]] = set()
        self._count = 0

    async def start(self) -> None:
        await self._drawer.start()

    def begin(self, scenario: Scenario, topology: Topology) -> Watched:
        """Play a scenario."""
        watched = self._watched(scenario)
        self._go(watched, self._play(watched, topology))
        return watched

    def open(self, scenario: Scenario, topology: Topology, rest: Sequence[str] = ()) -> Watched:
        """A lab for somebody who plays by hand. Raises LabError where there are too many, TopologyError and ScenarioError."""
        if sum(w.by_hand and w.result is None for w in self.plays.values()) >= BY_HAND:
            raise LabError(f"{BY_HAND} labs stand for playing by hand; end one of them first")
        layout.check(scenario, topology)
        watched = self._watched(scenario)
        watched.by_hand, watched.rest = True, list(rest)
        self._go(watched, self._stand(watched, topology))
        return watched

    def _watched(self, scenario: Scenario) -> Watched:
        self._count += 1
        watched = Watched(str(self._count), scenario, self._drawer)
        self.plays[watched.id] = watched
        self._drawer.begin(watched)
        for id_ in [w.id for w in self.plays.values() if w.result is not None][:-KEPT]:
            del self.plays[id_]
        return watched

    def _go(self, watched: Watched, going: Coroutine[Any, Any, Result]) -> None:
        self._tell(watched)
        task = asyncio.ensure_future(self._until_ended(watched, going))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _until_ended(self, watched: Watched, going: Coroutine[Any, Any, Result]) -> None:
        reason = "it was broken off"
        try:
            watched.result = await going
        except LabError as exc:
            reason = str(exc)
        finally:
            if watched.result is None:
                watched.result = Result(watched.scenario, "", Verdict.ERROR, reason)
            watched.begun.set()
            if watched.result.folder is not None:
                self.reports[watched.id] = watched.result.folder / "report.html"
            await self._drawer.end(watched)
            watched.feed.end()
            self._tell(watched)

    async def _play(self, watched: Watched, topology: Topology) -> Result:
        async with self._gate, self._backend() as backend:
            return await conductor.play(watched.scenario, topology, backend, self._options(watched))

    async def _stand(self, watched: Watched, topology: Topology) -> Result:
        async with self._backend() as backend:
            session = Session(watched.scenario, topology, backend, self._options(watched))
            if result := await session.begin():
                return result
            watched.session = session
            watched.begun.set()
            try:
                await self._deserted(watched)
            finally:
                watched.session = None
                result = await session.end()
            return result

    async def _deserted(self, watched: Watched) -> None:
        """Until somebody ends it, or nobody has looked at it for long."""
        idle = 0.0
        while idle < IDLE:
            try:
                await asyncio.wait_for(watched.over.wait(), _BEAT)
                return
            except TimeoutError:
                idle = 0.0 if watched.feed.viewers else idle + _BEAT

    def _options(self, watched: Watched) -> Options:
        return replace(self.options, on_event=watched.see, on_history=watched.opened)

    def _tell(self, watched: Watched) -> None:
        self.board.add(json.dumps(watched.state, ensure_ascii=True))

    def leave(self) -> None:
        """Send all viewers away, and end what they wait for."""
        for watched in self.plays.values():
            watched.feed.leave()
            if watched.session is not None:
                watched.session.break_off()
        self.board.leave()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._backend.close()
        await self._drawer.close()
        self.board.end()
