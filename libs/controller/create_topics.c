/* create_topics.c - CreateTopics (19). The order of the checks, the texts and the order of the answers are those of
 * Kafka 4.3.1. */
#include "kafka/create_topics.h"

#include "kafka/config_record.h"
#include "kafka/topic_record.h"
#include "libs/controller/internal.h"

enum { OVERRIDES_MAX = 256 };

typedef struct kafka_create_topics_request_creatable_topic topic_request;
typedef struct kafka_create_topics_response_creatable_topic_result topic_result;

struct creating {
    struct controller *c;
    struct arena *arena;
    bool validate_only;
    struct kafka_create_topics_response *p;
};

static topic_result *add_result(struct creating *k, struct slice name)
{
    topic_result *r = &k->p->topics[k->p->topics_count++];
    wire_init(&kafka_create_topics_response_creatable_topic_result_type, r);
    r->name = name;
    r->num_partitions = r->replication_factor = -1;
    r->configs = NULL;
    r->configs_count = 0;
    r->error_message = SLICE_NULL;
    return r;
}

static void refuse(topic_result *r, enum kafka_error error, const char *message)
{
    r->error_code = (int16_t)error;
    r->error_message = slice_str(message);
    r->topic_id = UUID_ZERO;
    r->num_partitions = r->replication_factor = -1;
    r->configs_count = 0;
}

/* ---- names ---- */

static bool equal_when_folded(struct slice a, struct slice b)
{
    if (a.size != b.size)
        return false;
    for (size_t i = 0; i < a.size; i++)
        if ((a.data[i] == '.' ? '_' : a.data[i]) != (b.data[i] == '.' ? '_' : b.data[i]))
            return false;
    return true;
}

struct colliding {
    struct slice name;
    const struct image_topic *found; /* of several the first by name, so that every node tells the same */
};

static void compare_folded(void *ctx, const struct image_topic *t)
{
    struct colliding *k = ctx;
    if (equal_when_folded(t->name, k->name) && (k->found == NULL || slice_cmp(t->name, k->found->name) < 0))
        k->found = t;
}

/* '.' and '_' are one in the names of metrics: two topics that differ in nothing else may not be. */
static const struct image_topic *colliding(const struct controller *c, struct slice name)
{
    struct colliding k = {.name = name};
    if (memchr(name.data, '.', name.size) != NULL || memchr(name.data, '_', name.size) != NULL)
        image_each_topic(c->image, compare_folded, &k);
    return k.found;
}

static enum kafka_error check_name(struct creating *k, struct slice name, const char **ret_message)
{
    *ret_message = controller_topic_name_error(name, k->arena);
    if (*ret_message != NULL)
        return KERR_INVALID_TOPIC_EXCEPTION;
    if (image_topic_by_name(k->c->image, name) != NULL) {
        *ret_message = arena_printf(k->arena, "Topic '" SLICE_F "' already exists.", SLICE_A(name));
        return KERR_TOPIC_ALREADY_EXISTS;
    }
    const struct image_topic *other = colliding(k->c, name);
    if (other == NULL)
        return KERR_NONE;
    *ret_message = arena_printf(k->arena, "Topic '" SLICE_F "' collides with existing topic: " SLICE_F, SLICE_A(name),
                                SLICE_A(other->name));
    return KERR_INVALID_TOPIC_EXCEPTION;
}

/* ---- configuration ---- */

struct overrides {
    struct config_entry *entries;
    size_t count;
};

/* The last of several values of one key counts. Of more names than there can be keys the first are enough to refuse the
 * request. */
static struct overrides take_overrides(struct creating *k, const topic_request *t)
{
    struct overrides o = {.entries = arena_calloc(k->arena, (size_t)MIN(t->configs_count, OVERRIDES_MAX) + 1,
                                                  sizeof(struct config_entry))};
    for (int32_t i = 0; i < t->configs_count && o.count < OVERRIDES_MAX; i++) {
        size_t at = 0;
        while (at < o.count && !slice_eq(o.entries[at].name, t->configs[i].name))
            at++;
        o.entries[at] = (struct config_entry){t->configs[i].name, t->configs[i].value};
        o.count += at == o.count;
    }
    return o;
}

static enum kafka_error check_configs(struct creating *k, const struct overrides *o, const char **ret_message)
{
    struct buf nulls CLEANUP(buf_free) = {0};
    for (size_t i = 0; i < o->count; i++)
        if (slice_is_null(o->entries[i].value))
            buf_printf(&nulls, "%s" SLICE_F, nulls.size > 0 ? "," : "", SLICE_A(o->entries[i].name));
    if (nulls.size > 0) {
        *ret_message =
            arena_printf(k->arena, "Null value not supported for topic configs: " SLICE_F, SLICE_A(buf_slice(&nulls)));
        return KERR_INVALID_CONFIG;
    }
    *ret_message = controller_topic_config_error(k->c, o->entries, o->count, k->arena);
    return *ret_message == NULL ? KERR_NONE : KERR_INVALID_CONFIG;
}

