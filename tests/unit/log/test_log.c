/* test_log.c - a log's life on the real file system. */
#include "help.h"
#include <criterion/criterion.h>
#include <stdlib.h>
#include <sys/stat.h>

static uint64_t file_size(const char *dir, const char *name)
{
    char *path = xasprintf("%s/%s", dir, name);
    struct stat st;
    int err = stat(path, &st);
    free(path);
    return err < 0 ? UINT64_MAX : (uint64_t)st.st_size;
}

Test(log, new_partition_has_kafkas_files)
{
    const char *dir = help_dir("new");
    struct log_options o = help_options(dir);
    struct log *l = help_open(&o);
    log_assign_epoch(l, 0);
    cr_assert_eq(file_size(dir, "00000000000000000000.log"), 0);
    cr_assert_eq(file_size(dir, "00000000000000000000.index"), 10485760);
    cr_assert_eq(file_size(dir, "00000000000000000000.timeindex"), 10485756);
    cr_assert_eq(file_size(dir, "partition.metadata"), strlen("version: 0\ntopic_id: ") + 22);
    cr_assert_eq(log_close(l, HELP_NOW_MS), 0);
    cr_assert_eq(file_size(dir, "leader-epoch-checkpoint"), strlen("0\n1\n0 0\n"));
    cr_assert_eq(file_size(dir, "00000000000000000000.index"), 0);
    cr_assert_eq(file_size(dir, "00000000000000000000.timeindex"), 0);
    cr_assert_eq(file_size(dir, "00000000000000000000.snapshot"), 10);
}

/* Every start drops an epoch that no record is in: a leader's epoch alone is not worth a file for each log of a node.
 */
Test(log, an_epoch_reaches_its_file_with_the_first_record)
{
    const char *dir = help_dir("idle_epoch");
    struct log_options o = help_options(dir);
    struct log *l = help_open(&o);
    struct help_batch b = HELP_BATCH;
    log_assign_epoch(l, 0);
    cr_assert_eq(help_append(l, &b, NULL), KERR_NONE);
    cr_assert_eq(log_close(l, HELP_NOW_MS), 0);
    o.clean = true;
    o.recovery_point = 1;
    l = help_open(&o);
    log_assign_epoch(l, 17);
    cr_assert_eq(log_latest_epoch(l), 17);
    cr_assert_eq(log_settle(l), 0);
    log_settled(l);
    cr_assert_eq(log_recovery_point(l), 1);
    log_abandon(l);
    cr_assert_eq(file_size(dir, "leader-epoch-checkpoint"), strlen("0\n1\n0 0\n"));
    l = help_open(&o);
    log_assign_epoch(l, 18);
    struct buf bytes = help_batch(&b);
    struct log_append a = {.bytes = bytes.data, .size = bytes.size, .leader_epoch = 18, .now_wall_ms = HELP_NOW_MS};
    cr_assert_eq(log_stage(l, &a), KERR_NONE);
    cr_assert_eq(log_commit(l), 0);
    buf_free(&bytes);
    cr_assert_eq(file_size(dir, "leader-epoch-checkpoint"), strlen("0\n2\n0 0\n18 1\n"));
    log_abandon(l);
}

/* As Kafka's UnifiedLog.truncateTo: the epoch of a leader that nobody followed must not be asked for for ever. */
Test(log, a_truncation_at_the_end_drops_the_epoch_that_begins_there)
{
    const char *dir = help_dir("idle_epoch_cut");
    struct log_options o = help_options(dir);
    struct log *l = help_open(&o);
    struct help_batch b = HELP_BATCH;
    log_assign_epoch(l, 3);
    cr_assert_eq(help_append(l, &b, NULL), KERR_NONE);
    int32_t with_records = log_latest_epoch(l);
    log_assign_epoch(l, 17);
    cr_assert_eq(log_latest_epoch(l), 17);
    cr_assert_eq(log_truncate(l, log_end(l)), 0);
    cr_assert_eq(log_latest_epoch(l), with_records);
    cr_assert_eq(log_end(l), 1);
    log_abandon(l);
    l = help_open(&o);
    cr_assert_eq(log_latest_epoch(l), with_records);
    log_abandon(l);
}

