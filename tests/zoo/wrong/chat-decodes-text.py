# fault: a line that is no UTF-8 ends its sender's connection
# contract: chat
# caught by: bytes-pass-through
# cause: … was thrown out for bytes that are no UTF-…: it takes bytes for text
# lesson: decode() raises UnicodeDecodeError on bytes that are no UTF-8; a line is bytes, so pass it on as bytes and decode nothing
import queue
import socket
import sys
import threading

clients = {}
clients_lock = threading.Lock()


def broadcast(text):
    with clients_lock:
        for messages in clients.values():
            messages.put(text + "\n")


def send_messages(sock, messages):
    try:
        while message := messages.get():
            sock.sendall(message.encode())
    except OSError:
        pass


def receive_messages(sock):
    buffer = b""
    while data := sock.recv(65536):
        buffer += data
        while b"\n" in buffer:
            line, buffer = buffer.split(b"\n", 1)
            text = line.decode().removesuffix("\r")  # the fault: not every line is UTF-8
            if text == "quit":
                return
            if text:
                broadcast(text)
    if buffer:
        broadcast(buffer.decode())


def handle(sock, address):
    messages = queue.Queue()
    with clients_lock:
        clients[sock] = messages
    threading.Thread(target=send_messages, args=(sock, messages), daemon=True).start()
    try:
        receive_messages(sock)
        sock.shutdown(socket.SHUT_RDWR)
    except (OSError, ValueError) as error:
        print(f"{address}: {error}", file=sys.stderr)
    finally:
        with clients_lock:
            del clients[sock]
        messages.put("")
        sock.close()


def main():
    host, port = sys.argv[1], int(sys.argv[2])
    with socket.create_server((host, port), backlog=128) as server:
        while True:
            sock, address = server.accept()
            threading.Thread(target=handle, args=(sock, address), daemon=True).start()


if __name__ == "__main__":
    main()
