/* JoinGroup, SyncGroup, Heartbeat and LeaveGroup: the rows of "Coordinators and classic groups". */
#include <criterion/criterion.h>
#include <stdio.h>

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

TestSuite(join, .init = setup, .fini = teardown);
#define JOIN(...) joined(&h, ask_join(&h, (struct join_options){__VA_ARGS__}))

Test(join, malformed_fields)
{
    cr_expect_eq(JOIN(.group = "")->error_code, KERR_INVALID_GROUP_ID);
    cr_expect_eq(JOIN(.group = "g", .session_ms = 5999)->error_code, KERR_INVALID_SESSION_TIMEOUT);
    cr_expect_eq(JOIN(.group = "g", .session_ms = 1800001)->error_code, KERR_INVALID_SESSION_TIMEOUT);
    cr_expect_eq(JOIN(.group = "g", .protocols = "")->error_code, KERR_INCONSISTENT_GROUP_PROTOCOL);
    cr_expect_eq(JOIN(.group = "g", .type = "")->error_code, KERR_INCONSISTENT_GROUP_PROTOCOL);
    cr_expect_eq(JOIN(.group = "g", .member = "stranger")->error_code, KERR_UNKNOWN_MEMBER_ID);
    cr_expect(slice_eq_str(JOIN(.group = "g", .member = "stranger")->member_id, "stranger"));
    cr_expect(slice_is_null(JOIN(.group = "")->protocol_name));
    cr_expect(slice_eq_str(JOIN(.group = "", .version = 6)->protocol_name, ""));
    cr_expect_eq(groups_count(h.core), 0, "a refused join makes no group");
}

Test(join, member_id_is_given_first)
{
    const struct kafka_join_group_response *r = JOIN(.group = "g", .version = 4);
    cr_expect_eq(r->error_code, KERR_MEMBER_ID_REQUIRED);
    cr_expect_eq(r->member_id.size, strlen("client-") + 36);
    cr_expect_eq(memcmp(r->member_id.data, "client-", 7), 0);
    cr_expect_str_eq(state_of(&h, "g"), "Empty");
    const char *id = arena_str(h.arena, r->member_id);
    harness_pass(&h, 9999);
    uint64_t again = ask_join(&h, (struct join_options){.group = "g", .member = id});
    cr_expect_null(joined(&h, again), "it waits for others");
    harness_pass(&h, 2999);
    cr_expect_null(joined(&h, again));
    harness_pass(&h, 1);
    r = joined(&h, again);
    cr_expect_eq(r->error_code, 0);
    cr_expect_eq(r->generation_id, 1);
    cr_expect_eq(r->members_count, 1);
    cr_expect(slice_eq(r->leader, r->member_id));
    cr_expect(slice_eq_str(r->protocol_name, "range") && slice_eq_str(r->protocol_type, "consumer"));
}

Test(join, pending_member_expires)
{
    const struct kafka_join_group_response *r = JOIN(.group = "g");
    const char *id = arena_str(h.arena, r->member_id);
    harness_pass(&h, 10000);
    cr_expect_eq(JOIN(.group = "g", .member = id)->error_code, KERR_UNKNOWN_MEMBER_ID);
}

Test(join, old_versions_join_at_once)
{
    uint64_t q = ask_join(&h, (struct join_options){.group = "g", .version = 3});
    cr_expect_null(joined(&h, q));
    harness_pass(&h, 3000);
    cr_expect_eq(joined(&h, q)->error_code, 0);
    q = ask_join(&h, (struct join_options){.group = "zero", .version = -1});
    harness_pass(&h, 3000);
    cr_expect_eq(joined(&h, q)->error_code, 0);
}

/* Again on each join, up to the rebalance timeout. */
Test(join, initial_delay_is_extended)
{
    uint64_t q[4];
    join_member(&h, (struct join_options){.group = "g", .rebalance_ms = 7000}, &q[0]);
    harness_pass(&h, 2000);
    join_member(&h, (struct join_options){.group = "g", .rebalance_ms = 7000}, &q[1]);
    harness_pass(&h, 1500);
    cr_expect_null(joined(&h, q[0]));
    join_member(&h, (struct join_options){.group = "g", .rebalance_ms = 7000}, &q[2]);
    harness_pass(&h, 2500);
    cr_expect_null(joined(&h, q[0]));
    join_member(&h, (struct join_options){.group = "g", .rebalance_ms = 7000}, &q[3]);
    harness_pass(&h, 1000);
    for (int i = 0; i < 4; i++)
        cr_assert_not_null(joined(&h, q[i]), "7 s after the first join all are answered");
    cr_expect_eq(joined(&h, q[0])->members_count, 4);
    cr_expect_eq(joined(&h, q[1])->members_count, 0, "only the leader is told the members");
}

