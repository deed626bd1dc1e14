/* fetches.c - see fetches.h. */
#include "tests/unit/frontend/fetches.h"

#include "kafka/apis.h"

#include <criterion/criterion.h>

const char *fetches_rack = "";

void send_fetch(int16_t version, int32_t correlation, int32_t session, int32_t epoch, const struct asked *asked,
                int32_t count)
{
    struct kafka_fetch_request q;
    struct kafka_fetch_request_fetch_topic t;
    struct kafka_fetch_request_fetch_partition p[16];

    kafka_fetch_request_init(&q);
    kafka_fetch_request_fetch_topic_init(&t);
    q.max_wait_ms = 500;
    q.min_bytes = 1;
    q.max_bytes = 100000;
    q.rack_id = slice_str(fetches_rack);
    q.session_id = session;
    q.session_epoch = epoch;
    q.topics = &t;
    q.topics_count = count > 0;
    t.topic = version < 13 ? SLICE_OF("a") : SLICE_EMPTY;
    t.topic_id = version < 13 ? UUID_ZERO : WORLD_TOPIC_A;
    t.partitions = p;
    t.partitions_count = count;
    for (int32_t i = 0; i < count; i++) {
        kafka_fetch_request_fetch_partition_init(&p[i]);
        p[i].partition = asked[i].partition;
        p[i].fetch_offset = asked[i].offset;
        p[i].partition_max_bytes = 50000;
    }
    world_send(KAFKA_API_FETCH, version, correlation, &q);
}

void reply_reads(size_t call, int64_t hw, size_t count, const char *records)
{
    Karst__Bus__ReadReply reply = KARST__BUS__READ_REPLY__INIT;
    Karst__Bus__ReadResult results[16], *list[16];

    for (size_t i = 0; i < count; i++) {
        karst__bus__read_result__init(&results[i]);
        results[i].high_watermark = results[i].last_stable_offset = hw;
        results[i].payload = i == 0 && records != NULL ? 0 : -1;
        results[i].diverging_epoch = results[i].leader_id = -1;
        list[i] = &results[i];
    }
    reply.n_results = count;
    reply.results = list;
    world_reply_read(call, &reply, records);
}

void reply_read_with(size_t call, enum kafka_error error, uint32_t preferred)
{
    Karst__Bus__ReadReply reply = KARST__BUS__READ_REPLY__INIT;
    Karst__Bus__ReadResult result = KARST__BUS__READ_RESULT__INIT, *list[] = {&result};

    result.error = error;
    result.preferred_replica = preferred;
    result.payload = result.diverging_epoch = result.leader_id = -1;
    reply.n_results = 1;
    reply.results = list;
    world_reply_read(call, &reply, NULL);
}

const struct kafka_fetch_response *fetched(int16_t version, int32_t correlation)
{
    int32_t got;
    const struct kafka_fetch_response *a = world_receive(KAFKA_API_FETCH, version, &got);

    cr_assert_not_null(a);
    cr_assert_eq(got, correlation);
    return a;
}
