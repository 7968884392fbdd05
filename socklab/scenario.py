"""Scenarios: from a YAML file to a Scenario whose every step knows its line.

`language` says what may stand where; here is what it means, and the checks that a schema cannot say: names, connections,
captures. Nothing here knows sockets or backends.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import json
import re
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, cast

from socklab.contracts import CONTRACTS
from socklab.grammar import MapOf, Record, Str
from socklab.language import CONNECT_MODIFIERS, MAX_CLIENTS, MEGA, RESERVED, SCENARIO
from socklab.source import Map, Mark, Problem, Scalar, ScenarioError, Seq, Source, Tree, nearest, printable


@dataclass(frozen=True)
class Client:
    name: str
    beside: str | None = None
    """The client (or `server`) whose host it shares."""
    networks: tuple[str, ...] = ()
    """Networks by name; none: those of the compose file's `client`, or of the server."""
    of: int = 0
    """It is a crowd of so many clients in one program; 0: one client."""


@dataclass(frozen=True)
class Pattern:
    """What a single message is held against."""

    kind: str
    """contains, is, regex, bytes, any; or wire: words that all stand in what was seen on the wire"""
    value: str | bytes = ""
    """A text may hold {placeholders}."""

    def __str__(self) -> str:
        if self.kind == "any":
            return "any message"
        if self.kind == "wire":
            return f"on the wire {self.value!s}"
        if isinstance(self.value, bytes):
            return f"the bytes {self.value[:40]!r}" + ("…" if len(self.value) > 40 else "")
        if self.kind == "regex":
            return f"/{printable(self.value)}/"
        text = f'"{printable(self.value)}"'
        return f"exactly {text}" if self.kind == "is" else text


OF_CROWDS = ("connect", "load", "close", "abort")
"""What a crowd in one program can do."""


UNKILLED = "unkilled"
"""An exit status, of whatever number, that is no SIGKILL."""


@dataclass(frozen=True)
class Expectation:
    """What one client (or the server) is to see.

    kind: sequence (the patterns in order), set (in any order), exactly (all that came), sent (all that came is what the
    client sent), eof, reset, error, exit. `family` marks a text with {n}, told out `count` times.
    """

    kind: str
    patterns: tuple[Pattern, ...] = ()
    count: int = 1
    family: bool = False
    once: bool = False
    log: bool = False
    word: str = ""
    """For error: which; for exit: the status."""

    def __str__(self) -> str:
        tail = ", nothing twice" if self.once else ""
        if self.kind in ("eof", "reset"):
            return f"the connection to end ({self.kind})"
        if self.kind == "error":
            return f'the error "{self.word}"'
        if self.kind == "exit" and self.word == UNKILLED:
            return "its process to end, without SIGKILL"
        if self.kind == "exit":
            return f"its process to end with status {self.word}"
        if self.kind == "sent":
            return "exactly what it sent"
        shown = ", ".join(str(p) for p in self.patterns[:6]) + (", …" if len(self.patterns) > 6 else "")
        if self.family:
            return f"{shown} for n = 1…{self.count}, in {'any ' if self.kind == 'set' else ''}order{tail}"
        if self.kind == "exactly":
            return f"exactly [{shown}] and nothing else"
        times = f" {self.count} times" if self.count > 1 else ""
        order = (
            "" if len(self.patterns) < 2 else " in this order" if self.kind == "sequence" else " in any order"
        )
        return f"{'a log line with ' if self.log else ''}{shown}{times}{order}{tail}"


@dataclass(frozen=True)
class Payload:
    """What one client sends in one step: messages, each cut into pieces."""

    text: str | None
    """A text with {placeholders}, or None where `raw` is given."""
    raw: bytes = b""
    lines: int | None = None
    repeat: int = 1
    pieces: tuple[str, ...] = ()
    pause: float = 0.0
    to: str | None = None


@dataclass(frozen=True)
class ConnectOptions:
    to: str | None = None
    port: int | None = None
    source_port: int | None = None
    fails: str | None = None
    over: str | None = None


@dataclass(frozen=True)
class LoadOptions:
    """What a crowd does. `rate` in messages a second of all together (0: as many as the server carries), `lasts` in seconds."""

    size: int = 64
    senders: int = 1
    in_flight: int = 1
    rate: int = 0
    lasts: float = 1.0
    messages: int = 0
    """At least so many."""

    def __str__(self) -> str:
        return f"{self.size}-byte messages for {self.lasts:g}s" + (
            f", {self.rate} a second" if self.rate else ""
        )


