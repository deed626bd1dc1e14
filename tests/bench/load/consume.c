/* consume.c - readers: each has an instance, a queue that all partitions feed, and a thread. No group: offsets are
 * given.
 *
 * Records that karst-load produced for readers begin with the time they were due (µs, this machine's monotonic clock),
 * so the time of arrival is measured in an open loop, too. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "libs/base/bytes.h"
#include "tests/bench/load/client.h"

#define READ_AT_ONCE 1000
#define POLL_MS      50
#define QUERY_MS     10000

struct reader {
    pthread_t thread;
    const struct readers *all;
    rd_kafka_t *rk;
    rd_kafka_topic_t *topic;
    rd_kafka_queue_t *queue;
    _Atomic uint64_t records, ends; /* ends: partitions whose end was reached, counted once each */
    uint64_t bytes, errors, last_us;
    rd_kafka_resp_err_t error;
    bool *ended; /* a partition */
    struct hist arrived;
};

struct readers {
    const struct load_options *options;
    bool stamped;
    uint64_t count, start_us;
    atomic_bool stop;
    struct reader *readers;
};

static void take(struct reader *rd, const rd_kafka_message_t *m, uint64_t now_us)
{
    if (m->err == RD_KAFKA_RESP_ERR__PARTITION_EOF) {
        if ((uint64_t)m->partition < rd->all->options->partitions && !rd->ended[m->partition]) {
            rd->ended[m->partition] = true;
            rd->ends++;
            rd->last_us = now_us;
        }
        return;
    }
    if (m->err != RD_KAFKA_RESP_ERR_NO_ERROR) {
        rd->error = m->err;
        rd->errors++;
        return;
    }
    if (rd->all->stamped && m->len >= LOAD_STAMP_BYTES) {
        uint64_t due_us = get_u64(m->payload);
        hist_note(&rd->arrived, now_us > due_us ? now_us - due_us : 0);
    }
    rd->bytes += m->len;
    rd->records++;
    rd->last_us = now_us;
}

static void *reader_main(void *argument)
{
    struct reader *rd = argument;
    rd_kafka_message_t *messages[READ_AT_ONCE];
    while (!rd->all->stop) {
        ssize_t n = rd_kafka_consume_batch_queue(rd->queue, POLL_MS, messages, READ_AT_ONCE);
        uint64_t now_us = load_now_us();
        for (ssize_t i = 0; i < n; i++) {
            take(rd, messages[i], now_us);
            rd_kafka_message_destroy(messages[i]);
        }
    }
    return NULL;
}

/* The present ends, asked once for all readers; -1 when one is not to be had. */
static int find_ends(const struct load_options *o, int64_t *ends, struct load_result *r)
{
    rd_kafka_topic_t *topic;
    rd_kafka_t *rk = client_new(o, RD_KAFKA_CONSUMER, &topic);
    rd_kafka_resp_err_t err = RD_KAFKA_RESP_ERR_NO_ERROR;
    for (uint64_t p = 0; p < o->partitions && err == RD_KAFKA_RESP_ERR_NO_ERROR; p++) {
        int64_t low;
        err = rd_kafka_query_watermark_offsets(rk, o->topic, (int32_t)p, &low, &ends[p], QUERY_MS);
        if (err != RD_KAFKA_RESP_ERR_NO_ERROR)
            load_fail(r, "end of partition %lu: %s", p, rd_kafka_err2str(err));
    }
    rd_kafka_topic_destroy(topic);
    rd_kafka_destroy(rk);
    return err == RD_KAFKA_RESP_ERR_NO_ERROR ? 0 : -1;
}

static void reader_start(struct reader *rd, const struct readers *all, const int64_t *ends)
{
    rd->all = all;
    rd->rk = client_new(all->options, RD_KAFKA_CONSUMER, &rd->topic);
    rd->queue = rd_kafka_queue_new(rd->rk);
    rd->ended = xcalloc(all->options->partitions, 1);
    rd->last_us = load_now_us();
    for (uint64_t p = 0; p < all->options->partitions; p++) {
        int64_t from = ends == NULL ? RD_KAFKA_OFFSET_BEGINNING : ends[p];
        if (rd_kafka_consume_start_queue(rd->topic, (int32_t)p, from, rd->queue) != 0)
            rd->error = rd_kafka_last_error(), rd->errors++;
    }
    if (pthread_create(&rd->thread, NULL, reader_main, rd) != 0)
        BUG("no thread");
}

struct readers *readers_start(const struct load_options *o, bool at_end, struct load_result *r)
{
    int64_t *ends = at_end ? xcalloc(o->partitions, sizeof *ends) : NULL;
    if (at_end && find_ends(o, ends, r) != 0) {
        free(ends);
        return NULL;
    }
    struct readers *rs = xcalloc(1, sizeof *rs);
    rs->options = o;
    rs->stamped = at_end;
    rs->count = o->consumers;
    rs->start_us = load_now_us();
    rs->readers = xcalloc(rs->count, sizeof *rs->readers);
    for (uint64_t i = 0; i < rs->count; i++)
        reader_start(&rs->readers[i], rs, ends);
    free(ends);
    return rs;
}

/* All have what they wait for; *ret_progress grows with everything that comes. */
static bool complete(struct readers *rs, uint64_t records, uint64_t *ret_progress)
{
    bool all = true;
    uint64_t progress = 0;
    for (uint64_t i = 0; i < rs->count; i++) {
        struct reader *rd = &rs->readers[i];
        progress += rd->records + rd->ends;
        if (records > 0 ? rd->records < records : rd->ends < rs->options->partitions)
            all = false;
    }
    *ret_progress = progress;
    return all;
}

static void collect(struct readers *rs, struct load_result *r)
{
    uint64_t last_us = rs->start_us;
    for (uint64_t i = 0; i < rs->count; i++) {
        struct reader *rd = &rs->readers[i];
        pthread_join(rd->thread, NULL);
        r->consumed += rd->records;
        r->consumed_bytes += rd->bytes;
        hist_add(&r->arrived, &rd->arrived);
        last_us = MAX(last_us, rd->last_us);
        for (uint64_t e = 0; e < rd->errors; e++)
            load_fail(r, "reading: %s", rd_kafka_err2str(rd->error));
        free(rd->ended); /* the instance stays: nothing is closed in a hurry, the process ends soon */
    }
    r->consume_seconds = (double)(last_us - rs->start_us) / 1e6;
}

void readers_finish(struct readers *rs, uint64_t records, double patience_s, struct load_result *r)
{
    uint64_t before = 0, progress, moved_us = load_now_us();
    bool all;
    while (!(all = complete(rs, records, &progress))) {
        uint64_t now_us = load_now_us();
        if (progress != before)
            before = progress, moved_us = now_us;
        else if (now_us - moved_us > (uint64_t)(patience_s * 1e6))
            break;
        load_sleep_until(now_us + 2000);
    }
    rs->stop = true;
    collect(rs, r);
    if (!all)
        load_fail(r, "readers got %lu records, and then nothing for %g s", r->consumed, patience_s);
    free(rs->readers);
    free(rs);
}

void consume_run(const struct load_options *o, struct load_result *r)
{
    struct readers *rs = readers_start(o, false, r);
    readers_finish(rs, o->records, o->lag_s, r);
    r->seconds = r->consume_seconds;
}
