/* test_kraft.c - elections and the high watermark, what is written down about them, and Kafka's own bytes. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "libs/base/bytes.h"
#include "libs/kraft/format.h"
#include "libs/kraft/snapshot.h"
#include "libs/kraft/store.h"
#include "tests/unit/kraft/help.h"
#include "tests/unit/kraft/kafka_files.h"

static struct kraft_options options(void)
{
    struct kraft_options o = {.node_id = 1, .state = {.leader_id = -1, .voted_id = -1}, .kraft_version = 1};
    o.voters.count = 1;
    o.voters.voter[0] = (struct kraft_voter){.id = 1, .endpoint_count = 1, .kraft_version_max = 1};
    cr_assert_eq(uuid_parse(slice_str(kafka_directory_id), &o.directory_id), 0);
    o.voters.voter[0].directory_id = o.directory_id;
    strcpy(o.voters.voter[0].endpoints[0].name, "CONTROLLER");
    strcpy(o.voters.voter[0].endpoints[0].host, "127.0.0.1");
    o.voters.voter[0].endpoints[0].port = 29093;
    return o;
}

static struct kraft_actions step(struct kraft *k, enum kraft_event_kind kind, int64_t offset)
{
    struct kraft_event e = {.kind = kind, .offset = offset, .now_wall_ms = WALL_MS};
    return kraft_step(k, &e);
}

/* CRC and times differ from one writing to the next. */
static void forget_times(uint8_t *bytes, size_t size)
{
    struct slice rest = slice_make(bytes, size), one;
    struct batch b;
    while (batch_next(&rest, &b, &one) == 1) {
        uint8_t *p = bytes + (one.data - bytes);
        memset(p + BATCH_CRC, 0, 4);
        memset(p + BATCH_BASE_TIMESTAMP, 0, 16);
        if (batch_is_control(&b) && b.record_count != 0 && b.size > 80 &&
            p[BATCH_HEADER_SIZE + 8] == CONTROL_SNAPSHOT_HEADER)
            memset(p + BATCH_HEADER_SIZE + 12, 0, 8); /* the time of the last record */
    }
}

static void expect_same(struct slice ours, const uint8_t *kafka, size_t size)
{
    uint8_t *a = xmalloc(ours.size), *b = xmalloc(size);
    cr_assert_eq(ours.size, size);
    memcpy(a, ours.data, size);
    memcpy(b, kafka, size);
    forget_times(a, size);
    forget_times(b, size);
    for (size_t i = 0; i < size; i++)
        cr_assert_eq(a[i], b[i], "byte %zu: %02x, Kafka has %02x", i, a[i], b[i]);
    free(a);
    free(b);
}

Test(kraft, one_voter_elects_itself)
{
    struct kraft_options o = options();
    struct kraft *k;
    cr_assert_eq(kraft_new(&o, &k), 0);
    struct kraft_actions a = step(k, KRAFT_TICK, 0);
    cr_assert_eq(a.count, 3); /* I1: in this order */
    cr_assert_eq(a.action[0].kind, KRAFT_DO_SAVE);
    cr_assert_eq(a.action[0].state.leader_epoch, 1);
    cr_assert_eq(a.action[0].state.leader_id, 1);
    cr_assert_eq(a.action[1].kind, KRAFT_DO_LEAD);
    cr_assert_eq(a.action[2].kind, KRAFT_DO_APPEND);
    cr_assert_eq(kraft_leader(k), 1);
    struct batch b;
    cr_assert_eq(batch_read_header(a.action[2].bytes, &b), 0);
    expect_same(a.action[2].bytes, kafka_first_batches, b.size);
    cr_assert_eq(kraft_high_watermark(k), -1);
    cr_assert_not_null(help_find(step(k, KRAFT_FLUSHED, 3), KRAFT_DO_COMMIT));
    cr_assert_eq(kraft_high_watermark(k), 3);
    cr_assert_eq(step(k, KRAFT_APPENDED, 9).count, 0);
    cr_assert_eq(kraft_high_watermark(k), 3);
    cr_assert_not_null(help_find(step(k, KRAFT_FLUSHED, 9), KRAFT_DO_COMMIT));
    cr_assert_eq(step(k, KRAFT_FLUSHED, 5).count, 0);
    cr_assert_eq(kraft_high_watermark(k), 9);
    cr_assert_eq(kraft_deadline(k), UINT64_MAX); /* alone there is nothing to wait for */
    cr_assert_not_null(help_find(step(k, KRAFT_RESIGN, 0), KRAFT_DO_UNLEAD));
    cr_assert_eq(kraft_leader(k), -1);
    kraft_free(k);
}

