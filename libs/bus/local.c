/* local.c - the life of a local connection from its handshake on: bytes in and out, bells, and its end. */
#include "libs/bus/local.h"

#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <utlist.h>

#include "libs/base/log.h"
#include "libs/bus/passing.h"

enum {
    TURN_MESSAGES = 64,   /* that one connection gives in a turn */
    TURN_BYTES = 4 << 20, /* that one connection gives, and takes, in a turn */
};

/* ---- making ---- */

static void on_companion(void *ctx, int events)
{
    struct local *l = ctx;

    (void)events;
    l->has_notes = true;
}

struct local *local_new(struct bus *b, int companion)
{
    struct local *l = xcalloc(1, sizeof *l);

    l->bus = b;
    l->companion = companion;
    l->bell = l->peer_bell = -1;
    l->since_ms = loop_now_ms(b->loop);
    l->companion_poll = loop_poll_start(b->loop, companion, LOOP_READABLE, on_companion, l);
    DL_APPEND(b->locals->all, l);
    return l;
}

void local_name(struct local *l, uint64_t conn)
{
    l->conn = conn;
    HASH_ADD(hh, l->bus->locals->by_conn, conn, sizeof l->conn, l);
}

struct local *local_find(struct bus *b, uint64_t conn)
{
    struct local *l = NULL;

    if (b->locals != NULL)
        HASH_FIND(hh, b->locals->by_conn, &conn, sizeof conn, l);
    return l != NULL && l->state != LOCAL_CLOSED ? l : NULL;
}

static bool take_flag(bool *flag)
{
    bool was = *flag;

    *flag = false;
    return was;
}

static bool is_served(const struct local *l)
{
    return l->conn & LINK_CONN_SERVED;
}

int local_map(struct local *l, int fd, const struct local_hello *h, bool served)
{
    size_t size = LOCAL_HEADER_BYTES + (size_t)h->to_served + h->to_caller;

    if (!passing_is_memory(fd, size))
        return -EBADMSG;
    void *area = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (area == MAP_FAILED)
        return -errno;
    struct ring_shared *positions = area;
    uint8_t *to_served = (uint8_t *)area + LOCAL_HEADER_BYTES, *to_caller = to_served + h->to_served;
    l->area = area;
    l->area_size = size;
    if (served) {
        ring_reader_init(&l->reader, &positions[0], to_served, h->to_served);
        ring_writer_init(&l->writer, &positions[1], to_caller, h->to_caller);
    } else {
        ring_writer_init(&l->writer, &positions[0], to_served, h->to_served);
        ring_reader_init(&l->reader, &positions[1], to_caller, h->to_caller);
    }
    return 0;
}

static void on_bell(void *ctx, int events)
{
    struct local *l = ctx;
    uint64_t times;

    (void)events;
    (void)!read(l->bell, &times, sizeof times); /* so that it is silent again */
    l->rang = true;
}

void local_watch(struct local *l)
{
    l->bell_poll = loop_poll_start(l->bus->loop, l->bell, LOOP_READABLE, on_bell, l);
    loop_again(l->bus->loop); /* it is awake: what came meanwhile rang no bell */
}

static void ring_bell(struct local *l)
{
    static const uint64_t once = 1;

    (void)!write(l->peer_bell, &once, sizeof once); /* a full counter is heard as well */
}

/* ---- out ---- */

/* A peer that has hung up reads no more. Another one that we called may still read our arena: we say that we are
 * through and wait for his end, if the core wants something held (LINK_HOLD). */
static void end(struct local *l)
{
    if (l->hung_up || is_served(l)) {
        l->state = LOCAL_CLOSED;
        return;
    }
    l->state = LOCAL_ZOMBIE;
    shutdown(l->companion, SHUT_WR);
}

static void lost(struct local *l)
{
    end(l);
    link_lost(l->bus->core, l->conn);
}

static void broken(struct local *l, const char *why)
{
    log_warn("bus: a local connection ends: %s", why);
    lost(l);
}

/* As much as the peer's ring takes. 0: all is out, or the peer will ring when it has room; 1: there is more to do;
 * -EPROTO. */
