/* The tables of APIs and types, splices, JSON, and one message by hand. */
#include <criterion/criterion.h>

#include "kafka/apis.h"
#include "kafka/fetch.h"
#include "kafka/metadata.h"
#include "kafka/produce.h"
#include "kafka/request_header.h"
#include "libs/wire/wire.h"

Test(wire, apis)
{
    cr_assert_eq(wire_api_count(), 93);
    cr_assert_null(wire_api(-1));
    cr_assert_null(wire_api(93));
    const struct wire_api *fetch = wire_api(KAFKA_API_FETCH);
    cr_assert_str_eq(fetch->name, "Fetch");
    cr_assert_eq(fetch->request, &kafka_fetch_request_type);
    cr_assert(fetch->version_min == 4 && fetch->version_max == 18 && fetch->on_broker && fetch->on_controller);
    cr_assert_eq(wire_request_header_version(fetch, 11), 1);
    cr_assert_eq(wire_request_header_version(fetch, 12), 2);
    cr_assert_eq(wire_response_header_version(fetch, 12), 1);
    cr_assert_eq(wire_response_header_version(wire_api(KAFKA_API_API_VERSIONS), 4), 0);
    const struct wire_api *removed = wire_api(KAFKA_API_LEADER_AND_ISR);
    cr_assert(removed->version_min > removed->version_max);
    cr_assert_eq(wire_version_min(removed->request), -1);
    cr_assert(wire_api(KAFKA_API_INIT_PRODUCER_ID)->latest_unstable);
}

Test(wire, types_by_name_and_id)
{
    cr_assert_eq(wire_type_by_name("MetadataResponse"), &kafka_metadata_response_type);
    cr_assert_null(wire_type_by_name("Nonsense"));
    cr_assert_str_eq(wire_name(wire_metadata_record(2)), "TopicRecord");
    cr_assert_null(wire_metadata_record(-1));
    cr_assert_null(wire_metadata_record(999));
    cr_assert_str_eq(wire_name(wire_group_record(1, true)), "OffsetCommitKey");
    cr_assert_str_eq(wire_name(wire_group_record(1, false)), "OffsetCommitValue");
    cr_assert_str_eq(wire_name(wire_txn_record(0, true)), "TransactionLogKey");
    cr_assert_not_null(wire_type_by_name("KarstServiceRecord"));
}

/* The header of a flexible request keeps the old encoding of the client id. */
Test(wire, request_header)
{
    struct kafka_request_header h;
    kafka_request_header_init(&h);
    h.request_api_key = 3;
    h.request_api_version = 12;
    h.correlation_id = 7;
    h.client_id = SLICE_OF("me");
    struct buf b = {0};
    cr_assert_eq(wire_encode(&kafka_request_header_type, 2, &h, &b), 0);
    cr_assert_eq(b.size, 13);
    cr_assert_arr_eq(b.data, "\0\3\0\14\0\0\0\7\0\2me\0", 13);
    cr_assert_eq(wire_encode(&kafka_request_header_type, 0, &h, &b), -EINVAL);
    cr_assert_eq(b.size, 13);
    buf_free(&b);
}

static struct kafka_fetch_response_partition_data one_partition(struct slice records)
{
    struct kafka_fetch_response_partition_data p;
    kafka_fetch_response_partition_data_init(&p);
    p.partition_index = 3;
    p.high_watermark = 99;
    p.records = records;
    return p;
}

