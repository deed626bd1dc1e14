/* leader.c - a leader: its first batch, fetches answered, the high watermark, and when it has to go.
 *
 * A voter's fetch offset says that all before it is durable there, so a leader needs no acknowledgements: what a
 * majority of the voters has, from the leader's own epoch on, is committed. */
#include <stdlib.h>

#include "kafka/kraft_version_record.h"
#include "kafka/leader_change_message.h"
#include "libs/kraft/kraft_internal.h"
#include "libs/wire/wire.h"

/* ---- control batches ---- */

static void add_message(struct kraft *k, struct batch_builder *b, enum control_type type,
                        const struct wire_type *message, const void *m)
{
    struct buf value CLEANUP(buf_free) = {0};
    int error = wire_encode(message, 0, m, &value);
    ASSERT(error == 0 && k->batch.size > 0);
    batch_add_control(b, k->now_wall_ms, (int16_t)type, buf_slice(&value));
}

static void add_leader_change(struct kraft *k, struct batch_builder *b)
{
    const struct kraft_voters *v = kraft_voters(k);
    struct kafka_leader_change_message_voter voters[KRAFT_VOTERS_MAX], granting[KRAFT_VOTERS_MAX];
    struct kafka_leader_change_message m = {.leader_id = k->node_id, .voters = voters, .granting_voters = granting};
    for (int32_t i = 0; i < v->count; i++) {
        struct kafka_leader_change_message_voter voter = {.voter_id = v->voter[i].id};
        const struct peer *p = kraft_peer(k, v->voter[i].id, v->voter[i].directory_id);
        voters[m.voters_count++] = voter;
        if (v->voter[i].id == k->node_id || (p != NULL && p->vote == VOTE_GRANTED))
            granting[m.granting_voters_count++] = voter;
    }
    add_message(k, b, CONTROL_LEADER_CHANGE, &kafka_leader_change_message_type, &m);
}

/* A leader change, of the first leader after the format with version and voters, which so far only the formatter's
 * checkpoint holds; or other voters. */
void leader_append_control(struct kraft *k, bool leader_change, int16_t version, const struct kraft_voters *voters)
{
    struct buf value CLEANUP(buf_free) = {0};
    struct kafka_kraft_version_record versions = {.kraft_version = version};
    struct batch_options options = BATCH_OPTIONS;
    struct batch_builder b;
    options.base_offset = k->log_end;
    options.leader_epoch = k->state.leader_epoch;
    options.attributes = BATCH_ATTR_CONTROL;
    k->batch.size = 0;
    batch_begin(&b, &k->batch, &options);
    if (leader_change)
        add_leader_change(k, &b);
    if (version >= 0)
        add_message(k, &b, CONTROL_KRAFT_VERSION, &kafka_kraft_version_record_type, &versions);
    if (voters != NULL) {
        kraft_voters_encode(voters, &value);
        batch_add_control(&b, k->now_wall_ms, CONTROL_KRAFT_VOTERS, buf_slice(&value));
    }
    int64_t end = k->log_end + batch_builder_count(&b);
    int error = batch_end(&b);
    ASSERT(error == 0);
    lineage_add_epoch(k, k->state.leader_epoch, k->log_end);
    if (voters != NULL)
        lineage_add_voters(k, end - 1, version >= 0 ? version : lineage_voters(k)->kraft_version, voters);
    k->log_end = end;
    kraft_do(k, KRAFT_DO_APPEND)->bytes = buf_slice(&k->batch);
    if (voters != NULL)
        kraft_voters_changed(k);
}

void leader_begin(struct kraft *k)
{
    struct kraft_voters *voters = NULL;
    const struct voter_set *set = lineage_voters(k);
    k->state.leader_id = k->node_id;
    k->state.voted_id = -1;
    k->state.voted_directory_id = UUID_ZERO;
    kraft_save(k);
    k->role = KRAFT_LEADER;
    k->losses = 0;
    k->epoch_start = k->log_end;
    k->deadline = k->now_ms + k->fetch_ms + k->fetch_ms / 2;
    if (set->offset < 0 && set->kraft_version > 0) {
        voters = xmalloc(sizeof *voters);
        *voters = set->voters;
    }
    kraft_do(k, KRAFT_DO_LEAD)->epoch = k->state.leader_epoch;
    k->claims.count = 0;
    leader_append_control(k, true, voters != NULL ? set->kraft_version : -1,
                          voters); /* names who granted: before the votes are forgotten */
    free(voters);
    for (size_t i = 0; i < k->peer_count; i++) {
        struct peer *p = &k->peers[i];
        *p = (struct peer){.id = p->id, .directory_id = p->directory_id, .end = -1};
    }
}

