/* The follower's side: what it does with what its leader says. */
#include "libs/replica/replica.h"
#include <criterion/criterion.h>

enum { ME = 2, EPOCH = 7 };

static struct replica_log now_log;
static uint64_t now_ms;
static struct replica_actions out;
static struct replica_core *core;

static bool no_broker(void *ctx UNUSED, int32_t id UNUSED, struct replica_broker *ret UNUSED)
{
    return false;
}

static uint64_t never(void *ctx UNUSED, int32_t id UNUSED)
{
    return 0;
}

static void step(struct replica_event e)
{
    e.now_ms = now_ms;
    e.log = now_log;
    replica_step(core, &e, &out);
    replica_check(core, &now_log);
}

static const struct replica_action *only(enum replica_action_kind kind)
{
    cr_assert_eq(out.count, 1);
    cr_assert_eq(out.at[0].kind, kind);
    return &out.at[0];
}

static void follow(int32_t leader, int32_t epoch)
{
    static const int32_t all[] = {1, 2, 3};
    const struct replica_state s = {.leader = leader,
                                    .leader_epoch = epoch,
                                    .partition_epoch = epoch,
                                    .replicas = all,
                                    .replica_count = 3,
                                    .isr = all,
                                    .isr_count = 3};
    step((struct replica_event){.kind = REPLICA_STATE, .state = &s});
}

static struct replica_event told(void)
{
    return (struct replica_event){.kind = REPLICA_TOLD,
                                  .id = replica_past(core),
                                  .offset = now_log.end,
                                  .leader_start = 0,
                                  .leader_end = -1,
                                  .leader_high_watermark = 0,
                                  .diverging_epoch = -1,
                                  .diverging_end = -1,
                                  .own_epoch = -1,
                                  .own_end = -1};
}

static void set_up(void)
{
    const struct replica_env env = {.node_id = ME, .broker = no_broker, .last_read_ms = never};
    now_log = (struct replica_log){.start = 10, .end = 100, .high_watermark = 50, .safe_end = 100, .latest_epoch = 5};
    now_ms = 1;
    core = replica_new(&env);
    replica_configure(core, 1, 30000, 100);
}

static void tear_down(void)
{
    core = replica_free(core);
}

TestSuite(follower, .init = set_up, .fini = tear_down);

Test(follower, appends_and_takes_the_bounds_only_then)
{
    follow(1, EPOCH);
    cr_assert_eq(only(REPLICA_DO_FOLLOW)->leader, 1);
    cr_assert(replica_reads(core));
    struct replica_event e = told();
    e.has_records = true;
    e.first_offset = 100;
    e.last_offset = 109;
    e.leader_high_watermark = 105;
    e.leader_start = 20;
    step(e);
    only(REPLICA_DO_APPEND);
    cr_assert(!replica_reads(core));
    now_log.end = now_log.safe_end = 110;
    step((struct replica_event){.kind = REPLICA_WRITTEN});
    cr_assert_eq(out.count, 2);
    cr_assert_eq(out.at[0].kind, REPLICA_DO_HIGH_WATERMARK);
    cr_assert_eq(out.at[0].offset, 105);
    cr_assert_eq(out.at[1].kind, REPLICA_DO_LOG_START);
    cr_assert_eq(out.at[1].offset, 20);
    cr_assert(replica_reads(core));
}

Test(follower, the_high_watermark_stays_within_its_log_and_never_goes_back)
{
    follow(1, EPOCH);
    struct replica_event e = told();
    e.leader_high_watermark = 900;
    step(e);
    cr_assert_eq(only(REPLICA_DO_HIGH_WATERMARK)->offset, 100);
    e.leader_high_watermark = 30;
    step(e);
    cr_assert_eq(out.count, 0);
}

Test(follower, what_was_said_of_another_epoch_or_offset_does_not_count)
{
    follow(1, EPOCH);
    struct replica_event e = told();
    e.has_records = true;
    follow(3, EPOCH + 1);
    step(e);
    cr_assert_eq(out.count, 0);
    e = told();
    e.has_records = true;
    e.offset = 99;
    step(e);
    cr_assert_eq(out.count, 0);
}

Test(follower, cuts_to_where_the_epochs_part)
{
    follow(1, EPOCH);
    struct replica_event e = told();
    e.diverging_epoch = 4;
    e.diverging_end = 80;
    e.own_epoch = 4;
    e.own_end = 90;
    step(e);
    cr_assert_eq(only(REPLICA_DO_TRUNCATE)->offset, 80);
    cr_assert(!replica_reads(core));
    now_log.end = now_log.safe_end = 80;
    now_log.latest_epoch = 4;
    step((struct replica_event){.kind = REPLICA_CUT});
    cr_assert(replica_reads(core));
}

Test(follower, an_epoch_that_it_does_not_have_is_cut_in_two_steps)
{
    follow(1, EPOCH);
    struct replica_event e = told();
    e.diverging_epoch = 4;
    e.diverging_end = 80;
    e.own_epoch = 2;
    e.own_end = 60;
    step(e);
    cr_assert_eq(only(REPLICA_DO_TRUNCATE)->offset, 60);
    step((struct replica_event){.kind = REPLICA_CUT});
    e = told();
    e.diverging_epoch = 4;
    e.diverging_end = 80;
    step(e); /* nothing of its own as old as that: the leader's word alone */
    cr_assert_eq(only(REPLICA_DO_TRUNCATE)->offset, 80);
}

