/* test_scatter.c - requests that are split over storage nodes and group services, and merged in the order of the
 * request. */
#include "kafka/delete_groups.h"
#include "kafka/describe_groups.h"
#include "kafka/join_group.h"
#include "kafka/leave_group.h"
#include "kafka/list_groups.h"
#include "kafka/list_offsets.h"
#include "kafka/offset_commit.h"
#include "kafka/offset_delete.h"
#include "kafka/offset_fetch.h"
#include "tests/unit/frontend_api/fake.h"
#include <criterion/criterion.h>

static struct fake f;
static char on_first[16], on_second[16]; /* groups of services 11 and 12 */
static void open_fake(void)
{
    fake_open(&f);
    strcpy(on_first, fake_group_on(0));
    strcpy(on_second, fake_group_on(1));
}
static void close_fake(void)
{
    fake_close(&f);
}
TestSuite(scatter, .init = open_fake, .fini = close_fake);

Test(scatter, list_offsets)
{
    typedef struct kafka_list_offsets_request_list_offsets_partition part;
    part a[] = {{0, -1, -1}, {1, -1, -1}, {2, -1, -1}, {7, -1, -1}, {0, -1, -2}}, b[] = {{0, -1, -3}},
         none[] = {{0, -1, 5}};
    struct kafka_list_offsets_request_list_offsets_topic topics[] = {
        {SLICE_OF("a"), a, 5}, {SLICE_OF("b"), b, 1}, {SLICE_OF("nope"), none, 1}};
    struct kafka_list_offsets_request q;
    kafka_list_offsets_request_init(&q);
    q.topics = topics;
    q.topics_count = 3;
    fake_ask(&f, &api_list_offsets, 7, &q);
    cr_assert_eq(f.call_count, 2);
    const struct kafka_list_offsets_request *second = f.calls[0].message, *first = f.calls[1].message;
    cr_assert_eq(f.calls[0].id, 2);
    cr_assert_eq(f.calls[1].id, 1);
    cr_assert_eq(second->topics_count, 1);
    cr_assert_eq(first->topics_count, 1); /* partition 0 of a is asked for twice: only b is left */
    cr_expect(slice_eq_str(first->topics[0].name, "b"));
    struct kafka_list_offsets_response_list_offsets_partition_response p = {
        .partition_index = 1, .offset = 42, .timestamp = -1};
    struct kafka_list_offsets_response_list_offsets_topic_response t = {SLICE_OF("a"), &p, 1};
    struct kafka_list_offsets_response back = {.topics = &t, .topics_count = 1};
    fake_answer(&f, 0, KERR_NONE, &back);
    fake_answer(&f, 1, KERR_NOT_LEADER_OR_FOLLOWER, NULL);
    const struct kafka_list_offsets_response *r = f.response;
    cr_assert_eq(r->topics_count, 3);
    cr_assert_eq(r->topics[0].partitions_count, 4);
    cr_expect_eq(r->topics[0].partitions[0].error_code, KERR_INVALID_REQUEST);
    cr_expect_eq(r->topics[0].partitions[1].offset, 42);
    cr_expect_eq(r->topics[0].partitions[2].error_code, KERR_NOT_LEADER_OR_FOLLOWER);
    cr_expect_eq(r->topics[0].partitions[3].error_code, KERR_UNKNOWN_TOPIC_OR_PARTITION);
    cr_expect_eq(r->topics[1].partitions[0].error_code, KERR_NOT_LEADER_OR_FOLLOWER);
    cr_expect_eq(r->topics[2].partitions[0].error_code, KERR_UNKNOWN_TOPIC_OR_PARTITION);
}

