"""Grading a folder of submissions: each is checked in a cell of its own, several side by side, and what came of it is kept, so that a
grading that was broken off goes on where it was.

    FOLDER/name ──▶ (built in a cell) ──▶ check ──▶ rubric ──▶ OUT/name/report.json, results.json ──▶ OUT/grades.csv, junit.xml
"""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from socklab import check, player, report
from socklab.backends import NETWORKS, Backend, CannotStart, LabError, Network, Node
from socklab.check import Order
from socklab.conductor import Options
from socklab.contracts import Contract
from socklab.errors import UserError
from socklab.guest import FIRST_UID, Cell, Guest, Limits
from socklab.places import LIBRARY
from socklab.report import Item, Report
from socklab.rubric import Rubric
from socklab.servers import CLEAN_PATH
from socklab.verdict import Verdict

SIDE_BY_SIDE = 4  # submissions at once
BUILD_LIMIT = 120.0  # seconds
LARGEST = 256 << 20  # bytes of a submission's files
LIMITS = Limits(memory=1 << 30, processes=100, descriptors=2048, output=1 << 20, file=64 << 20)

OnGraded = Callable[["Graded"], None]


@dataclass(frozen=True)
class Submission:
    name: str
    folder: Path
    file: str = ""
    """Of a submission that is a single file: which."""


@dataclass(frozen=True)
class Graded:
    name: str
    data: dict[str, Any]
    """As in its report.json."""
    kept: bool = False
    """It was graded by an earlier run."""

    @property
    def points(self) -> float:
        return float(self.data["points"])

    @property
    def possible(self) -> float:
        return float(self.data["possible"])


class NoSubmissions(UserError):
    """Nothing to grade; the message says what would be taken."""


