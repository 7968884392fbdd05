"""The grammar: what a scenario file may say, and that the JSON Schema for editors says the same."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from socklab.contracts import CONTRACTS
from socklab.language import SCENARIO, VERBS, json_schema
from socklab.source import Problem, ScenarioError, Source
from tests.engine.written import PATH, read, refusal, scenario_file

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = sorted((ROOT / "scenarios").rglob("*.yaml"))
VALIDATOR = jsonschema.Draft202012Validator(json_schema())


class CoreLoader(yaml.SafeLoader):
    """YAML 1.2 with its core schema, which is what editors hold against a JSON Schema: only null, true and false, whole
    numbers and floats are no texts."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML copies it for each class)

    def construct_core(self, node: yaml.ScalarNode) -> Any:
        text = str(node.value)
        kind = node.tag.rpartition(":")[2]
        if kind == "int":
            return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
        if kind == "float":
            return float(re.sub(r"\.(inf|nan)", r"\1", text.lower()))
        return {"null": None, "bool": text.lower() == "true"}[kind]

    def construct_object(self, node: Any, deep: bool = True) -> Any:
        return super().construct_object(node, deep=True)

    def construct_mapping(self, node: Any, deep: bool = True) -> dict[Any, Any]:
        # Keys of JSON are texts.
        return {key.value: self.construct_object(value) for key, value in node.value}


for kind, pattern, first in [
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", [*"tTfF"]),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", [*"-+0123456789"]),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", [*"-+.0123456789"]),
]:  # fmt: skip
    CoreLoader.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", re.compile(rf"(?:{pattern})\Z"), first)
    CoreLoader.add_constructor(f"tag:yaml.org,2002:{kind}", CoreLoader.construct_core)


def as_editors_see_it(text: str) -> Any:
    return yaml.load(text, CoreLoader)


def schema_accepts(text: str) -> bool:
    return VALIDATOR.is_valid(as_editors_see_it(text))


def step(text: str) -> str:
    return scenario_file("- connect: everyone", text)


