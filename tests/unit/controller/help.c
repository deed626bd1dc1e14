/* help.c - what the tests of the controller share. */
#include "tests/unit/controller/help.h"

#include <stdio.h>
#include <stdlib.h>

#include "kafka/alter_partition.h"
#include "kafka/incremental_alter_configs.h"
#include "kafka/update_features.h"

void help_open(struct help *h)
{
    struct controller_options o = {.node_id = 1, .seed = {1, 2}};
    *h = (struct help){.config = config_new(), .arena = arena_new(0), .now_ms = 1000};
    o.config = h->config;
    h->c = controller_new(&o);
    struct image *empty = image_empty("cluster");
    controller_activate(h->c, empty, 0, 1, NULL, h->now_ms);
    image_release(empty);
    cr_assert_eq(help_take(h), 9);
}

void help_close(struct help *h)
{
    struct image *replayed = help_replay(h);
    cr_assert(image_equal(replayed, controller_image(h->c)));
    image_release(replayed);
    h->c = controller_free(h->c);
    config_free(h->config);
    arena_free(h->arena);
    buf_free(&h->log);
}

int64_t help_take(struct help *h)
{
    int64_t before = image_offset(controller_image(h->c)), last = before;
    controller_take(h->c, (int64_t)h->now_ms, &h->log, &last);
    return last - before;
}

struct image *help_replay(const struct help *h)
{
    struct image *empty = image_empty("cluster"), *i = NULL;
    cr_assert_eq(image_apply(empty, buf_slice(&h->log), &i, NULL), 0);
    image_release(empty);
    return i;
}

int64_t help_register(struct help *h, int32_t role, int32_t id, uint64_t incarnation, int64_t previous_epoch)
{
    struct slice address = SLICE_OF("ipc:///run/x");
    struct uuid dir = {{77, (uint8_t)id}};
    struct image_endpoint listener = {SLICE_OF("PLAINTEXT"), SLICE_OF("localhost"), 9092, 0};
    struct controller_registration r = {
        .role = role,
        .id = id,
        .incarnation = incarnation,
        .host = slice_str(h->host ? h->host : "h"),
        .rack = h->rack,
        .version = SLICE_OF("0"),
        .addresses = &address,
        .address_count = 1,
        .listeners = &listener,
        .listener_count = 1,
        .log_dirs = &dir,
        .log_dir_count = role == STORAGE,
        .bus_version = h->bus_version,
        .previous_epoch = previous_epoch,
    };
    int64_t epoch = -1;
    const char *message = NULL;
    cr_assert_eq(controller_register(h->c, &r, h->now_ms, &epoch, &message), KERR_NONE, "%s", message);
    help_take(h);
    return epoch;
}

int64_t help_heartbeat(struct help *h, struct controller_heartbeat beat, struct controller_heartbeat_answer *ret)
{
    beat.metadata_offset = image_offset(controller_image(h->c));
    cr_assert_eq(controller_heartbeat(h->c, &beat, h->now_ms, ret), KERR_NONE);
    return help_take(h);
}

struct controller_heartbeat_answer help_beat(struct help *h, int32_t role, int32_t id, uint64_t incarnation,
                                             int64_t epoch, bool want_shutdown)
{
    struct controller_heartbeat beat = {
        .role = role, .id = id, .incarnation = incarnation, .epoch = epoch, .want_shutdown = want_shutdown};
    struct controller_heartbeat_answer a;
    help_heartbeat(h, beat, &a);
    return a;
}

int64_t help_storage(struct help *h, int32_t id, uint64_t incarnation, int64_t previous_epoch)
{
    int64_t epoch = help_register(h, STORAGE, id, incarnation, previous_epoch);
    cr_assert(image_broker(controller_image(h->c), id)->fenced);
    cr_assert_not(help_beat(h, STORAGE, id, incarnation, epoch, false).is_fenced);
    cr_assert(image_broker_is_active(controller_image(h->c), id));
    return epoch;
}

