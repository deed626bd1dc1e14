/* The leader's side: the high watermark over the maximal ISR, and the changes of the ISR that it asks for. */
#include "libs/replica/replica.h"
#include <criterion/criterion.h>

enum { ME = 1, LAG_MS = 30000 };

static struct replica_broker brokers[4];
static bool is_registered[4];
static uint64_t last_read[4];
static struct replica_log now_log;
static uint64_t now_ms;
static struct replica_actions out;
static struct replica_core *core;

static bool broker_of(void *ctx UNUSED, int32_t id, struct replica_broker *ret)
{
    if (id < 0 || id > 3 || !is_registered[id])
        return false;
    *ret = brokers[id];
    return true;
}

static uint64_t last_read_of(void *ctx UNUSED, int32_t id)
{
    return last_read[id];
}

static void step(struct replica_event e)
{
    e.now_ms = now_ms;
    e.log = now_log;
    replica_step(core, &e, &out);
    for (size_t i = 0; i < out.count; i++) {
        if (out.at[i].kind == REPLICA_DO_HIGH_WATERMARK) {
            cr_assert_gt(out.at[i].offset, now_log.high_watermark);
            now_log.high_watermark = out.at[i].offset;
        }
    }
    replica_check(core, &now_log);
}

static const struct replica_action *done(enum replica_action_kind kind)
{
    for (size_t i = 0; i < out.count; i++) {
        if (out.at[i].kind == kind)
            return &out.at[i];
    }
    return NULL;
}

static void take_state(int32_t leader, int32_t leader_epoch, int32_t partition_epoch, const int32_t *isr, int32_t n)
{
    static const int32_t all[] = {1, 2, 3};
    const struct replica_state s = {.leader = leader,
                                    .leader_epoch = leader_epoch,
                                    .partition_epoch = partition_epoch,
                                    .replicas = all,
                                    .replica_count = 3,
                                    .isr = isr,
                                    .isr_count = n};
    step((struct replica_event){.kind = REPLICA_STATE, .state = &s});
}

#define ISR(...) (const int32_t[]){__VA_ARGS__}, (int32_t)(sizeof((int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

static void append_to(int64_t end)
{
    now_log.end = now_log.safe_end = end;
    step((struct replica_event){.kind = REPLICA_APPENDED});
}

static void fetch(int32_t id, int64_t offset)
{
    last_read[id] = now_ms;
    cr_assert_eq(replica_check_follower(core, id, brokers[id].epoch), KERR_NONE);
    step((struct replica_event){
        .kind = REPLICA_FETCHED, .follower = id, .offset = offset, .broker_epoch = brokers[id].epoch, .watched = true});
}

static void answer(enum kafka_error error, uint64_t id, int32_t partition_epoch, const int32_t *isr, int32_t n)
{
    step((struct replica_event){.kind = REPLICA_ALTERED,
                                .id = id,
                                .error = error,
                                .leader_epoch = replica_leader_epoch(core),
                                .partition_epoch = partition_epoch,
                                .isr = isr,
                                .isr_count = n});
}

static void set_up(void)
{
    const struct replica_env env = {.node_id = ME, .broker = broker_of, .last_read_ms = last_read_of};
    for (int i = 1; i <= 3; i++) {
        brokers[i] = (struct replica_broker){.epoch = 10 + i};
        is_registered[i] = true;
        last_read[i] = 0;
    }
    now_log = (struct replica_log){.latest_epoch = -1};
    now_ms = 100000;
    core = replica_new(&env);
    replica_configure(core, 2, LAG_MS, 100);
}

static void tear_down(void)
{
    core = replica_free(core);
}

TestSuite(leader, .init = set_up, .fini = tear_down);

Test(leader, the_high_watermark_is_the_least_end_in_the_isr)
{
    take_state(ME, 5, 1, ISR(1, 2, 3));
    cr_assert_eq(done(REPLICA_DO_LEAD)->leader_epoch, 5);
    append_to(10);
    cr_assert_eq(now_log.high_watermark, 0);
    fetch(2, 10);
    cr_assert_eq(now_log.high_watermark, 0);
    fetch(3, 7);
    cr_assert_eq(now_log.high_watermark, 7);
    fetch(3, 10);
    cr_assert_eq(now_log.high_watermark, 10);
}

