/* test_log_dirs.c - storage nodes with several directories: the records are those that a Kafka 4.3.1 wrote when the
 * same was done to it. */
#include "tests/unit/controller/help.h"

#include "kafka/alter_partition_reassignments.h"
#include "kafka/assign_replicas_to_dirs.h"
#include "kafka/create_partitions.h"

static const struct uuid dirs[3] = {{{77, 1}}, {{77, 2}}, {{77, 3}}};
static struct help h;
static int64_t epoch;

static int64_t register_with(const struct uuid *list, int32_t count, uint64_t incarnation, int64_t previous_epoch)
{
    struct slice address = SLICE_OF("ipc:///run/x");
    struct slice paths[] = {SLICE_OF("/a"), SLICE_OF("/b"), SLICE_OF("/c")};
    struct controller_registration r = {.role = STORAGE,
                                        .id = 1,
                                        .incarnation = incarnation,
                                        .host = SLICE_OF("h"),
                                        .version = SLICE_OF("0"),
                                        .addresses = &address,
                                        .address_count = 1,
                                        .log_dirs = list,
                                        .log_dir_count = count,
                                        .log_dir_paths = paths,
                                        .log_dir_path_count = 3,
                                        .previous_epoch = previous_epoch};
    int64_t ret = -1;
    const char *message = NULL;
    cr_assert_eq(controller_register(h.c, &r, h.now_ms, &ret, &message), KERR_NONE, "%s", message);
    help_take(&h);
    return ret;
}

/* Of node 1, with what else it says: the number of records that the heartbeat leaves. */
static int64_t beat_of(struct controller_heartbeat b)
{
    struct controller_heartbeat_answer a;
    b.role = STORAGE;
    b.id = 1;
    b.epoch = epoch;
    return help_heartbeat(&h, b, &a);
}

static int64_t beat(uint64_t incarnation, const struct uuid *offline, int32_t offline_count,
                    const struct uuid *cordoned, int32_t cordoned_count)
{
    return beat_of((struct controller_heartbeat){.incarnation = incarnation,
                                                 .offline_dirs = offline,
                                                 .offline_dir_count = offline_count,
                                                 .cordoned_dirs = cordoned,
                                                 .cordoned_dir_count = cordoned_count});
}

static const struct image_broker *broker(void)
{
    return image_broker(controller_image(h.c), 1);
}

static void open_it(void)
{
    help_open(&h);
    epoch = register_with(dirs, 3, 11, -1);
    cr_assert_eq(beat(11, NULL, 0, NULL, 0), 1);
    cr_assert_eq(help_create(&h, "t", 3, 1)->error_code, 0);
}

static void close_it(void)
{
    help_close(&h);
}

TestSuite(log_dirs, .init = open_it, .fini = close_it);

/* One partition of t; the error of its row, or of the whole. */
static int assign(int64_t broker_epoch, struct uuid topic, int32_t partition, struct uuid dir)
{
    struct kafka_assign_replicas_to_dirs_request_partition_data p = {.partition_index = partition};
    struct kafka_assign_replicas_to_dirs_request_topic_data t = {
        .topic_id = topic, .partitions = &p, .partitions_count = 1};
    struct kafka_assign_replicas_to_dirs_request_directory_data d = {.id = dir, .topics = &t, .topics_count = 1};
    struct kafka_assign_replicas_to_dirs_request q = {
        .broker_id = 1, .broker_epoch = broker_epoch, .directories = &d, .directories_count = 1};
    struct kafka_assign_replicas_to_dirs_response r;
    controller_assign_dirs(h.c, &q, h.arena, &r);
    if (r.error_code != 0)
        return r.error_code;
    cr_assert(uuid_eq(r.directories[0].id, dir));
    return r.directories[0].topics[0].partitions[0].error_code;
}

static struct uuid topic_id(void)
{
    return image_topic_by_name(controller_image(h.c), SLICE_OF("t"))->id;
}

static void assign_all(void)
{
    for (int32_t n = 0; n < 3; n++)
        cr_assert_eq(assign(epoch, topic_id(), n, dirs[n]), KERR_NONE);
    cr_assert_eq(help_take(&h), 3);
}

