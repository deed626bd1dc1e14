/* OffsetCommit, OffsetFetch, OffsetDelete, DeleteGroups, DescribeGroups, ListGroups and expiry: the rows of "Committed
 * offsets" and the rest of "Coordinators and classic groups". */
#include <criterion/criterion.h>
#include <stdio.h>

#include "libs/wire/wire.h"
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

TestSuite(offsets, .init = setup, .fini = teardown);

Test(offsets, commit_without_members_makes_a_group)
{
    cr_expect_eq(commit(&h, 9, "g", -1, "", "t", 0, 42, "hi"), 0);
    cr_expect_eq(committed(&h, "g", "t", 0), 42);
    cr_expect_eq(committed(&h, "g", "t", 1), -1);
    cr_expect_eq(committed(&h, "nowhere", "t", 1), -1);
    cr_expect_str_eq(state_of(&h, "g"), "Empty");
    cr_expect(slice_eq_str(describe(&h, 6, "g")->protocol_type, ""));
    cr_expect_eq(commit(&h, 9, "", -1, "", "t", 0, 1, ""), 0, "the empty group id is accepted");
    cr_expect_eq(committed(&h, "", "t", 0), 1);
    cr_expect_eq(commit(&h, 10, "g", -1, "", "t", 2, 7, NULL), 0);
    cr_expect_eq(committed(&h, "g", "t", 2), 7);
    harness_restart(&h);
    cr_expect_eq(committed(&h, "g", "t", 0), 42);
    cr_expect_eq(committed(&h, "g", "t", 2), 7);
}

Test(offsets, refused_partitions)
{
    cr_expect_eq(commit(&h, 9, "g", -1, "", "nope", 0, 1, ""), KERR_UNKNOWN_TOPIC_OR_PARTITION);
    cr_expect_eq(commit(&h, 10, "g", -1, "", "nope", 0, 1, ""), KERR_UNKNOWN_TOPIC_ID);
    cr_expect_eq(commit(&h, 9, "g", -1, "", "t", 3, 1, ""), KERR_UNKNOWN_TOPIC_OR_PARTITION);
    cr_expect_eq(commit(&h, 9, "g", -1, "", "t", -1, 1, ""), KERR_UNKNOWN_TOPIC_OR_PARTITION);
    cr_expect_eq(groups_count(h.core), 0);
    char big[4098];
    memset(big, 'm', sizeof big);
    big[4097] = '\0';
    cr_expect_eq(commit(&h, 9, "g", -1, "", "t", 0, 1, big), KERR_OFFSET_METADATA_TOO_LARGE);
    cr_expect_eq(groups_count(h.core), 0);
    big[4096] = '\0';
    cr_expect_eq(commit(&h, 9, "g", -1, "", "t", 0, 1, big), 0);
}

Test(offsets, members_and_generations)
{
    cr_expect_eq(commit(&h, 8, "g", 1, "x", "t", 0, 1, ""), KERR_ILLEGAL_GENERATION);
    cr_expect_eq(commit(&h, 9, "g", 1, "x", "t", 0, 1, ""), KERR_GROUP_ID_NOT_FOUND);
    struct pair p = stable_pair(&h, "g");
    cr_expect_eq(commit(&h, 9, "g", -1, "", "t", 0, 1, ""), KERR_UNKNOWN_MEMBER_ID);
    cr_expect_eq(commit(&h, 9, "g", 1, "x", "t", 0, 1, ""), KERR_UNKNOWN_MEMBER_ID);
    cr_expect_eq(commit(&h, 9, "g", 2, p.leader, "t", 0, 1, ""), KERR_ILLEGAL_GENERATION);
    cr_expect_eq(commit(&h, 9, "g", -1, p.leader, "t", 0, 1, ""), KERR_ILLEGAL_GENERATION);
    cr_expect_eq(commit(&h, 9, "g", 1, p.leader, "t", 0, 1, ""), 0);
}

