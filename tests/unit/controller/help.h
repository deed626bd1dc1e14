/* help.h - a controller core with a log in memory. */
#ifndef KARST_TESTS_UNIT_CONTROLLER_HELP_H
#define KARST_TESTS_UNIT_CONTROLLER_HELP_H

#include <criterion/criterion.h>

#include "kafka/create_topics.h"
#include "libs/base/arena.h"
#include "libs/controller/controller.h"

enum { STORAGE = 2, FRONTEND = 3, GROUP = 4, TXN = 5 };

struct help {
    struct config *config;
    struct controller *c;
    struct arena *arena;
    struct buf log;      /* every batch that was taken */
    struct slice rack;   /* of those who register from here on */
    int16_t bus_version; /* of theirs, too */
    const char *host;    /* of the next registration; NULL: "h" */
    uint64_t now_ms;
};

void help_open(struct help *h);
void help_close(struct help *h);
/* Takes the waiting records; the number of them. */
int64_t help_take(struct help *h);
/* The image that a follower makes of the log. */
struct image *help_replay(const struct help *h);
int64_t help_register(struct help *h, int32_t role, int32_t id, uint64_t incarnation, int64_t previous_epoch);
struct controller_heartbeat_answer help_beat(struct help *h, int32_t role, int32_t id, uint64_t incarnation,
                                             int64_t epoch, bool want_shutdown);
/* A heartbeat at the newest offset, which must be taken: the number of records that it leaves. */
int64_t help_heartbeat(struct help *h, struct controller_heartbeat beat, struct controller_heartbeat_answer *ret);
/* Registers and unfences a storage node: its epoch. */
int64_t help_storage(struct help *h, int32_t id, uint64_t incarnation, int64_t previous_epoch);
/* The result for one topic; its records are taken. */
const struct kafka_create_topics_response_creatable_topic_result *help_create(struct help *h, const char *name,
                                                                              int32_t partitions, int16_t replicas);
/* A topic of one partition on these brokers ("1:2:3"), with one override unless key is NULL. */
void help_create_at(struct help *h, const char *name, const char *brokers, const char *key, const char *value);
/* AlterPartition of partition 0 by its leader, in the epochs of the image: the code. */
enum kafka_error help_alter_isr(struct help *h, const char *topic, const char *isr, int8_t recovery);
/* What partition 0 is: "leader 1 epoch 0 isr 1,2 elr - known - state 0", replicas and moves left out. */
void help_expect(const struct help *h, const char *topic, const char *text);
/* The same of its replicas: "1,2 adding - removing -". */
void help_expect_replicas(const struct help *h, const char *topic, const char *text);
/* UpdateFeatures up or down; error: the text that refuses it, or NULL. */
void help_finalize(struct help *h, const char *feature, int16_t level, const char *error);
/* IncrementalAlterConfigs of one key of a broker ("": of all); value NULL: it is taken away. The code. */
enum kafka_error help_alter_broker(struct help *h, const char *broker, const char *key, const char *value,
                                   const char **ret_message);
const struct image_partition *help_partition(const struct help *h, const char *topic, int32_t partition);

#endif
