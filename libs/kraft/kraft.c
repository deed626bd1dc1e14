/* kraft.c - events, roles and timers. kraft.h has the diagram; the function behind each transition:
 *
 *   kraft_to_unattached  kraft_to_follower  kraft_to_resigned  here
 *   election_prospective, and become_candidate                 election.c
 *   leader_begin                                               leader.c
 */
#include <stdlib.h>

#include "libs/kraft/kraft_internal.h"

enum {
    ELECTION_MS = 1000,
    FETCH_MS = 2000,
    BACKOFF_MAX_MS = 1000,
    RETRY_MS = 20,
    REQUEST_MS = 2000,
    FETCH_BYTES = 1 << 20,
    TURNS_MAX = 8, /* roles that one step may pass through */
};

/* Of sets of its own epoch: those before may be committed without its knowing yet. */
static bool has_one_change(const struct kraft *k)
{
    int open = 0;
    for (size_t i = 0; i < k->set_count; i++)
        open += k->sets[i]->offset >= MAX(k->epoch_start, k->high_watermark);
    return open <= 1;
}

void kraft_check(const struct kraft *k)
{
    ASSERT(k->role != KRAFT_LEADER || has_one_change(k));                              /* I6 */
    ASSERT(k->high_watermark <= k->flushed && k->flushed <= k->log_end);               /* I2 */
    ASSERT(k->role != KRAFT_LEADER || k->state.leader_id == k->node_id);               /* I4 */
    ASSERT(k->role != KRAFT_LEADER || lineage_last_epoch(k) == k->state.leader_epoch); /* I3 */
    ASSERT(k->role != KRAFT_FOLLOWER || (k->state.leader_id >= 0 && k->state.leader_id != k->node_id));
    ASSERT(lineage_last_epoch(k) <= k->state.leader_epoch);     /* I1 */
    ASSERT(memcmp(&k->state, &k->saved, sizeof k->state) == 0); /* I1 */
    ASSERT(k->set_count > 0 && k->parked_count <= PARKED_MAX && k->peer_count <= PEERS_MAX);
    for (size_t i = 1; i < k->epoch_count; i++) /* I5 */
        ASSERT(k->epochs[i - 1].epoch < k->epochs[i].epoch && k->epochs[i - 1].start < k->epochs[i].start);
}

/* ---- small things ---- */

uint64_t kraft_random_below(struct kraft *k, uint64_t n)
{
    k->random ^= k->random << 13;
    k->random ^= k->random >> 7;
    k->random ^= k->random << 17;
    return n == 0 ? 0 : (k->random >> 11) % n;
}

bool kraft_same_replica(int32_t id, struct uuid directory_id, int32_t other, struct uuid other_directory)
{
    return id == other &&
           (uuid_is_zero(directory_id) || uuid_is_zero(other_directory) || uuid_eq(directory_id, other_directory));
}

struct kraft_action *kraft_do(struct kraft *k, enum kraft_action_kind kind)
{
    if (k->action_count == k->action_room) {
        k->action_room = k->action_room * 2 + 16;
        k->actions = xrealloc(k->actions, k->action_room * sizeof *k->actions);
    }
    struct kraft_action *a = &k->actions[k->action_count++];
    memset(a, 0, sizeof *a);
    a->kind = kind;
    a->to = -1;
    a->message.diverging_end = a->message.snapshot_end = -1;
    a->message.high_watermark = a->message.log_start = -1;
    return a;
}

void kraft_halt(struct kraft *k, const char *text)
{
    kraft_do(k, KRAFT_DO_HALT)->text = text;
}

void kraft_save(struct kraft *k)
{
    if (memcmp(&k->state, &k->saved, sizeof k->state) == 0)
        return;
    k->saved = k->state;
    kraft_do(k, KRAFT_DO_SAVE)->state = k->state;
}

static void sign(const struct kraft *k, struct kraft_message *m, enum kraft_message_kind kind)
{
    m->kind = kind;
    m->from = k->node_id;
    m->from_directory = k->directory_id;
    m->epoch = k->state.leader_epoch;
    m->leader = kraft_leader(k);
}

struct kraft_message *kraft_reply(struct kraft *k, enum kraft_message_kind kind, uint64_t id, enum kafka_error error)
{
    struct kraft_action *a = kraft_do(k, KRAFT_DO_REPLY);
    a->id = id;
    a->message.error = error;
    sign(k, &a->message, kind);
    return &a->message;
}

