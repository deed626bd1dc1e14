/* load.c - the records of __consumer_offsets, read: all of them while a partition loads, and our own once they are
 * committed.
 *
 * The log may hold whatever Kafka wrote: older value versions, tombstones, offsets of transactions (pending until their
 * marker) and the records of consumer, share and streams groups, of which only the keys are kept. What cannot be read
 * is counted and left alone. */
#include "libs/groups/core.h"

#include <stdlib.h>

#include "kafka/group_group_metadata.h"
#include "kafka/group_offset_commit.h"
#include "libs/base/bytes.h"
#include "libs/wire/wire.h"

/* Types of keys (records.md); the others are those of foreign groups. */
enum {
    TYPE_OFFSET_COMMIT_LEGACY = 0,
    TYPE_OFFSET_COMMIT = 1,
    TYPE_GROUP_METADATA = 2,
    TYPE_CONSUMER_MEMBER = 5,
    TYPE_SHARE_MEMBER = 10,
    TYPE_STREAMS_MEMBER = 19,
};
enum {
    KEY_TYPE_SIZE = 2,
    OFFSET_VERSION_MAX = 4,
    GROUP_VERSION_MAX = 4,
    CONTROL_KEY_SIZE = 4,
    MARKER_ABORT = 0,
    MARKER_COMMIT = 1
};

/* ---- offsets ---- */

static bool read_offset_key(struct groups *c, struct slice body, struct kafka_offset_commit_key *ret_key)
{
    return wire_decode(&kafka_offset_commit_key_type, 0, body, c->arena, ret_key, NULL) == 0;
}

static bool read_offset_value(struct groups *c, const struct groups_record *r, struct offset_value *ret_value)
{
    struct kafka_offset_commit_value v;
    if (r->value.size < 2)
        return false;
    int16_t version = get_i16(r->value.data);
    struct slice body = slice_make(r->value.data + 2, r->value.size - 2);
    if (version < 0 || version > OFFSET_VERSION_MAX ||
        wire_decode(&kafka_offset_commit_value_type, version, body, c->arena, &v, NULL) != 0)
        return false;
    *ret_value = (struct offset_value){
        .offset = v.offset,
        .leader_epoch = v.leader_epoch,
        .commit_ms = v.commit_timestamp,
        .expire_ms = v.expire_timestamp,
        .topic_id = v.topic_id,
        .metadata = v.metadata,
        .record_offset = r->offset,
    };
    return true;
}

static void drop_offset(struct shard *s, const struct kafka_offset_commit_key *k)
{
    struct group *g = group_find(s, k->group);
    struct offset_topic *t = g != NULL ? store_topic(g, k->topic) : NULL;
    struct offset *o = t != NULL ? store_find(t, k->partition) : NULL;
    if (o == NULL)
        return;
    store_unset(s->core, o);
    store_drop_open(t, k->partition);
    store_trim(t);
}

static bool load_offset(struct shard *s, const struct groups_record *r, struct slice body)
{
    struct groups *c = s->core;
    struct kafka_offset_commit_key k;
    struct offset_value value;
    if (!read_offset_key(c, body, &k))
        return false;
    if (slice_is_null(r->value)) {
        drop_offset(s, &k);
        return true;
    }
    if (!read_offset_value(c, r, &value))
        return false;
    struct group *g = group_find(s, k.group);
    if (g == NULL)
        g = group_create(s, k.group);
    if (r->transactional && r->producer_id >= 0)
        store_open(s, g, k.topic, k.partition, r->producer_id, &value);
    else
        store_set(c, store_get(g, k.topic, k.partition), &value);
    return true;
}

/* ---- classic groups ---- */

static void clear_members(struct group *g)
{
    struct member *m, *next;
    HASH_ITER (hh, g->members, m, next)
        member_remove(m);
}

static void reset_classic(struct group *g)
{
    struct groups *c = g->shard->core;
    clear_members(g);
    disown(c, &g->protocol_type);
    disown(c, &g->protocol);
    g->state = g->previous = GROUP_EMPTY;
    g->state_ms = -1;
    g->generation = 0;
}

/* Its metadata is gone. With offsets it goes on as a group of offsets alone. */
static void free_if_nothing(struct group *g)
{
    if (g->topics == NULL && g->keys == NULL && g->members == NULL)
        group_free(g);
}

