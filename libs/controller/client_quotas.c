/* client_quotas.c - AlterClientQuotas (49). The checks and texts are those of Kafka 4.3.1. What is set is kept and
 * described; nothing is slowed down by it yet. */
#include <arpa/inet.h>
#include <math.h>
#include <stdlib.h>

#include "kafka/alter_client_quotas.h"
#include "kafka/client_quota_record.h"
#include "libs/controller/internal.h"

enum { ENTITY_PARTS = 3 };

typedef struct kafka_alter_client_quotas_request_entry_data entry_request;
typedef struct kafka_alter_client_quotas_request_entity_data part_request;
typedef struct kafka_alter_client_quotas_response_entry_data entry_answer;

/* Who a quota is for: names by type, in the order in which Kafka writes them. A null name is the default of its type.
 */
struct entity {
    bool has[ENTITY_PARTS];
    struct slice names[ENTITY_PARTS];
    struct slice other; /* a type that there is not; null: none */
    int32_t count;
};
static const char *const types[ENTITY_PARTS] = {"client-id", "user", "ip"};
enum { CLIENT_ID = 0, USER = 1, IP = 2 };

struct altering_quotas {
    struct controller *c;
    struct arena *arena;
    struct entity *entities; /* one an entry of the request */
};

struct quota_key {
    const char *name;
    bool of_ip, whole;
    double max;
};
static const struct quota_key quota_keys[] = {
    {"producer_byte_rate", false, true, 0x1p63},         {"consumer_byte_rate", false, true, 0x1p63},
    {"request_percentage", false, false, INFINITY},      {"controller_mutation_rate", false, false, INFINITY},
    {"connection_creation_rate", true, true, INT32_MAX},
};

/* ---- entities ---- */

static struct entity take_entity(const entry_request *q)
{
    struct entity e = {.other = SLICE_NULL};
    for (int32_t i = 0; i < q->entity_count; i++) {
        int at = 0;
        while (at < ENTITY_PARTS && !slice_eq_str(q->entity[i].entity_type, types[at]))
            at++;
        if (at == ENTITY_PARTS) {
            e.other = q->entity[i].entity_type;
            continue;
        }
        e.count += !e.has[at];
        e.has[at] = true;
        e.names[at] = q->entity[i].entity_name; /* of two of one type the last counts */
    }
    return e;
}

static bool same_name(struct slice a, struct slice b)
{
    return slice_is_null(a) == slice_is_null(b) && slice_eq(a, b);
}

static bool same_entity(const struct entity *a, const struct entity *b)
{
    for (int i = 0; i < ENTITY_PARTS; i++)
        if (a->has[i] != b->has[i] || (a->has[i] && !same_name(a->names[i], b->names[i])))
            return false;
    return slice_is_null(a->other) && slice_is_null(b->other);
}

static const char *describe(const struct altering_quotas *k, const struct entity *e)
{
    struct buf b CLEANUP(buf_free) = {0};
    for (int i = 0; i < ENTITY_PARTS; i++)
        if (e->has[i] && slice_is_null(e->names[i]))
            buf_printf(&b, "%s%s=null", b.size > 0 ? ", " : "", types[i]);
        else if (e->has[i])
            buf_printf(&b, "%s%s=" SLICE_F, b.size > 0 ? ", " : "", types[i], SLICE_A(e->names[i]));
    return arena_printf(k->arena, "ClientQuotaEntity(entries={" SLICE_F "})", SLICE_A(buf_slice(&b)));
}

/* An address. Kafka asks the resolver for others; a controller that waits for one would stand still for everybody. */
static bool is_address(const struct altering_quotas *k, struct slice name)
{
    uint8_t bytes[16];
    const char *s = arena_str(k->arena, name);
    return slice_is_null(name) || inet_pton(AF_INET, s, bytes) == 1 || inet_pton(AF_INET6, s, bytes) == 1;
}

static const char *wrong_entity(const struct altering_quotas *k, const struct entity *e)
{
    if (!slice_is_null(e->other))
        return arena_printf(k->arena, "Unhandled client quota entity type: " SLICE_F, SLICE_A(e->other));
    if (e->count == 0)
        return "Invalid empty client quota entity";
    for (int i = 0; i < ENTITY_PARTS; i++)
        if (e->has[i] && !slice_is_null(e->names[i]) && e->names[i].size == 0)
            return arena_printf(k->arena, "Empty %s not supported", types[i]);
    if (e->has[IP] && e->count > 1)
        return "Invalid quota entity combination, IP entity shouldnot be combined with User or ClientId";
    if (e->has[IP] && !is_address(k, e->names[IP]))
        return arena_printf(k->arena, SLICE_F " is not a valid IP or resolvable host.", SLICE_A(e->names[IP]));
    return NULL;
}

/* ---- values ---- */