/* Held, the high watermark is what the checkpoint says until somebody moves it; what is to be flushed first is not safe
 * before. */
Test(log, a_high_watermark_that_is_held_moves_when_it_is_told_to)
{
    const char *dir = help_dir("held");
    struct log_options o = help_options(dir);
    struct help_batch b = HELP_BATCH;
    o.hold_high_watermark = true;
    o.config.flush_messages = 1;
    struct log *l = help_open(&o);
    cr_assert_eq(help_append(l, &b, NULL), KERR_NONE);
    cr_assert_eq(help_append(l, &b, NULL), KERR_NONE);
    cr_assert_eq(log_high_watermark(l), 0);
    cr_assert_eq(log_safe_end(l), 0);
    log_hold_high_watermark(l, false);
    cr_assert_eq(log_high_watermark(l), 0);
    cr_assert_eq(log_flush(l), 0);
    cr_assert_eq(log_safe_end(l), 2);
    cr_assert_eq(log_high_watermark(l), 2);
    log_hold_high_watermark(l, true);
    cr_assert_eq(help_append(l, &b, NULL), KERR_NONE);
    cr_assert_eq(log_flush(l), 0);
    cr_assert_eq(log_high_watermark(l), 2);
    log_set_high_watermark(l, 9);
    cr_assert_eq(log_high_watermark(l), 3);
    log_abandon(l);
    o.high_watermark = 2;
    l = help_open(&o);
    cr_assert_eq(log_high_watermark(l), 2);
    cr_assert_eq(log_truncate(l, 1), 0);
    cr_assert_eq(log_high_watermark(l), 1);
    log_abandon(l);
}

Test(log, two_crashes_in_a_row_do_not_forget_what_a_producer_has_under_way)
{
    const char *dir = help_dir("two_crashes");
    struct log_options o = help_options(dir);
    struct help_batch b = HELP_BATCH;
    struct log_append a;
    b.producer_id = 7;
    b.producer_epoch = 0;
    struct log *l = help_open(&o);
    for (b.sequence = 0; b.sequence < 3; b.sequence++)
        cr_assert_eq(help_append(l, &b, NULL), KERR_NONE);
    for (int crash = 0; crash < 3; crash++) {
        log_abandon(l);
        l = help_open(&o);
    }
    b.sequence = 0;
    cr_assert_eq(help_append(l, &b, &a), KERR_NONE);
    cr_assert(a.duplicate);
    cr_assert_eq(a.base_offset, 0);
    log_abandon(l);
}

/* A stop while a log is checked gives it up, and nothing is lost by it. */
Test(log, opening_is_given_up_when_it_is_told_to)
{
    const char *dir = help_dir("given_up");
    struct log_options o = help_options(dir);
    struct log_progress progress = {0};
    struct log *l = help_open(&o);
    struct help_batch b = HELP_BATCH;
    for (int i = 0; i < 5; i++)
        cr_assert_eq(help_append(l, &b, NULL), KERR_NONE);
    int64_t end = log_end(l);
    uint64_t size = log_size_bytes(l);
    log_abandon(l);
    o.progress = &progress;
    progress.stop = true;
    cr_assert_eq(log_open(&o, &l), -ECANCELED);
    progress.stop = false;
    progress.checked_bytes = progress.found_bytes = 0;
    l = help_open(&o);
    cr_assert_eq(log_end(l), end);
    cr_assert_eq(progress.checked_bytes, size);
    cr_assert_eq(progress.found_bytes, size);
    log_abandon(l);
}

