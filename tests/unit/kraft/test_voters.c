/* test_voters.c - what the voters' record says of a voter, corrected while the quorum runs (UpdateRaftVoter), and
 * static voters that become dynamic ones (kraft.version 1). */
#include <string.h>

#include "libs/records/records.h"
#include "tests/unit/kraft/help.h"

static struct kraft *k;
static struct kraft_options o;

static struct uuid directory(int32_t id)
{
    return (struct uuid){{7, (uint8_t)id}};
}

static struct kraft_endpoint endpoint(const char *name, uint16_t port)
{
    struct kraft_endpoint e = {.host = "h", .port = port};
    strcpy(e.name, name);
    return e;
}

/* What node `id` is: at CONTROLLER://h:9000 + id. */
static struct kraft_voter voter(int32_t id)
{
    struct kraft_voter v = {.id = id, .directory_id = directory(id), .endpoint_count = 1, .kraft_version_max = 1};
    v.endpoints[0] = endpoint("CONTROLLER", (uint16_t)(9000 + id));
    return v;
}

/* Node 1 of `count`. */
static void open_kraft(int32_t count, int16_t version)
{
    o = (struct kraft_options){
        .node_id = 1, .directory_id = directory(1), .state = {.leader_id = -1, .voted_id = -1}, .update_self = true};
    o.kraft_version = version;
    o.self = voter(1);
    o.voters.count = count;
    for (int32_t i = 0; i < count; i++) {
        o.voters.voter[i] = version > 0 ? voter(i + 1) : (struct kraft_voter){.id = i + 1};
    }
}

static void start(void)
{
    cr_assert_eq(kraft_new(&o, &k), 0);
}

static void stop(void)
{
    k = kraft_free(k);
}

static struct kraft_actions step(struct kraft_event e)
{
    e.now_wall_ms = WALL_MS;
    return kraft_step(k, &e);
}

/* The records of a control batch by their types. */
static int32_t types_of(struct slice bytes, int16_t types[4])
{
    struct batch b;
    struct slice one;
    struct record_iter it;
    struct record r;
    struct buf scratch = {0};
    int32_t n = 0;
    cr_assert_eq(batch_next(&bytes, &b, &one), 1);
    cr_assert_eq(record_iter_init(&it, &b, one, &scratch, 1 << 20), 0);
    while (record_iter_next(&it, &r) == 1 && n < 4)
        types[n++] = (int16_t)control_type_of(r.key);
    buf_free(&scratch);
    return n;
}

static struct kraft_actions fetched_by(int32_t id, uint64_t now_ms)
{
    struct kraft_message m = {.kind = KRAFT_FETCH,
                              .from = id,
                              .from_directory = directory(id),
                              .epoch = kraft_epoch(k),
                              .offset = kraft_log_end(k),
                              .last_epoch = kraft_epoch(k),
                              .high_watermark = -1};
    return step((struct kraft_event){.kind = KRAFT_REQUEST, .id = 100, .message = &m, .now_ms = now_ms});
}

static struct kraft_action last_sent(struct kraft_actions a)
{
    struct kraft_action sent = {0};
    for (size_t i = 0; i < a.count; i++)
        if (a.action[i].kind == KRAFT_DO_SEND)
            sent = a.action[i];
    return sent;
}

/* Elected by the first who is asked, with everything of its epoch committed. Now is 6000. */
static void lead(void)
{
    struct kraft_actions a = step((struct kraft_event){.kind = KRAFT_TICK, .now_ms = 5000});
    for (int round = 0; kraft_role(k) != KRAFT_LEADER && round < 4; round++) {
        struct kraft_action asked = last_sent(a);
        cr_assert_eq(asked.message.kind, KRAFT_VOTE);
        struct kraft_message yes = {.kind = KRAFT_VOTE,
                                    .from = asked.to,
                                    .from_directory = directory(asked.to),
                                    .epoch = asked.message.epoch,
                                    .leader = -1,
                                    .pre_vote = asked.message.pre_vote,
                                    .granted = true,
                                    .diverging_end = -1,
                                    .snapshot_end = -1};
        a = step((struct kraft_event){.kind = KRAFT_RESPONSE, .id = asked.id, .message = &yes, .now_ms = 5001});
    }
    cr_assert_eq(kraft_role(k), KRAFT_LEADER);
    step((struct kraft_event){.kind = KRAFT_FLUSHED, .offset = kraft_log_end(k), .now_ms = 5002});
    for (int32_t id = 2; id <= o.voters.count; id++)
        fetched_by(id, 5003);
}