EVERYONE_HEARS = """\
# yaml-language-server: $schema=../scenario.schema.json
title: Everyone hears a line, once, in order
about: The server keeps each client's socket and sends every line to all of them.
clauses: [chat.2, chat.3]
service: chat                    # under test: a name in docker-compose.yml; [chat, chat-eventloop] plays once for each
clients: [alice, bob, carol]     # each on a node of its own

steps:
  - connect: [alice, bob, carol]
  - send: {alice: hello}
  - expect: {alice: hello, bob: hello, carol: hello}
    within: 1s                   # the default is 2s; --patience 3 stretches every limit
  - together:                    # these run at once
      - send: {alice: {lines: 100, text: "a{n}"}}
      - send: {bob: {lines: 100, text: "b{n}"}}
  - expect: {everyone: {in_order: "a{n}", count: 100, once: true}}
  - send: {bob: quit}
  - expect: {bob: eof}
  - send: {alice: bye}
  - expect: {carol: bye}
"""
SAYS_THAT_IT_IS_THERE = """\
title: UDP has no connection until a client says that it is there
clauses: [registry.1, registry.2, registry.4]
service: udp-registry
clients: [alice, {bob: {beside: alice}}, carol]    # bob is a second program on alice's host: same address, another port
steps:
  - send: {alice: "#REG", bob: "#REG"}
  - expect: {alice: {any: true}, bob: {any: true}}
  - partition: [[alice], [server]]
  - send: {alice: lost}
  - quiet: {bob: 200ms}
  - heal: all
  - drop: {from: alice, to: server, nth: 1, match: "#DEREG"}
  - send: {alice: "#DEREG"}
  - delay: {from: server, to: alice, is: 100ms +- 20ms}
  - loss: {between: [bob, server], is: 10%}
"""
ACCEPTED = {
    "everyone hears a line": EVERYONE_HEARS,
    "udp has no connection": SAYS_THAT_IT_IS_THERE,
    **{
        text: step(text)
        for text in [
            "- {connect: alice, port: 7000, from: 5000, fails: timed out, within: 500ms}",
            "- connect: {alice: server, bob: {from: 0x1F90}, carol: {fails: refused}}",
            "- send: {alice: [one, 2, 3.5, true, no, 007, 1:30]}",
            "- send: {alice: {text: hello, pieces: [3, 1, rest], pause: 10ms}}",
            "- send: {alice: {text: hello, pieces: [each]}, bob: {hex: 00 ff, lines: 2, pause: 1.5s}}",
            "- send: {alice: {base64: aGk=, repeat: 1000}, bob: {bytes: \"\\x00\\xff\", to: server}}",
            '- send: {alice: ""}',
            "- expect: {alice: eof, bob: reset, carol: any}",
            "- expect: {alice: {eof: true}, bob: {reset: True}, carol: {any: TRUE, count: 2}}",
            '- expect: {alice: "/h.*o/", bob: {is: hello, once: true}, carol: [one, two]}',
            '- expect: {alice: {in_order: [a, b]}, bob: {any_order: "a{n}", count: 1e2}, carol: {exactly: sent}}',
            "- expect: {alice: {exactly: [a, b]}, bob: {text: eof, count: 2}, carol: {bytes: x, count: +2}}",
            "- expect: {alice: {hex: 00}, bob: {base64: aGk=}, carol: {error: unreachable}}",
            "- expect: {server: {log: hello, count: 2, once: true, only: ours}}",
            "- expect: {server: {exit: 0}}",
            "- expect: {server: {ended: true}}",
            "- {steady: server, within: 5s, hint: it forgets to close}",
            "- {expect: {alice: any}, as: greeting, within: 5s, note: what it says of its own}",
            "- quiet: {everyone: 200ms, }",
            "- expect: {wire: {from: alice, to: server, flags: SYN-ACK, count: 2}, alice: hello}",
            "- expect: {wire: {is: zero window, once: true}}",
            "- sockets: {server: {alice: ESTABLISHED, bob: gone}}",
            '- {sockets: {alice: {server: {state: CLOSE_WAIT, send-q: "> 0"}}, server: {listen: {accept-queue: 3}}}, within: 5s}',
            "- connect: {alice: {over: ipv6}, bob: {over: ipv4}}",
            "- half-close: alice",
            "- close: [alice, bob]",
            "- abort: everyone",
            "- {stall: alice, during: [{send: {bob: x}}]}",
            "- read: alice",
            "- set: {alice: {nodelay: true, rcvbuf: 4096, keepalive: 0}}",
            "- kill: server",
            "- {stop: server, within: 10s}",
            "- {pause: [server], during: [{note: it is frozen}]}",
            "- continue: server",
            "- restart: server",
            "- partition: [[alice, bob], server]",
            "- isolate: alice",
            "- {unplug: [alice, server], during: [{note: nobody is there}]}",
            "- plug: alice",
            "- cut: {from: alice, to: [server, bob]}",
            "- reject: [{between: [alice, server]}, {from: bob, to: server}]",
            "- drop: {from: alice, to: server}",
            "- drop: [{from: alice, to: server, nth: 2, flags: SYN-ACK}, {from: bob, to: server, nth: 2, flags: SYN-ACK}]",
            "- {drop: {from: alice, to: server, data: true, match: hello}, during: [{note: x}]}",
            "- {cut: {from: alice, to: server, after: {nth: 3, data: true}}, for: 2s}",
            "- {loss: {from: alice, to: server, is: 0.5%, burst: 3}, for: 500ms}",
            "- loss: {between: [alice, server], is: 100%}",
            "- delay: {from: server, to: alice, is: 1.5s+-200ms, reordering: true, after: {match: x}}",
            "- delay: {from: server, to: alice, is: 0ms}",
            "- duplicate: {from: server, to: alice, is: 5%}",
            "- reorder: {from: server, to: alice, is: 25%}",
            "- corrupt: {from: server, to: alice, is: 1%, silently: true}",
            "- rate: {from: server, to: alice, is: 1.5Mbit, queue: 10}",
            "- heal: {between: [alice, server]}",
            "- heal: [alice, {from: bob, to: server}]",
            "- together: [{send: {alice: x}}, {together: [{send: {bob: y}}]}]",
            '- repeat: {times: 2, steps: [{send: {alice: "a{round}"}}]}',
            "- {wait: 10ms, note: nothing tells when the buffer is full}",
            "- note: a caption",
        ]
    },
    "one service of several": scenario_file("- connect: alice", service="[chat, chat-eventloop]", services="registry"),
    "our own servers only": scenario_file("- connect: alice", only="ours"),
    "a server that nobody used before": scenario_file("- connect: alice", needs="fresh"),
    "a crowd": scenario_file("- connect: crowd", clients="[{crowd: 50}, {bob: {beside: server}}, {carol: {network: lab}}]"),
    "a crowd as one": scenario_file(
        "- connect: crowd",
        "- {load: crowd, within: 5s}",
        "- load: {crowd: {size: 1000, senders: 10, in-flight: 2, rate: 1000, lasts: 300ms, messages: 10}}",
        clients="[{crowd: {of: 100}}]",
    ),
    "a matrix": scenario_file(
        '- {connect: "{who}", within: "{limit}ms"}',
        '- send: {alice: {text: "{what}", repeat: "{size}", pieces: ["{size}"]}}',
        '- expect: {alice: {text: x, count: "{size}", once: "{yes}"}}',
        '- set: {alice: {nodelay: "{yes}"}}',
        service='"{which}"',
        matrix="{size: [1, 0x10], what: [x, \"\", 007], who: [alice], limit: [100], which: [chat], yes: [true]}",
    ),
}  # fmt: skip

