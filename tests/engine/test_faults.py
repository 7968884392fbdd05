"""Link faults as text for nft(8) and ip(8): what is drawn is what the kernel takes, and what it does with packets."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from socklab.faults import (
    DROP,
    REJECT,
    Interface,
    Links,
    changed,
    hosts_changed,
    neighbour_batch,
    nft_ruleset,
)

LAB = {
    "alice": (Interface("eth0", "lab", "10.71.0.2"),),
    "bob": (Interface("eth0", "lab", "10.71.0.3"), Interface("eth1", "back", "10.72.0.3")),
    "server": (Interface("eth0", "lab", "10.71.0.4"), Interface("eth1", "back", "10.72.0.4")),
    "alone": (),
}
NFT = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin:/bin")
IP = shutil.which("ip", path="/usr/sbin:/sbin:/usr/bin:/bin")
RULESETS: dict[str, Links] = {
    "whole": {},
    "a drop": {("alice", "server"): DROP},
    "drops from two hosts with three addresses": {("alice", "server"): DROP, ("bob", "server"): DROP},
    "a reject": {("alice", "server"): REJECT},
    "a drop beside a reject": {("alice", "server"): DROP, ("bob", "server"): REJECT},
    "rejects both ways": {("alice", "server"): REJECT, ("server", "alice"): REJECT},
    "links of others": {("server", "alice"): DROP, ("alice", "bob"): REJECT},
    "a host without a network": {("alone", "server"): DROP},
}


MAKE_ETH0 = "ip link add eth0 type veth peer name peer; ip link set eth0 up; ip link set peer up"


def in_a_namespace(script: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a script as root of a network namespace of its own, which ends with it."""
    return subprocess.run(
        ["unshare", "--user", "--map-root-user", "--net", "sh", "-ec", script],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=30,
        env={"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"},
    )


def why_no_nft() -> str | None:
    if NFT is None:
        return "nft is not installed (apt install nftables)"
    if shutil.which("unshare") is None:
        return "unshare is not installed (apt install util-linux)"
    done = in_a_namespace("nft -f -", nft_ruleset("server", {("alice", "server"): REJECT}, LAB))
    return (
        None
        if done.returncode == 0
        else f"no namespace, or nothing to reject with: {done.stderr.strip().splitlines()[-1:]}"
    )


def why_no_ip() -> str | None:
    if IP is None:
        return "ip is not installed (apt install iproute2)"
    done = in_a_namespace(MAKE_ETH0)
    return (
        None
        if done.returncode == 0
        else f"no namespace with an interface: {done.stderr.strip().splitlines()[-1:]}"
    )


NO_NFT, NO_IP = why_no_nft(), why_no_ip()
needs_nft = pytest.mark.skipif(NO_NFT is not None, reason=str(NO_NFT))
needs_ip = pytest.mark.skipif(NO_IP is not None, reason=str(NO_IP))


@needs_nft
@pytest.mark.parametrize("name", RULESETS)
def test_every_ruleset_is_one_that_nft_takes(name: str) -> None:
    """Checked by nft itself, and then loaded."""
    ruleset = nft_ruleset("server", RULESETS[name], LAB)
    done = in_a_namespace("nft -c -f -", ruleset)
    assert (done.returncode, done.stderr) == (0, "")
    done = in_a_namespace("nft -f -", ruleset)
    assert (done.returncode, done.stderr) == (0, "")


def loaded(*rulesets: str) -> list[dict[str, object]]:
    """What the kernel has after these, one after another."""
    script = "\n".join(f"nft -f - <<'END'\n{ruleset}END" for ruleset in rulesets) + "\nnft -j list ruleset"
    done = in_a_namespace(script)
    assert (done.returncode, done.stderr) == (0, "")
    return [entry for entry in json.loads(done.stdout)["nftables"] if "metainfo" not in entry]


@needs_nft
def test_each_ruleset_replaces_the_one_before() -> None:
    """Loaded twice it is there once, and of the old one nothing is left."""
    one = nft_ruleset("server", RULESETS["a drop"], LAB)
    other = nft_ruleset("server", RULESETS["a drop beside a reject"], LAB)

    def shape(entries: list[dict[str, object]]) -> list[str]:
        return [key for entry in entries for key in entry]

    assert shape(loaded(one)) == ["table", "chain", "rule"]
    assert shape(loaded(other, one, one)) == ["table", "chain", "rule"]
    assert shape(loaded(one, other)) == ["table", "chain", "chain", "rule", "rule", "rule", "rule", "rule"]


@needs_nft
def test_heal_leaves_nothing() -> None:
    """No rule, no chain, no table; also where nothing was."""
    healed = nft_ruleset("server", {}, LAB)
    assert loaded(nft_ruleset("server", RULESETS["a drop beside a reject"], LAB), healed) == []
    assert loaded(healed, healed) == []


