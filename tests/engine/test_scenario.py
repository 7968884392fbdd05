"""What a scenario file means, and what is refused because it means nothing: names, connections, captures."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from socklab.scenario import load
from socklab.source import ScenarioError, Source
from socklab.steps import Client, ConnectOptions, Expectation, Pattern, Payload
from socklab.texts import expand, expand_regex
from tests.engine.test_language import ACCEPTED, EVERYONE_HEARS, LIBRARY, SAYS_THAT_IT_IS_THERE
from tests.engine.written import expectation, marked, read, refusal, refused_step, scenario_file, steps_of

# ── texts ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("text", ["no", "007", "1:30", "1.0", "0x1F", "1_000", "true", "3.5", "yes", "1e3"])
def test_a_text_place_takes_the_scalar_as_it_is_written(text: str) -> None:
    """A student who sends 007 gets no 7."""
    step = steps_of(f"- send: {{alice: {text}}}").steps[-1]
    assert step.sends == (("alice", (Payload(text),)),)
    assert expectation(text).patterns == (Pattern("contains", text),)


def test_n_counts_from_one_and_braces_are_doubled() -> None:
    """The three things that braces are for."""
    assert expand("a{n} {{n}} {name}", {"n": "1", "name": "x"}) == "a1 {n} x"
    assert expand_regex("a{n}{2} {name}{1,2}", {"n": "1", "name": "x.y"}) == r"a1{2} x\.y{1,2}"


@pytest.mark.parametrize(
    ("step", "said", "at"),
    [
        ('- send: {alice: "a{n}"}', "{n} counts with lines: (send) or count: (expect); write {{n}} for the characters", '"a{n}"'),
        ('- expect: {alice: "a{n}"}', "{n} counts with lines: (send) or count: (expect)", '"a{n}"'),
        ('- send: {alice: "{token}"}', 'nothing called "token" was caught before. To write the characters, double the braces: {{token}}', '"{token}"'),
        ('- send: {alice: "{round}"}', "{round} counts the rounds of repeat:", '"{round}"'),
        ('- send: {alice: "a { b"}', "a single brace; write {{ or }} for the character", '"a { b"'),
        ('- send: {alice: "a } b"}', "a single brace", '"a } b"'),
        ('- expect: {alice: "/{token}/"}', 'nothing called "token" was caught before', '"/{token}/"'),
        ('- expect: {alice: "/(/"}', "not a regular expression", '"/(/"'),
        ('- expect: {alice: "/a{9999999999}/"}', "not a regular expression", '"/a{9999999999}/"'),
        ('- expect: {alice: {in_order: "a"}}', "several are expected here: a list, or a text with {n} and count:", '"a"'),
        ('- expect: {alice: {in_order: "a{n}"}}', "a text with {n} needs count: beside it", '"a{n}"'),
        ("- expect: {alice: {in_order: [a, b], count: 2}}", "count: goes with a text with {n}; a list counts itself", "count: 2"),
        ("- send: {alice: {hex: 0g}}", "not valid hex", "0g"),
        ("- send: {alice: {base64: a}}", "not valid base64", "a}}"),
        ('- send: {alice: {bytes: "€"}}', '"€" is no single byte', '"€"'),
        ("- send: {alice: {text: abc, repeat: 1000000000}}", "more than 1 GiB", "repeat:"),
        ("- send: {alice: {text: abc, pieces: [rest, 1]}}", '"rest" comes last', "pieces:"),
        ("- send: {alice: {text: abc, pieces: [each, 1]}}", '"each" stands alone', "pieces:"),
    ],
)  # fmt: skip
def test_a_text_that_cannot_be_made_is_refused(step: str, said: str, at: str) -> None:
    """Before anything starts, at the place where it stands, with the way out."""
    error = refused_step(step)
    assert said in error.message
    assert marked(error).startswith(at)


def test_a_capture_is_known_to_the_steps_behind_it() -> None:
    """`as` keeps one message; `{name}` in later texts stands for it."""
    steps_of(
        "- {expect: {alice: any}, as: token}", '- send: {alice: "{token}"}', '- expect: {alice: "/{token}+/"}'
    )
    error = refused_step('- send: {alice: "{token}"}', "- {expect: {alice: any}, as: token}")
    assert 'nothing called "token" was caught before' in error.message


def test_a_near_miss_of_a_capture_is_suggested() -> None:
    """A typing error in a name is told as one."""
    error = refused_step("- {expect: {alice: any}, as: token}", '- send: {alice: "{tokne}"}')
    assert 'Did you mean "token"?' in error.message


@pytest.mark.parametrize(
    "step",
    [
        "- {expect: {alice: x, bob: x}, as: one}",
        "- {expect: {alice: eof}, as: one}",
        "- {expect: {alice: [x, y]}, as: one}",
        "- {expect: {alice: {text: x, count: 2}}, as: one}",
        '- {expect: {alice: {in_order: "a{n}", count: 2}}, as: one}',
        "- {expect: {alice: {exactly: sent}}, as: one}",
    ],
)
def test_as_keeps_one_message(step: str) -> None:
    """Where there could be several, or none, there is nothing to keep."""
    assert "as: keeps one message" in refused_step(step).message


@pytest.mark.parametrize("name", ["n", "round", "size"])
def test_a_capture_takes_no_name_that_has_a_meaning(name: str) -> None:
    """{n} and {round} count, and {size} is the matrix's here."""
    error = refused_step(f"- {{expect: {{alice: any}}, as: {name}}}", matrix="{size: [1]}")
    assert f'"{name}" has a meaning already' in error.message


