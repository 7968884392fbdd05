"""The commands of the standing lab: `socklab up`, `status`, the faults by hand, `heal`, `restart`, `logs`, `exec`, `down`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from socklab import CLIENTS
from socklab.cli.common import OK, Usage, compose_of, lab_options, names

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


def add_parsers(commands: Any) -> None:
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
        type=names,
        default=CLIENTS,
        metavar="NAMES",
        help=f"hosts for clients (default: {','.join(CLIENTS)})",
    )
    lab_options(up)
    compose(add("status", "nodes, links and the faults in force", _status))
    for verb, about in BY_HAND.items():
        parser = add(verb, f"a link fault: {about}", _fault)
        parser.add_argument(
            "words",
            nargs="+",
            metavar="WORD",
            help="the two ends, what it is, and settings, as in scenarios: alice chat 100ms, alice-chat 10%% burst=3",
        )
        parser.add_argument(
            "--one-way", action="store_true", help="only from the first to the second (default: both ways)"
        )
        compose(parser)
    heal = add("heal", "undo link faults: all, of a node, or between two", _heal)
    heal.add_argument(
        "words",
        nargs="*",
        metavar="NODE",
        help="none: all; one: what concerns it; two: the link between them",
    )
    compose(heal)
    restart = add("restart", "start a server of the standing lab again", _restart)
    restart.add_argument("service", metavar="SERVICE", help="a server of the lab")
    compose(restart)
    logs = add("logs", "what a server of the standing lab printed", _logs)
    logs.add_argument("service", metavar="SERVICE", help="a server of the lab")
    compose(logs)
    exec_ = add("exec", "run a program on a node of the standing lab", _exec)
    exec_.add_argument("node", metavar="NODE", help="a server or a client of the lab")
    exec_.add_argument(
        "argv",
        nargs=argparse.REMAINDER,
        metavar="COMMAND",
        help="a program of this machine, with its arguments",
    )
    compose(exec_)
    compose(add("down", "end the standing lab; remove what killed plays left in Docker", _down))


def _asked(arguments: argparse.Namespace, **order: Any) -> int:
    """Have the standing lab do something, and show how it stands then."""
    from socklab import standing, terminal

    answer = standing.ask(compose_of(arguments), order)
    rows = terminal.nodes(answer) if order["do"] in ("status", "restart") else ()
    print(*rows, *terminal.links(answer), sep="\n")
    return OK


def _up(arguments: argparse.Namespace) -> int:
    """Start servers and hosts for clients, and let them stand: look with status, break links with cut, delay, loss, …, mend them with
    heal, be a client with talk --as or exec, and end it with down."""
    from socklab import standing, terminal

    status = standing.up(
        compose_of(arguments), arguments.services, arguments.clients, arguments.on, arguments.patience
    )
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
    from socklab import standing, words

    answer = standing.ask(compose_of(arguments), {"do": "logs", "service": arguments.service})
    for line in answer["lines"]:
        print(words.safe(line))
    return OK


def _exec(arguments: argparse.Namespace) -> int:
    """Run a program inside the network of a node of the standing lab, at this terminal: ping, nc, python, a shell."""
    from socklab import standing

    argv = arguments.argv[1:] if arguments.argv[:1] == ["--"] else arguments.argv
    if not argv:
        raise Usage("exec needs a command: socklab exec alice ping chat")
    return standing.execute(compose_of(arguments), arguments.node, argv)


def _down(arguments: argparse.Namespace) -> int:
    """End the standing lab of this folder, and remove the containers, networks and volumes of plays on Docker that were killed."""
    from socklab import standing
    from socklab.topology import TopologyError

    ended = False
    try:
        compose = compose_of(arguments)
        standing.ask(compose, {"do": "down"})
        standing.wait_down(compose)
        ended = True
    except (standing.NoLab, TopologyError):
        pass  # none stands
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
