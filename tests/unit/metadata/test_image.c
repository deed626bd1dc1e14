/* test_image.c - images from records: what each record says, transactions, sharing, damage. */
#include <criterion/criterion.h>

#include "kafka/abort_transaction_record.h"
#include "kafka/access_control_entry_record.h"
#include "kafka/begin_transaction_record.h"
#include "kafka/broker_registration_change_record.h"
#include "kafka/config_record.h"
#include "kafka/end_transaction_record.h"
#include "kafka/feature_level_record.h"
#include "kafka/partition_change_record.h"
#include "kafka/partition_record.h"
#include "kafka/producer_ids_record.h"
#include "kafka/register_broker_record.h"
#include "kafka/remove_access_control_entry_record.h"
#include "kafka/remove_topic_record.h"
#include "kafka/topic_record.h"
#include "karst/coordinator_record.h"
#include "karst/service_record.h"
#include "libs/metadata/image.h"
#include "libs/metadata/metarecord.h"
#include "libs/records/records.h"

static const struct uuid topic_id = {{1, 2, 3}};

/* A log of one batch a record. */
struct writing {
    struct buf log;
    int64_t next;
};

static void put_value(struct writing *w, struct slice value)
{
    struct batch_options o = BATCH_OPTIONS;
    struct batch_builder b;
    o.base_offset = w->next++;
    o.leader_epoch = 5;
    batch_begin(&b, &w->log, &o);
    batch_add(&b, 1000 + w->next, SLICE_NULL, value, NULL, 0);
    cr_assert_eq(batch_end(&b), 0);
}

static void put(struct writing *w, enum metarecord_type type, int version, const void *msg)
{
    struct buf value = {0};
    cr_assert_eq(metarecord_write(&value, type, version, msg), 0);
    put_value(w, buf_slice(&value));
    buf_free(&value);
}

static void put_tag(struct writing *w, uint32_t tag, const void *msg)
{
    struct buf value = {0};
    cr_assert_eq(metarecord_write_tag(&value, tag, msg), 0);
    put_value(w, buf_slice(&value));
    buf_free(&value);
}

static void put_topic(struct writing *w, const char *name, struct uuid id, int32_t partitions)
{
    struct kafka_topic_record t = {.name = slice_str(name), .topic_id = id};
    put(w, METARECORD_TOPIC, 0, &t);
    for (int32_t p = 0; p < partitions; p++) {
        int32_t one = 1;
        struct uuid dir = {{9}};
        struct kafka_partition_record m;
        kafka_partition_record_init(&m);
        m.partition_id = p;
        m.topic_id = id;
        m.replicas = m.isr = &one;
        m.replicas_count = m.isr_count = 1;
        m.leader = 1;
        m.leader_epoch = m.partition_epoch = 0;
        m.directories = &dir;
        m.directories_count = 1;
        put(w, METARECORD_PARTITION, 2, &m);
    }
}

/* The image after what was written since the last call. */
static struct image *apply(struct image *old, struct writing *w)
{
    struct image *next = NULL;
    cr_assert_eq(image_apply(old, buf_slice(&w->log), &next, NULL), 0);
    cr_assert_eq(image_offset(next), w->next - 1);
    image_release(old);
    w->log.size = 0;
    return next;
}

static struct image *empty(void)
{
    return image_empty("abcdefghijklmnopqrstuv");
}

Test(image, topics)
{
    struct writing w = {0};
    put_topic(&w, "b", topic_id, 130);
    put_topic(&w, "a", (struct uuid){{4}}, 1);
    struct image *i = apply(empty(), &w);
    cr_assert_str_eq(image_cluster_id(i), "abcdefghijklmnopqrstuv");
    cr_assert_eq(image_epoch(i), 5);
    cr_assert_eq(image_topic_count(i), 2);
    cr_assert_eq(image_partition_count(i), 131);
    const struct image_topic *t = image_topic_by_name(i, SLICE_OF("b"));
    cr_assert(t != NULL && t == image_topic_by_id(i, topic_id));
    cr_assert_eq(t->partition_count, 130);
    cr_assert_eq(t->created_offset, 0);
    cr_assert_eq(image_partition(t, 129)->partition, 129);
    cr_assert_null(image_partition(t, 130));
    cr_assert_null(image_partition(t, -1));
    cr_assert_null(image_topic_by_name(i, SLICE_OF("c")));
    int32_t count;
    const struct image_topic *const *all = image_topics(i, &count);
    cr_assert_eq(count, 2);
    cr_assert(slice_eq_str(all[0]->name, "a") && slice_eq_str(all[1]->name, "b"));
    cr_assert_eq(image_topics_from(i, SLICE_OF("aa")), 1);
    cr_assert_eq(image_topics_from(i, SLICE_OF("bb")), 2);
    image_release(i);
    buf_free(&w.log);
}

