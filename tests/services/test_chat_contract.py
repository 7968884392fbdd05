"""The contract `chat`, held by both chat servers: one conversation, threads or an event loop to serve it."""

import contextlib
import random
import resource
import socket
import threading

import pytest
from real_server import read_exactly, read_to_end, reset, until

MIB = 1024 * 1024
MAX_LINE = 65536

both = pytest.mark.parametrize("name", ["chat", "chat_eventloop"])


class Member:
    """A client of the chat that reads line by line."""

    def __init__(self, server, **buffers):
        self.socket = server.connect(**buffers)
        self.unread = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def say(self, *lines):
        self.socket.sendall(b"".join(line + b"\n" for line in lines))

    def hear(self):
        """The next line, without its newline; b"" after the server's FIN."""
        while b"\n" not in self.unread:
            more = self.socket.recv(65536)
            if not more:
                assert self.unread == b"", "the server's FIN came in the middle of a line"
                return b""
            self.unread += more
        line, _, self.unread = self.unread.partition(b"\n")
        return line

    def hear_until(self, last):
        """All lines up to and with this one."""
        heard = []
        while not heard or heard[-1] != last:
            heard.append(self.hear())
            assert heard[-1], f"the server's FIN came before {last!r}"
        return heard


@pytest.fixture
def meet(start):
    """meet(name, count, *options) gives a server and clients that have joined."""
    members = []

    def meet_in(name, count, *options, **how):
        server = start(name, *options, **how)
        return server, [joined(server) for _ in range(count)]

    def joined(server, **buffers):
        member = Member(server, **buffers)
        members.append(member)
        server.logged("connected", peer="{}:{}".format(*member.socket.getsockname()))
        return member

    meet_in.joined = joined
    yield meet_in
    for member in members:
        member.socket.close()


def at_rest(server, members):
    """What the server holds with so many members, when their threads have started and all others ended."""
    threads = 1 + 2 * members if server.name == "chat" else 1
    until(lambda: (server.sockets(), server.threads()) == (1 + members, threads), "the members' and no more")
    return server.holdings()


# 1. Lines.


@both
def test_a_line_may_come_in_pieces_and_a_segment_may_hold_many(meet, name):
    """Byte by byte or all at once: what counts is the newline."""
    _, (alice, bob) = meet(name, 2)
    for byte in b"in pieces\n":
        alice.socket.sendall(bytes([byte]))
    alice.socket.sendall(b"one\ntwo\nthr")
    alice.socket.sendall(b"ee\nfour\n")
    assert bob.hear_until(b"four") == [b"in pieces", b"one", b"two", b"three", b"four"]


@both
def test_carriage_return_is_stripped_and_empty_lines_are_ignored(meet, name):
    """`telnet` ends its lines with CR LF; one CR belongs to the end, any other to the text."""
    _, (alice, bob) = meet(name, 2)
    alice.socket.sendall(b"telnet\r\n\r\n\n\r\nmid\rdle\ntwo\r\r\nend\n")
    assert bob.hear_until(b"end") == [b"telnet", b"mid\rdle", b"two\r", b"end"]


@both
def test_bytes_that_are_no_text_are_passed_through(meet, name):
    """NUL and invalid UTF-8 are as good as letters."""
    _, (alice, bob) = meet(name, 2)
    message = bytes(set(range(256)) - {10}) + b"\xff\xfe\xc3\x28"
    alice.say(message)
    assert bob.hear() == message


@both
def test_the_longest_line_is_carried_whole(meet, name):
    """65,536 bytes of text, with LF or CR LF behind, arrive in one piece; so do many of them."""
    _, (alice, bob) = meet(name, 2)
    longest = b"x" * MAX_LINE
    alice.socket.sendall(longest + b"\n" + longest + b"\r\n")
    assert bob.hear() == longest
    assert bob.hear() == longest


# 2 and 3. Everybody hears everything, once, whole, in one order.


@both
def test_everybody_hears_a_line_once_the_sender_too(meet, name):
    """A line goes to all who have joined."""
    _, members = meet(name, 5)
    members[0].say(b"hello")
    members[0].say(b"end")
    for member in members:
        assert member.hear_until(b"end") == [b"hello", b"end"]


