"""What a scenario file may say, and what it is answered where it may not: every rule of docs/scenario-language.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from socklab.scenario import Scenario, plays
from socklab.source import ScenarioError, Source

HEAD = "title: t\nservice: chat\nclients: [alice, bob, carol]\nsteps:\n  - connect: everyone\n"
UDP = "title: t\nclauses: [registry.1]\nservice: udp-registry\nclients: [alice, bob, carol]\nsteps:\n"


def read(text: str) -> list[Scenario]:
    return plays(Source.parse(text, Path("x.yaml")))


def steps(body: str, head: str = HEAD) -> Scenario:
    (scenario,) = read(head + body)
    return scenario


def refusal(text: str) -> str:
    with pytest.raises(ScenarioError) as caught:
        read(text)
    return str(caught.value)


class TestText:
    """A text place takes the scalar as it is written."""

    @pytest.mark.parametrize(
        "text", ["no", "007", "1:30", "1.0", "0x1F", "1_000", "true", "2024-01-01", "1e3", "yes", "=", "-"]
    )
    def test_it_is_the_text_that_stands_there(self, text: str) -> None:
        scenario = steps(f"  - send: {{alice: {text}}}\n")

        assert scenario.steps[1].sends[0][1][0].text == text

    def test_quotes_and_blocks_are_texts_too(self) -> None:
        scenario = steps(
            '  - send: {alice: "a\\tb", bob: \'null\', carol: ""}\n  - send:\n      alice: |\n        two\n        lines\n'
        )

        assert [payloads[0].text for _, payloads in scenario.steps[1].sends] == ["a\tb", "null", ""]
        assert scenario.steps[2].sends[0][1][0].text == "two\nlines\n"

    @pytest.mark.parametrize("text", ["null", "~", "Null", ""])
    def test_nothing_is_no_text(self, text: str) -> None:
        assert "got nothing" in refusal(HEAD + f"  - send: {{alice: {text}}}\n")

    @pytest.mark.parametrize(
        "body",
        [
            "  - send:\n      alice: #REG\n",
            "  - send: {alice: #REG}\n",
            "  - send: {alice: #REG, bob: hi}\n  - note: x\n",
            "  - expect: {alice: [one, #REG]}\n",
        ],
        ids=["block", "flow", "flow, then more", "list"],
    )
    def test_a_text_that_yaml_takes_for_a_comment_is_told(self, body: str) -> None:
        assert 'YAML takes #REG for a comment, write "#REG"' in refusal(HEAD + body)

    def test_a_broken_flow_map_hints_at_quoting(self) -> None:
        assert "quote every text that has" in refusal(HEAD + "  - send: {alice: a: b}\n")

    def test_counters_captures_and_braces(self) -> None:
        scenario = steps(
            '  - send: {alice: {lines: 2, text: "a{n} {{n}}"}}\n'
            '  - expect: {alice: "/got (.*)/"}\n    as: word\n'
            '  - send: {alice: "{word}!"}\n'
            '  - repeat: {times: 2, steps: [{send: {alice: "{round}"}}]}\n'
        )

        assert scenario.steps[2].capture == "word"

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            (
                '  - send: {alice: "{word}"}\n',
                'nothing called "word" was caught before. To write the characters, double the braces: {{word}}',
            ),
            ('  - send: {alice: "{n}"}\n', "{n} counts with lines:"),
            ('  - send: {alice: "a } b"}\n', "a single brace; write {{ or }}"),
            ('  - expect: {alice: "/(/"}\n', "not a regular expression"),
            ('  - expect: {alice: {in_order: "a{n}"}}\n', "needs count:"),
            ("  - expect: {alice: x, bob: y}\n    as: word\n", "as: keeps one message"),
        ],
    )
    def test_what_nobody_fills_in_is_found_before_anything_starts(self, body: str, words: str) -> None:
        assert words in refusal(HEAD + body)


class TestYaml:
    """What would make a file mean more than it shows is refused."""

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("a: *x\n", "aliases"),
            ("a: &x 1\n", "anchors"),
            ("<<: {}\n", "merge keys"),
            ("a: !!str 1\n", "tags"),
            ("a: !foo 1\n", "tags"),
            ("title: a\ntitle: b\n", '"title" stands here a second time; the first is in line 1'),
            ("title: a\n---\ntitle: b\n", "a second document"),
            ("", "is empty"),
            ("# nothing\n", "is empty"),
            ("- a\n", "expected a scenario, got a list"),
            ("{[a]: b}\n", "a key must be a text"),
            ("title: a\n\tservice: b\n", "not valid YAML"),
            ("[" * 100 + "]" * 100, "nested more than 32 deep"),
            ("a: \x07\n", "a character that YAML does not allow"),
        ],
    )
    def test_it_is_refused_in_words(self, text: str, words: str) -> None:
        assert words in refusal(text)

    def test_files_that_cannot_be_read_are_told(self, tmp_path: Path) -> None:
        (tmp_path / "latin.yaml").write_bytes(b"title: caf\xe9\n")
        (tmp_path / "huge.yaml").write_bytes(b"#" * (2 << 20))
        for name, words in (
            ("latin.yaml", "latin.yaml:1:11: is not UTF-8"),
            ("huge.yaml", "is larger than"),
            ("none.yaml", "No such file"),
            (".", "cannot be read"),
        ):
            with pytest.raises(ScenarioError, match=words.replace(".", r"\.")):
                Source.read(tmp_path / name)


class TestPlaces:
    """An error names file, line and column, with a caret below, and the nearest thing that is known."""

    def test_the_caret_stands_under_the_culprit(self) -> None:
        first, line, caret = refusal(HEAD + "  - expect: {alice: a, bbo: b}\n").splitlines()

        assert first == 'x.yaml:6:24: no client "bbo". Did you mean "bob"?'
        assert caret.index("^") == line.index("bbo")

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            (
                HEAD.replace("clients:", "client:"),
                'unknown key "client" in a scenario. Did you mean "clients"?',
            ),
            (HEAD + "  - sned: {alice: x}\n", 'unknown verb or modifier "sned". Did you mean "send"?'),
            (
                HEAD + "  - send: {alice: {txet: x}}\n",
                'unknown key "txet" in a message. Did you mean "text"?',
            ),
            (HEAD + "  - kill: sevrer\n", 'no server "sevrer". Did you mean "server"?'),
            (HEAD + "  - kill: chat\n", 'write "server", not "chat"'),
            (HEAD + "  - connect: {alice: {fails: refusd}}\n", 'Did you mean "refused"?'),
            (HEAD + "  - send: {alice: x}\n    wthin: 1s\n", 'Did you mean "within"?'),
            (HEAD.replace("title: t\n", ""), "a scenario needs title:"),
            (HEAD + "  - drop: {from: alice, to: server, nth: 1}\n", "comes with a later version"),
        ],
    )
    def test_near_misses_are_named(self, text: str, words: str) -> None:
        assert words in refusal(text)


class TestSteps:
    @pytest.mark.parametrize(
        ("body", "words"),
        [
            ("  - {send: {alice: x}, expect: {alice: x}}\n", 'two verbs in one step, "send" and "expect"'),
            ("  - close: alice\n    within: 1s\n", "within: says nothing about close"),
            ("  - send: {alice: x}\n    as: y\n", "as: says nothing about send"),
            ("  - wait: 1s\n", "wait: needs a note: that says why"),
            ("  - within: 1s\n", "a step without a verb"),
            ("  - send\n", '"send" needs to be told whom'),
            ("  - quiet: {alice: 200}\n", 'expected a duration with its unit, like 200ms or 2s, got "200"'),
            ("  - quiet: {alice: 2 s}\n", "expected a duration"),
            ("  - send: {alice: {text: x, hex: 00}}\n", '"text" and "hex" stand in the same message'),
            ('  - send: {alice: {lines: "3", text: x}}\n', "a number stands without quotes"),
            ("  - send: {alice: {lines: 0, text: x}}\n", "from 1 to"),
            ("  - send: {alice: {hex: 0g}}\n", "not valid hex"),
            ('  - send: {alice: {bytes: "\\u1234"}}\n', "is no single byte"),
            ("  - send: {alice: {text: x, pieces: [rest, 1]}}\n", '"rest" comes last'),
            ("  - send: {server: x}\n", '"server" is no client'),
            ("  - expect: {server: hello}\n", "{log: …} or {exit: 0}"),
            ("  - expect: {alice: {log: x}}\n", "are expected of a server"),
            ("  - close: alice\n  - send: {alice: x}\n", "alice closed its socket before"),
            ("  - close: alice\n  - quiet: {alice: 1s}\n", "its silence proves nothing"),
            ("  - cut: {from: alice, to: alice}\n", "there is no link from alice to itself"),
            ("  - cut: {from: alice}\n", "a link needs to:"),
            ("  - partition: [[alice]]\n", "at least 2"),
            ("  - partition: [[alice], [alice, server]]\n", '"alice" is named twice'),
            ("  - connect: [alice, alice]\n", '"alice" is named twice'),
            ("  - expect: {alice: {any: false}}\n", "expected true"),
            ("  - set: {alice: {nodlay: 1}}\n", 'Did you mean "nodelay"?'),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, body: str, words: str) -> None:
        assert words in refusal(HEAD + body)

    def test_over_tcp_nobody_speaks_before_a_connect(self) -> None:
        scenario = steps("  - send: {alice: x}\n", HEAD.replace("  - connect: everyone\n", ""))

        with pytest.raises(
            ScenarioError, match=r"x\.yaml:5:12: send: alice is not connected; put `connect: alice` before it"
        ):
            scenario.require_connections()

    def test_over_udp_everybody_may(self) -> None:
        assert steps('  - send: {alice: "#REG"}\n', UDP).steps

    def test_a_step_knows_its_line_and_its_text(self) -> None:
        scenario = steps(
            "  # why\n  - send: {alice: hello}   # a comment\n  - expect:\n      alice: hello\n    within: 1s\n"
        )

        assert [(s.line, s.text) for s in scenario.steps[1:]] == [
            (7, "send: {alice: hello}"),
            (8, "expect: alice: hello within: 1s"),
        ]

    def test_links_are_directed_pairs(self) -> None:
        scenario = steps(
            "  - cut: {from: alice, to: [server, bob]}\n"
            "  - cut: {between: [alice, bob]}\n"
            "  - partition: [[alice], [bob, server]]\n"
            "  - isolate: carol\n"
        )
        cut, between, partition, isolate = (set(step.links) for step in scenario.steps[1:])

        assert cut == {("alice", "server"), ("alice", "bob")}
        assert between == {("alice", "bob"), ("bob", "alice")}
        assert partition == {("alice", "bob"), ("bob", "alice"), ("alice", "server"), ("server", "alice")}
        assert isolate == {
            (a, b) for x in ("alice", "bob", "server") for a, b in ((x, "carol"), ("carol", x))
        }


class TestNames:
    @pytest.mark.parametrize(
        ("clients", "words"),
        [
            ("[alice, alice]", 'a second client called "alice"'),
            ("[server]", "is a word of the language"),
            ("[everyone]", "is a word of the language"),
            ("[chat]", "is also the name of a service"),
            ("[{bob: {beside: alice}}]", 'no client "alice" stands before "bob"'),
            ("[{crowd: 0}]", "from 1 to"),
            ("[{crowd: 5}, crowd1]", 'a second client called "crowd1"'),
            ("[]", "at least 1"),
            ("[1abc]", "expected a name"),
        ],
    )
    def test_names_are_disjoint(self, clients: str, words: str) -> None:
        assert words in refusal(f"title: t\nservice: chat\nclients: {clients}\nsteps: [{{note: x}}]\n")

    def test_a_crowd_has_a_name_for_each_and_one_for_all(self) -> None:
        (scenario,) = read(
            "title: t\nservice: chat\nclients: [{crowd: 3}]\nsteps: [{connect: crowd}, {send: {crowd2: hi}}]\n"
        )

        assert [name for name, _ in scenario.steps[0].connects] == ["crowd1", "crowd2", "crowd3"]

    def test_clients_beside_each_other_have_no_link(self) -> None:
        text = "title: t\nservice: chat\nclients: [alice, {bob: {beside: alice}}]\nsteps: [{cut: {from: alice, to: bob}}]\n"

        assert "there is no link from alice to bob, on the same host" in refusal(text)


class TestPlays:
    def test_once_for_each_service_and_each_value(self) -> None:
        text = 'title: t\nservice: [a, b]\nmatrix: {size: [1, 20]}\nclients: [alice]\nsteps: [{connect: alice}, {send: {alice: {text: "x{size}", repeat: "{size}"}}}]\n'

        scenarios = read(text)

        assert [s.label for s in scenarios] == [
            "x[a, size=1]",
            "x[b, size=1]",
            "x[a, size=20]",
            "x[b, size=20]",
        ]
        assert [
            (s.steps[1].sends[0][1][0].text, s.steps[1].sends[0][1][0].repeat) for s in scenarios[1:3]
        ] == [("x1", 1), ("x20", 20)]

    def test_clauses_are_those_of_one_contract(self) -> None:
        for clauses, words in (
            ("[chat.9]", "has clauses 1 to 8"),
            ("[chat.1, echo.1]", "beside clauses of chat"),
            ("[foo.1]", "expected a clause"),
        ):
            assert words in refusal(HEAD.replace("service:", f"clauses: {clauses}\nservice:"))
