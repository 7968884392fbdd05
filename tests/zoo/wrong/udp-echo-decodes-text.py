# fault: it decodes each datagram as UTF-8 and dies with a traceback of one that is not
# contract: udp-echo
# caught by: empty-and-huge-ones-too
# cause: … ended in the middle of the play: it takes bytes for text: decode() fails at what is no UTF-…
# lesson: decode() raises UnicodeDecodeError on bytes that are no UTF-8, and nobody catches it; an echo needs no text, only bytes
import socket
import sys


def receive(sock):
    data, address = sock.recvfrom(65535)
    return data.decode(), address  # the fault: who says that it is a text


def send(sock, text, address):
    sock.sendto(text.encode(), address)


with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.bind((sys.argv[1], int(sys.argv[2])))
    while True:
        message, sender = receive(sock)
        send(sock, message, sender)