@dataclass(frozen=True)
class Link:
    """Directed pairs of names."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Step:
    verb: str
    line: int
    text: str
    """The step as it stands in the file, on one line."""
    names: tuple[str, ...] = ()
    connects: tuple[tuple[str, ConnectOptions], ...] = ()
    sends: tuple[tuple[str, tuple[Payload, ...]], ...] = ()
    expects: tuple[tuple[str, Expectation], ...] = ()
    windows: tuple[tuple[str, float], ...] = ()
    loads: tuple[tuple[str, LoadOptions], ...] = ()
    options: tuple[tuple[str, tuple[tuple[str, int], ...]], ...] = ()
    sockets: tuple[tuple[str, str, Mapping[str, str]], ...] = ()
    """Whose kernel, its peer (or `listen`), and what is wanted of the socket."""
    links: tuple[tuple[str, str], ...] = ()
    """Directed pairs of names; for heal: empty means all."""
    fault: Mapping[str, Any] = field(default_factory=dict)
    """The settings of a link fault, as its gate takes them; texts to match may hold {placeholders}."""
    steps: tuple[Step, ...] = ()
    times: int = 1
    seconds: float = 0.0
    within: float | None = None
    during: tuple[Step, ...] = ()
    lasts: float | None = None
    """Seconds after which the fault is undone."""
    capture: str | None = None
    hint: str = ""
    """The likely cause if it fails."""
    note: str | None = None

    def walk(self) -> Iterator[Step]:
        """This step, and every step inside it."""
        yield self
        for inner in (*self.steps, *self.during):
            yield from inner.walk()


@dataclass(frozen=True)
class Scenario:
    """One play: a file, one of its services, one combination of its matrix."""

    path: Path
    title: str
    about: str
    clauses: tuple[str, ...]
    only_ours: bool
    advice: bool
    """It asks for more than the contract, in a way that means something to any server."""
    fresh: bool
    """It needs a server that nobody used before."""
    service: str
    services: tuple[str, ...]
    clients: tuple[Client, ...]
    steps: tuple[Step, ...]
    values: tuple[tuple[str, str], ...] = ()
    several: bool = False
    """The file names more than one service."""
    unconnected: tuple[tuple[str, Mark, str], ...] = ()
    """Clients used without a connect: fine over UDP, an error over TCP, and which it is the compose file tells."""
    source: Source = field(repr=False, kw_only=True)

    def require_connections(self, datagrams: bool = False) -> None:
        """Raises ScenarioError at the first step of a client that never connects. With datagrams, only a crowd has to."""
        for name, mark, verb in self.unconnected:
            if datagrams and verb != "load":
                continue
            raise self.source.error(
                Problem(mark, f"{verb}: {name} is not connected; put `connect: {name}` before it")
            )

    @property
    def contract(self) -> str | None:
        return self.clauses[0].partition(".")[0] if self.clauses else None

    @property
    def variant(self) -> str:
        """What tells this play from the others of its file: `chat`, or `chat, size=10`; may be empty."""
        parts = [self.service] if self.several else []
        return ", ".join(parts + [f"{name}={value}" for name, value in self.values])

    @property
    def label(self) -> str:
        """The file's name without its ending, and the variant in brackets."""
        name = self.path.name
        for ending in (".scenario.yaml", ".scenario.yml", ".yaml", ".yml"):
            name = name.removesuffix(ending)
        return f"{name}[{self.variant}]" if self.variant else name

    def grown(self, step: str) -> Scenario:
        """This play with one step more at its end, given as lines of the file (`as_item`). Raises ScenarioError."""
        source = Source.parse(self.source.text + step, self.path)
        result = variant(source, self.service, dict(self.values))
        if len(result.steps) != len(self.steps) + 1:
            raise ScenarioError("one step at a time", self.path)
        return result

    def walk(self) -> Iterator[Step]:
        """Every step, also those inside others."""
        for step in self.steps:
            yield from step.walk()


def load(path: Path) -> list[Scenario]:
    """The plays of one file: one for each service and each combination of the matrix. Raises ScenarioError."""
    return plays(Source.read(path))


def plays(source: Source) -> list[Scenario]:
    """The plays of a source that has been read."""
    try:
        record = _matrix(source.tree)
        scenarios = []
        for values in record:
            tree = _substitute(source.tree, dict(values)) if values else source.tree
            scenarios += _Reader(source, SCENARIO.parse(tree), values).read()
        return scenarios
    except Problem as problem:
        raise source.error(problem) from None


def variant(source: Source, service: str, values: Mapping[str, str]) -> Scenario:
    """The play of a source that is about this service, with these values of its matrix. Raises ScenarioError, and LookupError for none."""
    found = [s for s in plays(source) if s.service == service and dict(s.values) == dict(values)]
    return found[0]


def by_hand(service: str, clients: Sequence[str], services: Sequence[str] = ()) -> Scenario:
    """A scenario that begins, and to which a person adds a step at a time. Raises ScenarioError for names that cannot be."""
    head = {"title": f"{service} by hand", "service": service, "services": services, "clients": clients}
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in head.items() if value]
    return plays(_begun("\n".join(lines), Path("by-hand.yaml")))[0]


def taken_apart(scenario: Scenario) -> tuple[Scenario, list[str]]:
    """The same scenario at its beginning, as `by_hand` has it, and its steps as they stand in the file. Raises ScenarioError."""
    source = scenario.source
    assert isinstance(source.tree, Map)
    starts = [key.mark.line - 1 for key, _ in source.tree.items]
    steps = source.tree.get("steps")
    if (
        not isinstance(steps, Seq)
        or len(set(starts)) < len(starts)
        or len({s.mark.line for s in steps.items}) < len(steps.items)
    ):
        raise ScenarioError("has several keys or steps in one line, so it cannot be taken apart", source.path)
    begin = next(key.mark.line for key, _ in source.tree.items if key.text == "steps") - 1
    end = min((line for line in starts if line > begin), default=len(source.lines))
    borders = [*(step.mark.line - 1 for step in steps.items), end]
    texts = ["\n".join(source.lines[a:b]).rstrip() for a, b in itertools.pairwise(borders)]
    head = "\n".join([*source.lines[:begin], *source.lines[end:]])
    return variant(_begun(head, source.path), scenario.service, dict(scenario.values)), texts


def _begun(head: str, path: Path) -> Source:
    return Source.parse(f"{head}\nsteps:\n{as_item('note: by hand')}", path)


