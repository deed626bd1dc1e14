/* wire.c - Produce requests that were made beforehand, over plain sockets, by one thread: thousands of producers, or
 * more requests a second than librdkafka can send. The open loop hands each due request to the next connection that has
 * room for one more in flight; with rate 0 every connection always has --depth in flight.
 *
 * A request is one record due: with --batch-records N, --rate counts records, and all N of a batch are due together.
 * Answers come in the order of requests; each connection remembers when its own were due, in a ring.
 *
 * All requests but their heads are the same. Large ones are never copied here: the head is sent, and then the rest from
 * a file in memory with sendfile, so that the client's part of the processor stays small beside the server's. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include "libs/base/bytes.h"
#include "tests/bench/load/socket.h"

#define LARGE_BYTES (16 << 10) /* requests from here on are not copied */
#define IN_BYTES    4096       /* an answer fits many times */
#define DRAIN_S     30
#define EVENTS      256
/* epoll_pwait2 is newer than the C library here: the last milliseconds are waited for by polling. */
#define SPIN_US 2000

struct asked {
    uint64_t due_us;
    uint32_t correlation;
};

struct connection {
    int fd;
    uint32_t in_flight, ring_at;
    bool broken, blocked, queued; /* blocked: waits for room in the socket; queued: this turn must send its output */
    struct buf out;               /* heads of requests that are not sent; small requests have nothing behind them */
    uint64_t unsent;              /* large requests, the first of which has sent_bytes of itself sent */
    size_t sent_bytes, in_size;
    uint8_t in[IN_BYTES];
    struct asked *asked; /* --depth of them, a ring from ring_at on */
};

struct wire {
    const struct load_options *options;
    struct load_result *result;
    struct connection *connections;
    struct produce_frame frame;
    size_t head_size; /* of a request, the part of its own: all of a small one */
    int rest;         /* the file of what is behind it */
    bool all_full;    /* at the last handing out: no connection had room for what was due */
    struct schedule schedule;
    uint32_t *queued; /* connections with output */
    uint64_t queued_count, next, in_flight, sent, broken, last_us;
    int epoll;
};

static void watch(struct wire *w, uint64_t i, uint32_t events, int operation)
{
    struct epoll_event e = {.events = events, .data.u64 = i};
    if (epoll_ctl(w->epoll, operation, w->connections[i].fd, &e) != 0)
        BUG("epoll_ctl");
}

static void connection_break(struct wire *w, uint64_t i, const char *why)
{
    struct connection *c = &w->connections[i];
    if (c->broken)
        return;
    load_fail(w->result, "connection %lu: %s", i, why);
    watch(w, i, 0, EPOLL_CTL_DEL);
    w->in_flight -= c->in_flight;
    c->in_flight = 0;
    c->broken = true;
    w->broken++;
}

static bool has_room(const struct wire *w, const struct connection *c)
{
    return !c->broken && c->in_flight < w->options->depth;
}

static void put_request(struct wire *w, uint64_t i, uint64_t due_us)
{
    struct connection *c = &w->connections[i];
    uint8_t *p = buf_grow(&c->out, w->head_size);
    memcpy(p, w->frame.bytes.data, w->head_size);
    put_u32(p + w->frame.correlation_at, (uint32_t)w->sent);
    put_u32(p + w->frame.partition_at, (uint32_t)(w->sent % w->options->partitions));
    c->asked[(c->ring_at + c->in_flight) % w->options->depth] = (struct asked){due_us, (uint32_t)w->sent};
    c->in_flight++;
    c->unsent++;
    w->in_flight++;
    w->sent++;
    if (!c->queued) {
        c->queued = true;
        w->queued[w->queued_count++] = (uint32_t)i;
    }
}

/* Hands out what is due, to the connections in turn. Returns when the next is due: not after now_us when all
 * connections are full. */
