/* The records: bytes that Kafka 4.3.1 wrote, byte for byte, and whatever else a log may hold. */
#include <criterion/criterion.h>

#include "libs/base/bytes.h"
#include "tests/unit/groups/harness.h"

static struct harness h;

static void setup(void)
{
    harness_open(&h);
}

static void teardown(void)
{
    harness_close(&h);
}

TestSuite(load, .init = setup, .fini = teardown);
#define BYTES(lit) slice_make("" lit, sizeof(lit) - 1)

static struct logged last(const char *group)
{
    const struct partition_log *l = &h.logs[slice_coordinator_partition(slice_str(group), HARNESS_PARTITIONS)];
    cr_assert_gt(l->count, 0);
    return l->records[l->count - 1];
}

/* Both from __consumer_offsets of a running Kafka 4.3.1, but for time and topic id. */
Test(load, offset_commit_as_kafka_writes_it)
{
    h.now.wall_ms = 0x01a20709d9c3;
    cr_assert_eq(commit(&h, 9, "g2", -1, "", "t", 0, 5, "hi"), 0);
    cr_expect(slice_eq(last("g2").key, BYTES("\0\1\0\2g2\0\1t\0\0\0\0")));
    struct slice value = last("g2").value;
    cr_assert_eq(value.size, 44);
    cr_expect(slice_eq(slice_make(value.data, 29),
                       BYTES("\0\4\0\0\0\0\0\0\0\5\377\377\377\377\3hi\0\0\1\242\7\11\331\303\1\0\20t")));
}

Test(load, empty_group_as_kafka_writes_it)
{
    h.now.wall_ms = 0x01a20709e3b1;
    ask_join(&h, (struct join_options){.group = "j"});
    cr_expect(slice_eq(last("j").key, BYTES("\0\2\0\1j")));
    cr_expect(slice_eq(last("j").value, BYTES("\0\3\0\0\0\0\0\0\377\377\377\377\0\0\1\242\7\11\343\261\0\0\0\0")));
}

static void put(struct slice group, struct slice key, struct slice value, int64_t producer, bool transactional,
                bool control)
{
    harness_put(&h, slice_coordinator_partition(group, HARNESS_PARTITIONS), key, value, producer, transactional,
                control);
}

#define KEY_GT BYTES("\0\1\0\1g\0\1t\0\0\0\0")
#define G      SLICE_OF("g")

Test(load, older_versions_of_commits)
{
    put(G, KEY_GT, BYTES("\0\0\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\0\0\0"), -1, false, false);
    put(G, BYTES("\0\0\0\1g\0\1t\0\0\0\1"), BYTES("\0\0\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0\0\0\0"), -1, false, false);
    put(G, BYTES("\0\1\0\1g\0\1t\0\0\0\2"), BYTES("\0\2\0\0\0\0\0\0\0\3\0\1m\0\0\0\0\0\0\0\1"), -1, false, false);
    put(G, BYTES("\0\1\0\1g\0\1u\0\0\0\0"), BYTES("\0\3\0\0\0\0\0\0\0\4\0\0\0\7\0\1m\0\0\0\0\0\0\0\1"), -1, false,
        false);
    put(G, BYTES("\0\1\0\1g\0\1u\0\0\0\1"), BYTES("\0\1\0\0\0\0\0\0\0\5\0\0\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\7"), -1,
        false, false);
    harness_restart(&h);
    cr_expect_eq(committed(&h, "g", "t", 0), 1);
    cr_expect_eq(committed(&h, "g", "t", 1), 2);
    cr_expect_eq(committed(&h, "g", "t", 2), 3);
    cr_expect_eq(committed(&h, "g", "u", 0), 4);
    cr_expect_eq(committed(&h, "g", "u", 1), 5);
    cr_expect_eq(groups_unreadable(h.core), 0);
}

Test(load, tombstones)
{
    put(G, KEY_GT, BYTES("\0\0\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\0\0\0"), -1, false, false);
    put(G, KEY_GT, SLICE_NULL, -1, false, false);
    put(G, BYTES("\0\2\0\1g"), SLICE_NULL, -1, false, false);
    harness_restart(&h);
    cr_expect_eq(groups_count(h.core), 0);
}