Test(log, rolls_by_size_and_recovers_after_a_kill)
{
    const char *dir = help_dir("roll");
    struct log_options o = help_options(dir);
    o.config.segment_bytes = 20000;
    struct log *l = help_open(&o);
    struct help_batch b = HELP_BATCH;
    for (int i = 0; i < 500; i++) {
        b.timestamp = HELP_NOW_MS + i;
        cr_assert_eq(help_append(l, &b, NULL), KERR_NONE);
        if (i == 300)
            cr_assert_eq(log_flush(l), 0);
    }
    cr_assert_gt(log_segment_count(l), 4);
    cr_assert_eq(help_read_all(l, 3000), 500);
    o.recovery_point = log_recovery_point(l);
    cr_assert_eq(o.recovery_point, 301);
    log_abandon(l);

    l = help_open(&o);
    cr_assert_eq(log_end(l), 500);
    cr_assert_eq(help_read_all(l, 3000), 500);
    struct log_offset found;
    for (int i = 0; i < 500; i += 7) {
        cr_assert_eq(log_offset_by_time(l, HELP_NOW_MS + i, &found, NULL), KERR_NONE);
        cr_assert_eq(found.offset, i);
        cr_assert_eq(found.timestamp, HELP_NOW_MS + i);
    }
    cr_assert_eq(log_offset_by_time(l, HELP_NOW_MS + 500, &found, NULL), KERR_NONE);
    cr_assert_eq(found.offset, -1);
    cr_assert_eq(log_offset_of_max_time(l, &found, NULL), KERR_NONE);
    cr_assert_eq(found.offset, 499);
    cr_assert_eq(log_close(l, HELP_NOW_MS), 0);
}

Test(log, a_file_that_another_process_writes_to_is_noticed)
{
    const char *dir = help_dir("alone");
    struct log_options o = help_options(dir);
    struct log *l = help_open(&o);
    struct help_batch b = HELP_BATCH;
    cr_assert_eq(log_check_alone(l), 0);
    cr_assert_eq(help_append(l, &b, NULL), KERR_NONE);
    cr_assert_eq(log_check_alone(l), 0);
    char *path = xasprintf("%s/00000000000000000000.log", dir);
    int fd = file_open(&file_system_real, path, O_RDWR);
    cr_assert_eq(file_write(&file_system_real, fd, "xxxx", 4, log_size_bytes(l)), 0);
    cr_assert_eq(log_check_alone(l), -EBUSY);
    file_close(&file_system_real, fd);
    free(path);
    log_abandon(l);
}

Test(log, a_torn_tail_is_cut_and_damage_is_not)
{
    const char *dir = help_dir("torn");
    struct log_options o = help_options(dir);
    struct log *l = help_open(&o);
    struct help_batch b = HELP_BATCH;
    for (int i = 0; i < 20; i++)
        cr_assert_eq(help_append(l, &b, NULL), KERR_NONE);
    uint64_t size = log_size_bytes(l);
    log_abandon(l);
    char *path = xasprintf("%s/00000000000000000000.log", dir);
    int fd = file_open(&file_system_real, path, O_RDWR);
    cr_assert_geq(fd, 0);
    cr_assert_eq(file_ftruncate(&file_system_real, fd, size - 10), 0);
    l = help_open(&o);
    cr_assert_eq(log_end(l), 19);
    cr_assert_eq(log_size_bytes(l), size / 20 * 19);
    cr_assert_eq(help_append(l, &b, NULL), KERR_NONE);
    cr_assert_eq(help_read_all(l, 1000), 20);
    log_abandon(l);

    cr_assert_eq(file_write(&file_system_real, fd, "xxxx", 4, size / 2), 0);
    file_close(&file_system_real, fd);
    o.recovery_point = 20;
    cr_assert_eq(log_open(&o, &l), -EBADMSG, "what was flushed is never cut in silence");
    o.recovery_point = 0;
    l = help_open(&o);
    cr_assert_eq(log_end(l), 10);
    log_abandon(l);
    free(path);
}