Test(scatter, special_times_have_versions)
{
    static const struct {
        int64_t timestamp;
        int16_t since;
    } times[] = {{-1, 1}, {-2, 1}, {-3, 7}, {-4, 8}, {-5, 9}, {-6, 11}, {-7, 99}, {INT64_MIN, 99}, {0, 1}};
    for (size_t i = 0; i < COUNTOF(times); i++)
        for (int16_t version = 1; version <= 11; version++) {
            struct kafka_list_offsets_request_list_offsets_partition p = {0, -1, times[i].timestamp};
            struct kafka_list_offsets_request_list_offsets_topic t = {SLICE_OF("b"), &p, 1};
            struct kafka_list_offsets_request q;
            kafka_list_offsets_request_init(&q);
            q.topics = &t;
            q.topics_count = 1;
            fake_ask(&f, &api_list_offsets, version, &q);
            cr_expect_eq(f.call_count, version >= times[i].since ? 1 : 0);
        }
}

Test(scatter, groups_are_described_by_their_owners)
{
    struct slice names[] = {slice_str(on_second), slice_str(on_first)};
    struct kafka_describe_groups_request q = {names, 2, true};
    for (int16_t version = 0; version <= 6; version++) {
        q.include_authorized_operations = version >= 3;
        fake_ask(&f, &api_describe_groups, version, &q);
        cr_assert_eq(f.call_count, 2);
        cr_expect_eq(f.calls[0].id, 12);
        struct kafka_describe_groups_response_described_group g;
        kafka_describe_groups_response_described_group_init(&g);
        g.group_id = slice_str(on_first);
        g.error_code = KERR_GROUP_ID_NOT_FOUND;
        g.error_message = SLICE_OF("Group not found.");
        g.group_state = SLICE_OF("Dead");
        struct kafka_describe_groups_response back = {.groups = &g, .groups_count = 1};
        fake_answer(&f, 1, KERR_NONE, &back);
        fake_answer(&f, 0, KERR_REQUEST_TIMED_OUT, NULL);
        const struct kafka_describe_groups_response *r = f.response;
        cr_expect(slice_eq_str(r->groups[1].group_id, on_first));
        cr_expect_eq(r->groups[0].error_code, KERR_COORDINATOR_NOT_AVAILABLE);
        cr_expect_eq(r->groups[1].error_code, version < 6 ? KERR_NONE : KERR_GROUP_ID_NOT_FOUND);
        if (version >= 3)
            cr_expect_eq(r->groups[1].authorized_operations,
                         version < 6 ? API_OPERATIONS_GROUP : API_OPERATIONS_NOT_ASKED);
    }
}

Test(scatter, groups_are_deleted_once_each)
{
    struct slice names[] = {slice_str(on_second), slice_str(on_first), slice_str(on_second)};
    struct kafka_delete_groups_request q = {names, 3};
    fake_ask(&f, &api_delete_groups, 2, &q);
    cr_assert_eq(f.call_count, 2);
    struct kafka_delete_groups_response none = {0};
    fake_answer(&f, 0, KERR_NONE, &none);
    fake_answer(&f, 1, KERR_NOT_LEADER_OR_FOLLOWER, NULL);
    const struct kafka_delete_groups_response *r = f.response;
    cr_assert_eq(r->results_count, 2);
    for (int i = 0; i < 2; i++)
        cr_expect_neq(r->results[i].error_code, KERR_NONE);
}

Test(scatter, list_groups_of_one_broker)
{
    struct kafka_list_groups_request q;
    kafka_list_groups_request_init(&q);
    fake_ask(&f, &api_list_groups, 5, &q);
    cr_assert_eq(f.call_count, 2);
    struct kafka_list_groups_response_listed_group rows[2];
    for (int i = 0; i < 2; i++)
        kafka_list_groups_response_listed_group_init(&rows[i]);
    rows[0].group_id = slice_str(on_first);
    rows[1].group_id = slice_str(on_second); /* its partition is led by broker 2, the client is on 1 */
    struct kafka_list_groups_response back = {.groups = rows, .groups_count = 2}, empty = {0};
    fake_answer(&f, 0, KERR_NONE, &back);
    fake_answer(&f, 1, KERR_NONE, &empty);
    const struct kafka_list_groups_response *r = f.response;
    cr_assert_eq(r->groups_count, 1);
    cr_expect(slice_eq_str(r->groups[0].group_id, on_first));
    fake_ask(&f, &api_list_groups, 0, &q);
    back.error_code = KERR_COORDINATOR_LOAD_IN_PROGRESS;
    fake_answer(&f, 0, KERR_NONE, &back);
    fake_answer(&f, 1, KERR_NONE, &empty);
    r = f.response;
    cr_expect_eq(r->error_code, KERR_COORDINATOR_LOAD_IN_PROGRESS);
}

