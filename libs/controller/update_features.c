/* update_features.c - UpdateFeatures (57). The order of the checks and the texts are those of Kafka 4.3.1: the first
 * feature that cannot be changed refuses all of them. */
#include "kafka/update_features.h"
#include "kafka/config_record.h"
#include "kafka/feature_level_record.h"
#include "kafka/register_controller_record.h"
#include "libs/controller/internal.h"

enum { UPGRADE = 1, SAFE_DOWNGRADE = 2, UNSAFE_DOWNGRADE = 3 }; /* Kafka's FeatureUpdate.UpgradeType */

typedef struct kafka_update_features_request_feature_update_key feature_request;

struct updating {
    struct controller *c;
    struct arena *arena;
    int16_t version; /* of the request */
};

/* The levels of metadata.version that brought records or fields: below one of them they would be lost
 * (MetadataVersion.didMetadataChange; held against a running Kafka from 30 and from 29 down). */
static bool loses_metadata(int16_t from, int16_t to)
{
    static const int16_t changed[] = {
        8, 11, 13, 14, 15, METADATA_VERSION_DIRECTORIES, METADATA_VERSION_ELR, METADATA_VERSION_LATEST};
    for (size_t i = 0; i < COUNTOF(changed); i++)
        if (changed[i] <= from && changed[i] > to)
            return true;
    return false;
}

static const struct metadata_feature *find_feature(struct slice name)
{
    for (size_t i = 0; i < METADATA_FEATURES; i++)
        if (slice_eq_str(name, metadata_features[i].name))
            return &metadata_features[i];
    return NULL;
}

static const char *not_in_range(const struct updating *u, const char *who, int32_t id, int16_t level, int16_t min,
                                int16_t max)
{
    if (level >= min && level <= max)
        return NULL;
    if (max == 0)
        return arena_printf(u->arena, "%s %d does not support this feature.", who, id);
    return arena_printf(u->arena, "%s %d only supports versions %d-%d", who, id, min, max);
}

struct asking {
    const struct updating *updating;
    struct slice name;
    int16_t level;
    const char *why;
};

static void ask_controller(void *ctx, const struct kafka_register_controller_record *m)
{
    struct asking *k = ctx;
    int16_t min = 0, max = 0;
    for (int32_t i = 0; i < m->features_count; i++)
        if (slice_eq(m->features[i].name, k->name)) {
            min = m->features[i].min_supported_version;
            max = m->features[i].max_supported_version;
        }
    if (k->why == NULL && m->controller_id != k->updating->c->node_id)
        k->why = not_in_range(k->updating, "Controller", m->controller_id, k->level, min, max);
}

/* What the other controllers said when they registered, which below a metadata.version they cannot (KIP-919). */
static const char *not_at_controllers(const struct updating *u, struct slice name, int16_t level)
{
    struct asking k = {u, name, level, NULL};
    if (image_feature_level(u->c->image, "metadata.version") >= METADATA_VERSION_CONTROLLERS)
        image_each_controller(u->c->image, u->arena, ask_controller, &k);
    return k.why;
}

/* Each broker and controller said what it has when it registered. */
static const char *not_supported(const struct updating *u, struct slice name, int16_t level)
{
    const struct metadata_feature *f = find_feature(name);
    int32_t count;
    const struct image_broker *const *brokers = image_brokers(u->c->image, &count);
    const char *why = not_in_range(u, "Local controller", u->c->node_id, level, f ? f->min : 0, f ? f->max : 0);
    for (int32_t i = 0; i < count && why == NULL; i++) {
        struct image_feature has = {.min = 0, .max = 0};
        for (int32_t n = 0; n < brokers[i]->feature_count; n++)
            if (slice_eq(brokers[i]->features[n].name, name))
                has = brokers[i]->features[n];
        why = not_in_range(u, "Broker", brokers[i]->id, level, has.min, has.max);
    }
    if (why == NULL)
        why = not_at_controllers(u, name, level);
    return f == NULL && why == NULL
               ? arena_printf(u->arena, "Local controller %d does not support this feature.", u->c->node_id)
               : why;
}

static int upgrade_type(const struct updating *u, const feature_request *q)
{
    if (u->version > 0)
        return q->upgrade_type;
    return q->allow_downgrade ? SAFE_DOWNGRADE : UPGRADE;
}

static int16_t current_level(const struct updating *u, struct slice name)
{
    if (slice_eq_str(name, "kraft.version"))
        return image_kraft_version(u->c->image);
    return image_feature_level(u->c->image, arena_str(u->arena, name));
}