@both
def test_all_hear_the_same_in_the_same_order(meet, name):
    """Eight speak at once, lines short and long: whole lines, each sender's in order, one order for all."""
    _, members = meet(name, 8)
    chance = random.Random(1)
    said = [
        [b"%d:%d:" % (number, turn) + b"x" * chance.choice([0, 10, 5000]) for turn in range(300)]
        for number in range(8)
    ]

    def speak(member, lines):
        for line in lines:
            member.say(line)

    heard = [[] for _ in members]

    def listen(member, lines):
        lines += [member.hear() for _ in range(8 * 300)]

    jobs = [threading.Thread(target=speak, args=pair) for pair in zip(members, said, strict=True)]
    jobs += [threading.Thread(target=listen, args=pair) for pair in zip(members, heard, strict=True)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert all(lines == heard[0] for lines in heard)
    for number, lines in enumerate(said):
        assert [line for line in heard[0] if line.startswith(b"%d:" % number)] == lines


# 4. Joining.


@both
def test_what_was_said_before_joining_is_not_heard(meet, name):
    """A newcomer hears what comes after it, and nobody has to speak to be a member."""
    server, (alice,) = meet(name, 1)
    alice.say(b"before")
    assert alice.hear() == b"before"
    bob = meet.joined(server)
    alice.say(b"after")
    assert bob.hear() == b"after"


# 5. Leaving.


@both
def test_quit_closes_and_what_stands_behind_is_ignored(meet, name):
    """The lines before `quit` are said, what follows in the same segment is not; FIN comes, not RST."""
    server, (alice, bob) = meet(name, 2)
    alice.socket.sendall(b"before\nquit\nbehind\n" + b"x" * 500_000)
    alice.socket.shutdown(socket.SHUT_WR)
    assert read_to_end(alice.socket) == b"before\n"
    bob.say(b"end")
    assert bob.hear_until(b"end") == [b"before", b"end"]
    assert server.logged("disconnected", why="quit")


@both
@pytest.mark.parametrize("text", [b"quit now", b" quit", b"QUIT", b"quit\r\r"])
def test_only_the_very_word_quits(meet, name, text):
    """What merely contains `quit` is text."""
    _, (alice, bob) = meet(name, 2)
    alice.say(text, b"end")
    assert bob.hear_until(b"end") == [text.removesuffix(b"\r"), b"end"]


@both
def test_quit_releases_the_connection_though_the_client_keeps_its_end_open(meet, name):
    """A client that quits and then neither closes nor reads costs nothing for long."""
    server, (alice, bob) = meet(name, 2)
    before = at_rest(server, 2)
    carol = meet.joined(server)
    carol.say(b"quit")
    server.holds_again(before)
    assert carol.hear() == b""
    alice.say(b"still here")
    assert bob.hear() == b"still here"


@both
def test_at_fin_a_last_line_needs_no_newline(meet, name):
    """Half-close ends a line; the client still hears what it is owed, its own line too, then FIN."""
    _, (alice, bob) = meet(name, 2)
    alice.socket.sendall(b"first\nlast")
    alice.socket.shutdown(socket.SHUT_WR)
    assert read_to_end(alice.socket) == b"first\nlast\n"
    assert [bob.hear(), bob.hear()] == [b"first", b"last"]


@both
def test_a_reset_in_mid_line_ends_that_connection_only(meet, name):
    """RST instead of the rest of a line: the others go on, and nothing of the client stays."""
    server, (alice, bob) = meet(name, 2)
    before = at_rest(server, 2)
    for _ in range(50):
        carol = server.connect()
        carol.sendall(b"half a li")
        reset(carol)
    server.logged("disconnected", 50)
    alice.say(b"whole")
    assert bob.hear_until(b"whole")[-1] == b"whole"
    server.holds_again(before)


# 6. Those who do not read.


@both
def test_a_stalled_client_delays_nobody_and_is_dropped_past_the_bound(meet, name):
    """Sixteen MiB pass by a client that does not read: the others hear all, it goes, memory stays small."""
    server, (alice, bob) = meet(name, 2)
    stalled = meet.joined(server, receive=4096)
    before = server.memory()
    line = b"x" * 9_999
    for number in range(1600):
        alice.say(b"%06d" % number + line)
        for member in (alice, bob):
            assert member.hear() == b"%06d" % number + line
    server.logged("disconnected", why="dropped")
    assert server.memory() - before < 16 * MIB
    with contextlib.suppress(
        ConnectionResetError
    ):  # how it learns: there is no FIN behind a part of what was said
        assert read_to_end(stalled.socket) == b"", "neither a reset nor an empty end"
    alice.say(b"on we go")
    assert bob.hear() == b"on we go"


@both
def test_who_reads_again_in_time_has_lost_nothing(meet, name):
    """A client that stalls while two MiB are said, and reads then, hears every line."""
    _, (alice,) = server, _ = meet(name, 1)
    slow = meet.joined(server, receive=4096)
    lines = [b"%06d" % number + b"x" * 9_994 for number in range(210)]
    for line in lines:
        alice.say(line)
        assert alice.hear() == line
    assert [slow.hear() for _ in lines] == lines


@both
def test_max_pending_moves_the_bound(meet, name):
    """With 1 MiB a stalled client goes early, with 64 MiB it stays."""
    for option, dropped in (("1048576", True), ("67108864", False)):
        server, (alice,) = meet(name, 1, "--max-pending", option)
        meet.joined(server, receive=4096)
        for _ in range(1200):
            alice.say(b"x" * 10_000)
            alice.hear()
        if dropped:
            server.logged("disconnected", why="dropped")
        else:
            assert server.events("disconnected") == []


@both
def test_many_stalled_clients_delay_nobody(meet, name):
    """Thirty who do not read, and two who do."""
    server, (alice, bob) = meet(name, 2)
    for _ in range(30):
        meet.joined(server, receive=4096)
    for number in range(800):
        alice.say(b"%06d" % number + b"x" * 10_000)
        assert alice.hear() == bob.hear() == b"%06d" % number + b"x" * 10_000
    server.logged("disconnected", 30, why="dropped")


@both
def test_a_crowd_with_bad_members_hears_every_line_once(meet, name):
    """Of a crowd some stall, some reset, some send garbage: the others miss nothing and get nothing twice."""
    server, healthy = meet(name, 16, "--max-pending", str(MIB))
    before, memory = at_rest(server, 16), server.memory()
    stalled = [meet.joined(server, receive=4096) for _ in range(3)]
    chance = random.Random(3)
    speakers = healthy[:4]
    said = [[] for _ in speakers]
    heard = [[] for _ in healthy]
    turn = 0
    # How much a kernel keeps for a client that does not read differs: on, until the stalled have been dropped.
    while turn < 20 or len(server.events("disconnected", why="dropped")) < len(stalled):
        assert turn < 200, "never dropped: the stalled"
        turn += 1
        resetting, garbling, leaving = (server.connect() for _ in range(3))
        resetting.sendall(b"a line\nhalf a li")
        garbling.sendall(chance.randbytes(20_000).replace(b"<", b">"))
        leaving.sendall(b"\n\r\nquit\nbehind")
        for number, (speaker, lines) in enumerate(zip(speakers, said, strict=True)):
            new = [b"<%d:%d:%d>" % (number, turn, each) + b"x" * 20_000 for each in range(4)]
            speaker.say(*new)
            lines += new
        reset(resetting)
        garbling.close()
        leaving.close()
        # Not more than a round is under way: who reads is owed less than the bound, however slow this machine.
        for member, lines in zip(healthy, heard, strict=True):
            expected = len(lines) + 4 * len(speakers)
            while len(lines) < expected:
                if (line := member.hear()).startswith(b"<"):
                    lines.append(line)
    assert all(lines == heard[0] for lines in heard)
    for number, lines in enumerate(said):
        assert [line for line in heard[0] if line.startswith(b"<%d:" % number)] == lines
    server.logged("disconnected", len(stalled) + 3 * turn)
    server.holds_again(before)
    assert server.memory() - memory < 16 * MIB


# 7. Lines that are too long.


@both
@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"y" * MIB])
def test_a_line_over_64_kib_ends_that_client_with_an_error_line(meet, name, end):
    """With or without its newline, and though the client goes on sending: an error line, FIN, no RST."""
    server, (alice, bob) = meet(name, 2)

    def send():
        with contextlib.suppress(ConnectionError):
            alice.socket.sendall(b"before\n" + b"x" * (MAX_LINE + 1) + end)

    sender = threading.Thread(target=send)
    sender.start()
    assert alice.hear() == b"before"
    assert b"error" in alice.hear()
    assert alice.hear() == b""
    sender.join()
    bob.say(b"end")
    assert bob.hear_until(b"end") == [b"before", b"end"]
    server.logged("disconnected", why="too-long")


