/* test_clean.c - compaction: what stays is what a model says, at its old offsets, and all of it can be read. */
#include "clean_help.h"
#include "libs/base/bytes.h"
#include "libs/log/clean_map.h"
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static const int64_t DAY_MS = 86400000;

static void append_one(struct log *l, struct clean_model *m, int key, bool tombstone)
{
    struct clean_batch b = CLEAN_BATCH;
    b.keys[0] = key;
    b.count = 1;
    b.tombstones = tombstone;
    (void)clean_append(l, m, &b);
}

static void append_keys(struct log *l, struct clean_model *m, int from, int to)
{
    for (int key = from; key < to; key++)
        append_one(l, m, key, false);
}

static void roll(struct log *l)
{
    cr_assert_eq(log_roll(l, HELP_NOW_MS), 0);
}

Test(clean, the_last_record_of_each_key_stays)
{
    struct log_options o = clean_options("clean_last");
    struct clean_model m = {0};
    struct log *l = help_open(&o);
    int64_t checkpoint = -1;
    for (int round = 0; round < 5; round++)
        append_keys(l, &m, 0, 30);
    roll(l);
    append_keys(l, &m, 0, 3);
    uint64_t before = log_size_bytes(l);
    clean_must(l, &checkpoint, HELP_NOW_MS);
    cr_assert_eq(checkpoint, 150, "the active segment is left alone");
    cr_assert_lt(log_size_bytes(l), before / 3);
    cr_assert_eq(log_start(l), 0);
    cr_assert_eq(log_end(l), 153);
    clean_check(l, &m, 150, true);
    struct log_dirt d;
    cr_assert_eq(log_clean_look(l, checkpoint, log_recovery_point(l), HELP_NOW_MS, &d), 0);
    cr_assert_eq(d.dirty_bytes, 0);
    cr_assert_not(log_clean_is_due(l, &d));
    cr_assert_eq(log_close(l, HELP_NOW_MS), 0);
    o.clean = true;
    o.recovery_point = 153;
    l = help_open(&o);
    clean_check(l, &m, 150, true);
    log_abandon(l);
    clean_model_free(&m);
}

/* A crash with an old recovery point: the holes that compaction left are no lost tails. */
Test(clean, holes_are_no_lost_tails)
{
    struct log_options o = clean_options("clean_holes");
    struct clean_model m = {0};
    struct log *l = help_open(&o);
    int64_t checkpoint = -1;
    for (int i = 0; i < 6; i++) {
        append_keys(l, &m, 0, 12);
        roll(l);
    }
    o.config.segment_bytes = 1400; /* no two fit together */
    log_set_config(l, &o.config);
    clean_must(l, &checkpoint, HELP_NOW_MS);
    clean_check(l, &m, 72, true);
    log_abandon(l);
    o.recovery_point = 0; /* as Kafka may leave it; our node cleans only what it has written down as flushed */
    o.compacted_to = checkpoint;
    l = help_open(&o);
    cr_assert_eq(log_end(l), 72);
    clean_check(l, &m, 72, true);
    log_abandon(l);
    clean_model_free(&m);
}

Test(clean, tombstones_go_after_their_horizon)
{
    struct log_options o = clean_options("clean_tomb");
    struct clean_model m = {0};
    struct log *l = help_open(&o);
    int64_t checkpoint = -1, now = HELP_NOW_MS;
    append_keys(l, &m, 0, 4);
    append_one(l, &m, 1, true);
    append_one(l, &m, 2, true);
    roll(l);
    append_keys(l, &m, 9, 10);
    clean_must(l, &checkpoint, now);
    clean_check(l, &m, 6, true);
    struct buf dump = clean_dump(l);
    cr_assert_str_eq((char *)dump.data,
                     "0+0 n 1 attr 0\n3+0 n 1 attr 0\n4+0 n 1 attr 64\n5+0 n 1 attr 64\n6+0 n 1 attr 0\n");
    buf_free(&dump);
    /* Just before it, they are still there; at it, they go. The end of the round stays as an empty batch. */
    roll(l);
    now += DAY_MS - 1;
    clean_must(l, &checkpoint, now);
    clean_check(l, &m, 7, true);
    append_keys(l, &m, 10, 11);
    roll(l);
    clean_must(l, &checkpoint, now + 1);
    clean_check(l, &m, 8, false);
    cr_assert_eq(log_end(l), 8);
    log_abandon(l);
    clean_model_free(&m);
}

