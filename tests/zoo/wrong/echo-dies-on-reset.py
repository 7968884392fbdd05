# fault: a client that ends with RST ends the whole server
# contract: echo
# caught by: rst-ends-one-connection-only, rst-in-the-middle-of-a-transfer, nothing-is-left-of-whoever-left
# cause: … ended in the middle of the play: a client ended with RST (ECONNRESET), and nobody caught it
# lesson: recv() and send() raise ConnectionResetError when a client vanishes, and in a single loop without try that is everybody's end
import selectors
import socket
import sys
import types

sel = selectors.DefaultSelector()
lsock = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=128)
lsock.setblocking(False)
sel.register(lsock, selectors.EVENT_READ, data=None)


def accept_wrapper(sock):
    conn, addr = sock.accept()
    conn.setblocking(False)
    sel.register(conn, selectors.EVENT_READ, data=types.SimpleNamespace(addr=addr, outb=b""))


def service_connection(key, mask):
    sock, data = key.fileobj, key.data
    if mask & selectors.EVENT_READ:
        data.outb = sock.recv(4096)  # the fault: ConnectionResetError, and nobody catches it
        if not data.outb:
            print("Closing connection to", data.addr)
            sel.unregister(sock)
            sock.close()
            return
    elif mask & selectors.EVENT_WRITE:
        sent = sock.send(data.outb)
        data.outb = data.outb[sent:]
    sel.modify(sock, selectors.EVENT_WRITE if data.outb else selectors.EVENT_READ, data)


while True:
    for key, mask in sel.select():
        if key.data is None:
            accept_wrapper(key.fileobj)
        else:
            service_connection(key, mask)
