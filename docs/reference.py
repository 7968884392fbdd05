"""Writes what the code says of itself into the pages of docs/reference/.

    python -m docs.reference            write
    python -m docs.reference --check    say which pages are stale

A page holds such a part between `<!-- made: NAME -->` and `<!-- end -->`; PARTS has the names. All else in it is written by hand.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from socklab import backends, cli, language, pytest_plugin, servers
from socklab.backends.docker import Docker
from socklab.backends.joined import Joined
from socklab.backends.netns import Netns
from socklab.backends.process import Process
from socklab.grammar import (
    Field,
    Fields,
    Flag,
    ListOf,
    MapOf,
    Named,
    Number,
    Setting,
    Shapes,
    Type,
    Variants,
    Word,
)
from socklab.guest import Limits

PAGES = Path(__file__).resolve().parent / "reference"
MADE = re.compile(r"(<!-- made: ([a-z-]+)(?: ([\w-]+))? -->\n).*?(<!-- end -->)", re.DOTALL)
IN_COMMON = ("from", "to", "between", "after")
"""What every link fault takes; it stands once, above the verbs."""


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    first, *rest = (
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |".replace("|  |", "| |")
        for line in [head, *rows]
    )
    return "\n".join([first, "|---" * len(head) + "|", *rest])


def code(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


# The language.


def takes(type_: Type) -> str:
    """What may stand there, in words."""
    if isinstance(type_, Setting):
        return type_.what
    if isinstance(type_, Number):
        return f"{type_.what}, {type_.minimum:,} to {type_.maximum:,}"
    if isinstance(type_, Flag):
        return "`true`"
    if isinstance(type_, Word) and type_.choices and type_ is not language.CLAUSE:
        return code(type_.choices)
    if isinstance(type_, ListOf) and type_.what == "a list":
        return f"a list, each {takes(type_.item)}"
    if isinstance(type_, Fields):
        return f"a map with {code(type_.fields)}"
    return type_.what


def within(type_: Type) -> Iterator[Fields]:
    """The maps with fixed keys that may stand somewhere in it, but not those of steps within steps."""
    if isinstance(type_, Fields):
        yield type_
        for each in type_.fields.values():
            yield from within(each.type)
    elif isinstance(type_, Variants):
        for _, fields in type_.variants:
            yield from within(fields)
    elif isinstance(type_, Shapes):
        for inner in (type_.scalar, type_.seq, type_.map):
            if inner is not None:
                yield from within(inner)
    elif isinstance(type_, ListOf):
        yield from within(type_.item)
    elif isinstance(type_, MapOf):
        yield from within(type_.value)
        for inner in type_.named.values():
            yield from within(inner)
    elif isinstance(type_, Named):
        return


def keys(verb: str) -> dict[str, Field]:
    """The keys below a verb; of expect: and of links what stands elsewhere on the page is left out."""
    if verb == "expect":
        return {}
    found: dict[str, Field] = {}
    for fields in within(language.VERBS[verb].type):
        for name, field in fields.fields.items():
            if not (verb in language.LINK_VERBS and name in IN_COMMON) and not _of_packets(verb, fields):
                found.setdefault(name, field)
    return found


def _of_packets(verb: str, fields: Fields) -> bool:
    return verb != "drop" and set(fields.fields) == set(language.PACKETS)


def fields_table(fields: dict[str, Field], required: bool = False) -> str:
    def about(field: Field) -> str:
        return f"{field.about} (required)" if required and field.required else field.about

    return table(
        ("key", "takes", "what"),
        ([f"`{name}`", takes(field.type), about(field)] for name, field in fields.items()),
    )


def head(_: str) -> str:
    return fields_table(dict(language.SCENARIO.fields), required=True)


def client(_: str) -> str:
    (options,) = within(language.CLIENT)
    return fields_table(dict(options.fields))


def modifiers(_: str) -> str:
    everywhere = "any step"
    return table(
        ("key", "takes", "what", "beside"),
        (
            [f"`{name}`", takes(field.type), field.about, code(language.MODIFIES[name]) if name in language.MODIFIES else everywhere]
            for name, field in language.MODIFIERS.items()
        ),
    )  # fmt: skip


def verb(name: str) -> str:
    field = language.VERBS[name]
    kind = "steps" if isinstance(field.type, Named) or field.type is language.STEPS else takes(field.type)
    beside = [m for m in language.MODIFIERS if name in language.MODIFIES.get(m, ())]
    if name == "connect":
        beside += language.CONNECT_MODIFIERS
    lines = [f"`{name}:` takes {kind}." + (f" Beside it: {code(beside)}." if beside else "")]
    if found := keys(name):
        lines += ["", fields_table(found)]
    if name == "set":
        lines += ["", f"Options: {code(language.OPTIONS)}."]
    return "\n".join(lines)


def links(_: str) -> str:
    fields: dict[str, Field] = {}
    for each in within(language.VERBS["cut"].type):
        fields |= {name: field for name, field in each.fields.items() if name in IN_COMMON}
    return fields_table(fields)


def packets(_: str) -> str:
    return fields_table(language.PACKETS)


def forms(_: str) -> str:
    """The forms of expecting that are maps."""
    variants = language.EXPECTATION.map
    assert isinstance(variants, Variants)
    rows = []
    for key, fields in variants.variants:
        beside = [name for name in fields.fields if name != key]
        field = fields.fields[key]
        rows.append([f"`{{{key}: …}}`", takes(field.type), field.about, code(beside)])
    return table(("form", "takes", "is met by", "beside it"), rows)


def wire(_: str) -> str:
    return fields_table(dict(language.WIRE.fields))


def reserved(_: str) -> str:
    return f"Names that nobody may have: {code(language.RESERVED)}."


# The command line.


def _plain(text: str) -> str:
    return " ".join(text.split())


def _commands() -> argparse._SubParsersAction[argparse.ArgumentParser]:
    (action,) = (a for a in cli._parser()._actions if isinstance(a, argparse._SubParsersAction))
    return action


def commands() -> dict[str, argparse.ArgumentParser]:
    """All commands with their parsers, in the order of --help."""
    return dict(_commands().choices)


def summaries() -> dict[str, str]:
    """What --help says of each."""
    return {each.dest: _plain((each.help or "").replace("%%", "%")) for each in _commands()._choices_actions}


def usage(name: str, parser: argparse.ArgumentParser) -> str:
    if parser.usage:
        return "\n".join(line.strip() for line in parser.usage.splitlines())
    words = [f"socklab {name}"]
    if any(a.option_strings and a.dest != "help" for a in parser._actions):
        words.append("[options]")
    for action in parser._actions:
        if not action.option_strings:
            shown = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
            words.append(
                {
                    "?": f"[{shown}]",
                    "*": f"[{shown} ...]",
                    "+": f"{shown} ...",
                    argparse.REMAINDER: f"{shown} ...",
                }.get(str(action.nargs), shown)
            )
    return " ".join(words)  # fmt: skip


def commands_list(_: str) -> str:
    return table(
        ("command", "what"),
        ([f"[`{name}`](#socklab-{name})", about] for name, about in summaries().items()),
    )


def command(name: str) -> str:
    parser = commands()[name]
    formatter = parser._get_formatter()
    rows = []
    for action in parser._actions:
        if action.dest == "help" or action.help == argparse.SUPPRESS:
            continue
        value = (
            "" if action.nargs == 0 else f" {formatter._metavar_formatter(action, action.dest.upper())(1)[0]}"
        )
        shown = [f"`{option}{value}`" for option in action.option_strings] or [f"`{value.strip()}`"]
        about = _plain(formatter._expand_help(action)) if action.help else ""
        rows.append([", ".join(shown), about])
    lines = ["```text", usage(name, parser), "```", "", _plain(parser.description or "").replace("<", "\\<")]
    return "\n".join([*lines, *(["", table(("argument", "what"), rows)] if rows else [])])


# The rest.


def pytest_options(_: str) -> str:
    rows: list[list[str]] = []

    class Group:
        def addoption(self, *names: str, **said: Any) -> None:
            value = said.get("metavar") or "|".join(said.get("choices", ()))
            rows.append([f"`{names[0]}{' ' + value if value else ''}`", said["help"]])

    class Parser:
        def getgroup(self, *_: str) -> Group:
            return Group()

        def addini(self, name: str, help: str, **_: Any) -> None:
            rows.append([f"`{name} = true` in pytest's configuration", help])

    pytest_plugin.pytest_addoption(Parser())  # type: ignore[arg-type]
    return table(("option", "what"), rows)


CAPABILITIES = {
    backends.LINKS: "links can be put under faults",
    backends.NETWORKS: "networks of its own for each lab, several of them, apart from each other",
    backends.NAMES: "a node finds another by its name",
    backends.PROGRAMS: "servers are started and ended at will; their output and sockets can be read",
    backends.IPV6: "networks with IPv6",
    backends.IMAGES: "a service runs in its image, by the command that the compose file or the image says",
}


def capabilities(_: str) -> str:
    found: list[Any] = [Netns, Process, Docker, Joined]
    rows = [
        [f"`{name}`", about, *("yes" if name in each.can else "" for each in found)]
        for name, about in CAPABILITIES.items()
    ]
    return table(("capability", "what", *(f"`{each.name}`" for each in found)), rows)


def server_limits(_: str) -> str:
    limits = Limits()
    return table(
        ("limit", "is"),
        [
            ["to be ready", f"{servers.READY_LIMIT:g} s"],
            ["the same, of one that listens somewhere else", f"{servers.ELSEWHERE_LIMIT:g} s"],
            ["from SIGTERM to SIGKILL, unless a step says `within`", f"{servers.STOP_LIMIT:g} s"],
            [
                "descriptors, processes of a program behind `--`",
                f"{limits.descriptors:,}, {limits.processes:,}",
            ],
            [
                "memory, a file, what is kept of its log",
                f"{limits.memory >> 20:,} MiB, {limits.file >> 20} MiB, {limits.output >> 20} MiB",
            ],
        ],
    )


PARTS: dict[str, Callable[[str], str]] = {
    "head": head,
    "client": client,
    "modifiers": modifiers,
    "verb": verb,
    "links": links,
    "packets": packets,
    "forms": forms,
    "wire": wire,
    "reserved": reserved,
    "commands": commands_list,
    "command": command,
    "pytest-options": pytest_options,
    "capabilities": capabilities,
    "server-limits": server_limits,
}


def made(text: str) -> str:
    """A page with its parts as the code has them now. Raises KeyError for one that nothing makes."""
    return MADE.sub(lambda m: f"{m[1]}\n{PARTS[m[2]](m[3] or '')}\n\n{m[4]}", text)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m docs.reference", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--check", action="store_true", help="say which pages are stale, and write none")
    asked = parser.parse_args()
    stale = 0
    for page in sorted(PAGES.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        if (new := made(text)) != text:
            stale += 1
            print(f"{page}: {'is stale; python -m docs.reference writes it' if asked.check else 'written'}")
            if not asked.check:
                page.write_text(new, encoding="utf-8")
    return int(bool(stale) and asked.check)


if __name__ == "__main__":
    sys.exit(main())
