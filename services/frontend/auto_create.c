/* auto_create.c - topics that create themselves when a client asks for them (Kafka's AutoTopicCreationManager): one
 * CreateTopics to the controller, in the background; the client was told to ask again. */
#include "services/frontend/server.h"

#include "libs/base/log.h"

#include "kafka/apis.h"
#include "kafka/create_topics.h"

#include <stdio.h>
#include <stdlib.h>
#include <uthash.h>

enum { CREATIONS_MAX = 1000, CREATE_TIMEOUT_MS = 30000, CONFIGS_MAX = 3 };

struct creation {
    struct frontend *frontend;
    UT_hash_handle hh;
    size_t name_size;
    char name[];
};

static void on_created(void *ctx, const struct bus_result *result)
{
    struct creation *c = ctx;
    struct frontend *f = c->frontend;

    if (result->outcome != KARST__BUS__OUTCOME__OUTCOME_OK)
        log_warn("the topic %s could not be created: no answer from the controller", c->name);
    HASH_DEL(f->creations, c);
    f->creation_count--;
    free(c);
}

void auto_create_free(struct frontend *f)
{
    while (f->creations != NULL) {
        struct creation *c = f->creations;
        HASH_DEL(f->creations, c);
        free(c);
    }
}

static void set_config(struct kafka_create_topics_request_creatable_topic *t, const char *name, const char *value)
{
    ASSERT(t->configs_count < CONFIGS_MAX);
    struct kafka_create_topics_request_creatable_topic_config *c = &t->configs[t->configs_count++];
    c->name = slice_str(name);
    c->value = slice_str(value);
}

/* What Kafka's coordinators ask for their own topics (GroupCoordinatorService, TransactionStateManager). */
static void describe(const struct config *c, struct kafka_create_topics_request_creatable_topic *t, char number[16])
{
    if (slice_eq_str(t->name, "__consumer_offsets")) {
        t->num_partitions = config_int(c, "offsets.topic.num.partitions");
        t->replication_factor = (int16_t)config_int(c, "offsets.topic.replication.factor");
        snprintf(number, 16, "%d", config_int(c, "offsets.topic.segment.bytes"));
        set_config(t, "cleanup.policy", "compact");
        set_config(t, "compression.type", "producer");
        set_config(t, "segment.bytes", number);
    } else if (slice_eq_str(t->name, "__transaction_state")) {
        t->num_partitions = config_int(c, "transaction.state.log.num.partitions");
        t->replication_factor = (int16_t)config_int(c, "transaction.state.log.replication.factor");
        snprintf(number, 16, "%d", config_int(c, "transaction.state.log.segment.bytes"));
        set_config(t, "cleanup.policy", "compact");
        set_config(t, "compression.type", "uncompressed");
        set_config(t, "segment.bytes", number);
    } else {
        t->num_partitions = config_int(c, "num.partitions");
        t->replication_factor = (int16_t)config_int(c, "default.replication.factor");
    }
}

void frontend_auto_create(struct frontend *f, struct slice topic)
{
    struct kafka_create_topics_request_creatable_topic_config configs[CONFIGS_MAX];
    struct kafka_create_topics_request_creatable_topic wanted;
    struct kafka_create_topics_request request;
    struct creation *c;
    char number[16];

    HASH_FIND(hh, f->creations, topic.data, topic.size, c);
    if (c != NULL || f->creation_count >= CREATIONS_MAX)
        return;
    c = xcalloc(1, sizeof *c + topic.size + 1);
    c->frontend = f;
    c->name_size = topic.size;
    memcpy(c->name, topic.data, topic.size);
    HASH_ADD_KEYPTR(hh, f->creations, c->name, c->name_size, c);
    f->creation_count++;
    kafka_create_topics_request_init(&request);
    kafka_create_topics_request_creatable_topic_init(&wanted);
    wanted.name = topic;
    wanted.configs = configs;
    wanted.configs_count = 0;
    describe(f->config, &wanted, number);
    request.topics = &wanted;
    request.topics_count = 1;
    request.timeout_ms = CREATE_TIMEOUT_MS;
    bus_call_kafka(f->bus, KARST__BUS__ROLE__ROLE_CONTROLLER, frontend_controller(f), KAFKA_API_CREATE_TOPICS,
                   wire_api(KAFKA_API_CREATE_TOPICS)->version_max, &request, NULL, CREATE_TIMEOUT_MS, on_created, c);
}
