/* core.c - steps, the partitions that we own, actions, and bytes that count against the memory limit. */
#include "libs/groups/core.h"

#include <stdlib.h>

#include "kafka/apis.h"
#include "libs/wire/wire.h"

/* ---- owned bytes ---- */

void account(struct groups *c, size_t bytes)
{
    c->memory_bytes += bytes;
}

void unaccount(struct groups *c, size_t bytes)
{
    ASSERT(c->memory_bytes >= bytes);
    c->memory_bytes -= bytes;
}

bool memory_allows(const struct groups *c, size_t more_bytes)
{
    return more_bytes <= c->config.memory_max_bytes && c->memory_bytes <= c->config.memory_max_bytes - more_bytes;
}

bool answer_takes(struct groups *c, size_t bytes)
{
    if (c->answer_bytes <= ANSWER_BYTES_MAX)
        c->answer_bytes += bytes;
    return c->answer_bytes <= ANSWER_BYTES_MAX;
}

struct slice own(struct groups *c, struct slice s)
{
    if (s.data == NULL)
        return SLICE_NULL;
    if (s.size == 0)
        return SLICE_EMPTY;
    uint8_t *copy = xmalloc(s.size);
    memcpy(copy, s.data, s.size);
    account(c, s.size + 16);
    return slice_make(copy, s.size);
}

void disown(struct groups *c, struct slice *s)
{
    if (s->size > 0) {
        unaccount(c, s->size + 16);
        free((void *)(uintptr_t)s->data);
    }
    *s = SLICE_NULL;
}

void own_replace(struct groups *c, struct slice *owned, struct slice s)
{
    struct slice copy = own(c, s); /* s may be *owned or a part of it */
    disown(c, owned);
    *owned = copy;
}

/* ---- actions ---- */

struct groups_action *action_add(struct groups *c, enum groups_action_kind kind)
{
    if (c->action_count == c->action_capacity) {
        c->action_capacity = c->action_capacity ? 2 * c->action_capacity : 64;
        c->actions = xrealloc(c->actions, c->action_capacity * sizeof(c->actions[0]));
    }
    struct groups_action *a = &c->actions[c->action_count++];
    memset(a, 0, sizeof *a);
    a->kind = kind;
    return a;
}

void answer(struct groups *c, const struct groups_request *q, const void *response)
{
    struct groups_action *a = action_add(c, GROUPS_ACTION_REPLY);
    a->request = q->id;
    a->api_key = q->api_key;
    a->api_version = q->api_version;
    a->response = response;
}

void answer_parked(struct groups *c, struct parked *p, int16_t api_key, const void *response)
{
    ASSERT(p->waiting);
    struct groups_action *a = action_add(c, GROUPS_ACTION_REPLY);
    a->request = p->request;
    a->api_key = api_key;
    a->api_version = p->version;
    a->response = response;
    *p = (struct parked){0};
}

/* ---- partitions ---- */

struct shard *shard_find(const struct groups *c, int32_t partition)
{
    struct shard *s;
    HASH_FIND(hh, c->shards, &partition, sizeof partition, s);
    return s;
}

enum kafka_error shard_of(struct groups *c, struct slice group_id, struct shard **ret_shard)
{
    if (c->partition_count == 0)
        return KERR_COORDINATOR_NOT_AVAILABLE;
    struct shard *s = shard_find(c, slice_coordinator_partition(group_id, c->partition_count));
    if (s == NULL)
        return KERR_NOT_COORDINATOR;
    if (s->state == SHARD_LOADING)
        return KERR_COORDINATOR_LOAD_IN_PROGRESS;
    *ret_shard = s;
    return KERR_NONE;
}

enum kafka_error group_of(struct groups *c, struct slice group_id, struct shard **ret_shard, struct group **ret_group)
{
    enum kafka_error error = shard_of(c, group_id, ret_shard);
    if (error != KERR_NONE)
        return error;
    struct group *g = group_find(*ret_shard, group_id);
    if (g != NULL && g->deleting)
        return KERR_COORDINATOR_LOAD_IN_PROGRESS;
    *ret_group = g;
    return KERR_NONE;
}

static void shard_request_load(struct shard *s)
{
    s->state = SHARD_LOADING;
    s->load = ++s->core->next_number;
    struct groups_action *a = action_add(s->core, GROUPS_ACTION_LOAD);
    a->partition = s->partition;
    a->epoch = s->epoch;
    a->load = s->load;
}

/* Those that wait for other members, not for the log. */
static void answer_all_parked(struct group *g, enum kafka_error error)
{
    for (struct member *m = g->members; m != NULL; m = m->hh.next) {
        if (m->join.waiting) {
            join_answer_error(g->shard->core, &m->join, m->id, error);
            g->joining--;
        }
        if (m->sync.waiting)
            sync_answer(m, error);
    }
}

