/* quorum_message.c - messages of the quorum, to the bus and back. */
#include "services/controller/quorum.h"

static ProtobufCBinaryData uuid_bytes(struct arena *a, struct uuid u)
{
    ProtobufCBinaryData b = {.len = sizeof u.b, .data = arena_alloc(a, sizeof u.b)};
    memcpy(b.data, u.b, sizeof u.b);
    return b;
}

static bool take_uuid(const ProtobufCBinaryData *b, struct uuid *ret)
{
    *ret = UUID_ZERO;
    if (b->len == sizeof ret->b)
        memcpy(ret->b, b->data, sizeof ret->b);
    return b->len == sizeof ret->b || b->len == 0;
}

static ProtobufCBinaryData voter_bytes(struct arena *a, const struct kraft_voter *v)
{
    struct kraft_voters *all = arena_calloc(a, 1, sizeof *all);
    struct buf b CLEANUP(buf_free) = {0};
    all->voter[all->count++] = *v;
    kraft_voters_encode(all, &b);
    ProtobufCBinaryData out = {.len = b.size, .data = arena_alloc(a, b.size)};
    memcpy(out.data, b.data, b.size);
    return out;
}

Karst__Bus__QuorumMessage *quorum_message_pack(struct arena *a, const struct kraft_message *m)
{
    Karst__Bus__QuorumMessage *p = arena_alloc(a, sizeof *p);
    karst__bus__quorum_message__init(p);
    p->kind = (uint32_t)m->kind;
    p->from = m->from;
    p->from_directory = uuid_bytes(a, m->from_directory);
    p->to_directory = uuid_bytes(a, m->to_directory);
    p->error = m->error;
    p->epoch = m->epoch;
    p->leader = m->leader;
    p->pre_vote = m->pre_vote;
    p->granted = m->granted;
    p->offset = m->offset;
    p->last_epoch = m->last_epoch;
    p->high_watermark = m->high_watermark;
    p->log_start = m->log_start;
    p->wait_ms = m->wait_ms;
    p->max_bytes = m->max_bytes;
    p->diverging_end = m->diverging_end;
    p->diverging_epoch = m->diverging_epoch;
    p->snapshot_end = m->snapshot_end;
    p->snapshot_epoch = m->snapshot_epoch;
    p->position = m->position;
    p->size = m->size;
    p->n_successors = (size_t)m->successor_count;
    p->successors = arena_calloc(a, KRAFT_VOTERS_MAX, sizeof *p->successors);
    memcpy(p->successors, m->successors, sizeof m->successors);
    if (m->voter != NULL)
        p->voter = voter_bytes(a, m->voter);
    return p;
}

static bool take_voter(const ProtobufCBinaryData *b, struct arena *a, struct kraft_message *m)
{
    struct kraft_voters *all = arena_calloc(a, 1, sizeof *all);
    if (b->len == 0)
        return true;
    if (kraft_voters_decode(slice_make(b->data, b->len), all) != 0 || all->count != 1)
        return false;
    m->voter = &all->voter[0];
    return true;
}

bool quorum_message_unpack(struct arena *a, const Karst__Bus__QuorumMessage *p, struct kraft_message *ret_m)
{
    if (p == NULL || p->kind >= KRAFT_MESSAGE_KINDS || p->n_successors > KRAFT_VOTERS_MAX)
        return false;
    *ret_m = (struct kraft_message){
        .kind = (enum kraft_message_kind)p->kind,
        .from = p->from,
        .error = (enum kafka_error)p->error,
        .epoch = p->epoch,
        .leader = p->leader,
        .pre_vote = p->pre_vote,
        .granted = p->granted,
        .offset = p->offset,
        .last_epoch = p->last_epoch,
        .high_watermark = p->high_watermark,
        .log_start = p->log_start,
        .wait_ms = p->wait_ms,
        .max_bytes = p->max_bytes,
        .diverging_end = p->diverging_end,
        .diverging_epoch = p->diverging_epoch,
        .snapshot_end = p->snapshot_end,
        .snapshot_epoch = p->snapshot_epoch,
        .position = p->position,
        .size = p->size,
        .successor_count = (int32_t)p->n_successors,
    };
    if (p->n_successors > 0)
        memcpy(ret_m->successors, p->successors, p->n_successors * sizeof ret_m->successors[0]);
    return take_uuid(&p->from_directory, &ret_m->from_directory) && take_uuid(&p->to_directory, &ret_m->to_directory) &&
           take_voter(&p->voter, a, ret_m);
}
