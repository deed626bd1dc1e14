/* metawatch_internal.h - what metawatch.c (who has seen what) and metawatch_rules.c (what an image may say) share. */
#ifndef KARST_TESTS_SIM_METAWATCH_INTERNAL_H
#define KARST_TESTS_SIM_METAWATCH_INTERNAL_H

#include <uthash.h>

#include "libs/metadata/image.h"
#include "tests/sim/metawatch.h"

enum { WATCHED_MAX = 32, BROKERS_MAX = 16 };

/* A program, over its lives. */
struct watched {
    const char *name;
    bool is_up;
    int64_t offset; /* in this life; -1 */
    uint64_t hash;  /* of the image there */
};

struct topic_seen {
    uint8_t id[16];
    struct seen_topic topic;
    uint64_t sweep;
    UT_hash_handle hh, by_name;
};

struct partition_key {
    uint8_t topic_id[16];
    int32_t partition;
    int32_t epoch; /* of the leader, or 0 */
};

struct partition_seen {
    struct partition_key key;
    struct seen_partition partition;
    int32_t partition_epoch;
    uint64_t content;
    bool could_be_led;
    UT_hash_handle hh;
};

struct leader_seen {
    struct partition_key key;
    int32_t leader;
    UT_hash_handle hh;
};

struct owner_seen {
    struct partition_key key;
    struct image_owner owner;
    UT_hash_handle hh;
};

struct decider {
    int32_t epoch;
    const char *name;
};

struct metawatch {
    struct sim *sim;
    struct watched watched[WATCHED_MAX];
    int watched_count;
    uint64_t *hashes; /* by offset; 0: nobody published there */
    int64_t hash_room;
    int64_t offset;    /* the newest that was seen */
    int64_t committed; /* the end of what a leader has committed */
    uint64_t moved_ms, moving_since_ms;
    struct decider *deciders;
    size_t decider_count;
    struct topic_seen *topics, *topic_names;
    struct partition_seen *partitions;
    struct leader_seen *leaders;
    struct owner_seen *owners;
    struct seen_broker brokers[BROKERS_MAX];
    struct uuid incarnations[BROKERS_MAX];
    int64_t next_producer_id;
    int voters;
    uint64_t sweep;
};

/* The newest image of all, and the one before it as this program has it (NULL: another program's was newer). Runs as
 * the process whose images they are. */
void metawatch_rules(struct metawatch *w, const struct image *before, const struct image *now);
void metawatch_rules_free(struct metawatch *w);

void __real_image_diff(const struct image *old, const struct image *newer, const struct image_diff *diff);

#endif