Test(clean, the_last_batch_of_a_round_stays_as_an_empty_one)
{
    struct log_options o = clean_options("clean_empty");
    struct clean_model m = {0};
    struct log *l = help_open(&o);
    int64_t checkpoint = -1;
    append_keys(l, &m, 0, 3);
    append_one(l, &m, 1, true);
    roll(l);
    clean_must(l, &checkpoint, HELP_NOW_MS);
    append_keys(l, &m, 0, 3);
    roll(l);
    append_keys(l, &m, 5, 6);
    clean_must(l, &checkpoint, HELP_NOW_MS + 2 * DAY_MS);
    struct buf dump = clean_dump(l);
    cr_assert_str_eq((char *)dump.data, "4+0 n 1 attr 0\n5+0 n 1 attr 0\n6+0 n 1 attr 0\n7+0 n 1 attr 0\n");
    buf_free(&dump);
    roll(l);
    append_keys(l, &m, 0, 3);
    append_keys(l, &m, 5, 6);
    roll(l);
    append_keys(l, &m, 5, 6);
    log_abandon(l);
    clean_model_free(&m);
}

/* All that is known of a live producer is its last sequence: the batch that holds it stays, empty. */
Test(clean, the_last_batch_of_a_live_producer_stays)
{
    struct log_options o = clean_options("clean_producer");
    struct clean_model m = {0};
    struct log *l = help_open(&o);
    int64_t checkpoint = -1;
    struct clean_batch b = CLEAN_BATCH;
    b.keys[0] = 1;
    b.count = 1;
    b.producer_id = 77;
    b.producer_epoch = 0;
    for (int i = 0; i < 3; i++) {
        b.sequence = i;
        (void)clean_append(l, &m, &b);
    }
    append_keys(l, &m, 1, 4);
    roll(l);
    clean_must(l, &checkpoint, HELP_NOW_MS);
    struct buf dump = clean_dump(l);
    cr_assert_str_eq((char *)dump.data, "2+0 n 0 attr 0\n3+0 n 1 attr 0\n4+0 n 1 attr 0\n5+0 n 1 attr 0\n");
    buf_free(&dump);
    /* And so a start that has lost its snapshots still knows it. */
    char *snapshot = xasprintf("%s/00000000000000000006.snapshot", o.dir);
    log_abandon(l);
    cr_assert_eq(file_unlink(&file_system_real, snapshot), 0);
    free(snapshot);
    l = help_open(&o);
    struct help_batch again = HELP_BATCH;
    again.producer_id = 77;
    again.producer_epoch = 0;
    again.sequence = 2;
    struct log_append a;
    cr_assert_eq(help_append(l, &again, &a), KERR_NONE);
    cr_assert(a.duplicate);
    again.sequence = 4;
    cr_assert_eq(help_append(l, &again, &a), KERR_OUT_OF_ORDER_SEQUENCE_NUMBER);
    log_abandon(l);
    clean_model_free(&m);
}

static void count_abort(void *ctx, int64_t producer_id UNUSED, int64_t first UNUSED)
{
    ++*(int *)ctx;
}

static int aborts_of(struct log *l)
{
    struct log_range r;
    int n = 0;
    cr_assert_eq(log_locate(l, log_start(l), log_end(l), 1 << 20, true, &r), KERR_NONE);
    cr_assert_eq(log_aborted(l, log_start(l), &r, count_abort, &n, NULL), KERR_NONE);
    return n;
}

/* Aborted records go at once; their marker when its horizon is over; that of a committed transaction when none of its
 * records is left. */
