/* client_session.c - a model client that reads a topic of many partitions by fetch sessions, of which storage keeps
 * what the client is interested in, and writes to it now and then. It forgets partitions and takes them up again, and
 * loses its session with its connection.
 *
 * Writes are not idempotent, one at a time, so a record may be there as often as it was sent; but not more often, and
 * what was acknowledged is where it was acknowledged, and the session tells of it. */
#include "tests/sim/clients.h"

#include "kafka/apis.h"
#include "kafka/create_topics.h"
#include "kafka/fetch.h"
#include "kafka/produce.h"
#include "libs/base/kafka_error.h"
#include "libs/records/records.h"
#include "tests/sim/cluster.h"

#include <stdlib.h>

enum { PARTITIONS = 12 }; /* front ends make sets from 8 on */
#define TOPIC   "wide"
#define UNKNOWN UINT64_MAX

struct place {
    int64_t position, told; /* the session's, of the next record; told: where the session believes it is, -1: nowhere */
    int64_t acked_end;      /* behind the last that was acknowledged */
    uint64_t *numbers, next; /* by offset, as acknowledged or read; the next to be written */
    size_t room;
    int32_t *left; /* by number: how often it was sent, less how often it was read */
    size_t left_room;
};

struct session_client {
    struct clients *clients;
    struct sim *sim;
    struct kclient *reader, *writer;
    bool has_topic;
    int32_t session, epoch;
    struct place places[PARTITIONS];
    int32_t writing; /* the partition of the record that is not acknowledged yet; -1: none */
    uint64_t wanted; /* records that are still to be written although clients finish */
    uint64_t event;
};

/* What was acknowledged or read there before must be the same. */
static void note_number(struct session_client *k, int32_t partition, int64_t offset, uint64_t number)
{
    struct place *p = &k->places[partition];
    for (; p->room <= (size_t)offset; p->room++) {
        p->numbers = xrealloc(p->numbers, (p->room + 1) * sizeof *p->numbers);
        p->numbers[p->room] = UNKNOWN;
    }
    if (p->numbers[offset] != UNKNOWN && p->numbers[offset] != number)
        sim_fail(k->sim, "wide-%d: offset %lld holds record %llu and %llu", partition, (long long)offset,
                 (unsigned long long)p->numbers[offset], (unsigned long long)number);
    p->numbers[offset] = number;
}

/* ---- reading ---- */

static void take_record(struct session_client *k, int32_t partition, const struct record *record)
{
    struct place *p = &k->places[partition];
    struct seen s;
    if (record->offset < p->position)
        return;
    if (record->offset != p->position)
        sim_fail(k->sim, "wide-%d: offset %lld follows %lld", partition, (long long)record->offset,
                 (long long)p->position - 1);
    if (!client_read_value(record->value, &s) || s.producer != partition || s.number >= p->next)
        sim_fail(k->sim, "wide-%d: offset %lld holds something else", partition, (long long)record->offset);
    note_number(k, partition, record->offset, s.number);
    if (--p->left[s.number] < 0)
        sim_fail(k->sim, "wide-%d: record %llu is there more often than it was sent", partition,
                 (unsigned long long)s.number);
    p->position++;
}

static void take_records(struct session_client *k, int32_t partition, struct slice records)
{
    struct batch b;
    struct slice whole;
    struct buf scratch = {0};
    while (batch_next(&records, &b, &whole) == 1) {
        struct record_iter it;
        struct record record;
        if (!batch_crc_holds(&b, whole) || record_iter_init_with(&it, k->clients->reader, &b, whole, &scratch, 1 << 20))
            sim_fail(k->sim, "wide-%d: the batch at %lld is damaged", partition, (long long)b.base_offset);
        while (record_iter_next(&it, &record) == 1)
            take_record(k, partition, &record);
    }
    buf_free(&scratch);
}

static void lose_session(struct session_client *k)
{
    k->session = k->epoch = 0;
    for (int32_t i = 0; i < PARTITIONS; i++)
        k->places[i].told = -1;
}

