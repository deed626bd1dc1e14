/* admin.c - see admin.h. */
#include "tests/sim/admin.h"

#include "kafka/allocate_producer_ids.h"
#include "kafka/apis.h"
#include "kafka/create_partitions.h"
#include "kafka/create_topics.h"
#include "kafka/delete_topics.h"
#include "kafka/incremental_alter_configs.h"
#include "libs/base/arena.h"
#include "libs/base/kafka_error.h"
#include "tests/sim/platform.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { TOPICS_MAX = 200, OPEN_TOPICS = 12, CALL_MS = 3000, PAUSE_MS = 400, BLOCKS_MAX = 4096, ID_FIRST = 1000 };

enum want { WANT_NOTHING, WANT_THERE, WANT_GONE, WANT_EITHER };

struct admin_topic {
    char name[24];
    enum want want;
    int32_t partitions;   /* at least so many */
    int64_t retention_ms; /* the last that was answered; -1: none */
    int64_t asked_ms[8];  /* others that were not: they may come any time */
    int asked;
    bool asked_creation; /* the same of a creation */
};

struct admin {
    struct cluster *cluster;
    struct sim *sim;
    const struct metawatch *watch;
    struct process *process;
    struct bus *bus;
    int number;
    int32_t asks; /* the controller that is asked */
    bool calling;
    int16_t api;
    struct admin_topic topics[TOPICS_MAX];
    int topic_count;
    struct admin_topic *topic; /* of the request under way */
    int32_t wanted_partitions;
    int64_t wanted_ms, last_ms;
    int64_t blocks[BLOCKS_MAX];
    size_t block_count;
    uint64_t event, done;
};

/* ---- answers ---- */

static void failed(struct admin *a, const char *what, int16_t error)
{
    sim_fail(a->sim, "%s %s: %s", what, a->topic ? a->topic->name : "", kafka_error_name(error));
}

/* What is acknowledged is committed: somebody has published it (A1). */
static const struct seen_topic *is_there(struct admin *a, const char *what)
{
    const struct seen_topic *t = metawatch_topic(a->watch, a->topic->name);
    if (t == NULL || t->gone)
        sim_fail(a->sim, "%s of topic %s is answered, and nobody has it committed", what, a->topic->name);
    return t;
}

static void created(struct admin *a, const struct kafka_create_topics_response *r)
{
    int16_t error = r->topics[0].error_code;
    if (error == KERR_NONE || error == KERR_TOPIC_ALREADY_EXISTS) {
        const struct seen_topic *t = is_there(a, "the creation");
        if (error == KERR_NONE && !uuid_eq(t->id, r->topics[0].topic_id))
            sim_fail(a->sim, "topic %s has another id than was answered", a->topic->name);
        a->topic->want = WANT_THERE;
        a->topic->partitions = t->partitions;
    } else if (error != KERR_INVALID_REPLICATION_FACTOR && error != KERR_REQUEST_TIMED_OUT) {
        failed(a, "CreateTopics", error);
    }
}

static void deleted(struct admin *a, const struct kafka_delete_topics_response *r)
{
    int16_t error = r->responses[0].error_code;
    if (error == KERR_NONE || error == KERR_UNKNOWN_TOPIC_OR_PARTITION) {
        const struct seen_topic *t = metawatch_topic(a->watch, a->topic->name);
        if (t != NULL && !t->gone && !a->topic->asked_creation)
            sim_fail(a->sim, "the deletion of topic %s is answered, and nobody has it committed", a->topic->name);
        a->topic->want = WANT_GONE;
    } else {
        failed(a, "DeleteTopics", error);
    }
}

static void grown(struct admin *a, const struct kafka_create_partitions_response *r)
{
    int16_t error = r->results[0].error_code;
    if (error == KERR_NONE) {
        if (is_there(a, "a partition")->partitions < a->wanted_partitions)
            sim_fail(a->sim, "more partitions of %s are answered, and nobody has them committed", a->topic->name);
        a->topic->partitions = a->wanted_partitions;
    } else if (error == KERR_INVALID_PARTITIONS) { /* one whose end nobody knew was done */
        a->topic->partitions = is_there(a, "a partition")->partitions;
    } else if (error != KERR_INVALID_REPLICATION_FACTOR && error != KERR_INVALID_REPLICA_ASSIGNMENT) {
        failed(a, "CreatePartitions", error);
    }
}