static int put_out(struct local *l)
{
    for (uint64_t bytes = 0;; bytes += l->writer.capacity / 4) {
        int more = stream_flush(&l->out, &l->writer);
        if (more < 0)
            return more;
        if (ring_publish(&l->writer))
            ring_bell(l);
        if (!stream_is_pending(&l->out))
            return 0;
        if (bytes >= TURN_BYTES)
            return 1;
        if (more == 0) {
            more = ring_wait(&l->writer);
            if (more <= 0)
                return more;
        }
    }
}

/* false: it is over. */
static bool flush(struct local *l)
{
    if (l->writer.tail == l->writer.published && !stream_is_pending(&l->out))
        return true;
    int more = put_out(l);
    if (more < 0)
        broken(l, "the peer's position is impossible");
    else if (more > 0)
        loop_again(l->bus->loop);
    return more >= 0;
}

bool locals_flush(struct bus *b)
{
    struct local *l;
    bool ended = false;

    DL_FOREACH (b->locals->all, l)
        if (l->state == LOCAL_OPEN)
            ended |= !flush(l);
    return ended;
}

void local_send(struct local *l, const struct link_action *a)
{
    struct stream_message m = {a->head, a->tail, a->frames, a->frame_count};

    if (l->state != LOCAL_OPEN)
        link_lost(l->bus->core, a->conn);
    else if (stream_send(&l->out, &l->writer, &m) < 0)
        broken(l, "the peer's position is impossible");
}

static uint64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void linger(struct local *l, uint64_t until_ms)
{
    while (l->state == LOCAL_OPEN && put_out(l) >= 0 && stream_is_pending(&l->out)) {
        struct pollfd p[] = {{.fd = l->bell, .events = POLLIN}, {.fd = l->companion, .events = POLLIN}};
        uint64_t now = now_ms();
        if (now >= until_ms || poll(p, COUNTOF(p), (int)(until_ms - now)) <= 0 || (p[1].revents & (POLLHUP | POLLERR)))
            return;
        on_bell(l, 0);
    }
}

void locals_linger(struct bus *b, int ms)
{
    uint64_t until_ms = now_ms() + (uint64_t)ms;
    struct local *l;

    DL_FOREACH (b->locals->all, l)
        if (l->state == LOCAL_OPEN && stream_is_pending(&l->out))
            linger(l, until_ms);
}

/* ---- in ---- */

static void release(struct local *l, bool all)
{
    if ((all || l->reader.head - l->reader.released >= l->reader.capacity / 4) && ring_release(&l->reader))
        ring_bell(l);
}

/* What has come, as much of it as a turn takes. */
static void drain(struct local *l)
{
    uint64_t from = l->reader.head;
    struct stream_arrival a;
    size_t messages = 0;
    int got;

    do {
        got = stream_receive(&l->in, &l->reader, &a);
        release(l, false);
        if (got == STREAM_MESSAGE) {
            link_receive(l->bus->core, l->conn, a.frame0, a.frames, a.frame_count);
            messages++;
        }
    } while (got > STREAM_EMPTY && l->wrong == NULL && messages < TURN_MESSAGES && l->reader.head - from < TURN_BYTES);
    release(l, true);
    if (got < 0)
        l->wrong = got == -EPROTO ? "the peer's position is impossible" : "the peer's message passes the bounds";
    if (l->reader.head != from)
        local_files_dropped(l);
}

static bool receive_open(struct local *l)
{
    uint64_t there = 0;
    bool has_notes = take_flag(&l->has_notes);

    if (has_notes) {
        local_read_notes(l);
        local_files_dropped(l);
    }
    bool is_over = l->hung_up || l->ended;
    if (ring_available(&l->reader, &there) < 0)
        l->wrong = "the peer's position is impossible";
    if (l->rang || there > 0) {
        l->rang = false;
        ring_wake(&l->reader);
    }
    if (there > 0 && l->wrong == NULL)
        drain(l);
    if (l->wrong != NULL)
        broken(l, l->wrong);
    else if (is_over && there == 0)
        lost(l);
    else if (l->hung_up || l->ended) /* the core acts on what was read before it hears that this was all */
        loop_again(l->bus->loop);
    return has_notes || there > 0 || is_over || l->wrong != NULL;
}

