"""A crowd: what it says of right servers and of wrong ones, of those that stand still and of those that die. Every check can fail."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import selectors
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.clients.agent_process import LIMIT_S, Agent, Message, until
from tests.clients.wrong_servers import Chat, DatagramEcho, Echo, End, Fault, Registry
from tests.services.real_server import Server

RECEIVERS, SENDERS = 3, 2
SIXTH = re.compile(rb"~0000(0000)?\.00000005~")
"""The mark of the sixth message of the first sender, as a line or as a datagram to be echoed."""
CLEAN = {"lost": 0, "doubled": 0, "reordered": 0, "damaged": 0, "foreign": 0, "gone": {}}
GREETED = {
    f"{of}{what}": value for of in ("", "sender_") for what, value in (("hello", "#REG"), ("answered", True))
}

Start = Callable[..., Server]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """start(name, *options) gives a server of services/ that is ready."""
    servers: list[Server] = []

    def start(name: str, *options: str) -> Server:
        servers.append(Server(name, tmp_path / f"{name}-{len(servers)}.log", *options))
        return servers[-1]

    yield start
    for server in servers:
        server.clean_up()


def crowd(agent: Agent, what: str, **arguments: Any) -> Message:
    return agent.answer(begin(agent, what, **arguments))


def begin(agent: Agent, what: str, **arguments: Any) -> int:
    return agent.tell("crowd", what=what, crowd="c", **arguments)


def gather(agent: Agent, address: Any, count: int, kind: str = "tcp", **more: Any) -> None:
    # One after another, so that a server meets them in the order of their numbers: handshakes of several may overtake.
    answer = crowd(agent, "open", kind=kind, to=list(address[:2]), count=count, **{"at_once": 1, **more})
    assert (answer["connected"], answer["failed"]) == (count, {})


def gather_for_registry(agent: Agent, address: Any, senders: int, receivers: int, **more: Any) -> None:
    gather(agent, address, senders + receivers, "udp", senders=senders, **GREETED, **more)


def fan_out(agent: Agent, senders: int = SENDERS, seconds: float = 0.2, **more: Any) -> Message:
    return crowd(agent, "fan-out", senders=senders, seconds=seconds, ramp=0.0, **more)


def wrong(answer: Message) -> dict[str, Any]:
    """What was not as it ought to be."""
    return {what: answer[what] for what, right in CLEAN.items() if answer[what] != right}


# Right servers.


@pytest.mark.parametrize("how", [{}, {"rate": 500}], ids=["window", "rate"])
@pytest.mark.parametrize("size", [15, 63, 5000])
@pytest.mark.parametrize("name", ["chat", "chat_eventloop"])
def test_a_right_chat_is_right(agent: Agent, start: Start, name: str, size: int, how: Any) -> None:
    """Each receiver heard all that was said; those of a rate have a latency each."""
    gather(agent, start(name).address, 20)
    answer = fan_out(agent, 10, size=size, **how)

    assert answer["ok"], answer
    assert wrong(answer) == {}
    assert answer["receivers"] == 10
    assert answer["heard"] == answer["said"] * 10 > 0
    assert answer["unsaid"] == 0
    assert sum(times for _, times in answer["times"]) == (answer["heard"] if how else 0)


def test_more_lines_than_the_rings_have_are_right(agent: Agent, start: Start) -> None:
    """They go round; and a second load begins anew."""
    gather(agent, start("chat_eventloop").address, 2)
    for _ in range(2):
        answer = fan_out(agent, 1, seconds=1.0, size=60_000, window=30)
        assert answer["said"] > 69  # so many stand in a ring of 4 MiB
        assert wrong(answer) == {}


def test_more_senders_than_the_window_has_lines(agent: Agent, start: Start) -> None:
    gather(agent, start("chat_eventloop").address, 60)
    answer = fan_out(agent, 50, window=1)

    assert wrong(answer) == {}
    assert answer["said"] >= 50


@pytest.mark.parametrize("how", [{}, {"rate": 500}], ids=["window", "rate"])
def test_a_right_registry_is_right(agent: Agent, start: Start, how: Any) -> None:
    gather_for_registry(agent, start("udp_registry").address, 2, 5)
    answer = fan_out(agent, window=16, **how)

    assert wrong(answer) == {}
    assert answer["heard"] == answer["said"] * 5 > 0
    assert sum(times for _, times in answer["times"]) == (answer["heard"] if how else 0)


@pytest.mark.parametrize("how", [{}, {"in_flight": 8}, {"rate": 500}], ids=["one", "ahead", "rate"])
@pytest.mark.parametrize(
    ("name", "size"), [("threaded", 1), ("eventloop", 64), ("eventloop", 65536), ("udp_echo", 64)]
)
def test_a_right_echo_is_right(agent: Agent, start: Start, name: str, size: int, how: Any) -> None:
    gather(agent, start(name).address, 10, "udp" if name == "udp_echo" else "tcp")
    answer = crowd(agent, "echo", size=size, seconds=0.2, ramp=0.0, **how)

    assert wrong(answer) == {}
    assert answer["heard"] == answer["said"] > 0
    assert sum(times for _, times in answer["times"]) == (answer["heard"] if how.get("rate") else 0)


@pytest.mark.parametrize("abort", [False, True])
def test_clients_come_and_go(agent: Agent, start: Start, abort: bool) -> None:
    """As many as the server has counted, and it holds nothing of them afterwards."""
    server = start("threaded")
    before = server.holdings()
    answer = crowd(agent, "churn", kind="tcp", to=list(server.address), seconds=0.3, at_once=4, abort=abort)

    assert (answer["ok"], answer["failed"]) == (True, {})
    assert answer["heard"] >= answer["delivered"] > 0
    assert sum(times for _, times in answer["times"]) == answer["heard"]
    server.holds_again(before)
    assert len(server.events("connected")) == answer["heard"]


def test_clients_come_at_a_rate(agent: Agent, start: Start) -> None:
    answer = crowd(agent, "churn", to=list(start("threaded").address), seconds=0.5, at_once=1000, rate=100)

    assert answer["failed"] == {}
    assert answer["heard"] in range(49, 52)


# Wrong chats.


def half(message: bytes) -> int:
    mark = SIXTH.search(message)
    assert mark is not None
    return mark.end() + 5


class Sixth(Fault):
    """Something happens to one line, once: numbers come again when a ring has gone round."""

    met: frozenset[int] = frozenset()

    def of(self, message: bytes, receiver: int) -> list[bytes]:
        if receiver in self.met or not SIXTH.search(message):
            return [message]
        self.met |= {receiver}
        return self.sixth(message, receiver)

    def sixth(self, message: bytes, receiver: int) -> list[bytes]:
        raise NotImplementedError


class Loses(Sixth):
    def sixth(self, message: bytes, receiver: int) -> list[bytes]:
        return []


class Doubles(Sixth):
    def sixth(self, message: bytes, receiver: int) -> list[bytes]:
        return [message, message]


class Alters(Sixth):
    def sixth(self, message: bytes, receiver: int) -> list[bytes]:
        return [message[: half(message)] + b"," + message[half(message) + 1 :]]


class Cuts(Sixth):
    def sixth(self, message: bytes, receiver: int) -> list[bytes]:
        return [message[: half(message)], b"\n"]


class LosesItsNewline(Sixth):
    def sixth(self, message: bytes, receiver: int) -> list[bytes]:
        return [message[:-1]]


class Keeps(Sixth):
    """It is kept until the next line of anybody."""

    def __init__(self) -> None:
        self.kept: dict[int, bytes] = {}

    def sixth(self, message: bytes, receiver: int) -> list[bytes]:
        self.kept[receiver] = message
        return []

    def of(self, message: bytes, receiver: int) -> list[bytes]:
        kept = self.kept.pop(receiver, None)
        return self.both(kept, message) if kept else [*super().of(message, receiver)]

    def both(self, kept: bytes, message: bytes) -> list[bytes]:
        raise NotImplementedError


class Interleaves(Keeps):
    """Two sends for a line, and another's line comes between them."""

    def both(self, kept: bytes, message: bytes) -> list[bytes]:
        return [kept[: half(kept)], message, kept[half(kept) :]]


