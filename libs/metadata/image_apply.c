/* image_apply.c - batches of the log, and snapshots, to images. */
#include <stdlib.h>

#include "kafka/kraft_version_record.h"
#include "libs/metadata/image_impl.h"
#include "libs/records/records.h"

enum { DECODE_MAX = 64 << 20, BATCH_UNPACKED_MAX = 64 << 20 };

struct state state_copy(const struct state *s)
{
    struct state copy = *s;
    copy.topics = pmap_copy(&s->topics);
    copy.names = pmap_copy(&s->names);
    copy.brokers = pmap_copy(&s->brokers);
    copy.configs = pmap_copy(&s->configs);
    copy.features = pmap_copy(&s->features);
    copy.services = pmap_copy(&s->services);
    copy.owners = pmap_copy(&s->owners);
    copy.extras = pmap_copy(&s->extras);
    copy.voters = pmap_copy(&s->voters);
    return copy;
}

void state_clear(struct state *s)
{
    pmap_clear(&s->topics);
    pmap_clear(&s->names);
    pmap_clear(&s->brokers);
    pmap_clear(&s->configs);
    pmap_clear(&s->features);
    pmap_clear(&s->services);
    pmap_clear(&s->owners);
    pmap_clear(&s->extras);
    pmap_clear(&s->voters);
}

struct image *image_empty(const char *cluster_id)
{
    struct image *i = xcalloc(1, sizeof *i);
    i->refs = 1;
    i->offset = i->epoch = -1;
    memcpy(i->cluster_id, cluster_id, strnlen(cluster_id, CLUSTER_ID_MAX));
    return i;
}

static struct image *image_clone(const struct image *old)
{
    struct image *i = image_empty(old->cluster_id);
    i->offset = old->offset;
    i->epoch = old->epoch;
    i->timestamp_ms = old->timestamp_ms;
    i->state = state_copy(&old->state);
    if (old->pending != NULL) {
        i->pending = xmalloc(sizeof *i->pending);
        *i->pending = state_copy(old->pending);
    }
    return i;
}

static void drop_pending(struct image *i)
{
    if (i->pending != NULL)
        state_clear(i->pending);
    free(i->pending);
    i->pending = NULL;
}

struct image *image_retain(const struct image *i)
{
    struct image *own = (struct image *)(uintptr_t)i; /* the count is the one thing that may change */
    if (own != NULL)
        refs_up(&own->refs);
    return own;
}

struct image *image_release(struct image *i)
{
    if (i == NULL || !refs_down(&i->refs))
        return NULL;
    state_clear(&i->state);
    drop_pending(i);
    sorted_release(i->topics);
    sorted_release(i->brokers);
    sorted_release(i->features);
    sorted_release(i->services);
    free(i);
    return NULL;
}

/* ---- one record ---- */

static int apply_transaction(struct image *i, uint32_t type)
{
    if ((type == METARECORD_BEGIN_TRANSACTION) != (i->pending == NULL))
        return -EBADMSG;
    if (type == METARECORD_BEGIN_TRANSACTION) {
        i->pending = xmalloc(sizeof *i->pending);
        *i->pending = state_copy(&i->state);
        return 0;
    }
    if (type == METARECORD_END_TRANSACTION) {
        struct state old = i->state;
        i->state = *i->pending;
        *i->pending = old;
    }
    drop_pending(i);
    return 0;
}

static int apply_data(struct image *i, struct arena *arena, const struct record *record)
{
    struct metarecord m;
    if (metarecord_parse(record->value, &m) != 0)
        return -EBADMSG;
    if (m.type >= METARECORD_BEGIN_TRANSACTION && m.type <= METARECORD_ABORT_TRANSACTION)
        return apply_transaction(i, m.type);
    struct replay r = {.state = i->pending ? i->pending : &i->state, .arena = arena, .offset = record->offset};
    int error = image_replay(&r, &m, record->value);
    arena_reset(arena);
    return error;
}

