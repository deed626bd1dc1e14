/* ring.h - a stream of bytes from one process to another through memory that both map: one writer, one reader. Pure
 * core: no system call; whoever uses it rings the other side's bell when a function says so.
 *
 *   head .................... tail          positions count the bytes since the beginning; a byte lies at
 *    | what the reader has not |            position % capacity
 *    | taken yet, <= capacity  |
 *
 * I1  head <= tail <= head + capacity. The writer alone moves tail, the reader alone head, and neither goes back.
 * I2  A reader sleeps only with `sleeps` set and nothing to read; a writer waits only with `waits` set and less than
 *     half the ring free. Each sets its flag and then looks once more, the other side moves its position and then looks
 *     at the flag, all four in one total order (seq_cst): one of the two sees the other. So no bell is missed, and none
 *     is rung for a side that is awake.
 *
 * The memory is the peer's as well. What is his there (positions, flags) is read once and checked against what this
 * side knows by itself; -EPROTO: he broke a rule, and the connection must end. The bytes may change while they are
 * copied: whoever reads them judges only the copy.
 *
 * Threading: the writer's functions on one thread, the reader's on one, in any process. */
#ifndef KARST_BUS_RING_H
#define KARST_BUS_RING_H

#include "libs/base/base.h"

enum {
    RING_LINE = 64, /* of the cache; who writes one must not disturb who reads another */
    RING_CAPACITY_MIN = 4096,
    RING_CAPACITY_MAX = 16 << 20,
};

/* What both sides see; all zero is an empty ring. */
struct ring_shared {
    _Alignas(RING_LINE) uint64_t tail;
    _Alignas(RING_LINE) uint64_t head;
    _Alignas(RING_LINE) uint32_t sleeps;
    _Alignas(RING_LINE) uint32_t waits;
};
static_assert(sizeof(struct ring_shared) == 4 * RING_LINE, "laid out for every version alike");

/* The fields are the ring's own. */
struct ring_writer {
    struct ring_shared *shared;
    uint8_t *data;
    uint64_t capacity;
    uint64_t tail, published; /* written so far; that the reader may see */
    uint64_t head;            /* as seen last */
};

struct ring_reader {
    struct ring_shared *shared;
    const uint8_t *data;
    uint64_t capacity;
    uint64_t head, released; /* taken so far; that the writer may overwrite */
    uint64_t tail;           /* as seen last */
    bool asleep;
};

bool ring_is_capacity(uint64_t capacity); /* a power of two within the bounds */

/* Both start at position 0 of a ring that nobody has used. capacity must be one. */
void ring_writer_init(struct ring_writer *w, struct ring_shared *shared, uint8_t *data, uint64_t capacity);
void ring_reader_init(struct ring_reader *r, struct ring_shared *shared, const uint8_t *data, uint64_t capacity);

/* ---- the writer ---- */

/* How much fits now; the reader's position is read only when what is known of it leaves less than wanted. */
NODISCARD int ring_room(struct ring_writer *w, uint64_t wanted, uint64_t *ret_room);
/* Copies bytes that fit (ring_room) behind the others; the reader sees them after ring_publish. */
void ring_write(struct ring_writer *w, const void *bytes, size_t size);
/* true: the reader sleeps, ring its bell. */
NODISCARD bool ring_publish(struct ring_writer *w);
/* Everything is published and less is free than is needed. 1: half the ring is free after all; 0: the reader will ring
 * our bell; -EPROTO. */
NODISCARD int ring_wait(struct ring_writer *w);

/* ---- the reader ---- */

/* How much there is to read; the writer's position is read only when nothing is known to be there. */
NODISCARD int ring_available(struct ring_reader *r, uint64_t *ret_size);
/* Takes bytes that are there (ring_available); the writer may overwrite them after ring_release. */
void ring_read(struct ring_reader *r, void *to, size_t size);
/* true: the writer waits and has enough room now, ring its bell. */
NODISCARD bool ring_release(struct ring_reader *r);
/* Before the reader's thread may block. 1: nothing is there, the writer will ring our bell; 0: something has come;
 * -EPROTO. Everything read is released. */
NODISCARD int ring_sleep(struct ring_reader *r);
/* The reader is awake again, for whatever reason. */
void ring_wake(struct ring_reader *r);

#endif
