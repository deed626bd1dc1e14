// link: bus wire base k_bus_proto
/* A peer with its hands in the shared area: it moves the positions, sets the flags and scribbles over the bytes of both
 * rings between any two steps of ours. */
#include <stdlib.h>

#include "libs/bus/stream.h"

enum { CAPACITY = RING_CAPACITY_MIN, STEPS = 2000 };

static struct ring_shared shared[2];
static uint8_t data[2][CAPACITY];
volatile uint8_t sink; /* what is read is read */

struct input {
    const uint8_t *p, *end;
};

static uint64_t take(struct input *i, int bytes)
{
    uint64_t v = 0;

    while (bytes-- > 0 && i->p < i->end)
        v = v << 8 | *i->p++;
    return v;
}

static void move(uint64_t *position, struct input *i)
{
    uint64_t by = take(i, 2);

    *position = by & 0x8000 ? take(i, 8) : *position + by;
}

static void scribble(struct input *i, uint8_t *bytes, uint64_t at)
{
    for (uint64_t n = take(i, 1); n > 0 && i->p < i->end; n--)
        bytes[at++ % CAPACITY] = (uint8_t)take(i, 1);
}

/* A message like one of a peer who keeps the rules, so that what is behind the counts is reached. */
static void put_message(struct input *i)
{
    uint64_t at = shared[0].tail;
    uint32_t numbers[5] = {(uint32_t)take(i, 1) % 5};

    for (size_t n = 1; n < COUNTOF(numbers); n++)
        numbers[n] = (uint32_t)take(i, 1) << (take(i, 1) & 7);
    for (size_t n = 0; n < sizeof numbers; n++)
        data[0][at++ % CAPACITY] = ((const uint8_t *)numbers)[n];
    scribble(i, data[0], at);
}

static int send_one(struct stream_out *o, struct ring_writer *w, struct input *i)
{
    struct ref frames[3];
    uint8_t head[100] = {0};
    size_t count = take(i, 1) % (COUNTOF(frames) + 1);

    for (size_t f = 0; f < count; f++) {
        size_t size = take(i, 2);
        frames[f] = ref_take(xcalloc(1, size + 1), size);
    }
    struct stream_message m = {{head, take(i, 1) % sizeof head}, {head, 7}, frames, count};
    int failed = stream_send(o, w, &m);
    for (size_t f = 0; f < count; f++)
        ref_release(&frames[f]);
    return failed;
}

static int flush(struct stream_out *o, struct ring_writer *w)
{
    int more;

    while ((more = stream_flush(o, w)) == 1)
        (void)!ring_publish(w);
    (void)!ring_publish(w);
    return more < 0 ? more : stream_is_pending(o) ? ring_wait(w) : 0;
}

static int receive(struct stream_in *in, struct ring_reader *r)
{
    struct stream_arrival a;
    int got;

    for (size_t messages = 0; messages < CAPACITY; messages++) { /* one takes a byte at least */
        got = stream_receive(in, r, &a);
        if (got <= STREAM_EMPTY)
            break;
        for (size_t b = 0; got == STREAM_MESSAGE && b < a.frame0.size; b++)
            sink ^= a.frame0.data[b];
        for (size_t f = 0; got == STREAM_MESSAGE && f < a.frame_count; f++) {
            for (size_t b = 0; b < a.frames[f].size_bytes; b++)
                sink ^= a.frames[f].bytes.data[b];
            ref_release(&a.frames[f]);
        }
        if (messages + 1 == CAPACITY)
            BUG("messages without bytes");
    }
    (void)!ring_release(r);
    if (got == STREAM_EMPTY)
        got = ring_sleep(r);
    return got;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct input i = {bytes, bytes + size};
    struct ring_reader r;
    struct ring_writer w;
    struct stream_in in = {.payload_max = 60000};
    struct stream_out out = {0};
    int failed = 0;

    memset(shared, 0, sizeof shared);
    memset(data, 0, sizeof data);
    ring_reader_init(&r, &shared[0], data[0], CAPACITY);
    ring_writer_init(&w, &shared[1], data[1], CAPACITY);
    for (int step = 0; step < STEPS && i.p < i.end && failed >= 0; step++) {
        switch (take(&i, 1) % 9) {
        case 0: move(&shared[0].tail, &i); break;
        case 1: move(&shared[1].head, &i); break;
        case 2: shared[take(&i, 1) & 1].sleeps = (uint32_t)take(&i, 4); break;
        case 3: shared[take(&i, 1) & 1].waits = (uint32_t)take(&i, 4); break;
        case 4: scribble(&i, data[take(&i, 1) & 1], take(&i, 2)); break;
        case 5: put_message(&i); break;
        case 6: failed = send_one(&out, &w, &i); break;
        case 7: failed = flush(&out, &w); break;
        case 8:
            failed = receive(&in, &r);
            ring_wake(&r);
            break;
        }
    }
    stream_in_clear(&in);
    stream_out_clear(&out);
    return 0;
}
