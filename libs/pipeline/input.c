/* input.c - frames out of bytes.
 *
 * Bytes are read into one shared piece of memory of the process (many small frames a read), and behind what is there of
 * a frame that was begun, which has a buffer of its own and of its size, so that a large request is not copied. A frame
 * that lies whole in the shared piece is used there when it is of some size; a small one is copied, as it would keep
 * the piece alive. */
#include "libs/base/bytes.h"
#include "libs/pipeline/state.h"

#include <stdlib.h>

enum {
    SHARED_BYTES = 64 * 1024,
    SHARED_LEFT_MIN = 16 * 1024, /* less room than this: a new piece */
    COPY_MAX = 2048,             /* a frame up to this size is copied out of the shared piece */
    FRAME_FIRST_BYTES = 1 << 20  /* a frame that is begun gets so much at first: a length alone takes no memory */
};

static void free_input(struct ref_owner *owner)
{
    free(CONTAINER_OF(owner, struct input, owner));
}

static struct input *input_new(size_t capacity)
{
    struct input *in = xmalloc(sizeof *in + capacity);

    ref_owner_init(&in->owner, free_input);
    in->capacity = capacity;
    in->used = 0;
    return in;
}

static bool is_shared_alone(const struct input *in)
{
    return __atomic_load_n(&in->owner.count, __ATOMIC_ACQUIRE) == 1;
}

static void renew_shared(struct pipeline *p)
{
    if (p->shared != NULL && is_shared_alone(p->shared))
        p->shared->used = 0;
    if (p->shared != NULL && p->shared->capacity - p->shared->used >= SHARED_LEFT_MIN)
        return;
    if (p->shared != NULL)
        ref_owner_release(&p->shared->owner);
    p->shared = input_new(SHARED_BYTES);
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
    if (c->frame != NULL) {
        struct input *f = c->frame;
        if (f->used == f->capacity) {
            size_t want = MIN((size_t)c->frame_size, f->capacity * 2);
            f = c->frame = xrealloc(f, sizeof *f + want); /* nobody else knows of it */
            f->capacity = want;
        }
        p->room[n++] = (struct iovec){f->data + f->used, f->capacity - f->used};
    }
    if (c->frame == NULL || c->frame->capacity == c->frame_size) {
        renew_shared(p);
        p->room[n++] = (struct iovec){p->shared->data + p->shared->used, p->shared->capacity - p->shared->used};
    }
    p->room_count = n;
    p->room_conn = conn;
    memcpy(room, p->room, (size_t)n * sizeof *room);
    return n;
}

/* The frame of c that was begun is whole. */
static void finish_frame(struct pipeline *p, struct conn *c)
{
    struct input *f = TAKE_PTR(c->frame);

    if (p->favoured == c)
        p->favoured = NULL;
    c->input_bytes -= f->used; /* item_add charges the whole */
    p->input_used -= f->used;
    item_add(p, c, (struct slice){f->data, c->frame_size}, &f->owner);
}

static bool is_good_size(const struct pipeline *p, uint32_t size)
{
    return size >= PIPELINE_FRAME_MIN && size <= p->o.frame_max_bytes;
}

/* A whole frame in the shared piece, at data. */
static void take_shared(struct pipeline *p, struct conn *c, const uint8_t *data, uint32_t size)
{
    if (size > COPY_MAX) {
        ref_owner_retain(&p->shared->owner);
        item_add(p, c, (struct slice){data, size}, &p->shared->owner);
        return;
    }
    struct input *in = input_new(size);
    memcpy(in->data, data, size);
    in->used = size;
    item_add(p, c, (struct slice){in->data, size}, &in->owner);
}

/* The beginning of a frame whose rest is still to come. */
static void begin_frame(struct pipeline *p, struct conn *c, const uint8_t *data, size_t have, uint32_t size,
                        uint64_t now_ms)
{
    c->frame = input_new(MAX(MIN((size_t)size, (size_t)FRAME_FIRST_BYTES), have));
    memcpy(c->frame->data, data, have);
    c->frame->used = have;
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
    if (c->frame != NULL) {
        size_t n = MIN(size, p->room[0].iov_len);
        c->frame->used += n;
        c->frame_grew_ms = now_ms;
        input_charge(p, c, n);
        size -= n;
        if (c->frame->used == c->frame_size)
            finish_frame(p, c);
    }
    if (size > 0) {
        const struct iovec *shared = &p->room[p->room_count - 1];
        ASSERT(size <= shared->iov_len);
        /* What a frame keeps of the piece is not written again. */
        p->shared->used += size;
        take_bytes(p, c, shared->iov_base, size, now_ms);
    }
    p->room_count = 0;
    if (!conn_may_read(p, c))
        conn_attention(p, c);
}
