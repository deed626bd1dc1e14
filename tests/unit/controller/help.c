/* help.c - what the tests of the controller share. */
#include "tests/unit/controller/help.h"

#include <stdlib.h>

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
        .host = SLICE_OF("h"),
        .version = SLICE_OF("0"),
        .addresses = &address,
        .address_count = 1,
        .listeners = &listener,
        .listener_count = 1,
        .log_dirs = &dir,
        .log_dir_count = role == STORAGE,
        .previous_epoch = previous_epoch,
    };
    int64_t epoch = -1;
    const char *message = NULL;
    cr_assert_eq(controller_register(h->c, &r, h->now_ms, &epoch, &message), KERR_NONE, "%s", message);
    help_take(h);
    return epoch;
}

struct controller_heartbeat_answer help_beat(struct help *h, int32_t role, int32_t id, uint64_t incarnation,
                                             int64_t epoch, bool want_shutdown)
{
    struct controller_heartbeat beat = {.role = role,
                                        .id = id,
                                        .incarnation = incarnation,
                                        .epoch = epoch,
                                        .metadata_offset = image_offset(controller_image(h->c)),
                                        .want_shutdown = want_shutdown};
    struct controller_heartbeat_answer a;
    cr_assert_eq(controller_heartbeat(h->c, &beat, h->now_ms, &a), KERR_NONE);
    help_take(h);
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