struct kraft_message *kraft_ask(struct kraft *k, struct peer *p, enum kraft_message_kind kind)
{
    if (p->request != 0 || k->now_ms < p->retry_at)
        return NULL;
    struct kraft_action *a = kraft_do(k, KRAFT_DO_SEND);
    p->request = a->id = ++k->last_request;
    p->asked = kind;
    a->to = p->id;
    a->timeout_ms = k->request_ms;
    sign(k, &a->message, kind);
    a->message.to_directory = p->directory_id;
    return &a->message;
}

/* ---- peers ---- */

struct peer *kraft_peer(struct kraft *k, int32_t id, struct uuid directory_id)
{
    for (size_t i = 0; i < k->peer_count; i++)
        if (kraft_same_replica(k->peers[i].id, k->peers[i].directory_id, id, directory_id))
            return &k->peers[i];
    return NULL;
}

static bool has_voter(const struct kraft_voters *v, int32_t id, struct uuid directory_id)
{
    for (int32_t i = 0; i < v->count; i++)
        if (kraft_same_replica(v->voter[i].id, v->voter[i].directory_id, id, directory_id))
            return true;
    return false;
}

bool kraft_is_voter_key(const struct kraft *k, int32_t id, struct uuid directory_id)
{
    return has_voter(kraft_voters(k), id, directory_id);
}

bool kraft_may_lead(const struct kraft *k)
{
    for (size_t i = 0; i < k->set_count; i++)
        if (has_voter(&k->sets[i]->voters, k->node_id, k->directory_id))
            return true;
    return false;
}

/* Full: the observer that has been silent longest makes room; voters stay. */
static struct peer *room_for_peer(struct kraft *k)
{
    struct peer *oldest = NULL;
    if (k->peer_count < PEERS_MAX)
        return &k->peers[k->peer_count++];
    for (size_t i = 0; i < k->peer_count; i++) {
        struct peer *p = &k->peers[i];
        if (!kraft_is_voter_key(k, p->id, p->directory_id) &&
            (oldest == NULL || p->last_fetch_ms < oldest->last_fetch_ms))
            oldest = p;
    }
    ASSERT(oldest != NULL); /* PEERS_MAX > KRAFT_VOTERS_MAX */
    return oldest;
}

struct peer *kraft_add_peer(struct kraft *k, int32_t id, struct uuid directory_id)
{
    struct peer *p = kraft_peer(k, id, directory_id);
    if (p == NULL) {
        p = room_for_peer(k);
        *p = (struct peer){.id = id, .directory_id = directory_id, .end = -1};
    } else if (uuid_is_zero(p->directory_id)) {
        p->directory_id = directory_id; /* it was known by its number alone */
    }
    return p;
}

void kraft_voters_changed(struct kraft *k)
{
    const struct kraft_voters *v = kraft_voters(k);
    for (int32_t i = 0; i < v->count; i++)
        if (v->voter[i].id != k->node_id)
            kraft_add_peer(k, v->voter[i].id, v->voter[i].directory_id);
    if (k->role == KRAFT_UNATTACHED && k->deadline == UINT64_MAX && kraft_may_lead(k))
        k->deadline = kraft_election_deadline(k);
}

/* ---- roles ---- */

/* What was asked in a role means nothing in the next one: its answer finds no request. */
void kraft_leave_role(struct kraft *k)
{
    if (k->role == KRAFT_LEADER) {
        change_end(k, KERR_NOT_LEADER_OR_FOLLOWER);
        kraft_do(k, KRAFT_DO_UNLEAD);
    }
    for (size_t i = 0; i < k->peer_count; i++) {
        k->peers[i].request = 0;
        k->peers[i].retry_at = 0;
        k->peers[i].vote = VOTE_UNASKED;
        k->peers[i].told = false;
    }
    k->lost = k->fetched = k->claimed = false;
    follower_drop_snapshot(k);
}

uint64_t kraft_election_deadline(struct kraft *k)
{
    return k->now_ms + k->election_ms + kraft_random_below(k, k->election_ms);
}

uint64_t kraft_fetch_deadline(struct kraft *k)
{
    return k->now_ms + k->fetch_ms + kraft_random_below(k, k->fetch_ms / 4);
}

