# fault: it serves ten clients in its life, and closes every later one at once
# contract: echo
# caught by: fifty-at-once, a-thousand-connections, nothing-is-left-of-whoever-left
# cause: the server takes no more than … clients at once: it closed …'s connection at once
# lesson: the place of a client that has left is not used again: the counter only goes up, and at ten the table is full for ever
import socket
import sys
import threading

MAX_CLIENTS = 10
clients = [None] * MAX_CLIENTS
count = 0


def serve(number):
    conn = clients[number]
    try:
        while data := conn.recv(4096):
            conn.sendall(data)
    except OSError as error:
        print("client", number, "failed:", error)
    conn.close()
    clients[number] = None


listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind((sys.argv[1], int(sys.argv[2])))
listener.listen(128)
while True:
    conn, address = listener.accept()
    if count == MAX_CLIENTS:  # the fault: how many have come, not how many are there
        conn.close()
        continue
    clients[count] = conn
    threading.Thread(target=serve, args=(count,), daemon=True).start()
    count += 1
