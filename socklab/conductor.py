"""The conductor plays one scenario: it has a rig made, has the steps performed in order, and says what came of it.

Layout (who is where) ──▶ Rig (the lab stands) ──▶ Performer (steps are done) ──▶ Result
                               └── all that happens ──▶ History, Judge
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

from socklab import causes, runs
from socklab.backends import PROGRAMS, Backend, LabError, Lacking
from socklab.endless import Endless
from socklab.judge import JOIN_GRACE, Failed, Judge
from socklab.layout import Layout
from socklab.matching import STREAM
from socklab.performer import Performer
from socklab.rig import Options, Rig
from socklab.scenario import Scenario
from socklab.servers import NotReady, Server
from socklab.sockets import as_seen
from socklab.steps import Step
from socklab.tasks import unhurried
from socklab.topology import Topology
from socklab.verdict import Failure, Result, Verdict, server_log

__all__ = ["LONG_GAP", "Options", "Play", "play"]

FEW = 4  # clients of whom the server's kernel is asked when they got too little
TELLING = 10_000  # events before a failure among which its cause is looked for; rules hold all that was said against all that came
LONG_GAP = JOIN_GRACE * 1.1  # seconds after which whoever connected has joined


async def play(
    scenario: Scenario, topology: Topology, backend: Backend, options: Options | None = None
) -> Result:
    """Play a scenario once, and once more with a longer gap where its failure could be a race that the server may lose.

    Raises ScenarioError and TopologyError for what does not fit together; all else is in the result.
    """
    options = options or Options()
    began = time.monotonic()
    result, raced = await Play(scenario, topology, backend, options).run()
    if raced and options.replay:
        second, _ = await Play(scenario, topology, backend, replace(options, gap=LONG_GAP)).run()
        note = "a line said within a second of a connect passed a client by, as it may (chat.4); played again with a longer gap"
        result = replace(second, notes=(note,)) if second.verdict is Verdict.PASS else second
    return replace(result, seconds=time.monotonic() - began)


class Play:
    """One play, from its start to its end: on a rig of its own."""

    def __init__(self, scenario: Scenario, topology: Topology, backend: Backend, options: Options) -> None:
        """Raises ScenarioError and TopologyError for what does not fit together."""
        self.scenario = scenario
        self.backend = backend
        self.options = options
        self.layout = Layout(scenario, topology, options.ipv6)
        self.layout.check()
        self.judge = Judge(scenario, self.layout.framing, self.layout.dialect)
        self.rig = Rig(self.layout, backend, options, self.judge)
        self.performer = Performer(self.rig)

    async def run(self) -> tuple[Result, bool]:
        """The result, and whether it is a failure that a longer gap might mend."""
        raced = False
        try:
            await self.set_up()
            await self.performer.play(self.scenario.steps)
            await self.conclude()
            result = self.result(Verdict.PASS)
        except Exception as exc:
            raced = isinstance(exc, Failed) and exc.raced and not self.options.gap
            result = await self.came_to(exc)
        finally:
            # Also when this task is cancelled: what was made goes first.
            missing = await self.tear_down()
        return self.noted(result, missing), raced

    async def set_up(self) -> None:
        """The lab, its servers ready, its agents there. Raises NotReady, LabError, and Lacking for what this backend cannot."""
        if reason := self.layout.lacks(self.backend):
            raise Lacking(reason)
        await self.rig.set_up()
        await self.performer.take_places()

    async def conclude(self) -> None:
        """When all steps are done: what is only known at the end. Raises Failed and LabError."""
        await self.rig.sync()
        await self.rig.hear_packets()
        for server in self.rig.servers.values():
            if server.dying:  # or only its main thread is: then it stays, and is not waited for
                await self.rig.until(lambda s=server: not s.running, 0.2 * self.options.patience)  # type: ignore[misc]
        self.judge.conclude_play()
        self.performer.conclude()
        await self.rig.count()

    async def tear_down(self) -> tuple[str, ...]:
        """End all that was made, and leave the packets and the report. What could not be left, in words."""
        missing = await unhurried(self.rig.keep_packets())
        await self.performer.end()
        await self.rig.close()
        lacking = await unhurried(asyncio.to_thread(self._write_report))  # other plays go on meanwhile
        return tuple(filter(None, (missing, lacking)))

    def _write_report(self) -> str:
        return runs.write_report(self.rig.folder, self.rig.history) if self.rig.folder is not None else ""

    # what came of it

    async def came_to(self, exc: Exception) -> Result:
        """The result of a play that an exception has ended."""
        step = self.performer.step
        match exc:
            case NotReady():
                failure = Failure(
                    f"{self.scenario.path}:{step.line if step else 1}",
                    step.text if step else f"start of {self.scenario.service}",
                    "a server that listens",
                    str(exc),
                    server_log(self.rig.history),
                    causes.of_start(self.rig.history, str(exc)) if self.layout.guest else "",
                    start=step is None,
                )
                return self.result(Verdict.FAIL, str(exc), failure)
            case Failed():
                return self.result(Verdict.FAIL, str(exc), await self.failure(exc))
            case Lacking():
                return self.result(Verdict.SKIP, str(exc))
            case LabError() | Endless():
                where = f"{self.scenario.path}:{step.line}: " if step else ""
                return self.result(Verdict.ERROR, f"{where}{await self.rig.diagnosis() or exc}")
            case OSError():
                return self.result(Verdict.ERROR, f"{exc.filename or 'the lab'}: {exc.strerror or exc}")
            case _:  # a defect of ours is never the server's fault, and no traceback for the user
                return self.result(Verdict.ERROR, runs.defect(exc, self.rig.folder))

    def result(self, verdict: Verdict, reason: str = "", failure: Failure | None = None) -> Result:
        """What the play came to. Nothing that happens afterwards is told."""
        rig, step = self.rig, self.performer.step
        line = int(failure.where.rpartition(":")[2]) if failure else (step.line if step else 0)
        told = {k: getattr(failure, k) for k in ("expected", "got", "cause")} if failure else {}
        rig.tell_clocks()
        rig.record("verdict", verdict=str(verdict), reason=reason, line=line, **told)
        rig.over = True
        if rig.folder is not None:
            runs.write_logs(rig.folder, rig.history, rig.servers)
        return Result(
            self.scenario,
            self.backend.name,
            verdict,
            reason,
            failure,
            folder=rig.folder,
            events=rig.history,
        )

    def noted(self, result: Result, missing: tuple[str, ...]) -> Result:
        """With what could not be kept of the play."""
        result = replace(result, notes=(*result.notes, *missing))
        if self.rig.history.write_error and result.verdict is Verdict.PASS:
            exc = self.rig.history.write_error
            return replace(
                result,
                verdict=Verdict.ERROR,
                reason=f"{self.rig.folder}/history.jsonl: {exc.strerror}; free some space, or play with --runs elsewhere",
            )
        return result

    async def failure(self, exc: Failed) -> Failure:
        """What a person needs to know of it, with what is still heard about its cause."""
        await self._last_words(exc)
        step, history, clients = exc.step, self.rig.history, self.rig.clients
        line = step.line if step else self.scenario.steps[-1].line
        concerned = [c for c in exc.clients if c in clients and not clients[c].of]
        cause = causes.likely(
            history.ends(TELLING),
            concerned,
            self.layout.framing,
            self.layout.dialect,
            step,
            self.judge.asked_to_end,
        )
        in_round = f"  (in {', '.join(exc.rounds)})" if exc.rounds else ""
        return Failure(
            f"{self.scenario.path}:{line}",
            (step.text if step else "end of the scenario") + in_round,
            exc.expected,
            exc.got,
            server_log(e for e in history if e.node in self.rig.servers),
            cause,
        )

    async def _last_words(self, exc: Failed) -> None:
        """A connection that broke may be the first sign of a server that is dying: give its end a moment to arrive."""
        rig, patience = self.rig, self.options.patience
        if exc.overtaken:
            # Is what was passed over lost, or only late? That decides about the cause.
            await rig.until(lambda: False, 0.3 * patience)
        elif self.layout.framing == STREAM:
            # What is wrong from its first byte on is better told with what comes behind it.
            await rig.until(lambda: False, 0.1 * patience)
        if refused := exc.step is not None and exc.step.verb == "connect":
            await self._unaccepted(exc.step)
            self._look_inside()
        elif exc.step is not None and exc.step.verb == "repeat":
            self._look_inside()
        else:
            await self._unread(exc.clients)
        await rig.hear_packets()
        if refused or any(self.judge.inboxes[name].ended for name in exc.clients):
            moment = (1.0 if refused else 0.4) * patience
            await rig.until(lambda: any(not server.running for server in rig.servers.values()), moment)
            await asyncio.sleep(0)  # an end is recorded one turn of the loop after it is known

    async def _unaccepted(self, step: Step) -> None:
        """Of a connect that failed, how many wait before it: the kernel drops who finds the accept queue full (listen(2))."""
        names = dict.fromkeys(options.to or "server" for _, options in step.connects)
        servers = [self.rig.servers[name] for name in names]
        await self._bound(server for server in servers if server.service.protocol == "tcp")

    async def _bound(self, servers: Iterable[Server]) -> None:
        """What waits in the sockets on which these are reached."""
        for server in servers:
            if self.rig.lab.reachable(server.node):
                with contextlib.suppress(LabError, OSError):  # it is only to explain
                    self.rig.record(
                        "sockets", server.name, peer="listen", **as_seen(await server.listening())
                    )

    def _look_inside(self) -> None:
        """What a server holds that has become slow: that may be what it does not give back."""
        server = self.rig.servers["server"]
        if PROGRAMS in self.rig.lab.can and server.running:
            with contextlib.suppress(LabError):  # it is only to explain
                self.rig.record("holdings", "server", **server.holdings().as_data())

    async def _unread(self, clients: Sequence[str]) -> None:
        """Of a few clients, what the server has not read: that tells one that does not read from one that reads and does not send."""
        rig = self.rig
        server = rig.servers["server"]
        if PROGRAMS not in rig.lab.can or not server.running:
            return
        if server.service.protocol == "udp":
            await self._bound([server])
            return
        for client in clients[:FEW]:
            try:
                if rows := await rig.rows("server", client):
                    rig.record("sockets", "server", peer=client, **as_seen(rows))
            except (LabError, OSError):
                return  # it was only to explain
