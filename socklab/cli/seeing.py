"""What happened, to be seen: `show`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from socklab.cli.common import OK, USAGE
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