/* ---- offsets ---- */

typedef struct kafka_offset_fetch_response_offset_fetch_response_partitions fetched;

static struct kafka_offset_fetch_response fetch_answer(const char *group, fetched *p)
{
    static struct kafka_offset_fetch_response_offset_fetch_response_topics t;
    static struct kafka_offset_fetch_response_offset_fetch_response_group g;
    struct kafka_offset_fetch_response back;
    kafka_offset_fetch_response_init(&back);
    kafka_offset_fetch_response_offset_fetch_response_topics_init(&t);
    kafka_offset_fetch_response_offset_fetch_response_group_init(&g);
    *p = (fetched){.partition_index = 0, .committed_offset = 17, .metadata = SLICE_OF("m")};
    t.name = SLICE_OF("b");
    t.partitions = p;
    t.partitions_count = 1;
    g.group_id = slice_str(group);
    g.topics = &t;
    g.topics_count = 1;
    back.groups = &g;
    back.groups_count = 1;
    return back;
}

Test(scatter, offset_fetch_of_one_group)
{
    int32_t zero[] = {0};
    fetched p;
    for (int16_t version = 1; version < 8; version++) {
        struct kafka_offset_fetch_request_offset_fetch_request_topic t = {SLICE_OF("b"), zero, 1};
        struct kafka_offset_fetch_request q;
        kafka_offset_fetch_request_init(&q);
        q.group_id = slice_str(on_second);
        q.topics = &t;
        q.topics_count = 1;
        fake_ask(&f, &api_offset_fetch, version, &q);
        cr_assert_eq(f.call_count, 1);
        cr_expect_eq(f.calls[0].id, 12);
        const struct kafka_offset_fetch_request *m = f.calls[0].message;
        cr_assert_eq(m->groups_count, 1);
        cr_expect(slice_eq_str(m->groups[0].topics[0].name, "b"));
        cr_expect(uuid_eq(m->groups[0].topics[0].topic_id, FAKE_TOPIC_B));
        struct kafka_offset_fetch_response back = fetch_answer(on_second, &p);
        fake_answer(&f, 0, KERR_NONE, &back);
        const struct kafka_offset_fetch_response *r = f.response;
        cr_assert_eq(r->topics_count, 1);
        cr_expect_eq(r->topics[0].partitions[0].committed_offset, 17);

        fake_ask(&f, &api_offset_fetch, version, &q);
        back = fetch_answer(on_second, &p);
        back.groups[0].error_code = KERR_COORDINATOR_LOAD_IN_PROGRESS;
        fake_answer(&f, 0, KERR_NONE, &back);
        r = f.response;
        if (version >= 2) {
            cr_expect_eq(r->error_code, KERR_COORDINATOR_LOAD_IN_PROGRESS);
            cr_expect_eq(r->topics_count, 0);
        } else {
            cr_assert_eq(r->topics_count, 1);
            cr_expect_eq(r->topics[0].partitions[0].error_code, KERR_COORDINATOR_LOAD_IN_PROGRESS);
            cr_expect_eq(r->topics[0].partitions[0].committed_offset, -1);
        }
    }
}

