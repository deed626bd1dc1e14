// link: groups wire base
/* Any bytes as what clients, the log and time do to the group coordinator: each takes a few bytes and becomes a request
 * with names out of small sets, an append that ends well or badly, a new owner, or time that passes. The invariants
 * hold after each. */
#include "libs/groups/groups.h"

#include "kafka/apis.h"
#include "kafka/delete_groups.h"
#include "kafka/describe_groups.h"
#include "kafka/heartbeat.h"
#include "kafka/join_group.h"
#include "kafka/leave_group.h"
#include "kafka/list_groups.h"
#include "kafka/offset_commit.h"
#include "kafka/offset_delete.h"
#include "kafka/offset_fetch.h"
#include "kafka/sync_group.h"
#include "libs/wire/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { IDS = 16, ID_MAX = 64 };

struct world {
    const uint8_t *at, *end;
    struct groups *g;
    struct groups_now now;
    uint64_t random, requests, answers;
    char ids[IDS][ID_MAX]; /* member ids that were given out */
    size_t id_count;
    uint64_t append, load;
    bool appending, loading;
};

static uint8_t next(struct world *w)
{
    return w->at < w->end ? *w->at++ : 0;
}

static void random_bytes(void *ctx, uint8_t out[16])
{
    struct world *w = ctx;
    memset(out, 0x42, 16);
    w->random++;
    memcpy(out, &w->random, sizeof w->random);
}

static bool by_name(void *ctx, struct slice name, struct uuid *ret_id, int32_t *ret_partitions)
{
    (void)ctx;
    *ret_id = (struct uuid){{1}};
    *ret_partitions = 3;
    return slice_eq_str(name, "t");
}

static bool by_id(void *ctx, struct uuid id, struct slice *ret_name, int32_t *ret_partitions)
{
    (void)ctx;
    *ret_name = SLICE_OF("t");
    *ret_partitions = 3;
    return id.b[0] == 1;
}

/* ---- names ---- */

static struct slice group_name(struct world *w)
{
    static const char *const names[] = {"g", "g", "g", "h", "", "nowhere"};
    return slice_str(names[next(w) % COUNTOF(names)]);
}

static struct slice member_name(struct world *w)
{
    uint8_t b = next(w);
    if (b % 8 == 0 || w->id_count == 0)
        return SLICE_EMPTY;
    return b % 8 == 1 ? SLICE_OF("stranger") : slice_str(w->ids[b / 8 % w->id_count]);
}

static struct slice instance_name(struct world *w)
{
    uint8_t b = next(w);
    return b % 3 == 0 ? SLICE_NULL : b % 3 == 1 ? SLICE_OF("a") : SLICE_OF("b");
}

/* ---- steps ---- */

static void keep_id(struct world *w, struct slice id)
{
    if (id.size == 0 || id.size >= ID_MAX)
        return;
    char *to = w->ids[w->id_count < IDS ? w->id_count++ : w->random % IDS];
    memcpy(to, id.data, id.size);
    to[id.size] = '\0';
}

static void check_answer(struct world *w, const struct groups_action *a)
{
    struct buf bytes = {0};
    int bad = wire_encode(wire_api(a->api_key)->response, a->api_version, a->response, &bytes);
    ASSERT(bad == 0); /* the front end must be able to send it */
    buf_free(&bytes);
    w->answers++;
    if (a->api_key == KAFKA_API_JOIN_GROUP)
        keep_id(w, ((const struct kafka_join_group_response *)a->response)->member_id);
}

static void step(struct world *w, const struct groups_event *e)
{
    struct groups_out out;
    groups_step(w->g, e, w->now, &out);
    for (size_t i = 0; i < out.count; i++) {
        const struct groups_action *a = &out.actions[i];
        switch (a->kind) {
        case GROUPS_ACTION_REPLY: check_answer(w, a); break;
        case GROUPS_ACTION_APPEND:
            w->appending = true;
            w->append = a->append;
            break;
        case GROUPS_ACTION_LOAD:
            w->appending = false;
            w->loading = true;
            w->load = a->load;
            break;
        }
    }
    groups_check(w->g);
}

static void ask(struct world *w, int16_t api, int16_t version, const void *message)
{
    struct groups_request q = {.id = ++w->requests,
                               .api_key = api,
                               .api_version = version,
                               .client_id = SLICE_OF("c"),
                               .client_host = SLICE_OF("/::1"),
                               .message = message};
    step(w, &(struct groups_event){.kind = GROUPS_EVENT_REQUEST, .request = &q});
}