/* ---- the high watermark ---- */

static int descending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
}

/* What a majority of the voters has flushed; the leader counts only as a voter. */
static int64_t majority_end(struct kraft *k)
{
    const struct kraft_voters *v = kraft_voters(k);
    int64_t ends[KRAFT_VOTERS_MAX];
    for (int32_t i = 0; i < v->count; i++) {
        const struct kraft_voter *one = &v->voter[i];
        const struct peer *p = kraft_peer(k, one->id, one->directory_id);
        if (kraft_same_replica(one->id, one->directory_id, k->node_id, k->directory_id))
            ends[i] = k->flushed;
        else
            ends[i] = p != NULL ? p->end : -1;
    }
    if (v->count == 0)
        return -1;
    qsort(ends, (size_t)v->count, sizeof ends[0], descending);
    return ends[v->count / 2];
}

static void answer(struct kraft *k, const struct parked *f, enum kafka_error error)
{
    struct kraft_message *m = kraft_reply(k, KRAFT_FETCH, f->id, error);
    struct kraft_action *a = &k->actions[k->action_count - 1];
    m->offset = f->offset;
    m->max_bytes = 0;
    m->log_start = k->log_start;
    if (error != KERR_NONE)
        return;
    m->high_watermark = k->high_watermark;
    m->max_bytes = MIN(f->max_bytes, k->fetch_bytes);
    a->offset = k->flushed;
    if (f->offset >= k->flushed)
        m->max_bytes = 0;
}

static void unpark(struct kraft *k, size_t i)
{
    k->parked[i] = k->parked[--k->parked_count];
}

static void wake_parked(struct kraft *k)
{
    for (size_t i = k->parked_count; i-- > 0;) {
        struct parked f = k->parked[i];
        if (f.offset < k->flushed || f.high_watermark < k->high_watermark || k->now_ms >= f.deadline) {
            unpark(k, i);
            answer(k, &f, KERR_NONE);
        }
    }
}

/* They ask elsewhere. */
void leader_end_parked(struct kraft *k)
{
    while (k->parked_count > 0) {
        struct parked f = k->parked[k->parked_count - 1];
        unpark(k, k->parked_count - 1);
        answer(k, &f, KERR_NOT_LEADER_OR_FOLLOWER);
    }
}

void leader_gone(struct kraft *k, uint64_t id)
{
    for (size_t i = 0; i < k->parked_count; i++) {
        if (k->parked[i].id != id)
            continue;
        struct parked f = k->parked[i];
        unpark(k, i);
        answer(k, &f, KERR_NONE);
        return;
    }
}

void leader_update_high_watermark(struct kraft *k)
{
    int64_t end = MIN(majority_end(k), k->flushed);
    if (end <= k->epoch_start || end <= k->high_watermark) /* I3: nothing of an earlier epoch by counting alone */
        return;
    k->high_watermark = end;
    lineage_forget_old(k);
    kraft_do(k, KRAFT_DO_COMMIT);
    wake_parked(k);
    change_committed(k);
}

void leader_flushed(struct kraft *k)
{
    leader_update_high_watermark(k);
    if (k->role == KRAFT_LEADER)
        wake_parked(k);
}

/* ---- Fetch ---- */

static enum kafka_error refuse(const struct kraft *k, const struct kraft_message *m)
{
    if (m->epoch < k->state.leader_epoch)
        return KERR_FENCED_LEADER_EPOCH;
    if (m->epoch > k->state.leader_epoch)
        return KERR_UNKNOWN_LEADER_EPOCH;
    if (k->role != KRAFT_LEADER)
        return KERR_NOT_LEADER_OR_FOLLOWER;
    return m->from < 0 || m->offset < 0 || m->last_epoch < 0 ? KERR_INVALID_REQUEST : KERR_NONE;
}