static uint64_t hand_out(struct wire *w, uint64_t now_us)
{
    uint64_t due_us, full = 0;
    while (schedule_next(&w->schedule, now_us, &due_us) && full < w->options->connections) {
        uint64_t i = w->next++ % w->options->connections;
        if (!has_room(w, &w->connections[i])) {
            full++;
            continue;
        }
        full = 0;
        put_request(w, i, due_us);
        schedule_take(&w->schedule);
    }
    w->all_full = full >= w->options->connections;
    return due_us;
}

static int send_small(struct connection *c)
{
    ssize_t n = send(c->fd, c->out.data, c->out.size, MSG_NOSIGNAL);
    if (n < 0)
        return -errno;
    buf_consume(&c->out, (size_t)n);
    return 0;
}

static int send_large(struct wire *w, struct connection *c)
{
    while (c->unsent > 0) {
        size_t head = c->sent_bytes < w->head_size ? w->head_size - c->sent_bytes : 0;
        off_t at = (off_t)c->sent_bytes;
        ssize_t n = head > 0 ? send(c->fd, c->out.data, head, MSG_NOSIGNAL | MSG_MORE)
                             : sendfile(c->fd, w->rest, &at, w->frame.bytes.size - c->sent_bytes);
        if (n < 0)
            return -errno;
        if (head > 0)
            buf_consume(&c->out, (size_t)n);
        c->sent_bytes += (size_t)n;
        if (c->sent_bytes == w->frame.bytes.size) {
            c->sent_bytes = 0;
            c->unsent--;
        }
    }
    return 0;
}

static void send_out(struct wire *w, uint64_t i)
{
    struct connection *c = &w->connections[i];
    if (c->broken || c->unsent == 0)
        return;
    int err = w->rest >= 0 ? send_large(w, c) : send_small(c);
    if (err != 0 && err != -EAGAIN) {
        connection_break(w, i, strerror(-err));
        return;
    }
    if (w->rest < 0 && c->out.size == 0)
        c->unsent = 0;
    if ((c->unsent > 0) != c->blocked) {
        c->blocked = c->unsent > 0;
        watch(w, i, c->blocked ? EPOLLIN | EPOLLOUT : EPOLLIN, EPOLL_CTL_MOD);
    }
}

static void send_queued(struct wire *w)
{
    for (uint64_t k = 0; k < w->queued_count; k++) {
        w->connections[w->queued[k]].queued = false;
        send_out(w, w->queued[k]);
    }
    w->queued_count = 0;
}

static void take_answer(struct wire *w, struct connection *c, const uint8_t *p, size_t size, uint64_t now_us)
{
    int32_t correlation;
    int error = produce_answer_error(p, size, &correlation);
    struct asked asked = c->asked[c->ring_at];
    c->ring_at = (c->ring_at + 1) % (uint32_t)w->options->depth;
    c->in_flight--;
    w->in_flight--;
    w->last_us = now_us;
    if (error != 0 || correlation != (int32_t)asked.correlation) {
        load_fail(w->result, "Produce: error %d, or the answer to another request", error);
        return;
    }
    hist_note(&w->result->acked, now_us > asked.due_us ? now_us - asked.due_us : 0);
    w->result->records += w->options->batch_records;
    w->result->bytes += w->options->batch_records * w->options->size;
}

static void take_input(struct wire *w, uint64_t i)
{
    struct connection *c = &w->connections[i];
    ssize_t n = recv(c->fd, c->in + c->in_size, IN_BYTES - c->in_size, MSG_DONTWAIT);
    if (n <= 0) {
        if (n == 0 || errno != EAGAIN)
            connection_break(w, i, n == 0 ? "closed by the server" : strerror(errno));
        return;
    }
    uint64_t now_us = load_now_us();
    size_t at = 0;
    c->in_size += (size_t)n;
    while (c->in_size - at >= 4) {
        size_t size = get_u32(c->in + at);
        if (size > IN_BYTES - 4 || (c->in_size - at >= 4 + size && c->in_flight == 0)) {
            connection_break(w, i, "an answer that nothing asked for");
            return;
        }
        if (c->in_size - at < 4 + size)
            break;
        take_answer(w, c, c->in + at + 4, size, now_us);
        at += 4 + size;
    }
    memmove(c->in, c->in + at, c->in_size - at);
    c->in_size -= at;
}

