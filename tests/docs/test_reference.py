"""The reference: its tables are what the code says, its examples play, and nothing in the documents is left untried."""

from __future__ import annotations

import importlib.util
import inspect
import json
import re
import shutil
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from clients.crowd.lines import WRONG
from docs import reference
from docs.pages import ROOT
from docs.reference import PAGES
from docs.transcripts import Block, blocks
from socklab import language, topology
from socklab.cli import common
from socklab.contracts import CONTRACTS
from socklab.grammar import Variants
from tests.docs.conftest import environment

VERBS = PAGES / "verbs.md"


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda page: page.stem)
def test_what_is_made_from_the_code_is_as_the_code_has_it_now(page: Path) -> None:
    text = page.read_text(encoding="utf-8")

    assert text == reference.made(text), "stale: python -m docs.reference"


# Scenarios.


def examples() -> list[Block]:
    """The whole scenarios of the page of verbs."""
    return [
        block
        for block in blocks(VERBS.read_text(encoding="utf-8"))
        if block.language == "yaml" and any(line.startswith("title:") for line in block.lines)
    ]


def parsed(block: Block) -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load("\n".join(block.lines))
    return data


@pytest.fixture(scope="session")
def played(tmp_path_factory: pytest.TempPathFactory, why_no_netns: str | None) -> Path:
    """A folder with all examples played: their verdicts in results.json, their histories in runs/."""
    if why_no_netns:
        pytest.skip(why_no_netns)
    folder = tmp_path_factory.mktemp("examples")
    shutil.copy(ROOT / "docker-compose.yml", folder)
    (folder / "services").symlink_to(ROOT / "services")
    for block in examples():
        (folder / f"line-{block.line}.scenario.yaml").write_text("\n".join(block.lines) + "\n")
    command = [sys.executable, "-m", "socklab", "play", "--on", "netns", "--results", "results.json", "."]
    subprocess.run(command, cwd=folder, env=environment(), capture_output=True)
    return folder


@pytest.mark.timeout(300)
def test_every_example_of_a_verb_passes(played: Path) -> None:
    results = json.loads((played / "results.json").read_text())
    verdicts = {(Path(each["scenario"]).name, each["verdict"]): each.get("reason") for each in results}

    assert {key: reason for key, reason in verdicts.items() if key[1] != "pass"} == {}
    assert {name for name, _ in verdicts} == {f"line-{block.line}.scenario.yaml" for block in examples()}


def test_every_verb_has_a_section_and_an_example_there_or_in_the_next() -> None:
    text = VERBS.read_text(encoding="utf-8")
    titles = re.findall(r"^### (.+)$", text, re.MULTILINE)

    assert sorted(titles) == sorted([*language.VERBS, "note"])
    for title in language.VERBS:
        section = text.partition(f"\n### {title}\n")[2]
        assert f"<!-- made: verb {title} -->" in section.partition("\n### ")[0], title
        example = section.partition("```yaml\n")[2].partition("```")[0]
        assert re.search(rf"^ +- {title}:", example, re.MULTILINE), f"the next example does not show {title}"


