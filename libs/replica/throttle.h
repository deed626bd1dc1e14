/* throttle.h - how many bytes a second went through lately, as Kafka's replication quotas count them: over the last
 * eleven windows of a second, and never over less than ten. So ten seconds' worth may go at once.
 *
 * Times are monotonic ms. Threading: the owner's thread only. */
#ifndef KARST_REPLICA_THROTTLE_H
#define KARST_REPLICA_THROTTLE_H

#include "libs/base/slice.h"

enum { THROTTLE_WINDOWS = 11, THROTTLE_WINDOW_MS = 1000 };

/* Zeroed: nothing went through. */
struct throttle {
    uint64_t window[THROTTLE_WINDOWS]; /* the number of each: time over THROTTLE_WINDOW_MS */
    uint64_t bytes[THROTTLE_WINDOWS];
};

void throttle_record(struct throttle *t, uint64_t now_ms, uint64_t bytes);
/* Did more go through than bytes_per_second allow? */
bool throttle_exceeded(const struct throttle *t, uint64_t now_ms, int64_t bytes_per_second);

/* When bytes may count no more: the end of the window. */
uint64_t throttle_next_ms(uint64_t now_ms);

/* Does a list "PARTITION:BROKER,..." or "*" name the replica? */
bool throttle_names(struct slice list, int32_t partition, int32_t broker);

#endif