/* Of a higher epoch, or of the same after an election that led to nothing. */
void kraft_to_unattached(struct kraft *k, int32_t epoch)
{
    ASSERT(epoch >= k->state.leader_epoch);
    enum kraft_role before = k->role;
    kraft_leave_role(k);
    if (epoch > k->state.leader_epoch)
        k->state = (struct kraft_quorum_state){.leader_id = -1, .leader_epoch = epoch, .voted_id = -1};
    k->role = KRAFT_UNATTACHED;
    if (!kraft_may_lead(k))
        k->deadline = UINT64_MAX;
    else if (before != KRAFT_UNATTACHED || k->deadline == UINT64_MAX) /* an election goes on waiting as it did */
        k->deadline = kraft_election_deadline(k);
    kraft_save(k);
    if (before == KRAFT_LEADER)
        leader_end_parked(k);
}

void kraft_to_follower(struct kraft *k, int32_t epoch, int32_t leader)
{
    ASSERT(epoch >= k->state.leader_epoch && leader != k->node_id && leader >= 0);
    bool led = k->role == KRAFT_LEADER;
    kraft_leave_role(k);
    if (epoch > k->state.leader_epoch)
        k->state = (struct kraft_quorum_state){.leader_epoch = epoch, .voted_id = -1};
    k->state.leader_id = leader;
    k->role = KRAFT_FOLLOWER;
    k->deadline = kraft_fetch_deadline(k);
    k->losses = 0;
    kraft_save(k);
    if (led)
        leader_end_parked(k);
    if (kraft_peer(k, leader, UUID_ZERO) == NULL)
        kraft_add_peer(k, leader, UUID_ZERO);
}

/* The state still names us as the leader of this epoch: nobody else gets our vote in it. */
void kraft_to_resigned(struct kraft *k)
{
    bool led = k->role == KRAFT_LEADER;
    kraft_leave_role(k);
    k->role = KRAFT_RESIGNED;
    k->deadline = kraft_election_deadline(k);
    kraft_save(k);
    if (led)
        leader_end_parked(k);
}

/* A leader that was given up is followed again only when it says itself that it leads: the others may not have heard
 * yet. */
bool kraft_learn(struct kraft *k, const struct kraft_message *m)
{
    if (m->epoch < k->state.leader_epoch)
        return false;
    bool knows = m->leader >= 0 && m->leader != k->node_id;
    if (knows && (m->epoch > k->state.leader_epoch || k->state.leader_id < 0))
        kraft_to_follower(k, m->epoch, m->leader);
    else if (m->epoch > k->state.leader_epoch)
        kraft_to_unattached(k, m->epoch);
    else if (knows && m->leader == k->state.leader_id && m->from == m->leader && k->role == KRAFT_UNATTACHED)
        kraft_to_follower(k, m->epoch, m->leader);
    return true;
}

/* ---- a life ---- */

static void take_options(struct kraft *k, const struct kraft_options *o)
{
    k->node_id = o->node_id;
    k->directory_id = o->directory_id;
    k->election_ms = o->election_ms ? o->election_ms : ELECTION_MS;
    k->fetch_ms = o->fetch_ms ? o->fetch_ms : FETCH_MS;
    k->backoff_max_ms = o->backoff_max_ms ? o->backoff_max_ms : BACKOFF_MAX_MS;
    k->retry_ms = o->retry_ms ? o->retry_ms : RETRY_MS;
    k->request_ms = o->request_ms ? o->request_ms : REQUEST_MS;
    k->fetch_bytes = o->fetch_bytes ? o->fetch_bytes : FETCH_BYTES;
    k->snapshot_bytes = o->snapshot_bytes ? o->snapshot_bytes : FETCH_BYTES;
    k->auto_join = o->auto_join;
    k->self = o->self;
    k->update_self = o->update_self;
    k->self.id = o->node_id;
    k->self.directory_id = o->directory_id;
    k->random = o->seed | 1;
    k->now_ms = o->now_ms;
    k->log_start = o->log_start;
    k->log_end = k->flushed = o->log_end;
    k->high_watermark = k->leader_high_watermark = -1;
    k->snapshot_end = o->snapshot_end;
    k->snapshot_epoch = o->snapshot_epoch;
    k->incoming_end = -1;
    k->state = o->state;
}