class Reorders(Keeps):
    """Until the next line of the same sender."""

    def __init__(self, *receivers: int) -> None:
        super().__init__()
        self.receivers = receivers

    def of(self, message: bytes, receiver: int) -> list[bytes]:
        if receiver not in self.receivers or not re.search(rb"~0000(0000)?\.", message):
            return [message]
        return super().of(message, receiver)

    def both(self, kept: bytes, message: bytes) -> list[bytes]:
        return [message, kept]


class Drops(Sixth):
    """One receiver, whose connection ends."""

    def __init__(self, *by_reset: bool) -> None:
        self.by_reset = by_reset

    def sixth(self, message: bytes, receiver: int) -> list[bytes]:
        if receiver == 3:
            raise End(*self.by_reset)
        return [message]


FAULTS = [
    (Loses, {"lost": 3}, "came, and 1 before it had not"),
    (Doubles, {"doubled": 3}, "had come before"),
    (Alters, {"lost": 3, "damaged": 3}, "is damaged"),
    (Cuts, {"lost": 3, "damaged": 3}, "is damaged"),
    (LosesItsNewline, {"lost": 6, "damaged": 3}, "is damaged"),
    (Interleaves, {"lost": 6, "damaged": 3, "foreign": 3}, "is damaged"),
    (lambda: Reorders(2, 3, 4), {"reordered": 3}, "came, and 1 before it had not"),
    (lambda: Reorders(3), {"reordered": 1}, "came, and 1 before it had not"),
    (Drops, {"gone": {"eof": 1}}, ""),
    (lambda: Drops(True), {"gone": {"reset": 1}}, ""),
]
NAMES = [
    "loses", "doubles", "alters", "cuts", "loses-a-newline", "interleaves", "reorders", "reorders-for-one", "drops", "resets",
]  # fmt: skip


@pytest.mark.parametrize("how", [{}, {"rate": 400}], ids=["window", "rate"])
@pytest.mark.parametrize(("fault", "found", "example"), FAULTS, ids=NAMES)
def test_a_wrong_chat_is_told_exactly_so(
    agent: Agent, fault: Callable[[], Fault], found: Any, example: str, how: Any
) -> None:
    with Chat(fault()) as server:
        gather(agent, server.address, SENDERS + RECEIVERS)
        answer = fan_out(agent, **how)

    assert wrong(answer) == found
    assert example in answer["example"]
    receivers = RECEIVERS - sum(answer["gone"].values())
    assert answer["receivers"] == receivers
    if not answer["gone"]:
        assert answer["heard"] == answer["said"] * receivers - answer["lost"]


class Forgets(Fault):
    """One receiver hears nothing from its sixth line on, and stays."""

    def of(self, message: bytes, receiver: int) -> list[bytes]:
        number = re.match(rb"~0000\.(\d+)~", message)
        return (
            []
            if receiver == 3 and (not number or int(number[1]) >= 5) and b".x" not in message
            else [message]
        )


class LosesFirstLines(Fault):
    """Of the first attempt, as a chat does before it has taken everybody in."""

    def of(self, message: bytes, receiver: int) -> list[bytes]:
        return [] if b".x0000001~" in message else [message]


