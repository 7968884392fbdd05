"""`socklab doctor`: what this machine can do, found out by doing it, and the fix for what it cannot."""

from __future__ import annotations

import os
import platform
import resource
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from socklab.backends import Lab, LabError, Network, Node
from socklab.capture import why_no_capture
from socklab.guest import FIRST_UID, Cell, Guest
from socklab.links import NEEDS, what_links_can


async def examine(measure_links: bool = False) -> int:
    """Print what works and what does not; with `measure_links` hold every link fault against packets counted at both ends.

    0 if scenarios can be played at all (and what was measured is as asked), else 3."""
    from socklab.backends.netns import Netns
    from socklab.backends.process import Process

    rows: list[tuple[str, str, str]] = []
    who = "root" if os.geteuid() == 0 else f"user {os.geteuid()}"
    rows.append(
        (
            "machine",
            "ok" if sys.platform == "linux" else "no",
            f"{platform.system()} {platform.release()}, Python {platform.python_version()}, {who}",
        )
    )
    process = Process()
    try:
        lab = await process.lab([Network("lab")], [Node("probe", ("lab",))])
        await lab.stop()
        rows.append(("process", "ok", "plain processes on loopback; no link faults"))
    except LabError as exc:
        rows.append(("process", "no", str(exc)))
    finally:
        await process.close()
    rows += await _netns(Netns())
    files, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    rows.append(
        (
            "descriptors",
            "ok" if hard >= 4096 else "few",
            f"{files} at once, {hard} at most" + ("" if hard >= 4096 else "; raise it: ulimit -Hn 65536"),
        )
    )
    rows.append(await _docker())
    width = max(len(name) for name, _, _ in rows)
    for name, state, text in rows:
        first, *rest = text.splitlines()
        print(f"{name:<{width}}  {state:<4} {first}")
        for line in rest:
            print(f"{'':<{width}}       {line}")
    if not any(name in ("process", "netns") and state == "ok" for name, state, _ in rows):
        return 3
    return await _measure() if measure_links else 0


async def _measure() -> int:
    from socklab.backends.netns import Netns
    from socklab.measure import cases, measure

    backend = Netns()
    wrong = 0
    try:
        if reason := await backend.probe():
            print(f"nothing to measure: {reason}")
            return 3
        asked = cases()
        for put, measured in zip(asked, await measure(backend, asked), strict=True):
            found = measured.wrong(put)
            wrong += bool(found)
            print(f"{'no ' if found else 'ok '} {measured}" + "".join(f"\n      {each}" for each in found))
    except LabError as exc:
        print(f"no  {exc}")
        return 3
    finally:
        await backend.close()
    return 3 if wrong else 0


async def _docker() -> tuple[str, str, str]:
    try:
        from socklab.backends.docker import Docker
    except ImportError as exc:
        return ("docker", "no", f"needs a Python package: pip install {exc.name}")
    backend = Docker()
    try:
        reason = await backend.probe()
        if reason is None:
            version = await backend.engine.call(lambda client: client.version()["Version"])
            compose = await backend.engine.command(
                ["docker", "compose", "version", "--short"], "no Docker Compose"
            )
            return ("docker", "ok", f"engine {version}, Compose {compose.strip()}")
    except LabError as exc:
        reason = str(exc)
    finally:
        await backend.close()
    return ("docker", "no", reason)


async def _netns(backend: object) -> list[tuple[str, str, str]]:
    from socklab.backends.netns import Netns

    assert isinstance(backend, Netns)
    try:
        reason = await backend.probe()
        if reason:
            return [("netns", "no", reason)]
        lab = await backend.lab([Network("lab")], [Node("probe", ("lab",))])
        try:
            can = await what_links_can(lab, "probe")
            can["capture"] = await why_no_capture(lab)
            cell = await _cell(lab)
        finally:
            await lab.stop()
    except LabError as exc:
        return [("netns", "no", str(exc))]
    finally:
        await backend.close()
    how = "a network namespace for each node" + ("" if os.geteuid() == 0 else ", in a user namespace")
    return [("netns", "ok", how), *_link_rows(can), cell]


async def _cell(lab: Lab) -> tuple[str, str, str]:
    """How a stranger's program is kept apart: found out by asking one who it is."""
    lines: list[bytes] = []
    try:
        with tempfile.TemporaryDirectory(prefix="socklab-doctor-") as folder:
            confined = Guest(Path(folder), cell=Cell(FIRST_UID)).confined
            program = await lab.spawn(
                "probe", ["id", "-u"], env={"PATH": os.defpath}, cwd=folder, on_line=lambda _, line, __: lines.append(line), confined=confined
            )  # fmt: skip
            await program.exited
    except LabError as exc:
        return ("  cell", "no", f"submissions cannot be kept apart: {exc}")
    limits = "memory and processes are watched, not bounded by cgroups"
    if lines == [str(FIRST_UID).encode()]:
        return ("  cell", "ok", f"each submission a user of its own, in a copy of its folder; {limits}")
    return ("  cell", "few", f"submissions run as you, in a copy of their folder, seeing nothing else of yours; as root each is a user of its own; {limits}")  # fmt: skip


def _link_rows(can: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """What can be done to packets, and what is missing."""
    rows = []
    for need, name, about in (
        ("silence", "cut", "silence: partition, isolate, cut, by nftables"),
        ("refusal", "reject", "RST and ICMP, by nftables"),
        ("queue", "gate", "drop, loss, delay, duplicate, reorder, corrupt, rate, packet by packet"),
    ):
        why = can[need]
        rows.append((f"  {name}", "no" if why else "ok", f"{NEEDS[need]} ({why})" if why else about))
    seen = can["capture"] or "every packet, for Wireshark and for expect: {wire: …}"
    return [*rows, ("  capture", "no" if can["capture"] else "ok", seen)]
