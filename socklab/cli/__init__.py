"""The command line. Thin: what it does is done elsewhere. Here: `play`, `new`, `init`, `completion`, `schema`, `talk`, `doctor`.

What a command needs is imported when it runs, so that `--help` answers at once. What a user did wrong, and what the lab could not do, is
raised, and told in one place: `main`.
"""

from __future__ import annotations

import argparse
import errno
import io
import os
import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import aclosing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from socklab import __version__
from socklab.cli import bench, judging, seeing, standing
from socklab.cli.common import (
    BROKEN,
    INTERRUPTED,
    OK,
    USAGE,
    chosen,
    compose_of,
    lab_options,
    positive,
    run,
    runs_option,
    told,
)
from socklab.contracts import CONTRACTS

if TYPE_CHECKING:
    from socklab.screen import Screen

PLATFORMS = ("github-classroom", "gitlab", "gradescope", "devcontainer")
SHELLS = ("bash", "zsh", "fish")
_WAYS_OUT = {
    errno.ENOSPC: "; make room where the output goes, and under $TMPDIR",
    errno.EMFILE: "; allow more descriptors with ulimit -n, or play less at once with --jobs",
}


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
        "play",
        help="play scenarios and say what came of them",
        description=_play.__doc__,
        usage="socklab play [options] [PATH ...] [-- COMMAND {host} {port}]",
    )
    play.add_argument(
        "paths", nargs="*", type=Path, metavar="PATH", help="files or folders (default: scenarios/)"
    )
    lab_options(play)
    play.add_argument(
        "--port",
        type=judging.port,
        metavar="N",
        help="with a program of your own: the port that it listens on, if it is not told one",
    )
    play.add_argument("--explain", action="store_true", help="say what each step will do, and play nothing")
    play.add_argument("--service", metavar="NAME", help="only the plays with this service under test")
    play.add_argument(
        "--jobs",
        type=positive,
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
    runs_option(play, "each run")
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
    play.add_argument(
        "--json", action="store_true", help="all verdicts as JSON on standard output, and nothing else there"
    )
    play.set_defaults(run=_play)

    seeing.add_parsers(commands)

    new = commands.add_parser("new", help="begin a scenario of your own", description=_new.__doc__)
    new.add_argument("path", type=Path, metavar="FILE", help="where, like scenarios/chat/my-idea.yaml")
    new.add_argument(
        "--contract",
        choices=tuple(CONTRACTS),
        default="chat",
        metavar="CONTRACT",
        help="chat (default), echo, udp-echo or registry",
    )
    new.set_defaults(run=_new)

    init = commands.add_parser(
        "init",
        help="make a lab for a server of your own, or what a platform needs to grade it",
        description=_init.__doc__,
    )
    init.add_argument(
        "folder", nargs="?", type=Path, default=Path("."), metavar="DIR", help="where (default: here)"
    )
    init.add_argument(
        "--contract",
        choices=tuple(CONTRACTS),
        default="chat",
        metavar="CONTRACT",
        help="what the server is to be: chat (default), echo, udp-echo or registry",
    )
    kinds = init.add_mutually_exclusive_group()
    kinds.add_argument(
        "--for",
        dest="platform",
        choices=PLATFORMS,
        metavar="PLATFORM",
        help=f"add what a platform takes: {', '.join(PLATFORMS)}",
    )
    kinds.add_argument(
        "--whole",
        action="store_true",
        help="a copy of the whole lab instead: servers, clients, scenarios, documents, engine",
    )
    kinds.add_argument(
        "--lesson",
        type=positive,
        metavar="N",
        help="the exercise of lesson N of the course instead: a server with gaps, to be filled in",
    )
    init.set_defaults(run=_init)

    completion = commands.add_parser(
        "completion", help="completion for your shell's TAB key", description=_completion.__doc__
    )
    completion.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))
    completion.set_defaults(run=_completion)

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
    lab_options(talk)
    talk.set_defaults(run=_talk)

    standing.add_parsers(commands)
    judging.add_parsers(commands)
    bench.add_parsers(commands)

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


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0 passed, 1 a server failed, 2 usage or an invalid scenario, 3 the lab broke, 130 Ctrl-C."""
    words = list(sys.argv[1:] if argv is None else argv)
    program: list[str] = []
    if words[:1] and words[0] in judging.COMMANDS and "--" in words:
        at = words.index("--")
        words, program = words[:at], words[at + 1 :]
    _open_standard_streams()
    try:
        try:
            return _ordered(words, program)
        finally:
            sys.stdout.flush()  # what cannot be written is told here, not by the interpreter as it ends
    except KeyboardInterrupt:
        print("\ninterrupted; everything that was started has been ended", file=sys.stderr)
        return INTERRUPTED
    except OSError as exc:
        return _broken_by(exc)
    except Exception as exc:
        return told(exc)


def _broken_by(exc: OSError) -> int:
    """Say what the system refused: a full disk behind `>`, say. Of a broken pipe there is nobody to tell: whoever read our output has
    gone (`socklab play | head`)."""
    from socklab import terminal

    if not isinstance(exc, BrokenPipeError):
        where = f"{exc.filename}: " if exc.filename else "could not go on: "
        terminal.error(f"{where}{exc.strerror or exc}{_WAYS_OUT.get(exc.errno or 0, '')}")
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # nor shall the interpreter try it again
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return BROKEN


def _open_standard_streams() -> None:
    """What the caller has closed (`>&-`) leads nowhere; else the next file or socket to be opened would be our standard output. What a
    terminal's encoding does not have, such as an arrow or the bytes of a file's name, comes as an escape."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def _ordered(words: Sequence[str], program: Sequence[str]) -> int:
    parser = _parser()
    if "_ARGCOMPLETE" in os.environ:
        from socklab import completion

        completion.answer(parser)
    arguments, unknown = parser.parse_known_args(words)
    if unknown:
        which = f"{parser.prog} {arguments.command}"
        behind = arguments.command in judging.COMMANDS and not program and not unknown[0].startswith("-")
        way = "the command that starts a server stands behind --" if behind else f"see {which} --help"
        parser.exit(USAGE, f"{which}: unrecognized arguments: {' '.join(unknown)}; {way}\n")
    arguments.program = tuple(program)
    return int(arguments.run(arguments))