def find(folder: Path) -> list[Submission]:
    """Each folder in it, and each file, is a submission. Raises NoSubmissions."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as exc:
        raise NoSubmissions(
            f"{folder}: {exc.strerror}; name the folder in which each submission has a folder or a file"
        ) from None
    found = [
        Submission(e.name, e) if e.is_dir() else Submission(e.name, folder, e.name)
        for e in entries
        if not e.name.startswith(".") and (e.is_dir() or e.is_file())
    ]
    if not found:
        raise NoSubmissions(f"{folder}: is empty; each submission is a folder or a file in it")
    return found


class Grader:
    def __init__(
        self,
        contract: Contract,
        folder: Path,
        out: Path,
        rubric: Rubric,
        backend: Backend,
        options: Options,
        command: tuple[str, ...] = (),
        iterative: bool = False,
        loopback: bool = False,
    ) -> None:
        self.contract = contract
        self.folder = folder
        self.out = out
        self.rubric = rubric
        self.backend = backend
        self.options = replace(options, runs=None)
        self.command = command or rubric.start
        self.iterative = iterative
        self.loopback = loopback
        self.alone = NETWORKS in backend.can
        """Whether a submission is kept apart from the others."""

    async def grade(
        self,
        submissions: Sequence[Submission],
        side_by_side: int = SIDE_BY_SIDE,
        again: bool = False,
        on_graded: OnGraded | None = None,
    ) -> list[Graded]:
        """What came of each, in their order. Raises LabError where nothing can be graded at all."""
        gate = asyncio.Semaphore(side_by_side)
        jobs = max(2, 2 * player.at_once(self.backend) // side_by_side)

        async def one(number: int, submission: Submission) -> Graded:
            async with gate:
                key = self._key(submission)
                done = None if again else self._kept(submission, key)
                if done is None:
                    done = await self._graded(number, submission, key, jobs)
                if on_graded is not None:
                    on_graded(done)
                return done

        return list(await asyncio.gather(*(one(n, s) for n, s in enumerate(submissions))))

    def unheeded(self) -> list[str]:
        """Which scenarios of the rubric's own move no point, why, and what would change that. Raises ScenarioError and NoSuchPath."""
        order = self.order_of_none()
        played = {each.plays[0].path for each in check.asked(order)}
        own = {each.path: each for each in player.scenarios([*self.rubric.public, *self.rubric.hidden])}
        told = []
        for path, scenario in own.items():
            name, category = report.name_of(scenario), report.category_of(scenario)
            if path not in played and scenario.contract in (None, order.contract.name):
                told.append(
                    f"{path}: is not played: it needs service: {order.model} and what of the contract it holds, like clauses: [{order.contract.name}.1]"
                )
            elif scenario.contract == order.contract.name and not (
                scenario.advice
                or not self.rubric.points
                or category in self.rubric.points
                or name in self.rubric.scenarios
            ):
                told.append(
                    f"{path}: counts nothing: it belongs to {category}, to which the rubric gives no points; give it some by scenarios: {{{name}: 5}}"
                )
        return told

    # one submission

    async def _graded(self, number: int, submission: Submission, key: str, jobs: int) -> Graded:
        uid = FIRST_UID + number
        with tempfile.TemporaryDirectory(prefix="socklab-grade-") as scratch:
            work = Path(scratch) / "work"
            try:
                _copy(submission, work)
                log = await self._build(work, uid)
                data = await self._checked(submission, work, uid, jobs)
            except _NotBuilt as exc:
                data, log = self._nothing(f"the build failed: {exc}"), exc.log
            except (LabError, OSError) as exc:
                data, log = {**self._nothing(""), "broken": str(exc)}, ""
        data = {"name": submission.name, "key": key, **data}
        self._write(submission, data, log)
        return Graded(submission.name, data)

    def _order(self, submission: Submission, folder: Path, uid: int) -> Order:
        words = tuple(word.replace("{file}", submission.file) for word in self.command)
        cell = Cell(uid, self._hidden()) if self.alone else None
        fixed = self.rubric.port is not None
        guest = Guest(folder, self.rubric.dialect, LIMITS, cell=cell, fixed=fixed, loopback=self.loopback)
        return Order(
            contract=self.contract,
            guest=guest,
            command=words,
            port=self.rubric.port,
            iterative=self.iterative,
            scenarios=(LIBRARY, *self.rubric.public, *self.rubric.hidden),
        )

    def order_of_none(self) -> Order:
        """The order by which nothing in particular is judged: what would be played."""
        return self._order(Submission("", self.folder), self.folder, FIRST_UID)

    def _hidden(self) -> tuple[str, ...]:
        """What a submission must not see: the others, the grades, the scenarios."""
        paths = [self.folder, self.out, *self.rubric.hidden, Path.home()]
        return tuple(dict.fromkeys(str(p.resolve()) for p in paths if p.exists() and str(p.resolve()) != "/"))

    async def _build(self, work: Path, uid: int) -> str:
        """Run the rubric's build command in the submission's folder, in its cell. What it printed. Raises _NotBuilt."""
        if not self.rubric.build:
            return ""
        lab = await self.backend.lab([Network("lab", True)], [Node("build", ("lab",))])
        printed: list[str] = []
        try:
            if self.alone and os.geteuid() == 0:
                for root, folders, files in os.walk(work):
                    for each in (root, *(os.path.join(root, name) for name in (*folders, *files))):
                        os.chown(each, uid, uid, follow_symlinks=False)
            guest = Guest(
                work, limits=LIMITS, cell=Cell(uid, self._hidden(), at_work=True) if self.alone else None
            )
            program = await lab.spawn(
                "build",
                self.rubric.build,
                env={"PATH": CLEAN_PATH, "HOME": "/tmp", "LANG": "C.UTF-8"},
                cwd=str(work),
                on_line=lambda _, line, __: (
                    printed.append(line.decode(errors="replace")) if len(printed) < 1000 else None
                ),
                confined=guest.confined,
            )
            async with asyncio.timeout(BUILD_LIMIT * self.options.patience):
                status = await program.exited
        except TimeoutError:
            raise _NotBuilt(f"not done within {BUILD_LIMIT * self.options.patience:g}s", printed) from None
        except CannotStart as exc:
            raise _NotBuilt(str(exc), printed) from None
        finally:
            await lab.stop()
        if status:
            last = next((line for line in reversed(printed) if line.strip()), "")
            raise _NotBuilt(f"status {status}: {last}"[:300], printed)
        return "\n".join(printed)

    async def _checked(self, submission: Submission, work: Path, uid: int, jobs: int) -> dict[str, Any]:
        order = self._order(submission, work, uid)
        done = await check.check(order, self.backend, self.options, jobs)
        done = self.rubric.weighed(done)
        if done.never_started is not None and done.never_started.verdict is Verdict.ERROR:
            reason = done.never_started.reason
            if "cannot be started" not in reason and "not found" not in reason:
                return {**self._nothing(""), "broken": reason}
        data = report.as_data(done)
        data["possible"] = self._possible(done)
        data["hidden"] = self._names(self.rubric.hidden)
        return data

    def _possible(self, done: Report) -> float:
        """What a right submission would get; also of one that never started."""
        if done.never_started is None:
            return done.possible
        return self.full_points

    @property
    def full_points(self) -> float:
        """What a submission gets to which nothing can be said, of what can be played here at all."""
        if not hasattr(self, "_full"):
            files = check.asked(self.order_of_none())
            items: list[Item] = [report.unplayed(each.plays[0], each.advice) for each in files]
            weighed = self.rubric.weighed(Report(self.contract, "", "", items))
            self._full = sum(i.worth for i in weighed.items if not i.advice)
        return self._full

    def _names(self, paths: Sequence[Path]) -> list[str]:
        return [report.name_of(s) for s in player.scenarios(paths)] if paths else []

    def _nothing(self, why: str) -> dict[str, Any]:
        """Of one that never came to be judged."""
        return {
            "contract": self.contract.name,
            "server": " ".join(self.command),
            "backend": self.backend.name,
            "points": 0.0,
            "possible": self.full_points,
            "seconds": 0.0,
            "start": {"verdict": "fail", "reason": why, "server": "", "cause": why},
            "notes": [],
            "items": [],
            "hidden": [],
        }

    # what is kept

    def _key(self, submission: Submission) -> str:
        """What the grade depends on: the files, the command, the rubric."""
        digest = hashlib.sha256()
        for path in _files(submission):
            digest.update(str(path.relative_to(submission.folder)).encode(errors="surrogateescape") + b"\0")
            if 0 < (size := _size(path)) <= LARGEST:
                try:
                    digest.update(hashlib.sha256(path.read_bytes()).digest())
                except OSError:
                    digest.update(b"unreadable")
            elif size:
                digest.update(b"too large")
        asked = [self.contract.name, self.command, self.rubric.text, self.iterative, self.loopback]
        digest.update(json.dumps(asked).encode())
        return digest.hexdigest()[:16]

    def _kept(self, submission: Submission, key: str) -> Graded | None:
        try:
            data = json.loads((self.out / submission.name / "report.json").read_text())
        except (OSError, ValueError):
            return None
        known = isinstance(data, dict) and data.get("key") == key and "broken" not in data
        return Graded(submission.name, data, kept=True) if known else None

    def _write(self, submission: Submission, data: dict[str, Any], log: str) -> None:
        """Raises LabError."""
        folder = self.out / submission.name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "results.json").write_text(json.dumps(gradescope(data), indent=1) + "\n")
            if log:
                (folder / "build.log").write_text(log + "\n")
            (folder / "report.json").write_text(
                json.dumps(data, indent=1) + "\n"
            )  # last: it says that all is there
        except OSError as exc:
            raise LabError(f"{exc.filename}: {exc.strerror}; name another place with --out") from None


