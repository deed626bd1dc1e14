/* test_staging.c - appends from bytes that we may not write, and that somebody else may change at any time. */
#include "help.h"
#include "libs/base/bytes.h"
#include "libs/log/staging.h"
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { SMALL = 200, LARGE = 20000 };

static struct log_append append_of(const struct buf *bytes)
{
    return (struct log_append){
        .bytes = bytes->data, .size = bytes->size, .leader_epoch = 3, .now_wall_ms = HELP_NOW_MS};
}

static void holds(struct log *l, int64_t offset, const struct buf *sent)
{
    struct batch b;
    struct buf got = help_read_batch(l, offset, &b);
    cr_assert_eq(b.base_offset, offset);
    cr_assert_eq(b.leader_epoch, 3);
    cr_assert_eq(got.size, sent->size);
    cr_assert_eq(memcmp(got.data + BATCH_MAGIC, sent->data + BATCH_MAGIC, sent->size - BATCH_MAGIC), 0);
    cr_assert(batch_crc_holds(&b, buf_slice(&got)));
    buf_free(&got);
}

Test(staging, the_callers_bytes_may_be_read_only)
{
    struct log_options o = help_options(help_dir("readonly"));
    struct log *l = help_open(&o);
    static const size_t sizes[] = {SMALL, LARGE, 1, 1900, 2100};
    int64_t at = 0;
    for (int time = 0; time < 2; time++) {
        o.config.log_append_time = time;
        log_set_config(l, &o.config);
        for (size_t i = 0; i < COUNTOF(sizes); i++, at++) {
            struct help_batch spec = HELP_BATCH;
            spec.value_bytes = sizes[i];
            struct buf bytes = help_batch(&spec);
            uint8_t *page = mmap(NULL, bytes.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            memcpy(page, bytes.data, bytes.size);
            cr_assert_eq(mprotect(page, bytes.size, PROT_READ), 0);
            struct log_append a = append_of(&bytes);
            a.bytes = page;
            cr_assert_eq(log_stage(l, &a), KERR_NONE);
            cr_assert_eq(log_commit(l), 0);
            cr_assert_eq(a.base_offset, at);
            if (time) {
                struct batch b;
                struct buf got = help_read_batch(l, at, &b);
                cr_assert_eq(b.max_timestamp, HELP_NOW_MS);
                cr_assert(b.attributes & BATCH_ATTR_LOG_APPEND_TIME);
                cr_assert(batch_crc_holds(&b, buf_slice(&got)));
                buf_free(&got);
            } else {
                holds(l, at, &bytes);
            }
            munmap(page, bytes.size);
            buf_free(&bytes);
        }
    }
    log_abandon(l);
}

/* Kafka writes the records' own highest timestamp into the header, whatever the producer had there. */
Test(staging, a_wrong_max_timestamp_is_put_right)
{
    struct log_options o = help_options(help_dir("restamp"));
    struct log *l = help_open(&o);
    static const struct {
        size_t size;
        int codec;
    } cases[] = {{SMALL, COMPRESS_NONE}, {LARGE, COMPRESS_NONE}, {LARGE, COMPRESS_ZSTD}, {LARGE, COMPRESS_NONE}};
    for (size_t i = 0; i < COUNTOF(cases); i++) {
        struct help_batch spec = HELP_BATCH;
        spec.count = 2;
        spec.value_bytes = cases[i].size;
        spec.codec = cases[i].codec;
        struct buf bytes = help_batch(&spec), right = help_batch(&spec);
        put_i64(bytes.data + BATCH_MAX_TIMESTAMP, HELP_NOW_MS + 77777);
        help_reseal(&bytes);
        struct log_append a = append_of(&bytes), whole = append_of(&right);
        cr_assert_eq(log_stage(l, &whole), KERR_NONE);
        cr_assert_eq(log_stage(l, &a), KERR_NONE);
        cr_assert_eq(log_stage(l, &whole), KERR_NONE);
        cr_assert_eq(log_commit(l), 0);
        for (int64_t k = 0; k < 3; k++)
            holds(l, (int64_t)i * 6 + 2 * k, &right);
        buf_free(&bytes);
        buf_free(&right);
    }
    log_abandon(l);
}

/* Whoever shares the memory changes it after the check: a small batch was copied; of a large one the header is the
 * checked one, its own body fails its own CRC, and its neighbours are whole. */
Test(staging, bytes_that_change_before_the_commit_hurt_their_own_batch_only)
{
    struct log_options o = help_options(help_dir("changed"));
    struct log *l = help_open(&o);
    struct help_batch spec = HELP_BATCH;
    struct buf bytes[5], sent[5];
    struct log_append a[5];
    for (int i = 0; i < 5; i++) {
        spec.value_bytes = i % 2 ? LARGE : SMALL;
        bytes[i] = help_batch(&spec);
        sent[i] = help_batch(&spec);
        a[i] = append_of(&bytes[i]);
        cr_assert_eq(log_stage(l, &a[i]), KERR_NONE);
    }
    memset(bytes[0].data, 0xff, bytes[0].size);
    memset(bytes[1].data, 0xff, BATCH_HEADER_SIZE); /* the header alone */
    memset(bytes[3].data, 0xff, bytes[3].size);
    cr_assert_eq(log_commit(l), 0);
    for (int i = 0; i < 5; i++) {
        if (i != 3)
            holds(l, i, &sent[i]);
    }
    struct batch b;
    struct buf got = help_read_batch(l, 3, &b);
    cr_assert_eq(b.base_offset, 3);
    cr_assert_eq(b.size, sent[3].size);
    cr_assert_not(batch_crc_holds(&b, buf_slice(&got)));
    buf_free(&got);
    for (int i = 0; i < 5; i++) {
        buf_free(&bytes[i]);
        buf_free(&sent[i]);
    }
    log_abandon(l);
}

Test(staging, small_batches_are_one_vector)
{
    enum { BATCHES = 50 };
    struct help_faults f = {.call = "pwritev", .left = -1};
    struct file_system fs = help_faulty(&f);
    struct log_options o = help_options(help_dir("vectors"));
    o.fs = &fs;
    struct log *l = help_open(&o);
    struct help_batch spec = HELP_BATCH;
    struct buf small = help_batch(&spec);
    spec.value_bytes = LARGE;
    struct buf large = help_batch(&spec);
    struct log_append a = append_of(&small);
    cr_assert_eq(log_stage(l, &a), KERR_NONE);
    cr_assert_eq(log_commit(l), 0); /* with the epoch file */
    f.count = 0;
    for (int i = 1; i < BATCHES; i++) {
        a = append_of(&small);
        cr_assert_eq(log_stage(l, &a), KERR_NONE);
    }
    cr_assert_eq(log_commit(l), 0);
    cr_assert_eq(f.count, 1);
    cr_assert_eq(f.vectors, 1);
    for (int i = 0; i < 6; i++) {
        a = append_of(i % 3 == 2 ? &large : &small);
        cr_assert_eq(log_stage(l, &a), KERR_NONE);
    }
    cr_assert_eq(log_commit(l), 0);
    cr_assert_eq(f.count, 2);
    cr_assert_eq(f.vectors, 4, "small small header, body, small small header, body");
    for (int i = 0; i < BATCHES + 6; i++)
        holds(l, i, i >= BATCHES && (i - BATCHES) % 3 == 2 ? &large : &small);
    buf_free(&small);
    buf_free(&large);
    log_abandon(l);
}

/* Any order of good, refused and doubled batches, with rolls and failed writes in between: what was acknowledged is
 * there, byte for byte, and nothing else. */
Test(staging, any_turn)
{
    enum { TURNS = 400, TURN = 12, ALL = TURNS * TURN };
    struct help_faults f = {.call = "pwritev", .left = -1, .error = -ENOSPC, .times = 1, .shorten = true};
    struct file_system fs = help_faulty(&f);
    struct log_options o = help_options(help_dir("turns"));
    o.fs = &fs;
    o.config.segment_bytes = 60000;
    o.pool = log_pool_new();
    struct log *l = help_open(&o);
    static struct buf kept[ALL];
    size_t count = 0;
    unsigned seed = 7;
    for (int turn = 0; turn < TURNS; turn++) {
        struct buf bytes[TURN];
        struct log_append a[TURN];
        bool staged[TURN] = {0};
        int n = 1 + rand_r(&seed) % TURN;
        if (rand_r(&seed) % 10 == 0) {
            f.left = rand_r(&seed) % 2;
            f.times = 1;
        }
        for (int i = 0; i < n; i++) {
            struct help_batch spec = HELP_BATCH;
            int kind = rand_r(&seed) % 10;
            spec.value_bytes = rand_r(&seed) % 4 ? (size_t)(rand_r(&seed) % 3000) : (size_t)(rand_r(&seed) % 30000);
            spec.count = 1 + rand_r(&seed) % 2;
            bytes[i] = help_batch(&spec);
            if (kind == 0)
                bytes[i].data[bytes[i].size - 1] ^= 1;
            if (kind == 1)
                bytes[i].data[BATCH_MAGIC] = 7;
            a[i] = append_of(&bytes[i]);
            enum kafka_error error = log_stage(l, &a[i]);
            cr_assert(error == (kind == 0   ? KERR_CORRUPT_MESSAGE
                                : kind == 1 ? KERR_INVALID_RECORD
                                            : KERR_NONE) ||
                      (kind > 1 && error == KERR_KAFKA_STORAGE_ERROR));
            staged[i] = error == KERR_NONE;
        }
        int err = log_commit(l);
        cr_assert(err == 0 || err == -ENOSPC);
        f.left = -1;
        for (int i = 0; i < n; i++) {
            if (staged[i] && log_append_written(l, &a[i]))
                kept[count++] = bytes[i];
            else
                buf_free(&bytes[i]);
        }
    }
    cr_assert_gt(count, ALL / 4);
    int64_t at = 0;
    for (size_t i = 0; i < count; i++) {
        holds(l, at, &kept[i]);
        at += get_i32(kept[i].data + BATCH_RECORD_COUNT);
        buf_free(&kept[i]);
    }
    cr_assert_eq(at, log_end(l));
    log_abandon(l);
    log_pool_free(o.pool);
}

/* ---- somebody who writes all the time ---- */

struct racer {
    uint8_t *bytes;
    size_t size;
    int stop;
};

static void *race(void *arg)
{
    struct racer *r = arg;
    unsigned seed = 1;
    while (!__atomic_load_n(&r->stop, __ATOMIC_RELAXED)) {
        size_t at = (size_t)rand_r(&seed) % r->size;
        if (rand_r(&seed) % 3 == 0)
            at %= BATCH_HEADER_SIZE;
        uint8_t was = r->bytes[at];
        __atomic_store_n(&r->bytes[at], (uint8_t)rand_r(&seed), __ATOMIC_RELAXED);
        __atomic_store_n(&r->bytes[at], was, __ATOMIC_RELAXED);
    }
    return NULL;
}

static void race_with(size_t value_bytes, int codec, bool compact)
{
    struct log_options o = help_options(help_dir("race"));
    o.config.cleanup_compact = compact;
    struct log *l = help_open(&o);
    struct help_batch spec = HELP_BATCH;
    spec.count = 40;
    spec.value_bytes = value_bytes;
    spec.codec = codec;
    struct buf bytes = help_batch(&spec), sent = help_batch(&spec);
    struct racer r = {bytes.data, bytes.size, 0};
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, race, &r), 0);
    int64_t end = 0;
    for (int i = 0; i < 500; i++) {
        struct log_append a = append_of(&bytes);
        enum kafka_error error = log_stage(l, &a);
        cr_assert_eq(log_commit(l), 0);
        free(a.record_errors);
        if (error == KERR_NONE)
            end = a.next_offset;
    }
    __atomic_store_n(&r.stop, 1, __ATOMIC_RELAXED);
    pthread_join(thread, NULL);
    cr_assert_eq(log_end(l), end);
    for (int64_t at = 0; at < end; at += 40) {
        struct batch b;
        struct buf got = help_read_batch(l, at, &b);
        cr_assert_eq(b.base_offset, at);
        cr_assert_eq(b.size, sent.size);
        cr_assert_eq(b.record_count, 40);
        cr_assert_eq(memcmp(got.data + BATCH_MAGIC, sent.data + BATCH_MAGIC, BATCH_HEADER_SIZE - BATCH_MAGIC), 0,
                     "a header is what was checked");
        if (sent.size <= STAGING_COPY_MAX || (codec != 0 && compact))
            cr_assert(batch_crc_holds(&b, buf_slice(&got)), "what was copied whole is what was checked");
        buf_free(&got);
    }
    buf_free(&bytes);
    buf_free(&sent);
    log_abandon(l);
}

Test(staging, a_peer_that_writes_all_the_time, .timeout = 60)
{
    race_with(10, COMPRESS_NONE, false);
    race_with(1000, COMPRESS_NONE, false);
    race_with(1000, COMPRESS_ZSTD, true);
    race_with(1000, COMPRESS_LZ4, true);
}
