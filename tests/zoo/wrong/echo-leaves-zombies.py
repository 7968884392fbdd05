# fault: it forks a child for each client and never waits for one
# contract: echo
# caught by: nothing-is-left-of-whoever-left
# cause: children end, and nobody waits for them (waitpid): … zombies more after … clients came and went
# lesson: a child that has ended stays a zombie until its parent waits for it: call waitpid(), or ignore SIGCHLD
import os
import socket
import sys


def serve(conn):
    try:
        while data := conn.recv(4096):
            conn.sendall(data)
    except OSError:
        pass
    conn.close()


def main():
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((sys.argv[1], int(sys.argv[2])))
    server.listen(128)
    while True:
        conn, addr = server.accept()
        pid = os.fork()
        if pid == 0:
            server.close()
            serve(conn)
            os._exit(0)
        conn.close()
        print(f"child {pid} serves {addr}")  # the fault: and who waits for it?


if __name__ == "__main__":
    main()