class _NotBuilt(Exception):
    def __init__(self, why: str, printed: Sequence[str]) -> None:
        super().__init__(why)
        self.log = "\n".join(printed)


def _copy(submission: Submission, work: Path) -> None:
    """Raises LabError for what is too large. Sockets, pipes and devices are left out: a program makes its own."""
    size = sum(_size(path) for path in _files(submission))
    if size > LARGEST:
        raise LabError(
            f"{submission.name}: {size >> 20:,} MiB of files, and a submission has {LARGEST >> 20} at most; take out what is no source"
        )
    if submission.file:
        work.mkdir()
        shutil.copy2(submission.folder / submission.file, work / submission.file)
    else:
        shutil.copytree(submission.folder, work, symlinks=True, ignore=_special)


def _files(submission: Submission) -> list[Path]:
    """In a fixed order."""
    if submission.file:
        return [submission.folder / submission.file]
    return sorted(submission.folder.rglob("*"))


def _size(path: Path) -> int:
    """Of a file; of others nothing."""
    found = path.lstat()
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def _special(folder: str, names: list[str]) -> list[str]:
    """What is neither file, folder nor link."""
    modes = {name: os.lstat(os.path.join(folder, name)).st_mode for name in names}
    return [n for n, m in modes.items() if not (stat.S_ISREG(m) or stat.S_ISDIR(m) or stat.S_ISLNK(m))]


