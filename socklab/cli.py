"""The command line: `socklab play`, `show`, `schema`, `talk`, `down`, `doctor`. Thin: what it does is done elsewhere.

What a command needs is imported when it runs, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from socklab import BACKENDS, __version__

OK, FAILED, USAGE, BROKEN, INTERRUPTED = 0, 1, 2, 3, 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        """One line and the way out, without the whole usage."""
        self.exit(USAGE, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="socklab",
        description="A lab bench for socket servers: play scenarios, cut the network, see who heard what.",
    )
    parser.add_argument("--version", action="version", version=f"socklab {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)

    play = commands.add_parser(
        "play", help="play scenarios and say what came of them", description=_play.__doc__
    )
    play.add_argument(
        "paths", nargs="*", type=Path, metavar="PATH", help="files or folders (default: scenarios/)"
    )
    _lab_options(play)
    play.add_argument("--service", metavar="NAME", help="only the plays with this service under test")
    play.add_argument(
        "--jobs", type=_positive, metavar="N", help="so many plays at once (default: four for each core)"
    )
    play.add_argument(
        "--seed",
        type=int,
        default=1,
        metavar="N",
        help="what chance does to packets: the same seed, the same fates (default: 1)",
    )
    play.add_argument(
        "--runs",
        type=Path,
        default=Path("runs"),
        metavar="DIR",
        help="where each run leaves its history (default: runs/)",
    )
    play.add_argument("--no-capture", action="store_true", help="leave no packets beside the histories")
    play.add_argument("--results", type=Path, metavar="FILE", help="leave all verdicts in this file, as JSON")
    play.add_argument("--no-runs", action="store_true", help="leave nothing on disk")
    play.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="tell the whole story of each play, not only of a single one",
    )
    play.add_argument("-q", "--quiet", action="store_true", help="only failures and the summary")
    play.set_defaults(run=_play)

    show = commands.add_parser("show", help="tell a recorded run again", description=_show.__doc__)
    show.add_argument(
        "folder", nargs="?", type=Path, metavar="RUN", help="a folder under runs/ (default: the newest)"
    )
    show.set_defaults(run=_show)

    schema = commands.add_parser(
        "schema", help="print the JSON Schema of scenario files", description=_schema.__doc__
    )
    schema.set_defaults(run=_schema)

    talk = commands.add_parser("talk", help="talk to a server yourself", description=_talk.__doc__)
    talk.add_argument(
        "target",
        metavar="HOST:PORT | SERVICE",
        help="a server that runs, or a service of the compose file, which is started",
    )
    talk.add_argument("--udp", action="store_true", help="HOST:PORT speaks UDP")
    talk.add_argument(
        "--registry",
        action="store_true",
        help="HOST:PORT is a UDP registry: say #REG first and #DEREG at the end",
    )
    _lab_options(talk)
    talk.set_defaults(run=_talk)

    down = commands.add_parser(
        "down", help="remove what killed plays left in Docker", description=_down.__doc__
    )
    down.set_defaults(run=_down)

    doctor = commands.add_parser(
        "doctor", help="what this machine can do, and the fix for what it cannot", description=_doctor.__doc__
    )
    doctor.add_argument(
        "--measure",
        action="store_true",
        help="also measure every link fault, and every two at once, by packets counted at both ends (15 s)",
    )
    doctor.set_defaults(run=_doctor)
    return parser


def _lab_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--on",
        type=_backend,
        metavar="|".join(BACKENDS),
        default=os.environ.get("SOCKLAB_ON", "auto"),
        help="the backend (default: $SOCKLAB_ON, or netns where it works, else process)",
    )
    parser.add_argument(
        "--compose",
        type=Path,
        metavar="FILE",
        help="the compose file (default: found beside the scenario or above it)",
    )
    parser.add_argument(
        "--patience", type=_patience, default=1.0, metavar="X", help="stretch every limit, for slow machines"
    )


def _backend(text: str) -> str:
    if text not in BACKENDS:
        raise argparse.ArgumentTypeError(
            f'"{text}" (from --on or $SOCKLAB_ON) is none of {", ".join(BACKENDS)}'
        )
    return text


def _positive(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) < 10_000:
        raise argparse.ArgumentTypeError(f'"{text}" is no number from 1 up')
    return int(text)


def _patience(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.1 <= value <= 1000:
        raise argparse.ArgumentTypeError(f'"{text}" is no factor from 0.1 to 1000')
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0 passed, 1 a server failed, 2 usage or an invalid scenario, 3 the lab broke, 130 Ctrl-C."""
    try:
        arguments = _parser().parse_args(argv)
        return int(arguments.run(arguments))
    except KeyboardInterrupt:
        print("\ninterrupted; everything that was started has been ended", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone (`socklab play | head`); there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN


def _play(arguments: argparse.Namespace) -> int:
    """Play scenarios. Exit code: 0 all passed, 1 a server failed, 2 an invalid scenario, 3 the lab broke or nothing could be played."""
    from socklab import player, terminal

    try:
        selection = player.select(
            player.find(arguments.paths or [Path("scenarios")]), arguments.compose, arguments.service
        )
    except player.NoSuchPath as exc:
        terminal.error(str(exc))
        return USAGE
    for message in selection.errors:
        terminal.error(message)
    if not selection.scenarios:
        if not selection.errors:
            terminal.error(f'no play with the service "{arguments.service}" under test in these files')
        return USAGE
    import asyncio

    return asyncio.run(_play_selected(arguments, selection))


async def _play_selected(arguments: argparse.Namespace, selection: Any) -> int:
    from socklab import player, terminal
    from socklab.backends import LabError
    from socklab.conductor import Options
    from socklab.verdict import Verdict, as_json, exit_code

    began = time.monotonic()
    colour = terminal.coloured(sys.stdout)
    try:
        backend, instead = await player.choose(arguments.on)
    except LabError as exc:
        terminal.error(str(exc))
        return BROKEN
    results = []
    try:
        if instead:
            terminal.error(f"playing on {backend.name}, without network faults: {instead}")
        options = Options(
            arguments.patience,
            arguments.seed,
            None if arguments.no_runs else arguments.runs,
            not arguments.no_capture,
        )
        story = arguments.verbose or (len(selection.scenarios) == 1 and not arguments.quiet)
        async for result in player.play_all(selection.scenarios, backend, options, arguments.jobs):
            results.append(result)
            if arguments.quiet and result.verdict in (Verdict.PASS, Verdict.SKIP):
                continue
            if story:
                print(*terminal.transcript(result.events, colour), sep="\n")
            print(*terminal.result_lines(result, colour), sep="\n", flush=True)
    finally:
        await backend.close()
    print(terminal.summary(results, len(selection.errors), backend.name, time.monotonic() - began, colour))
    if arguments.results is not None:
        try:
            arguments.results.parent.mkdir(parents=True, exist_ok=True)
            arguments.results.write_text(as_json(results))
        except OSError as exc:
            terminal.error(f"{arguments.results}: {exc.strerror}; name another file with --results")
            return BROKEN
    return exit_code((r.verdict for r in results), invalid=bool(selection.errors))


def _show(arguments: argparse.Namespace) -> int:
    """Tell a recorded run again, from its history.jsonl alone."""
    from socklab import history, terminal

    folder = arguments.folder
    if folder is None:
        runs = sorted(Path("runs").glob("*/history.jsonl"), key=lambda p: p.stat().st_mtime)
        if not runs:
            terminal.error("no run under runs/; play something first, or name a folder")
            return USAGE
        folder = runs[-1].parent
    path = folder / "history.jsonl" if folder.is_dir() else folder
    try:
        events = history.read(path)
    except OSError as exc:
        terminal.error(f"{path}: {exc.strerror}; a run is a folder with a history.jsonl in it")
        return USAGE
    except ValueError as exc:
        terminal.error(f"{exc}; is this a history.jsonl that socklab wrote?")
        return USAGE
    try:
        print(*terminal.transcript(events, terminal.coloured(sys.stdout)), sep="\n")
    except (KeyError, TypeError, AttributeError) as exc:
        terminal.error(f"{path}: an event lacks {exc}; was it written by another version of socklab?")
        return USAGE
    return OK


def _schema(arguments: argparse.Namespace) -> int:
    """Print the JSON Schema of scenario files; an editor with a YAML language server completes and checks with it."""
    import json

    from socklab.language import json_schema

    print(json.dumps(json_schema(), indent=2))
    return OK


def _down(arguments: argparse.Namespace) -> int:
    """Remove the containers, networks and volumes of plays on Docker that were killed. A play that goes on keeps its own."""
    from socklab import terminal
    from socklab.backends import LabError
    from socklab.backends.engine import abandoned, connect, remove, told

    try:
        client = connect()
        count = told(lambda client: remove(client, abandoned(client)), client)
    except LabError as exc:
        terminal.error(str(exc))
        return BROKEN
    print(f"{count} removed" if count else "nothing was left behind")
    return OK


def _doctor(arguments: argparse.Namespace) -> int:
    """What this machine can do, and the fix for what it cannot. Found out by doing it."""
    import asyncio

    from socklab import doctor

    return asyncio.run(doctor.examine(arguments.measure))


def _talk(arguments: argparse.Namespace) -> int:
    """Talk to a server: the keyboard in one thread, what arrives in another. A SERVICE is started on a node of its own."""
    import asyncio

    from socklab import talk, terminal
    from socklab.backends import LabError
    from socklab.topology import TopologyError

    try:
        if ":" in arguments.target:
            return talk.to_address(
                arguments.target, udp=arguments.udp or arguments.registry, register=arguments.registry
            )
        return asyncio.run(
            talk.to_service(arguments.target, arguments.on, arguments.compose, arguments.patience)
        )
    except TopologyError as exc:
        terminal.error(str(exc))
        return USAGE
    except LabError as exc:
        terminal.error(str(exc))
        return BROKEN


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main())
