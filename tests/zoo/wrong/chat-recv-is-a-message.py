# fault: it takes what one recv() gives for one message, so two lines in a segment come out as one and a line in pieces as several
# contract: chat
# caught by: one-segment-may-hold-many-lines, a-line-may-come-in-pieces, a-line-of-64-kib
# cause: lines that came in one segment were delivered as one: recv() is taken for a message
# lesson: TCP is a stream: recv() knows nothing of lines, so you have to keep a buffer and cut it at each newline yourself
import queue
import socket
import sys
import threading

users = {}  # socket -> queue of what is to be sent to it
users_lock = threading.Lock()


def broadcast(text):
    with users_lock:
        for outbox in users.values():
            outbox.put(text + b"\n")


def writer(sock, outbox):
    try:
        while True:
            message = outbox.get()
            if message is None:
                return
            sock.sendall(message)
    except OSError:
        pass


def handle_client(sock):
    outbox = queue.Queue()
    threading.Thread(target=writer, args=(sock, outbox), daemon=True).start()
    with users_lock:
        users[sock] = outbox
    try:
        while True:
            data = sock.recv(4096)
            if not data:
                break
            text = data.strip(b"\r\n")  # the fault: data is as much as happened to be there, not a line
            if text == b"quit":
                break
            if text:
                broadcast(text.replace(b"\r\n", b" ").replace(b"\n", b" "))
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    finally:
        with users_lock:
            del users[sock]
        outbox.put(None)
        sock.close()


if __name__ == "__main__":
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((sys.argv[1], int(sys.argv[2])))
    listener.listen(128)
    while True:
        client, addr = listener.accept()
        threading.Thread(target=handle_client, args=(client,), daemon=True).start()