Test(leader, what_is_not_flushed_at_the_leader_is_not_committed)
{
    take_state(ME, 5, 1, ISR(1, 2, 3));
    append_to(10);
    now_log.safe_end = 4;
    fetch(2, 10);
    fetch(3, 10);
    cr_assert_eq(now_log.high_watermark, 4);
    append_to(10);
    cr_assert_eq(now_log.high_watermark, 10);
}

Test(leader, a_follower_that_lags_leaves_the_isr_when_the_controller_has_said_so)
{
    take_state(ME, 5, 1, ISR(1, 2, 3));
    fetch(2, 0);
    fetch(3, 0);
    append_to(10);
    fetch(2, 10);
    now_ms += LAG_MS;
    step((struct replica_event){.kind = REPLICA_TICK});
    cr_assert_null(done(REPLICA_DO_ALTER));
    now_ms += 1;
    step((struct replica_event){.kind = REPLICA_TICK});
    const struct replica_action *a = done(REPLICA_DO_ALTER);
    cr_assert_not_null(a);
    cr_assert_eq(a->isr_count, 2);
    cr_assert_eq(a->isr[0].id, 1);
    cr_assert_eq(a->isr[1].id, 2);
    cr_assert_eq(a->isr[1].broker_epoch, 12);
    cr_assert_eq(a->partition_epoch, 1);
    uint64_t id = a->id;
    cr_assert_eq(now_log.high_watermark, 0, "a shrink that is not committed takes nobody out");
    step((struct replica_event){.kind = REPLICA_TICK});
    cr_assert_null(done(REPLICA_DO_ALTER), "one at a time");
    answer(KERR_NONE, id, 2, ISR(1, 2));
    cr_assert_eq(now_log.high_watermark, 10);
    cr_assert_eq(replica_partition_epoch(core), 2);
    cr_assert(!replica_is_in_sync(core, 3));
}

Test(leader, reads_that_do_not_name_a_partition_count_for_it)
{
    take_state(ME, 5, 1, ISR(1, 2, 3));
    fetch(2, 0);
    fetch(3, 0);
    now_ms += 10 * LAG_MS;
    last_read[2] = last_read[3] = now_ms - 400; /* they went on reading, with nothing new to say of this one */
    step((struct replica_event){.kind = REPLICA_TICK});
    cr_assert_null(done(REPLICA_DO_ALTER), "whoever has all is in sync however long ago it read");
    append_to(1);
    step((struct replica_event){.kind = REPLICA_TICK});
    cr_assert_null(done(REPLICA_DO_ALTER));
    now_ms += LAG_MS;
    step((struct replica_event){.kind = REPLICA_TICK});
    cr_assert_eq(done(REPLICA_DO_ALTER)->isr_count, 1);
}

Test(leader, reads_that_do_not_name_it_stop_counting_when_it_is_watched_no_more)
{
    take_state(ME, 5, 1, ISR(1, 2, 3));
    fetch(2, 0);
    fetch(3, 0);
    step((struct replica_event){.kind = REPLICA_UNWATCHED, .follower = 3});
    now_ms += 10 * LAG_MS;
    last_read[2] = last_read[3] = now_ms;
    append_to(1);
    step((struct replica_event){.kind = REPLICA_TICK});
    cr_assert_eq(done(REPLICA_DO_ALTER)->isr_count, 2);
    cr_assert_eq(done(REPLICA_DO_ALTER)->isr[1].id, 2);
}

Test(leader, one_that_joins_holds_the_high_watermark_from_the_moment_it_is_proposed)
{
    take_state(ME, 5, 1, ISR(1, 2));
    append_to(10);
    fetch(2, 10);
    cr_assert_eq(now_log.high_watermark, 10);
    fetch(3, 9);
    cr_assert_null(done(REPLICA_DO_ALTER), "it is behind the high watermark");
    fetch(3, 10);
    const struct replica_action *a = done(REPLICA_DO_ALTER);
    cr_assert_not_null(a);
    cr_assert_eq(a->isr_count, 3);
    cr_assert_eq(a->isr[2].id, 3);
    cr_assert_eq(a->isr[2].broker_epoch, 13);
    append_to(20);
    fetch(2, 20);
    cr_assert_eq(now_log.high_watermark, 10);
    answer(KERR_INELIGIBLE_REPLICA, a->id, 0, NULL, 0);
    cr_assert(!replica_is_in_sync(core, 3));
    now_ms += LAG_MS + 1;
    step((struct replica_event){.kind = REPLICA_TICK});
    cr_assert_eq(now_log.high_watermark, 20, "refused, and behind for too long");
}

