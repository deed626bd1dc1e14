/* client_consume.c - a model consumer of every partition, from its start. */
#include "tests/sim/clients.h"

#include "kafka/apis.h"
#include "kafka/fetch.h"
#include "kafka/metadata.h"
#include "libs/base/kafka_error.h"
#include "libs/records/records.h"
#include "tests/sim/cluster.h"

#include <stdio.h>
#include <stdlib.h>

enum { EPOCHS_FROM = 9 /* the version of Fetch that names leader epochs */ };

struct read_partition {
    int64_t position;
    int32_t epoch, named; /* of its leader: as Metadata told last, and in the Fetch under way; -1 */
    struct seen *seen;    /* by offset */
    size_t room;
};

struct consumer {
    struct clients *clients;
    struct sim *sim;
    struct kclient *client, *asker; /* of Metadata: through another front end, perhaps, which knows more, or less */
    struct read_partition partitions[CLIENTS_PARTITIONS];
    uint64_t next_number[CLIENTS_PRODUCERS];
    bool asks; /* Metadata, next */
    uint64_t event;
};

uint64_t consumer_count(const struct consumer *k, int32_t producer)
{
    return k->next_number[producer];
}

int64_t consumer_position(const struct consumer *k, int32_t partition)
{
    return k->partitions[partition].position;
}

const struct seen *consumer_at(const struct consumer *k, int32_t partition, int64_t offset)
{
    const struct read_partition *r = &k->partitions[partition];
    return offset >= 0 && offset < r->position ? &r->seen[offset] : NULL;
}

static void take_record(struct consumer *k, int32_t partition, const struct record *record)
{
    struct read_partition *r = &k->partitions[partition];
    struct seen s;
    if (record->offset < r->position)
        return; /* before the position, in the batch that holds it */
    if (record->offset != r->position)
        sim_fail(k->sim, "partition %d: offset %lld follows %lld", partition, (long long)record->offset,
                 (long long)r->position - 1);
    if (!client_read_value(record->value, &s))
        sim_fail(k->sim, "partition %d: offset %lld holds something else", partition, (long long)record->offset);
    if (s.producer < 0 || s.producer >= CLIENTS_PRODUCERS || producer_partition(s.producer) != partition)
        sim_fail(k->sim, "partition %d: offset %lld is of another partition", partition, (long long)record->offset);
    if (s.number != k->next_number[s.producer])
        sim_fail(k->sim, "partition %d, offset %lld: record %llu of producer %d comes after %lld", partition,
                 (long long)record->offset, (unsigned long long)s.number, s.producer,
                 (long long)k->next_number[s.producer] - 1);
    clients_check_committed(k->clients, partition, record->offset, "given out");
    if ((size_t)r->position == r->room)
        r->seen = xrealloc(r->seen, (r->room = r->room * 2 + 256) * sizeof *r->seen);
    r->seen[r->position++] = s;
    k->next_number[s.producer]++;
}

static void take_records(struct consumer *k, int32_t partition, struct slice records)
{
    struct batch b;
    struct slice whole;
    struct buf scratch = {0};
    int got;
    while ((got = batch_next(&records, &b, &whole)) == 1) {
        struct record_iter it;
        struct record record;
        if (!batch_crc_holds(&b, whole) || record_iter_init_with(&it, k->clients->reader, &b, whole, &scratch, 1 << 20))
            sim_fail(k->sim, "partition %d: the batch at %lld is damaged", partition, (long long)b.base_offset);
        int32_t named = k->partitions[partition].named;
        if (named >= 0 && b.leader_epoch > named)
            sim_fail(k->sim, "partition %d: asked in leader epoch %d, the batch at %lld of epoch %d was given out",
                     partition, named, (long long)b.base_offset, b.leader_epoch);
        while (record_iter_next(&it, &record) == 1)
            take_record(k, partition, &record);
    }
    if (got != 0 && got != -ENODATA)
        sim_fail(k->sim, "partition %d: what follows offset %lld is no batch", partition,
                 (long long)k->partitions[partition].position - 1);
    buf_free(&scratch);
}