Test(load, rubbish_is_left_alone)
{
    put(G, SLICE_NULL, BYTES("x"), -1, false, false);
    put(G, BYTES("\0"), BYTES("x"), -1, false, false);
    put(G, BYTES("\0\1\0\77g"), BYTES("x"), -1, false, false);
    put(G, KEY_GT, BYTES("\0\11\0\0"), -1, false, false);
    put(G, KEY_GT, BYTES(""), -1, false, false);
    put(G, BYTES("\0\2\0\1g"), BYTES("\0\3\177\377"), -1, false, false);
    put(G, BYTES("\0\143\0\1g"), BYTES("\0\0"), -1, false, false);
    harness_restart(&h);
    cr_expect_eq(groups_unreadable(h.core), 7);
    cr_expect_eq(groups_count(h.core), 0);
}

/* ---- transactions that Kafka left in the log ---- */

static const struct kafka_offset_fetch_response *fetch(bool stable)
{
    struct kafka_offset_fetch_request q;
    int32_t partition = 0;
    struct kafka_offset_fetch_request_offset_fetch_request_topic t = {
        .name = SLICE_OF("t"), .partition_indexes = &partition, .partition_indexes_count = 1};
    kafka_offset_fetch_request_init(&q);
    q.group_id = G;
    q.topics = &t;
    q.topics_count = 1;
    q.require_stable = stable;
    return harness_answer(&h, harness_ask(&h, KAFKA_API_OFFSET_FETCH, 7, &q));
}

#define COMMIT_OF(n) BYTES("\0\0\0\0\0\0\0\0\0" n "\0\0\0\0\0\0\0\0\0\0")

Test(load, open_transaction)
{
    put(G, KEY_GT, COMMIT_OF("\1"), -1, false, false);
    put(G, KEY_GT, COMMIT_OF("\2"), 77, true, false);
    harness_restart(&h);
    cr_expect_eq(fetch(false)->topics[0].partitions[0].committed_offset, 1);
    cr_expect_eq(fetch(true)->topics[0].partitions[0].committed_offset, -1);
    cr_expect_eq(fetch(true)->topics[0].partitions[0].error_code, KERR_UNSTABLE_OFFSET_COMMIT);
    put(G, BYTES("\0\0\0\1"), BYTES("\0\0\0\0\0\0"), 77, true, true);
    harness_restart(&h);
    cr_expect_eq(fetch(true)->topics[0].partitions[0].committed_offset, 2);
}

Test(load, aborted_and_interleaved_transactions)
{
    put(G, KEY_GT, COMMIT_OF("\1"), 77, true, false);
    put(G, KEY_GT, COMMIT_OF("\2"), 78, true, false);
    put(G, BYTES("\0\0\0\1"), BYTES("\0\0\0\0\0\0"), 78, true, true);
    put(G, BYTES("\0\0\0\0"), BYTES("\0\0\0\0\0\0"), 77, true, true);
    harness_restart(&h);
    cr_expect_eq(fetch(true)->topics[0].partitions[0].committed_offset, 2);
    /* The commit of an earlier record that ends later does not win. */
    put(G, KEY_GT, COMMIT_OF("\3"), 79, true, false);
    put(G, KEY_GT, COMMIT_OF("\4"), -1, false, false);
    put(G, BYTES("\0\0\0\1"), BYTES("\0\0\0\0\0\0"), 79, true, true);
    harness_restart(&h);
    cr_expect_eq(fetch(true)->topics[0].partitions[0].committed_offset, 4);
}

Test(load, tombstone_voids_open_commits)
{
    put(G, KEY_GT, COMMIT_OF("\1"), 77, true, false);
    put(G, KEY_GT, SLICE_NULL, -1, false, false);
    harness_restart(&h);
    cr_expect_eq(committed(&h, "g", "t", 0), -1);
    cr_expect_eq(fetch(true)->topics[0].partitions[0].error_code, 0);
    put(G, BYTES("\0\0\0\1"), BYTES("\0\0\0\0\0\0"), 77, true, true);
    harness_restart(&h);
    cr_expect_eq(committed(&h, "g", "t", 0), -1);
    cr_expect_eq(fetch(true)->topics[0].partitions[0].error_code, 0);
}

/* ---- groups of other types ---- */

