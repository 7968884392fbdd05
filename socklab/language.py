"""The scenario language as a grammar: what may stand where, said once.

It parses (`SCENARIO.parse(tree)`), and the JSON Schema for editors is made from it. What a schema cannot say (names,
connections, captures) is checked in `reader`.
"""

from __future__ import annotations

from typing import Any

from socklab.contracts import CONTRACTS
from socklab.grammar import (
    Amount,
    Duration,
    Field,
    Fields,
    Flag,
    ListOf,
    MapOf,
    Named,
    Number,
    Rate,
    Record,
    Schema,
    Setting,
    Shapes,
    Share,
    Size,
    Spread,
    Text,
    Type,
    Variants,
    Word,
    choice,
)
from socklab.source import Map, Mark, Problem, Scalar, Tree, nearest

RESERVED = ("server", "everyone", "all", "wire", "listen", "from", "to", "between")
FAILURES = ("refused", "timed out", "unreachable", "reset")
OPTIONS = (
    "nodelay",
    "keepalive",
    "keepidle",
    "keepintvl",
    "keepcnt",
    "rcvbuf",
    "sndbuf",
    "linger",
    "user_timeout",
)

MAX_CLIENTS = 1000
MAX_CROWD = 100_000
MAX_MESSAGES = 1_000_000

NAME = Word(r"[A-Za-z][A-Za-z0-9_.-]*", "a name (a letter, then letters, digits, - _ .)")
NAMES = Shapes("a name or a list of names", scalar=NAME, seq=ListOf(NAME))
TEXT = Text()
MEGA = 1 << 30

PAYLOAD_FIELDS = {
    "text": Field(TEXT, "the text; on a line service a newline is added"),
    "bytes": Field(TEXT, r'these bytes and nothing more, "\x00" to "\xff" each one byte'),
    "hex": Field(TEXT, "these bytes in hexadecimal, spaces allowed"),
    "base64": Field(TEXT, "these bytes in base64"),
    "lines": Field(
        Number(1, MAX_MESSAGES, "a number of lines"), "so many messages; {n} in the text counts from 1"
    ),
    "repeat": Field(
        Number(1, MEGA, "a number of repetitions"), "the text so many times over, as one message"
    ),
    "pieces": Field(
        ListOf(Size(("rest", "each"), 'a size in bytes, "rest", or "each" (byte by byte)')),
        "send it in pieces of so many bytes",
    ),
    "pause": Field(Duration(), "wait so long between pieces or messages"),
    "to": Field(NAME, "the service it goes to (UDP; default: the one under test)"),
}
_BODY = ("text", "bytes", "hex", "base64")
PAYLOAD = Shapes(
    "a text, a list of texts, or a map with text:, bytes:, hex: or base64:",
    scalar=TEXT,
    seq=ListOf(TEXT),
    map=Fields(PAYLOAD_FIELDS, "a message", one_of=_BODY, needs={"pause": ("pieces", "lines")}),
)

CONNECT_OPTIONS = {
    "to": Field(NAME, "the service to connect to (default: the one under test)"),
    "port": Field(Number(1, 65535, "a port"), "another port than the service's own"),
    "from": Field(Number(1, 65535, "a port"), "the client's own port (default: any that is free)"),
    "over": Field(
        choice("ipv4", "ipv6"), "which of the server's addresses (default: ipv4, or with --ipv6 ipv6)"
    ),
    "fails": Field(choice(*FAILURES), "the connect must fail, and in this way"),
}
CONNECT = Shapes(
    "a client, a list of clients, or a map of clients with options",
    scalar=NAME,
    seq=ListOf(NAME),
    map=MapOf(
        NAME,
        Shapes("a service or options", scalar=NAME, map=Fields(CONNECT_OPTIONS, "the options of connect")),
        "clients",
    ),
)

_COUNT = Field(Number(1, MAX_MESSAGES, "a number of messages"), "so many of them")
_ONCE = Field(Flag(), "and no more than that: nothing twice")
_ONLY = Field(choice("ours"), "asked of the project's own servers alone")


def _pattern(key: str, type_: Type, about: str) -> tuple[str, Fields]:
    return key, Fields(
        {key: Field(type_, about, required=True), "count": _COUNT, "once": _ONCE}, "an expectation"
    )