Test(offsets, commit_is_a_sign_of_life)
{
    struct pair p = stable_pair(&h, "g");
    for (int i = 0; i < 5; i++) {
        harness_pass(&h, 6000);
        cr_expect_eq(commit(&h, 9, "g", 1, p.leader, "t", 0, i, ""), 0);
        heartbeat(&h, "g", 1, p.follower, NULL);
    }
    cr_expect_str_eq(state_of(&h, "g"), "Stable");
}

Test(offsets, visible_only_when_committed)
{
    cr_expect_eq(commit(&h, 9, "g", -1, "", "t", 0, 1, ""), 0);
    h.hold_appends = true;
    cr_expect_eq(commit(&h, 9, "g", -1, "", "t", 0, 2, ""), -1000);
    uint64_t waiting = h.requests;
    cr_expect_eq(committed(&h, "g", "t", 0), 1);
    harness_end_append(&h, KERR_NONE);
    cr_expect_eq(committed(&h, "g", "t", 0), 2);
    const struct kafka_offset_commit_response *r = harness_answer(&h, waiting);
    cr_expect_eq(r->topics[0].partitions[0].error_code, 0);

    cr_expect_eq(commit(&h, 9, "g", -1, "", "t", 0, 3, ""), -1000);
    waiting = h.requests;
    cr_expect_eq(commit(&h, 9, "g", -1, "", "t", 0, 4, ""), -1000, "behind the first");
    harness_end_append(&h, KERR_REQUEST_TIMED_OUT);
    for (uint64_t i = waiting; i < waiting + 2; i++) {
        r = harness_answer(&h, i);
        cr_expect_eq(r->topics[0].partitions[0].error_code, KERR_COORDINATOR_NOT_AVAILABLE);
    }
    cr_expect_eq(committed(&h, "g", "t", 0), 2, "what failed is nowhere");
}

Test(offsets, one_batch_at_a_time)
{
    h.hold_appends = true;
    cr_expect_eq(commit(&h, 9, "g", -1, "", "t", 0, 1, ""), -1000);
    uint64_t first = h.requests;
    cr_expect_eq(commit(&h, 9, "g", -1, "", "t", 0, 2, ""), -1000);
    cr_expect_eq(commit(&h, 9, "g", -1, "", "t", 1, 3, ""), -1000);
    cr_expect_eq(h.held.records.count, 1);
    harness_end_append(&h, KERR_NONE);
    cr_expect_not_null(harness_answer(&h, first));
    cr_expect_null(harness_answer(&h, first + 1));
    cr_expect_eq(h.held.records.count, 2, "what came meanwhile goes together");
    harness_end_append(&h, KERR_NONE);
    cr_expect_not_null(harness_answer(&h, first + 2));
    cr_expect_eq(committed(&h, "g", "t", 0), 2);
}

/* ---- OffsetFetch ---- */

static const struct kafka_offset_fetch_response *fetch_all(int16_t version, const char *group, bool stable)
{
    struct kafka_offset_fetch_request q;
    struct kafka_offset_fetch_request_offset_fetch_request_group g = {
        .group_id = slice_str(group), .member_id = SLICE_NULL, .member_epoch = -1, .topics_count = -1};
    kafka_offset_fetch_request_init(&q);
    q.require_stable = stable;
    if (version >= 8) {
        q.groups = &g;
        q.groups_count = 1;
    } else {
        q.group_id = slice_str(group);
        q.topics_count = -1;
    }
    return harness_answer(&h, harness_ask(&h, KAFKA_API_OFFSET_FETCH, version, &q));
}

