"""A session: a play whose steps come one at a time, from a person (`socklab shell`, the live page).

It is a scenario that grows at its end. A step that fails is told, and the session goes on; all that happens is in its history, so a
session is shown, drawn and judged again as any play is.
"""

from __future__ import annotations

import asyncio
import json
import time

from socklab.backends import Backend, LabError, Lacking
from socklab.conductor import Options, Play
from socklab.judge import ASSERTING, Failed
from socklab.language import VERBS
from socklab.layout import Layout
from socklab.scenario import Scenario, as_item
from socklab.servers import NotReady
from socklab.source import ScenarioError
from socklab.steps import Step
from socklab.topology import Topology, TopologyError
from socklab.verdict import Failure, Result, Verdict


class Session(Play):
    """Between `begin()` and `end()`, the lab stands and does what `do()` is given."""

    def __init__(self, scenario: Scenario, topology: Topology, backend: Backend, options: Options) -> None:
        """Raises ScenarioError and TopologyError for what does not fit together."""
        super().__init__(scenario, topology, backend, options)
        self._failures: list[Failure] = []
        self._one_at_a_time = asyncio.Lock()
        self._doing: asyncio.Task[None] | None = None

    async def begin(self) -> Result | None:
        """Make the lab, and play the steps that the scenario has already. A result: it did not come to a session."""
        try:
            await self.set_up()
            await self.performer.play(self.scenario.steps)
        except Exception as exc:
            return self.noted(await self.came_to(exc), await self.tear_down())
        except BaseException:
            await self.tear_down()
            raise
        return None

    async def do(self, text: str) -> Failure | None:
        """Do a step, in the language of scenarios; what was wrong with the server, if it was.

        One after another, whoever asks. Raises ScenarioError for a text that is no step, and LabError for a step that cannot be done
        here and now: then nothing was done, or it was broken off.
        """
        async with self._one_at_a_time:
            if self.rig.over:
                raise LabError("this session is over")
            item = as_item(self._meant(text))
            try:
                grown = self.scenario.grown(item)
            except ScenarioError as exc:
                raise ScenarioError(exc.message + _way(text), exc.path) from None
            step = grown.steps[-1]
            self._go_on_as(grown, step)
            self.rig.record("typed", text=item, line=step.line)
            self._doing = asyncio.ensure_future(self._add(step, str(len(grown.steps))))
            try:
                await self._doing
            except Failed as exc:
                failure = await self.failure(exc)
                self._failures.append(failure)
                self.judge.forgive()
                return failure
            except NotReady as exc:
                raise LabError(str(exc)) from None
            except KeyError as exc:
                raise LabError(f"nothing was caught as {exc}, for that step did not pass") from None
            except asyncio.CancelledError:
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    raise
                raise LabError("broken off") from None
        return None

    def _meant(self, text: str) -> str:
        """`alice: hello` is short for `send: {alice: hello}`."""
        who, colon, said = text.partition(": ")
        if colon and who.strip() in self.rig.clients:
            return f"send: {{{who.strip()}: {json.dumps(said.strip(), ensure_ascii=False)}}}"
        return text

    async def _add(self, step: Step, path: str) -> None:
        await self.rig.links.prepare(self.layout.link_faults(step.walk()))
        if step.verb not in ASSERTING:
            await self.rig.sync()  # what has come before this step shall not be taken for its effect
        await self.performer.play_one(step, path)

    def break_off(self) -> None:
        """End the step that is waited for, if there is one; whoever asked for it gets a LabError."""
        if self._doing is not None:
            self._doing.cancel()

    def _go_on_as(self, grown: Scenario, step: Step) -> None:
        """As a scenario with this step more. Raises ScenarioError, and LabError for a step that cannot be done in this lab."""
        layout = Layout(grown, self.layout.topology, self.options.ipv6)
        try:
            layout.check()
        except TopologyError as exc:
            raise LabError(str(exc)) from None
        if layout.ipv6 and not self.layout.ipv6:
            raise Lacking("this lab has no IPv6: begin it with --ipv6")
        if reason := layout.lacks(self.backend) or layout.lacks_here(self.rig.lab):
            raise Lacking(reason)
        if self.rig.capture is None and any(
            name == "wire" for each in step.walk() for name, _ in each.expects
        ):
            raise Lacking("this lab's packets are not captured, so nothing can be asked of the wire")
        self.scenario, self.layout = grown, layout

    async def settle(self, window: float, limit: float) -> None:
        """Until nothing has happened for `window` seconds, at most `limit` seconds."""
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            before = len(self.rig.history)
            if not await self.rig.until(lambda before=before: len(self.rig.history) > before, window):  # type: ignore[misc]
                return

    async def end(self) -> Result:
        """Take the lab down. The result is a failure if a step failed, or something was wrong at the end."""
        self.break_off()
        try:
            await self.conclude()
            failure = next(iter(self._failures), None)
            result = self.result(
                Verdict.FAIL if failure else Verdict.PASS,
                f"expected {failure.expected}; got {failure.got}" if failure else "",
                failure,
            )
        except Exception as exc:
            result = await self.came_to(exc)
        finally:
            missing = await self.tear_down()
        return self.noted(result, missing)


def _way(text: str) -> str:
    """How it is written, where a verb lacks only its colon."""
    verb, _, rest = text.strip().partition(" ")
    return f"; write {verb}: …, a colon behind the verb" if verb in VERBS and rest else ""
