# fault: four clients are served at once, and the fifth waits until one of them leaves
# contract: echo
# caught by: fifty-at-once
# cause: the server serves no more than … clients at once: … waits until one leaves
# lesson: the pool has four workers, and each is taken as long as its client stays: the fifth client is accepted, but not served
import argparse
import socket
from concurrent.futures import ThreadPoolExecutor


def echo(conn, address):
    with conn:
        try:
            while True:
                data = conn.recv(65536)
                if not data:
                    print("bye", address)
                    return
                conn.sendall(data)
        except OSError as error:
            print("lost", address, error)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    args = parser.parse_args()
    with (
        ThreadPoolExecutor(max_workers=4) as pool,  # the fault: a client keeps its worker as long as it likes
        socket.create_server((args.host, args.port), backlog=128) as server,
    ):
        while True:
            conn, address = server.accept()
            pool.submit(echo, conn, address)


if __name__ == "__main__":
    main()