void shard_clear(struct shard *s, enum kafka_error error)
{
    stage_fail(s, error);
    struct group *g, *next;
    HASH_ITER (hh, s->groups, g, next) {
        answer_all_parked(g, KERR_NOT_COORDINATOR);
        group_free(g);
    }
    ASSERT(s->groups == NULL && s->txns == NULL);
}

void shard_reload(struct shard *s, enum kafka_error error)
{
    shard_clear(s, error);
    shard_request_load(s);
}

static void on_acquire(struct groups *c, const struct groups_event *e)
{
    struct shard *s = shard_find(c, e->partition);
    if (s == NULL) {
        s = xcalloc(1, sizeof *s);
        s->core = c;
        s->partition = e->partition;
        s->epoch = e->epoch;
        HASH_ADD(hh, c->shards, partition, sizeof s->partition, s);
        account(c, sizeof *s);
        shard_request_load(s);
    } else if (e->epoch > s->epoch) {
        s->epoch = e->epoch;
        shard_reload(s, KERR_NOT_COORDINATOR);
    }
    if (c->expiry.place == 0)
        timer_set(&c->timers, &c->expiry, TIMER_EXPIRY,
                  c->now.mono_ms + (uint64_t)c->config.retention_check_interval_ms);
}

static void shard_free(struct shard *s)
{
    struct groups *c = s->core;
    HASH_DEL(c->shards, s);
    unaccount(c, sizeof *s);
    free(s);
}

static void on_release(struct groups *c, const struct groups_event *e)
{
    struct shard *s = shard_find(c, e->partition);
    if (s == NULL)
        return;
    shard_clear(s, KERR_NOT_COORDINATOR);
    shard_free(s);
}

/* The partition that is being loaded by this very load; NULL: the event is late. */
static struct shard *shard_of_load(struct groups *c, const struct groups_event *e)
{
    struct shard *s = shard_find(c, e->partition);
    return s != NULL && s->state == SHARD_LOADING && s->load == e->load ? s : NULL;
}

static void on_load_records(struct groups *c, const struct groups_event *e)
{
    struct shard *s = shard_of_load(c, e);
    for (size_t i = 0; s != NULL && i < e->record_count; i++)
        load_record(s, &e->records[i]);
}

static void on_loaded(struct groups *c, const struct groups_event *e)
{
    struct shard *s = shard_of_load(c, e);
    if (s == NULL)
        return;
    s->state = SHARD_ACTIVE;
    load_finished(s);
}

static void on_reload(struct groups *c, const struct groups_event *e)
{
    struct shard *s = shard_find(c, e->partition);
    if (s != NULL)
        shard_reload(s, KERR_NOT_COORDINATOR);
}

static void on_appended(struct groups *c, const struct groups_event *e)
{
    struct shard *s = shard_find(c, e->partition);
    if (s == NULL || s->flight == NULL || s->flight->append != e->append)
        return; /* the partition was dropped meanwhile; who waited has his answer */
    stage_appended(s, e->append, (enum kafka_error)e->error);
}

/* ---- time ---- */

static void fire(struct groups *c, struct timer *t)
{
    switch (t->kind) {
    case TIMER_SESSION: session_timer(CONTAINER_OF(t, struct member, session)); return;
    case TIMER_PENDING: pending_timer(CONTAINER_OF(t, struct pending, timer)); return;
    case TIMER_JOIN: rebalance_join_timer(CONTAINER_OF(t, struct group, join_timer)); return;
    case TIMER_SYNC: rebalance_sync_timer(CONTAINER_OF(t, struct group, sync_timer)); return;
    case TIMER_EXPIRY:
        timer_set(&c->timers, t, TIMER_EXPIRY, c->now.mono_ms + (uint64_t)c->config.retention_check_interval_ms);
        remove_expired(c);
        return;
    }
    BUG("a timer of no kind");
}

static void on_time(struct groups *c)
{
    while (c->timers.count > 0 && c->timers.heap[0]->due_ms <= c->now.mono_ms) {
        struct timer *t = c->timers.heap[0];
        timer_clear(&c->timers, t);
        fire(c, t);
    }
}

uint64_t groups_deadline_ms(const struct groups *c)
{
    return c->timers.count > 0 ? c->timers.heap[0]->due_ms : UINT64_MAX;
}

/* ---- requests ---- */