bool local_receive(struct local *l)
{
    bool has_notes = false;

    switch (l->state) {
    case LOCAL_ACCEPTED:
        has_notes = take_flag(&l->has_notes);
        if (has_notes)
            local_read_hello(l);
        break;
    case LOCAL_ASKED:
        has_notes = take_flag(&l->has_notes);
        if (has_notes)
            local_read_answer(l);
        break;
    case LOCAL_OPEN: return receive_open(l);
    case LOCAL_ZOMBIE:
        has_notes = take_flag(&l->has_notes);
        if (has_notes)
            local_read_notes(l);
        if (l->hung_up)
            l->state = LOCAL_CLOSED;
        break;
    case LOCAL_CLOSED: break;
    }
    return has_notes;
}

/* Whether the connection may sleep through a poll that blocks. It goes to sleep as soon as nothing is there: one more
 * turn in case something comes costs more than the bell that it may save (measured). */
static bool settles(struct local *l)
{
    uint64_t there = 0;
    int failed = 0;

    if (l->reader.asleep)
        return true;
    failed = ring_available(&l->reader, &there);
    if (failed == 0 && there == 0) {
        int sleeps = ring_sleep(&l->reader);
        if (sleeps == 1)
            return true;
        failed = MIN(sleeps, 0);
    }
    if (failed < 0)
        l->wrong = "the peer's position is impossible"; /* the next turn ends it */
    return false;
}

void locals_wake(struct bus *b)
{
    struct local *l;

    DL_FOREACH (b->locals->all, l)
        if (l->state == LOCAL_OPEN)
            ring_wake(&l->reader);
}

void locals_end_turn(struct bus *b)
{
    struct local *l;

    DL_FOREACH (b->locals->all, l) {
        if (l->state != LOCAL_OPEN)
            continue;
        if (l->files_leave && is_served(l))
            local_files_leave(l);
        if (!settles(l))
            loop_again(b->loop);
    }
}

/* ---- the end ---- */

void local_hold(struct local *l, const struct ref *frames, size_t count)
{
    l->held = xrealloc(l->held, (l->held_count + count) * sizeof *l->held);
    for (size_t i = 0; i < count; i++) {
        ref_retain(&frames[i]);
        l->held[l->held_count++] = frames[i];
    }
}

void local_close(struct local *l)
{
    switch (l->state) {
    case LOCAL_ACCEPTED:
        l->bus->locals->half_open--;
        l->bus->locals->served--;
        l->state = LOCAL_CLOSED;
        break;
    case LOCAL_ASKED: l->state = LOCAL_CLOSED; break;
    case LOCAL_OPEN:
        (void)!put_out(l); /* what has no room now is of a session that has ended */
        end(l);
        break;
    case LOCAL_ZOMBIE:
    case LOCAL_CLOSED: break;
    }
}

static void local_free(struct local *l)
{
    struct locals *ls = l->bus->locals;

    DL_DELETE(ls->all, l);
    if (l->conn != 0)
        HASH_DELETE(hh, ls->by_conn, l);
    ls->served -= is_served(l);
    loop_poll_stop(l->companion_poll);
    loop_poll_stop(l->bell_poll);
    stream_out_clear(&l->out);
    stream_in_clear(&l->in);
    local_files_clear(l);
    if (l->view == NULL || !local_view_leave(l))
        close(l->companion);
    if (l->bell >= 0)
        close(l->bell);
    if (l->peer_bell >= 0)
        close(l->peer_bell);
    if (l->area != NULL)
        munmap(l->area, l->area_size);
    for (size_t i = 0; i < l->held_count; i++)
        ref_release(&l->held[i]);
    free(l->held);
    free(l->address);
    free(l);
}

/* After the core's last word on connections that have ended (LINK_HOLD): those that hold nothing end for good. */
void locals_sweep(struct bus *b)
{
    struct local *l, *next;

    DL_FOREACH_SAFE(b->locals->all, l, next)
    {
        if (l->state == LOCAL_CLOSED || (l->state == LOCAL_ZOMBIE && l->held_count == 0))
            local_free(l);
    }
}
