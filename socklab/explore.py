"""Looking for what nobody thought of: random histories are played at a server until one fails; that one is confirmed, made small, and
written down as a scenario.

    random_histories (acts ─▶ steps with what is owed) ──▶ conductor ──▶ fail? ──▶ again k of n ──▶ smaller, and smaller ──▶ a file
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from socklab import conductor, player
from socklab.backends import LINKS, Backend, LabError
from socklab.check import Order
from socklab.conductor import LONG_GAP, Options
from socklab.random_histories import Act, generate, scenario, smaller
from socklab.report import Found
from socklab.scenario import plays
from socklab.source import Source
from socklab.verdict import Result, Verdict

TIMES = 3  # so often is a failure played again before it is believed
IMPATIENT = 2.0  # seconds that a step may take
SHRINKING = 30.0  # seconds at most

Tell = Callable[[str], None]
"""Called with how far it has come, in words."""


@dataclass(frozen=True)
class _Suspect:
    number: int
    acts: list[Act]
    result: Result
    failed: int
    """So often of TIMES."""


@dataclass
class Exploration:
    played: int = 0
    once: int = 0
    """Histories that failed and then did not fail again, with time to join: a right server may do that (chat.4)."""
    found: list[Found] = field(default_factory=list)
    broken: str = ""
    """Why the lab could not go on."""
    seconds: float = 0.0


class Explorer:
    def __init__(self, order: Order, backend: Backend, options: Options, seed: int, words: str = "") -> None:
        """`words`: the command by which this is explored, for the file that is written."""
        self.order = order
        self.backend = backend
        self.topology = order.topology
        self.seed = seed
        self.words = words
        self.links = LINKS in backend.can and not order.guest.loopback
        self.options = replace(options, replay=False, longest=IMPATIENT, runs=None)
        self.contract = order.contract.name

    async def explore(
        self,
        histories: int,
        seconds: float,
        jobs: int | None = None,
        more: bool = False,
        tell: Tell = lambda _: None,
    ) -> Exploration:
        """Until so many histories were played, or the time is over, or one failed (`more`: go on for others). Raises LabError."""
        began = time.monotonic()
        done = Exploration()
        known: set[str] = set()
        suspects: list[_Suspect] = []
        numbers = iter(range(histories))

        async def worker() -> None:
            for number in numbers:
                if time.monotonic() - began > seconds or done.broken or (suspects and not more):
                    return
                acts = generate(self.contract, Random(f"{self.seed}-{number}"), self.links)
                result = await self._play(acts)
                done.played += 1
                if result.verdict is Verdict.ERROR:
                    done.broken = result.reason
                elif result.verdict is Verdict.FAIL and key_of(result) not in known:
                    if suspect := await self._again(number, acts):
                        known.update((key_of(result), key_of(suspect.result)))
                        suspects.append(suspect)
                    else:
                        done.once += 1
                tell(f"{done.played} histories" + (f", failures so far: {len(suspects)}" if more else ""))

        async with asyncio.TaskGroup() as group:
            for _ in range(jobs or player.at_once(self.backend)):
                group.create_task(worker())
        if done.broken:
            raise LabError(done.broken)
        # The one that always fails, and has the fewest acts, comes first.
        for suspect in sorted(suspects, key=lambda s: (-s.failed, len(s.acts))):
            done.found.append(await self._made_small(suspect, tell))
            if not more:
                break
        done.seconds = time.monotonic() - began
        return done

    async def _play(self, acts: Sequence[Act], gap: float = 0.0) -> Result:
        source = Source.parse(self._text(acts, "a random history"), Path("explored.scenario.yaml"))
        (play,) = plays(source)
        return await conductor.play(play, self.topology, self.backend, replace(self.options, gap=gap))

    def _text(self, acts: Sequence[Act], title: str, comments: Sequence[str] = ()) -> str:
        return scenario(self.contract, self.order.model, acts, self.links, title, comments)

    @property
    def _gap(self) -> float:
        """With time to join, a line that passed a newcomer by is no excuse any more (chat.4)."""
        return LONG_GAP if self.contract == "chat" else 0.0

    async def _again(self, number: int, acts: list[Act]) -> _Suspect | None:
        """Play again what failed; None where it does not fail any more."""
        results = await asyncio.gather(*(self._play(acts, self._gap) for _ in range(TIMES)))
        failed = [r for r in results if r.verdict is Verdict.FAIL]
        return _Suspect(number, acts, failed[0], len(failed)) if failed else None

    async def _made_small(self, suspect: _Suspect, tell: Tell) -> Found:
        acts, result, tried = suspect.acts, suspect.result, 0
        if suspect.failed == TIMES:
            acts, result, tried = await self._shrunk(
                acts,
                result,
                lambda text: tell(f"history {suspect.number} fails, and is made smaller: {text}"),
            )
        again = await asyncio.gather(*(self._play(acts, self._gap) for _ in range(TIMES)))
        count = sum(r.verdict is Verdict.FAIL for r in again)
        text = self._text(acts, _title(result), self._comments(suspect.number, count, result))
        return Found(suspect.number, len(acts), result, count, TIMES, tried, text)

    async def _shrunk(self, acts: list[Act], result: Result, tell: Tell) -> tuple[list[Act], Result, int]:
        """The smallest history that fails in the same way, as far as taking away leads."""
        wanted, began, tried = key_of(result), time.monotonic(), 0
        width = player.at_once(self.backend)
        seen: set[tuple[Act, ...]] = set()
        progress = True
        while progress and time.monotonic() - began < SHRINKING:
            progress = False
            todo = [c for c in smaller(self.contract, acts, self.links) if tuple(c) not in seen]
            for at in range(0, len(todo), width):
                tell(f"{len(acts)} acts left, {tried} tried")
                batch = todo[at : at + width]
                seen.update(map(tuple, batch))
                tried += len(batch)
                results = await asyncio.gather(*(self._play(c) for c in batch))
                better = [
                    (c, r)
                    for c, r in zip(batch, results, strict=True)
                    if r.verdict is Verdict.FAIL and key_of(r) == wanted
                ]
                if better and (kept := await self._still(better, wanted)) is not None:
                    acts, result = kept
                    progress = True
                    break
        return acts, result, tried

    async def _still(
        self, better: list[tuple[list[Act], Result]], wanted: str
    ) -> tuple[list[Act], Result] | None:
        """The first that fails again with time to join."""
        if not self._gap:
            return min(better, key=lambda pair: len(pair[0]))
        for acts, _ in sorted(better, key=lambda pair: len(pair[0])):
            result = await self._play(acts, self._gap)
            if result.verdict is Verdict.FAIL and key_of(result) == wanted:
                return acts, result
        return None

    def _comments(self, number: int, count: int, result: Result) -> list[str]:
        failure = result.failure
        lines = [
            f"Found by: socklab explore {self.words}".rstrip() + f"   (seed {self.seed}, history {number})",
            f"It fails {count} of {TIMES} times. Play it again: socklab play FILE -- {' '.join(self.order.command)}",
        ]
        if failure is not None:
            lines += [f"Expected: {_short(failure.expected)}", f"Got:      {_short(failure.got)}"]
            if failure.cause:
                lines.append(f"Cause:    {_short(failure.cause)}")
        return lines


def _short(text: str) -> str:
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= 160 else text[:159] + "…"


def _title(result: Result) -> str:
    failure = result.failure
    return _short(failure.cause or failure.expected if failure else "a failure")[:100]


def key_of(result: Result) -> str:
    """What is the same about two failures, whoever it met and however often."""
    failure = result.failure
    if failure is None:
        return ""
    text = failure.cause or failure.expected
    text = re.sub(r'"(?:[^"\\]|\\.)*"', '""', text.partition(", right behind")[0])
    return re.sub(r"\b(alice|bob|carol|dave)\b|[\d.,]+", "…", text)
