"""What a check of one server comes to: clauses as a checklist, points, evidence. Pure: made of results and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

from socklab.contracts import CATEGORIES, Contract, clause
from socklab.language import LINK_VERBS
from socklab.scenario import Scenario
from socklab.verdict import Result, Verdict

_WORST = (Verdict.FAIL, Verdict.ERROR, Verdict.SKIP, Verdict.PASS)


@dataclass(frozen=True)
class Item:
    """One scenario file with all its plays: what a point is given for."""

    name: str
    title: str
    category: str
    clauses: tuple[str, ...]
    results: tuple[Result, ...]
    advice: bool = False
    unsteady: str = ""
    """How often it failed, where it did not always."""
    worth: float = 1.0

    @property
    def verdict(self) -> Verdict:
        """Of its plays: passed where all that could be played passed."""
        seen = {result.verdict for result in self.results}
        if Verdict.PASS in seen and seen <= {Verdict.PASS, Verdict.SKIP}:
            return Verdict.PASS
        return next(verdict for verdict in _WORST if verdict in seen)

    @property
    def telling(self) -> Result:
        """The play that says most: the first of its verdict."""
        return next(r for r in self.results if r.verdict is self.verdict)

    @property
    def has_cause(self) -> bool:
        return self.telling.failure is not None and bool(self.telling.failure.cause)

    @property
    def points(self) -> float:
        return self.worth if self.verdict is Verdict.PASS and not self.advice else 0.0

    @property
    def possible(self) -> float:
        """What could be got here: nothing for advice, and for what could not be played."""
        return 0.0 if self.advice or self.verdict in (Verdict.SKIP, Verdict.ERROR) else self.worth


@dataclass
class Report:
    contract: Contract
    server: str
    """How it was started, or where it runs."""
    backend: str
    items: list[Item] = field(default_factory=list)
    never_started: Result | None = None
    ready_after: float | None = None
    """Seconds from its start until it listened."""
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    silent: bool = False
    """No client of any play got a byte from it."""

    @property
    def points(self) -> float:
        return sum(item.points for item in self.items)

    @property
    def possible(self) -> float:
        return sum(item.possible for item in self.items)

    @property
    def failed(self) -> list[Item]:
        return [item for item in self.items if item.verdict is Verdict.FAIL and not item.advice]

    @property
    def speaks_for_all(self) -> Item | None:
        """Where a server sends nothing at all, the failure of the plainest scenario: it says what the others say, too."""
        if not self.silent or len(self.failed) < 2:
            return None

        def plainness(item: Item) -> tuple[bool, bool, int]:
            scenario = item.telling.scenario
            faults = any(step.verb in LINK_VERBS for step in scenario.walk())
            return not item.has_cause, faults, len(scenario.source.text)

        return min(self.failed, key=plainness)

    def verdicts(self) -> list[Verdict]:
        """For the exit code: advice counts for nothing."""
        if self.never_started is not None:
            return [self.never_started.verdict]
        return [item.verdict for item in self.items if not item.advice]

    def by_category(self) -> Iterator[tuple[str, list[Item]]]:
        """In the order in which they are told; only those that have something."""
        for category in CATEGORIES:
            if items := [item for item in self.items if item.category == category]:
                yield category, items


@dataclass(frozen=True)
class Found:
    """A history that a server fails, made small."""

    number: int
    """Which history of the seed it came from."""
    acts: int
    """How many acts of clients are left of it."""
    result: Result
    failed: int
    of: int
    """It failed so many of so many times; where not always, it is a matter of luck when it does."""
    tried: int
    """How many smaller histories were played to find it."""
    text: str
    """The scenario file."""

    @property
    def steady(self) -> bool:
        return self.failed == self.of


def item(results: Sequence[Result], advice: bool = False, unsteady: str = "", worth: float = 1.0) -> Item:
    """An Item of the plays of one file."""
    scenario = results[0].scenario
    return Item(
        name=name_of(scenario),
        title=scenario.title,
        category=category_of(scenario),
        clauses=scenario.clauses,
        results=tuple(results),
        advice=advice,
        unsteady=unsteady,
        worth=worth,
    )


def unplayed(scenario: Scenario, advice: bool) -> Item:
    """An Item of which nothing is known but what it is worth."""
    return Item(name_of(scenario), scenario.title, category_of(scenario), scenario.clauses, (), advice)


def name_of(scenario: Scenario) -> str:
    """The file's name, which is what a rubric calls it."""
    name = scenario.path.name
    for ending in (".scenario.yaml", ".scenario.yml", ".yaml", ".yml"):
        name = name.removesuffix(ending)
    return name


