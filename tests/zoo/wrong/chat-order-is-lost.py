# fault: every line is delivered by a thread of its own after a small random delay, so a sender's lines overtake each other
# contract: chat
# caught by: everyone-speaks-at-once, everyone-hears-a-line
# cause: …'s lines overtook one another: each is delivered by a thread or task of its own
# lesson: threads run in any order, so whoever starts one for each line has given up the order of the lines; one thread or queue for each sender keeps it
import queue
import random
import socket
import sys
import threading

clients = {}
lock = threading.Lock()


def broadcast(line):
    with lock:
        for outbox in clients.values():
            outbox.put(line + b"\n")


def deliver(line):
    delay = random.uniform(0, 0.02)  # not all at once
    threading.Timer(delay, broadcast, [line]).start()  # the fault: the next line may be quicker


def sender(conn, outbox):
    try:
        for data in iter(outbox.get, None):
            conn.sendall(data)
    except OSError:
        pass


def receiver(conn):
    rest = b""
    while data := conn.recv(65536):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            line = line.removesuffix(b"\r")
            if line == b"quit":
                return
            if line:
                deliver(line)
    if rest:
        deliver(rest)


def serve(conn):
    outbox = queue.Queue()
    threading.Thread(target=sender, args=(conn, outbox), daemon=True).start()
    with lock:
        clients[conn] = outbox
    try:
        receiver(conn)
        conn.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    with lock:
        del clients[conn]
    outbox.put(None)
    conn.close()


with socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=128) as server:
    while True:
        threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
