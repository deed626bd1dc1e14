/* Three replicas and a controller in one process, steps at random: appends, Reads that get lost or are answered late,
 * images that come late, kills, elections among the ISR. After each step what was acknowledged is in the log of whoever
 * the controller has as leader; at the end all logs are the same. */
#include "libs/log/epochs.h"
#include "libs/replica/replica.h"
#include <criterion/criterion.h>
#include <stdlib.h>

enum { NODES = 3, LOG_MAX = 4000, LAG_MS = 300, STEPS = 60000, ACKED_MAX = 1 << 16, LATE_MAX = 8 };

struct entry {
    int32_t epoch, value;
};

struct node {
    bool alive;
    struct entry log[LOG_MAX];
    int64_t end, high_watermark, checkpoint;
    struct epochs epochs;
    struct replica_core *core;
    int seen; /* the version of the metadata */
    int64_t broker_epoch;
    uint64_t read_ms;
    int64_t wait_end; /* records taken with acks=all and not answered: [wait_from, wait_end) */
    int64_t wait_from;
    struct replica_event late[LATE_MAX]; /* answers to its Reads that are still on their way */
    struct entry late_entry[LATE_MAX];
    int late_count;
    struct replica_member proposed[NODES];
    int32_t proposed_count;
    uint64_t proposed_id;
    int32_t proposed_epoch, proposed_version;
};

/* The controller's history of the partition: a node may see an older state. */
struct version {
    int32_t leader, leader_epoch, isr[NODES], isr_count;
};

static struct {
    struct node node[NODES];
    struct replica_broker broker[NODES];
    struct version version[STEPS + 1];
    int newest;
    uint64_t now_ms;
    int32_t value, min_isr;
    struct entry acked[LOG_MAX];
    int64_t acked_end, acked_total;
    int64_t next_broker_epoch;
    uint64_t random;
    int elections, cuts;
} w;

static uint32_t below(uint32_t n)
{
    w.random = w.random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(w.random >> 33) % n;
}

static bool broker_of(void *ctx UNUSED, int32_t id, struct replica_broker *ret)
{
    *ret = w.broker[id];
    return true;
}

static uint64_t last_read_of(void *ctx, int32_t id)
{
    (void)ctx;
    return w.node[id].read_ms;
}

static struct replica_log log_of(const struct node *n)
{
    return (struct replica_log){.start = 0,
                                .end = n->end,
                                .high_watermark = n->high_watermark,
                                .safe_end = n->end,
                                .latest_epoch = epochs_latest(&n->epochs)};
}

static void put(struct node *n, struct entry e)
{
    cr_assert_lt(n->end, LOG_MAX);
    epochs_assign(&n->epochs, e.epoch, n->end);
    n->log[n->end++] = e;
}

static void step(struct node *n, struct replica_event e);

/* The leader's high watermark has passed them: they are promised. */
static void acknowledge(struct node *n)
{
    while (n->wait_from < n->wait_end && n->wait_from < n->high_watermark) {
        int64_t at = n->wait_from++;
        if (replica_acknowledge(n->core) != KERR_NONE)
            continue;
        for (; w.acked_end <= at; w.acked_end++)
            w.acked[w.acked_end].epoch = -1;
        w.acked[at] = n->log[at];
        w.acked_total++;
    }
}

static void cut(struct node *n, int64_t to)
{
    w.cuts += to < n->end;
    n->end = MIN(n->end, to);
    n->high_watermark = MIN(n->high_watermark, n->end);
    epochs_truncate_end(&n->epochs, n->end);
    step(n, (struct replica_event){.kind = REPLICA_CUT});
}

static void take_action(struct node *n, const struct replica_action *a, const struct entry *told)
{
    switch (a->kind) {
    case REPLICA_DO_LEAD: epochs_begin(&n->epochs, a->leader_epoch, n->end); break;
    case REPLICA_DO_FOLLOW:
    case REPLICA_DO_REST: break;
    case REPLICA_DO_END_WAITS: n->wait_from = n->wait_end = 0; break;
    case REPLICA_DO_HIGH_WATERMARK:
        cr_assert_gt(a->offset, n->high_watermark);
        n->high_watermark = a->offset;
        if (replica_role(n->core) == REPLICA_LEADER)
            acknowledge(n);
        break;
    case REPLICA_DO_ALTER:
        memcpy(n->proposed, a->isr, (size_t)a->isr_count * sizeof *a->isr);
        n->proposed_count = a->isr_count;
        n->proposed_id = a->id;
        n->proposed_epoch = a->leader_epoch;
        n->proposed_version = a->partition_epoch;
        break;
    case REPLICA_DO_APPEND:
        put(n, *told);
        step(n, (struct replica_event){.kind = REPLICA_WRITTEN});
        break;
    case REPLICA_DO_TRUNCATE: cut(n, a->offset); break;
    case REPLICA_DO_RESTART:
    case REPLICA_DO_LOG_START: cr_assert_fail("no log starts anywhere but at 0"); break;
    }
}

