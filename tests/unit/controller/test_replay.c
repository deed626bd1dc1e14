/* test_replay.c - random lives of a cluster: the log, and a snapshot plus the rest of the log, give the same image as
 * the controller has. */
#include "tests/unit/controller/help.h"

#include <stdlib.h>

#include "kafka/create_partitions.h"
#include "kafka/delete_topics.h"
#include "libs/kraft/snapshot.h"

enum { STEPS = 400, NODES = 4, TOPICS = 12 };

static struct help h;
static uint64_t lives[NODES + 1][6]; /* incarnation by node and role */
static int64_t epochs[NODES + 1][6];

static int32_t any(int32_t n)
{
    return rand() % n;
}

static void live(int32_t role)
{
    int32_t id = 1 + any(NODES);
    int64_t previous = any(2) ? epochs[id][role] : -1;
    lives[id][role]++;
    epochs[id][role] = help_register(&h, role, id, lives[id][role], previous);
}

static void beat(int32_t role)
{
    int32_t id = 1 + any(NODES);
    struct controller_heartbeat b = {.role = role,
                                     .id = id,
                                     .incarnation = lives[id][role],
                                     .epoch = epochs[id][role],
                                     .metadata_offset = image_offset(controller_image(h.c)),
                                     .want_shutdown = any(8) == 0};
    struct controller_heartbeat_answer a;
    (void)controller_heartbeat(h.c, &b, h.now_ms, &a);
    help_take(&h);
}

static const char *any_topic(void)
{
    static const char *const names[TOPICS] = {
        "a", "b", "c", "d", "e", "f.g", "f_g", "h", "i", "j", "__consumer_offsets", "__transaction_state"};
    return names[any(TOPICS)];
}

static void delete_one(void)
{
    struct slice name = slice_str(any_topic());
    struct kafka_delete_topics_request q;
    struct kafka_delete_topics_response p;
    kafka_delete_topics_request_init(&q);
    q.topic_names = &name;
    q.topic_names_count = 1;
    controller_delete_topics(h.c, &q, 5, h.arena, &p);
    help_take(&h);
}

static void grow_one(void)
{
    struct kafka_create_partitions_request_create_partitions_topic t;
    struct kafka_create_partitions_request q;
    struct kafka_create_partitions_response p;
    kafka_create_partitions_request_init(&q);
    kafka_create_partitions_request_create_partitions_topic_init(&t);
    t.name = slice_str(any_topic());
    t.count = any(150);
    t.assignments_count = -1;
    q.topics = &t;
    q.topics_count = 1;
    controller_create_partitions(h.c, &q, h.arena, &p);
    help_take(&h);
}

static void step(void)
{
    static const int32_t roles[] = {STORAGE, GROUP, TXN};
    h.now_ms += (uint64_t)any(1500);
    switch (any(7)) {
    case 0: live(roles[any(3)]); break;
    case 1:
    case 2: beat(roles[any(3)]); break;
    case 3: help_create(&h, any_topic(), 1 + any(90), (int16_t)(1 + any(3))); break;
    case 4: delete_one(); break;
    case 5: grow_one(); break;
    case 6:
        controller_tick(h.c, h.now_ms);
        help_take(&h);
        break;
    }
    arena_reset(h.arena);
}

/* No partition is led by a broker that is not active, or that is not in sync. */
static void check_leaders(void)
{
    const struct image *i = controller_image(h.c);
    int32_t count;
    const struct image_topic *const *topics = image_topics(i, &count);
    for (int32_t n = 0; n < count; n++)
        for (int32_t k = 0; k < topics[n]->partition_count; k++) {
            const struct image_partition *p = image_partition(topics[n], k);
            bool in_sync = false;
            for (int32_t m = 0; m < p->isr_count; m++)
                in_sync = in_sync || p->isr[m] == p->leader;
            cr_assert(p->leader == -1 || (in_sync && image_broker_is_active(i, p->leader)));
        }
}

static struct image *snapshot_and_back(const struct image *i)
{
    struct buf b = {0};
    struct image *copy = NULL;
    kraft_snapshot_of(i, 1, &b);
    cr_assert(kraft_snapshot_is_whole(buf_slice(&b)));
    cr_assert_eq(image_load("cluster", buf_slice(&b), image_offset(i) + 1, -1, &copy), 0);
    cr_assert(image_equal(i, copy));
    cr_assert_eq(image_offset(i), image_offset(copy));
    cr_assert_eq(image_epoch(i), image_epoch(copy));
    buf_free(&b);
    return copy;
}

Test(replay, gives_the_same_image)
{
    for (unsigned seed = 1; seed <= 10; seed++) {
        srand(seed);
        help_open(&h);
        memset(epochs, -1, sizeof epochs);
        struct image *follower = NULL;
        size_t followed = 0;
        for (int n = 0; n < STEPS; n++) {
            step();
            check_leaders();
            if (n == STEPS / 2) {
                follower = snapshot_and_back(controller_image(h.c));
                followed = h.log.size;
            }
        }
        struct image *next;
        cr_assert_eq(image_apply(follower, slice_make(h.log.data + followed, h.log.size - followed), &next, NULL), 0);
        cr_assert(image_equal(next, controller_image(h.c)), "seed %u", seed);
        image_release(next);
        image_release(follower);
        help_close(&h);
    }
}