class DoublesFirstLines(Fault):
    def of(self, message: bytes, receiver: int) -> list[bytes]:
        return [message] * (5 if b".x" in message else 1)


@pytest.mark.parametrize("fault", [LosesFirstLines, DoublesFirstLines])
@pytest.mark.parametrize("server", [Chat, Registry])
def test_what_is_said_before_the_load_does_not_concern_it(
    agent: Agent, server: type[Chat | Registry], fault: type[Fault]
) -> None:
    """What was lost is said again; more senders than may say it at once over UDP."""
    with server(fault()) as made:
        if server is Chat:
            gather(agent, made.address, 40 + RECEIVERS)
        else:
            gather_for_registry(agent, made.address, 40, RECEIVERS)
        answer = fan_out(agent, 40, rate=400)

    assert wrong(answer) == {}
    assert answer["heard"] == answer["said"] * RECEIVERS


def test_a_receiver_that_is_forgotten_is_named(agent: Agent) -> None:
    """In a window nobody goes on without it; and its loss is told, with its number."""
    with Chat(Forgets()) as server:
        gather(agent, server.address, 1 + RECEIVERS)
        answer = fan_out(agent, 1, window=100, seconds=0.3)

    assert answer["said"] in range(
        93, 106
    )  # a window, and what is left of it when the next send would be a small one
    assert wrong(answer) == {"lost": answer["said"] - 5}
    assert answer["example"] == f"client 3 heard 5 of {answer['said']} lines"


MUCH = b"x" * (3 << 19)
"""More than anybody is listened to without the end of a line, and little enough for the kernel to keep the rest."""


class GoesOnAndOn(Sixth):
    def sixth(self, message: bytes, receiver: int) -> list[bytes]:
        return [MUCH]


class BeginsWithoutEnd(Fault):
    def of(self, message: bytes, receiver: int) -> list[bytes]:
        return [MUCH]


@pytest.mark.parametrize("how", [{}, {"rate": 400}], ids=["window", "rate"])
def test_a_line_without_end_is_the_end_of_whom_it_goes_to(agent: Agent, how: Any) -> None:
    """Kept until its newline comes, it would take all memory."""
    with Chat(GoesOnAndOn()) as server:
        gather(agent, server.address, SENDERS + RECEIVERS)
        answer = fan_out(agent, **how)

    assert wrong(answer) == {"gone": {"line without end": RECEIVERS}}


def test_first_lines_without_end_are_not_waited_for(agent: Agent) -> None:
    with Chat(BeginsWithoutEnd()) as server:
        gather(agent, server.address, SENDERS + RECEIVERS)
        answer = fan_out(agent)

    assert (answer["ok"], answer["error"]) == (False, "unheard")
    assert answer["message"].endswith(f"{RECEIVERS} line without end")


def test_a_long_run_of_lost_lines_is_lost_and_nothing_else(agent: Agent) -> None:
    """Longer than the ring of a sender would be without a rate."""

    class LosesThousands(Fault):
        def of(self, message: bytes, receiver: int) -> list[bytes]:
            number = re.match(rb"~0000\.(\d+)~", message)
            return [] if number and 100 <= int(number[1]) < 5100 else [message]

    with Chat(LosesThousands()) as server:
        gather(agent, server.address, 2)
        answer = fan_out(agent, 1, rate=10_000, seconds=0.7)

    assert answer["said"] in range(7000, 7010)
    assert answer["unsaid"] == 0
    assert wrong(answer) == {"lost": 5000}
    assert "came, and 5000 before it had not" in answer["example"]


class OtherOrder(Fault):
    """Receivers of odd numbers hear the first sender's lines a line later."""

    def __init__(self) -> None:
        self.kept: dict[int, list[bytes]] = {}

    def of(self, message: bytes, receiver: int) -> list[bytes]:
        if receiver % 2 and b"~0000.0" in message:
            self.kept.setdefault(receiver, []).append(message)
            return []
        return [message, *self.kept.pop(receiver, [])]

    def held(self, receiver: int) -> list[bytes]:
        return self.kept.pop(receiver, [])


@pytest.mark.parametrize("how", [{}, {"rate": 400}], ids=["window", "rate"])
def test_receivers_may_hear_different_orders(agent: Agent, how: Any) -> None:
    """Each sender's is right at each receiver."""
    with Chat(OtherOrder()) as server:
        gather(agent, server.address, SENDERS + 4)
        answer = fan_out(agent, **how)

    assert wrong(answer) == {}
    assert answer["own_order"] > 0
    assert answer["heard"] == answer["said"] * 4
    assert sum(times for _, times in answer["times"]) == (answer["heard"] if how else 0)


# Decorations.


class Decorates(Fault):
    def __init__(self, decorate: Callable[[bytes, int, int], bytes], then: Fault | None = None) -> None:
        self.decorate = decorate
        self.then = then or Fault()
        self.count = 0

    def of(self, message: bytes, receiver: int) -> list[bytes]:
        self.count += 1
        return [*self.then.of(self.decorate(message, self.count, receiver), receiver)]