Test(log, another_topic_of_the_same_name)
{
    struct log_options o = help_options(help_dir("othertopic"));
    log_abandon(help_open(&o));
    o.topic_id.b[0] ^= 1;
    struct log *l;
    cr_assert_eq(log_open(&o, &l), -EEXIST);
}

Test(log, sequences)
{
    struct log_options o = help_options(help_dir("sequences"));
    struct log *l = help_open(&o);
    struct help_batch b = HELP_BATCH;
    struct log_append a;
    b.producer_id = 7;
    b.producer_epoch = 0;
    b.sequence = 100; /* unknown producers may begin anywhere */
    b.count = 10;
    for (int i = 0; i < 8; i++, b.sequence += 10)
        cr_assert_eq(help_append(l, &b, &a), KERR_NONE);
    cr_assert_eq(log_end(l), 80);
    b.sequence = 170;
    cr_assert_eq(help_append(l, &b, &a), KERR_NONE);
    cr_assert(a.duplicate);
    cr_assert_eq(a.base_offset, 70);
    b.sequence = 130; /* the fifth back */
    cr_assert_eq(help_append(l, &b, &a), KERR_NONE);
    cr_assert_eq(a.base_offset, 30);
    b.sequence = 120;
    cr_assert_eq(help_append(l, &b, &a), KERR_OUT_OF_ORDER_SEQUENCE_NUMBER);
    b.sequence = 190;
    cr_assert_eq(help_append(l, &b, &a), KERR_OUT_OF_ORDER_SEQUENCE_NUMBER);
    b.producer_epoch = 1;
    cr_assert_eq(help_append(l, &b, &a), KERR_OUT_OF_ORDER_SEQUENCE_NUMBER);
    b.sequence = 0;
    cr_assert_eq(help_append(l, &b, &a), KERR_NONE);
    b.producer_epoch = 0;
    b.sequence = 180;
    cr_assert_eq(help_append(l, &b, &a), KERR_INVALID_PRODUCER_EPOCH);
    cr_assert_eq(log_end(l), 90);

    /* After a kill the same is known from the batches, after a clean stop from the snapshot. */
    for (int clean = 0; clean < 2; clean++) {
        if (clean)
            cr_assert_eq(log_close(l, HELP_NOW_MS), 0);
        else
            log_abandon(l);
        o.clean = clean;
        o.recovery_point = clean ? 90 : 0;
        l = help_open(&o);
        b.producer_epoch = 1;
        b.sequence = 0;
        cr_assert_eq(help_append(l, &b, &a), KERR_NONE);
        cr_assert(a.duplicate);
        cr_assert_eq(a.base_offset, 80);
    }
    b.sequence = 10;
    cr_assert_eq(help_append(l, &b, &a), KERR_NONE);
    cr_assert_not(a.duplicate);
    log_tick(l, HELP_NOW_MS + 2 * 86400000LL);
    b.sequence = 500;
    cr_assert_eq(help_append(l, &b, &a), KERR_NONE, "expired: unknown again");
    log_abandon(l);
}

/* What counts is the time of the records (as in Kafka), looked at every ten minutes: who writes records of last week is
 * recognised when it sends one again. */
Test(log, a_producer_of_old_records_is_known_for_a_while)
{
    struct log_options o = help_options(help_dir("old_records"));
    struct log *l = help_open(&o);
    struct help_batch b = HELP_BATCH;
    struct log_append a;
    b.producer_id = 1;
    b.producer_epoch = 0;
    b.sequence = 0;
    b.timestamp = HELP_NOW_MS - 7 * 86400000LL;
    cr_assert_eq(help_append(l, &b, &a), KERR_NONE);
    log_tick(l, HELP_NOW_MS + 10000);
    cr_assert_eq(help_append(l, &b, &a), KERR_NONE);
    cr_assert(a.duplicate);
    log_tick(l, HELP_NOW_MS + 600000);
    cr_assert_eq(help_append(l, &b, &a), KERR_NONE);
    cr_assert_not(a.duplicate, "the look has come");
    log_abandon(l);
}

