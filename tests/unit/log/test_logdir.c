/* test_logdir.c - checkpoints, names, snapshots, epochs: what is written comes back, what is damaged is refused. */
#include "help.h"
#include "libs/log/epochs.h"
#include "libs/log/producers.h"
#include <criterion/criterion.h>
#include <stdlib.h>

static const char *fresh_dir(const char *name)
{
    const char *dir = help_dir(name);
    cr_assert_eq(file_mkdir(&file_system_real, dir), 0);
    return dir;
}

Test(logdir, checkpoints_come_back)
{
    const char *dir = fresh_dir("checkpoint");
    struct logdir_checkpoint *t = NULL;
    cr_assert_eq(logdir_read_checkpoint(&file_system_real, dir, LOGDIR_HIGH_WATERMARKS, &t), 0);
    cr_assert_eq(logdir_checkpoint_count(t), 0);
    t = logdir_checkpoint_free(t);
    struct logdir_offset o[] = {{"a", 0, 5}, {"b.c-d", 12, 1234567890123}};
    cr_assert_eq(logdir_write_checkpoint(&file_system_real, dir, LOGDIR_HIGH_WATERMARKS, o, 2), 0);
    cr_assert_eq(logdir_read_checkpoint(&file_system_real, dir, LOGDIR_HIGH_WATERMARKS, &t), 0);
    cr_assert_eq(logdir_checkpoint_get(t, SLICE_OF("a"), 0), 5);
    cr_assert_eq(logdir_checkpoint_get(t, SLICE_OF("b.c-d"), 12), 1234567890123);
    cr_assert_eq(logdir_checkpoint_get(t, SLICE_OF("a"), 1), -1);
    logdir_checkpoint_free(t);
}

Test(logdir, damaged_checkpoints_are_refused)
{
    static const char *const bad[] = {"1\n0\n",
                                      "x",
                                      "0\n",
                                      "0\n1\n",
                                      "0\n1\na 0\n",
                                      "0\n1\na b 0\n",
                                      "0\n1\na 0 -1\n",
                                      "0\n1\na 0 1 2\n",
                                      "0\n-1\n",
                                      "0\n1\na 0 99999999999999999999\n",
                                      "0\n2\na 0 1\n",
                                      "\n\n"};
    struct logdir_checkpoint *t;
    for (size_t i = 0; i < COUNTOF(bad); i++)
        cr_assert_eq(logdir_parse_checkpoint(slice_str(bad[i]), &t), -EBADMSG, "%zu", i);
}

Test(logdir, names)
{
    static const struct {
        const char *name;
        enum logdir_kind kind;
        const char *topic;
        int32_t partition;
    } cases[] = {
        {"a-0", LOGDIR_PARTITION, "a", 0},
        {"a-b-12", LOGDIR_PARTITION, "a-b", 12},
        {"a-0.0123456789abcdef0123456789abcdef-delete", LOGDIR_DELETED, "a", 0},
        {"a-0.0123456789abcdef0123456789abcdef-future", LOGDIR_FUTURE, "a", 0},
        {"a-0.0123456789abcdef0123456789abcdef-stray", LOGDIR_STRAY, "a", 0},
        {"a-delete-0", LOGDIR_PARTITION, "a-delete", 0},
        {"a-delete", LOGDIR_OTHER, NULL, 0},
        {"a", LOGDIR_OTHER, NULL, 0},
        {"-0", LOGDIR_OTHER, NULL, 0},
        {"a-", LOGDIR_OTHER, NULL, 0},
        {"a-99999999999", LOGDIR_OTHER, NULL, 0},
        {"", LOGDIR_OTHER, NULL, 0},
    };
    for (size_t i = 0; i < COUNTOF(cases); i++) {
        struct slice topic = SLICE_NULL;
        int32_t partition = -1;
        cr_assert_eq(logdir_parse_name(cases[i].name, &topic, &partition), cases[i].kind, "%s", cases[i].name);
        if (cases[i].topic != NULL) {
            cr_assert(slice_eq_str(topic, cases[i].topic));
            cr_assert_eq(partition, cases[i].partition);
        }
    }
}

Test(logdir, clean_stop_marker)
{
    const char *dir = fresh_dir("cleanstop");
    int64_t epoch = 0;
    cr_assert_eq(logdir_take_clean(&file_system_real, dir, &epoch), 0);
    cr_assert_eq(logdir_write_clean(&file_system_real, dir, 77), 0);
    cr_assert_eq(logdir_take_clean(&file_system_real, dir, &epoch), 1);
    cr_assert_eq(epoch, 77);
    cr_assert_eq(logdir_take_clean(&file_system_real, dir, &epoch), 0);
}

Test(logdir, a_failed_flush_is_noted)
{
    const char *dir = fresh_dir("logdir-flush");
    cr_assert_eq(logdir_had_failed_flush(&file_system_real, dir), 0);
    cr_assert_eq(logdir_note_failed_flush(&file_system_real, dir), 0);
    cr_assert_eq(logdir_note_failed_flush(&file_system_real, dir), 0);
    cr_assert_eq(logdir_had_failed_flush(&file_system_real, dir), 1);
    cr_assert_eq(logdir_forget_failed_flush(&file_system_real, dir), 0);
    cr_assert_eq(logdir_forget_failed_flush(&file_system_real, dir), 0);
    cr_assert_eq(logdir_had_failed_flush(&file_system_real, dir), 0);
    cr_assert_eq(logdir_note_failed_flush(&file_system_real, "/nowhere"), -ENOENT);
}

Test(logdir, damaged_snapshots_and_epochs_are_refused)
{
    const char *dir = fresh_dir("snapshot");
    struct producers *p = producers_new();
    struct batch b = {.producer_id = 5,
                      .producer_epoch = 2,
                      .base_sequence = 10,
                      .last_offset_delta = 4,
                      .base_offset = 100,
                      .max_timestamp = HELP_NOW_MS,
                      .attributes = BATCH_ATTR_TRANSACTIONAL};
    producers_apply(p, &b, -1, -1);
    cr_assert_eq(producers_first_open(p), 100);
    cr_assert_eq(producers_write_snapshot(p, &file_system_real, dir, 105, false), 0);
    char *path = xasprintf("%s/00000000000000000105.snapshot", dir), *data;
    size_t size;
    cr_assert_eq(file_slurp(&file_system_real, path, 1000, &data, &size), 0);
    cr_assert_eq(size, 56);
    for (size_t i = 0; i < size; i++) {
        cr_assert_eq(producers_parse_snapshot(p, slice_make(data, i), HELP_NOW_MS, 1000), -EBADMSG);
        data[i] = (char)(data[i] ^ 1);
        cr_assert_eq(producers_parse_snapshot(p, slice_make(data, size), HELP_NOW_MS, 1000), -EBADMSG);
        data[i] = (char)(data[i] ^ 1);
    }
    cr_assert_eq(producers_parse_snapshot(p, slice_make(data, size), HELP_NOW_MS, 1000), 0);
    cr_assert_eq(producers_count(p), 1);
    cr_assert_eq(producers_first_open(p), 100);
    free(data);
    free(path);
    producers_free(p);

    struct epochs e = {0};
    cr_assert_eq(epochs_parse(&e, SLICE_OF("0\n2\n0 0\n3 17\n")), 0);
    cr_assert_eq(epochs_latest(&e), 3);
    epochs_free(&e);
    cr_assert_eq(epochs_parse(&e, SLICE_OF("0\n2\n0 0\n3 0\n")), -EBADMSG);
    epochs_free(&e);
}