# One address of a namespace talks to another by its loopback, which takes packets through the same hooks.
TALK = """
ip link set lo up
ip addr add 10.71.0.2/16 dev lo; ip addr add 10.71.0.3/16 dev lo; ip addr add 10.71.0.4/16 dev lo
nft -f -
python3 - <<'END'
import socket
listener = socket.create_server(("10.71.0.4", 5000), backlog=8)
for source in ("10.71.0.2", "10.71.0.3"):
    client = socket.socket()
    client.settimeout(0.5)
    client.bind((source, 0))
    try:
        client.connect(("10.71.0.4", 5000))
        print("connected")
    except OSError as exc:
        print(type(exc).__name__)
    datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagram.settimeout(0.5)
    datagram.bind((source, 0))
    datagram.connect(("10.71.0.4", 5001))
    datagram.send(b"x")  # never fails: the packet leaves
    try:
        datagram.recv(1)
    except OSError as exc:
        print(type(exc).__name__)
END
"""


@needs_nft
@needs_ip
@pytest.mark.parametrize(
    ("links", "seen"),
    [
        ({}, ["connected", "ConnectionRefusedError", "connected", "ConnectionRefusedError"]),
        ({("alice", "server"): DROP}, ["TimeoutError", "TimeoutError", "connected", "ConnectionRefusedError"]),
        ({("alice", "server"): REJECT}, ["ConnectionRefusedError", "ConnectionRefusedError", "connected", "ConnectionRefusedError"]),
        ({("bob", "server"): REJECT, ("alice", "server"): DROP}, ["TimeoutError", "TimeoutError", "ConnectionRefusedError", "ConnectionRefusedError"]),
    ],
    ids=["whole", "drop", "reject", "drop beside reject"],
)  # fmt: skip
def test_a_drop_is_silence_and_a_reject_is_an_answer(links: Links, seen: list[str]) -> None:
    """A dropped packet is gone and sendto(2) does not know; a rejected one comes back as RST, or as ICMP over UDP."""
    # Nobody listens for datagrams there, so that a link that is whole answers too.
    done = in_a_namespace(
        TALK.replace("nft -f -", f"nft -f - <<'RULES'\n{nft_ruleset('server', links, LAB)}RULES")
    )
    assert done.stderr == ""
    assert done.stdout.split() == seen


def test_a_ruleset_names_only_what_comes_in() -> None:
    """Faults act at the receiver: what it sends is no concern of its rules."""
    rules = nft_ruleset("server", {("alice", "server"): DROP, ("server", "bob"): DROP}, LAB)
    assert "10.71.0.2" in rules
    assert "10.71.0.3" not in rules
    assert "output" not in rules


def test_links_are_set_and_healed_one_by_one() -> None:
    """The others stay as they are, and the old ones are not touched."""
    before = {("a", "b"): DROP}
    both = changed(before, [("b", "a")], REJECT)
    assert both == {("a", "b"): DROP, ("b", "a"): REJECT}
    assert changed(both, [("a", "b"), ("x", "y")], None) == {("b", "a"): REJECT}
    assert changed(both, [("a", "b")], REJECT) == {("a", "b"): REJECT, ("b", "a"): REJECT}
    assert before == {("a", "b"): DROP}


def test_only_those_are_told_whom_a_change_concerns() -> None:
    """The receivers' rules, or the senders' neighbour entries."""
    before, after = (
        {("a", "b"): DROP, ("c", "b"): DROP},
        {("a", "b"): REJECT, ("c", "b"): DROP, ("b", "d"): DROP},
    )
    assert hosts_changed(before, after) == ["b", "d"]
    assert hosts_changed(before, after, closed={"a", "b", "c", "d", "e"}) == ["a", "b"]
    assert hosts_changed(after, after) == []


def test_without_nft_a_neighbour_leads_nowhere() -> None:
    """On each network that the two share; healed, the entry goes and is found anew."""
    cut: Links = {("bob", "server"): DROP, ("alice", "server"): DROP}
    nowhere = "lladdr 02:00:00:00:de:ad nud permanent"
    assert neighbour_batch("bob", {}, cut, LAB) == (
        f"neigh replace 10.71.0.4 {nowhere} dev eth0\nneigh replace 10.72.0.4 {nowhere} dev eth1\n"
    )
    assert neighbour_batch("alice", {}, cut, LAB) == f"neigh replace 10.71.0.4 {nowhere} dev eth0\n"
    assert (
        neighbour_batch("bob", cut, {}, LAB) == "neigh del 10.71.0.4 dev eth0\nneigh del 10.72.0.4 dev eth1\n"
    )
    assert neighbour_batch("bob", cut, cut, LAB) == ""
    assert neighbour_batch("server", {}, cut, LAB) == ""
    assert neighbour_batch("bob", cut, {("bob", "server"): REJECT}, LAB).startswith("neigh del")


@needs_ip
def test_the_neighbour_entries_are_ones_that_ip_takes() -> None:
    """Made, made once more, and taken away, on a real interface."""
    cut: Links = {("alice", "server"): DROP}
    make, undo = neighbour_batch("alice", {}, cut, LAB), neighbour_batch("alice", cut, {}, LAB)
    script = f"{MAKE_ETH0}; ip addr add 10.71.0.2/16 dev eth0\n"
    script += "".join(
        f"ip -batch - <<'END'\n{batch}END\nip neigh show 10.71.0.4\necho --\n" for batch in (make, make, undo)
    )
    done = in_a_namespace(script)
    assert (done.returncode, done.stderr) == (0, "")
    first, second, healed, _ = done.stdout.split("--\n")
    assert first.split() == ["10.71.0.4", "dev", "eth0", "lladdr", "02:00:00:00:de:ad", "PERMANENT"]
    assert (second, healed) == (first, "")
