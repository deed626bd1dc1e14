/* test_brokers.c - several storage nodes that stop, die, come back and are unregistered: the states are those that a
 * Kafka 4.3.1 of three brokers wrote into its metadata log when the same was done to it. */
#include "kafka/alter_partition.h"
#include "tests/unit/controller/help.h"

static struct help h;
static int64_t epochs[4];

static void open_it(void)
{
    help_open(&h);
    for (int32_t id = 1; id <= 3; id++)
        epochs[id] = help_storage(&h, id, 10, -1);
}

static void close_it(void)
{
    help_close(&h);
}

TestSuite(brokers, .init = open_it, .fini = close_it);

static void beat(int32_t id)
{
    help_beat(&h, STORAGE, id, 10, epochs[id], false);
}

/* The session of a node ends, the others beat on. */
static void lose(int32_t id)
{
    for (int n = 0; n < 3; n++) {
        h.now_ms += 4000;
        for (int32_t other = 1; other <= 3; other++)
            if (other != id && image_broker_is_active(controller_image(h.c), other))
                help_beat(&h, STORAGE, other, image_service(controller_image(h.c), STORAGE, other)->incarnation,
                          image_broker(controller_image(h.c), other)->epoch, false);
    }
    controller_tick(h.c, h.now_ms);
    help_take(&h);
    cr_assert(image_broker(controller_image(h.c), id)->fenced);
}

static void stop(int32_t id)
{
    cr_assert_not(help_beat(&h, STORAGE, id, 10, epochs[id], true).should_shut_down);
    for (int32_t other = 1; other <= 3; other++)
        if (other != id && image_broker_is_active(controller_image(h.c), other))
            beat(other);
    cr_assert(help_beat(&h, STORAGE, id, 10, epochs[id], true).should_shut_down);
}

static void create_all(void)
{
    help_create_at(&h, "a", "1:2:3", "min.insync.replicas", "2");
    help_create_at(&h, "b", "2:1", NULL, NULL);
    help_create_at(&h, "c", "2", NULL, NULL);
    help_create_at(&h, "u", "2:3", "unclean.leader.election.enable", "true");
}

Test(brokers, as_a_kafka_of_three)
{
    create_all();
    stop(2);
    help_expect(&h, "a", "leader 1 epoch 0 isr 1,3 elr - known - state 0");
    help_expect(&h, "b", "leader 1 epoch 1 isr 1 elr - known - state 0");
    help_expect(&h, "c", "leader -1 epoch 1 isr - elr 2 known 2 state 0");
    help_expect(&h, "u", "leader 3 epoch 1 isr 3 elr - known - state 0");
    cr_assert_eq(controller_unregister_broker(h.c, 3), KERR_NONE);
    cr_assert_eq(help_take(&h), 4); /* two partitions, the broker, Karst's service */
    cr_assert_null(image_broker(controller_image(h.c), 3));
    help_expect(&h, "a", "leader 1 epoch 0 isr 1 elr 3 known - state 0");
    help_expect(&h, "u", "leader -1 epoch 2 isr - elr 3 known 3 state 0");
    help_storage(&h, 2, 11, epochs[2]);
    help_expect(&h, "c", "leader 2 epoch 2 isr 2 elr - known - state 0");
    help_expect(&h, "u", "leader 2 epoch 3 isr 2 elr - known - state 1");
    cr_assert_eq(help_alter_isr(&h, "a", "1,2", 0), KERR_NONE);
    cr_assert_eq(help_alter_isr(&h, "b", "1,2", 0), KERR_NONE);
    help_expect(&h, "a", "leader 1 epoch 0 isr 1,2 elr - known - state 0");
    lose(2);
    help_expect(&h, "a", "leader 1 epoch 0 isr 1 elr 2 known - state 0");
    help_expect(&h, "b", "leader 1 epoch 1 isr 1 elr - known - state 0");
    help_expect(&h, "c", "leader -1 epoch 3 isr - elr 2 known 2 state 0");
    help_expect(&h, "u", "leader -1 epoch 4 isr - elr 2 known 2 state 1");
    help_register(&h, STORAGE, 2, 12, -1);
    help_expect(&h, "a", "leader 1 epoch 0 isr 1 elr - known - state 0");
    help_expect(&h, "c", "leader -1 epoch 3 isr - elr - known 2 state 0");
    help_storage(&h, 2, 12, -1);
    help_expect(&h, "c", "leader 2 epoch 4 isr 2 elr - known - state 1");
    help_expect(&h, "u", "leader 2 epoch 5 isr 2 elr - known - state 1");
    cr_assert_eq(help_alter_isr(&h, "c", "2", 0), KERR_NONE);
    help_expect(&h, "c", "leader 2 epoch 4 isr 2 elr - known - state 0");
}