# 8. Nobody brings it down.


@both
def test_garbage_brings_nobody_down(meet, name):
    """Random bytes from ten clients at once, some reset, some half-closed: the others talk on."""
    server, (alice, bob) = meet(name, 2)
    chance = random.Random(2)

    def throw():
        client = server.connect()
        with contextlib.suppress(ConnectionError):
            client.sendall(chance.randbytes(100_000).replace(b"\n", b"\r"))
        reset(client) if chance.random() < 0.5 else client.close()

    throwers = [threading.Thread(target=throw) for _ in range(10)]
    for thrower in throwers:
        thrower.start()
    for thrower in throwers:
        thrower.join()
    server.logged("disconnected", 10)
    alice.say(b"sane")
    assert bob.hear_until(b"sane")[-1] == b"sane"


@both
def test_hundreds_come_and_go_and_leave_nothing_behind(meet, name):
    """Three hundred at once, five hundred one after another; then descriptors and threads are as before."""
    server, (alice,) = meet(name, 1)
    before = at_rest(server, 1)
    crowd = [server.connect() for _ in range(300)]
    server.logged("connected", 301)
    alice.say(b"welcome")
    for client in crowd:
        assert read_exactly(client, 8) == b"welcome\n"
        client.close()
    for _ in range(500):
        server.connect().close()
    server.logged("disconnected", 800)
    assert alice.hear() == b"welcome"
    server.holds_again(before)