/* What is wrong with one change: the end of the sentence; NULL: nothing. */
static const char *wrong(const struct updating *u, const feature_request *q)
{
    int type = upgrade_type(u, q);
    int16_t now = current_level(u, q->feature), level = q->max_version_level;
    const char *why = NULL;
    if (type < UPGRADE || type > UNSAFE_DOWNGRADE)
        why = "The controller does not support the given upgrade type.";
    else if (level < 0)
        why = "A feature version cannot be less than 0.";
    else
        why = not_supported(u, q->feature, level);
    if (why == NULL && level < now && type == UPGRADE)
        why = "Can't downgrade the version of this feature without setting the upgrade type to either safe or unsafe "
              "downgrade.";
    if (why == NULL && level > now && type != UPGRADE)
        why = "Can't downgrade to a newer version.";
    if (why == NULL && slice_eq_str(q->feature, "kraft.version") && level < now)
        why = "Can't downgrade the version of this feature.";
    if (why != NULL)
        return arena_printf(u->arena, "Invalid update version %d for feature " SLICE_F ". %s", level,
                            SLICE_A(q->feature), why);
    if (slice_eq_str(q->feature, "metadata.version") && level < now && loses_metadata(now, level))
        return arena_printf(u->arena, "Unsupported metadata.version downgrade from %d to %d. %s", now, level,
                            type == UNSAFE_DOWNGRADE
                                ? "Unsafe metadata downgrade is not supported in this version."
                                : "Refusing to perform the requested downgrade because it might delete metadata "
                                  "information.");
    return NULL;
}

/* With eligible leader replicas the controller has to know min.insync.replicas: one value for all brokers, always there
 * (KIP-966). */
static void put_elr_safety(struct controller *c, struct arena *arena)
{
    static const char key[] = "min.insync.replicas";
    int32_t count;
    const struct image_broker *const *brokers = image_brokers(c->image, &count);
    if (slice_is_null(image_config(c->image, IMAGE_BROKER, SLICE_EMPTY, key)))
        controller_put_min_isr(c);
    for (int32_t i = 0; i < count; i++) {
        struct slice name = slice_str(arena_printf(arena, "%d", brokers[i]->id));
        struct kafka_config_record m = {
            .resource_type = IMAGE_BROKER, .resource_name = name, .name = slice_str(key), .value = SLICE_NULL};
        if (!slice_is_null(image_config(c->image, IMAGE_BROKER, name, key)))
            controller_put(c, METARECORD_CONFIG, 0, &m);
    }
}

static void put_level(const struct updating *u, const feature_request *q)
{
    struct kafka_feature_level_record m = {.name = q->feature, .feature_level = q->max_version_level};
    if (slice_eq_str(q->feature, "kraft.version"))
        return; /* it is in the voters' control records: the quorum's to write */
    if (slice_eq_str(q->feature, "eligible.leader.replicas.version") && m.feature_level > 0 &&
        !controller_elr_enabled(u->c))
        put_elr_safety(u->c, u->arena);
    controller_put(u->c, METARECORD_FEATURE_LEVEL, 0, &m);
}

/* Of several changes of one feature the last counts. */
static bool is_last(const struct kafka_update_features_request *q, int32_t at)
{
    for (int32_t i = at + 1; i < q->feature_updates_count; i++)
        if (slice_eq(q->feature_updates[i].feature, q->feature_updates[at].feature))
            return false;
    return true;
}

static void add_result(struct kafka_update_features_response *p, struct slice feature)
{
    struct kafka_update_features_response_updatable_feature_result *r = &p->results[p->results_count++];
    kafka_update_features_response_updatable_feature_result_init(r);
    r->feature = feature;
    r->error_message = SLICE_OF("NONE");
}

void controller_update_features(struct controller *c, const struct kafka_update_features_request *q, int16_t version,
                                struct arena *arena, struct kafka_update_features_response *ret_p)
{
    enum { UPDATES_MAX = 64 }; /* more than there are features: enough to refuse the request */
    struct updating u = {c, arena, version};
    struct controller_mark mark = controller_mark(c);
    const char *error = q->feature_updates_count > UPDATES_MAX ? "Too many features are named." : NULL;
    kafka_update_features_response_init(ret_p);
    ret_p->error_message = SLICE_NULL;
    ret_p->results = arena_calloc(arena, UPDATES_MAX + 1, sizeof *ret_p->results);
    ret_p->results_count = 0;
    for (int32_t i = 0; error == NULL && i < q->feature_updates_count; i++) {
        if (!is_last(q, i))
            continue;
        error = wrong(&u, &q->feature_updates[i]);
        if (error != NULL)
            break;
        put_level(&u, &q->feature_updates[i]);
        add_result(ret_p, q->feature_updates[i].feature);
    }
    if (error != NULL || q->validate_only)
        controller_rewind(c, mark);
    if (error == NULL)
        return;
    ret_p->results_count = 0;
    ret_p->error_code = KERR_INVALID_UPDATE_VERSION;
    ret_p->error_message = slice_str(
        arena_printf(arena, "The update failed for all features since the following feature had an error: %s", error));
}
