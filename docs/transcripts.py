"""Runs what the pages show, and holds it against what they say came of it.

    python -m docs.transcripts docs/lessons/07-*.md            is it still so?
    python -m docs.transcripts --write docs/lessons/07-*.md    write what came into the page, and into its other edition

A page is run from top to bottom, as its reader would, in a folder that has `services/`, `clients/`, `scenarios/` and the compose file,
in a network namespace of its own (so any port is free). What its blocks mean:

| block | what becomes of it |
|---|---|
| `console` | `$ ` a command, `> ` a line typed to it, `^D` and `^C` keys, `[alice]` alone: in the terminal of this name from here on; all else is what appeared in that terminal. `…` alone: lines left out |
| `pycon` | a Python session, one for the whole page |
| any, with `# path` (or `// path`) in its first line | a file of this project: an excerpt of it, where `…` leaves lines out; another name: the file is written, for the commands below |
| `yaml` without | a scenario, or steps of one: it must be valid |
| `sh` | what is not run here: it installs something, needs a network, or a program of the reader's. That socklab takes its commands is tested |
| `text`, or none | a drawing: not looked at |

What differs from run to run (times, ports that the kernel chose, processes) is taken for equal, see `shape`. Lines of a story
(`socklab play`) may come in another order, for they are told by several programs.
"""

from __future__ import annotations

import argparse
import contextlib
import doctest
import glob
import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from pathlib import Path
from typing import IO, Any

from docs.pages import MARKDOWN, ROOT, counterpart, is_page
from socklab.scenario import load
from socklab.source import ScenarioError

STAGE = ("services", "clients", "scenarios", "docker-compose.yml", "scenario.schema.json")
"""What the reader's folder has."""
OURS = ("bench/", "clients/", "docs/", "services/", "socklab/", "tests/")
"""Files below are of this project, and no page writes one."""
ELSEWHERE = (
    "pip",
    "pipx",
    "uvx",
    "docker",
    "openssl",
    "sudo",
    "git",
    "make",
    "zip",
    "cd",
    "mkdir",
    "socklab",
)
"""What a `sh` block may begin with: it is run by other tests, or by nobody."""
LIMIT = 90.0  # seconds for what a page shows to appear
SETTLED = 1.0  # seconds without output, when writing, after which a program that goes on has said what it has to say


# What came, and what a page says of it.

_VARIES = (
    (r"^([\w-]+)( +(≥ )?\d[\d.,]*( ([kM]|ms|µs|s)\b)?)+ +\d+%$", r"\1 figures"),  # a row of `socklab bench`
    (r"\b\d\d:\d\d:\d\d\.\d+", "TIME"),
    (r"\b\d{8}-\d{6}\b", "RUN"),
    (r"(?<![\d.])\d+\.\d+(?![\d.])", "N"),  # not an address
    (r"\b\d+ (ms|µs|ns|MiB|KiB|MB|kB)\b", r"N \1"),
    (r'"(t|pid|process|seq|ack|window)": ?\d+', r'"\1":N'),  # of events and reports, which are JSON
    (r'"python":"[\d.]+"', '"python":"N"'),
    (r"\b(process|pid|worker|fd|ino|inode|sk|uid)([ =:])\d+", r"\1\2N"),
    (r"\bsocket:\[[\d.]+\]", "socket:[N]"),  # of /proc/PID/fd; a page may write socket:[...]
    (r"\b(3[2-9]|[45]\d|6[0-4])\d{3}\b", "PORT"),  # the kernel's choice (ip_local_port_range)
    (r":[3-6]\d{0,3}…", ":PORT…"),  # the same in a text of which the end is left out
    (r"\b\d+ (steps|histories)\b", r"N \1"),  # of explore, whose first failure is a matter of chance
    (r"\bhistory \d+\b", "history N"),
    (
        r"\bAddress:Port *Process *$",
        "Address:Port",
    ),  # of ss(8): newer ones leave this column out where nobody asks for it
    (r"\btimer:\((\w+),[^)]*\)", r"timer:(\1)"),  # of ss(8): how long it still runs, and how often it has
    (r"\s+", " "),
)
_UNORDERED = re.compile(
    r"^ +\d+\.\d{3}  |^(ESTAB|LISTEN|UNCONN|SYN-|FIN-|TIME-|CLOSE-|CLOSING|LAST-)|^\{\"t\":"
)
"""Lines whose order nobody owes: of several programs, or of the kernel's tables."""


