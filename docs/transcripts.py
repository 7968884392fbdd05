"""Runs what the pages show, and holds it against what they say came of it.

    python -m docs.transcripts docs/lessons/07-*.md            is it still so?
    python -m docs.transcripts --write docs/lessons/07-*.md    write what came into the page, and into its Korean edition
    python -m docs.transcripts --pictures docs/lessons/07-*.md make its pictures anew

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

Numbers that differ from run to run (times, ports that the kernel chose, processes) are taken for equal, see `shape`. Lines of a story
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
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parent.parent
LESSONS = ROOT / "docs" / "lessons"
KOREAN = ROOT / "docs" / "ko"
PLAYS = LESSONS / "plays"
STAGE = ("services", "clients", "scenarios", "docker-compose.yml", "scenario.schema.json")
LIMIT = 90.0  # seconds for what a page shows to appear
SETTLED = 1.0  # seconds without output, when writing, after which a program that goes on has said what it has to say
ELSEWHERE = [
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
]
"""What a `sh` block may begin with: it is run by other tests, or by nobody."""

_VARIES = (
    (r"\x1b\[[0-9;]*m", ""),
    (r"^([\w-]+)( +(≥ )?\d[\d.,]*( ([kM]|ms|µs|s)\b)?)+ +\d+%$", r"\1 figures"),  # a row of `socklab bench`
    (r"\b\d\d:\d\d:\d\d\.\d+", "TIME"),
    (r"\b\d{8}-\d{6}\b", "RUN"),
    (r"(?<![\d.])\d+\.\d+(?![\d.])", "N"),  # not an address
    (r"\b\d+ (ms|µs|ns|MiB|KiB|MB|kB)\b", r"N \1"),
    (r'"(t|pid|process|seq|ack|window)": ?\d+', r'"\1":N'),  # of events and reports, which are JSON
    (r'"python":"[\d.]+"', '"python":"N"'),
    (r"\b(process|pid|worker|fd|ino|inode|sk|uid)([ =:])\d+", r"\1\2N"),
    (r"\b(3[2-9]|[45]\d|6[0-4])\d{3}\b", "PORT"),  # the kernel's choice (ip_local_port_range)
    (r":[3-6]\d{0,3}…", ":PORT…"),  # the same in a text of which the end is left out
    (r"\b\d+ (steps|histories)\b", r"N \1"),  # of explore, whose first failure is a matter of chance
    (r"\bhistory \d+\b", "history N"),
    (r"\b0x[0-9a-f]{6,}\b", "ADDRESS"),
    (r"\btimer:\((\w+),[^)]*\)", r"timer:(\1)"),  # of ss(8): how long it still runs, and how often it has
    (r"\s+", " "),
)
_STORY = re.compile(r"^ +\d+\.\d{3}  |^(ESTAB|LISTEN|UNCONN|SYN-|FIN-|TIME-|CLOSE-|CLOSING|LAST-)|^\{\"t\":")
"""Lines whose order nobody owes: of several programs, or of the kernel's tables."""
_KEYS = ("^C", "^D")
_NAMED = re.compile(r"^(?:#|//) ([\w./-]+\.\w+)$")


def shape(line: str) -> str:
    """A line without what differs from run to run."""
    for pattern, instead in _VARIES:
        line = re.sub(pattern, instead, line)
    return line.strip()


def same(expected: Sequence[str], got: Sequence[str]) -> bool:
    """Whether what came is what a page shows. `…` alone stands for any lines."""
    whole = "…" not in expected
    story = Counter(shape(line) for line in got if _STORY.match(line))
    told = Counter(shape(line) for line in expected if _STORY.match(line))
    if told != story if whole else told - story:
        return False
    rest = [shape(line) for line in got if not _STORY.match(line)]
    wanted = [line.strip() if line == "…" else shape(line) for line in expected if not _STORY.match(line)]
    return _fits(wanted, rest)


