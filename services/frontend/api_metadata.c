/* api_metadata.c - Metadata 0-13: brokers, topics, partitions out of the image, and topics that create themselves
 * (defaults.md, "Metadata and topics"). */
#include "services/frontend/api_common.h"

#include "kafka/apis.h"
#include "kafka/metadata.h"
#include "libs/config/config.h"

#include <uthash.h>

typedef struct kafka_metadata_request metadata_request;
typedef struct kafka_metadata_response metadata_response;
typedef struct kafka_metadata_response_metadata_response_topic topic_response;
typedef struct kafka_metadata_response_metadata_response_partition partition_response;

/* ---- partitions ---- */

struct live {
    const struct request *r;
    int32_t last_id; /* of the last look-up: partitions of a topic ask about the same few brokers */
    bool last;
};

static bool is_live(struct live *l, int32_t broker)
{
    if (l->last_id != broker) {
        l->last = image_broker_is_active(l->r->image, broker);
        l->last_id = broker;
    }
    return l->last;
}

/* Those of ids that are alive. */
static int32_t *pick(const struct request *r, struct live *l, const int32_t *ids, int32_t count, int32_t *ret_count)
{
    int32_t *out = arena_alloc(r->arena, (size_t)count * sizeof *out), n = 0;

    for (int32_t i = 0; i < count; i++)
        if (is_live(l, ids[i]))
            out[n++] = ids[i];
    *ret_count = n;
    return out;
}

/* Those whose broker is not alive, or has lost the directory that they are in. */
static int32_t *pick_offline(const struct request *r, struct live *l, const struct image_partition *p,
                             int32_t *ret_count)
{
    int32_t *out = arena_alloc(r->arena, (size_t)p->replica_count * sizeof *out), n = 0;

    for (int32_t i = 0; i < p->replica_count; i++)
        if (!is_live(l, p->replicas[i]) ||
            !image_dir_is_online(image_broker(r->image, p->replicas[i]), p->directories[i]))
            out[n++] = p->replicas[i];
    *ret_count = n;
    return out;
}

static void fill_partition(const struct request *r, struct live *l, const struct image_partition *p,
                           partition_response *out)
{
    out->partition_index = p->partition;
    out->leader_id = p->leader;
    out->leader_epoch = p->leader_epoch;
    out->replica_nodes = (int32_t *)(uintptr_t)p->replicas;
    out->replica_nodes_count = p->replica_count;
    out->isr_nodes = (int32_t *)(uintptr_t)p->isr;
    out->isr_nodes_count = p->isr_count;
    out->offline_replicas = pick_offline(r, l, p, &out->offline_replicas_count);
    out->error_code = KERR_NONE;
    if (p->leader < 0 || !is_live(l, p->leader)) {
        out->leader_id = -1;
        out->error_code = KERR_LEADER_NOT_AVAILABLE;
    }
    if (r->version > 0)
        return;
    /* Version 0 has no OfflineReplicas: replicas that are not alive are left out, which is an error of its own. */
    out->replica_nodes = pick(r, l, p->replicas, p->replica_count, &out->replica_nodes_count);
    out->isr_nodes = pick(r, l, p->isr, p->isr_count, &out->isr_nodes_count);
    if (out->error_code == KERR_NONE &&
        out->replica_nodes_count + out->isr_nodes_count < p->replica_count + p->isr_count)
        out->error_code = KERR_REPLICA_NOT_AVAILABLE;
}

/* ---- topics ---- */

static void fill_topic(const struct request *r, const struct image_topic *t, topic_response *out)
{
    const metadata_request *q = r->body;
    struct live live = {.r = r, .last_id = -1};

    kafka_metadata_response_metadata_response_topic_init(out);
    out->name = t->name;
    out->topic_id = t->id;
    out->is_internal = api_topic_is_internal(t->name);
    if (q->include_topic_authorized_operations)
        out->topic_authorized_operations = API_OPERATIONS_TOPIC;
    out->partitions = arena_calloc(r->arena, (size_t)t->partition_count, sizeof *out->partitions);
    for (int32_t i = 0; i < t->partition_count; i++) {
        const struct image_partition *p = image_partition(t, i);
        if (p != NULL)
            fill_partition(r, &live, p, &out->partitions[out->partitions_count++]);
    }
}

static void fill_error(topic_response *out, struct slice name, struct uuid id, enum kafka_error error)
{
    kafka_metadata_response_metadata_response_topic_init(out);
    out->name = name;
    out->topic_id = id;
    out->error_code = (int16_t)error;
}

static void fill_missing(struct request *r, struct slice name, topic_response *out)
{
    const metadata_request *q = r->body;

    if (api_topic_name_problem(r, name) != NULL) {
        fill_error(out, name, UUID_ZERO, KERR_INVALID_TOPIC_EXCEPTION);
        return;
    }
    fill_error(out, name, UUID_ZERO, KERR_UNKNOWN_TOPIC_OR_PARTITION);
    out->is_internal = api_topic_is_internal(name);
    /* Before version 4 the field is absent and has its default: true. */
    if (q->allow_auto_topic_creation && config_bool(frontend_config(r->frontend), "auto.create.topics.enable"))
        frontend_auto_create(r->frontend, name);
}

