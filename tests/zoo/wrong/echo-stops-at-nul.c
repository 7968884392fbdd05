// fault: it sends back what it received only up to the first NUL byte
// contract: echo
// caught by: what-is-sent-comes-back
// cause: it treats bytes as a C string: what stands behind a NUL is lost (strlen)
// lesson: it treats bytes as a C string: recv() says how many came, strlen() stops at the first NUL
#include <arpa/inet.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void serve(int fd) {
    char buf[4096];
    ssize_t n, k;
    while ((n = recv(fd, buf, sizeof buf - 1, 0)) > 0) {
        buf[n] = '\0';
        size_t len = strlen(buf);  // the fault: n is the length
        for (size_t done = 0; done < len; done += k)
            if ((k = send(fd, buf + done, len - done, MSG_NOSIGNAL)) < 0)
                return;
    }
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
    inet_pton(AF_INET, argv[1], &addr.sin_addr);
    int yes = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&addr, sizeof addr) < 0 || listen(listener, 128) < 0)
        return 1;
    signal(SIGCHLD, SIG_IGN);  // the kernel reaps the children
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0) continue;
        if (fork() == 0) {
            close(listener);
            serve(fd);
            _exit(0);
        }
        close(fd);
    }
}