EXPECTATION = Shapes(
    "a text, eof, reset, any, a list of texts, or a map such as {in_order: [a, b]}",
    scalar=TEXT,
    seq=ListOf(TEXT),
    map=Variants(
        (
            _pattern("text", TEXT, "a message that contains this text (words like eof are text here)"),
            _pattern("is", TEXT, "a message that is this text and nothing more"),
            _pattern("bytes", TEXT, r'these bytes in what came, "\x00" to "\xff" each one byte'),
            _pattern("hex", TEXT, "these bytes, in hexadecimal"),
            _pattern("base64", TEXT, "these bytes, in base64"),
            _pattern("any", Flag(), "any message that no expectation has read yet"),
            (
                "eof",
                Fields(
                    {"eof": Field(Flag(), "the server closes the connection (FIN)", required=True)},
                    "an expectation",
                ),
            ),
            (
                "reset",
                Fields(
                    {"reset": Field(Flag(), "the connection is reset (RST)", required=True)}, "an expectation"
                ),
            ),
            _pattern(
                "in_order",
                Shapes("texts, or a text with {n}", scalar=TEXT, seq=ListOf(TEXT)),
                "these, in this order",
            ),
            _pattern(
                "any_order",
                Shapes("texts, or a text with {n}", scalar=TEXT, seq=ListOf(TEXT)),
                "these, in any order",
            ),
            (
                "exactly",
                Fields(
                    {
                        "exactly": Field(
                            Shapes('texts, or "sent"', scalar=TEXT, seq=ListOf(TEXT)),
                            "all that came is this; sent: what the client itself sent",
                            required=True,
                        )
                    },
                    "an expectation",
                ),
            ),
            (
                "error",
                Fields(
                    {
                        "error": Field(
                            choice("refused", "timed out", "unreachable"),
                            "an error on the socket (ICMP, keepalive)",
                            required=True,
                        )
                    },
                    "an expectation",
                ),
            ),
            (
                "log",
                Fields(
                    {
                        "log": Field(TEXT, "a line that the server printed", required=True),
                        "count": _COUNT,
                        "once": _ONCE,
                        "only": _ONLY,
                    },
                    "an expectation",
                ),
            ),
            (
                "ended",
                Fields(
                    {
                        "ended": Field(
                            Flag(), "the server's process ended, and had not to be killed", required=True
                        ),
                        "only": _ONLY,
                    },
                    "an expectation",
                ),
            ),
            (
                "exit",
                Fields(
                    {
                        "exit": Field(
                            Number(0, 255, "an exit status"),
                            "the server's process ended with this status",
                            required=True,
                        ),
                        "only": _ONLY,
                    },
                    "an expectation",
                ),
            ),
        ),
        "an expectation",
    ),
)

FLAGS = ("SYN", "SYN-ACK", "FIN", "RST", "ACK")
PACKETS = {
    "nth": Field(
        Number(1, MAX_MESSAGES, "which of them"), "only the nth that fits, counted from this step on"
    ),
    "match": Field(TEXT, "packets with this text in what the program sent"),
    "flags": Field(choice(*FLAGS), "TCP segments of this kind; ACK: a bare one"),
    "data": Field(Flag(), "packets with something of the program's in them"),
}
"""Which packets are meant."""
_ENDS = {
    "from": Field(NAMES, "whose packets", required=True),
    "to": Field(NAMES, "towards whom", required=True),
}
_BOTH = {"between": Field(ListOf(NAME, 2), "both directions between these", required=True)}
_AFTER = {"after": Field(Fields(PACKETS, "the packets"), "it begins behind the packet that fits")}


def _link(more: dict[str, Field] | None = None, example: str = "") -> Variants:
    """A link, with what a verb says of it."""
    one_way, both = (Fields({**ends, **(more or {})}, "a link") for ends in (_ENDS, _BOTH))
    what = f"a link, {{from: a, to: b{example}}} or {{between: [a, b]{example}}}"
    return Variants((("from", one_way), ("between", both), ("to", one_way)), what)


def _links(more: dict[str, Field] | None = None, example: str = "") -> Shapes:
    link = _link(more, example)
    return Shapes(link.what, seq=ListOf(link), map=link)


def _is(type_: Type, about: str, example: str, **more: Field) -> Shapes:
    return _links({"is": Field(type_, about, required=True), **more, **_AFTER}, f", is: {example}")


