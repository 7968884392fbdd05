# fault: when a client has ended, the server stops serving it but never closes its socket
# contract: echo
# caught by: half-close-gets-the-rest, nothing-is-left-of-whoever-left
# cause: the server does not close when … has half-closed: recv() returned b"", and close() is missing
# lesson: close() is missing: recv() gave b"" and the thread returns, but the socket stays in the list and open
import socket
import sys
from threading import Thread

connections = []  # all that came, for the statistics


def echo(sock):
    while True:
        try:
            data = sock.recv(2048)
            if not data:
                return  # the fault: nobody closes the socket, and the list keeps it
            sock.sendall(data)
        except OSError:
            return


def start_server(host, port):
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(128)
    while True:
        sock, address = listener.accept()
        connections.append(sock)
        print(f"client no. {len(connections)}: {address[0]}")
        Thread(target=echo, args=[sock], daemon=True).start()


if __name__ == "__main__":
    start_server(sys.argv[1], int(sys.argv[2]))
