"""Is a server of this lab well? Asks it as a client would, and disturbs nobody: for the health checks of docker-compose.yml.

    python clients/health.py echo 5001        what is sent comes back (a port, or @NAME of an AF_UNIX server)
    python clients/health.py chat 6001        `quit` is answered by the end of the stream, and nobody hears of it
    python clients/health.py udp-echo 7001    a datagram comes back
    python clients/health.py registry 7002    a stranger's #DEREG is answered, and registers nobody
    python clients/health.py listens 5002     it listens; for a server that has only one client to give away

Ends with 0 if it is well, else with 1 and a line that says what it did instead.
"""

import socket
import sys

LIMIT = 2.0  # seconds
WORD = b"is anybody there?\n"


def stream(where):
    if where.startswith("@"):
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.settimeout(LIMIT)
        client.connect("\0" + where[1:])  # the abstract namespace (unix(7))
        return client
    return socket.create_connection(("127.0.0.1", int(where)), timeout=LIMIT)


def echo(where):
    with stream(where) as client:
        client.sendall(WORD)
        answer = b""
        while len(answer) < len(WORD) and (part := client.recv(100)):
            answer += part
    return answer == WORD or f"it answered {answer!r}"


def chat(where):
    with stream(where) as client:
        client.sendall(b"quit\n")
        while part := client.recv(4096):  # a greeting, perhaps, and then the end
            if len(part) == 4096:
                return "it says too much to somebody who wants to leave"
    return True


def datagram(where, word, well):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(LIMIT)
        client.connect(("127.0.0.1", int(where)))
        client.send(word)
        answer = client.recv(65535)
    return well(answer) or f"it answered {answer!r}"


def listens(where):
    """Read in the kernel's own table: a connection would be the only one that it gives away."""
    wanted = f":{int(where):04X} "
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with open(table) as file:
            if any(wanted in line and " 0A " in line for line in file):
                return True
    return f"nothing listens on port {where}"


KINDS = {
    "echo": echo,
    "chat": chat,
    "udp-echo": lambda where: datagram(where, WORD, lambda answer: answer == WORD),
    "registry": lambda where: datagram(where, b"#DEREG", lambda answer: bool(answer)),
    "listens": listens,
}


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in KINDS:
        sys.exit(__doc__)
    kind, where = sys.argv[1:]
    try:
        well = KINDS[kind](where)
    except OSError as exc:
        well = str(exc)
    if well is not True:
        sys.exit(f"{kind} {where}: {well}")


if __name__ == "__main__":
    main()
