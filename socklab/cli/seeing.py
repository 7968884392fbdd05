"""What happens, and what happened, to be seen and kept: `show`, `serve`, `shell`, `record`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from socklab import CLIENTS
from socklab.cli.common import (
    BROKEN,
    FAILED,
    OK,
    USAGE,
    Usage,
    chosen,
    compose_of,
    lab_options,
    names,
    run,
    runs_option,
)
from socklab.contracts import CONTRACTS

if TYPE_CHECKING:
    from types import FrameType

    from socklab.backends import Backend
    from socklab.history import Event
    from socklab.scenario import Scenario
    from socklab.topology import Service, Topology


def add_parsers(commands: Any) -> None:
    show = commands.add_parser(
        "show", help="tell a recorded run again, or draw it", description=_show.__doc__
    )
    show.add_argument(
        "folder", nargs="?", type=Path, metavar="RUN", help="a folder under runs/ (default: the newest)"
    )
    drawing = show.add_argument_group("drawings", "instead of the story; - writes to standard output")
    drawing.add_argument("--html", metavar="FILE", help="the page with which each run is left (report.html)")
    drawing.add_argument("--svg", metavar="FILE", help="a picture for slides")
    drawing.add_argument("--png", metavar="FILE", help="the same as pixels (needs socklab[png])")
    drawing.add_argument("--mermaid", metavar="FILE", help="a sequence diagram for Markdown")
    drawing.add_argument(
        "--only",
        metavar="KINDS",
        help="of a picture: some of messages, wire, log, other (default: messages,wire)",
    )
    drawing.add_argument(
        "--nodes", metavar="NAMES", help="of a picture: what concerns these nodes, like alice,bob"
    )
    show.add_argument("--json", action="store_true", help="the events as JSON lines")
    show.set_defaults(run=_show)

    serve = commands.add_parser(
        "serve", help="the web page: play, and watch it live", description=_serve.__doc__
    )
    serve.add_argument(
        "paths", nargs="*", type=Path, metavar="PATH", help="files or folders (default: scenarios/)"
    )
    serve.add_argument(
        "--port",
        type=int,
        default=8071,
        metavar="N",
        help="where it listens (default: 8071; 0: any that is free)",
    )
    serve.add_argument(
        "--listen",
        type=_address,
        default="127.0.0.1",
        metavar="ADDRESS",
        help="on which address (default: 127.0.0.1); on another than loopback a token is asked for ($SOCKLAB_TOKEN, or one that is made up)",
    )
    runs_option(serve, "each run")
    lab_options(serve)
    serve.set_defaults(run=_serve)

    shell = commands.add_parser("shell", help="play by hand, a step at a time", description=_shell.__doc__)
    shell.add_argument(
        "what",
        metavar="SERVICE | SCENARIO",
        help="a service of the compose file; or a scenario, to play it step by step",
    )
    shell.add_argument(
        "--clients",
        type=names,
        default=CLIENTS,
        metavar="NAMES",
        help=f"who plays with a service (default: {','.join(CLIENTS)})",
    )
    shell.add_argument("--ipv6", action="store_true", help="reach the server by IPv6")
    runs_option(shell, "the session")
    lab_options(shell)
    shell.set_defaults(run=_shell)

    record = commands.add_parser(
        "record", help="listen to a real client, and make a scenario of it", description=_record.__doc__
    )
    record.add_argument(
        "path", type=Path, metavar="FILE", help="the scenario, like scenarios/chat/what-nc-said.yaml"
    )
    record.add_argument(
        "--to",
        required=True,
        metavar="SERVICE | HOST:PORT",
        help="the server: a service of the compose file, which is started, or one that runs",
    )
    record.add_argument(
        "--listen",
        default="127.0.0.1:0",
        metavar="[HOST:]PORT",
        help="where your client shall connect (default: a free port of 127.0.0.1)",
    )
    record.add_argument(
        "--contract",
        choices=tuple(CONTRACTS),
        metavar="CONTRACT",
        help="how HOST:PORT speaks: " + ", ".join(CONTRACTS),
    )
    record.add_argument("--once", action="store_true", help="end when all who came have gone, not at Ctrl-C")
    record.add_argument(
        "--compose", type=Path, metavar="FILE", help="the compose file (default: found from here upwards)"
    )
    record.set_defaults(run=_record)


def _address(text: str) -> str:
    address = text.removeprefix("[").removesuffix("]")
    if not address:
        raise argparse.ArgumentTypeError("nothing is no address; all of them are 0.0.0.0, or ::")
    return address


def _show(arguments: argparse.Namespace) -> int:
    """Tell a recorded run again, from its history.jsonl alone: as a story, a page, a picture."""
    from socklab import history, terminal

    folder: Path | None = arguments.folder or _newest(Path("runs"))
    if folder is None:
        raise Usage("no run under runs/; play something first, or name a folder")
    path = folder / "history.jsonl" if os.path.isdir(folder) else folder
    try:
        events = history.events_of(path)
        if any((arguments.html, arguments.svg, arguments.png, arguments.mermaid)):
            return _draw(arguments, events)
        if arguments.json:
            terminal.tell(event.to_json() for event in events)
        else:
            terminal.tell(terminal.transcript(events, terminal.coloured(sys.stdout)))
    except history.NoHistory as exc:
        raise Usage(f"{exc}; is this a history.jsonl that socklab wrote?") from None
    except OSError as exc:
        if exc.filename is None:
            raise  # of our output
        raise Usage(f"{path}: {exc.strerror}; a run is a folder with a history.jsonl in it") from None
    except (KeyError, TypeError, AttributeError, ValueError) as exc:
        raise Usage(f"{path}: an event lacks {exc}; was it written by another version of socklab?") from None
    return OK


def _newest(runs: Path) -> Path | None:
    """The folder of the run that was written last."""
    histories = [path for path in runs.glob("*/history.jsonl") if os.path.isfile(path)]
    return max(histories, key=os.path.getmtime).parent if histories else None


def _draw(arguments: argparse.Namespace, events: Iterable[Event]) -> int:
    from socklab import page, picture
    from socklab.diagram import drawn
    from socklab.picture import KINDS

    kinds = arguments.only.split(",") if arguments.only else ["messages", "wire"]
    if wrong := [kind for kind in kinds if kind not in KINDS]:
        raise Usage(f"--only {arguments.only}: there is no {wrong[0]}; there are {', '.join(KINDS)}")
    marks = drawn(events, page.MOST)
    nodes = arguments.nodes.split(",") if arguments.nodes else []
    known = [mark["name"] for mark in marks if mark["mark"] == "lane"]
    if missing := [node for node in nodes if node not in known]:
        raise Usage(
            f"--nodes {arguments.nodes}: there is no {missing[0]} in this run; there are {', '.join(known)}"
        ) from None
    drawings: list[tuple[str, str | bytes]] = []
    if arguments.html:
        drawings.append((arguments.html, page.report(marks)))
    if arguments.svg:
        drawings.append((arguments.svg, picture.svg(marks, kinds, nodes)))
    if arguments.mermaid:
        drawings.append((arguments.mermaid, picture.mermaid(marks, kinds, nodes)))
    if arguments.png:
        try:
            import resvg_py
        except ImportError:
            raise Usage("--png needs resvg-py: pip install 'socklab[png]'; --svg needs nothing") from None
        pixels = resvg_py.svg_to_bytes(svg_string=picture.svg(marks, kinds, nodes), zoom=2)
        drawings.append((arguments.png, bytes(pixels)))
    for where, content in drawings:
        data = content if isinstance(content, bytes) else content.encode(errors="replace")
        try:
            if where == "-":
                sys.stdout.buffer.write(data)
            else:
                Path(where).write_bytes(data)
                print(where)
        except OSError as exc:
            raise Usage(f"{where}: {exc.strerror}") from None
    return OK


def _serve(arguments: argparse.Namespace) -> int:
    """Serve the web page: the scenarios with their verdicts, and each play as it goes on. For this machine only, unless --listen says otherwise: then whoever knows the token that is printed may play."""
    from socklab import terminal

    try:
        from socklab import web
    except ImportError as exc:
        raise Usage(f"the web page needs {exc.name}: pip install 'socklab[web]'") from None
    playable, errors = web.playable(arguments.paths or [Path("scenarios")], arguments.compose)
    for message in errors:
        terminal.error(message)
    return run(_serve_these(arguments, playable)) if playable else USAGE


async def _serve_these(arguments: argparse.Namespace, playable: list[Any]) -> int:
    import asyncio
    import errno
    import secrets
    import signal

    import uvicorn

    from socklab import player, terminal, topology, web
    from socklab.conductor import Options
    from socklab.live import Stage, Turns

    shared = arguments.on == "joined"  # a conductor may want it as well
    backend, instead = (player.backend("joined"), "") if shared else await player.choose(arguments.on)
    if instead:
        terminal.error(f"playing on {backend.name}, without network faults: {instead}")
    options = Options(patience=arguments.patience, runs=arguments.runs)

    async def choose() -> Backend:
        return (await player.choose(arguments.on))[0] if shared else backend

    try:
        listener = web.listener(arguments.listen, arguments.port)
    except (OSError, OverflowError) as exc:
        await backend.close()
        why = exc.strerror if isinstance(exc, OSError) else str(exc)
        raise Usage(
            f"cannot listen on {arguments.listen} port {arguments.port}: {why}; name others with --listen and --port"
        ) from None
    local = arguments.listen in ("127.0.0.1", "::1", "localhost")
    token = "" if local else os.environ.get("SOCKLAB_TOKEN") or secrets.token_urlsafe(16)
    try:
        lab_file = topology.read(compose_of(arguments))
    except topology.TopologyError:
        lab_file = None  # then scenarios can be played by hand, and no other service
    stage = Stage(Turns(choose, held=not shared), options, player.at_once(backend))
    pages = web.Pages(playable, stage, lab_file)
    app = pages.app(("127.0.0.1", "localhost", "::1") if local else (), token)
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(arguments.listen) or (
        f"[{arguments.listen}]" if ":" in arguments.listen else arguments.listen
    )
    print(f"http://{name}:{listener.getsockname()[1]}/{'?token=' + token if token else ''}", flush=True)

    said = False

    def trouble(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """asyncio tells of each connection that it cannot take, thousands of times a second; and it listens again a second later,
        also where the listening socket has been closed meanwhile (ValueError)."""
        nonlocal said
        exc = context.get("exception")
        if isinstance(exc, OSError) and exc.errno in (errno.EMFILE, errno.ENFILE):
            if not said:
                terminal.error(
                    "too many connections at once: who comes now waits; allow more descriptors with ulimit -n"
                )
            said = True
        elif not (said and isinstance(exc, ValueError)):
            loop.default_exception_handler(context)

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(trouble)

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            pages.stage.leave()  # who looks on would keep the server from ending
            super().handle_exit(sig, frame)

    server = Server(uvicorn.Config(app, log_level="error", lifespan="on", timeout_graceful_shutdown=1))
    # uvicorn hears them, closes what is open, and raises them again: our own handlers would break that off.
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.remove_signal_handler(each)
    await server.serve(sockets=[listener])
    return OK


def _shell(arguments: argparse.Namespace) -> int:
    """Play by hand: type a step, see what happens, type the next. With a scenario, `next` plays its steps one by one. `save FILE` writes what was typed, with what came, as a scenario that passes."""
    from importlib.util import find_spec

    from socklab import player, topology
    from socklab.scenario import by_hand, load, taken_apart

    if sys.stdin.isatty() and find_spec("prompt_toolkit") is None:
        raise Usage("socklab shell needs prompt_toolkit on a terminal: pip install 'socklab[shell]'")
    file = Path(arguments.what)
    if file.suffix in player.ENDINGS:
        scenario, rest = taken_apart(load(file)[0])
        lab_file = topology.read(compose_of(arguments, file))
    else:
        scenario, rest = by_hand(arguments.what, arguments.clients), []
        lab_file = topology.read(compose_of(arguments))
    lab_file.service(scenario.service)
    return run(_shell_there(arguments, scenario, lab_file, rest))


async def _shell_there(
    arguments: argparse.Namespace, scenario: Scenario, lab_file: Topology, rest: list[str]
) -> int:
    from socklab import places, shell, terminal
    from socklab.conductor import Options
    from socklab.verdict import Verdict

    options = Options(patience=arguments.patience, runs=arguments.runs, ipv6=arguments.ipv6)
    async with chosen(arguments.on) as backend:
        result, wrong = await shell.run(scenario, lab_file, backend, options, rest)
    if result.verdict in (Verdict.ERROR, Verdict.SKIP) or (result.failure and result.failure.start):
        print(*terminal.result_lines(result, terminal.coloured(sys.stdout)), sep="\n")
        return BROKEN
    if result.folder is not None:
        print(f"history   socklab show {places.shown(result.folder)}")
    return FAILED if result.verdict is Verdict.FAIL else USAGE if wrong else OK


def _record(arguments: argparse.Namespace) -> int:
    """Stand between a client (nc, telnet, a program) and a server, pass on all that happens, and write it down as a scenario: what was said as steps, what came as expectations. Of a service of the compose file it is played once, to see that it passes."""
    from socklab import saved, terminal
    from socklab.source import ScenarioError

    saved.may_be(arguments.path)
    try:
        return run(_record_there(arguments))
    except ScenarioError as exc:
        terminal.error(f"a defect in socklab itself: what it wrote cannot be read: {exc}")
        return BROKEN


async def _record_there(arguments: argparse.Namespace) -> int:
    import asyncio
    import signal

    from socklab import conductor, player, record, recorded, saved, talk, terminal, topology
    from socklab.conductor import Options

    backend, lab_file = None, None
    try:
        if ":" in arguments.to:
            service, to = _running_service(arguments)
        else:
            lab_file = topology.read(compose_of(arguments))
            service = lab_file.service(arguments.to).judged_as(None)
            _can_be_recorded(service)
            backend = player.backend("process")
            _, server = await talk.started(backend, lab_file, service.name)
            to = (server.address, int(server.port or 0))
        _can_be_recorded(service)
        udp = service.protocol == "udp"
        if udp and arguments.once:
            raise Usage("--once goes with TCP: over UDP nobody knows when a client has gone; Ctrl-C ends it")
        where, _, number = arguments.listen.rpartition(":")
        try:
            at = (where.strip("[]") or "127.0.0.1", int(number))
            make = record.DatagramRecorder if udp else record.StreamRecorder
            recorder: record.Recorder = make(at, to, _said)
        except (OSError, ValueError, OverflowError) as exc:
            raise Usage(
                f"--listen {arguments.listen}: {getattr(exc, 'strerror', None) or 'is no [HOST:]PORT'}"
            ) from None
        shown = f"{at[0]} {recorder.listener.getsockname()[1]}"
        print(
            f"connect to {shown} (nc {'-u ' if udp else ''}{shown}); Ctrl-C ends and writes {arguments.path}",
            flush=True,
        )
        stop = asyncio.Event()
        for each in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(each, stop.set)
        moments = await record.moments_of(recorder, arguments.once, stop)
        if not moments:
            raise Usage(f"nobody {'sent anything' if udp else 'connected'}, so there is nothing to write")
        text = recorded.scenario(saved.title_of(arguments.path), service.name, service.framing, moments)
        scenario = saved.save(arguments.path, text)
        print(f"{arguments.path}: {sum(1 for _ in scenario.walk())} steps")
        if lab_file is None or backend is None:
            return OK
        await backend.close()  # the server that was recorded still has its port
        backend, _ = await player.choose("auto")
        result = await conductor.play(scenario, lab_file, backend, Options())
        print(*terminal.result_lines(result), sep="\n")
        return OK if result.verdict.value == "pass" else FAILED
    finally:
        if backend is not None:
            await backend.close()


def _can_be_recorded(service: Service) -> None:
    if service.protocol not in ("tcp", "udp"):
        raise Usage(f"{service.name} speaks {service.protocol.upper()}; only TCP and UDP can be recorded")


def _running_service(arguments: argparse.Namespace) -> tuple[Service, tuple[str, int]]:
    """A server that runs already, as the model of its contract, and where it is."""
    from socklab import talk
    from socklab.guest import Guest
    from socklab.topology import Topology

    contract = CONTRACTS.get(arguments.contract or "")
    if contract is None:
        raise Usage(
            f"--to {arguments.to} says nothing of how it speaks: add --contract, one of {', '.join(CONTRACTS)}"
        )
    host, port = talk.address(arguments.to)
    guest = Topology.of_guest(contract, (), Guest(Path.cwd()), port, contract.model)
    return guest.service(contract.model), (host, port)


def _said(moment: Any) -> None:
    """The session as it goes on."""
    from socklab.matching import shown

    way = {"got": "←", "eof": "←", "reset": "←", "refused": "←"}.get(moment.kind, "→")
    print(f"{moment.who} {way} {shown(moment.data) if moment.data else moment.kind}", flush=True)