DECORATIONS = {
    "a name": lambda line, n, receiver: b"<" + line[1:5] + b"@127.0.0.1:4000> " + line,
    "CRLF": lambda line, n, receiver: line[:-1] + b"\r\n",
    "behind": lambda line, n, receiver: line[:-1] + b" (10.0.0.1)\n",
    "a clock": lambda line, n, receiver: b"[12:00:%02d] alice: " % (n // RECEIVERS % 60) + line,
    "a clock of words": lambda line, n, receiver: [b"Mon 11:59 AM ", b"Tue 12:00 PM "][n > 40] + line,
    "a growing number": lambda line, n, receiver: b"#%d " % n + line,
    "a shrinking number": lambda line, n, receiver: b"#%d " % max(0, 10**9 - n**5) + line,
    "one for each receiver": lambda line, n, receiver: b"to %d: " % receiver + line,
    "a growing number behind": lambda line, n, receiver: line[:-1] + b" #%d\n" % n,
}


@pytest.mark.parametrize("how", [{}, {"rate": 400}], ids=["window", "rate"])
@pytest.mark.parametrize("decoration", DECORATIONS)
def test_decorated_lines_are_right(agent: Agent, decoration: str, how: Any) -> None:
    """Also where what stands around them changes from line to line, or from receiver to receiver."""
    with Chat(Decorates(DECORATIONS[decoration])) as server:
        gather(agent, server.address, SENDERS + RECEIVERS)
        answer = fan_out(agent, **how)

    assert wrong(answer) == {}
    assert answer["heard"] == answer["said"] * RECEIVERS > 0
    assert sum(times for _, times in answer["times"]) == (answer["heard"] if how else 0)


@pytest.mark.parametrize(("fault", "found", "example"), FAULTS[:8], ids=NAMES[:8])
@pytest.mark.parametrize("decoration", ["a growing number", "one for each receiver"])
def test_a_wrong_chat_that_decorates_is_told_exactly_so(
    agent: Agent, fault: Callable[[], Fault], found: Any, example: str, decoration: str
) -> None:
    with Chat(Decorates(DECORATIONS[decoration], fault())) as server:
        gather(agent, server.address, SENDERS + RECEIVERS)
        answer = fan_out(agent, rate=400)

    assert wrong(answer) == found
    assert example in answer["example"]


def test_more_than_letters_and_digits_around_a_line_is_damage(agent: Agent) -> None:
    with Chat(Decorates(lambda line, n, _: (b"alice> " if n % 40 else b"alice>>> ") + line)) as server:
        gather(agent, server.address, SENDERS + RECEIVERS)
        answer = fan_out(agent, rate=400)

    assert answer["damaged"] == answer["lost"] > 0


@pytest.mark.parametrize("how", [{}, {"rate": 400}], ids=["window", "rate"])
def test_what_others_say_meanwhile_is_passed_over(agent: Agent, start: Start, how: Any) -> None:
    server = start("chat_eventloop")
    gather(agent, server.address, SENDERS + RECEIVERS)
    with server.connect() as other:
        number = begin(agent, "fan-out", senders=SENDERS, seconds=0.5, ramp=0.0, **how)
        heard = other.makefile("rb")
        said = 0
        for line in heard:
            if line.startswith(b"~0000.0"):
                other.sendall(b"hello, all\n~ not one of theirs ~\n~ffff.00000001~\n")
                said += 1
            if said == 3:
                break
        threading.Thread(target=drain, args=(heard,), daemon=True).start()
        answer = agent.answer(number)
        other.shutdown(socket.SHUT_RDWR)

    assert wrong(answer) == {"foreign": 9 * RECEIVERS}


def drain(stream: Any) -> None:
    with contextlib.suppress(OSError, ValueError):
        while stream.read1(65536):
            pass


# Without a newline, and with words of its own: a hear that is told.


def test_what_is_told_to_be_heard_needs_no_newline(agent: Agent) -> None:
    """MQTT has none."""

    class Packets(Fault):
        def of(self, message: bytes, receiver: int) -> list[bytes]:
            return [b"\x30\x41" + message[:-1]]

    with Chat(Packets()) as server:
        gather(agent, server.address, SENDERS + RECEIVERS)
        answer = fan_out(agent, rate=400, hear_before={"base64": "MEE="}, hear_after="")
    assert wrong(answer) == {}
    assert answer["heard"] == answer["said"] * RECEIVERS


def test_lines_may_be_wrapped_when_they_are_said(agent: Agent) -> None:
    with Chat() as server:
        gather(agent, server.address, SENDERS + RECEIVERS)
        answer = fan_out(agent, say_before="MSG {sender} :", say_after="\r\n")
    assert wrong(answer) == {}
    assert answer["heard"] == answer["said"] * RECEIVERS > 0


def test_who_could_not_speak_in_one_load_may_hear_in_the_next(agent: Agent) -> None:
    """The server reads the second sender no more, so that its kernel has no room at the end; and nobody waits on for a lost line."""

    class Loses(Fault):
        def of(self, message: bytes, receiver: int) -> list[bytes]:
            return [] if receiver == SENDERS and SIXTH.match(message) else [message]

    class Deaf(Chat):
        """Up to the next load."""

        deaf: ClassVar[list[socket.socket]] = []

        def _heard(self, client: socket.socket, data: bytes) -> None:
            super()._heard(client, data)
            if b"~0001.0" in data and not self.deaf:
                self._selector.unregister(client)
                self.deaf.append(client)
            elif b"~0000.x" in data and self.deaf and self.deaf[0] not in self._selector.get_map():
                self._selector.register(self.deaf[0], selectors.EVENT_READ, self._readable)

        def _leave(self, client: socket.socket) -> None:
            client.close()

    with Deaf(Loses()) as server:
        gather(agent, server.address, SENDERS + RECEIVERS)
        assert fan_out(agent, size=5000, window=2000)["lost"]
        answer = fan_out(agent, senders=1, rate=400)

    assert answer["lost"] == 1


def test_one_who_is_left_behind_costs_no_more_and_no_more(agent: Agent) -> None:
    """At a rate nobody waits for it; more than a crowd keeps for the slowest is said. What the others hear is checked as before."""

    class Withholds(Fault):
        def of(self, message: bytes, receiver: int) -> list[bytes]:
            return [] if receiver == 1 and b"~0000.0" in message else [message]

    with Chat(Withholds()) as server:
        gather(agent, server.address, 1 + RECEIVERS)
        answer = fan_out(agent, senders=1, size=60_000, rate=300, seconds=1.0)

    assert wrong(answer) == {"lost": answer["said"]}
    assert answer["heard"] == answer["said"] * (RECEIVERS - 1) > 0


# Latency.


def test_a_server_that_stands_still_shows_it_in_every_line_that_was_due(agent: Agent, start: Start) -> None:
    """Held for 300 ms of a second: a tenth of the lines and more are late, not the one that was under way."""
    server = start("chat_eventloop")
    gather(agent, server.address, 6)
    with server.connect() as other:
        number = begin(agent, "fan-out", senders=1, rate=500, seconds=1.0, ramp=0.0)
        heard = other.makefile("rb")
        assert any(line.startswith(b"~0000.00000100~") for line in heard)
        os.kill(server.pid, signal.SIGSTOP)
        time.sleep(0.3)  # the experiment: this is how long it stands still
        os.kill(server.pid, signal.SIGCONT)
        threading.Thread(target=drain, args=(heard,), daemon=True).start()
        answer = agent.answer(number)
        other.shutdown(socket.SHUT_RDWR)

    assert wrong(answer) == {}
    late = sum(count for us, count in answer["times"] if us >= 50_000)
    assert late >= answer["heard"] / 10


def test_an_echo_that_stands_still_shows_it_in_every_message_that_was_due(agent: Agent) -> None:
    class Sleeps(Fault):
        count = 0

        def of(self, message: bytes, receiver: int) -> list[bytes]:
            self.count += 1
            if self.count == 100:
                time.sleep(0.3)
            return [message]

    with Echo(Sleeps()) as server:
        gather(agent, server.address, 5)
        answer = crowd(agent, "echo", rate=500, seconds=1.0, ramp=0.0)

    assert wrong(answer) == {}
    late = sum(count for us, count in answer["times"] if us >= 50_000)
    assert late >= answer["heard"] / 10


# Datagrams.


@pytest.mark.parametrize("how", [{"window": 20}, {"rate": 400}], ids=["window", "rate"])
@pytest.mark.parametrize(
    ("fault", "found", "example"),
    [*FAULTS[:3], (Cuts, {"lost": 3, "damaged": 3}, "is damaged"), *FAULTS[6:8]],
    ids=["loses", "doubles", "alters", "cuts", "reorders", "reorders-for-one"],
)
def test_a_wrong_registry_is_told_exactly_so(
    agent: Agent, fault: Callable[[], Fault], found: Any, example: str, how: Any
) -> None:
    with Registry(fault()) as server:
        gather_for_registry(agent, server.address, SENDERS, RECEIVERS)
        answer = fan_out(agent, **how)

    found = {**found, "foreign": 3} if fault is Cuts else found  # the newline is a datagram of its own
    assert wrong(answer) == found
    assert example in answer["example"]
    assert answer["heard"] == answer["said"] * RECEIVERS - answer["lost"]


def test_a_window_of_lost_datagrams_is_not_the_end(agent: Agent) -> None:
    """After a moment the window goes on without them."""

    class LosesMany(Fault):
        left = 100 * RECEIVERS

        def of(self, message: bytes, receiver: int) -> list[bytes]:
            number = re.match(rb"~0000\.(\d+)~", message)
            if not number or int(number[1]) < 50 or receiver == 0 or not self.left:
                return [message]
            self.left -= 1
            return []

    with Registry(LosesMany()) as server:
        gather_for_registry(agent, server.address, 1, RECEIVERS)
        answer = fan_out(agent, 1, window=20, seconds=2.5)

    assert wrong(answer) == {"lost": 100 * RECEIVERS}
    assert answer["said"] > 200


def test_datagrams_that_find_no_room_are_counted(agent: Agent, start: Start) -> None:
    """A registry that is held, and buffers that are small: some are lost, the load ends, and nothing else is wrong."""
    server = start("udp_registry")
    gather_for_registry(agent, server.address, 1, 3, rcvbuf=2304)
    works = server_works(server)
    number = begin(agent, "fan-out", senders=1, rate=5000, seconds=0.6, size=1000, ramp=0.0)
    until(works, "the registry has something to do")
    os.kill(server.pid, signal.SIGSTOP)
    time.sleep(0.3)  # the experiment: this is how long it stands still
    os.kill(server.pid, signal.SIGCONT)
    answer = agent.answer(number)

    assert answer["ok"]
    assert set(wrong(answer)) == {"lost"}
    assert answer["heard"] == answer["said"] * 3 - answer["lost"] > 0


@pytest.mark.parametrize("how", [{"in_flight": 4}, {"rate": 400}], ids=["ahead", "rate"])
@pytest.mark.parametrize(
    ("fault", "found"),
    [
        (Loses, {"lost": 1}),
        (Doubles, {"doubled": 1}),
        (Alters, {"lost": 1, "damaged": 1}),
        (Cuts, {"lost": 1, "damaged": 2}),
        (lambda: Reorders(0), {"reordered": 1}),
    ],
    ids=["loses", "doubles", "alters", "cuts", "reorders"],
)
def test_a_wrong_echo_of_datagrams_is_told_exactly_so(
    agent: Agent, fault: Callable[[], Fault], found: Any, how: Any
) -> None:
    with DatagramEcho(fault()) as server:
        gather(agent, server.address, 3, "udp")
        answer = crowd(agent, "echo", seconds=0.3, ramp=0.0, **how)

    assert wrong(answer) == found
    assert answer["heard"] == answer["said"] - answer["lost"]


def test_datagrams_of_another_are_damage(agent: Agent) -> None:
    with DatagramEcho(shift=1) as server:
        gather(agent, server.address, 3, "udp")
        answer = crowd(agent, "echo", seconds=0.2, rate=100, ramp=0.0)

    # The first one has come when nobody was there but who had sent it.
    assert answer["damaged"] == answer["lost"] == answer["said"] - 1 > 0
    assert "which it had not said" in answer["example"]


# Wrong echoes.


def test_an_altered_byte_is_named_with_its_place(agent: Agent) -> None:
    class AltersAByte(Fault):
        heard = 0

        def of(self, message: bytes, receiver: int) -> list[bytes]:
            begin, self.heard = self.heard, self.heard + len(message)
            at = 1000 - begin
            return [message if not 0 <= at < len(message) else message[:at] + b"?" + message[at + 1 :]]

    with Echo(AltersAByte()) as server:
        gather(agent, server.address, 1)
        answer = crowd(agent, "echo", seconds=0.2, ramp=0.0)

    assert wrong(answer) == {"damaged": 1, "gone": {"damaged": 1}}
    assert re.match(r"client 0 heard b'\?.*' at byte 1000, not b'", answer["example"])


def test_what_others_said_is_damage(agent: Agent) -> None:
    with Echo(shift=1) as server:
        gather(agent, server.address, 3)
        answer = crowd(agent, "echo", seconds=0.2, ramp=0.0)

    assert answer["damaged"] == 3
    assert answer["gone"] == {"damaged": 3}


def test_a_greeting_is_damage(agent: Agent) -> None:
    class Greets(Fault):
        greeted = False

        def of(self, message: bytes, receiver: int) -> list[bytes]:
            greeting, self.greeted = (b"" if self.greeted else b"Welcome\n"), True
            return [greeting + message]

    with Echo(Greets()) as server:
        gather(agent, server.address, 1)
        answer = crowd(agent, "echo", seconds=0.2, ramp=0.0)

    assert answer["gone"] == {"damaged": 1}
    assert "b'Welcome" in answer["example"]


def test_a_lost_tail_is_lost(agent: Agent) -> None:
    """One client hears nothing from 640 bytes on."""

    class Stops(Fault):
        heard = 0

        def of(self, message: bytes, receiver: int) -> list[bytes]:
            if receiver != 1:
                return [message]
            self.heard += len(message)
            return [message] if self.heard <= 640 else []

    with Echo(Stops()) as server:
        gather(agent, server.address, 3)
        answer = crowd(agent, "echo", seconds=0.2, ramp=0.0, in_flight=2, size=64)

    assert set(wrong(answer)) == {"lost"}
    assert re.match(r"client 1 heard \d+ of \d+ messages", answer["example"])


def test_an_echo_of_what_was_never_said_is_damaged(agent: Agent) -> None:
    """Whole, but for its number, which is far ahead: it is not the first of millions that are missing."""

    class MakesUp(Fault):
        def of(self, message: bytes, receiver: int) -> list[bytes]:
            return (
                [message, message.replace(b".00000005~", b".90000005~")]
                if SIXTH.match(message)
                else [message]
            )

    with DatagramEcho(MakesUp()) as server:
        gather(agent, server.address, 1, "udp")
        answer = crowd(agent, "echo", seconds=0.2, ramp=0.0, rate=100, size=64)

    assert wrong(answer) == {"damaged": 1}
    assert "which it had not said" in answer["example"]


# Idle clients.


def test_what_became_of_idle_clients_is_told(agent: Agent, listener: socket.socket) -> None:
    gather(agent, listener.getsockname(), 9)
    ends = [listener.accept()[0] for _ in range(9)]
    ends[0].close()
    for each in ends[1:3]:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        each.close()
    ends[3].sendall(b"somebody says something")
    for each in ends[3:]:
        each.setblocking(True)

    def told() -> bool:
        answer = crowd(agent, "look")
        return (answer["there"], answer["eof"], answer["reset"]) == (6, 1, 2)

    until(told, "one eof and two resets are told")
    assert crowd(agent, "say", bytes="hello\n")["said"] == 6
    assert ends[3].recv(6) == b"hello\n"
    assert crowd(agent, "close")["closed"] == 9
    assert ends[3].recv(6) == b""
    assert agent.sockets() == 0
    for each in ends:
        each.close()


def test_one_who_is_talked_to_on_and_on_keeps_nobody_waiting(agent: Agent, listener: socket.socket) -> None:
    """A look is answered, and so is what comes behind it."""
    gather(agent, listener.getsockname(), 1)
    end = listener.accept()[0]

    def talk() -> None:
        with contextlib.suppress(OSError):
            while True:
                end.sendall(b"x" * 65536)

    talker = threading.Thread(target=talk)
    talker.start()
    try:
        assert crowd(agent, "look")["there"] == 1
    finally:
        assert crowd(agent, "close", abort=True)["closed"] == 1
        talker.join(LIMIT_S)
        end.close()


def test_closing_may_be_by_reset(agent: Agent, listener: socket.socket) -> None:
    gather(agent, listener.getsockname(), 1)
    end = listener.accept()[0]
    crowd(agent, "close", abort=True)
    with end, pytest.raises(ConnectionResetError):
        end.recv(1)


def test_a_crowd_grows(agent: Agent, start: Start) -> None:
    """Newcomers have numbers of their own, and hear what the others do."""
    gather(agent, start("chat").address, 3)
    answer = crowd(agent, "more", to=[], count=2, hello="{number}\n", until="000004\n")
    assert (
        answer["failed"] == {"timed out": 1} or answer["connected"] == 5
    )  # 000003 may come before 000004 joins
    assert fan_out(agent, 1)["receivers"] == answer["connected"] - 1


# What cannot be.


FEW = ["prlimit", "--nofile=100:100"]
"""Descriptors; and root may not raise that either."""
if os.geteuid() == 0:
    FEW = ["setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource", *FEW]


def test_a_descriptor_limit_that_is_too_small_is_said(start: Start) -> None:
    """So many are connected, so many are not for want of a descriptor, and this is the limit."""
    few = Agent(FEW)
    try:
        answer = crowd(few, "open", kind="tcp", to=list(start("eventloop").address), count=60)
        assert answer["descriptors"] == 100
        assert answer["connected"] == 100 - 64  # what a crowd leaves to the rest of the agent
        assert answer["failed"] == {"no descriptor": 60 - answer["connected"]}
        assert wrong(crowd(few, "echo", seconds=0.1)) == {}
        assert few.end() == 0
    finally:
        few.clean_up()


def test_a_descriptor_limit_is_raised_where_it_may_be(agent: Agent, start: Start) -> None:
    resource.prlimit(
        agent.pid, resource.RLIMIT_NOFILE, (100, resource.prlimit(agent.pid, resource.RLIMIT_NOFILE)[1])
    )
    gather(agent, start("eventloop").address, 200)


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_who_is_refused_is_counted(agent: Agent, kind: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        answer = crowd(agent, "open", kind=kind, to=list(unused.getsockname()), count=5, **GREETED)
        assert (answer["ok"], answer["connected"], answer["failed"]) == (True, 0, {"refused": 5})
        assert crowd(agent, "echo")["error"] == "unheard"
        if kind == "tcp":
            answer = crowd(agent, "churn", to=list(unused.getsockname()), seconds=0.2)
            assert set(answer["failed"]) == {"refused"}
            assert answer["delivered"] == 0


def test_who_is_not_accepted_in_time_is_counted(agent: Agent, listener: socket.socket) -> None:
    """Connected by the kernel, and greeted by nobody."""
    answer = crowd(agent, "open", to=list(listener.getsockname()), count=3, answered=True, limit=0.3)
    assert (answer["connected"], answer["failed"]) == (0, {"timed out": 3})


@pytest.mark.parametrize(
    ("what", "more", "failed"),
    [
        ("nothing", {}, "timed out"),
        ("another's", {}, "timed out"),
        ("eof", {}, "reset"),
        ("reset", {}, "reset"),
    ],
)
def test_who_comes_and_is_not_answered_is_counted(agent: Agent, what: str, more: Any, failed: str) -> None:
    class Answers(Fault):
        def of(self, message: bytes, receiver: int) -> list[bytes]:
            if what in ("eof", "reset"):
                raise End(*([True] if what == "reset" else []))
            return [b"x" + message[1:]] if what == "another's" else []

    with Echo(Answers()) as server:
        answer = crowd(agent, "churn", to=server.address, seconds=0.2, at_once=3, **more)
    assert answer["delivered"] == 0
    assert set(answer["failed"]) == {failed}
    assert agent.sockets() == 0


def test_a_load_that_nobody_hears_says_so(agent: Agent, listener: socket.socket) -> None:
    gather(agent, listener.getsockname(), 3)
    answer = fan_out(agent, limit=0.3)

    assert (answer["ok"], answer["error"]) == (False, "unheard")
    assert answer["message"].startswith("1 of 1 receivers did not hear the first line of every sender")


def test_members_that_are_missing_are_asked_for(agent: Agent, start: Start) -> None:
    gather(agent, start("chat").address, 2)
    answer = fan_out(agent, 2)

    assert (answer["ok"], answer["error"]) == (False, "unheard")
    assert "3 members are needed, and 2 are there" in answer["message"]


def server_works(server: Server) -> Callable[[], bool]:
    """Whether it has had some more of a processor than when this was asked first: clock_getcpuclockid(3)."""
    clock = ~server.pid << 3 | 2
    before = time.clock_gettime(clock)
    return lambda: time.clock_gettime(clock) - before > 0.02


@pytest.mark.parametrize(
    ("name", "what", "how"),
    [
        ("chat_eventloop", "fan-out", {}),
        ("chat_eventloop", "fan-out", {"rate": 2000}),
        ("eventloop", "echo", {}),
        ("eventloop", "echo", {"rate": 2000}),
        ("eventloop", "churn", {}),
        ("udp_echo", "echo", {"rate": 2000}),
        ("udp_registry", "fan-out", {}),
        ("udp_registry", "fan-out", {"rate": 1000}),
    ],
)
def test_a_server_that_dies_in_the_middle_ends_the_load(
    agent: Agent, start: Start, name: str, what: str, how: Any
) -> None:
    """The command is answered long before its time, and says what has become of the clients; a crowd can be opened again."""
    server = start(name)
    kind = "udp" if name.startswith("udp") else "tcp"
    if what != "churn":
        gather(agent, server.address, 6, kind, senders=1, **(GREETED if name == "udp_registry" else {}))
    works = server_works(server)
    seconds = 1.0 if what == "churn" else 60.0
    number = begin(agent, what, kind=kind, to=list(server.address), senders=1, seconds=seconds, **how)
    until(works, "the server is under load")
    server.end(signal.SIGKILL)
    answer = agent.answer(number)

    assert answer["ok"]
    assert sum(answer["failed" if what == "churn" else "gone"].values()) > 0
    gather(agent, start(name).address, 3, kind)


def test_a_server_that_dies_at_the_first_lines_ends_the_load(agent: Agent) -> None:
    class Ends(Fault):
        def of(self, message: bytes, receiver: int) -> list[bytes]:
            raise End

    with Chat(Ends()) as server:
        gather(agent, server.address, 4)
        answer = fan_out(agent)

    assert (answer["ok"], answer["error"]) == (False, "unheard")
    assert "clients were gone before all had heard" in answer["message"]


# Commands.


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, '"what" is one of open, more'),
        ({"what": ["open"]}, '"what" is one of open, more'),
        ({"what": "fly"}, '"what" is one of open, more'),
        ({"what": "open", "crowd": 5}, '"crowd", a name'),
        ({"what": "open"}, '"to" is [host, port]'),
        ({"what": "open", "to": "there"}, '"to" is [host, port]'),
        ({"what": "open", "to": ["127.0.0.1", 70000]}, '"to" is [host, port]'),
        ({"what": "open", "to": ["127.0.0.1", 9], "kind": "unix"}, '"kind" is tcp or udp'),
        ({"what": "open", "to": ["127.0.0.1", 9]}, '"count" is a whole number'),
        ({"what": "open", "to": ["127.0.0.1", 9], "count": True}, '"count" is a whole number'),
        ({"what": "open", "to": ["127.0.0.1", 9], "count": 1, "rcvbuf": "big"}, '"rcvbuf" is a whole number'),
        ({"what": "open", "to": ["127.0.0.1", 9], "count": 1, "limit": -1}, '"limit" is a number from 0'),
        ({"what": "open", "to": ["127.0.0.1", 9], "count": 1, "hello": 5}, '"hello" is a text'),
        ({"what": "open", "to": ["127.0.0.1", 9], "count": 1, "hello": {"base64": 5}}, '"hello" is a text'),
        ({"what": "churn"}, '"to" is [host, port]'),
        ({"what": "churn", "to": ["127.0.0.1", 9], "at_once": 0}, '"at_once" is a whole number'),
        ({"what": "look", "crowd": "nobody"}, "no crowd is called 'nobody'"),
        ({"what": "fan-out", "senders": 0}, '"senders" is a whole number'),
        ({"what": "fan-out", "size": 14}, '"size" is a whole number from 15'),
        ({"what": "fan-out", "seconds": float("nan")}, '"seconds" is a number'),
        ({"what": "fan-out", "rate": "much"}, '"rate" is a number'),
        ({"what": "fan-out", "window": 1 << 29}, "fewer senders, shorter lines, a smaller window"),
        ({"what": "fan-out", "say_before": "\ud800"}, '"say_before" is a text'),
        ({"what": "fan-out", "at": 5}, '"at" is for a load whose crowds have met'),
        ({"what": "meet"}, "has a rate"),
        ({"what": "meet", "asked": [0]}, "the first round says what the load is"),
        ({"what": "echo", "size": 0}, '"size" is a whole number from 1'),
        ({"what": "echo", "in_flight": 0}, '"in_flight" is a whole number'),
        ({"what": "say", "bytes": {"base64": "%"}}, '"bytes" is a text'),
    ],
)
def test_a_wrong_command_is_answered_and_does_no_harm(
    agent: Agent, start: Start, arguments: Any, says: str
) -> None:
    address = start("chat").address
    gather(agent, address, 3)
    answer = agent.ask("crowd", **{"crowd": "c", **arguments})

    assert (answer["ok"], answer["error"]) == (False, "usage")
    assert says in answer["message"]
    gather(agent, address, 3)
    assert wrong(fan_out(agent, seconds=0.05)) == {}


