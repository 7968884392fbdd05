"""The commands that judge: `check`, `grade` and `explore` servers which a user brings, `compare` those of the compose file."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from socklab.cli.common import BROKEN, FAILED, OK, Usage, chosen, compose_of, lab_options, positive, run

COMMANDS = ("check", "grade", "explore", "play", "bench")
"""Those that take a program behind `--`."""
ALLOWED = "--i-may-test-this-host"


def add_parsers(commands: Any) -> None:
    check = commands.add_parser(
        "check",
        help="judge a server of your own, in any language",
        description=_check.__doc__,
        usage="socklab check CONTRACT [options] -- COMMAND {host} {port}\n"
        "       socklab check CONTRACT [options] --image IMAGE [-- COMMAND {host} {port}]\n"
        "       socklab check CONTRACT [options] --address HOST:PORT",
    )
    contract_options(check)
    check.add_argument("--address", metavar="HOST:PORT", help="a server that runs already")
    check.add_argument(
        ALLOWED,
        dest="allowed",
        action="store_true",
        help="the address is on another machine, and its owner agrees; only small scenarios are played",
    )
    check.add_argument("--image", metavar="IMAGE", help="a container image (--on docker)")
    check.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="only this category, like framing or bad-input, or this scenario; may be said again",
    )
    check.add_argument("--json", type=Path, metavar="FILE", help="leave the report in this file, as JSON")
    check.add_argument("--junit", type=Path, metavar="FILE", help="leave it as JUnit XML")
    check.add_argument("-v", "--verbose", action="store_true", help="tell also what passed")
    run_options(check)
    lab_options(check)
    check.set_defaults(run=_check)

    grade = commands.add_parser(
        "grade",
        help="judge a folder of submissions: a report for each, and a table",
        description=_grade.__doc__,
        usage="socklab grade CONTRACT FOLDER [options] [-- COMMAND {host} {port}]",
    )
    contract_options(grade)
    grade.add_argument(
        "folder", type=Path, metavar="FOLDER", help="a folder or a file in it for each submission"
    )
    grade.add_argument(
        "--rubric",
        type=Path,
        metavar="FILE",
        help="what starts them, what counts how much, further scenarios",
    )
    grade.add_argument(
        "--out",
        type=Path,
        default=Path("grades"),
        metavar="DIR",
        help="where reports are kept, and what was graded before is found (default: grades/)",
    )
    grade.add_argument("--csv", type=Path, metavar="FILE", help="the table (default: grades.csv in --out)")
    grade.add_argument("--junit", type=Path, metavar="FILE", help="the table as JUnit XML")
    grade.add_argument(
        "--classroom", action="store_true", help="also a classroom.json for each, for GitHub Classroom"
    )
    grade.add_argument(
        "--side-by-side", type=positive, default=4, metavar="N", help="submissions at once (default: 4)"
    )
    grade.add_argument("--again", action="store_true", help="also what was graded before and has not changed")
    grade.add_argument(
        "--seed", type=int, default=1, metavar="N", help="what chance does to packets (default: 1)"
    )
    lab_options(grade)
    grade.set_defaults(run=_grade, address=None, image=None)

    compare = commands.add_parser(
        "compare", help="echo servers of different architectures side by side", description=_compare.__doc__
    )
    compare.add_argument(
        "services",
        nargs="*",
        metavar="SERVICE",
        help="services of the compose file (default: our five ways to echo)",
    )
    compare.add_argument("--json", type=Path, metavar="FILE", help="leave the figures in this file")
    compare.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw them: .svg, .png or .pdf (needs matplotlib)"
    )
    lab_options(compare)
    compare.set_defaults(run=_compare)

    explore = commands.add_parser(
        "explore",
        help="random histories with faults at a server of your own; what fails becomes a small scenario",
        description=_explore.__doc__,
        usage="socklab explore CONTRACT [options] -- COMMAND {host} {port}",
    )
    contract_options(explore)
    explore.add_argument(
        "--histories", type=positive, default=400, metavar="N", help="so many at most (default: 400)"
    )
    explore.add_argument(
        "--for",
        dest="seconds",
        type=_seconds,
        default=60.0,
        metavar="TIME",
        help="for so long at most, like 30s or 10m (default: 60s)",
    )
    explore.add_argument(
        "--all", dest="more", action="store_true", help="go on when one fails, to find other failures"
    )
    explore.add_argument(
        "--out",
        type=Path,
        default=Path("."),
        metavar="DIR",
        help="where what is found is written (default: here)",
    )
    run_options(explore)
    lab_options(explore)
    explore.set_defaults(run=_explore, address=None, image=None, allowed=False)


def contract_options(parser: argparse.ArgumentParser) -> None:
    from socklab.contracts import CONTRACTS

    parser.add_argument("contract", choices=tuple(CONTRACTS), metavar="CONTRACT", help=", ".join(CONTRACTS))
    parser.add_argument(
        "--port",
        type=port,
        metavar="N",
        help="the port that the server listens on, where it is not told one ({port} or $PORT)",
    )
    parser.add_argument(
        "--iterative", action="store_true", help="an echo server that serves one client at a time"
    )
    parser.add_argument(
        "--loopback",
        action="store_true",
        help="the server binds 127.0.0.1: its clients live on its own host, and no link can be at fault",
    )
    parser.add_argument(
        "--dialect",
        action="append",
        default=[],
        metavar="FILE|KEY=VALUE",
        help="how the server deviates from the contract's words: quit=/exit, echo=off, join={name}, ignore=REGEX, ending=crlf, frames=u32be",
    )


def run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--jobs",
        type=positive,
        metavar="N",
        help="so many plays at once (default: four for each core, on Docker three)",
    )
    parser.add_argument(
        "--seed", type=int, default=1, metavar="N", help="what chance does to packets (default: 1)"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help=argparse.SUPPRESS)
    parser.add_argument("--no-runs", action="store_true", help="leave nothing on disk")


def _seconds(text: str) -> float:
    found = re.fullmatch(r"([0-9]{1,6})(s|m|h)", text)
    if not found or int(found[1]) == 0:
        raise argparse.ArgumentTypeError(f'"{text}" is no time, like 30s, 10m or 2h')
    return int(found[1]) * {"s": 1.0, "m": 60.0, "h": 3600.0}[found[2]]


def port(text: str) -> int:
    from socklab.topology import is_port

    if not is_port(text):
        raise argparse.ArgumentTypeError(f'"{text}" is no port from 1 to 65535')
    return int(text)


def _check(arguments: argparse.Namespace) -> int:
    """Judge a server: start it ({host} and {port}, or $HOST and $PORT, say where it is to listen), play what its contract asks, and
    say what is wrong, and why. Exit code: 0 it keeps the contract, 1 it does not, 2 usage, 3 it could not be judged."""
    return run(_checked(arguments))


def _explore(arguments: argparse.Namespace) -> int:
    """Play random histories at a server, with clients that join, talk, stall, leave and die, and with cut links where the backend has
    them, against a model of the contract. What fails is played again, made small, and written as a scenario. Exit code: 0 nothing
    found, 1 a failure, 2 usage, 3 it could not be judged."""
    return run(_explored(arguments))


def _grade(arguments: argparse.Namespace) -> int:
    """Judge each submission of a folder in a cell of its own, where it sees neither the others nor the grades, and leave a report for
    each and a table. What was graded before and has not changed is not graded again. Exit code: 0 all were graded, 2 usage, 3 some
    could not be."""
    return run(_graded(arguments))


def _compare(arguments: argparse.Namespace) -> int:
    """Play the same clients at several echo servers: how long one waits behind a silent client, and behind one that does not read, how
    many are served at once, and what the server holds for each: threads, processes, descriptors, memory."""
    return run(_compared(arguments))


async def _checked(arguments: argparse.Namespace) -> int:
    from socklab.check import UnknownName

    order = replace(order_of(arguments), only=tuple(arguments.only))
    try:
        order.check_only()
    except UnknownName as exc:
        raise Usage(str(exc)) from None
    with tempfile.TemporaryDirectory(prefix="socklab-check-") as folder:
        if arguments.image is not None:
            if arguments.on not in ("auto", "docker"):
                raise Usage(f"an image is started by Docker, not on {arguments.on}: leave --on out")
            arguments.on = "docker"
            order = order.in_image(arguments.image, Path(folder))
        return await _checked_as(order, arguments)


async def _checked_as(order: Any, arguments: argparse.Namespace) -> int:
    from socklab import check, report, terminal
    from socklab.verdict import exit_code

    if order.guest.at is not None:
        await _may_be_tested(order, arguments)
    elif arguments.on == "docker" and not order.image:
        raise Usage(
            "on Docker a program runs in an image: name one with --image, like --image python:3.13-slim"
        )
    status = terminal.Status()
    try:
        async with chosen(arguments.on, order.guest.at) as backend:
            done = await check.check(order, backend, options_of(arguments), arguments.jobs, status.tell)
    finally:
        status.close()
    print(*terminal.report(done, terminal.coloured(sys.stdout), arguments.verbose), sep="\n")
    for path, text in ((arguments.json, report.as_json(done)), (arguments.junit, report.junit([done]))):
        if path is not None and not written(path, text):
            return BROKEN
    return exit_code(done.verdicts())


async def _graded(arguments: argparse.Namespace) -> int:
    from socklab import check, grade, player, report, rubric, terminal
    from socklab.contracts import CONTRACTS
    from socklab.dialect import read as read_dialect

    rules = rubric.read(arguments.rubric) if arguments.rubric else rubric.Rubric()
    if arguments.port is not None:
        rules = replace(rules, port=arguments.port)
    if arguments.dialect:
        rules = replace(rules, dialect=read_dialect(arguments.dialect))
    if not arguments.program and not rules.start:
        raise Usage(
            f"how is a submission started? Say it behind --: socklab grade {arguments.contract} {arguments.folder} -- python3 server.py {{port}}, or as start: in a rubric"
        )
    submissions = grade.find(arguments.folder)
    backend, instead = await player.choose(arguments.on)
    try:
        if instead:
            raise Usage(
                f"submissions are kept apart from one another by network namespaces, and here {instead}; where you trust them all: --on process"
            )
        options = options_of(arguments)
        grader = grade.Grader(
            CONTRACTS[arguments.contract], arguments.folder, arguments.out, rules, backend, options, arguments.program, arguments.iterative, arguments.loopback
        )  # fmt: skip
        names = sorted({report.name_of(a.plays[0]) for a in check.asked(grader.order_of_none())})
        if arguments.rubric:
            rubric.check_names(arguments.rubric, names)
            for message in grader.unheeded():
                terminal.error(message)
        bar = terminal.Progress(len(submissions), "graded")
        graded = await grader.grade(
            submissions, arguments.side_by_side, arguments.again, lambda one: bar.step(one.name)
        )
        bar.close()
    finally:
        await backend.close()
    for one in graded:
        print(
            terminal.graded_line(
                one.name, one.points, one.possible, grade.verdict_of(one), grade.causes_of(one, 1)
            )
        )
        if arguments.classroom and not written(
            arguments.out / one.name / "classroom.json",
            json.dumps(grade.classroom(one.data), indent=1) + "\n",
        ):
            return BROKEN
    path = arguments.csv or arguments.out / "grades.csv"
    if not written(path, grade.table(graded)):
        return BROKEN
    if arguments.junit and not written(arguments.junit, grade.junit(graded)):
        return BROKEN
    kept = sum(one.kept for one in graded)
    print(f"{len(graded)} submissions{f', {kept} graded before' if kept else ''}: {path}")
    return BROKEN if any(one.data.get("broken") for one in graded) else OK


async def _compared(arguments: argparse.Namespace) -> int:
    from socklab import compare, player, terminal, topology

    if arguments.plot and importlib.util.find_spec("matplotlib") is None:
        raise Usage("--plot needs matplotlib: pip install 'socklab[plot]'")
    where = topology.read(compose_of(arguments))
    services = arguments.services or [name for name in compare.SERVICES if name in where.services]
    if not services:
        raise Usage(f"{where.path}: has none of {', '.join(compare.SERVICES)}; name the services to compare")
    backend, _ = await player.choose(arguments.on)
    try:
        rows = await compare.compare(services, where, backend, options_of(arguments))
    finally:
        await backend.close()
    print(*terminal.columns(compare.table(rows)), sep="\n")
    if arguments.json and not written(arguments.json, json.dumps(compare.as_data(rows), indent=1) + "\n"):
        return BROKEN
    if arguments.plot:
        try:
            compare.plot(rows, arguments.plot)
        except (OSError, ValueError) as exc:
            raise Usage(f"{arguments.plot}: {exc}") from None
    return OK


async def _explored(arguments: argparse.Namespace) -> int:
    from socklab import explore, terminal

    order = order_of(arguments)
    status = terminal.Status()
    try:
        async with chosen(arguments.on) as backend:
            words = f"{arguments.contract} --seed {arguments.seed} --on {backend.name} -- {' '.join(order.command)}"
            explorer = explore.Explorer(order, backend, options_of(arguments), arguments.seed, words)
            done = await explorer.explore(
                arguments.histories, arguments.seconds, arguments.jobs, arguments.more, status.tell
            )
    finally:
        status.close()
    colour = terminal.coloured(sys.stdout)
    for number, found in enumerate(done.found, 1):
        path = _free(arguments.out, f"{arguments.contract}-seed{arguments.seed}", number)
        if not written(path, found.text):
            return BROKEN
        print(*terminal.found(found, path, colour), sep="\n")
    print(terminal.explored(done.played, done.once, len(done.found), done.seconds))
    return FAILED if done.found else OK


def _free(folder: Path, stem: str, number: int) -> Path:
    """A file that is not there yet."""
    while (path := folder / f"{stem}-{number}.scenario.yaml").exists():
        number += 1
    return path


async def _may_be_tested(order: Any, arguments: argparse.Namespace) -> None:
    from socklab import check

    host = order.guest.at[0]
    if not check.is_local(host) and not arguments.allowed:
        raise Usage(
            f"{host} is another machine: only test what is yours, or what you were asked to test, and then say {ALLOWED}"
        )
    if order.contract.protocol == "tcp":
        await check.answers(order.guest.at, 5.0 * arguments.patience)


def order_of(arguments: argparse.Namespace) -> Any:
    """What is to be judged, as the options say it. Raises Usage, ScenarioError and LabError."""
    from socklab import check, dialect
    from socklab.contracts import CONTRACTS
    from socklab.guest import Guest

    contract = CONTRACTS[arguments.contract]
    command: Sequence[str] = arguments.program
    if arguments.iterative and contract.name != "echo":
        raise Usage(f"--iterative is a way to echo; {contract.name} knows no such server")
    if arguments.address is not None and command:
        raise Usage("either --address of a server that runs already, or a command that starts one")
    if arguments.address is None and not command and arguments.image is None:
        raise Usage(
            f"what server? Name a command: socklab check {contract.name} -- ./my-server {{port}}, or --image, or --address"
        )
    if command and not command[0]:
        raise Usage("the command behind -- begins with nothing; is a variable empty?")
    at = check.resolve(arguments.address) if arguments.address else None
    guest = Guest(
        folder=Path.cwd(),
        dialect=dialect.read(arguments.dialect),
        at=at,
        fixed=arguments.port is not None,
        loopback=arguments.loopback,
    )
    return check.Order(
        contract=contract,
        guest=guest,
        command=_found(tuple(command)),
        port=at[1] if at else arguments.port,
        iterative=arguments.iterative,
    )


def _found(command: tuple[str, ...]) -> tuple[str, ...]:
    """With `./` before a program that lies here, where PATH has none of this name."""
    import shutil

    if command and "/" not in command[0] and shutil.which(command[0]) is None and os.path.isfile(command[0]):
        return (f"./{command[0]}", *command[1:])
    return command


def options_of(arguments: argparse.Namespace) -> Any:
    from socklab.conductor import Options

    return Options(
        patience=arguments.patience,
        seed=getattr(arguments, "seed", 1),
        runs=None if getattr(arguments, "no_runs", True) else arguments.runs,
    )


def written(path: Path, text: str) -> bool:
    """Leave a text in a file; say so where that fails."""
    from socklab import terminal

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as exc:
        terminal.error(f"{path}: {exc.strerror}; name another file")
        return False
    return True
