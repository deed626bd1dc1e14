/* harness.h - a group core on a topic in memory: what it appends is kept, committed at once or when the test says so,
 * and can be loaded into another core. Answers are kept by request until the test takes them. */
#ifndef KARST_TESTS_UNIT_GROUPS_HARNESS_H
#define KARST_TESTS_UNIT_GROUPS_HARNESS_H

#include "kafka/apis.h"
#include "kafka/delete_groups.h"
#include "kafka/describe_groups.h"
#include "kafka/heartbeat.h"
#include "kafka/join_group.h"
#include "kafka/leave_group.h"
#include "kafka/list_groups.h"
#include "kafka/offset_commit.h"
#include "kafka/offset_delete.h"
#include "kafka/offset_fetch.h"
#include "kafka/sync_group.h"
#include "libs/base/kafka_error.h"
#include "libs/groups/groups.h"

enum { HARNESS_PARTITIONS = 2, HARNESS_REQUESTS = 400000 };

struct logged {
    struct slice key, value; /* malloc'ed */
    int64_t producer_id;
    bool transactional, control;
};

struct partition_log {
    struct logged *records;
    size_t count, capacity;
};

struct harness {
    struct groups *core;
    struct groups_config config;
    struct groups_now now;
    uint64_t random;
    struct arena *arena; /* of answers */
    struct partition_log logs[HARNESS_PARTITIONS];
    const void **answers; /* by request id; NULL: none yet */
    uint64_t requests;
    size_t answered;
    bool hold_appends; /* the test ends them with harness_end_append */
    struct {
        bool under_way;
        int32_t partition;
        uint64_t append;
        struct partition_log records;
    } held;
    bool fail_appends;
    int loads;
    bool no_topics; /* "t" is gone */
    struct uuid topic_id;
};

void harness_open(struct harness *h);
void harness_close(struct harness *h);
void harness_event(struct harness *h, const struct groups_event *e);
/* Time goes on by so much, timers fire in order. */
void harness_pass(struct harness *h, uint64_t ms);
/* Ends the append that was held back. */
void harness_end_append(struct harness *h, enum kafka_error error);
void harness_restart(struct harness *h); /* a new core that loads the log */
void harness_put(struct harness *h, int32_t partition, struct slice key, struct slice value, int64_t producer_id,
                 bool transactional, bool control);

uint64_t harness_ask(struct harness *h, int16_t api, int16_t version, const void *message);
const void *harness_answer(struct harness *h, uint64_t request); /* NULL: not yet */

/* ---- requests in one line; -1000 as an error: no answer yet ---- */

struct join_options {
    const char *group, *member, *instance, *protocols, *metadata, *type; /* protocols: "range,roundrobin" */
    int16_t version;
    int32_t session_ms, rebalance_ms;
};
uint64_t ask_join(struct harness *h, struct join_options o);
const struct kafka_join_group_response *joined(struct harness *h, uint64_t request);
/* Joins in the two steps of version 4+ and gives the member id (in h->arena) with the second, parked request. */
const char *join_member(struct harness *h, struct join_options o, uint64_t *ret_request);
uint64_t ask_sync(struct harness *h, const char *group, int32_t generation, const char *member,
                  const char *const *assignments);
const struct kafka_sync_group_response *synced(struct harness *h, uint64_t request);
int heartbeat(struct harness *h, const char *group, int32_t generation, const char *member, const char *instance);
int leave(struct harness *h, int16_t version, const char *group, const char *member, const char *instance);
int commit(struct harness *h, int16_t version, const char *group, int32_t generation, const char *member,
           const char *topic, int32_t partition, int64_t offset, const char *metadata);
int64_t committed(struct harness *h, const char *group, const char *topic, int32_t partition);
int delete_group(struct harness *h, const char *group);
int delete_offset(struct harness *h, const char *group, const char *topic, int32_t partition, int *ret_partition_error);
const struct kafka_describe_groups_response_described_group *describe(struct harness *h, int16_t version,
                                                                      const char *group);
const char *state_of(struct harness *h, const char *group);
int32_t list(struct harness *h, const char *state, const char *type);

/* A stable group of two dynamic members "range" of type consumer. */
struct pair {
    const char *leader, *follower;
    int32_t generation;
};
struct pair stable_pair(struct harness *h, const char *group);

#endif
