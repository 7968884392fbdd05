# fault: what a client's kernel does not take at once is lost, and with it the borders of the lines
# contract: chat
# caught by: a-slow-consumer-delays-nobody, a-cut-off-client-delays-nobody
# cause: carol did not read for a while, and of what was sent to it meanwhile something is lost: what send() does not take at once has to be kept
# lesson: a socket that does not block takes what there is room for, and send() says how much that was: keep the rest for this client, and send it when select() says that there is room
import select
import socket
import sys

unfinished = {}  # socket: the line that it has begun


def say(line):
    for each in unfinished if line else ():
        try:
            each.send(line + b"\n")  # the fault: perhaps not all of it, perhaps nothing
        except OSError:
            pass  # BlockingIOError, too


def hear(connection):
    try:
        data = connection.recv(65536)
    except OSError:
        data = unfinished[connection] = b""
    *lines, unfinished[connection] = (unfinished[connection] + data).split(b"\n")
    for line in lines:
        if line.removesuffix(b"\r") == b"quit":
            return False
        say(line.removesuffix(b"\r"))
    if not data:
        say(unfinished[connection])
    return bool(data)


listener = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=128)
while True:
    for each in select.select([listener, *unfinished], [], [])[0]:
        if each is listener:
            connection, _ = listener.accept()
            connection.setblocking(False)
            unfinished[connection] = b""
        elif not hear(each):
            del unfinished[each]
            each.close()
