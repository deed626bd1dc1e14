/* fetch.c - Fetch requests over plain sockets, one thread and one request in flight a connection: readers that cost so
 * little that the server is what limits them. The partitions are dealt out to the connections; each request asks for
 * all of a connection's partitions that are not at their ends, --fetch-bytes of each.
 *
 * Every batch's header is read and held against the offset that must come next. The records behind it are dropped by
 * the kernel without being copied (MSG_TRUNC), but those of each 16th batch are read and their CRC is computed.
 * When all has been read before --seconds are over, it is read again from the beginning. */
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "libs/base/bytes.h"
#include "tests/bench/load/socket.h"

#define BUFFERED      512 /* that are read ahead; what was read is copied, so little */
#define BATCH_HEADER  61
#define BATCH_MAX     (64u << 20)
#define CHECKED_EVERY 16

struct fetcher {
    pthread_t thread;
    const struct load_options *options;
    struct load_result *result; /* its own */
    int fd;
    uint64_t count;      /* of its partitions */
    uint32_t *partition; /* those that are not at their ends come first; `reading` of them */
    int64_t *offset;
    uint64_t reading, batches, last_us, end_us;
    struct buf request, batch;
    size_t at, size, left; /* left: of the answer, what is buffered included */
    uint8_t buffer[BUFFERED];
};

static bool bad(struct fetcher *f, const char *what)
{
    load_fail(f->result, "Fetch: %s", what);
    return false;
}

static bool receive_all(struct fetcher *f, uint8_t *p, size_t n, int flags)
{
    while (n > 0) {
        ssize_t got = recv(f->fd, p, n, flags);
        if (got <= 0)
            return bad(f, got == 0 ? "closed by the server" : strerror(errno));
        if (p != NULL)
            p += got;
        n -= (size_t)got;
    }
    return true;
}

/* The next n bytes of the answer, at most BUFFERED; NULL, with an error noted, when it has fewer or the connection is
 * at its end. */
static const uint8_t *take(struct fetcher *f, size_t n)
{
    if (n > f->left) {
        bad(f, "the answer is too short for what it says");
        return NULL;
    }
    if (f->size - f->at < n) {
        memmove(f->buffer, f->buffer + f->at, f->size - f->at);
        f->size -= f->at;
        f->at = 0;
        while (f->size < n) {
            ssize_t got = recv(f->fd, f->buffer + f->size, MIN(sizeof f->buffer, f->left) - f->size, 0);
            if (got <= 0) {
                bad(f, got == 0 ? "closed by the server" : strerror(errno));
                return NULL;
            }
            f->size += (size_t)got;
        }
    }
    f->at += n;
    f->left -= n;
    return f->buffer + f->at - n;
}

/* Drops n bytes of the answer; or, with p, copies them there. */
static bool pass(struct fetcher *f, uint8_t *p, size_t n)
{
    size_t have = MIN(n, f->size - f->at);
    if (n > f->left)
        return bad(f, "the answer is too short for what it says");
    if (p != NULL)
        memcpy(p, f->buffer + f->at, have);
    f->at += have;
    f->left -= n;
    return receive_all(f, p == NULL ? NULL : p + have, n - have, p == NULL ? MSG_TRUNC : 0);
}

/* The rest of a batch of which the header has been read; its CRC covers all from the attributes on. */
static bool take_batch(struct fetcher *f, const uint8_t *header, size_t rest)
{
    if (f->batches++ % CHECKED_EVERY != 0)
        return pass(f, NULL, rest);
    uint32_t crc = get_u32(header + 17);
    f->batch.size = 0;
    buf_append(&f->batch, header + 21, BATCH_HEADER - 21);
    if (!pass(f, buf_grow(&f->batch, rest), rest))
        return false;
    return bytes_crc32c(0, f->batch.data, f->batch.size) == crc || bad(f, "wrong CRC");
}

/* The record bytes of one partition. An incomplete batch at their end is no error: Kafka cuts there. */
static bool take_records(struct fetcher *f, size_t size, int64_t *offset)
{
    while (size >= BATCH_HEADER) {
        const uint8_t *header = take(f, BATCH_HEADER);
        if (header == NULL)
            return false;
        size -= BATCH_HEADER;
        size_t rest = (size_t)get_u32(header + 8) + 12;
        if (rest < BATCH_HEADER || rest > BATCH_MAX || header[16] != 2)
            return bad(f, "not a batch");
        rest -= BATCH_HEADER;
        if (rest > size)
            break;
        uint64_t records = (uint64_t)get_u32(header + 23) + 1;
        if (get_i64(header) != *offset || get_u32(header + 57) != records)
            return bad(f, "not the batch that comes next");
        if (!take_batch(f, header, rest))
            return false;
        size -= rest;
        *offset += (int64_t)records;
        f->result->consumed += records;
        f->result->consumed_bytes += records * f->options->size;
    }
    return pass(f, NULL, size);
}