def test_steps_at_once_do_not_know_each_others_captures() -> None:
    """In together: nobody knows who is first; behind it all captures are there."""
    together = "- together:\n    - {expect: {alice: any}, as: one}\n    - %s"
    assert 'nothing called "one"' in refused_step(together % '{send: {bob: "{one}"}}').message
    steps_of(together % "{send: {bob: x}}", '- send: {bob: "{one}"}')


def test_round_counts_inside_repeat() -> None:
    """Also in what is nested in it, and in during:."""
    steps_of('- repeat: {times: 2, steps: [{together: [{send: {alice: "{round}"}}]}]}')
    assert (
        "{round} counts"
        in refused_step("- repeat: {times: 2, steps: [{note: x}]}", '- send: {alice: "{round}"}').message
    )


# ── names ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("word", ["server", "everyone", "all", "from", "to", "between"])
def test_no_client_and_no_further_service_has_a_word_of_the_language_for_a_name(word: str) -> None:
    """Names are disjoint, so that a step means one thing."""
    for head in ({"clients": f"[{word}]"}, {"clients": f"[{{{word}: 5}}]"}, {"services": word}):
        error = refusal(scenario_file("- note: x", **head))
        assert f'"{word}"' in error.message
        assert marked(error).startswith(word)


def test_a_compose_file_may_call_its_service_server() -> None:
    """It is called so in the scenario anyway."""
    assert read(scenario_file("- kill: server", service="server"))[0].service == "server"
    assert "is a word of the language" in refusal(scenario_file("- note: x", service="all")).message


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ({"clients": "[chat]"}, '"chat" is also the name of a service'),
        ({"clients": "[registry]", "services": "registry"}, '"registry" is also the name of a service'),
        ({"clients": "[alice, alice]"}, 'a second client called "alice"'),
        ({"clients": "[{crowd: 5}, crowd3]"}, 'a second client called "crowd3"'),
        ({"clients": "[crowd3, {crowd: 5}]"}, 'a second client called "crowd3"'),
        ({"clients": "[{crowd: 5}, crowd]"}, 'a second client called "crowd"'),
        ({"clients": "[alice, {alice: 5}]"}, 'the name "alice" is taken'),
        ({"clients": "[{a: 600}, {b: 600}]"}, "more than 1000 clients"),
        ({"clients": "[{bob: {beside: alice}}, alice]"}, 'no client "alice" stands before "bob"'),
        ({"clients": "[alice, {bob: {beside: alcie}}]"}, 'Did you mean "alice"?'),
        ({"clients": "[alice, {bob: {beside: alice, network: lab}}]"}, "bob shares the host of alice, and with it its networks"),
        ({"service": "[chat, chat]"}, 'the service "chat" is named twice'),
        ({"service": "[chat, eventloop]", "services": "chat"}, 'the service "chat" is named twice'),
        ({"clauses": "[chat.9]"}, '"chat.9": the contract chat has clauses 1 to 8'),
        ({"clauses": "[chat.1, echo.1]"}, '"echo.1" beside clauses of chat; one scenario holds one contract'),
        ({"matrix": "{n: [1]}"}, '"n" counts by itself'),
        ({"matrix": "{a: [1, 2, 3, 4, 5, 6, 7, 8, 9, 0], b: [1, 2, 3, 4, 5, 6, 7, 8, 9, 0], c: [1, 2, 3, 4, 5, 6, 7, 8, 9, 0], d: [1, 2]}"}, "2000 combinations; at most 1000"),
    ],
)  # fmt: skip
def test_names_that_would_be_unclear_are_refused(head: dict[str, str], said: str) -> None:
    """Clients, services and clauses, each with its reason."""
    assert said in refusal(scenario_file("- note: x", **head)).message


