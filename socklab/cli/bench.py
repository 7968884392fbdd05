"""`socklab bench`: servers under a defined load, side by side."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import resource
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from socklab.cli.common import (
    BROKEN,
    FAILED,
    OK,
    Usage,
    chosen,
    compose_of,
    lab_options,
    number,
    positive,
    run,
)
from socklab.contracts import CONTRACTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from socklab.load import Load, Subject

OURS = {
    "echo": ("threaded", "forking", "eventloop"),
    "chat": ("chat", "chat-eventloop"),
    "udp-echo": ("udp-echo",),
    "registry": ("udp-registry",),
}
SHAPES = {"chat": "1x100,10x100,100x100", "registry": "1x10,1x100"}
CONNECTIONS = {"echo": "1,100,1000", "udp-echo": "1,100"}


def add_parsers(commands: Any) -> None:
    bench = commands.add_parser(
        "bench",
        help="servers under load side by side: throughput, latency, what they cost",
        description=_bench.__doc__,
        usage="socklab bench CONTRACT [SERVICE…] [options] [-- COMMAND {host} {port}]\n"
        "       socklab bench CONTRACT [options] --image IMAGE [-- COMMAND {host} {port}]\n"
        "       socklab bench CONTRACT [options] --address 127.0.0.1:PORT",
    )
    bench.add_argument("contract", choices=list(CONTRACTS), metavar="CONTRACT", help=", ".join(CONTRACTS))
    bench.add_argument(
        "services",
        nargs="*",
        default=(),
        metavar="SERVICE",
        help="of the compose file (default: those of this contract)",
    )
    bench.add_argument("--image", metavar="IMAGE", help="a container image (--on docker)")
    bench.add_argument("--address", metavar="HOST:PORT", help="a server that runs already, on this machine")
    bench.add_argument(
        "--peers", action="store_true", help="also servers of others, where they are installed"
    )
    bench.add_argument(
        "--load",
        choices=("steady", "churn", "idle"),
        default="steady",
        help="steady: messages (default); churn: clients come and go; idle: they only stay",
    )
    bench.add_argument(
        "--clients",
        metavar="N[,N…]",
        help="connections (echo, churn, idle), or SENDERSxRECEIVERS (chat, registry), like 1x100,10x100",
    )
    bench.add_argument(
        "--size",
        type=_numbers(1, 60_000),
        default=[64],
        metavar="BYTES[,…]",
        help="of a message (default: 64)",
    )
    bench.add_argument(
        "--in-flight",
        type=positive,
        default=1,
        metavar="N",
        help="messages that an echo client may be ahead (default: 1)",
    )
    bench.add_argument(
        "--rate",
        type=number(1, 1e7, "number of messages a second"),
        default=0.0,
        metavar="N",
        help="messages a second of all clients together, at their times whatever comes of them: shows latencies (default: as many as can be)",
    )
    bench.add_argument(
        "--seconds",
        type=number(0.1, 3600, "number of seconds"),
        default=2.0,
        metavar="S",
        help="of each measurement (default: 2)",
    )
    bench.add_argument(
        "--rounds", type=positive, default=3, metavar="N", help="measurements of each, in turns (default: 3)"
    )
    bench.add_argument(
        "--agents",
        type=positive,
        default=1,
        metavar="N",
        help="generators, on a processor each (chat and registry: with --rate; default: 1)",
    )
    bench.add_argument(
        "--no-pin", action="store_true", help="leave it to the kernel on which processor who runs"
    )
    bench.add_argument("--json", type=Path, metavar="FILE", help="leave the figures in this file")
    bench.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw them: .svg, .png or .pdf (needs matplotlib)"
    )
    lab_options(bench, on="process")
    bench.set_defaults(run=_bench)


def _numbers(least: int, most: int) -> Any:
    def parse(text: str) -> list[int]:
        parts = text.replace("_", "").split(",")
        if not all(part.isdecimal() and least <= int(part) <= most for part in parts):
            raise argparse.ArgumentTypeError(
                f'"{text}" is no list of numbers from {least} to {most}, like 64,1024'
            )
        return [int(part) for part in parts]

    return parse


def _bench(arguments: argparse.Namespace) -> int:
    """Put servers under a defined load, in turns, and say how much each carried, how late, and what that cost it. Every message is
    checked, not only counted. Exit code: 0 all was delivered as it ought to be, 1 one of the servers lost, doubled or damaged
    something, 2 usage, 3 nothing could be measured."""
    return run(_benched(arguments))


async def _benched(arguments: argparse.Namespace) -> int:
    from socklab import bench, check, terminal

    loads = list(_loads(arguments))
    _check_files(arguments)
    with tempfile.TemporaryDirectory(prefix="socklab-bench-") as folder:
        own = _own(arguments, Path(folder))
        subjects = [*_subjects(arguments, Path(folder)), *([own] if own else [])]
        at = check.resolve(arguments.address) if arguments.address is not None else None
        if at is not None and CONTRACTS[arguments.contract].protocol == "tcp":
            await check.answers(at, 5.0 * arguments.patience)
        done, status = itertools.count(1), terminal.Status()
        whole = len(subjects) * len(loads) * arguments.rounds

        def progress(measured: Any) -> None:
            status.tell(f"{next(done)}/{whole} {measured.load.name} {measured.subject}")

        try:
            async with chosen("docker" if arguments.image else arguments.on, at) as backend:
                rows = await bench.compare(
                    subjects,
                    loads,
                    backend,
                    arguments.rounds,
                    not arguments.no_pin,
                    arguments.patience,
                    progress,
                )
        finally:
            status.close()
    print(*bench.tables(rows), sep="\n")
    if not _kept(arguments, rows):
        return BROKEN
    if all(row.cannot and not row.wrong for row in rows):
        return BROKEN
    return FAILED if any(row.wrong for row in rows if not row.subject.peer) else OK


def _loads(arguments: argparse.Namespace) -> Iterator[Load]:
    """Raises Usage."""
    from socklab.load import Load

    contract, kind = arguments.contract, arguments.load
    common = {"seconds": arguments.seconds, "rate": arguments.rate, "agents": arguments.agents}
    if arguments.in_flight > 1 and (kind != "steady" or contract in SHAPES):
        raise Usage("--in-flight is for an echo under a steady load")
    if kind == "idle" and arguments.rate:
        raise Usage("--rate says nothing of clients who only stay")
    if kind == "churn" and CONTRACTS[contract].protocol == "udp":
        raise Usage("over UDP nobody connects, so nobody comes and goes: churn goes with echo and chat")
    if kind == "steady" and contract in SHAPES:
        if arguments.agents > 1 and not arguments.rate:
            raise Usage(
                "--agents of what goes to all needs a --rate: how far the slowest listener is behind is known to its own generator only"
            )
        for part, size in itertools.product(
            (arguments.clients or SHAPES[contract]).split(","), arguments.size
        ):
            match = re.fullmatch(r"(\d+)[x×→:](\d+)", part.strip())
            if not match or not 1 <= int(match[1]) <= 10_000 or not 1 <= int(match[2]) <= 100_000:
                raise Usage(f'--clients "{part}": here it is SENDERSxRECEIVERS, like 10x100')
            if int(match[2]) < arguments.agents:
                raise Usage(
                    f"--agents {arguments.agents}: so many generators have not one listener each (--clients {part})"
                )
            if size < 16:
                raise Usage(f"--size {size}: a line that can be told from others has 16 bytes at least")
            yield Load(kind="fan-out", senders=int(match[1]), receivers=int(match[2]), size=size, **common)
        return
    given = arguments.clients or {"churn": "16", "idle": "1000"}.get(kind) or CONNECTIONS[contract]
    try:
        counts = _numbers(1, 1_000_000)(given)
    except argparse.ArgumentTypeError as exc:
        raise Usage(f"--clients: {exc}") from None
    sizes = arguments.size if kind != "idle" else [0]
    if kind == "steady" and CONTRACTS[contract].protocol == "udp" and min(sizes) < 19:
        raise Usage(f"--size {min(sizes)}: a datagram that can be told from others has 19 bytes at least")
    if arguments.agents > min(counts):
        raise Usage(
            f"--agents {arguments.agents}: so many generators have not one client each (--clients {min(counts)})"
        )
    for count, size in itertools.product(counts, sizes):
        yield Load(
            kind="echo" if kind == "steady" else kind,
            receivers=count,
            size=size,
            in_flight=arguments.in_flight,
            **common,
        )


def _own(arguments: argparse.Namespace, folder: Path) -> Subject | None:
    """The server that the user brings, if there is one. Raises Usage and LabError."""
    from socklab import check, load, peers
    from socklab.guest import Guest, Limits

    if arguments.address is not None and (arguments.program or arguments.image):
        raise Usage("either --address of a server that runs already, or what starts one")
    if arguments.address is None and not arguments.program and not arguments.image:
        return None
    if (arguments.address or arguments.image) and (arguments.peers or arguments.services):
        raise Usage("--image and --address are measured alone: peers and services live elsewhere")
    at = check.resolve(arguments.address) if arguments.address else None
    if at and not check.is_local(at[0]):
        raise Usage(f"{at[0]} is another machine: load is put on servers of this machine only")
    # Compose has no word for "as much as there is", and no engine gives more descriptors than it may have.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    limits = Limits(16 << 30, 10_000, most) if arguments.image else peers.UNLIMITED
    guest = Guest(Path.cwd(), limits=limits, at=at)
    order = check.Order(
        contract=CONTRACTS[arguments.contract],
        guest=guest,
        command=tuple(arguments.program),
        port=at[1] if at else None,
    )
    if arguments.image:
        order = order.in_image(arguments.image, folder)
    lab_file = order.topology
    service = lab_file.service(order.model)
    return load.Subject("yours", lab_file, service, load.speech_of(arguments.contract))


def _subjects(arguments: argparse.Namespace, folder: Path) -> list[Subject]:
    """Servers of the compose file, and peers. Raises Usage and TopologyError."""
    from socklab import load, peers, terminal, topology

    contract = CONTRACTS[arguments.contract]
    subjects: list[Subject] = []
    brought = arguments.program or arguments.image or arguments.address
    services = arguments.services or (() if brought else OURS[contract.name])
    if services:
        lab_file = topology.read(compose_of(arguments))
        for name in dict.fromkeys(services):
            subject = load.of_service(name, lab_file)
            if subject.service.contract != contract.name:
                raise Usage(
                    f"{name} is a server of the contract {subject.service.contract}, not of {contract.name}"
                )
            subjects.append(subject)
    for peer in peers.PEERS if arguments.peers else ():
        if peer.contract == contract.name:
            try:
                subjects.append(peer.subject(folder))
            except peers.Missing as exc:
                terminal.error(f"skipped: {exc}")
    return subjects


def _check_files(arguments: argparse.Namespace) -> None:
    """Before minutes of measuring: whether their figures can be left. Raises Usage."""
    from importlib.util import find_spec

    if arguments.plot is not None and find_spec("matplotlib") is None:
        raise Usage("--plot needs matplotlib: pip install 'socklab[plot]'")
    for file in filter(None, (arguments.json, arguments.plot)):
        if not file.parent.is_dir():
            raise Usage(f"{file}: there is no folder {file.parent}")
        if file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK):
            raise Usage(
                f"{file}: {'is a folder' if file.is_dir() else 'may not be written'}; name another file"
            )
    if arguments.plot is not None and arguments.plot.suffix.lower() not in (".svg", ".png", ".pdf"):
        raise Usage(f"--plot {arguments.plot}: draws .svg, .png or .pdf")


def _kept(arguments: argparse.Namespace, rows: Any) -> bool:
    """Leave the figures where they were asked for."""
    from socklab import bench, terminal

    try:
        if arguments.json is not None:
            arguments.json.write_text(json.dumps(bench.as_data(rows), indent=1) + "\n")
        if arguments.plot is not None:
            bench.plot(rows, arguments.plot)
    except (ImportError, OSError, ValueError) as exc:
        terminal.error(f"the figures cannot be left there: {exc}")
        return False
    return True
