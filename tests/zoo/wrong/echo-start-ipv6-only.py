# fault: it takes connections over IPv6 only
# contract: echo
# caught by: start
# cause: its socket takes IPv… only
# lesson: its socket takes IPv6 only: switch IPV6_V6ONLY off, or bind 0.0.0.0
import socket
import sys
import threading


def echo(conn):
    try:
        while data := conn.recv(8192):
            conn.sendall(data)
    except OSError as error:
        print("lost:", error)
    conn.close()


server = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # the fault: IPv4 is shut out
server.bind(("::", int(sys.argv[2])))
server.listen(128)
while True:
    conn, _ = server.accept()
    threading.Thread(target=echo, args=(conn,), daemon=True).start()
