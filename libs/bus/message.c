/* message.c - a Batch between structs and bytes.
 *
 * Calls and replies are packed once, where they are made; fields that are known only when they leave (remaining time,
 * frame numbers) are written in front of them. Protobuf allows fields in any order, so frame 0 is the packed head and
 * these pieces one behind the other. */
#include <stdlib.h>

#include "libs/base/bytes.h"
#include "libs/bus/link_internal.h"

/* Unpacking takes more than the bytes have: an empty call is two bytes and some hundred of struct. */
enum { UNPACK_BYTES = 16 * LINK_FRAME0_MAX };

/* Tags of bus.proto: number << 3 | wire type. */
enum {
    TAG_BATCH_CALLS = 11 << 3 | 2,
    TAG_BATCH_REPLIES = 12 << 3 | 2,
    TAG_CALL_CORRELATION = 1 << 3 | 1,
    TAG_CALL_REMAINING = 2 << 3,
    TAG_CALL_PAYLOADS = 5 << 3 | 2,
    TAG_REPLY_CORRELATION = 1 << 3 | 1,
    TAG_REPLY_OUTCOME = 2 << 3,
    TAG_REPLY_METADATA_OFFSET = 3 << 3,
    TAG_REPLY_PAYLOADS = 4 << 3 | 2,
    TAG_PAYLOAD_INLINE = 1 << 3,
    TAG_PAYLOAD_ARENA = 2 << 3 | 2,
    TAG_PAYLOAD_FILE = 3 << 3 | 2,
    TAG_PAYLOAD_SIZE = 4 << 3,
    TAG_SLICE_INSTANCE = 1 << 3 | 1, /* of ArenaSlice and FileSlice alike */
    TAG_SLICE_POSITION = 2 << 3,
};

/* ---- reading ---- */

static void *unpack_alloc(void *arena, size_t size)
{
    return arena_try_alloc(arena, size);
}
static void unpack_free(void *arena, void *p)
{
    (void)arena;
    (void)p;
}

static void release_frames(struct ref *frames, size_t count)
{
    for (size_t i = 0; i < count; i++)
        ref_release(&frames[i]);
}

static struct arena *pooled_arena(struct link_core *l)
{
    return l->arena_pooled > 0 ? l->arena_pool[--l->arena_pooled] : arena_new(UNPACK_BYTES);
}

static void pool_arena(struct link_core *l, struct arena *a)
{
    if (l->arena_pooled == COUNTOF(l->arena_pool)) {
        arena_free(a);
        return;
    }
    arena_reset(a);
    l->arena_pool[l->arena_pooled++] = a;
}

struct message *link_message_read(struct link_core *l, struct slice frame0, struct ref *frames, size_t frame_count)
{
    struct message *m = l->message_pool;

    if (frame0.size > LINK_FRAME0_MAX || frame_count > LINK_PAYLOADS_MAX) {
        release_frames(frames, frame_count);
        return NULL;
    }
    if (m != NULL) {
        l->message_pool = m->next;
        l->message_pooled--;
    } else {
        m = xmalloc(sizeof *m);
    }
    *m = (struct message){.count = 1, .arena = pooled_arena(l), .frame_count = frame_count};
    m->frames = arena_alloc(m->arena, frame_count * sizeof *frames);
    if (frame_count)
        memcpy(m->frames, frames, frame_count * sizeof *frames);
    ProtobufCAllocator allocator = {unpack_alloc, unpack_free, m->arena};
    m->batch = karst__bus__batch__unpack(&allocator, frame0.size, frame0.data);
    if (m->batch == NULL) {
        link_message_release(l, m);
        return NULL;
    }
    return m;
}

void link_message_release(struct link_core *l, struct message *m)
{
    ASSERT(m->count > 0);
    if (--m->count > 0)
        return;
    release_frames(m->frames, m->frame_count);
    pool_arena(l, m->arena);
    if (l->message_pooled == POOL_MAX) {
        free(m);
        return;
    }
    m->next = l->message_pool;
    l->message_pool = m;
    l->message_pooled++;
}

static int take_frame(struct message *m, const Karst__Bus__Payload *p, struct ref *ret_ref)
{
    if (p->inline_frame == 0 || p->inline_frame > m->frame_count)
        return -EBADMSG;
    struct ref *frame = &m->frames[p->inline_frame - 1];
    if (frame->kind == REF_NONE || frame->size_bytes != p->size_bytes)
        return -EBADMSG;
    *ret_ref = *frame;
    *frame = REF_EMPTY;
    return 0;
}

