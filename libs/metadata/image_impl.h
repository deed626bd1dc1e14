/* image_impl.h - what an image is made of; for the files of this folder.
 *
 * Each thing is one block of memory with its strings behind it, made by its _new from a description and never written
 * again; only a topic, which may be big, is edited: its partitions hang in blocks of TOPIC_BLOCK, so that a change of
 * one copies little. */
#ifndef KARST_METADATA_IMAGE_IMPL_H
#define KARST_METADATA_IMAGE_IMPL_H

#include "libs/base/pmap.h"
#include "libs/metadata/image.h"
#include "libs/metadata/metarecord.h"

enum { TOPIC_BLOCK = 64, CLUSTER_ID_MAX = 63 };

struct part {
    uint32_t refs; /* atomic */
    struct image_partition pub;
};

struct part_block {
    uint32_t refs;                   /* atomic */
    struct part *parts[TOPIC_BLOCK]; /* NULL: not there */
};

struct topic {
    struct pmap_item item; /* by id */
    struct image_topic pub;
    char *name;
    struct part_block **blocks;
    int32_t block_count;
};

struct name_ref {
    struct pmap_item item; /* by name */
    struct uuid id;
    char name[];
};

struct broker {
    struct pmap_item item; /* by the 4 bytes of pub.id */
    struct image_broker pub;
};

struct configs {
    struct pmap_item item; /* by resource type as a byte, name */
    enum image_resource type;
    struct slice name;
    struct image_config *entries;
    int32_t count;
};

struct feature {
    struct pmap_item item; /* by name */
    struct image_feature pub;
};

struct service {
    struct pmap_item item; /* by role, id */
    int32_t key[2];
    struct image_service pub;
};

struct owner_key {
    struct uuid topic_id;
    int32_t partition;
};

struct owner {
    struct pmap_item item; /* by struct owner_key, the first fields of pub */
    struct image_owner pub;
};

/* A record that this release keeps as it came, for queries and snapshots to come: ACLs, quotas, SCRAM credentials,
 * delegation tokens, controllers. The key is the record type as a byte and what tells such records apart. */
struct extra {
    struct pmap_item item;
    struct slice value; /* the framed record */
};

struct state {
    struct pmap topics, names, brokers, configs, features, services, owners, extras;
    int64_t next_producer_id, partition_count;
    int16_t kraft_version;
    struct pmap voters; /* under the empty key: an extra that holds the value of the last voters' control record */
};

/* A list made on first use: built by one reader, thrown away by those who come second. Images that share the map share
 * the list. */
struct sorted {
    uint32_t refs; /* atomic */
    int32_t count;
    const void *items[];
};

struct image {
    uint32_t refs; /* atomic */
    char cluster_id[CLUSTER_ID_MAX + 1];
    int64_t offset, timestamp_ms;
    int32_t epoch;
    struct state state;
    struct state *pending; /* with the records of an open transaction; NULL: none is open */
    struct sorted *topics, *brokers, *features, *services; /* atomic */
};

static inline void refs_up(uint32_t *refs)
{
    __atomic_add_fetch(refs, 1, __ATOMIC_RELAXED);
}
static inline bool refs_down(uint32_t *refs)
{
    return __atomic_sub_fetch(refs, 1, __ATOMIC_ACQ_REL) == 0;
}
static inline bool refs_sole(const uint32_t *refs)
{
    return __atomic_load_n(refs, __ATOMIC_ACQUIRE) == 1;
}

/* image.c */
struct sorted *sorted_retain(struct sorted *const *at); /* what is there now; NULL: nothing */
void sorted_release(struct sorted *s);                  /* takes NULL */

/* image_items.c: makers, count 1 each; descriptions are copied. */
struct pmap_item *topic_new(struct uuid id, struct slice name, int64_t created_offset);
struct pmap_item *topic_clone(const struct pmap_item *item);
struct part *part_new(const struct image_partition *p);
/* Of a topic from pmap_edit: sets a partition; takes over the count. True: it is new. */
bool topic_set_part(struct topic *t, struct part *p);
struct pmap_item *name_ref_new(struct slice name, struct uuid id);
struct pmap_item *broker_new(const struct image_broker *b);
/* The resource's values with key set (value null: removed); old may be NULL. NULL: nothing is left. */
struct pmap_item *configs_new(const struct configs *old, enum image_resource type, struct slice name, struct slice key,
                              struct slice value);
struct pmap_item *feature_new(struct slice name, int16_t level);
struct pmap_item *service_new(const struct image_service *s);
struct pmap_item *owner_new(const struct image_owner *o);
/* Builds the key of a record that is kept, or of one that removes it; *ret_remove tells which. False: of none such.
 * image_replay.c */
bool extra_key(enum metarecord_type type, const void *msg, struct buf *key, bool *ret_remove);
struct pmap_item *extra_new(struct slice key, struct slice value);
struct slice configs_key(uint8_t *to, enum image_resource type, struct slice name); /* to: 1 + name.size bytes */

/* image_replay.c */
struct replay {
    struct state *state;
    struct arena *arena;
    int64_t offset; /* of the record */
};
/* One data record other than those of transactions. 0 or -EBADMSG. */
NODISCARD int image_replay(struct replay *r, const struct metarecord *record, struct slice value);
/* image_replay_topics.c, by types */
NODISCARD int replay_topic(struct replay *r, const void *msg);
NODISCARD int replay_partition(struct replay *r, const void *msg);
NODISCARD int replay_partition_change(struct replay *r, const void *msg);
NODISCARD int replay_remove_topic(struct replay *r, const void *msg);
NODISCARD int replay_clear_elr(struct replay *r, const void *msg);

struct state state_copy(const struct state *s);
void state_clear(struct state *s);
const struct part *topic_part(const struct topic *t, int32_t partition);

#endif
