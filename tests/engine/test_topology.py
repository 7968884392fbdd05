"""docker-compose.yml as the one description of servers and networks: the project's own, and those of others."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from socklab.matching import DATAGRAM, LINE, STREAM
from socklab.topology import Service, Topology, TopologyError, find, read, with_option

ROOT = Path(__file__).resolve().parents[2]
OURS = read(ROOT / "docker-compose.yml", {})


@pytest.fixture
def compose(tmp_path: Path) -> Any:
    """compose(text, **environment) is the topology of a file with this text."""

    def read_text(text: str, **environment: str) -> Topology:
        (tmp_path / "compose.yaml").write_text(text, encoding="utf-8")
        return read(tmp_path / "compose.yaml", environment)

    return read_text


def service(compose: Any, options: str, **environment: str) -> Service:
    """The service of a compose file with these options, in flow style or a few lines."""
    lines = options.strip("\n").splitlines()
    body = f" {options}" if len(lines) == 1 else "\n" + "\n".join(f"    {line}" for line in lines)
    made = compose(
        f"services:\n  app:{body}\nnetworks: {{lab: {{internal: true}}, front: }}\n", **environment
    )
    assert isinstance(made, Topology)
    return made.services["app"]


# ── our own ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "contract", "framing", "protocol", "port"),
    [
        ("echo", "echo", STREAM, "tcp", 5001),
        ("handler", "echo", STREAM, "tcp", 5002),
        ("handler-once", "echo", STREAM, "tcp", 5002),
        ("threaded", "echo", STREAM, "tcp", 5003),
        ("threaded-no-daemon", "echo", STREAM, "tcp", 5003),
        ("forking", "echo", STREAM, "tcp", 5004),
        ("eventloop", "echo", STREAM, "tcp", 5005),
        ("chat", "chat", LINE, "tcp", 6001),
        ("chat-eventloop", "chat", LINE, "tcp", 6002),
        ("udp-echo", "udp-echo", DATAGRAM, "udp", 7001),
        ("udp-registry", "registry", DATAGRAM, "udp", 7002),
        ("echo-unix", "echo", STREAM, "unix", None),
    ],
)
def test_each_of_our_services_listens_as_its_name_says(
    name: str, contract: str, framing: str, protocol: str, port: int | None
) -> None:
    """Contract, framing, protocol and port, and the program that bears its name."""
    ours = OURS.service(name)
    assert (ours.contract, ours.framing, ours.protocol, ours.port) == (contract, framing, protocol, port)
    assert ours.command[0] == "python"
    assert (ROOT / ours.command[1]).is_file()


def test_the_lab_has_no_way_out() -> None:
    """Its networks are internal; the control network is none of them."""
    assert OURS.networks == {"lab": True, "far": True}
    assert {s.networks for s in OURS.services.values() if s.contract} == {("lab",), ("lab", "far")}
    assert OURS.root == ROOT


def test_a_service_that_is_not_there_is_suggested() -> None:
    """The nearest name, or all of them."""
    with pytest.raises(
        TopologyError, match=r'no service "chta" in .*docker-compose\.yml\. Did you mean "chat"\?'
    ):
        OURS.service("chta")
    with pytest.raises(TopologyError, match="There are: chat, chat-between, chat-eventloop, "):
        OURS.service("zzz")


# ── what others write ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("options", "command"),
    [
        ("{command: prog --port 80}", ("prog", "--port", "80")),
        ("{command: [prog, --port, 80]}", ("prog", "--port", "80")),
        ("{command: 'prog \"two words\" $$HOME'}", ("prog", "two words", "$HOME")),
        ("{entrypoint: prog -v, command: [--port, 80]}", ("prog", "-v", "--port", "80")),
        ("{entrypoint: [prog], command: }", ("prog",)),
        ("{command: [nginx, on, 1.10, 0755, 22:22, 2024-01-01, true]}", ("nginx", "on", "1.10", "0755", "22:22", "2024-01-01", "true")),
        ("{image: nginx}", ()),
        ("{}", ()),
        ("", ()),
        ("command: >\n  prog\n  --port 80", ("prog", "--port", "80")),
    ],
)  # fmt: skip
def test_a_command_is_text_or_list_with_or_without_entrypoint(
    compose: Any, options: str, command: tuple[str, ...]
) -> None:
    """Its words are as they are written, whatever YAML 1.1 would make of them."""
    assert service(compose, options).command == command


@pytest.mark.parametrize(
    "options",
    [
        "{environment: {A: one, B: 2, C: on, D: true, E: , F: a=b}}",
        "{environment: [A=one, B=2, C=on, D=true, E, F=a=b]}",
        "environment:\n  A: one\n  B: '2'\n  C: \"on\"\n  D: 'true'\n  E:\n  F: a=b",
    ],
)
def test_an_environment_is_a_map_or_a_list(compose: Any, options: str) -> None:
    """A name without a value is taken from our own environment, or not at all."""
    expected = {"A": "one", "B": "2", "C": "on", "D": "true", "F": "a=b"}
    assert service(compose, options).environment == expected
    assert service(compose, options, E="ours").environment == {**expected, "E": "ours"}


@pytest.mark.parametrize(
    ("written", "environment", "filled"),
    [
        ("$A", {"A": "x"}, "x"),
        ("${A}b", {"A": "x"}, "xb"),
        ("$A", {}, ""),
        ("${A:-b}", {"A": ""}, "b"),
        ("${A-b}", {"A": ""}, ""),
        ("${A-b}", {}, "b"),
        ("${A:-${B:-c}}", {}, "c"),
        ("${A:-${B}}", {"B": "x"}, "x"),
        ("${A:+b}", {"A": "x"}, "b"),
        ("${A:+b}", {}, ""),
        ("${A+b}", {"A": ""}, "b"),
        ("${A:?gone}", {"A": "x"}, "x"),
        ("$$A and $${A}", {"A": "x"}, "$A and ${A}"),
        ("100$", {}, "100$"),
    ],
)
def test_variables_are_filled_in_as_compose_does(
    compose: Any, written: str, environment: dict[str, str], filled: str
) -> None:
    """Defaults, alternatives, and $$ for a dollar sign."""
    assert service(compose, f"{{environment: {{V: '{written}'}}}}", **environment).environment == {
        "V": filled
    }


@pytest.mark.parametrize(
    ("written", "said"), [("${A?}", "it is required"), ("${A:?set A to the port}", "set A to the port")]
)
def test_a_variable_that_is_required_is_named(compose: Any, written: str, said: str) -> None:
    """With the file's own words."""
    with pytest.raises(TopologyError, match=rf"compose.yaml: \$\{{A\}} is not set: {said}"):
        service(compose, f"{{command: '{written}'}}")


