"""`socklab play` on a terminal: what goes on stands below the results, and is gone when it is over.

One play shows a line for each node, with what it waits for; several side by side show a line each, with its step.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from itertools import islice
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from socklab.history import Event
from socklab.lanes import Lanes
from socklab.scenario import Scenario
from socklab.words import safe

OFTEN = 0.1  # seconds between two drawings
AT_ONCE = 1000  # lines
LONG = 0.5  # seconds after which it is worth telling how long something takes


class Screen:
    """The part of a terminal that changes. `async with` it."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self._plays: list[Lanes] = []
        self._live = Live(
            console=self.console,
            auto_refresh=False,
            transient=True,
            get_renderable=self._drawn,
            redirect_stderr=False,
        )
        self._drawing: asyncio.Task[None] | None = None

    def watch(self, scenario: Scenario) -> Callable[[Event], None]:
        """What is to be told of the events of this play."""
        lanes = Lanes(scenario)
        self._plays.append(lanes)
        return lanes.feed

    def print(self, lines: Iterable[str]) -> None:
        """Lines that stay, above what changes; they may have colours of their own."""
        rest = iter(lines)
        while some := list(islice(rest, AT_ONCE)):
            self.console.print(Text.from_ansi("\n".join(some)), soft_wrap=True)

    async def __aenter__(self) -> Screen:
        self._live.start()
        self._drawing = asyncio.ensure_future(self._draw())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._drawing is not None
        self._drawing.cancel()
        self._live.stop()

    async def _draw(self) -> None:
        while True:
            self._live.refresh()
            await asyncio.sleep(OFTEN)

    def _drawn(self) -> RenderableType:
        plays = [play for play in self._plays if not play.over]  # one that is over may be played again
        now = time.monotonic_ns()
        if len(plays) == 1:
            return _lanes(plays[0], now, self.console.width, self.console.height - 2)
        table = Table.grid(padding=(0, 2), expand=True)
        table.add_column(no_wrap=True, max_width=max(12, self.console.width // 2))
        table.add_column(no_wrap=True, ratio=1)
        most = max(1, self.console.height - 3)
        for play in plays[:most]:
            table.add_row(_text(play.scenario.label, "bold"), _step(play, now))
        more = len(plays) - most
        return Group(table, _text(f"and {more} more", "dim")) if more > 0 else table


def _lanes(play: Lanes, now: int, wide: int, most: int) -> RenderableType:
    head = Text.assemble(
        _text(play.scenario.label, "bold"), "  ", _step(play, now), no_wrap=True, overflow="ellipsis"
    )
    table = Table.grid(padding=(0, 2), expand=True)
    for _ in range(2):
        table.add_column(no_wrap=True, max_width=max(9, wide // 4))
    table.add_column(no_wrap=True, ratio=1)
    waits = play.waits()
    # Who waits is what one wants to see; in a crowd the others have to give way.
    names = sorted(play.lanes, key=lambda name: name not in waits and name not in play.servers)
    shown = set(names[: max(1, most - 2)])
    for name, lane in play.lanes.items():
        if name in shown:
            doing = _text(f"waits for {waits[name]}", "yellow") if name in waits else _text(lane.last, "dim")
            table.add_row(_text(f"  {name}", "bold"), _text(play.state(name)), doing)
    more = len(names) - len(shown)
    return Group(head, table, *([_text(f"  and {more} more", "dim")] if more > 0 else []))


def _step(play: Lanes, now: int) -> Text:
    if play.step is None:
        return _text("starts" if not play.lanes else "", "dim")
    line, text, since = play.step
    took = (now - since) / 1e9
    told = Text.assemble(_text(f"line {line}: ", "dim"), _text(text), no_wrap=True, overflow="ellipsis")
    return Text.assemble(_text(f"{took:.1f}s ", "yellow"), told) if took >= LONG else told


def _text(text: str, style: str = "") -> Text:
    return Text(safe(text), style, no_wrap=True, overflow="ellipsis")