/* A later life starts an epoch above everything that is on disk, and writes no voters again. */
Test(kraft, epochs_rise)
{
    static const struct kraft_epoch_start epochs[] = {{2, 0}, {6, 7}};
    struct kraft_options o = options();
    struct kraft *k;
    o.state.leader_epoch = 4;
    o.log_end = 10;
    o.epochs = epochs;
    o.epoch_count = COUNTOF(epochs);
    o.log_has_voters = true;
    cr_assert_eq(kraft_new(&o, &k), 0);
    struct kraft_actions a = step(k, KRAFT_TICK, 0);
    struct batch b;
    cr_assert_eq(help_find(a, KRAFT_DO_SAVE)->state.leader_epoch, 7);
    cr_assert_eq(batch_read_header(help_find(a, KRAFT_DO_APPEND)->bytes, &b), 0);
    cr_assert_eq(b.record_count, 1);
    cr_assert_eq(b.base_offset, 10);
    cr_assert_eq(b.leader_epoch, 7);
    cr_assert_null(help_find(step(k, KRAFT_FLUSHED, 10), KRAFT_DO_COMMIT)); /* nothing of this epoch yet */
    cr_assert_not_null(help_find(step(k, KRAFT_FLUSHED, 11), KRAFT_DO_COMMIT));
    kraft_free(k);
    o.epoch_count = 0;
    o.voters.count = KRAFT_VOTERS_MAX + 1;
    cr_assert_eq(kraft_new(&o, &k), -EINVAL);
}

static struct kraft *one_of_three(struct kraft_options *o)
{
    struct kraft *k;
    *o = options();
    o->voters.count = 3;
    for (int32_t i = 1; i < 3; i++) {
        o->voters.voter[i] = (struct kraft_voter){.id = i + 1, .kraft_version_max = 1};
        o->voters.voter[i].directory_id.b[0] = (uint8_t)(i + 1);
    }
    cr_assert_eq(kraft_new(o, &k), 0);
    return k;
}

static struct kraft_actions at(struct kraft *k, uint64_t now_ms)
{
    return kraft_step(k, &(struct kraft_event){.kind = KRAFT_TICK, .now_ms = now_ms, .now_wall_ms = WALL_MS});
}

static struct kraft_actions answer(struct kraft *k, const struct kraft_options *o, const struct kraft_action *asked,
                                   struct kraft_message m, uint64_t now_ms)
{
    m.from = asked->to;
    m.from_directory = o->voters.voter[asked->to - 1].directory_id;
    m.diverging_end = m.snapshot_end = -1;
    return kraft_step(
        k, &(struct kraft_event){
               .kind = KRAFT_RESPONSE, .id = asked->id, .message = &m, .now_ms = now_ms, .now_wall_ms = WALL_MS});
}

/* The first Vote of these actions; copied, as the next step ends their lives. */
static struct kraft_action vote_of(struct kraft_actions a)
{
    for (size_t i = 0; i < a.count; i++)
        if (a.action[i].kind == KRAFT_DO_SEND && a.action[i].message.kind == KRAFT_VOTE)
            return a.action[i];
    cr_assert(false, "no vote is asked for");
    return (struct kraft_action){0};
}