LINK = _link()
STATE = choice(
    *("ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT"),
    *("CLOSE_WAIT", "LAST_ACK", "CLOSING", "LISTEN", "gone"),
)
AMOUNT = Amount()
SOCKET = Shapes(
    "a state like ESTABLISHED or gone, or a map with state:, send-q:, recv-q: or accept-queue:",
    scalar=STATE,
    map=Fields(
        {
            "state": Field(STATE, "the state of the connection (RFC 9293); gone: the kernel has none"),
            "send-q": Field(AMOUNT, "bytes that were sent and are not acknowledged"),
            "recv-q": Field(AMOUNT, "bytes that came and nobody has read"),
            "accept-queue": Field(AMOUNT, "connections that wait for accept() (listen)"),
        },
        "a socket",
        any_of=("state", "send-q", "recv-q", "accept-queue"),
    ),
)
ON_THE_WIRE = (
    "retransmission",
    "keepalive",
    "zero window",
    "window open",
    "window probe",
    "unreachable",
)
WIRE = Fields(
    {
        "from": Field(NAME, "whose packet"),
        "to": Field(NAME, "to whom it was sent"),
        "flags": Field(choice("SYN", "SYN-ACK", "FIN", "RST"), "a TCP segment of this kind"),
        "is": Field(
            choice(*ON_THE_WIRE), "what TCP did with it, or that it is ICMP's word of somebody unreachable"
        ),
        "count": _COUNT,
        "once": _ONCE,
    },
    "what passes on the wire",
    any_of=("flags", "is"),
)
GROUPS = ListOf(NAMES, 2, "a list of groups, like [[alice], [server]]")

_types: dict[str, Type] = {}
STEPS = ListOf(Named("step", "a step", _types), 1, "a list of steps")

LOAD = Fields(
    {
        "size": Field(Number(16, 60_000, "a number of bytes"), "of each message (default 64)"),
        "senders": Field(
            Number(1, 10_000, "a number of clients"),
            "of a chat or a registry: so many of the crowd speak, the others listen (default 1)",
        ),
        "in-flight": Field(
            Number(1, 10_000, "a number of messages"),
            "of an echo: each is so many ahead of its answers (default 1)",
        ),
        "rate": Field(
            Number(1, 10_000_000, "messages a second"),
            "of all together, each message at its time (default: as many as the server carries)",
        ),
        "lasts": Field(Duration(), "how long (default 1s)"),
        "messages": Field(
            Number(1, 1_000_000_000, "a number of messages"),
            "of a chat or a registry: at least so many are said, however long that takes",
        ),
    },
    "a load",
)