/* Where the fetcher's log and ours part; false: they do not. */
static bool parts(struct kraft *k, uint64_t id, const struct kraft_message *m)
{
    int32_t epoch = 0;
    int64_t end = 0;
    bool known = lineage_end_of(k, m->last_epoch, &epoch, &end);
    bool at_zero = m->offset == 0 && k->log_start == 0;
    if (at_zero || (m->offset >= k->log_start && known && epoch == m->last_epoch && m->offset <= end))
        return false;
    struct kraft_message *reply = kraft_reply(k, KRAFT_FETCH, id, KERR_NONE);
    reply->high_watermark = k->high_watermark;
    reply->log_start = k->log_start;
    if (m->offset >= k->log_start && known) {
        reply->diverging_epoch = epoch;
        reply->diverging_end = end;
    } else if (k->snapshot_end > 0) {
        reply->snapshot_end = k->snapshot_end;
        reply->snapshot_epoch = k->snapshot_epoch;
    } else {
        reply->diverging_epoch = 0;
        reply->diverging_end = 0;
    }
    return true;
}

static void take_fetch(struct kraft *k, struct peer *p, int64_t offset)
{
    p->fetched = true;
    p->told = true;
    if (offset >= k->flushed)
        p->caught_up_ms = k->now_ms;
    else if (p->last_fetch_ms != 0 && offset >= p->last_fetch_end)
        p->caught_up_ms = MAX(p->caught_up_ms, p->last_fetch_ms); /* it had all there was when it asked before */
    p->last_fetch_ms = k->now_ms;
    p->last_fetch_end = k->flushed;
    p->end = offset;
}

/* One Fetch of a node at a time: the one before is answered. */
static void park(struct kraft *k, const struct parked *f)
{
    for (size_t i = 0; i < k->parked_count; i++) {
        if (!kraft_same_replica(k->parked[i].from, k->parked[i].from_directory, f->from, f->from_directory))
            continue;
        struct parked old = k->parked[i];
        unpark(k, i);
        answer(k, &old, KERR_NONE);
        break;
    }
    if (k->parked_count == PARKED_MAX)
        answer(k, f, KERR_NONE);
    else
        k->parked[k->parked_count++] = *f;
}

void leader_on_fetch(struct kraft *k, uint64_t id, const struct kraft_message *m)
{
    enum kafka_error error = refuse(k, m);
    if (error != KERR_NONE) {
        kraft_reply(k, KRAFT_FETCH, id, error);
        return;
    }
    struct peer *p = kraft_add_peer(k, m->from, m->from_directory);
    if (parts(k, id, m)) {
        p->fetched = true; /* alive, which check-quorum wants to know; of its log nothing is sure */
        p->told = true;
        p->last_fetch_ms = k->now_ms;
        return;
    }
    struct parked f = {.id = id,
                       .deadline = k->now_ms + MIN(m->wait_ms, (uint32_t)WAIT_MAX_MS),
                       .from = m->from,
                       .from_directory = m->from_directory,
                       .offset = m->offset,
                       .high_watermark = m->high_watermark,
                       .max_bytes = m->max_bytes};
    take_fetch(k, p, m->offset);
    leader_update_high_watermark(k);
    if (k->role != KRAFT_LEADER)
        answer(k, &f, KERR_NOT_LEADER_OR_FOLLOWER);
    else if (f.offset < k->flushed || f.high_watermark < k->high_watermark || m->wait_ms == 0)
        answer(k, &f, KERR_NONE);
    else
        park(k, &f);
}

