/* image_extras.c - clients' quotas and SCRAM credentials, and controllers. They are kept as records (image_impl.h,
 * struct extra), and decoded for who asks: few ask, and seldom. */
#include "kafka/client_quota_record.h"
#include "kafka/register_controller_record.h"
#include "kafka/user_scram_credential_record.h"
#include "libs/base/bytes.h"
#include "libs/metadata/image_impl.h"

struct walking {
    enum metarecord_type type;
    struct arena *arena;
    image_client_quota_fn *quota;
    image_scram_fn *scram;
    image_controller_fn *controller;
    void *ctx;
};

/* What is in an image has been decoded before. */
static const void *decode(const struct extra *e, struct arena *arena)
{
    struct metarecord record;
    void *msg;
    int error = metarecord_parse(e->value, &record);
    if (error == 0)
        error = metarecord_decode(&record, arena, &msg);
    ASSERT(error == 0);
    return msg;
}

static void visit(void *ctx, struct pmap_item *item)
{
    struct walking *w = ctx;
    if (get_u64(item->key.data) != w->type)
        return;
    const void *msg = decode(CONTAINER_OF(item, struct extra, item), w->arena);
    if (w->quota != NULL)
        w->quota(w->ctx, msg);
    else if (w->scram != NULL)
        w->scram(w->ctx, msg);
    else
        w->controller(w->ctx, msg);
}

void image_each_client_quota(const struct image *i, struct arena *arena, image_client_quota_fn *fn, void *ctx)
{
    struct walking w = {.type = METARECORD_CLIENT_QUOTA, .arena = arena, .quota = fn, .ctx = ctx};
    pmap_each(&i->state.extras, visit, &w);
}

static const struct extra *find(const struct image *i, enum metarecord_type type, const void *msg)
{
    struct buf key CLEANUP(buf_free) = {0};
    bool remove;
    const struct pmap_item *item = NULL;
    if (extra_key(type, msg, &key, &remove))
        item = pmap_get(&i->state.extras, buf_slice(&key));
    return item != NULL ? (const struct extra *)(const void *)item : NULL;
}

bool image_client_quota(const struct image *i, const struct kafka_client_quota_record *of, double *ret_value)
{
    const struct extra *e = find(i, METARECORD_CLIENT_QUOTA, of);
    if (e == NULL)
        return false;
    struct arena *arena = arena_new(0);
    *ret_value = ((const struct kafka_client_quota_record *)decode(e, arena))->value;
    arena_free(arena);
    return true;
}

bool image_has_scram(const struct image *i, struct slice user, int8_t mechanism)
{
    struct kafka_user_scram_credential_record m = {.name = user, .mechanism = mechanism};
    return find(i, METARECORD_USER_SCRAM_CREDENTIAL, &m) != NULL;
}

void image_each_scram(const struct image *i, struct arena *arena, image_scram_fn *fn, void *ctx)
{
    struct walking w = {.type = METARECORD_USER_SCRAM_CREDENTIAL, .arena = arena, .scram = fn, .ctx = ctx};
    pmap_each(&i->state.extras, visit, &w);
}

void image_each_controller(const struct image *i, struct arena *arena, image_controller_fn *fn, void *ctx)
{
    struct walking w = {.type = METARECORD_REGISTER_CONTROLLER, .arena = arena, .controller = fn, .ctx = ctx};
    pmap_each(&i->state.extras, visit, &w);
}

const struct kafka_register_controller_record *image_controller(const struct image *i, int32_t id, struct arena *arena)
{
    struct kafka_register_controller_record m = {.controller_id = id};
    const struct extra *e = find(i, METARECORD_REGISTER_CONTROLLER, &m);
    return e != NULL ? decode(e, arena) : NULL;
}