/* Nobody who lost records leads unless the topic allows it: a follower out of sync does not, an eligible one does. */
Test(brokers, who_leads_when_the_leader_dies)
{
    help_create_at(&h, "a", "1:2:3", NULL, NULL);
    cr_assert_eq(help_alter_isr(&h, "a", "1", 0), KERR_NONE);
    help_expect(&h, "a", "leader 1 epoch 0 isr 1 elr - known - state 0");
    lose(1);
    help_expect(&h, "a", "leader -1 epoch 1 isr - elr 1 known 1 state 0");
    help_create_at(&h, "e", "2:3", "min.insync.replicas", "2");
    cr_assert_eq(help_alter_isr(&h, "e", "2", 0), KERR_NONE);
    help_expect(&h, "e", "leader 2 epoch 0 isr 2 elr 3 known - state 0");
    lose(2);
    help_expect(&h, "e", "leader 3 epoch 1 isr 3 elr 2 known - state 0");
    help_create_at(&h, "u", "3:1", "unclean.leader.election.enable", "true");
    help_storage(&h, 1, 11, -1);
    help_expect(&h, "a", "leader 1 epoch 2 isr 1 elr - known - state 1");
    help_expect(&h, "u", "leader 3 epoch 0 isr 3 elr - known - state 0");
    lose(3);
    help_expect(&h, "u", "leader 1 epoch 1 isr 1 elr - known - state 1");
}

/* A node that stood still for longer than its session has all that it had: it is eligible as before, and recovers
 * nothing. */
Test(brokers, a_pause_loses_nothing)
{
    help_create_at(&h, "c", "2", NULL, NULL);
    help_create_at(&h, "a", "2:3", "min.insync.replicas", "2");
    lose(2);
    help_expect(&h, "c", "leader -1 epoch 1 isr - elr 2 known 2 state 0");
    help_expect(&h, "a", "leader 3 epoch 1 isr 3 elr 2 known - state 0");
    help_register(&h, STORAGE, 2, 10, -1);
    help_expect(&h, "a", "leader 3 epoch 1 isr 3 elr 2 known - state 0");
    help_storage(&h, 2, 10, -1);
    help_expect(&h, "c", "leader 2 epoch 2 isr 2 elr - known - state 0");
}

/* While one is away who has all records, the last known leader, who lost his, waits for him. */
Test(brokers, the_eligible_one_is_waited_for)
{
    help_create_at(&h, "e", "2:3", "min.insync.replicas", "2");
    lose(3);
    lose(2);
    help_expect(&h, "e", "leader -1 epoch 1 isr - elr 2,3 known 2 state 0");
    help_storage(&h, 2, 11, -1);
    help_expect(&h, "e", "leader -1 epoch 1 isr - elr 3 known 2 state 0");
    help_storage(&h, 3, 10, -1);
    help_expect(&h, "e", "leader 3 epoch 2 isr 3 elr - known - state 0");
}

static struct kafka_alter_partition_request_broker_state states[3];