def steps(data: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All steps, those within steps too, each without what stands below it."""

    def walk(each: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for step in each:
            inner = [
                *step.get("during", ()),
                *step.get("together", ()),
                *step.get("repeat", {}).get("steps", ()),
            ]
            shown = {key: True if key in ("during", "together") else value for key, value in step.items()}
            if "repeat" in step:
                shown["repeat"] = dict.fromkeys(step["repeat"], True)
            yield shown
            yield from walk(inner)

    yield from walk(data["steps"])


def all_keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from all_keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from all_keys(inner)


def test_every_key_of_the_language_is_in_an_example() -> None:
    """Of the head, of a client, of each verb, of what may stand beside it, of each form of expecting."""
    heads: set[str] = set()
    clients: set[str] = set()
    below: dict[str, set[str]] = defaultdict(set)
    beside: set[str] = set()
    for block in examples():
        data = parsed(block)
        heads |= set(data)
        clients |= set(all_keys(data["clients"]))
        for step in steps(data):
            verb = next((key for key in step if key in language.VERBS), "note")
            below[verb] |= set(all_keys(step.get(verb)))
            beside |= set(step) - {verb}
    variants = language.EXPECTATION.map
    assert isinstance(variants, Variants)
    forms = {name for _, fields in variants.variants for name in fields.fields}
    missing = {
        "head": set(language.SCENARIO.fields) - heads,
        "client": {name for fields in reference.within(language.CLIENT) for name in fields.fields} - clients,
        "beside": set(language.MODIFIERS) - beside,
        "expect": (forms | set(language.WIRE.fields)) - below["expect"],
        "links": {*reference.IN_COMMON, *language.PACKETS} - set().union(*(below[v] for v in language.FAULT_VERBS)),
        **{verb: set(reference.keys(verb)) - below[verb] - (beside if verb == "connect" else set()) for verb in language.VERBS},
    }  # fmt: skip

    assert {name: keys for name, keys in missing.items() if keys} == {}


# The command line.


CLI = PAGES / "cli.md"


def test_every_command_has_its_section_in_the_order_of_help() -> None:
    titles = re.findall(r"^## socklab (\S+)$", CLI.read_text(encoding="utf-8"), re.MULTILINE)

    assert titles == list(reference.commands())


def test_every_argument_says_what_it_is() -> None:
    silent = [
        f"{name} {action.metavar or action.dest}"
        for name, parser in reference.commands().items()
        for action in parser._actions
        if not action.help
    ]

    assert silent == []


def rows(text: str, title: str) -> list[list[str]]:
    """The cells of the first table below a title."""
    section = re.split(rf"^#+ {re.escape(title)}$", text, maxsplit=1, flags=re.MULTILINE)[1]
    lines = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert lines is not None, title
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))]
        for line in lines[0].splitlines()[2:]
    ]


def words(cell: str) -> set[str]:
    """What stands in `code` in a cell."""
    return set(re.findall(r"`([^`]+)`", cell))


def test_exit_codes_are_those_of_the_code() -> None:
    table = rows(CLI.read_text(encoding="utf-8"), "Exit codes")
    told = {(int(code), name.strip("`")) for code, name, _ in table if name}
    codes = {(value, name) for name, value in vars(common).items() if name.isupper() and type(value) is int}

    assert told == codes
    assert {int(code) for code, name, _ in table if not name} == {128 + signal.SIGTERM}


READ_BY_PYTHON = re.compile(
    r"\b(?:environ|environment)(?:\.get\(|\[)\s*f?\"([A-Z_]+)\"|\"(_ARGCOMPLETE)\" in os\.environ"
)
READ_BY_COMPOSE = re.compile(r"\$\{([A-Z_]+)[:}-]")  # fmt: skip


def test_no_variable_of_the_environment_is_missing() -> None:
    read: set[str] = set()
    for folder in ("socklab", "services", "clients"):
        for path in (ROOT / folder).rglob("*.py"):
            if "templates" not in path.parts:
                read |= {a or b for a, b in READ_BY_PYTHON.findall(path.read_text(encoding="utf-8"))}
    for name in ("docker-compose.yml", "docker-stack.yml"):
        read |= set(READ_BY_COMPOSE.findall((ROOT / name).read_text(encoding="utf-8")))
    told = set().union(
        *(words(first) for first, *_ in rows(CLI.read_text(encoding="utf-8"), "The environment"))
    )

    assert told - {"HOST", "PORT"} == read


# Events.


EVENTS = PAGES / "events.md"
NOT_HERE = {
    ("note", "clock"),  # a swarm of several machines
    ("sent", "join"),  # a dialect
}
"""Fields that no play of these tests brings."""


RARE = """
title: What does not happen in a short example
service: eventloop
clients: [alice, bob]
steps:
  - connect: everyone
  - set: {alice: {user_timeout: 300}}
  - isolate: alice
    during:
      - send: {alice: hello}
      - expect: {alice: {error: timed out}}
        within: 10s
  - kill: server
  - expect: {bob: eof}
  - send: {bob: nobody is there}
  - expect: {bob: reset}
  - send: {bob: again}
"""


def told_events() -> dict[str, dict[str, bool]]:
    """Kind → field → whether it may be missing, as the page says."""
    text = EVENTS.read_text(encoding="utf-8")
    told: dict[str, dict[str, bool]] = {}
    for title in re.findall(r"^### (.+)$", text, re.MULTILINE):
        section = text.partition(f"\n### {title}\n")[2].partition("\n#")[0]
        fields = {
            name: what.startswith("may be missing")
            for name, what in re.findall(r"^\| `([\w-]+)` \| (.*) \|$", section, re.MULTILINE)
        }
        told |= dict.fromkeys(title.split(", "), fields)
    return told


@pytest.fixture(scope="session")
def histories(played: Path) -> list[dict[str, Any]]:
    """The events of the examples, of a part of the library, of a lab by hand, and of servers that are wrong."""

    def run(*words: str, typed: str = "") -> None:
        command = [sys.executable, "-m", "socklab", *words, "--on", "netns"]
        subprocess.run(command, cwd=played, env=environment(), input=typed, text=True, capture_output=True)

    rare = played / "rare.scenario.yaml"
    rare.write_text(RARE)
    run("play", "-q", str(rare), str(ROOT / "scenarios" / "isolation"))
    run("shell", "echo", typed="connect: alice\nsend: {alice: hello}\nexpect: {alice: hello}\n")
    hungry = "import socket; socket.create_server(('0.0.0.0', 5005)); x = bytearray(1 << 31); x[::4096] = x[::4096]; input()"
    run("check", "echo", "--only", "what-is-sent-comes-back", "--port", "5005", "--on", "netns", "--", sys.executable, "-c", hungry)  # fmt: skip
    return [
        json.loads(line)
        for path in played.rglob("history.jsonl")
        for line in path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    ]


@pytest.mark.timeout(300)
def test_every_event_is_described_with_its_fields(histories: list[dict[str, Any]]) -> None:
    told = told_events()
    wrong: set[str] = set()
    seen: set[tuple[str, str]] = set()
    for event in histories:
        kind, fields = event["kind"], set(event) - {"t", "kind", "node"}
        seen |= {(kind, field) for field in fields} | {(kind, "")}
        if kind not in told:
            wrong.add(f"{kind}: is not described")
            continue
        wrong |= {f"{kind}: {field} is not described" for field in fields - set(told[kind])}
        wrong |= {
            f"{kind}: {f} may be missing" for f, may in told[kind].items() if f not in fields and not may
        }

    assert wrong == set()
    expected = {(kind, field) for kind, fields in told.items() for field in ("", *fields)}
    assert expected - seen == NOT_HERE


def test_events_without_a_node_are_named(histories: list[dict[str, Any]]) -> None:
    text = EVENTS.read_text(encoding="utf-8")
    told = words(re.search(r"Events without a `node`: (.*?);", text, re.DOTALL)[1])  # type: ignore[index]
    without = {event["kind"] for event in histories if "node" not in event}

    assert without - {"note"} == told
    assert not {event["kind"] for event in histories if "node" in event} & told


def test_every_kind_that_the_code_makes_is_described() -> None:
    made = set()
    for name in ("conductor", "servers", "session"):
        made |= set(
            re.findall(
                r'\brecord\(\s*"([a-z-]+)"',
                (ROOT / "socklab" / f"{name}.py").read_text().replace("_record(", "record("),
            )
        )

    assert made <= set(told_events())


# The agent.


AGENT = PAGES / "agent.md"


def module(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "clients" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


READS = re.compile(
    r'(?:message\.get\(|(?:need|seconds|place_of|whole|number_of|bytes_of)\(message, )(?:prefix \+ )?"(\w+)"'
)


def test_every_command_of_the_agent_is_described_with_its_fields() -> None:
    agent = module("agent")
    told = {
        name.strip("`"): words(fields)
        for name, fields, _ in rows(AGENT.read_text(encoding="utf-8"), "Commands")
    }
    code = {name[3:]: getattr(agent.Agent, name) for name in dir(agent.Agent) if name.startswith("do_")}

    assert set(told) == set(code)
    for name, function in code.items():
        source = inspect.getsource(function)
        read = set(READS.findall(source)) | ({"client"} if "client_of" in source else set())
        values = (
            {"tcp", "udp", "unix", "@"} if name == "open" else {"what", "crowd"} if name == "crowd" else set()
        )
        assert read - values == told[name] - values, name


def test_words_options_events_and_the_version_of_the_agent_are_told() -> None:
    agent, text = module("agent"), AGENT.read_text(encoding="utf-8")
    source = (ROOT / "clients" / "agent.py").read_text(encoding="utf-8")
    section = {
        title: text.partition(f"\n## {title}\n")[2].partition("\n## ")[0] for title in ("Errors", "Options")
    }

    assert {*agent.WORDS.values(), "usage", "other"} <= words(section["Errors"])
    assert set(agent.OPTIONS) <= words(section["Options"])
    assert {name.strip("`") for name, *_ in rows(text, "Events")} == set(
        re.findall(r'"event": "(\w+)"', source.partition('"""\n\nimport')[2])
    )
    assert f"This is version {agent.VERSION}." in text