int link_message_payloads(struct link_core *l, uint64_t conn, struct message *m, size_t count,
                          Karst__Bus__Payload **payloads, Karst__Bus__Payload__ReferenceCase shared,
                          struct ref *ret_refs)
{
    const struct link_sharing *sharing = &l->options.sharing;
    size_t taken = 0;

    for (; taken < count; taken++) {
        const Karst__Bus__Payload *p = payloads[taken];
        int failed = -EBADMSG;
        if (p->reference_case == KARST__BUS__PAYLOAD__REFERENCE_INLINE_FRAME)
            failed = take_frame(m, p, &ret_refs[taken]);
        else if (p->reference_case == shared && link_shares(l, conn))
            failed = sharing->resolve(sharing->ctx, conn, p, &ret_refs[taken]);
        if (failed < 0)
            break;
    }
    if (taken == count)
        return 0;
    release_frames(ret_refs, taken);
    return -EBADMSG;
}

/* ---- writing ---- */

struct outgoing *link_outgoing_new(struct link_core *l)
{
    struct outgoing *o = l->outgoing_pool;

    if (o == NULL)
        return xcalloc(1, sizeof *o);
    l->outgoing_pool = o->next;
    l->outgoing_pooled--;
    return o;
}

void link_outgoing_free(struct link_core *l, struct outgoing *o)
{
    enum { KEEP_BYTES = 64 << 10 };

    if (o == NULL)
        return;
    release_frames(o->frames, o->frame_count);
    o->frame_count = 0;
    o->payload_bytes = 0;
    o->head.size = o->body.size = 0;
    if (l->outgoing_pooled < POOL_MAX && o->body.capacity <= KEEP_BYTES && o->frame_capacity <= OUTGOING_FRAMES) {
        o->next = l->outgoing_pool;
        l->outgoing_pool = o;
        l->outgoing_pooled++;
        return;
    }
    buf_free(&o->head);
    buf_free(&o->body);
    free(o->frames);
    free(o);
}

bool link_outgoing_is_full(const struct outgoing *o)
{
    return o->body.size >= OUTGOING_BODY_BYTES || o->payload_bytes >= OUTGOING_PAYLOAD_BYTES ||
           o->frame_count >= OUTGOING_FRAMES;
}

static void add_frame(struct outgoing *o, const struct ref *r)
{
    if (o->frame_count == o->frame_capacity) {
        o->frame_capacity = o->frame_capacity ? 2 * o->frame_capacity : 8;
        o->frames = xrealloc(o->frames, o->frame_capacity * sizeof *o->frames);
    }
    ref_retain(r);
    o->frames[o->frame_count++] = *r;
    o->payload_bytes += r->size_bytes;
}

void link_outgoing_hold(struct outgoing *o, const struct ref *r)
{
    add_frame(o, r);
    ref_owner_release(r->owner);
}

static uint8_t *put_fixed64(uint8_t *p, uint8_t tag, uint64_t v)
{
    *p++ = tag;
    for (int i = 0; i < 8; i++, v >>= 8)
        *p++ = (uint8_t)v;
    return p;
}

static uint8_t *put_varint(uint8_t *p, uint8_t tag, uint64_t v)
{
    *p++ = tag;
    return p + put_uvarint64(p, v);
}

/* Does it travel as a reference, not as a frame? */
static bool is_shared(const struct ref *r, bool in_arena)
{
    return r->kind == REF_FILE || (r->kind == REF_ARENA && in_arena);
}

static size_t slice_size(const struct ref *r)
{
    return 9 + 1 + size_uvarint64(r->position);
}

/* A Payload in its place; frames are numbered from 1. */
static size_t payload_size(uint64_t frame, const struct ref *r, bool in_arena)
{
    size_t reference = is_shared(r, in_arena) ? size_uvarint64(slice_size(r)) + slice_size(r) : size_uvarint64(frame);

    return 1 + reference + (r->size_bytes ? 1 + size_uvarint64(r->size_bytes) : 0);
}