def test_a_name_that_nobody_has_is_unreachable(agent: Agent) -> None:
    answer = crowd(agent, "open", to=["a.host.invalid", 9], count=1)
    assert (answer["ok"], answer["error"]) == (False, "EHOSTUNREACH") or answer["error"] == "unreachable"


def test_a_crowd_is_closed_once(agent: Agent, start: Start) -> None:
    gather(agent, start("chat").address, 3)
    assert crowd(agent, "close")["closed"] == 3
    for what in ("close", "look", "more", "echo"):
        answer = crowd(agent, what, count=1)
        assert (answer["ok"], answer["error"]) == (False, "usage")


def test_one_command_waits_for_another(agent: Agent, start: Start) -> None:
    """Another open, and a close, wait for the load that is under way; other clients do not."""
    server = start("chat")
    gather(agent, server.address, 3)
    load = begin(agent, "fan-out", seconds=0.4, ramp=0.0, rate=100)
    again = begin(agent, "open", to=list(server.address), count=5)
    more = begin(agent, "fan-out", seconds=0.1, ramp=0.0)
    assert agent.ask("status")["clients"] == {}
    assert not agent.answers
    assert wrong(agent.answer(load)) == {}
    assert agent.answer(again)["connected"] == 5
    assert agent.answer(more)["receivers"] == 4


def test_bye_answers_a_load_that_is_under_way(agent: Agent, start: Start) -> None:
    gather(agent, start("chat").address, 3)
    numbers = [begin(agent, "fan-out", seconds=60), begin(agent, "look")]
    assert agent.ask("bye")["ok"]
    assert [agent.answer(number)["error"] for number in numbers] == ["closed"] * 2
    assert agent.wait() == 0


def test_pinning_is_to_the_processors_that_are_named(agent: Agent) -> None:
    first = min(os.sched_getaffinity(0))
    assert agent.ask("pin", processors=[first])["ok"]
    assert os.sched_getaffinity(agent.pid) == {first}
    for wrong_list in ("0", ["0"], [1 << 40], [-1], []):
        answer = agent.ask("pin", processors=wrong_list)
        assert not answer["ok"]
