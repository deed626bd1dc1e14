#include "libs/bus/stream.h"

#include <stdlib.h>

#include "libs/bus/link.h"

/* ---- out ---- */

struct stream_pending {
    struct stream_pending *next;
    size_t frame_count;
    struct ref *frames;  /* behind the struct */
    struct slice prefix; /* count, sizes and frame 0; behind frames */
    size_t at, done;     /* the piece that leaves next (0: the prefix), and how much of it is gone */
};

static size_t counts_size(const struct stream_message *m)
{
    return 4 * (m->frame_count + 2);
}

static uint64_t message_size(const struct stream_message *m)
{
    uint64_t size = counts_size(m) + m->head.size + m->tail.size;

    for (size_t i = 0; i < m->frame_count; i++)
        size += m->frames[i].size_bytes;
    return size;
}

static void put_le32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++, v >>= 8)
        p[i] = (uint8_t)v;
}

static uint32_t get_le32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void put_counts(uint8_t *p, const struct stream_message *m)
{
    put_le32(p, (uint32_t)m->frame_count + 1);
    put_le32(p + 4, (uint32_t)(m->head.size + m->tail.size));
    for (size_t i = 0; i < m->frame_count; i++) {
        ASSERT(m->frames[i].size_bytes <= UINT32_MAX);
        put_le32(p + 8 + 4 * i, (uint32_t)m->frames[i].size_bytes);
    }
}

static void write_slice(struct ring_writer *w, struct slice s)
{
    ring_write(w, s.data, s.size);
}

/* All of it fits: the usual case, which allocates nothing. */
static void write_whole(struct ring_writer *w, const struct stream_message *m)
{
    enum { FEW = 62 };
    uint8_t few[4 * (FEW + 2)], *counts = m->frame_count <= FEW ? few : xmalloc(counts_size(m));

    put_counts(counts, m);
    ring_write(w, counts, counts_size(m));
    if (counts != few)
        free(counts);
    write_slice(w, m->head);
    write_slice(w, m->tail);
    for (size_t i = 0; i < m->frame_count; i++)
        write_slice(w, ref_bytes(&m->frames[i]));
}

static struct stream_pending *pending_new(const struct stream_message *m)
{
    size_t refs = m->frame_count * sizeof(struct ref), counts = counts_size(m);
    struct stream_pending *p = xmalloc(sizeof *p + refs + counts + m->head.size + m->tail.size);
    uint8_t *prefix = (uint8_t *)(p + 1) + refs;

    *p = (struct stream_pending){.frame_count = m->frame_count, .frames = (struct ref *)(void *)(p + 1)};
    for (size_t i = 0; i < m->frame_count; i++) {
        ref_retain(&m->frames[i]);
        p->frames[i] = m->frames[i];
    }
    put_counts(prefix, m);
    if (m->head.size)
        memcpy(prefix + counts, m->head.data, m->head.size);
    if (m->tail.size)
        memcpy(prefix + counts + m->head.size, m->tail.data, m->tail.size);
    p->prefix = slice_make(prefix, counts + m->head.size + m->tail.size);
    return p;
}

int stream_send(struct stream_out *o, struct ring_writer *w, const struct stream_message *m)
{
    uint64_t size = message_size(m), room = 0;

    o->position += size;
    if (o->first == NULL) {
        int failed = ring_room(w, size, &room);
        if (failed < 0)
            return failed;
        if (size <= room) {
            write_whole(w, m);
            return 0;
        }
    }
    struct stream_pending *p = pending_new(m);
    if (o->first == NULL)
        o->first = p;
    else
        o->last->next = p;
    o->last = p;
    return 0;
}

static void drop_first(struct stream_out *o)
{
    struct stream_pending *p = o->first;

    for (size_t i = 0; i < p->frame_count; i++)
        ref_release(&p->frames[i]);
    o->first = p->next;
    free(p);
}

/* Writes of the first message what fits into room; a frame that has left is given back at once. */
static uint64_t write_some(struct stream_pending *p, struct ring_writer *w, uint64_t room)
{
    uint64_t left = room;

    while (p->at <= p->frame_count) {
        struct slice s = p->at == 0 ? p->prefix : ref_bytes(&p->frames[p->at - 1]);
        size_t n = MIN(s.size - p->done, (size_t)left);
        ring_write(w, s.data + p->done, n);
        p->done += n;
        left -= n;
        if (p->done < s.size)
            break;
        if (p->at > 0)
            ref_release(&p->frames[p->at - 1]);
        p->at++;
        p->done = 0;
    }
    return left;
}