Test(clean, transactions)
{
    struct log_options o = clean_options("clean_txn");
    struct clean_model m = {0};
    struct log *l = help_open(&o);
    int64_t checkpoint = -1, now = HELP_NOW_MS;
    struct clean_batch b = CLEAN_BATCH;
    b.keys[0] = 1;
    b.count = 1;
    b.transactional = true;
    b.producer_epoch = 0;
    b.producer_id = 5;
    b.sequence = 0;
    append_keys(l, &m, 1, 2); /* 0: survives, as what replaced it was aborted */
    b.aborted = true;
    (void)clean_append(l, &m, &b); /* 1 */
    b.aborted = false;
    b.producer_id = 6;
    b.keys[0] = 2;
    (void)clean_append(l, &m, &b);                  /* 2 */
    (void)clean_append_marker(l, 5, 0, false, now); /* 3 */
    (void)clean_append_marker(l, 6, 0, true, now);  /* 4 */
    b.producer_id = 5;                              /* so that the batches above are nobody's last */
    b.sequence = 1;
    b.keys[0] = 3;
    (void)clean_append(l, &m, &b); /* 5 */
    b.producer_id = 6;
    b.keys[0] = 4;
    (void)clean_append(l, &m, &b);                 /* 6 */
    (void)clean_append_marker(l, 5, 0, true, now); /* 7 */
    (void)clean_append_marker(l, 6, 0, true, now); /* 8 */
    roll(l);
    append_keys(l, &m, 9, 10);
    clean_must(l, &checkpoint, now);
    clean_check(l, &m, 9, true);
    struct buf dump = clean_dump(l);
    cr_assert_str_eq((char *)dump.data, "0+0 n 1 attr 0\n2+0 n 1 attr 16\n3+0 n 1 attr 48\n4+0 n 1 attr 48\n"
                                        "5+0 n 1 attr 16\n6+0 n 1 attr 16\n7+0 n 1 attr 48\n8+0 n 1 attr 48\n"
                                        "9+0 n 1 attr 0\n");
    buf_free(&dump);
    cr_assert_eq(aborts_of(l), 1, "readers that have the segment before it was cleaned still need it");
    /* Now nothing of the aborted one is left: its marker gets a horizon. */
    append_keys(l, &m, 2, 3); /* 10: the committed record of producer 6 at 2 goes */
    roll(l);
    clean_must(l, &checkpoint, now);
    clean_check(l, &m, 11, true);
    dump = clean_dump(l);
    cr_assert_not_null(strstr((char *)dump.data, "3+0 n 1 attr 112\n4+0 n 1 attr 48\n"), "%s", (char *)dump.data);
    buf_free(&dump);
    cr_assert_eq(aborts_of(l), 0);
    append_keys(l, &m, 11, 12);
    roll(l);
    clean_must(l, &checkpoint, now + DAY_MS);
    dump = clean_dump(l);
    cr_assert_str_eq((char *)dump.data, "0+0 n 1 attr 0\n4+0 n 1 attr 112\n5+0 n 1 attr 16\n6+0 n 1 attr 16\n"
                                        "7+0 n 1 attr 48\n8+0 n 1 attr 48\n9+0 n 1 attr 0\n10+0 n 1 attr 0\n"
                                        "11+0 n 1 attr 0\n");
    buf_free(&dump);
    log_abandon(l);
    clean_model_free(&m);
}

Test(clean, what_is_young_waits_and_what_is_old_does_not)
{
    struct log_options o = clean_options("clean_lag");
    struct clean_model m = {0};
    o.config.min_compaction_lag_ms = 1000;
    o.config.min_cleanable_dirty_ratio = 0.9;
    struct log *l = help_open(&o);
    struct log_dirt d;
    struct clean_batch b = CLEAN_BATCH;
    b.keys[0] = 1;
    b.count = 1;
    for (int i = 0; i < 3; i++) {
        b.timestamp = HELP_NOW_MS + i * 1000;
        (void)clean_append(l, &m, &b);
        roll(l);
    }
    cr_assert_eq(log_flush(l), 0);
    cr_assert_eq(log_clean_look(l, -1, 3, HELP_NOW_MS + 1500, &d), 0);
    cr_assert_eq(d.end, 1, "the record of a second ago may go, that of half a second may not");
    cr_assert_eq(log_clean_look(l, -1, 0, HELP_NOW_MS + 1500, &d), 0);
    cr_assert_eq(d.dirty_bytes, 0, "nothing that a crash would read again");
    cr_assert_eq(log_clean_look(l, 2, 3, HELP_NOW_MS + 5000, &d), 0);
    cr_assert_eq(d.first_dirty, 2);
    cr_assert_eq(d.end, 3);
    cr_assert_not(log_clean_is_due(l, &d), "a third is dirty");
    o.config.max_compaction_lag_ms = 2000;
    log_set_config(l, &o.config);
    cr_assert_eq(log_clean_look(l, 2, 3, HELP_NOW_MS + 4000, &d), 0);
    cr_assert_not(d.overdue);
    cr_assert_eq(log_clean_look(l, 2, 3, HELP_NOW_MS + 4001, &d), 0);
    cr_assert(d.overdue);
    cr_assert(log_clean_is_due(l, &d));
    /* A checkpoint that is not of this log. */
    cr_assert_eq(log_clean_look(l, 99, 3, HELP_NOW_MS + 4001, &d), 0);
    cr_assert_not(d.checkpoint_fits);
    cr_assert_eq(d.first_dirty, 0);
    log_abandon(l);
    clean_model_free(&m);
}