/* A leader that does not know yet that it is none may lack what was committed since. Who names a leader epoch is told
 * by none of an earlier one. Where the record is, it is found at last. */
static bool is_stale(const struct consumer *k, const struct kafka_fetch_response_partition_data *p)
{
    const struct read_partition *r = &k->partitions[p->partition_index];
    int64_t end = clients_committed(k->clients, p->partition_index);
    if (p->error_code != KERR_OFFSET_OUT_OF_RANGE || r->position > end)
        return false;
    char folder[32];
    snprintf(folder, sizeof folder, CLIENTS_TOPIC "-%d", p->partition_index);
    if (r->named >= 0 && r->position <= replicawatch_committed_in(k->clients->committed, folder, r->named))
        sim_fail(k->sim, "partition %d: asked in leader epoch %d for %lld, which was committed by then: out of range",
                 p->partition_index, r->named, (long long)r->position);
    sim_cover("a leader of before lacked what a consumer wanted");
    return true;
}

static void check_led(const struct consumer *k, int32_t partition)
{
    char folder[32];
    int32_t named = k->partitions[partition].named;
    snprintf(folder, sizeof folder, CLIENTS_TOPIC "-%d", partition);
    if (named >= 0 && !replicawatch_led(k->clients->committed, folder, named))
        sim_fail(k->sim, "partition %d: asked in leader epoch %d, in which nobody has led yet, and answered", partition,
                 named);
}

static void take_epoch_error(struct consumer *k, const struct kafka_fetch_response_partition_data *p)
{
    const struct read_partition *r = &k->partitions[p->partition_index];
    if (p->error_code != KERR_FENCED_LEADER_EPOCH && p->error_code != KERR_UNKNOWN_LEADER_EPOCH)
        return;
    if (r->named < 0)
        sim_fail(k->sim, "Fetch of partition %d that names no leader epoch: %s", p->partition_index,
                 kafka_error_name(p->error_code));
    k->asks = true;
    sim_cover(p->error_code == KERR_FENCED_LEADER_EPOCH ? "a consumer named a former leader epoch"
                                                        : "a consumer named a leader epoch that was not known yet");
}

static void on_fetched(void *ctx, const void *response)
{
    struct consumer *k = ctx;
    const struct kafka_fetch_response *r = response;
    if (r == NULL)
        return;
    if (r->error_code != KERR_NONE)
        sim_fail(k->sim, "Fetch: %s", kafka_error_name(r->error_code));
    for (int32_t t = 0; t < r->responses_count; t++)
        for (int32_t i = 0; i < r->responses[t].partitions_count; i++) {
            const struct kafka_fetch_response_partition_data *p = &r->responses[t].partitions[i];
            if (!client_may_retry(p->error_code) && !is_stale(k, p))
                sim_fail(k->sim, "Fetch of partition %d at %lld: %s", p->partition_index,
                         (long long)k->partitions[p->partition_index].position, kafka_error_name(p->error_code));
            take_epoch_error(k, p);
            int64_t before = k->partitions[p->partition_index].position;
            if (p->error_code == KERR_NONE)
                check_led(k, p->partition_index);
            if (p->error_code == KERR_NONE)
                take_records(k, p->partition_index, p->records);
            if (k->partitions[p->partition_index].position > p->high_watermark && p->error_code == KERR_NONE &&
                before < p->high_watermark)
                sim_fail(k->sim, "partition %d: a record behind the high watermark was given out", p->partition_index);
        }
}

