/* jepsen.h - what the parts of karst-jepsen share: options, keys, values, the history, instances of librdkafka.
 *
 * A key is a partition: number topic * partitions + partition. A value is a number that no other record of its key has.
 * A process is one life of one producer or consumer; a new life has a new number.
 *
 * The history has one JSON object a line:
 *   {"time":T,"process":P,"op":N,"type":"invoke","f":F,"value":V}     T: ns of the monotonic clock
 *   {"time":T,"process":P,"op":N,"type":"ok"|"fail"|"info","f":F,"value":V,"error":E}
 * with the same N in both lines of an operation. A process that sends or commits has several under way at a time.
 *
 *   f          value of the invocation   of the completion
 *   send       [[key,value],...]         [[key,value,offset],...]: acknowledged, at -1: the server did not say where;
 *                                        [key,value,null,"fail"]: certainly not written; [...,"info"]: nobody knows
 *   assign     [[key,offset],...]        the same: the consumer reads these keys, from these offsets on
 *   subscribe  group                     the same
 *   poll       null                      [[key,[[offset,value],...]],...]; and beside "value", where keys came or went,
 *                                        "rebalances":[["given"|"taken"|"lost",[key,...]],...]
 *   committed  [key,...]                 [[key,offset],...]: what the group's coordinator said; -1: nothing
 *   commit     [[key,offset],...]        the same
 *   drain      null                      keys that a group did not read to the end in time (ok: none)
 *   final      null                      keys that the last reader did not read to the end in time (ok: none)
 *
 * Lines with type "info" and f "keys", "client", "fatal" and "log" say what there is, and what librdkafka said.
 *
 * Threading: options are read-only once parsed; the history and the marks may be used by every thread. */
#ifndef KARST_TESTS_JEPSEN_H
#define KARST_TESTS_JEPSEN_H

#include <librdkafka/rdkafka.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

#include "libs/base/base.h"

#define KEYS_MAX    64
#define TOPICS_MAX  16
#define SENDS_MAX   4 /* values an operation */
#define TEXT_MAX    240
#define VALUE_BYTES 4096

struct jepsen_options {
    const char *bootstrap, *history, *topics[TOPICS_MAX], *set[16];
    uint64_t topic_count, partitions, producers, readers, members, in_flight, message_ms, seed, set_count;
    double rate, life_s, commit_ms, final_s;
};

extern struct jepsen_options options;
extern atomic_bool stopping;  /* no new values; the groups still read */
extern atomic_bool drained;   /* the groups may stop, too */
extern atomic_uint processes; /* the number of the next life */

static inline unsigned keys(void)
{
    return (unsigned)(options.topic_count * options.partitions);
}
static inline const char *topic_of(unsigned key)
{
    return options.topics[key / options.partitions];
}
static inline int32_t partition_of(unsigned key)
{
    return (int32_t)(key % options.partitions);
}
unsigned key_of(const char *topic, int32_t partition); /* KEYS_MAX: none of ours */

static inline uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* splitmix64; one state a thread. */
uint64_t random_next(uint64_t *state);
static inline uint64_t random_below(uint64_t *state, uint64_t n)
{
    return random_next(state) % n;
}

/* The bytes of a record; some hundred to VALUE_BYTES of them, which the key and the number alone decide. */
size_t value_write(unsigned key, uint64_t number, char *bytes);
/* The number in bytes, or -1 when they are not, to the last one, those of a value of this key. */
int64_t value_read(unsigned key, const void *bytes, size_t size);

/* A line under construction. */
struct line {
    char *text;
    size_t size;
    FILE *out;
};

/* Begins {"time":...,"process":...,"op":...,"type":...,"f":...,"value": of an operation; op 0: without one. */
void line_begin(struct line *l, unsigned process, uint64_t op, const char *type, const char *f, uint64_t time_ns);
/* The whole line that invokes an operation whose value is null; returns its number. */
uint64_t invoke(unsigned process, const char *f);
void line_error(struct line *l, const char *text); /* after the value: ,"error":"..." */
void line_end(struct line *l);                     /* writes it to the history, whole, and frees it */
uint64_t next_op(void);                            /* from 1 on */
void history_open(void);
void history_flush(void);
void history_close(void);

/* What the harness asks for while it runs: when something of each key last got through. */
struct marks {
    atomic_ullong acked_ns, delivered_ns; /* delivered: to members of groups */
};
extern struct marks marks[KEYS_MAX];

/* A new instance that belongs to process; its errors go to the history. Wrong options end the program with status 64.
 */
rd_kafka_t *client_new(unsigned process, rd_kafka_type_t type, rd_kafka_conf_t *conf);
rd_kafka_conf_t *conf_new(void);
void conf_set(rd_kafka_conf_t *conf, const char *key, const char *value);
void conf_set_number(rd_kafka_conf_t *conf, const char *key, double value);

/* Threads; each takes its number as seed. They end when `stopping` (groups: `drained`) is set. */
void *producer_run(void *number);
void *reader_run(void *number); /* by assign */
void *member_run(void *number); /* by subscribe, all in one group */

/* Ends of all keys as the server has them; INT64_MAX, which nobody reaches, of those that are not to be had in time. */
void ends_of_keys(rd_kafka_t *rk, int64_t *ret_ends, uint64_t deadline_ns);
void group_drain(
    void); /* after the producers' end: until the members have read everything, or options.final_s are over */
void final_read(void); /* one new consumer reads everything from the beginning, for as long */

#endif
