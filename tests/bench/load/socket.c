#include "tests/bench/load/socket.h"

#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "libs/base/bytes.h"

#define ANSWER_MAX (16 << 20)

struct sockaddr_in socket_address(const char *bootstrap)
{
    char host[256];
    const char *colon = strrchr(bootstrap, ':');
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found;
    if (colon != NULL && (size_t)(colon - bootstrap) < sizeof host) {
        memcpy(host, bootstrap, (size_t)(colon - bootstrap));
        host[colon - bootstrap] = 0;
        if (getaddrinfo(host, colon + 1, &hints, &found) == 0) {
            struct sockaddr_in address;
            memcpy(&address, found->ai_addr, sizeof address);
            freeaddrinfo(found);
            return address;
        }
    }
    fprintf(stderr, "karst-load: --bootstrap %s: no address\n", bootstrap);
    exit(64);
}

int socket_connect(const struct sockaddr_in *address, struct load_result *r)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), yes = 1;
    struct timeval patience = {.tv_sec = 30};
    if (fd < 0 || connect(fd, (const struct sockaddr *)address, sizeof *address) != 0) {
        load_fail(r, "connecting: %s", strerror(errno));
        if (fd >= 0)
            close(fd);
        return -1;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    return fd;
}

static void append_u16(struct buf *b, unsigned v)
{
    put_u16(buf_grow(b, 2), (uint16_t)v);
}
static void append_u32(struct buf *b, uint32_t v)
{
    put_u32(buf_grow(b, 4), v);
}
static void append_u64(struct buf *b, uint64_t v)
{
    put_u64(buf_grow(b, 8), v);
}
static void append_byte(struct buf *b, unsigned v)
{
    *buf_grow(b, 1) = (uint8_t)v;
}
static void append_uvarint(struct buf *b, uint64_t v)
{
    uint8_t bytes[10];
    buf_append(b, bytes, put_uvarint64(bytes, v));
}
static void append_varint(struct buf *b, int64_t v)
{
    uint8_t bytes[10];
    buf_append(b, bytes, put_varint64(bytes, v));
}

/* Length, and request header version 1: key, version, correlation id, client id. The length is set by end_request. */
static void begin_request(struct buf *b, unsigned key, unsigned version)
{
    append_u32(b, 0);
    append_u16(b, key);
    append_u16(b, version);
    append_u32(b, 1);
    append_u16(b, 10);
    buf_append(b, "karst-load", 10);
}

static void end_request(struct buf *b)
{
    put_u32(b->data, (uint32_t)(b->size - 4));
}

static bool receive(int fd, uint8_t *p, size_t n)
{
    while (n > 0) {
        ssize_t got = recv(fd, p, n, 0);
        if (got <= 0)
            return false;
        p += got;
        n -= (size_t)got;
    }
    return true;
}

static bool ask(int fd, const struct buf *request, const char *what, struct load_result *r)
{
    uint8_t head[4], rest[4096];
    if (send(fd, request->data, request->size, 0) != (ssize_t)request->size || !receive(fd, head, 4)) {
        load_fail(r, "%s: %s", what, "no answer");
        return false;
    }
    uint32_t size = get_u32(head);
    if (size < 4 || size > ANSWER_MAX) {
        load_fail(r, "%s: an answer of %u bytes", what, size);
        return false;
    }
    while (size > 0) {
        size_t n = MIN(size, (uint32_t)sizeof rest);
        if (!receive(fd, rest, n)) {
            load_fail(r, "%s: the answer is cut short", what);
            return false;
        }
        size -= (uint32_t)n;
    }
    return true;
}

bool socket_greet(int fd, const char *topic, struct load_result *r)
{
    struct buf b = {0};
    begin_request(&b, 18, 0);
    end_request(&b);
    bool good = ask(fd, &b, "ApiVersions", r);
    b.size = 0;
    begin_request(&b, 3, 1);
    append_u32(&b, topic == NULL ? 0 : 1);
    if (topic != NULL) {
        append_u16(&b, (unsigned)strlen(topic));
        buf_append(&b, topic, strlen(topic));
    }
    end_request(&b);
    good = good && ask(fd, &b, "Metadata", r);
    buf_free(&b);
    return good;
}

static void append_record(struct buf *b, const uint8_t *value, size_t size, uint64_t delta)
{
    struct buf body = {0};
    append_byte(&body, 0);                /* attributes */
    append_varint(&body, 0);              /* time delta */
    append_varint(&body, (int64_t)delta); /* offset delta */
    append_varint(&body, -1);             /* no key */
    append_varint(&body, (int64_t)size);
    buf_append(&body, value, size);
    append_varint(&body, 0); /* headers */
    append_varint(b, (int64_t)body.size);
    buf_append(b, body.data, body.size);
    buf_free(&body);
}