static void take_answer(struct session_client *k, const struct kafka_fetch_response *r)
{
    for (int32_t t = 0; t < r->responses_count; t++)
        for (int32_t i = 0; i < r->responses[t].partitions_count; i++) {
            const struct kafka_fetch_response_partition_data *p = &r->responses[t].partitions[i];
            if (!client_may_retry(p->error_code))
                sim_fail(k->sim, "Fetch of wide-%d at %lld: %s", p->partition_index,
                         (long long)k->places[p->partition_index].position, kafka_error_name(p->error_code));
            if (p->error_code != KERR_NONE)
                continue;
            take_records(k, p->partition_index, p->records);
            if (k->epoch > 1 && p->records.size > 0)
                sim_cover("a fetch session told of records");
        }
}

static void on_fetched(void *ctx, const void *response)
{
    struct session_client *k = ctx;
    const struct kafka_fetch_response *r = response;
    if (r == NULL || r->error_code == KERR_FETCH_SESSION_ID_NOT_FOUND ||
        r->error_code == KERR_INVALID_FETCH_SESSION_EPOCH) {
        lose_session(k);
        return;
    }
    if (r->error_code != KERR_NONE)
        sim_fail(k->sim, "Fetch of a session: %s", kafka_error_name(r->error_code));
    if (k->session == 0)
        k->session = r->session_id;
    k->epoch = k->session != 0 ? k->epoch + 1 : 0;
    take_answer(k, r);
}

static void fetch(struct session_client *k)
{
    struct kafka_fetch_request q;
    struct kafka_fetch_request_fetch_topic t;
    struct kafka_fetch_request_fetch_partition p[PARTITIONS];
    struct kafka_fetch_request_forgotten_topic forgotten;
    int32_t left[PARTITIONS];
    bool finishing = k->clients->finishing;
    kafka_fetch_request_init(&q);
    kafka_fetch_request_fetch_topic_init(&t);
    kafka_fetch_request_forgotten_topic_init(&forgotten);
    t.topic = forgotten.topic = SLICE_OF(TOPIC);
    t.partitions = p;
    forgotten.partitions = left;
    for (int32_t i = 0; i < PARTITIONS; i++) {
        struct place *at = &k->places[i];
        if (k->session != 0 && at->told >= 0 && !finishing && sim_chance(k->sim, 20)) {
            left[forgotten.partitions_count++] = i;
            at->told = -1;
        } else if (at->told != at->position &&
                   (k->session == 0 || at->told >= 0 || finishing || sim_chance(k->sim, 200))) {
            kafka_fetch_request_fetch_partition_init(&p[t.partitions_count]);
            p[t.partitions_count].partition = i;
            p[t.partitions_count].fetch_offset = at->told = at->position;
            p[t.partitions_count++].partition_max_bytes = 100 + (int32_t)sim_below(k->sim, 20000);
        }
    }
    q.topics = &t;
    q.topics_count = t.partitions_count > 0;
    q.forgotten_topics_data = &forgotten;
    q.forgotten_topics_data_count = forgotten.partitions_count > 0;
    q.session_id = k->session;
    q.session_epoch = k->epoch;
    q.max_wait_ms = (int32_t)sim_below(k->sim, 1500);
    q.min_bytes = 1;
    q.max_bytes = (int32_t)(1000 + sim_below(k->sim, 50000));
    kclient_ask(k->reader, KAFKA_API_FETCH, (int16_t)(7 + sim_below(k->sim, 6)), &q, on_fetched, k);
}

/* ---- writing ---- */

static void on_created(void *ctx, const void *response)
{
    struct session_client *k = ctx;
    const struct kafka_create_topics_response *r = response;
    if (r != NULL)
        k->has_topic = r->topics[0].error_code == KERR_NONE || r->topics[0].error_code == KERR_TOPIC_ALREADY_EXISTS;
}

static void create(struct session_client *k)
{
    struct kafka_create_topics_request q;
    struct kafka_create_topics_request_creatable_topic t;
    kafka_create_topics_request_init(&q);
    kafka_create_topics_request_creatable_topic_init(&t);
    t.name = SLICE_OF(TOPIC);
    t.num_partitions = PARTITIONS;
    t.replication_factor = k->clients->replicas;
    q.topics = &t;
    q.topics_count = 1;
    q.timeout_ms = 5000;
    kclient_ask(k->writer, KAFKA_API_CREATE_TOPICS, 5, &q, on_created, k);
}