static void start(struct kraft *k)
{
    int32_t last = lineage_last_epoch(k);
    if (last > k->state.leader_epoch) /* the file is older than the log: it was copied, or is lost */
        k->state = (struct kraft_quorum_state){.leader_id = -1, .leader_epoch = last, .voted_id = -1};
    k->saved = k->state;
    kraft_voters_changed(k);
    k->role = KRAFT_UNATTACHED;
    k->deadline = UINT64_MAX;
    if (!kraft_may_lead(k))
        return;
    k->deadline = kraft_election_deadline(k);
    if (k->state.leader_id == k->node_id)
        k->role = KRAFT_RESIGNED;
    if (kraft_voters(k)->count == 1 && kraft_is_voter(k)) {
        k->role = KRAFT_UNATTACHED;
        k->deadline = k->now_ms;
    }
}

int kraft_new(const struct kraft_options *o, struct kraft **ret_kraft)
{
    if (o->voters.count > KRAFT_VOTERS_MAX || o->other_count > PEERS_MAX / 2)
        return -EINVAL;
    for (size_t i = 1; i < o->epoch_count; i++)
        if (o->epochs[i].epoch <= o->epochs[i - 1].epoch || o->epochs[i].start <= o->epochs[i - 1].start)
            return -EINVAL;
    struct kraft *k = xcalloc(1, sizeof *k);
    take_options(k, o);
    for (size_t i = 0; i < o->epoch_count; i++)
        lineage_add_epoch(k, o->epochs[i].epoch, o->epochs[i].start);
    lineage_add_voters(k, o->log_has_voters ? MAX(o->snapshot_end - 1, 0) : -1, o->kraft_version, &o->voters);
    for (size_t i = 0; i < o->other_count; i++)
        if (o->others[i] != o->node_id)
            kraft_add_peer(k, o->others[i], UUID_ZERO);
    start(k);
    kraft_check(k);
    *ret_kraft = k;
    return 0;
}

int kraft_replay(struct kraft *k, struct slice batches)
{
    struct batch b;
    int64_t end;
    size_t size;
    if (batches.size == 0)
        return 0;
    if (batch_read_header(batches, &b) != 0 || b.base_offset > k->log_end)
        return -EBADMSG;
    int error = lineage_scan(k, batches, b.base_offset, k->state.leader_epoch, &end, &size);
    if (error == 0 && (end > k->log_end || size != batches.size))
        error = -EBADMSG;
    if (error == 0)
        start(k);
    return error;
}

struct kraft *kraft_free(struct kraft *k)
{
    if (k == NULL)
        return NULL;
    for (size_t i = 0; i < k->set_count; i++)
        free(k->sets[i]);
    free(k->sets);
    free(k->epochs);
    free(k->actions);
    buf_free(&k->batch);
    buf_free(&k->snapshot);
    free(k);
    return NULL;
}

/* ---- events ---- */

static void request(struct kraft *k, const struct kraft_event *e)
{
    const struct kraft_message *m = e->message;
    if (m->epoch < 0 || m->epoch == INT32_MAX) {
        kraft_reply(k, m->kind, e->id, KERR_INVALID_REQUEST);
        return;
    }
    switch (m->kind) {
    case KRAFT_VOTE: election_on_request(k, e->id, m); break;
    case KRAFT_BEGIN_EPOCH: follower_on_begin(k, e->id, m); break;
    case KRAFT_END_EPOCH: follower_on_end(k, e->id, m); break;
    case KRAFT_FETCH: leader_on_fetch(k, e->id, m); break;
    case KRAFT_FETCH_SNAPSHOT: leader_on_fetch_snapshot(k, e->id, m); break;
    case KRAFT_ADD_VOTER:
    case KRAFT_REMOVE_VOTER:
    case KRAFT_UPDATE_VOTER:
    case KRAFT_UPGRADE: change_on_request(k, e->id, m); break;
    }
}

static struct peer *asked(struct kraft *k, uint64_t id)
{
    for (size_t i = 0; i < k->peer_count; i++)
        if (k->peers[i].request == id && id != 0)
            return &k->peers[i];
    return NULL;
}

static void failed(struct kraft *k, uint64_t id)
{
    struct peer *p = asked(k, id);
    if (p == NULL)
        return;
    p->request = 0;
    p->retry_at = k->now_ms + k->retry_ms;
}

