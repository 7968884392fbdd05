# fault: each recv(1024) is passed on with the sender's name before it, so there are names in the middle of long lines
# contract: chat
# caught by: a-line-of-64-kib, a-line-may-come-in-pieces, long-lines-never-interleave
# cause: of a line of … bytes only the first … were delivered: a buffer's size is taken for the longest line
# lesson: what recv(1024) gives is a piece of the stream and not a line; the name belongs before a line, once the whole line is there
import queue
import socket
import sys
import threading

everyone = {}
mutex = threading.Lock()


def tell_everyone(chunk):
    with mutex:
        for outbox in everyone.values():
            outbox.put(chunk)


def send(connection, outbox):
    try:
        while chunk := outbox.get():
            connection.sendall(chunk)
    except OSError:
        return


def talk(connection, name):
    unfinished = False
    while chunk := connection.recv(1024):
        if chunk in (b"quit\n", b"quit\r\n"):
            return
        chunk = chunk.replace(b"\r\n", b"\n")
        if chunk.strip(b"\n"):
            tell_everyone(name + b": " + chunk)  # the fault: the line may have begun in the chunk before
        elif unfinished:
            tell_everyone(b"\n")
        unfinished = not chunk.endswith(b"\n")
    if unfinished:
        tell_everyone(b"\n")


def serve(connection, address):
    outbox = queue.Queue()
    threading.Thread(target=send, args=(connection, outbox), daemon=True).start()
    with mutex:
        everyone[connection] = outbox
    try:
        talk(connection, b"%s-%d" % (address[0].encode(), address[1]))
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    finally:
        with mutex:
            del everyone[connection]
        outbox.put(None)
        connection.close()


listener = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=128)
while True:
    threading.Thread(target=serve, args=listener.accept(), daemon=True).start()