static bool put_configs(struct creating *k, struct slice name, const struct overrides *o)
{
    for (size_t i = 0; i < o->count; i++) {
        struct kafka_config_record m = {.resource_type = IMAGE_TOPIC,
                                        .resource_name = name,
                                        .name = o->entries[i].name,
                                        .value = o->entries[i].value};
        if (!controller_put(k->c, METARECORD_CONFIG, 0, &m))
            return false;
    }
    return true;
}

/* The value as it came: Kafka prints parsed ones only in DescribeConfigs. */
static struct slice override_of(const struct overrides *o, struct slice name)
{
    for (size_t i = 0; i < o->count; i++)
        if (slice_eq(o->entries[i].name, name))
            return o->entries[i].value;
    return SLICE_NULL;
}

/* All keys of the new topic, as DescribeConfigs would show them. */
static void describe_configs(struct creating *k, const struct overrides *o, topic_result *r)
{
    size_t count;
    const struct config_key *keys = config_keys(CONFIG_TOPIC, &count);
    struct topic_layers l;
    topic_layers_init(&l, k->c, o->entries, o->count);
    r->configs = arena_calloc(k->arena, count + 1, sizeof *r->configs);
    for (size_t i = 0; i < count; i++) {
        if (keys[i].internal && slice_is_null(override_of(o, slice_str(keys[i].name))))
            continue;
        struct config_description d = config_describe(k->c->config, &keys[i], &l.layers, k->arena);
        struct kafka_create_topics_response_creatable_topic_configs *e = &r->configs[r->configs_count++];
        wire_init(&kafka_create_topics_response_creatable_topic_configs_type, e);
        e->name = slice_str(keys[i].name);
        struct slice value = d.source == CONFIG_SOURCE_TOPIC ? override_of(o, e->name) : d.value;
        e->value = slice_is_null(value) ? value : arena_dup(k->arena, value);
        e->config_source = (int8_t)d.source;
        e->is_sensitive = keys[i].sensitive;
    }
}

/* ---- partitions ---- */

static enum kafka_error check_assignments(struct creating *k, const topic_request *t, const char **ret_message)
{
    bool *seen = arena_calloc(k->arena, (size_t)t->assignments_count, sizeof *seen);
    int32_t expected = -1;
    if (t->replication_factor != -1) {
        *ret_message = "A manual partition assignment was specified, but replication factor was not set to -1.";
        return KERR_INVALID_REQUEST;
    }
    if (t->num_partitions != -1) {
        *ret_message = "A manual partition assignment was specified, but numPartitions was not set to -1.";
        return KERR_INVALID_REQUEST;
    }
    for (int32_t i = 0; i < t->assignments_count; i++) {
        int32_t number = t->assignments[i].partition_index, count = t->assignments[i].broker_ids_count;
        for (int32_t n = 0; n < i && *ret_message == NULL; n++)
            if (t->assignments[n].partition_index == number)
                *ret_message =
                    arena_printf(k->arena, "Found multiple manual partition assignments for partition %d", number);
        if (*ret_message != NULL)
            return KERR_INVALID_REPLICA_ASSIGNMENT;
        enum kafka_error error =
            controller_check_assignment(k->c, t->assignments[i].broker_ids, count, expected, k->arena, ret_message);
        if (error != KERR_NONE)
            return error;
        expected = count;
        if (number >= 0 && number < t->assignments_count)
            seen[number] = true;
    }
    for (int32_t i = 0; i < t->assignments_count; i++)
        if (!seen[i]) {
            *ret_message = "partitions should be a consecutive 0-based integer sequence";
            return KERR_INVALID_REPLICA_ASSIGNMENT;
        }
    return KERR_NONE;
}

static enum kafka_error place_assigned(struct creating *k, const topic_request *t, topic_result *r,
                                       const char **ret_message)
{
    enum kafka_error error = check_assignments(k, t, ret_message);
    for (int32_t number = 0; error == KERR_NONE && number < t->assignments_count; number++) {
        int32_t at = 0;
        while (t->assignments[at].partition_index != number)
            at++;
        error = controller_place_at(k->c, r->topic_id, number, t->assignments[at].broker_ids,
                                    t->assignments[at].broker_ids_count, k->arena, ret_message);
    }
    r->num_partitions = t->assignments_count;
    r->replication_factor = t->assignments_count > 0 ? (int16_t)t->assignments[0].broker_ids_count : -1;
    return error;
}