/* Asked in an epoch that is not raised yet; raised when a majority would follow; led when it does. */
Test(kraft, three_voters_elect_by_pre_vote)
{
    struct kraft_options o;
    struct kraft *k = one_of_three(&o);
    uint64_t now = kraft_deadline(k);
    cr_assert_geq(now, 0);
    struct kraft_action pre = vote_of(at(k, 5000));
    cr_assert(pre.message.pre_vote && pre.message.epoch == 0 && kraft_role(k) == KRAFT_PROSPECTIVE);
    struct kraft_message yes = {.kind = KRAFT_VOTE, .pre_vote = true, .granted = true, .leader = -1};
    struct kraft_actions a = answer(k, &o, &pre, yes, 5001);
    cr_assert_eq(kraft_role(k), KRAFT_CANDIDATE);
    cr_assert_eq(a.action[0].kind, KRAFT_DO_SAVE); /* I1: before the vote is asked for */
    cr_assert(a.action[0].state.voted_id == 1 && a.action[0].state.leader_epoch == 1);
    struct kraft_action real = vote_of(a);
    cr_assert(!real.message.pre_vote && real.message.epoch == 1);
    yes.pre_vote = false;
    yes.epoch = 1;
    a = answer(k, &o, &real, yes, 5002);
    cr_assert_eq(kraft_role(k), KRAFT_LEADER);
    cr_assert_not_null(help_find(a, KRAFT_DO_LEAD));
    step(k, KRAFT_FLUSHED, 3);
    cr_assert_eq(kraft_high_watermark(k), -1); /* one of three has it */
    struct kraft_message fetch = {.kind = KRAFT_FETCH,
                                  .from = 2,
                                  .epoch = 1,
                                  .offset = 3,
                                  .last_epoch = 1,
                                  .high_watermark = -1,
                                  .from_directory = o.voters.voter[1].directory_id};
    a = kraft_step(k, &(struct kraft_event){.kind = KRAFT_REQUEST, .id = 9, .message = &fetch, .now_ms = 5003});
    cr_assert_not_null(help_find(a, KRAFT_DO_COMMIT));
    cr_assert_eq(kraft_high_watermark(k), 3);
    cr_assert(help_find(a, KRAFT_DO_REPLY)->id == 9 && help_find(a, KRAFT_DO_REPLY)->message.high_watermark == 3);
    /* Nobody fetches any more: it does not go on as if it led. */
    cr_assert_not_null(help_find(at(k, 5003 + 3000), KRAFT_DO_UNLEAD));
    cr_assert_eq(kraft_role(k), KRAFT_RESIGNED);
    kraft_free(k);
}

/* The owner knows that the leader is dead: a pre-vote at once, and none for another node. */
Test(kraft, a_lost_leader_is_not_waited_for)
{
    struct kraft_options o;
    struct kraft *k = one_of_three(&o);
    struct kraft_message begin = {.kind = KRAFT_BEGIN_EPOCH,
                                  .from = 2,
                                  .epoch = 1,
                                  .leader = 2,
                                  .from_directory = o.voters.voter[1].directory_id};
    kraft_step(k, &(struct kraft_event){.kind = KRAFT_REQUEST, .id = 1, .message = &begin, .now_ms = 1000});
    cr_assert(kraft_role(k) == KRAFT_FOLLOWER && kraft_leader(k) == 2);
    kraft_step(k, &(struct kraft_event){.kind = KRAFT_LOST, .node = 3, .now_ms = 1001});
    cr_assert_eq(kraft_role(k), KRAFT_FOLLOWER);
    struct kraft_action pre =
        vote_of(kraft_step(k, &(struct kraft_event){.kind = KRAFT_LOST, .node = 2, .now_ms = 1002}));
    cr_assert(pre.message.pre_vote && pre.message.epoch == 1 && kraft_role(k) == KRAFT_PROSPECTIVE);
    kraft_step(k, &(struct kraft_event){.kind = KRAFT_LOST, .node = 2, .now_ms = 1003});
    cr_assert_eq(kraft_role(k), KRAFT_PROSPECTIVE);
    kraft_free(k);
}

static struct kraft_message ask_vote(struct kraft *k, struct kraft_message m, bool *ret_saved)
{
    m.kind = KRAFT_VOTE;
    m.leader = -1;
    struct kraft_actions a =
        kraft_step(k, &(struct kraft_event){.kind = KRAFT_REQUEST, .id = 1, .message = &m, .now_ms = 1});
    *ret_saved = help_find(a, KRAFT_DO_SAVE) != NULL;
    cr_assert_not_null(help_find(a, KRAFT_DO_REPLY));
    return help_find(a, KRAFT_DO_REPLY)->message;
}

