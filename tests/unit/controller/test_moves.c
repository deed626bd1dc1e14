/* test_moves.c - partitions that move from node to node, and leaders that are elected: by request, and by themselves.
 */
#include <stdio.h>

#include "kafka/alter_partition_reassignments.h"
#include "kafka/elect_leaders.h"
#include "kafka/incremental_alter_configs.h"
#include "tests/unit/controller/help.h"

enum { NODES = 4, PREFERRED = 0, UNCLEAN = 1 };

static struct help h;
static int64_t epochs[NODES + 1];
static bool alive[NODES + 1];
static char text[256]; /* of the last answer */

static void open_it(void)
{
    help_open(&h);
    for (int32_t id = 1; id <= NODES; id++) {
        epochs[id] = help_storage(&h, id, 10, -1);
        alive[id] = true;
    }
}

static void close_it(void)
{
    help_close(&h);
}

TestSuite(moves, .init = open_it, .fini = close_it);

/* Time goes by; those that are alive beat. */
static void pass(uint64_t ms)
{
    for (uint64_t left = ms; left > 0;) {
        uint64_t step = left < 4000 ? left : 4000;
        h.now_ms += step;
        left -= step;
        for (int32_t id = 1; id <= NODES; id++)
            if (alive[id])
                help_beat(&h, STORAGE, id, 10, epochs[id], false);
        controller_tick(h.c, h.now_ms);
        help_take(&h);
    }
}

static void lose(int32_t id)
{
    alive[id] = false;
    pass(12000);
    cr_assert(image_broker(controller_image(h.c), id)->fenced);
}

/* The same life is heard of again. */
static void find(int32_t id)
{
    alive[id] = true;
    epochs[id] = help_storage(&h, id, 10, -1);
}

static void note(struct slice message)
{
    snprintf(text, sizeof text, "%.*s", (int)message.size, message.data ? (const char *)message.data : "");
}

/* replicas: what is wanted; NULL: a cancel. */
static enum kafka_error reassign(const char *topic, const char *replicas, bool may_change_count)
{
    struct kafka_alter_partition_reassignments_request q;
    struct kafka_alter_partition_reassignments_request_reassignable_topic t;
    struct kafka_alter_partition_reassignments_request_reassignable_partition part;
    struct kafka_alter_partition_reassignments_response p;
    int32_t ids[8], count = 0;
    kafka_alter_partition_reassignments_request_init(&q);
    wire_init(&kafka_alter_partition_reassignments_request_reassignable_topic_type, &t);
    wire_init(&kafka_alter_partition_reassignments_request_reassignable_partition_type, &part);
    for (const char *at = replicas; at != NULL && *at != 0; at++)
        if (*at != ',')
            ids[count++] = *at - '0';
    part.replicas = ids;
    part.replicas_count = replicas != NULL ? count : -1;
    t.name = slice_str(topic);
    t.partitions = &part;
    t.partitions_count = 1;
    q.topics = &t;
    q.topics_count = 1;
    q.allow_replication_factor_change = may_change_count;
    controller_alter_reassignments(h.c, &q, h.arena, &p);
    help_take(&h);
    note(p.responses[0].partitions[0].error_message);
    return (enum kafka_error)p.responses[0].partitions[0].error_code;
}

static enum kafka_error elect(const char *topic, int32_t partition, int8_t type)
{
    struct kafka_elect_leaders_request q;
    struct kafka_elect_leaders_request_topic_partitions t;
    struct kafka_elect_leaders_response p;
    kafka_elect_leaders_request_init(&q);
    kafka_elect_leaders_request_topic_partitions_init(&t);
    t.topic = slice_str(topic);
    t.partitions = &partition;
    t.partitions_count = 1;
    q.election_type = type;
    q.topic_partitions = &t;
    q.topic_partitions_count = 1;
    controller_elect_leaders(h.c, &q, h.arena, &p);
    help_take(&h);
    note(p.replica_election_results[0].partition_result[0].error_message);
    return (enum kafka_error)p.replica_election_results[0].partition_result[0].error_code;
}