static void configured(struct admin *a, const struct kafka_incremental_alter_configs_response *r)
{
    int16_t error = r->responses[0].error_code;
    if (error != KERR_NONE)
        failed(a, "IncrementalAlterConfigs", error);
    if (is_there(a, "the configuration")->retention_ms != a->wanted_ms && a->topic->asked == 0)
        sim_fail(a->sim, "retention.ms=%" PRId64 " of %s is answered, and nobody has it committed", a->wanted_ms,
                 a->topic->name);
    a->topic->retention_ms = a->wanted_ms;
}

static void allocated(struct admin *a, const struct kafka_allocate_producer_ids_response *r)
{
    if (r->error_code != KERR_NONE)
        return; /* of a life that is over */
    for (size_t i = 0; i < a->block_count; i++)
        if (a->blocks[i] == r->producer_id_start)
            sim_fail(a->sim, "the producer ids from %" PRId64 " are given twice", r->producer_id_start);
    if (metawatch_next_producer_id(a->watch) < r->producer_id_start + r->producer_id_len)
        sim_fail(a->sim, "producer ids from %" PRId64 " are answered, and nobody has them committed",
                 r->producer_id_start);
    ASSERT(a->block_count < BLOCKS_MAX);
    a->blocks[a->block_count++] = r->producer_id_start;
}

/* Nobody knows: it may be done later, or never. */
static void unknown(struct admin *a)
{
    sim_cover("an administrator's request with an unknown end");
    if (a->api == KAFKA_API_CREATE_TOPICS)
        a->topic->asked_creation = true;
    if (a->api == KAFKA_API_DELETE_TOPICS)
        a->topic->want = WANT_EITHER;
    if (a->api == KAFKA_API_INCREMENTAL_ALTER_CONFIGS && a->topic->asked < (int)COUNTOF(a->topic->asked_ms))
        a->topic->asked_ms[a->topic->asked++] = a->wanted_ms;
}

union response {
    struct kafka_create_topics_response create;
    struct kafka_delete_topics_response delete;
    struct kafka_create_partitions_response grow;
    struct kafka_incremental_alter_configs_response configure;
    struct kafka_allocate_producer_ids_response allocate;
};

static void on_done(void *ctx, const struct bus_result *result)
{
    struct admin *a = ctx;
    union response r;
    a->calling = false;
    sim_note(a->sim, "admin %d: %d of %s ends as %d", a->number, a->api, a->topic ? a->topic->name : "-",
             (int)result->outcome);
    if (result->outcome != KARST__BUS__OUTCOME__OUTCOME_OK) {
        a->asks = 1 + (int32_t)sim_below(a->sim, (uint64_t)cluster_count(a->cluster, CLUSTER_CONTROLLER));
        if (result->outcome == KARST__BUS__OUTCOME__OUTCOME_UNKNOWN ||
            result->outcome == KARST__BUS__OUTCOME__OUTCOME_TIMEOUT)
            unknown(a);
        return;
    }
    struct arena *arena = arena_new(0);
    if (bus_kafka_response(result, a->api, arena, &r) < 0)
        sim_fail(a->sim, "the answer of API %d cannot be read", a->api);
    switch (a->api) {
    case KAFKA_API_CREATE_TOPICS: created(a, &r.create); break;
    case KAFKA_API_DELETE_TOPICS: deleted(a, &r.delete); break;
    case KAFKA_API_CREATE_PARTITIONS: grown(a, &r.grow); break;
    case KAFKA_API_INCREMENTAL_ALTER_CONFIGS: configured(a, &r.configure); break;
    default: allocated(a, &r.allocate); break;
    }
    a->done++;
    sim_cover("an administrator's request was done");
    arena_free(arena);
}

/* ---- requests ---- */

static void ask(struct admin *a, int16_t api, int16_t version, const void *request)
{
    Karst__Bus__Caller caller = KARST__BUS__CALLER__INIT;
    a->api = api;
    a->calling = true;
    bus_call_kafka(a->bus, KARST__BUS__ROLE__ROLE_CONTROLLER, a->asks, api, version, request, &caller, CALL_MS, on_done,
                   a);
    loop_ask_turn(process_loop(a->process));
}