Test(kraft, one_vote_an_epoch)
{
    struct kraft_options o;
    struct kraft *k = one_of_three(&o);
    bool saved;
    struct kraft_message two = {.from = 2, .epoch = 5, .from_directory = o.voters.voter[1].directory_id};
    struct kraft_message three = {.from = 3, .epoch = 5, .from_directory = o.voters.voter[2].directory_id};
    cr_assert(ask_vote(k, two, &saved).granted && saved);
    cr_assert(!ask_vote(k, three, &saved).granted && !saved);
    cr_assert(ask_vote(k, two, &saved).granted && !saved); /* asked again, answered the same */
    three.pre_vote = true;
    cr_assert(ask_vote(k, three, &saved).granted && !saved); /* a pre-vote promises nothing */
    two.epoch = 4;
    cr_assert_eq(ask_vote(k, two, &saved).error, KERR_FENCED_LEADER_EPOCH);
    three.to_directory.b[0] = 99;
    cr_assert_eq(ask_vote(k, three, &saved).error, KERR_INVALID_VOTER_KEY);
    two.epoch = INT32_MAX;
    cr_assert_eq(ask_vote(k, two, &saved).error, KERR_INVALID_REQUEST);
    kraft_free(k);
}

/* A log that is behind gets no vote, whatever its epoch. */
Test(kraft, no_vote_for_a_shorter_log)
{
    static const struct kraft_epoch_start epochs[] = {{2, 0}, {6, 7}};
    struct kraft_options o;
    struct kraft *k = kraft_free(one_of_three(&o));
    bool saved;
    o.log_end = 10;
    o.epochs = epochs;
    o.epoch_count = COUNTOF(epochs);
    cr_assert_eq(kraft_new(&o, &k), 0);
    struct kraft_message m = {.from = 2, .epoch = 9, .offset = 9, .last_epoch = 6};
    cr_assert_not(ask_vote(k, m, &saved).granted);
    m.offset = 99;
    m.last_epoch = 5;
    cr_assert_not(ask_vote(k, m, &saved).granted);
    m.offset = 10;
    m.last_epoch = 6;
    cr_assert(ask_vote(k, m, &saved).granted && saved);
    kraft_free(k);
}

Test(kraft, quorum_state_as_kafka_writes_it)
{
    static const char kafka[] = "{\"leaderId\":1,\"leaderEpoch\":1,\"votedId\":-1,\"votedDirectoryId\":"
                                "\"AAAAAAAAAAAAAAAAAAAAAA\",\"data_version\":1}";
    struct kraft_quorum_state s;
    struct buf b = {0};
    cr_assert_eq(kraft_quorum_state_decode(slice_str(kafka), &s), 0);
    kraft_quorum_state_encode(&s, &b);
    cr_assert(slice_eq_str(buf_slice(&b), kafka));
    cr_assert_eq(kraft_quorum_state_decode(
                     SLICE_OF("{\"clusterId\":\"x\",\"leaderId\":2,\"leaderEpoch\":7,\"votedId\":-1,"
                              "\"appliedOffset\":0,\"currentVoters\":[{\"voterId\":2}],\"data_version\":0}"),
                     &s),
                 0);
    cr_assert_eq(s.leader_epoch, 7);
#define STATE(leader, epoch, voted, rest)                                                                              \
    "{\"leaderId\":" leader ",\"leaderEpoch\":" epoch ",\"votedId\":" voted rest "}"
#define DIRECTORY(id) ",\"votedDirectoryId\":\"" id "\",\"data_version\":1"
    static const char *const bad[] = {
        "",
        "{}",
        "[]",
        "{\"data_version\":1}",
        STATE("1.5", "1", "-1", DIRECTORY("AAAAAAAAAAAAAAAAAAAAAA")),
        STATE("1", "-1", "-1", DIRECTORY("AAAAAAAAAAAAAAAAAAAAAA")),
        STATE("1", "1", "-1", DIRECTORY("A")),
        STATE("1", "1", "-1", ",\"data_version\":2"),
    };
    for (size_t i = 0; i < COUNTOF(bad); i++)
        cr_assert_eq(kraft_quorum_state_decode(slice_str(bad[i]), &s), -EBADMSG, "%s", bad[i]);
    buf_free(&b);
}