Test(moves, a_replica_moves)
{
    help_create_at(&h, "t", "1:2", NULL, NULL);
    cr_assert_eq(reassign("t", "2,3", true), KERR_NONE);
    help_expect_replicas(&h, "t", "2,3,1 adding 3 removing 1");
    help_expect(&h, "t", "leader 1 epoch 0 isr 1,2 elr - known - state 0");
    const struct image_partition *p = help_partition(&h, "t", 0);
    struct uuid third = {{77, 3}};
    cr_assert(uuid_eq(p->directories[1], third)); /* a node with one directory is known to take that */
    /* The leader is one of those that go: it is told of its end with an error, and the record is there all the same. */
    cr_assert_eq(help_alter_isr(&h, "t", "1,2,3", 0), KERR_NEW_LEADER_ELECTED);
    help_expect_replicas(&h, "t", "2,3 adding - removing -");
    help_expect(&h, "t", "leader 2 epoch 1 isr 2,3 elr - known - state 0");
    p = help_partition(&h, "t", 0);
    cr_assert(p->replica_count == 2 && uuid_eq(p->directories[1], third));
}

Test(moves, the_leader_stays)
{
    help_create_at(&h, "t", "1:2", NULL, NULL);
    cr_assert_eq(reassign("t", "1,3", true), KERR_NONE);
    help_expect_replicas(&h, "t", "1,3,2 adding 3 removing 2");
    cr_assert_eq(help_alter_isr(&h, "t", "1,2,3", 0), KERR_NONE);
    help_expect_replicas(&h, "t", "1,3 adding - removing -");
    help_expect(&h, "t", "leader 1 epoch 1 isr 1,3 elr - known - state 0"); /* the epoch fences replica 2 */
}

/* Not before all that come are in sync. */
Test(moves, two_come)
{
    help_create_at(&h, "t", "1", NULL, NULL);
    cr_assert_eq(reassign("t", "2,3", true), KERR_NONE);
    cr_assert_eq(help_alter_isr(&h, "t", "1,2", 0), KERR_NONE);
    help_expect_replicas(&h, "t", "2,3,1 adding 2,3 removing 1");
    cr_assert_eq(help_alter_isr(&h, "t", "1,2,3", 0), KERR_NEW_LEADER_ELECTED);
    help_expect_replicas(&h, "t", "2,3 adding - removing -");
}

Test(moves, fewer_and_another_order_at_once)
{
    help_create_at(&h, "t", "1:2:3", NULL, NULL);
    cr_assert_eq(reassign("t", "3,1,2", true), KERR_NONE);
    help_expect_replicas(&h, "t", "3,1,2 adding - removing -");
    help_expect(&h, "t", "leader 1 epoch 0 isr 1,2,3 elr - known - state 0");
    cr_assert_eq(reassign("t", "3,2", true), KERR_NONE);
    help_expect_replicas(&h, "t", "3,2 adding - removing -");
    help_expect(&h, "t", "leader 3 epoch 1 isr 2,3 elr - known - state 0");
}

/* The last request counts. */
Test(moves, another_mind)
{
    help_create_at(&h, "t", "1:2", NULL, NULL);
    cr_assert_eq(help_alter_isr(&h, "t", "1", 0), KERR_NONE);
    cr_assert_eq(reassign("t", "2", true), KERR_NONE);
    help_expect_replicas(&h, "t", "2,1 adding - removing 1");
    cr_assert_eq(reassign("t", "1,2", true), KERR_NONE);
    help_expect_replicas(&h, "t", "1,2 adding - removing -");
    cr_assert_eq(reassign("t", "1,2,3", true), KERR_NONE);
    cr_assert_eq(reassign("t", "1,2,3,4", true), KERR_NONE);
    help_expect_replicas(&h, "t", "1,2,3,4 adding 3,4 removing -");
    cr_assert_eq(reassign("t", "1,2,4", true), KERR_NONE);
    help_expect_replicas(&h, "t", "1,2,4,3 adding 4 removing 3");
    cr_assert_eq(help_alter_isr(&h, "t", "1,2,4", 0), KERR_NONE);
    help_expect_replicas(&h, "t", "1,2,4 adding - removing -");
}