Test(offsets, fetch_all)
{
    commit(&h, 9, "g", -1, "", "t", 2, 12, "");
    commit(&h, 9, "g", -1, "", "t", 0, 10, "meta");
    commit(&h, 9, "g", -1, "", "u", 1, 20, "");
    const struct kafka_offset_fetch_response *r = fetch_all(9, "g", false);
    cr_assert_eq(r->groups[0].topics_count, 2);
    cr_expect(slice_eq_str(r->groups[0].topics[0].name, "t"));
    cr_expect_eq(r->groups[0].topics[0].partitions_count, 2);
    cr_expect_eq(r->groups[0].topics[0].partitions[0].committed_offset, 10);
    cr_expect(slice_eq_str(r->groups[0].topics[0].partitions[0].metadata, "meta"));
    cr_expect_eq(r->groups[0].topics[0].partitions[1].partition_index, 2);
    r = fetch_all(2, "g", false);
    cr_expect_eq(r->topics_count, 2);
    cr_expect_eq(r->topics[1].partitions[0].committed_offset, 20);
    r = fetch_all(10, "g", false);
    cr_expect_eq(r->groups[0].topics_count, 2);
    cr_expect_eq(r->groups[0].topics[0].topic_id.b[0], 't');
    h.no_topics = true;
    cr_expect_eq(fetch_all(9, "g", false)->groups[0].topics_count, 2);
    cr_expect_eq(fetch_all(10, "g", false)->groups[0].topics_count, 0, "no ids for topics that are gone");
    cr_expect_eq(fetch_all(9, "nowhere", false)->groups[0].topics_count, 0);
    cr_expect_eq(fetch_all(9, "nowhere", false)->groups[0].error_code, 0);
}

/* 60 KB that ask for 61 MB: an offset with much metadata, and all offsets of a group, again and again. */
Test(offsets, one_large_thing_asked_for_many_times)
{
    enum { TIMES = 15000 };
    char big[4097];
    memset(big, 'm', sizeof big);
    big[4096] = '\0';
    commit(&h, 9, "g", -1, "", "t", 0, 1, big);
    struct kafka_offset_fetch_request q;
    int32_t *partitions = xcalloc(TIMES, sizeof *partitions);
    struct kafka_offset_fetch_request_offset_fetch_request_group *groups = xcalloc(TIMES, sizeof *groups);
    struct kafka_offset_fetch_request_offset_fetch_request_topics t = {
        .name = SLICE_OF("t"), .partition_indexes = partitions, .partition_indexes_count = TIMES};
    for (int32_t i = 0; i < TIMES; i++)
        groups[i] = (struct kafka_offset_fetch_request_offset_fetch_request_group){
            .group_id = SLICE_OF("g"), .member_id = SLICE_NULL, .member_epoch = -1, .topics_count = -1};
    kafka_offset_fetch_request_init(&q);
    q.groups = groups;
    q.groups_count = TIMES;
    const struct kafka_offset_fetch_response *r = harness_answer(&h, harness_ask(&h, KAFKA_API_OFFSET_FETCH, 9, &q));
    cr_expect_eq(r->groups[0].error_code, KERR_INVALID_REQUEST);
    cr_expect_eq(r->groups[0].topics_count, 0);
    groups[0].topics = &t;
    groups[0].topics_count = 1;
    q.groups_count = 1;
    r = harness_answer(&h, harness_ask(&h, KAFKA_API_OFFSET_FETCH, 9, &q));
    cr_expect_eq(r->groups[0].error_code, KERR_INVALID_REQUEST);
    t.partition_indexes_count = 1000;
    r = harness_answer(&h, harness_ask(&h, KAFKA_API_OFFSET_FETCH, 9, &q));
    cr_expect_eq(r->groups[0].error_code, 0);
    cr_expect_eq(r->groups[0].topics[0].partitions_count, 1000);
    cr_expect_eq(r->groups[0].topics[0].partitions[999].metadata.size, 4096);
    free(partitions);
    free(groups);
}

Test(offsets, fetch_by_unknown_id)
{
    struct kafka_offset_fetch_request q;
    struct kafka_offset_fetch_request_offset_fetch_request_topics t = {.name = SLICE_EMPTY};
    int32_t partition = 0;
    struct kafka_offset_fetch_request_offset_fetch_request_group g = {
        .group_id = SLICE_OF("g"), .member_id = SLICE_NULL, .member_epoch = -1, .topics = &t, .topics_count = 1};
    kafka_offset_fetch_request_init(&q);
    t.topic_id.b[3] = 77;
    t.partition_indexes = &partition;
    t.partition_indexes_count = 1;
    q.groups = &g;
    q.groups_count = 1;
    const struct kafka_offset_fetch_response *r = harness_answer(&h, harness_ask(&h, KAFKA_API_OFFSET_FETCH, 10, &q));
    cr_expect_eq(r->groups[0].topics[0].partitions[0].error_code, KERR_UNKNOWN_TOPIC_ID);
    cr_expect_eq(r->groups[0].topics[0].partitions[0].committed_offset, -1);
}