static void load_member(struct group *g, const struct kafka_group_metadata_value_member_metadata *in)
{
    struct groups *c = g->shard->core;
    if (member_find(g, in->member_id) != NULL ||
        (!slice_is_null(in->group_instance_id) && member_of_instance(g, in->group_instance_id) != NULL))
        return; /* a member twice: no coordinator writes that */
    struct member *m = member_add(g, in->member_id, in->group_instance_id, in->client_id, in->client_host);
    m->session_timeout_ms = in->session_timeout > 0 ? in->session_timeout : c->config.session_timeout_min_ms;
    m->rebalance_timeout_ms = in->rebalance_timeout >= 0 ? in->rebalance_timeout : m->session_timeout_ms;
    struct protocol p = {.name = g->protocol, .metadata = in->subscription};
    member_set_protocols(m, &p, 1);
    own_replace(c, &m->assignment, in->assignment);
}

static void apply_group(struct group *g, const struct kafka_group_metadata_value *v)
{
    struct groups *c = g->shard->core;
    reset_classic(g);
    g->generation = v->generation;
    g->state_ms = v->current_state_timestamp;
    own_replace(c, &g->protocol_type, v->protocol_type);
    own_replace(c, &g->protocol, slice_is_null(v->protocol) && v->members_count > 0 ? SLICE_EMPTY : v->protocol);
    for (int32_t i = 0; i < v->members_count; i++)
        load_member(g, &v->members[i]);
    if (g->members == NULL)
        return;
    struct member *leader = slice_is_null(v->leader) ? NULL : member_find(g, v->leader);
    if (leader != NULL)
        g->leader = leader;
    g->state = GROUP_STABLE;
}

static bool load_group(struct shard *s, struct slice value, struct slice body)
{
    struct groups *c = s->core;
    struct kafka_group_metadata_key k;
    if (wire_decode(&kafka_group_metadata_key_type, 0, body, c->arena, &k, NULL) != 0)
        return false;
    struct group *g = group_find(s, k.group);
    if (slice_is_null(value)) {
        if (g == NULL)
            return true;
        reset_classic(g);
        free_if_nothing(g);
        return true;
    }
    struct kafka_group_metadata_value v;
    if (value.size < 2)
        return false;
    int16_t version = get_i16(value.data);
    if (version < 0 || version > GROUP_VERSION_MAX ||
        wire_decode(&kafka_group_metadata_value_type, version, slice_make(value.data + 2, value.size - 2), c->arena, &v,
                    NULL) != 0)
        return false;
    apply_group(g != NULL ? g : group_create(s, k.group), &v);
    return true;
}

/* ---- groups that are not served ---- */

static bool foreign_type(int16_t type, enum group_type *ret_type)
{
    if ((type >= 3 && type <= 8) || type == 16)
        *ret_type = GROUP_CONSUMER;
    else if (type >= 10 && type <= 15)
        *ret_type = GROUP_SHARE;
    else if (type == 17 || (type >= 19 && type <= 23))
        *ret_type = GROUP_STREAMS;
    else
        return false;
    return true;
}

static bool is_member_key(int16_t type)
{
    return type == TYPE_CONSUMER_MEMBER || type == TYPE_SHARE_MEMBER || type == TYPE_STREAMS_MEMBER;
}

static void foreign_add(struct group *g, struct slice key, int16_t type)
{
    struct groups *c = g->shard->core;
    struct foreign_key *k = xcalloc(1, sizeof *k);
    k->key = own(c, key);
    HASH_ADD_KEYPTR(hh, g->keys, k->key.data, k->key.size, k);
    account(c, sizeof *k + STRUCT_OVERHEAD);
    g->foreign_members += is_member_key(type);
}

static void foreign_remove(struct group *g, struct foreign_key *k, int16_t type)
{
    struct groups *c = g->shard->core;
    HASH_DEL(g->keys, k);
    disown(c, &k->key);
    unaccount(c, sizeof *k + STRUCT_OVERHEAD);
    free(k);
    g->foreign_members -= is_member_key(type);
}

/* Every key of these groups starts with the group's name. */
static bool load_foreign(struct shard *s, const struct groups_record *r, int16_t type, struct slice body)
{
    enum group_type group_type;
    if (!foreign_type(type, &group_type) || body.size < 2 || get_i16(body.data) < 0 ||
        (size_t)get_i16(body.data) > body.size - 2)
        return false;
    struct slice id = slice_make(body.data + 2, (size_t)get_i16(body.data));
    struct group *g = group_find(s, id);
    struct foreign_key *k = NULL;
    if (g != NULL)
        HASH_FIND(hh, g->keys, r->key.data, r->key.size, k);
    if (!slice_is_null(r->value)) {
        if (g == NULL)
            g = group_create(s, id);
        if (k == NULL)
            foreign_add(g, r->key, type);
        g->type = group_type;
        return true;
    }
    if (k == NULL)
        return true;
    foreign_remove(g, k, type);
    if (g->keys == NULL) {
        g->type = GROUP_CLASSIC;
        free_if_nothing(g);
    }
    return true;
}

