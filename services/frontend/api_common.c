/* api_common.c - see api_common.h. */
#include "services/frontend/api_common.h"

const char API_INVALID_REQUEST_TEXT[] =
    "This most likely occurs because of a request being malformed by the client library or the message "
    "was sent to an incompatible broker. See the broker logs for more details.";

static bool is_legal_char(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
           c == '-';
}

const char *api_topic_name_problem(const struct request *r, struct slice name)
{
    enum { NAME_MAX_BYTES = 249 };
    if (name.size == 0)
        return "Topic name is invalid: the empty string is not allowed";
    if (slice_eq_str(name, ".") || slice_eq_str(name, ".."))
        return arena_printf(r->arena, "Topic name is invalid: '" SLICE_F "' is not allowed", SLICE_A(name));
    if (name.size > NAME_MAX_BYTES)
        return arena_printf(
            r->arena, "Topic name is invalid: the length of '" SLICE_F "' is longer than the max allowed length %d",
            SLICE_A(name), NAME_MAX_BYTES);
    for (size_t i = 0; i < name.size; i++)
        if (!is_legal_char(name.data[i]))
            return arena_printf(r->arena,
                                "Topic name is invalid: '" SLICE_F
                                "' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'",
                                SLICE_A(name));
    return NULL;
}

bool api_topic_is_internal(struct slice name)
{
    return slice_eq_str(name, TOPIC_OFFSETS) || slice_eq_str(name, TOPIC_TRANSACTIONS) ||
           slice_eq_str(name, TOPIC_SHARE_STATE);
}

enum kafka_error api_leaderless(const struct image *image, const struct image_partition *p)
{
    for (int32_t i = 0; i < p->replica_count; i++)
        if (image_broker_is_active(image, p->replicas[i]) && !image_replica_is_online(image, p, p->replicas[i]))
            return KERR_KAFKA_STORAGE_ERROR;
    return KERR_NOT_LEADER_OR_FOLLOWER;
}

enum kafka_error api_partition_leader(const struct image *image, struct slice topic, int32_t partition,
                                      int32_t *ret_node)
{
    const struct image_topic *t = image_topic_by_name(image, topic);
    const struct image_partition *p = t ? image_partition(t, partition) : NULL;
    if (p == NULL)
        return KERR_UNKNOWN_TOPIC_OR_PARTITION;
    if (p->leader < 0)
        return api_leaderless(image, p);
    *ret_node = p->leader;
    return KERR_NONE;
}

void api_newest_leader(const struct image *newest, struct uuid topic_id, int32_t partition, int32_t *ret_leader,
                       int32_t *ret_epoch)
{
    const struct image_topic *t = image_topic_by_id(newest, topic_id);
    const struct image_partition *p = t != NULL ? image_partition(t, partition) : NULL;
    *ret_leader = p != NULL ? p->leader : -1;
    *ret_epoch = p != NULL ? p->leader_epoch : -1;
}

enum kafka_error api_group_owner(const struct image *image, struct slice group_id, int32_t *ret_service)
{
    const struct image_topic *t = image_topic_by_name(image, SLICE_OF(TOPIC_OFFSETS));
    if (t == NULL || t->partition_count == 0)
        return KERR_COORDINATOR_NOT_AVAILABLE;
    const struct image_owner *o = image_owner(image, t->id, slice_coordinator_partition(group_id, t->partition_count));
    if (o == NULL || o->id < 0)
        return KERR_COORDINATOR_NOT_AVAILABLE;
    *ret_service = o->id;
    return KERR_NONE;
}

enum kafka_error api_group_call_error(enum kafka_error error)
{
    return error == KERR_NOT_LEADER_OR_FOLLOWER ? KERR_NOT_COORDINATOR : KERR_COORDINATOR_NOT_AVAILABLE;
}

uint32_t api_timeout(int32_t timeout_ms)
{
    return timeout_ms > 0 ? (uint32_t)timeout_ms : 1;
}

