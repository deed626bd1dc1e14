/* test_requests.c - Kafka's requests: error codes and texts are those that a Kafka 4.3.1 gave. */
#include "tests/unit/controller/help.h"

#include <stdlib.h>

#include "kafka/allocate_producer_ids.h"
#include "kafka/create_partitions.h"
#include "kafka/delete_topics.h"
#include "kafka/incremental_alter_configs.h"

static struct help h;

static void open_it(void)
{
    help_open(&h);
    help_storage(&h, 1, 11, -1);
}

static void close_it(void)
{
    help_close(&h);
}

TestSuite(requests, .init = open_it, .fini = close_it);

static void expect_create(const char *name, int32_t partitions, int16_t replicas, int error, const char *text)
{
    int64_t end = image_offset(controller_image(h.c));
    const struct kafka_create_topics_response_creatable_topic_result *r = help_create(&h, name, partitions, replicas);
    cr_assert_eq(r->error_code, error, "%s: %d", name, r->error_code);
    cr_assert(slice_eq_str(r->error_message, text), "%s: " SLICE_F, name, SLICE_A(r->error_message));
    if (error != 0) {
        cr_assert(uuid_is_zero(r->topic_id) && r->num_partitions == -1 && r->replication_factor == -1);
        cr_assert_eq(image_offset(controller_image(h.c)), end);
    }
}

Test(requests, create_topics)
{
    char name_of_250[251];
    memset(name_of_250, 'x', 250);
    name_of_250[250] = 0;
    expect_create("a", 3, 1, 0, NULL);
    expect_create("b", -1, -1, 0, NULL);
    cr_assert_eq(help_partition(&h, "b", 0)->leader_epoch, 0);
    cr_assert_eq(help_partition(&h, "b", 0)->directories[0].b[0], 77);
    expect_create("a", 1, 1, 36, "Topic 'a' already exists.");
    expect_create("c", 0, 1, 37, "Number of partitions was set to an invalid non-positive value.");
    expect_create("c", -5, 1, 37, "Number of partitions was set to an invalid non-positive value.");
    expect_create("c", 1, 0, 38, "Replication factor must be larger than 0, or -1 to use the default value.");
    expect_create("c", 1, 3, 38,
                  "Unable to replicate the partition 3 time(s): The target replication factor of 3 cannot be reached "
                  "because only "
                  "1 broker(s) are registered or some brokers have all their log directories cordoned.");
    expect_create("", 1, 1, 17, "Topic name is invalid: the empty string is not allowed");
    expect_create(".", 1, 1, 17, "Topic name is invalid: '.' is not allowed");
    expect_create("..", 1, 1, 17, "Topic name is invalid: '..' is not allowed");
    expect_create("a b", 1, 1, 17,
                  "Topic name is invalid: 'a b' contains one or more characters other than ASCII alphanumerics, '.', "
                  "'_' and '-'");
    cr_assert_eq(help_create(&h, name_of_250, 1, 1)->error_code, 17);
    expect_create("x.y", 1, 1, 0, NULL);
    expect_create("x_y", 1, 1, 17, "Topic 'x_y' collides with existing topic: x.y");
    expect_create("__cluster_metadata", 1, 1, 42, "Creation of internal topic __cluster_metadata is prohibited.");
    expect_create("h", 10001, 1, 44, "Excessively large number of partitions per request.");
}

Test(requests, create_topics_validate_only_and_twice)
{
    struct kafka_create_topics_request_creatable_topic t[3];
    struct kafka_create_topics_request q;
    struct kafka_create_topics_response p;
    kafka_create_topics_request_init(&q);
    for (int n = 0; n < 3; n++) {
        kafka_create_topics_request_creatable_topic_init(&t[n]);
        t[n].name = n < 2 ? SLICE_OF("d") : SLICE_OF("e");
        t[n].num_partitions = t[n].replication_factor = 1;
    }
    q.topics = t;
    q.topics_count = 3;
    q.validate_only = true;
    controller_create_topics(h.c, &q, 7, h.arena, &p);
    cr_assert_eq(help_take(&h), 0);
    cr_assert_eq(p.topics_count, 2);
    cr_assert(slice_eq_str(p.topics[0].name, "e") && p.topics[0].error_code == 0);
    cr_assert_eq(p.topics[0].configs_count, 33);
    cr_assert_not(uuid_is_zero(p.topics[0].topic_id));
    cr_assert(slice_eq_str(p.topics[1].name, "d") && p.topics[1].error_code == 42);
}

