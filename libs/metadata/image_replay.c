/* image_replay.c - what each record changes, but for those of topics. */
#include "kafka/access_control_entry_record.h"
#include "kafka/broker_registration_change_record.h"
#include "kafka/client_quota_record.h"
#include "kafka/config_record.h"
#include "kafka/delegation_token_record.h"
#include "kafka/feature_level_record.h"
#include "kafka/fence_broker_record.h"
#include "kafka/producer_ids_record.h"
#include "kafka/register_broker_record.h"
#include "kafka/register_controller_record.h"
#include "kafka/remove_access_control_entry_record.h"
#include "kafka/remove_delegation_token_record.h"
#include "kafka/remove_user_scram_credential_record.h"
#include "kafka/unfence_broker_record.h"
#include "kafka/unregister_broker_record.h"
#include "kafka/user_scram_credential_record.h"
#include "karst/coordinator_record.h"
#include "karst/service_record.h"
#include "libs/base/bytes.h"
#include "libs/metadata/image_impl.h"

/* ---- brokers ---- */

static int replay_register_broker(struct replay *r, const void *msg)
{
    const struct kafka_register_broker_record *m = msg;
    if (m->broker_id < 0)
        return -EBADMSG;
    struct image_endpoint *e = arena_try_alloc(r->arena, (size_t)m->end_points_count * sizeof *e + 1);
    struct image_feature *f = arena_try_alloc(r->arena, (size_t)m->features_count * sizeof *f + 1);
    if (e == NULL || f == NULL)
        return -EBADMSG;
    for (int32_t i = 0; i < m->end_points_count; i++)
        e[i] = (struct image_endpoint){m->end_points[i].name, m->end_points[i].host, m->end_points[i].port,
                                       m->end_points[i].security_protocol};
    for (int32_t i = 0; i < m->features_count; i++)
        f[i] = (struct image_feature){m->features[i].name, m->features[i].min_supported_version,
                                      m->features[i].max_supported_version};
    struct image_broker b = {
        .id = m->broker_id,
        .incarnation = m->incarnation_id,
        .epoch = m->broker_epoch,
        .fenced = m->fenced,
        .in_controlled_shutdown = m->in_controlled_shutdown,
        .rack = m->rack,
        .endpoints = e,
        .endpoint_count = m->end_points_count,
        .features = f,
        .feature_count = m->features_count,
        .log_dirs = m->log_dirs,
        .log_dir_count = m->log_dirs_count,
        .cordoned_log_dirs = m->cordoned_log_dirs,
        .cordoned_log_dir_count = MAX(m->cordoned_log_dirs_count, 0),
    };
    pmap_put(&r->state->brokers, broker_new(&b));
    return 0;
}

/* The registration of that life of the broker. */
static const struct image_broker *find_broker(struct replay *r, int32_t id, int64_t epoch)
{
    struct pmap_item *item = pmap_get(&r->state->brokers, slice_make(&id, sizeof id));
    const struct image_broker *b = item ? &CONTAINER_OF(item, struct broker, item)->pub : NULL;
    return b != NULL && b->epoch == epoch ? b : NULL;
}

static int replay_unregister_broker(struct replay *r, const void *msg)
{
    const struct kafka_unregister_broker_record *m = msg;
    if (find_broker(r, m->broker_id, m->broker_epoch) == NULL)
        return -EBADMSG;
    pmap_remove(&r->state->brokers, slice_make(&m->broker_id, sizeof m->broker_id));
    return 0;
}

static int set_fenced(struct replay *r, int32_t id, int64_t epoch, bool fenced)
{
    const struct image_broker *old = find_broker(r, id, epoch);
    if (old == NULL)
        return -EBADMSG;
    struct image_broker b = *old;
    b.fenced = fenced;
    pmap_put(&r->state->brokers, broker_new(&b));
    return 0;
}

static int replay_registration_change(struct replay *r, const void *msg)
{
    const struct kafka_broker_registration_change_record *m = msg;
    const struct image_broker *old = find_broker(r, m->broker_id, m->broker_epoch);
    if (old == NULL)
        return -EBADMSG;
    struct image_broker b = *old;
    if (m->fenced != 0)
        b.fenced = m->fenced > 0;
    if (m->in_controlled_shutdown > 0)
        b.in_controlled_shutdown = true;
    if (m->log_dirs_count > 0) {
        b.log_dirs = m->log_dirs;
        b.log_dir_count = m->log_dirs_count;
    }
    if (m->cordoned_log_dirs_count >= 0) {
        b.cordoned_log_dirs = m->cordoned_log_dirs;
        b.cordoned_log_dir_count = m->cordoned_log_dirs_count;
    }
    pmap_put(&r->state->brokers, broker_new(&b));
    return 0;
}

/* ---- configuration, features, producer ids ---- */