static int differences;

static void on_topic(void *ctx, const struct image_topic *before, const struct image_topic *after)
{
    (void)ctx;
    cr_assert(before != NULL && after != NULL && uuid_eq(after->id, topic_id));
    differences++;
}

static void on_partition(void *ctx, const struct image_partition *before, const struct image_partition *after)
{
    (void)ctx;
    cr_assert_eq(before->partition, 77);
    cr_assert_eq(before->leader, 1);
    cr_assert_eq(after->leader, -1);
    differences += 100;
}

/* A change of one partition leaves old readers and all other partitions alone. */
Test(image, change_shares_the_rest)
{
    struct writing w = {0};
    put_topic(&w, "t", topic_id, 200);
    put_topic(&w, "other", (struct uuid){{4}}, 1);
    struct image *old = apply(empty(), &w);
    struct kafka_partition_change_record m;
    kafka_partition_change_record_init(&m);
    m.topic_id = topic_id;
    m.partition_id = 77;
    m.leader = -1;
    m.isr_count = 0;
    put(&w, METARECORD_PARTITION_CHANGE, 2, &m);
    struct image *new = apply(image_retain(old), &w);
    const struct image_topic *before = image_topic_by_id(old, topic_id), *after = image_topic_by_id(new, topic_id);
    cr_assert_eq(image_partition(before, 77)->leader, 1);
    const struct image_partition *p = image_partition(after, 77);
    cr_assert_eq(p->leader, -1);
    cr_assert_eq(p->leader_epoch, 1);
    cr_assert_eq(p->partition_epoch, 1);
    cr_assert_eq(p->isr_count, 0);
    cr_assert_eq(p->replica_count, 1);
    cr_assert_eq(image_partition(after, 78), image_partition(before, 78));
    cr_assert_eq(image_topic_by_name(old, SLICE_OF("other")), image_topic_by_name(new, SLICE_OF("other")));
    image_diff(old, new, &(struct image_diff){.topic = on_topic});
    image_diff_partitions(before, after, on_partition, NULL);
    cr_assert_eq(differences, 101);
    cr_assert_not(image_equal(old, new));
    image_release(old);
    image_release(new);
    buf_free(&w.log);
}

Test(image, removed_topic_takes_everything_along)
{
    struct writing w = {0};
    put_topic(&w, "t", topic_id, 3);
    struct kafka_config_record c = {.resource_type = IMAGE_TOPIC,
                                    .resource_name = SLICE_OF("t"),
                                    .name = SLICE_OF("retention.ms"),
                                    .value = SLICE_OF("7")};
    put(&w, METARECORD_CONFIG, 0, &c);
    struct karst_coordinator_record_partition p = {
        .topic = topic_id, .partition = 2, .owner_id = 4, .coordinator_epoch = 3};
    struct karst_coordinator_record owners = {.role = 4, .partitions = &p, .partitions_count = 1};
    put_tag(&w, METARECORD_TAG_COORDINATOR, &owners);
    struct image *i = apply(empty(), &w);
    cr_assert(slice_eq_str(image_config(i, IMAGE_TOPIC, SLICE_OF("t"), "retention.ms"), "7"));
    cr_assert(slice_is_null(image_config(i, IMAGE_TOPIC, SLICE_OF("t"), "segment.ms")));
    cr_assert_eq(image_owner(i, topic_id, 2)->coordinator_epoch, 3);
    cr_assert_null(image_owner(i, topic_id, 1));
    struct kafka_remove_topic_record m = {.topic_id = topic_id};
    put(&w, METARECORD_REMOVE_TOPIC, 0, &m);
    i = apply(i, &w);
    int32_t count;
    cr_assert_null(image_topic_by_name(i, SLICE_OF("t")));
    cr_assert_null(image_configs(i, IMAGE_TOPIC, SLICE_OF("t"), &count));
    cr_assert_null(image_owner(i, topic_id, 2));
    cr_assert_eq(image_partition_count(i), 0);
    image_release(i);
    buf_free(&w.log);
}

