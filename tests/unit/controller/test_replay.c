/* test_replay.c - random lives of a cluster, under every request that the controller takes. Whoever follows has the
 * same image: by the whole log, by a snapshot and the rest of the log, batch by batch, and by what image_diff tells of
 * each batch. What must hold of every partition is checked after each step. */
#include "tests/unit/controller/help.h"

#include <stdio.h>
#include <stdlib.h>
#include <uthash.h>

#include "kafka/alter_client_quotas.h"
#include "kafka/alter_partition_reassignments.h"
#include "kafka/create_partitions.h"
#include "kafka/delete_topics.h"
#include "kafka/elect_leaders.h"
#include "kafka/incremental_alter_configs.h"
#include "kafka/update_features.h"
#include "libs/kraft/snapshot.h"

enum { STEPS = 1500, NODES = 5, TOPICS = 12 };

static struct help h;
static uint64_t lives[NODES + 1][6]; /* incarnation by node and role */
static int64_t epochs[NODES + 1][6];
static int32_t seen_moving, seen_eligible, seen_leaderless, seen_recovering; /* that the lives come to what is hard */

static int32_t any(int32_t n)
{
    return rand() % n;
}

/* ---- nodes ---- */

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

static void beat_all(void)
{
    for (int n = 0; n < 2 * NODES; n++)
        beat(STORAGE);
}

static void unregister(void)
{
    controller_unregister_broker(h.c, 1 + any(NODES));
    help_take(&h);
}

/* ---- topics ---- */

static const char *any_topic(void)
{
    static const char *const names[TOPICS] = {
        "a", "b", "c", "d", "e", "f.g", "f_g", "h", "i", "j", "__consumer_offsets", "__transaction_state"};
    return names[any(TOPICS)];
}

