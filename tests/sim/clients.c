/* clients.c - all model clients together, and the topic that they need. */
#include "tests/sim/clients.h"

#include "kafka/apis.h"
#include "kafka/create_topics.h"
#include "libs/base/kafka_error.h"
#include "libs/compress/compress.h"
#include "tests/sim/cluster.h"

#include <stdio.h>
#include <stdlib.h>

bool client_may_retry(int16_t error)
{
    return error == KERR_NONE || kafka_error_retriable(error) || error == KERR_UNKNOWN_TOPIC_OR_PARTITION;
}

uint16_t client_port(struct clients *c)
{
    return cluster_port(sim_chance(c->sim, 400) ? 1 : 1 + (int32_t)sim_below(c->sim, (uint64_t)c->frontends));
}

int64_t clients_committed(const struct clients *c, int32_t partition)
{
    char folder[32];
    snprintf(folder, sizeof folder, CLIENTS_TOPIC "-%d", partition);
    return replicawatch_committed(c->committed, folder);
}

void clients_check_committed(const struct clients *c, int32_t partition, int64_t offset, const char *what)
{
    int64_t end = clients_committed(c, partition);
    if (c->replicas > 1 && offset >= end)
        sim_fail(c->sim, "offset %lld of " CLIENTS_TOPIC "-%d was %s, and only what is below %lld is committed",
                 (long long)offset, partition, what, (long long)end);
}

/* ---- values ---- */

static uint64_t mix(int32_t producer, uint64_t number)
{
    uint64_t z = (number + 1) * 0x9e3779b97f4a7c15u + (uint64_t)producer * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 31)) * 0x94d049bb133111ebu;
    return z ^ (z >> 29);
}

static size_t filler_size(uint64_t m)
{
    const size_t most[] = {200, 200, 200, 3000, 12000};
    return (size_t)(m >> 8) % most[m % COUNTOF(most)];
}

/* The filler goes on from 8 bytes to the next. */
static uint64_t filler(uint64_t m, size_t i)
{
    return (m ^ (uint64_t)i) * 0x9e3779b97f4a7c15u;
}

void client_value(struct buf *b, int32_t producer, uint64_t number)
{
    struct seen s = {0};
    uint64_t m = mix(producer, number);
    size_t size = filler_size(m);
    s.producer = producer;
    s.number = number;
    b->size = 0;
    buf_append(b, &s, sizeof s);
    uint8_t *p = buf_grow(b, size);
    size_t i = 0;
    for (uint64_t word; i + sizeof word <= size; i += sizeof word) {
        word = filler(m, i);
        memcpy(p + i, &word, sizeof word);
    }
    uint64_t last = filler(m, i);
    memcpy(p + i, &last, size - i);
}

bool client_read_value(struct slice value, struct seen *ret_seen)
{
    if (value.size < sizeof *ret_seen)
        return false;
    memcpy(ret_seen, value.data, sizeof *ret_seen);
    uint64_t m = mix(ret_seen->producer, ret_seen->number);
    const uint8_t *p = value.data + sizeof *ret_seen;
    size_t size = value.size - sizeof *ret_seen;
    bool same = size == filler_size(m);
    size_t i = 0;
    for (uint64_t word; same && i + sizeof word <= size; i += sizeof word) {
        memcpy(&word, p + i, sizeof word);
        same = word == filler(m, i);
    }
    uint64_t last = filler(m, i);
    return same && memcmp(p + i, &last, size - i) == 0;
}

/* ---- the topic ---- */

static void on_created(void *ctx, const void *response)
{
    struct clients *c = ctx;
    const struct kafka_create_topics_response *r = response;
    if (r == NULL)
        return;
    int16_t error = r->topics[0].error_code;
    if (error == KERR_NONE || error == KERR_TOPIC_ALREADY_EXISTS)
        c->has_topic = true;
    else if (!client_may_retry(error) && error != KERR_INVALID_REPLICATION_FACTOR) /* 38: the storage node is down */
        sim_fail(c->sim, "CreateTopics: %s", kafka_error_name(error));
}

