/* client_consume.c - a model consumer of every partition, from its start. */
#include "tests/sim/clients.h"

#include "kafka/apis.h"
#include "kafka/fetch.h"
#include "libs/base/kafka_error.h"
#include "libs/records/records.h"
#include "tests/sim/cluster.h"

#include <stdlib.h>

struct read_partition {
    int64_t position;
    struct seen *seen; /* by offset */
    size_t room;
};

struct consumer {
    struct clients *clients;
    struct sim *sim;
    struct kclient *client;
    struct read_partition partitions[CLIENTS_PARTITIONS];
    uint64_t next_number[CLIENTS_PRODUCERS];
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
        while (record_iter_next(&it, &record) == 1)
            take_record(k, partition, &record);
    }
    if (got != 0 && got != -ENODATA)
        sim_fail(k->sim, "partition %d: what follows offset %lld is no batch", partition,
                 (long long)k->partitions[partition].position - 1);
    buf_free(&scratch);
}

/* A leader that does not know yet that it is none may lack what was committed since. Kafka's clients tell it by the
 * leader epochs that they saw in Metadata, which this one does not ask for. Where the record is, it is found at last.
 */
static bool is_stale(const struct consumer *k, const struct kafka_fetch_response_partition_data *p)
{
    int64_t end = clients_committed(k->clients, p->partition_index);
    bool is = p->error_code == KERR_OFFSET_OUT_OF_RANGE && k->partitions[p->partition_index].position <= end;
    if (is)
        sim_cover("a leader of before lacked what a consumer wanted");
    return is;
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
            int64_t before = k->partitions[p->partition_index].position;
            if (p->error_code == KERR_NONE)
                take_records(k, p->partition_index, p->records);
            if (k->partitions[p->partition_index].position > p->high_watermark && p->error_code == KERR_NONE &&
                before < p->high_watermark)
                sim_fail(k->sim, "partition %d: a record behind the high watermark was given out", p->partition_index);
        }
}

static void tick(void *ctx)
{
    struct consumer *k = ctx;
    struct kafka_fetch_request q;
    struct kafka_fetch_request_fetch_topic t;
    struct kafka_fetch_request_fetch_partition p[CLIENTS_PARTITIONS];
    k->event = sim_at(k->sim, 5 + sim_below(k->sim, 100), tick, k);
    if (!k->clients->has_topic || !kclient_connect(k->client, client_port(k->clients)) || kclient_waiting(k->client))
        return;
    bool large = sim_chance(k->sim, 200);
    kafka_fetch_request_init(&q);
    kafka_fetch_request_fetch_topic_init(&t);
    for (int32_t i = 0; i < CLIENTS_PARTITIONS; i++) {
        kafka_fetch_request_fetch_partition_init(&p[i]);
        p[i].partition = i;
        p[i].fetch_offset = k->partitions[i].position;
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
    kclient_ask(k->client, KAFKA_API_FETCH, (int16_t)(4 + sim_below(k->sim, 9)), &q, on_fetched, k);
}

struct consumer *consumer_new(struct clients *c)
{
    struct consumer *k = xcalloc(1, sizeof *k);
    *k = (struct consumer){.clients = c, .sim = c->sim, .client = kclient_new(c->tcp, c->sim, "consumer")};
    k->event = sim_at(c->sim, 0, tick, k);
    return k;
}

struct consumer *consumer_free(struct consumer *k)
{
    sim_cancel(k->sim, k->event);
    kclient_free(k->client);
    for (int32_t i = 0; i < CLIENTS_PARTITIONS; i++)
        free(k->partitions[i].seen);
    free(k);
    return NULL;
}