VERBS: dict[str, Field] = {
    "connect": Field(CONNECT, "open connections; done when the server has taken them"),
    "send": Field(
        MapOf(NAME, PAYLOAD, "clients with what they send, like {alice: hello}"),
        "send; done when the kernel has it all",
    ),
    "expect": Field(
        MapOf(NAME, EXPECTATION, "clients with what they get, like {bob: hello}", named={"wire": WIRE}),
        "wait for it, up to the limit",
    ),
    "sockets": Field(
        MapOf(NAME, MapOf(NAME, SOCKET, "peers with a state"), "whose kernel is asked, and of which sockets"),
        "wait until the kernel's own table says this of a connection (or of the listening socket: listen)",
    ),
    "steady": Field(
        NAMES,
        "the server holds no more descriptors, threads, children and memory than at the first steady: of this play",
    ),
    "quiet": Field(
        MapOf(NAME, Duration(), "clients with a window, like {bob: 200ms}"), "nothing comes within the window"
    ),
    "half-close": Field(NAMES, "no more to send: FIN, and go on reading"),
    "close": Field(NAMES, "close the socket: FIN"),
    "abort": Field(NAMES, "close the socket with RST"),
    "load": Field(
        Shapes(
            "a crowd, or a crowd with its load", scalar=NAME, map=MapOf(NAME, LOAD, "a crowd with its load")
        ),
        "a crowd speaks for a while; every message must reach everyone whom the contract owes it, once, whole, in order",
    ),
    "stall": Field(NAMES, "stop reading, with a small receive buffer: the slow consumer"),
    "read": Field(NAMES, "read again after stall"),
    "set": Field(
        MapOf(
            NAME,
            MapOf(choice(*OPTIONS), Setting(0, MEGA, "a whole number, true or false"), "socket options"),
            "clients with socket options, like {alice: {nodelay: 1}}",
        ),
        "set socket options of a client",
    ),
    "kill": Field(NAMES, "SIGKILL the server"),
    "stop": Field(NAMES, "SIGTERM the server; done when it listens no more"),
    "pause": Field(NAMES, "freeze the server (SIGSTOP)"),
    "continue": Field(NAMES, "let it run again (SIGCONT)"),
    "restart": Field(NAMES, "end the server if it runs, start it again on the same address"),
    "partition": Field(GROUPS, "silence between the groups, in both directions"),
    "isolate": Field(NAMES, "silence between these and everyone else"),
    "cut": Field(_links(_AFTER), "silence on a link"),
    "reject": Field(_links(), "packets on a link are refused: RST for TCP, ICMP for the rest"),
    "drop": Field(_links(PACKETS), "some packets on a link are lost: the nth, those that match, or all"),
    "loss": Field(
        _is(
            Share(),
            "how many are lost",
            "10%",
            burst=Field(Number(2, 1000, "packets"), "they are lost in bursts of about so many"),
        ),
        "packets on a link are lost by chance",
    ),
    "delay": Field(
        _is(
            Spread(),
            "how long each is held",
            "100ms +- 20ms",
            reordering=Field(Flag(), "one that is held less may overtake another"),
        ),
        "packets on a link come later",
    ),
    "duplicate": Field(_is(Share(), "how many", "5%"), "packets on a link come twice, by chance"),
    "reorder": Field(
        _is(Share(), "how many", "25%"), "packets on a link are overtaken by the next one, by chance"
    ),
    "corrupt": Field(
        _is(
            Share(),
            "how many",
            "1%",
            silently=Field(Flag(), "with a checksum that fits, so that the program gets the damage"),
        ),
        "one bit of a packet is flipped, by chance",
    ),
    "rate": Field(
        _is(
            Rate(),
            "how much goes through",
            "1Mbit",
            queue=Field(
                Number(1, 100_000, "packets"), "so many wait for their turn, more are lost (default 1000)"
            ),
        ),
        "a slow link: packets go through one after another",
    ),
    "unplug": Field(NAMES, "the interfaces of these hosts go away: errors at once"),
    "plug": Field(NAMES, "they are there again"),
    "heal": Field(
        Shapes(
            "all, names, or links",
            scalar=NAME,
            seq=ListOf(Shapes("a name or a link", scalar=NAME, map=LINK)),
            map=LINK,
        ),
        "undo link faults",
    ),
    "together": Field(STEPS, "these at once; done when all are"),
    "repeat": Field(
        Fields(
            {
                "times": Field(Number(1, 100_000, "a number of rounds"), "how often", required=True),
                "steps": Field(STEPS, "what", required=True),
            },
            "repeat",
        ),
        "these again and again; {round} counts from 1",
    ),
    "wait": Field(Duration(), "let time pass (rare: a note: says why)"),
}
MODIFIERS: dict[str, Field] = {
    "within": Field(Duration(), "the limit of this step (default 2s)"),
    "during": Field(STEPS, "undo this fault after these steps"),
    "for": Field(Duration(), "undo this fault after so long; the next step does not wait for that"),
    "as": Field(
        Word(r"[A-Za-z_][A-Za-z0-9_]*", "a name for what was caught"),
        "keep what matched, for {name} in later texts",
    ),
    "hint": Field(
        TEXT, "the likely cause in plain words, told when this step fails and the history shows no better one"
    ),
    "note": Field(TEXT, "a caption in every report"),
}
FAULT_VERBS = (
    "partition",
    "isolate",
    "cut",
    "reject",
    "drop",
    "loss",
    "delay",
    "duplicate",
    "reorder",
    "corrupt",
    "rate",
)
"""What puts a fault on links."""
PROCESS_VERBS = ("kill", "stop", "pause", "continue", "restart", "steady")
"""What is done to the process of a server, or looks into it."""
MODIFIES = {
    "within": ("connect", "send", "expect", "load", "sockets", "steady", "stop", "restart", "repeat"),
    "hint": ("connect", "send", "expect", "load", "quiet", "sockets", "steady"),
    "during": (*FAULT_VERBS, "unplug", "pause", "stall"),
    "for": FAULT_VERBS,
    "as": ("expect",),
}
LINK_VERBS = (*FAULT_VERBS, "unplug", "plug", "heal")
CONNECT_MODIFIERS = {name: CONNECT_OPTIONS[name] for name in ("to", "port", "from", "over", "fails")}