def as_item(step: str) -> str:
    """A step as a person types it, with or without its dash, as an item of `steps:`."""
    lines = textwrap.dedent(re.sub(r"^(\s*)-(?= )", r"\1 ", step.strip("\r\n"))).rstrip().splitlines() or [""]
    return (
        "\n".join(["  - " + lines[0], *("    " + line if line.strip() else "" for line in lines[1:])]) + "\n"
    )


def _matrix(tree: Tree) -> list[tuple[tuple[str, str], ...]]:
    """All combinations of the matrix's values; one empty combination where there is none."""
    matrix = tree.get("matrix") if isinstance(tree, Map) else None
    if matrix is None:
        return [()]
    parsed = cast(MapOf, SCENARIO.fields["matrix"].type).parse(matrix)
    combinations = 1
    for name, values in parsed.items():
        if name in ("n", "round"):
            raise Problem(name.mark, f'"{name}" counts by itself; choose another name')
        combinations *= len(values)
    if combinations > 1000:
        raise Problem(matrix.mark, f"{combinations} combinations; at most 1000")
    return [
        tuple(zip(map(str, parsed), map(str, values), strict=True))
        for values in itertools.product(*parsed.values())
    ]


_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}")


def _substitute(tree: Tree, values: Mapping[str, str]) -> Tree:
    """The tree with matrix variables put in. What was only a variable reads as if its value stood there unquoted."""
    if isinstance(tree, Scalar):
        whole = re.fullmatch(r"\{([A-Za-z_][A-Za-z0-9_]*)\}", tree.text)
        if whole and whole[1] in values:
            value = Scalar(values[whole[1]], True, tree.mark)
            return replace(value, plain=False) if value.empty else value  # only in quotes is it a value
        text = _PLACEHOLDER.sub(lambda m: values.get(m[1] or "", m[0]), tree.text)
        return replace(tree, text=text)
    if isinstance(tree, Seq):
        return replace(tree, items=tuple(_substitute(item, values) for item in tree.items))
    return replace(
        tree,
        items=tuple(
            (key, value if key.text == "matrix" else _substitute(value, values)) for key, value in tree.items
        ),
    )


def placeholders(text: str) -> set[str]:
    """The names in {braces} of a text."""
    return {found[1] for found in _PLACEHOLDER.finditer(text) if found[1]}


def expand(text: str, values: Mapping[str, str]) -> str:
    """A text with its {placeholders} filled in, and {{ }} made single."""
    return _PLACEHOLDER.sub(lambda m: m[0][0] if m[1] is None else values[m[1]], text)


def expand_regex(text: str, values: Mapping[str, str]) -> str:
    """The same for a regex: values stand for themselves, braces stay (they count repetitions there)."""
    return re.sub(r"\{([A-Za-z_][A-Za-z0-9_]*)\}", lambda m: re.escape(values[m[1]]), text)


