/* test_cluster.c - handlers that answer from image and configuration, and those that go to the controller. */
#include "kafka/apis.h"
#include "kafka/delete_topics.h"
#include "kafka/describe_configs.h"
#include "kafka/describe_topic_partitions.h"
#include "kafka/find_coordinator.h"
#include "kafka/incremental_alter_configs.h"
#include "kafka/init_producer_id.h"
#include "libs/config/config.h"
#include "tests/unit/frontend_api/fake.h"
#include <criterion/criterion.h>

typedef struct kafka_describe_configs_response_describe_configs_resource_result entry;

static struct fake f;
static void open_fake(void)
{
    fake_open(&f);
}
static void close_fake(void)
{
    fake_close(&f);
}
TestSuite(cluster, .init = open_fake, .fini = close_fake);

/* ---- DescribeConfigs ---- */

static const struct kafka_describe_configs_response *describe(int8_t type, const char *name, const char *key,
                                                              bool synonyms)
{
    static struct slice keys[1];
    static struct kafka_describe_configs_request_describe_configs_resource resource;
    static struct kafka_describe_configs_request q; /* another node may answer later */
    kafka_describe_configs_request_init(&q);
    keys[0] = slice_str(key);
    resource.resource_type = type;
    resource.resource_name = slice_str(name);
    resource.configuration_keys = keys;
    resource.configuration_keys_count = key ? 1 : -1;
    q.resources = &resource;
    q.resources_count = 1;
    q.include_synonyms = synonyms;
    fake_ask(&f, &api_describe_configs, 4, &q);
    cr_assert_eq(f.replies, f.call_count == 0);
    return f.response;
}

static void expect_value(const entry *e, const char *value, int8_t source)
{
    cr_expect(slice_eq_str(e->value, value), "%.*s is %.*s", SLICE_A(e->name), SLICE_A(e->value));
    cr_expect_eq(e->config_source, source, "%.*s has source %d", SLICE_A(e->name), e->config_source);
}

Test(cluster, topic_override_goes_before_all)
{
    const entry *e = describe(2, "b", "retention.ms", true)->results[0].configs;
    expect_value(e, "5", 1);
    cr_assert_eq(e->synonyms_count, 1); /* log.retention.ms has no default: not shown */
    cr_expect(slice_eq_str(e->synonyms[0].name, "retention.ms"));
    cr_expect_eq(e->config_type, 5);
    cr_expect(slice_is_null(e->documentation));
}

Test(cluster, topic_takes_file_and_defaults)
{
    const entry *e = describe(2, "a", "segment.bytes", true)->results[0].configs;
    expect_value(e, "2000000", 4);
    cr_assert_eq(e->synonyms_count, 2);
    cr_expect(slice_eq_str(e->synonyms[0].name, "log.segment.bytes"));
    cr_expect_eq(e->synonyms[0].source, 4);
    cr_expect(slice_eq_str(e->synonyms[1].value, "1073741824"));
    cr_expect_eq(e->synonyms[1].source, 5);
    expect_value(describe(2, "a", "min.insync.replicas", true)->results[0].configs, "1", 3);
    expect_value(describe(2, "a", "retention.ms", true)->results[0].configs, "604800000", 5);
    cr_expect_eq(describe(2, "a", "segment.ms", true)->results[0].configs[0].synonyms_count, 0);
}

Test(cluster, all_topic_keys_but_internal_ones)
{
    const struct kafka_describe_configs_response *a = describe(2, "a", NULL, false);
    cr_expect_eq(a->results[0].configs_count, 33);
    cr_expect_eq(a->results[0].error_code, 0);
    cr_expect(slice_eq_str(a->results[0].error_message, ""));
    for (int32_t i = 0; i < a->results[0].configs_count; i++)
        cr_expect(!a->results[0].configs[i].read_only);
}