static void on_produced(void *ctx, const void *response)
{
    struct session_client *k = ctx;
    const struct kafka_produce_response *r = response;
    if (r == NULL)
        return; /* sent again */
    const struct kafka_produce_response_partition_produce_response *row = &r->responses[0].partition_responses[0];
    struct place *p = &k->places[k->writing];
    if (!client_may_retry(row->error_code))
        sim_fail(k->sim, "Produce to wide-%d: %s", k->writing, kafka_error_name(row->error_code));
    if (row->error_code != KERR_NONE)
        return;
    note_number(k, k->writing, row->base_offset, p->next - 1);
    p->acked_end = MAX(p->acked_end, row->base_offset + 1);
    k->writing = -1;
}

static void produce(struct session_client *k)
{
    struct buf bytes = {0}, value = {0};
    struct batch_builder b;
    struct batch_options o = BATCH_OPTIONS;
    struct kafka_produce_request q;
    struct kafka_produce_request_topic_produce_data t;
    struct kafka_produce_request_partition_produce_data d;
    struct place *p = &k->places[k->writing];
    for (; p->left_room < p->next; p->left_room++) {
        p->left = xrealloc(p->left, (p->left_room + 1) * sizeof *p->left);
        p->left[p->left_room] = 0;
    }
    p->left[p->next - 1]++;
    batch_begin(&b, &bytes, &o);
    client_value(&value, k->writing, k->places[k->writing].next - 1);
    batch_add(&b, sim_wall_ms(k->sim), SLICE_NULL, buf_slice(&value), NULL, 0);
    buf_free(&value);
    if (batch_end(&b))
        sim_fail(k->sim, "a batch cannot be built");
    kafka_produce_request_init(&q);
    kafka_produce_request_topic_produce_data_init(&t);
    kafka_produce_request_partition_produce_data_init(&d);
    d.index = k->writing;
    d.records = buf_slice(&bytes);
    t.name = SLICE_OF(TOPIC);
    t.partition_data = &d;
    t.partition_data_count = 1;
    q.acks = -1;
    q.timeout_ms = 5000;
    q.topic_data = &t;
    q.topic_data_count = 1;
    kclient_ask(k->writer, KAFKA_API_PRODUCE, 8, &q, on_produced, k);
    buf_free(&bytes);
}

static void write_one(struct session_client *k)
{
    if (k->writing < 0 && (k->wanted > 0 || (!k->clients->finishing && sim_chance(k->sim, 200)))) {
        k->wanted -= k->wanted > 0;
        k->writing = (int32_t)sim_below(k->sim, PARTITIONS);
        k->places[k->writing].next++;
    }
    if (k->writing >= 0)
        produce(k);
}

/* ---- life ---- */

static void tick(void *ctx)
{
    struct session_client *k = ctx;
    k->event = sim_at(k->sim, 5 + sim_below(k->sim, 100), tick, k);
    if (kclient_connect(k->writer, client_port(k->clients)) && kclient_waiting(k->writer) == 0) {
        if (k->has_topic)
            write_one(k);
        else
            create(k);
    }
    if (k->has_topic && kclient_connect(k->reader, client_port(k->clients)) && kclient_waiting(k->reader) == 0)
        fetch(k);
}

void session_client_write(struct session_client *k, uint64_t records)
{
    k->wanted += records;
}

bool session_client_is_done(const struct session_client *k)
{
    if (k->writing >= 0 || k->wanted > 0)
        return false;
    for (int32_t i = 0; i < PARTITIONS; i++)
        if (k->places[i].position < k->places[i].acked_end)
            return false;
    return true;
}

struct session_client *session_client_new(struct clients *c)
{
    struct session_client *k = xcalloc(1, sizeof *k);
    *k = (struct session_client){.clients = c,
                                 .sim = c->sim,
                                 .reader = kclient_new(c->tcp, c->sim, "session-reader"),
                                 .writer = kclient_new(c->tcp, c->sim, "session-writer"),
                                 .writing = -1};
    lose_session(k);
    k->event = sim_at(c->sim, 0, tick, k);
    return k;
}

struct session_client *session_client_free(struct session_client *k)
{
    sim_cancel(k->sim, k->event);
    kclient_free(k->reader);
    kclient_free(k->writer);
    for (int32_t i = 0; i < PARTITIONS; i++) {
        free(k->places[i].numbers);
        free(k->places[i].left);
    }
    free(k);
    return NULL;
}
