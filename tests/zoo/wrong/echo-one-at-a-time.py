# fault: it serves one client to its end before it accepts the next one
# contract: echo
# caught by: the-second-client-is-served-at-once, fifty-at-once, a-slow-reader-delays-nobody
# cause: the server has not accepted …'s connection: it serves one client at a time, or waits for another one in recv() or send()
# lesson: serves one client at a time: accept() is called again only when the client before has left
import socket
import sys

HOST, PORT = sys.argv[1], int(sys.argv[2])

server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind((HOST, PORT))
server.listen(128)
print(f"Echo server listening on {HOST}:{PORT}")

while True:
    conn, addr = server.accept()
    print("Connected by", addr)
    try:
        while True:  # the fault: who comes now waits in the backlog until this client has left
            data = conn.recv(4096)
            if not data:
                break
            conn.sendall(data)
    except OSError as error:
        print("Lost", addr, error)
    finally:
        conn.close()