Test(kraft, snapshot_names)
{
    char name[KRAFT_SNAPSHOT_NAME];
    int64_t end;
    int32_t epoch;
    kraft_snapshot_name(42, 3, name);
    cr_assert_str_eq(name, "00000000000000000042-0000000003.checkpoint");
    cr_assert(kraft_snapshot_parse_name(name, &end, &epoch));
    cr_assert(end == 42 && epoch == 3);
    cr_assert_not(kraft_snapshot_parse_name("00000000000000000042-0000000003.checkpoint.part", &end, &epoch));
    cr_assert_not(kraft_snapshot_parse_name("00000000000000000042.log", &end, &epoch));
    cr_assert_not(kraft_snapshot_parse_name("99999999999999999999-0000000003.checkpoint", &end, &epoch));
    cr_assert_not(kraft_snapshot_parse_name("00000000000000000042-9999999999.checkpoint", &end, &epoch));
}

/* ---- on disk ---- */

static char *make_dir(void)
{
    char *dir = xstrdup("/tmp/karst-kraft-XXXXXX");
    cr_assert_not_null(mkdtemp(dir));
    return dir;
}

static void remove_dir(char *dir)
{
    help_remove_dir(dir);
    free(dir);
}

static void format(const char *dir)
{
    struct kraft_format_options o = {
        .dir = dir, .listener_name = "CONTROLLER", .host = "127.0.0.1", .port = 29093, .now_ms = WALL_MS};
    char *message = NULL;
    strcpy(o.meta.cluster_id, "Jwd1CrZ1QoO0bzLfLB6xGw");
    o.meta.node_id = 1;
    cr_assert_eq(uuid_parse(slice_str(kafka_directory_id), &o.meta.directory_id), 0);
    cr_assert_eq(kraft_format(&o, &message), 0);
    cr_assert_eq(kraft_format(&o, &message), -EEXIST);
    free(message);
}

static void expect_file(const char *dir, const char *name, const uint8_t *kafka, size_t kafka_size)
{
    char *path = xasprintf("%s/%s", dir, name), *data;
    size_t size;
    cr_assert_eq(file_slurp(&file_system_real, path, 1 << 20, &data, &size), 0);
    expect_same(slice_make(data, size), kafka, kafka_size);
    cr_assert(kraft_snapshot_is_whole(slice_make(data, size)));
    for (size_t n = 0; n < size; n++)
        cr_assert_not(n > 0 && kraft_snapshot_is_whole(slice_make(data, n)), "cut at %zu", n);
    free(data);
    free(path);
}

Test(kraft, formats_as_kafka_does)
{
    char *dir = make_dir();
    struct kraft_meta meta;
    format(dir);
    expect_file(dir, "bootstrap.checkpoint", kafka_bootstrap, sizeof kafka_bootstrap);
    expect_file(dir, "__cluster_metadata-0/00000000000000000000-0000000000.checkpoint", kafka_first_snapshot,
                sizeof kafka_first_snapshot);
    cr_assert_eq(kraft_meta_read(dir, &meta, NULL), 0);
    cr_assert_str_eq(meta.cluster_id, "Jwd1CrZ1QoO0bzLfLB6xGw");
    cr_assert_eq(meta.node_id, 1);
    cr_assert_eq(kraft_meta_read("/tmp", &meta, NULL), -ENOENT);
    remove_dir(dir);
}

static struct kraft_store *open_store(const char *dir)
{
    struct kraft_store_options o = {.fs = &file_system_real,
                                    .log_dir = dir,
                                    .segment_bytes = 4 << 20,
                                    .segment_ms = 1000000000,
                                    .now_wall_ms = WALL_MS};
    struct kraft_store *s;
    char *message = NULL;
    int error = kraft_store_open(&o, &s, &message);
    cr_assert_eq(error, 0, "%s", message);
    return s;
}

static void append(struct kraft_store *s, int64_t offset, int32_t epoch, size_t size)
{
    struct buf batch = help_batch(offset, epoch, size);
    cr_assert_eq(kraft_store_stage(s, buf_slice(&batch), WALL_MS), 0);
    buf_free(&batch);
}