Test(follower, out_of_range_above_and_below)
{
    follow(1, EPOCH);
    struct replica_event e = told();
    e.error = KERR_OFFSET_OUT_OF_RANGE;
    e.leader_start = 0;
    e.leader_end = 70;
    step(e);
    cr_assert_eq(only(REPLICA_DO_TRUNCATE)->offset, 70);
    step((struct replica_event){.kind = REPLICA_CUT});
    e.id = replica_past(core);
    e.leader_start = 500;
    e.leader_end = 600;
    step(e);
    cr_assert_eq(only(REPLICA_DO_RESTART)->offset, 500);
    step((struct replica_event){.kind = REPLICA_CUT});
    e.id = replica_past(core);
    e.leader_start = 50;
    step(e);
    cr_assert_eq(out.count, 0);
    cr_assert(!replica_reads(core), "within the leader's log: asked again later");
    now_ms = replica_due(core);
    step((struct replica_event){.kind = REPLICA_TICK});
    cr_assert(replica_reads(core));
}

Test(follower, an_empty_log_begins_where_the_first_batch_begins)
{
    now_log =
        (struct replica_log){.start = 105, .end = 105, .high_watermark = 105, .safe_end = 105, .latest_epoch = -1};
    follow(1, EPOCH);
    struct replica_event e = told();
    e.has_records = true;
    e.first_offset = 100;
    e.last_offset = 109;
    step(e);
    cr_assert_eq(out.count, 2);
    cr_assert_eq(out.at[0].kind, REPLICA_DO_RESTART);
    cr_assert_eq(out.at[0].offset, 100);
    cr_assert_eq(out.at[1].kind, REPLICA_DO_APPEND);
}

Test(follower, without_epochs_it_begins_at_the_high_watermark)
{
    now_log.latest_epoch = -1;
    follow(1, EPOCH);
    cr_assert_eq(out.count, 2);
    cr_assert_eq(out.at[1].kind, REPLICA_DO_TRUNCATE);
    cr_assert_eq(out.at[1].offset, 50);
}

Test(follower, fenced_it_waits_for_the_metadata_and_otherwise_asks_again)
{
    follow(1, EPOCH);
    struct replica_event e = told();
    e.error = KERR_FENCED_LEADER_EPOCH;
    step(e);
    cr_assert(!replica_reads(core));
    cr_assert_eq(replica_due(core), UINT64_MAX);
    follow(1, EPOCH + 1);
    only(REPLICA_DO_FOLLOW);
    cr_assert(replica_reads(core));
    e.error = KERR_UNKNOWN_LEADER_EPOCH;
    e.id = replica_past(core);
    step(e);
    cr_assert_neq(replica_due(core), UINT64_MAX);
}

Test(follower, what_could_not_be_written_is_asked_for_again_but_not_by_a_broken_disk)
{
    follow(1, EPOCH);
    struct replica_event e = told();
    e.has_records = true;
    e.first_offset = e.last_offset = 100;
    step(e);
    step((struct replica_event){.kind = REPLICA_WRITTEN, .error = KERR_CORRUPT_MESSAGE});
    cr_assert_neq(replica_due(core), UINT64_MAX);
    now_ms = replica_due(core);
    step((struct replica_event){.kind = REPLICA_TICK});
    step(e);
    step((struct replica_event){.kind = REPLICA_WRITTEN, .error = KERR_KAFKA_STORAGE_ERROR});
    cr_assert_eq(replica_due(core), UINT64_MAX);
    cr_assert(!replica_reads(core));
}

Test(follower, a_new_partition_epoch_alone_does_not_restart_it)
{
    static const int32_t all[] = {1, 2, 3};
    follow(1, EPOCH);
    struct replica_state s = {.leader = 1,
                              .leader_epoch = EPOCH,
                              .partition_epoch = EPOCH + 1,
                              .replicas = all,
                              .replica_count = 3,
                              .isr = all,
                              .isr_count = 2};
    step((struct replica_event){.kind = REPLICA_STATE, .state = &s});
    cr_assert_eq(out.count, 0);
    cr_assert_eq(replica_partition_epoch(core), EPOCH + 1);
}

/* DeleteRecords at the leader is how the follower's disk gets room. */
Test(follower, hears_of_a_new_log_start_although_nothing_can_be_written)
{
    follow(1, EPOCH);
    struct replica_event e = told();
    e.has_records = true;
    e.first_offset = e.last_offset = 100;
    e.leader_start = 20;
    step(e);
    only(REPLICA_DO_APPEND);
    step((struct replica_event){.kind = REPLICA_WRITTEN, .error = KERR_UNKNOWN_SERVER_ERROR});
    cr_assert_eq(out.at[out.count - 1].kind, REPLICA_DO_LOG_START);
    cr_assert_eq(out.at[out.count - 1].offset, 20);
    cr_assert(!replica_reads(core));
    cr_assert_neq(replica_due(core), UINT64_MAX);
}

/* A cut that has to wait for room: the leader is asked again, and says the same. */
Test(follower, a_cut_is_put_off)
{
    follow(1, EPOCH);
    struct replica_event e = told();
    e.diverging_epoch = e.own_epoch = EPOCH - 1;
    e.diverging_end = 90;
    e.own_end = 95;
    step(e);
    only(REPLICA_DO_TRUNCATE);
    step((struct replica_event){.kind = REPLICA_CUT, .error = KERR_UNKNOWN_SERVER_ERROR});
    cr_assert(!replica_reads(core));
    now_ms = replica_due(core);
    step((struct replica_event){.kind = REPLICA_TICK});
    cr_assert(replica_reads(core));
    e.id = replica_past(core);
    step(e);
    only(REPLICA_DO_TRUNCATE);
    cr_assert_eq(out.at[0].offset, 90);
    step((struct replica_event){.kind = REPLICA_CUT, .error = KERR_KAFKA_STORAGE_ERROR});
    cr_assert_eq(replica_due(core), UINT64_MAX);
    cr_assert(!replica_reads(core));
}
