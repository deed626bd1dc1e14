#include "tests/unit/groups/harness.h"

#include <stdio.h>
#include <stdlib.h>

#include "libs/base/bytes.h"
#include "libs/wire/wire.h"

static void random_bytes(void *ctx, uint8_t out[16])
{
    struct harness *h = ctx;
    for (int i = 0; i < 16; i++) {
        h->random = h->random * 6364136223846793005u + 1442695040888963407u;
        out[i] = (uint8_t)(h->random >> 56);
    }
}

static bool topic_by_name(void *ctx, struct slice name, struct uuid *ret_id, int32_t *ret_partitions)
{
    struct harness *h = ctx;
    if (h->no_topics || (!slice_eq_str(name, "t") && !slice_eq_str(name, "u")))
        return false;
    *ret_id = h->topic_id;
    ret_id->b[0] = name.data[0];
    *ret_partitions = 3;
    return true;
}

static bool topic_by_id(void *ctx, struct uuid id, struct slice *ret_name, int32_t *ret_partitions)
{
    struct harness *h = ctx;
    struct uuid t = h->topic_id;
    t.b[0] = 't';
    if (h->no_topics || !uuid_eq(id, t))
        return false;
    *ret_name = SLICE_OF("t");
    *ret_partitions = 3;
    return true;
}

static struct slice keep(struct slice s)
{
    if (slice_is_null(s))
        return SLICE_NULL;
    uint8_t *copy = xmalloc(s.size + 1);
    if (s.size > 0)
        memcpy(copy, s.data, s.size);
    return slice_make(copy, s.size);
}

static void log_add(struct partition_log *l, struct logged r)
{
    if (l->count == l->capacity) {
        l->capacity = l->capacity ? 2 * l->capacity : 16;
        l->records = xrealloc(l->records, l->capacity * sizeof l->records[0]);
    }
    l->records[l->count++] = r;
}

static void log_free(struct partition_log *l)
{
    for (size_t i = 0; i < l->count; i++) {
        free((void *)(uintptr_t)l->records[i].key.data);
        free((void *)(uintptr_t)l->records[i].value.data);
    }
    free(l->records);
    *l = (struct partition_log){0};
}

void harness_put(struct harness *h, int32_t partition, struct slice key, struct slice value, int64_t producer_id,
                 bool transactional, bool control)
{
    log_add(&h->logs[partition], (struct logged){.key = keep(key),
                                                 .value = keep(value),
                                                 .producer_id = producer_id,
                                                 .transactional = transactional,
                                                 .control = control});
}

/* An answer outlives its step as bytes: encoded and decoded, as on the bus; then once more at the client's version. */
static const void *copy_answer(struct harness *h, const struct groups_action *a)
{
    const struct wire_type *type = wire_api(a->api_key)->response;
    struct buf bytes = {0}, narrow = {0};
    int bad = wire_encode(type, WIRE_VERSION_BUS, a->response, &bytes);
    ASSERT(bad == 0);
    bad = wire_encode(type, a->api_version, a->response, &narrow);
    ASSERT(bad == 0); /* the front end must be able to send it */
    buf_free(&narrow);
    void *copy = arena_alloc(h->arena, wire_struct_size(type));
    bad = wire_decode(type, WIRE_VERSION_BUS, arena_dup(h->arena, buf_slice(&bytes)), h->arena, copy, NULL);
    ASSERT(bad == 0);
    buf_free(&bytes);
    return copy;
}

static void hold(struct harness *h, const struct groups_action *a)
{
    ASSERT(!h->held.under_way || h->held.partition != a->partition);
    h->held.under_way = true;
    h->held.partition = a->partition;
    h->held.append = a->append;
    for (size_t i = 0; i < a->record_count; i++)
        log_add(&h->held.records,
                (struct logged){.key = keep(a->records[i].key), .value = keep(a->records[i].value), .producer_id = -1});
}

static void feed_log(struct harness *h, int32_t partition, uint64_t load)
{
    const struct partition_log *l = &h->logs[partition];
    for (size_t i = 0; i < l->count; i++) {
        struct groups_record r = {.offset = (int64_t)i,
                                  .producer_id = l->records[i].producer_id,
                                  .transactional = l->records[i].transactional,
                                  .control = l->records[i].control,
                                  .key = l->records[i].key,
                                  .value = l->records[i].value};
        harness_event(h, &(struct groups_event){.kind = GROUPS_EVENT_LOAD_RECORDS,
                                                .partition = partition,
                                                .load = load,
                                                .records = &r,
                                                .record_count = 1});
    }
    harness_event(h, &(struct groups_event){.kind = GROUPS_EVENT_LOADED, .partition = partition, .load = load});
}