def _fits(wanted: list[str], rest: list[str]) -> bool:
    if not wanted:
        return not rest
    if wanted[0] == "…":
        return any(_fits(wanted[1:], rest[at:]) for at in range(len(rest) + 1))
    return bool(rest) and wanted[0] == rest[0] and _fits(wanted[1:], rest[1:])


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
        found = _NAMED.match(self.lines[0]) if self.lines else None
        return found[1] if found else None


def blocks(text: str) -> list[Block]:
    return [
        Block(token.info.split()[0] if token.info.split() else "", tuple(token.content.splitlines()), token.map[0] + 2)
        for token in MarkdownIt("commonmark").parse(text)
        if token.type == "fence" and token.map
    ]  # fmt: skip


@dataclass(frozen=True)
class Trouble:
    """Where a page says what is not so."""

    line: int
    said: str
    came: str

    def __str__(self) -> str:
        return (
            f"line {self.line}\n  the page says\n{_indented(self.said)}\n  what came\n{_indented(self.came)}"
        )


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines()) or "    (nothing)"


@dataclass
class Terminal:
    """A terminal of the reader's: the program that runs in it, and what has appeared."""

    home: Path
    """The reader's lab."""
    folder: Path
    """Where it stands now."""
    process: subprocess.Popen[str] | None = None
    shown: list[str] = field(default_factory=list)
    """Since it was looked at last."""
    last: float = 0.0
    reader: threading.Thread | None = None
    news: threading.Condition = field(default_factory=threading.Condition)

    def run(self, command: str) -> None:
        self.wait()
        if re.fullmatch(r"cd( \S+)?", command):
            self.folder = (self.folder / command[3:]).resolve()
            return
        self.process = subprocess.Popen(
            ["bash", "-c", f"exec {command}" if re.fullmatch(r"[\w./-]+( [\w./:{}=%+@-]+)*", command) else command],
            cwd=self.folder, env=_environment(), text=True, errors="backslashreplace", start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        self.reader.start()

    def _read(self, stream: Any) -> None:
        for line in stream:
            with self.news:
                self.shown.append(self.told(line.rstrip("\n")))
                self.last = time.monotonic()
                self.news.notify_all()
        with self.news:
            self.last = 0.0
            self.news.notify_all()

    def told(self, line: str) -> str:
        """A line as its reader sees it, whose lab is in a folder of theirs, with socklab installed."""
        for place, theirs in ((f"{ROOT}/", ""), (str(self.home), "/home/you/lab")):
            line = line.replace(place, theirs)
        return line

    @property
    def ended(self) -> bool:
        """Whether nothing more can appear."""
        return self.reader is None or not self.reader.is_alive()

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

    def wait(self) -> None:
        """For the end of what runs, with a limit."""
        if self.process is not None:
            try:
                self.process.wait(LIMIT)
            except subprocess.TimeoutExpired:
                raise SystemExit(
                    f"{shlex.join(map(str, self.process.args))}: still runs; ^C or ^D is missing in the page"
                ) from None  # type: ignore[arg-type]

    def look(self, expected: Sequence[str], ends: bool, write: bool) -> list[str]:
        """What has appeared, as soon as it is what is expected, else when nothing more can come. `ends`: the program must end, too."""
        until = time.monotonic() + LIMIT
        if not expected and not ends and self.process is not None:
            _at_rest(self.process.pid, until)
        with self.news:
            self.last = time.monotonic()
            while not (self.ended or (not (ends or (write and not expected)) and same(expected, self.shown))):
                left = until - time.monotonic()
                if left <= 0 or (
                    write and not ends and not self.ended and time.monotonic() - self.last > SETTLED
                ):
                    break
                self.news.wait(min(left, 0.1))
            shown, self.shown = self.shown, []
        return shown

    def end(self) -> None:
        if self.process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, number)
                self.process.wait(5)
                break
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue


