/* test_hot_path.c - Produce, Metadata and ApiVersions from the client's bytes to the calls that they make, and back;
 * Fetch is in test_fetch.c. */
#include "kafka/api_versions.h"
#include "kafka/apis.h"
#include "kafka/metadata.h"
#include "kafka/produce.h"
#include "libs/base/bytes.h"
#include "libs/records/records.h"
#include "tests/unit/frontend/world.h"

#include <criterion/criterion.h>
#include <unistd.h>

TestSuite(hot_path, .init = world_open, .fini = world_close);

/* ---- Produce ---- */

static uint8_t batch[20000] = {[BATCH_MAGIC] = RECORDS_MAGIC};
static size_t batch_size = BATCH_HEADER_SIZE + 10;

static void send_produce(int16_t version, int32_t correlation, int16_t acks, const int32_t *partitions, int32_t count)
{
    struct kafka_produce_request q;
    struct kafka_produce_request_topic_produce_data t;
    struct kafka_produce_request_partition_produce_data p[8];

    put_i32(batch + BATCH_LENGTH, (int32_t)batch_size - BATCH_LENGTH_OVERHEAD);
    kafka_produce_request_init(&q);
    kafka_produce_request_topic_produce_data_init(&t);
    q.acks = acks;
    q.timeout_ms = 1000;
    q.topic_data = &t;
    q.topic_data_count = 1;
    t.name = version < 13 ? SLICE_OF("a") : SLICE_EMPTY;
    t.topic_id = version < 13 ? UUID_ZERO : WORLD_TOPIC_A;
    t.partition_data = p;
    t.partition_data_count = count;
    for (int32_t i = 0; i < count; i++) {
        kafka_produce_request_partition_produce_data_init(&p[i]);
        p[i].index = partitions[i];
        p[i].records = slice_make(batch, batch_size);
    }
    world_send(KAFKA_API_PRODUCE, version, correlation, &q);
}

static void reply_appends(size_t call, int64_t base_offset, int error, size_t count)
{
    Karst__Bus__AppendReply reply = KARST__BUS__APPEND_REPLY__INIT;
    Karst__Bus__AppendResult results[8], *list[8];

    for (size_t i = 0; i < count; i++) {
        karst__bus__append_result__init(&results[i]);
        results[i].base_offset = base_offset + (int64_t)i;
        results[i].error = error;
        results[i].log_append_time_ms = -1;
        results[i].leader_id = error ? 2 : -1;
        results[i].leader_epoch = error ? 5 : -1;
        list[i] = &results[i];
    }
    reply.n_results = count;
    reply.results = list;
    world_reply_append(call, &reply);
}

static const struct kafka_produce_response_partition_produce_response *produced(int16_t version, int32_t correlation,
                                                                                int32_t i)
{
    int32_t got;
    const struct kafka_produce_response *a = world_receive(KAFKA_API_PRODUCE, version, &got);

    cr_assert_not_null(a);
    cr_assert_eq(got, correlation);
    return &a->responses[0].partition_responses[i];
}

Test(hot_path, produce_goes_to_the_leaders_and_comes_back_together)
{
    static const int32_t partitions[] = {0, 3, 1, 2, 99};

    send_produce(13, 5, -1, partitions, 5);
    cr_assert_eq(world_call_count, 2, "one Append a node");
    size_t to_1 = world_calls[0].peer == 1 ? 0 : 1;
    const Karst__Bus__AppendRequest *q = world_calls[to_1].body;
    cr_assert_eq(q->n_partitions, 2);
    cr_assert_eq(q->partitions[1]->partition, 1);
    cr_assert_eq(q->partitions[1]->leader_epoch, 4);
    cr_assert_eq(q->acks, -1);
    cr_assert_eq(world_calls[to_1].payload_count, 2);
    cr_assert_eq(world_calls[to_1].payloads[0].size_bytes, batch_size);
    reply_appends(to_1, 10, 0, 2);
    cr_assert_null(world_receive(KAFKA_API_PRODUCE, 13, NULL), "the other node has not answered");
    reply_appends(1 - to_1, 20, 0, 1);
    const struct kafka_produce_response_partition_produce_response *p = produced(13, 5, 0);
    cr_assert(p[0].base_offset == 10 && p[1].base_offset == 20 && p[2].base_offset == 11);
    cr_assert(p[3].error_code == KERR_NOT_LEADER_OR_FOLLOWER && p[3].base_offset == -1);
    cr_assert_eq(p[4].error_code, KERR_UNKNOWN_TOPIC_OR_PARTITION);
}