def test_the_file_named_env_is_read_and_our_environment_wins(compose: Any, tmp_path: Path) -> None:
    """As with Compose."""
    (tmp_path / ".env").write_text("# ports\nexport PORT=1234\nNAME='x y'\n")
    options = "{command: '$PORT $NAME', expose: ['$PORT']}"
    assert service(compose, options).command == ("1234", "x", "y")
    assert service(compose, options, PORT="99").port == 99


@pytest.mark.parametrize(
    ("options", "networks", "aliases"),
    [
        ("{}", ("default",), ()),
        ("{networks: [lab, front]}", ("lab", "front"), ()),
        ("networks:\n  lab:\n    aliases: [db, db.local]\n    ipv4_address: 10.0.0.2\n  front:", ("lab", "front"), ("db", "db.local")),
        ("{networks: [lab], hostname: box, container_name: the-box}", ("lab",), ("the-box", "box")),
        ("{network_mode: none}", (), ()),
    ],
)  # fmt: skip
def test_networks_are_a_list_or_a_map_with_aliases(
    compose: Any, options: str, networks: tuple[str, ...], aliases: tuple[str, ...]
) -> None:
    """And whatever else names a container on them."""
    made = service(compose, options)
    assert (made.networks, made.aliases) == (networks, aliases)