Test(kraft, store_keeps_log_state_and_snapshots)
{
    char *dir = make_dir();
    format(dir);
    struct kraft_store *s = open_store(dir);
    struct kraft_quorum_state state = {.leader_id = 1, .leader_epoch = 2, .voted_id = -1}, read;
    int64_t end;
    int32_t epoch;
    cr_assert_eq(kraft_store_snapshot(s, &end, &epoch).size, sizeof kafka_first_snapshot);
    cr_assert(end == 0 && epoch == 0 && kraft_store_end(s) == 0);
    cr_assert_not(kraft_store_state(s, &read));
    cr_assert_eq(kraft_store_save_state(s, &state), 0);
    for (int64_t n = 0; n < 100; n++)
        append(s, n, 2, 20000);
    cr_assert(kraft_store_has_staged(s) && kraft_store_end(s) == 0);
    cr_assert_eq(kraft_store_commit(s), 0);
    cr_assert_eq(kraft_store_end(s), 100);
    struct buf b = {0};
    cr_assert_eq(kraft_store_read(s, 10, 100, 50000, &b), 0);
    struct batch first;
    cr_assert_eq(batch_read_header(buf_slice(&b), &first), 0);
    cr_assert_eq(first.base_offset, 10);
    cr_assert_eq(b.size, 2u * first.size); /* whole ones only */
    cr_assert_eq(kraft_store_close(s, WALL_MS), 0);

    s = open_store(dir);
    cr_assert(kraft_store_state(s, &read) && read.leader_epoch == 2);
    cr_assert_eq(kraft_store_end(s), 100);
    cr_assert_eq(kraft_store_last_epoch(s), 2);
    struct buf snapshot = {0};
    struct image *i = image_empty("x");
    kraft_snapshot_of(i, WALL_MS, &snapshot);
    image_release(i);
    cr_assert_eq(kraft_store_put_snapshot(s, 100, 2, buf_slice(&snapshot), WALL_MS), 0);
    cr_assert_eq(kraft_store_start(s), 100);
    cr_assert_eq(kraft_store_bytes_since_snapshot(s), 0);
    append(s, 100, 3, 10);
    cr_assert_eq(kraft_store_commit(s), 0);
    cr_assert_eq(kraft_store_read(s, 10, 101, 50000, &b), -ERANGE);
    cr_assert_eq(kraft_store_close(s, WALL_MS), 0);

    s = open_store(dir);
    cr_assert(kraft_store_has_snapshot(s, &end, &epoch) && end == 100 && epoch == 2);
    cr_assert(slice_eq(kraft_store_snapshot(s, &end, &epoch), buf_slice(&snapshot)));
    cr_assert(kraft_store_start(s) == 100 && kraft_store_end(s) == 101 && kraft_store_last_epoch(s) == 3);
    cr_assert_eq(kraft_store_close(s, WALL_MS), 0);
    buf_free(&snapshot);
    buf_free(&b);
    remove_dir(dir);
}

/* A snapshot that was cut short does not count: the one before it, and the log, do. */
Test(kraft, store_skips_a_torn_snapshot)
{
    char *dir = make_dir();
    format(dir);
    struct kraft_store *s = open_store(dir);
    append(s, 0, 1, 10);
    cr_assert_eq(kraft_store_commit(s), 0);
    cr_assert_eq(kraft_store_close(s, WALL_MS), 0);
    char *folder = xasprintf("%s/__cluster_metadata-0", dir);
    cr_assert_eq(file_replace(&file_system_real, folder, "00000000000000000001-0000000001.checkpoint",
                              kafka_first_snapshot, sizeof kafka_first_snapshot - 1, false),
                 0);
    s = open_store(dir);
    int64_t end;
    int32_t epoch;
    cr_assert(kraft_store_has_snapshot(s, &end, &epoch) && end == 0);
    cr_assert_eq(kraft_store_end(s), 1);
    cr_assert_eq(kraft_store_close(s, WALL_MS), 0);
    free(folder);
    remove_dir(dir);
}