@both
def test_without_a_free_descriptor_the_room_goes_on(meet, name):
    """accept() fails with EMFILE: said once, no busy loop, the room talks, the newcomer comes in later."""
    server, (alice, bob) = meet(name, 2)
    at_rest(server, 2)
    limits = server.limit_descriptors(server.highest_descriptor() + 1)
    spare = server.connect()  # chat's accept() is waiting, and had its descriptor before the limit came
    with server.connect() as newcomer:
        server.logged("accept-failed", error="EMFILE")
        spent = server.cpu_seconds()
        for number in range(100):
            alice.say(b"%d" % number)
            assert bob.hear() == b"%d" % number
        newcomer.settimeout(1)
        with pytest.raises(TimeoutError):
            newcomer.recv(1)  # a window in which accept() fails again and again
        assert server.cpu_seconds() - spent < 0.5, "it spins"
        assert len(server.events("accept-failed")) == 1
        server.limit_descriptors(limits[0])
        server.logged("connected", peer="{}:{}".format(*newcomer.getsockname()))
        alice.say(b"welcome")
        newcomer.settimeout(20)
        assert read_exactly(newcomer, 8) == b"welcome\n"
    spare.close()


def test_a_client_for_whom_no_thread_can_be_started_is_let_go(meet):
    """Memory for threads runs out: that client's connection is closed, the room goes on."""
    server, (alice, bob) = meet("chat", 2)
    at_rest(server, 2)
    resource.prlimit(server.pid, resource.RLIMIT_AS, (server.mapped() + MIB, -1))
    with server.connect() as refused:
        assert read_to_end(refused) == b""
    server.logged("disconnected", why="no-thread")
    alice.say(b"we two")
    assert bob.hear() == b"we two"


def test_ten_thousand_clients_hear_a_line(start):
    """The event loop's reason to be. As many clients as this process may have descriptors, up to 10,000."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(10_000, hard - 200)
    try:
        server = start("chat_eventloop")
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(server.connect()) for _ in range(count)]
            server.logged("connected", count)
            clients[0].sendall(b"hello\n")
            for client in clients:
                assert read_exactly(client, 6) == b"hello\n"
        server.logged("disconnected", count)
        until(lambda: server.sockets() == 1, "only the listener is open")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