Test(leader, nobody_joins_before_the_start_of_the_leaders_epoch)
{
    now_log.end = now_log.safe_end = 10;
    now_log.high_watermark = 2;
    take_state(ME, 5, 1, ISR(1, 2));
    cr_assert_eq(replica_epoch_start(core), 10);
    fetch(3, 5);
    cr_assert_null(done(REPLICA_DO_ALTER), "at the high watermark, but what the epoch began with is not there");
    fetch(3, 10);
    cr_assert_not_null(done(REPLICA_DO_ALTER));
}

Test(leader, who_is_fenced_or_of_another_life_does_not_join)
{
    take_state(ME, 5, 1, ISR(1, 2));
    brokers[3].fenced = true;
    fetch(3, 0);
    cr_assert_null(done(REPLICA_DO_ALTER));
    brokers[3].fenced = false;
    brokers[3].shutting_down = true;
    fetch(3, 0);
    cr_assert_null(done(REPLICA_DO_ALTER));
    brokers[3].shutting_down = false;
    brokers[3].epoch = 99;
    cr_assert_eq(replica_check_follower(core, 3, 13), KERR_NOT_LEADER_OR_FOLLOWER);
    cr_assert_eq(replica_check_follower(core, 3, 99), KERR_NONE);
    cr_assert_eq(replica_check_follower(core, 0, 99), KERR_UNKNOWN_LEADER_EPOCH);
    fetch(3, 0);
    cr_assert_not_null(done(REPLICA_DO_ALTER));
}

/* They read on without naming the partition, as nothing of it changes. */
Test(leader, what_kept_a_follower_out_is_looked_at_again)
{
    take_state(ME, 5, 1, ISR(1));
    fetch(2, 0);
    uint64_t id = done(REPLICA_DO_ALTER)->id;
    fetch(3, 0);
    cr_assert_null(done(REPLICA_DO_ALTER), "one at a time");
    answer(KERR_NONE, id, 2, ISR(1, 2));
    const struct replica_action *a = done(REPLICA_DO_ALTER);
    cr_assert_not_null(a);
    cr_assert_eq(a->isr_count, 3);
    brokers[3].fenced = true;
    take_state(ME, 5, 3, ISR(1, 2));
    cr_assert_null(done(REPLICA_DO_ALTER));
    brokers[3].fenced = false;
    step((struct replica_event){.kind = REPLICA_TICK});
    cr_assert_not_null(done(REPLICA_DO_ALTER));
    take_state(ME, 5, 4, ISR(1, 2));
    cr_assert_not_null(done(REPLICA_DO_ALTER));
}

Test(leader, below_min_insync_replicas_nothing_is_taken_and_nothing_committed)
{
    take_state(ME, 5, 1, ISR(1));
    cr_assert_eq(replica_may_append(core, -1), KERR_NOT_ENOUGH_REPLICAS);
    cr_assert_eq(replica_may_append(core, 1), KERR_NONE);
    append_to(5);
    cr_assert_eq(now_log.high_watermark, 0, "KIP-966");
    cr_assert_eq(replica_acknowledge(core), KERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND);
    replica_configure(core, 1, LAG_MS, 100);
    step((struct replica_event){.kind = REPLICA_CONFIGURED});
    cr_assert_eq(now_log.high_watermark, 5);
    cr_assert_eq(replica_may_append(core, -1), KERR_NONE);
    replica_configure(core, 9, LAG_MS, 100);
    cr_assert_eq(replica_may_append(core, -1), KERR_NOT_ENOUGH_REPLICAS, "three at most");
    take_state(ME, 5, 2, ISR(1, 2, 3));
    cr_assert_eq(replica_may_append(core, -1), KERR_NONE);
}