Test(log, sequences_wrap)
{
    struct log_options o = help_options(help_dir("wrap"));
    struct log *l = help_open(&o);
    struct help_batch b = HELP_BATCH;
    b.producer_id = 1;
    b.producer_epoch = 0;
    b.sequence = INT32_MAX - 2;
    b.count = 5; /* last sequence 1 */
    struct log_append a;
    cr_assert_eq(help_append(l, &b, &a), KERR_NONE);
    cr_assert_eq(help_append(l, &b, &a), KERR_NONE);
    cr_assert(a.duplicate);
    b.sequence = 2;
    cr_assert_eq(help_append(l, &b, &a), KERR_NONE);
    cr_assert_not(a.duplicate);
    log_abandon(l);
}

Test(log, retention_and_delete_records)
{
    const char *dir = help_dir("retain");
    struct log_options o = help_options(dir);
    o.config.segment_bytes = 2000;
    o.config.retention_bytes = 6000;
    o.config.retention_ms = 1000000;
    struct log *l = help_open(&o);
    struct help_batch b = HELP_BATCH;
    for (int i = 0; i < 100; i++)
        cr_assert_eq(help_append(l, &b, NULL), KERR_NONE);
    cr_assert_gt(log_retain(l, HELP_NOW_MS), 0);
    cr_assert_geq(log_size_bytes(l), 6000);
    cr_assert_lt(log_size_bytes(l), 8000);
    cr_assert_eq(log_start(l), log_first_segment(l));
    cr_assert_gt(log_start(l), 0);
    cr_assert_eq(log_delete_before(l, 101), -ERANGE);
    cr_assert_eq(log_delete_before(l, 95), 0);
    cr_assert_eq(log_start(l), 95);
    cr_assert_gt(log_retain(l, HELP_NOW_MS), 0);
    cr_assert_leq(log_first_segment(l), 95);
    struct log_range r;
    cr_assert_eq(log_locate(l, 94, 100, 100, true, &r), KERR_OFFSET_OUT_OF_RANGE);
    cr_assert_eq(help_read_all(l, 100), 5);
    /* All too old: the active segment is rolled, and only an empty one stays. */
    cr_assert_gt(log_retain(l, HELP_NOW_MS + 1000000 + 1000), 0);
    cr_assert_eq(log_start(l), 100);
    cr_assert_eq(log_end(l), 100);
    cr_assert_eq(log_segment_count(l), 1);
    cr_assert_neq(file_size(dir, "00000000000000000000.log.deleted"), UINT64_MAX);
    log_tick(l, HELP_NOW_MS + 3000000);
    cr_assert_eq(file_size(dir, "00000000000000000000.log.deleted"), UINT64_MAX);
    cr_assert_eq(help_append(l, &b, NULL), KERR_NONE);
    cr_assert_eq(log_close(l, HELP_NOW_MS), 0);
    o.clean = true;
    o.recovery_point = 101;
    l = help_open(&o);
    cr_assert_eq(log_start(l), 100);
    cr_assert_eq(log_end(l), 101);
    log_abandon(l);
}