def _at_rest(session: int, until: float) -> None:
    """Wait until the programs of a session wait for something: all asleep, and none has run since it was looked at last. One that wakes
    by the clock (a poll_interval, say) always has: it is at rest when it was asleep ten times in a row."""
    before: list[str] | None = None
    asleep = 0
    while time.monotonic() < until:
        now = []
        # Path.glob() raises where a process ends meanwhile.
        for path in glob.iglob("/proc/[0-9]*/task/*/status"):
            try:
                if os.getsid(int(path.split("/")[2])) == session:
                    now += [
                        line
                        for line in Path(path).read_text().splitlines()
                        if line.startswith(("State:", "voluntary", "nonvoluntary"))
                    ]
            except OSError:
                continue  # it has ended meanwhile
        busy = any(line.startswith("State:") and line.split()[1] in "RD" for line in now)
        asleep = 0 if busy else asleep + 1
        if asleep and (now == before or asleep == 10):
            return
        before = now
        time.sleep(0.1)


def _environment() -> dict[str, str]:
    drop = ("SOCKLAB_ON", "COLUMNS", "FORCE_COLOR", "PYTHONPATH")
    kept = {key: value for key, value in os.environ.items() if key not in drop}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {
        **kept,
        "PATH": path,
        "PYTHONUNBUFFERED": "1",
        "NO_COLOR": "1",
        "LC_ALL": "C.UTF-8",
        "PYTHONPATH": "",
    }


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

    def run(self) -> list[str]:
        """All blocks in their order; the page's lines with what came in place of what was said."""
        text = self.path.read_text(encoding="utf-8")
        lines, shift = text.splitlines(), 0
        self.parts = parts(blocks(text))
        try:
            for block in blocks(text):
                came = self._block(block)
                at = block.line - 1 + shift
                lines[at : at + len(block.lines)] = came
                shift += len(came) - len(block.lines)
        finally:
            for terminal in self.terminals.values():
                terminal.end()
        return lines

    def _block(self, block: Block) -> list[str]:
        if block.language == "console":
            return self._console(block)
        if block.language == "pycon":
            return self._python(block)
        if block.path is not None:
            self._file(block, block.path)
        elif block.language == "yaml":
            self._scenario(block)
        elif block.language == "sh":
            for number, line in enumerate(block.lines):
                goes_on = number and block.lines[number - 1].endswith("\\")
                words = [word for word in line.split() if not re.match(r"[A-Z_]+=", word)]
                if words and not goes_on and words[0] not in ELSEWHERE and "#" not in words[0]:
                    self.troubles.append(
                        Trouble(
                            block.line + number,
                            line,
                            "a command that could be run here: make it a console block",
                        )
                    )
        elif block.language not in ("", "text"):
            self.troubles.append(
                Trouble(
                    block.line,
                    block.lines[0],
                    f"{block.language} without a file's name in its first line, like # server.py",
                )
            )
        return list(block.lines)

    def _console(self, block: Block) -> list[str]:
        came: list[str] = []
        for part in [part for part in self.parts if part.block == block]:
            terminal = self.terminals.setdefault(part.terminal, Terminal(self.folder, self.folder))
            if part.act.startswith("$ "):
                terminal.run(part.act[2:])
            elif part.act:
                terminal.type(part.act.removeprefix("> "))
            shown = terminal.look(part.expected, part.ends, self.write)
            if same(part.expected, shown):
                came += [*part.typed, *part.expected]
            else:
                came += [*part.typed, *shown]
                self._trouble(part.line, [*part.typed, *part.expected], [*part.typed, *shown])
        return came

    def _trouble(self, line: int, said: Sequence[str], came: Sequence[str]) -> None:
        self.troubles.append(Trouble(line, "\n".join(said), "\n".join(came)))

    def _python(self, block: Block) -> list[str]:
        os.chdir(self.folder)
        test = doctest.DocTestParser().get_doctest(
            "\n".join(block.lines) + "\n", self.session, self.path.name, str(self.path), block.line - 1
        )
        came = list(block.lines)
        for example in reversed(test.examples):  # from the end, so that the line numbers of the others stay
            example.options[doctest.ELLIPSIS] = True
        results = [self._example(example) for example in test.examples]
        for example, got in reversed(list(zip(test.examples, results, strict=True))):
            at = example.lineno + example.source.count("\n")
            of = len(example.want.splitlines())
            if _python_same(example.want, got):
                continue
            self.troubles.append(Trouble(block.line + example.lineno, example.source + example.want, got))
            came[at : at + of] = got.splitlines()
        return came

    def _example(self, example: doctest.Example) -> str:
        """What Python says to it."""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            try:
                exec(compile(example.source, "<stdin>", "single"), self.session)
            except Exception as exc:
                kind = type(exc)
                place = "" if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}."
                printed.write(
                    f"Traceback (most recent call last):\n  ...\n{place}{kind.__qualname__}: {exc}\n"
                )
        return printed.getvalue()

    def _file(self, block: Block, name: str) -> None:
        mine, shown = ROOT / name, block.lines[1:]
        if not mine.is_file():
            target = self.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text("\n".join(shown) + "\n", encoding="utf-8")
            return
        if gone := not_in(shown, mine.read_text(encoding="utf-8").splitlines()):
            self.troubles.append(Trouble(block.line, gone, f"{name} has no such lines, in this order"))

    def _scenario(self, block: Block) -> None:
        from socklab.scenario import load
        from socklab.source import ScenarioError

        path = self.folder / "page.scenario.yaml"
        text = "\n".join(block.lines) + "\n"
        if not re.search(r"^title:", text, re.MULTILINE):
            head = "" if re.search(r"^clients:", text, re.MULTILINE) else "clients: [alice, bob, carol]\n"
            start = (
                text
                if re.search(r"^(steps|clients|service):", text, re.MULTILINE)
                else f"steps:\n  - connect: everyone\n{text}"
            )
            text = f"title: A part\nservice: chat\n{head}{start}"
        path.write_text(text, encoding="utf-8")
        try:
            load(path)
        except ScenarioError as exc:
            self.troubles.append(Trouble(block.line, "\n".join(block.lines), str(exc)))


