/* records.c - what the coordinator writes to __consumer_offsets, byte for byte as Kafka 4.3.1 does: OffsetCommit value
 * 4 with the topic id (1 when an old client gave the commit its own retention), GroupMetadata value 3. A key is its
 * int16 type and an unflexible body, a value its int16 version and the body. */
#include "libs/groups/core.h"

#include "kafka/group_group_metadata.h"
#include "kafka/group_offset_commit.h"
#include "libs/base/bytes.h"
#include "libs/wire/wire.h"

enum { TYPE_OFFSET_COMMIT = 1, TYPE_GROUP_METADATA = 2 };
enum { GROUP_METADATA_VERSION = 3, OFFSET_VERSION = 4, OFFSET_VERSION_WITH_EXPIRY = 1 };

static struct staged_record *record_add(struct staged *b)
{
    if (b->record_count == b->record_capacity) {
        b->record_capacity = b->record_capacity ? 2 * b->record_capacity : 8;
        b->records = xrealloc(b->records, b->record_capacity * sizeof b->records[0]);
    }
    struct staged_record *r = &b->records[b->record_count++];
    *r = (struct staged_record){.key_at = b->bytes.size, .tombstone = true};
    return r;
}

static bool put_part(struct buf *out, int16_t prefix, const struct wire_type *type, int version, const void *message)
{
    put_i16(buf_grow(out, 2), prefix);
    return wire_encode(type, version, message, out) == 0;
}

static void put(struct groups *c, int16_t key_type, const struct wire_type *key, const void *key_message, int version,
                const struct wire_type *value, const void *value_message)
{
    struct staged *b = &c->scratch;
    struct staged_record *r = record_add(b);
    bool good = put_part(&b->bytes, key_type, key, 0, key_message);
    r->key_size = b->bytes.size - r->key_at;
    r->value_at = b->bytes.size;
    if (value_message != NULL) {
        good = good && put_part(&b->bytes, (int16_t)version, value, version, value_message);
        r->value_size = b->bytes.size - r->value_at;
        r->tombstone = false;
    }
    if (good)
        return;
    c->scratch_broken = true; /* a text longer than Kafka's strings can be */
    b->bytes.size = r->key_at;
    b->record_count--;
}

static struct slice assignment_of(const struct member *m, bool next)
{
    struct slice s = next ? m->next_assignment : m->assignment;
    return slice_is_null(s) ? SLICE_EMPTY : s;
}

void record_put_group(struct group *g, bool with_next_assignments)
{
    struct groups *c = g->shard->core;
    struct kafka_group_metadata_key key;
    struct kafka_group_metadata_value value;
    kafka_group_metadata_key_init(&key);
    kafka_group_metadata_value_init(&value);
    key.group = g->id;
    value.protocol_type = slice_is_null(g->protocol_type) ? SLICE_EMPTY : g->protocol_type;
    value.generation = g->generation;
    value.protocol = g->protocol;
    value.leader = g->leader != NULL ? g->leader->id : SLICE_NULL;
    value.current_state_timestamp = g->state_ms;
    value.members = arena_calloc(c->arena, HASH_COUNT(g->members) + 1, sizeof value.members[0]);
    for (const struct member *m = g->members; m != NULL; m = m->hh.next) {
        struct kafka_group_metadata_value_member_metadata *out = &value.members[value.members_count++];
        out->member_id = m->id;
        out->group_instance_id = m->instance;
        out->client_id = m->client_id;
        out->client_host = m->client_host;
        out->rebalance_timeout = m->rebalance_timeout_ms;
        out->session_timeout = m->session_timeout_ms;
        out->subscription = member_metadata(m, g->protocol);
        out->assignment = assignment_of(m, with_next_assignments);
    }
    put(c, TYPE_GROUP_METADATA, &kafka_group_metadata_key_type, &key, GROUP_METADATA_VERSION,
        &kafka_group_metadata_value_type, &value);
}

void record_put_group_tombstone(struct groups *c, struct slice group_id)
{
    struct kafka_group_metadata_key key = {.group = group_id};
    put(c, TYPE_GROUP_METADATA, &kafka_group_metadata_key_type, &key, 0, NULL, NULL);
}

void record_put_offset(struct groups *c, struct slice group_id, struct slice topic, int32_t partition,
                       const struct offset_value *v)
{
    struct kafka_offset_commit_key key = {.group = group_id, .topic = topic, .partition = partition};
    if (v == NULL) {
        put(c, TYPE_OFFSET_COMMIT, &kafka_offset_commit_key_type, &key, 0, NULL, NULL);
        return;
    }
    struct kafka_offset_commit_value value;
    kafka_offset_commit_value_init(&value);
    value.offset = v->offset;
    value.leader_epoch = v->leader_epoch;
    value.metadata = v->metadata;
    value.commit_timestamp = v->commit_ms;
    value.expire_timestamp = v->expire_ms;
    value.topic_id = v->topic_id;
    put(c, TYPE_OFFSET_COMMIT, &kafka_offset_commit_key_type, &key,
        v->expire_ms == -1 ? OFFSET_VERSION : OFFSET_VERSION_WITH_EXPIRY, &kafka_offset_commit_value_type, &value);
}

void record_put_raw_tombstone(struct groups *c, struct slice key)
{
    struct staged_record *r = record_add(&c->scratch);
    buf_append(&c->scratch.bytes, key.data, key.size);
    r->key_size = key.size;
    r->value_at = c->scratch.bytes.size;
}
