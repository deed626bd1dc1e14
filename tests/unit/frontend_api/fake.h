/* fake.h - a front end without sockets, bus and loop, for the handlers' tests: what they answer is encoded at the
 * version asked for and decoded again, what they ask other services is kept until the test answers it. */
#ifndef KARST_TESTS_FRONTEND_API_FAKE_H
#define KARST_TESTS_FRONTEND_API_FAKE_H

#include "services/frontend/api_common.h"

struct fake_call {
    Karst__Bus__Role role;
    int32_t id;
    int16_t api_key, version;
    const void *message;
    uint32_t timeout_ms;
    request_call_fn *done;
    void *ctx;
};

enum { FAKE_CALLS_MAX = 16 };

struct fake {
    struct request r;
    struct image *image;
    struct config *config;
    struct fake_call calls[FAKE_CALLS_MAX];
    size_t call_count;
    int replies;
    const void *response; /* of the last reply, decoded; lives in r.arena */
    char created[64];     /* the topic of the last frontend_auto_create */
};

/* Two brokers 1 and 2; topic "a" of 3 partitions, led by 1, 2 and nobody; "b" of 1, led by 1, with retention.ms 5;
 * __consumer_offsets of 2 partitions, led by 1 and 2, owned by group services 11 and 12; txn service 21. */
void fake_open(struct fake *f);
void fake_close(struct fake *f);

extern const struct uuid FAKE_TOPIC_A, FAKE_TOPIC_B;
extern bool fake_moved; /* each coordinator's broker has moved: the other one is named */

/* A group id on that partition of __consumer_offsets. */
const char *fake_group_on(int32_t partition);

extern const struct api_handler api_delete_groups, api_delete_topics, api_describe_configs, api_describe_groups,
    api_describe_topic_partitions, api_find_coordinator, api_incremental_alter_configs, api_init_producer_id,
    api_join_group, api_leave_group, api_list_groups, api_list_offsets, api_offset_commit, api_offset_delete,
    api_offset_fetch;

/* Runs the handler on a request of that version, as a client on a connection that stands for broker 1. */
void fake_ask(struct fake *f, const struct api_handler *handler, int16_t version, const void *body);
/* Ends call i. */
void fake_answer(struct fake *f, size_t i, enum kafka_error error, void *response);

#endif