class _Reader:
    """From a parsed record to Scenarios: the checks that need more than the grammar."""

    def __init__(self, source: Source, record: Record, values: tuple[tuple[str, str], ...]) -> None:
        self.source = source
        self.record = record
        self.values = values
        self.captures: set[str] = set()
        self.groups: dict[str, tuple[str, ...]] = {}
        self.ever_connected: set[str] = set()
        self.closed: set[str] = set()
        self.half_closed: set[str] = set()
        self.rounds = 0
        """In how many repeat: we are."""
        self.second_round = False
        self.unconnected: dict[str, tuple[Mark, str]] = {}
        self.only_ours = False

    def read(self) -> list[Scenario]:
        record = self.record
        services = _listed(record["service"])
        more = _listed(record.get("services", []))
        self._check_services(services, more)
        self.clients = self._clients(record["clients"], services + more)
        self.servers = {"server", *more}
        self.datagrams = self._contract() in ("udp-echo", "registry")
        for clause in record.get("clauses", []):
            contract, _, number = clause.partition(".")
            if int(number) > (last := len(CONTRACTS[contract].clauses)):
                raise Problem(clause.mark, f'"{clause}": the contract {contract} has clauses 1 to {last}')
            if contract != self._contract():
                raise Problem(
                    clause.mark,
                    f'"{clause}" beside clauses of {self._contract()}; one scenario holds one contract',
                )
        steps = tuple(self._step(step) for step in record["steps"])
        return [
            Scenario(
                path=self.source.path,
                title=str(record["title"]),
                about=str(record.get("about", "")),
                clauses=tuple(map(str, record.get("clauses", []))),
                only_ours="only" in record or self.only_ours,
                advice=record.get("only") == "advice",
                fresh="needs" in record,
                service=str(service),
                services=tuple(str(name) for name in more if name != service),
                clients=tuple(self.clients.values()),
                steps=steps,
                values=self.values,
                several=len(services) > 1,
                unconnected=tuple((name, mark, verb) for name, (mark, verb) in self.unconnected.items()),
                source=self.source,
            )
            for service in services
        ]

    def _check_services(self, services: list[Str], more: list[Str]) -> None:
        for i, name in enumerate([*services, *more]):
            # Under test it is called server anyway, so there a service of this name is clear.
            if name in RESERVED and not (name == "server" and name in services and name not in more):
                raise Problem(
                    name.mark,
                    f'"{name}" is a word of the language; a service with this name cannot be played here',
                )
            if name in [*services, *more][:i]:
                raise Problem(name.mark, f'the service "{name}" is named twice')

    def _contract(self) -> str | None:
        clauses = self.record.get("clauses")
        return str(clauses[0]).partition(".")[0] if clauses else None

    def _clients(self, entries: list[Any], services: list[Str]) -> dict[str, Client]:
        clients: dict[str, Client] = {}

        def add(name: Str, client: Client) -> None:
            if client.name in RESERVED:
                raise Problem(
                    name.mark,
                    f'"{client.name}" is a word of the language; choose another name for the client',
                )
            if client.name in services:
                raise Problem(
                    name.mark,
                    f'"{client.name}" is also the name of a service; choose another name for the client',
                )
            if client.name in clients or client.name in self.groups:
                raise Problem(name.mark, f'a second client called "{client.name}"')
            if len(clients) >= MAX_CLIENTS:
                raise Problem(name.mark, f"more than {MAX_CLIENTS} clients")
            clients[client.name] = client

        for entry in entries:
            for name, value in entry.items() if isinstance(entry, dict) else [(entry, None)]:
                if isinstance(value, int):
                    if name in RESERVED or name in clients or name in services or name in self.groups:
                        raise Problem(name.mark, f'the name "{name}" is taken; choose another for the crowd')
                    members = tuple(f"{name}{i}" for i in range(1, value + 1))
                    for member in members:
                        add(name, Client(member))
                    self.groups[str(name)] = members
                elif value is None:
                    add(name, Client(str(name)))
                else:
                    beside = value.get("beside")
                    if beside is not None and beside != "server" and beside not in clients:
                        raise Problem(
                            beside.mark,
                            f'no client "{beside}" stands before "{name}".{nearest(beside, clients)}',
                        )
                    networks = tuple(map(str, _listed(value.get("network", []))))
                    if beside is not None and networks:
                        raise Problem(
                            value.marks["network"],
                            f"{name} shares the host of {beside}, and with it its networks",
                        )
                    add(
                        name, Client(str(name), str(beside) if beside else None, networks, value.get("of", 0))
                    )
        return clients

    # names

    def _expand_clients(self, names: Iterable[Str]) -> tuple[str, ...]:
        result: list[str] = []
        for name in names:
            if name == "everyone":
                result += (name for name, client in self.clients.items() if not client.of)
            elif name in self.groups:
                result += self.groups[name]
            elif name in self.clients:
                result.append(str(name))
            elif name in self.servers or name in RESERVED:
                raise Problem(name.mark, f'"{name}" is no client; a client is asked for here')
            else:
                known = [*self.clients, *self.groups, "everyone"]
                raise Problem(
                    name.mark,
                    f'no client "{name}".{nearest(name, known) or " Clients: " + _some(self.clients)}',
                )
        doubled = next((n for n in result if result.count(n) > 1), None) if len(result) < 200 else None
        if doubled:
            raise Problem(next(iter(names)).mark, f'"{doubled}" is named twice')
        return tuple(result)

    def _server(self, name: Str) -> str:
        if name in self.servers:
            return str(name)
        if name in _listed(self.record["service"]):
            raise Problem(
                name.mark,
                f'the service under test is called server here, so that the file judges any server: write "server", not "{name}"',
            )
        raise Problem(
            name.mark,
            f'no server "{name}".{nearest(name, self.servers) or " Servers: " + ", ".join(sorted(self.servers))}',
        )

    def _node(self, name: Str) -> tuple[str, ...]:
        if name in self.servers:
            return (str(name),)
        if name in _listed(self.record["service"]):
            return (self._server(name),)
        if name not in self.clients and name not in self.groups and name not in RESERVED:
            known = [*self.clients, *self.groups, *self.servers, "everyone"]
            raise Problem(
                name.mark,
                f'no client or server "{name}".{nearest(name, known) or " There are: " + _some(known)}',
            )
        return self._expand_clients([name])

    def _host(self, name: str) -> str:
        beside = self.clients[name].beside if name in self.clients else None
        return self._host(beside) if beside else name

    # steps

    def _step(self, record: Record) -> Step:
        verb = record["verb"]
        step = Step(
            verb,
            record.mark.line,
            self._written(record, verb),
            within=record.get("within"),
            lasts=record.get("for"),
            capture=record.get("as"),
            hint=str(record.get("hint", "")),
            note=record.get("note"),
        )
        reader: Callable[[Step, Any, Record], Step] = getattr(
            self, "_read_" + verb.replace("-", "_"), self._read_names
        )
        step = reader(step, record[verb], record)
        self._check_crowds(step, record.mark)
        if "during" in record:
            step = replace(step, during=tuple(self._step(inner) for inner in record["during"]))
        if record.get("as"):
            if (
                len(step.expects) != 1
                or step.expects[0][1].kind not in ("sequence", "set")
                or len(step.expects[0][1].patterns) != 1
                or step.expects[0][1].count != 1
                or step.expects[0][1].family
            ):
                raise Problem(
                    record.marks["as"], "as: keeps one message: expect one thing of one client in this step"
                )
            if record["as"] in ("n", "round") or record["as"] in dict(self.values):
                raise Problem(
                    record["as"].mark, f'"{record["as"]}" has a meaning already; choose another name'
                )
            self.captures.add(str(record["as"]))
        return step

    def _check_crowds(self, step: Step, mark: Mark) -> None:
        """What thousands of clients in one program can do, and what only they can."""
        for name, options in step.connects:
            if self.clients[name].of and (options.fails or options.source_port):
                raise Problem(
                    mark,
                    f"connect: {name} is {self.clients[name].of} clients as one; it takes no `fails` and no `from`",
                )
        if step.verb in OF_CROWDS:
            return
        concerned = [*step.sends, *step.expects, *step.windows, *step.sockets]
        peers = [peer for _, peer, _ in step.sockets]
        for name in [*step.names, *(str(entry[0]) for entry in concerned), *peers]:
            if name in self.clients and self.clients[name].of and step.verb not in ("unplug", "plug"):
                raise Problem(
                    mark,
                    f"{step.verb}: {name} is {self.clients[name].of} clients as one; it can {', '.join(OF_CROWDS)}",
                )

    def _read_load(self, step: Step, value: Any, record: Record) -> Step:
        entries: dict[Str, Any] = value if isinstance(value, dict) else {value: {}}
        loads = []
        for name, settings in entries.items():
            if name not in self.clients or not self.clients[name].of:
                known = [crowd for crowd, client in self.clients.items() if client.of]
                raise Problem(
                    name.mark,
                    f'"{name}" is no crowd in one program.{nearest(name, known) or " Make one among the clients: {crowd: {of: 1000}}"}',
                )
            self._must_be_connected(str(name), name.mark, "load")
            load = LoadOptions(**{key.replace("-", "_"): setting for key, setting in settings.items()})
            if load.senders >= self.clients[name].of and "senders" in settings:
                raise Problem(
                    settings.marks["senders"],
                    f"{load.senders} of {self.clients[name].of} speak, so nobody is left to listen",
                )
            loads.append((str(name), load))
        return replace(step, loads=tuple(loads))

    def _written(self, record: Record, verb: str) -> str:
        """The step's own text: from its dash to the end of its line(s), folded into one line."""
        start = record.mark.line - 1
        first = self.source.lines[start]
        indent = record.mark.column - 1
        parts = [first[indent:]]
        for line in self.source.lines[start + 1 : start + 40]:
            if line.strip() and len(line) - len(line.lstrip()) < indent:
                break
            if line.strip().startswith("- ") and len(line) - len(line.lstrip()) <= indent:
                break
            parts.append(line)
        text = " ".join(
            _without_comment(part).strip()
            for part in parts
            if part.strip() and not part.strip().startswith("#")
        )
        return text if len(text) <= 120 else text[:119] + "…"

    def _read_note(self, step: Step, value: Any, record: Record) -> Step:
        return step

    def _read_names(self, step: Step, value: Any, record: Record) -> Step:
        names = _listed(value)
        if step.verb in ("kill", "stop", "pause", "continue", "restart", "steady"):
            return replace(step, names=tuple(self._server(name) for name in names))
        clients = self._expand_clients(names)
        for client in clients:
            self._must_be_connected(client, names[0].mark, step.verb)
        if step.verb in ("close", "abort"):
            self.closed.update(clients)
        elif step.verb == "half-close":
            self.half_closed.update(clients)
        return replace(step, names=clients)

    def _must_be_connected(self, client: str, mark: Mark, verb: str) -> None:
        if client in self.closed:
            raise Problem(mark, f"{verb}: {client} closed its socket before; connect it again first")
        if verb == "send" and client in self.half_closed:
            raise Problem(mark, f"send: {client} half-closed its connection before, it can send no more")
        if client not in self.ever_connected and (verb == "load" or not self.datagrams):
            self.unconnected.setdefault(client, (mark, verb))

    def _read_connect(self, step: Step, value: Any, record: Record) -> Step:
        common = {name: record[name] for name in CONNECT_MODIFIERS if name in record}
        entries: list[tuple[Str, dict[str, Any]]]
        if isinstance(value, dict):
            entries = [
                (name, dict(options) if isinstance(options, dict) else {"to": options})
                for name, options in value.items()
            ]
        else:
            entries = [(name, {}) for name in _listed(value)]
        connects: list[tuple[str, ConnectOptions]] = []
        for name, options in entries:
            options = {**common, **options}
            to = options.get("to")
            if to is not None:
                to = self._server(to)
            parsed = ConnectOptions(
                to,
                options.get("port"),
                options.get("from"),
                str(options["fails"]) if "fails" in options else None,
                str(options["over"]) if "over" in options else None,
            )
            connects += [(client, parsed) for client in self._expand_clients([name])]
        self._no_doubles([name for name, _ in connects], entries[0][0].mark)
        for client, options_ in connects:
            if options_.fails is None:
                self.ever_connected.add(client)
                self.closed.discard(client)
                self.half_closed.discard(client)
        return replace(step, connects=tuple(connects))

    def _no_doubles(self, names: list[str], mark: Mark) -> None:
        if len(set(names)) != len(names):
            doubled = next(name for name in names if names.count(name) > 1)
            raise Problem(mark, f'"{doubled}" is named twice in this step')

    def _read_send(self, step: Step, value: Any, record: Record) -> Step:
        sends: list[tuple[str, tuple[Payload, ...]]] = []
        for name, content in value.items():
            payloads = tuple(
                self._payload(part) for part in (content if isinstance(content, list) else [content])
            )
            for client in self._expand_clients([name]):
                self._must_be_connected(client, name.mark, "send")
                sends.append((client, payloads))
        self._no_doubles([name for name, _ in sends], next(iter(value)).mark)
        return replace(step, sends=tuple(sends))

    def _payload(self, content: Any) -> Payload:
        if isinstance(content, Str):
            self._check_text(content, set())
            return Payload(str(content))
        record: Record = content
        lines = record.get("lines")
        pieces = tuple(map(str, record.get("pieces", ())))
        if "each" in pieces and pieces != ("each",):
            raise Problem(record.marks["pieces"], '"each" stands alone: pieces: [each] sends byte by byte')
        if "rest" in pieces[:-1]:
            raise Problem(record.marks["pieces"], '"rest" comes last')
        text = record.get("text")
        raw = b""
        if text is not None:
            self._check_text(text, {"n"} if lines else set())
            text = str(text)
            if lines and lines > 1 and lines * len(text) > MEGA:
                raise Problem(record.marks["lines"], "more than 1 GiB")
        else:
            raw = next(_raw_bytes(key, record[key]) for key in ("bytes", "hex", "base64") if key in record)
        if record.get("repeat", 1) * max(len(raw), len(text or "")) > MEGA:
            raise Problem(record.marks["repeat"], "more than 1 GiB")
        to = record.get("to")
        return Payload(
            text,
            raw,
            lines,
            record.get("repeat", 1),
            pieces,
            record.get("pause", 0.0),
            self._server(to) if to is not None else None,
        )

    def _known(self, local: set[str]) -> set[str]:
        """The names that a text may have in {braces} here."""
        return self.captures | local | ({"round"} if self.rounds else set()) | set(dict(self.values))

    def _check_text(self, text: Str, local: set[str]) -> None:
        """Placeholders that nobody fills are found before anything starts."""
        known = self._known(local)
        for name in sorted(placeholders(text)):
            if name == "n" and "n" not in known:
                raise Problem(
                    text.mark,
                    "{n} counts with lines: (send) or count: (expect); write {{n}} for the characters",
                )
            if name == "round" and name not in known:
                raise Problem(
                    text.mark, "{round} counts the rounds of repeat:; write {{round}} for the characters"
                )
            if name not in known:
                hint = nearest(name, known) or f" To write the characters, double the braces: {{{{{name}}}}}"
                raise Problem(text.mark, f'nothing called "{name}" was caught before.{hint}')
        bare = _PLACEHOLDER.sub("", text)
        if "{" in bare or "}" in bare:
            raise Problem(text.mark, "a single brace; write {{ or }} for the character")

    def _read_expect(self, step: Step, value: Any, record: Record) -> Step:
        expects: list[tuple[str, Expectation]] = []
        for name, content in value.items():
            expectation = self._on_wire(content) if name == "wire" else self._expectation(content)
            if name == "wire":
                expects.append(("wire", expectation))
                continue
            of_server = expectation.log or expectation.kind == "exit"
            if name in self.servers:
                if not of_server:
                    raise Problem(
                        name.mark,
                        f"what is expected of {name} is {{log: …}}, {{exit: 0}} or {{ended: true}}; messages are expected of clients",
                    )
                expects.append((str(name), expectation))
                continue
            if self.datagrams and expectation.kind in ("eof", "reset"):
                raise Problem(name.mark, f"{expectation.kind}: UDP has no connections, so none can end")
            if of_server:
                raise Problem(name.mark, f'log: and exit: are expected of a server, not of "{name}"')
            for client in self._expand_clients([name]):
                if client in self.closed:
                    raise Problem(name.mark, f"expect: {client} closed its socket before, it can get nothing")
                self._must_be_connected(client, name.mark, "expect")
                expects.append((client, expectation))
        self._no_doubles([name for name, _ in expects], next(iter(value)).mark)
        return replace(step, expects=tuple(expects))

    def _on_wire(self, record: Record) -> Expectation:
        """The wire knows hosts, not programs: clients on one host are one there."""
        words = []
        for end in ("from", "to"):
            if end in record:
                (node,) = self._node(record[end])[:1]
                words.append(f"{end}:{self._host(node)}")
        words += [str(record[key]).replace(" ", "-") for key in ("flags", "is") if key in record]
        return Expectation(
            "sequence",
            (Pattern("wire", " ".join(words)),),
            record.get("count", 1),
            once=record.get("once", False),
        )

    def _expectation(self, content: Any) -> Expectation:
        if isinstance(content, list):
            return Expectation("sequence", self._texts(content))
        if isinstance(content, Str):
            if content in ("eof", "reset") and content.plain:
                return Expectation(str(content))
            if content == "any" and content.plain:
                return Expectation("sequence", (Pattern("any"),))
            return Expectation("sequence", (self._pattern(content),))
        record: Record = content
        self.only_ours |= (
            "only" in record
        )  # one such expectation makes the whole scenario one for our own servers
        count, once = record.get("count", 1), record.get("once", False)
        for key in ("eof", "reset"):
            if key in record:
                return Expectation(key)
        if "exactly" in record:
            value = record["exactly"]
            if isinstance(value, Str) and value == "sent" and value.plain:
                return Expectation("sent")
            return Expectation("exactly", self._texts(_listed(value)))
        if "error" in record:
            return Expectation("error", word=str(record["error"]))
        if "ended" in record:
            return Expectation("exit", word=UNKILLED)
        if "exit" in record:
            return Expectation("exit", word=str(record["exit"]), log=False)
        if "log" in record:
            return Expectation("sequence", (self._pattern(record["log"]),), count, once=once, log=True)
        for key in ("in_order", "any_order"):
            if key in record:
                return self._several(
                    "sequence" if key == "in_order" else "set", record[key], record, count, once
                )
        if "any" in record:
            return Expectation("sequence", (Pattern("any"),), count, once=once)
        key = next(key for key in ("text", "is", "bytes", "hex", "base64") if key in record)
        if key == "text":
            return Expectation("sequence", (self._pattern(record[key]),), count, once=once)
        if key == "is":
            self._check_text(record[key], set())
            return Expectation("sequence", (Pattern("is", str(record[key])),), count, once=once)
        return Expectation("sequence", (Pattern("bytes", _raw_bytes(key, record[key])),), count, once=once)

    def _several(self, kind: str, value: Any, record: Record, count: int, once: bool) -> Expectation:
        if isinstance(value, Str):
            if "n" not in placeholders(value):
                raise Problem(value.mark, "several are expected here: a list, or a text with {n} and count:")
            if "count" not in record:
                raise Problem(value.mark, "a text with {n} needs count: beside it, to say how far n goes")
            return Expectation(kind, (self._pattern(value, {"n"}),), count, family=True, once=once)
        if "count" in record:
            raise Problem(record.marks["count"], "count: goes with a text with {n}; a list counts itself")
        return Expectation(kind, self._texts(value), once=once)

    def _texts(self, texts: list[Str]) -> tuple[Pattern, ...]:
        for text in texts:
            if text.plain and text in ("eof", "reset", "any"):
                raise Problem(
                    text.mark,
                    f'in a list, {text} would be a text: write "{text}" for that, or expect {text} in a step of its own',
                )
        return tuple(self._pattern(text) for text in texts)

    def _pattern(self, text: Str, local: set[str] | None = None) -> Pattern:
        regex = _regex(text)
        if regex is None:
            self._check_text(text, local or set())
            return Pattern("contains", str(text))
        known = self._known(local or set())
        for name in re.findall(r"\{([A-Za-z_][A-Za-z0-9_]*)\}", regex):
            if name not in known:
                raise Problem(text.mark, f'nothing called "{name}" was caught before.{nearest(name, known)}')
        try:
            compile_regex(expand_regex(regex, dict.fromkeys(known, "1")))
        except (re.error, OverflowError, RecursionError) as exc:
            raise Problem(text.mark, f"not a regular expression: {exc}") from None
        return Pattern("regex", regex)

    def _read_quiet(self, step: Step, value: Any, record: Record) -> Step:
        windows = []
        for name, seconds in value.items():
            for client in self._expand_clients([name]):
                if client in self.closed:
                    raise Problem(
                        name.mark, f"quiet: {client} closed its socket before, so its silence proves nothing"
                    )
                self._must_be_connected(client, name.mark, "quiet")
                windows.append((client, seconds))
        return replace(step, windows=tuple(windows))

    def _read_sockets(self, step: Step, value: Any, record: Record) -> Step:
        wanted = []
        for name, peers in value.items():
            (who,) = self._one_node(name)
            for peer, content in peers.items():
                if peer == "listen":
                    if who not in self.servers:
                        raise Problem(peer.mark, f'listen: is asked of a server, not of "{name}"')
                    other = "listen"
                else:
                    (other,) = self._one_node(peer)
                    if (who in self.servers) == (other in self.servers):
                        raise Problem(
                            peer.mark, f"a connection is between a client and a server, not {who} and {other}"
                        )
                    if self.datagrams:
                        raise Problem(
                            peer.mark, "UDP has no connections; ask for the server's own socket: listen"
                        )
                fields = {"state": content} if isinstance(content, Str) else content
                wanted.append((who, other, {str(key): str(value) for key, value in fields.items()}))
        return replace(step, sockets=tuple(wanted))

    def _one_node(self, name: Str) -> tuple[str, ...]:
        nodes = self._node(name)
        if len(nodes) != 1:
            raise Problem(name.mark, f'"{name}" is more than one; a socket belongs to one')
        return nodes

    def _read_set(self, step: Step, value: Any, record: Record) -> Step:
        options = []
        for name, wanted in value.items():
            for client in self._expand_clients([name]):
                self._must_be_connected(client, name.mark, "set")
                options.append((client, tuple((str(k), v) for k, v in wanted.items())))
        return replace(step, options=tuple(options))

    def _read_partition(self, step: Step, value: Any, record: Record) -> Step:
        groups = [[node for name in _listed(group) for node in self._node(name)] for group in value]
        flat = [node for group in groups for node in group]
        self._no_doubles(flat, record.mark)
        pairs = [(a, b) for g, h in itertools.permutations(groups, 2) for a in g for b in h]
        return replace(step, links=self._between_hosts(pairs, record.marks["partition"]))

    def _read_isolate(self, step: Step, value: Any, record: Record) -> Step:
        alone = [node for name in _listed(value) for node in self._node(name)]
        hosts = {node: self._host(node) for node in [*self.clients, *sorted(self.servers)]}
        pairs = [
            pair
            for node in alone
            for other, host in hosts.items()
            if host != hosts[node]
            for pair in ((node, other), (other, node))
        ]
        return replace(step, links=tuple(dict.fromkeys(pairs)))

    def _read_unplug(self, step: Step, value: Any, record: Record) -> Step:
        names = [node for name in _listed(value) for node in self._node(name)]
        self._no_doubles(names, record.marks[step.verb])
        return replace(step, names=tuple(names))

    _read_plug = _read_unplug

    def _read_cut(self, step: Step, value: Any, record: Record) -> Step:
        pairs = [pair for link in _listed(value) for pair in self._pairs(link)]
        links = self._between_hosts(pairs, record.marks[step.verb])
        return replace(step, links=links, fault=self._fault(step.verb, _listed(value)))

    _read_reject = _read_drop = _read_loss = _read_delay = _read_cut
    _read_duplicate = _read_reorder = _read_corrupt = _read_rate = _read_cut

    def _fault(self, verb: str, links: list[Record]) -> dict[str, Any]:
        """What the links of one step say beside their ends; the same for all of them."""
        settings = [self._settings(verb, link) for link in links]
        for link, each in zip(links, settings, strict=True):
            if each != settings[0]:
                raise Problem(
                    link.mark, f"another {verb} than on the link before it; give it a step of its own"
                )
        return settings[0]

    def _settings(self, verb: str, link: Record) -> dict[str, Any]:
        settings: dict[str, Any] = {}
        told = []
        for name, value in sorted(link.items(), key=lambda item: item[0] != "is"):
            if name in ("from", "to", "between"):
                continue
            if name == "after":
                value = self._settings(verb, value)
                told.append(f"after {value['told']}")
            elif name == "match":
                self._check_text(value, set())
                value = str(value)
                told.append(f'"{printable(value)}"')
            elif name == "nth":
                told.append(f"the {value}{_ordinal(value)}")
            elif name == "is" and isinstance(value, tuple):
                value, spread = value
                told.append(f"{value * 1e3:g}ms" + (f" +- {spread * 1e3:g}ms" if spread else ""))
                if spread:
                    settings["jitter"] = spread
            elif name == "is":
                told.append(f"{value / 1e3:g}kbit" if verb == "rate" else f"{value * 100:g}%")
            else:
                told.append(str(value) if name == "flags" else name if value is True else f"{name} {value}")
            settings[name] = str(value) if isinstance(value, Str) else value
        return {**settings, "told": " ".join(told)}

    def _read_heal(self, step: Step, value: Any, record: Record) -> Step:
        entries = _listed(value)
        if entries == ["all"]:
            return step
        everyone = [*self.clients, *sorted(self.servers)]
        pairs: list[tuple[str, str]] = []
        for entry in entries:
            if isinstance(entry, Str):
                if entry == "all":
                    raise Problem(entry.mark, "all: stands alone")
                for node in self._node(entry):
                    pairs += [
                        p
                        for o in everyone
                        if self._host(o) != self._host(node)
                        for p in ((node, o), (o, node))
                    ]
            else:
                pairs += self._pairs(entry)
        return replace(step, links=self._between_hosts(pairs, record.marks["heal"]))

    def _pairs(self, link: Record) -> list[tuple[str, str]]:
        if "between" in link:
            ends = [node for name in link["between"] for node in self._node(name)]
            return list(itertools.permutations(ends, 2))
        sources = [node for name in _listed(link["from"]) for node in self._node(name)]
        targets = [node for name in _listed(link["to"]) for node in self._node(name)]
        return [(a, b) for a in sources for b in targets]

    def _between_hosts(self, pairs: Iterable[tuple[str, str]], mark: Mark) -> tuple[tuple[str, str], ...]:
        result = dict.fromkeys(pairs)
        for a, b in result:
            if self._host(a) == self._host(b):
                same = "itself" if a == b else f"{b}, on the same host"
                raise Problem(mark, f"there is no link from {a} to {same}")
        return tuple(result)

    def _read_together(self, step: Step, value: Any, record: Record) -> Step:
        # What one of these catches, another cannot count on: they run at once.
        before, caught = set(self.captures), set()
        steps = []
        for inner in value:
            self.captures = set(before)
            steps.append(self._step(inner))
            caught |= self.captures
        self.captures = before | caught
        return replace(step, steps=tuple(steps))

    def _read_repeat(self, step: Step, value: Any, record: Record) -> Step:
        self.rounds += 1
        steps = tuple(self._step(inner) for inner in value["steps"])
        if value["times"] > 1 and not self.second_round:
            # The second round begins where the first ended: with sockets closed, say.
            self.second_round = True
            for inner in value["steps"]:
                self._step(inner)
            self.second_round = False
        self.rounds -= 1
        return replace(step, times=value["times"], steps=steps)

    def _read_wait(self, step: Step, value: Any, record: Record) -> Step:
        return replace(step, seconds=value)


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]