const struct kafka_create_topics_response_creatable_topic_result *help_create(struct help *h, const char *name,
                                                                              int32_t partitions, int16_t replicas)
{
    struct kafka_create_topics_request_creatable_topic t;
    struct kafka_create_topics_request q;
    struct kafka_create_topics_response *p = arena_alloc(h->arena, sizeof *p);
    kafka_create_topics_request_creatable_topic_init(&t);
    kafka_create_topics_request_init(&q);
    t.name = slice_str(name);
    t.num_partitions = partitions;
    t.replication_factor = replicas;
    q.topics = &t;
    q.topics_count = 1;
    controller_create_topics(h->c, &q, 7, h->arena, p);
    help_take(h);
    cr_assert_eq(p->topics_count, 1);
    return &p->topics[0];
}

const struct image_partition *help_partition(const struct help *h, const char *topic, int32_t partition)
{
    const struct image_topic *t = image_topic_by_name(controller_image(h->c), slice_str(topic));
    cr_assert_not_null(t);
    return image_partition(t, partition);
}

/* "1:2" or "1,2". */
static int32_t ids_of(const char *text, int32_t *ids)
{
    int32_t count = 0;
    char *end;
    for (; *text != 0 && *text != '-'; text = *end != 0 ? end + 1 : end)
        ids[count++] = (int32_t)strtol(text, &end, 10);
    return count;
}

void help_create_at(struct help *h, const char *name, const char *brokers, const char *key, const char *value)
{
    struct kafka_create_topics_request_creatable_topic t;
    struct kafka_create_topics_request_creatable_replica_assignment at;
    struct kafka_create_topics_request_creatable_topic_config config;
    struct kafka_create_topics_request q;
    struct kafka_create_topics_response p;
    int32_t ids[16];
    kafka_create_topics_request_init(&q);
    kafka_create_topics_request_creatable_topic_init(&t);
    kafka_create_topics_request_creatable_replica_assignment_init(&at);
    kafka_create_topics_request_creatable_topic_config_init(&config);
    at.broker_ids = ids;
    at.broker_ids_count = ids_of(brokers, ids);
    config.name = slice_str(key);
    config.value = slice_str(value);
    t.name = slice_str(name);
    t.num_partitions = -1;
    t.replication_factor = -1;
    t.assignments = &at;
    t.assignments_count = 1;
    t.configs = &config;
    t.configs_count = key != NULL;
    q.topics = &t;
    q.topics_count = 1;
    controller_create_topics(h->c, &q, 7, h->arena, &p);
    help_take(h);
    cr_assert_eq(p.topics[0].error_code, 0);
}

enum kafka_error help_alter_isr(struct help *h, const char *topic, const char *isr, int8_t recovery)
{
    const struct image_topic *t = image_topic_by_name(controller_image(h->c), slice_str(topic));
    const struct image_partition *p = image_partition(t, 0);
    struct kafka_alter_partition_request q;
    struct kafka_alter_partition_request_topic_data of_topic;
    struct kafka_alter_partition_request_partition_data of_partition;
    struct kafka_alter_partition_request_broker_state states[16];
    struct kafka_alter_partition_response answer;
    int32_t ids[16];
    kafka_alter_partition_request_init(&q);
    kafka_alter_partition_request_topic_data_init(&of_topic);
    kafka_alter_partition_request_partition_data_init(&of_partition);
    of_partition.new_isr_with_epochs = states;
    of_partition.new_isr_with_epochs_count = ids_of(isr, ids);
    for (int32_t i = 0; i < of_partition.new_isr_with_epochs_count; i++) {
        const struct image_broker *b = image_broker(controller_image(h->c), ids[i]);
        kafka_alter_partition_request_broker_state_init(&states[i]);
        states[i].broker_id = ids[i];
        states[i].broker_epoch = b != NULL ? b->epoch : -1;
    }
    of_partition.leader_epoch = p->leader_epoch;
    of_partition.partition_epoch = p->partition_epoch;
    of_partition.leader_recovery_state = recovery;
    of_topic.topic_id = t->id;
    of_topic.partitions = &of_partition;
    of_topic.partitions_count = 1;
    q.broker_id = p->leader;
    q.broker_epoch = image_broker(controller_image(h->c), p->leader)->epoch;
    q.topics = &of_topic;
    q.topics_count = 1;
    controller_alter_partition(h->c, &q, h->arena, &answer);
    help_take(h);
    cr_assert_eq(answer.error_code, 0);
    const struct kafka_alter_partition_response_partition_data *to = &answer.topics[0].partitions[0];
    p = help_partition(h, topic, 0);
    if (to->error_code == 0)
        cr_assert(to->leader_id == p->leader && to->leader_epoch == p->leader_epoch &&
                  to->partition_epoch == p->partition_epoch && to->isr_count == p->isr_count &&
                  memcmp(to->isr, p->isr, (size_t)p->isr_count * sizeof *p->isr) == 0 &&
                  to->leader_recovery_state == p->leader_recovery_state);
    return (enum kafka_error)to->error_code;
}