Test(cluster, brokers)
{
    cr_expect_eq(describe(4, "1", NULL, false)->results[0].configs_count, 340);
    expect_value(describe(4, "1", "node.id", false)->results[0].configs, "1", 4);
    cr_expect(describe(4, "1", "node.id", false)->results[0].configs[0].read_only);
    const entry *e = describe(4, "1", "ssl.keystore.password", false)->results[0].configs;
    cr_expect(e->is_sensitive && slice_is_null(e->value));
    const struct kafka_describe_configs_response *a = describe(4, "", NULL, true);
    cr_assert_eq(a->results[0].configs_count, 1);
    expect_value(a->results[0].configs, "1", 3);
    cr_expect_eq(a->results[0].configs[0].synonyms_count, 1);
    a = describe(4, "2", NULL, false);
    cr_expect_eq(a->results[0].error_code, KERR_INVALID_REQUEST);
    cr_expect(
        slice_eq_str(a->results[0].error_message, "Unexpected broker id, expected 1 or empty string, but received 2"));
    cr_expect(slice_eq_str(describe(4, "x", NULL, false)->results[0].error_message,
                           "Broker id must be an integer, but it is: x"));
}

/* The front end was started with the file of node 7: what broker 1 has is for node 1 to say. */
static const struct kafka_describe_configs_response *describe_other(enum kafka_error error, const char *key)
{
    entry said[2];
    struct kafka_describe_configs_response_describe_configs_result row;
    struct kafka_describe_configs_response response;
    config_set(f.config, "node.id", "7");
    describe(4, "1", key, true);
    cr_assert_eq(f.call_count, 1);
    cr_assert_eq(f.calls[0].role, KARST__BUS__ROLE__ROLE_STORAGE);
    cr_assert_eq(f.calls[0].id, 1);
    cr_assert_eq(f.calls[0].api_key, KAFKA_API_DESCRIBE_CONFIGS);
    kafka_describe_configs_response_init(&response);
    kafka_describe_configs_response_describe_configs_result_init(&row);
    for (size_t i = 0; i < COUNTOF(said); i++)
        kafka_describe_configs_response_describe_configs_resource_result_init(&said[i]);
    said[0].name = SLICE_OF("node.id");
    said[0].value = SLICE_OF("1");
    said[1].name = SLICE_OF("broker.rack");
    said[1].value = SLICE_OF("east");
    row.configs = said;
    row.configs_count = 2;
    response.results = &row;
    response.results_count = 1;
    fake_answer(&f, 0, error, error == KERR_NONE ? &response : NULL);
    cr_assert_eq(f.replies, 1);
    return f.response;
}

Test(cluster, the_file_of_another_node)
{
    const entry *e = describe_other(KERR_NONE, "broker.rack")->results[0].configs;
    expect_value(e, "east", 4);
    cr_expect_eq(e->synonyms_count, 1);
}

Test(cluster, nothing_of_our_file_is_told_as_another_nodes)
{
    expect_value(describe_other(KERR_NONE, "log.segment.bytes")->results[0].configs, "1073741824", 5);
}

Test(cluster, another_node_that_does_not_answer)
{
    const struct kafka_describe_configs_response *a = describe_other(KERR_NOT_LEADER_OR_FOLLOWER, "broker.rack");
    cr_expect_eq(a->results[0].error_code, KERR_REQUEST_TIMED_OUT);
    cr_expect_eq(a->results[0].configs_count, 0);
}

Test(cluster, what_is_not_there)
{
    cr_expect_eq(describe(2, "nope", NULL, false)->results[0].error_code, KERR_UNKNOWN_TOPIC_OR_PARTITION);
    cr_expect_eq(describe(2, "n@pe", NULL, false)->results[0].error_code, KERR_INVALID_TOPIC_EXCEPTION);
    cr_expect_eq(describe(2, "a", "no.such.key", false)->results[0].configs_count, 0);
    cr_expect_eq(describe(77, "a", NULL, false)->results[0].error_code, KERR_INVALID_REQUEST);
    cr_expect_eq(describe(32, "any", NULL, false)->results[0].configs_count, 17);
    cr_expect_eq(describe(32, "", NULL, false)->results[0].error_code, KERR_INVALID_REQUEST);
    cr_expect_eq(describe(16, "any", NULL, false)->results[0].configs_count, 3);
    cr_expect_eq(describe(8, "1", NULL, false)->results[0].configs_count, 0);
}

/* ---- DescribeTopicPartitions ---- */

