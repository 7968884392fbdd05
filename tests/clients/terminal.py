"""An interactive client at a real terminal (a pty), and what a person sees on its screen."""

from __future__ import annotations

import os
import re
import select
import sys
import termios
import time
import unicodedata
from collections.abc import Callable

from tests import pseudo_terminal
from tests.clients.agent_process import LIMIT_S

CONTROL = re.compile(r"\x1b\[([\d;?]*)([A-Za-z@])|\x1b[=>()78][0B]?|.", re.DOTALL)


class Screen:
    """What a terminal shows: as much of an xterm as readline and the clients use."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.rows: list[list[str]] = [[]]
        self.row = self.column = 0
        self.wraps = False  # the last column is written; the next letter goes to the next row

    def feed(self, text: str) -> None:
        for found in CONTROL.finditer(text):
            if found[2]:
                self._command(found[2], found[1])
            elif len(found[0]) == 1:
                self._letter(found[0])

    def lines(self) -> list[str]:
        return ["".join(row).rstrip() for row in self.rows]

    def _letter(self, letter: str) -> None:
        if letter == "\r":
            self.column, self.wraps = 0, False
        elif letter == "\n":
            self._down()
        elif letter == "\b":
            self.column, self.wraps = max(0, self.column - 1), False
        elif letter >= " ":
            wide = unicodedata.east_asian_width(letter) in "WF"
            if self.wraps or (wide and self.column == self.columns - 1):
                self.column = 0
                self._down()
            row = self.rows[self.row]
            row += [" "] * (self.column + 1 + wide - len(row))
            row[self.column : self.column + 1 + wide] = [letter, ""] if wide else [letter]
            self.column += 1 + wide
            self.wraps = self.column == self.columns
            self.column = min(self.column, self.columns - 1)

    def _down(self) -> None:
        self.row += 1
        self.wraps = False
        if self.row == len(self.rows):
            self.rows.append([])

    def _command(self, letter: str, arguments: str) -> None:
        count = int(arguments) if arguments.isdecimal() else 1
        row = self.rows[self.row]
        if letter == "A":
            self.row = max(0, self.row - count)
        elif letter == "C":
            self.column = min(self.columns - 1, self.column + count)
        elif letter in "JK":  # erase from here to the end, of the screen or of the line
            del row[self.column :]
            if letter == "J":
                del self.rows[self.row + 1 :]
        elif letter == "P":  # delete letters
            del row[self.column : self.column + count]
        elif letter == "@":  # make room for letters
            row[self.column : self.column] = [" "] * count
        if letter in "AC":
            self.wraps = False


# A session leader that opens a terminal gets it as its controlling one; only then does Ctrl-C become a signal.
START = """
import os, sys
os.close(os.open(os.ttyname(0), os.O_RDWR))
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


class Terminal:
    """A client at a terminal."""

    def __init__(self, *argv: str, columns: int = 80) -> None:
        self.screen = Screen(columns)
        self.fd, theirs = pseudo_terminal.opened(columns)
        self.before = self.mode()
        env = {"PATH": os.environ["PATH"], "TERM": "xterm", "LC_ALL": "C.UTF-8"}
        self.process = pseudo_terminal.run([sys.executable, "-c", START, *argv], theirs, env=env)
        self._undecoded = b""

    def mode(self) -> list[object]:
        """How the terminal treats keys: as lines that it echoes, unless somebody has changed that."""
        return termios.tcgetattr(self.fd)[:4]

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def shows(self, *lines: str) -> None:
        """Wait until these are the last lines on the screen."""
        self._until(lambda: tuple(self.screen.lines()[-len(lines) :]) == lines, repr(lines))

    def until_typed(self, typed: str) -> None:
        """Wait until a prompt and this text, in as many rows as it takes, are the last on the screen."""

        def stands() -> bool:
            lines = self.screen.lines()
            start = max((n for n, line in enumerate(lines) if line[:1] == ">"), default=len(lines))
            return "".join(lines[start:]).strip() == f"> {typed}".strip()

        self._until(stands, repr(f"> {typed}"))

    def has(self, line: str) -> None:
        """Wait until this line is somewhere on the screen."""
        self._until(lambda: line in self.screen.lines(), repr(line))

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + LIMIT_S
        while not condition():
            left = max(0.0, deadline - time.monotonic())
            assert select.select([self.fd], [], [], left)[0], f"{what} is not on\n{self.text()}"
            assert self._read(), f"{what} was not on the screen at the end:\n{self.text()}"

    def _read(self) -> bool:
        """Take in what the client has written; False if it has ended."""
        came = pseudo_terminal.read(self.fd)
        if not came:
            return False
        data = self._undecoded + came
        # A letter or a control sequence may have come in part.
        text = data.decode(errors="ignore")
        cut = re.search(r"\x1b(\[[\d;?]*)?$", text)
        whole = text[: cut.start()] if cut else text
        self._undecoded = data[len(whole.encode()) :]
        self.screen.feed(whole)
        return True

    def text(self) -> str:
        return "\n".join(self.screen.lines())

    def status(self) -> int:
        """Wait for the client's end; its exit status. It must leave the terminal as it was."""
        deadline = time.monotonic() + LIMIT_S
        while select.select([self.fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
            if not self._read():
                break
        status = self.process.wait(LIMIT_S)
        assert self.mode() == self.before
        return status

    def clean_up(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(LIMIT_S)
        os.close(self.fd)