@pytest.mark.parametrize(
    ("options", "endpoint"),
    [
        ("{expose: [80]}", ("tcp", 80)),
        ('{expose: ["80/udp"]}', ("udp", 80)),
        ('{ports: ["8080:80"]}', ("tcp", 80)),
        ("{ports: [2222:22]}", ("tcp", 22)),
        ('{ports: ["127.0.0.1:8080:80/udp"]}', ("udp", 80)),
        ('{ports: ["[::1]:8080:80"]}', ("tcp", 80)),
        ('{ports: ["8000-8010:8000-8010", 90]}', ("tcp", 90)),
        ("ports:\n  - target: 80\n    published: 8080\n    protocol: udp\n    mode: host", ("udp", 80)),
        ("{ports: [{target: 80}]}", ("tcp", 80)),
        ("{command: prog --port 9000, expose: [80]}", ("tcp", 9000)),
        ("{command: prog --port=9000}", ("tcp", 9000)),
        ("{command: prog --port 9000, expose: [80, 9000/udp]}", ("udp", 9000)),
        ("{command: prog --unix /run/x.sock, expose: [80]}", ("unix", None)),
        ("{image: nginx}", ("tcp", None)),
    ],
)
def test_a_port_is_exposed_published_or_in_the_command(
    compose: Any, options: str, endpoint: tuple[str, int | None]
) -> None:
    """Short and long syntax; the command comes first, because it is what listens."""
    made = service(compose, options)
    assert (made.protocol, made.port) == endpoint


def test_extensions_anchors_and_merge_keys_are_read(compose: Any) -> None:
    """As compose files use them to say a thing once."""
    made = compose(
        """
x-base: &base
  image: ours
  networks: [lab]
  environment: &env {A: "1"}
services:
  one: {<<: *base, command: one}
  two:
    <<: [*base, {command: default}]
    command: two
    environment: {<<: *env, B: "2"}
networks: {lab: }
"""
    )
    assert made.service("one").command == ("one",)
    assert made.service("two").command == ("two",)
    assert made.service("two").environment == {"A": "1", "B": "2"}
    assert made.service("two").networks == ("lab",)


@pytest.mark.parametrize("labels", ["{socklab.contract: chat, x: }", "[socklab.contract=chat, x]"])
def test_a_label_says_the_contract(compose: Any, labels: str) -> None:
    """As a map or as a list."""
    assert service(compose, f"{{labels: {labels}}}").contract == "chat"


@pytest.mark.parametrize(
    ("options", "asked", "contract", "protocol", "framing"),
    [
        ("{expose: [80]}", None, None, "tcp", LINE),
        ("{expose: [80]}", "echo", "echo", "tcp", STREAM),
        ("{expose: [80]}", "registry", "registry", "udp", DATAGRAM),
        ("{expose: [80/udp]}", None, None, "udp", DATAGRAM),
        ("{expose: [80], labels: {socklab.contract: echo}}", "chat", "echo", "tcp", STREAM),
    ],
)
def test_a_server_of_which_nothing_is_known_is_judged_as_the_scenario_says(
    compose: Any, options: str, asked: str | None, contract: str | None, protocol: str, framing: str
) -> None:
    """Its own label comes first; without any word it speaks lines over TCP."""
    made = service(compose, options).judged_as(asked)
    assert (made.contract, made.protocol, made.framing) == (contract, protocol, framing)


def test_a_server_with_one_of_our_names_keeps_our_contract(compose: Any) -> None:
    """So that a copy of a service without its label is played rightly."""
    made = compose("services: {udp-registry: {command: x}, chat: {command: y}}")
    assert made.service("udp-registry").judged_as(None).framing == DATAGRAM
    assert made.service("chat").judged_as(None).contract == "chat"


def test_the_networks_of_the_service_client_are_those_of_the_clients(compose: Any) -> None:
    """Where there is none, clients live where the server does."""
    assert OURS.client_networks == ("lab",)
    made = compose(
        "services: {client: {networks: [b, a]}, app: {networks: [a]}}\nnetworks: {a: , b: {internal: true}}"
    )
    assert made.client_networks == ("b", "a")
    assert made.networks == {"a": False, "b": True}