@pytest.mark.parametrize(
    ("step", "said", "at"),
    [
        ("- send: {alcie: x}", 'no client "alcie". Did you mean "alice"?', "alcie"),
        ("- send: {dave: x}", 'no client "dave". Clients: alice, bob, carol', "dave"),
        ("- send: {server: x}", '"server" is no client; a client is asked for here', "server"),
        ("- send: {everyone: x, alice: y}", '"alice" is named twice in this step', "everyone"),
        ("- close: [alice, alice]", '"alice" is named twice', "alice, alice"),
        ("- kill: alice", 'no server "alice".', "alice"),
        ("- kill: chat", 'the service under test is called server here, so that the file judges any server: write "server", not "chat"', "chat"),
        ("- kill: regstry", 'Did you mean "registry"?', "regstry"),
        ("- isolate: chat", 'write "server", not "chat"', "chat"),
        ("- isolate: sever", 'no client or server "sever". Did you mean "server"?', "sever"),
        ("- expect: {server: hello}", "what is expected of server is {log: …}, {exit: 0} or {ended: true}", "server"),
        ("- expect: {alice: {log: x}}", 'log: and exit: are expected of a server, not of "alice"', "alice"),
        ("- cut: {from: alice, to: alice}", "there is no link from alice to itself", "cut:"),
        ("- cut: {from: carol, to: dora}", "there is no link from carol to dora, on the same host", "cut:"),
        ("- partition: [[alice], [alice, server]]", '"alice" is named twice in this step', "partition:"),
        ("- heal: [all, alice]", "all: stands alone", "all"),
        ("- loss: {from: alcie, to: server, is: 10%}", 'no client or server "alcie". Did you mean "alice"?', "alcie"),
    ],
)  # fmt: skip
def test_a_step_that_names_nobody_is_refused(step: str, said: str, at: str) -> None:
    """With the nearest name, under a caret."""
    error = refused_step(
        step,
        clients="[alice, bob, carol, {dora: {beside: carol}}]" if "dora" in step else "[alice, bob, carol]",
        services="registry",
    )
    assert said in error.message
    assert marked(error).startswith(at)


def test_a_crowd_is_many_clients_under_one_name() -> None:
    """crowd1 … crowd50, each also by its own name, and all of them in everyone."""
    play = steps_of("- send: {crowd: x}", "- close: [alice, crowd]", clients="[alice, {crowd: 50}]")
    members = tuple(f"crowd{i}" for i in range(1, 51))
    assert tuple(client.name for client in play.clients) == ("alice", *members)
    assert tuple(name for name, _ in play.steps[0].connects) == ("alice", *members)
    assert tuple(name for name, _ in play.steps[1].sends) == members
    assert play.steps[2].names == ("alice", *members)


