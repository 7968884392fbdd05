"""The beginning of a scenario, for somebody who writes their first one."""

from __future__ import annotations

import os
from pathlib import Path

from socklab.contracts import CONTRACTS
from socklab.player import is_scenario

ROOT = Path(__file__).resolve().parent.parent
_STEPS = {
    "chat": """\
  - connect: everyone
  - send: {alice: hello}            # on a line service a newline is added
  - expect: {everyone: hello}       # up to 2s; write within: 5s for another limit
  - close: bob
  - send: {alice: who is left?}
  - expect: {alice: who is left?}
""",
    "echo": """\
  - connect: alice
  - send: {alice: "hello\\n"}
  - expect: {alice: {exactly: sent}}  # what came is what was sent, whole and once
  - half-close: alice               # FIN: no more to send
  - expect: {alice: eof}
""",
    "udp-echo": """\
  - send: {alice: hello}            # no connect: a datagram needs none
  - expect: {alice: {exactly: sent}}
""",
    "registry": """\
  - send: {everyone: "#REG"}
  - expect: {everyone: any}         # the answer, whatever it says
  - send: {alice: hello}
  - expect: {everyone: hello}
""",
}


class Refused(Exception):
    """It cannot be written; the message says why, and what would do."""


def write(path: Path, contract: str) -> Path:
    """Write the file. Raises Refused."""
    if path.suffix not in (".yaml", ".yml"):
        path = path.with_name(path.name + ".yaml")
    if not is_scenario(path.absolute()):
        raise Refused(
            f"{path}: a scenario is a *.yaml under a folder called scenarios/, or a *.scenario.yaml; name it {path.with_suffix('')}.scenario.yaml"
        )
    title = (
        path.name.partition(".")[0].replace("-", " ").replace("_", " ").strip().capitalize()
        or "What it shows"
    )
    clients = "[alice]" if contract in ("echo", "udp-echo") else "[alice, bob]"
    schema = os.path.relpath(ROOT / "scenario.schema.json", path.absolute().parent)
    text = f"""\
# yaml-language-server: $schema={schema}
title: {title}
about: >-
  Why it happens, for whoever reads this in a year.
clauses: [{contract}.1]   # what of the contract it holds; docs/contracts.md
service: {CONTRACTS[contract].model}
clients: {clients}
steps:
{_STEPS[contract]}"""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise Refused(f"{path}: is there already; choose another name") from None
    except OSError as exc:
        raise Refused(f"{path}: {exc.strerror}") from None
    return path