Test(hot_path, produce_overlaps_and_answers_in_order)
{
    static const int32_t partition = 0;

    send_produce(9, 1, 1, &partition, 1);
    send_produce(9, 2, 1, &partition, 1);
    cr_assert_eq(world_call_count, 2);
    reply_appends(1, 20, 0, 1);
    cr_assert_null(world_receive(KAFKA_API_PRODUCE, 9, NULL));
    reply_appends(0, 10, 0, 1);
    cr_assert_eq(produced(9, 1, 0)->base_offset, 10);
    cr_assert_eq(produced(9, 2, 0)->base_offset, 20);
}

Test(hot_path, produce_that_did_not_come_to_an_answer)
{
    static const struct {
        Karst__Bus__Outcome outcome;
        enum kafka_error error;
    } cases[] = {
        {KARST__BUS__OUTCOME__OUTCOME_NOT_SENT, KERR_NOT_LEADER_OR_FOLLOWER},
        {KARST__BUS__OUTCOME__OUTCOME_OVERLOADED, KERR_NOT_LEADER_OR_FOLLOWER},
        {KARST__BUS__OUTCOME__OUTCOME_UNKNOWN, KERR_REQUEST_TIMED_OUT},
        {KARST__BUS__OUTCOME__OUTCOME_TIMEOUT, KERR_REQUEST_TIMED_OUT},
    };
    static const int32_t partition = 0;

    for (size_t i = 0; i < COUNTOF(cases); i++) {
        send_produce(9, (int32_t)i, -1, &partition, 1);
        world_end_call(i, cases[i].outcome);
        cr_assert_eq(produced(9, (int32_t)i, 0)->error_code, cases[i].error);
    }
    cr_assert_eq(world_call_count, COUNTOF(cases), "never sent twice");
    cr_assert_not(world_is_closed());
}

Test(hot_path, produce_without_acks)
{
    static const int32_t partition = 0, unknown = 77;

    send_produce(9, 1, 0, &partition, 1);
    reply_appends(0, 10, 0, 1);
    cr_assert_null(world_receive(KAFKA_API_PRODUCE, 9, NULL));
    cr_assert_not(world_is_closed());
    send_produce(9, 2, 0, &unknown, 1);
    cr_assert(world_is_closed());
}

Test(hot_path, produce_refused_as_a_whole)
{
    static const int32_t partitions[] = {0, 1};

    send_produce(9, 1, 5, partitions, 2);
    cr_assert_eq(produced(9, 1, 1)->error_code, KERR_INVALID_REQUIRED_ACKS);
    batch[BATCH_ATTRIBUTES + 1] = BATCH_ATTR_TRANSACTIONAL;
    send_produce(9, 2, -1, partitions, 2);
    cr_assert_eq(produced(9, 2, 0)->error_code, KERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED);
    batch[BATCH_ATTRIBUTES + 1] = 4;
    send_produce(6, 3, -1, partitions, 2);
    cr_assert_eq(produced(6, 3, 0)->error_code, KERR_UNSUPPORTED_COMPRESSION_TYPE);
    batch[BATCH_MAGIC] = 7;
    send_produce(9, 4, -1, partitions, 2);
    cr_assert_eq(produced(9, 4, 1)->error_code, KERR_CORRUPT_MESSAGE);
    cr_assert_eq(world_call_count, 0);
}

Test(hot_path, produce_tells_the_leader)
{
    static const int32_t partition = 0;
    int32_t got;

    send_produce(10, 1, 1, &partition, 1);
    reply_appends(0, -1, KERR_NOT_LEADER_OR_FOLLOWER, 1);
    const struct kafka_produce_response *a = world_receive(KAFKA_API_PRODUCE, 10, &got);
    cr_assert_not_null(a);
    cr_assert_eq(a->responses[0].partition_responses[0].current_leader.leader_id, 2);
    cr_assert_eq(a->node_endpoints_count, 1);
    cr_assert_eq(a->node_endpoints[0].node_id, 2);
    cr_assert(slice_eq_str(a->node_endpoints[0].host, "front"));
    cr_assert_eq(a->node_endpoints[0].port, 9092);
}

