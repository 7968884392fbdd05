# fault: a client that does not read blocks everybody, because sendall() to it waits while the lock is held
# contract: chat
# caught by: a-slow-consumer-delays-nobody, a-cut-off-client-delays-nobody
# cause: the server waits in send() to …, who does not read, and everyone waits with it
# lesson: sendall() waits until this client has read, and all the others wait for the lock; give each client a queue and a thread that sends
import socket
import sys
import threading

clients = []
lock = threading.Lock()


def broadcast(line):
    with lock:
        for sock in clients:
            try:
                sock.sendall(line + b"\n")  # the fault: waits as long as this one does not read
            except OSError:
                pass  # its own thread takes it off the list


def read_lines(sock):
    buffer = b""
    while True:
        try:
            data = sock.recv(65536)
        except OSError:
            return
        if not data:
            break
        *lines, buffer = (buffer + data).split(b"\n")
        for line in lines:
            yield line + b"\n"
    if buffer:
        yield buffer


def serve(sock):
    with lock:
        clients.append(sock)
    for line in read_lines(sock):
        if line in (b"quit\n", b"quit\r\n"):
            break
        line = line.removesuffix(b"\n").removesuffix(b"\r")
        if line:
            broadcast(line)
    with lock:
        clients.remove(sock)
    sock.close()


def main():
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((sys.argv[1], int(sys.argv[2])))
    server.listen(100)
    print("waiting for clients")
    while True:
        sock, address = server.accept()
        print("new client", address)
        threading.Thread(target=serve, args=(sock,), daemon=True).start()


main()
