# fault: a client that sends and does not read stops the service for everybody
# contract: echo
# caught by: a-slow-reader-delays-nobody
# cause: the server waits in send() to …, who does not read, and everyone waits with it
# lesson: one loop serves them all, and sendall() waits in it until the slowest has read: make the sockets non-blocking and keep a buffer for each
import select
import socket
import sys

server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind((sys.argv[1], int(sys.argv[2])))
server.listen(128)
inputs = [server]

while True:
    readable, _, _ = select.select(inputs, [], [])
    for s in readable:
        if s is server:
            client, address = server.accept()
            inputs.append(client)
            continue
        try:
            data = s.recv(16384)
            s.sendall(data)  # the fault: waits as long as this client does not read
        except OSError as error:
            print("error:", error)
            data = b""
        if not data:
            inputs.remove(s)
            s.close()