Test(wire, splices)
{
    struct kafka_fetch_response_partition_data parts[3] = {one_partition(SLICE_OF("first")), one_partition(SLICE_NULL),
                                                           one_partition(SLICE_OF("second"))};
    struct kafka_fetch_response_fetchable_topic_response topic;
    kafka_fetch_response_fetchable_topic_response_init(&topic);
    topic.partitions = parts;
    topic.partitions_count = 3;
    struct kafka_fetch_response m;
    kafka_fetch_response_init(&m);
    m.responses = &topic;
    m.responses_count = 1;

    struct buf whole = {0}, spliced = {0}, joined = {0};
    buf_append(&spliced, "before", 6);
    struct wire_splice splices[2];
    size_t count = 0;
    cr_assert_eq(wire_encode(&kafka_fetch_response_type, 17, &m, &whole), 0);
    cr_assert_eq(wire_encode_splice(&kafka_fetch_response_type, 17, &m, &spliced, splices, 1, &count), -ENOSPC);
    cr_assert_eq(spliced.size, 6);
    cr_assert_eq(wire_encode_splice(&kafka_fetch_response_type, 17, &m, &spliced, splices, 0, &count), -ENOSPC);
    cr_assert_eq(wire_encode_splice(&kafka_fetch_response_type, 17, &m, &spliced, splices, 2, &count), 0);
    cr_assert_eq(count, 2);
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
        buf_append(&joined, spliced.data + 6 + at, splices[i].at - at);
        buf_append(&joined, splices[i].records.data, splices[i].records.size);
        at = splices[i].at;
    }
    buf_append(&joined, spliced.data + 6 + at, spliced.size - 6 - at);
    cr_assert(slice_eq(buf_slice(&joined), buf_slice(&whole)));
    buf_free(&whole);
    buf_free(&spliced);
    buf_free(&joined);
}

Test(wire, json)
{
    struct kafka_metadata_request_metadata_request_topic topic;
    kafka_metadata_request_metadata_request_topic_init(&topic);
    topic.name = SLICE_OF("a\"b\n");
    struct kafka_metadata_request m;
    kafka_metadata_request_init(&m);
    m.topics = &topic;
    m.topics_count = 1;
    struct buf b = {0};
    wire_json(&kafka_metadata_request_type, 12, &m, &b);
    cr_assert(slice_eq_str(buf_slice(&b),
                           "{\"Topics\":[{\"TopicId\":\"AAAAAAAAAAAAAAAAAAAAAA\",\"Name\":\"a\\\"b\\u000a\"}],"
                           "\"AllowAutoTopicCreation\":true,\"IncludeTopicAuthorizedOperations\":false}"),
              SLICE_F, SLICE_A(buf_slice(&b)));
    b.size = 0;
    m.topics_count = -1;
    wire_json(&kafka_metadata_request_type, 1, &m, &b);
    cr_assert(slice_eq_str(buf_slice(&b), "{\"Topics\":null}"), SLICE_F, SLICE_A(buf_slice(&b)));
    b.size = 0;
    wire_json(&kafka_metadata_request_type, 99, &m, &b);
    cr_assert(slice_eq_str(buf_slice(&b), "null"));
    buf_free(&b);
}

/* A field that the version lacks and that may not be dropped is refused, and null where it may not be. */
Test(wire, refusals_of_encode)
{
    struct kafka_metadata_request m;
    kafka_metadata_request_init(&m);
    struct buf b = {0};
    m.allow_auto_topic_creation = false;
    cr_assert_eq(wire_encode(&kafka_metadata_request_type, 3, &m, &b), -EINVAL);
    cr_assert_eq(wire_encode(&kafka_metadata_request_type, 4, &m, &b), 0);
    m.topics_count = -1;
    m.allow_auto_topic_creation = true;
    cr_assert_eq(wire_encode(&kafka_metadata_request_type, 0, &m, &b), -EINVAL);
    cr_assert_eq(wire_encode(&kafka_metadata_request_type, 1, &m, &b), 0);
    cr_assert_eq(wire_encode(&kafka_metadata_request_type, 14, &m, &b), -EINVAL);

    static uint8_t long_text[32768];
    struct kafka_metadata_request_metadata_request_topic topic;
    kafka_metadata_request_metadata_request_topic_init(&topic);
    m.topics = &topic;
    m.topics_count = 1;
    topic.name = slice_make(long_text, 32767);
    cr_assert_eq(wire_encode(&kafka_metadata_request_type, 9, &m, &b), 0);
    topic.name.size = 32768;
    cr_assert_eq(wire_encode(&kafka_metadata_request_type, 9, &m, &b), -EINVAL);
    buf_free(&b);
}