static enum kafka_error alter(int32_t broker, int64_t broker_epoch, int32_t leader_epoch, int32_t partition_epoch,
                              int32_t isr_count, int8_t recovery)
{
    struct kafka_alter_partition_request q;
    struct kafka_alter_partition_request_topic_data of_topic;
    struct kafka_alter_partition_request_partition_data of_partition;
    struct kafka_alter_partition_response p;
    kafka_alter_partition_request_init(&q);
    kafka_alter_partition_request_topic_data_init(&of_topic);
    kafka_alter_partition_request_partition_data_init(&of_partition);
    of_partition.leader_epoch = leader_epoch;
    of_partition.partition_epoch = partition_epoch;
    of_partition.leader_recovery_state = recovery;
    of_partition.new_isr_with_epochs = states;
    of_partition.new_isr_with_epochs_count = isr_count;
    of_topic.topic_id = image_topic_by_name(controller_image(h.c), SLICE_OF("a"))->id;
    of_topic.partitions = &of_partition;
    of_topic.partitions_count = 1;
    q.broker_id = broker;
    q.broker_epoch = broker_epoch;
    q.topics = &of_topic;
    q.topics_count = 1;
    controller_alter_partition(h.c, &q, h.arena, &p);
    enum kafka_error error =
        (enum kafka_error)(p.error_code != 0 ? p.error_code : p.topics[0].partitions[0].error_code);
    int64_t records = help_take(&h);
    cr_assert_eq(records, 0, "%d left %d records", error, (int)records);
    return error;
}

static void want(int32_t at, int32_t id, int64_t epoch)
{
    kafka_alter_partition_request_broker_state_init(&states[at]);
    states[at].broker_id = id;
    states[at].broker_epoch = epoch;
}

/* The checks in Kafka's order; none leaves a record. */
Test(brokers, what_is_refused_to_a_leader)
{
    help_create_at(&h, "a", "1:2", NULL, NULL);
    want(0, 1, epochs[1]);
    want(1, 2, epochs[2]);
    cr_assert_eq(alter(1, epochs[1] + 1, 0, 0, 2, 0), KERR_STALE_BROKER_EPOCH);
    cr_assert_eq(alter(9, 0, 0, 0, 2, 0), KERR_STALE_BROKER_EPOCH);
    cr_assert_eq(alter(1, epochs[1], 1, 0, 2, 0), KERR_NOT_CONTROLLER);
    cr_assert_eq(alter(1, epochs[1], 0, 1, 2, 0), KERR_NOT_CONTROLLER);
    cr_assert_eq(alter(2, epochs[2], 0, 0, 2, 0), KERR_INVALID_REQUEST);
    cr_assert_eq(alter(1, epochs[1], 0, 0, 2, 0), KERR_NONE); /* as it is */
    cr_assert_eq(alter(1, epochs[1], 0, 0, 0, 0), KERR_INVALID_REQUEST);
    cr_assert_eq(alter(1, epochs[1], 0, 0, 1, 1), KERR_INVALID_REQUEST);
    cr_assert_eq(alter(1, epochs[1], 0, 0, 2, 7), KERR_INVALID_REQUEST);
    want(1, 3, epochs[3]);
    cr_assert_eq(alter(1, epochs[1], 0, 0, 2, 0), KERR_INVALID_REQUEST);
    want(1, 1, epochs[1]);
    cr_assert_eq(alter(1, epochs[1], 0, 0, 2, 0), KERR_INVALID_REQUEST);
    want(1, 2, epochs[2] - 1); /* another life of it */
    cr_assert_eq(alter(1, epochs[1], 0, 0, 2, 0), KERR_INELIGIBLE_REPLICA);
    lose(2);
    want(1, 2, epochs[2]);
    cr_assert_eq(alter(1, epochs[1], 0, 0, 2, 0), KERR_INVALID_UPDATE_VERSION);
    cr_assert_eq(alter(1, epochs[1], 0, 1, 2, 0), KERR_INELIGIBLE_REPLICA);
    help_storage(&h, 2, 11, -1);
    cr_assert_eq(help_alter_isr(&h, "a", "1,2", 0), KERR_NONE);
    lose(1);
    help_expect(&h, "a", "leader 2 epoch 1 isr 2 elr - known - state 0");
    help_storage(&h, 1, 11, -1);
    int64_t epoch = image_broker(controller_image(h.c), 1)->epoch;
    want(0, 1, epoch);
    cr_assert_eq(alter(1, epoch, 0, 2, 1, 0), KERR_FENCED_LEADER_EPOCH);
}

/* One in recovery is alone in the ISR until it has recovered. */
Test(brokers, recovery_comes_before_followers)
{
    help_create_at(&h, "u", "1:2", "unclean.leader.election.enable", "true");
    cr_assert_eq(help_alter_isr(&h, "u", "1", 0), KERR_NONE);
    lose(1);
    help_expect(&h, "u", "leader 2 epoch 1 isr 2 elr - known - state 1");
    help_storage(&h, 1, 11, -1);
    cr_assert_eq(help_alter_isr(&h, "u", "1,2", 1), KERR_INVALID_REQUEST);
    cr_assert_eq(help_alter_isr(&h, "u", "2,1", 0), KERR_NONE);
    help_expect(&h, "u", "leader 2 epoch 1 isr 2,1 elr - known - state 0");
}