Test(image, configs)
{
    static const char *const keys[] = {"b", "c", "a", "b", "c"}, *const values[] = {"1", "2", "3", "4", NULL};
    struct writing w = {0};
    for (size_t n = 0; n < COUNTOF(keys); n++) {
        struct kafka_config_record c = {.resource_type = IMAGE_BROKER,
                                        .resource_name = SLICE_EMPTY,
                                        .name = slice_str(keys[n]),
                                        .value = slice_str(values[n])};
        put(&w, METARECORD_CONFIG, 0, &c);
    }
    struct image *i = apply(empty(), &w);
    int32_t count;
    const struct image_config *e = image_configs(i, IMAGE_BROKER, SLICE_EMPTY, &count);
    cr_assert_eq(count, 2);
    cr_assert(slice_eq_str(e[0].key, "a") && slice_eq_str(e[0].value, "3"));
    cr_assert(slice_eq_str(e[1].key, "b") && slice_eq_str(e[1].value, "4"));
    cr_assert(slice_is_null(image_config(i, IMAGE_BROKER, SLICE_EMPTY, "c")));
    image_release(i);
    buf_free(&w.log);
}

static void put_feature(struct writing *w, const char *name, int16_t level)
{
    struct kafka_feature_level_record m = {.name = slice_str(name), .feature_level = level};
    put(w, METARECORD_FEATURE_LEVEL, 0, &m);
}

/* KIP-868: nothing of a transaction is seen before its end, and nothing at all of an aborted one. */
Test(image, transactions)
{
    struct writing w = {0};
    struct kafka_begin_transaction_record begin = {.name = SLICE_OF("x")};
    struct kafka_end_transaction_record end;
    struct kafka_abort_transaction_record abort = {.reason = SLICE_NULL};
    memset(&end, 0, sizeof end);
    put(&w, METARECORD_BEGIN_TRANSACTION, 0, &begin);
    put_feature(&w, "f", 3);
    struct image *i = apply(empty(), &w);
    cr_assert(image_in_transaction(i));
    cr_assert_eq(image_feature_level(i, "f"), 0);
    put(&w, METARECORD_END_TRANSACTION, 0, &end);
    i = apply(i, &w);
    cr_assert_eq(image_feature_level(i, "f"), 3);
    put(&w, METARECORD_BEGIN_TRANSACTION, 0, &begin);
    put_feature(&w, "f", 4);
    put(&w, METARECORD_ABORT_TRANSACTION, 0, &abort);
    i = apply(i, &w);
    cr_assert_eq(image_feature_level(i, "f"), 3);
    cr_assert_not(image_in_transaction(i));
    put_feature(&w, "f", 0);
    i = apply(i, &w);
    int32_t count;
    image_features(i, &count);
    cr_assert_eq(count, 0);
    image_release(i);
    buf_free(&w.log);
}

Test(image, brokers_services_and_producer_ids)
{
    struct writing w = {0};
    struct uuid dir = {{3}};
    struct kafka_register_broker_record_broker_endpoint e = {
        .name = SLICE_OF("PLAINTEXT"), .host = SLICE_OF("h"), .port = 9092, .security_protocol = 0};
    struct kafka_register_broker_record m;
    kafka_register_broker_record_init(&m);
    m.broker_id = 7;
    m.broker_epoch = 0;
    m.end_points = &e;
    m.end_points_count = 1;
    m.rack = SLICE_OF("r1");
    m.log_dirs = &dir;
    m.log_dirs_count = 1;
    put(&w, METARECORD_REGISTER_BROKER, 4, &m);
    struct kafka_broker_registration_change_record change;
    kafka_broker_registration_change_record_init(&change);
    change.broker_id = 7;
    change.broker_epoch = 0;
    change.fenced = -1;
    put(&w, METARECORD_BROKER_REGISTRATION_CHANGE, 0, &change);
    struct slice address = SLICE_OF("ipc:///run/group-2");
    struct karst_service_record s;
    karst_service_record_init(&s);
    s.role = 4;
    s.id = 2;
    s.incarnation = 99;
    s.epoch = 2;
    s.host = SLICE_OF("h");
    s.version = SLICE_OF("1");
    s.endpoints = &address;
    s.endpoints_count = 1;
    put_tag(&w, METARECORD_TAG_SERVICE, &s);
    struct kafka_producer_ids_record ids = {.broker_id = 7, .broker_epoch = 0, .next_producer_id = 1000};
    put(&w, METARECORD_PRODUCER_IDS, 0, &ids);
    struct image *i = apply(empty(), &w);
    const struct image_broker *b = image_broker(i, 7);
    cr_assert(b != NULL && !b->fenced && image_broker_is_active(i, 7));
    cr_assert_eq(b->endpoints[0].port, 9092);
    cr_assert(slice_eq_str(b->rack, "r1") && uuid_eq(b->log_dirs[0], dir));
    const struct image_service *found = image_service(i, 4, 2);
    cr_assert_eq(found->incarnation, 99);
    cr_assert_str_eq((const char *)found->addresses[0].data, "ipc:///run/group-2");
    cr_assert_eq(image_next_producer_id(i), 1000);
    s.gone = true;
    put_tag(&w, METARECORD_TAG_SERVICE, &s);
    i = apply(i, &w);
    cr_assert_null(image_service(i, 4, 2));
    image_release(i);
    buf_free(&w.log);
}