Test(offsets, topic_made_anew_has_no_offsets)
{
    commit(&h, 9, "g", -1, "", "t", 0, 10, "");
    h.topic_id.b[5]++;
    cr_expect_eq(committed(&h, "g", "t", 0), -1);
    commit(&h, 9, "g", -1, "", "t", 0, 1, "");
    cr_expect_eq(committed(&h, "g", "t", 0), 1);
}

/* ---- OffsetDelete, DeleteGroups, deleted topics ---- */

/* ConsumerProtocolSubscription version 0 of one topic, "t". */
static const char SUBSCRIPTION[] = "\0\0\0\0\0\1\0\1t\377\377\377\377";

Test(offsets, offset_delete)
{
    int partition;
    cr_expect_eq(delete_offset(&h, "", "t", 0, &partition), KERR_INVALID_GROUP_ID);
    cr_expect_eq(delete_offset(&h, "nowhere", "t", 0, &partition), KERR_GROUP_ID_NOT_FOUND);
    commit(&h, 9, "g", -1, "", "t", 0, 10, "");
    commit(&h, 9, "g", -1, "", "t", 1, 11, "");
    cr_expect_eq(delete_offset(&h, "g", "nope", 0, &partition), 0);
    cr_expect_eq(partition, KERR_UNKNOWN_TOPIC_OR_PARTITION);
    cr_expect_eq(delete_offset(&h, "g", "t", 9, &partition), 0);
    cr_expect_eq(partition, KERR_UNKNOWN_TOPIC_OR_PARTITION);
    cr_expect_eq(delete_offset(&h, "g", "t", 0, &partition), 0);
    cr_expect_eq(partition, 0);
    cr_expect_eq(committed(&h, "g", "t", 0), -1);
    cr_expect_eq(committed(&h, "g", "t", 1), 11);
    harness_restart(&h);
    cr_expect_eq(committed(&h, "g", "t", 0), -1);
    cr_expect_eq(committed(&h, "g", "t", 1), 11);
}

static void join_subscribed(const char *type)
{
    struct kafka_join_group_request q;
    struct kafka_join_group_request_join_group_request_protocol p = {
        .name = SLICE_OF("range"), .metadata = slice_make(SUBSCRIPTION, sizeof SUBSCRIPTION - 1)};
    kafka_join_group_request_init(&q);
    q.group_id = SLICE_OF("g");
    q.session_timeout_ms = 1800000;
    q.rebalance_timeout_ms = 1800000;
    q.protocol_type = slice_str(type);
    q.protocols = &p;
    q.protocols_count = 1;
    uint64_t id = harness_ask(&h, KAFKA_API_JOIN_GROUP, 3, &q);
    harness_pass(&h, 3000);
    const struct kafka_join_group_response *r = harness_answer(&h, id);
    struct kafka_sync_group_request s;
    kafka_sync_group_request_init(&s);
    s.group_id = q.group_id;
    s.generation_id = r->generation_id;
    s.member_id = r->member_id;
    harness_ask(&h, KAFKA_API_SYNC_GROUP, 4, &s);
}

Test(offsets, offset_delete_of_subscribed_topics)
{
    int partition;
    commit(&h, 9, "g", -1, "", "t", 0, 10, "");
    commit(&h, 9, "g", -1, "", "u", 0, 10, "");
    join_subscribed("consumer");
    cr_expect_str_eq(state_of(&h, "g"), "Stable");
    cr_expect_eq(delete_offset(&h, "g", "t", 0, &partition), 0);
    cr_expect_eq(partition, KERR_GROUP_SUBSCRIBED_TO_TOPIC);
    cr_expect_eq(delete_offset(&h, "g", "u", 0, &partition), 0);
    cr_expect_eq(partition, 0);
    cr_expect_eq(committed(&h, "g", "t", 0), 10);
    cr_expect_eq(committed(&h, "g", "u", 0), -1);
}

