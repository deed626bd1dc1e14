/* kraft.c - elections, epochs and the high watermark. */
#include "libs/kraft/kraft.h"

#include <stdlib.h>

#include "kafka/kraft_version_record.h"
#include "kafka/leader_change_message.h"
#include "libs/records/records.h"

struct peer {
    bool granted;    /* its vote in this epoch */
    int64_t flushed; /* as the leader knows it; -1: not known */
};

struct kraft {
    int32_t node_id;
    struct uuid directory_id;
    struct kraft_voters voters;
    struct peer peers[KRAFT_VOTERS_MAX];
    int16_t kraft_version;
    bool log_has_voters;
    enum kraft_role role;
    struct kraft_quorum_state state, saved;
    int64_t log_end, high_watermark;
    int64_t epoch_start; /* of the leader's epoch: nothing is committed before a record of it is (Raft, 5.4.2) */
    struct buf batch;
};

static int32_t own_index(const struct kraft *k)
{
    for (int32_t i = 0; i < k->voters.count; i++)
        if (k->voters.voter[i].id == k->node_id)
            return i;
    return -1;
}

static void kraft_check(const struct kraft *k)
{
    ASSERT(k->high_watermark <= k->log_end);
    ASSERT(k->role != KRAFT_LEADER || k->state.leader_id == k->node_id);
}

int kraft_new(const struct kraft_options *o, struct kraft **ret_kraft)
{
    if (o->voters.count != 1)
        return -ENOTSUP;
    const struct kraft_voter *v = &o->voters.voter[0];
    if (v->id != o->node_id || (!uuid_is_zero(v->directory_id) && !uuid_eq(v->directory_id, o->directory_id)))
        return -EINVAL;
    struct kraft *k = xcalloc(1, sizeof *k);
    k->node_id = o->node_id;
    k->directory_id = o->directory_id;
    k->voters = o->voters;
    k->kraft_version = o->kraft_version;
    k->log_has_voters = o->log_has_voters;
    k->state = o->state;
    k->state.leader_epoch = MAX(o->state.leader_epoch, o->last_epoch);
    k->state.leader_id = -1;
    k->saved = o->state;
    k->log_end = o->log_end;
    k->high_watermark = -1;
    *ret_kraft = k;
    return 0;
}

struct kraft *kraft_free(struct kraft *k)
{
    if (k != NULL)
        buf_free(&k->batch);
    free(k);
    return NULL;
}

/* ---- the first batch of an epoch ---- */

static void add_message(struct kraft *k, struct batch_builder *b, int64_t now_ms, enum control_type type,
                        const struct wire_type *message, const void *m)
{
    struct buf value CLEANUP(buf_free) = {0};
    int error = wire_encode(message, 0, m, &value);
    ASSERT(error == 0 && k->batch.size > 0);
    batch_add_control(b, now_ms, (int16_t)type, buf_slice(&value));
}

static void add_voters(struct kraft *k, struct batch_builder *b, int64_t now_ms)
{
    struct buf value CLEANUP(buf_free) = {0};
    struct kafka_kraft_version_record version = {.kraft_version = k->kraft_version};
    add_message(k, b, now_ms, CONTROL_KRAFT_VERSION, &kafka_kraft_version_record_type, &version);
    kraft_voters_encode(&k->voters, &value);
    batch_add_control(b, now_ms, CONTROL_KRAFT_VOTERS, buf_slice(&value));
}

/* Kafka's first leader after the format also writes down version and voters, which so far only the formatter's
 * checkpoint holds. */
static void write_leader_change(struct kraft *k, int64_t now_ms)
{
    struct kafka_leader_change_message_voter voters[KRAFT_VOTERS_MAX], granting[KRAFT_VOTERS_MAX];
    struct kafka_leader_change_message m = {.leader_id = k->node_id, .voters = voters, .granting_voters = granting};
    for (int32_t i = 0; i < k->voters.count; i++) {
        struct kafka_leader_change_message_voter v = {.voter_id = k->voters.voter[i].id};
        voters[m.voters_count++] = v;
        if (k->peers[i].granted)
            granting[m.granting_voters_count++] = v;
    }
    struct batch_options options = BATCH_OPTIONS;
    options.base_offset = k->log_end;
    options.leader_epoch = k->state.leader_epoch;
    options.attributes = BATCH_ATTR_CONTROL;
    struct batch_builder b;
    k->batch.size = 0;
    batch_begin(&b, &k->batch, &options);
    add_message(k, &b, now_ms, CONTROL_LEADER_CHANGE, &kafka_leader_change_message_type, &m);
    if (!k->log_has_voters && k->kraft_version > 0)
        add_voters(k, &b, now_ms);
    k->log_has_voters = true;
    int error = batch_end(&b);
    ASSERT(error == 0);
}