def shape(line: str) -> str:
    """A line without what differs from run to run."""
    for pattern, instead in _VARIES:
        line = re.sub(pattern, instead, line)
    return line.strip()


def is_gap(line: str) -> bool:
    """Whether it stands for lines that are left out."""
    return line.strip() in ("…", "# …", "// …")


def same(expected: Sequence[str], got: Sequence[str]) -> bool:
    """Whether what came is what a page shows."""
    told, story = (
        Counter(shape(line) for line in lines if _UNORDERED.match(line)) for lines in (expected, got)
    )
    if told - story or (story - told and not any(map(is_gap, expected))):
        return False
    wanted = "".join(
        r"(?:.*\n)*" if is_gap(line) else re.escape(f"{shape(line)}\n")
        for line in expected
        if not _UNORDERED.match(line)
    )
    return (
        re.fullmatch(wanted, "".join(f"{shape(line)}\n" for line in got if not _UNORDERED.match(line)))
        is not None
    )


def not_in(shown: Sequence[str], lines: Sequence[str]) -> str:
    """The first part of an excerpt that a file does not have where it ought to be; empty where it has all. A part may stand further
    left than in the file."""
    begin = 0
    for part in (list(group) for gap, group in groupby(shown, is_gap) if not gap):
        places = range(begin, len(lines) - len(part) + 1)
        at = next((at for at in places if _flush(lines[at : at + len(part)]) == _flush(part)), None)
        if at is None:
            return "\n".join(part)
        begin = at + len(part)
    return ""


def _flush(lines: Iterable[str]) -> str:
    return textwrap.dedent("\n".join(line.rstrip() for line in lines))


@dataclass(frozen=True)
class Trouble:
    """Where a page says what is not so."""

    line: int
    said: Sequence[str]
    came: Sequence[str]

    def __str__(self) -> str:
        return (
            f"line {self.line}\n  the page says\n{_indented(self.said)}\n  what came\n{_indented(self.came)}"
        )


def _indented(lines: Sequence[str]) -> str:
    return "\n".join(f"    {line}" for line in lines) or "    (nothing)"


# The page as it is written.


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    lines: tuple[str, ...]
    line: int
    """Of its first line in the page, from 1."""

    @property
    def path(self) -> str | None:
        """The file that it shows, named in its first line."""
        found = re.fullmatch(r"(?:#|//) ([\w./-]+\.\w+)", self.lines[0]) if self.lines else None
        return found[1] if found else None


def blocks(text: str) -> list[Block]:
    return [
        Block(token.info.partition(" ")[0], tuple(token.content.splitlines()), token.map[0] + 2)
        for token in MARKDOWN.parse(text)
        if token.type == "fence" and token.map
    ]  # fmt: skip


def filled(text: str, page: Sequence[Block], contents: Sequence[Sequence[str]]) -> str:
    """A page with other lines in its blocks."""
    pieces = [
        (block.line - 1, len(block.lines), content) for block, content in zip(page, contents, strict=True)
    ]
    return "\n".join(spliced(text.splitlines(), pieces)) + "\n"


def spliced(lines: Sequence[str], pieces: Sequence[tuple[int, int, Sequence[str]]]) -> list[str]:
    """Lines with some replaced: from which on (from 0), how many, and by what; in this order."""
    made = list(lines)
    for at, count, content in reversed(pieces):  # from the end: the others stay where they are
        made[at : at + count] = content
    return made


@dataclass
class Part:
    """Something that is typed in a terminal, and what appears there then."""

    block: Block
    line: int
    terminal: str
    act: str = ""
    """Nothing: more appears of what was begun before."""
    typed: list[str] = field(default_factory=list)
    """The act, with the terminal's name before it where that changes."""
    expected: list[str] = field(default_factory=list)
    ends: bool = False
    """The program must end; else it waits for keys."""


