/* elect_leaders.c - ElectLeaders (43), and the elections that nobody asks for: preferred leaders come back to their
 * partitions (auto.leader.rebalance.enable), and partitions without a leader get one that lost records where their
 * topic allows it (unclean.leader.election.enable). As Kafka 4.3's ReplicationControlManager. */
#include "kafka/elect_leaders.h"

#include "libs/controller/internal.h"

enum { ELECTIONS_PER_ROUND = 1000 };

typedef struct kafka_elect_leaders_response_replica_election_result topic_answer;
typedef struct kafka_elect_leaders_response_partition_result partition_answer;

struct electing {
    struct controller *c;
    struct arena *arena;
    enum election kind;
};

static bool is_preferred(const struct image_partition *p)
{
    return p->replica_count > 0 && p->leader == p->replicas[0];
}

static enum kafka_error elect(struct electing *e, struct slice name, int32_t partition, const char **ret_message)
{
    const struct image_topic *t = image_topic_by_name(e->c->image, name);
    const struct image_partition *p = t != NULL ? image_partition(t, partition) : NULL;
    if (t == NULL)
        *ret_message = arena_printf(e->arena, "No such topic as " SLICE_F, SLICE_A(name));
    else if (p == NULL)
        *ret_message = arena_printf(e->arena, "No such partition as " SLICE_F "-%d", SLICE_A(name), partition);
    if (p == NULL)
        return KERR_UNKNOWN_TOPIC_OR_PARTITION;
    if (e->kind == ELECT_PREFERRED ? is_preferred(p) : p->leader >= 0) {
        *ret_message = "Leader election not needed for topic partition.";
        return KERR_ELECTION_NOT_NEEDED;
    }
    if (e->c->record_count >= RECORDS_PER_REQUEST_MAX) {
        *ret_message = "Too many elections in one request.";
        return KERR_POLICY_VIOLATION;
    }
    struct partition_change change = PARTITION_CHANGE;
    change.election = e->kind;
    if (controller_change_partition(e->c, t, p, &change, NULL))
        return KERR_NONE;
    if (e->kind == ELECT_PREFERRED) {
        *ret_message = "The preferred leader was not available.";
        return KERR_PREFERRED_LEADER_NOT_AVAILABLE;
    }
    *ret_message = "Eligible topic partition leaders are not available.";
    return KERR_ELIGIBLE_LEADERS_NOT_AVAILABLE;
}

static void add_partition(topic_answer *to, int32_t partition, enum kafka_error error, const char *message)
{
    partition_answer *row = &to->partition_result[to->partition_result_count++];
    kafka_elect_leaders_response_partition_result_init(row);
    row->partition_id = partition;
    row->error_code = (int16_t)error;
    row->error_message = slice_str(message);
}

static topic_answer *add_topic(struct electing *e, struct kafka_elect_leaders_response *p, struct slice name,
                               int32_t partitions)
{
    topic_answer *to = &p->replica_election_results[p->replica_election_results_count++];
    kafka_elect_leaders_response_replica_election_result_init(to);
    to->topic = name;
    to->partition_result = arena_calloc(e->arena, (size_t)partitions + 1, sizeof *to->partition_result);
    to->partition_result_count = 0;
    return to;
}

/* Of all partitions those are answered whose leader is not the one that is wanted. */
static void elect_all(struct electing *e, struct kafka_elect_leaders_response *p)
{
    int32_t count;
    const struct image_topic *const *topics = image_topics(e->c->image, &count);
    p->replica_election_results = arena_calloc(e->arena, (size_t)count + 1, sizeof *p->replica_election_results);
    for (int32_t i = 0; i < count; i++) {
        topic_answer *to = add_topic(e, p, arena_dup(e->arena, topics[i]->name), topics[i]->partition_count);
        for (int32_t n = 0; n < topics[i]->partition_count; n++) {
            const char *message = NULL;
            enum kafka_error error = elect(e, topics[i]->name, n, &message);
            if (error != KERR_ELECTION_NOT_NEEDED)
                add_partition(to, n, error, message);
        }
    }
}

