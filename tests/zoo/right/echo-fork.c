// contract: echo
// language: C
// packages: gcc libc6-dev
// build: gcc -O2 -Wall -o {out} {file}
// start: {out} {host} {port}
//
// A child for each client; the parent only accepts, and takes leave of the children that have ended.
#include <errno.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void children_ended(int number) {
    (void)number;
    int before = errno; // of whatever we have interrupted
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ; // several children may have ended, and one signal came
    errno = before;
}

static void echo(int client) {
    char buffer[16384];
    for (;;) {
        ssize_t got = recv(client, buffer, sizeof buffer, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return; // FIN: all is sent already; an error: nobody is there any more
        for (ssize_t sent = 0; sent < got;) {
            ssize_t n = send(client, buffer + sent, got - sent, 0);
            if (n < 0 && errno == EINTR)
                continue;
            if (n < 0)
                return;
            sent += n;
        }
    }
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: %s HOST PORT\n", argv[0]);
        return 2;
    }
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *where;
    int problem = getaddrinfo(argv[1], argv[2], &hints, &where);
    if (problem) {
        fprintf(stderr, "%s: %s\n", argv[1], gai_strerror(problem));
        return 1;
    }
    signal(SIGPIPE, SIG_IGN);
    struct sigaction action = {.sa_handler = children_ended, .sa_flags = SA_RESTART | SA_NOCLDSTOP};
    sigemptyset(&action.sa_mask);
    sigaction(SIGCHLD, &action, NULL);

    int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, where->ai_addr, where->ai_addrlen) || listen(listener, 1024)) {
        perror("cannot listen");
        return 1;
    }
    freeaddrinfo(where);
    for (;;) {
        int client = accept(listener, NULL, NULL);
        if (client < 0) {
            if (errno != EINTR && errno != ECONNABORTED)
                usleep(50000); // no descriptor is free, mostly
            continue;
        }
        pid_t parent = getpid(), child = fork();
        if (child == 0) {
            close(listener);
            prctl(PR_SET_PDEATHSIG, SIGTERM); // without us nobody would look after it
            if (getppid() == parent)
                echo(client);
            _exit(0);
        }
        if (child < 0)
            perror("fork");
        close(client);
    }
}
