// link: controller kraft metadata config log records wire base
/* fuzz_controller.c - any requests to the controller: each is a byte that says which, a u16 size, and the message at
 * WIRE_VERSION_BUS. After each, the records that it left apply (the core asserts that), and at the end the log gives
 * the controller's image again. */
#include <stdlib.h>

#include "kafka/allocate_producer_ids.h"
#include "kafka/create_partitions.h"
#include "kafka/create_topics.h"
#include "kafka/delete_topics.h"
#include "kafka/incremental_alter_configs.h"
#include "libs/base/bytes.h"
#include "libs/controller/controller.h"

enum { ARENA_MAX = 64 << 20, REQUESTS_MAX = 20, STORAGE = 2, GROUP = 4 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct fuzzing {
    struct controller *c;
    struct buf log;
};

static void take(struct fuzzing *f)
{
    int64_t last;
    controller_take(f->c, 1, &f->log, &last);
}

static void join(struct fuzzing *f, int32_t role)
{
    struct slice address = SLICE_OF("ipc:///x");
    struct uuid dir = {{9}};
    struct controller_registration r = {.role = role,
                                        .id = 1,
                                        .incarnation = 7,
                                        .addresses = &address,
                                        .address_count = 1,
                                        .log_dirs = &dir,
                                        .log_dir_count = 1,
                                        .previous_epoch = -1};
    int64_t epoch;
    const char *message;
    if (controller_register(f->c, &r, 1, &epoch, &message) != KERR_NONE)
        abort();
    take(f);
    controller_followed(f->c, role, 1, 7, epoch);
    take(f);
}

static void start(struct fuzzing *f, const struct config *config)
{
    struct controller_options o = {.config = config, .node_id = 1, .seed = {3, 4}};
    struct image *empty = image_empty("cluster");
    f->c = controller_new(&o);
    controller_activate(f->c, empty, 0, 1, NULL, 1);
    image_release(empty);
    take(f);
    join(f, STORAGE);
    join(f, GROUP);
}

static const struct wire_type *const requests[] = {
    &kafka_create_topics_request_type,
    &kafka_delete_topics_request_type,
    &kafka_delete_topics_request_type,
    &kafka_create_partitions_request_type,
    &kafka_incremental_alter_configs_request_type,
};

static void ask(struct fuzzing *f, size_t which, const void *q, struct arena *a)
{
    switch (which) {
    case 0: controller_create_topics(f->c, q, 7, a, arena_alloc(a, sizeof(struct kafka_create_topics_response))); break;
    case 1: controller_delete_topics(f->c, q, 6, a, arena_alloc(a, sizeof(struct kafka_delete_topics_response))); break;
    case 2: controller_delete_topics(f->c, q, 5, a, arena_alloc(a, sizeof(struct kafka_delete_topics_response))); break;
    case 3:
        controller_create_partitions(f->c, q, a, arena_alloc(a, sizeof(struct kafka_create_partitions_response)));
        break;
    case 4:
        controller_alter_configs(f->c, q, a, arena_alloc(a, sizeof(struct kafka_incremental_alter_configs_response)));
        break;
    default: abort();
    }
    take(f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct config *config;
    struct fuzzing f = {0};
    if (config == NULL)
        config = config_new();
    start(&f, config);
    for (int n = 0; n < REQUESTS_MAX && size >= 3; n++) {
        size_t which = data[0] % COUNTOF(requests), length = MIN((size_t)get_u16(data + 1), size - 3);
        struct arena *decoded = arena_new(ARENA_MAX), *a = arena_new(0);
        void *q = arena_alloc(decoded, wire_struct_size(requests[which]));
        if (wire_decode(requests[which], WIRE_VERSION_BUS, slice_make(data + 3, length), decoded, q, NULL) == 0)
            ask(&f, which, q, a);
        arena_free(a);
        arena_free(decoded);
        data += 3 + length;
        size -= 3 + length;
    }
    struct image *empty = image_empty("cluster"), *replayed;
    if (image_apply(empty, buf_slice(&f.log), &replayed, NULL) != 0 || !image_equal(replayed, controller_image(f.c)))
        abort();
    image_release(empty);
    image_release(replayed);
    controller_free(f.c);
    buf_free(&f.log);
    return 0;
}