/* A second node that calls itself 1 and has another disk is no next life of the first. */
Test(brokers, a_twin_with_other_directories)
{
    struct slice address = SLICE_OF("ipc:///run/y");
    struct uuid dir = {{88, 1}};
    struct controller_registration r = {.role = STORAGE,
                                        .id = 1,
                                        .incarnation = 99,
                                        .addresses = &address,
                                        .address_count = 1,
                                        .log_dirs = &dir,
                                        .log_dir_count = 1,
                                        .previous_epoch = -1};
    int64_t epoch;
    const char *message;
    cr_assert_eq(controller_register(h.c, &r, h.now_ms, &epoch, &message), KERR_DUPLICATE_BROKER_REGISTRATION);
    cr_assert_eq(help_take(&h), 0);
    beat(1);
    lose(1);
    cr_assert_eq(controller_register(h.c, &r, h.now_ms, &epoch, &message), KERR_NONE);
    help_take(&h);
}

/* A build that does not understand what is finalized stays out; and nothing is finalized that a node does not
 * understand. */
Test(brokers, features_of_other_builds)
{
    struct slice address = SLICE_OF("ipc:///run/y");
    struct uuid dir = {{88, 4}};
    struct image_feature features[] = {{SLICE_OF("metadata.version"), 7, 29}, {SLICE_OF("group.version"), 0, 1}};
    struct controller_registration r = {.role = STORAGE,
                                        .id = 4,
                                        .incarnation = 99,
                                        .addresses = &address,
                                        .address_count = 1,
                                        .log_dirs = &dir,
                                        .log_dir_count = 1,
                                        .features = features,
                                        .feature_count = 2,
                                        .previous_epoch = -1};
    int64_t epoch;
    const char *message;
    cr_assert_eq(controller_register(h.c, &r, h.now_ms, &epoch, &message), KERR_UNSUPPORTED_VERSION);
    cr_assert_str_eq(message, "Unable to register because the broker does not support finalized version 1 of "
                              "eligible.leader.replicas.version. The broker wants a version between 0 and 0, "
                              "inclusive.");
    cr_assert_eq(help_take(&h), 0);
    help_finalize(&h, "share.version", 0, NULL);
    struct image_feature most[] = {
        {SLICE_OF("metadata.version"), 7, 30},   {SLICE_OF("eligible.leader.replicas.version"), 0, 1},
        {SLICE_OF("group.version"), 0, 1},       {SLICE_OF("streams.version"), 0, 1},
        {SLICE_OF("transaction.version"), 0, 2}, {SLICE_OF("kraft.version"), 0, 1}};
    r.features = most;
    r.feature_count = 6;
    cr_assert_eq(controller_register(h.c, &r, h.now_ms, &epoch, &message), KERR_NONE, "%s", message);
    help_take(&h);
    cr_assert_eq(image_broker(controller_image(h.c), 4)->feature_count, 6);
    help_finalize(&h, "share.version", 1,
                  "The update failed for all features since the following feature had an error: Invalid update version "
                  "1 for feature share.version. Broker 4 does not support this feature.");
}

/* A live one that was unregistered hears so with its next heartbeat; its replicas stay listed. */
Test(brokers, unregistered_alive)
{
    help_create_at(&h, "a", "1:2:3", NULL, NULL);
    cr_assert_eq(controller_unregister_broker(h.c, 77), KERR_BROKER_ID_NOT_REGISTERED);
    cr_assert_eq(controller_unregister_broker(h.c, 1), KERR_NONE);
    help_take(&h);
    help_expect(&h, "a", "leader 2 epoch 1 isr 2,3 elr - known - state 0");
    help_expect_replicas(&h, "a", "1,2,3 adding - removing -");
    struct controller_heartbeat b = {.role = STORAGE, .id = 1, .incarnation = 10, .epoch = epochs[1]};
    struct controller_heartbeat_answer answer;
    cr_assert_eq(controller_heartbeat(h.c, &b, h.now_ms, &answer), KERR_BROKER_ID_NOT_REGISTERED);
    cr_assert_gt(help_storage(&h, 1, 10, -1), epochs[1]);
    cr_assert_eq(help_alter_isr(&h, "a", "1,2,3", 0), KERR_NONE);
}