static void elect_named(struct electing *e, const struct kafka_elect_leaders_request *q,
                        struct kafka_elect_leaders_response *p)
{
    p->replica_election_results =
        arena_calloc(e->arena, (size_t)q->topic_partitions_count + 1, sizeof *p->replica_election_results);
    for (int32_t i = 0; i < q->topic_partitions_count; i++) {
        const struct kafka_elect_leaders_request_topic_partitions *from = &q->topic_partitions[i];
        topic_answer *to = add_topic(e, p, from->topic, from->partitions_count);
        for (int32_t n = 0; n < from->partitions_count; n++) {
            const char *message = NULL;
            enum kafka_error error = KERR_INVALID_REQUEST;
            if (p->error_code == KERR_NONE)
                error = elect(e, from->topic, from->partitions[n], &message);
            else
                message = arena_printf(e->arena, "Unknown election type %d", q->election_type);
            add_partition(to, from->partitions[n], error, message);
        }
    }
}

void controller_elect_leaders(struct controller *c, const struct kafka_elect_leaders_request *q, struct arena *arena,
                              struct kafka_elect_leaders_response *ret_p)
{
    enum { PREFERRED = 0, UNCLEAN = 1 }; /* Kafka's ElectionType */
    struct electing e = {c, arena, q->election_type == UNCLEAN ? ELECT_UNCLEAN : ELECT_PREFERRED};
    kafka_elect_leaders_response_init(ret_p);
    ret_p->replica_election_results_count = 0;
    if (q->election_type != PREFERRED && q->election_type != UNCLEAN)
        ret_p->error_code = KERR_INVALID_REQUEST;
    if (q->topic_partitions_count >= 0)
        elect_named(&e, q, ret_p);
    else if (ret_p->error_code == KERR_NONE)
        elect_all(&e, ret_p);
}

/* ---- by themselves ---- */

/* True: that was one round, and there is more. */
static bool elect_some(struct controller *c, enum election kind)
{
    int32_t count, done = 0;
    const struct image_topic *const *topics = image_topics(c->image, &count);
    for (int32_t i = 0; i < count; i++) {
        struct partition_change change = PARTITION_CHANGE;
        change.election = kind;
        for (int32_t n = 0; n < topics[i]->partition_count; n++) {
            const struct image_partition *p = image_partition(topics[i], n);
            if (kind == ELECT_PREFERRED ? is_preferred(p) : p->leader >= 0)
                continue;
            if (change.min_isr == 0 && kind == ELECT_UNCLEAN && !controller_is_unclean_allowed(c, topics[i]))
                break;
            if (change.min_isr == 0)
                change.min_isr = controller_min_isr(c, topics[i]);
            done += controller_change_partition(c, topics[i], p, &change, NULL);
            if (done >= ELECTIONS_PER_ROUND)
                return true;
        }
    }
    return false;
}

/* When the next is due; a round that was full goes on with the next tick. */
static uint64_t run_when_due(struct controller *c, struct election_timer *t, uint64_t now_ms)
{
    if (now_ms >= t->due_ms)
        t->due_ms = elect_some(c, t->kind) ? now_ms + 1 : now_ms + t->interval_ms;
    return t->due_ms;
}

uint64_t controller_elect_when_due(struct controller *c, uint64_t now_ms)
{
    uint64_t next = UINT64_MAX;
    for (size_t i = 0; i < COUNTOF(c->elections) && c->record_count == 0; i++)
        if (c->elections[i].interval_ms > 0)
            next = MIN(next, run_when_due(c, &c->elections[i], now_ms));
    return c->record_count == 0 ? next : MIN(next, now_ms + 1);
}

void controller_start_elections(struct controller *c, uint64_t now_ms)
{
    uint64_t preferred_ms = (uint64_t)config_long(c->config, "leader.imbalance.check.interval.seconds") * 1000;
    uint64_t unclean_ms = (uint64_t)config_long(c->config, "unclean.leader.election.interval.ms");
    if (!config_bool(c->config, "auto.leader.rebalance.enable"))
        preferred_ms = 0;
    c->elections[0] = (struct election_timer){ELECT_PREFERRED, preferred_ms, now_ms + preferred_ms};
    c->elections[1] = (struct election_timer){ELECT_UNCLEAN, unclean_ms, now_ms + unclean_ms};
}
