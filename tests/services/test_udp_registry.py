"""The contract `registry`: in UDP, clients say that they are there."""

import random

import pytest
from real_server import until

QUIET_S = 0.2  # a window in which nothing may come; what is sent on loopback comes within microseconds


def register(server):
    """A socket whose address is registered."""
    client = server.datagram_socket()
    client.send(b"#REG")
    assert client.recv(65_535).startswith(b"registered ")
    return client


def hears_nothing(client):
    client.settimeout(QUIET_S)
    with pytest.raises(TimeoutError):
        client.recv(65_535)
    client.settimeout(20)
    return True


# 1. Registering.


@pytest.mark.parametrize("command", [b"#REG", b"#REG\n", b"\r\n\t #REG \t\r\n"])
def test_reg_registers_and_is_answered(start, command):
    """White space around the command is ignored: `nc -u` sends the newline, too."""
    with start("udp_registry").datagram_socket() as client:
        client.send(command)
        answer = "registered {}:{}, 1 here".format(*client.getsockname())
        assert client.recv(65_535) == answer.encode()


def test_registering_twice_is_one_registration(start):
    """What is said comes once to who has registered three times."""
    server = start("udp_registry")
    with register(server) as alice:
        for _ in range(2):
            alice.send(b"#REG")
            assert b", 1 here" in alice.recv(65_535)
        alice.send(b"once")
        assert alice.recv(65_535) == b"once"
        assert hears_nothing(alice)


def test_dereg_takes_off_and_a_stranger_may_say_it(start):
    """After #DEREG nothing comes any more; both answers are the same."""
    server = start("udp_registry")
    with register(server) as alice, register(server) as bob, server.datagram_socket() as stranger:
        for client in (alice, alice, stranger):
            client.send(b"#DEREG")
            assert client.recv(65_535) == b"deregistered"
        bob.send(b"alone")
        assert bob.recv(65_535) == b"alone"
        assert hears_nothing(alice)


# 2. Saying something.


def test_everybody_registered_hears_it_once_the_sender_too(start):
    """Ten clients, one datagram, ten deliveries."""
    server = start("udp_registry")
    clients = [register(server) for _ in range(10)]
    clients[0].send(b"hello")
    clients[0].send(b"end")
    for client in clients:
        assert [client.recv(65_535), client.recv(65_535)] == [b"hello", b"end"]
        client.close()


def test_a_stranger_is_heard_by_nobody_and_told_so(start):
    """Text of an unregistered address goes nowhere."""
    server = start("udp_registry")
    with register(server) as alice, server.datagram_socket() as stranger:
        stranger.send(b"let me in")
        assert stranger.recv(65_535) == b"not registered: send #REG first"
        assert hears_nothing(alice)


def test_its_own_complaint_is_not_answered(start):
    """Two registries that are made to talk to each other must fall silent."""
    with start("udp_registry").datagram_socket() as stranger:
        stranger.send(b"not registered: send #REG first")
        assert hears_nothing(stranger)


# 3. Only the exact commands are commands.


@pytest.mark.parametrize(
    "text", [b"#REGISTER", b"say #REG", b"#reg", b"#REG now", b"#DEREG me", b"\x0b#REG", b"# REG"]
)
def test_what_merely_looks_like_a_command_is_text(start, text):
    """It is delivered; and a command is not."""
    server = start("udp_registry")
    with register(server) as alice, register(server) as bob:
        bob.send(b"#REG")
        assert bob.recv(65_535).startswith(b"registered ")
        bob.send(text)
        assert alice.recv(65_535) == bob.recv(65_535) == text


# 4. IP and port.


def test_two_sockets_of_one_host_are_two_clients(start):
    """One deregisters, the other stays."""
    server = start("udp_registry")
    with register(server) as alice, register(server) as beside:
        alice.send(b"#DEREG")
        assert alice.recv(65_535) == b"deregistered"
        beside.send(b"me")
        assert beside.recv(65_535) == b"me"


# 5. Nothing brings it down.


