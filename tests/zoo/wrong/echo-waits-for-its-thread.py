# fault: it starts a thread for a client and waits for its end before it accepts the next
# contract: echo
# caught by: fifty-at-once, the-second-client-is-served-at-once
# cause: the accept queue of the server is full: 6 connections wait for accept(), the backlog of listen() is 5
# lesson: join() behind start() makes one client at a time of the threads; whoever does not fit into the backlog is not even let in
import socket
import sys
import threading


def serve(connection):
    with connection:
        while data := connection.recv(4096):
            connection.sendall(data)


with socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=5) as listener:
    while True:
        thread = threading.Thread(target=serve, args=(listener.accept()[0],))
        thread.start()
        thread.join()  # the fault