def _python_same(want: str, got: str) -> bool:
    want, got = (
        re.sub(r"(Traceback \(most recent call last\):\n)(?: .*\n)*", r"\1", text) for text in (want, got)
    )
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    shaped = ("\n".join(map(shape, text.splitlines())) + "\n" if text else "" for text in (want, got))
    return doctest.OutputChecker().check_output(*shaped, flags)


@dataclass
class Part:
    """Something that is typed in a terminal, and what appears there then."""

    block: Block
    line: int
    terminal: str
    act: str = ""
    typed: list[str] = field(default_factory=list)
    """The act, with the terminal's name before it where that changes."""
    expected: list[str] = field(default_factory=list)
    ends: bool = False
    """The program must end; else it waits for keys."""


def parts(page: Sequence[Block]) -> list[Part]:
    found: list[Part] = []
    now = ""
    for block in page:
        if block.language != "console":
            continue
        fresh = True  # what is typed next begins a part
        for number, line in enumerate(block.lines, block.line):
            name = re.fullmatch(r"\[([\w-]+)\]", line)
            act = line.startswith(("$ ", "> ")) or line in _KEYS
            if name:
                now = name[1]
            if (
                name
                or (
                    act
                    and not (
                        found
                        and found[-1].block == block
                        and not fresh
                        and not found[-1].act
                        and not found[-1].expected
                    )
                )
                or fresh
            ):
                found.append(Part(block, number, now))
            fresh = False
            if name or act:
                found[-1].typed.append(line)
                found[-1].act = line if act else ""
            else:
                found[-1].expected.append(line)
    following: dict[str, str] = {}
    for part in reversed(found):
        # It need not end when keys are typed to it later, or when more of it is shown later.
        part.ends = following.get(part.terminal, "$ ").startswith("$ ")
        following[part.terminal] = part.act
    return found


def not_in(shown: Sequence[str], lines: Sequence[str]) -> str:
    """The first part of an excerpt that a file does not have where it ought to be; empty where it has all. `…` alone leaves lines
    out; an excerpt may stand further left than in the file."""
    parts: list[list[str]] = [[]]
    for line in shown:
        if line.strip() in ("…", "# …", "// …"):
            parts.append([])
        else:
            parts[-1].append(line)
    begin = 0
    for part in filter(None, parts):
        at = next(
            (at for at in range(begin, len(lines) - len(part) + 1) if _is(part, lines[at : at + len(part)])),
            None,
        )
        if at is None:
            return "\n".join(part)
        begin = at + len(part)
    return ""