REFUSED = {
    "no title": ("service: a\nclients: [b]\nsteps: [{note: c}]", 'a scenario needs title: (what it shows, as a sentence)'),
    "no service": ("title: a\nclients: [b]\nsteps: [{note: c}]", "a scenario needs service:"),
    "no clients": ("title: a\nservice: b\nsteps: [{note: c}]", "a scenario needs clients:"),
    "no steps": ("title: a\nservice: b\nclients: [c]", "a scenario needs steps:"),
    "a list": ("- title: a", "expected a scenario, got a list"),
    "a text": ("title", 'expected a scenario, got "title"'),
    "an unknown key": (scenario_file("- note: x", titel="x"), 'unknown key "titel" in a scenario. Did you mean "title"?'),
    "an empty title": (scenario_file("- note: x", title=""), "expected a text, got nothing"),
    "a map for a title": (scenario_file("- note: x", title="{n}"), 'expected a text, got a map; quote a text with { } or [ ] in it, like "{n}"'),
    "no client at all": (scenario_file("- note: x", clients="[]"), "expected a list with at least 1 in it, got 0"),
    "clients as a text": (scenario_file("- note: x", clients="alice"), 'expected a list, got "alice"'),
    "a client with a space": (scenario_file("- note: x", clients='[al ice]'), 'expected a name (a letter, then letters, digits, - _ .), got "al ice"'),
    "a client with a number": (scenario_file("- note: x", clients="[1st]"), "expected a name"),
    "a client called true": (scenario_file("- note: x", clients="[true]"), 'true is no text to other readers of YAML, write "true"'),
    "a client called null": (scenario_file("- note: x", clients="[null]"), "got nothing"),
    "a client with unknown options": (scenario_file("- note: x", clients="[{bob: {besides: alice}}]"), 'unknown key "besides" in the options of a client. Did you mean "beside"?'),
    "a crowd of none": (scenario_file("- note: x", clients="[{crowd: 0}]"), "expected a number of clients from 1 to 1000, got 0"),
    "a crowd in quotes": (scenario_file("- note: x", clients='[{crowd: "5"}]'), "a number stands without quotes"),
    "a crowd of one as one": (scenario_file("- note: x", clients="[{crowd: {of: 1}}]"), "expected a number of clients from 2 to 100000, got 1"),
    "a crowd of a million": (scenario_file("- note: x", clients="[{crowd: 1000000}]"), "from 1 to 1000, got 1000000"),
    "a clause without a number": (scenario_file("- note: x", clauses="[chat]"), "expected a clause of a contract, like chat.2"),
    "a clause of another contract": (scenario_file("- note: x", clauses="[chta.2]"), 'Did you mean "chat.2"?'),
    "a clause that no contract has": (scenario_file("- note: x", clauses="[chat.9]"), '"chat.9": the contract chat has clauses 1 to 8'),
    "needs: what nobody can give": (
        scenario_file("- note: x", needs="luck"),
        'expected fresh, got "luck"',
    ),
    "only: for others": (scenario_file("- note: x", only="theirs"), 'expected ours or advice, got "theirs"'),
    "an empty matrix": (scenario_file("- note: x", matrix="{}"), "an empty map"),
    "a matrix without values": (scenario_file("- note: x", matrix="{a: []}"), "at least 1"),
    **{
        text: (step(text), said)
        for text, said in {
            "- conect: alice": 'unknown verb or modifier "conect". Did you mean "connect"?',
            "- connect": '"connect" needs to be told whom: - connect: …',
            "- bye": 'expected a step, got "bye"',
            "- {}": "a step without a verb",
            "- {within: 1s}": "a step without a verb",
            "- {send: {alice: x}, expect: {alice: x}}": 'two verbs in one step, "send" and "expect"; give each a "- " of its own, or put them into together:',
            "- {send: {alice: x}, wihtin: 1s}": 'Did you mean "within"?',
            "- {quiet: {alice: 1s}, within: 1s}": "within: says nothing about quiet; it goes with connect, send, expect, load, sockets, steady, stop, restart, repeat",
            "- {send: {alice: x}, during: [{note: x}]}": "during: says nothing about send; it goes with partition, isolate, cut, reject, drop, loss, delay, duplicate, reorder, corrupt, rate, unplug, pause, stall",
            "- {send: {alice: x}, as: y}": "as: says nothing about send; it goes with expect",
            "- {send: {alice: x}, fails: refused}": 'unknown verb or modifier "fails"',
            "- {expect: {alice: x}, as: 1st}": "expected a name for what was caught",
            "- {connect: alice, fails: refsed}": 'expected refused, timed out, unreachable or reset, got "refsed". Did you mean "refused"?',
            "- {connect: alice, port: 0}": "expected a port from 1 to 65535, got 0",
            "- {connect: alice, port: http}": 'expected a port, got "http"',
            "- connect:": "expected a client, a list of clients, or a map of clients with options, got nothing",
            "- send: alice": 'expected clients with what they send, like {alice: hello}, got "alice"',
            "- send: {}": "got an empty map",
            "- send: {alice: {}}": "a message needs one of text, bytes, hex, base64",
            "- send: {alice: {text: a, hex: 00}}": '"text" and "hex" stand in the same message; one of them only',
            "- send: {alice: {txet: a}}": 'unknown key "txet" in a message. Did you mean "text"?',
            "- send: {alice: {text: a, pause: 1s}}": "pause: needs pieces: or lines: beside it",
            "- send: {alice: {text: a, lines: 0}}": "expected a number of lines from 1 to 1000000, got 0",
            "- send: {alice: {text: a, lines: 1.5}}": 'expected a number of lines, got "1.5"',
            "- send: {alice: {text: a, lines: 1_000}}": 'expected a number of lines, got "1_000"',
            "- send: {alice: {text: a, repeat: 99999999999999999999999999999999999999999}}": "expected a number of repetitions",
            "- send: {alice: {text: a, pieces: [0]}}": 'expected a size in bytes, "rest", or "each" (byte by byte), got "0"',
            "- send: {alice: {text: a, pieces: []}}": "at least 1",
            "- send: {alice: []}": "at least 1",
            "- send: {alice: [[a]]}": "expected a text, got a list",
            "- send: {alice: }": "got nothing",
            "- expect: {alice: {}}": "expected an expectation: a map with one of text, is,",
            "- expect: {alice: {txt: a}}": 'Did you mean "text"?',
            "- expect: {alice: {text: a, is: b}}": 'unknown key "is" in an expectation',
            "- expect: {alice: {eof: true, count: 2}}": 'unknown key "count" in an expectation',
            "- expect: {alice: {text: a, once: false}}": 'expected true, got "false"; leave the key out for the opposite',
            "- expect: {alice: {error: broken}}": "expected refused, timed out or unreachable",
            "- expect: {server: {exit: 256}}": "expected an exit status from 0 to 255, got 256",
            "- quiet: {alice: 200}": 'expected a duration with its unit, like 200ms or 2s, got "200"',
            "- quiet: {alice: 2 s}": "expected a duration with its unit",
            "- quiet: {alice: 1h}": "expected a duration with its unit",
            "- quiet: {alice: -1s}": "expected a duration with its unit",
            "- set: {alice: {nodeley: 1}}": 'Did you mean "nodelay"?',
            "- set: {alice: {nodelay: yes}}": 'expected a whole number, true or false, got "yes"',
            "- partition: [[alice]]": "expected a list of groups, like [[alice], [server]] with at least 2 in it, got 1",
            "- partition: alice": "expected a list of groups",
            "- cut: alice": "expected a link, {from: a, to: b} or {between: [a, b]}",
            "- cut: {from: alice}": "a link needs to: (towards whom)",
            "- cut: {to: alice}": "a link needs from: (whose packets)",
            "- cut: {between: [alice]}": "at least 2",
            "- cut: {between: [alice, bob], from: carol}": 'unknown key "between" in a link',
            "- cut: {frm: alice, to: bob}": 'unknown key "frm" in a link. Did you mean "from"?',
            "- loss: {from: alice, to: bob}": "a link needs is: (how many are lost)",
            "- loss: {from: alice, to: bob, is: 120%}": 'expected a percentage over 0% and up to 100%, like 10% or 0.5%, got "120%"',
            "- loss: {from: alice, to: bob, is: 0%}": "expected a percentage over 0%",
            "- loss: {from: alice, to: bob, is: 0.1}": "expected a percentage over 0%",
            "- loss: {from: alice, to: bob, is: 10%, burst: 1}": "expected packets from 2 to 1000, got 1",
            "- delay: {from: alice, to: bob, is: -5ms}": 'expected a duration, or one that varies, like 100ms or 100ms +- 20ms, got "-5ms"',
            "- delay: {from: alice, to: bob, is: 100}": "expected a duration, or one that varies",
            "- delay: {from: alice, to: bob, is: 5ms +- }": "expected a duration, or one that varies",
            "- rate: {from: alice, to: bob, is: 0bit}": "expected a rate in bits a second, like 64kbit or 1.5Mbit",
            "- rate: {from: alice, to: bob, is: 1MB}": "expected a rate in bits a second",
            "- drop: {from: alice, to: bob, nth: 0}": "expected which of them from 1 to 1000000, got 0",
            "- drop: {from: alice, to: bob, flags: syn}": "expected SYN, SYN-ACK, FIN, RST or ACK",
            "- drop: {from: alice, to: bob, is: 10%}": 'unknown key "is" in a link',
            "- corrupt: {from: alice, to: bob, is: 1%, silently: false}": "expected true",
            "- {send: {alice: x}, for: 2s}": "for: says nothing about send; it goes with partition,",
            "- expect: {wire: {from: alice}}": "what passes on the wire needs flags: or is:",
            "- expect: {wire: {flags: PSH}}": "expected SYN, SYN-ACK, FIN or RST",
            "- expect: {wire: hello}": "expected what passes on the wire",
            "- sockets: {server: {alice: OPEN}}": "expected ESTABLISHED,",
            "- sockets: {server: {alice: {send-q: many}}}": "expected a number, or a bound like > 0",
            "- sockets: {server: {alice: {}}}": "a socket needs state: or send-q:",
            "- load: {crowd: {size: 1}}": "expected a number of bytes from 16 to 60000, got 1",
            "- load: {crowd: {speakers: 1}}": 'unknown key "speakers" in a load',
            "- sockets: server": "expected whose kernel is asked",
            "- together: []": "at least 1",
            "- together: {send: {alice: x}}": "expected a list of steps, got a map",
            "- repeat: {times: 0, steps: [{note: x}]}": "expected a number of rounds from 1 to 100000, got 0",
            "- repeat: {steps: [{note: x}]}": "repeat needs times: (how often)",
            "- wait: 1s": "wait: needs a note: that says why; to wait for something, expect it",
            "- note: []": "expected a text, got a list",
        }.items()
    },
}  # fmt: skip