static int replay_config(struct replay *r, const void *msg)
{
    const struct kafka_config_record *m = msg;
    uint8_t *key = arena_try_alloc(r->arena, m->resource_name.size + 1);
    if (key == NULL || m->resource_type <= 0)
        return -EBADMSG;
    enum image_resource type = (enum image_resource)m->resource_type;
    struct slice at = configs_key(key, type, m->resource_name);
    struct pmap_item *old = pmap_get(&r->state->configs, at);
    struct pmap_item *item =
        configs_new(old ? CONTAINER_OF(old, struct configs, item) : NULL, type, m->resource_name, m->name, m->value);
    if (item != NULL)
        pmap_put(&r->state->configs, item);
    else
        pmap_remove(&r->state->configs, at);
    return 0;
}

static int replay_feature(struct replay *r, const void *msg)
{
    const struct kafka_feature_level_record *m = msg;
    if (m->feature_level < 0)
        return -EBADMSG;
    if (m->feature_level > 0)
        pmap_put(&r->state->features, feature_new(m->name, m->feature_level));
    else
        pmap_remove(&r->state->features, m->name);
    return 0;
}

/* ---- records that are kept as they came ---- */

static void key_int(struct buf *b, uint64_t v)
{
    put_u64(buf_grow(b, 8), v);
}

static void key_text(struct buf *b, struct slice s)
{
    key_int(b, slice_is_null(s) ? UINT64_MAX : s.size);
    buf_append(b, s.data, s.size);
}

/* One key for one entity, in whatever order a record names its parts. There are three types of them; of more than a few
 * the order counts, so that a record of nonsense costs no time. */
static void key_entity(struct buf *key, const struct kafka_client_quota_record *m)
{
    enum { PARTS_MAX = 8 };
    struct slice last = SLICE_NULL;
    for (int32_t i = 0; m->entity_count > PARTS_MAX && i < m->entity_count; i++) {
        key_text(key, m->entity[i].entity_type);
        key_text(key, m->entity[i].entity_name);
    }
    for (int32_t n = 0; m->entity_count <= PARTS_MAX && n < m->entity_count; n++) {
        const struct kafka_client_quota_record_entity_data *next = NULL;
        for (int32_t i = 0; i < m->entity_count; i++) {
            struct slice type = m->entity[i].entity_type;
            if ((n == 0 || slice_cmp(type, last) > 0) && (next == NULL || slice_cmp(type, next->entity_type) < 0))
                next = &m->entity[i];
        }
        if (next == NULL)
            return; /* types that come twice */
        key_text(key, next->entity_type);
        key_text(key, next->entity_name);
        last = next->entity_type;
    }
}

bool extra_key(enum metarecord_type type, const void *msg, struct buf *key, bool *ret_remove)
{
    *ret_remove = false;
    switch (type) {
    case METARECORD_REMOVE_ACCESS_CONTROL_ENTRY:
        *ret_remove = true; /* both begin with the id */
        key_int(key, METARECORD_ACCESS_CONTROL_ENTRY);
        buf_append(key, ((const struct kafka_remove_access_control_entry_record *)msg)->id.b, 16);
        return true;
    case METARECORD_ACCESS_CONTROL_ENTRY:
        key_int(key, METARECORD_ACCESS_CONTROL_ENTRY);
        buf_append(key, ((const struct kafka_access_control_entry_record *)msg)->id.b, 16);
        return true;
    case METARECORD_REMOVE_DELEGATION_TOKEN:
        *ret_remove = true;
        key_int(key, METARECORD_DELEGATION_TOKEN);
        key_text(key, ((const struct kafka_remove_delegation_token_record *)msg)->token_id);
        return true;
    case METARECORD_DELEGATION_TOKEN:
        key_int(key, METARECORD_DELEGATION_TOKEN);
        key_text(key, ((const struct kafka_delegation_token_record *)msg)->token_id);
        return true;
    case METARECORD_REMOVE_USER_SCRAM_CREDENTIAL: {
        const struct kafka_remove_user_scram_credential_record *m = msg;
        *ret_remove = true;
        key_int(key, METARECORD_USER_SCRAM_CREDENTIAL);
        key_int(key, (uint64_t)m->mechanism);
        key_text(key, m->name);
        return true;
    }
    case METARECORD_USER_SCRAM_CREDENTIAL: {
        const struct kafka_user_scram_credential_record *m = msg;
        key_int(key, METARECORD_USER_SCRAM_CREDENTIAL);
        key_int(key, (uint64_t)m->mechanism);
        key_text(key, m->name);
        return true;
    }
    case METARECORD_CLIENT_QUOTA: {
        const struct kafka_client_quota_record *m = msg;
        *ret_remove = m->remove;
        key_int(key, METARECORD_CLIENT_QUOTA);
        key_entity(key, m);
        key_text(key, m->key);
        return true;
    }
    case METARECORD_REGISTER_CONTROLLER:
        key_int(key, METARECORD_REGISTER_CONTROLLER);
        key_int(key, (uint64_t)((const struct kafka_register_controller_record *)msg)->controller_id);
        return true;
    case METARECORD_ZK_MIGRATION_STATE: key_int(key, METARECORD_ZK_MIGRATION_STATE); return true;
    default: return false;
    }
}