static void step_with(struct node *n, struct replica_event e, const struct entry *told)
{
    struct replica_actions out;
    e.now_ms = w.now_ms;
    e.log = log_of(n);
    replica_step(n->core, &e, &out);
    for (size_t i = 0; i < out.count; i++)
        take_action(n, &out.at[i], told);
    struct replica_log log = log_of(n);
    replica_check(n->core, &log);
}

static void step(struct node *n, struct replica_event e)
{
    step_with(n, e, NULL);
}

/* ---- the controller ---- */

static struct version *newest(void)
{
    return &w.version[w.newest];
}

static struct version *next_version(void)
{
    w.version[w.newest + 1] = *newest();
    return &w.version[++w.newest];
}

static bool has(const struct version *v, int32_t id)
{
    for (int32_t i = 0; i < v->isr_count; i++) {
        if (v->isr[i] == id)
            return true;
    }
    return false;
}

/* A fenced node leaves the ISR unless it is the last; a leader is elected among it. */
static void elect(bool force)
{
    struct version v = *newest(), *to;
    int32_t kept = 0;
    for (int32_t i = 0; i < v.isr_count; i++) {
        if (!w.broker[v.isr[i]].fenced)
            v.isr[kept++] = v.isr[i];
    }
    if (kept > 0)
        v.isr_count = kept;
    bool leads = v.leader >= 0 && !w.broker[v.leader].fenced && has(&v, v.leader);
    if (!leads || force) {
        int32_t chosen = v.isr[below((uint32_t)v.isr_count)];
        v.leader = w.broker[chosen].fenced ? -1 : chosen;
    }
    if (v.leader == newest()->leader && v.isr_count == newest()->isr_count && !force)
        return;
    to = next_version();
    v.leader_epoch = to->leader_epoch + (v.leader != to->leader || force);
    w.elections++;
    *to = v;
}

static enum kafka_error alter(const struct node *n, int32_t id)
{
    const struct version *v = newest();
    if (v->leader != id || n->proposed_epoch != v->leader_epoch)
        return KERR_FENCED_LEADER_EPOCH;
    if (n->proposed_version != w.newest)
        return KERR_INVALID_UPDATE_VERSION;
    for (int32_t i = 0; i < n->proposed_count; i++) {
        const struct replica_member *m = &n->proposed[i];
        if (w.broker[m->id].fenced ||
            (m->id != id && m->broker_epoch != -1 && m->broker_epoch != w.broker[m->id].epoch))
            return KERR_INELIGIBLE_REPLICA;
    }
    struct version *to = next_version();
    to->isr_count = n->proposed_count;
    for (int32_t i = 0; i < n->proposed_count; i++)
        to->isr[i] = n->proposed[i].id;
    return KERR_NONE;
}

static void send_proposal(struct node *n)
{
    int32_t id = (int32_t)(n - w.node);
    if (n->proposed_count == 0)
        return;
    enum kafka_error error = alter(n, id);
    n->proposed_count = 0;
    const struct version v = *newest();
    if (below(8) == 0) /* the answer is lost, and it is sent again */
        error = KERR_NETWORK_EXCEPTION;
    step(n, (struct replica_event){.kind = REPLICA_ALTERED,
                                   .error = error,
                                   .id = n->proposed_id,
                                   .leader_epoch = v.leader_epoch,
                                   .partition_epoch = w.newest,
                                   .isr = v.isr,
                                   .isr_count = v.isr_count});
}

/* ---- the nodes ---- */

static void see(struct node *n, int version)
{
    static const int32_t all[NODES] = {0, 1, 2};
    const struct version v = w.version[version];
    const struct replica_state s = {.leader = v.leader,
                                    .leader_epoch = v.leader_epoch,
                                    .partition_epoch = version,
                                    .replicas = all,
                                    .replica_count = NODES,
                                    .isr = v.isr,
                                    .isr_count = v.isr_count};
    n->seen = version;
    step(n, (struct replica_event){.kind = REPLICA_STATE, .state = &s});
}