/* A record batch of magic 2, no compression, no producer id. */
static void make_batch(const struct load_options *o, struct buf *b)
{
    const uint8_t *payload = payload_make(o->compressible, o->size);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t now_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
    append_u64(b, 0); /* base offset */
    append_u32(b, 0); /* length, set below */
    append_u32(b, UINT32_MAX);
    append_byte(b, 2);
    append_u32(b, 0); /* CRC, set below */
    append_u16(b, 0);
    append_u32(b, (uint32_t)(o->batch_records - 1));
    append_u64(b, now_ms);
    append_u64(b, now_ms);
    append_u64(b, UINT64_MAX);
    append_u16(b, UINT16_MAX);
    append_u32(b, UINT32_MAX);
    append_u32(b, (uint32_t)o->batch_records);
    for (uint64_t i = 0; i < o->batch_records; i++)
        append_record(b, payload_at(payload, o->size, i), o->size, i);
    put_u32(b->data + 8, (uint32_t)(b->size - 12));
    put_u32(b->data + 17, bytes_crc32c(0, b->data + 21, b->size - 21));
}

void produce_frame_make(const struct load_options *o, struct produce_frame *ret_frame)
{
    struct buf batch = {0}, *b = &ret_frame->bytes;
    make_batch(o, &batch);
    *b = (struct buf){0};
    begin_request(b, 0, 9);
    ret_frame->correlation_at = 8;
    append_byte(b, 0); /* header's tags */
    append_byte(b, 0); /* no transactional id */
    append_u16(b, strcmp(o->acks, "all") == 0 ? UINT16_MAX : 1);
    append_u32(b, 30000);
    append_uvarint(b, 2);
    append_uvarint(b, strlen(o->topic) + 1);
    buf_append(b, o->topic, strlen(o->topic));
    append_uvarint(b, 2);
    ret_frame->partition_at = b->size;
    append_u32(b, 0);
    ret_frame->head_size = b->size;
    append_uvarint(b, batch.size + 1);
    buf_append(b, batch.data, batch.size);
    append_byte(b, 0); /* tags of the partition, the topic, the request */
    append_byte(b, 0);
    append_byte(b, 0);
    end_request(b);
    buf_free(&batch);
}

void fetch_request_make(struct buf *b, const struct load_options *o, const uint32_t *partitions, const int64_t *offsets,
                        uint64_t count)
{
    b->size = 0;
    begin_request(b, 1, 11);
    append_u32(b, UINT32_MAX); /* not a replica */
    append_u32(b, 500);        /* ms to wait */
    append_u32(b, 1);          /* bytes to wait for */
    append_u32(b, (uint32_t)MIN(o->fetch_bytes * count, (uint64_t)INT32_MAX));
    append_byte(b, 0);
    append_u32(b, 0); /* no session */
    append_u32(b, UINT32_MAX);
    append_u32(b, 1);
    append_u16(b, (unsigned)strlen(o->topic));
    buf_append(b, o->topic, strlen(o->topic));
    append_u32(b, (uint32_t)count);
    for (uint64_t i = 0; i < count; i++) {
        append_u32(b, partitions[i]);
        append_u32(b, UINT32_MAX); /* any leader epoch */
        append_u64(b, (uint64_t)offsets[i]);
        append_u64(b, UINT64_MAX); /* log start: only replicas say it */
        append_u32(b, (uint32_t)o->fetch_bytes);
    }
    append_u32(b, 0); /* nothing to forget */
    append_u16(b, 0); /* no rack */
    end_request(b);
}

int produce_answer_error(const uint8_t *p, size_t size, int32_t *ret_correlation)
{
    const uint8_t *end = p + size;
    uint64_t n;
    if (size < 8)
        return -1;
    *ret_correlation = get_i32(p);
    p += 5; /* and no tags in the header */
    size_t took = get_uvarint64(p, end, &n);
    if (took == 0 || n != 2)
        return -1;
    p += took;
    took = get_uvarint64(p, end, &n);
    if (took == 0 || n == 0 || n > (uint64_t)(end - p))
        return -1;
    p += took + n - 1;
    if (p >= end || (took = get_uvarint64(p, end, &n)) == 0 || n != 2)
        return -1;
    p += took;
    return end - p < 6 ? -1 : get_u16(p + 4);
}
