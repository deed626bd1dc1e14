/* describe.c - DescribeGroups, versions 0-6, and ListGroups, versions 0-5 (filters by state: 4, KIP-518; by type: 5,
 * KIP-848). */
#include "libs/groups/core.h"

#include <strings.h>

#include "kafka/apis.h"
#include "kafka/describe_groups.h"
#include "kafka/list_groups.h"

typedef struct kafka_describe_groups_response_described_group described;

static void put_members(struct groups *c, const struct group *g, described *out)
{
    bool stable = g->state == GROUP_STABLE;
    out->members = arena_calloc(c->arena, HASH_COUNT(g->members) + 1, sizeof out->members[0]);
    for (const struct member *m = g->members; m != NULL; m = m->hh.next) {
        struct kafka_describe_groups_response_described_group_member *to = &out->members[out->members_count++];
        to->member_id = arena_dup(c->arena, m->id);
        to->group_instance_id = arena_dup(c->arena, m->instance);
        to->client_id = arena_dup(c->arena, m->client_id);
        to->client_host = arena_dup(c->arena, m->client_host);
        to->member_metadata = stable ? arena_dup(c->arena, member_metadata(m, g->protocol)) : SLICE_EMPTY;
        to->member_assignment = arena_dup(c->arena, m->assignment);
    }
    if (stable)
        out->protocol_data = arena_dup(c->arena, g->protocol);
}

static size_t size_of_members(const struct groups *c, const struct group *g)
{
    size_t bytes = 0;
    for (const struct member *m = g->members; m != NULL && c->answer_bytes <= ANSWER_BYTES_MAX; m = m->hh.next)
        bytes += sizeof(struct member) + m->id.size + m->instance.size + m->client_id.size + m->client_host.size +
                 m->assignment.size + member_metadata(m, g->protocol).size;
    return bytes;
}

/* Before version 6 an unknown group is a dead one (KIP-1043). */
static void put_unknown(struct groups *c, int16_t version, const char *why, described *out)
{
    out->group_state = SLICE_OF("Dead");
    if (version < 6)
        return;
    out->error_code = KERR_GROUP_ID_NOT_FOUND;
    out->error_message = slice_str(arena_printf(c->arena, why, SLICE_A(out->group_id)));
}

static void describe(struct groups *c, int16_t version, described *out)
{
    struct shard *s;
    out->error_code = (int16_t)shard_of(c, out->group_id, &s);
    if (out->error_code != KERR_NONE)
        return;
    const struct group *g = group_find(s, out->group_id);
    if (g == NULL) {
        put_unknown(c, version, "Group " SLICE_F " not found.", out);
        return;
    }
    if (g->type != GROUP_CLASSIC) {
        put_unknown(c, version, "Group " SLICE_F " is not a classic group.", out);
        return;
    }
    if (!answer_takes(c, size_of_members(c, g))) {
        out->error_code = KERR_INVALID_REQUEST;
        return;
    }
    out->group_state = slice_str(group_state_name(g));
    if (!slice_is_null(g->protocol_type))
        out->protocol_type = arena_dup(c->arena, g->protocol_type);
    put_members(c, g, out);
}

void on_describe(struct groups *c, const struct groups_request *q)
{
    const struct kafka_describe_groups_request *in = q->message;
    struct kafka_describe_groups_response *r = arena_alloc(c->arena, sizeof *r);
    kafka_describe_groups_response_init(r);
    r->groups = arena_calloc(c->arena, (size_t)in->groups_count + 1, sizeof r->groups[0]);
    for (int32_t i = 0; i < in->groups_count; i++) {
        described *out = &r->groups[r->groups_count++];
        wire_init(&kafka_describe_groups_response_described_group_type, out);
        out->group_id = arena_dup(c->arena, in->groups[i]);
        out->authorized_operations = in->include_authorized_operations ? AUTHORIZED_OPERATIONS : AUTHORIZED_NOT_ASKED;
        describe(c, q->api_version, out);
    }
    answer(c, q, r);
}

/* ---- ListGroups ---- */

static bool matches(const struct slice *filter, int32_t count, const char *name)
{
    for (int32_t i = 0; i < count; i++)
        if (filter[i].size == strlen(name) && strncasecmp((const char *)filter[i].data, name, filter[i].size) == 0)
            return true;
    return count <= 0;
}

static void list_shard(struct groups *c, const struct shard *s, const struct kafka_list_groups_request *in,
                       struct kafka_list_groups_response *r)
{
    for (const struct group *g = s->groups; g != NULL; g = g->hh.next) {
        const char *state = group_state_name(g), *type = group_type_name(g);
        if (!matches(in->states_filter, in->states_filter_count, state) ||
            !matches(in->types_filter, in->types_filter_count, type))
            continue;
        struct kafka_list_groups_response_listed_group *out = &r->groups[r->groups_count++];
        out->group_id = arena_dup(c->arena, g->id);
        out->protocol_type = slice_is_null(g->protocol_type) ? SLICE_EMPTY : arena_dup(c->arena, g->protocol_type);
        if (g->type != GROUP_CLASSIC)
            out->protocol_type = slice_str(type); /* as Kafka: consumer, share, streams */
        out->group_state = slice_str(state);
        out->group_type = slice_str(type);
    }
}

void on_list(struct groups *c, const struct groups_request *q)
{
    const struct kafka_list_groups_request *in = q->message;
    struct kafka_list_groups_response *r = arena_alloc(c->arena, sizeof *r);
    kafka_list_groups_response_init(r);
    r->groups = arena_calloc(c->arena, groups_count(c) + 1, sizeof r->groups[0]);
    for (const struct shard *s = c->shards; s != NULL; s = s->hh.next)
        if (s->state == SHARD_LOADING)
            r->error_code = KERR_COORDINATOR_LOAD_IN_PROGRESS;
    for (const struct shard *s = c->shards; s != NULL && r->error_code == KERR_NONE; s = s->hh.next)
        list_shard(c, s, in, r);
    answer(c, q, r);
}
