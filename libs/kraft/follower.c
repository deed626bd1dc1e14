/* follower.c - a node that fetches: what comes in, where logs part, snapshots; and the search for a leader. */
#include <stdlib.h>

#include "libs/kraft/kraft_internal.h"
#include "libs/kraft/snapshot.h"

enum { FETCH_WAIT_MS = 500, SNAPSHOT_BYTES_MAX = 1 << 30 };

/* ---- who leads? ---- */

static void fill_fetch(struct kraft *k, struct kraft_message *m, uint32_t wait_ms)
{
    m->offset = k->log_end;
    m->last_epoch = lineage_last_epoch(k);
    m->high_watermark = k->high_watermark;
    m->log_start = k->log_start;
    m->wait_ms = wait_ms;
    m->max_bytes = k->fetch_bytes;
}

/* One node after the other is asked with a Fetch: a leader, and who knows one, says so. */
void follower_discover(struct kraft *k)
{
    for (size_t i = 0; i < k->peer_count; i++)
        if (k->peers[i].request != 0)
            return;
    for (size_t i = 0; i < k->peer_count; i++) {
        struct peer *p = &k->peers[(k->next_asked + i) % k->peer_count];
        struct kraft_message *m = kraft_ask(k, p, KRAFT_FETCH);
        if (m == NULL)
            continue;
        fill_fetch(k, m, 0);
        k->next_asked = (k->next_asked + i + 1) % k->peer_count;
        return;
    }
}

void follower_on_begin(struct kraft *k, uint64_t id, const struct kraft_message *m)
{
    enum kafka_error error = KERR_NONE;
    if (m->from < 0 || m->from == k->node_id || m->leader != m->from)
        error = KERR_INVALID_REQUEST;
    else if (!uuid_is_zero(m->to_directory) && !uuid_eq(m->to_directory, k->directory_id))
        error = KERR_INVALID_VOTER_KEY;
    else if (m->epoch < k->state.leader_epoch)
        error = KERR_FENCED_LEADER_EPOCH;
    else if (m->epoch == k->state.leader_epoch && k->state.leader_id >= 0 && k->state.leader_id != m->leader)
        error = KERR_INVALID_REQUEST; /* I4: a second leader of one epoch is nobody's to follow */
    else if (k->role != KRAFT_FOLLOWER || m->epoch > k->state.leader_epoch)
        kraft_to_follower(k, m->epoch, m->leader);
    kraft_reply(k, KRAFT_BEGIN_EPOCH, id, error);
}

/* The leader goes. The best successor tries at once, the others later the further down they are. */
void follower_on_end(struct kraft *k, uint64_t id, const struct kraft_message *m)
{
    enum kafka_error error = KERR_NONE;
    if (m->from < 0 || m->from == k->node_id || m->successor_count < 0 || m->successor_count > KRAFT_VOTERS_MAX)
        error = KERR_INVALID_REQUEST;
    else if (m->epoch < k->state.leader_epoch)
        error = KERR_FENCED_LEADER_EPOCH;
    else if (m->epoch > k->state.leader_epoch)
        kraft_to_follower(k, m->epoch, m->from);
    if (error == KERR_NONE && k->state.leader_id == m->from && k->role == KRAFT_FOLLOWER) {
        int32_t rank = 0;
        while (rank < m->successor_count && m->successors[rank] != k->node_id)
            rank++;
        kraft_to_unattached(k, m->epoch);
        if (kraft_may_lead(k))
            k->deadline = k->now_ms + (rank == 0 ? 0 : k->election_ms / 4 * (uint64_t)rank);
    }
    kraft_reply(k, KRAFT_END_EPOCH, id, error);
}

/* ---- fetching ---- */

static void move_high_watermark(struct kraft *k)
{
    int64_t to = MIN(k->leader_high_watermark, k->flushed);
    if (to <= k->high_watermark)
        return;
    k->high_watermark = to;
    lineage_forget_old(k);
    kraft_do(k, KRAFT_DO_COMMIT);
}

void follower_flushed(struct kraft *k)
{
    move_high_watermark(k);
}

/* The next Fetch leaves when all that came is durable: its offset says so to the leader. */
void follower_pump(struct kraft *k)
{
    struct peer *p = kraft_peer(k, k->state.leader_id, UUID_ZERO);
    if (k->now_ms >= k->deadline) {
        if (kraft_may_lead(k))
            election_prospective(k);
        else
            kraft_to_unattached(k, k->state.leader_epoch);
        return;
    }
    change_pump(k);
    if (p == NULL || k->flushed < k->log_end)
        return;
    if (k->incoming_end >= 0) {
        struct kraft_message *m = kraft_ask(k, p, KRAFT_FETCH_SNAPSHOT);
        if (m == NULL)
            return;
        m->snapshot_end = k->incoming_end;
        m->snapshot_epoch = k->incoming_epoch;
        m->position = (int64_t)k->snapshot.size;
        m->max_bytes = k->snapshot_bytes;
        return;
    }
    struct kraft_message *m = kraft_ask(k, p, KRAFT_FETCH);
    if (m != NULL)
        fill_fetch(k, m, MIN((uint32_t)FETCH_WAIT_MS, k->fetch_ms / 2));
}

static void hear_leader(struct kraft *k)
{
    k->fetched = true;
    k->deadline = kraft_fetch_deadline(k);
}