/* ---- scatter ---- */

struct api_part api_position(const struct api_part *parts, size_t i, struct api_part before)
{
    if (i == 0)
        return (struct api_part){0, 0};
    return parts[i].a == parts[i - 1].a ? (struct api_part){before.a, before.b + 1}
                                        : (struct api_part){before.a + 1, 0};
}

struct target {
    struct api_scatter *scatter;
    Karst__Bus__Role role;
    int32_t service;
    struct api_part *parts;
    size_t count;
};

struct api_scatter {
    struct request *r;
    const struct api_scatter_ops *ops;
    void *ctx;
    struct api_part *parts; /* as they were added, and the target of each */
    size_t *part_target;
    size_t part_count, part_max;
    struct target *targets;
    size_t target_count, target_capacity;
    size_t last;    /* the target of the part before: parts come in runs */
    size_t pending; /* calls in flight */
};

struct api_scatter *api_scatter_new(struct request *r, const struct api_scatter_ops *ops, void *ctx, size_t max_parts)
{
    struct api_scatter *s = arena_calloc(r->arena, 1, sizeof *s);
    s->r = r;
    s->ops = ops;
    s->ctx = ctx;
    s->part_max = max_parts;
    s->parts = arena_calloc(r->arena, max_parts, sizeof *s->parts);
    s->part_target = arena_calloc(r->arena, max_parts, sizeof *s->part_target);
    return s;
}

static size_t target_of(struct api_scatter *s, Karst__Bus__Role role, int32_t service)
{
    if (s->last < s->target_count && s->targets[s->last].role == role && s->targets[s->last].service == service)
        return s->last;
    for (size_t i = 0; i < s->target_count; i++)
        if (s->targets[i].role == role && s->targets[i].service == service)
            return i;
    if (s->target_count == s->target_capacity) {
        size_t capacity = s->target_capacity ? 2 * s->target_capacity : 4;
        struct target *grown = arena_calloc(s->r->arena, capacity, sizeof *grown);
        if (s->target_count)
            memcpy(grown, s->targets, s->target_count * sizeof *grown);
        s->targets = grown;
        s->target_capacity = capacity;
    }
    s->targets[s->target_count] = (struct target){.scatter = s, .role = role, .service = service};
    return s->target_count++;
}

void api_scatter_add(struct api_scatter *s, Karst__Bus__Role role, int32_t service, struct api_part part)
{
    ASSERT(s->part_count < s->part_max);
    s->last = target_of(s, role, service);
    s->targets[s->last].count++;
    s->parts[s->part_count] = part;
    s->part_target[s->part_count++] = s->last;
}

static void on_answer(struct request *r, void *ctx, enum kafka_error error, void *response)
{
    struct target *t = ctx;
    struct api_scatter *s = t->scatter;
    ASSERT(s->pending > 0);
    s->ops->take(r, s->ctx, t->parts, t->count, error, response);
    if (--s->pending == 0)
        s->ops->finish(r, s->ctx);
}

void api_scatter_send(struct api_scatter *s, int16_t version, uint32_t timeout_ms)
{
    struct request *r = s->r;
    if (s->target_count == 0) {
        s->ops->finish(r, s->ctx);
        return;
    }
    for (size_t i = 0; i < s->target_count; i++) {
        s->targets[i].parts = arena_calloc(r->arena, s->targets[i].count, sizeof *s->targets[i].parts);
        s->targets[i].count = 0;
    }
    for (size_t i = 0; i < s->part_count; i++) {
        struct target *t = &s->targets[s->part_target[i]];
        t->parts[t->count++] = s->parts[i];
    }
    s->pending = s->target_count;
    for (size_t i = 0; i < s->target_count; i++) {
        struct target *t = &s->targets[i];
        const void *message = s->ops->build(r, s->ctx, t->parts, t->count);
        request_call(r, t->role, t->service, s->ops->api_key, version, message, timeout_ms, on_answer, t);
    }
}