int stream_flush(struct stream_out *o, struct ring_writer *w)
{
    uint64_t room = 0;

    if (o->first == NULL)
        return 0;
    int failed = ring_room(w, w->capacity / 4, &room);
    if (failed < 0)
        return failed;
    uint64_t left = MIN(room, w->capacity / 4);
    while (o->first != NULL && left > 0) {
        left = write_some(o->first, w, left);
        if (o->first->at > o->first->frame_count)
            drop_first(o);
    }
    return o->first != NULL && room > w->capacity / 4;
}

void stream_out_clear(struct stream_out *o)
{
    while (o->first != NULL)
        drop_first(o);
}

/* ---- in: memory ---- */

enum {
    SMALL_BYTES = 2048,     /* a payload up to here lies in one piece with its neighbours */
    BLOCK_BYTES = 16 << 10, /* of one such piece: who keeps one payload keeps all of it */
    KEEP_FRAME0 = 64 << 10, /* a larger buffer is given back */
    KEEP_FRAMES = 1024,
};

struct stream_block {
    int32_t count; /* atomic: payloads that live in it */
};

/* A small payload: an owner of its own, so that it can be kept, and written to, like any other. */
struct small {
    struct ref_owner owner;
    struct stream_block *block;
    uint8_t data[];
};

struct large {
    struct ref_owner owner;
    uint8_t data[];
};

static void block_release(struct stream_block *b)
{
    if (__atomic_sub_fetch(&b->count, 1, __ATOMIC_ACQ_REL) == 0)
        free(b);
}

static void free_small(struct ref_owner *o)
{
    block_release(CONTAINER_OF(o, struct small, owner)->block);
}

static void free_large(struct ref_owner *o)
{
    free(CONTAINER_OF(o, struct large, owner));
}

static size_t small_size(size_t bytes)
{
    return (sizeof(struct small) + bytes + 15) & ~(size_t)15;
}

/* The room that the small payloads from the current one on take, as many as go into one block. */
static size_t run_size(const struct stream_in *in)
{
    size_t size = 0;

    for (uint32_t i = in->at; i < in->count && in->sizes[i] <= SMALL_BYTES; i++) {
        if (size + small_size(in->sizes[i]) > BLOCK_BYTES)
            break;
        size += small_size(in->sizes[i]);
    }
    return size;
}

static void forget_block(struct stream_in *in)
{
    if (in->block != NULL)
        block_release(TAKE_PTR(in->block));
}

static struct ref small_new(struct stream_in *in, size_t size)
{
    enum { HEADER = 16 };
    static_assert(sizeof(struct stream_block) <= HEADER, "owners lie on multiples of 16");

    if (in->block == NULL || in->block_size - in->block_used < small_size(size)) {
        forget_block(in);
        in->block_size = HEADER + run_size(in);
        in->block_used = HEADER;
        in->block = xmalloc(in->block_size);
        in->block->count = 1;
    }
    struct small *s = (struct small *)(void *)((uint8_t *)in->block + in->block_used);
    in->block_used += small_size(size);
    __atomic_add_fetch(&in->block->count, 1, __ATOMIC_RELAXED);
    ref_owner_init(&s->owner, free_small);
    s->block = in->block;
    in->to = s->data;
    return (struct ref){.kind = REF_INLINE, .owner = &s->owner, .bytes = {s->data, size}, .size_bytes = size};
}

static struct ref large_new(struct stream_in *in, size_t size)
{
    struct large *l = xmalloc(sizeof *l + size);

    ref_owner_init(&l->owner, free_large);
    in->to = l->data;
    return (struct ref){.kind = REF_INLINE, .owner = &l->owner, .bytes = {l->data, size}, .size_bytes = size};
}

/* ---- in: a message ---- */

static void begin_message(struct stream_in *in)
{
    ASSERT(in->block == NULL);
    in->count = in->got_count = in->at = 0;
    in->got_sizes = in->got = in->frame_count = 0;
    if (in->frame0.capacity > KEEP_FRAME0)
        buf_free(&in->frame0);
    in->frame0.size = 0;
    if (in->sizes_capacity > KEEP_FRAMES) {
        free(TAKE_PTR(in->sizes));
        in->sizes_capacity = 0;
    }
    if (in->frames_capacity > KEEP_FRAMES) {
        free(TAKE_PTR(in->frames));
        in->frames_capacity = 0;
    }
}