static void start(struct node *n)
{
    int32_t id = (int32_t)(n - w.node);
    const struct replica_env env = {.node_id = id, .broker = broker_of, .last_read_ms = last_read_of};
    n->alive = true;
    n->core = replica_new(&env);
    replica_configure(n->core, w.min_isr, LAG_MS, 100);
    n->high_watermark = MIN(n->checkpoint, n->end);
    epochs_drop_idle(&n->epochs, n->end);
    n->broker_epoch = ++w.next_broker_epoch;
    w.broker[id] = (struct replica_broker){.epoch = n->broker_epoch};
    see(n, w.newest);
}

static void kill_node(struct node *n)
{
    n->core = replica_free(n->core);
    n->alive = false;
    n->wait_from = n->wait_end = 0;
    n->late_count = 0;
    n->proposed_count = 0;
}

static void produce(struct node *n)
{
    if (replica_role(n->core) != REPLICA_LEADER || replica_may_append(n->core, -1) != KERR_NONE ||
        n->end >= LOG_MAX - 1)
        return;
    if (n->wait_from == n->wait_end)
        n->wait_from = n->end;
    put(n, (struct entry){replica_leader_epoch(n->core), ++w.value});
    n->wait_end = n->end;
    step(n, (struct replica_event){.kind = REPLICA_APPENDED});
}

/* What the leader says to the Read of a follower. */
static void answer_read(struct node *leader, int32_t follower, struct replica_event *to, struct entry *records)
{
    const struct node *f = &w.node[follower];
    int32_t epoch = epochs_latest(&f->epochs);
    enum kafka_error error = replica_role(leader->core) != REPLICA_LEADER            ? KERR_NOT_LEADER_OR_FOLLOWER
                             : to->leader_epoch < replica_leader_epoch(leader->core) ? KERR_FENCED_LEADER_EPOCH
                             : to->leader_epoch > replica_leader_epoch(leader->core) ? KERR_UNKNOWN_LEADER_EPOCH
                                                                                     : KERR_NONE;
    if (error == KERR_NONE)
        error = replica_check_follower(leader->core, follower, f->broker_epoch);
    to->error = error;
    to->leader_start = 0;
    to->leader_end = leader->end;
    to->leader_high_watermark = leader->high_watermark;
    if (error != KERR_NONE)
        return;
    if (epoch >= 0) {
        int32_t found;
        int64_t end;
        epochs_end_of(&leader->epochs, epoch, leader->end, &found, &end);
        if (found < 0 || end < 0) {
            to->error = KERR_OFFSET_OUT_OF_RANGE;
            return;
        }
        if (found < epoch || end < to->offset) {
            to->diverging_epoch = found;
            to->diverging_end = end;
            return;
        }
    }
    if (to->offset > leader->end) {
        to->error = KERR_OFFSET_OUT_OF_RANGE;
        return;
    }
    step(leader,
         (struct replica_event){
             .kind = REPLICA_FETCHED, .follower = follower, .offset = to->offset, .broker_epoch = f->broker_epoch});
    to->has_records = to->offset < leader->end;
    to->first_offset = to->last_offset = to->offset;
    if (to->has_records)
        *records = leader->log[to->offset];
    to->leader_high_watermark = leader->high_watermark;
}

static void hear(struct node *n, struct replica_event e, struct entry records)
{
    if (e.diverging_epoch >= 0)
        epochs_end_of(&n->epochs, e.diverging_epoch, n->end, &e.own_epoch, &e.own_end);
    step_with(n, e, &records);
}

static void read_from_leader(struct node *n)
{
    int32_t id = (int32_t)(n - w.node), leader = replica_leader(n->core);
    step(n, (struct replica_event){.kind = REPLICA_TICK});
    if (!replica_reads(n->core) || !w.node[leader].alive || below(10) == 0)
        return;
    struct replica_event e = {.kind = REPLICA_TOLD,
                              .id = replica_past(n->core),
                              .leader_epoch = replica_leader_epoch(n->core),
                              .offset = n->end,
                              .diverging_epoch = -1,
                              .diverging_end = -1,
                              .own_epoch = -1,
                              .own_end = -1};
    struct entry records = {0};
    n->read_ms = w.now_ms;
    answer_read(&w.node[leader], id, &e, &records);
    if (below(6) == 0 && n->late_count < LATE_MAX) {
        n->late[n->late_count] = e;
        n->late_entry[n->late_count++] = records;
    } else if (below(10) != 0) {
        hear(n, e, records);
    }
}

