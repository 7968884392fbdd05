/* The measure for UDP registries: recvfrom(2), then sendto(2) to each who has said #REG. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { MOST = 100000, BUFFER = 4 << 20 };
static struct sockaddr_in known[MOST];
static char buffer[65536];

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: %s HOST PORT\n", argv[0]);
        return 2;
    }
    int count = 0, size = BUFFER, sock = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
    inet_pton(AF_INET, argv[1], &address.sin_addr);
    setsockopt(sock, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    setsockopt(sock, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    if (bind(sock, (struct sockaddr *)&address, sizeof address)) {
        perror("bind");
        return 1;
    }
    for (;;) {
        struct sockaddr_in from;
        socklen_t length = sizeof from;
        ssize_t got = recvfrom(sock, buffer, sizeof buffer, 0, (struct sockaddr *)&from, &length);
        if (got < 0)
            continue;
        if (got == 4 && !memcmp(buffer, "#REG", 4)) {
            if (count < MOST)
                known[count++] = from;
            sendto(sock, "registered", 10, 0, (struct sockaddr *)&from, length);
            continue;
        }
        for (int i = 0; i < count; i++)
            sendto(sock, buffer, got, MSG_DONTWAIT, (struct sockaddr *)&known[i], sizeof known[i]);
    }
}