static void put_consumer_group(bool member)
{
    put(G, BYTES("\0\3\0\1g"), BYTES("\0\0\0\0\0\1\0"), -1, false, false);
    put(G, BYTES("\0\6\0\1g"), BYTES("\0\0\0\0\0\1\0"), -1, false, false);
    if (member)
        put(G, BYTES("\0\5\0\1g\0\1m"), BYTES("\0\0"), -1, false, false);
    put(G, KEY_GT, COMMIT_OF("\11"), -1, false, false);
}

Test(load, consumer_group_with_members_is_kept_out_of_the_way)
{
    put_consumer_group(true);
    harness_restart(&h);
    cr_expect_eq(list(&h, NULL, "consumer"), 1);
    cr_expect_eq(committed(&h, "g", "t", 0), 9);
    cr_expect_eq(describe(&h, 6, "g")->error_code, KERR_GROUP_ID_NOT_FOUND);
    cr_expect_eq(joined(&h, ask_join(&h, (struct join_options){.group = "g"}))->error_code,
                 KERR_INCONSISTENT_GROUP_PROTOCOL);
    cr_expect_eq(commit(&h, 9, "g", -1, "", "t", 0, 1, ""), KERR_UNKNOWN_MEMBER_ID);
    cr_expect_eq(delete_group(&h, "g"), KERR_NON_EMPTY_GROUP);
    size_t records = h.logs[0].count + h.logs[1].count;
    harness_pass(&h, 30ul * 24 * 3600 * 1000);
    cr_expect_eq(h.logs[0].count + h.logs[1].count, records, "nothing of it is deleted");
}

Test(load, empty_consumer_group_becomes_classic)
{
    put_consumer_group(false);
    harness_restart(&h);
    cr_expect_eq(list(&h, "Empty", "consumer"), 1);
    cr_expect_eq(commit(&h, 9, "g", -1, "", "t", 0, 10, ""), 0);
    cr_expect_eq(joined(&h, ask_join(&h, (struct join_options){.group = "g"}))->error_code, KERR_MEMBER_ID_REQUIRED);
    cr_expect_eq(list(&h, NULL, "classic"), 1);
    harness_restart(&h);
    cr_expect_eq(list(&h, NULL, "classic"), 1);
    cr_expect_eq(list(&h, NULL, "consumer"), 0);
    cr_expect_eq(committed(&h, "g", "t", 0), 10);
}

Test(load, empty_share_group_can_be_deleted)
{
    put(G, BYTES("\0\13\0\1g"), BYTES("\0\0\0\0\0\1"), -1, false, false);
    harness_restart(&h);
    cr_expect_eq(list(&h, NULL, "share"), 1);
    cr_expect_eq(joined(&h, ask_join(&h, (struct join_options){.group = "g"}))->error_code,
                 KERR_INCONSISTENT_GROUP_PROTOCOL);
    cr_expect_eq(delete_group(&h, "g"), 0);
    harness_restart(&h);
    cr_expect_eq(groups_count(h.core), 0);
}

Test(load, consumer_group_that_was_deleted)
{
    put_consumer_group(true);
    put(G, BYTES("\0\3\0\1g"), SLICE_NULL, -1, false, false);
    put(G, BYTES("\0\5\0\1g\0\1m"), SLICE_NULL, -1, false, false);
    put(G, BYTES("\0\6\0\1g"), SLICE_NULL, -1, false, false);
    harness_restart(&h);
    cr_expect_eq(list(&h, NULL, "classic"), 1, "its offsets are left");
    cr_expect_eq(committed(&h, "g", "t", 0), 9);
}

Test(load, group_larger_than_allowed_now)
{
    struct pair p = stable_pair(&h, "g");
    groups_free(h.core);
    h.core = NULL;
    h.config.group_max_size = 1;
    harness_restart(&h);
    cr_expect_str_eq(state_of(&h, "g"), "PreparingRebalance");
    uint64_t a = ask_join(&h, (struct join_options){.group = "g", .member = p.leader});
    uint64_t b = ask_join(&h, (struct join_options){.group = "g", .member = p.follower});
    cr_expect_eq(joined(&h, b)->error_code, KERR_GROUP_MAX_SIZE_REACHED);
    cr_assert_not_null(joined(&h, a));
    cr_expect_eq(joined(&h, a)->error_code, 0);
}
