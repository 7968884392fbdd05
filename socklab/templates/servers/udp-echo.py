"""A UDP echo server, to be filled in: each datagram goes back to where it came from.

python3 server.py --host 127.0.0.1 --port 7001
"""

import argparse
import socket


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=7001)
    where = parser.parse_args()
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((where.host, where.port))
    print(f"listening on {where.host} port {where.port}", flush=True)
    while True:
        data, peer = server.recvfrom(65536)
        # TODO: send `data` back to `peer`, unchanged; an empty datagram is one, too.


if __name__ == "__main__":
    main()