void harness_event(struct harness *h, const struct groups_event *e)
{
    struct groups_out out;
    struct {
        bool append;
        int32_t partition;
        uint64_t number;
    } todo[2 * HARNESS_PARTITIONS];
    size_t count = 0;
    groups_step(h->core, e, h->now, &out);
    for (size_t i = 0; i < out.count; i++) {
        const struct groups_action *a = &out.actions[i];
        switch (a->kind) {
        case GROUPS_ACTION_REPLY:
            ASSERT(a->request <= h->requests && h->answers[a->request] == NULL);
            h->answers[a->request] = copy_answer(h, a);
            h->answered++;
            break;
        case GROUPS_ACTION_APPEND:
            ASSERT(count < COUNTOF(todo));
            if (h->hold_appends) {
                hold(h, a);
                break;
            }
            for (size_t r = 0; !h->fail_appends && r < a->record_count; r++)
                harness_put(h, a->partition, a->records[r].key, a->records[r].value, -1, false, false);
            todo[count].append = true;
            todo[count].partition = a->partition;
            todo[count++].number = a->append;
            break;
        case GROUPS_ACTION_LOAD:
            ASSERT(count < COUNTOF(todo));
            h->loads++;
            todo[count].append = false;
            todo[count].partition = a->partition;
            todo[count++].number = a->load;
            break;
        }
    }
    groups_check(h->core);
    for (size_t i = 0; i < count; i++) {
        if (!todo[i].append)
            feed_log(h, todo[i].partition, todo[i].number);
        else
            harness_event(h, &(struct groups_event){.kind = GROUPS_EVENT_APPENDED,
                                                    .partition = todo[i].partition,
                                                    .append = todo[i].number,
                                                    .error = h->fail_appends ? KERR_REQUEST_TIMED_OUT : KERR_NONE});
    }
    if (e->kind != GROUPS_EVENT_FLUSH && groups_dirty(h->core))
        harness_event(h, &(struct groups_event){.kind = GROUPS_EVENT_FLUSH});
}

void harness_end_append(struct harness *h, enum kafka_error error)
{
    ASSERT(h->held.under_way);
    h->held.under_way = false;
    for (size_t i = 0; i < h->held.records.count && error == KERR_NONE; i++)
        harness_put(h, h->held.partition, h->held.records.records[i].key, h->held.records.records[i].value, -1, false,
                    false);
    log_free(&h->held.records);
    harness_event(h, &(struct groups_event){.kind = GROUPS_EVENT_APPENDED,
                                            .partition = h->held.partition,
                                            .append = h->held.append,
                                            .error = (int)error});
}

static void open_core(struct harness *h)
{
    struct groups_env env = {
        .ctx = h, .random = random_bytes, .topic_by_name = topic_by_name, .topic_by_id = topic_by_id};
    h->core = groups_new(&h->config, &env);
    groups_set_partition_count(h->core, HARNESS_PARTITIONS);
    for (int32_t p = 0; p < HARNESS_PARTITIONS; p++)
        harness_event(h, &(struct groups_event){.kind = GROUPS_EVENT_ACQUIRE, .partition = p, .epoch = 1});
}

void harness_open(struct harness *h)
{
    *h = (struct harness){.now = {.mono_ms = 1000, .wall_ms = 1700000000000}, .random = 7};
    memset(h->topic_id.b, 9, sizeof h->topic_id.b);
    groups_config_init(&h->config);
    h->arena = arena_new(0);
    h->answers = xcalloc(HARNESS_REQUESTS, sizeof h->answers[0]);
    open_core(h);
}

void harness_close(struct harness *h)
{
    groups_free(h->core);
    for (int p = 0; p < HARNESS_PARTITIONS; p++)
        log_free(&h->logs[p]);
    log_free(&h->held.records);
    arena_free(h->arena);
    free(h->answers);
}

void harness_restart(struct harness *h)
{
    groups_free(h->core);
    h->held.under_way = false;
    log_free(&h->held.records);
    open_core(h);
}

void harness_pass(struct harness *h, uint64_t ms)
{
    uint64_t end = h->now.mono_ms + ms;
    for (;;) {
        uint64_t due = groups_deadline_ms(h->core);
        uint64_t to = MIN(MAX(due, h->now.mono_ms), end);
        h->now.wall_ms += (int64_t)(to - h->now.mono_ms);
        h->now.mono_ms = to;
        if (due > end)
            return;
        harness_event(h, &(struct groups_event){.kind = GROUPS_EVENT_TIME});
    }
}

uint64_t harness_ask(struct harness *h, int16_t api, int16_t version, const void *message)
{
    struct groups_request q = {.id = ++h->requests,
                               .api_key = api,
                               .api_version = version,
                               .client_id = SLICE_OF("client"),
                               .client_host = SLICE_OF("/127.0.0.1"),
                               .message = message};
    ASSERT(h->requests < HARNESS_REQUESTS);
    harness_event(h, &(struct groups_event){.kind = GROUPS_EVENT_REQUEST, .request = &q});
    return q.id;
}