Test(moves, cancel)
{
    help_create_at(&h, "t", "1:2", NULL, NULL);
    cr_assert_eq(reassign("t", NULL, true), KERR_NO_REASSIGNMENT_IN_PROGRESS);
    cr_assert_eq(reassign("t", "3,4", true), KERR_NONE);
    help_expect_replicas(&h, "t", "3,4,1,2 adding 3,4 removing 1,2");
    cr_assert_eq(help_alter_isr(&h, "t", "1,2,3", 0), KERR_NONE);
    cr_assert_eq(reassign("t", NULL, true), KERR_NONE);
    help_expect_replicas(&h, "t", "1,2 adding - removing -");
    help_expect(&h, "t", "leader 1 epoch 1 isr 1,2 elr - known - state 0");
}

/* What was there before the move has lost records: only a topic that allows it goes back. */
Test(moves, unclean_cancel)
{
    help_create_at(&h, "t", "1:2", NULL, NULL);
    help_create_at(&h, "u", "1:2", "unclean.leader.election.enable", "true");
    for (int n = 0; n < 2; n++) {
        const char *topic = n == 0 ? "t" : "u";
        cr_assert_eq(reassign(topic, "3,4", true), KERR_NONE);
        cr_assert_eq(help_alter_isr(&h, topic, "1,3", 0), KERR_NONE);
    }
    lose(1);
    help_expect(&h, "t", "leader 3 epoch 1 isr 3 elr - known - state 0");
    cr_assert_eq(reassign("t", NULL, true), KERR_INVALID_REPLICA_ASSIGNMENT);
    cr_assert_str_eq(text, "Unable to revert partition assignment for t:0 because it would require an unclean leader "
                           "election.");
    cr_assert_eq(reassign("u", NULL, true), KERR_NONE);
    help_expect_replicas(&h, "u", "1,2 adding - removing -");
    help_expect(&h, "u", "leader 2 epoch 2 isr 2 elr - known - state 1");
}

Test(moves, what_is_refused)
{
    help_create_at(&h, "t", "1:2", NULL, NULL);
    cr_assert_eq(reassign("nope", "1", true), KERR_UNKNOWN_TOPIC_OR_PARTITION);
    cr_assert_eq(reassign("t", "1,9", true), KERR_INVALID_REPLICA_ASSIGNMENT);
    cr_assert_eq(reassign("t", "1,1", true), KERR_INVALID_REPLICA_ASSIGNMENT);
    cr_assert_eq(reassign("t", "", true), KERR_INVALID_REPLICA_ASSIGNMENT);
    cr_assert_eq(reassign("t", "1,2,3", false), KERR_INVALID_REPLICATION_FACTOR);
    cr_assert_str_eq(text, "The replication factor is changed from 2 to 3");
    cr_assert_eq(reassign("t", "3,4", false), KERR_NONE);
    cr_assert_eq(reassign("t", "4", false), KERR_INVALID_REPLICATION_FACTOR);
    help_expect_replicas(&h, "t", "3,4,1,2 adding 3,4 removing 1,2");
}

/* ---- elections ---- */

Test(moves, preferred_and_unclean_elections)
{
    help_create_at(&h, "t", "1:2", NULL, NULL);
    cr_assert_eq(elect("t", 0, PREFERRED), KERR_ELECTION_NOT_NEEDED);
    lose(1);
    help_expect(&h, "t", "leader 2 epoch 1 isr 2 elr - known - state 0");
    cr_assert_eq(elect("t", 0, PREFERRED), KERR_PREFERRED_LEADER_NOT_AVAILABLE);
    find(1);
    cr_assert_eq(elect("t", 0, PREFERRED), KERR_PREFERRED_LEADER_NOT_AVAILABLE); /* not in sync yet */
    cr_assert_eq(elect("t", 0, UNCLEAN), KERR_ELECTION_NOT_NEEDED);
    cr_assert_eq(help_alter_isr(&h, "t", "1,2", 0), KERR_NONE);
    cr_assert_eq(elect("t", 0, PREFERRED), KERR_NONE);
    help_expect(&h, "t", "leader 1 epoch 2 isr 1,2 elr - known - state 0");
    cr_assert_eq(elect("t", 1, PREFERRED), KERR_UNKNOWN_TOPIC_OR_PARTITION);
    cr_assert_str_eq(text, "No such partition as t-1");
    cr_assert_eq(elect("x", 0, UNCLEAN), KERR_UNKNOWN_TOPIC_OR_PARTITION);
    cr_assert_str_eq(text, "No such topic as x");
    cr_assert_eq(elect("t", 0, 7), KERR_INVALID_REQUEST);
    cr_assert_str_eq(text, "Unknown election type 7");
    cr_assert_eq(help_alter_isr(&h, "t", "1", 0), KERR_NONE);
    lose(1);
    help_expect(&h, "t", "leader -1 epoch 3 isr - elr 1 known 1 state 0");
    cr_assert_eq(elect("t", 0, UNCLEAN), KERR_NONE);
    help_expect(&h, "t", "leader 2 epoch 4 isr 2 elr - known - state 1");
    lose(2);
    cr_assert_eq(elect("t", 0, UNCLEAN), KERR_ELIGIBLE_LEADERS_NOT_AVAILABLE);
}