static const char *wrong_value(const struct altering_quotas *k, const struct entity *e, struct slice key, double value)
{
    const struct quota_key *q = NULL;
    for (size_t i = 0; i < COUNTOF(quota_keys); i++)
        if (slice_eq_str(key, quota_keys[i].name) && quota_keys[i].of_ip == e->has[IP])
            q = &quota_keys[i];
    if (q == NULL)
        return arena_printf(k->arena, "Invalid configuration key " SLICE_F, SLICE_A(key));
    if (!(value > 0))
        return arena_printf(k->arena, "Quota %s must be greater than 0", q->name);
    if (value > q->max)
        return arena_printf(k->arena, "Proposed value for %s is too large for %s.", q->name,
                            q->of_ip ? "an INT" : "a LONG");
    if (q->whole && fabs(fmod(value, 1.0)) > 1e-6)
        return arena_printf(k->arena, "%s cannot be a fractional value.", q->name);
    return NULL;
}

/* A record, unless it would say what is known. */
static bool put_quota(const struct altering_quotas *k, const struct entity *e,
                      const struct kafka_alter_client_quotas_request_op_data *op)
{
    struct kafka_client_quota_record_entity_data parts[ENTITY_PARTS];
    struct kafka_client_quota_record m = {
        .entity = parts, .key = op->key, .value = op->remove ? 0 : op->value, .remove = op->remove};
    double now = 0;
    for (int i = 0; i < ENTITY_PARTS; i++)
        if (e->has[i])
            parts[m.entity_count++] = (struct kafka_client_quota_record_entity_data){slice_str(types[i]), e->names[i]};
    bool found = image_client_quota(k->c->image, &m, &now);
    if (op->remove ? !found : found && now >= op->value && now <= op->value)
        return true;
    return controller_put(k->c, METARECORD_CLIENT_QUOTA, 0, &m);
}

/* ---- the request ---- */

/* NULL or what is wrong; then nothing of the entry is kept. */
static const char *alter(const struct altering_quotas *k, const struct kafka_alter_client_quotas_request *q, int32_t at)
{
    const entry_request *from = &q->entries[at];
    const struct entity *e = &k->entities[at];
    bool twice = false;
    for (int32_t i = 0; i < q->entries_count; i++)
        twice = twice || (i != at && same_entity(&k->entities[i], e));
    for (int32_t i = 0; i < from->ops_count; i++)
        for (int32_t n = 0; n < i; n++)
            twice = twice || slice_eq(from->ops[i].key, from->ops[n].key);
    if (twice)
        return arena_printf(k->arena, "Ignoring duplicate entity %s", describe(k, e));
    const char *why = wrong_entity(k, e);
    for (int32_t i = 0; i < from->ops_count && why == NULL; i++) {
        if (!from->ops[i].remove)
            why = wrong_value(k, e, from->ops[i].key, from->ops[i].value);
        if (why == NULL && !put_quota(k, e, &from->ops[i]))
            why = "A name is longer than 32767 bytes.";
    }
    return why;
}

static void answer(const struct altering_quotas *k, const entry_request *from, const char *why, entry_answer *to)
{
    kafka_alter_client_quotas_response_entry_data_init(to);
    to->error_code = why != NULL ? KERR_INVALID_REQUEST : KERR_NONE;
    to->error_message = slice_str(why);
    to->entity = arena_calloc(k->arena, (size_t)from->entity_count + 1, sizeof *to->entity);
    to->entity_count = 0;
    for (int32_t i = 0; i < from->entity_count; i++) {
        bool again = false; /* of two of one type the last is told */
        for (int32_t n = i + 1; n < from->entity_count; n++)
            again = again || slice_eq(from->entity[n].entity_type, from->entity[i].entity_type);
        const part_request *part = &from->entity[i];
        if (!again)
            to->entity[to->entity_count++] =
                (struct kafka_alter_client_quotas_response_entity_data){part->entity_type, part->entity_name};
    }
}

void controller_alter_client_quotas(struct controller *c, const struct kafka_alter_client_quotas_request *q,
                                    struct arena *arena, struct kafka_alter_client_quotas_response *ret_p)
{
    struct altering_quotas k = {
        .c = c, .arena = arena, .entities = arena_calloc(arena, (size_t)q->entries_count + 1, sizeof *k.entities)};
    kafka_alter_client_quotas_response_init(ret_p);
    ret_p->entries = arena_calloc(arena, (size_t)q->entries_count + 1, sizeof *ret_p->entries);
    ret_p->entries_count = 0;
    for (int32_t i = 0; i < q->entries_count; i++)
        k.entities[i] = take_entity(&q->entries[i]);
    for (int32_t i = 0; i < q->entries_count; i++) {
        struct controller_mark mark = controller_mark(c);
        bool told = false;
        for (int32_t n = 0; n < i; n++)
            told = told || same_entity(&k.entities[n], &k.entities[i]);
        const char *why = alter(&k, q, i);
        if (why != NULL || q->validate_only)
            controller_rewind(c, mark);
        if (!told)
            answer(&k, &q->entries[i], why, &ret_p->entries[ret_p->entries_count++]);
    }
}
