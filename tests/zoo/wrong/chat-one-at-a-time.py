# fault: it serves one client to its end before it accepts the next
# contract: chat
# caught by: nobody-has-to-speak, everyone-hears-a-line, two-clients-on-one-host
# cause: the server has not accepted …'s connection: it serves one client at a time, or waits for another one in recv() or send()
# lesson: accept() is called again only when the client before has left, so the second one waits in the backlog and is no member
import socket
import sys

clients = []


def broadcast(line):
    for conn in clients:
        conn.sendall(line + b"\n")


def serve(conn):
    for line in conn.makefile("rb"):
        if line in (b"quit\n", b"quit\r\n"):
            break
        line = line.removesuffix(b"\n").removesuffix(b"\r")
        if line:
            broadcast(line)


def main():
    server = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=128)
    while True:
        conn, address = server.accept()
        print("connected:", address)
        clients.append(conn)
        try:
            serve(conn)  # the fault: nobody is accepted until this one has left
        except OSError as error:
            print("lost:", address, error)
        clients.remove(conn)
        conn.close()


main()