/* A batch of which some records go is written anew in its own codec; segments that became small are put together. */
Test(clean, every_codec)
{
    for (int codec = COMPRESS_NONE; codec <= COMPRESS_ZSTD; codec++) {
        struct log_options o = clean_options("clean_codec");
        struct clean_model m = {0};
        struct log *l = help_open(&o);
        int64_t checkpoint = -1;
        unsigned seed = 5;
        for (int i = 0; i < 60; i++) {
            struct clean_batch b = CLEAN_BATCH;
            b.codec = codec;
            b.count = 1 + rand_r(&seed) % 12;
            b.timestamp = HELP_NOW_MS + i;
            b.tombstones = i % 9 == 0;
            for (int k = 0; k < b.count; k++)
                b.keys[k] = rand_r(&seed) % 50;
            (void)clean_append(l, &m, &b);
        }
        roll(l);
        append_keys(l, &m, 0, 1);
        clean_must(l, &checkpoint, HELP_NOW_MS);
        clean_check(l, &m, checkpoint, true);
        size_t segments = log_segment_count(l);
        roll(l);
        clean_must(l, &checkpoint, HELP_NOW_MS);
        cr_assert_lt(log_segment_count(l), segments);
        clean_check(l, &m, checkpoint, true);
        log_abandon(l);
        o.recovery_point = checkpoint;
        l = help_open(&o);
        clean_check(l, &m, checkpoint, true);
        log_abandon(l);
        clean_model_free(&m);
    }
}

/* A map that is too small takes several rounds, each of which gets further, and the end is the same. */
Test(clean, a_small_map_takes_several_rounds)
{
    struct log_options o = clean_options("clean_small");
    struct clean_model m = {0};
    struct log *l = help_open(&o);
    int64_t checkpoint = -1;
    int rounds = 0;
    for (int i = 0; i < 3; i++)
        append_keys(l, &m, 0, 40);
    roll(l);
    cr_assert_eq(log_flush(l), 0);
    while (checkpoint < 120) {
        int64_t was = checkpoint;
        cr_assert_eq(clean_run(l, checkpoint, HELP_NOW_MS, 24 * 11, &checkpoint), 0);
        cr_assert_gt(checkpoint, was);
        clean_check(l, &m, checkpoint, true);
        rounds++;
    }
    cr_assert_gt(rounds, 5);
    /* One batch with more keys than the map takes does not stop it. */
    struct clean_batch b = CLEAN_BATCH;
    b.count = 16;
    for (int i = 0; i < 16; i++)
        b.keys[i] = i;
    (void)clean_append(l, &m, &b);
    roll(l);
    cr_assert_eq(log_flush(l), 0);
    cr_assert_eq(clean_run(l, checkpoint, HELP_NOW_MS, 24 * 4, &checkpoint), 0);
    cr_assert_eq(checkpoint, 136);
    clean_check(l, &m, checkpoint, true);
    log_abandon(l);
    clean_model_free(&m);
}

Test(clean, damage_is_named_and_nothing_changes)
{
    struct log_options o = clean_options("clean_damage");
    struct clean_model m = {0};
    struct log *l = help_open(&o);
    append_keys(l, &m, 0, 5);
    append_keys(l, &m, 0, 5);
    roll(l);
    cr_assert_eq(log_flush(l), 0);
    char *path = xasprintf("%s/%020d.log", o.dir, 0);
    int fd = file_open(&file_system_real, path, O_RDWR);
    cr_assert_eq(file_write(&file_system_real, fd, "x", 1, 800), 0);
    file_close(&file_system_real, fd);
    free(path);
    uint64_t size = log_size_bytes(l);
    cr_assert_eq(clean_run(l, -1, HELP_NOW_MS, 1 << 20, NULL), -EBADMSG);
    cr_assert_eq(log_failed(l), 0);
    cr_assert_eq(log_size_bytes(l), size);
    log_abandon(l);
    clean_model_free(&m);
}

