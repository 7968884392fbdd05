// contract: registry
// language: C
// packages: gcc libc6-dev
// build: gcc -O2 -Wall -o {out} {file}
// start: {out} {host} {port}
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static struct sockaddr_in *peers;
static size_t count, capacity;
static int sock;

static void answer(const char *text, const struct sockaddr_in *to) {
    sendto(sock, text, strlen(text), 0, (const struct sockaddr *)to, sizeof *to);
}

// Its place in the table; `count` if it is not registered.
static size_t find(const struct sockaddr_in *peer) {
    size_t i = 0;
    while (i < count && (peers[i].sin_addr.s_addr != peer->sin_addr.s_addr || peers[i].sin_port != peer->sin_port))
        i++;
    return i;
}

static int add(const struct sockaddr_in *peer) {
    if (find(peer) < count)
        return 1;
    if (count == capacity) {
        size_t more = capacity ? 2 * capacity : 64;
        struct sockaddr_in *bigger = realloc(peers, more * sizeof *peers);
        if (!bigger)
            return 0;
        peers = bigger;
        capacity = more;
    }
    peers[count++] = *peer;
    return 1;
}

static int is_white(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

static int is(const char *command, const char *data, size_t length) {
    while (length && is_white(data[0])) {
        data++;
        length--;
    }
    while (length && is_white(data[length - 1]))
        length--;
    return length == strlen(command) && memcmp(data, command, length) == 0;
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: %s HOST PORT\n", argv[0]);
        return 2;
    }
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_DGRAM}, *where;
    int problem = getaddrinfo(argv[1], argv[2], &hints, &where);
    if (problem) {
        fprintf(stderr, "%s: %s\n", argv[1], gai_strerror(problem));
        return 1;
    }
    sock = socket(AF_INET, SOCK_DGRAM, 0);
    if (sock < 0 || bind(sock, where->ai_addr, where->ai_addrlen)) {
        perror("cannot bind");
        return 1;
    }
    freeaddrinfo(where);
    for (;;) {
        static char data[65536];
        struct sockaddr_in from;
        socklen_t size = sizeof from;
        ssize_t length = recvfrom(sock, data, sizeof data, 0, (struct sockaddr *)&from, &size);
        if (length < 0) {
            perror("recvfrom"); // about an earlier datagram
            continue;
        }
        if (is("#REG", data, length)) {
            answer(add(&from) ? "registered" : "out of memory", &from);
        } else if (is("#DEREG", data, length)) {
            size_t i = find(&from);
            if (i < count)
                peers[i] = peers[--count];
            answer("deregistered", &from);
        } else if (find(&from) < count) {
            for (size_t i = 0; i < count; i++)
                sendto(sock, data, length, 0, (struct sockaddr *)&peers[i], sizeof peers[i]);
        }
    }
}