ONLY_THE_PARSER_KNOWS = {
    "that no packet arrives before it was sent": step("- delay: {from: alice, to: bob, is: 5ms +- 6ms}"),
    "that links of one step have one fault": step(
        "- loss: [{from: alice, to: bob, is: 1%}, {from: bob, to: alice, is: 2%}]"
    ),
    "who the clients are": step("- send: {dave: x}"),
    "who is a crowd": step("- load: alice"),
    "who the servers are": step("- kill: database"),
    "what was caught": step('- send: {alice: "{token}"}'),
    "what {n} counts": step('- send: {alice: "{n}"}'),
    "what {round} counts": step('- send: {alice: "{round}"}'),
    "a regular expression": step('- expect: {alice: "/(/"}'),
    "hexadecimal": step("- send: {alice: {hex: 0g}}"),
    "base64": step("- send: {alice: {base64: a}}"),
    "which characters are single bytes": step('- send: {alice: {bytes: "€"}}'),
    "who is connected": step("- close: alice\n- send: {alice: x}"),
    "where each and rest stand": step("- send: {alice: {text: abc, pieces: [rest, 1]}}"),
    "which clauses go together": scenario_file("- note: x", clauses="[chat.1, echo.1]"),
    "that names differ": scenario_file("- note: x", clients="[alice, alice]"),
    "the words of the language": scenario_file("- note: x", clients="[everyone]"),
    "that a matrix has this variable": step('- {connect: "{who}"}'),
    "that eof in a list is a text": step("- expect: {alice: [bye, eof]}"),
    "what a link joins": step("- cut: {from: alice, to: alice}"),
    "how much a gigabyte is": step("- send: {alice: {text: abc, repeat: 1000000000}}"),
}