static struct kraft_actions ask(enum kraft_message_kind kind, int32_t from, const struct kraft_voter *v)
{
    struct kraft_message m = {.kind = kind, .from = from, .leader = -1, .epoch = from >= 0 ? kraft_epoch(k) : 0};
    m.voter = v;
    return step((struct kraft_event){.kind = KRAFT_REQUEST, .id = 9, .message = &m, .now_ms = 6000});
}

Test(voters, one_static_voter_becomes_dynamic, .fini = stop)
{
    int16_t types[4];
    open_kraft(1, 0);
    start();
    lead();
    cr_assert_null(kraft_upgrade_refusal(k));
    struct kraft_actions a = ask(KRAFT_UPGRADE, -1, NULL);
    cr_assert_not_null(help_find(a, KRAFT_DO_APPEND));
    cr_assert_eq(types_of(help_find(a, KRAFT_DO_APPEND)->bytes, types), 2);
    cr_expect(types[0] == CONTROL_KRAFT_VERSION && types[1] == CONTROL_KRAFT_VOTERS);
    cr_expect_null(help_find(a, KRAFT_DO_REPLY), "answered when it is committed");
    a = step((struct kraft_event){.kind = KRAFT_FLUSHED, .offset = kraft_log_end(k), .now_ms = 6001});
    cr_assert_not_null(help_find(a, KRAFT_DO_REPLY));
    cr_expect_eq(help_find(a, KRAFT_DO_REPLY)->message.error, KERR_NONE);
    cr_expect_eq(kraft_version(k), 1);
    cr_expect(uuid_eq(kraft_voters(k)->voter[0].directory_id, directory(1)));
    cr_expect_eq(kraft_voters(k)->voter[0].endpoints[0].port, 9001);
    a = ask(KRAFT_UPGRADE, -1, NULL);
    cr_expect_eq(help_find(a, KRAFT_DO_REPLY)->message.error, KERR_INVALID_UPDATE_VERSION, "there is nothing above 1");
}

/* The record needs the directory and endpoints of each: they say so themselves. */
Test(voters, three_static_voters_tell_who_they_are, .fini = stop)
{
    open_kraft(3, 0);
    start();
    lead();
    cr_assert_not_null(kraft_upgrade_refusal(k));
    cr_expect_eq(help_find(ask(KRAFT_UPGRADE, -1, NULL), KRAFT_DO_REPLY)->message.error, KERR_INVALID_UPDATE_VERSION);
    for (int32_t id = 2; id <= 3; id++) {
        struct kraft_voter v = voter(id);
        struct kraft_actions a = ask(KRAFT_UPDATE_VOTER, id, &v);
        cr_expect_null(help_find(a, KRAFT_DO_APPEND), "there is no record to change yet");
        cr_assert_eq(help_find(a, KRAFT_DO_REPLY)->message.error, KERR_NONE);
    }
    struct kraft_voter stranger = voter(4);
    cr_expect_eq(help_find(ask(KRAFT_UPDATE_VOTER, 4, &stranger), KRAFT_DO_REPLY)->message.error, KERR_VOTER_NOT_FOUND);
    cr_assert_null(kraft_upgrade_refusal(k));
    cr_assert_not_null(help_find(ask(KRAFT_UPGRADE, -1, NULL), KRAFT_DO_APPEND));
    for (int32_t i = 0; i < 3; i++) {
        const struct kraft_voter *v = &kraft_voters(k)->voter[i];
        cr_expect(uuid_eq(v->directory_id, directory(v->id)) && v->endpoints[0].port == 9000 + v->id);
    }
    step((struct kraft_event){.kind = KRAFT_FLUSHED, .offset = kraft_log_end(k), .now_ms = 6001});
    cr_expect_lt(kraft_high_watermark(k), kraft_log_end(k), "one of three has it");
    fetched_by(3, 6002);
    cr_expect_eq(kraft_high_watermark(k), kraft_log_end(k));
}

static struct kraft_actions led_by(int32_t leader, int32_t epoch, uint64_t now_ms)
{
    struct kraft_message begin = {.kind = KRAFT_BEGIN_EPOCH,
                                  .from = leader,
                                  .from_directory = directory(leader),
                                  .epoch = epoch,
                                  .leader = leader};
    return step((struct kraft_event){.kind = KRAFT_REQUEST, .id = 1, .message = &begin, .now_ms = now_ms});
}

