"""`socklab shell`: a session (socklab/session.py) at a terminal, or fed by a pipe.

a line ──▶ Shell.line ──▶ Session.do       what happens ──▶ Shell.see ──▶ the terminal, above the line that is typed
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import threading
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from pathlib import Path

from socklab import conductor, recorded, saved, terminal
from socklab.backends import Backend, LabError
from socklab.conductor import Options
from socklab.history import Event
from socklab.language import VERBS
from socklab.scenario import Scenario
from socklab.session import Session
from socklab.source import ScenarioError
from socklab.topology import Topology
from socklab.verdict import Result, Verdict
from socklab.words import in_words, safe

COMMANDS = {
    "help": "what can be typed; help VERB: about one verb",
    "next": "the next step of the scenario that was given",
    "save": "save FILE: what was typed, with what came, as a scenario",
    "quit": "end the lab; Ctrl-D does, too",
}
LOOK, LOOKS = 0.1, 2.0
"""Seconds. A pipe types faster than anything can come: before its next line, nothing has happened for LOOK, or LOOKS have passed."""
_OWN_DOING = {"sent", "half-closed", "closed", "aborted", "stalled", "reading", "set"}
_ASKS = {"expect", "quiet", "sockets", "steady"}
"""Verbs of which nobody would see that they hold."""
_USUAL = {"SYN", "SYN-ACK", "FIN"}
"""Packets that a connection always has: `socklab show` tells of them."""


class Seer:
    """Tells what happens."""

    def __init__(self, colour: bool) -> None:
        self.colour = colour
        self._start: int | None = None

    def see(self, event: Event) -> None:
        """Tell an event as it comes: all but what the person just typed."""
        self._start = event.t if self._start is None else self._start
        usual = event.kind == "wire" and _USUAL & set(event.data["words"])
        told = None if event.kind in _OWN_DOING or usual else in_words(event)
        if told is not None and event.kind != "verdict":
            who, what = told
            line = f"{(event.t - self._start) / 1e9:8.3f}  {who:<14} {what}"
            print(terminal.paint(line, "2", self.colour and event.kind in ("log", "wire")), flush=True)


class Shell:
    """Does what is typed."""

    def __init__(self, session: Session, rest: Iterable[str] = (), colour: bool = False) -> None:
        """`rest`: steps that `next` plays one by one."""
        self.session = session
        self.rest = list(rest)
        self.colour = colour
        self.wrong = 0
        """Lines that were no step, or could not be done."""

    def greet(self) -> None:
        begin = next(event for event in self.session.rig.history if event.kind == "play")
        nodes = ", ".join(f"{name} {address}" for name, address in begin.data["nodes"].items())
        print(f"{self.session.scenario.service} on {self.session.backend.name}: {nodes}")
        print("type a step, like connect: everyone; help tells what there is, quit ends it", flush=True)

    async def line(self, text: str) -> bool:
        """Do what a line says. False: the person wants to end."""
        words = text.split()
        if not words or text.lstrip().startswith("#"):
            return True
        if words[0] in ("quit", "exit") and len(words) == 1:
            return False
        if words[0] == "help" and len(words) <= 2:
            self._help(words[1].removesuffix(":") if len(words) == 2 else "")
        elif words[0] == "save" and len(words) == 2:
            await self._save(Path(words[1]))
        elif words[0] == "next" and len(words) == 1:
            await self._next()
        else:
            await self._step(text)
        return True

    async def _step(self, text: str) -> None:
        try:
            failure = await self.session.do(text)
        except ScenarioError as exc:
            verb = text.split()[0]
            way = (
                f"; write {verb}: …, help {verb} says what it takes" if verb in VERBS and verb != text else ""
            )
            self._told(exc.message + way)
        except LabError as exc:
            self._told(str(exc))
        else:
            for line in failure.lines()[1:] if failure else ():
                print(terminal.paint(safe(line), "31", self.colour), flush=True)
            if failure is None and self.session.scenario.steps[-1].verb in _ASKS:
                print(terminal.paint("as expected", "32", self.colour), flush=True)

    def _told(self, message: str) -> None:
        self.wrong += 1
        print(terminal.paint(safe(message), "35", self.colour), flush=True)

    async def _next(self) -> None:
        if not self.rest:
            self._told("no step is left; next goes with a scenario: socklab shell FILE")
            return
        step = self.rest.pop(0)
        print(safe(step.strip()) if "\n" not in step else "\n".join(map(safe, step.splitlines())))
        await self._step(step)

    def _help(self, verb: str) -> None:
        if not verb:
            print(
                "a step of the scenario language, on one line; alice: hello is short for send: {alice: hello}"
            )
            rows = [(name, field.about) for name, field in VERBS.items()]
            print(*terminal.columns([*rows, *COMMANDS.items()]), sep="\n")
        elif verb in VERBS:
            print(f"{verb}: {VERBS[verb].about}\n{' ' * len(verb)}  takes {VERBS[verb].type.what}")
        else:
            self._told(f'there is no verb "{verb}"; help lists them')

    async def _save(self, path: Path) -> None:
        """Write the scenario, and play it in a lab of its own to see that it passes."""
        try:
            saved.may_be(path)
            scenario = saved.save(path, recorded.of_session(self.session.rig.history, saved.title_of(path)))
        except (saved.NotSaved, recorded.NothingDone) as exc:
            self._told(str(exc))
            return
        session = self.session
        options = Options(patience=session.options.patience, ipv6=session.options.ipv6)
        result = await conductor.play(scenario, session.layout.topology, session.backend, options)
        print(*terminal.result_lines(result, self.colour), sep="\n", flush=True)
        self.wrong += result.verdict is not Verdict.PASS

    # words that may come next

    def words(self, before: str) -> list[str]:
        """What can follow what stands before the cursor."""
        if re.fullmatch(r"\s*(- )?[\w-]*", before):
            return [
                *(f"{verb}: " for verb in VERBS),
                *COMMANDS,
                *(f"{name}: " for name in self.session.rig.clients),
            ]
        if before.startswith("help "):
            return list(VERBS)
        return [*self.session.rig.clients, *self.session.rig.servers, "everyone"]


async def run(
    scenario: Scenario, topology: Topology, backend: Backend, options: Options, rest: Iterable[str]
) -> tuple[Result, int]:
    """Play by hand until the person ends it. The result, and how many lines were wrong. Raises TopologyError and ScenarioError."""
    seer = Seer(terminal.coloured(sys.stdout))
    session = Session(scenario, topology, backend, replace(options, on_event=seer.see))
    shell = Shell(session, rest, seer.colour)
    if (result := await session.begin()) is not None:
        return result, 0
    shell.greet()
    loop, here = asyncio.get_running_loop(), asyncio.current_task()
    assert here is not None
    told_to_end = asyncio.Event()

    def end() -> None:
        told_to_end.set()
        here.cancel()

    loop.add_signal_handler(signal.SIGTERM, end)
    person = sys.stdin.isatty() and sys.stdout.isatty()
    try:
        lines = _at_terminal(shell) if person else _from_pipe()
        async for text in lines:
            if person:
                loop.add_signal_handler(signal.SIGINT, session.break_off)
            going_on = await shell.line(text)
            if person:
                loop.remove_signal_handler(signal.SIGINT)
            else:
                await session.settle(LOOK, LOOKS)
            if not going_on:
                break
    except asyncio.CancelledError:
        if not told_to_end.is_set():
            raise
        here.uncancel()
    finally:
        result = await session.end()
    return result, shell.wrong


async def _from_pipe() -> AsyncIterator[str]:
    """Lines as they come, each told before what it does; the lab goes on while we wait for them."""
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str | None] = asyncio.Queue()

    def read() -> None:
        rest = b""
        while data := os.read(sys.stdin.fileno(), 65536):
            *whole, rest = (rest + data).split(b"\n")
            for line in whole:
                loop.call_soon_threadsafe(lines.put_nowait, line.decode(errors="replace"))
        loop.call_soon_threadsafe(lines.put_nowait, rest.decode(errors="replace") or None)
        loop.call_soon_threadsafe(lines.put_nowait, None)

    # A daemon: when the shell ends before its input, nobody waits for the next line.
    threading.Thread(target=read, daemon=True).start()
    while (text := await lines.get()) is not None:
        print(f"> {safe(text.rstrip())}", flush=True)
        yield text


async def _at_terminal(shell: Shell) -> AsyncIterator[str]:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import CompleteEvent, Completer, Completion
    from prompt_toolkit.document import Document
    from prompt_toolkit.history import FileHistory, History, InMemoryHistory
    from prompt_toolkit.patch_stdout import patch_stdout

    class Words(Completer):
        def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
            begun = document.get_word_before_cursor(WORD=False, pattern=re.compile(r"[\w-]+"))
            for word in shell.words(document.text_before_cursor):
                if word.startswith(begun) and word != begun:
                    yield Completion(word, -len(begun))

    history: History = InMemoryHistory()
    if (place := _history_file()) is not None:
        history = FileHistory(str(place))
    prompt: PromptSession[str] = PromptSession(
        "socklab> ", completer=Words(), history=history, complete_while_typing=False
    )
    while True:
        try:
            with patch_stdout(raw=True):
                text = await prompt.prompt_async(handle_sigint=True)
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
        yield text


def _history_file() -> Path | None:
    """Where the lines of earlier sessions are; None where there can be none."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    folder = Path(state, "socklab")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        place = folder / "shell-history"
        place.touch(mode=0o600)
    except OSError:
        return None
    return place