def parts(page: Sequence[Block]) -> list[Part]:
    """Those of all `console` blocks."""
    found: list[Part] = []
    terminal = ""
    for block in page:
        part: Part | None = None
        for number, line in enumerate(block.lines if block.language == "console" else (), block.line):
            name = re.fullmatch(r"\[([\w-]+)\]", line)
            act = line.startswith(("$ ", "> ")) or line in ("^C", "^D")
            terminal = name[1] if name else terminal
            if part is None or name or (act and (part.act or part.expected)):
                part = Part(block, number, terminal)
                found.append(part)
            if name or act:
                part.typed.append(line)
                part.act = line if act else ""
            else:
                part.expected.append(line)
    following: dict[str, str] = {}
    for part in reversed(found):
        # It need not end when keys are typed to it later, or when more of it is shown later.
        part.ends = following.get(part.terminal, "$ ").startswith("$ ")
        following[part.terminal] = part.act
    return found


# The reader's desk.


@dataclass
class Terminal:
    """The program that runs in it, and what has appeared."""

    home: Path
    """The reader's lab."""
    folder: Path
    """Where it stands now."""
    command: str = ""
    process: subprocess.Popen[str] | None = None
    reader: threading.Thread | None = None
    shown: list[str] = field(default_factory=list)
    """Since it was looked at last."""
    last: float = 0.0
    """When a line appeared last."""
    news: threading.Condition = field(default_factory=threading.Condition)

    def run(self, command: str) -> None:
        self._wait()
        if re.fullmatch(r"cd( \S+)?", command):
            self.folder = (self.folder / command[3:]).resolve()
            return
        self.command = command
        is_plain = re.fullmatch(
            r"[\w./-]+( [\w./:{}=%+@-]+)*", command
        )  # then no shell stands between it and ^C
        self.process = subprocess.Popen(
            ["bash", "-c", f"exec {command}" if is_plain else command],
            cwd=self.folder, env=_environment(), text=True, errors="backslashreplace", start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        self.reader.start()

    def _wait(self) -> None:
        """For the end of what runs, with a limit."""
        if self.process is not None:
            try:
                self.process.wait(LIMIT)
            except subprocess.TimeoutExpired:
                raise SystemExit(f"{self.command}: still runs; ^C or ^D is missing in the page") from None

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            with self.news:
                self.shown.append(self._as_seen(line.rstrip("\n")))
                self.last = time.monotonic()
                self.news.notify_all()

    def _as_seen(self, line: str) -> str:
        """By a reader whose lab is in a folder of theirs, and who installed socklab."""
        return line.replace(f"{ROOT}/", "").replace(str(self.home), "/home/you/lab")

    def type(self, keys: str) -> None:
        if self.process is None or self.process.stdin is None:
            raise SystemExit(f"nothing runs that {keys} could be typed to")
        _at_rest(self.process.pid, time.monotonic() + LIMIT)
        try:
            if keys == "^C":
                os.killpg(self.process.pid, signal.SIGINT)
            elif keys == "^D":
                self.process.stdin.close()
            else:
                self.process.stdin.write(keys + "\n")
                self.process.stdin.flush()
        except (BrokenPipeError, ProcessLookupError):
            pass  # it has ended: what appeared will tell

    def look(self, expected: Sequence[str], ends: bool, write: bool) -> list[str]:
        """What has appeared, as soon as it is what is expected, else when nothing more can come. `ends`: the program must end, too."""
        until = time.monotonic() + LIMIT

        def is_all() -> bool:
            if self.reader is None or not self.reader.is_alive() or time.monotonic() > until:
                return True
            if ends:
                return False
            if write and time.monotonic() - self.last > SETTLED:
                return True
            return same(expected, self.shown) and not (write and not expected)

        if not expected and not ends and self.process is not None:
            _at_rest(self.process.pid, until)
        with self.news:
            self.last = time.monotonic()
            while not is_all():
                self.news.wait(0.1)
            shown, self.shown = self.shown, []
        return shown

    def end(self) -> None:
        if self.process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(self.process.pid, number)
                self.process.wait(5)


def _at_rest(session: int, until: float) -> None:
    """Wait until the programs of a session wait for something: all asleep, and none has run since it was looked at last. One that wakes
    by the clock (a poll_interval, say) always has: it is at rest when it was asleep ten times in a row."""
    before: list[str] | None = None
    asleep = 0
    while time.monotonic() < until:
        now = _tasks(session)
        is_busy = any(line.startswith("State:") and line.split()[1] in "RD" for line in now)
        asleep = 0 if is_busy else asleep + 1
        if asleep and (now == before or asleep == 10):
            return
        before = now
        time.sleep(0.1)  # the kernel does not tell


def _tasks(session: int) -> list[str]:
    """State of each thread of a session's programs, and how often it has run."""
    found: list[str] = []
    for path in glob.iglob("/proc/[0-9]*/task/*/status"):  # Path.glob() raises where a process ends meanwhile
        try:
            if os.getsid(int(path.split("/")[2])) == session:
                lines = Path(path).read_text().splitlines()
                found += [line for line in lines if line.startswith(("State:", "voluntary", "nonvoluntary"))]
        except OSError:
            continue  # it has ended meanwhile
    return found


def _environment() -> dict[str, str]:
    # What a reader's shell has, and nothing of ours: pytest prints otherwise under CI, others under COLUMNS or TERM.
    theirs = ("HOME", "USER", "LOGNAME", "TMPDIR")
    kept = {key: value for key, value in os.environ.items() if key in theirs}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**kept, "PATH": path, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", "LC_ALL": "C.UTF-8"}


@dataclass
class Page:
    """A page under way: the reader's folder, terminals, and Python session."""

    path: Path
    folder: Path
    write: bool = False
    terminals: dict[str, Terminal] = field(default_factory=dict)
    session: dict[str, Any] = field(default_factory=lambda: {"__name__": "__main__"})
    troubles: list[Trouble] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)

    def run(self) -> str:
        """All blocks in their order; the page with what came in place of what was said."""
        text = self.path.read_text(encoding="utf-8")
        page = blocks(text)
        self.parts = parts(page)
        try:
            return filled(text, page, [self._block(block) for block in page])
        finally:
            for terminal in self.terminals.values():
                terminal.end()

    def _block(self, block: Block) -> Sequence[str]:
        if block.language == "console":
            return self._console(block)
        if block.language == "pycon":
            return self._python(block)
        if block.path is not None:
            self._file(block, block.path)
        elif block.language == "yaml":
            self._scenario(block)
        elif block.language == "sh":
            self._elsewhere(block)
        elif block.language not in ("", "text"):
            why = f"{block.language} without a file's name in its first line, like # server.py"
            self._wrong(block.line, block.lines[:1], [why])
        return block.lines

    def _wrong(self, line: int, said: Sequence[str], came: Sequence[str]) -> None:
        self.troubles.append(Trouble(line, said, came))

    def _console(self, block: Block) -> list[str]:
        came: list[str] = []
        for part in (part for part in self.parts if part.block is block):
            terminal = self.terminals.setdefault(part.terminal, Terminal(self.folder, self.folder))
            if part.act.startswith("$ "):
                terminal.run(part.act[2:])
            elif part.act:
                terminal.type(part.act.removeprefix("> "))
            shown = terminal.look(part.expected, part.ends, self.write)
            if same(part.expected, shown):
                shown = part.expected
            else:
                self._wrong(part.line, [*part.typed, *part.expected], [*part.typed, *shown])
            came += [*part.typed, *shown]
        return came

    def _python(self, block: Block) -> list[str]:
        os.chdir(self.folder)
        examples = doctest.DocTestParser().get_examples("\n".join(block.lines) + "\n", str(self.path))
        answers = [self._answer(example.source) for example in examples]
        pieces: list[tuple[int, int, Sequence[str]]] = []
        for example, got in zip(examples, answers, strict=True):
            typed, want = example.source.splitlines(), example.want.splitlines()
            if not same(want, got):
                pieces.append((example.lineno + len(typed), len(want), got))
                self._wrong(block.line + example.lineno, [*typed, *want], got)
        return spliced(block.lines, pieces)

    def _answer(self, source: str) -> list[str]:
        """What Python says to it; of a traceback, `  ...` for the calls."""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            try:
                exec(compile(source, "<stdin>", "single"), self.session)
            except Exception:
                traceback.print_exc()
        return re.sub(
            r"^(Traceback .*\n)(?: .*\n)+", r"\1  ...\n", printed.getvalue(), flags=re.MULTILINE
        ).splitlines()

    def _file(self, block: Block, name: str) -> None:
        ours, shown = ROOT / name, block.lines[1:]
        if ours.is_file():
            if gone := not_in(shown, ours.read_text(encoding="utf-8").splitlines()):
                self._wrong(block.line, gone.splitlines(), [f"{name} has no such lines, in this order"])
        elif name.startswith(OURS):
            self._wrong(block.line, block.lines[:1], ["this project has no such file"])
        else:
            target = self.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text("\n".join(shown) + "\n", encoding="utf-8")

    def _scenario(self, block: Block) -> None:
        text = "\n".join(block.lines) + "\n"
        keys = re.findall(r"^(\w+):", text, re.MULTILINE)
        if "title" not in keys:  # a part of one
            if "steps" not in keys and "clients" not in keys:
                text = f"steps:\n  - connect: everyone\n{text}"
            clients = "" if "clients" in keys else "clients: [alice, bob, carol]\n"
            text = f"title: A part\nservice: chat\n{clients}{text}"
        path = self.folder / "page.scenario.yaml"
        path.write_text(text, encoding="utf-8")
        try:
            load(path)
        except ScenarioError as exc:
            self._wrong(block.line, block.lines, [str(exc)])

    def _elsewhere(self, block: Block) -> None:
        """`sh`: it must be what cannot be run here."""
        for number, (before, line) in enumerate(pairwise(("", *block.lines)), block.line):
            words = [word for word in line.split() if not re.match(r"[A-Z_]+=", word)]
            goes_on = before.endswith("\\")
            if words and not goes_on and words[0] not in ELSEWHERE and "#" not in words[0]:
                self._wrong(number, [line], ["a command that could be run here: make it a console block"])


