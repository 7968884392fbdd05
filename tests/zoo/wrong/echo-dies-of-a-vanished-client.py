# fault: an error on one client's connection ends the whole program
# contract: echo
# caught by: rst-in-the-middle-of-a-transfer, rst-ends-one-connection-only, nothing-is-left-of-whoever-left
# cause: … ended in the middle of the play: a client ended with RST (ECONNRESET), and nobody caught it
# lesson: the exception of one client is that client's end, not the server's: it ends the whole process where close() would do
import os
import socket
import sys
import threading
import traceback


def worker(conn):
    try:
        while True:
            data = conn.recv(32768)
            if not data:
                break
            conn.sendall(data)
        conn.close()
    except Exception:
        traceback.print_exc()
        os._exit(1)  # the fault: sys.exit() ended only the thread, so "this one really ends it"


def main():
    host, port = sys.argv[1:3]
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((host, int(port)))
    s.listen(128)
    while True:
        conn, _ = s.accept()
        threading.Thread(target=worker, args=(conn,), daemon=True).start()


main()
