/* input.c - frames out of bytes.
 *
 * Bytes are read into one shared piece of memory of the process (many small frames a read), and behind what is there of
 * a frame that was begun, which has a buffer of its own and of its size, so that a large request is not copied.
 *
 * A frame that lies whole in the shared piece is used there when it is of some size and of an API that overlaps
 * (Produce): it is answered soon, and carries bytes that others are to read where they lie. Any other is copied, as it
 * would keep the piece alive.
 *
 * Pieces and buffers come from o.alloc, and from the heap when there is none or it is full. What o.alloc gives takes no
 * memory before it is written: a frame gets its whole size there at once. Frames that are not whole may claim half of
 * it, so that lengths alone do not keep everybody else out. */
#include "libs/base/bytes.h"
#include "libs/pipeline/state.h"

#include <stdlib.h>

enum {
    SHARED_BYTES = 64 * 1024,
    SHARED_LEFT_MIN = 16 * 1024, /* less room than this: a new piece */
    COPY_MAX = 2048,             /* a frame up to this size is copied out of the shared piece */
    FRAME_FIRST_BYTES = 1 << 20, /* a frame on the heap gets so much at first: a length alone takes no memory */
    /* After a frame of LARGE_BYTES the next is taken for one too: only its head is read to the shared piece, and not
     * copied from there. */
    LARGE_BYTES = 32 * 1024,
    LARGE_HEAD_BYTES = 4096
};

/* ---- memory ---- */

struct heap_buffer {
    struct ref_owner owner; /* first */
    uint8_t data[];
};

static void free_heap(struct ref_owner *owner)
{
    free(CONTAINER_OF(owner, struct heap_buffer, owner));
}

static struct input heap_input(size_t capacity)
{
    struct heap_buffer *b = xmalloc(sizeof *b + capacity);

    ref_owner_init(&b->owner, free_heap);
    return (struct input){&b->owner, b->data, capacity, 0};
}

/* Of heap_input, and nobody else's yet. */
static void grow_heap(struct input *in, size_t capacity)
{
    struct heap_buffer *b = xrealloc(CONTAINER_OF(in->owner, struct heap_buffer, owner), sizeof *b + capacity);

    *in = (struct input){&b->owner, b->data, capacity, in->used};
}

/* From o.alloc: owner is NULL when it has no room. */
static struct input shared_memory(const struct pipeline *p, size_t size)
{
    struct pipeline_buffer b;

    if (p->o.alloc == NULL || !p->o.alloc(p->o.alloc_ctx, size, &b))
        return (struct input){0};
    ASSERT(b.capacity >= size);
    return (struct input){b.owner, b.data, b.capacity, 0};
}

/* ---- pieces ---- */

static void drop_piece(struct pipeline *p, struct piece *piece)
{
    DL_DELETE(p->pieces, piece);
    ref_owner_release(piece->input.owner);
    free(piece);
}

void piece_enter(struct pipeline *p, struct piece *piece)
{
    if (piece->items++ == 0)
        input_charge(p, NULL, piece->input.capacity);
}

void piece_leave(struct pipeline *p, struct piece *piece)
{
    if (--piece->items > 0)
        return;
    uint64_t charged = piece->input.capacity;
    if (piece != p->shared)
        drop_piece(p, piece);
    input_discharge(p, NULL, charged);
}

void shared_drop(struct pipeline *p)
{
    struct piece *piece = TAKE_PTR(p->shared);

    if (piece != NULL && piece->items == 0)
        drop_piece(p, piece);
}

static bool is_nobody_elses(const struct input *in)
{
    return __atomic_load_n(&in->owner->count, __ATOMIC_ACQUIRE) == 1;
}

static void renew_shared(struct pipeline *p)
{
    if (p->shared != NULL && p->shared->items == 0 && is_nobody_elses(&p->shared->input))
        p->shared->input.used = 0;
    if (p->shared != NULL && p->shared->input.capacity - p->shared->input.used >= SHARED_LEFT_MIN)
        return;
    shared_drop(p);
    struct piece *piece = xcalloc(1, sizeof *piece);
    piece->input = shared_memory(p, SHARED_BYTES);
    if (piece->input.owner == NULL)
        piece->input = heap_input(SHARED_BYTES);
    DL_APPEND(p->pieces, piece);
    p->shared = piece;
}

/* ---- reading ---- */

/* Up to the frame's end. */
static struct iovec frame_room(struct conn *c)
{
    struct input *f = &c->frame;

    if (f->used == f->capacity)
        grow_heap(f, MIN((size_t)c->frame_size, f->capacity * 2));
    return (struct iovec){f->data + f->used, MIN(f->capacity, (size_t)c->frame_size) - f->used};
}