/* An answer of the one that leads, to what was sent last. */
static struct kraft_actions answered(struct kraft_actions a, struct kraft_message m, uint64_t now_ms)
{
    struct kraft_action sent = last_sent(a);
    cr_assert_neq(sent.id, 0);
    m.kind = sent.message.kind;
    m.from = m.leader = kraft_leader(k);
    m.from_directory = directory(m.from);
    m.epoch = kraft_epoch(k);
    m.snapshot_end = -1;
    return step((struct kraft_event){.kind = KRAFT_RESPONSE, .id = sent.id, .message = &m, .now_ms = now_ms});
}

static const struct kraft_message nothing = {.diverging_end = -1};

/* The first message of a kind that goes to node 2, which leads; NULL: none. */
static const struct kraft_message *sent(enum kraft_message_kind kind)
{
    static struct kraft_message message;
    struct kraft_actions a = led_by(2, 1, 100);
    for (int round = 0; round < 3; round++) {
        message = last_sent(a).message;
        if (message.kind == kind)
            return &message;
        if (last_sent(a).id != 0)
            a = answered(a, nothing, 2000);
    }
    return NULL;
}

/* A follower tells the leader, of a static quorum once, of a dynamic one when the record says otherwise. */
static const struct kraft_message *told(int16_t version, uint16_t recorded_port)
{
    open_kraft(3, version);
    if (version > 0)
        o.voters.voter[0].endpoints[0].port = recorded_port;
    start();
    return sent(KRAFT_UPDATE_VOTER);
}

/* A controller whose disk was replaced: the directory that votes for it is lost (KIP-1186). */
Test(voters, a_new_directory_takes_the_place_of_the_lost_one, .fini = stop)
{
    open_kraft(3, 1);
    o.auto_join = true;
    o.voters.voter[0].directory_id = directory(99);
    start();
    const struct kraft_message *m = sent(KRAFT_REMOVE_VOTER);
    cr_assert_not_null(m);
    cr_expect(m->voter->id == 1 && uuid_eq(m->voter->directory_id, directory(99)));
    stop();
    open_kraft(3, 1);
    o.auto_join = true;
    o.voters.voter[0] = voter(4);
    start();
    m = sent(KRAFT_ADD_VOTER);
    cr_assert_not_null(m);
    cr_expect(m->voter->id == 1 && uuid_eq(m->voter->directory_id, directory(1)));
}

/* The voters as a leader's control batch has them. */
static struct slice batch_of(const struct kraft_voters *v, struct buf *out)
{
    struct buf value = {0};
    struct batch_options options = BATCH_OPTIONS;
    struct batch_builder b;
    options.leader_epoch = 1;
    options.attributes = BATCH_ATTR_CONTROL;
    batch_begin(&b, out, &options);
    kraft_voters_encode(v, &value);
    batch_add_control(&b, WALL_MS, CONTROL_KRAFT_VOTERS, buf_slice(&value));
    cr_assert_eq(batch_end(&b), 0);
    buf_free(&value);
    return buf_slice(out);
}

/* The leader that took it in dies, and the next one does not have that: it joins anew. */
Test(voters, one_that_was_not_committed_asks_again, .fini = stop)
{
    struct buf bytes = {0};
    open_kraft(3, 1);
    o.auto_join = true;
    o.voters.voter[0] = voter(4);
    start();
    cr_assert_not_null(sent(KRAFT_ADD_VOTER));
    struct kraft_actions a = led_by(3, 2, 2100);
    struct kraft_voters with_us = *kraft_voters(k);
    with_us.voter[with_us.count++] = voter(1);
    struct kraft_message m = nothing;
    m.bytes = batch_of(&with_us, &bytes);
    a = answered(a, m, 2200);
    cr_expect(kraft_is_voter(k) && !kraft_is_voter_for_good(k));
    step((struct kraft_event){.kind = KRAFT_FLUSHED, .offset = kraft_log_end(k), .now_ms = 2300});

    a = led_by(2, 3, 2400);
    m = nothing;
    m.diverging_end = 0;
    a = answered(a, m, 2500);
    cr_assert(kraft_log_end(k) == 0 && !kraft_is_voter(k));
    for (uint64_t at = 4000; last_sent(a).message.kind != KRAFT_ADD_VOTER && at < 4003; at++)
        a = answered(a, nothing, at);
    cr_expect_eq(last_sent(a).message.kind, KRAFT_ADD_VOTER);
    buf_free(&bytes);
}