Test(scatter, offset_fetch_of_many_groups)
{
    int32_t zero[] = {0};
    fetched p;
    for (int16_t version = 8; version <= 10; version++) {
        struct kafka_offset_fetch_request_offset_fetch_request_topics t[2];
        struct kafka_offset_fetch_request_offset_fetch_request_group g[2];
        struct kafka_offset_fetch_request q;
        kafka_offset_fetch_request_init(&q);
        for (int i = 0; i < 2; i++) {
            kafka_offset_fetch_request_offset_fetch_request_topics_init(&t[i]);
            kafka_offset_fetch_request_offset_fetch_request_group_init(&g[i]);
            t[i].partition_indexes = zero;
            t[i].partition_indexes_count = 1;
        }
        t[0].name = SLICE_OF("zz");
        t[0].topic_id = (struct uuid){{9}};
        t[1].name = version < 10 ? SLICE_OF("b") : SLICE_EMPTY;
        t[1].topic_id = version < 10 ? UUID_ZERO : FAKE_TOPIC_B;
        g[0].group_id = slice_str(on_second);
        g[0].topics_count = -1;
        g[1].group_id = slice_str(on_first);
        g[1].topics = t;
        g[1].topics_count = 2;
        q.groups = g;
        q.groups_count = 2;
        fake_ask(&f, &api_offset_fetch, version, &q);
        cr_assert_eq(f.call_count, 2);
        const struct kafka_offset_fetch_request *m = f.calls[1].message;
        cr_expect_eq(m->groups[0].topics_count, version < 10 ? 2 : 1); /* an unknown id is not asked for */
        struct kafka_offset_fetch_response back = fetch_answer(on_first, &p);
        fake_answer(&f, 1, KERR_NONE, &back);
        back = fetch_answer(on_second, &p);
        fake_answer(&f, 0, KERR_NONE, &back);
        const struct kafka_offset_fetch_response *r = f.response;
        cr_assert_eq(r->groups_count, 2);
        cr_assert_eq(r->groups[0].topics_count, 1);
        cr_expect_eq(r->groups[0].topics[0].partitions[0].committed_offset, 17);
        if (version == 10)
            cr_expect(uuid_eq(r->groups[0].topics[0].topic_id, FAKE_TOPIC_B));
        cr_assert_eq(r->groups[1].topics_count, 2);
        cr_expect_eq(r->groups[1].topics[0].partitions[0].error_code,
                     version == 10 ? KERR_UNKNOWN_TOPIC_ID : KERR_NONE);
        cr_expect_eq(r->groups[1].topics[0].partitions[0].committed_offset, -1);
        cr_expect_eq(r->groups[1].topics[1].partitions[0].committed_offset, 17);
    }
}

Test(scatter, offset_commit_sorts_out_what_is_not_there)
{
    struct kafka_offset_commit_request_offset_commit_request_partition p[] = {{0, 1, -1, SLICE_NULL},
                                                                              {8, 1, -1, SLICE_NULL}};
    for (int16_t version = 2; version <= 10; version++) {
        struct kafka_offset_commit_request_offset_commit_request_topic t[2] = {
            {version < 10 ? SLICE_OF("zz") : SLICE_EMPTY, {{9}}, p, 1},
            {version < 10 ? SLICE_OF("b") : SLICE_EMPTY, version < 10 ? UUID_ZERO : FAKE_TOPIC_B, p, 2}};
        struct kafka_offset_commit_request q;
        kafka_offset_commit_request_init(&q);
        q.group_id = slice_str(on_first);
        q.topics = t;
        q.topics_count = 2;
        fake_ask(&f, &api_offset_commit, version, &q);
        cr_assert_eq(f.call_count, 1);
        const struct kafka_offset_commit_request *m = f.calls[0].message;
        cr_assert_eq(m->topics_count, 1);
        cr_assert_eq(m->topics[0].partitions_count, 1);
        cr_expect(slice_eq_str(m->topics[0].name, "b"));
        struct kafka_offset_commit_response_offset_commit_response_partition row = {0, 0};
        struct kafka_offset_commit_response_offset_commit_response_topic back_topic = {SLICE_OF("b"), FAKE_TOPIC_B,
                                                                                       &row, 1};
        struct kafka_offset_commit_response back = {.topics = &back_topic, .topics_count = 1};
        fake_answer(&f, 0, KERR_NONE, &back);
        const struct kafka_offset_commit_response *r = f.response;
        cr_expect_eq(r->topics[0].partitions[0].error_code,
                     version < 10 ? KERR_UNKNOWN_TOPIC_OR_PARTITION : KERR_UNKNOWN_TOPIC_ID);
        cr_expect_eq(r->topics[1].partitions[0].error_code, KERR_NONE);
        cr_expect_eq(r->topics[1].partitions[1].error_code, KERR_UNKNOWN_TOPIC_OR_PARTITION);
        fake_ask(&f, &api_offset_commit, version, &q);
        fake_answer(&f, 0, KERR_NOT_LEADER_OR_FOLLOWER, NULL);
        r = f.response;
        cr_expect_eq(r->topics[1].partitions[0].error_code, KERR_NOT_COORDINATOR);
    }
}

