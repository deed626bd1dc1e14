#include "libs/bus/ring.h"

bool ring_is_capacity(uint64_t capacity)
{
    return capacity >= RING_CAPACITY_MIN && capacity <= RING_CAPACITY_MAX && (capacity & (capacity - 1)) == 0;
}

void ring_writer_init(struct ring_writer *w, struct ring_shared *shared, uint8_t *data, uint64_t capacity)
{
    ASSERT(ring_is_capacity(capacity));
    *w = (struct ring_writer){.shared = shared, .data = data, .capacity = capacity};
}

void ring_reader_init(struct ring_reader *r, struct ring_shared *shared, const uint8_t *data, uint64_t capacity)
{
    ASSERT(ring_is_capacity(capacity));
    *r = (struct ring_reader){.shared = shared, .data = data, .capacity = capacity};
}

/* ---- the writer ---- */

/* A reader's position lies between the one seen last and what it was allowed to see. */
static int see_head(struct ring_writer *w)
{
    uint64_t head = __atomic_load_n(&w->shared->head, __ATOMIC_SEQ_CST);

    if (head - w->head > w->published - w->head)
        return -EPROTO;
    w->head = head;
    return 0;
}

int ring_room(struct ring_writer *w, uint64_t wanted, uint64_t *ret_room)
{
    if (w->capacity - (w->tail - w->head) < wanted) {
        int failed = see_head(w);
        if (failed < 0)
            return failed;
    }
    *ret_room = w->capacity - (w->tail - w->head);
    return 0;
}

void ring_write(struct ring_writer *w, const void *bytes, size_t size)
{
    uint64_t at = w->tail & (w->capacity - 1);
    size_t first = MIN(size, (size_t)(w->capacity - at));

    ASSERT(size <= w->capacity - (w->tail - w->head));
    if (size == 0)
        return;
    memcpy(w->data + at, bytes, first);
    memcpy(w->data, (const uint8_t *)bytes + first, size - first);
    w->tail += size;
}

bool ring_publish(struct ring_writer *w)
{
    if (w->tail == w->published)
        return false;
    w->published = w->tail;
    __atomic_store_n(&w->shared->tail, w->tail, __ATOMIC_SEQ_CST);
    return __atomic_load_n(&w->shared->sleeps, __ATOMIC_SEQ_CST) != 0 &&
           __atomic_exchange_n(&w->shared->sleeps, 0, __ATOMIC_SEQ_CST) != 0;
}

int ring_wait(struct ring_writer *w)
{
    ASSERT(w->tail == w->published);
    __atomic_store_n(&w->shared->waits, 1, __ATOMIC_SEQ_CST);
    int failed = see_head(w);
    if (failed < 0)
        return failed;
    if (w->capacity - (w->tail - w->head) < w->capacity / 2)
        return 0;
    __atomic_store_n(&w->shared->waits, 0, __ATOMIC_RELAXED);
    return 1;
}

/* ---- the reader ---- */

/* A writer's position is not before the one seen last, and not more than the ring away from what it may overwrite. */
static int see_tail(struct ring_reader *r)
{
    uint64_t tail = __atomic_load_n(&r->shared->tail, __ATOMIC_SEQ_CST);

    if (tail - r->tail > r->capacity - (r->tail - r->released))
        return -EPROTO;
    r->tail = tail;
    return 0;
}

int ring_available(struct ring_reader *r, uint64_t *ret_size)
{
    if (r->tail == r->head) {
        int failed = see_tail(r);
        if (failed < 0)
            return failed;
    }
    *ret_size = r->tail - r->head;
    return 0;
}

void ring_read(struct ring_reader *r, void *to, size_t size)
{
    uint64_t at = r->head & (r->capacity - 1);
    size_t first = MIN(size, (size_t)(r->capacity - at));

    ASSERT(size <= r->tail - r->head);
    if (size == 0)
        return;
    memcpy(to, r->data + at, first);
    memcpy((uint8_t *)to + first, r->data, size - first);
    r->head += size;
}

bool ring_release(struct ring_reader *r)
{
    if (r->head == r->released)
        return false;
    r->released = r->head;
    __atomic_store_n(&r->shared->head, r->head, __ATOMIC_SEQ_CST);
    return r->capacity - (r->tail - r->head) >= r->capacity / 2 &&
           __atomic_load_n(&r->shared->waits, __ATOMIC_SEQ_CST) != 0 &&
           __atomic_exchange_n(&r->shared->waits, 0, __ATOMIC_SEQ_CST) != 0;
}

int ring_sleep(struct ring_reader *r)
{
    ASSERT(r->head == r->released);
    if (r->tail != r->head)
        return 0;
    r->asleep = true;
    __atomic_store_n(&r->shared->sleeps, 1, __ATOMIC_SEQ_CST);
    int failed = see_tail(r);
    if (failed < 0)
        return failed;
    if (r->tail == r->head)
        return 1;
    ring_wake(r);
    return 0;
}

void ring_wake(struct ring_reader *r)
{
    if (!r->asleep)
        return;
    r->asleep = false;
    __atomic_store_n(&r->shared->sleeps, 0, __ATOMIC_RELAXED);
}