static void expect(int32_t partition, int32_t leader, int32_t leader_epoch, int32_t isr, int32_t elr, int32_t last)
{
    const struct image_partition *p = help_partition(&h, "t", partition);
    cr_assert_eq(p->leader, leader, "%d: leader %d", partition, p->leader);
    cr_assert_eq(p->leader_epoch, leader_epoch, "%d: epoch %d", partition, p->leader_epoch);
    cr_assert(p->isr_count == isr && p->elr_count == elr && p->last_known_elr_count == last);
}

Test(log_dirs, new_replicas_are_unassigned_until_their_node_says_where)
{
    cr_assert(uuid_eq(help_partition(&h, "t", 1)->directories[0], UUID_DIR_UNASSIGNED));
    assign_all();
    cr_assert(uuid_eq(help_partition(&h, "t", 1)->directories[0], dirs[1]));
    cr_assert_eq(help_partition(&h, "t", 1)->partition_epoch, 1);
    cr_assert_eq(assign(epoch, topic_id(), 1, dirs[1]), KERR_NONE); /* nothing new */
    cr_assert_eq(help_take(&h), 0);
    cr_assert_eq(assign(epoch, topic_id(), 1, dirs[2]), KERR_NONE);
    cr_assert_eq(help_take(&h), 1);
    expect(1, 1, 0, 1, 0, 0);
}

Test(log_dirs, assignments_that_cannot_be)
{
    cr_assert_eq(assign(epoch + 1, topic_id(), 0, dirs[0]), KERR_STALE_BROKER_EPOCH);
    cr_assert_eq(assign(epoch, (struct uuid){{5}}, 0, dirs[0]), KERR_UNKNOWN_TOPIC_ID);
    cr_assert_eq(assign(epoch, topic_id(), 3, dirs[0]), KERR_UNKNOWN_TOPIC_OR_PARTITION);
    cr_assert_eq(help_take(&h), 0);
}

Test(log_dirs, a_failed_directory_takes_only_its_partitions)
{
    assign_all();
    cr_assert_eq(beat(11, &dirs[2], 1, NULL, 0), 2); /* the partition, the registration */
    expect(0, 1, 0, 1, 0, 0);
    expect(2, -1, 1, 0, 1, 1);
    cr_assert_not(broker()->fenced);
    cr_assert_eq(broker()->log_dir_count, 2);
    cr_assert_eq(beat(11, &dirs[2], 1, NULL, 0), 0); /* known */
    cr_assert_not(image_replica_is_online(controller_image(h.c), help_partition(&h, "t", 2), 1));
    cr_assert(image_replica_is_online(controller_image(h.c), help_partition(&h, "t", 1), 1));
    cr_assert_eq(beat(11, &dirs[1], 2, NULL, 0), 2);
    expect(1, -1, 1, 0, 1, 1);
    cr_assert_eq(help_create(&h, "u", 1, 1)->error_code, 0); /* the one directory left is known at once */
    cr_assert(uuid_eq(help_partition(&h, "u", 0)->directories[0], dirs[0]));
    cr_assert_eq(beat(11, dirs, 3, NULL, 0), 3); /* all: the node itself */
    cr_assert(broker()->fenced);
}

/* It comes back with a life that has it; one that has not leaves it as it is. */
Test(log_dirs, a_directory_comes_back)
{
    assign_all();
    beat(11, &dirs[2], 1, NULL, 0);
    epoch = register_with(dirs, 2, 12, epoch);
    cr_assert_eq(beat(12, NULL, 0, NULL, 0), 3);
    expect(1, 1, 2, 1, 0, 0);
    expect(2, -1, 1, 0, 1, 1);
    epoch = register_with(dirs, 3, 13, epoch);
    beat(13, NULL, 0, NULL, 0);
    expect(2, 1, 2, 1, 0, 0);
}

/* A replica that its node says to have in a directory that is gone has no leader. */
Test(log_dirs, assigned_to_a_lost_directory)
{
    assign_all();
    beat(11, &dirs[2], 1, NULL, 0);
    cr_assert_eq(assign(epoch, topic_id(), 0, dirs[2]), KERR_NONE);
    help_take(&h);
    expect(0, -1, 1, 0, 1, 1);
    cr_assert_eq(assign(epoch, topic_id(), 0, dirs[1]), KERR_NONE);
    help_take(&h);
    expect(0, 1, 2, 1, 0, 0);
}