void foreign_stage_tombstones(struct group *g)
{
    for (const struct foreign_key *k = g->keys; k != NULL; k = k->hh.next)
        record_put_raw_tombstone(g->shard->core, k->key);
}

void foreign_forget(struct group *g)
{
    struct foreign_key *k, *next;
    HASH_ITER (hh, g->keys, k, next)
        foreign_remove(g, k, get_i16(k->key.data));
    g->foreign_members = 0;
    g->type = GROUP_CLASSIC;
    reset_classic(g);
}

/* ---- all of them ---- */

static bool load_marker(struct shard *s, const struct groups_record *r)
{
    if (r->key.size < CONTROL_KEY_SIZE)
        return false;
    int16_t type = get_i16(r->key.data + 2);
    if (type == MARKER_ABORT || type == MARKER_COMMIT)
        store_end_txn(s, r->producer_id, type == MARKER_COMMIT);
    return true; /* unknown control records are skipped */
}

static bool load_any(struct shard *s, const struct groups_record *r)
{
    if (r->control)
        return load_marker(s, r);
    if (slice_is_null(r->key) || r->key.size < KEY_TYPE_SIZE)
        return false;
    int16_t type = get_i16(r->key.data);
    struct slice body = slice_make(r->key.data + KEY_TYPE_SIZE, r->key.size - KEY_TYPE_SIZE);
    switch (type) {
    case TYPE_OFFSET_COMMIT_LEGACY:
    case TYPE_OFFSET_COMMIT: return load_offset(s, r, body);
    case TYPE_GROUP_METADATA: return load_group(s, r->value, body);
    default: return load_foreign(s, r, type, body);
    }
}

void load_record(struct shard *s, const struct groups_record *r)
{
    if (!load_any(s, r))
        s->core->unreadable++;
}

static void own_offset(struct shard *s, struct slice body, struct slice value)
{
    struct groups *c = s->core;
    struct kafka_offset_commit_key k;
    bool good = read_offset_key(c, body, &k);
    ASSERT(good); /* we wrote it */
    struct group *g = group_find(s, k.group);
    struct offset_topic *t = g != NULL ? store_topic(g, k.topic) : NULL;
    struct offset *o = t != NULL ? store_find(t, k.partition) : NULL;
    ASSERT(o != NULL && o->queued > 0);
    o->queued--;
    if (slice_is_null(value)) {
        drop_offset(s, &k);
        return;
    }
    struct offset_value v;
    struct groups_record r = {.offset = INT64_MAX, .value = value};
    good = read_offset_value(c, &r, &v);
    ASSERT(good);
    store_set(c, o, &v);
}

/* State of groups was changed when the record was made; offsets and deletions happen now. */
void load_own_record(struct shard *s, struct slice key, struct slice value)
{
    struct groups *c = s->core;
    struct kafka_group_metadata_key k;
    int16_t type = get_i16(key.data);
    struct slice body = slice_make(key.data + KEY_TYPE_SIZE, key.size - KEY_TYPE_SIZE);
    if (type == TYPE_OFFSET_COMMIT) {
        own_offset(s, body, value);
        return;
    }
    if (type != TYPE_GROUP_METADATA || !slice_is_null(value))
        return;
    int bad = wire_decode(&kafka_group_metadata_key_type, 0, body, c->arena, &k, NULL);
    struct group *g = bad == 0 ? group_find(s, k.group) : NULL;
    if (g != NULL && g->deleting)
        group_free(g);
}

void load_finished(struct shard *s)
{
    struct groups *c = s->core;
    struct group *g, *next;
    HASH_ITER (hh, s->groups, g, next) {
        if (g->type != GROUP_CLASSIC) {
            clear_members(g);
            g->state = GROUP_EMPTY;
            continue;
        }
        for (struct member *m = g->members; m != NULL; m = m->hh.next)
            member_expect(m);
        if (HASH_COUNT(g->members) > (uint32_t)c->config.group_max_size)
            rebalance_or_complete(g);
    }
}
