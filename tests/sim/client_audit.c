/* client_audit.c - a model client that reads again, in large pieces, what the consumer has read, and deletes old
 * records under all readers. */
#include "tests/sim/clients.h"

#include "kafka/apis.h"
#include "kafka/delete_records.h"
#include "kafka/fetch.h"
#include "libs/base/kafka_error.h"
#include "libs/records/records.h"
#include "tests/sim/cluster.h"

#include <stdlib.h>

enum { KEEP_RECORDS = 200 };

struct auditor {
    struct clients *clients;
    struct sim *sim;
    struct kclient *client;
    int64_t asked; /* the offset of the fetch that is under way */
    uint64_t event;
};

static void check_record(struct auditor *a, int32_t partition, const struct record *record)
{
    struct seen s;
    const struct seen *known = consumer_at(a->clients->consumer, partition, record->offset);
    if (!client_read_value(record->value, &s) ||
        (known != NULL && (known->producer != s.producer || known->number != s.number)))
        sim_fail(a->sim, "partition %d: offset %lld, read again, holds something else", partition,
                 (long long)record->offset);
}

/* How many bytes it were; the last batch may be cut short. */
static size_t check_records(struct auditor *a, int32_t partition, struct slice records)
{
    struct batch b;
    struct slice whole;
    struct buf scratch = {0};
    size_t size = records.size;
    int64_t next = -1;
    int got;
    while ((got = batch_next(&records, &b, &whole)) == 1) {
        struct record_iter it;
        struct record record;
        if (!batch_crc_holds(&b, whole) || record_iter_init_with(&it, a->clients->reader, &b, whole, &scratch, 1 << 20))
            sim_fail(a->sim, "partition %d: the batch at %lld, read again, is damaged", partition,
                     (long long)b.base_offset);
        if (next < 0 ? b.base_offset > a->asked || batch_next_offset(&b) <= a->asked : b.base_offset != next)
            sim_fail(a->sim, "partition %d: asked for offset %lld, got %lld", partition,
                     (long long)(next < 0 ? a->asked : next), (long long)b.base_offset);
        next = batch_next_offset(&b);
        while (record_iter_next(&it, &record) == 1)
            check_record(a, partition, &record);
    }
    if (got != 0 && got != -ENODATA)
        sim_fail(a->sim, "partition %d: read again, something that is no batch", partition);
    buf_free(&scratch);
    return size;
}

static void on_fetched(void *ctx, const void *response)
{
    struct auditor *a = ctx;
    const struct kafka_fetch_response *r = response;
    if (r == NULL || r->error_code != KERR_NONE || r->responses_count == 0)
        return;
    const struct kafka_fetch_response_partition_data *p = &r->responses[0].partitions[0];
    if (p->error_code == KERR_OFFSET_OUT_OF_RANGE)
        sim_cover("a record that is read again was deleted");
    else if (!client_may_retry(p->error_code))
        sim_fail(a->sim, "Fetch of partition %d again: %s", p->partition_index, kafka_error_name(p->error_code));
    else if (p->error_code == KERR_NONE && check_records(a, p->partition_index, p->records) >= 65536)
        sim_cover("64 KiB and more were read again");
}

static void fetch(struct auditor *a, int32_t partition, int64_t end)
{
    struct kafka_fetch_request q;
    struct kafka_fetch_request_fetch_topic t;
    struct kafka_fetch_request_fetch_partition p;
    kafka_fetch_request_init(&q);
    kafka_fetch_request_fetch_topic_init(&t);
    kafka_fetch_request_fetch_partition_init(&p);
    p.partition = partition;
    p.fetch_offset = a->asked = MAX(0, end - 1 - (int64_t)sim_below(a->sim, (uint64_t)(2 * KEEP_RECORDS)));
    p.partition_max_bytes = 1000 + (int32_t)sim_below(a->sim, 600000);
    t.topic = SLICE_OF(CLIENTS_TOPIC);
    t.partitions = &p;
    t.partitions_count = 1;
    q.topics = &t;
    q.topics_count = 1;
    q.max_wait_ms = 100;
    q.max_bytes = p.partition_max_bytes;
    kclient_ask(a->client, KAFKA_API_FETCH, (int16_t)(4 + sim_below(a->sim, 9)), &q, on_fetched, a);
}

static void on_deleted(void *ctx, const void *response)
{
    struct auditor *a = ctx;
    const struct kafka_delete_records_response *r = response;
    if (r != NULL && r->topics[0].partitions[0].error_code == KERR_NONE)
        sim_cover("records were deleted under their readers");
    else if (r != NULL && a->clients->replicas > 1 && r->topics[0].partitions[0].error_code == KERR_OFFSET_OUT_OF_RANGE)
        sim_cover("a new leader did not know yet how far all have the records");
    else if (r != NULL && !client_may_retry(r->topics[0].partitions[0].error_code))
        sim_fail(a->sim, "DeleteRecords: %s", kafka_error_name(r->topics[0].partitions[0].error_code));
}

static void delete_old(struct auditor *a, int32_t partition, int64_t end)
{
    struct kafka_delete_records_request q;
    struct kafka_delete_records_request_delete_records_topic t;
    struct kafka_delete_records_request_delete_records_partition p;
    kafka_delete_records_request_init(&q);
    kafka_delete_records_request_delete_records_topic_init(&t);
    kafka_delete_records_request_delete_records_partition_init(&p);
    p.partition_index = partition;
    p.offset = MAX(0, end - (int64_t)sim_below(a->sim, KEEP_RECORDS));
    t.name = SLICE_OF(CLIENTS_TOPIC);
    t.partitions = &p;
    t.partitions_count = 1;
    q.topics = &t;
    q.topics_count = 1;
    q.timeout_ms = 5000;
    kclient_ask(a->client, KAFKA_API_DELETE_RECORDS, (int16_t)sim_below(a->sim, 3), &q, on_deleted, a);
}

static void tick(void *ctx)
{
    struct auditor *a = ctx;
    int32_t partition = (int32_t)sim_below(a->sim, CLIENTS_PARTITIONS);
    int64_t end = consumer_position(a->clients->consumer, partition);
    a->event = sim_at(a->sim, 20 + sim_below(a->sim, 200), tick, a);
    if (end == 0 || !kclient_connect(a->client, client_port(a->clients)) || kclient_waiting(a->client))
        return;
    if (sim_chance(a->sim, 30) && !a->clients->finishing)
        delete_old(a, partition, end);
    else
        fetch(a, partition, end);
}

struct auditor *auditor_new(struct clients *c)
{
    struct auditor *a = xcalloc(1, sizeof *a);
    *a = (struct auditor){.clients = c, .sim = c->sim, .client = kclient_new(c->tcp, c->sim, "auditor")};
    a->event = sim_at(c->sim, 0, tick, a);
    return a;
}

struct auditor *auditor_free(struct auditor *a)
{
    sim_cancel(a->sim, a->event);
    kclient_free(a->client);
    free(a);
    return NULL;
}