def _play(arguments: argparse.Namespace) -> int:
    """Play scenarios at the servers of the compose file, or at a program of your own in the place of the one under test. Exit code: 0 all passed, 1 a server failed, 2 an invalid scenario, 3 the lab broke or nothing could be played."""
    from socklab import explain, player, terminal

    files = player.find(arguments.paths or [Path("scenarios")])
    if arguments.program:
        selection = player.select_for_guest(files, arguments.program, arguments.port, arguments.service)
    else:
        selection = player.select(files, arguments.compose, arguments.service)
    for message in selection.errors:
        terminal.error(message)
    if not selection.scenarios:
        if not selection.errors:
            terminal.error(f'no play with the service "{arguments.service}" under test in these files')
        return USAGE
    if arguments.explain:
        first = {scenario.path: scenario for scenario, _ in reversed(selection.scenarios)}
        for scenario in reversed(first.values()):
            print(*explain.scenario(scenario), sep="\n")
        return USAGE if selection.errors else OK
    return run(_play_selected(arguments, selection))


async def _play_selected(arguments: argparse.Namespace, selection: Any) -> int:
    from socklab import player, terminal
    from socklab.conductor import Options
    from socklab.verdict import Verdict, as_json, exit_code

    began = time.monotonic()
    colour = terminal.coloured(sys.stdout)
    results = []
    async with chosen(arguments.on) as backend:
        options = Options(
            patience=arguments.patience,
            seed=arguments.seed,
            ipv6=arguments.ipv6,
            runs=None if arguments.no_runs else arguments.runs,
            capture=not arguments.no_capture,
        )
        story = arguments.verbose or (len(selection.scenarios) == 1 and not arguments.quiet)
        screen = None if arguments.quiet or arguments.json else _screen()
        plays = player.play_all(
            selection.scenarios, backend, options, arguments.jobs, screen.watch if screen else None
        )
        async with screen or nullcontext(), aclosing(plays):
            async for result in plays:
                results.append(result)
                if arguments.json or (arguments.quiet and result.verdict in (Verdict.PASS, Verdict.SKIP)):
                    continue
                tell = terminal.tell if screen is None else screen.print
                if story:
                    tell(terminal.story(result, colour, whole=arguments.verbose))
                tell(terminal.result_lines(result, colour))
    if arguments.json:
        print(as_json(results), end="")
    else:
        if screen is not None:
            print(*terminal.by_folder(results), sep="\n")
        seconds = time.monotonic() - began
        print(terminal.summary(results, len(selection.errors), backend.name, seconds, colour))
        if (
            not story
            and not arguments.quiet
            and len({scenario.path for scenario, _ in selection.scenarios}) == 1
        ):
            several = len({scenario.service for scenario, _ in selection.scenarios}) > 1
            print(f"-v tells the story of each{', --service NAME that of one' if several else ''}")
    if arguments.results is not None:
        try:
            arguments.results.parent.mkdir(parents=True, exist_ok=True)
            arguments.results.write_text(as_json(results))
        except OSError as exc:
            terminal.error(f"{arguments.results}: {exc.strerror}; name another file with --results")
            return BROKEN
    return exit_code((r.verdict for r in results), invalid=bool(selection.errors))