# ── what others read ──────────────────────────────────────────────────────────────────────────────────────────────────


def gradescope(data: dict[str, Any]) -> dict[str, Any]:
    """Gradescope's results.json (https://gradescope-autograders.readthedocs.io, "Autograder Specifications")."""
    tests = []
    if data["start"]["verdict"] != "pass" or data.get("broken"):
        why = data.get("broken") or _told(data["start"])
        tests.append({"name": "start and port", "score": 0.0, "max_score": data["possible"], "output": why})
    for item in data["items"]:
        hidden = item["scenario"] in data["hidden"]
        tests.append(
            {
                "name": f"{item['category']}: {item['scenario'] if hidden else item['title']}",
                "score": round(item["points"], 3),
                "max_score": round(item["possible"], 3),
                "status": "passed" if item["verdict"] == "pass" else "failed",
                "output": "" if hidden else _told(item),
                "visibility": "after_published" if hidden else "visible",
            }
        )
    return {"score": round(data["points"], 3), "max_score": round(data["possible"], 3), "tests": tests}


def classroom(data: dict[str, Any]) -> dict[str, Any]:
    """What GitHub Classroom's autograding reporter takes (version 1: tests with name, status, score)."""
    tests = [
        {
            "name": test["name"],
            "status": "pass" if test["score"] >= test["max_score"] else "fail",
            "score": test["score"],
            "max_score": test["max_score"],
            "message": test["output"],
        }
        for test in gradescope(data)["tests"]
    ]
    whole = all(test["status"] == "pass" for test in tests)
    return {
        "version": 1,
        "status": "pass" if whole else "fail",
        "max_score": data["possible"],
        "tests": tests,
    }


def _told(item: dict[str, Any]) -> str:
    parts = [item.get("step") or item.get("reason") or ""]
    parts += [f"{word}: {item[word]}" for word in ("expected", "got", "server", "cause") if item.get(word)]
    return "\n".join(part for part in parts if part)


def table(graded: Sequence[Graded]) -> str:
    """CSV: a row for each submission, a column for each category."""
    categories = list(dict.fromkeys(item["category"] for each in graded for item in each.data["items"]))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["submission", "points", "possible", "verdict", *categories, "causes"])
    for each in graded:
        items = each.data["items"]
        by = [sum(i["points"] for i in items if i["category"] == c) for c in categories]
        writer.writerow(
            [_cell(each.name), f"{each.points:g}", f"{each.possible:g}", verdict_of(each), *(f"{n:g}" for n in by), _cell(causes_of(each))]
        )  # fmt: skip
    return text.getvalue()


def _cell(text: str) -> str:
    """No formula, whoever chose the text (a spreadsheet would run it)."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def junit(graded: Sequence[Graded]) -> str:
    """JUnit XML: a suite for each submission."""
    root = ElementTree.Element("testsuites")
    for each in graded:
        tests = gradescope(each.data)["tests"]
        failed = [t for t in tests if t["score"] < t["max_score"]]
        suite = ElementTree.SubElement(
            root, "testsuite", name=report.xml(each.name), tests=str(len(tests)), failures=str(len(failed))
        )
        for test in tests:
            case = ElementTree.SubElement(
                suite, "testcase", classname=report.xml(each.name), name=report.xml(test["name"])
            )
            if test in failed:
                ElementTree.SubElement(case, "failure").text = report.xml(test["output"])
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def verdict_of(each: Graded) -> str:
    if each.data.get("broken"):
        return "broken"
    if each.data["start"]["verdict"] != "pass":
        return "never started"
    wrong = any(i["verdict"] == "fail" and not i["advice"] for i in each.data["items"])
    return "wrong" if wrong else "right"


def causes_of(each: Graded, most: int = 3) -> str:
    """The causes that are named most, the commonest first."""
    if each.data.get("broken"):
        return str(each.data["broken"])
    start = each.data["start"]
    if start["verdict"] != "pass":
        return str(start.get("cause") or start.get("reason"))
    counts: dict[str, int] = {}
    for item in each.data["items"]:
        if item["verdict"] == "fail" and not item["advice"] and item.get("cause"):
            counts[item["cause"]] = counts.get(item["cause"], 0) + 1
    return "; ".join(sorted(counts, key=lambda cause: -counts[cause])[:most])