static const struct kafka_describe_topic_partitions_response *pages(const char *name, int32_t limit, const char *cursor,
                                                                    int32_t from)
{
    static struct kafka_describe_topic_partitions_request_topic_request topic;
    static struct kafka_describe_topic_partitions_request_cursor c;
    struct kafka_describe_topic_partitions_request q;
    kafka_describe_topic_partitions_request_init(&q);
    topic.name = slice_str(name);
    q.topics = &topic;
    q.topics_count = name ? 1 : 0;
    q.response_partition_limit = limit;
    c.topic_name = slice_str(cursor);
    c.partition_index = from;
    q.cursor = cursor ? &c : NULL;
    fake_ask(&f, &api_describe_topic_partitions, 0, &q);
    cr_assert_eq(f.replies, 1);
    return f.response;
}

Test(cluster, cursor_goes_through_all_topics)
{
    const struct kafka_describe_topic_partitions_response *a = pages(NULL, 4, NULL, 0);
    cr_assert_eq(a->topics_count, 2);
    cr_expect(slice_eq_str(a->topics[0].name, TOPIC_OFFSETS) && a->topics[0].is_internal);
    cr_expect_eq(a->topics[1].partitions_count, 2);
    cr_assert_not_null(a->next_cursor);
    cr_expect(slice_eq_str(a->next_cursor->topic_name, "a"));
    cr_expect_eq(a->next_cursor->partition_index, 2);
    a = pages(NULL, 4, "a", 2);
    cr_assert_eq(a->topics_count, 2);
    cr_expect_eq(a->topics[0].partitions[0].partition_index, 2);
    cr_expect_eq(a->topics[0].partitions[0].leader_id, -1);
    cr_expect_null(a->next_cursor);
    a = pages(NULL, 0, "a", 2); /* 0 counts as 1 */
    cr_assert_eq(a->topics_count, 1);
    cr_expect(slice_eq_str(a->next_cursor->topic_name, "b"));
}

Test(cluster, cursor_that_cannot_be)
{
    cr_expect_eq(pages("a", 1, "zz", 0)->topics[0].error_code, KERR_INVALID_REQUEST);
    cr_expect_eq(pages("a", 1, "a", -1)->topics[0].error_code, KERR_INVALID_REQUEST);
    cr_expect_eq(pages("a", 1, "a", 9)->topics[0].partitions_count, 0);
    cr_expect_eq(pages("nope", 1, NULL, 0)->topics[0].error_code, KERR_UNKNOWN_TOPIC_OR_PARTITION);
    cr_expect_eq(pages("n@pe", 1, NULL, 0)->topics[0].error_code, KERR_INVALID_TOPIC_EXCEPTION);
}

/* ---- FindCoordinator, InitProducerId, forwarded ones ---- */

Test(cluster, coordinator_of_every_version)
{
    struct slice keys[2];
    struct kafka_find_coordinator_request q;
    char first[16], second[16];
    strcpy(first, fake_group_on(0));
    strcpy(second, fake_group_on(1));
    keys[0] = slice_str(first);
    keys[1] = slice_str(second);
    for (int16_t version = 0; version <= 6; version++) {
        kafka_find_coordinator_request_init(&q);
        q.key = keys[1];
        q.coordinator_keys = keys;
        q.coordinator_keys_count = 2;
        fake_ask(&f, &api_find_coordinator, version, &q);
        const struct kafka_find_coordinator_response *a = f.response;
        if (version >= 4) {
            cr_assert_eq(a->coordinators_count, 2);
            cr_expect_eq(a->coordinators[0].node_id, 1);
            cr_expect_eq(a->coordinators[1].node_id, 2);
            cr_expect_eq(a->coordinators[1].port, 9002);
            cr_expect(slice_eq_str(a->coordinators[0].error_message, ""));
        } else {
            cr_expect_eq(a->node_id, 2);
            cr_expect(version == 0 || slice_eq_str(a->error_message, "NONE"));
        }
    }
}

Test(cluster, a_coordinator_that_has_moved_is_another)
{
    struct kafka_find_coordinator_request q;
    char group[16];
    strcpy(group, fake_group_on(1));
    kafka_find_coordinator_request_init(&q);
    q.key = slice_str(group);
    fake_moved = true;
    fake_ask(&f, &api_find_coordinator, 3, &q);
    const struct kafka_find_coordinator_response *a = f.response;
    cr_expect(a->node_id == 1 && a->port == 9001);
}