def test_beside_puts_two_programs_on_one_host() -> None:
    """Of a client or of the server."""
    play = steps_of(
        "- note: x",
        clients="[alice, {bob: {beside: alice}}, {carol: {beside: server}}, {dave: {network: [a, b]}}]",
    )
    assert play.clients == (
        Client("alice"),
        Client("bob", "alice"),
        Client("carol", "server"),
        Client("dave", None, ("a", "b")),
    )


def test_a_file_with_several_services_plays_once_for_each() -> None:
    """So one file judges them all."""
    plays = read(scenario_file("- kill: server", service="[chat, chat-eventloop]"))
    assert [(play.service, play.label) for play in plays] == [
        ("chat", "lesson[chat]"),
        ("chat-eventloop", "lesson[chat-eventloop]"),
    ]


def test_a_matrix_plays_once_for_each_combination() -> None:
    """A variable stands in texts and, alone in quotes, for numbers, names and flags."""
    plays = read(
        scenario_file(
            '- {connect: "{who}", within: "{limit}ms"}',
            '- send: {alice: {text: "{what}-{size}", repeat: "{size}"}}',
            '- expect: {alice: {text: "{what}", once: "{once}"}}',
            clients="[alice]",
            matrix='{size: [1, 1000], what: [no, ""], who: [alice], limit: [50], once: [true]}',
        )
    )
    assert [play.label for play in plays] == [
        "lesson[size=1, what=no, who=alice, limit=50, once=true]",
        "lesson[size=1, what=, who=alice, limit=50, once=true]",
        "lesson[size=1000, what=no, who=alice, limit=50, once=true]",
        "lesson[size=1000, what=, who=alice, limit=50, once=true]",
    ]
    connect, send, expect = plays[3].steps
    assert (connect.connects, connect.within) == ((("alice", ConnectOptions()),), 0.05)
    assert send.sends == (("alice", (Payload("-1000", repeat=1000),)),)
    assert expect.expects == (("alice", Expectation("sequence", (Pattern("contains", ""),), once=True)),)


def test_an_error_in_a_matrix_value_is_marked_where_it_is_used() -> None:
    """The variable's place is the one to look at."""
    error = refusal(scenario_file('- send: {alice: {text: x, repeat: "{size}"}}', matrix="{size: [1, big]}"))
    assert 'expected a number of repetitions, got "big"' in error.message
    assert marked(error).startswith('"{size}"')


# ── connections ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (("- close: alice", "- send: {alice: x}"), "send: alice closed its socket before; connect it again first"),
        (("- abort: alice", "- half-close: alice"), "half-close: alice closed its socket before"),
        (("- close: alice", "- expect: {alice: x}"), "expect: alice closed its socket before, it can get nothing"),
        (("- close: alice", "- quiet: {alice: 1s}"), "quiet: alice closed its socket before, so its silence proves nothing"),
        (("- half-close: alice", "- send: {alice: x}"), "send: alice half-closed its connection before, it can send no more"),
        (("- repeat: {times: 2, steps: [{send: {alice: x}}, {close: alice}]}",), "send: alice closed its socket before"),
    ],
)  # fmt: skip
def test_nothing_is_asked_of_a_closed_socket(steps: tuple[str, ...], said: str) -> None:
    """What the client did itself is known before anything starts."""
    assert said in refused_step(*steps).message


def test_a_client_that_connects_again_is_whole() -> None:
    """Also in every round of a repeat:."""
    steps_of("- half-close: alice", "- close: alice", "- connect: alice", "- send: {alice: x}")
    steps_of(
        "- close: alice",
        "- repeat: {times: 2, steps: [{connect: alice}, {send: {alice: x}}, {close: alice}]}",
    )


def test_over_tcp_a_client_connects_first() -> None:
    """Whether it is TCP, the compose file tells; then the place is known."""
    (play,) = read(scenario_file("- send: {alice: x}"))
    with pytest.raises(
        ScenarioError, match="send: alice is not connected; put `connect: alice` before it"
    ) as caught:
        play.require_connections()
    assert marked(caught.value).startswith("alice: x")
    steps_of("- send: {alice: x}").require_connections()
    read(SAYS_THAT_IT_IS_THERE)[0].require_connections()