def _is(part: Sequence[str], lines: Sequence[str]) -> bool:
    left = len(lines[0]) - len(lines[0].lstrip()) - (len(part[0]) - len(part[0].lstrip()))
    return all(
        line[left:].rstrip() == shown.rstrip() and not line[:left].strip()
        for shown, line in zip(part, lines, strict=True)
    )


def run(path: Path, write: bool = False) -> list[Trouble]:
    """Run a page here; where asked, write what came into it and its Korean edition. The namespace is the caller's."""
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
            lines = page.run()
        finally:
            os.chdir(ROOT)
            if "socklab up" in path.read_text(
                encoding="utf-8"
            ):  # the lab stands, if the page did not come to its end
                subprocess.run([sys.executable, "-m", "socklab", "down"], cwd=folder, capture_output=True)
    if write and page.troubles:
        _write(path, lines)
    return page.troubles


def _write(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    docs = ROOT / "docs"
    korean = KOREAN / path.relative_to(docs) if path.is_relative_to(docs) else None
    if korean is None or not korean.is_file():
        return
    theirs, ours = korean.read_text(encoding="utf-8"), blocks(path.read_text(encoding="utf-8"))
    old = blocks(theirs)
    if [block.language for block in old] != [block.language for block in ours]:
        print(f"{korean}: has other blocks; it stays as it is", file=sys.stderr)
        return
    changed, shift = theirs.splitlines(), 0
    for mine, block in zip(ours, old, strict=True):
        at = block.line - 1 + shift
        changed[at : at + len(block.lines)] = mine.lines
        shift += len(mine.lines) - len(block.lines)
    korean.write_text("\n".join(changed) + "\n", encoding="utf-8")


def apart(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """This program in a network namespace of its own, as root or as an ordinary user."""
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    inside = f"ip link set lo up && exec {shlex.join([sys.executable, '-m', 'docs.transcripts', '--inside', *arguments])}"
    return subprocess.run(
        ["unshare", "--net", *as_root, "sh", "-c", inside], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )  # fmt: skip


def pictures(text: str) -> list[str]:
    """The plays of which a page has pictures: names of scenario files, perhaps with `@service`."""
    return re.findall(r"!\[[^\]]*\]\((?:\.\./\.\./lessons/)?plays/([\w@-]+)\.svg\)", text)


def scenario_of(name: str) -> Path:
    """Of a picture: the scenario of the library that is played for it."""
    (found,) = (ROOT / "scenarios").rglob(f"{name.partition('@')[0]}.yaml")
    return found


def draw(name: str, folder: Path) -> Path:
    """Play the scenario of a picture; its run's folder in `folder`. Raises subprocess.CalledProcessError."""
    service = name.partition("@")[2]
    socklab = [sys.executable, "-m", "socklab"]
    only = ["--service", service] if service else []
    subprocess.run(
        [*socklab, "play", str(scenario_of(name)), *only, "--on", "netns", "--runs", str(folder)],
        check=True,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )
    return min(folder.iterdir())


def picture(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run_folder = draw(name, Path(folder))
        PLAYS.mkdir(parents=True, exist_ok=True)
        socklab = [sys.executable, "-m", "socklab"]
        subprocess.run(
            [*socklab, "show", str(run_folder), "--svg", str(PLAYS / f"{name}.svg")], check=True, cwd=ROOT
        )


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m docs.transcripts", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--write", action="store_true", help="write what came into the pages")
    parser.add_argument(
        "--pictures", action="store_true", help="make the pictures of their plays anew instead"
    )
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("pages", nargs="+", type=Path)
    asked = parser.parse_args()
    if asked.pictures:
        for name in {name for page in asked.pages for name in pictures(page.read_text(encoding="utf-8"))}:
            picture(name)
        return 0
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