/* Those that have the leader they want are left out. */
Test(moves, elections_of_all)
{
    struct kafka_elect_leaders_request q;
    struct kafka_elect_leaders_response p;
    help_create_at(&h, "a", "1:2", NULL, NULL);
    help_create_at(&h, "b", "2:1", NULL, NULL);
    lose(1);
    find(1);
    cr_assert_eq(help_alter_isr(&h, "a", "2,1", 0), KERR_NONE);
    kafka_elect_leaders_request_init(&q);
    q.topic_partitions_count = -1;
    controller_elect_leaders(h.c, &q, h.arena, &p);
    cr_assert_eq(help_take(&h), 1);
    cr_assert_eq(p.replica_election_results_count, 2);
    cr_assert_eq(p.replica_election_results[0].partition_result_count, 1);
    cr_assert_eq(p.replica_election_results[0].partition_result[0].error_code, 0);
    cr_assert_eq(p.replica_election_results[1].partition_result_count, 0);
    help_expect(&h, "a", "leader 1 epoch 2 isr 2,1 elr - known - state 0");
}

/* leader.imbalance.check.interval.seconds is 300. */
Test(moves, leaders_go_back_by_themselves)
{
    help_create_at(&h, "t", "1:2", NULL, NULL);
    lose(1);
    find(1);
    cr_assert_eq(help_alter_isr(&h, "t", "1,2", 0), KERR_NONE);
    pass(280000);
    help_expect(&h, "t", "leader 2 epoch 1 isr 1,2 elr - known - state 0");
    pass(10000);
    help_expect(&h, "t", "leader 1 epoch 2 isr 1,2 elr - known - state 0");
}

static void set_unclean(const char *topic)
{
    struct kafka_incremental_alter_configs_request q;
    struct kafka_incremental_alter_configs_request_alter_configs_resource r;
    struct kafka_incremental_alter_configs_request_alterable_config e;
    struct kafka_incremental_alter_configs_response p;
    kafka_incremental_alter_configs_request_init(&q);
    kafka_incremental_alter_configs_request_alter_configs_resource_init(&r);
    kafka_incremental_alter_configs_request_alterable_config_init(&e);
    e.name = SLICE_OF("unclean.leader.election.enable");
    e.value = SLICE_OF("true");
    r.resource_type = IMAGE_TOPIC;
    r.resource_name = slice_str(topic);
    r.configs = &e;
    r.configs_count = 1;
    q.resources = &r;
    q.resources_count = 1;
    controller_alter_configs(h.c, &q, h.arena, &p);
    help_take(&h);
    cr_assert_eq(p.responses[0].error_code, 0);
}

/* A topic that is told to lead with what there is does so within unclean.leader.election.interval.ms, 5 minutes. */
Test(moves, unclean_by_itself)
{
    help_create_at(&h, "t", "1:2", NULL, NULL);
    help_create_at(&h, "u", "1:2", NULL, NULL);
    cr_assert_eq(help_alter_isr(&h, "t", "1", 0), KERR_NONE);
    cr_assert_eq(help_alter_isr(&h, "u", "1", 0), KERR_NONE);
    lose(1);
    set_unclean("u");
    pass(300000);
    help_expect(&h, "t", "leader -1 epoch 1 isr - elr 1 known 1 state 0");
    help_expect(&h, "u", "leader 2 epoch 2 isr 2 elr - known - state 1");
}
