# fault: it keeps its clients by IP address alone, so a second client on one host takes the place of the first
# contract: chat
# caught by: two-clients-on-one-host
# cause: … and … are on one host, and only … hears: clients are told apart by their IP address alone
# lesson: a client is address and port together, and two programs on one host have the same address
import queue
import socket
import sys
import threading

clients = {}  # address: queue of lines for it
lock = threading.Lock()


def say(line):
    line = line.removesuffix(b"\r")
    with lock:
        for lines in clients.values() if line else ():
            lines.put(line + b"\n")


def write(conn, lines):
    try:
        while line := lines.get():
            conn.sendall(line)
    except OSError:
        pass  # it has left


def listen_to(conn):
    rest = b""
    while data := conn.recv(65536):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if line in (b"quit", b"quit\r"):
                return
            say(line)
    say(rest)


def serve(conn, address):
    ip, _ = address
    lines = queue.Queue()
    with lock:
        clients[ip] = lines  # the fault: whoever was here with this address is lost
    threading.Thread(target=write, args=(conn, lines), daemon=True).start()
    try:
        listen_to(conn)
        conn.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    finally:
        with lock:
            if clients.get(ip) is lines:
                del clients[ip]
        lines.put(None)
        conn.close()


server = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=128)
while True:
    threading.Thread(target=serve, args=server.accept(), daemon=True).start()