/* ---- full directories ---- */

/* The number of records that the heartbeat leaves; full: whether it names the node's one directory. */
static int64_t beat_full(int32_t id, bool full)
{
    struct uuid dir = {{77, (uint8_t)id}};
    struct controller_heartbeat q = {
        .role = STORAGE, .id = id, .incarnation = 10, .epoch = epochs[id], .full_dirs = &dir, .full_dir_count = full};
    struct controller_heartbeat_answer a;
    int64_t records = help_heartbeat(&h, q, &a);
    cr_assert_not(a.is_fenced);
    return records;
}

/* What it leads and follows: others lead, and it is out of sync; what nobody else has stays. */
Test(brokers, a_full_disk_gives_way)
{
    create_all();
    cr_assert_eq(beat_full(2, true), 3);
    help_expect(&h, "a", "leader 1 epoch 0 isr 1,3 elr - known - state 0");
    help_expect(&h, "b", "leader 1 epoch 1 isr 1 elr - known - state 0");
    help_expect(&h, "c", "leader 2 epoch 0 isr 2 elr - known - state 0");
    help_expect(&h, "u", "leader 3 epoch 1 isr 3 elr - known - state 0");
    cr_assert_eq(beat_full(2, true), 0);
    cr_assert(image_broker_is_active(controller_image(h.c), 2));
}

/* Its leaders see it read up to the end, but it is in sync only when it has room; what it is in sync of already may be
 * said again. */
Test(brokers, a_full_disk_is_in_sync_when_it_has_room)
{
    create_all();
    beat_full(2, true);
    cr_assert_eq(help_alter_isr(&h, "a", "1,2,3", 0), KERR_INELIGIBLE_REPLICA);
    cr_assert_eq(help_alter_isr(&h, "c", "2", 0), KERR_NONE);
    cr_assert_eq(beat_full(2, false), 0);
    cr_assert_eq(help_alter_isr(&h, "a", "1,2,3", 0), KERR_NONE);
    help_expect(&h, "a", "leader 1 epoch 0 isr 1,2,3 elr - known - state 0");
}

/* With too few in sync what it has still counts: it is eligible, and leads where nobody else is left. */
Test(brokers, a_full_disk_stays_eligible)
{
    help_create_at(&h, "m", "1:2", "min.insync.replicas", "2");
    cr_assert_eq(beat_full(1, true), 1);
    help_expect(&h, "m", "leader 2 epoch 1 isr 2 elr 1 known - state 0");
    lose(2);
    help_expect(&h, "m", "leader 1 epoch 2 isr 1 elr 2 known - state 0");
}

/* Where nobody with room is in sync it stays, until there is one. */
Test(brokers, full_disks_wait_for_somebody_with_room)
{
    help_create_at(&h, "m", "1:2", NULL, NULL);
    cr_assert_eq(beat_full(1, true), 1);
    help_expect(&h, "m", "leader 2 epoch 1 isr 2 elr - known - state 0");
    cr_assert_eq(beat_full(2, true), 0);
    help_expect(&h, "m", "leader 2 epoch 1 isr 2 elr - known - state 0");
    cr_assert_eq(beat_full(1, false), 0);
    cr_assert_eq(help_alter_isr(&h, "m", "2,1", 0), KERR_NONE);
    help_expect(&h, "m", "leader 2 epoch 1 isr 2,1 elr - known - state 0");
    cr_assert_eq(beat_full(2, true), 1);
    help_expect(&h, "m", "leader 1 epoch 2 isr 1 elr - known - state 0");
}

/* A next life has to say so itself. */
Test(brokers, a_next_life_is_not_full_unless_it_says_so)
{
    create_all();
    beat_full(2, true);
    epochs[2] = help_storage(&h, 2, 11, epochs[2]);
    cr_assert_eq(help_alter_isr(&h, "a", "1,2,3", 0), KERR_NONE);
}