def test_the_schema_is_a_valid_schema() -> None:
    """It keeps to JSON Schema, draft 2020-12."""
    jsonschema.Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_is_right_is_accepted_by_the_parser_and_the_schema(name: str) -> None:
    """An editor marks nothing that can be played."""
    assert read(ACCEPTED[name])
    assert list(VALIDATOR.iter_errors(as_editors_see_it(ACCEPTED[name]))) == []


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_refused_by_the_parser_and_the_schema(name: str) -> None:
    """The parser says what was expected, and the schema refuses the same file."""
    text, said = REFUSED[name]
    assert said in refusal(text).message
    assert not schema_accepts(text)


@pytest.mark.parametrize("name", ONLY_THE_PARSER_KNOWS)
def test_the_schema_leaves_to_the_parser(name: str) -> None:
    """What a schema cannot say is refused when the file is read, before anything starts."""
    assert schema_accepts(ONLY_THE_PARSER_KNOWS[name])
    refusal(ONLY_THE_PARSER_KNOWS[name])


def test_every_verb_is_among_the_accepted_files() -> None:
    """A new verb brings its example here."""
    shown = "\n".join(ACCEPTED.values())
    assert [verb for verb in VERBS if not re.search(rf"[-{{] ?{verb}:", shown)] == []


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_library_passes_the_parser_and_the_schema(path: Path) -> None:
    """An editor shows no error in any scenario of the project."""
    text = path.read_text(encoding="utf-8")
    assert read(text)
    assert list(VALIDATOR.iter_errors(as_editors_see_it(text))) == []