def test_over_udp_no_connection_ends() -> None:
    """There is none."""
    error = refusal(scenario_file("- expect: {alice: eof}", clauses="[registry.1]"))
    assert "eof: UDP has no connections, so none can end" in error.message


@pytest.mark.parametrize(
    ("step", "says"),
    [
        ("send: {crowd: hello}", "send: crowd is 5 clients as one; it can connect, load, close, abort"),
        ("stall: crowd", "stall: crowd is 5 clients as one"),
        (
            "connect: {crowd: {fails: refused}}",
            "crowd is 5 clients as one; it takes no `fails` and no `from`",
        ),
        ("{connect: [alice, crowd], from: 5000}", "it takes no `fails` and no `from`"),
    ],
)
def test_what_a_crowd_as_one_cannot_do_is_refused(step: str, says: str) -> None:
    file = scenario_file("- connect: crowd", f"- {step}", clients="[alice, {crowd: {of: 5}}]")
    assert says in refusal(file).message


# ── expectations ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("written", "meant", "told"),
    [
        ("hello", Expectation("sequence", (Pattern("contains", "hello"),)), '"hello"'),
        ('"eof"', Expectation("sequence", (Pattern("contains", "eof"),)), '"eof"'),
        ("eof", Expectation("eof"), "the connection to end (eof)"),
        ("{reset: true}", Expectation("reset"), "the connection to end (reset)"),
        ("any", Expectation("sequence", (Pattern("any"),)), "any message"),
        ("/h.*o/", Expectation("sequence", (Pattern("regex", "h.*o"),)), "/h.*o/"),
        ("/", Expectation("sequence", (Pattern("contains", "/"),)), '"/"'),
        ("{is: /x/, count: 2}", Expectation("sequence", (Pattern("is", "/x/"),), 2), 'exactly "/x/" 2 times'),
        ("[a, b]", Expectation("sequence", (Pattern("contains", "a"), Pattern("contains", "b"))), '"a", "b" in this order'),
        ("{any_order: [a, b], once: true}", Expectation("set", (Pattern("contains", "a"), Pattern("contains", "b")), once=True), '"a", "b" in any order, nothing twice'),
        ('{in_order: "a{n}", count: 9}', Expectation("sequence", (Pattern("contains", "a{n}"),), 9, family=True), '"a{n}" for n = 1…9, in order'),
        ("{exactly: [a]}", Expectation("exactly", (Pattern("contains", "a"),)), 'exactly ["a"] and nothing else'),
        ("{exactly: sent}", Expectation("sent"), "exactly what it sent"),
        ('{exactly: "sent"}', Expectation("exactly", (Pattern("contains", "sent"),)), 'exactly ["sent"] and nothing else'),
        ('{hex: "00 ff"}', Expectation("sequence", (Pattern("bytes", b"\x00\xff"),)), "the bytes b'\\x00\\xff'"),
        ('{bytes: "\\xff"}', Expectation("sequence", (Pattern("bytes", b"\xff"),)), "the bytes b'\\xff'"),
        ("{error: refused}", Expectation("error", word="refused"), 'the error "refused"'),
    ],
)  # fmt: skip
def test_an_expectation_means_and_is_told(written: str, meant: Expectation, told: str) -> None:
    """As it is written, what is waited for, and how a failure tells it."""
    assert expectation(written) == meant
    assert str(meant) == told


@pytest.mark.parametrize("word", ["eof", "reset", "any"])
@pytest.mark.parametrize(
    "written", ["[bye, %s]", "{in_order: [bye, %s]}", "{any_order: [%s, bye]}", "{exactly: [bye, %s]}"]
)
def test_the_end_of_a_connection_stands_in_no_list_of_texts(written: str, word: str) -> None:
    """Waiting for a line "eof" would blame a server that closes; in quotes it is one."""
    error = refused_step(f"- expect: {{alice: {written % word}}}")
    assert f'in a list, {word} would be a text: write "{word}" for that' in error.message
    assert marked(error).startswith(word)
    expectation(written % f'"{word}"')


