"""The folder that a play leaves, runs/<time>-<name>/: its history, what servers printed, the packets, a report."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterable
from pathlib import Path

from socklab import page
from socklab.backends import LabError
from socklab.diagram import drawn
from socklab.history import History


def begin(runs: Path, label: str) -> tuple[Path, History]:
    """Make it, and the history in it. Raises LabError with the way out."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    name = "".join(c if c.isalnum() or c in "-._" else "-" for c in label).strip("-")
    for attempt in range(1000):
        folder = runs / (f"{stamp}-{name}" + (f"-{attempt + 1}" if attempt else ""))
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if folder.is_dir():
                continue
            raise LabError(f"{runs}: is no folder; name another with --runs, or --no-runs") from None
        except OSError as exc:
            raise LabError(
                f"{folder}: cannot be made: {exc.strerror}; name another place with --runs, or --no-runs"
            ) from None
        try:
            return folder, History(folder / "history.jsonl")
        except OSError as exc:
            folder.rmdir()
            raise LabError(
                f"{folder}/history.jsonl: cannot be written: {exc.strerror}; name another place with --runs, or --no-runs"
            ) from None
    raise LabError(f"{runs}: too many runs of {name} in this second")


def write_logs(folder: Path, history: History, servers: Iterable[str]) -> None:
    """The servers' own output, as they printed it."""
    for name in servers:
        lines = (str(e.data["text"]) for e in history if e.kind == "log" and e.node == name)
        try:
            with (folder / f"{name}.log").open("w", encoding="utf-8", errors="surrogateescape") as file:
                file.writelines(line + "\n" for line in lines)
        except OSError as exc:
            history.write_error = history.write_error or exc


def write_report(folder: Path, history: History) -> str:
    """The drawing of what happened, also of a play that was broken off. What is wrong with it, in words."""
    if len(history) < 2:
        return ""
    try:
        (folder / "report.html").write_text(page.report(drawn(history, page.MOST)), encoding="utf-8")
    except OSError:
        pass  # the disk is full: the history says so
    except Exception as exc:  # what came of the play is known all the same
        return f"no report: {defect(exc, folder)}"
    return ""


def defect(exc: Exception, folder: Path | None) -> str:
    """A mistake of ours, in words, and where its traceback is kept."""
    what = f"a defect in socklab itself ({type(exc).__name__}: {exc})"
    if folder is None:
        return f"{what}; play it again with --runs DIR to keep the traceback"
    place = folder / "defect.txt"
    try:
        place.write_text("".join(traceback.format_exception(exc)))
    except OSError as problem:
        return f"{what}; its traceback could not be kept: {problem.strerror}"
    return f"{what}; please report it with {place}"
