# fault: those who left with FIN or RST stay in the list, and their descriptors stay open
# contract: chat
# caught by: a-room-that-empties-keeps-nothing
# cause: a socket is not closed when its client leaves: … descriptors, … threads more after … clients came and went
# lesson: at the end of recv() you only stop to read, but the socket has to leave the list and be closed, or the server runs out of descriptors
import queue
import socket
import sys
import threading

clients = {}
lock = threading.Lock()


def write_to(sock, lines):
    while line := lines.get():
        try:
            sock.sendall(line)
        except OSError:
            pass  # it does not hear us


def broadcast(line):
    with lock:
        for lines in clients.values():
            lines.put(line + b"\n")


def leave(sock):
    with lock:
        clients.pop(sock).put(None)
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    sock.close()


def read_from(sock):
    buffer = b""
    while True:
        try:
            data = sock.recv(65536)
        except OSError:
            return  # the fault: it stays in the list
        if not data:
            if buffer:
                broadcast(buffer)
            return  # the fault: here, too
        buffer += data
        while b"\n" in buffer:
            line, buffer = buffer.split(b"\n", 1)
            line = line.removesuffix(b"\r")
            if line == b"quit":
                leave(sock)
                return
            if line:
                broadcast(line)


server = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=128)
while True:
    sock, address = server.accept()
    lines = queue.Queue()
    with lock:
        clients[sock] = lines
    threading.Thread(target=write_to, args=(sock, lines), daemon=True).start()
    threading.Thread(target=read_from, args=(sock,), daemon=True).start()