Test(offsets, offset_delete_with_subscriptions_that_cannot_be_read)
{
    int partition;
    struct pair p = stable_pair(&h, "g");
    commit(&h, 9, "g", 1, p.leader, "t", 0, 10, "");
    cr_expect_eq(delete_offset(&h, "g", "t", 0, &partition), 0);
    cr_expect_eq(partition, KERR_GROUP_SUBSCRIBED_TO_TOPIC);
}

Test(offsets, offset_delete_of_another_protocol)
{
    int partition;
    join_subscribed("connect");
    cr_expect_eq(delete_offset(&h, "g", "t", 0, &partition), KERR_NON_EMPTY_GROUP);
}

Test(offsets, delete_groups)
{
    struct pair p = stable_pair(&h, "g");
    cr_expect_eq(delete_group(&h, "nowhere"), KERR_GROUP_ID_NOT_FOUND);
    cr_expect_eq(delete_group(&h, ""), KERR_GROUP_ID_NOT_FOUND);
    cr_expect_eq(delete_group(&h, "g"), KERR_NON_EMPTY_GROUP);
    commit(&h, 9, "g", 1, p.leader, "t", 0, 10, "");
    leave(&h, 5, "g", p.leader, NULL);
    leave(&h, 5, "g", p.follower, NULL);
    h.hold_appends = true;
    cr_expect_eq(delete_group(&h, "g"), -1000);
    uint64_t q = h.requests;
    cr_expect_eq(committed(&h, "g", "t", 0), 10);
    const struct kafka_join_group_response *r = joined(&h, ask_join(&h, (struct join_options){.group = "g"}));
    cr_expect_eq(r->error_code, KERR_COORDINATOR_LOAD_IN_PROGRESS, "nobody joins what vanishes");
    harness_end_append(&h, KERR_NONE);
    h.hold_appends = false;
    const struct kafka_delete_groups_response *d = harness_answer(&h, q);
    cr_expect_eq(d->results[0].error_code, 0);
    cr_expect_eq(committed(&h, "g", "t", 0), -1);
    cr_expect_eq(groups_count(h.core), 0);
    harness_restart(&h);
    cr_expect_eq(groups_count(h.core), 0);
}

Test(offsets, delete_takes_commits_on_their_way_with_it)
{
    commit(&h, 9, "g", -1, "", "t", 0, 1, "");
    h.hold_appends = true;
    commit(&h, 9, "g", -1, "", "t", 1, 2, "");
    delete_group(&h, "g");
    harness_end_append(&h, KERR_NONE);
    harness_end_append(&h, KERR_NONE);
    cr_expect_eq(groups_count(h.core), 0);
    h.hold_appends = false;
    harness_restart(&h);
    cr_expect_eq(groups_count(h.core), 0);
}

Test(offsets, failed_deletion_leaves_the_group)
{
    commit(&h, 9, "g", -1, "", "t", 0, 1, "");
    h.hold_appends = true;
    delete_group(&h, "g");
    uint64_t q = h.requests;
    harness_end_append(&h, KERR_NOT_ENOUGH_REPLICAS);
    const struct kafka_delete_groups_response *d = harness_answer(&h, q);
    cr_expect_eq(d->results[0].error_code, KERR_COORDINATOR_NOT_AVAILABLE);
    cr_expect_eq(committed(&h, "g", "t", 0), 1);
}

Test(offsets, deleted_topic_takes_its_offsets)
{
    commit(&h, 9, "g", -1, "", "t", 0, 1, "");
    commit(&h, 9, "g", -1, "", "u", 0, 2, "");
    commit(&h, 9, "other", -1, "", "t", 0, 3, "");
    harness_event(&h, &(struct groups_event){.kind = GROUPS_EVENT_TOPIC_DELETED, .topic = SLICE_OF("t")});
    cr_expect_eq(committed(&h, "g", "t", 0), -1);
    cr_expect_eq(committed(&h, "g", "u", 0), 2);
    cr_expect_eq(committed(&h, "other", "t", 0), -1);
    cr_expect_str_eq(state_of(&h, "other"), "Empty", "the group itself goes with the next check");
    harness_pass(&h, 600000);
    cr_expect_eq(groups_count(h.core), 1);
    harness_restart(&h);
    cr_expect_eq(committed(&h, "g", "t", 0), -1);
}

