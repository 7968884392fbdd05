"""What happens, and what happened, to be seen: `show` and `serve`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from socklab.cli.common import BROKEN, OK, USAGE, lab_options
from socklab.picture import KINDS

if TYPE_CHECKING:
    from socklab.history import Event


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
        help="of a picture: some of " + ", ".join(KINDS) + " (default: messages,wire for pictures)",
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
        default="127.0.0.1",
        metavar="ADDRESS",
        help="on which address (default: 127.0.0.1); on another than loopback a token is asked for",
    )
    serve.add_argument(
        "--runs",
        type=Path,
        default=Path("runs"),
        metavar="DIR",
        help="where each run leaves its history (default: runs/)",
    )
    lab_options(serve)
    serve.set_defaults(run=_serve)


def _show(arguments: argparse.Namespace) -> int:
    """Tell a recorded run again, from its history.jsonl alone: as a story, a page, a picture."""
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
        if any((arguments.html, arguments.svg, arguments.png, arguments.mermaid)):
            return _draw(arguments, events)
        if arguments.json:
            print(*(event.to_json() for event in events), sep="\n")
        else:
            print(*terminal.transcript(events, terminal.coloured(sys.stdout)), sep="\n")
    except (KeyError, TypeError, AttributeError, ValueError) as exc:
        terminal.error(f"{path}: an event lacks {exc}; was it written by another version of socklab?")
        return USAGE
    return OK


def _draw(arguments: argparse.Namespace, events: list[Event]) -> int:
    from socklab import page, picture, terminal
    from socklab.diagram import drawn

    kinds = arguments.only.split(",") if arguments.only else ["messages", "wire"]
    if wrong := [kind for kind in kinds if kind not in KINDS]:
        terminal.error(f"--only {arguments.only}: there is no {wrong[0]}; there are {', '.join(KINDS)}")
        return USAGE
    marks = drawn(events)
    nodes = arguments.nodes.split(",") if arguments.nodes else []
    known = [mark["name"] for mark in marks if mark["mark"] == "lane"]
    if missing := [node for node in nodes if node not in known]:
        terminal.error(
            f"--nodes {arguments.nodes}: there is no {missing[0]} in this run; there are {', '.join(known)}"
        )
        return USAGE
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
            terminal.error("--png needs resvg-py: pip install 'socklab[png]'; --svg needs nothing")
            return USAGE
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
            terminal.error(f"{where}: {exc.strerror}")
            return USAGE
    return OK


def _serve(arguments: argparse.Namespace) -> int:
    """Serve the web page: the scenarios with their verdicts, and each play as it goes on. For this machine only, unless --listen says otherwise: then whoever knows the token that is printed may play."""
    import asyncio

    from socklab import player, terminal

    try:
        from socklab import web
    except ImportError as exc:
        terminal.error(f"the web page needs {exc.name}: pip install 'socklab[web]'")
        return USAGE
    try:
        playable, errors = web.playable(arguments.paths or [Path("scenarios")], arguments.compose)
    except player.NoSuchPath as exc:
        terminal.error(str(exc))
        return USAGE
    for message in errors:
        terminal.error(message)
    return asyncio.run(_serve_these(arguments, playable)) if playable else USAGE


async def _serve_these(arguments: argparse.Namespace, playable: list[Any]) -> int:
    import secrets
    import socket

    import uvicorn

    from socklab import player, terminal, web
    from socklab.backends import LabError
    from socklab.conductor import Options
    from socklab.live import Stage

    try:
        backend, instead = await player.choose(arguments.on)
    except LabError as exc:
        terminal.error(str(exc))
        return BROKEN
    if instead:
        terminal.error(f"playing on {backend.name}, without network faults: {instead}")
    options = Options(patience=arguments.patience, runs=arguments.runs)

    async def stage() -> Stage:
        return Stage(backend, options, player.at_once(backend))

    six = ":" in arguments.listen
    listener = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((arguments.listen, arguments.port))
        listener.listen(128)
    except (OSError, OverflowError) as exc:
        await backend.close()
        why = exc.strerror if isinstance(exc, OSError) else str(exc)
        terminal.error(
            f"cannot listen on {arguments.listen} port {arguments.port}: {why}; name others with --listen and --port"
        )
        return USAGE
    local = arguments.listen in ("127.0.0.1", "::1", "localhost")
    token = "" if local else secrets.token_urlsafe(16)
    app = web.Pages(playable, stage).app(("127.0.0.1", "localhost", "::1") if local else (), token)
    name = f"[{arguments.listen}]" if six else arguments.listen
    print(f"http://{name}:{listener.getsockname()[1]}/{'?token=' + token if token else ''}", flush=True)
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="error", lifespan="on", timeout_graceful_shutdown=1)
    )
    await server.serve(sockets=[listener])
    return OK
