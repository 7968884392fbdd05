"""Likely causes at a UDP echo and at a registry. Pure."""

from __future__ import annotations

from collections import Counter

from socklab.causes.story import (
    Rule,
    Story,
    for_each,
)
from socklab.matching import shown
from socklab.sockets import GONE

_REG, _DEREG = b"#REG", b"#DEREG"


def _datagram_cut(story: Story, client: str, got: list[bytes]) -> str:
    every = {data for _, _, data in story.said}
    for data in every:
        for each in got:
            if each in every or not each:
                continue
            if len(each) >= 200 and len(each) < len(data) and data.startswith(each):
                return f"of a datagram of {len(data):,} bytes {len(each):,} came: recvfrom({len(each)}) throws the rest away"
            if each.strip() == data.strip():
                return "strip() takes white space away from what was sent"
            text = data.strip()
            if text in (_REG, _DEREG):
                continue  # an answer may repeat what it answers
            if len(data) > 2 and each.endswith(data):
                return f"it puts {shown(each[: -len(data)], 40)} before what was sent: a datagram is delivered unchanged"
            if len(text) > 2 and text in each and story.is_wanted(client, data):
                return f"{shown(data, 40)} came as {shown(each)}: a datagram is delivered unchanged"
    return ""


def _registry(story: Story) -> str:
    """What a registry did that one of the contract would not have done. A model of it goes along with what was said."""
    members: set[str] = set()
    nodes: dict[str, str] = next((e.data["nodes"] for e in story.events if e.kind == "play"), {})
    if not any(data.strip() == _REG for _, _, data in story.said):
        return ""
    got = {name: story.got(name) for name in story.everyone}
    heard = {
        name: [(e.t, e.content) for e in story.of(name) if e.kind == "received"] for name in story.everyone
    }
    times = Counter(data for _, _, data in story.said)
    said = Counter((who, data) for who, _, data in story.said)
    speakers = {who for who, _ in said}
    if len(speakers) > 1 and all(
        got[name] and Counter(got[name]) <= Counter({d: n for (w, d), n in said.items() if w == name})
        for name in speakers
    ):
        return (
            "each gets back what it has said, as from an echo server: what a member says goes to every member"
        )
    owed: set[bytes] = set()
    for who, _, data in story.said:
        members = (
            members | {who}
            if data.strip() == _REG
            else members - {who}
            if data.strip() == _DEREG
            else members
        )
        if who in members:
            owed.add(data)
    members = set()
    for who, event, data in story.said:
        word = data.strip()
        answered = any(t > event.t for t, _ in heard[who])
        if word in (_REG, _DEREG):
            other = next((n for n in story.everyone if n != who and got[n].count(data) > said[n, data]), "")
            if other:
                return f"{other} got {who}'s {shown(word)}: a command is between one client and the server, and is not delivered"
            if who in story.clients and not answered and not got[who]:
                if word != data:
                    return f"{shown(data)} is not taken for a command: white space around it does not count"
                if not any(word != d and w == who for w, _, d in story.said if d.strip() in (_REG, _DEREG)):
                    return f"{shown(word)} is not answered: a client cannot know whether it is registered"
            if (
                who in story.clients
                and not answered
                and any(w == who and d.strip() == word and e.t < event.t for w, e, d in story.said)
            ):
                return f"a second {shown(word)} is not answered: the answer to the first may have been lost, so each is answered"
            members = members | {who} if word == _REG else members - {who}
            continue
        for name in story.clients:
            came = sum(each == data for each in got.get(name, []))
            twin = next((n for n in members if n != name and nodes.get(n) == nodes.get(name)), "")
            if came and data not in owed:
                return f"{who} has not registered, and what it says is delivered: before anything is delivered, its sender is looked up"
            if came > times[data] and name in members:
                return f"{name} is registered more than once: a second #REG adds it again (a list where a set is wanted)"
            if who in members and name in members and not came and len(data) < 2000 and times[data] == 1:
                alone = data in got[who] and not any(data in got[n] for n in members - {who})
                if alone and not twin:
                    return "what a member says comes back to it alone: it is delivered to every member, the sender too"
                if twin and data in got.get(twin, []):
                    return f"{name} and {twin} are on one host, and only {twin} is known: clients are told apart by their IP address alone"
                if any(
                    d.strip() == _DEREG and nodes.get(w) == nodes.get(name) and w != name
                    for w, _, d in story.said
                ):
                    return f"when a client of the same host left, {name} was taken off with it: a client is address and port together"
                if data.upper().find(_REG) >= 0 or data.upper().find(_DEREG) >= 0:
                    return (
                        f"{shown(data)} is taken for a command, and is a text: only the exact command is one"
                    )
                heard_by = [n for n in members - {name} if data in got[n]]
                left = next(
                    (w for w, e, d in story.said if d.strip() == _DEREG and w != name and e.t < event.t), ""
                )
                if left and not heard_by:
                    return f"since {left}'s #DEREG {name} gets nothing any more: #DEREG takes off who sends it, and nobody else"
                if name == who and heard_by:
                    return "what is said goes to every member but its sender: the sender is one of them, too"
                if name == who and len(members) == 1:
                    return f"{name} is the only member and does not hear itself: the sender is a member, too, and stays one until its #DEREG"
            if name not in members and came:
                return f"{name} is not registered, and hears what is said: who sends something is taken in, or #DEREG is not obeyed"
    return ""