static int16_t version_of(struct world *w, int16_t api)
{
    const struct wire_api *a = wire_api(api);
    return (int16_t)(a->version_min + next(w) % (a->version_max - a->version_min + 1));
}

/* ---- requests ---- */

static void do_join(struct world *w)
{
    static const char *const names[] = {"range", "sticky", "x"};
    struct kafka_join_group_request q;
    struct kafka_join_group_request_join_group_request_protocol protocols[3];
    kafka_join_group_request_init(&q);
    q.group_id = group_name(w);
    q.member_id = member_name(w);
    int16_t version = version_of(w, KAFKA_API_JOIN_GROUP);
    if (version >= 5)
        q.group_instance_id = instance_name(w);
    uint8_t b = next(w);
    q.protocol_type = b % 8 == 0 ? SLICE_OF("connect") : SLICE_OF("consumer");
    q.session_timeout_ms = 6000 + 100 * (b >> 3);
    q.rebalance_timeout_ms = (int32_t)next(w) * 100 - 100;
    q.protocols = protocols;
    for (uint8_t n = next(w), i = 0; i < n % 4; i++)
        protocols[q.protocols_count++] = (struct kafka_join_group_request_join_group_request_protocol){
            .name = slice_str(names[(n / 4 + i) % 3]), .metadata = slice_make("mm", n & 64 ? 1 : 2)};
    ask(w, KAFKA_API_JOIN_GROUP, version, &q);
}

static void do_sync(struct world *w)
{
    struct kafka_sync_group_request q;
    struct kafka_sync_group_request_sync_group_request_assignment assignments[2];
    kafka_sync_group_request_init(&q);
    q.group_id = group_name(w);
    q.member_id = member_name(w);
    q.generation_id = next(w) % 8;
    for (uint8_t n = next(w) % 3; n > 0; n--)
        assignments[q.assignments_count++] = (struct kafka_sync_group_request_sync_group_request_assignment){
            .member_id = member_name(w), .assignment = SLICE_OF("all")};
    q.assignments = assignments;
    ask(w, KAFKA_API_SYNC_GROUP, 4, &q);
}

static void do_heartbeat(struct world *w)
{
    struct kafka_heartbeat_request q;
    kafka_heartbeat_request_init(&q);
    q.group_id = group_name(w);
    q.member_id = member_name(w);
    q.generation_id = next(w) % 8;
    q.group_instance_id = instance_name(w);
    ask(w, KAFKA_API_HEARTBEAT, 4, &q);
}

static void do_leave(struct world *w)
{
    struct kafka_leave_group_request q;
    struct kafka_leave_group_request_member_identity who[2];
    int16_t version = version_of(w, KAFKA_API_LEAVE_GROUP);
    kafka_leave_group_request_init(&q);
    q.group_id = group_name(w);
    q.member_id = version <= 2 ? member_name(w) : SLICE_EMPTY;
    for (uint8_t n = version <= 2 ? 0 : next(w) % 3; n > 0; n--)
        who[q.members_count++] = (struct kafka_leave_group_request_member_identity){
            .member_id = member_name(w), .group_instance_id = instance_name(w)};
    q.members = who;
    ask(w, KAFKA_API_LEAVE_GROUP, version, &q);
}

static void do_commit(struct world *w)
{
    struct kafka_offset_commit_request q;
    struct kafka_offset_commit_request_offset_commit_request_partition p[2];
    struct kafka_offset_commit_request_offset_commit_request_topic t = {
        .name = SLICE_OF("t"), .topic_id = {{1}}, .partitions = p, .partitions_count = 2};
    kafka_offset_commit_request_init(&q);
    q.group_id = group_name(w);
    q.member_id = member_name(w);
    q.generation_id_or_member_epoch = next(w) % 8 - 1;
    q.topics = &t;
    q.topics_count = 1;
    for (int i = 0; i < 2; i++)
        p[i] = (struct kafka_offset_commit_request_offset_commit_request_partition){.partition_index = next(w) % 4,
                                                                                    .committed_offset = next(w)};
    ask(w, KAFKA_API_OFFSET_COMMIT, version_of(w, KAFKA_API_OFFSET_COMMIT), &q);
}