const void *harness_answer(struct harness *h, uint64_t request)
{
    return h->answers[request];
}

/* ---- requests ---- */

static struct slice text(const char *s)
{
    return s != NULL ? slice_str(s) : SLICE_EMPTY;
}

uint64_t ask_join(struct harness *h, struct join_options o)
{
    struct kafka_join_group_request q;
    struct kafka_join_group_request_join_group_request_protocol protocols[8];
    kafka_join_group_request_init(&q);
    q.group_id = text(o.group);
    q.member_id = text(o.member);
    q.group_instance_id = slice_str(o.instance);
    q.session_timeout_ms = o.session_ms ? o.session_ms : 10000;
    q.rebalance_timeout_ms = o.rebalance_ms ? o.rebalance_ms : 60000;
    q.protocol_type = text(o.type != NULL ? o.type : "consumer");
    q.protocols = protocols;
    const char *names = o.protocols != NULL ? o.protocols : "range";
    while (*names != '\0') {
        size_t n = strcspn(names, ",");
        protocols[q.protocols_count].name = slice_make(names, n);
        protocols[q.protocols_count++].metadata = text(o.metadata);
        names += n + (names[n] == ',');
    }
    return harness_ask(h, KAFKA_API_JOIN_GROUP, o.version == -1 ? 0 : o.version == 0 ? 9 : o.version, &q);
}

const struct kafka_join_group_response *joined(struct harness *h, uint64_t request)
{
    return harness_answer(h, request);
}

const char *join_member(struct harness *h, struct join_options o, uint64_t *ret_request)
{
    const struct kafka_join_group_response *r = joined(h, ask_join(h, o));
    ASSERT(r != NULL && r->error_code == KERR_MEMBER_ID_REQUIRED);
    o.member = arena_str(h->arena, r->member_id);
    *ret_request = ask_join(h, o);
    return o.member;
}

uint64_t ask_sync(struct harness *h, const char *group, int32_t generation, const char *member,
                  const char *const *assignments)
{
    struct kafka_sync_group_request q;
    struct kafka_sync_group_request_sync_group_request_assignment list_[64];
    kafka_sync_group_request_init(&q);
    q.group_id = text(group);
    q.generation_id = generation;
    q.member_id = text(member);
    q.protocol_type = SLICE_OF("consumer");
    q.protocol_name = SLICE_OF("range");
    q.assignments = list_;
    for (int i = 0; assignments != NULL && assignments[i] != NULL; i += 2) {
        list_[q.assignments_count].member_id = slice_str(assignments[i]);
        list_[q.assignments_count++].assignment = slice_str(assignments[i + 1]);
    }
    return harness_ask(h, KAFKA_API_SYNC_GROUP, 5, &q);
}

const struct kafka_sync_group_response *synced(struct harness *h, uint64_t request)
{
    return harness_answer(h, request);
}

int heartbeat(struct harness *h, const char *group, int32_t generation, const char *member, const char *instance)
{
    struct kafka_heartbeat_request q;
    kafka_heartbeat_request_init(&q);
    q.group_id = text(group);
    q.generation_id = generation;
    q.member_id = text(member);
    q.group_instance_id = slice_str(instance);
    const struct kafka_heartbeat_response *r = harness_answer(h, harness_ask(h, KAFKA_API_HEARTBEAT, 4, &q));
    return r->error_code;
}

int leave(struct harness *h, int16_t version, const char *group, const char *member, const char *instance)
{
    struct kafka_leave_group_request q;
    struct kafka_leave_group_request_member_identity one = {
        .member_id = text(member), .group_instance_id = slice_str(instance), .reason = SLICE_NULL};
    kafka_leave_group_request_init(&q);
    q.group_id = text(group);
    q.member_id = text(member);
    if (version >= 3) {
        q.members = &one;
        q.members_count = 1;
    }
    const struct kafka_leave_group_response *r = harness_answer(h, harness_ask(h, KAFKA_API_LEAVE_GROUP, version, &q));
    if (r == NULL)
        return -1000;
    return r->error_code != 0 || version < 3 ? r->error_code : r->members[0].error_code;
}