Test(cluster, transactions_are_refused)
{
    struct kafka_find_coordinator_request q;
    struct kafka_init_producer_id_request i;
    kafka_find_coordinator_request_init(&q);
    q.key = SLICE_OF("tx");
    q.key_type = 1;
    fake_ask(&f, &api_find_coordinator, 3, &q);
    cr_expect_eq(((const struct kafka_find_coordinator_response *)f.response)->error_code, KERR_UNSUPPORTED_VERSION);
    kafka_init_producer_id_request_init(&i);
    i.transactional_id = SLICE_OF("tx");
    fake_ask(&f, &api_init_producer_id, 4, &i);
    cr_expect_eq(((const struct kafka_init_producer_id_response *)f.response)->error_code, KERR_UNSUPPORTED_VERSION);
    i.transactional_id = SLICE_NULL;
    fake_ask(&f, &api_init_producer_id, 4, &i);
    cr_assert_eq(f.call_count, 1);
    cr_expect_eq(f.calls[0].id, 21);
    fake_answer(&f, 0, KERR_NOT_LEADER_OR_FOLLOWER, NULL);
    cr_expect_eq(((const struct kafka_init_producer_id_response *)f.response)->error_code,
                 KERR_COORDINATOR_LOAD_IN_PROGRESS);
}

Test(cluster, old_delete_topics_is_asked_in_the_new_shape)
{
    struct slice names[] = {SLICE_OF("a"), SLICE_OF("zz")};
    struct kafka_delete_topics_request q;
    kafka_delete_topics_request_init(&q);
    q.topic_names = names;
    q.topic_names_count = 2;
    q.timeout_ms = 0;
    fake_ask(&f, &api_delete_topics, 1, &q);
    cr_assert_eq(f.call_count, 1);
    const struct kafka_delete_topics_request *m = f.calls[0].message;
    cr_assert_eq(m->topics_count, 2);
    cr_expect(slice_eq_str(m->topics[1].name, "zz"));
    cr_expect_eq(f.calls[0].timeout_ms, 1);
    fake_answer(&f, 0, KERR_REQUEST_TIMED_OUT, NULL);
    const struct kafka_delete_topics_response *a = f.response;
    cr_assert_eq(a->responses_count, 2);
    cr_expect_eq(a->responses[0].error_code, KERR_REQUEST_TIMED_OUT);
}

Test(cluster, alter_configs_judges_what_is_its_own)
{
    struct kafka_incremental_alter_configs_request_alter_configs_resource r[4] = {
        {.resource_type = 2, .resource_name = SLICE_OF("a")},
        {.resource_type = 4, .resource_name = SLICE_OF("9")},
        {.resource_type = 77, .resource_name = SLICE_OF("x")},
        {.resource_type = 4, .resource_name = SLICE_OF("1")}};
    struct kafka_incremental_alter_configs_request q;
    kafka_incremental_alter_configs_request_init(&q);
    q.resources = r;
    q.resources_count = 4;
    fake_ask(&f, &api_incremental_alter_configs, 1, &q);
    cr_assert_eq(f.call_count, 1);
    const struct kafka_incremental_alter_configs_request *m = f.calls[0].message;
    cr_assert_eq(m->resources_count, 2);
    struct kafka_incremental_alter_configs_response_alter_configs_resource_response rows[2] = {
        {.error_code = 40, .error_message = SLICE_OF("bad"), .resource_type = 2, .resource_name = SLICE_OF("a")},
        {.error_code = 0, .resource_type = 4, .resource_name = SLICE_OF("1")}};
    struct kafka_incremental_alter_configs_response back = {.responses = rows, .responses_count = 2};
    fake_answer(&f, 0, KERR_NONE, &back);
    const struct kafka_incremental_alter_configs_response *a = f.response;
    cr_assert_eq(a->responses_count, 4);
    cr_expect_eq(a->responses[0].error_code, 40);
    cr_expect(slice_eq_str(a->responses[1].error_message, "Unexpected broker id, expected 1, but received 9"));
    cr_expect_eq(a->responses[2].error_code, KERR_INVALID_REQUEST);
    cr_expect_eq(a->responses[3].error_code, 0);
    r[1] = r[0];
    fake_ask(&f, &api_incremental_alter_configs, 1, &q);
    cr_assert_eq(f.call_count, 0);
    a = f.response;
    cr_expect_eq(a->responses[3].error_code, KERR_INVALID_REQUEST);
}
