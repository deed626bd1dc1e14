/* idle.c - connections that ask for versions and metadata and then stay silent. When all are there, "ready" goes to
 * stderr; the result comes when the time is over or SIGTERM arrives. A connection that the server closed meanwhile is
 * an error. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/bench/load/socket.h"

static void wait_for_end(double seconds)
{
    sigset_t ends;
    struct timespec patience = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    sigprocmask(SIG_BLOCK, &ends, NULL);
    fputs("ready\n", stderr);
    sigtimedwait(&ends, NULL, &patience);
}

void idle_run(const struct load_options *o, struct load_result *r)
{
    struct sockaddr_in address = socket_address(o->bootstrap);
    int *fds = xcalloc(o->connections, sizeof *fds);
    uint64_t start_us = load_now_us(), open = 0;
    while (open < o->connections && (fds[open] = socket_connect(&address, r)) >= 0 &&
           socket_greet(fds[open], o->topic, r))
        open++;
    r->seconds = (double)(load_now_us() - start_us) / 1e6;
    wait_for_end(o->seconds);
    for (uint64_t i = 0; i < open; i++) {
        char byte;
        if (recv(fds[i], &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN)
            r->records++;
        else
            load_fail(r, "connection %lu was closed", i);
    }
    free(fds);
}