/* ---- expiry ---- */

enum { WEEK_MS = 7 * 24 * 3600 * 1000, CHECK_MS = 600000 };

Test(offsets, expiry_without_members)
{
    commit(&h, 9, "g", -1, "", "t", 0, 1, "");
    harness_pass(&h, WEEK_MS - 2 * CHECK_MS);
    commit(&h, 9, "g", -1, "", "t", 1, 2, "");
    harness_pass(&h, 4 * CHECK_MS);
    cr_expect_eq(committed(&h, "g", "t", 0), -1);
    cr_expect_eq(committed(&h, "g", "t", 1), 2);
    harness_pass(&h, WEEK_MS);
    cr_expect_eq(groups_count(h.core), 0);
    harness_restart(&h);
    cr_expect_eq(groups_count(h.core), 0);
}

Test(offsets, expiry_of_an_old_clients_retention)
{
    struct kafka_offset_commit_request q;
    struct kafka_offset_commit_request_offset_commit_request_topic t = {.name = SLICE_OF("t")};
    struct kafka_offset_commit_request_offset_commit_request_partition p = {.committed_offset = 5,
                                                                            .committed_leader_epoch = -1};
    kafka_offset_commit_request_init(&q);
    q.group_id = SLICE_OF("g");
    q.retention_time_ms = 3600000;
    q.topics = &t;
    q.topics_count = 1;
    t.partitions = &p;
    t.partitions_count = 1;
    harness_ask(&h, KAFKA_API_OFFSET_COMMIT, 2, &q);
    cr_expect_eq(committed(&h, "g", "t", 0), 5);
    harness_pass(&h, 3600000 + CHECK_MS);
    cr_expect_eq(committed(&h, "g", "t", 0), -1);
}

Test(offsets, expiry_counts_from_the_groups_becoming_empty)
{
    struct pair p = stable_pair(&h, "g");
    commit(&h, 9, "g", 1, p.leader, "t", 0, 1, "");
    for (int64_t ms = 0; ms < WEEK_MS + 2 * CHECK_MS; ms += 9000) {
        heartbeat(&h, "g", 1, p.leader, NULL);
        heartbeat(&h, "g", 1, p.follower, NULL);
        harness_pass(&h, 9000);
    }
    cr_expect_eq(committed(&h, "g", "t", 0), 1, "its metadata is no subscription: what is read is not known");
    leave(&h, 5, "g", p.leader, NULL);
    leave(&h, 5, "g", p.follower, NULL);
    harness_pass(&h, WEEK_MS - CHECK_MS);
    cr_expect_eq(committed(&h, "g", "t", 0), 1);
    harness_restart(&h);
    harness_pass(&h, 3 * CHECK_MS);
    cr_expect_eq(committed(&h, "g", "t", 0), -1);
    cr_expect_eq(groups_count(h.core), 0);
}

/* ---- DescribeGroups, ListGroups ---- */

Test(offsets, describe_unknown)
{
    cr_expect_eq(describe(&h, 5, "x")->error_code, 0);
    cr_expect(slice_eq_str(describe(&h, 5, "x")->group_state, "Dead"));
    cr_expect_eq(describe(&h, 6, "x")->error_code, KERR_GROUP_ID_NOT_FOUND);
    cr_expect(slice_eq_str(describe(&h, 6, "x")->error_message, "Group x not found."));
    cr_expect_eq(describe(&h, 6, "x")->authorized_operations, INT32_MIN);
}

Test(offsets, list_filters)
{
    stable_pair(&h, "g");
    commit(&h, 9, "simple", -1, "", "t", 0, 1, "");
    cr_expect_eq(list(&h, NULL, NULL), 2);
    cr_expect_eq(list(&h, "sTABLE", NULL), 1);
    cr_expect_eq(list(&h, "Empty", "CLASSIC"), 1);
    cr_expect_eq(list(&h, NULL, "consumer"), 0);
    cr_expect_eq(list(&h, "nonsense", NULL), 0);
}
