/* stress_ring.c - two threads, a ring and two bells: messages of all sizes come through whole and in order, and nobody
 * sleeps while there is work. A plain program, since it also runs under ThreadSanitizer. */
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "libs/bus/stream.h"

enum { CAPACITY = RING_CAPACITY_MIN, MESSAGES = 30000, SLEEP_MS = 20000 };

static struct ring_shared shared;
static uint8_t data[CAPACITY];
static int data_bell, room_bell;

static void ring_bell(int fd)
{
    uint64_t one = 1;

    if (write(fd, &one, sizeof one) != sizeof one)
        BUG("a bell that cannot be rung");
}

static void await(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    uint64_t n;

    if (poll(&p, 1, SLEEP_MS) != 1)
        BUG("nobody rings");
    if (read(fd, &n, sizeof n) != sizeof n)
        BUG("a bell without a sound");
}

static size_t size_of(uint32_t number)
{
    uint32_t h = number * 2654435761u;

    return h % 50 == 0 ? h % 20000 : h % 200;
}

static void flush(struct stream_out *o, struct ring_writer *w)
{
    for (;;) {
        int more = stream_flush(o, w);
        if (ring_publish(w))
            ring_bell(data_bell);
        if (more == 1)
            continue;
        if (!stream_is_pending(o))
            return;
        if (ring_wait(w) == 0)
            await(room_bell);
    }
}

static void *write_all(void *unused)
{
    struct ring_writer w;
    struct stream_out o = {0};

    ring_writer_init(&w, &shared, data, CAPACITY);
    for (uint32_t i = 0; i < MESSAGES; i++) {
        size_t size = size_of(i);
        uint8_t *bytes = xmalloc(size + 1);
        memset(bytes, (int)i, size);
        struct ref payload = ref_take(bytes, size);
        struct stream_message m = {slice_make(&i, sizeof i), SLICE_EMPTY, &payload, 1};
        if (stream_send(&o, &w, &m) < 0)
            BUG("the reader broke a rule");
        ref_release(&payload);
        if (i % 3 == 0 || stream_is_pending(&o))
            flush(&o, &w);
    }
    flush(&o, &w);
    return unused;
}

static void check(const struct stream_arrival *a, uint32_t number)
{
    uint32_t got;

    if (a->frame0.size != sizeof got || a->frame_count != 1 || a->frames[0].size_bytes != size_of(number))
        BUG("another message");
    memcpy(&got, a->frame0.data, sizeof got);
    if (got != number)
        BUG("not in order");
    for (size_t i = 0; i < a->frames[0].size_bytes; i++)
        if (a->frames[0].bytes.data[i] != (uint8_t)number)
            BUG("other bytes");
}

int main(void)
{
    struct ring_reader r;
    struct stream_in in = {.payload_max = 1 << 20};
    struct stream_arrival a;
    pthread_t writer;
    uint32_t next = 0;
    unsigned slept = 0;

    data_bell = eventfd(0, 0);
    room_bell = eventfd(0, 0);
    ring_reader_init(&r, &shared, data, CAPACITY);
    if (pthread_create(&writer, NULL, write_all, NULL) != 0)
        BUG("no thread");
    while (next < MESSAGES) {
        int got = stream_receive(&in, &r, &a);
        if (got < 0)
            BUG("the writer broke a rule");
        if (got == STREAM_MESSAGE) {
            check(&a, next++);
            ref_release(&a.frames[0]);
        }
        if (ring_release(&r))
            ring_bell(room_bell);
        if (got != STREAM_EMPTY || ring_sleep(&r) != 1)
            continue;
        slept++;
        await(data_bell);
        ring_wake(&r);
    }
    pthread_join(writer, NULL);
    stream_in_clear(&in);
    printf("%d messages, %u sleeps\n", MESSAGES, slept);
    return 0;
}
