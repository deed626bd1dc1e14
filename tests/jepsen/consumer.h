/* consumer.h - what readers by assign, members of a group and the last read share. */
#ifndef KARST_TESTS_CONSUMER_H
#define KARST_TESTS_CONSUMER_H

#include "tests/jepsen/jepsen.h"

/* One life of a consumer. Of one thread, which also runs librdkafka's callbacks. */
struct consumer {
    rd_kafka_t *rk;
    unsigned process;
    bool in_group;
    int64_t position[KEYS_MAX]; /* behind the last record of each key that it was given; -1: none */
    char *rebalances;           /* since the last poll, as JSON; NULL: none */
    uint64_t random;
};

/* The end of each key as far as anybody has seen; and as far as the group has been given records. */
extern atomic_llong known_end[KEYS_MAX], group_end[KEYS_MAX];
void raise_to(atomic_llong *end, int64_t offset);

/* Options that all consumers have; a new instance of c->process, which has been given nothing. */
rd_kafka_conf_t *consumer_conf(const char *group);
void consumer_begin(struct consumer *c, rd_kafka_conf_t *conf);

/* Polls once: the first record within wait_ms, then what is there already. Writes the operation and moves the
 * positions. Returns the number of records. */
unsigned poll_once(struct consumer *c, int wait_ms);

/* Whether each key was read to its end. */
bool is_at_ends(const int64_t *at, const int64_t *ends);
/* Completes the operation f, which was to bring that about: ok, or fail and the keys that are not. */
void complete_reading(unsigned process, uint64_t op, const char *f, const int64_t *at, const int64_t *ends);

/* As [key,...], or [[key,offset],...] with -1 for none. */
void write_partitions(struct line *l, const rd_kafka_topic_partition_list_t *list, bool with_offsets);

#endif