def _refused_in_between(story: Story) -> str:
    """A datagram for one was not sent, since the call told of an ICMP error that concerns another (udp(7))."""
    refused = {
        str(e.data["from"])
        for e in story.events
        if e.kind == "wire" and "unreachable" in e.data["words"] and e.data["to"] == "server"
    }
    members: set[str] = set()
    for who, _, data in story.said:
        if data.strip() in (_REG, _DEREG):
            members = members | {who} if data.strip() == _REG else members - {who}
            continue
        refused_members = sorted(refused & members)
        others = members - refused
        without = next((name for name in sorted(others) if data not in story.got(name)), "")
        if who in members and without and refused_members and any(data in story.got(name) for name in others):
            return (
                f"what goes to {refused_members[0]} is refused (ICMP), and {without} misses what was said: the error of one "
                "datagram is raised by the next call, whose own datagram is not sent then"
            )
    return ""


def _datagram_from_elsewhere(story: Story, client: str, got: list[bytes]) -> str:
    ready = next((e for e in story.events if e.kind == "ready"), None)
    for event in story.of(client):
        if (
            event.kind == "received"
            and ready is not None
            and (source := event.data.get("from"))
            and source[1] != ready.data["port"]
        ):
            return f"the answer came from port {source[1]}, not from the server's own: a second socket sends it, and many clients throw it away"
    return ""


def _to_another(story: Story, client: str, got: list[bytes]) -> str:
    for who, _, data in story.said:
        if who == client and len(data) > 2 and data not in got:
            other = next(
                (
                    n
                    for n in story.everyone
                    if n != client
                    and data in story.got(n)
                    and not any(d == data for w, _, d in story.said if w == n)
                ),
                "",
            )
            if other and not got:
                return f"what {client} said went to {other}: the address of the first client is kept for all"
    return ""


def _elsewhere(story: Story) -> str:
    """What it sends to somebody comes to a port where nobody is, and that host says so."""
    for client in story.clients:
        if not story.inbox(client).messages and any(
            e.kind == "wire"
            and "unreachable" in e.data["words"]
            and (e.data["from"], e.data["to"]) == (client, "server")
            for e in story.events
        ):
            return f"what it sends to {client} comes to a port where nobody is (ICMP): the answer goes to the address that recvfrom() gave, its port too"
    return ""


def _is_refused(story: Story) -> str:
    for client in story.clients:
        last = next((e.t for who, e, _ in reversed(story.said) if who == client), 0)
        if any(
            e.kind == "error" and e.data.get("error") == "refused" and e.t > last for e in story.of(client)
        ):
            return f"the server's host refuses what {client} sends (ICMP): its socket is closed, or is connected to another client by connect(), and takes no one else's"
    return ""


def _silent(story: Story) -> str:
    """It runs, but has not answered anybody since a certain datagram."""
    answered = [e.t for e in story.events if e.kind == "received"]
    later = [(who, e, data) for who, e, data in story.said if not answered or e.t > answered[-1]]
    if not later:
        return ""
    if later[0][2] == b"" and len(later) == 1:
        return "an empty datagram is not answered: it is one like any other, and no end of anything in UDP"
    if later[0][2] == b"":
        return "since an empty datagram it answers nobody: an empty one is no end of anything in UDP"
    unread = next(
        (e for e in reversed(story.events) if e.kind == "sockets" and e.data["peer"] == "listen"), None
    )
    who = later[-1][0]
    if unread is None or who not in story.clients or unread.data["state"] == GONE:
        return ""
    if unread.data.get("recv-q"):
        return f"it does not read: what {who} said lies in its socket, and recvfrom() is not called again"
    return f"it has read what {who} said, and no answer came to anybody: none is sent, or to an address that nobody has"


RULES: tuple[Rule, ...] = (
    for_each(_datagram_from_elsewhere),
    for_each(_datagram_cut),
    _refused_in_between,
    _registry,
    for_each(_to_another),
    _elsewhere,
    _is_refused,
    _silent,
)