def run(path: Path, write: bool = False) -> list[Trouble]:
    """Run a page here; where asked, write what came into it and its other edition. The namespace is the caller's."""
    with tempfile.TemporaryDirectory(prefix="socklab-page-") as name:
        folder = Path(name) / "lab"
        folder.mkdir()
        for each in STAGE:
            source = ROOT / each
            if source.is_dir():
                shutil.copytree(source, folder / each, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, folder / each)
        page = Page(path, folder, write)
        try:
            text = page.run()
        finally:
            os.chdir(ROOT)
            if "socklab up" in path.read_text(
                encoding="utf-8"
            ):  # it still stands, if the page did not come to its end
                subprocess.run([sys.executable, "-m", "socklab", "down"], cwd=folder, capture_output=True)
    if write and page.troubles:
        _write(path, text)
    return page.troubles


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    if not is_page(path) or not (other := counterpart(path)).is_file():
        return
    theirs = other.read_text(encoding="utf-8")
    old, new = blocks(theirs), blocks(text)
    if [block.language for block in old] == [block.language for block in new]:
        other.write_text(filled(theirs, old, [block.lines for block in new]), encoding="utf-8")
    else:
        print(f"{other}: has other blocks; it stays as it is", file=sys.stderr)


def apart(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """This program in a network namespace of its own, as root or as an ordinary user."""
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    inside = f"ip link set lo up && exec {shlex.join([sys.executable, '-m', 'docs.transcripts', '--inside', *arguments])}"
    return subprocess.run(
        ["unshare", "--net", *as_root, "sh", "-c", inside], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m docs.transcripts", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--write", action="store_true", help="write what came into the pages")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("pages", nargs="+", type=Path)
    asked = parser.parse_args()
    if not asked.inside:
        done = apart([*(["--write"] if asked.write else []), *map(str, asked.pages)])
        print(done.stdout, end="")
        return done.returncode
    wrong = False
    for page in asked.pages:
        for trouble in run(page.resolve(), asked.write):
            wrong = True
            print(f"{page}: {trouble}")
    return int(wrong and not asked.write)


if __name__ == "__main__":
    sys.exit(main())