static void create_one(void)
{
    help_create(&h, any_topic(), 1 + any(90), (int16_t)(1 + any(4)));
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

static void set_config(void)
{
    static const char *const keys[] = {"unclean.leader.election.enable", "min.insync.replicas"};
    static const char *const values[][3] = {{"true", "false", "false"}, {"1", "2", "3"}};
    int32_t which = any(2), kind = any(3);
    struct kafka_incremental_alter_configs_request_alterable_config e = {.name = slice_str(keys[which]),
                                                                         .value = slice_str(values[which][any(3)]),
                                                                         .config_operation = (int8_t)(any(4) == 0)};
    struct kafka_incremental_alter_configs_request_alter_configs_resource r = {
        .resource_type = kind == 0 ? IMAGE_BROKER : IMAGE_TOPIC,
        .resource_name = kind == 0 ? SLICE_EMPTY : slice_str(any_topic()),
        .configs = &e,
        .configs_count = 1};
    struct kafka_incremental_alter_configs_request q = {.resources = &r, .resources_count = 1};
    struct kafka_incremental_alter_configs_response p;
    controller_alter_configs(h.c, &q, h.arena, &p);
    help_take(&h);
}

/* ---- partitions ---- */

static const struct image_partition *any_partition(const char **ret_topic)
{
    *ret_topic = any_topic();
    const struct image_topic *t = image_topic_by_name(controller_image(h.c), slice_str(*ret_topic));
    return t != NULL ? image_partition(t, 0) : NULL;
}

/* A leader asks for any of its replicas. */
static void alter_isr(void)
{
    const char *topic;
    const struct image_partition *p = any_partition(&topic);
    char text[128] = "";
    if (p == NULL || p->leader < 0)
        return;
    for (int32_t i = 0; i < p->replica_count; i++)
        if (p->replicas[i] == p->leader || any(2))
            snprintf(text + strlen(text), sizeof text - strlen(text), "%s%d", *text ? "," : "", p->replicas[i]);
    (void)help_alter_isr(&h, topic, text, (int8_t)(any(4) == 0));
}

static void reassign_one(void)
{
    const char *topic;
    int32_t ids[NODES], count = 0, first = any(NODES);
    if (any_partition(&topic) == NULL)
        return;
    for (int32_t i = 0; i < NODES && count < 4; i++)
        if (any(2))
            ids[count++] = 1 + (first + i) % NODES;
    struct kafka_alter_partition_reassignments_request_reassignable_partition part = {
        .replicas = ids, .replicas_count = any(4) == 0 ? -1 : count};
    struct kafka_alter_partition_reassignments_request_reassignable_topic t = {
        .name = slice_str(topic), .partitions = &part, .partitions_count = 1};
    struct kafka_alter_partition_reassignments_request q = {
        .topics = &t, .topics_count = 1, .allow_replication_factor_change = any(2)};
    struct kafka_alter_partition_reassignments_response p;
    controller_alter_reassignments(h.c, &q, h.arena, &p);
    help_take(&h);
}

static void elect(void)
{
    struct kafka_elect_leaders_request q;
    struct kafka_elect_leaders_response p;
    kafka_elect_leaders_request_init(&q);
    q.election_type = (int8_t)any(2);
    q.topic_partitions_count = -1;
    controller_elect_leaders(h.c, &q, h.arena, &p);
    help_take(&h);
}

/* ---- the rest ---- */

static void turn_elr(void)
{
    bool on = image_feature_level(controller_image(h.c), "eligible.leader.replicas.version") > 0;
    struct kafka_update_features_request_feature_update_key u = {
        .feature = SLICE_OF("eligible.leader.replicas.version"), .max_version_level = !on, .upgrade_type = on ? 2 : 1};
    struct kafka_update_features_request q = {.feature_updates = &u, .feature_updates_count = 1};
    struct kafka_update_features_response p;
    controller_update_features(h.c, &q, 2, h.arena, &p);
    help_take(&h);
    cr_assert_eq(p.error_code, 0);
}

static void set_quota(void)
{
    struct kafka_alter_client_quotas_request_entity_data part = {SLICE_OF("user"), slice_str(any_topic())};
    struct kafka_alter_client_quotas_request_op_data op = {SLICE_OF("producer_byte_rate"), 1 + any(3), any(3) == 0};
    struct kafka_alter_client_quotas_request_entry_data e = {
        .entity = &part, .entity_count = 1, .ops = &op, .ops_count = 1};
    struct kafka_alter_client_quotas_request q = {.entries = &e, .entries_count = 1};
    struct kafka_alter_client_quotas_response p;
    controller_alter_client_quotas(h.c, &q, h.arena, &p);
    help_take(&h);
}

static void tick(void)
{
    controller_tick(h.c, h.now_ms);
    help_take(&h);
}

static void step(void)
{
    static const int32_t roles[] = {STORAGE, GROUP, TXN};
    h.now_ms += (uint64_t)any(1500);
    switch (any(18)) {
    case 0: live(roles[any(3)]); break;
    case 1: beat(roles[any(3)]); break;
    case 2: beat_all(); break;
    case 3: create_one(); break;
    case 4: any(3) == 0 ? delete_one() : create_one(); break;
    case 5: grow_one(); break;
    case 6:
        h.now_ms += any(20) == 0 ? 300000 : 0; /* elections that nobody asks for are due */
        tick();
        break;
    case 7: any(4) == 0 ? unregister() : beat_all(); break;
    case 8: set_config(); break;
    case 9:
    case 10:
    case 11:
    case 12: alter_isr(); break;
    case 13:
    case 14: reassign_one(); break;
    case 15: elect(); break;
    case 16: any(5) == 0 ? turn_elr() : set_quota(); break;
    case 17: tick(); break;
    }
    arena_reset(h.arena);
}

/* ---- what must hold ---- */

static bool has(const int32_t *ids, int32_t count, int32_t id)
{
    for (int32_t i = 0; i < count; i++)
        if (ids[i] == id)
            return true;
    return false;
}

static bool are_replicas(const struct image_partition *p, const int32_t *ids, int32_t count)
{
    for (int32_t i = 0; i < count; i++)
        if (!has(p->replicas, p->replica_count, ids[i]) || has(ids, i, ids[i]))
            return false;
    return true;
}

/* Who leads is active and in sync; who is in sync, eligible, added or removed is a replica, and once; nobody is both in
 * sync and eligible. */
static void check_partition(const struct image *i, const struct image_partition *p)
{
    cr_assert(p->leader == -1 || (has(p->isr, p->isr_count, p->leader) && image_broker_is_active(i, p->leader)));
    cr_assert(are_replicas(p, p->replicas, p->replica_count) && p->replica_count > 0);
    cr_assert(are_replicas(p, p->isr, p->isr_count) && are_replicas(p, p->elr, p->elr_count));
    cr_assert(are_replicas(p, p->adding, p->adding_count) && are_replicas(p, p->removing, p->removing_count));
    seen_moving += p->adding_count > 0;
    seen_eligible += p->elr_count > 0;
    seen_leaderless += p->leader < 0;
    seen_recovering += p->leader_recovery_state > 0;
    for (int32_t n = 0; n < p->elr_count; n++)
        cr_assert_not(has(p->isr, p->isr_count, p->elr[n]));
}

static void check_all(void)
{
    const struct image *i = controller_image(h.c);
    int32_t count;
    const struct image_topic *const *topics = image_topics(i, &count);
    for (int32_t n = 0; n < count; n++)
        for (int32_t k = 0; k < topics[n]->partition_count; k++)
            check_partition(i, image_partition(topics[n], k));
}

/* ---- one who only listens to image_diff ---- */

struct seen {
    struct slice key;
    struct buf value;
    UT_hash_handle hh;
};

struct listener {
    struct seen *all;
    struct uuid topic; /* whose partitions are told */
    int64_t told;      /* since it was set to 0 */
};

static void see(struct listener *l, struct buf *key, struct buf *value)
{
    struct seen *s;
    HASH_FIND(hh, l->all, key->data, key->size, s);
    if (s != NULL) {
        HASH_DEL(l->all, s);
        free((void *)(uintptr_t)s->key.data);
        buf_free(&s->value);
        free(s);
    }
    l->told++;
    if (value == NULL) {
        buf_free(key);
        return;
    }
    s = calloc(1, sizeof *s);
    s->key = buf_slice(key);
    s->value = *value;
    HASH_ADD_KEYPTR(hh, l->all, s->key.data, s->key.size, s);
}

static void add_ids(struct buf *b, const int32_t *ids, int32_t count)
{
    buf_printf(b, " /");
    for (int32_t i = 0; i < count; i++)
        buf_printf(b, " %d", ids[i]);
}

static void on_partition(void *ctx, const struct image_partition *before, const struct image_partition *after)
{
    struct listener *l = ctx;
    struct buf key = {0}, value = {0};
    buf_printf(&key, "p%d ", (before ? before : after)->partition);
    buf_append(&key, l->topic.b, sizeof l->topic.b);
    if (after != NULL) {
        buf_printf(&value, "%d %d %d %d", after->leader, after->leader_epoch, after->partition_epoch,
                   after->leader_recovery_state);
        add_ids(&value, after->replicas, after->replica_count);
        add_ids(&value, after->isr, after->isr_count);
        add_ids(&value, after->elr, after->elr_count);
        add_ids(&value, after->last_known_elr, after->last_known_elr_count);
        add_ids(&value, after->adding, after->adding_count);
        add_ids(&value, after->removing, after->removing_count);
    }
    see(l, &key, after != NULL ? &value : NULL);
}

static void on_topic(void *ctx, const struct image_topic *before, const struct image_topic *after)
{
    struct listener *l = ctx;
    l->topic = (before ? before : after)->id;
    image_diff_partitions(before, after, on_partition, l);
}

static void on_broker(void *ctx, const struct image_broker *before, const struct image_broker *after)
{
    struct buf key = {0}, value = {0};
    buf_printf(&key, "b%d", (before ? before : after)->id);
    if (after != NULL)
        buf_printf(&value, "%lld %d %d", (long long)after->epoch, after->fenced, after->in_controlled_shutdown);
    see(ctx, &key, after != NULL ? &value : NULL);
}

static void on_service(void *ctx, const struct image_service *before, const struct image_service *after)
{
    struct buf key = {0}, value = {0};
    buf_printf(&key, "s%d %d", (before ? before : after)->role, (before ? before : after)->id);
    if (after != NULL)
        buf_printf(&value, "%llu %lld", (unsigned long long)after->incarnation, (long long)after->epoch);
    see(ctx, &key, after != NULL ? &value : NULL);
}

static void on_owner(void *ctx, const struct image_owner *before, const struct image_owner *after)
{
    const struct image_owner *o = before ? before : after;
    struct buf key = {0}, value = {0};
    buf_printf(&key, "o%d ", o->partition);
    buf_append(&key, o->topic_id.b, sizeof o->topic_id.b);
    if (after != NULL)
        buf_printf(&value, "%d %llu %d", after->id, (unsigned long long)after->incarnation, after->coordinator_epoch);
    see(ctx, &key, after != NULL ? &value : NULL);
}

static void listen_to(struct listener *l, const struct image *old, const struct image *newer)
{
    struct image_diff d = {.topic = on_topic, .broker = on_broker, .service = on_service, .owner = on_owner, .ctx = l};
    l->told = 0;
    image_diff(old, newer, &d);
}

static void expect_same(const struct listener *a, const struct listener *b)
{
    cr_assert_eq(HASH_COUNT(a->all), HASH_COUNT(b->all));
    for (const struct seen *s = a->all; s != NULL; s = s->hh.next) {
        const struct seen *other;
        HASH_FIND(hh, b->all, s->key.data, s->key.size, other);
        cr_assert(other != NULL && slice_eq(buf_slice(&s->value), buf_slice(&other->value)));
    }
}

static void stop_listening(struct listener *l)
{
    struct seen *s, *next;
    HASH_ITER (hh, l->all, s, next) {
        HASH_DEL(l->all, s);
        free((void *)(uintptr_t)s->key.data);
        buf_free(&s->value);
        free(s);
    }
}

/* ---- one life ---- */

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

/* The image goes on to the end of the log; the listener hears what changed. */
static struct image *follow(struct image *image, size_t *at, struct listener *l)
{
    struct image *next = NULL;
    cr_assert_eq(image_apply(image, slice_make(h.log.data + *at, h.log.size - *at), &next, NULL), 0);
    if (l != NULL)
        listen_to(l, image, next);
    *at = h.log.size;
    image_release(image);
    return next;
}

static void one_life(unsigned seed)
{
    struct listener stepwise = {0}, whole = {0};
    struct image *batchwise = image_empty("cluster"), *from_snapshot = NULL;
    size_t batchwise_at = 0, snapshot_at = 0;
    srand(seed);
    help_open(&h);
    memset(epochs, -1, sizeof epochs);
    memset(lives, 0, sizeof lives);
    for (int32_t id = 1; id <= NODES; id++)
        epochs[id][STORAGE] = help_storage(&h, id, 0, -1);
    for (int n = 0; n < STEPS; n++) {
        step();
        check_all();
        batchwise = follow(batchwise, &batchwise_at, &stepwise);
        cr_assert(n % 20 != 0 || image_equal(batchwise, controller_image(h.c)), "seed %u step %d", seed, n);
        if (n == STEPS / 2) {
            from_snapshot = snapshot_and_back(controller_image(h.c));
            snapshot_at = h.log.size;
        }
    }
    from_snapshot = follow(from_snapshot, &snapshot_at, NULL);
    cr_assert(image_equal(from_snapshot, controller_image(h.c)), "seed %u", seed);
    cr_assert(image_equal(batchwise, controller_image(h.c)), "seed %u", seed);
    listen_to(&whole, NULL, from_snapshot);
    expect_same(&stepwise, &whole);
    stop_listening(&stepwise);
    stop_listening(&whole);
    image_release(from_snapshot);
    image_release(batchwise);
    help_close(&h);
}

Test(replay, gives_the_same_image)
{
    for (unsigned seed = 1; seed <= 12; seed++)
        one_life(seed);
    cr_assert(seen_moving > 100 && seen_eligible > 100 && seen_leaderless > 100 && seen_recovering > 100);
}

/* An update costs what changed: with 10,000 partitions a listener is told of the one that is another. */
Test(replay, tells_what_changed_alone)
{
    struct listener l = {0};
    struct image *image = image_empty("cluster");
    size_t at = 0;
    help_open(&h);
    help_storage(&h, 1, 1, -1);
    help_storage(&h, 2, 1, -1);
    for (int n = 0; n < 10; n++) {
        char name[16];
        snprintf(name, sizeof name, "t%d", n);
        cr_assert_eq(help_create(&h, name, 1000, 2)->error_code, 0);
    }
    image = follow(image, &at, &l);
    cr_assert_geq(l.told, 10000);
    const struct image_topic *before = image_topic_by_name(image, SLICE_OF("t4"));
    const struct image_partition *neighbour = image_partition(before, 1), *far = image_partition(before, 999);
    const struct image_topic *other = image_topic_by_name(image, SLICE_OF("t5"));
    struct image *old = image_retain(image);
    char isr[16];
    snprintf(isr, sizeof isr, "%d", help_partition(&h, "t4", 0)->leader);
    cr_assert_eq(help_alter_isr(&h, "t4", isr, 0), KERR_NONE);
    image = follow(image, &at, &l);
    cr_assert_eq(l.told, 1);
    const struct image_topic *after = image_topic_by_name(image, SLICE_OF("t4"));
    cr_assert(after != before && image_partition(after, 1) == neighbour && image_partition(after, 999) == far);
    cr_assert_eq(image_topic_by_name(image, SLICE_OF("t5")), other); /* shared, not copied */
    image_release(old);
    image_release(image);
    stop_listening(&l);
    help_close(&h);
}