static int create_with(const char *key, const char *value)
{
    struct kafka_create_topics_request_creatable_topic_config c = {.name = slice_str(key), .value = slice_str(value)};
    struct kafka_create_topics_request_creatable_topic t;
    struct kafka_create_topics_request q;
    struct kafka_create_topics_response p;
    kafka_create_topics_request_init(&q);
    kafka_create_topics_request_creatable_topic_init(&t);
    t.name = SLICE_OF("f");
    t.num_partitions = t.replication_factor = 1;
    t.configs = &c;
    t.configs_count = 1;
    q.topics = &t;
    q.topics_count = 1;
    q.validate_only = true;
    controller_create_topics(h.c, &q, 7, h.arena, &p);
    cr_assert_eq(help_take(&h), 0);
    return p.topics[0].error_code;
}

Test(requests, create_topics_configs)
{
    cr_assert_eq(create_with("retention.ms", "7"), 0);
    cr_assert_eq(create_with("nope", "7"), 40);
    cr_assert_eq(create_with("retention.ms", "x"), 40);
    cr_assert_eq(create_with("retention.ms", NULL), 40);
    cr_assert_eq(create_with("remote.storage.enable", "true"), 40);
}

Test(requests, delete_topics)
{
    expect_create("a", 3, 1, 0, NULL);
    expect_create("b", 1, 1, 0, NULL);
    struct uuid a = image_topic_by_name(controller_image(h.c), SLICE_OF("a"))->id;
    struct kafka_delete_topics_request_delete_topic_state t[5] = {{.name = SLICE_OF("zz")},
                                                                  {.topic_id = a},
                                                                  {.name = SLICE_OF("b")},
                                                                  {.topic_id = {{5}}},
                                                                  {.name = SLICE_OF("b"), .topic_id = a}};
    struct kafka_delete_topics_request q;
    struct kafka_delete_topics_response p;
    kafka_delete_topics_request_init(&q);
    q.topics = t;
    q.topics_count = 5;
    controller_delete_topics(h.c, &q, 6, h.arena, &p);
    cr_assert_eq(help_take(&h), 2);
    cr_assert_eq(p.responses_count, 5);
    static const int16_t errors[] = {3, 0, 0, 100, 42};
    for (int n = 0; n < 5; n++)
        cr_assert_eq(p.responses[n].error_code, errors[n]);
    cr_assert(slice_eq_str(p.responses[1].name, "a") && slice_eq_str(p.responses[2].name, "b"));
    cr_assert_null(image_topic_by_id(controller_image(h.c), a));
}

static int grow(const char *name, int32_t count, const char *text)
{
    struct kafka_create_partitions_request_create_partitions_topic t;
    struct kafka_create_partitions_request q;
    struct kafka_create_partitions_response p;
    kafka_create_partitions_request_init(&q);
    kafka_create_partitions_request_create_partitions_topic_init(&t);
    t.name = slice_str(name);
    t.count = count;
    t.assignments_count = -1;
    q.topics = &t;
    q.topics_count = 1;
    controller_create_partitions(h.c, &q, h.arena, &p);
    help_take(&h);
    cr_assert(slice_eq_str(p.results[0].error_message, text), SLICE_F, SLICE_A(p.results[0].error_message));
    return p.results[0].error_code;
}

Test(requests, create_partitions)
{
    expect_create("a", 3, 1, 0, NULL);
    cr_assert_eq(grow("a", 3, "Topic already has 3 partition(s)."), 37);
    cr_assert_eq(grow("a", 2, "The topic a currently has 3 partition(s); 2 would not be an increase."), 37);
    cr_assert_eq(grow("nope", 2, NULL), 3);
    cr_assert_eq(grow("a", 100, NULL), 0);
    cr_assert_eq(help_partition(&h, "a", 99)->leader, 1);
}