def test_every_command_of_a_crowd_is_described_with_its_fields() -> None:
    parts = sorted((ROOT / "clients" / "crowd").glob("*.py"))
    source = "\n".join(path.read_text(encoding="utf-8") for path in parts)
    text = AGENT.read_text(encoding="utf-8").partition("\n## Crowds\n")[2].partition("\n## ")[0]
    known = re.search(r"known = \((.*?)\)", source)
    assert known is not None
    answers = {
        key
        for body in re.findall(r"return \{\n(.*?)\n        \}", source, re.DOTALL)
        for key in re.findall(r'^ +"(\w+)":', body, re.MULTILINE)
    }

    assert [name.strip("`") for name, *_ in rows(AGENT.read_text(encoding="utf-8"), "Crowds")] == re.findall(
        r'"([\w-]+)"', known[1]
    )
    assert set(READS.findall(source)) - {"what", "crowd"} <= words(text)
    assert answers | set(WRONG) <= words(text)


# Servers, and what to extend.


def test_keys_of_a_compose_file_and_labels_are_those_that_are_read() -> None:
    text = (PAGES / "servers.md").read_text(encoding="utf-8")
    source = inspect.getsource(topology._Reader.service) + inspect.getsource(topology._Reader._networks)
    source += inspect.getsource(topology._Reader._endpoint)
    read = set(re.findall(r'options\.get\("(\w+)"', source)) | set(re.findall(r'"(\w+)" in options', source))
    listed = re.search(r'for key in \(("container_name".*?)\)', source)
    assert listed is not None
    read |= set(re.findall(r'"(\w+)"', listed[1]))

    assert set().union(*(words(keys) for keys, _ in rows(text, "In a compose file"))) == read
    assert {name.strip("`") for name, *_ in rows(text, "Labels")} == {"socklab.contract", topology.CONTROL}
    for contract in CONTRACTS:
        assert f"`{contract}`" in text.partition("| contract | a message is |")[2].partition("\n\n")[0]


def test_files_that_are_named_are_there() -> None:
    text = (PAGES / "extending.md").read_text(encoding="utf-8")
    tables = [words(line) for line in text.splitlines() if line.startswith(("|", "Held by"))]
    named = {
        each
        for each in set().union(*tables)
        if re.fullmatch(r"(?:socklab|tests|docs|scenarios|services)/[\w./-]*", each)
    }
    missing = [each for each in named if "NAME" not in each and not (ROOT / each).exists()]

    assert len(named) > 20
    assert missing == []