def test_an_option_of_a_command_is_replaced() -> None:
    """In both ways of writing it; a command without it stays as it is."""
    assert with_option(("p", "--port", "1", "x"), "--port", "2") == ("p", "--port", "2", "x")
    assert with_option(("p", "--port=1"), "--port", "2") == ("p", "--port=2")
    assert with_option(("p", "--ports", "1"), "--port", "2") == ("p", "--ports", "1")


# ── what no lab can be made of ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no services: map; is it a compose file?"),
        ("- a\n", "has no services: map"),
        ("hello\n", "has no services: map"),
        ("services:\n", "has no services: map"),
        ("services: {}\n", "has no services: map"),
        ("services: [a]\n", "has no services: map"),
        ("services: {a: b}\n", "services.a: is not a map"),
        ("services: {a: [b]}\n", "services.a: is not a map"),
        ("services:\n\ta: {}\n", "compose.yaml:2:1: not valid YAML: found character that cannot start any token"),
        ("services: {a: [}\n", "compose.yaml:1:16: not valid YAML: did not find expected node content"),
        ("services: {a: *b}\n", "compose.yaml:1:15: not valid YAML: found undefined alias"),
        ("services: {a: {<<: b}}\n", "compose.yaml:1:20: not valid YAML: expected a mapping"),
        ("services: {a: !reset {}}\n", "compose.yaml:1:15: not valid YAML: could not determine a constructor for the tag '!reset'"),
        ("services: {a: \0}\n", "not valid YAML"),
        ("services: {a: {extends: b}}\n", "services.a: extends: is not read by socklab; write the service out"),
        ("services: {a: {networks: [front]}}\nnetworks: {fornt: }\n", 'services.a.networks: no network "front". Did you mean "fornt"?'),
        ("services: {a: {networks: lab}}\n", "services.a.networks: is not a map"),
        ("services: {a: {networks: {lab: {aliases: x}}}}\n", "services.a.networks.lab.aliases: is not a list"),
        ("networks: [lab]\nservices: {a: {}}\n", "networks: is not a map"),
        ("services: {a: {expose: 5001}}\n", "services.a.expose: is not a list"),
        ("services: {a: {ports: '5001'}}\n", "services.a.ports: is not a list"),
        ("services: {a: {expose: [99999]}}\n", '"99999" is no port from 1 to 65535'),
        (f"services: {{a: {{expose: [{'9' * 5000}]}}}}\n", "is no port from 1 to 65535"),
        ("services: {a: {command: prog --port http}}\n", 'services.a.command: --port: "http" is no port'),
        ("services: {a: {command: prog --port ²}}\n", "is no port from 1 to 65535"),
        ("services: {a: {command: [prog, [x]]}}\n", "services.a.command: has a list in it where a text belongs"),
        ("services: {a: {command: [prog, ~]}}\n", "services.a.command: has nothing in it where a text belongs"),
        ("services: {a: {command: {b: c}}}\n", "services.a.command: has a map in it"),
        ("services: {a: {command: \"prog 'x\"}}\n", "services.a.command: cannot be split into words: No closing quotation"),
        ("services: {a: {environment: x}}\n", "services.a.environment: is not a map"),
        ("services: {a: {environment: {B: [c]}}}\n", "services.a.environment.B: has a list in it"),
        ("services: {a: {expose: [80/sctp]}}\n", 'services.a: protocol "sctp" is neither tcp nor udp'),
        ("services: {a: {labels: {socklab.contract: chta}}}\n", 'services.a.labels: socklab.contract: "chta" is none of echo, chat, udp-echo, registry'),
        ("x: &x [*x]\nservices: {a: {command: x}}\n", "nested more than 50 deep, or an anchor holds itself"),
        ("services: &x {a: *x}\n", "an anchor holds itself"),
        ("services: {a: " + "[" * 500 + "]" * 500 + "}\n", "nested"),
        ("services: {\"a\\e[2J\": b}\n", r"services.a\x1b[2J: is not a map"),
    ],
)  # fmt: skip
def test_a_compose_file_that_no_lab_can_be_made_of_is_named_with_the_place(
    compose: Any, text: str, said: str
) -> None:
    """One line: the file, the place in it, what is wrong."""
    with pytest.raises(TopologyError) as caught:
        compose(text)
    message = str(caught.value)
    assert said in message
    assert message.isprintable()
    assert "compose.yaml" in message