def test_regexes_that_python_only_warns_of_are_quiet(recwarn: pytest.WarningsRecorder) -> None:
    """A warning of the interpreter is nothing for a terminal."""
    expectation('"/[[a]/"')
    assert not recwarn.list


def test_what_is_told_of_an_expectation_drives_no_terminal() -> None:
    """A failure quotes texts from the file."""
    assert str(expectation('"a\\e[2J\\nb"')) == '"a\\x1b[2J\\nb"'


# ── links ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("step", "links"),
    [
        ("- cut: {from: alice, to: server}", {("alice", "server")}),
        ("- cut: {between: [alice, server]}", {("alice", "server"), ("server", "alice")}),
        ("- reject: [{from: [alice, bob], to: server}]", {("alice", "server"), ("bob", "server")}),
        ("- partition: [[alice, server], bob]", {("alice", "bob"), ("bob", "alice"), ("server", "bob"), ("bob", "server")}),
        ("- isolate: alice", {(a, b) for a, b in [("alice", "bob"), ("alice", "carol"), ("alice", "server")]} | {("bob", "alice"), ("carol", "alice"), ("server", "alice")}),
        ("- heal: {from: alice, to: server}", {("alice", "server")}),
        ("- heal: bob", {("bob", "alice"), ("alice", "bob"), ("bob", "carol"), ("carol", "bob"), ("bob", "server"), ("server", "bob")}),
        ("- heal: all", set()),
    ],
)  # fmt: skip
def test_a_fault_is_a_set_of_directed_links(step: str, links: set[tuple[str, str]]) -> None:
    """`from` and `to` are one way, `between` and groups are both."""
    assert set(steps_of(step).steps[-1].links) == links


def test_isolated_clients_do_not_hear_each_other_either() -> None:
    """Each of them is alone; what shares a host stays together."""
    play = steps_of("- isolate: [alice, bob]", clients="[alice, bob, {dora: {beside: alice}}]")
    assert set(play.steps[-1].links) == {
        pair
        for a, b in [("alice", "bob"), ("alice", "server"), ("bob", "server"), ("bob", "dora")]
        for pair in [(a, b), (b, a)]
    }


@pytest.mark.timeout(20)
def test_a_thousand_clients_can_be_isolated() -> None:
    """All of them, from each other and from the server."""
    play = steps_of("- isolate: crowd", clients="[{crowd: 1000}]")
    assert len(play.steps[-1].links) == 1000 * 1000 + 1000


# ── steps ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_step_knows_its_line_and_its_text() -> None:
    """Also a step over several lines, with a comment, inside another, or in one line with others."""
    (play,) = read(EVERYONE_HEARS)
    assert [(step.line, step.text) for step in play.walk()][2:6] == [
        (11, "expect: {alice: hello, bob: hello, carol: hello} within: 1s"),
        (
            13,
            'together: - send: {alice: {lines: 100, text: "a{n}"}} - send: {bob: {lines: 100, text: "b{n}"}}',
        ),
        (14, 'send: {alice: {lines: 100, text: "a{n}"}}'),
        (15, 'send: {bob: {lines: 100, text: "b{n}"}}'),
    ]


def test_modifiers_and_flow_are_part_of_their_step() -> None:
    """Limits in seconds, and steps within steps."""
    play = steps_of(
        "- {send: {alice: {text: x, pieces: [1, rest], pause: 10ms}}, within: 1.5min, note: slowly}",
        "- partition: [[alice], [server]]\n  during:\n    - quiet: {alice: 200ms}",
        "- repeat: {times: 3, steps: [{wait: 500us, note: why}]}",
    )
    _, send, partition, repeat = play.steps
    assert (send.within, send.note, send.sends[0][1][0].pause) == (90.0, "slowly", 0.01)
    assert [step.windows for step in partition.during] == [(("alice", 0.2),)]
    assert (repeat.times, repeat.steps[0].seconds) == (3, pytest.approx(0.0005))