static void hear_late(struct node *n)
{
    if (n->late_count == 0)
        return;
    int i = --n->late_count;
    hear(n, n->late[i], n->late_entry[i]);
}

/* ---- what has to hold ---- */

static void check_world(void)
{
    const struct version *v = newest();
    for (int32_t i = 0; i < v->isr_count; i++) {
        const struct node *n = &w.node[v->isr[i]];
        for (int64_t at = MAX(w.acked_end - 40, (int64_t)0); at < w.acked_end; at++) {
            if (w.acked[at].epoch >= 0)
                cr_assert(at < n->end && n->log[at].value == w.acked[at].value,
                          "acknowledged at %ld: %d, node %d of the ISR ends at %ld", (long)at, w.acked[at].value,
                          v->isr[i], (long)n->end);
        }
    }
}

static void random_step(void)
{
    struct node *n = &w.node[below(NODES)];
    uint32_t what = below(1000);
    w.now_ms += below(4);
    if (!n->alive) {
        if (what < 60)
            start(n);
        else if (what < 300 && !w.broker[n - w.node].fenced) {
            w.broker[n - w.node].fenced = true;
            elect(false);
        } else if (what < 400) {
            elect(false);
        }
        return;
    }
    if (what < 100)
        produce(n);
    else if (what < 700)
        read_from_leader(n);
    else if (what < 750)
        hear_late(n);
    else if (what < 850)
        see(n, MIN(n->seen + 1 + (int)below(2), w.newest));
    else if (what < 900)
        send_proposal(n);
    else if (what < 950)
        step(n, (struct replica_event){.kind = REPLICA_TICK});
    else if (what < 980)
        n->checkpoint = n->high_watermark;
    else if (what < 983)
        kill_node(n);
    else if (what < 986)
        elect(true);
    else if (what < 988)
        elect(false);
}

static void settle(void)
{
    for (int i = 0; i < NODES; i++) {
        if (!w.node[i].alive)
            start(&w.node[i]);
    }
    elect(false);
    for (int round = 0; round < 3 * LOG_MAX; round++) {
        w.now_ms += 100;
        for (int i = 0; i < NODES; i++) {
            see(&w.node[i], w.newest);
            read_from_leader(&w.node[i]);
            send_proposal(&w.node[i]);
            step(&w.node[i], (struct replica_event){.kind = REPLICA_TICK});
        }
    }
}

static void run(uint64_t seed, int32_t min_isr)
{
    memset(&w, 0, sizeof w);
    w.random = seed;
    w.min_isr = min_isr;
    w.now_ms = 1000;
    w.version[0] = (struct version){.leader = 0, .leader_epoch = 0, .isr = {0, 1, 2}, .isr_count = 3};
    for (int i = 0; i < NODES; i++)
        start(&w.node[i]);
    for (int i = 0; i < STEPS && w.newest < STEPS - NODES; i++) {
        random_step();
        check_world();
    }
    settle();
    for (int i = 0; i < NODES; i++) {
        struct node *n = &w.node[i];
        cr_assert_eq(n->end, w.node[0].end, "seed %lu: node %d ends at %ld, node 0 at %ld", (unsigned long)seed, i,
                     (long)n->end, (long)w.node[0].end);
        cr_assert_eq(memcmp(n->log, w.node[0].log, (size_t)n->end * sizeof *n->log), 0);
        cr_assert_eq(n->high_watermark, n->end);
    }
    for (int64_t at = 0; at < w.acked_end; at++)
        cr_assert(w.acked[at].epoch < 0 || w.acked[at].value == w.node[0].log[at].value);
    cr_assert_eq(newest()->isr_count, NODES);
    cr_assert_gt(w.acked_total, 100);
    cr_assert_gt(w.elections, 20);
    for (int i = 0; i < NODES; i++) {
        kill_node(&w.node[i]);
        epochs_free(&w.node[i].epochs);
    }
}

Test(cluster, nothing_acknowledged_is_lost_while_the_isr_elects)
{
    int cuts = 0;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        run(seed, 1 + (int32_t)(seed % 2));
        cuts += w.cuts;
    }
    cr_assert_gt(cuts, 100);
}
