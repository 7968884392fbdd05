# fault: it listens on 127.0.0.1, whatever host it is told
# contract: echo
# caught by: start
# cause: it binds the loopback address, which nobody else reaches
# lesson: it binds the loopback address, which nobody on another host reaches: take the host that it is told, or 0.0.0.0
import socket
import sys
import threading

HOST = "127.0.0.1"  # the fault: sys.argv[1] is not looked at
PORT = int(sys.argv[2])


def handle(conn, addr):
    print(f"Connected by {addr}")
    with conn:
        try:
            while data := conn.recv(1024):
                conn.sendall(data)
        except OSError as error:
            print(f"{addr}: {error}")


with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as s:
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((HOST, PORT))
    s.listen(128)
    while True:
        conn, addr = s.accept()
        threading.Thread(target=handle, args=(conn, addr), daemon=True).start()