/* As Kafka's clients, which take no older epoch than they know. */
static void on_metadata(void *ctx, const void *response)
{
    struct consumer *k = ctx;
    const struct kafka_metadata_response *r = response;
    if (r == NULL)
        return;
    k->asks = false;
    for (int32_t i = 0; r->topics_count == 1 && i < r->topics[0].partitions_count; i++) {
        const struct kafka_metadata_response_metadata_response_partition *p = &r->topics[0].partitions[i];
        if (p->partition_index >= 0 && p->partition_index < CLIENTS_PARTITIONS)
            k->partitions[p->partition_index].epoch = MAX(k->partitions[p->partition_index].epoch, p->leader_epoch);
    }
}

static void ask_epochs(struct consumer *k)
{
    struct kafka_metadata_request q;
    struct kafka_metadata_request_metadata_request_topic t;
    kafka_metadata_request_init(&q);
    kafka_metadata_request_metadata_request_topic_init(&t);
    t.name = SLICE_OF(CLIENTS_TOPIC);
    q.topics = &t;
    q.topics_count = 1;
    kclient_ask(k->asker, KAFKA_API_METADATA, 8, &q, on_metadata, k);
}

static void fetch(struct consumer *k)
{
    struct kafka_fetch_request q;
    struct kafka_fetch_request_fetch_topic t;
    struct kafka_fetch_request_fetch_partition p[CLIENTS_PARTITIONS];
    int16_t version = (int16_t)(4 + sim_below(k->sim, 9));
    bool large = sim_chance(k->sim, 200);
    kafka_fetch_request_init(&q);
    kafka_fetch_request_fetch_topic_init(&t);
    for (int32_t i = 0; i < CLIENTS_PARTITIONS; i++) {
        kafka_fetch_request_fetch_partition_init(&p[i]);
        p[i].partition = i;
        p[i].fetch_offset = k->partitions[i].position;
        p[i].current_leader_epoch = k->partitions[i].named = version >= EPOCHS_FROM ? k->partitions[i].epoch : -1;
        p[i].partition_max_bytes = (int32_t)(100 + sim_below(k->sim, large ? 400000 : 20000));
    }
    t.topic = SLICE_OF(CLIENTS_TOPIC);
    t.partitions = p;
    t.partitions_count = CLIENTS_PARTITIONS;
    q.topics = &t;
    q.topics_count = 1;
    q.max_wait_ms = (int32_t)sim_below(k->sim, 1500);
    q.min_bytes = (int32_t)sim_below(k->sim, 3);
    q.max_bytes = (int32_t)(100 + sim_below(k->sim, large ? 800000 : 50000));
    kclient_ask(k->client, KAFKA_API_FETCH, version, &q, on_fetched, k);
}

static void tick(void *ctx)
{
    struct consumer *k = ctx;
    k->event = sim_at(k->sim, 5 + sim_below(k->sim, 100), tick, k);
    if (!k->clients->has_topic)
        return;
    if ((k->asks || sim_chance(k->sim, 20)) && kclient_connect(k->asker, client_port(k->clients)) &&
        kclient_waiting(k->asker) == 0)
        ask_epochs(k);
    if (kclient_connect(k->client, client_port(k->clients)) && kclient_waiting(k->client) == 0)
        fetch(k);
}

struct consumer *consumer_new(struct clients *c)
{
    struct consumer *k = xcalloc(1, sizeof *k);
    *k = (struct consumer){.clients = c, .sim = c->sim, .client = kclient_new(c->tcp, c->sim, "consumer")};
    k->asker = kclient_new(c->tcp, c->sim, "consumer-asker");
    for (int32_t i = 0; i < CLIENTS_PARTITIONS; i++)
        k->partitions[i].epoch = k->partitions[i].named = -1;
    k->event = sim_at(c->sim, 0, tick, k);
    return k;
}

struct consumer *consumer_free(struct consumer *k)
{
    sim_cancel(k->sim, k->event);
    kclient_free(k->client);
    kclient_free(k->asker);
    for (int32_t i = 0; i < CLIENTS_PARTITIONS; i++)
        free(k->partitions[i].seen);
    free(k);
    return NULL;
}