def test_the_first_line_of_each_scenario_leads_an_editor_to_the_schema() -> None:
    """The path in it is relative to the scenario, and the file is there."""
    for path in LIBRARY:
        found = re.match(r"# yaml-language-server: \$schema=(\S+)\n", path.read_text(encoding="utf-8"))
        assert found, path
        assert (path.parent / found[1]).resolve() == ROOT / "scenario.schema.json"


def test_the_schema_knows_every_clause() -> None:
    """So that an editor completes them."""
    clauses = {f"{c.name}.{i}" for c in CONTRACTS.values() for i in range(1, len(c.clauses) + 1)}
    assert clauses <= set(
        re.findall(r'"((?:echo|chat|udp-echo|registry)\.[0-9])"', json.dumps(json_schema()))
    )


# ── the same, for files that nobody has thought of ────────────────────────────────────────────────────────────────────


def texts_in(tree: Any) -> list[str]:
    return [str(value) for path in places(tree) if not isinstance(value := at(tree, path), dict | list)]


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    below = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path, *(place for key, value in below for place in places(value, (*path, key)))]


def at(tree: Any, path: tuple[Any, ...]) -> Any:
    return at(tree[path[0]], path[1:]) if path else tree


# Variables and the numbers of clauses are checked after the grammar, where a message can say more.
PLAIN = [
    document
    for document in map(as_editors_see_it, ACCEPTED.values())
    if "clauses" not in document and not any("{" in text for text in texts_in(document))
]
VALUES = st.sampled_from(
    [
        "alice",
        "server",
        "eof",
        "1s",
        "200ms",
        "rest",
        "x y",
        "",
        "null",
        "true",
        0,
        1,
        2,
        70_000,
        10**12,
        1.5,
        2.0,
        True,
        False,
        None,
        [],
        {},
        [[]],
        ["alice"],
        {"alice": "x"},
        {"from": "alice", "to": "bob"},
        {"text": "x"},
    ]
)
KEYS = st.sampled_from(
    [*VERBS, "within", "as", "note", "count", "once", "text", "beside", "to", "from", "fails", "x"]
)