/* ---- elections ---- */

static bool has_majority(const struct kraft *k)
{
    int32_t granted = 0;
    for (int32_t i = 0; i < k->voters.count; i++)
        granted += k->peers[i].granted;
    return granted > k->voters.count / 2;
}

/* A vote for oneself in a new epoch. When it already decides, what is saved is the leadership: one write instead of
 * two. */
static void elect(struct kraft *k, struct kraft_actions *out)
{
    if (k->role != KRAFT_UNATTACHED)
        return;
    memset(k->peers, 0, sizeof k->peers);
    k->peers[own_index(k)].granted = true;
    k->role = KRAFT_CANDIDATE;
    k->state.leader_epoch++;
    if (has_majority(k)) {
        k->state.leader_id = k->node_id;
        k->state.voted_id = -1;
        k->state.voted_directory_id = UUID_ZERO;
    } else {
        k->state.leader_id = -1;
        k->state.voted_id = k->node_id;
        k->state.voted_directory_id = k->directory_id;
    }
    out->save_state = true;
    out->state = k->state;
}

static void state_saved(struct kraft *k, int64_t now_ms, struct kraft_actions *out)
{
    k->saved = k->state;
    if (k->role != KRAFT_CANDIDATE || k->state.leader_id != k->node_id)
        return;
    k->role = KRAFT_LEADER;
    k->epoch_start = k->log_end;
    for (int32_t i = 0; i < k->voters.count; i++)
        k->peers[i].flushed = -1;
    write_leader_change(k, now_ms);
    out->append = buf_slice(&k->batch);
    out->became_leader = true;
}

/* ---- the high watermark ---- */

static int descending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
}

/* What a majority has flushed. */
static int64_t majority_end(const struct kraft *k)
{
    int64_t ends[KRAFT_VOTERS_MAX];
    for (int32_t i = 0; i < k->voters.count; i++)
        ends[i] = k->peers[i].flushed;
    qsort(ends, (size_t)k->voters.count, sizeof ends[0], descending);
    return ends[k->voters.count / 2];
}

static void flushed(struct kraft *k, int64_t offset, struct kraft_actions *out)
{
    if (k->role != KRAFT_LEADER)
        return;
    struct peer *own = &k->peers[own_index(k)];
    own->flushed = MAX(own->flushed, MIN(offset, k->log_end));
    int64_t end = majority_end(k);
    if (end > k->epoch_start && end > k->high_watermark) {
        k->high_watermark = end;
        out->committed = true;
    }
}

void kraft_step(struct kraft *k, const struct kraft_event *e, struct kraft_actions *ret_actions)
{
    *ret_actions = (struct kraft_actions){0};
    switch (e->kind) {
    case KRAFT_ELECT: elect(k, ret_actions); break;
    case KRAFT_STATE_SAVED: state_saved(k, e->now_wall_ms, ret_actions); break;
    case KRAFT_APPENDED: k->log_end = MAX(k->log_end, e->offset); break;
    case KRAFT_FLUSHED: flushed(k, e->offset, ret_actions); break;
    case KRAFT_RESIGN:
        k->role = KRAFT_UNATTACHED;
        k->state.leader_id = -1;
        break;
    }
    kraft_check(k);
}

enum kraft_role kraft_role(const struct kraft *k)
{
    return k->role;
}

int32_t kraft_epoch(const struct kraft *k)
{
    return k->state.leader_epoch;
}

int32_t kraft_leader(const struct kraft *k)
{
    return k->role == KRAFT_LEADER ? k->node_id : -1;
}

int64_t kraft_log_end(const struct kraft *k)
{
    return k->log_end;
}

int64_t kraft_high_watermark(const struct kraft *k)
{
    return k->high_watermark;
}

const struct kraft_voters *kraft_voters(const struct kraft *k)
{
    return &k->voters;
}