def test_a_file_that_is_not_there_or_not_text_is_named(tmp_path: Path) -> None:
    """With what to do about it."""
    with pytest.raises(TopologyError, match=r"none\.yaml: cannot be read: No such file or directory"):
        read(tmp_path / "none.yaml")
    (tmp_path / "compose.yaml").write_bytes(b"services: {\xff: }")
    with pytest.raises(TopologyError, match="is not UTF-8; save the file as UTF-8"):
        read(tmp_path / "compose.yaml")
    with pytest.raises(TopologyError, match=r"/dev/zero: is larger than 4 MiB; is it a compose file\?"):
        read(Path("/dev/zero"))


@pytest.mark.timeout(20)
def test_anchors_that_multiply_are_read_once(compose: Any) -> None:
    """Nine lists of nine lists of nine …: a small file that would fill the memory."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 20)]
    made = compose("\n".join([*lines, "services: {app: {command: x}}"]))
    assert made.service("app").command == ("x",)
    for options in ("command: *a19", "ports: [*a19]", "ports: [{target: *a19}]", "network_mode: *a19"):
        with pytest.raises(TopologyError, match="has a list in it where a text belongs"):
            compose("\n".join([*lines, f"services: {{app: {{{options}}}}}"]))


def test_the_compose_file_is_found_above(tmp_path: Path) -> None:
    """In the order of Compose where there are several; a folder without one is told so."""
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    with pytest.raises(
        TopologyError, match=r"no docker-compose\.yml in .* or above it; name one with --compose FILE"
    ):
        find(inner)
    (tmp_path / "docker-compose.yml").write_text("services: {}")
    assert find(inner) == tmp_path / "docker-compose.yml"
    assert find(inner / "lesson.yaml") == tmp_path / "docker-compose.yml"
    (tmp_path / "compose.yaml").write_text("services: {}")
    assert find(inner) == tmp_path / "compose.yaml"


# ── any file at all ───────────────────────────────────────────────────────────────────────────────────────────────────

FOREIGN = (ROOT / "docker-compose.yml").read_text() + """
x-more: &more {environment: [A=1, B], labels: [socklab.contract=chat]}
""" + "volumes: {v: {}}\n"  # fmt: skip
BITS = ["{", "}", "[", "]", ": ", "- ", "#", '"', "'", "&a ", "*server", "<<: *server", "!!int ", "---\n", "${A", "${A?x}", "${A:-", "$$", "9" * 5000, "\0", "\ufeff", "\u2028", "1:30", "null", "~", "true", "\t", "\n", "  "]  # fmt: skip


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32), bits=st.lists(st.sampled_from(BITS), min_size=1, max_size=3))
def test_any_compose_file_is_read_or_refused(
    seed: int, bits: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Never another exception, never a second of thinking."""
    dice = random.Random(seed)
    lines = FOREIGN.split("\n")
    for _ in range(dice.randrange(4)):
        i, j = dice.randrange(len(lines)), dice.randrange(len(lines))
        lines[i], lines[j] = (
            (lines[j], lines[i]) if dice.random() < 0.5 else (lines[i][: dice.randrange(40)], lines[j])
        )
    text = "\n".join(lines)
    for bit in bits:
        at = dice.randrange(len(text))
        text = text[:at] + bit + text[at + dice.randrange(5) :]
    path = tmp_path_factory.getbasetemp() / "mutated-compose.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    began = time.thread_time()
    try:
        made = read(path, {})
    except TopologyError as error:
        message = str(error)
    else:
        message = ""
        assert all(isinstance(word, str) for s in made.services.values() for word in s.command)
    assert time.thread_time() - began < 1
    assert message.isprintable()