struct seen {
    UT_hash_handle hh;
};

/* Each topic is answered once, however often it is asked for. */
static bool is_new(const struct request *r, struct seen **table, const void *key, size_t size)
{
    struct seen *s;

    HASH_FIND(hh, *table, key, size, s);
    if (s != NULL)
        return false;
    s = arena_alloc(r->arena, sizeof *s);
    HASH_ADD_KEYPTR(hh, *table, key, size, s);
    return true;
}

static void fill_all(struct request *r, metadata_response *response)
{
    int32_t count;
    const struct image_topic *const *topics = image_topics(r->image, &count);

    response->topics = arena_alloc(r->arena, (size_t)count * sizeof *response->topics);
    for (int32_t i = 0; i < count; i++)
        fill_topic(r, topics[i], &response->topics[i]);
    response->topics_count = count;
}

static bool any_id(const metadata_request *q)
{
    for (int32_t i = 0; i < q->topics_count; i++)
        if (!uuid_is_zero(q->topics[i].topic_id))
            return true;
    return false;
}

/* A request that holds an id asks by ids alone: names in it are not looked at. */
static void fill_named(struct request *r, metadata_response *response)
{
    const metadata_request *q = r->body;
    struct seen *seen = NULL;
    bool by_id = any_id(q);

    response->topics = arena_alloc(r->arena, (size_t)q->topics_count * sizeof *response->topics);
    for (int32_t i = 0; i < q->topics_count; i++) {
        const struct uuid *id = &q->topics[i].topic_id;
        struct slice name = slice_is_null(q->topics[i].name) ? SLICE_EMPTY : q->topics[i].name;
        if (by_id && uuid_is_zero(*id))
            continue;
        if (by_id ? !is_new(r, &seen, id->b, sizeof id->b) : !is_new(r, &seen, name.data, name.size))
            continue;
        const struct image_topic *t = by_id ? image_topic_by_id(r->image, *id) : image_topic_by_name(r->image, name);
        topic_response *out = &response->topics[response->topics_count++];
        if (t != NULL)
            fill_topic(r, t, out);
        else if (by_id)
            fill_error(out, SLICE_NULL, *id, KERR_UNKNOWN_TOPIC_ID);
        else
            fill_missing(r, name, out);
    }
    HASH_CLEAR(hh, seen);
}

/* ---- the whole ---- */

static void fill_brokers(const struct request *r, metadata_response *response)
{
    int32_t count;
    const struct image_broker *const *brokers = image_brokers(r->image, &count);

    response->brokers = arena_alloc(r->arena, (size_t)count * sizeof *response->brokers);
    for (int32_t i = 0; i < count; i++) {
        struct kafka_metadata_response_metadata_response_broker *b = &response->brokers[response->brokers_count];
        uint16_t port;
        if (!request_broker_address(r, brokers[i]->id, &b->host, &port, &b->rack))
            continue;
        b->node_id = brokers[i]->id;
        b->port = port;
        response->brokers_count++;
    }
}

static void fail(struct request *r, enum kafka_error error, const char *message UNUSED)
{
    const metadata_request *q = r->body;
    metadata_response response;
    int32_t count = MAX(q->topics_count, 0);

    kafka_metadata_response_init(&response);
    response.topics = arena_alloc(r->arena, (size_t)count * sizeof *response.topics);
    response.topics_count = count;
    for (int32_t i = 0; i < count; i++)
        fill_error(&response.topics[i], slice_is_null(q->topics[i].name) ? SLICE_EMPTY : q->topics[i].name,
                   q->topics[i].topic_id, error);
    request_reply(r, &response);
}

/* Versions 10 and 11 have the fields for ids, but no broker takes them. */
static bool asks_too_early_by_id(const struct request *r)
{
    const metadata_request *q = r->body;

    if (r->version < 10 || r->version > 11)
        return false;
    for (int32_t i = 0; i < q->topics_count; i++)
        if (slice_is_null(q->topics[i].name) || !uuid_is_zero(q->topics[i].topic_id))
            return true;
    return false;
}

static void handle(struct request *r)
{
    const metadata_request *q = r->body;
    metadata_response response;

    if (asks_too_early_by_id(r)) {
        fail(r, KERR_INVALID_REQUEST, NULL);
        return;
    }
    kafka_metadata_response_init(&response);
    fill_brokers(r, &response);
    response.cluster_id = slice_str(frontend_cluster_id(r->frontend));
    response.controller_id = request_any_broker(r);
    if (q->include_cluster_authorized_operations)
        response.cluster_authorized_operations = API_OPERATIONS_CLUSTER;
    if (q->topics_count < 0 || (r->version == 0 && q->topics_count == 0))
        fill_all(r, &response);
    else
        fill_named(r, &response);
    request_reply(r, &response);
}

const struct api_handler api_metadata = {
    .key = KAFKA_API_METADATA, .version_min = 0, .version_max = 13, .handle = handle, .fail = fail};