Test(log, truncation_and_epochs)
{
    struct log_options o = help_options(help_dir("truncate"));
    o.config.segment_bytes = 2000;
    struct log *l = help_open(&o);
    struct help_batch b = HELP_BATCH;
    for (int epoch = 0; epoch < 10; epoch++) {
        log_assign_epoch(l, epoch);
        for (int i = 0; i < 10; i++)
            cr_assert_eq(help_append(l, &b, NULL), KERR_NONE);
    }
    int32_t epoch;
    int64_t end;
    log_end_of_epoch(l, 3, &epoch, &end);
    cr_assert_eq(epoch, 3);
    cr_assert_eq(end, 40);
    log_end_of_epoch(l, 9, &epoch, &end);
    cr_assert_eq(end, 100);
    log_end_of_epoch(l, 10, &epoch, &end);
    cr_assert_eq(epoch, -1);
    cr_assert_eq(end, -1);
    cr_assert_eq(log_epoch_of_offset(l, 55), 5);
    cr_assert_eq(log_truncate(l, 55), 0);
    cr_assert_eq(log_end(l), 55);
    cr_assert_eq(help_read_all(l, 1000), 55);
    cr_assert_eq(log_latest_epoch(l), 5);
    cr_assert_eq(help_append(l, &b, NULL), KERR_NONE);
    cr_assert_eq(help_read_all(l, 1000), 56);
    log_abandon(l);
    l = help_open(&o);
    cr_assert_eq(log_end(l), 56);
    cr_assert_eq(log_latest_epoch(l), 5);
    cr_assert_eq(log_restart_at(l, 1000, HELP_NOW_MS), 0);
    cr_assert_eq(log_start(l), 1000);
    cr_assert_eq(help_append(l, &b, NULL), KERR_NONE);
    cr_assert_eq(log_close(l, HELP_NOW_MS), 0);
}

Test(log, max_timestamp_inside_a_compressed_batch)
{
    struct log_options o = help_options(help_dir("maxtime"));
    struct log *l = help_open(&o);
    struct log_offset found;
    cr_assert_eq(log_offset_of_max_time(l, &found, NULL), KERR_NONE);
    cr_assert_eq(found.offset, -1);
    struct buf out = {0};
    struct batch_options bo = BATCH_OPTIONS;
    bo.codec = COMPRESS_ZSTD;
    struct batch_builder b;
    batch_begin(&b, &out, &bo);
    int64_t times[] = {10, 30, 20, 30};
    for (size_t i = 0; i < COUNTOF(times); i++)
        batch_add(&b, times[i], SLICE_NULL, SLICE_OF("v"), NULL, 0);
    cr_assert_eq(batch_end(&b), 0);
    struct log_append a = {.bytes = out.data, .size = out.size, .now_wall_ms = HELP_NOW_MS};
    cr_assert_eq(log_stage(l, &a), KERR_NONE);
    cr_assert_eq(log_commit(l), 0);
    cr_assert_eq(log_offset_of_max_time(l, &found, NULL), KERR_NONE);
    cr_assert_eq(found.offset, 1);
    cr_assert_eq(found.timestamp, 30);
    cr_assert_eq(log_offset_by_time(l, 15, &found, NULL), KERR_NONE);
    cr_assert_eq(found.offset, 1);
    cr_assert_eq(found.leader_epoch, 0);
    buf_free(&out);
    log_abandon(l);
}

Test(log, a_copy_of_the_leaders_batches)
{
    /* As the metadata log uses it: offsets and epochs are given. */
    struct log_options o = help_options(help_dir("leader"));
    o.topic_id = UUID_METADATA_TOPIC;
    struct log *l = help_open(&o);
    struct buf out = {0};
    for (int i = 0; i < 3; i++) {
        struct batch_options bo = BATCH_OPTIONS;
        bo.base_offset = i * 2;
        bo.leader_epoch = 1 + i;
        bo.attributes = i == 0 ? BATCH_ATTR_CONTROL : 0;
        struct batch_builder b;
        batch_begin(&b, &out, &bo);
        for (int k = 0; k < 2; k++) {
            if (i == 0)
                batch_add_control(&b, 1, CONTROL_LEADER_CHANGE, SLICE_OF("\0\0"));
            else
                batch_add(&b, 1, SLICE_NULL, SLICE_OF("v"), NULL, 0);
        }
        cr_assert_eq(batch_end(&b), 0);
    }
    struct log_append a = {.bytes = out.data, .size = out.size, .origin = LOG_FROM_LEADER, .now_wall_ms = HELP_NOW_MS};
    cr_assert_eq(log_stage(l, &a), KERR_NONE);
    cr_assert_eq(a.base_offset, 0);
    cr_assert_eq(a.next_offset, 6);
    cr_assert_eq(log_commit(l), 0);
    cr_assert_eq(log_epoch_of_offset(l, 4), 3);
    cr_assert_eq(log_stage(l, &a), KERR_INVALID_RECORD, "the same again does not follow");
    cr_assert_eq(log_flush(l), 0);
    o.recovery_point = 6;
    log_abandon(l);
    l = help_open(&o);
    cr_assert_eq(help_read_all(l, 1000), 6);
    buf_free(&out);
    cr_assert_eq(log_close(l, HELP_NOW_MS), 0);
}

