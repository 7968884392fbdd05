# fault: what stands behind the last newline of a recv() is thrown away, so of a line that comes in pieces only the end is delivered
# contract: chat
# caught by: one-segment-may-hold-many-lines
# cause: of "four", which came in pieces, only the end was delivered: what stands behind the last newline that recv() gave has to be kept
# lesson: split(b"\n") gives one piece more than there are newlines: the beginning of the next line, which is to be kept
import socket
import sys
import threading

clients = []
lock = threading.Lock()


def serve(connection):
    with lock:
        clients.append(connection)
    try:
        while data := connection.recv(4096):
            for line in data.split(b"\n")[:-1]:  # the fault: the last element is lost
                line = line.removesuffix(b"\r")
                if line == b"quit":
                    return
                with lock:
                    for client in clients if line else ():
                        client.sendall(line + b"\n")
    except OSError:
        pass
    finally:
        with lock:
            clients.remove(connection)
        connection.close()


with socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=128) as listener:
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