class StepType(Type):
    """One verb with its modifiers."""

    what = "a step"

    def parse(self, tree: Tree) -> Record:
        if isinstance(tree, Scalar) and tree.text in VERBS:
            raise Problem(tree.mark, f'"{tree.text}" needs to be told whom: - {tree.text}: …')
        if not isinstance(tree, Map):
            raise self.wrong(tree)
        verbs = [key for key, _ in tree.items if key.text in VERBS]
        if len(verbs) > 1:
            raise Problem(
                verbs[1].mark,
                f'two verbs in one step, "{verbs[0].text}" and "{verbs[1].text}"; give each a "- " of its own, or put them into together:',
            )
        verb = verbs[0].text if verbs else None
        allowed = {**MODIFIERS, **(CONNECT_MODIFIERS if verb == "connect" else {})}
        values: dict[str, Any] = {}
        marks: dict[str, Mark] = {}
        for key, value in tree.items:
            word = key.text
            if word not in VERBS and word not in allowed:
                close = nearest(word, [*VERBS, *allowed])
                raise Problem(
                    key.mark, f'unknown verb or modifier "{word}".{close or " Verbs: " + ", ".join(VERBS)}'
                )
            if verb is not None and word in MODIFIES and verb not in MODIFIES[word]:
                raise Problem(
                    key.mark, f"{word}: says nothing about {verb}; it goes with {', '.join(MODIFIES[word])}"
                )
            marks[word] = key.mark
            values[word] = (VERBS.get(word) or allowed[word]).type.parse(value)
        if verb is None and set(values) != {"note"}:
            raise Problem(tree.mark, f"a step without a verb; verbs are {', '.join(VERBS)}")
        if verb == "wait" and "note" not in values:
            raise Problem(
                marks["wait"], "wait: needs a note: that says why; to wait for something, expect it"
            )
        record = Record(tree.mark, marks, values)
        record["verb"] = verb or "note"
        return record

    def schema(self) -> Schema:
        branches: list[Schema] = []
        for verb in VERBS:
            allowed = [m for m in MODIFIERS if m not in MODIFIES or verb in MODIFIES[m]]
            extra = list(CONNECT_MODIFIERS) if verb == "connect" else []
            branch: Schema = {
                "required": [verb] + (["note"] if verb == "wait" else []),
                "propertyNames": {"enum": [verb, *allowed, *extra]},
            }
            branches.append(branch)
        branches.append({"required": ["note"], "propertyNames": {"const": "note"}})
        known = {**VERBS, **MODIFIERS, **CONNECT_MODIFIERS}
        return {
            "type": "object",
            "properties": {name: {**f.type.schema(), "description": f.about} for name, f in known.items()},
            "additionalProperties": False,
            "oneOf": branches,
        }


_types["step"] = StepType()

CLIENT = Shapes(
    "a name, or {name: {beside: other}}, or {crowd: 50}, or {crowd: {of: 5000}}",
    scalar=NAME,
    map=MapOf(
        NAME,
        Shapes(
            "options or a number",
            scalar=Number(1, MAX_CLIENTS, "a number of clients"),
            map=Fields(
                {
                    "beside": Field(NAME, "a second program on the host of this client (or of the server)"),
                    "network": Field(NAMES, "the network of the compose file that it is on"),
                    "of": Field(
                        Number(2, MAX_CROWD, "a number of clients"),
                        "so many clients in one program, as one: they connect, load: and leave together",
                    ),
                },
                "the options of a client",
            ),
        ),
        "a client with its options",
    ),
)
CLAUSE = Word(
    r"(echo|chat|udp-echo|registry)\.[1-9][0-9]*",
    "a clause of a contract, like chat.2",
    tuple(f"{c.name}.{i}" for c in CONTRACTS.values() for i in range(1, len(c.clauses) + 1)),
)
SCENARIO = Fields(
    {
        "title": Field(TEXT, "what it shows, as a sentence", required=True),
        "about": Field(TEXT, "why it happens"),
        "clauses": Field(ListOf(CLAUSE), "the clauses of the contract that it holds"),
        "only": Field(
            choice("ours", "advice"),
            "it asks for more than the contract: of the project's own servers; advice: for others too, but no point is lost",
        ),
        "needs": Field(
            choice("fresh"), "a server that nobody used before: skipped where it cannot be started anew"
        ),
        "service": Field(
            NAMES,
            "the service under test, a name in docker-compose.yml; of several, one after another",
            required=True,
        ),
        "services": Field(NAMES, "further services to start"),
        "clients": Field(ListOf(CLIENT), "the clients, each on a node of its own", required=True),
        "matrix": Field(
            MapOf(
                Word(r"[A-Za-z_][A-Za-z0-9_]*", "a variable's name"),
                ListOf(TEXT),
                "variables with their values",
            ),
            "play it once for each combination of these values; {name} stands for the value",
        ),
        "steps": Field(STEPS, "what is done, in order", required=True),
    },
    "a scenario",
)


def json_schema() -> Schema:
    """The JSON Schema (draft 2020-12) of a scenario file, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "socklab scenario",
        **SCENARIO.schema(),
        "$defs": {name: type_.schema() for name, type_ in _types.items()},
    }