Test(join, protocols_in_common)
{
    stable_pair(&h, "g");
    cr_expect_eq(JOIN(.group = "g", .protocols = "sticky")->error_code, KERR_INCONSISTENT_GROUP_PROTOCOL);
    cr_expect_eq(JOIN(.group = "g", .type = "connect")->error_code, KERR_INCONSISTENT_GROUP_PROTOCOL);
    cr_expect_str_eq(state_of(&h, "g"), "Stable");
}

Test(join, votes_choose_the_protocol)
{
    uint64_t a, b, c;
    join_member(&h, (struct join_options){.group = "g", .protocols = "x,range,sticky"}, &a);
    join_member(&h, (struct join_options){.group = "g", .protocols = "sticky,range"}, &b);
    join_member(&h, (struct join_options){.group = "g", .protocols = "sticky,range,x"}, &c);
    harness_pass(&h, 6000);
    cr_expect(slice_eq_str(joined(&h, a)->protocol_name, "sticky"));
}

Test(join, third_member_makes_a_rebalance)
{
    struct pair p = stable_pair(&h, "g");
    uint64_t third, leader, follower;
    join_member(&h, (struct join_options){.group = "g"}, &third);
    cr_expect_null(joined(&h, third));
    cr_expect_eq(heartbeat(&h, "g", 1, p.leader, NULL), KERR_REBALANCE_IN_PROGRESS);
    cr_expect_eq(commit(&h, 9, "g", 1, p.leader, "t", 0, 5, ""), 0, "still accepted");
    leader = ask_join(&h, (struct join_options){.group = "g", .member = p.leader});
    follower = ask_join(&h, (struct join_options){.group = "g", .member = p.follower});
    cr_expect_eq(joined(&h, leader)->generation_id, 2);
    cr_expect_eq(joined(&h, leader)->members_count, 3);
    cr_expect_eq(joined(&h, follower)->generation_id, 2);
    cr_expect_eq(heartbeat(&h, "g", 2, p.leader, NULL), 0, "between join and sync");
    cr_expect_eq(commit(&h, 9, "g", 2, p.leader, "t", 0, 6, ""), KERR_REBALANCE_IN_PROGRESS);
    cr_expect_eq(commit(&h, 9, "g", 1, p.leader, "t", 0, 6, ""), KERR_ILLEGAL_GENERATION);
}

Test(join, late_members_are_dropped_at_the_rebalance_timeout)
{
    struct pair p = stable_pair(&h, "g");
    uint64_t third;
    const char *id = join_member(&h, (struct join_options){.group = "g"}, &third);
    for (int i = 0; i < 10; i++) {
        heartbeat(&h, "g", 1, p.leader, NULL);
        heartbeat(&h, "g", 1, p.follower, NULL);
        harness_pass(&h, 6000);
    }
    cr_assert_not_null(joined(&h, third));
    cr_expect_eq(joined(&h, third)->members_count, 1);
    cr_expect(slice_eq_str(joined(&h, third)->leader, id));
    cr_expect_eq(heartbeat(&h, "g", 1, p.leader, NULL), KERR_UNKNOWN_MEMBER_ID);
}

Test(join, lost_answers_are_given_again)
{
    struct pair p = stable_pair(&h, "g");
    const struct kafka_join_group_response *r = JOIN(.group = "g", .member = p.follower);
    cr_assert_not_null(r);
    cr_expect_eq(r->generation_id, 1);
    cr_expect_eq(r->members_count, 0);
    cr_expect_str_eq(state_of(&h, "g"), "Stable");
    cr_expect_null(JOIN(.group = "g", .member = p.leader), "the leader's join forces a rebalance");
    cr_expect_str_eq(state_of(&h, "g"), "PreparingRebalance");
}

Test(join, changed_metadata_makes_a_rebalance)
{
    struct pair p = stable_pair(&h, "g");
    cr_expect_null(JOIN(.group = "g", .member = p.follower, .metadata = "other"));
    cr_expect_str_eq(state_of(&h, "g"), "PreparingRebalance");
}