static int64_t beat_full(const struct uuid *full, int32_t full_count, const struct uuid *offline, int32_t offline_count)
{
    return beat_of((struct controller_heartbeat){.incarnation = 11,
                                                 .offline_dirs = offline,
                                                 .offline_dir_count = offline_count,
                                                 .full_dirs = full,
                                                 .full_dir_count = full_count});
}

/* Of three topics, in a directory each, that node 4 has, too, and of t, that nobody else has. */
Test(log_dirs, a_full_directory_takes_only_its_partitions)
{
    static const char *const names[] = {"x", "y", "z"};
    assign_all();
    help_storage(&h, 4, 99, -1);
    for (int i = 0; i < 3; i++) {
        help_create_at(&h, names[i], "1:4", NULL, NULL);
        cr_assert_eq(assign(epoch, image_topic_by_name(controller_image(h.c), slice_str(names[i]))->id, 0, dirs[i]),
                     KERR_NONE);
        help_take(&h);
    }
    cr_assert_eq(beat_full(&dirs[1], 1, NULL, 0), 1);
    help_expect(&h, "x", "leader 1 epoch 0 isr 1,4 elr - known - state 0");
    help_expect(&h, "y", "leader 4 epoch 1 isr 4 elr - known - state 0");
    help_expect(&h, "z", "leader 1 epoch 0 isr 1,4 elr - known - state 0");
    expect(1, 1, 0, 1, 0, 0);
    cr_assert_eq(beat_full(dirs, 2, NULL, 0), 1);
    help_expect(&h, "x", "leader 4 epoch 1 isr 4 elr - known - state 0");
    /* What one heartbeat says of a failure comes first, and of a full one with the next. */
    cr_assert_eq(beat_full(&dirs[2], 1, dirs, 1), 2);
    help_expect(&h, "z", "leader 1 epoch 0 isr 1,4 elr - known - state 0");
    cr_assert_eq(beat_full(&dirs[2], 1, dirs, 1), 1);
    help_expect(&h, "z", "leader 4 epoch 1 isr 4 elr - known - state 0");
}

static int grow(int32_t count, const char **ret_message)
{
    struct kafka_create_partitions_request_create_partitions_topic t;
    struct kafka_create_partitions_request q = {.topics = &t, .topics_count = 1};
    struct kafka_create_partitions_response r;
    kafka_create_partitions_request_create_partitions_topic_init(&t);
    t.name = SLICE_OF("t");
    t.count = count;
    t.assignments_count = -1;
    controller_create_partitions(h.c, &q, h.arena, &r);
    help_take(&h);
    *ret_message = arena_str(h.arena, r.results[0].error_message);
    return r.results[0].error_code;
}

Test(log_dirs, cordoned)
{
    const char *message;
    cr_assert_eq(beat(11, NULL, 0, dirs, 2), 1);
    cr_assert_eq(broker()->cordoned_log_dir_count, 2);
    cr_assert_eq(beat(11, NULL, 0, dirs, 2), 0);
    cr_assert_eq(help_create(&h, "u", 1, 1)->error_code, 0);
    cr_assert_eq(beat(11, NULL, 0, dirs, 3), 1);
    const struct kafka_create_topics_response_creatable_topic_result *r = help_create(&h, "v", 1, 1);
    cr_assert_eq(r->error_code, KERR_INVALID_REPLICATION_FACTOR);
    cr_assert(slice_eq_str(r->error_message, "Unable to replicate the partition 1 time(s): All brokers are currently "
                                             "fenced, or have all their log directories cordoned."));
    cr_assert_eq(grow(4, &message), KERR_INVALID_REPLICATION_FACTOR);
    cr_assert_str_eq(message, "All brokers are currently fenced, or have all their log directories cordoned.");
    cr_assert_eq(beat(11, NULL, 0, NULL, 0), 1);
    cr_assert_eq(broker()->cordoned_log_dir_count, 0);
    cr_assert_eq(grow(4, &message), KERR_NONE);
}

