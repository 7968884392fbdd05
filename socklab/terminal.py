"""Results and histories as text for a terminal or a pipe. Reads histories and results, nothing else."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from socklab import places
from socklab.history import Event
from socklab.report import Found, Item, Report
from socklab.source import cells, printable
from socklab.verdict import Result, Verdict
from socklab.words import counted, in_words, safe

STORY = 20_000  # events of a play that are told without being asked for

_COUNTED = {
    Verdict.PASS: "passed",
    Verdict.FAIL: "failed",
    Verdict.ERROR: "broken",
    Verdict.SKIP: "skipped",
}
_COLOURS = {Verdict.PASS: "32", Verdict.FAIL: "1;31", Verdict.ERROR: "1;35", Verdict.SKIP: "33"}


def coloured(stream: TextIO) -> bool:
    """Whether to use colours: a terminal, and nobody said NO_COLOR (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def animated(stream: TextIO) -> bool:
    """Whether lines can be drawn again in place."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def paint(text: str, code: str, on: bool) -> str:
    return f"\033[{code}m{text}\033[0m" if on else text


def result_lines(result: Result, colour: bool = False, root: Path | None = None) -> list[str]:
    """One line for a play; for a failed one, the five that tell why."""
    scenario = result.scenario
    path = places.shown(scenario.path, root)
    variant = f" [{scenario.variant}]" if scenario.variant else ""
    head = f"{paint(f'{result.verdict!s:5}', _COLOURS[result.verdict], colour)} {safe(f'{path}{variant}  {scenario.title}')}"
    if result.verdict is not Verdict.SKIP:
        head += paint(f"  {result.seconds:.2f}s", "2", colour)
    lines = [head]
    if result.failure:
        lines += ["      " + line for line in failure_lines(result, root)]
        if result.folder:
            lines.append(f"      history   socklab show {places.shown(result.folder, root)}")
    elif result.verdict in (Verdict.ERROR, Verdict.SKIP):
        lines += [f"      {safe(line)}" for line in result.reason.splitlines()]
    return lines + [f"      note: {safe(note)}" for note in result.notes]


def failure_lines(result: Result, root: Path | None = None) -> list[str]:
    """The five lines of a failure, safe for a terminal."""
    assert result.failure is not None
    lines = result.failure.lines()
    path = str(result.scenario.path)
    lines[0] = lines[0].replace(path, str(places.shown(result.scenario.path, root)), 1)
    return [safe(line) for line in lines]


def summary(
    results: Sequence[Result], errors: int, backend: str, seconds: float, colour: bool = False
) -> str:
    """`41 passed, 1 failed, 3 skipped on netns in 9.8s`"""
    names = {**_COUNTED, Verdict.ERROR: "broken (the lab, not the server)"}
    parts = []
    for verdict, name in names.items():
        number = sum(r.verdict is verdict for r in results)
        if number or verdict in (Verdict.PASS, Verdict.FAIL):
            parts.append(paint(f"{number} {name}", _COLOURS[verdict], colour and number > 0))
    if errors:
        parts.append(paint(f"{errors} invalid", _COLOURS[Verdict.FAIL], colour))
    return f"{', '.join(parts)} on {backend} in {seconds:.1f}s"


def by_folder(results: Sequence[Result]) -> Iterator[str]:
    """A table of several plays: of each folder how many passed, and which took longest. Nothing where there is one folder only."""
    folders: dict[str, list[Result]] = {}
    for result in results:
        folders.setdefault(result.scenario.path.parent.name or ".", []).append(result)
    if len(folders) < 2:
        return
    verdicts = [v for v in Verdict if any(r.verdict is v for r in results)]
    rows = [("", *(_COUNTED[v] for v in verdicts), "longest")]
    for name, each in folders.items():
        counts = (str(sum(r.verdict is v for r in each) or "·") for v in verdicts)
        longest = max(each, key=lambda r: r.seconds)
        rows.append((name, *counts, f"{longest.seconds:.1f}s {longest.scenario.label}"))
    yield from columns(rows)


def report(done: Report, colour: bool = False, verbose: bool = False) -> Iterator[str]:
    """What a check came to: by category, and of what failed all that a person needs."""
    yield paint(f"check {done.contract.name}: {safe(done.server)}  on {done.backend}", "1", colour)
    if done.never_started is not None:
        failure, verdict = done.never_started.failure, done.never_started.verdict
        yield f"  {_mark(verdict, colour)} start and port"
        if failure is None:
            yield from (f"      {safe(line)}" for line in done.never_started.reason.splitlines())
            return
        yield f"      {safe(failure.got)}"
        yield f"      server    {safe(failure.server)}"
        if failure.cause:
            yield f"      cause     {paint(safe(failure.cause), '1', colour)}"
        return
    after = f"listens after {done.ready_after:.2f}s" if done.ready_after is not None else "it runs already"
    yield f"  {_mark(Verdict.PASS, colour)} {'start and port':<16} {after}"
    example = None if verbose else done.speaks_for_all
    if example is not None:
        yield f"  {_mark(Verdict.FAIL, colour)} no client got a single byte from it, in any scenario: most fail alike, so one is told for all (-v tells each)"
        yield from _item_lines(example, colour, verbose)
    for category, items in done.by_category():
        counted = [i for i in items if i.possible]
        worst = next(
            (v for v in (Verdict.FAIL, Verdict.ERROR) if any(i.verdict is v for i in counted or items)), None
        )
        points = (
            f"{sum(i.points for i in items):g} of {sum(i.possible for i in items):g}"
            if counted
            else "not played"
            if all(i.verdict is Verdict.SKIP for i in items)
            else "advice"
        )
        yield f"  {_mark(worst or (Verdict.PASS if counted else items[0].verdict), colour)} {category:<16} {points}"
        for each in items:
            yield from _item_lines(each, colour, verbose, brief=example is not None)
    yield from (f"  note: {safe(note)}" for note in done.notes)
    skipped = sum(i.verdict is Verdict.SKIP for i in done.items)
    broken = sum(i.verdict is Verdict.ERROR for i in done.items)
    wrong = len(done.failed)
    verdict, name = (Verdict.FAIL, "wrong") if wrong else (Verdict.PASS, "right")
    if broken and not wrong:
        verdict, name = Verdict.ERROR, "not judged"
    word = paint(name, _COLOURS[verdict], colour)
    more = (f", {skipped} not played (-v says why)" if skipped and not verbose else "") + (
        f", {broken} broken (the lab, not the server)" if broken else ""
    )
    yield f"{word}: {done.points:g} of {done.possible:g} points{more}, in {done.seconds:.1f}s"


def found(one: Found, path: Path, colour: bool = False) -> Iterator[str]:
    """A failure that was explored, and the scenario that it became."""
    steps = sum(1 for _ in one.result.scenario.walk())
    luck = "" if one.steady else f", only {one.failed} of {one.of} times: when it fails is a matter of luck"
    yield f"{_mark(Verdict.FAIL, colour)} {safe(str(path))}: {steps} steps, from history {one.number}{luck}"
    for line in one.result.failure.lines() if one.result.failure else ():
        shown_line = line.replace("explored.scenario.yaml", path.name, 1)
        yield "      " + (paint(safe(line), "1", colour) if line.startswith("cause") else safe(shown_line))


class Status:
    """A line on a terminal that is written anew as things go on, and nothing in a pipe."""

    def __init__(self) -> None:
        self.shown = sys.stderr.isatty()

    def tell(self, text: str) -> None:
        if self.shown:
            room = shutil.get_terminal_size().columns - 1
            print(f"\r\033[K{safe(text)[:room]}", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self.shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


class Progress:
    """A bar on a terminal, and nothing in a pipe."""

    WIDTH = 30

    def __init__(self, total: int, what: str) -> None:
        self.total, self.what, self.done = total, what, 0
        self._status = Status()

    def step(self, name: str) -> None:
        self.done += 1
        full = self.WIDTH * self.done // max(self.total, 1)
        bar = "█" * full + "·" * (self.WIDTH - full)
        self._status.tell(f"{bar} {self.done} of {self.total} {self.what}  {name}")

    def close(self) -> None:
        self._status.close()


def graded_line(name: str, points: float, possible: float, verdict: str, cause: str) -> str:
    """`anna      17 of 24  wrong          two lines …`"""
    name = safe(name)
    return f"{name}{' ' * (24 - cells(name))} {round(points, 1):>6g} of {possible:g}  {verdict:<14} {printable(cause, 110)}".rstrip()


def explored(played: int, once: int, found: int, seconds: float) -> str:
    """`400 histories in 18.3s: no failure`"""
    failures = {0: "no failure", 1: "1 failure"}.get(found, f"{found} failures")
    luck = f" ({once} failed once and not again)" if once else ""
    return f"{played} histories in {seconds:.1f}s: {failures}{luck}"


def _mark(verdict: Verdict, colour: bool) -> str:
    return paint(
        {Verdict.PASS: "✓", Verdict.FAIL: "✗", Verdict.ERROR: "!", Verdict.SKIP: "–"}[verdict],
        _COLOURS[verdict],
        colour,
    )


def _item_lines(item: Item, colour: bool, verbose: bool, brief: bool = False) -> Iterator[str]:
    """One scenario of a check: nothing for what passed and is not asked for. `brief`: by its title alone."""
    result, verdict = item.telling, item.verdict
    if verdict is Verdict.PASS and not verbose and not item.unsteady:
        return
    if verdict is Verdict.SKIP and not verbose:
        return
    clauses = ", ".join(item.clauses)
    advice = "  (advice)" if item.advice else ""
    yield f"      {_mark(verdict, colour)} {safe(item.title)}{paint(f'  {clauses}', '2', colour) if clauses else ''}{advice}"
    if brief:
        return
    if item.unsteady:
        yield f"          unsteady  it {item.unsteady}"
    if verdict is Verdict.FAIL and result.failure is not None:
        variant = f" [{result.scenario.variant}]" if result.scenario.values else ""
        lines = failure_lines(result)
        lines[0] += variant
        for line in lines:
            yield "          " + (paint(line, "1", colour) if line.startswith("cause") else line)
        if result.folder:
            yield f"          history   socklab show {places.shown(result.folder)}"
    elif result.reason:
        yield from (f"          {safe(line)}" for line in result.reason.splitlines())


def transcript(events: Iterable[Event], colour: bool = False) -> Iterator[str]:
    """A history as a story: each step, and below it what it caused."""
    start = None
    for event in events:
        start = event.t if start is None else start
        at = f"{(event.t - start) / 1e9:8.3f}  "
        if event.kind == "play":
            where = ", ".join(f"{name} {address}" for name, address in event.data["nodes"].items())
            yield at + safe(f"{event.data['service']} on {event.data['backend']}: {where}")
        elif event.kind == "step":
            if event.data["phase"] == "begin":
                yield paint(at + safe(f"{event.data['line']:>3}: {event.data['text']}"), "1", colour)
        elif text := in_words(event):
            who, what = text
            yield at + safe(f"     {who:<18} {what}")


def story(result: Result, colour: bool, whole: bool) -> Iterator[str]:
    """What happened in a play; unless the whole is asked for, of a long one where it is told."""
    if whole or len(result.events) <= STORY:
        yield from transcript(result.events, colour)
        return
    where = f"socklab show {places.shown(result.folder)}" if result.folder else "play it with --verbose"
    yield f"{len(result.events):,} events; to have them told: {where}"


def tell(lines: Iterable[str]) -> None:
    """Lines on stdout, as they come: there may be a million."""
    for line in lines:
        print(line)
    sys.stdout.flush()


def nodes(status: Mapping[str, Any]) -> Iterator[str]:
    """The hosts of a standing lab."""
    rows = [(n["name"], ", ".join(n["addresses"]), n["what"]) for n in status["nodes"]]
    yield from columns([("node", f"address ({status['backend']})", ""), *rows])


def links(status: Mapping[str, Any]) -> Iterator[str]:
    """The links of a standing lab that are not whole, or were not, and what became of their packets."""
    if not status["counts"]:
        yield "all links are whole"
        return
    rows = [
        (link, status["faults"].get(link, "whole"), counted("", {**of, "asked": ""})[2:])
        for link, of in status["counts"].items()
    ]
    yield from columns([("link", "fault", "so far"), *rows])


def columns(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    listed = [[safe(cell) for cell in row] for row in rows]
    widths = [max(map(cells, column)) for column in zip(*listed, strict=True)]
    for row in listed:
        padded = (cell + " " * (width - cells(cell)) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(padded).rstrip()


def error(text: str) -> None:
    """A message for the user, on stderr; where nothing can be written there, the exit code has to do."""
    with suppress(OSError):
        print(safe_lines(text), file=sys.stderr)


def safe_lines(text: str) -> str:
    return "\n".join(safe(line) for line in text.split("\n"))