Test(join, group_max_size)
{
    groups_free(h.core);
    h.config.group_max_size = 2;
    h.core = NULL;
    harness_restart(&h);
    stable_pair(&h, "g");
    cr_expect_eq(JOIN(.group = "g")->error_code, KERR_GROUP_MAX_SIZE_REACHED);
    cr_expect_eq(JOIN(.group = "g", .instance = "i")->error_code, KERR_GROUP_MAX_SIZE_REACHED);
    cr_expect_str_eq(state_of(&h, "g"), "Stable");
}

Test(join, memory_limit)
{
    groups_free(h.core);
    h.config.memory_max_bytes = 4096;
    h.core = NULL;
    harness_restart(&h);
    const struct kafka_join_group_response *r = NULL;
    char name[16];
    for (int i = 0; i < 20 && (r == NULL || r->error_code == KERR_MEMBER_ID_REQUIRED); i++) {
        snprintf(name, sizeof name, "g%d", i);
        r = JOIN(.group = name);
    }
    cr_expect_eq(r->error_code, KERR_GROUP_MAX_SIZE_REACHED);
    int error = 0;
    for (int i = 0; i < 20 && error == 0; i++) {
        snprintf(name, sizeof name, "c%d", i);
        error = commit(&h, 9, name, -1, "", "t", 0, 1, "");
    }
    cr_expect_eq(error, KERR_COORDINATOR_NOT_AVAILABLE);
    cr_expect_leq(groups_memory_bytes(h.core), 4096);
}

/* ---- static members ---- */

static uint64_t join_static(const char *instance, const char *member, int16_t version)
{
    return ask_join(&h,
                    (struct join_options){.group = "s", .instance = instance, .member = member, .version = version});
}

static struct pair static_pair(void)
{
    uint64_t a = join_static("a", NULL, 9), b = join_static("b", NULL, 9);
    harness_pass(&h, 6000);
    struct pair p = {.leader = arena_str(h.arena, joined(&h, a)->member_id),
                     .follower = arena_str(h.arena, joined(&h, b)->member_id),
                     .generation = 1};
    cr_assert_eq(memcmp(p.leader, "a-", 2), 0);
    uint64_t s = ask_sync(&h, "s", 1, p.leader, (const char *[]){p.leader, "left", p.follower, "right", NULL});
    cr_assert_eq(synced(&h, s)->error_code, 0);
    ask_sync(&h, "s", 1, p.follower, NULL);
    return p;
}

Test(join, static_leader_comes_back)
{
    struct pair p = static_pair();
    const struct kafka_join_group_response *r = joined(&h, join_static("a", NULL, 9));
    cr_assert_not_null(r, "no rebalance");
    cr_expect_eq(r->error_code, 0);
    cr_expect_eq(r->generation_id, 1);
    cr_expect(r->skip_assignment);
    cr_expect_eq(r->members_count, 2);
    cr_expect(slice_eq(r->leader, r->member_id));
    cr_expect(!slice_eq_str(r->member_id, p.leader));
    cr_expect_eq(heartbeat(&h, "s", 1, p.leader, "a"), KERR_FENCED_INSTANCE_ID);
    cr_expect_eq(heartbeat(&h, "s", 1, arena_str(h.arena, r->member_id), "a"), 0);
    harness_restart(&h);
    cr_expect_eq(heartbeat(&h, "s", 1, arena_str(h.arena, r->member_id), "a"), 0, "the new id is in the log");
    cr_expect_eq(joined(&h, join_static("a", p.leader, 9))->error_code, KERR_FENCED_INSTANCE_ID);
}

Test(join, static_leader_of_an_old_version_comes_back)
{
    struct pair p = static_pair();
    const struct kafka_join_group_response *r = joined(&h, join_static("a", NULL, 8));
    cr_expect_eq(r->error_code, 0);
    cr_expect_not(r->skip_assignment);
    cr_expect_eq(r->members_count, 0);
    cr_expect(slice_eq_str(r->leader, p.leader), "else it would assign anew");
}

Test(join, static_follower_comes_back)
{
    static_pair();
    const struct kafka_join_group_response *r = joined(&h, join_static("b", NULL, 9));
    cr_expect_eq(r->error_code, 0);
    cr_expect_not(r->skip_assignment);
    cr_expect_eq(r->members_count, 0);
    uint64_t s = ask_sync(&h, "s", 1, arena_str(h.arena, r->member_id), NULL);
    cr_expect(slice_eq_str(synced(&h, s)->assignment, "right"));
}