def test_a_file_is_loaded_from_its_path(tmp_path: Path) -> None:
    """The label is the file's name without its ending."""
    path = tmp_path / "all-hear.scenario.yaml"
    path.write_text(EVERYONE_HEARS)
    (play,) = load(path)
    assert (play.label, play.path, play.contract, play.clauses) == (
        "all-hear",
        path,
        "chat",
        ("chat.2", "chat.3"),
    )


# ── any file at all ───────────────────────────────────────────────────────────────────────────────────────────────────

FILES = [text.encode() for text in ACCEPTED.values()] + [path.read_bytes() for path in LIBRARY[::5]]
ODD = [b"\x00", b"\xff", b"\xc3", b"\xed\xa0\x80", "\u202e".encode(), "\u2028".encode(), "\ufeff".encode(), "\U0001f642".encode(), b"\x85", b"\r", b"\t"]  # fmt: skip
BITS = [b"{", b"}", b"[", b"]", b": ", b"- ", b"#", b'"', b"'", b"&a ", b"*a", b"<<: ", b"!!str ", b"---\n", b"...\n", b"? ", b"| ", b"> ", b"%YAML 1.2\n", b"{n}", b"{{", b"9" * 5000, b"-1", b"1e999", b"0x" + b"f" * 50, b"[" * 60, b"{a: " * 60, b"/(a+)+/", b"null", b"everyone", b"server", b"steps:", b"\n", b"  "]  # fmt: skip


@st.composite
def mutated(draw: Any) -> bytes:
    """A scenario file after a few accidents."""
    raw: bytes = draw(st.sampled_from(FILES))
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(
            st.sampled_from(
                ["insert", "delete", "byte", "cut", "drop line", "double line", "move line", "swap values"]
            )
        )
        at = draw(st.integers(0, len(raw)))
        lines = raw.split(b"\n")
        i, j = draw(st.integers(0, len(lines) - 1)), draw(st.integers(0, len(lines) - 1))
        if kind == "insert":
            raw = raw[:at] + draw(st.sampled_from(BITS + ODD)) + raw[at:]
        elif kind == "delete":
            raw = raw[:at] + raw[at + draw(st.integers(1, 20)) :]
        elif kind == "byte":
            raw = raw[:at] + bytes([draw(st.integers(0, 255))]) + raw[at + 1 :]
        elif kind == "cut":
            raw = raw[:at]
        elif kind == "drop line":
            raw = b"\n".join(lines[:i] + lines[i + 1 :])
        elif kind == "double line":
            raw = b"\n".join([*lines[:i], lines[i], *lines[i:]])
        elif kind == "move line":
            line = lines.pop(i)
            raw = b"\n".join([*lines[:j], line, *lines[j:]])
        else:
            (a, x, old), (b, y, new) = lines[i].partition(b": "), lines[j].partition(b": ")
            lines[i], lines[j] = a + x + new, b + y + old
            raw = b"\n".join(lines)
    return raw


# One core may be busy with others here, so slowness of drawing is no finding; slowness of reading is asserted.
@settings(max_examples=1000, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(raw=mutated())
def test_any_file_is_accepted_or_refused_at_a_place_inside_it(
    raw: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Never another exception, never a place that an editor cannot go to, never a second of thinking."""
    path = tmp_path_factory.getbasetemp() / "mutated.yaml"
    path.write_bytes(raw)
    error: ScenarioError | None = None
    began = time.thread_time()
    try:
        load(path)
    except ScenarioError as refused:
        error = refused
    assert time.thread_time() - began < 1  # of this thread's own work, whatever else the machine does
    if error is not None:
        assert error.mark is not None
        lines = raw.decode("utf-8-sig", errors="replace").splitlines() or [""]
        assert 1 <= error.mark.line <= len(lines)
        assert error.mark.column >= 1
        assert error.message.isprintable()
        assert str(error).count("\n") <= 2


def test_a_source_that_was_read_can_be_read_again() -> None:
    """A history keeps a scenario's text, and judges it again from that."""
    (play,) = read(EVERYONE_HEARS)
    assert Source.parse(play.source.text, play.path) == play.source