@pytest.mark.parametrize("size", [0, 1, 65_507])
def test_datagrams_of_any_size_are_delivered_unchanged(start, size):
    """Empty ones and the largest, too."""
    server = start("udp_registry")
    message = random.Random(size).randbytes(size)
    with register(server) as alice, register(server) as bob:
        alice.send(message)
        assert alice.recv(65_535) == bob.recv(65_535) == message


def test_a_member_that_is_gone_costs_the_others_nothing(start):
    """Its closed port makes ICMP errors of what is sent to it."""
    server = start("udp_registry")
    for _ in range(20):
        register(server).close()
    with register(server) as alice:
        for number in range(100):
            alice.send(b"%d" % number)
            assert alice.recv(65_535) == b"%d" % number


def test_a_burst_deregisters_nobody(start):
    """Ten thousand datagrams of members and strangers: afterwards the members are still members."""
    server = start("udp_registry")
    alice, bob = register(server), register(server)
    with server.datagram_socket() as stranger:
        for number in range(5000):
            stranger.send(b"noise")
            alice.send(b"%d" % number)
    # The burst may still be under way, and alice's own buffer may be full: read until the end has come.
    bob.settimeout(QUIET_S)

    def end_came():
        alice.send(b"end")
        try:
            while (heard := bob.recv(65_535)) != b"end":
                assert heard.isdigit()
        except TimeoutError:
            return False
        return True

    until(end_came, "bob hears alice after the burst")
    for client in (alice, bob):
        client.close()


def test_the_registry_is_bounded(start):
    """--max-peers: who comes too late is told; those who are in may register again, and leave for others."""
    server = start("udp_registry", "--max-peers", "2")
    with register(server) as alice, register(server) as bob, server.datagram_socket() as carol:
        carol.send(b"#REG")
        assert carol.recv(65_535).startswith(b"full")
        bob.send(b"#REG")
        assert bob.recv(65_535).startswith(b"registered ")
        alice.send(b"#DEREG")
        assert alice.recv(65_535) == b"deregistered"
        carol.send(b"#REG")
        assert carol.recv(65_535).startswith(b"registered ")


# 6. Lease and cookie.


def test_a_lease_ends_on_an_idle_server_and_any_datagram_renews_it(start):
    """Of two who register, the one that goes on talking stays; the silent one goes by itself."""
    server = start("udp_registry", "--lease", "0.5")
    with register(server) as silent, register(server) as talker:
        peer = "{}:{}".format(*silent.getsockname())
        talker.settimeout(0.05)  # also the pace at which it talks

        def talk():
            talker.send(b"here")
            try:
                talker.recv(65_535)
            except TimeoutError:
                pass
            return server.events("deregistered", peer=peer, why="lease")

        until(talk, "the silent one's lease ends")
        talker_peer = "{}:{}".format(*talker.getsockname())
        assert server.events("deregistered", peer=talker_peer) == []
        server.logged("deregistered", peer=talker_peer, why="lease")  # now that it is silent, too


def test_with_cookie_nothing_is_sent_to_an_address_that_has_not_answered(start):
    """#REG brings a cookie; until it is returned, what is said does not go there."""
    server = start("udp_registry", "--cookie")
    with server.datagram_socket() as alice, server.datagram_socket() as bob:
        cookies = []
        for client in (alice, bob):
            client.send(b"#REG")
            word, cookie = client.recv(65_535).split()
            assert word == b"#COOKIE"
            cookies.append(cookie)
        alice.send(b"#REG " + cookies[0] + b"\n")
        assert alice.recv(65_535).startswith(b"registered ")
        alice.send(b"hello")
        assert alice.recv(65_535) == b"hello"
        assert hears_nothing(bob)
        bob.send(b"#REG " + cookies[0])  # somebody else's
        assert bob.recv(65_535) == b"not registered: send #REG first"
        bob.send(b"#REG " + cookies[1])
        assert bob.recv(65_535).startswith(b"registered ")


def test_without_cookie_a_word_behind_reg_makes_it_text(start):
    """`#REG <cookie>` is a command only where cookies are asked for."""
    server = start("udp_registry")
    with register(server) as alice:
        alice.send(b"#REG 0123456789abcdef")
        assert alice.recv(65_535) == b"#REG 0123456789abcdef"
