# fault: what the kernel does not take at once is lost
# contract: echo
# caught by: a-megabyte-comes-back, a-slow-reader-delays-nobody, half-close-gets-the-rest
# cause: send() may take less than it is given
# lesson: send() may take less than it is given: look at what it returns, keep the rest, and send it when there is room again
import selectors
import socket
import sys

sel = selectors.DefaultSelector()


def accept(server):
    conn, _ = server.accept()
    conn.setblocking(False)
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)  # many clients, so little memory for each
    sel.register(conn, selectors.EVENT_READ, echo)


def echo(conn):
    try:
        data = conn.recv(65536)
        if data:
            conn.send(data)  # the fault: perhaps not all of it
            return
    except BlockingIOError:
        return
    except OSError as error:
        print("lost a client:", error)
    sel.unregister(conn)
    conn.close()


server = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=128)
server.setblocking(False)
sel.register(server, selectors.EVENT_READ, accept)
while True:
    for key, _ in sel.select():
        key.data(key.fileobj)