def _ordinal(number: int) -> str:
    if number % 100 in (11, 12, 13):
        return "th"
    return {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:8]) + (", …" if len(listed) > 8 else "")


def _without_comment(line: str) -> str:
    """A line of YAML without its comment, as far as quotes allow to tell; for display only."""
    quote = ""
    for i, char in enumerate(line):
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char == "#" and i and line[i - 1].isspace():
            return line[:i]
    return line


def _regex(text: str) -> str | None:
    """The regular expression in /slashes/, or None for a plain text."""
    return text[1:-1] if len(text) > 2 and text[0] == text[-1] == "/" else None


@cache
def compile_regex(regex: str) -> re.Pattern[str]:
    """Raises what re.compile raises, and warns of nothing: what `[[` will mean some day is no concern of a scenario."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return re.compile(regex)


def _raw_bytes(key: str, text: Str) -> bytes:
    try:
        if key == "bytes":
            return text.encode("latin-1")
        if key == "hex":
            return bytes.fromhex(text)
        return base64.b64decode(text, validate=True)
    except UnicodeEncodeError as exc:
        raise Problem(
            text.mark,
            f'"{text[exc.start]}" is no single byte; bytes: takes \\x00 to \\xff, text: takes any character',
        ) from None
    except (ValueError, binascii.Error):
        raise Problem(text.mark, f"not valid {key}") from None
