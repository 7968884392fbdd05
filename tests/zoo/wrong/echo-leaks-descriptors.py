# fault: it says FIN to a client that has ended, but keeps every socket open for ever
# contract: echo
# caught by: nothing-is-left-of-whoever-left
# cause: a socket is not closed when its client leaves: … descriptors more after … clients came and went
# lesson: shutdown() ends the conversation, not the socket: without close(), or while a list still holds it, its descriptor is never released
import socket
import sys
import threading

lock = threading.Lock()
sockets = []


def client_thread(sock):
    with lock:
        sockets.append(sock)  # the fault: nobody ever takes it off the list or closes it
    try:
        while True:
            data = sock.recv(8192)
            if not data:
                break
            sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
    except OSError as error:
        print("connection ended:", error)


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: PROGRAM HOST PORT")
    server = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=128)
    while True:
        sock, _ = server.accept()
        thread = threading.Thread(target=client_thread, args=(sock,))
        thread.daemon = True
        thread.start()


main()
