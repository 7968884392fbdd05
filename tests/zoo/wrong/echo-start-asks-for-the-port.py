# fault: it asks for its port at the keyboard, and ends with EOFError where nobody sits there
# contract: echo
# caught by: start
# cause: it asks for something at the keyboard, and nobody sits there: take host and port from the command line
# lesson: it asks for something at the keyboard, and nobody sits there: take host and port from the command line
import socket
import threading


def client_handler(connection):
    while True:
        try:
            data = connection.recv(1024)
            if not data:
                break
            connection.sendall(data)
        except OSError:
            break
    connection.close()


print("*** Echo server ***")
host = "0.0.0.0"
port = int(input("Enter port number: "))  # the fault: the command line has told it already
server = socket.create_server((host, port), backlog=128)
print("Waiting for a connection...")
while True:
    connection, address = server.accept()
    print("Connected to:", address[0] + ":" + str(address[1]))
    threading.Thread(target=client_handler, args=(connection,), daemon=True).start()