/* Waits for sockets until the next request is due; precise to a few µs, since epoll only knows milliseconds. */
static void wait_for_sockets(struct wire *w, uint64_t due_us)
{
    struct epoll_event events[EVENTS];
    uint64_t now_us = load_now_us();
    int wait_ms = 100, n;
    if (w->all_full && w->options->rate > 0)
        due_us = UINT64_MAX; /* an answer comes first */
    if (due_us != UINT64_MAX && w->options->rate > 0)
        wait_ms = due_us > now_us + SPIN_US ? (int)((due_us - now_us) / 1000 - 1) : 0;
    n = epoll_wait(w->epoll, events, EVENTS, wait_ms);
    if (n == 0 && wait_ms == 0 && due_us != UINT64_MAX)
        load_sleep_until(MIN(due_us, now_us + 30));
    for (int k = 0; k < n; k++) {
        uint64_t i = events[k].data.u64;
        if ((events[k].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0 && !w->connections[i].broken)
            take_input(w, i);
        if ((events[k].events & EPOLLOUT) != 0)
            send_out(w, i);
    }
}

static bool connect_all(struct wire *w)
{
    struct sockaddr_in address = socket_address(w->options->bootstrap);
    w->epoll = epoll_create1(EPOLL_CLOEXEC);
    for (uint64_t i = 0; i < w->options->connections; i++) {
        struct connection *c = &w->connections[i];
        if ((c->fd = socket_connect(&address, w->result)) < 0 || !socket_greet(c->fd, w->options->topic, w->result))
            return false;
        fcntl(c->fd, F_SETFL, O_NONBLOCK);
        c->asked = xcalloc(w->options->depth, sizeof *c->asked);
        watch(w, i, EPOLLIN, EPOLL_CTL_ADD);
    }
    return true;
}

/* The request; in a file, too, when it is large. */
static void make_request(struct wire *w)
{
    const struct buf *b = &w->frame.bytes;
    produce_frame_make(w->options, &w->frame);
    w->head_size = b->size;
    w->rest = -1;
    if (b->size < LARGE_BYTES)
        return;
    w->head_size = w->frame.head_size;
    w->rest = memfd_create("request", MFD_CLOEXEC);
    if (w->rest < 0 || write(w->rest, b->data, b->size) != (ssize_t)b->size)
        BUG("no file in memory");
}

void wire_run(const struct load_options *o, struct load_result *r)
{
    struct wire w = {.options = o, .result = r};
    w.connections = xcalloc(o->connections, sizeof *w.connections);
    w.queued = xcalloc(o->connections, sizeof *w.queued);
    make_request(&w);
    if (!connect_all(&w))
        return;
    uint64_t start_us = w.last_us = load_now_us(), batches = (o->records + o->batch_records - 1) / o->batch_records,
             due_us = 0, ended_us = 0;
    schedule_begin(&w.schedule, start_us, o->seconds, o->rate / (double)o->batch_records, batches);
    while ((due_us != UINT64_MAX || w.in_flight > 0) && w.broken < o->connections) {
        due_us = hand_out(&w, load_now_us());
        send_queued(&w);
        wait_for_sockets(&w, due_us);
        if (due_us != UINT64_MAX)
            ended_us = load_now_us();
        else if (load_now_us() - ended_us > DRAIN_S * 1000000) {
            load_fail(r, "%lu requests without an answer", w.in_flight);
            break;
        }
    }
    r->seconds = (double)(w.last_us - start_us) / 1e6;
}
