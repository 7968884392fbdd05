"""What the commands have in common: exit codes, options, and how a trouble is told."""

from __future__ import annotations

import argparse
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from socklab import BACKENDS
from socklab.errors import UserError

if TYPE_CHECKING:
    from socklab.backends import Backend

OK, FAILED, USAGE, BROKEN, INTERRUPTED = 0, 1, 2, 3, 130


class Usage(UserError):
    """Options that do not go together; the message says which would."""


def lab_options(parser: argparse.ArgumentParser, on: str = "") -> None:
    """`on`: the backend, where a command has one of its own unless another is asked for."""
    parser.add_argument(
        "--on",
        type=backend,
        metavar="|".join(BACKENDS),
        default=on or os.environ.get("SOCKLAB_ON", "auto"),
        help=f"the backend (default: {on or '$SOCKLAB_ON, or netns where it works, else process'})",
    )
    parser.add_argument(
        "--compose",
        type=Path,
        metavar="FILE",
        help="the compose file (default: found beside the scenario or above it, else the one that socklab brings)",
    )
    parser.add_argument(
        "--patience",
        type=number(0.1, 1000, "factor"),
        default=1.0,
        metavar="X",
        help="stretch every limit, for slow machines",
    )


def backend(text: str) -> str:
    if text not in BACKENDS:
        raise argparse.ArgumentTypeError(
            f'"{text}" (from --on or $SOCKLAB_ON) is none of {", ".join(BACKENDS)}'
        )
    return text


def positive(text: str) -> int:
    if not text.isdecimal() or len(text) > 4 or int(text) == 0:
        raise argparse.ArgumentTypeError(f'"{text}" is no number from 1 up')
    return int(text)


def number(least: float, most: float, what: str) -> Callable[[str], float]:
    """Reads a number from `least`, which is more than 0, to `most`; `what` it is, in words."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = 0.0
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f'"{text}" is no {what} from {least:g} to {most:,.0f}')
        return value

    return parse


def names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(set(names)) != len(names):
        raise argparse.ArgumentTypeError(f'"{text}" is no list of names, like alice,bob')
    return names


def runs_option(parser: argparse.ArgumentParser, what: str) -> None:
    """`what` leaves its history there."""
    parser.add_argument(
        "--runs",
        type=Path,
        default=Path("runs"),
        metavar="DIR",
        help=f"where {what} leaves its history (default: runs/)",
    )


def compose_of(arguments: argparse.Namespace, start: Path | None = None) -> Path:
    """The compose file that is named, or else the one of `start` (default: of here). Raises TopologyError."""
    from socklab import topology

    return arguments.compose or topology.find_or_ours(start or Path.cwd())


@asynccontextmanager
async def chosen(on: str, at: tuple[str, int] | None = None) -> AsyncIterator[Backend]:
    """The backend that is named, or the one for a server that runs already `at` an address, until it is not needed any more. Where it is
    not what one may expect, that is said. Raises LabError."""
    from socklab import player, terminal
    from socklab.backends.outside import Outside

    backend, instead = await player.choose(on) if at is None else (Outside(at[0]), "")
    try:
        if instead:
            terminal.error(f"playing on {backend.name}, without network faults: {instead}")
        yield backend
    finally:
        await backend.close()


def told(exc: Exception) -> int:
    """Say what is wrong, where it is the user's fault or the lab's; the exit code for it. Raises what is a defect of ours."""
    from socklab import terminal
    from socklab.backends import LabError

    if not isinstance(exc, UserError | LabError):
        raise exc
    terminal.error(str(exc))
    return USAGE if isinstance(exc, UserError) else BROKEN


def run(work: Coroutine[Any, Any, int]) -> int:
    """asyncio.run(), but Ctrl-C is heard between two callbacks of the loop, and raised when all that was begun has been ended. So are
    SIGTERM, and SIGHUP of a terminal that is closed (not under nohup(1)): they end with 143 and 129, as a shell tells it.

    Python's own way cancels in the middle of whatever runs, so that an answer that is being handed on finds nobody who waits for it.
    A second Ctrl-C does just that: it is for what does not end.
    """
    import asyncio
    import signal

    async def whole() -> int | None:
        loop, here = asyncio.get_running_loop(), asyncio.current_task()
        assert here is not None
        told = 0
        heard = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            heard.append(signal.SIGHUP)

        def interrupt(number: int) -> None:
            nonlocal told
            told = number
            for each in heard:
                loop.remove_signal_handler(each)
            if number == signal.SIGHUP:
                signal.signal(
                    number, signal.SIG_IGN
                )  # it comes twice: from the shell, and from the kernel when that ends
            here.cancel()

        for each in heard:
            loop.add_signal_handler(each, interrupt, each)
        try:
            return await work
        except asyncio.CancelledError:
            if told == signal.SIGINT:
                return None
            if told:
                return 128 + told
            raise

    status = asyncio.run(whole())
    if status is None:
        raise KeyboardInterrupt
    return status
