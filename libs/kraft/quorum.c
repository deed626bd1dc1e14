/* quorum.c - voters and quorum state, as Kafka writes them down. */
#include <jansson.h>
#include <stdlib.h>

#include "kafka/voters_record.h"
#include "libs/kraft/kraft.h"

enum { DECODE_MAX = 1 << 20 };

static bool copy_text(char *to, struct slice s)
{
    if (s.size > KRAFT_NAME_MAX || memchr(s.data, 0, s.size) != NULL)
        return false;
    memcpy(to, s.data, s.size);
    to[s.size] = 0;
    return true;
}

static bool take_voter(const struct kafka_voters_record_voter *m, struct kraft_voter *v)
{
    *v = (struct kraft_voter){.id = m->voter_id,
                              .directory_id = m->voter_directory_id,
                              .kraft_version_min = m->kraft_version_feature.min_supported_version,
                              .kraft_version_max = m->kraft_version_feature.max_supported_version};
    if (m->voter_id < 0 || m->endpoints_count > KRAFT_ENDPOINTS_MAX)
        return false;
    for (; v->endpoint_count < m->endpoints_count; v->endpoint_count++) {
        struct kraft_endpoint *e = &v->endpoints[v->endpoint_count];
        e->port = m->endpoints[v->endpoint_count].port;
        if (!copy_text(e->name, m->endpoints[v->endpoint_count].name) ||
            !copy_text(e->host, m->endpoints[v->endpoint_count].host))
            return false;
    }
    return true;
}

static int take_voters(const struct kafka_voters_record *m, struct kraft_voters *ret_voters)
{
    if (m->voters_count > KRAFT_VOTERS_MAX)
        return -EBADMSG;
    ret_voters->count = m->voters_count;
    for (int32_t i = 0; i < m->voters_count; i++)
        if (!take_voter(&m->voters[i], &ret_voters->voter[i]))
            return -EBADMSG;
    return 0;
}

int kraft_voters_decode(struct slice value, struct kraft_voters *ret_voters)
{
    struct arena *a = arena_new(DECODE_MAX);
    struct kafka_voters_record m;
    int error = wire_decode(&kafka_voters_record_type, 0, value, a, &m, NULL) == 0 ? 0 : -EBADMSG;
    if (error == 0)
        error = take_voters(&m, ret_voters);
    arena_free(a);
    return error;
}

void kraft_voters_encode(const struct kraft_voters *v, struct buf *out)
{
    struct kafka_voters_record_voter voters[KRAFT_VOTERS_MAX];
    struct kafka_voters_record_endpoint endpoints[KRAFT_VOTERS_MAX][KRAFT_ENDPOINTS_MAX];
    struct kafka_voters_record m = {.voters = voters, .voters_count = v->count};
    for (int32_t i = 0; i < v->count; i++) {
        const struct kraft_voter *from = &v->voter[i];
        voters[i] = (struct kafka_voters_record_voter){.voter_id = from->id,
                                                       .voter_directory_id = from->directory_id,
                                                       .endpoints = endpoints[i],
                                                       .endpoints_count = from->endpoint_count};
        voters[i].kraft_version_feature.min_supported_version = from->kraft_version_min;
        voters[i].kraft_version_feature.max_supported_version = from->kraft_version_max;
        for (int32_t n = 0; n < from->endpoint_count; n++)
            endpoints[i][n] = (struct kafka_voters_record_endpoint){.name = slice_str(from->endpoints[n].name),
                                                                    .host = slice_str(from->endpoints[n].host),
                                                                    .port = from->endpoints[n].port};
    }
    int error = wire_encode(&kafka_voters_record_type, 0, &m, out);
    ASSERT(error == 0);
}

/* ---- quorum-state ---- */

static bool take_int(const json_t *o, const char *key, json_int_t low, int32_t *ret_v)
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_integer(v) || json_integer_value(v) < low || json_integer_value(v) > INT32_MAX)
        return false;
    *ret_v = (int32_t)json_integer_value(v);
    return true;
}

static bool take_state(const json_t *o, struct kraft_quorum_state *s)
{
    int32_t version;
    if (!take_int(o, "data_version", 0, &version) || version > 1 || !take_int(o, "leaderId", -1, &s->leader_id) ||
        !take_int(o, "leaderEpoch", 0, &s->leader_epoch) || !take_int(o, "votedId", -1, &s->voted_id))
        return false;
    const json_t *directory = json_object_get(o, "votedDirectoryId");
    if (directory == NULL)
        return version == 0;
    return json_is_string(directory) &&
           uuid_parse(slice_make(json_string_value(directory), json_string_length(directory)),
                      &s->voted_directory_id) == 0;
}

int kraft_quorum_state_decode(struct slice json, struct kraft_quorum_state *ret_state)
{
    struct kraft_quorum_state s = {0};
    json_t *o = json_loadb((const char *)json.data, json.size, 0, NULL);
    bool good = o != NULL && take_state(o, &s);
    json_decref(o);
    if (good)
        *ret_state = s;
    return good ? 0 : -EBADMSG;
}

void kraft_quorum_state_encode(const struct kraft_quorum_state *s, struct buf *out)
{
    buf_printf(out,
               "{\"leaderId\":%d,\"leaderEpoch\":%d,\"votedId\":%d,\"votedDirectoryId\":\"%s\",\"data_version\":1}",
               s->leader_id, s->leader_epoch, s->voted_id, uuid_to_text(s->voted_directory_id).s);
}