static size_t payloads_size(const struct outgoing *o, const struct ref *payloads, size_t count, bool in_arena)
{
    uint64_t frame = o->frame_count + 1;
    size_t n = 0;

    for (size_t i = 0; i < count; i++) {
        size_t one = payload_size(frame, &payloads[i], in_arena);
        n += 1 + size_uvarint64(one) + one;
        frame += !is_shared(&payloads[i], in_arena);
    }
    return n;
}

static uint8_t *put_reference(uint8_t *p, struct outgoing *o, const struct ref *r, bool in_arena)
{
    if (!is_shared(r, in_arena)) {
        add_frame(o, r);
        return put_varint(p, TAG_PAYLOAD_INLINE, o->frame_count);
    }
    *p++ = r->kind == REF_FILE ? TAG_PAYLOAD_FILE : TAG_PAYLOAD_ARENA;
    p += put_uvarint64(p, slice_size(r));
    p = put_fixed64(p, TAG_SLICE_INSTANCE, r->instance);
    return put_varint(p, TAG_SLICE_POSITION, r->position);
}

static uint8_t *put_payloads(uint8_t *p, struct outgoing *o, uint8_t tag, const struct ref *payloads, size_t count,
                             bool in_arena)
{
    for (size_t i = 0; i < count; i++) {
        const struct ref *r = &payloads[i];
        *p++ = tag;
        p += put_uvarint64(p, payload_size(o->frame_count + 1, r, in_arena));
        p = put_reference(p, o, r, in_arena);
        if (r->size_bytes)
            p = put_varint(p, TAG_PAYLOAD_SIZE, r->size_bytes);
    }
    return p;
}

void link_outgoing_call(struct outgoing *o, uint64_t correlation_id, uint32_t remaining_ms, struct slice prepacked,
                        const struct ref *payloads, size_t payload_count, bool in_arena)
{
    size_t size =
        9 + 1 + size_uvarint64(remaining_ms) + payloads_size(o, payloads, payload_count, in_arena) + prepacked.size;
    uint8_t *start = buf_grow(&o->body, 1 + size_uvarint64(size) + size), *p = start;

    *p++ = TAG_BATCH_CALLS;
    p += put_uvarint64(p, size);
    p = put_fixed64(p, TAG_CALL_CORRELATION, correlation_id);
    p = put_varint(p, TAG_CALL_REMAINING, remaining_ms);
    p = put_payloads(p, o, TAG_CALL_PAYLOADS, payloads, payload_count, in_arena);
    memcpy(p, prepacked.data, prepacked.size);
    ASSERT(p + prepacked.size == o->body.data + o->body.size);
}

bool link_outgoing_reply(struct outgoing *o, uint64_t correlation_id, Karst__Bus__Outcome outcome,
                         int64_t metadata_offset, Karst__Bus__Reply__BodyCase kind, const void *body,
                         const struct ref *payloads, size_t payload_count)
{
    union { /* the oneof holds pointers of many types; packing only reads through them */
        const void *in;
        Karst__Bus__KafkaResponse *out;
    } any = {.in = body};
    Karst__Bus__Reply reply = KARST__BUS__REPLY__INIT;

    reply.body_case = kind;
    reply.kafka = any.out;
    size_t packed = karst__bus__reply__get_packed_size(&reply);
    if (packed > LINK_BODY_MAX || payload_count > LINK_CALL_PAYLOADS_MAX)
        return false;
    size_t size = 9 + payloads_size(o, payloads, payload_count, false) + packed;
    if (outcome != KARST__BUS__OUTCOME__OUTCOME_OK)
        size += 2;
    if (metadata_offset != 0)
        size += 1 + size_uvarint64((uint64_t)metadata_offset);
    uint8_t *p = buf_grow(&o->body, 1 + size_uvarint64(size) + size);
    *p++ = TAG_BATCH_REPLIES;
    p += put_uvarint64(p, size);
    p = put_fixed64(p, TAG_REPLY_CORRELATION, correlation_id);
    if (outcome != KARST__BUS__OUTCOME__OUTCOME_OK)
        p = put_varint(p, TAG_REPLY_OUTCOME, (uint64_t)outcome);
    if (metadata_offset != 0)
        p = put_varint(p, TAG_REPLY_METADATA_OFFSET, (uint64_t)metadata_offset);
    p = put_payloads(p, o, TAG_REPLY_PAYLOADS, payloads, payload_count, false);
    p += karst__bus__reply__pack(&reply, p);
    ASSERT(p == o->body.data + o->body.size);
    return true;
}