/* One partition of the answer. At its end the partition changes places with the last one that is being read. */
static bool take_partition(struct fetcher *f)
{
    const uint8_t *p = take(f, 4 + 2 + 8 + 8 + 8 + 4);
    if (p == NULL)
        return false;
    uint32_t partition = get_u32(p), aborted = get_u32(p + 30);
    unsigned error = get_u16(p + 4);
    int64_t high_watermark = get_i64(p + 6);
    uint64_t i = 0;
    while (i < f->reading && f->partition[i] != partition)
        i++;
    if (error != 0 || i == f->reading || (aborted != UINT32_MAX && aborted != 0)) {
        load_fail(f->result, "Fetch: partition %u, error %u", partition, error);
        return false;
    }
    if ((p = take(f, 8)) == NULL)
        return false;
    uint32_t size = get_u32(p + 4);
    if (size != UINT32_MAX && !take_records(f, size, &f->offset[i]))
        return false;
    if (f->offset[i] >= high_watermark) {
        uint64_t last = --f->reading;
        int64_t offset = f->offset[i];
        f->partition[i] = f->partition[last];
        f->offset[i] = f->offset[last];
        f->partition[last] = partition;
        f->offset[last] = offset;
    }
    return true;
}

static bool take_answer(struct fetcher *f)
{
    uint8_t head[4];
    if (!receive_all(f, head, 4, 0))
        return false;
    f->at = f->size = 0;
    f->left = get_u32(head);
    const uint8_t *p = take(f, 4 + 4 + 2 + 4 + 4 + 2);
    if (p == NULL)
        return false;
    unsigned error = get_u16(p + 8), name = get_u16(p + 18);
    if (error != 0 || get_u32(p + 14) != 1) {
        load_fail(f->result, "Fetch: error %u", error);
        return false;
    }
    if (!pass(f, NULL, name) || (p = take(f, 4)) == NULL)
        return false;
    for (uint32_t n = get_u32(p); n > 0; n--) {
        if (!take_partition(f))
            return false;
    }
    return f->left == 0 || bad(f, "more bytes than the answer says");
}

static bool ask(struct fetcher *f)
{
    uint64_t asked_us = load_now_us();
    fetch_request_make(&f->request, f->options, f->partition, f->offset, f->reading);
    if (send(f->fd, f->request.data, f->request.size, MSG_NOSIGNAL) != (ssize_t)f->request.size)
        return bad(f, "cannot send");
    if (!take_answer(f))
        return false;
    f->last_us = load_now_us();
    hist_note(&f->result->acked, f->last_us - asked_us);
    return true;
}

static void *fetcher_main(void *argument)
{
    struct fetcher *f = argument;
    do {
        memset(f->offset, 0, f->count * sizeof *f->offset);
        f->reading = f->count;
        while (f->reading > 0) {
            if (!ask(f) || (f->end_us > 0 && f->last_us >= f->end_us))
                return NULL;
        }
    } while (f->end_us > 0);
    return NULL;
}

static bool fetcher_open(struct fetcher *f, const struct sockaddr_in *address, uint64_t first)
{
    const struct load_options *o = f->options;
    f->result = xcalloc(1, sizeof *f->result);
    f->partition = xcalloc(o->partitions, sizeof *f->partition);
    f->offset = xcalloc(o->partitions, sizeof *f->offset);
    for (uint64_t p = first; p < o->partitions; p += o->connections)
        f->partition[f->count++] = (uint32_t)p;
    f->fd = socket_connect(address, f->result);
    return f->fd >= 0 && socket_greet(f->fd, o->topic, f->result);
}

static void collect(struct fetcher *f, uint64_t start_us, struct load_result *r)
{
    r->consumed += f->result->consumed;
    r->consumed_bytes += f->result->consumed_bytes;
    hist_add(&r->acked, &f->result->acked);
    if (f->last_us > start_us)
        r->consume_seconds = MAX(r->consume_seconds, (double)(f->last_us - start_us) / 1e6);
    for (uint64_t e = 0; e < f->result->errors; e++)
        load_fail(r, "%s", f->result->error);
    free(f->result);
    free(f->partition);
    free(f->offset);
    buf_free(&f->request);
    buf_free(&f->batch);
}

void fetch_run(const struct load_options *o, struct load_result *r)
{
    struct sockaddr_in address = socket_address(o->bootstrap);
    uint64_t connections = MIN(o->connections, o->partitions);
    struct fetcher *fetchers = xcalloc(connections, sizeof *fetchers);
    bool good = true;
    for (uint64_t i = 0; i < connections; i++) {
        fetchers[i].options = o;
        good = fetcher_open(&fetchers[i], &address, i) && good;
    }
    uint64_t start_us = load_now_us();
    for (uint64_t i = 0; good && i < connections; i++) {
        fetchers[i].end_us = o->seconds > 0 ? start_us + (uint64_t)(o->seconds * 1e6) : 0;
        if (pthread_create(&fetchers[i].thread, NULL, fetcher_main, &fetchers[i]) != 0)
            BUG("no thread");
    }
    for (uint64_t i = 0; i < connections; i++) {
        if (good)
            pthread_join(fetchers[i].thread, NULL);
        collect(&fetchers[i], start_us, r);
    }
    free(fetchers);
    r->seconds = r->consume_seconds;
    if (r->consumed == 0)
        load_fail(r, "%s", "Fetch: no record");
}