static int replay_extra(struct replay *r, const struct metarecord *record, const void *msg, struct slice value)
{
    struct buf key CLEANUP(buf_free) = {0};
    bool remove;
    if (!extra_key((enum metarecord_type)record->type, msg, &key, &remove))
        return -EBADMSG;
    if (remove)
        pmap_remove(&r->state->extras, buf_slice(&key));
    else
        pmap_put(&r->state->extras, extra_new(buf_slice(&key), value));
    return 0;
}

/* ---- Karst's own ---- */

static int replay_service(struct replay *r, const struct karst_service_record *m)
{
    int32_t key[2] = {m->role, m->id};
    if (m->gone) {
        pmap_remove(&r->state->services, slice_make(key, sizeof key));
        return 0;
    }
    struct image_endpoint *l = arena_try_alloc(r->arena, (size_t)m->listeners_count * sizeof *l + 1);
    if (l == NULL)
        return -EBADMSG;
    for (int32_t i = 0; i < m->listeners_count; i++)
        l[i] = (struct image_endpoint){m->listeners[i].name, m->listeners[i].host, m->listeners[i].port,
                                       m->listeners[i].security_protocol};
    struct image_service s = {
        .role = m->role,
        .id = m->id,
        .incarnation = (uint64_t)m->incarnation,
        .epoch = m->epoch,
        .host = m->host,
        .rack = m->rack,
        .version = m->version,
        .addresses = m->endpoints,
        .address_count = m->endpoints_count,
        .listeners = l,
        .listener_count = m->listeners_count,
        .log_dirs = m->log_dirs,
        .log_dir_count = m->log_dirs_count,
        .bus_version = m->bus_version,
    };
    pmap_put(&r->state->services, service_new(&s));
    return 0;
}

static void replay_coordinator(struct replay *r, const struct karst_coordinator_record *m)
{
    for (int32_t i = 0; i < m->partitions_count; i++) {
        const struct karst_coordinator_record_partition *p = &m->partitions[i];
        struct image_owner o = {
            .topic_id = p->topic,
            .partition = p->partition,
            .role = m->role,
            .id = p->owner_id,
            .incarnation = (uint64_t)p->owner_incarnation,
            .coordinator_epoch = p->coordinator_epoch,
        };
        pmap_put(&r->state->owners, owner_new(&o));
    }
}

static int replay_tag(struct replay *r, uint32_t tag, struct slice value)
{
    struct karst_service_record service;
    struct karst_coordinator_record coordinator;
    switch (tag) {
    case METARECORD_TAG_SERVICE:
        if (wire_decode(&karst_service_record_type, 0, value, r->arena, &service, NULL) != 0)
            return -EBADMSG;
        return replay_service(r, &service);
    case METARECORD_TAG_COORDINATOR:
        if (wire_decode(&karst_coordinator_record_type, 0, value, r->arena, &coordinator, NULL) != 0)
            return -EBADMSG;
        replay_coordinator(r, &coordinator);
        return 0;
    default: return 0; /* of a later release */
    }
}

static int replay_no_op(struct replay *r, struct slice body)
{
    size_t at = 0;
    uint32_t left = 0, tag;
    struct slice value;
    int more;
    while ((more = metarecord_tag_next(body, &at, &left, &tag, &value)) == 1)
        if (replay_tag(r, tag, value) != 0)
            return -EBADMSG;
    return more;
}

/* ---- all ---- */

int image_replay(struct replay *r, const struct metarecord *record, struct slice value)
{
    void *msg;
    if (record->type == METARECORD_NO_OP && record->version == 0)
        return replay_no_op(r, record->body);
    if (metarecord_decode(record, r->arena, &msg) != 0)
        return -EBADMSG;
    switch (record->type) {
    case METARECORD_REGISTER_BROKER: return replay_register_broker(r, msg);
    case METARECORD_UNREGISTER_BROKER: return replay_unregister_broker(r, msg);
    case METARECORD_BROKER_REGISTRATION_CHANGE: return replay_registration_change(r, msg);
    case METARECORD_FENCE_BROKER: {
        const struct kafka_fence_broker_record *m = msg;
        return set_fenced(r, m->id, m->epoch, true);
    }
    case METARECORD_UNFENCE_BROKER: {
        const struct kafka_unfence_broker_record *m = msg;
        return set_fenced(r, m->id, m->epoch, false);
    }
    case METARECORD_TOPIC: return replay_topic(r, msg);
    case METARECORD_PARTITION: return replay_partition(r, msg);
    case METARECORD_PARTITION_CHANGE: return replay_partition_change(r, msg);
    case METARECORD_REMOVE_TOPIC: return replay_remove_topic(r, msg);
    case METARECORD_CLEAR_ELR: return replay_clear_elr(r, msg);
    case METARECORD_CONFIG: return replay_config(r, msg);
    case METARECORD_FEATURE_LEVEL: return replay_feature(r, msg);
    case METARECORD_PRODUCER_IDS:
        r->state->next_producer_id = ((const struct kafka_producer_ids_record *)msg)->next_producer_id;
        return 0;
    default: return replay_extra(r, record, msg, value);
    }
}