Test(voters, a_follower_has_its_record_changed, .fini = stop)
{
    cr_expect_null(told(1, 9001), "it says what is");
    stop();
    const struct kraft_message *m = told(1, 1234);
    cr_assert_not_null(m);
    cr_expect_eq(m->voter->endpoints[0].port, 9001);
    stop();
    m = told(0, 0);
    cr_assert_not_null(m);
    cr_expect(uuid_eq(m->voter->directory_id, directory(1)));
}

/* What another program wrote beside our name stays. */
Test(voters, a_leader_changes_its_own_record, .fini = stop)
{
    open_kraft(1, 1);
    o.voters.voter[0].endpoints[0] = endpoint("CONTROLLER", 1234);
    o.voters.voter[0].endpoints[o.voters.voter[0].endpoint_count++] = endpoint("OTHER", 77);
    start();
    step((struct kraft_event){.kind = KRAFT_TICK, .now_ms = 5000});
    step((struct kraft_event){.kind = KRAFT_FLUSHED, .offset = kraft_log_end(k), .now_ms = 5001});
    step((struct kraft_event){.kind = KRAFT_FLUSHED, .offset = kraft_log_end(k), .now_ms = 5002});
    const struct kraft_voter *v = &kraft_voters(k)->voter[0];
    cr_assert_eq(v->endpoint_count, 2);
    cr_expect_eq(v->endpoints[0].port, 9001);
    cr_expect(strcmp(v->endpoints[1].name, "OTHER") == 0 && v->endpoints[1].port == 77);
    int64_t end = kraft_log_end(k);
    step((struct kraft_event){.kind = KRAFT_TICK, .now_ms = 6000});
    cr_expect_eq(kraft_log_end(k), end, "once");
}

Test(voters, a_leader_that_may_not_leaves_its_record, .fini = stop)
{
    open_kraft(1, 1);
    o.voters.voter[0].endpoints[0].port = 1234;
    o.update_self = false;
    start();
    step((struct kraft_event){.kind = KRAFT_TICK, .now_ms = 5000});
    step((struct kraft_event){.kind = KRAFT_FLUSHED, .offset = kraft_log_end(k), .now_ms = 5001});
    step((struct kraft_event){.kind = KRAFT_TICK, .now_ms = 6000});
    cr_assert(kraft_role(k) == KRAFT_LEADER && kraft_high_watermark(k) == kraft_log_end(k));
    cr_expect_eq(kraft_voters(k)->voter[0].endpoints[0].port, 1234);
}

/* A leader of the release before refuses an update each second. */
Test(voters, an_answer_is_news_when_it_is_another_than_the_last)
{
    static const struct {
        enum kraft_message_kind kind;
        enum kafka_error error;
        bool is_news;
    } of[] = {{KRAFT_FETCH, KERR_NONE, false},
              {KRAFT_UPDATE_VOTER, KERR_UNSUPPORTED_VERSION, true},
              {KRAFT_FETCH, KERR_NONE, false},
              {KRAFT_UPDATE_VOTER, KERR_UNSUPPORTED_VERSION, false},
              {KRAFT_UPDATE_VOTER, KERR_REQUEST_TIMED_OUT, true},
              {KRAFT_UPDATE_VOTER, KERR_NONE, true},
              {KRAFT_UPDATE_VOTER, KERR_REQUEST_TIMED_OUT, true},
              {KRAFT_UPDATE_VOTER, KERR_REQUEST_TIMED_OUT, false},
              {KRAFT_REMOVE_VOTER, KERR_NONE, true},
              {KRAFT_ADD_VOTER, KERR_REQUEST_TIMED_OUT, true},
              {KRAFT_ADD_VOTER, KERR_REQUEST_TIMED_OUT, false}};
    struct kraft_told told = {0};
    for (size_t i = 0; i < COUNTOF(of); i++) {
        struct kraft_message m = {.kind = of[i].kind, .error = of[i].error};
        cr_expect_eq(kraft_is_news(&told, &m), of[i].is_news, "answer %zu", i);
    }
}