static void create(struct admin *a)
{
    struct kafka_create_topics_request q;
    struct kafka_create_topics_request_creatable_topic t;
    kafka_create_topics_request_init(&q);
    kafka_create_topics_request_creatable_topic_init(&t);
    t.name = slice_str(a->topic->name);
    t.num_partitions = 1 + (int32_t)sim_below(a->sim, 4);
    t.replication_factor =
        (int16_t)(1 + sim_below(a->sim, MIN((uint64_t)3, (uint64_t)cluster_count(a->cluster, CLUSTER_STORAGE))));
    q.topics = &t;
    q.topics_count = 1;
    q.timeout_ms = CALL_MS;
    ask(a, KAFKA_API_CREATE_TOPICS, 7, &q);
}

static void remove_topic(struct admin *a)
{
    struct kafka_delete_topics_request q;
    struct kafka_delete_topics_request_delete_topic_state t;
    kafka_delete_topics_request_init(&q);
    kafka_delete_topics_request_delete_topic_state_init(&t);
    t.name = slice_str(a->topic->name);
    q.topics = &t;
    q.topics_count = 1;
    q.timeout_ms = CALL_MS;
    ask(a, KAFKA_API_DELETE_TOPICS, 6, &q);
}

static void grow(struct admin *a)
{
    struct kafka_create_partitions_request q;
    struct kafka_create_partitions_request_create_partitions_topic t;
    kafka_create_partitions_request_init(&q);
    kafka_create_partitions_request_create_partitions_topic_init(&t);
    a->wanted_partitions = a->topic->partitions + 1;
    t.name = slice_str(a->topic->name);
    t.count = a->wanted_partitions;
    q.topics = &t;
    q.topics_count = 1;
    q.timeout_ms = CALL_MS;
    ask(a, KAFKA_API_CREATE_PARTITIONS, 3, &q);
}

static void configure(struct admin *a)
{
    enum { SET = 0, TOPIC = 2 };
    struct kafka_incremental_alter_configs_request q;
    struct kafka_incremental_alter_configs_request_alter_configs_resource t;
    struct kafka_incremental_alter_configs_request_alterable_config v;
    char value[24];
    kafka_incremental_alter_configs_request_init(&q);
    kafka_incremental_alter_configs_request_alter_configs_resource_init(&t);
    kafka_incremental_alter_configs_request_alterable_config_init(&v);
    a->wanted_ms = a->last_ms = a->last_ms + 1;
    snprintf(value, sizeof value, "%" PRId64, a->wanted_ms);
    v.name = SLICE_OF("retention.ms");
    v.config_operation = SET;
    v.value = slice_str(value);
    t.resource_type = TOPIC;
    t.resource_name = slice_str(a->topic->name);
    t.configs = &v;
    t.configs_count = 1;
    q.resources = &t;
    q.resources_count = 1;
    ask(a, KAFKA_API_INCREMENTAL_ALTER_CONFIGS, 1, &q);
}

static void allocate(struct admin *a)
{
    struct kafka_allocate_producer_ids_request q;
    int32_t broker = 1 + (int32_t)sim_below(a->sim, (uint64_t)cluster_count(a->cluster, CLUSTER_STORAGE));
    kafka_allocate_producer_ids_request_init(&q);
    q.broker_id = broker;
    q.broker_epoch = metawatch_broker(a->watch, broker)->epoch;
    a->topic = NULL;
    ask(a, KAFKA_API_ALLOCATE_PRODUCER_IDS, 0, &q);
}

/* ---- what it wants ---- */

static int open_topics(const struct admin *a)
{
    int count = 0;
    for (int i = 0; i < a->topic_count; i++)
        count += a->topics[i].want == WANT_THERE;
    return count;
}

static struct admin_topic *new_topic(struct admin *a)
{
    struct admin_topic *t = &a->topics[a->topic_count++];
    *t = (struct admin_topic){.retention_ms = -1};
    snprintf(t->name, sizeof t->name, "t-%d-%d", a->number, a->topic_count);
    return t;
}

/* A creation that nobody knows the end of is asked for again, and so is a deletion: in the end it is known. */
static struct admin_topic *unfinished(struct admin *a)
{
    for (int i = 0; i < a->topic_count; i++)
        if (a->topics[i].want == WANT_NOTHING || a->topics[i].want == WANT_EITHER)
            return &a->topics[i];
    return NULL;
}

