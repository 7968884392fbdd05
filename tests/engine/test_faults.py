"""Link faults: how they are put and taken, and the rules that nft(8) is told of them."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from socklab import faults
from socklab.faults import Interface, Links

LAB = {
    "alice": (Interface("eth0", "lab", "10.71.0.2"),),
    "bob": (Interface("eth0", "lab", "10.71.0.3"), Interface("eth1", "back", "10.72.0.3")),
    "server": (Interface("eth0", "lab", "10.71.0.4"), Interface("eth1", "back", "10.72.0.4")),
    "alone": (),
    "six": (Interface("eth0", "lab", "10.71.0.6"), Interface("eth0", "lab", "fd71::6")),
}
NFT = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin:/bin")
CUT: dict[str, object] = {"cut": {}}
REJECT: dict[str, object] = {"reject": {}}
LOSS: dict[str, object] = {"loss": {"is": 0.1, "told": "10%"}}
RULESETS: dict[str, Links] = {
    "whole": {},
    "a cut": {("alice", "server"): CUT},
    "cuts from two hosts with three addresses": {("alice", "server"): CUT, ("bob", "server"): CUT},
    "a reject": {("alice", "server"): REJECT},
    "a cut beside a reject": {("alice", "server"): CUT, ("bob", "server"): REJECT},
    "rejects both ways": {("alice", "server"): REJECT, ("server", "alice"): REJECT},
    "loss beside a reject on the same link": {("bob", "server"): {**LOSS, **REJECT}},
    "links of others": {("server", "alice"): CUT, ("alice", "bob"): REJECT},
    "a host without a network": {("alone", "server"): CUT},
    "a host with two families of addresses": {("six", "server"): {**CUT, **REJECT}},
}


def nft_ruleset(receiver: str, links: Links, closed: frozenset[str] = frozenset()) -> str:
    marks = {pair: number for number, pair in enumerate(sorted(links), 1)}
    return faults.nft_ruleset(receiver, links, LAB, marks, closed)


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
    done = in_a_namespace("nft -f -", nft_ruleset("server", {("alice", "server"): REJECT}))
    return (
        None
        if done.returncode == 0
        else f"no namespace, or nothing to reject with: {done.stderr.strip().splitlines()[-1:]}"
    )


NO_NFT = why_no_nft()
needs_nft = pytest.mark.skipif(NO_NFT is not None, reason=str(NO_NFT))


@needs_nft
@pytest.mark.parametrize("name", RULESETS)
def test_every_ruleset_is_one_that_nft_takes(name: str) -> None:
    """Checked by nft itself, and then loaded."""
    ruleset = nft_ruleset("server", RULESETS[name])
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
    one = nft_ruleset("server", RULESETS["a cut"])
    other = nft_ruleset("server", RULESETS["a cut beside a reject"])

    def shape(entries: list[dict[str, object]]) -> list[str]:
        return [key for entry in entries for key in entry]

    assert shape(loaded(one)) == ["table", "chain", "chain", *["rule"] * 3]
    assert shape(loaded(other, one, one)) == ["table", "chain", "chain", *["rule"] * 3]
    assert shape(loaded(one, other)) == ["table", "chain", "chain", *["rule"] * 9]


@needs_nft
def test_heal_leaves_no_rule() -> None:
    """The chains stay: with a hook go the packets that wait for their verdict."""
    healed = nft_ruleset("server", {})
    left = loaded(nft_ruleset("server", RULESETS["a cut beside a reject"]), healed)
    assert [key for entry in left for key in entry] == ["table", "chain", "chain"]
    assert loaded(healed, healed) == loaded(healed)


def test_a_ruleset_names_only_what_comes_in() -> None:
    """Faults act at the receiver: what it sends is no concern of its rules."""
    rules = nft_ruleset("server", {("alice", "server"): CUT, ("server", "bob"): CUT})
    assert "10.71.0.2" in rules
    assert "10.71.0.3" not in rules
    assert "output" not in rules


def test_where_nothing_can_be_set_the_sender_drops_what_leaves() -> None:
    """Behind sendto(2), which is told nothing of it."""
    links: Links = {("alice", "server"): CUT}
    rules = nft_ruleset("alice", links, frozenset({"server"}))
    assert "hook egress" in rules
    assert "ip daddr { 10.71.0.4, 10.72.0.4 } drop" in rules


def test_faults_are_put_and_taken_one_by_one() -> None:
    """Others on the same link and on other links stay as they are, and the old links are not touched."""
    before: Links = {("a", "b"): CUT}
    both = faults.put(faults.put(before, [("b", "a")], "reject", {}), [("a", "b")], "loss", LOSS["loss"])
    assert both == {("a", "b"): {**CUT, **LOSS}, ("b", "a"): REJECT}
    assert faults.taken(both, [("a", "b")], "cut", {}) == {("a", "b"): LOSS, ("b", "a"): REJECT}
    assert faults.healed(both, [("a", "b"), ("x", "y")]) == {("b", "a"): REJECT}
    assert before == {("a", "b"): CUT}


def test_what_is_taken_gives_back_what_was_there_before() -> None:
    """And leaves alone what somebody else has put there since."""
    link, mild, hard = ("a", "b"), {"is": 0.1}, {"is": 0.9}
    before: Links = {link: {"loss": mild}}
    worse = faults.put(before, [link], "loss", hard)
    assert faults.taken(worse, [link], "loss", hard, before) == before
    assert faults.taken(faults.healed(worse, [link]), [link], "loss", hard, before) == {}
    assert faults.taken(before, [link], "loss", hard, {}) == before


def test_several_drops_stand_beside_each_other() -> None:
    """Each is one packet's own fate; taken is the one that was put."""
    link, first, third = ("a", "b"), {"nth": 1}, {"nth": 3}
    both = faults.put(faults.put({}, [link], "drop", first), [link], "drop", third)
    assert both == {link: {"drop": (first, third)}}
    assert faults.taken(both, [link], "drop", first) == {link: {"drop": (third,)}}
    assert faults.taken(faults.taken(both, [link], "drop", first), [link], "drop", third) == {}


def test_only_links_that_changed_are_told() -> None:
    before: Links = {("a", "b"): CUT, ("c", "b"): CUT}
    after: Links = {("a", "b"): REJECT, ("c", "b"): CUT, ("b", "d"): CUT}
    assert faults.pairs_changed(before, after) == {("a", "b"), ("b", "d")}
    assert faults.pairs_changed(after, after) == set()


def test_faults_are_told_in_the_words_of_the_scenario() -> None:
    put = {
        "delay": {"is": 0.1, "told": "100ms"},
        "drop": ({"told": "the 2nd"}, {"told": '"#REG"'}),
        "cut": {},
    }
    assert faults.told(put) == 'cut, delay 100ms, drop the 2nd, drop "#REG"'


def test_chance_differs_by_seed_and_by_direction() -> None:
    keys = {faults.key(seed, *pair) for seed in (1, 2) for pair in (("a", "b"), ("b", "a"), ("a", "bb"))}
    assert len(keys) == 6
    assert faults.key(1, "a", "b") == faults.key(1, "a", "b")