Test(join, parked_static_member_is_fenced)
{
    uint64_t first = join_static("a", NULL, 9);
    cr_expect_null(joined(&h, first));
    uint64_t second = join_static("a", NULL, 9);
    cr_expect_eq(joined(&h, first)->error_code, KERR_FENCED_INSTANCE_ID);
    harness_pass(&h, 6000);
    cr_expect_eq(joined(&h, second)->error_code, 0);
    cr_expect_eq(joined(&h, second)->members_count, 1);
}

Test(join, static_member_survives_a_rebalance_without_it)
{
    struct pair p = static_pair();
    uint64_t third = join_static("c", NULL, 9);
    uint64_t leader = join_static("a", p.leader, 9);
    for (int i = 0; i < 10; i++) {
        harness_pass(&h, 6000);
        heartbeat(&h, "s", 1, p.follower, "b");
    }
    cr_assert_not_null(joined(&h, third));
    cr_expect_eq(joined(&h, leader)->members_count, 3);
}

/* A rebalance timeout of 0 must not keep the coordinator busy. */
Test(join, static_members_without_a_rebalance_timeout)
{
    uint64_t a = ask_join(&h, (struct join_options){.group = "s", .instance = "a", .rebalance_ms = -1});
    harness_pass(&h, 6000);
    cr_assert_eq(joined(&h, a)->error_code, 0);
    ask_join(&h, (struct join_options){.group = "s"});
    leave(&h, 5, "s", "", "b");
    uint64_t third = ask_join(&h, (struct join_options){.group = "s", .instance = "c", .rebalance_ms = -1});
    harness_pass(&h, 20000);
    cr_assert_not_null(joined(&h, third));
    cr_expect_eq(joined(&h, third)->error_code, 0);
}

/* ---- SyncGroup ---- */

Test(join, sync_errors)
{
    struct pair p = stable_pair(&h, "g");
    cr_expect_eq(synced(&h, ask_sync(&h, "g", 2, p.leader, NULL))->error_code, KERR_ILLEGAL_GENERATION);
    cr_expect_eq(synced(&h, ask_sync(&h, "g", 1, "nobody", NULL))->error_code, KERR_UNKNOWN_MEMBER_ID);
    cr_expect_eq(synced(&h, ask_sync(&h, "nowhere", 1, p.leader, NULL))->error_code, KERR_UNKNOWN_MEMBER_ID);
    cr_expect_eq(synced(&h, ask_sync(&h, "", 1, p.leader, NULL))->error_code, KERR_INVALID_GROUP_ID);
    struct kafka_sync_group_request q;
    kafka_sync_group_request_init(&q);
    q.group_id = SLICE_OF("g");
    q.generation_id = 1;
    q.member_id = slice_str(p.leader);
    const struct kafka_sync_group_response *r = harness_answer(&h, harness_ask(&h, KAFKA_API_SYNC_GROUP, 5, &q));
    cr_expect_eq(r->error_code, KERR_INCONSISTENT_GROUP_PROTOCOL, "null protocol");
    r = harness_answer(&h, harness_ask(&h, KAFKA_API_SYNC_GROUP, 4, &q));
    cr_expect_eq(r->error_code, 0);
    cr_expect(slice_eq_str(r->assignment, "left"));
    q.protocol_type = SLICE_OF("consumer");
    q.protocol_name = SLICE_OF("wrong");
    r = harness_answer(&h, harness_ask(&h, KAFKA_API_SYNC_GROUP, 5, &q));
    cr_expect_eq(r->error_code, KERR_INCONSISTENT_GROUP_PROTOCOL);
}

Test(join, sync_waits_for_the_log)
{
    uint64_t q;
    const char *id = join_member(&h, (struct join_options){.group = "g"}, &q);
    harness_pass(&h, 3000);
    h.hold_appends = true;
    uint64_t s = ask_sync(&h, "g", 1, id, (const char *[]){id, "all", NULL});
    cr_expect_null(synced(&h, s));
    cr_expect_str_eq(state_of(&h, "g"), "CompletingRebalance");
    harness_end_append(&h, KERR_NONE);
    cr_expect(slice_eq_str(synced(&h, s)->assignment, "all"));
    cr_expect_str_eq(state_of(&h, "g"), "Stable");
}

