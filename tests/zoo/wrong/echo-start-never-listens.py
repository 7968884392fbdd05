# fault: it binds its port and never listens on it
# contract: echo
# caught by: start
# cause: it never listens: listen() is missing, or it waits for something else first
# lesson: it never listens: listen() is missing between bind() and accept()
import socket
import sys
import threading
import time


def serve(conn):
    with conn:
        try:
            while data := conn.recv(4096):
                conn.sendall(data)
        except OSError:
            pass


def main():
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((sys.argv[1], int(sys.argv[2])))  # the fault: server.listen(128) should come next
    while True:
        try:
            conn, _ = server.accept()
        except OSError:
            time.sleep(0.5)  # no client yet, try again
            continue
        threading.Thread(target=serve, args=(conn,), daemon=True).start()


main()