void help_finalize(struct help *h, const char *feature, int16_t level, const char *error)
{
    bool down = level < image_feature_level(controller_image(h->c), feature);
    struct kafka_update_features_request_feature_update_key u = {
        .feature = slice_str(feature), .max_version_level = level, .upgrade_type = down ? 2 : 1};
    struct kafka_update_features_request q = {.feature_updates = &u, .feature_updates_count = 1};
    struct kafka_update_features_response p;
    controller_update_features(h->c, &q, 2, h->arena, &p);
    help_take(h);
    cr_assert_eq(p.error_code != 0, error != NULL);
    if (error != NULL)
        cr_assert_str_eq(arena_str(h->arena, p.error_message), error);
}

static void put_ids(struct buf *b, const char *what, const int32_t *ids, int32_t count)
{
    buf_printf(b, "%s", what);
    for (int32_t i = 0; i < count; i++)
        buf_printf(b, "%s%d", i > 0 ? "," : "", ids[i]);
    if (count == 0)
        buf_printf(b, "-");
}

static void expect_text(const char *topic, struct buf *b, const char *text)
{
    buf_append(b, "", 1);
    cr_assert_str_eq((const char *)b->data, text, "%s is: %s", topic, (const char *)b->data);
    buf_free(b);
}

void help_expect(const struct help *h, const char *topic, const char *text)
{
    const struct image_partition *p = help_partition(h, topic, 0);
    struct buf b = {0};
    buf_printf(&b, "leader %d epoch %d", p->leader, p->leader_epoch);
    put_ids(&b, " isr ", p->isr, p->isr_count);
    put_ids(&b, " elr ", p->elr, p->elr_count);
    put_ids(&b, " known ", p->last_known_elr, p->last_known_elr_count);
    buf_printf(&b, " state %d", p->leader_recovery_state);
    expect_text(topic, &b, text);
}

void help_expect_replicas(const struct help *h, const char *topic, const char *text)
{
    const struct image_partition *p = help_partition(h, topic, 0);
    struct buf b = {0};
    put_ids(&b, "", p->replicas, p->replica_count);
    put_ids(&b, " adding ", p->adding, p->adding_count);
    put_ids(&b, " removing ", p->removing, p->removing_count);
    expect_text(topic, &b, text);
}

enum kafka_error help_alter_broker(struct help *h, const char *broker, const char *key, const char *value,
                                   const char **ret_message)
{
    struct kafka_incremental_alter_configs_request_alterable_config e = {
        .name = slice_str(key), .value = slice_str(value), .config_operation = value == NULL};
    struct kafka_incremental_alter_configs_request_alter_configs_resource r = {
        .resource_type = IMAGE_BROKER, .resource_name = slice_str(broker), .configs = &e, .configs_count = 1};
    struct kafka_incremental_alter_configs_request q = {.resources = &r, .resources_count = 1};
    struct kafka_incremental_alter_configs_response p;
    controller_alter_configs(h->c, &q, h->arena, &p);
    help_take(h);
    *ret_message = arena_str(h->arena, p.responses[0].error_message);
    return (enum kafka_error)p.responses[0].error_code;
}