int commit(struct harness *h, int16_t version, const char *group, int32_t generation, const char *member,
           const char *topic, int32_t partition, int64_t offset, const char *metadata)
{
    struct kafka_offset_commit_request q;
    struct kafka_offset_commit_request_offset_commit_request_topic t;
    struct kafka_offset_commit_request_offset_commit_request_partition p;
    kafka_offset_commit_request_init(&q);
    wire_init(&kafka_offset_commit_request_offset_commit_request_topic_type, &t);
    wire_init(&kafka_offset_commit_request_offset_commit_request_partition_type, &p);
    q.group_id = text(group);
    q.generation_id_or_member_epoch = generation;
    q.member_id = text(member);
    q.topics = &t;
    q.topics_count = 1;
    t.name = text(topic);
    t.topic_id = h->topic_id;
    t.topic_id.b[0] = (uint8_t)topic[0];
    t.partitions = &p;
    t.partitions_count = 1;
    p.partition_index = partition;
    p.committed_offset = offset;
    p.committed_metadata = slice_str(metadata);
    const struct kafka_offset_commit_response *r =
        harness_answer(h, harness_ask(h, KAFKA_API_OFFSET_COMMIT, version, &q));
    return r == NULL ? -1000 : r->topics[0].partitions[0].error_code;
}

int64_t committed(struct harness *h, const char *group, const char *topic, int32_t partition)
{
    struct kafka_offset_fetch_request q;
    struct kafka_offset_fetch_request_offset_fetch_request_topic t;
    kafka_offset_fetch_request_init(&q);
    q.group_id = text(group);
    q.topics = &t;
    q.topics_count = 1;
    t.name = text(topic);
    t.partition_indexes = &partition;
    t.partition_indexes_count = 1;
    const struct kafka_offset_fetch_response *r = harness_answer(h, harness_ask(h, KAFKA_API_OFFSET_FETCH, 7, &q));
    return r->error_code != 0 ? -1000 - r->error_code : r->topics[0].partitions[0].committed_offset;
}

int delete_group(struct harness *h, const char *group)
{
    struct slice name = text(group);
    struct kafka_delete_groups_request q = {.groups_names = &name, .groups_names_count = 1};
    const struct kafka_delete_groups_response *r = harness_answer(h, harness_ask(h, KAFKA_API_DELETE_GROUPS, 2, &q));
    return r == NULL ? -1000 : r->results[0].error_code;
}

int delete_offset(struct harness *h, const char *group, const char *topic, int32_t partition, int *ret_partition_error)
{
    struct kafka_offset_delete_request_offset_delete_request_partition p = {.partition_index = partition};
    struct kafka_offset_delete_request_offset_delete_request_topic t = {
        .name = text(topic), .partitions = &p, .partitions_count = 1};
    struct kafka_offset_delete_request q = {.group_id = text(group), .topics = &t, .topics_count = 1};
    const struct kafka_offset_delete_response *r = harness_answer(h, harness_ask(h, KAFKA_API_OFFSET_DELETE, 0, &q));
    *ret_partition_error = r->topics_count > 0 ? r->topics[0].partitions[0].error_code : -1;
    return r->error_code;
}

const struct kafka_describe_groups_response_described_group *describe(struct harness *h, int16_t version,
                                                                      const char *group)
{
    struct slice name = text(group);
    struct kafka_describe_groups_request q = {.groups = &name, .groups_count = 1};
    const struct kafka_describe_groups_response *r =
        harness_answer(h, harness_ask(h, KAFKA_API_DESCRIBE_GROUPS, version, &q));
    return &r->groups[0];
}

const char *state_of(struct harness *h, const char *group)
{
    return arena_str(h->arena, describe(h, 6, group)->group_state);
}

int32_t list(struct harness *h, const char *state, const char *type)
{
    struct slice s = text(state), t = text(type);
    struct kafka_list_groups_request q = {.states_filter = &s,
                                          .states_filter_count = state != NULL,
                                          .types_filter = &t,
                                          .types_filter_count = type != NULL};
    const struct kafka_list_groups_response *r = harness_answer(h, harness_ask(h, KAFKA_API_LIST_GROUPS, 5, &q));
    return r->error_code != 0 ? -r->error_code : r->groups_count;
}

struct pair stable_pair(struct harness *h, const char *group)
{
    struct pair p;
    uint64_t one, two;
    p.leader = join_member(h, (struct join_options){.group = group}, &one);
    p.follower = join_member(h, (struct join_options){.group = group}, &two);
    harness_pass(h, 2ul * (uint64_t)h->config.initial_rebalance_delay_ms);
    ASSERT(joined(h, one) != NULL && joined(h, two) != NULL && joined(h, two)->error_code == 0);
    p.generation = joined(h, one)->generation_id;
    uint64_t follower = ask_sync(h, group, p.generation, p.follower, NULL);
    uint64_t leader =
        ask_sync(h, group, p.generation, p.leader, (const char *[]){p.leader, "left", p.follower, "right", NULL});
    ASSERT(synced(h, leader)->error_code == 0 && slice_eq_str(synced(h, follower)->assignment, "right"));
    return p;
}
