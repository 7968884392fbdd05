# fault: it decodes what it receives as UTF-8, and ends the connection with an exception at bytes that are none
# contract: echo
# caught by: what-is-sent-comes-back
# cause: a worker of the server failed: it takes bytes for text: decode() fails at what is no UTF-…
# lesson: it takes bytes for text: decode() fails at what is no UTF-8, and an echo needs no text, only bytes
import socket
import sys
import threading


def handle_client(conn, addr):
    with conn:
        while True:
            try:
                data = conn.recv(1024)
            except OSError:
                return
            if not data:
                return
            message = data.decode("utf-8")  # the fault: UnicodeDecodeError, if it is no UTF-8
            try:
                conn.sendall(message.encode("utf-8"))
            except OSError:
                return


def main():
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((sys.argv[1], int(sys.argv[2])))
        s.listen(128)
        while True:
            conn, addr = s.accept()
            threading.Thread(target=handle_client, args=(conn, addr), daemon=True).start()


if __name__ == "__main__":
    main()