static void do_fetch(struct world *w)
{
    struct kafka_offset_fetch_request q;
    struct kafka_offset_fetch_request_offset_fetch_request_group g = {.member_epoch = -1, .topics_count = -1};
    int16_t version = version_of(w, KAFKA_API_OFFSET_FETCH);
    kafka_offset_fetch_request_init(&q);
    g.group_id = q.group_id = group_name(w);
    q.topics_count = version >= 2 ? -1 : 0;
    q.groups = &g;
    q.groups_count = version >= 8;
    ask(w, KAFKA_API_OFFSET_FETCH, version, &q);
}

static void do_delete(struct world *w)
{
    struct slice names[2] = {group_name(w), group_name(w)};
    struct kafka_delete_groups_request q = {.groups_names = names, .groups_names_count = 2};
    ask(w, KAFKA_API_DELETE_GROUPS, 2, &q);
}

static void do_offset_delete(struct world *w)
{
    struct kafka_offset_delete_request_offset_delete_request_partition p = {.partition_index = next(w) % 4};
    struct kafka_offset_delete_request_offset_delete_request_topic t = {
        .name = SLICE_OF("t"), .partitions = &p, .partitions_count = 1};
    struct kafka_offset_delete_request q = {.group_id = group_name(w), .topics = &t, .topics_count = 1};
    ask(w, KAFKA_API_OFFSET_DELETE, 0, &q);
}

static void do_look(struct world *w)
{
    struct slice name = group_name(w);
    struct kafka_describe_groups_request d = {.groups = &name, .groups_count = 1};
    struct kafka_list_groups_request l = {0};
    ask(w, KAFKA_API_DESCRIBE_GROUPS, version_of(w, KAFKA_API_DESCRIBE_GROUPS), &d);
    ask(w, KAFKA_API_LIST_GROUPS, version_of(w, KAFKA_API_LIST_GROUPS), &l);
}

/* ---- the rest of the world ---- */

static void pass(struct world *w, uint64_t ms)
{
    w->now.mono_ms += ms;
    w->now.wall_ms += (int64_t)ms;
    step(w, &(struct groups_event){.kind = GROUPS_EVENT_TIME});
}

static void end_append(struct world *w, int error)
{
    if (!w->appending)
        return;
    w->appending = false;
    step(w, &(struct groups_event){.kind = GROUPS_EVENT_APPENDED, .append = w->append, .error = error});
}

static void end_load(struct world *w)
{
    if (!w->loading)
        return;
    w->loading = false;
    step(w, &(struct groups_event){.kind = GROUPS_EVENT_LOADED, .load = w->load});
}

static void happen(struct world *w)
{
    switch (next(w) % 20) {
    case 0:
    case 1:
    case 2: do_join(w); break;
    case 3:
    case 4: do_sync(w); break;
    case 5: do_heartbeat(w); break;
    case 6: do_leave(w); break;
    case 7:
    case 8: do_commit(w); break;
    case 9: do_fetch(w); break;
    case 10: do_delete(w); break;
    case 11: do_offset_delete(w); break;
    case 12: do_look(w); break;
    case 13: pass(w, 100u * next(w)); break;
    case 14: pass(w, 100000u * next(w)); break;
    case 15: step(w, &(struct groups_event){.kind = GROUPS_EVENT_TOPIC_DELETED, .topic = SLICE_OF("t")}); break;
    case 16: end_append(w, next(w) % 8 == 0 ? 7 : 0); break;
    case 17: end_append(w, 0); break;
    case 18: end_load(w); break;
    default: step(w, &(struct groups_event){.kind = GROUPS_EVENT_FLUSH}); break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct groups_config config;
    struct world w = {.at = data, .end = data + size, .now = {.mono_ms = 1, .wall_ms = 1}};
    struct groups_env env = {.ctx = &w, .random = random_bytes, .topic_by_name = by_name, .topic_by_id = by_id};
    groups_config_init(&config);
    config.group_max_size = size > 0 && data[0] % 4 == 0 ? 2 : 100;
    config.batch_max_bytes = size > 1 && data[1] % 4 == 0 ? 300 : 100000;
    w.g = groups_new(&config, &env);
    groups_set_partition_count(w.g, 1);
    step(&w, &(struct groups_event){.kind = GROUPS_EVENT_ACQUIRE, .epoch = 1});
    end_load(&w);
    while (w.at < w.end)
        happen(&w);
    step(&w, &(struct groups_event){.kind = GROUPS_EVENT_RELEASE});
    ASSERT(w.answers == w.requests); /* every request is answered, once */
    groups_free(w.g);
    return 0;
}