def category_of(scenario: Scenario) -> str:
    verbs = {step.verb for step in scenario.walk()}
    if "steady" in verbs:
        return "leaks"
    if verbs & set(LINK_VERBS) and scenario.contract != "chat":
        return "loss"
    if not scenario.clauses:
        return "shutdown"
    return clause(scenario.clauses[0]).category


def as_data(report: Report) -> dict[str, Any]:
    """All of it, for a program."""
    return {
        "contract": report.contract.name,
        "server": report.server,
        "backend": report.backend,
        "points": report.points,
        "possible": report.possible,
        "seconds": round(report.seconds, 2),
        "start": _start(report),
        "notes": report.notes,
        "items": [_item_data(item) for item in report.items],
    }


def _start(report: Report) -> dict[str, Any]:
    if report.never_started is None:
        return {"verdict": "pass", "ready_after": report.ready_after}
    failure = report.never_started.failure
    return {
        "verdict": str(report.never_started.verdict),
        "reason": report.never_started.reason,
        "server": failure.server if failure else "",
        "cause": failure.cause if failure else "",
    }


def _item_data(item: Item) -> dict[str, Any]:
    result = item.telling
    data: dict[str, Any] = {
        "scenario": item.name,
        "title": item.title,
        "category": item.category,
        "clauses": list(item.clauses),
        "verdict": str(item.verdict),
        "points": item.points,
        "possible": item.possible,
        "advice": item.advice,
        "unsteady": item.unsteady,
        "run": str(result.folder) if result.folder else None,
    }
    if result.failure:
        failure = result.failure
        data |= {
            "where": failure.where,
            "step": failure.step,
            "expected": failure.expected,
            "got": failure.got,
            "server": failure.server,
            "cause": failure.cause,
        }
    elif result.reason:
        data["reason"] = result.reason
    return data


def as_json(report: Report) -> str:
    return json.dumps(as_data(report), indent=1) + "\n"


def junit(reports: Iterable[Report]) -> str:
    """A JUnit XML file, a suite for each report: what CI servers and graders read."""
    root = ElementTree.Element("testsuites")
    for report in reports:
        cases = report.items
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=xml(f"{report.contract.name}: {report.server}"),
            tests=str(len(cases) or 1),
            failures=str(len(report.failed) or int(report.never_started is not None)),
            time=f"{report.seconds:.2f}",
        )
        if report.never_started is not None:
            _case(suite, "start and port", "start", report.never_started)
        for item in cases:
            _case(suite, item.category, item.name, item.telling, item.advice)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _case(suite: ElementTree.Element, category: str, name: str, result: Result, advice: bool = False) -> None:
    case = ElementTree.SubElement(
        suite, "testcase", classname=xml(category), name=xml(name), time=f"{result.seconds:.2f}"
    )
    text = xml("\n".join(result.failure.lines()) if result.failure else result.reason)
    if result.verdict is Verdict.FAIL and not advice:
        ElementTree.SubElement(
            case, "failure", message=xml(result.failure.cause if result.failure else "")
        ).text = text
    elif result.verdict is Verdict.ERROR:
        ElementTree.SubElement(case, "error", message=xml(result.reason)).text = text
    elif result.verdict is not Verdict.PASS:
        ElementTree.SubElement(
            case, "skipped", message=xml(result.reason or "advice: it costs no point")
        ).text = text


def xml(text: str) -> str:
    """A text without what XML 1.0 cannot hold."""
    return "".join(
        c if c in "\t\n" or " " <= c < "\ud800" or "\ue000" <= c < "\ufffe" or c > "\uffff" else "\ufffd"
        for c in text
    )
