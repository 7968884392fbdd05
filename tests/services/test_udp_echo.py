"""The contract `udp-echo`: each datagram goes back to where it came from."""

import os
import socket

import pytest
from real_server import until


@pytest.mark.parametrize("size", [0, 1, 1472, 1473, 65_507])
def test_a_datagram_of_any_size_comes_back_unchanged(start, size):
    """Empty ones and the largest that IPv4 has, too."""
    message = os.urandom(size)
    with start("udp_echo").datagram_socket() as client:
        client.send(message)
        assert client.recv(65_535) == message


def test_boundaries_are_kept(start):
    """Three datagrams are three, not one, though nothing is between them."""
    with start("udp_echo").datagram_socket() as client:
        for message in (b"one", b"", b"three"):
            client.send(message)
        assert [client.recv(65_535) for _ in range(3)] == [b"one", b"", b"three"]


def test_each_sender_gets_its_own(start):
    """Fifty sockets of one host, told apart by their ports."""
    server = start("udp_echo")
    clients = [server.datagram_socket() for _ in range(50)]
    for number, client in enumerate(clients):
        client.send(b"%d" % number)
    for number, client in enumerate(clients):
        assert client.recv(65_535) == b"%d" % number
        client.close()


def test_a_sender_that_is_gone_is_survived(start):
    """The answer meets a closed port, and ICMP says so: nothing of it reaches the others."""
    server = start("udp_echo")
    for _ in range(200):
        with server.datagram_socket() as gone:
            gone.send(b"bye")
    with server.datagram_socket() as client:
        client.send(b"hello")
        assert client.recv(65_535) == b"hello"


def test_a_burst_is_survived(start):
    """Ten thousand datagrams at once: some may be lost, the server answers afterwards."""
    server = start("udp_echo")
    with server.datagram_socket() as client:
        for _ in range(10_000):
            client.send(b"x" * 100)
    with server.datagram_socket() as client:
        client.settimeout(0.2)

        def answered():
            client.send(b"hello")
            try:
                return client.recv(65_535) == b"hello"
            except TimeoutError:
                return False

        until(answered, "an answer after the burst")


def test_it_serves_ipv6(start):
    """--host ::1"""
    server = start("udp_echo", "--host", "::1")
    assert server.address[0] == "::1"
    with server.datagram_socket() as client:
        assert client.family == socket.AF_INET6
        client.send(b"six")
        assert client.recv(65_535) == b"six"
