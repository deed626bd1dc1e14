/* client.h - instances of librdkafka as karst-load wants them, and readers that each read a whole topic on a thread of
 * their own. */
#ifndef KARST_BENCH_CLIENT_H
#define KARST_BENCH_CLIENT_H

#include <librdkafka/rdkafka.h>

#include "tests/bench/load/load.h"

/* A new instance with its topic. Wrong options end the process with status 64: they are ours or the user's, not the
 * server's. */
rd_kafka_t *client_new(const struct load_options *o, rd_kafka_type_t type, rd_kafka_topic_t **ret_topic);

struct readers;

/* Starts o->consumers readers at the present end of each partition, or at the beginning. NULL, with an error noted,
 * when the ends are not to be had. */
struct readers *readers_start(const struct load_options *o, bool at_end, struct load_result *r);

/* Waits until each reader has `records` records (at_end), or stands at the end of all partitions, or nothing has come
 * for `patience_s`, which is an error unless everything has come. Fills what r says about consuming, and frees. */
void readers_finish(struct readers *rs, uint64_t records, double patience_s, struct load_result *r);

#endif