Test(scatter, offset_delete)
{
    struct kafka_offset_delete_request_offset_delete_request_partition p[] = {{0}, {8}};
    struct kafka_offset_delete_request_offset_delete_request_topic t = {SLICE_OF("b"), p, 2};
    struct kafka_offset_delete_request q = {slice_str(on_first), &t, 1};
    fake_ask(&f, &api_offset_delete, 0, &q);
    struct kafka_offset_delete_response_offset_delete_response_partition row = {0, KERR_GROUP_SUBSCRIBED_TO_TOPIC};
    struct kafka_offset_delete_response_offset_delete_response_topic back_topic = {SLICE_OF("b"), &row, 1};
    struct kafka_offset_delete_response back = {.topics = &back_topic, .topics_count = 1};
    fake_answer(&f, 0, KERR_NONE, &back);
    const struct kafka_offset_delete_response *r = f.response;
    cr_assert_eq(r->topics[0].partitions_count, 2);
    fake_ask(&f, &api_offset_delete, 0, &q);
    back.error_code = KERR_GROUP_ID_NOT_FOUND;
    fake_answer(&f, 0, KERR_NONE, &back);
    r = f.response;
    cr_expect_eq(r->error_code, KERR_GROUP_ID_NOT_FOUND);
    cr_expect_eq(r->topics_count, 0);
}

/* ---- members ---- */

Test(scatter, join_waits_as_long_as_the_rebalance)
{
    struct kafka_join_group_request q;
    for (int16_t version = 0; version <= 9; version++) {
        kafka_join_group_request_init(&q);
        q.group_id = slice_str(on_first);
        q.session_timeout_ms = 10000;
        q.rebalance_timeout_ms = version ? 300000 : -1;
        q.protocol_type = SLICE_OF("consumer");
        fake_ask(&f, &api_join_group, version, &q);
        cr_assert_eq(f.call_count, 1);
        cr_expect_eq(f.calls[0].id, 11);
        cr_expect_gt(f.calls[0].timeout_ms, version ? 300000 : 10000);
        struct kafka_join_group_response back;
        kafka_join_group_response_init(&back);
        back.error_code = KERR_MEMBER_ID_REQUIRED;
        back.protocol_name = SLICE_NULL;
        back.member_id = SLICE_OF("m");
        fake_answer(&f, 0, KERR_NONE, &back);
        cr_expect_eq(((const struct kafka_join_group_response *)f.response)->error_code, KERR_MEMBER_ID_REQUIRED);
    }
    q.group_id = SLICE_EMPTY;
    fake_ask(&f, &api_join_group, 9, &q);
    cr_expect_eq(((const struct kafka_join_group_response *)f.response)->error_code, KERR_INVALID_GROUP_ID);
}

Test(scatter, one_leaving_member_is_a_list)
{
    struct kafka_leave_group_request q;
    kafka_leave_group_request_init(&q);
    q.group_id = slice_str(on_first);
    q.member_id = SLICE_OF("m");
    fake_ask(&f, &api_leave_group, 1, &q);
    const struct kafka_leave_group_request *m = f.calls[0].message;
    cr_assert_eq(m->members_count, 1);
    cr_expect(slice_eq_str(m->members[0].member_id, "m"));
    struct kafka_leave_group_response_member_response row = {SLICE_OF("m"), SLICE_NULL, KERR_UNKNOWN_MEMBER_ID};
    struct kafka_leave_group_response back = {.members = &row, .members_count = 1};
    fake_answer(&f, 0, KERR_NONE, &back);
    cr_expect_eq(((const struct kafka_leave_group_response *)f.response)->error_code, KERR_UNKNOWN_MEMBER_ID);
}
