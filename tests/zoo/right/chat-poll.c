// contract: chat
// language: C
// packages: gcc libc6-dev
// build: gcc -O2 -Wall -o {out} {file}
// start: {out} {host} {port}
//
// One thread, one poll() loop, no call that waits. What a client has not taken yet is kept for it, up to a
// bound; past that the client is dropped.
#define _GNU_SOURCE
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_LINE 65536
#define MAX_PENDING (4 * 1024 * 1024)
#define LINGER 3 // seconds for a leaver to take what it is owed and to say FIN

enum state { HERE, LEAVING, GONE };

struct client {
    int fd;
    enum state state;
    int heard_fin, said_fin;
    time_t deadline;
    size_t in_len, out_start, out_len, out_cap;
    char *out;
    char in[MAX_LINE + 2]; // a line, "\r" and "\n"
};

static struct client **clients;
static struct pollfd *polled;
static size_t count, capacity;

static time_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec;
}

static void drop(struct client *c) {
    struct linger rst = {1, 0};
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &rst, sizeof rst);
    c->state = GONE;
}

static void leave(struct client *c) {
    c->state = LEAVING;
    c->deadline = now() + LINGER;
}

static void flush(struct client *c) {
    while (c->state != GONE && c->out_len > 0) {
        ssize_t n = send(c->fd, c->out + c->out_start, c->out_len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno != EAGAIN)
            c->state = GONE;
        if (n < 0)
            return;
        c->out_start += n;
        c->out_len -= n;
    }
    if (c->out_len == 0) {
        free(c->out); // rooms are mostly quiet
        c->out = NULL;
        c->out_start = c->out_cap = 0;
        if (c->state == LEAVING && c->heard_fin)
            c->state = GONE;
        else if (c->state == LEAVING && !c->said_fin) {
            shutdown(c->fd, SHUT_WR);
            c->said_fin = 1;
        }
    }
}

static void owe(struct client *c, const char *data, size_t len) {
    if (c->out_len + len > MAX_PENDING) {
        drop(c);
        return;
    }
    if (c->out_start + c->out_len + len > c->out_cap) {
        if (c->out_start)
            memmove(c->out, c->out + c->out_start, c->out_len);
        c->out_start = 0;
        if (c->out_len + len > c->out_cap) {
            size_t cap = 2 * (c->out_len + len);
            char *bigger = realloc(c->out, cap);
            if (!bigger) {
                drop(c);
                return;
            }
            c->out = bigger;
            c->out_cap = cap;
        }
    }
    memcpy(c->out + c->out_start + c->out_len, data, len);
    c->out_len += len;
}

static void say(const char *line, size_t len) {
    for (size_t i = 0; i < count; i++)
        if (clients[i]->state == HERE) {
            owe(clients[i], line, len);
            owe(clients[i], "\n", 1);
        }
}

static void take_lines(struct client *c, size_t searched) {
    char *start = c->in, *end = c->in + c->in_len, *newline;
    char *from = c->in + searched;
    while (c->state == HERE && (newline = memchr(from, '\n', end - from))) {
        size_t len = newline - start;
        if (len && start[len - 1] == '\r')
            len--;
        if (len > MAX_LINE)
            break;
        if (len == 4 && !memcmp(start, "quit", 4)) {
            leave(c);
            return;
        }
        if (len)
            say(start, len);
        start = from = newline + 1;
    }
    c->in_len = end - start;
    memmove(c->in, start, c->in_len);
    if (c->state == HERE && c->in_len == sizeof c->in) {
        static const char error[] = "error: line too long\n";
        owe(c, error, sizeof error - 1);
        if (c->state == HERE)
            leave(c);
    }
}

static void hear(struct client *c) {
    static char ignored[65536];
    if (c->state == LEAVING) {
        ssize_t n = recv(c->fd, ignored, sizeof ignored, 0);
        if (n == 0)
            c->heard_fin = 1;
        else if (n < 0 && errno != EAGAIN && errno != EINTR)
            c->state = GONE;
        return;
    }
    ssize_t n = recv(c->fd, c->in + c->in_len, sizeof c->in - c->in_len, 0);
    if (n > 0) {
        c->in_len += n;
        take_lines(c, c->in_len - n);
    } else if (n == 0) {
        if (c->in_len && c->in[c->in_len - 1] == '\r')
            c->in_len--;
        if (c->in_len)
            say(c->in, c->in_len); // a last line needs no newline
        c->heard_fin = 1;
        if (c->state == HERE)
            leave(c);
    } else if (errno != EAGAIN && errno != EINTR)
        c->state = GONE;
}

// Whether there may be more to accept.
static int join(int listener) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return errno == ECONNABORTED || errno == EINTR;
    if (count == capacity) {
        size_t more = capacity ? 2 * capacity : 64;
        struct client **c = realloc(clients, more * sizeof *c);
        if (c)
            clients = c;
        struct pollfd *p = realloc(polled, (more + 1) * sizeof *p);
        if (p)
            polled = p;
        if (c && p)
            capacity = more;
    }
    struct client *c = count < capacity ? malloc(sizeof *c) : NULL;
    if (!c) {
        close(fd);
        return 1;
    }
    memset(c, 0, offsetof(struct client, in));
    c->fd = fd;
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    clients[count++] = c;
    return 1;
}

static void sweep(void) {
    time_t t = now();
    for (size_t i = 0; i < count;) {
        struct client *c = clients[i];
        if (c->state == GONE || (c->state == LEAVING && t > c->deadline)) {
            close(c->fd);
            free(c->out);
            free(c);
            clients[i] = clients[--count];
        } else
            i++;
    }
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: %s HOST PORT\n", argv[0]);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    struct rlimit files;
    if (!getrlimit(RLIMIT_NOFILE, &files)) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *where;
    int problem = getaddrinfo(argv[1], argv[2], &hints, &where);
    if (problem) {
        fprintf(stderr, "%s: %s\n", argv[1], gai_strerror(problem));
        return 1;
    }
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, where->ai_addr, where->ai_addrlen) || listen(listener, 512)) {
        perror("cannot listen");
        return 1;
    }
    freeaddrinfo(where);
    polled = malloc(sizeof *polled);
    int full = 0; // no descriptor is free: let the newcomers wait a little
    for (;;) {
        int timeout = full ? 100 : -1;
        polled[0] = (struct pollfd){listener, full ? 0 : POLLIN, 0};
        for (size_t i = 0; i < count; i++) {
            struct client *c = clients[i];
            short events = (c->heard_fin ? 0 : POLLIN) | (c->out_len ? POLLOUT : 0);
            polled[i + 1] = (struct pollfd){c->fd, events, 0};
            if (c->state == LEAVING && timeout < 0)
                timeout = 500;
        }
        if (poll(polled, count + 1, timeout) < 0 && errno != EINTR) {
            perror("poll");
            return 1;
        }
        full = 0;
        size_t polled_count = count;
        if (polled[0].revents & POLLIN) {
            while (join(listener))
                ;
            full = errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM;
        }
        for (size_t i = 0; i < polled_count; i++) {
            struct client *c = clients[i];
            short events = polled[i + 1].revents;
            if (!events || c->state == GONE)
                continue;
            if (c->heard_fin && (events & (POLLERR | POLLHUP)))
                c->state = GONE;
            else if (!c->heard_fin && (events & (POLLIN | POLLERR | POLLHUP)))
                hear(c);
            for (size_t k = 0; k < count; k++)
                if (clients[k]->out_len || clients[k]->state == LEAVING)
                    flush(clients[k]);
        }
        sweep();
    }
}