Test(join, failed_append_drops_what_is_not_in_the_log)
{
    uint64_t q;
    const char *id = join_member(&h, (struct join_options){.group = "g"}, &q);
    harness_pass(&h, 3000);
    h.hold_appends = true;
    uint64_t s = ask_sync(&h, "g", 1, id, (const char *[]){id, "all", NULL});
    int loads = h.loads;
    harness_end_append(&h, KERR_NOT_LEADER_OR_FOLLOWER);
    cr_expect_eq(synced(&h, s)->error_code, KERR_NOT_COORDINATOR);
    cr_expect_eq(h.loads, loads + 1);
    cr_expect_str_eq(state_of(&h, "g"), "Empty");
}

Test(join, member_that_never_syncs_is_dropped)
{
    uint64_t a, b;
    const char *leader = join_member(&h, (struct join_options){.group = "g"}, &a);
    const char *lazy = join_member(&h, (struct join_options){.group = "g"}, &b);
    harness_pass(&h, 6000);
    uint64_t s = ask_sync(&h, "g", 1, leader, (const char *[]){leader, "x", NULL});
    cr_expect_eq(synced(&h, s)->error_code, 0);
    for (int i = 0; i < 10; i++) {
        harness_pass(&h, 6000);
        heartbeat(&h, "g", 1, leader, NULL);
        heartbeat(&h, "g", 1, lazy, NULL);
    }
    cr_expect_eq(heartbeat(&h, "g", 1, lazy, NULL), KERR_UNKNOWN_MEMBER_ID);
    cr_expect_eq(heartbeat(&h, "g", 1, leader, NULL), KERR_REBALANCE_IN_PROGRESS);
}

Test(join, parked_sync_is_told_of_a_rebalance)
{
    uint64_t a, b, c;
    join_member(&h, (struct join_options){.group = "g"}, &a);
    const char *follower = join_member(&h, (struct join_options){.group = "g"}, &b);
    harness_pass(&h, 6000);
    uint64_t s = ask_sync(&h, "g", 1, follower, NULL);
    cr_expect_null(synced(&h, s));
    join_member(&h, (struct join_options){.group = "g"}, &c);
    cr_expect_eq(synced(&h, s)->error_code, KERR_REBALANCE_IN_PROGRESS);
}

/* ---- Heartbeat, LeaveGroup ---- */

Test(join, heartbeat_errors_and_expiry)
{
    struct pair p = stable_pair(&h, "g");
    cr_expect_eq(heartbeat(&h, "g", 2, p.leader, NULL), KERR_ILLEGAL_GENERATION);
    cr_expect_eq(heartbeat(&h, "g", 1, "nobody", NULL), KERR_UNKNOWN_MEMBER_ID);
    cr_expect_eq(heartbeat(&h, "nowhere", 1, p.leader, NULL), KERR_UNKNOWN_MEMBER_ID);
    cr_expect_eq(heartbeat(&h, "", 1, p.leader, NULL), KERR_INVALID_GROUP_ID);
    harness_pass(&h, 9000);
    cr_expect_eq(heartbeat(&h, "g", 1, p.leader, NULL), 0);
    harness_pass(&h, 1500);
    cr_expect_eq(heartbeat(&h, "g", 1, p.leader, NULL), KERR_REBALANCE_IN_PROGRESS, "the follower's session is over");
    cr_expect_eq(heartbeat(&h, "g", 1, p.follower, NULL), KERR_UNKNOWN_MEMBER_ID);
    harness_pass(&h, 10000);
    cr_expect_str_eq(state_of(&h, "g"), "Empty");
}

Test(join, leave_errors)
{
    struct pair p = stable_pair(&h, "g");
    cr_expect_eq(leave(&h, 5, "", "x", NULL), KERR_INVALID_GROUP_ID);
    cr_expect_eq(leave(&h, 5, "nowhere", "x", NULL), KERR_UNKNOWN_MEMBER_ID);
    cr_expect_eq(leave(&h, 2, "nowhere", "x", NULL), KERR_UNKNOWN_MEMBER_ID);
    cr_expect_eq(leave(&h, 5, "g", "x", NULL), KERR_UNKNOWN_MEMBER_ID);
    cr_expect_eq(leave(&h, 5, "g", p.follower, "no-instance"), KERR_UNKNOWN_MEMBER_ID);
    cr_expect_str_eq(state_of(&h, "g"), "Stable");
    cr_expect_eq(leave(&h, 2, "g", p.follower, NULL), 0);
    cr_expect_eq(heartbeat(&h, "g", 1, p.leader, NULL), KERR_REBALANCE_IN_PROGRESS);
}