/* Of the control records only those that say how the quorum is made matter to an image. */
static int apply_control(struct image *i, struct arena *arena, const struct record *record)
{
    int type = control_type_of(record->key);
    if (type < 0)
        return -EBADMSG;
    if (type == CONTROL_KRAFT_VOTERS)
        pmap_put(&i->state.voters, extra_new(SLICE_EMPTY, record->value));
    if (type == CONTROL_KRAFT_VERSION) {
        struct kafka_kraft_version_record m;
        if (wire_decode(&kafka_kraft_version_record_type, 0, record->value, arena, &m, NULL) != 0)
            return -EBADMSG;
        i->state.kraft_version = m.kraft_version;
    }
    return 0;
}

/* ---- batches ---- */

struct applying {
    struct image *image;
    struct arena *arena;
    struct buf scratch;
    bool is_snapshot; /* its offsets are its own */
    int64_t at;
};

static int apply_batch(struct applying *a, const struct batch *b, struct slice bytes)
{
    struct record_iter it;
    struct record record;
    if (record_iter_init(&it, b, bytes, &a->scratch, BATCH_UNPACKED_MAX) != 0)
        return -EBADMSG;
    int more;
    while ((more = record_iter_next(&it, &record)) == 1) {
        a->at = record.offset;
        if (!a->is_snapshot && record.offset <= a->image->offset)
            continue;
        int error =
            batch_is_control(b) ? apply_control(a->image, a->arena, &record) : apply_data(a->image, a->arena, &record);
        if (error != 0)
            return error;
    }
    return more;
}

static int apply_batches(struct applying *a, struct slice batches)
{
    struct batch b;
    struct slice bytes;
    int more;
    while ((more = batch_next(&batches, &b, &bytes)) == 1) {
        a->at = b.base_offset;
        if (!a->is_snapshot && batch_last_offset(&b) <= a->image->offset)
            continue;
        if (!batch_crc_holds(&b, bytes) || apply_batch(a, &b, bytes) != 0)
            return -EBADMSG;
        a->image->epoch = b.leader_epoch;
        a->image->timestamp_ms = b.max_timestamp;
        if (!a->is_snapshot)
            a->image->offset = batch_last_offset(&b);
    }
    return more == 0 ? 0 : -EBADMSG;
}

static int apply_all(struct image *image, struct slice batches, bool is_snapshot, int64_t *ret_bad_offset)
{
    struct applying a = {.image = image, .arena = arena_new(DECODE_MAX), .is_snapshot = is_snapshot};
    int error = apply_batches(&a, batches);
    arena_free(a.arena);
    buf_free(&a.scratch);
    if (error != 0 && ret_bad_offset != NULL)
        *ret_bad_offset = a.at;
    return error;
}

/* A list stays good as long as its map is the same one. */
static void share_lists(struct image *i, const struct image *old)
{
    if (i->state.topics.root == old->state.topics.root)
        i->topics = sorted_retain(&old->topics);
    if (i->state.brokers.root == old->state.brokers.root)
        i->brokers = sorted_retain(&old->brokers);
    if (i->state.features.root == old->state.features.root)
        i->features = sorted_retain(&old->features);
    if (i->state.services.root == old->state.services.root)
        i->services = sorted_retain(&old->services);
}

int image_apply(const struct image *old, struct slice batches, struct image **ret_new, int64_t *ret_bad_offset)
{
    struct image *i = image_clone(old);
    int error = apply_all(i, batches, false, ret_bad_offset);
    if (error == 0) {
        share_lists(i, old);
        *ret_new = i;
    } else {
        image_release(i);
    }
    return error;
}

int image_load(const char *cluster_id, struct slice snapshot, int64_t end_offset, int32_t epoch, struct image **ret_new)
{
    struct image *i = image_empty(cluster_id);
    i->offset = end_offset - 1;
    int error = apply_all(i, snapshot, true, NULL);
    if (error == 0 && i->pending != NULL)
        error = -EBADMSG;
    if (error != 0) {
        image_release(i);
        return error;
    }
    if (epoch >= 0)
        i->epoch = epoch;
    *ret_new = i;
    return 0;
}