/* Whose directories they are is what the node said, not what is in the controller's file. */
Test(log_dirs, cordoned_by_path)
{
    const char *message;
    help_storage(&h, 4, 99, -1); /* names no path */
    cr_assert_eq(help_alter_broker(&h, "1", "cordoned.log.dirs", "/b,/c", &message), KERR_NONE);
    cr_assert_eq(help_alter_broker(&h, "1", "cordoned.log.dirs", "*", &message), KERR_NONE);
    cr_assert_eq(help_alter_broker(&h, "1", "cordoned.log.dirs", "/b,/d", &message), KERR_INVALID_REQUEST);
    cr_assert_str_eq(message, "requirement failed: All entries in cordoned.log.dirs must be present in log.dirs or "
                              "log.dir. Missing entries : /d");
    cr_assert_eq(help_alter_broker(&h, "4", "cordoned.log.dirs", "/b", &message), KERR_INVALID_REQUEST);
}

Test(log_dirs, keys_without_effect_are_refused)
{
    const char *message;
    cr_assert_eq(help_alter_broker(&h, "1", "num.io.threads", "9", &message), KERR_INVALID_CONFIG);
    cr_assert_str_eq(message,
                     "Karst does not honour num.io.threads yet: nothing but the value that it has is possible");
    cr_assert_eq(help_alter_broker(&h, "1", "num.io.threads", "8", &message), KERR_NONE);
    cr_assert_eq(help_alter_broker(&h, "1", "leader.replication.throttled.rate", "9", &message), KERR_NONE);
    cr_assert_eq(help_alter_broker(&h, "", "log.retention.ms", "9", &message), KERR_NONE);
}

static int reassign_of(const char *topic, int32_t partition, const int32_t *replicas, int32_t count,
                       const char **ret_message)
{
    struct kafka_alter_partition_reassignments_request_reassignable_partition p = {
        .partition_index = partition, .replicas = (int32_t *)(uintptr_t)replicas, .replicas_count = count};
    struct kafka_alter_partition_reassignments_request_reassignable_topic t = {
        .name = slice_str(topic), .partitions = &p, .partitions_count = 1};
    struct kafka_alter_partition_reassignments_request q = {.topics = &t, .topics_count = 1};
    struct kafka_alter_partition_reassignments_response r;
    controller_alter_reassignments(h.c, &q, h.arena, &r);
    struct slice text = r.responses[0].partitions[0].error_message;
    *ret_message = slice_is_null(text) ? "" : arena_str(h.arena, text);
    return r.responses[0].partitions[0].error_code;
}

static int reassign(int32_t partition, const int32_t *replicas, int32_t count, const char **ret_message)
{
    return reassign_of("t", partition, replicas, count, ret_message);
}

Test(log_dirs, reassignments)
{
    const char *message;
    cr_assert_eq(reassign(0, (int32_t[]){1}, 1, &message), KERR_NONE);
    cr_assert_eq(help_take(&h), 0);
    cr_assert_eq(reassign(0, NULL, -1, &message), KERR_NO_REASSIGNMENT_IN_PROGRESS);
    cr_assert_str_eq(message, "");
    cr_assert_eq(reassign(9, (int32_t[]){1}, 1, &message), KERR_UNKNOWN_TOPIC_OR_PARTITION);
    cr_assert_str_eq(message, "Unable to find partition t:9.");
    cr_assert_eq(reassign(0, NULL, 0, &message), KERR_INVALID_REPLICA_ASSIGNMENT);
    cr_assert_str_eq(message, "The manual partition assignment includes an empty replica list.");
    cr_assert_eq(reassign(0, (int32_t[]){2}, 1, &message), KERR_INVALID_REPLICA_ASSIGNMENT);
    cr_assert_str_eq(message, "The manual partition assignment includes broker 2, but no such broker is registered.");
    cr_assert_eq(help_take(&h), 0);
}

/* The same replicas in another order are done at once. */
Test(log_dirs, a_new_order)
{
    const char *message;
    help_storage(&h, 4, 99, -1);
    cr_assert_eq(help_create(&h, "u", 1, 2)->error_code, 0);
    struct image_partition before = *help_partition(&h, "u", 0);
    int32_t turned[2] = {before.replicas[1], before.replicas[0]};
    struct uuid dirs_turned[2] = {before.directories[1], before.directories[0]};
    cr_assert_eq(reassign_of("u", 0, turned, 2, &message), KERR_NONE);
    cr_assert_eq(help_take(&h), 1);
    const struct image_partition *after = help_partition(&h, "u", 0);
    cr_assert_eq(memcmp(after->replicas, turned, sizeof turned), 0);
    cr_assert_eq(memcmp(after->directories, dirs_turned, sizeof dirs_turned), 0);
}