static void on_request(struct groups *c, const struct groups_request *q)
{
    switch (q->api_key) {
    case KAFKA_API_JOIN_GROUP: on_join(c, q); return;
    case KAFKA_API_SYNC_GROUP: on_sync(c, q); return;
    case KAFKA_API_HEARTBEAT: on_heartbeat(c, q); return;
    case KAFKA_API_LEAVE_GROUP: on_leave(c, q); return;
    case KAFKA_API_OFFSET_COMMIT: on_commit(c, q); return;
    case KAFKA_API_OFFSET_FETCH: on_fetch(c, q); return;
    case KAFKA_API_OFFSET_DELETE: on_offset_delete(c, q); return;
    case KAFKA_API_LIST_GROUPS: on_list(c, q); return;
    case KAFKA_API_DESCRIBE_GROUPS: on_describe(c, q); return;
    case KAFKA_API_DELETE_GROUPS: on_delete(c, q); return;
    default: BUG("an API that the group coordinator does not serve"); /* the adapter registers exactly these */
    }
}

/* ---- the public face ---- */

void groups_config_init(struct groups_config *config)
{
    *config = (struct groups_config){
        .initial_rebalance_delay_ms = 3000,
        .session_timeout_min_ms = 6000,
        .session_timeout_max_ms = 1800000,
        .group_max_size = INT32_MAX,
        .new_member_timeout_ms = 300000,
        .metadata_max_bytes = 4096,
        .retention_ms = INT64_C(10080) * 60000,
        .retention_check_interval_ms = 600000,
        .batch_max_bytes = 1048588 - 100,
        .memory_max_bytes = (size_t)1 << 30,
    };
}

struct groups *groups_new(const struct groups_config *config, const struct groups_env *env)
{
    struct groups *c = xcalloc(1, sizeof *c);
    c->config = *config;
    c->env = *env;
    c->arena = arena_new(0);
    return c;
}

struct groups *groups_free(struct groups *c)
{
    if (c == NULL)
        return NULL;
    struct shard *s, *next;
    HASH_ITER (hh, c->shards, s, next) {
        shard_clear(s, KERR_NOT_COORDINATOR);
        shard_free(s);
    }
    timer_clear(&c->timers, &c->expiry);
    ASSERT(c->timers.count == 0 && c->memory_bytes == 0);
    stage_free_finished(c);
    stage_start(c);
    buf_free(&c->scratch.bytes);
    free(c->scratch.records);
    free(c->timers.heap);
    free(c->actions);
    arena_free(c->arena);
    free(c);
    return NULL;
}

void groups_set_partition_count(struct groups *c, int32_t count)
{
    if (count > c->partition_count)
        c->partition_count = count;
}

void groups_set_batch_max(struct groups *c, size_t bytes)
{
    c->config.batch_max_bytes = bytes;
}

int32_t groups_partition_count(const struct groups *c)
{
    return c->partition_count;
}

void groups_step(struct groups *c, const struct groups_event *e, struct groups_now now, struct groups_out *ret_out)
{
    c->now = now;
    c->action_count = 0;
    c->answer_bytes = 0;
    arena_reset(c->arena);
    stage_free_finished(c);
    stage_start(c);
    switch (e->kind) {
    case GROUPS_EVENT_ACQUIRE: on_acquire(c, e); break;
    case GROUPS_EVENT_RELEASE: on_release(c, e); break;
    case GROUPS_EVENT_LOAD_RECORDS: on_load_records(c, e); break;
    case GROUPS_EVENT_LOADED: on_loaded(c, e); break;
    case GROUPS_EVENT_RELOAD: on_reload(c, e); break;
    case GROUPS_EVENT_REQUEST: on_request(c, e->request); break;
    case GROUPS_EVENT_APPENDED: on_appended(c, e); break;
    case GROUPS_EVENT_TOPIC_DELETED: remove_topic(c, e->topic); break;
    case GROUPS_EVENT_FLUSH: stage_flush(c); break;
    case GROUPS_EVENT_TIME: on_time(c); break;
    }
    *ret_out = (struct groups_out){.actions = c->actions, .count = c->action_count};
}

bool groups_dirty(const struct groups *c)
{
    for (const struct shard *s = c->shards; s != NULL; s = s->hh.next)
        if (s->queue != NULL && s->flight == NULL)
            return true;
    return false;
}

size_t groups_count(const struct groups *c)
{
    size_t count = 0;
    for (const struct shard *s = c->shards; s != NULL; s = s->hh.next)
        count += HASH_COUNT(s->groups);
    return count;
}

size_t groups_memory_bytes(const struct groups *c)
{
    return c->memory_bytes;
}

uint64_t groups_unreadable(const struct groups *c)
{
    return c->unreadable;
}

bool groups_owns(const struct groups *c, int32_t partition, int32_t *ret_epoch, bool *ret_loaded)
{
    const struct shard *s = shard_find(c, partition);
    if (s == NULL)
        return false;
    *ret_epoch = s->epoch;
    *ret_loaded = s->state == SHARD_ACTIVE;
    return true;
}