static struct admin_topic *any_there(struct admin *a)
{
    uint64_t n = sim_below(a->sim, (uint64_t)MAX(open_topics(a), 1));
    for (int i = 0; i < a->topic_count; i++)
        if (a->topics[i].want == WANT_THERE && n-- == 0)
            return &a->topics[i];
    return NULL;
}

static void begin(struct admin *a)
{
    uint64_t dice = sim_below(a->sim, 10);
    a->topic = unfinished(a);
    if (a->topic != NULL && a->topic->want == WANT_EITHER) {
        remove_topic(a);
    } else if (a->topic != NULL || (open_topics(a) < OPEN_TOPICS && a->topic_count < TOPICS_MAX && dice < 3)) {
        a->topic = a->topic ? a->topic : new_topic(a);
        create(a);
    } else if ((a->topic = any_there(a)) == NULL || dice < 5) {
        allocate(a);
    } else if (dice < 7) {
        grow(a);
    } else if (dice < 9) {
        configure(a);
    } else {
        remove_topic(a);
    }
}

static void tick(void *ctx)
{
    struct admin *a = ctx;
    a->event = sim_at(a->sim, 1 + sim_below(a->sim, PAUSE_MS), tick, a);
    if (a->calling)
        return;
    struct process *before = process_enter(a->process);
    begin(a);
    process_leave(before);
}

/* ---- lives ---- */

static void never_dies(void *ctx)
{
    (void)ctx;
}

struct admin *admin_new(struct cluster *c, const struct metawatch *w, int number)
{
    struct admin *a = xcalloc(1, sizeof *a);
    struct machine *m = cluster_machine(c);
    struct bus_options o = {.role = KARST__BUS__ROLE__ROLE_FRONTEND,
                            .id = ID_FIRST + number,
                            .incarnation = 1,
                            .cluster_id = PLATFORM_CLUSTER_ID};
    *a = (struct admin){.cluster = c, .sim = machine_sim(m), .watch = w, .number = number, .asks = 1};
    a->last_ms = 1000000;
    a->process = process_new(m, "admin", NULL, never_dies, a);
    process_protect(a->process, true);
    struct process *before = process_enter(a->process);
    if (bus_new(process_loop(a->process), &o, &a->bus))
        sim_fail(a->sim, "no bus");
    for (int id = 1; id <= cluster_count(c, CLUSTER_CONTROLLER); id++) {
        char address[64];
        snprintf(address, sizeof address, "ipc:///run/karst/controller-%d", id);
        bus_set_peer(a->bus, KARST__BUS__ROLE__ROLE_CONTROLLER, id, 0, address);
    }
    process_leave(before);
    a->event = sim_at(a->sim, 100, tick, a);
    return a;
}

struct admin *admin_free(struct admin *a)
{
    if (a == NULL)
        return NULL;
    sim_cancel(a->sim, a->event);
    process_free(a->process);
    free(a);
    return NULL;
}

uint64_t admin_done(const struct admin *a)
{
    return a->done;
}

static bool may_be(const struct admin_topic *t, int64_t retention_ms)
{
    bool may = t->retention_ms == retention_ms;
    for (int i = 0; i < t->asked; i++)
        may |= t->asked_ms[i] == retention_ms;
    return may || t->asked == (int)COUNTOF(t->asked_ms);
}

void admin_check(const struct admin *a)
{
    for (int i = 0; i < a->topic_count; i++) {
        const struct admin_topic *t = &a->topics[i];
        const struct seen_topic *s = metawatch_topic(a->watch, t->name);
        bool there = s != NULL && !s->gone;
        if (t->want == WANT_THERE && !there && !(a->calling && a->topic == t))
            sim_fail(a->sim, "topic %s was acknowledged, and is lost", t->name);
        if (t->want == WANT_GONE && there && !t->asked_creation)
            sim_fail(a->sim, "topic %s was deleted, and is there", t->name);
        if (t->want != WANT_THERE || !there)
            continue;
        if (s->partitions < t->partitions)
            sim_fail(a->sim, "topic %s has %d partitions, %d were acknowledged", t->name, s->partitions, t->partitions);
        if (!may_be(t, s->retention_ms) && !(a->calling && a->topic == t))
            sim_fail(a->sim, "topic %s has retention.ms=%" PRId64 ", %" PRId64 " was acknowledged", t->name,
                     s->retention_ms, t->retention_ms);
    }
}
