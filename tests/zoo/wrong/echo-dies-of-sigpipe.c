// fault: a client that is gone in the middle of a transfer ends the whole server
// contract: echo
// caught by: rst-in-the-middle-of-a-transfer
// cause: … ended in the middle of the play: SIGPIPE: it sent to a client that was gone, and the signal ends the process unless it is ignored
// lesson: writing to a connection that is gone raises SIGPIPE, which ends the process: ignore the signal, or send with MSG_NOSIGNAL
#include <arpa/inet.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static void send_all(int fd, const char *data, size_t left) {
    while (left > 0) {
        ssize_t sent = send(fd, data, left, 0);  // the fault: no MSG_NOSIGNAL, and SIGPIPE is not ignored
        if (sent < 0) return;  // recv() will say so, too
        data += sent;
        left -= sent;
    }
}

static void *serve(void *arg) {
    int fd = (int)(intptr_t)arg;
    char buf[4096];
    ssize_t n;
    while ((n = recv(fd, buf, sizeof buf, 0)) > 0)
        send_all(fd, buf, n);
    close(fd);
    return NULL;
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
    inet_pton(AF_INET, argv[1], &addr.sin_addr);
    int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&addr, sizeof addr) || listen(listener, 128)) return 1;
    for (;;) {
        pthread_t thread;
        int fd = accept(listener, NULL, NULL);
        if (fd < 0) continue;
        if (pthread_create(&thread, NULL, serve, (void *)(intptr_t)fd)) close(fd);
        else pthread_detach(thread);
    }
}
