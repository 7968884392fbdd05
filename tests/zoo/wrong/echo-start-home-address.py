# fault: it binds an address of its author's own network, and ends with an error where there is no such address
# contract: echo
# caught by: start
# cause: it binds an address that this host does not have, one of its author's network: bind …
# lesson: it binds an address that this host does not have: take the host that it is told, or 0.0.0.0
import socket
import sys
import threading

SERVER = "192.168.1.50"  # the fault: my computer at home, which ipconfig has told
PORT = int(sys.argv[2])
ADDR = (SERVER, PORT)

server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(ADDR)


def handle_client(conn, addr):
    print(f"[NEW CONNECTION] {addr} connected.")
    try:
        while data := conn.recv(2048):
            conn.sendall(data)
    except OSError as error:
        print(f"[ERROR] {error}")
    conn.close()


def start():
    server.listen(128)
    print(f"[LISTENING] Server is listening on {SERVER}")
    while True:
        conn, addr = server.accept()
        threading.Thread(target=handle_client, args=(conn, addr), daemon=True).start()


print("[STARTING] server is starting...")
start()