static void response(struct kraft *k, const struct kraft_event *e)
{
    const struct kraft_message *m = e->message;
    struct peer *p = asked(k, e->id);
    if (p == NULL || p->asked != m->kind)
        return; /* of a role that is over */
    if (m->epoch < 0 || m->epoch == INT32_MAX) {
        failed(k, e->id);
        return;
    }
    p->request = 0;
    p->retry_at = 0;
    int32_t epoch = k->state.leader_epoch;
    enum kraft_role role = k->role;
    if (!kraft_learn(k, m) || k->state.leader_epoch != epoch || k->role != role)
        return;
    switch (m->kind) {
    case KRAFT_VOTE: election_on_response(k, p, m); break;
    case KRAFT_BEGIN_EPOCH:
    case KRAFT_END_EPOCH:
        p->told = m->error == KERR_NONE;
        p->retry_at = k->now_ms + k->retry_ms;
        break;
    case KRAFT_FETCH: follower_on_fetched(k, p, m); break;
    case KRAFT_FETCH_SNAPSHOT: follower_on_snapshot(k, p, m); break;
    case KRAFT_UPDATE_VOTER: k->claimed = m->error == KERR_NONE; break;
    case KRAFT_ADD_VOTER:
    case KRAFT_REMOVE_VOTER:
    case KRAFT_UPGRADE: break; /* the log tells how it ended */
    }
}

static void flushed(struct kraft *k, int64_t offset)
{
    k->flushed = MAX(k->flushed, MIN(offset, k->log_end));
    if (k->role == KRAFT_LEADER)
        leader_flushed(k);
    else
        follower_flushed(k);
}

static void appended(struct kraft *k, int64_t offset)
{
    ASSERT(k->role == KRAFT_LEADER && offset >= k->log_end);
    k->log_end = offset;
}

static void took_snapshot(struct kraft *k, const struct kraft_event *e)
{
    ASSERT(e->offset <= k->high_watermark && e->start <= e->offset);
    k->snapshot_end = e->offset;
    k->snapshot_epoch = e->epoch;
    k->log_start = MAX(k->log_start, e->start);
}

static void lost_leader(struct kraft *k, int32_t node)
{
    if (k->role == KRAFT_FOLLOWER && k->state.leader_id == node)
        k->deadline = k->now_ms;
}

static void resign(struct kraft *k)
{
    if (k->role == KRAFT_LEADER)
        kraft_to_resigned(k);
}

/* What is due in a role, and in the next one when that ends it. */
static void pump(struct kraft *k)
{
    enum kraft_role before;
    int turns = 0;
    do {
        before = k->role;
        switch (k->role) {
        case KRAFT_UNATTACHED:
            if (k->now_ms >= k->deadline && kraft_may_lead(k))
                election_prospective(k);
            else
                follower_discover(k);
            break;
        case KRAFT_PROSPECTIVE:
        case KRAFT_CANDIDATE: election_pump(k); break;
        case KRAFT_LEADER: leader_pump(k); break;
        case KRAFT_FOLLOWER: follower_pump(k); break;
        case KRAFT_RESIGNED: leader_resigned_pump(k); break;
        }
    } while (k->role != before && ++turns < TURNS_MAX);
}

struct kraft_actions kraft_step(struct kraft *k, const struct kraft_event *e)
{
    k->action_count = 0;
    k->now_ms = MAX(k->now_ms, e->now_ms);
    k->now_wall_ms = e->now_wall_ms;
    switch (e->kind) {
    case KRAFT_TICK: break;
    case KRAFT_APPENDED: appended(k, e->offset); break;
    case KRAFT_FLUSHED: flushed(k, e->offset); break;
    case KRAFT_REQUEST: request(k, e); break;
    case KRAFT_GONE: leader_gone(k, e->id); break;
    case KRAFT_RESPONSE: response(k, e); break;
    case KRAFT_FAILED: failed(k, e->id); break;
    case KRAFT_SNAPSHOT: took_snapshot(k, e); break;
    case KRAFT_LOST: lost_leader(k, e->node); break;
    case KRAFT_RESIGN: resign(k); break;
    }
    if (e->kind != KRAFT_APPENDED)
        pump(k);
    kraft_check(k);
    return (struct kraft_actions){k->actions, k->action_count};
}

uint64_t kraft_deadline(const struct kraft *k)
{
    uint64_t at = k->deadline;
    for (size_t i = 0; i < k->peer_count; i++)
        if (k->peers[i].request == 0 && k->peers[i].retry_at > k->now_ms)
            at = MIN(at, k->peers[i].retry_at);
    for (size_t i = 0; i < k->parked_count; i++)
        at = MIN(at, k->parked[i].deadline);
    if (k->role == KRAFT_LEADER && kraft_voters(k)->count > 1)
        at = MIN(at, k->now_ms + k->fetch_ms / 4);
    return at;
}