/* A reader that was given a file keeps its bytes. */
Test(clean, given_files_stay_whole)
{
    struct log_options o = clean_options("clean_given");
    struct clean_model m = {0};
    struct log *l = help_open(&o);
    int64_t checkpoint = -1;
    append_keys(l, &m, 0, 5);
    append_keys(l, &m, 0, 5);
    roll(l);
    append_keys(l, &m, 0, 1);
    struct log_range r;
    struct log_file f;
    uint8_t was[4000], is[4000];
    cr_assert_eq(log_locate(l, 2, log_end(l), 400, true, &r), KERR_NONE);
    cr_assert_eq(log_copy(l, &r, was), 0);
    cr_assert_eq(log_file(l, &r, &f), 0);
    cr_assert(log_has_file(l, r.segment, f.instance));
    clean_must(l, &checkpoint, HELP_NOW_MS);
    cr_assert_not(log_has_file(l, r.segment, f.instance));
    log_tick(l, HELP_NOW_MS + DAY_MS);
    cr_assert_eq(file_read_all(&file_system_real, f.fd, is, r.size_bytes, r.position), 0);
    cr_assert_eq(memcmp(was, is, r.size_bytes), 0);
    file_close(&file_system_real, f.fd);
    log_abandon(l);
    clean_model_free(&m);
}

/* Truncation, retention and the end of the log while a cleaning is at any of its steps. */
static void disturb(int how, int at_step)
{
    struct log_options o = clean_options("clean_disturb");
    struct clean_model m = {0};
    struct log *l = help_open(&o);
    for (int i = 0; i < 4; i++)
        append_keys(l, &m, 0, 20);
    roll(l);
    cr_assert_eq(log_flush(l), 0);
    struct log_dirt d;
    struct log_clean_options co = {.map_bytes = 1 << 16, .map_load = 0.9, .io_bytes = 700, .now_wall_ms = HELP_NOW_MS};
    cr_assert_eq(log_clean_look(l, -1, 80, HELP_NOW_MS, &d), 0);
    struct log_clean *c = log_clean_begin(l, &d, &co);
    int more = 1;
    if (getenv("HELP_NOTES"))
        fprintf(stderr, "how %d step %d\n", how, at_step);
    for (int step = 0; more == 1; step++) {
        log_clean_step(c, 500);
        if (step == at_step) {
            if (how == 0)
                cr_assert_eq(log_truncate(l, 30), 0);
            else if (how == 1)
                cr_assert_eq(log_delete_before(l, 45), 0);
            else if (how == 2)
                log_clean_stop(c);
            else
                l = log_abandon(l);
            if (how == 1)
                cr_assert_geq(log_retain(l, HELP_NOW_MS), 0);
        }
        more = log_clean_turn(c, HELP_NOW_MS);
    }
    cr_assert(more == -ECANCELED || more == 0, "%d", more);
    log_clean_end(c);
    bool cut = l != NULL && log_end(l) < 80;
    if (cut)
        m.count = 30;
    int64_t start = l != NULL ? log_start(l) : 0, end = l != NULL ? log_end(l) : 80;
    if (l != NULL) {
        cr_assert_eq(log_failed(l), 0);
        clean_check(l, &m, cut ? CLEAN_CUT : CLEAN_HALFWAY, true);
    }
    log_abandon(l);
    o.log_start_offset = start;
    o.recovery_point = MIN(end, (int64_t)80); /* as it was written down before anything was cleaned */
    l = help_open(&o);
    cr_assert_eq(log_end(l), end);
    log_abandon(l);
    clean_model_free(&m);
}

Test(clean, a_log_that_changes_meanwhile)
{
    for (int how = 0; how < 4; how++) {
        for (int step = 0; step < 60; step++)
            disturb(how, step);
    }
}

Test(clean, the_map)
{
    uint8_t seed[CLEAN_SEED] = {9};
    struct clean_map *m = clean_map_new(100, 0.5, seed);
    for (int i = 0; i < 50; i++) {
        char key[16];
        int n = snprintf(key, sizeof key, "%d", i);
        cr_assert_gt(clean_map_room(m), 0);
        clean_map_put(m, slice_make(key, (size_t)n), i);
        clean_map_put(m, slice_make(key, (size_t)n), i + 1000);
    }
    cr_assert_eq(clean_map_room(m), 0);
    cr_assert_eq(clean_map_count(m), 50);
    cr_assert_eq(clean_map_reserve(m, 500), 0);
    cr_assert_geq(clean_map_room(m), 500);
    cr_assert_eq(clean_map_get(m, SLICE_OF("49")), 1049);
    cr_assert_eq(clean_map_get(m, SLICE_OF("50")), -1);
    cr_assert_eq(clean_map_get(m, SLICE_EMPTY), -1);
    clean_map_put(m, SLICE_EMPTY, 0);
    cr_assert_eq(clean_map_get(m, SLICE_EMPTY), 0);
    clean_map_free(m);
}