Test(log, deletion_renames_the_folder)
{
    const char *dir = help_dir("deletion");
    struct log_options o = help_options(dir);
    struct log *l = help_open(&o);
    char *path = NULL;
    cr_assert_eq(log_delete(l, (struct uuid){{0xab, 1}}, &path), 0);
    struct slice topic;
    int32_t partition;
    cr_assert_eq(logdir_parse_name(strrchr(path, '/') + 1, &topic, &partition), LOGDIR_DELETED);
    cr_assert(slice_eq_str(topic, "topic"));
    cr_assert_eq(partition, 0);
    cr_assert_eq(file_remove_tree(&file_system_real, path), 0);
    free(path);
}

Test(log, indexes_are_sparse_and_exact)
{
    const char *dir = help_dir("index");
    struct log_options o = help_options(dir);
    struct log *l = help_open(&o);
    struct help_batch b = HELP_BATCH;
    for (int i = 0; i < 2000; i++) {
        b.timestamp = HELP_NOW_MS + i;
        cr_assert_eq(help_append(l, &b, NULL), KERR_NONE);
    }
    uint64_t size = log_size_bytes(l), one = size / 2000, between = 4096 / one + 1;
    cr_assert_eq(log_close(l, HELP_NOW_MS), 0);
    uint64_t entries = file_size(dir, "00000000000000000000.index") / 8;
    cr_assert_eq(entries, 1999 / between);
    /* One more for the end. */
    cr_assert_eq(file_size(dir, "00000000000000000000.timeindex"), (entries + 1) * 12);
    o.clean = true;
    o.recovery_point = 2000;
    l = help_open(&o);
    cr_assert_eq(log_end(l), 2000);
    for (int64_t i = 0; i < 2000; i += 13) {
        struct log_range r;
        cr_assert_eq(log_locate(l, i, 2000, 1, true, &r), KERR_NONE);
        cr_assert_eq(r.position, (uint64_t)i * one);
        cr_assert_eq(r.size_bytes, one);
    }
    log_abandon(l);
}

Test(log, the_high_watermark_waits_for_the_flush_that_is_asked_for, .timeout = 20)
{
    struct log_options o = help_options(help_dir("flushed-watermark"));
    o.config.flush_messages = 2;
    struct log *l = help_open(&o);
    struct help_batch one = HELP_BATCH;
    cr_assert_eq(help_append(l, &one, NULL), KERR_NONE);
    cr_assert_eq(log_high_watermark(l), 1, "no flush is due");
    cr_assert_eq(help_append(l, &one, NULL), KERR_NONE);
    cr_assert_eq(log_high_watermark(l), 1);
    cr_assert_eq(log_end(l), 2);
    cr_assert_eq(log_flush(l), 0);
    cr_assert_eq(log_high_watermark(l), 2);
    cr_assert_eq(help_append(l, &one, NULL), KERR_NONE);
    cr_assert_eq(log_high_watermark(l), 3);
    cr_assert_eq(log_close(l, HELP_NOW_MS), 0);
}