/* Cuts to the last point that both logs share, as far as one answer tells; the next Fetch asks on. */
static void truncate(struct kraft *k, int32_t epoch, int64_t end)
{
    int32_t own_epoch;
    int64_t own_end, to = k->log_start;
    if (lineage_end_of(k, epoch, &own_epoch, &own_end))
        to = own_epoch == epoch ? MIN(own_end, end) : own_end;
    to = MIN(to, k->log_end);
    if (to < k->high_watermark || to < k->log_start || to < MAX(k->snapshot_end, 0)) {
        kraft_halt(k, "the leader's log does not hold what is committed here");
        return;
    }
    if (to == k->log_end) { /* it would go on like this for ever */
        kraft_halt(k, "the leader's log parts from ours where both are the same");
        return;
    }
    lineage_truncate(k, to);
    kraft_do(k, KRAFT_DO_TRUNCATE)->offset = to;
}

static void begin_snapshot(struct kraft *k, int64_t end, int32_t epoch)
{
    if (end < k->high_watermark || end < k->snapshot_end || epoch > k->state.leader_epoch) {
        kraft_halt(k, "the leader's snapshot is older than what is committed here");
        return;
    }
    k->incoming_end = end;
    k->incoming_epoch = epoch;
    k->snapshot.size = 0;
}

static void take_records(struct kraft *k, struct peer *p, const struct kraft_message *m)
{
    int64_t end;
    size_t size, sets = k->set_count;
    if (m->bytes.size == 0)
        return;
    if (m->offset != k->log_end || lineage_scan(k, m->bytes, k->log_end, k->state.leader_epoch, &end, &size) != 0 ||
        size == 0) {
        p->retry_at = k->now_ms + k->retry_ms; /* cut short or damaged on its way */
        return;
    }
    k->log_end = end;
    kraft_do(k, KRAFT_DO_APPEND)->bytes = slice_make(m->bytes.data, size);
    if (k->set_count != sets)
        kraft_voters_changed(k);
}

void follower_on_fetched(struct kraft *k, struct peer *p, const struct kraft_message *m)
{
    if (k->role == KRAFT_FOLLOWER && m->error == KERR_NOT_LEADER_OR_FOLLOWER && m->from == k->state.leader_id &&
        m->leader < 0) { /* it has resigned, and we were not told */
        kraft_to_unattached(k, k->state.leader_epoch);
        return;
    }
    if (k->role != KRAFT_FOLLOWER || m->error != KERR_NONE || p->id != k->state.leader_id || m->leader != p->id) {
        p->retry_at = k->now_ms + k->retry_ms;
        return;
    }
    hear_leader(k);
    if (m->diverging_end >= 0) {
        truncate(k, m->diverging_epoch, m->diverging_end);
    } else if (m->snapshot_end >= 0) {
        begin_snapshot(k, m->snapshot_end, m->snapshot_epoch);
    } else {
        k->leader_high_watermark = m->high_watermark;
        take_records(k, p, m);
        move_high_watermark(k);
    }
}

/* ---- snapshots ---- */

void follower_drop_snapshot(struct kraft *k)
{
    k->incoming_end = -1;
    buf_free(&k->snapshot);
    k->snapshot = (struct buf){0};
}

static void install(struct kraft *k)
{
    struct kraft_voters *voters = xcalloc(1, sizeof *voters);
    int16_t version = 0;
    bool named = lineage_snapshot_voters(buf_slice(&k->snapshot), voters, &version);
    if (!named) { /* of a static quorum: the configuration's go on */
        *voters = k->sets[0]->voters;
        version = k->sets[0]->kraft_version;
    }
    int64_t end = k->incoming_end;
    lineage_restart(k, end, k->incoming_epoch);
    lineage_add_voters(k, named ? end - 1 : -1, version, voters);
    free(voters);
    struct kraft_action *a = kraft_do(k, KRAFT_DO_INSTALL);
    a->offset = end;
    a->epoch = k->incoming_epoch;
    k->batch.size = 0;
    buf_append(&k->batch, k->snapshot.data, k->snapshot.size); /* lives until the next step */
    a->bytes = buf_slice(&k->batch);
    k->high_watermark = MAX(k->high_watermark, end);
    k->leader_high_watermark = MAX(k->leader_high_watermark, end);
    follower_drop_snapshot(k);
    kraft_voters_changed(k);
    kraft_do(k, KRAFT_DO_COMMIT);
}

void follower_on_snapshot(struct kraft *k, struct peer *p, const struct kraft_message *m)
{
    if (k->role != KRAFT_FOLLOWER || p->id != k->state.leader_id || k->incoming_end < 0)
        return;
    bool fits = m->error == KERR_NONE && m->snapshot_end == k->incoming_end && m->snapshot_epoch == k->incoming_epoch &&
                m->position == (int64_t)k->snapshot.size && m->size <= SNAPSHOT_BYTES_MAX &&
                (int64_t)m->bytes.size <= m->size - m->position;
    if (m->error == KERR_NONE || m->error == KERR_SNAPSHOT_NOT_FOUND)
        hear_leader(k);
    if (!fits || (m->bytes.size == 0 && m->size > m->position)) { /* gone or unreadable: the next Fetch names another */
        follower_drop_snapshot(k);
        p->retry_at = k->now_ms + k->retry_ms;
        return;
    }
    buf_append(&k->snapshot, m->bytes.data, m->bytes.size);
    if ((int64_t)k->snapshot.size < m->size)
        return;
    if (kraft_snapshot_is_whole(buf_slice(&k->snapshot))) {
        install(k);
    } else {
        follower_drop_snapshot(k);
        p->retry_at = k->now_ms + k->retry_ms;
    }
}