def _screen() -> Screen | None:
    """What can be drawn on; None where there are to be plain lines."""
    from socklab import terminal

    if not terminal.animated(sys.stdout):
        return None
    try:
        from socklab.screen import Screen
    except ImportError:
        return None  # rich is not here
    return Screen()


def _new(arguments: argparse.Namespace) -> int:
    """Begin a scenario: a file that plays as it is, to be changed into what you want to know."""
    from socklab import scaffold

    path = scaffold.write(arguments.path, arguments.contract)
    print(f"{path}: play it with socklab play {path}")
    return OK


def _init(arguments: argparse.Namespace) -> int:
    """Make a lab: a server to fill in, a compose file, a first scenario, settings for editors and CI. It plays at once, and says what is
    to be done next. With --for, what a platform needs is added to a folder. Nothing that is there is overwritten."""
    from socklab import places, scaffold

    folder, contract = arguments.folder, arguments.contract
    if arguments.whole:
        files = scaffold.whole(folder)
    elif arguments.lesson:
        files = scaffold.exercise(folder, arguments.lesson)
    elif arguments.platform:
        files = scaffold.platform(folder, arguments.platform, contract)
    else:
        files = scaffold.lab(folder, contract)
    print(*(folder / name for name in files), sep="\n")
    enter = "" if folder == Path(".") else f"cd {shlex.quote(str(folder))} && "
    if arguments.whole:
        print(f"next: {enter}socklab play")
    elif arguments.lesson:
        print("next: the first lines of server.py say what is to be done, and how it is judged")
    elif arguments.platform:
        print(
            f"next: the comments in these files say what runs where, {places.TEACHERS} how it is handed out"
        )
    else:
        print(f"next: {enter}socklab play    says what server.py does not do yet")
        print(f"then: socklab check {contract} -- python3 server.py --host {{host}} --port {{port}}")
    return OK


def _completion(arguments: argparse.Namespace) -> int:
    """Print what makes your shell complete commands, options, services and scenarios. bash: add eval "$(socklab completion bash)" to
    ~/.bashrc; zsh: the same with zsh to ~/.zshrc, behind compinit; fish: socklab completion fish > ~/.config/fish/completions/socklab.fish"""
    from socklab import completion

    print(completion.code(arguments.shell))
    return OK


def _schema(arguments: argparse.Namespace) -> int:
    """Print the JSON Schema of scenario files; an editor with a YAML language server completes and checks with it."""
    import json

    from socklab.language import json_schema

    print(json.dumps(json_schema(), indent=2))
    return OK


def _doctor(arguments: argparse.Namespace) -> int:
    """What this machine can do, and the fix for what it cannot. Found out by doing it."""
    from socklab import doctor

    return run(doctor.examine(arguments.measure))


def _talk(arguments: argparse.Namespace) -> int:
    """Talk to a server: the keyboard in one thread, what arrives in another. A SERVICE is started on a node of its own."""
    from socklab import talk

    if arguments.who is not None:
        return talk.as_client(arguments.target, arguments.who, compose_of(arguments))
    if ":" in arguments.target:
        return talk.to_address(
            arguments.target, udp=arguments.udp or arguments.registry, register=arguments.registry
        )
    return run(talk.to_service(arguments.target, arguments.on, arguments.compose, arguments.patience))
