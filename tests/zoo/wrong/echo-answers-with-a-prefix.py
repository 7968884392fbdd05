# fault: it puts "You said: " before everything that it sends back
# contract: echo
# caught by: what-is-sent-comes-back, one-byte-at-a-time, a-megabyte-comes-back
# cause: it sends "…" before the echo: an echo adds nothing
# lesson: an echo adds nothing: the words before the answer are none of the client's bytes
import socket
import sys
import threading


def echo_client(client_socket):
    try:
        while True:
            message = client_socket.recv(1024)
            if message == b"":
                break
            reply = b"You said: " + message  # the fault: more than was sent
            client_socket.sendall(reply)
    except (ConnectionResetError, BrokenPipeError):
        print("A client has vanished")
    client_socket.close()


server_socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
server_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server_socket.bind((sys.argv[1], int(sys.argv[2])))
server_socket.listen(128)
print("The server is ready to receive")
while True:
    client_socket, address = server_socket.accept()
    t = threading.Thread(target=echo_client, args=(client_socket,), daemon=True)
    t.start()