static enum kafka_error place_by_number(struct creating *k, const topic_request *t, topic_result *r,
                                        const char **ret_message)
{
    if (t->replication_factor < -1 || t->replication_factor == 0) {
        *ret_message = "Replication factor must be larger than 0, or -1 to use the default value.";
        return KERR_INVALID_REPLICATION_FACTOR;
    }
    if (t->num_partitions < -1 || t->num_partitions == 0) {
        *ret_message = "Number of partitions was set to an invalid non-positive value.";
        return KERR_INVALID_PARTITIONS;
    }
    r->num_partitions = t->num_partitions > 0 ? t->num_partitions : config_int(k->c->config, "num.partitions");
    r->replication_factor = t->replication_factor > 0 ? t->replication_factor
                                                      : (int16_t)config_int(k->c->config, "default.replication.factor");
    enum kafka_error error =
        controller_place(k->c, r->topic_id, 0, r->num_partitions, r->replication_factor, k->arena, ret_message);
    if (error == KERR_INVALID_REPLICATION_FACTOR)
        *ret_message = arena_printf(k->arena, "Unable to replicate the partition %d time(s): %s", r->replication_factor,
                                    *ret_message);
    return error;
}

/* ---- one topic ---- */

static enum kafka_error create(struct creating *k, const topic_request *t, topic_result *r, const char **ret_message)
{
    struct overrides o = take_overrides(k, t);
    enum kafka_error error = check_name(k, t->name, ret_message);
    if (error == KERR_NONE)
        error = check_configs(k, &o, ret_message);
    if (error != KERR_NONE)
        return error;
    r->topic_id = controller_random_uuid(k->c);
    struct kafka_topic_record m = {.name = t->name, .topic_id = r->topic_id};
    if (!controller_put(k->c, METARECORD_TOPIC, 0, &m) || !put_configs(k, t->name, &o))
        return KERR_INVALID_CONFIG;
    error = t->assignments_count > 0 ? place_assigned(k, t, r, ret_message) : place_by_number(k, t, r, ret_message);
    if (error == KERR_NONE)
        describe_configs(k, &o, r);
    return error;
}

static void create_or_refuse(struct creating *k, const topic_request *t)
{
    struct controller_mark mark = controller_mark(k->c);
    topic_result *r = add_result(k, t->name);
    const char *message = NULL;
    enum kafka_error error = create(k, t, r, &message);
    if (error != KERR_NONE)
        refuse(r, error, message);
    if (error != KERR_NONE || k->validate_only)
        controller_rewind(k->c, mark);
}

/* ---- the request ---- */

static int64_t partitions_asked_for(const struct controller *c, const struct kafka_create_topics_request *q)
{
    int64_t sum = 0;
    for (int32_t i = 0; i < q->topics_count; i++) {
        const topic_request *t = &q->topics[i];
        sum += t->assignments_count > 0  ? t->assignments_count
               : t->num_partitions == -1 ? config_int(c->config, "num.partitions")
                                         : MAX(t->num_partitions, 0);
    }
    return sum;
}

static bool is_forbidden(struct slice name)
{
    return slice_eq_str(name, "__cluster_metadata");
}

static void refuse_forbidden_and_repeated(struct creating *k, const struct kafka_create_topics_request *q,
                                          const struct name_set *names)
{
    for (int32_t i = 0; i < q->topics_count; i++) {
        int32_t first = i, times = name_set_find(names, q->topics[i].name, &first);
        if (times > 1 && first == i)
            refuse(add_result(k, q->topics[i].name), KERR_INVALID_REQUEST, "Duplicate topic name.");
        else if (times == 1 && is_forbidden(q->topics[i].name))
            refuse(add_result(k, q->topics[i].name), KERR_INVALID_REQUEST,
                   "Creation of internal topic __cluster_metadata is prohibited.");
    }
}

void controller_create_topics(struct controller *c, const struct kafka_create_topics_request *q, int16_t version,
                              struct arena *arena, struct kafka_create_topics_response *ret_p)
{
    struct creating k = {.c = c, .arena = arena, .validate_only = q->validate_only, .p = ret_p};
    bool too_many = partitions_asked_for(c, q) > RECORDS_PER_REQUEST_MAX;
    bool coordinated = false;
    struct name_set names;
    (void)version; /* what a version lacks, the encoder leaves out */
    kafka_create_topics_response_init(ret_p);
    ret_p->topics = arena_calloc(arena, (size_t)q->topics_count + 1, sizeof *ret_p->topics);
    ret_p->topics_count = 0;
    name_set_init(&names, arena, (size_t)q->topics_count);
    for (int32_t i = 0; i < q->topics_count; i++) {
        name_set_add(&names, q->topics[i].name, i);
        coordinated = coordinated || controller_is_coordinated(q->topics[i].name);
    }
    name_set_seal(&names);
    for (int32_t i = 0; i < q->topics_count; i++) {
        if (name_set_find(&names, q->topics[i].name, NULL) > 1 || is_forbidden(q->topics[i].name))
            continue;
        if (too_many)
            refuse(add_result(&k, q->topics[i].name), KERR_POLICY_VIOLATION,
                   "Excessively large number of partitions per request.");
        else
            create_or_refuse(&k, &q->topics[i]);
    }
    refuse_forbidden_and_repeated(&k, q, &names);
    if (coordinated && c->record_count > 0)
        controller_assign_owners_ahead(c);
}