def changed(tree: Any, path: tuple[Any, ...], change: Any) -> Any:
    if not path:
        return change(tree)
    if isinstance(tree, dict):
        return {k: changed(v, path[1:], change) if k == path[0] else v for k, v in tree.items()}
    return [changed(v, path[1:], change) if i == path[0] else v for i, v in enumerate(tree)]


@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(st.data())
def test_the_parser_and_the_schema_agree_on_any_file(data: st.DataObject) -> None:
    """One place of a right file is replaced, removed or added to: both accept what comes of it, or both refuse it."""
    tree = data.draw(st.sampled_from(PLAIN))
    path = data.draw(st.sampled_from(places(tree)))
    kind = data.draw(st.sampled_from(["replace", "remove", "add", "rename"]))

    def change(value: Any) -> Any:
        if kind == "replace" or not isinstance(value, dict | list) or not value:
            return data.draw(VALUES)
        if isinstance(value, list):
            return value[1:] if kind == "remove" else [*value, data.draw(VALUES)]
        first, *others = value
        if kind == "remove":
            return {key: value[key] for key in others}
        if kind == "rename":
            return {data.draw(KEYS): value[first], **{key: value[key] for key in others}}
        return {**value, data.draw(KEYS): data.draw(VALUES)}

    document = changed(tree, path, change)
    text = json.dumps(document)
    try:
        SCENARIO.parse(Source.parse(text, PATH).tree)
        parser_accepts = True
    except (Problem, ScenarioError):
        parser_accepts = False
    assert parser_accepts == VALIDATOR.is_valid(document), text