/* What was certainly not written is told with the leader that we know by now, or that there is none. */
Test(hot_path, produce_tells_the_leader_that_the_image_names)
{
    static const int32_t partitions[] = {0, 2};
    int32_t got;

    send_produce(10, 1, 1, partitions, 2);
    world_lead(0, 2);
    world_end_call(0, KARST__BUS__OUTCOME__OUTCOME_NOT_SENT);
    const struct kafka_produce_response *a = world_receive(KAFKA_API_PRODUCE, 10, &got);
    cr_assert_not_null(a);
    const struct kafka_produce_response_partition_produce_response *p = a->responses[0].partition_responses;
    cr_assert_eq(p[0].error_code, KERR_NOT_LEADER_OR_FOLLOWER);
    cr_assert(p[0].current_leader.leader_id == 2 && p[0].current_leader.leader_epoch == 5);
    cr_assert_eq(p[1].error_code, KERR_NOT_LEADER_OR_FOLLOWER);
    cr_assert(p[1].current_leader.leader_id == -1 && p[1].current_leader.leader_epoch == 4);
    cr_assert_eq(a->node_endpoints_count, 1);
    cr_assert_eq(a->node_endpoints[0].node_id, 2);
}

/* Perhaps written: no leader is told, and it is not sent again. */
Test(hot_path, produce_of_unknown_outcome_is_sent_once)
{
    static const int32_t partition = 0;

    send_produce(10, 1, 1, &partition, 1);
    world_lead(0, 2);
    world_end_call(0, KARST__BUS__OUTCOME__OUTCOME_UNKNOWN);
    cr_assert_eq(produced(10, 1, 0)->error_code, KERR_REQUEST_TIMED_OUT);
    world_pass(60000);
    cr_assert_eq(world_call_count, 1);
}

Test(hot_path, produce_outlives_its_client)
{
    static const int32_t partition = 0;

    send_produce(9, 1, 1, &partition, 1);
    world_hang_up();
    reply_appends(0, 10, 0, 1);
    cr_assert_eq(pipeline_running(world.pipeline), 0);
}

/* Records of some size are named to storage where they lie; they stay there as long as anybody holds them. */
Test(hot_path, produce_in_shared_memory)
{
    static const int32_t partitions[] = {0, 1};

    batch_size = 2000;
    send_produce(9, 1, 1, partitions, 1);
    cr_assert_eq(world_calls[0].payloads[0].kind, REF_INLINE, "cheaper to copy");
    batch_size = sizeof batch;
    memset(batch + BATCH_HEADER_SIZE, 'r', sizeof batch - BATCH_HEADER_SIZE);
    send_produce(9, 2, 1, partitions, 2);
    for (int i = 0; i < 2; i++) {
        const struct ref *r = &world_calls[1].payloads[i];
        cr_assert(r->kind == REF_ARENA && r->instance == shm_arena_id(world.shm) && r->size_bytes == sizeof batch);
        cr_assert_eq(shm_arena_position(world.shm, r->bytes.data), r->position);
        uint8_t there[sizeof batch];
        cr_assert_eq(pread(shm_arena_fd(world.shm), there, sizeof there, (off_t)r->position), sizeof there);
        cr_assert_eq(memcmp(there, batch, sizeof there), 0);
    }
    struct ref kept = ref_part(&world_calls[1].payloads[0], 100, 500);
    reply_appends(0, 10, 0, 1);
    reply_appends(1, 11, 0, 2);
    cr_assert_eq(produced(9, 1, 0)->base_offset, 10);
    cr_assert_eq(produced(9, 2, 0)->base_offset, 11);
    memset(batch + BATCH_HEADER_SIZE, 's', sizeof batch - BATCH_HEADER_SIZE);
    for (int i = 0; i < 8; i++) {
        send_produce(9, 3, 1, partitions, 1);
        reply_appends(2 + (size_t)i, 10, 0, 1);
    }
    for (size_t i = 0; i < kept.bytes.size; i++)
        cr_assert_eq(kept.bytes.data[i], 'r');
    ref_release(&kept);
}