Test(join, last_leave_waits_for_the_log)
{
    struct pair p = stable_pair(&h, "g");
    cr_expect_eq(leave(&h, 5, "g", p.follower, NULL), 0);
    h.hold_appends = true;
    cr_expect_eq(leave(&h, 5, "g", p.leader, NULL), -1000);
    harness_end_append(&h, KERR_NONE);
    cr_expect_str_eq(state_of(&h, "g"), "Empty");
    h.hold_appends = false;
    harness_restart(&h);
    cr_expect_str_eq(state_of(&h, "g"), "Empty");
}

Test(join, administrator_removes_a_static_member)
{
    struct pair p = static_pair();
    cr_expect_eq(leave(&h, 5, "s", "", "zzz"), KERR_UNKNOWN_MEMBER_ID);
    cr_expect_eq(leave(&h, 5, "s", "", "b"), 0);
    cr_expect_eq(heartbeat(&h, "s", 1, p.follower, "b"), KERR_UNKNOWN_MEMBER_ID);
    cr_expect_eq(leave(&h, 5, "s", p.follower, "a"), KERR_FENCED_INSTANCE_ID);
}

Test(join, pending_member_leaves)
{
    const struct kafka_join_group_response *r = JOIN(.group = "g");
    cr_expect_eq(leave(&h, 5, "g", arena_str(h.arena, r->member_id), NULL), 0);
    cr_expect_str_eq(state_of(&h, "g"), "Empty");
}

Test(join, members_survive_a_new_owner)
{
    struct pair p = stable_pair(&h, "g");
    harness_restart(&h);
    cr_expect_str_eq(state_of(&h, "g"), "Stable");
    cr_expect_eq(heartbeat(&h, "g", 1, p.leader, NULL), 0);
    uint64_t s = ask_sync(&h, "g", 1, p.follower, NULL);
    cr_expect(slice_eq_str(synced(&h, s)->assignment, "right"));
    const struct kafka_describe_groups_response_described_group *d = describe(&h, 6, "g");
    cr_expect_eq(d->members_count, 2);
    cr_expect(slice_eq_str(d->members[0].client_host, "/127.0.0.1"));
    cr_expect(slice_eq_str(d->protocol_data, "range"));
    harness_pass(&h, 10000);
    cr_expect_str_eq(state_of(&h, "g"), "Empty", "sessions run on");
}

/* ---- ownership ---- */

Test(join, not_owner_and_loading)
{
    struct pair p = stable_pair(&h, "g");
    for (int32_t i = 0; i < HARNESS_PARTITIONS; i++)
        harness_event(&h, &(struct groups_event){.kind = GROUPS_EVENT_RELEASE, .partition = i});
    cr_expect_eq(heartbeat(&h, "g", 1, p.leader, NULL), KERR_NOT_COORDINATOR);
    cr_expect_eq(JOIN(.group = "g")->error_code, KERR_NOT_COORDINATOR);
    cr_expect_eq(commit(&h, 9, "g", 1, p.leader, "t", 0, 5, ""), KERR_NOT_COORDINATOR);
    cr_expect_eq(committed(&h, "g", "t", 0), -1000 - KERR_NOT_COORDINATOR);
    cr_expect_eq(list(&h, NULL, NULL), 0);
    struct groups_out out;
    for (int32_t i = 0; i < HARNESS_PARTITIONS; i++)
        groups_step(h.core, &(struct groups_event){.kind = GROUPS_EVENT_ACQUIRE, .partition = i, .epoch = 2}, h.now,
                    &out);
    cr_expect_eq(heartbeat(&h, "g", 1, p.leader, NULL), KERR_COORDINATOR_LOAD_IN_PROGRESS);
    cr_expect_eq(list(&h, NULL, NULL), -KERR_COORDINATOR_LOAD_IN_PROGRESS);
    cr_expect_eq(describe(&h, 6, "g")->error_code, KERR_COORDINATOR_LOAD_IN_PROGRESS);
}

Test(join, release_answers_who_waits)
{
    uint64_t q;
    join_member(&h, (struct join_options){.group = "g"}, &q);
    for (int32_t i = 0; i < HARNESS_PARTITIONS; i++)
        harness_event(&h, &(struct groups_event){.kind = GROUPS_EVENT_RELEASE, .partition = i});
    cr_expect_eq(joined(&h, q)->error_code, KERR_NOT_COORDINATOR);
}