static bool counts_are_complete(const struct stream_in *in)
{
    return in->got_count == 4 && in->got_sizes == 4 * (size_t)in->count;
}

/* All sizes are there: they are turned into numbers and judged. */
static int check_sizes(struct stream_in *in)
{
    uint64_t all = 0;

    for (uint32_t i = 0; i < in->count; i++) {
        in->sizes[i] = get_le32((const uint8_t *)&in->sizes[i]);
        if (in->sizes[i] > (i == 0 ? (uint64_t)LINK_FRAME0_MAX : in->payload_max))
            return -EBADMSG;
        all += i > 0 ? in->sizes[i] : 0;
    }
    if (all > STREAM_MESSAGE_PAYLOADS * in->payload_max)
        return -EBADMSG;
    in->to = in->sizes[0] ? buf_grow(&in->frame0, in->sizes[0]) : NULL;
    return 0;
}

/* The count and the sizes, as far as left bytes go. */
static int gather_counts(struct stream_in *in, struct ring_reader *r, uint64_t *left)
{
    size_t n = MIN((size_t)(4 - in->got_count), (size_t)*left);

    if (n > 0) {
        ring_read(r, in->count_bytes + in->got_count, n);
        in->got_count += (uint32_t)n;
        *left -= n;
        if (in->got_count < 4)
            return 0;
        in->count = get_le32(in->count_bytes);
        if (in->count == 0 || in->count > LINK_PAYLOADS_MAX + 1)
            return -EBADMSG;
        if (in->count > in->sizes_capacity) {
            in->sizes_capacity = MAX(in->count, 16u);
            in->sizes = xrealloc(in->sizes, in->sizes_capacity * sizeof *in->sizes);
        }
    }
    n = MIN(4 * (size_t)in->count - in->got_sizes, (size_t)*left);
    ring_read(r, (uint8_t *)in->sizes + in->got_sizes, n);
    in->got_sizes += n;
    *left -= n;
    return counts_are_complete(in) ? check_sizes(in) : 0;
}

static void begin_frame(struct stream_in *in)
{
    size_t size = in->sizes[in->at];

    if (in->frame_count == in->frames_capacity) {
        in->frames_capacity = in->frames_capacity ? 2 * in->frames_capacity : 16;
        in->frames = xrealloc(in->frames, in->frames_capacity * sizeof *in->frames);
    }
    in->frames[in->frame_count++] = size <= SMALL_BYTES ? small_new(in, size) : large_new(in, size);
}

/* As many frames as left bytes go; true: the message is complete. */
static bool gather_frames(struct stream_in *in, struct ring_reader *r, uint64_t *left)
{
    while (in->at < in->count) {
        size_t n = MIN(in->sizes[in->at] - in->got, (size_t)*left);
        if (in->at > 0 && in->frame_count < in->at) {
            if (n == 0 && in->sizes[in->at] > 0)
                return false;
            begin_frame(in);
        }
        if (n > 0)
            ring_read(r, in->to + in->got, n);
        in->got += n;
        *left -= n;
        if (in->got < in->sizes[in->at])
            return false;
        in->at++;
        in->got = 0;
    }
    return true;
}

int stream_receive(struct stream_in *in, struct ring_reader *r, struct stream_arrival *ret_arrival)
{
    uint64_t there = 0;

    if (in->count > 0 && in->at == in->count)
        begin_message(in);
    int failed = ring_available(r, &there);
    if (failed < 0)
        return failed;
    if (there == 0)
        return STREAM_EMPTY;
    uint64_t left = MIN(there, r->capacity / 4);
    if (!counts_are_complete(in)) {
        failed = gather_counts(in, r, &left);
        if (failed < 0)
            return failed;
        if (!counts_are_complete(in))
            return STREAM_MORE;
    }
    if (!gather_frames(in, r, &left))
        return STREAM_MORE;
    forget_block(in);
    *ret_arrival = (struct stream_arrival){buf_slice(&in->frame0), in->frames, in->frame_count};
    in->frame_count = 0; /* they are the caller's */
    return STREAM_MESSAGE;
}

void stream_in_clear(struct stream_in *in)
{
    for (size_t i = 0; i < in->frame_count; i++)
        ref_release(&in->frames[i]);
    forget_block(in);
    free(in->sizes);
    free(in->frames);
    buf_free(&in->frame0);
    *in = (struct stream_in){.payload_max = in->payload_max};
}
