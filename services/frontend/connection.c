/* connection.c - clients' sockets: bytes in and out of the pipeline. Kept apart from it so that the pipeline has no
 * I/O. */
#include "services/frontend/server.h"

#include "libs/base/log.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    READS_PER_EVENT = 4,
    VECTORS = 64,
    WRITE_PER_TURN_BYTES = 8 << 20 /* to one client, so that others get their turn */
};

static struct connection *find(const struct frontend *f, uint64_t id)
{
    struct connection *c = by_slot_get(&f->connections, id);

    return c != NULL && c->id == id ? c : NULL;
}

static void close_connection(struct connection *c)
{
    struct frontend *f = c->frontend;

    loop_poll_stop(c->poll);
    close(c->fd);
    pipeline_close(f->pipeline, c->id);
    by_slot_set(&f->connections, c->id, NULL);
    requests_report_gone(f);
    free(c);
    if (f->accept_timer == NULL && !pipeline_is_full(f->pipeline))
        listeners_resume(f);
}

/* Each change is a system call of the loop's next poll. */
static void watch(struct connection *c, int events)
{
    if (c->events == events)
        return;
    c->events = events;
    loop_poll_events(c->poll, events);
}

/* ---- reading ---- */

static void on_readable(struct connection *c)
{
    struct frontend *f = c->frontend;

    for (int i = 0; i < READS_PER_EVENT; i++) {
        struct iovec room[2];
        int n = pipeline_input(f->pipeline, c->id, room);
        if (n == 0) {
            /* Only now: most clients that have enough under way send no more before an answer is there. */
            watch(c, c->events & ~LOOP_READABLE);
            return;
        }
        ssize_t got = readv(c->fd, room, n);
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (got <= 0) {
            close_connection(c);
            return;
        }
        pipeline_received(f->pipeline, c->id, (size_t)got, loop_now_ms(f->loop));
        size_t all = room[0].iov_len + (n > 1 ? room[1].iov_len : 0);
        if ((size_t)got < all)
            return;
    }
}

static void write_out(struct connection *c);

static void on_poll(void *ctx, int events)
{
    struct connection *c = ctx;

    if (events & LOOP_WRITABLE) {
        c->blocked = false;
        uint64_t id = c->id;
        struct frontend *f = c->frontend;
        write_out(c);
        if (find(f, id) != c)
            return;
    }
    if (events & LOOP_READABLE)
        on_readable(c);
}

void connection_open(struct frontend *f, const struct listener *l, int fd, const struct sockaddr_in6 *peer)
{
    uint64_t id;
    int64_t limit = -1;
    int one = 1;

    for (size_t i = 0; i < f->ip_limit_count; i++)
        if (memcmp(f->ip_limits[i].ip, &peer->sin6_addr, PIPELINE_IP_BYTES) == 0)
            limit = f->ip_limits[i].limit;
    if (pipeline_open(f->pipeline, peer->sin6_addr.s6_addr, limit, loop_now_ms(f->loop), &id) < 0) {
        close(fd);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    if (f->send_buffer_bytes > 0)
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &f->send_buffer_bytes, sizeof f->send_buffer_bytes);
    if (f->receive_buffer_bytes > 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &f->receive_buffer_bytes, sizeof f->receive_buffer_bytes);
    struct connection *c = xcalloc(1, sizeof *c);
    *c = (struct connection){.frontend = f, .id = id, .fd = fd, .events = LOOP_READABLE, .listener = l};
    if (IN6_IS_ADDR_V4MAPPED(&peer->sin6_addr))
        inet_ntop(AF_INET, &peer->sin6_addr.s6_addr[12], c->address, sizeof c->address);
    else
        inet_ntop(AF_INET6, &peer->sin6_addr, c->address, sizeof c->address);
    by_slot_set(&f->connections, id, c);
    c->poll = loop_poll_start(f->loop, fd, LOOP_READABLE, on_poll, c);
}

/* ---- writing ---- */

/* Sends what is next: the vectors, or else the file. How bytes get to a client is decided here alone. The bytes taken,
 * which may be fewer than *ret_asked, or -1. */
static ssize_t send_next(const struct connection *c, struct iovec *vectors, int n, const struct pipeline_file *file,
                         size_t *ret_asked)
{
    if (n == 0) {
        off_t at = (off_t)file->position;
        *ret_asked = MIN(file->size_bytes, (uint64_t)WRITE_PER_TURN_BYTES);
        ssize_t sent = sendfile(c->fd, file->fd, &at, *ret_asked); /* SIGPIPE is ignored (libs/service) */
        if (sent == 0)
            errno = ENODATA; /* the file is shorter than its owner said */
        return sent == 0 ? -1 : sent;
    }
    struct msghdr message = {.msg_iov = vectors, .msg_iovlen = (size_t)n};
    *ret_asked = 0;
    for (int i = 0; i < n; i++)
        *ret_asked += vectors[i].iov_len;
    return sendmsg(c->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT | (file->size_bytes > 0 ? MSG_MORE : 0));
}

/* c may be gone afterwards. */
static void write_out(struct connection *c)
{
    struct frontend *f = c->frontend;
    struct iovec vectors[VECTORS];
    struct pipeline_file file;
    size_t total = 0, asked;

    while (!c->blocked) {
        int n = pipeline_output(f->pipeline, c->id, vectors, VECTORS, &file);
        if (n == 0 && file.size_bytes == 0)
            break;
        ssize_t sent = send_next(c, vectors, n, &file, &asked);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno != EAGAIN) {
            log_debug("closing the connection of %s: cannot send %s: %s", c->address, n > 0 ? "bytes" : "a file",
                      strerror(errno));
            close_connection(c);
            return;
        }
        if (sent > 0)
            pipeline_written(f->pipeline, c->id, (size_t)sent, loop_now_ms(f->loop));
        total += sent > 0 ? (size_t)sent : 0;
        c->blocked = sent < 0 || (size_t)sent < asked || total >= WRITE_PER_TURN_BYTES;
    }
    watch(c, c->blocked ? c->events | LOOP_WRITABLE : c->events & ~LOOP_WRITABLE);
}

void connections_serve(struct frontend *f)
{
    struct pipeline_attention a;

    while (pipeline_attention(f->pipeline, &a)) {
        struct connection *c = find(f, a.conn);
        ASSERT(c != NULL);
        if (a.close) {
            if (a.reason != NULL)
                log_debug("closing the connection of %s: %s", c->address, a.reason);
            close_connection(c);
            continue;
        }
        if (a.read)
            watch(c, c->events | LOOP_READABLE);
        if (a.write)
            write_out(c);
    }
}

void connections_close(struct frontend *f)
{
    for (uint32_t i = 0; i < f->connections.size; i++)
        if (f->connections.items[i] != NULL)
            close_connection(f->connections.items[i]);
}