static void count_acls(void *ctx, struct slice value)
{
    struct metarecord m;
    cr_assert_eq(metarecord_parse(value, &m), 0);
    *(int *)ctx += m.type == METARECORD_ACCESS_CONTROL_ENTRY;
}

/* What this release does not use yet still survives a snapshot. */
Test(image, keeps_what_it_does_not_use)
{
    struct writing w = {0};
    for (uint8_t n = 0; n < 3; n++) {
        struct kafka_access_control_entry_record m;
        kafka_access_control_entry_record_init(&m);
        m.id.b[0] = n;
        m.resource_name = m.principal = m.host = SLICE_OF("x");
        put(&w, METARECORD_ACCESS_CONTROL_ENTRY, 0, &m);
    }
    struct kafka_remove_access_control_entry_record gone = {.id = {{1}}};
    put(&w, METARECORD_REMOVE_ACCESS_CONTROL_ENTRY, 0, &gone);
    struct image *i = apply(empty(), &w);
    int count = 0;
    image_each_record(i, count_acls, &count);
    cr_assert_eq(count, 2);
    image_release(i);
    buf_free(&w.log);
}

static void expect_refused(struct image *i, struct writing *w)
{
    struct image *next;
    int64_t bad = -1;
    cr_assert_eq(image_apply(i, buf_slice(&w->log), &next, &bad), -EBADMSG);
    cr_assert_eq(bad, w->next - 1);
    w->log.size = 0;
    w->next--;
}

Test(image, refuses_what_cannot_be)
{
    struct writing w = {0};
    put_topic(&w, "t", topic_id, 1);
    struct image *i = apply(empty(), &w);
    struct kafka_topic_record again = {.name = SLICE_OF("t"), .topic_id = {{8}}};
    put(&w, METARECORD_TOPIC, 0, &again);
    expect_refused(i, &w);
    struct kafka_partition_change_record change;
    kafka_partition_change_record_init(&change);
    change.topic_id = topic_id;
    change.partition_id = 1;
    put(&w, METARECORD_PARTITION_CHANGE, 0, &change);
    expect_refused(i, &w);
    put_value(&w, SLICE_OF("\x02\x00\x00"));
    expect_refused(i, &w);
    put_value(&w, SLICE_OF("\x01\x06\x00"));
    expect_refused(i, &w);
    put_value(&w, SLICE_OF("\x01\x09\x01"));
    expect_refused(i, &w);
    put_value(&w, SLICE_NULL);
    expect_refused(i, &w);
    put_feature(&w, "f", 1);
    w.log.data[w.log.size - 3] ^= 1; /* the CRC does not hold */
    expect_refused(i, &w);
    put_feature(&w, "f", 1);
    struct image *next;
    cr_assert_eq(image_apply(i, slice_make(w.log.data, w.log.size - 1), &next, NULL), -EBADMSG);
    image_release(i);
    buf_free(&w.log);
}

Test(image, applies_a_batch_once)
{
    struct writing w = {0};
    put_topic(&w, "t", topic_id, 1);
    struct image *i = NULL, *same = NULL, *start = empty();
    cr_assert_eq(image_apply(start, buf_slice(&w.log), &i, NULL), 0);
    cr_assert_eq(image_apply(i, buf_slice(&w.log), &same, NULL), 0);
    cr_assert(image_equal(i, same));
    cr_assert_eq(image_offset(i), image_offset(same));
    image_release(start);
    image_release(i);
    image_release(same);
    buf_free(&w.log);
}
