"""A UDP server whose clients say that they are there, to be filled in: what one of them sends goes to all of them.

python3 server.py --host 127.0.0.1 --port 7002
"""

import argparse
import socket

members = set()  # addresses: (host, port)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=7002)
    where = parser.parse_args()
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((where.host, where.port))
    print(f"listening on {where.host} port {where.port}", flush=True)
    while True:
        data, peer = server.recvfrom(65536)
        # TODO 1: "#REG" puts `peer` into `members`, "#DEREG" takes it out; answer both. White space around them means nothing.
        # TODO 2: anything else goes to every member, the sender too, if the sender is one; else to nobody.


if __name__ == "__main__":
    main()