static int alter(int8_t type, const char *name, const char *key, int8_t operation, const char *value)
{
    struct kafka_incremental_alter_configs_request_alterable_config c = {
        .name = slice_str(key), .config_operation = operation, .value = slice_str(value)};
    struct kafka_incremental_alter_configs_request_alter_configs_resource r = {
        .resource_type = type, .resource_name = slice_str(name), .configs = &c, .configs_count = 1};
    struct kafka_incremental_alter_configs_request q = {.resources = &r, .resources_count = 1};
    struct kafka_incremental_alter_configs_response p;
    int64_t end = image_offset(controller_image(h.c));
    controller_alter_configs(h.c, &q, h.arena, &p);
    help_take(&h);
    cr_assert_eq(p.responses_count, 1);
    cr_assert(p.responses[0].error_code == 0 || image_offset(controller_image(h.c)) == end);
    return p.responses[0].error_code;
}

static const char *topic_value(const char *key)
{
    return arena_str(h.arena, image_config(controller_image(h.c), IMAGE_TOPIC, SLICE_OF("a"), key));
}

Test(requests, incremental_alter_configs)
{
    enum { SET, DELETE, APPEND, SUBTRACT };
    expect_create("a", 1, 1, 0, NULL);
    cr_assert_eq(alter(2, "a", "retention.ms", SET, "5000"), 0);
    cr_assert_str_eq(topic_value("retention.ms"), "5000");
    cr_assert_eq(alter(2, "a", "retention.ms", DELETE, NULL), 0);
    cr_assert_str_eq(topic_value("retention.ms"), "");
    cr_assert_eq(alter(2, "a", "cleanup.policy", APPEND, "compact"), 0);
    cr_assert_str_eq(topic_value("cleanup.policy"), "delete,compact");
    cr_assert_eq(alter(2, "a", "cleanup.policy", SUBTRACT, "delete"), 0);
    cr_assert_str_eq(topic_value("cleanup.policy"), "compact");
    cr_assert_eq(alter(2, "a", "retention.ms", APPEND, "1"), 40);
    cr_assert_eq(alter(2, "a", "retention.ms", SET, NULL), 42);
    cr_assert_eq(alter(2, "a", "retention.ms", SET, "x"), 40);
    cr_assert_eq(alter(2, "a", "nope", SET, "x"), 40);
    cr_assert_eq(alter(2, "a", "nope", DELETE, NULL), 0);
    cr_assert_eq(alter(2, "a", "retention.ms", 7, "1"), -1);
    cr_assert_eq(alter(2, "nope", "retention.ms", SET, "1"), 3);
    cr_assert_eq(alter(2, "", "retention.ms", SET, "1"), 42);
    cr_assert_eq(alter(0, "a", "retention.ms", SET, "1"), 42);
    cr_assert_eq(alter(4, "1", "log.dirs", SET, "/x"), 42);
    cr_assert_eq(alter(4, "1", "log.cleaner.threads", SET, "2"), 0);
    cr_assert_eq(alter(4, "1", "log.cleaner.threads", SET, "x"), 42);
    cr_assert_eq(alter(4, "9", "log.cleaner.threads", SET, "2"), 42);
    cr_assert_eq(alter(4, "x", "log.cleaner.threads", SET, "2"), 42);
    cr_assert_eq(alter(4, "1", "min.insync.replicas", SET, "2"), 40);
    cr_assert_eq(alter(4, "", "min.insync.replicas", DELETE, NULL), 40);
    cr_assert_eq(alter(4, "", "min.insync.replicas", SET, "2"), 0);
    cr_assert_eq(alter(4, "", "ssl.keystore.location", SET, "/x"), 42);
    cr_assert_eq(alter(32, "g", "consumer.session.timeout.ms", SET, "46000"), 0);
    cr_assert_eq(alter(32, "g", "consumer.session.timeout.ms", SET, "1"), 40);
    cr_assert_eq(alter(16, "m", "interval.ms", SET, "1"), 42);
}

Test(requests, producer_ids_are_handed_out_once)
{
    for (int64_t n = 0; n < 5; n++) {
        struct kafka_allocate_producer_ids_request q = {.broker_id = 1, .broker_epoch = -1};
        struct kafka_allocate_producer_ids_response p;
        controller_allocate_producer_ids(h.c, &q, &p);
        cr_assert_eq(help_take(&h), 1);
        cr_assert(p.error_code == 0 && p.producer_id_start == n * 1000 && p.producer_id_len == 1000);
    }
}