int pipeline_input(struct pipeline *p, uint64_t conn, struct iovec room[2])
{
    struct conn *c = slots_get(&p->conns, conn);
    int n = 0;

    ASSERT(c != NULL);
    p->room_count = 0;
    if (p->is_over && p->favoured != c && !c->in_starved && !c->input_closed) {
        c->in_starved = true;
        DL_APPEND2(p->starved, c, starved_prev, starved_next);
        conn_attention(p, c);
        input_discharge(p, NULL, 0); /* somebody has to get on */
    }
    if (!conn_may_read(p, c))
        return 0;
    if (c->frame.owner != NULL)
        p->room[n++] = frame_room(c);
    if (c->frame.owner == NULL || c->frame.capacity >= c->frame_size) {
        renew_shared(p);
        const struct input *in = &p->shared->input;
        size_t left = in->capacity - in->used;
        p->room[n++] = (struct iovec){in->data + in->used, c->sends_large ? LARGE_HEAD_BYTES : left};
    }
    p->room_count = n;
    p->room_conn = conn;
    memcpy(room, p->room, (size_t)n * sizeof *room);
    return n;
}

/* c's frame has its memory no more. */
static struct input take_frame(struct pipeline *p, struct conn *c)
{
    struct input f = c->frame;

    c->frame = (struct input){0};
    p->claimed -= c->frame_claim;
    c->frame_claim = 0;
    return f;
}

void frame_drop(struct pipeline *p, struct conn *c)
{
    ref_owner_release(take_frame(p, c).owner);
}

/* The frame of c that was begun is whole. */
static void finish_frame(struct pipeline *p, struct conn *c)
{
    struct input f = take_frame(p, c);

    if (p->favoured == c)
        p->favoured = NULL;
    c->input_bytes -= f.used; /* item_add charges the whole */
    p->input_used -= f.used;
    item_add(p, c, (struct slice){f.data, c->frame_size}, f.owner, NULL);
}

static bool is_good_size(const struct pipeline *p, uint32_t size)
{
    return size >= PIPELINE_FRAME_MIN && size <= p->o.frame_max_bytes;
}

/* A whole frame in the shared piece, at data. */
static void take_shared(struct pipeline *p, struct conn *c, const uint8_t *data, uint32_t size)
{
    if (size > COPY_MAX && p->o.overlaps(get_i16(data))) {
        ref_owner_retain(p->shared->input.owner);
        item_add(p, c, (struct slice){data, size}, p->shared->input.owner, p->shared);
        return;
    }
    struct input in = heap_input(size);
    memcpy(in.data, data, size);
    item_add(p, c, (struct slice){in.data, size}, in.owner, NULL);
}

/* The beginning of a frame whose rest is still to come. */
static void begin_frame(struct pipeline *p, struct conn *c, const uint8_t *data, size_t have, uint32_t size,
                        uint64_t now_ms)
{
    if (size > COPY_MAX && size <= p->o.alloc_bytes / 2 && p->claimed <= p->o.alloc_bytes / 2 - size) {
        c->frame = shared_memory(p, size);
        c->frame_claim = c->frame.owner != NULL ? size : 0;
        p->claimed += c->frame_claim;
    }
    if (c->frame.owner == NULL)
        c->frame = heap_input(MAX(MIN((size_t)size, (size_t)FRAME_FIRST_BYTES), have));
    memcpy(c->frame.data, data, have);
    c->frame.used = have;
    c->frame_size = size;
    c->frame_grew_ms = now_ms;
    input_charge(p, c, have);
}

static void take_bytes(struct pipeline *p, struct conn *c, const uint8_t *at, size_t left, uint64_t now_ms)
{
    while (left > 0 && !c->input_closed) {
        size_t head = MIN(left, sizeof c->head - c->head_have);
        memcpy(c->head + c->head_have, at, head);
        c->head_have += (uint32_t)head;
        at += head;
        left -= head;
        if (c->head_have < sizeof c->head)
            return;
        c->head_have = 0;
        uint32_t size = get_u32(c->head);
        if (!is_good_size(p, size)) {
            conn_close_input(p, c, "a frame's length is below 8 or above socket.request.max.bytes");
            return;
        }
        c->sends_large = size >= LARGE_BYTES;
        if (size > left) {
            begin_frame(p, c, at, left, size, now_ms);
            return;
        }
        take_shared(p, c, at, size);
        at += size;
        left -= size;
    }
}

void pipeline_received(struct pipeline *p, uint64_t conn, size_t size, uint64_t now_ms)
{
    struct conn *c = slots_get(&p->conns, conn);

    ASSERT(c != NULL && p->room_count > 0 && p->room_conn == conn);
    DL_DELETE(p->all, c);
    DL_APPEND(p->all, c);
    c->quiet_since_ms = p->now_ms = now_ms;
    if (c->frame.owner != NULL) {
        size_t n = MIN(size, p->room[0].iov_len);
        c->frame.used += n;
        c->frame_grew_ms = now_ms;
        input_charge(p, c, n);
        size -= n;
        if (c->frame.used == c->frame_size)
            finish_frame(p, c);
    }
    if (size > 0) {
        const struct iovec *shared = &p->room[p->room_count - 1];
        ASSERT(size <= shared->iov_len);
        /* What a frame keeps of the piece is not written again. */
        p->shared->input.used += size;
        take_bytes(p, c, shared->iov_base, size, now_ms);
    }
    p->room_count = 0;
    if (!conn_may_read(p, c))
        conn_attention(p, c);
}