static void admin_tick(void *ctx)
{
    struct clients *c = ctx;
    struct kafka_create_topics_request q;
    struct kafka_create_topics_request_creatable_topic t;
    if (c->has_topic)
        return;
    c->admin_event = sim_at(c->sim, 200, admin_tick, c);
    if (!kclient_connect(c->admin, client_port(c)) || kclient_waiting(c->admin))
        return;
    kafka_create_topics_request_init(&q);
    kafka_create_topics_request_creatable_topic_init(&t);
    t.name = SLICE_OF(CLIENTS_TOPIC);
    t.num_partitions = CLIENTS_PARTITIONS;
    t.replication_factor = c->replicas;
    /* Under readers, in every second run: segments are replaced again and again by what compaction makes of them. */
    struct kafka_create_topics_request_creatable_topic_config compacted[] = {
        {SLICE_OF("cleanup.policy"), SLICE_OF("compact,delete")},
        {SLICE_OF("internal.segment.bytes"), SLICE_OF("40000")},
        {SLICE_OF("min.cleanable.dirty.ratio"), SLICE_OF("0.01")},
    };
    if (c->compacted) {
        t.configs = compacted;
        t.configs_count = COUNTOF(compacted);
        sim_cover("a compacted topic");
    }
    q.topics = &t;
    q.topics_count = 1;
    q.timeout_ms = 5000;
    kclient_ask(c->admin, KAFKA_API_CREATE_TOPICS, (int16_t)(2 + sim_below(c->sim, 6)), &q, on_created, c);
}

/* ---- all of them ---- */

struct clients *clients_new(struct sim *s, struct tcp *t, const struct clients_options *o)
{
    struct clients *c = xcalloc(1, sizeof *c);
    c->sim = s;
    c->tcp = t;
    c->frontends = o->frontends;
    c->replicas = o->replicas;
    c->committed = o->committed;
    c->compacted = sim_seed(s) % 2 == 0;
    c->reader = compress_reader_new();
    c->writer = compress_writer_new();
    c->admin = kclient_new(t, s, "admin");
    c->admin_event = sim_at(s, 0, admin_tick, c);
    for (int32_t i = 0; i < CLIENTS_PRODUCERS; i++)
        c->producers[i] = producer_new(c, i);
    c->consumer = consumer_new(c);
    c->auditor = auditor_new(c);
    c->committer = committer_new(c);
    c->session = session_client_new(c);
    for (int32_t i = 0; i < CLIENTS_MEMBERS; i++)
        c->members[i] = member_new(c, i);
    if (o->moved > 0)
        c->mover = mover_new(c, o->moved);
    return c;
}

struct clients *clients_free(struct clients *c)
{
    sim_cancel(c->sim, c->admin_event);
    kclient_free(c->admin);
    for (int32_t i = 0; i < CLIENTS_PRODUCERS; i++)
        producer_free(c->producers[i]);
    consumer_free(c->consumer);
    auditor_free(c->auditor);
    committer_free(c->committer);
    session_client_free(c->session);
    for (int32_t i = 0; i < CLIENTS_MEMBERS; i++)
        member_free(c->members[i]);
    mover_free(c->mover);
    generations_free(c->generations);
    compress_reader_free(c->reader);
    compress_writer_free(c->writer);
    free(c);
    return NULL;
}

void clients_finish(struct clients *c)
{
    c->finishing = true;
}

void clients_go_on(struct clients *c)
{
    session_client_write(c->session, 20);
    committer_go_on(c->committer);
}

bool clients_are_done(const struct clients *c)
{
    for (int32_t i = 0; i < CLIENTS_PRODUCERS; i++)
        if (!producer_is_done(c->producers[i]) || consumer_count(c->consumer, i) < producer_sent(c->producers[i]))
            return false;
    return !clients_rebalance(c) && committer_is_done(c->committer) && session_client_is_done(c->session);
}

bool clients_rebalance(const struct clients *c)
{
    for (int32_t i = 0; i < CLIENTS_MEMBERS; i++)
        if (!member_is_done(c->members[i]))
            return true;
    return false;
}

void clients_check(struct clients *c)
{
    for (int32_t i = 0; i < CLIENTS_PRODUCERS; i++) {
        producer_check(c->producers[i], c->consumer);
        if (!producer_is_done(c->producers[i]))
            sim_fail(c->sim, "producer %d cannot finish", i);
        if (consumer_count(c->consumer, i) != producer_sent(c->producers[i]))
            sim_fail(c->sim, "of producer %d %llu records were read, %llu sent", i,
                     (unsigned long long)consumer_count(c->consumer, i),
                     (unsigned long long)producer_sent(c->producers[i]));
        sim_note(c->sim, "producer %d: %llu records", i, (unsigned long long)producer_sent(c->producers[i]));
    }
    if (!committer_is_done(c->committer))
        sim_fail(c->sim, "the committer cannot finish");
    if (!session_client_is_done(c->session))
        sim_fail(c->sim, "a fetch session does not tell of all that was acknowledged");
    for (int32_t i = 0; i < CLIENTS_MEMBERS; i++)
        if (!member_is_done(c->members[i]))
            sim_fail(c->sim, "member %d cannot get into a stable group", i);
}
