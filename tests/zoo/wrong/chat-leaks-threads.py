# fault: the thread that writes to a client goes on waiting for ever after the client has left
# contract: chat
# caught by: a-room-that-empties-keeps-nothing
# cause: a thread does not end when its client leaves: … threads more after … clients came and went
# lesson: the writing thread waits in get() for a line that never comes; put an end mark into its queue when the client leaves
import queue
import socket
import sys
import threading

outboxes = {}
lock = threading.Lock()


def write(conn, outbox):
    while True:
        line = outbox.get()  # the fault: who tells it that the client has left?
        try:
            conn.sendall(line)
        except OSError:
            return


def read(conn):
    buffer = b""
    while True:
        data = conn.recv(65536)
        if not data:
            say(buffer)
            return
        buffer += data
        *lines, buffer = buffer.split(b"\n")
        for line in lines:
            if line in (b"quit", b"quit\r"):
                return
            say(line.removesuffix(b"\r"))


def say(line):
    if not line:
        return
    with lock:
        for outbox in outboxes.values():
            outbox.put(line + b"\n")


def serve(conn):
    outbox = queue.Queue()
    with lock:
        outboxes[conn] = outbox
    threading.Thread(target=write, args=(conn, outbox), daemon=True).start()
    try:
        read(conn)
        conn.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    finally:
        with lock:
            del outboxes[conn]
        conn.close()


def main():
    server = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=128)
    while True:
        conn, _ = server.accept()
        threading.Thread(target=serve, args=(conn,), daemon=True).start()


main()
