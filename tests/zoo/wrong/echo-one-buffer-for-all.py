# fault: all clients share one buffer, and what is in it goes to whoever can be written to first
# contract: echo
# caught by: the-second-client-is-served-at-once, fifty-at-once
# cause: … got what … said: the server has one buffer, or one socket variable, for all
# lesson: there is one buffer for all clients, so one gets what another said: each connection needs its own
import select
import socket
import sys

server = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=128)
clients = []
ended = []  # have said FIN, and are closed when all is sent
pending = b""  # the fault: what is still to be sent, no matter to whom


def forget(sock):
    clients.remove(sock)
    if sock in ended:
        ended.remove(sock)
    sock.close()


while True:
    listening = [server] + [c for c in clients if c not in ended and len(pending) < 65536]
    readable, writable, _ = select.select(listening, clients if pending else [], [])
    for sock in readable:
        if sock is server:
            clients.append(server.accept()[0])
            clients[-1].setblocking(False)
            continue
        try:
            data = sock.recv(16384)
            pending += data
            if not data:
                ended.append(sock)
        except OSError:
            forget(sock)
    for sock in writable:
        try:
            pending = pending[sock.send(pending) :] if sock in clients else pending
        except OSError:
            forget(sock)
    for sock in list(ended) if not pending else []:
        forget(sock)