Test(leader, a_change_is_asked_for_again_after_an_unexpected_error_and_left_after_a_stale_one)
{
    take_state(ME, 5, 1, ISR(1, 2));
    fetch(3, 0);
    uint64_t id = done(REPLICA_DO_ALTER)->id;
    answer(KERR_REQUEST_TIMED_OUT, id, 0, NULL, 0);
    cr_assert_not_null(done(REPLICA_DO_ALTER));
    uint64_t second = done(REPLICA_DO_ALTER)->id;
    answer(KERR_NONE, id, 2, ISR(1, 2, 3));
    cr_assert(!replica_is_in_sync(core, 3), "the answer to the first counts no more");
    answer(KERR_INVALID_UPDATE_VERSION, second, 0, NULL, 0);
    fetch(3, 0);
    cr_assert_null(done(REPLICA_DO_ALTER), "the metadata is ahead: it comes first");
    take_state(ME, 5, 3, ISR(1, 2));
    cr_assert_not_null(done(REPLICA_DO_ALTER));
    cr_assert_eq(done(REPLICA_DO_ALTER)->partition_epoch, 3);
}

Test(leader, an_older_image_says_nothing)
{
    take_state(ME, 5, 4, ISR(1, 2, 3));
    take_state(2, 4, 3, ISR(2));
    cr_assert_eq(replica_role(core), REPLICA_LEADER);
    cr_assert_eq(replica_partition_epoch(core), 4);
}

Test(leader, one_that_steps_down_ends_its_waits_and_follows)
{
    take_state(ME, 5, 1, ISR(1, 2, 3));
    append_to(10);
    take_state(2, 6, 2, ISR(1, 2, 3));
    cr_assert_not_null(done(REPLICA_DO_END_WAITS));
    cr_assert_eq(done(REPLICA_DO_FOLLOW)->leader, 2);
    cr_assert_eq(replica_check_follower(core, 3, -1), KERR_NOT_LEADER_OR_FOLLOWER);
    cr_assert_eq(replica_epoch_start(core), -1);
    take_state(-1, 7, 3, ISR(1));
    cr_assert_not_null(done(REPLICA_DO_REST));
    cr_assert_eq(replica_role(core), REPLICA_IDLE);
}

Test(leader, deleted_records_are_gone_when_the_last_live_follower_says_so)
{
    take_state(ME, 5, 1, ISR(1, 2, 3));
    cr_assert_eq(replica_low_watermark(core, 40), -1);
    brokers[3].fenced = true;
    step((struct replica_event){.kind = REPLICA_FETCHED, .follower = 2, .log_start = 30, .broker_epoch = 12});
    cr_assert_eq(replica_low_watermark(core, 40), 30);
    brokers[3].fenced = false;
    cr_assert_eq(replica_low_watermark(core, 40), -1);
}

/* The Read of a follower whose disk is full. */
static void fetch_without_room(int32_t id, int64_t offset)
{
    step((struct replica_event){.kind = REPLICA_FETCHED,
                                .follower = id,
                                .offset = offset,
                                .broker_epoch = brokers[id].epoch,
                                .watched = true,
                                .no_room = true});
}

/* Three are in sync, two of them have what came last. */
static void third_lacks_the_last(void)
{
    take_state(ME, 5, 1, ISR(1, 2, 3));
    append_to(10);
    fetch(2, 10);
    fetch(3, 10);
    append_to(20);
    fetch(2, 20);
    cr_assert_eq(now_log.high_watermark, 10);
}

/* Its Reads go on, and say so: nobody waits for it any more, and nobody asks for it until there is room. */
Test(leader, waits_for_nobody_whose_disk_is_full)
{
    third_lacks_the_last();
    fetch_without_room(3, 10);
    cr_assert_eq(now_log.high_watermark, 10, "it is in sync, as far as anybody knows");
    take_state(ME, 5, 2, ISR(1, 2));
    cr_assert_eq(now_log.high_watermark, 20);
    fetch_without_room(3, 20);
    cr_assert_eq(out.count, 0);
    append_to(30);
    fetch(2, 30);
    cr_assert_eq(now_log.high_watermark, 30);
    fetch(3, 30);
    cr_assert_not_null(done(REPLICA_DO_ALTER), "there is room");
    cr_assert_eq(done(REPLICA_DO_ALTER)->isr_count, 3);
}

/* The ISR without it may be known before its Read says why. */
Test(leader, stops_waiting_for_one_that_says_that_its_disk_is_full)
{
    third_lacks_the_last();
    take_state(ME, 5, 2, ISR(1, 2));
    cr_assert_eq(now_log.high_watermark, 10);
    fetch_without_room(3, 10);
    cr_assert_eq(now_log.high_watermark, 20);
}
