"""From what a file says to clients and steps: the checks that a schema cannot make, of names, connections, captures.

`language` says what may stand where; here is what it means. Nothing here knows sockets or backends.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import re
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from typing import Any

from socklab.contracts import CONTRACTS
from socklab.grammar import Record, Str
from socklab.language import CONNECT_MODIFIERS, FAULT_VERBS, MAX_CLIENTS, MEGA, PROCESS_VERBS, RESERVED
from socklab.source import Mark, Problem, Source, nearest, printable
from socklab.steps import UNKILLED, Client, ConnectOptions, Expectation, LoadOptions, Pattern, Payload, Step
from socklab.texts import (
    compile_regex,
    expand_regex,
    has_single_brace,
    placeholders,
    placeholders_of_regex,
    regex_in,
)

OF_CROWDS = ("connect", "load", "close", "abort")
"""What a crowd in one program can do."""


class Reader:
    """Reads the clients and steps of a play one after another: what a step may be hangs on those before it."""

    def __init__(self, source: Source, record: Record, values: tuple[tuple[str, str], ...]) -> None:
        """`values` are those of the matrix, which have been put in already."""
        self.source = source
        self.record = record
        self.values = values
        self.clients: dict[str, Client] = {}
        self.groups: dict[str, tuple[str, ...]] = {}
        self.services = _listed(record["service"])
        """Under test, one after another."""
        self.further = _listed(record.get("services", []))
        """Started beside it."""
        self.servers = {"server", *self.further}
        clauses = record.get("clauses", [])
        self.contract = str(clauses[0]).partition(".")[0] if clauses else None
        self.datagrams = self.contract is not None and CONTRACTS[self.contract].protocol == "udp"
        self.captures: set[str] = set()
        self.ever_connected: set[str] = set()
        self.closed: set[str] = set()
        self.half_closed: set[str] = set()
        self.rounds = 0
        """In how many repeat: we are."""
        self.second_round = False
        self.unconnected: dict[str, tuple[Mark, str]] = {}
        """Clients used without a connect, where, and by which verb."""
        self.only_ours = False
        """An expectation says so."""

    def read(self) -> tuple[Step, ...]:
        """The steps; what else they tell is in `clients`, `unconnected` and `only_ours` then. Raises Problem."""
        self._check_services()
        self._add_clients(self.record["clients"])
        self._check_clauses()
        return tuple(self._step(step) for step in self.record["steps"])

    def _check_services(self) -> None:
        services = [*self.services, *self.further]
        for i, name in enumerate(services):
            # Under test it is called server anyway, so there a service of this name is clear.
            if name in RESERVED and not (name == "server" and name not in self.further):
                raise Problem(
                    name.mark,
                    f'"{name}" is a word of the language; a service with this name cannot be played here',
                )
            if name in services[:i]:
                raise Problem(name.mark, f'the service "{name}" is named twice')

    def _check_clauses(self) -> None:
        for clause in self.record.get("clauses", []):
            contract, _, number = clause.partition(".")
            if int(number) > (last := len(CONTRACTS[contract].clauses)):
                raise Problem(clause.mark, f'"{clause}": the contract {contract} has clauses 1 to {last}')
            if contract != self.contract:
                raise Problem(
                    clause.mark,
                    f'"{clause}" beside clauses of {self.contract}; one scenario holds one contract',
                )

    def _add_clients(self, entries: list[Any]) -> None:
        clients, services = self.clients, [*self.services, *self.further]

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
        if name in self.services:
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
        if name in self.services:
            return (self._server(name),)
        if name not in self.clients and name not in self.groups and name not in RESERVED:
            known = [*self.clients, *self.groups, *self.servers, "everyone"]
            raise Problem(
                name.mark,
                f'no client or server "{name}".{nearest(name, known) or " There are: " + _some(known)}',
            )
        return self._expand_clients([name])

    @cached_property
    def hosts(self) -> dict[str, str]:
        """On whose host each client and server lives: a client's own, unless it is beside another, or the server."""
        hosts: dict[str, str] = {}
        for name, client in self.clients.items():
            hosts[name] = hosts.get(client.beside, client.beside) if client.beside else name
        return hosts | {name: str(name) for name in sorted(self.servers)}

    # steps

    def _step(self, record: Record) -> Step:
        verb = record["verb"]
        step = Step(
            verb,
            record.mark.line,
            self._written(record),
            within=record.get("within"),
            lasts=record.get("for"),
            capture=record.get("as"),
            hint=str(record.get("hint", "")),
            note=record.get("note"),
        )
        step = self._read(step, record[verb], record)
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

    def _written(self, record: Record) -> str:
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

    def _read(self, step: Step, value: Any, record: Record) -> Step:
        """The step with what its verb says."""
        mark = record.marks[step.verb]
        match step.verb:
            case "connect":
                return self._read_connect(step, value, record)
            case "send":
                return self._read_send(step, value)
            case "expect":
                return self._read_expect(step, value)
            case "load":
                return self._read_load(step, value)
            case "quiet":
                return self._read_quiet(step, value)
            case "sockets":
                return self._read_sockets(step, value)
            case "set":
                return self._read_set(step, value)
            case "partition":
                return self._read_partition(step, value, mark)
            case "isolate":
                return self._read_isolate(step, value)
            case verb if verb in FAULT_VERBS:
                return self._read_link_fault(step, value, mark)
            case "heal":
                return self._read_heal(step, value, mark)
            case "unplug" | "plug":
                return self._read_hosts(step, value, mark)
            case "together":
                return self._read_together(step, value)
            case "repeat":
                return self._read_repeat(step, value)
            case "wait":
                return replace(step, seconds=value)
            case "note":
                return step
            case verb if verb in PROCESS_VERBS:
                return replace(step, names=tuple(self._server(name) for name in _listed(value)))
            case _:
                return self._read_clients(step, value)

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

    def _read_clients(self, step: Step, value: Any) -> Step:
        names = _listed(value)
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

    def _read_send(self, step: Step, value: Any) -> Step:
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
        if has_single_brace(text):
            raise Problem(text.mark, "a single brace; write {{ or }} for the character")

    def _read_expect(self, step: Step, value: Any) -> Step:
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
        ends = {end: self._node(record[end])[0] for end in ("from", "to") if end in record}
        words = [f"{end}:{self.hosts[node]}" for end, node in ends.items()]
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
            return Expectation("exit", word=str(record["exit"]))
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
        regex = regex_in(text)
        if regex is None:
            self._check_text(text, local or set())
            return Pattern("contains", str(text))
        known = self._known(local or set())
        for name in placeholders_of_regex(regex):
            if name not in known:
                raise Problem(text.mark, f'nothing called "{name}" was caught before.{nearest(name, known)}')
        try:
            compile_regex(expand_regex(regex, dict.fromkeys(known, "1")))
        except (re.error, OverflowError, RecursionError) as exc:
            raise Problem(text.mark, f"not a regular expression: {exc}") from None
        return Pattern("regex", regex)

    def _read_load(self, step: Step, value: Any) -> Step:
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

    def _read_quiet(self, step: Step, value: Any) -> Step:
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

    def _read_sockets(self, step: Step, value: Any) -> Step:
        wanted = []
        for name, peers in value.items():
            who = self._one_node(name)
            for peer, content in peers.items():
                if peer == "listen":
                    if who not in self.servers:
                        raise Problem(peer.mark, f'listen: is asked of a server, not of "{name}"')
                    other = "listen"
                else:
                    other = self._one_node(peer)
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

    def _one_node(self, name: Str) -> str:
        nodes = self._node(name)
        if len(nodes) != 1:
            raise Problem(name.mark, f'"{name}" is more than one; a socket belongs to one')
        return nodes[0]

    def _read_set(self, step: Step, value: Any) -> Step:
        options = []
        for name, wanted in value.items():
            for client in self._expand_clients([name]):
                self._must_be_connected(client, name.mark, "set")
                options.append((client, tuple((str(k), v) for k, v in wanted.items())))
        return replace(step, options=tuple(options))

    def _read_partition(self, step: Step, value: Any, mark: Mark) -> Step:
        groups = [[node for name in _listed(group) for node in self._node(name)] for group in value]
        flat = [node for group in groups for node in group]
        self._no_doubles(flat, mark)
        pairs = [(a, b) for g, h in itertools.permutations(groups, 2) for a in g for b in h]
        return replace(step, links=self._between_hosts(pairs, mark))

    def _read_isolate(self, step: Step, value: Any) -> Step:
        pairs = [pair for name in _listed(value) for node in self._node(name) for pair in self._all_of(node)]
        return replace(step, links=tuple(dict.fromkeys(pairs)))

    def _read_hosts(self, step: Step, value: Any, mark: Mark) -> Step:
        names = [node for name in _listed(value) for node in self._node(name)]
        self._no_doubles(names, mark)
        return replace(step, names=tuple(names))

    def _read_link_fault(self, step: Step, value: Any, mark: Mark) -> Step:
        pairs = [pair for link in _listed(value) for pair in self._pairs(link)]
        links = self._between_hosts(pairs, mark)
        return replace(step, links=links, fault=self._fault(step.verb, _listed(value)))

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

    def _read_heal(self, step: Step, value: Any, mark: Mark) -> Step:
        entries = _listed(value)
        if entries == ["all"]:
            return step
        pairs: list[tuple[str, str]] = []
        for entry in entries:
            if isinstance(entry, Str):
                if entry == "all":
                    raise Problem(entry.mark, "all: stands alone")
                for node in self._node(entry):
                    pairs += self._all_of(node)
            else:
                pairs += self._pairs(entry)
        return replace(step, links=self._between_hosts(pairs, mark))

    def _all_of(self, node: str) -> list[tuple[str, str]]:
        """Both directions between a node and each that is not on its host."""
        others = [other for other, host in self.hosts.items() if host != self.hosts[node]]
        return [pair for other in others for pair in ((node, other), (other, node))]

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
            if self.hosts[a] == self.hosts[b]:
                same = "itself" if a == b else f"{b}, on the same host"
                raise Problem(mark, f"there is no link from {a} to {same}")
        return tuple(result)

    def _read_together(self, step: Step, value: Any) -> Step:
        # What one of these catches, another cannot count on: they run at once.
        before, caught = set(self.captures), set()
        steps = []
        for inner in value:
            self.captures = set(before)
            steps.append(self._step(inner))
            caught |= self.captures
        self.captures = before | caught
        return replace(step, steps=tuple(steps))

    def _read_repeat(self, step: Step, value: Any) -> Step:
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
