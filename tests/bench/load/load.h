/* load.h - what the modes of karst-load share: options, the clock, payloads, the schedule of an open loop, the result.
 *
 * Open loop: record i is due at a time that the rate alone decides; its latency runs from there, even when the client
 * was late in sending it. So a server that stalls is charged for all that should have been sent meanwhile.
 * Threading: options and payload are read-only once made; the rest belongs to one thread. */
#ifndef KARST_BENCH_LOAD_H
#define KARST_BENCH_LOAD_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "libs/base/base.h"
#include "tests/bench/load/hist.h"

#define LOAD_STAMP_BYTES     16 /* smallest record: it has room for the time it was due */
#define LOAD_RECORD_MAX      (8 << 20)
#define LOAD_PRODUCERS_MAX   2000
#define LOAD_CONSUMERS_MAX   64
#define LOAD_PARTITIONS_MAX  10000
#define LOAD_THREADS_MAX     8
#define LOAD_CONNECTIONS_MAX 19000
#define LOAD_DEPTH_MAX       1024

enum load_mode { LOAD_PRODUCE, LOAD_CONSUME, LOAD_WIRE, LOAD_FETCH, LOAD_IDLE };

struct load_options {
    enum load_mode mode;
    const char *bootstrap, *topic, *codec, *acks, *set[16];
    uint64_t size, records, keys, producers, consumers, threads, partitions, connections, depth, batch_records,
        fetch_bytes, set_count;
    double seconds, rate, linger_ms, lag_s;
    bool compressible, from_end;
};

/* One JSON line on stdout is made of this. Latencies: of the acknowledgement; of the way to a consumer. */
struct load_result {
    uint64_t records, bytes, errors, consumed, consumed_bytes;
    double seconds, consume_seconds;
    struct hist acked, arrived;
    char error[200]; /* the first one */
};

static inline uint64_t load_now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

void load_sleep_until(uint64_t us); /* of load_now_us's clock */

/* When records are due. Rates above 10,000/s a schedule are due in bursts, one each 100 µs, so that a sender need not
 * spin. Rate 0: everything is due as soon as it can be sent. */
struct schedule {
    uint64_t start_us, end_us; /* nothing is due from end_us on */
    uint64_t give_up_us;       /* what was due and could not be sent until then is left out: twice the time */
    uint64_t limit;            /* records at most */
    double interval_us;        /* between bursts; 0 with rate 0 */
    double per_burst;
    uint64_t given;
};

void schedule_begin(struct schedule *s, uint64_t start_us, double seconds, double rate, uint64_t limit);

/* True: a record is due now (at *ret_due_us, not after now_us). False: the next one is due at *ret_due_us, or never
 * (UINT64_MAX). */
bool schedule_next(struct schedule *s, uint64_t now_us, uint64_t *ret_due_us);
void schedule_take(struct schedule *s); /* the record that schedule_next named was sent */

/* Bytes to cut records from: 8 MiB that repeat far later than the window of any codec. Never freed. */
const uint8_t *payload_make(bool compressible, uint64_t size);
const uint8_t *payload_at(const uint8_t *payload, uint64_t size, uint64_t index);

void load_fail(struct load_result *r, const char *format, ...)
    PRINTF_LIKE(2, 3); /* counts an error and keeps the first text */

/* Each mode fills the result; errors are in it. */
void produce_run(const struct load_options *o, struct load_result *r); /* with o->consumers readers at the tail */
void consume_run(const struct load_options *o,
                 struct load_result *r); /* to the end that the topic has when it gets there */
void wire_run(const struct load_options *o, struct load_result *r);
void fetch_run(const struct load_options *o, struct load_result *r);
void idle_run(const struct load_options *o, struct load_result *r);

#endif
