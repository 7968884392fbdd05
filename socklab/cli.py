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
CLIENTS = ("alice", "bob", "carol")
BY_HAND = {
    "cut": "silence",
    "reject": "packets are refused",
    "drop": "some packets are lost (nth=2 match=hello flags=SYN)",
    "loss": "packets are lost by chance (10%%)",
    "delay": "packets come later (100ms, 100ms+-20ms)",
    "duplicate": "packets come twice (5%%)",
    "reorder": "packets are overtaken by the next one (25%%)",
    "corrupt": "a bit is flipped (1%%)",
    "rate": "a slow link (1Mbit)",
}
"""The link faults of the scenario language that lie between two ends, and what they are."""


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
        "--jobs",
        type=_positive,
        metavar="N",
        help="so many plays at once (default: four for each core, on Docker three)",
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
    play.add_argument(
        "--ipv6", action="store_true", help="clients reach the servers by IPv6 (their --host becomes ::)"
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
    talk.add_argument(
        "--as", dest="who", metavar="NODE", help="as this client of the standing lab (socklab up)"
    )
    _lab_options(talk)
    talk.set_defaults(run=_talk)

    _standing_parsers(commands)

    doctor = commands.add_parser(
        "doctor", help="what this machine can do, and the fix for what it cannot", description=_doctor.__doc__
    )
    doctor.add_argument(
        "--measure",
        action="store_true",
        help="also measure every link fault, and every two at once, by packets counted at both ends (20 s)",
    )
    doctor.set_defaults(run=_doctor)
    return parser


def _standing_parsers(commands: Any) -> None:
    """A lab that stands, and what is done to it."""

    def add(name: str, help_: str, run: Any) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = commands.add_parser(name, help=help_, description=run.__doc__)
        parser.set_defaults(run=run, verb=name)
        return parser

    def compose(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--compose", type=Path, metavar="FILE", help="the compose file of the lab")

    up = add("up", "start a lab that stands, to experiment by hand", _up)
    up.add_argument(
        "services", nargs="*", metavar="SERVICE", help="servers to start (default: all of the compose file)"
    )
    up.add_argument(
        "--clients",
        type=_names,
        default=CLIENTS,
        metavar="NAMES",
        help=f"hosts for clients (default: {','.join(CLIENTS)})",
    )
    _lab_options(up)
    compose(add("status", "nodes, links and the faults in force", _status))
    for verb, about in BY_HAND.items():
        parser = add(verb, f"a link fault: {about}", _fault)
        parser.add_argument(
            "words",
            nargs="+",
            metavar="WORD",
            help="the two ends, what it is, and settings, as in scenarios: alice chat 100ms, alice-chat 10% burst=3",
        )
        parser.add_argument(
            "--one-way", action="store_true", help="only from the first to the second (default: both ways)"
        )
        compose(parser)
    heal = add("heal", "undo link faults: all, of a node, or between two", _heal)
    heal.add_argument("words", nargs="*", metavar="NODE")
    compose(heal)
    restart = add("restart", "start a server of the standing lab again", _restart)
    restart.add_argument("service", metavar="SERVICE")
    compose(restart)
    logs = add("logs", "what a server of the standing lab printed", _logs)
    logs.add_argument("service", metavar="SERVICE")
    compose(logs)
    exec_ = add("exec", "run a program on a node of the standing lab", _exec)
    exec_.add_argument("node", metavar="NODE")
    exec_.add_argument("argv", nargs=argparse.REMAINDER, metavar="COMMAND")
    compose(exec_)
    compose(add("down", "end the standing lab; remove what killed plays left in Docker", _down))


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(set(names)) != len(names):
        raise argparse.ArgumentTypeError(f'"{text}" is no list of names, like alice,bob')
    return names


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
            patience=arguments.patience,
            seed=arguments.seed,
            ipv6=arguments.ipv6,
            runs=None if arguments.no_runs else arguments.runs,
            capture=not arguments.no_capture,
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


def _compose(arguments: argparse.Namespace) -> Path:
    from socklab import topology

    return arguments.compose or topology.find(Path.cwd())


def _asked(arguments: argparse.Namespace, **order: Any) -> int:
    """Have the standing lab do something, and show how it stands then."""
    from socklab import standing, terminal

    try:
        answer = standing.ask(_compose(arguments), order)
    except _troubles() as exc:
        return _told(exc)
    rows = terminal.nodes(answer) if order["do"] in ("status", "restart") else ()
    print(*rows, *terminal.links(answer), sep="\n")
    return OK


def _troubles() -> tuple[type[Exception], ...]:
    from socklab.backends import LabError
    from socklab.standing import Wrong
    from socklab.topology import TopologyError

    return (LabError, Wrong, TopologyError)


def _told(exc: Exception) -> int:
    """Say what is wrong; the exit code for it."""
    from socklab import terminal
    from socklab.backends import LabError
    from socklab.standing import NoLab

    terminal.error(str(exc))
    return BROKEN if isinstance(exc, LabError) and not isinstance(exc, NoLab) else USAGE


def _up(arguments: argparse.Namespace) -> int:
    """Start servers and hosts for clients, and let them stand: look with status, break links with cut, delay, loss, …, mend them with
    heal, be a client with talk --as or exec, and end it with down."""
    from socklab import standing, terminal

    try:
        status = standing.up(
            _compose(arguments), arguments.services, arguments.clients, arguments.on, arguments.patience
        )
    except _troubles() as exc:
        return _told(exc)
    print(*terminal.nodes(status), sep="\n")
    return OK


def _status(arguments: argparse.Namespace) -> int:
    """The nodes of the standing lab, the link faults in force, and what they did to packets so far."""
    return _asked(arguments, do="status")


def _fault(arguments: argparse.Namespace) -> int:
    """Put a fault on a link of the standing lab. What else is on it stays."""
    return _asked(
        arguments, do="fault", verb=arguments.verb, words=arguments.words, one_way=arguments.one_way
    )


def _heal(arguments: argparse.Namespace) -> int:
    """Undo link faults of the standing lab: all of them, those of one node, or those between two."""
    return _asked(arguments, do="heal", words=arguments.words)


def _restart(arguments: argparse.Namespace) -> int:
    """End a server of the standing lab if it runs, and start it again on its address."""
    return _asked(arguments, do="restart", service=arguments.service)


def _logs(arguments: argparse.Namespace) -> int:
    """The last lines that a server of the standing lab printed."""
    from socklab import standing, terminal

    try:
        answer = standing.ask(_compose(arguments), {"do": "logs", "service": arguments.service})
    except _troubles() as exc:
        return _told(exc)
    for line in answer["lines"]:
        print(terminal.safe(line))
    return OK


def _exec(arguments: argparse.Namespace) -> int:
    """Run a program inside the network of a node of the standing lab, at this terminal: ping, nc, python, a shell."""
    from socklab import standing

    argv = arguments.argv[1:] if arguments.argv[:1] == ["--"] else arguments.argv
    try:
        if not argv:
            raise standing.Wrong("exec needs a command: socklab exec alice ping chat")
        return standing.execute(_compose(arguments), arguments.node, argv)
    except _troubles() as exc:
        return _told(exc)


def _down(arguments: argparse.Namespace) -> int:
    """End the standing lab of this folder, and remove the containers, networks and volumes of plays on Docker that were killed."""
    from socklab import standing
    from socklab.topology import TopologyError

    ended = False
    try:
        compose = _compose(arguments)
        standing.ask(compose, {"do": "down"})
        standing.wait_down(compose)
        ended = True
    except (standing.NoLab, TopologyError):
        pass  # none stands
    except _troubles() as exc:
        return _told(exc)
    count = _left_in_docker()
    if ended:
        print("the lab is down")
    if count:
        print(f"{count} removed from Docker")
    if not ended and not count:
        print("nothing was left behind")
    return OK


def _left_in_docker() -> int:
    """How many things of killed plays were removed; without an engine there are none."""
    from socklab.backends import LabError

    try:
        from socklab.backends.engine import abandoned, connect, remove, told

        client = connect()
        return int(told(lambda client: remove(client, abandoned(client)), client))
    except (ImportError, LabError):
        return 0


def _doctor(arguments: argparse.Namespace) -> int:
    """What this machine can do, and the fix for what it cannot. Found out by doing it."""
    import asyncio

    from socklab import doctor

    return asyncio.run(doctor.examine(arguments.measure))


def _talk(arguments: argparse.Namespace) -> int:
    """Talk to a server: the keyboard in one thread, what arrives in another. A SERVICE is started on a node of its own."""
    import asyncio

    from socklab import talk

    try:
        if arguments.who is not None:
            return talk.as_client(arguments.target, arguments.who, _compose(arguments))
        if ":" in arguments.target:
            return talk.to_address(
                arguments.target, udp=arguments.udp or arguments.registry, register=arguments.registry
            )
        return asyncio.run(
            talk.to_service(arguments.target, arguments.on, arguments.compose, arguments.patience)
        )
    except _troubles() as exc:
        return _told(exc)


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main())