void leader_on_fetch_snapshot(struct kraft *k, uint64_t id, const struct kraft_message *m)
{
    enum kafka_error error = refuse(k, m);
    if (error == KERR_NONE && (m->snapshot_end != k->snapshot_end || m->snapshot_epoch != k->snapshot_epoch))
        error = KERR_SNAPSHOT_NOT_FOUND;
    if (error == KERR_NONE) {
        struct peer *p = kraft_add_peer(k, m->from, m->from_directory);
        p->fetched = true;
        p->last_fetch_ms = k->now_ms;
    }
    struct kraft_message *reply = kraft_reply(k, KRAFT_FETCH_SNAPSHOT, id, error);
    reply->snapshot_end = m->snapshot_end;
    reply->snapshot_epoch = m->snapshot_epoch;
    reply->position = m->position;
    reply->max_bytes = MIN(m->max_bytes, k->snapshot_bytes);
}

/* ---- still the leader? ---- */

/* Has a majority fetched within the time? A leader that is cut off from it must not look like one. */
static bool has_majority(struct kraft *k, uint64_t within_ms)
{
    const struct kraft_voters *v = kraft_voters(k);
    int32_t alive = 0;
    for (int32_t i = 0; i < v->count; i++) {
        const struct peer *p = kraft_peer(k, v->voter[i].id, v->voter[i].directory_id);
        bool self = kraft_same_replica(v->voter[i].id, v->voter[i].directory_id, k->node_id, k->directory_id);
        alive += self || (p != NULL && p->fetched && k->now_ms - p->last_fetch_ms < within_ms);
    }
    return alive > v->count / 2;
}

/* To voters that do not fetch: they may not know who leads. */
static void tell(struct kraft *k, enum kraft_message_kind kind)
{
    const struct kraft_voters *v = kraft_voters(k);
    for (int32_t i = 0; i < v->count; i++) {
        struct peer *p = kraft_peer(k, v->voter[i].id, v->voter[i].directory_id);
        bool silent = p != NULL && (!p->fetched || k->now_ms - p->last_fetch_ms >= k->fetch_ms / 2);
        if (p == NULL || v->voter[i].id == k->node_id || (kind == KRAFT_BEGIN_EPOCH ? !silent : p->told))
            continue;
        if (kind == KRAFT_BEGIN_EPOCH && p->told && k->now_ms < p->retry_at + k->fetch_ms / 2)
            continue;
        struct kraft_message *m = kraft_ask(k, p, kind);
        if (m == NULL)
            continue;
        m->leader = k->node_id;
        m->to_directory = v->voter[i].directory_id;
    }
}

void leader_pump(struct kraft *k)
{
    uint64_t patience = k->fetch_ms + k->fetch_ms / 2;
    bool alone = kraft_is_voter(k) && kraft_voters(k)->count == 1;
    if (alone || k->deadline == UINT64_MAX) {
        k->deadline = alone ? UINT64_MAX : k->now_ms + patience; /* others have come */
    } else if (has_majority(k, patience)) {
        k->deadline = MAX(k->deadline, k->now_ms + k->fetch_ms / 4);
    } else if (k->now_ms >= k->deadline) {
        kraft_to_resigned(k);
        return;
    }
    tell(k, KRAFT_BEGIN_EPOCH);
    change_lead(k);
    wake_parked(k);
}

/* The best successors first: those that miss least. */
static void add_successors(struct kraft *k, struct kraft_message *m)
{
    const struct kraft_voters *v = kraft_voters(k);
    int64_t ends[KRAFT_VOTERS_MAX];
    for (int32_t i = 0; i < v->count; i++) {
        const struct peer *p = kraft_peer(k, v->voter[i].id, v->voter[i].directory_id);
        if (p == NULL || v->voter[i].id == k->node_id)
            continue;
        int32_t at = m->successor_count++;
        for (; at > 0 && ends[at - 1] < p->end; at--) {
            ends[at] = ends[at - 1];
            m->successors[at] = m->successors[at - 1];
        }
        ends[at] = p->end;
        m->successors[at] = p->id;
    }
}

void leader_resigned_pump(struct kraft *k)
{
    if (k->now_ms >= k->deadline) {
        if (kraft_may_lead(k))
            election_prospective(k);
        else
            kraft_to_unattached(k, k->state.leader_epoch);
        return;
    }
    size_t before = k->action_count;
    tell(k, KRAFT_END_EPOCH);
    for (size_t i = before; i < k->action_count; i++)
        if (k->actions[i].kind == KRAFT_DO_SEND)
            add_successors(k, &k->actions[i].message);
}