/* ---- Metadata ---- */

static const struct kafka_metadata_response *ask_metadata(int16_t version, const char *const *names, int32_t count)
{
    struct kafka_metadata_request q;
    struct kafka_metadata_request_metadata_request_topic t[8];

    kafka_metadata_request_init(&q);
    q.topics = t;
    q.topics_count = count;
    for (int32_t i = 0; i < count; i++) {
        kafka_metadata_request_metadata_request_topic_init(&t[i]);
        t[i].name = slice_str(names[i]);
        if (names[i] == NULL)
            t[i].topic_id = (struct uuid){{9}};
    }
    world_send(KAFKA_API_METADATA, version, 1, &q);
    const struct kafka_metadata_response *a = world_receive(KAFKA_API_METADATA, version, NULL);
    cr_assert_not_null(a);
    return a;
}

Test(hot_path, metadata_of_all_and_none)
{
    cr_assert_eq(ask_metadata(0, NULL, 0)->topics_count, 1);
    cr_assert_eq(ask_metadata(1, NULL, 0)->topics_count, 0);
    const struct kafka_metadata_response *a = ask_metadata(13, NULL, -1);
    cr_assert_eq(a->topics_count, 1);
    cr_assert_eq(a->brokers_count, 2);
    cr_assert_eq(a->topics[0].partitions_count, 12);
    cr_assert(a->topics[0].partitions[2].error_code == KERR_LEADER_NOT_AVAILABLE &&
              a->topics[0].partitions[2].leader_id == -1);
    cr_assert_eq(a->topics[0].topic_authorized_operations, INT32_MIN);
}

Test(hot_path, metadata_of_names)
{
    static const char *const names[] = {"a", "a", "missing", "bad/name"};
    static const char *const by_id[] = {NULL};
    const struct kafka_metadata_response *a = ask_metadata(9, names, 4);

    cr_assert_eq(a->topics_count, 3, "each once");
    cr_assert_eq(a->topics[0].error_code, 0);
    cr_assert_eq(a->topics[1].error_code, KERR_UNKNOWN_TOPIC_OR_PARTITION);
    cr_assert_eq(a->topics[2].error_code, KERR_INVALID_TOPIC_EXCEPTION);
    cr_assert_eq(world_call_count, 1, "the missing one makes itself");
    cr_assert_eq(world_calls[0].kafka_key, KAFKA_API_CREATE_TOPICS);
    ask_metadata(9, names, 4);
    cr_assert_eq(world_call_count, 1, "once at a time");
    a = ask_metadata(12, by_id, 1);
    cr_assert_eq(a->topics[0].error_code, KERR_UNKNOWN_TOPIC_ID);
    cr_assert_null(a->topics[0].name.data);
}

Test(hot_path, metadata_by_id_before_its_time)
{
    static const char *const by_id[] = {NULL};
    const struct kafka_metadata_response *a = ask_metadata(10, by_id, 1);

    cr_assert(a->topics[0].error_code == KERR_INVALID_REQUEST && a->brokers_count == 0 && a->controller_id == -1);
}

/* ---- ApiVersions ---- */

Test(hot_path, api_versions)
{
    struct kafka_api_versions_request q;

    kafka_api_versions_request_init(&q);
    q.client_software_name = SLICE_OF("me");
    q.client_software_version = SLICE_OF("1.0");
    world_send(KAFKA_API_API_VERSIONS, 3, 1, &q);
    const struct kafka_api_versions_response *a = world_receive(KAFKA_API_API_VERSIONS, 3, NULL);
    cr_assert_eq(a->supported_features_count, 1);
    cr_assert(a->api_keys[0].api_key == 0 && a->api_keys[0].min_version == 0 && a->api_keys[0].max_version == 13);
    q.client_software_name = SLICE_OF(" ");
    world_send(KAFKA_API_API_VERSIONS, 4, 1, &q);
    a = world_receive(KAFKA_API_API_VERSIONS, 4, NULL);
    cr_assert(a->error_code == KERR_INVALID_REQUEST && a->api_keys_count == 0 && a->supported_features_count == 0);
}
