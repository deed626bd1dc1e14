/* api_describe_client_quotas.c - DescribeClientQuotas (48), versions 0-1: what the image has that fits the filter, in
 * Kafka's words where the filter makes no sense (ClientQuotasImage.describe). */
#include <stdlib.h>

#include "kafka/apis.h"
#include "kafka/client_quota_record.h"
#include "kafka/describe_client_quotas.h"
#include "services/frontend/api_common.h"

enum { MATCH_EXACT = 0, MATCH_DEFAULT = 1, MATCH_SPECIFIED = 2 };

typedef struct kafka_describe_client_quotas_request describe_request;
typedef struct kafka_describe_client_quotas_request_component_data component;
typedef struct kafka_describe_client_quotas_response describe_response;
typedef struct kafka_describe_client_quotas_response_entry_data entry;
typedef struct kafka_client_quota_record quota;
typedef struct kafka_client_quota_record_entity_data part;

struct quotas {
    struct request *r;
    const quota **all;
    int32_t count, room;
};

static void fail(struct request *r, enum kafka_error error, const char *message)
{
    describe_response response;
    kafka_describe_client_quotas_response_init(&response);
    response.error_code = (int16_t)error;
    response.error_message = api_text(message);
    response.entries_count = -1;
    request_reply(r, &response);
}

/* ---- the filter ---- */

static bool is_type(struct slice s)
{
    return slice_eq_str(s, "user") || slice_eq_str(s, "client-id") || slice_eq_str(s, "ip");
}

static const char *wrong_component(struct request *r, const describe_request *q, int32_t at,
                                   enum kafka_error *ret_error)
{
    const component *c = &q->components[at];
    *ret_error = KERR_INVALID_REQUEST;
    if (c->entity_type.size == 0)
        return "Invalid empty entity type.";
    for (int32_t i = 0; i < at; i++)
        if (slice_eq(q->components[i].entity_type, c->entity_type))
            return arena_printf(r->arena, "Entity type " SLICE_F " cannot appear more than once in the filter.",
                                SLICE_A(c->entity_type));
    if (!is_type(c->entity_type)) {
        *ret_error = KERR_UNSUPPORTED_VERSION;
        return arena_printf(r->arena, "Unsupported entity type " SLICE_F, SLICE_A(c->entity_type));
    }
    switch (c->match_type) {
    case MATCH_EXACT:
        return slice_is_null(c->match) ? "Request specified MATCH_TYPE_EXACT, but set match string to null." : NULL;
    case MATCH_DEFAULT:
        return slice_is_null(c->match) ? NULL
                                       : "Request specified MATCH_TYPE_DEFAULT, but also specified a match string.";
    case MATCH_SPECIFIED:
        return slice_is_null(c->match) ? NULL
                                       : "Request specified MATCH_TYPE_SPECIFIED, but also specified a match string.";
    default: return arena_printf(r->arena, "Unknown match type %d", c->match_type);
    }
}

static const char *wrong_filter(struct request *r, const describe_request *q, enum kafka_error *ret_error)
{
    bool ip = false;
    for (int32_t i = 0; i < q->components_count; i++) {
        const char *why = wrong_component(r, q, i, ret_error);
        if (why != NULL)
            return why;
        ip = ip || slice_eq_str(q->components[i].entity_type, "ip");
    }
    if (!ip || q->components_count == 1)
        return NULL;
    *ret_error = KERR_INVALID_REQUEST;
    return "Invalid entity filter component combination. IP filter component should not be used with user or clientId "
           "filter component.";
}

static const part *part_of(const quota *m, struct slice type)
{
    for (int32_t i = 0; i < m->entity_count; i++)
        if (slice_eq(m->entity[i].entity_type, type))
            return &m->entity[i];
    return NULL;
}

static bool fits(const describe_request *q, const quota *m)
{
    if (q->strict && m->entity_count != q->components_count)
        return false;
    for (int32_t i = 0; i < q->components_count; i++) {
        const component *c = &q->components[i];
        const part *p = part_of(m, c->entity_type);
        if (p == NULL || (c->match_type == MATCH_DEFAULT && !slice_is_null(p->entity_name)) ||
            (c->match_type == MATCH_EXACT && (slice_is_null(p->entity_name) || !slice_eq(p->entity_name, c->match))))
            return false;
    }
    return true;
}

/* ---- the answer ---- */

static void collect(void *ctx, const quota *m)
{
    struct quotas *all = ctx;
    if (!fits(all->r->body, m))
        return;
    all->all = arena_grow(all->r->arena, all->all, (size_t)all->count, &all->room, sizeof *all->all);
    all->all[all->count++] = m;
}

static int compare_entities(const quota *x, const quota *y)
{
    for (int32_t i = 0; i < x->entity_count && i < y->entity_count; i++) {
        const part *a = &x->entity[i], *b = &y->entity[i];
        int order = slice_cmp(a->entity_type, b->entity_type);
        if (order == 0)
            order = slice_is_null(b->entity_name) - slice_is_null(a->entity_name); /* defaults first */
        if (order == 0 && !slice_is_null(a->entity_name))
            order = slice_cmp(a->entity_name, b->entity_name);
        if (order != 0)
            return order;
    }
    return x->entity_count - y->entity_count;
}

static int by_entity_and_key(const void *a, const void *b)
{
    const quota *x = *(const quota *const *)a, *y = *(const quota *const *)b;
    int order = compare_entities(x, y);
    return order != 0 ? order : slice_cmp(x->key, y->key);
}

static void add_entry(struct quotas *all, int32_t first, int32_t end, entry *to)
{
    const quota *m = all->all[first];
    kafka_describe_client_quotas_response_entry_data_init(to);
    to->entity = arena_calloc(all->r->arena, (size_t)m->entity_count + 1, sizeof *to->entity);
    to->entity_count = m->entity_count;
    for (int32_t i = 0; i < m->entity_count; i++)
        to->entity[i] = (struct kafka_describe_client_quotas_response_entity_data){m->entity[i].entity_type,
                                                                                   m->entity[i].entity_name};
    to->values = arena_calloc(all->r->arena, (size_t)(end - first), sizeof *to->values);
    to->values_count = end - first;
    for (int32_t i = first; i < end; i++)
        to->values[i - first] =
            (struct kafka_describe_client_quotas_response_value_data){all->all[i]->key, all->all[i]->value};
}

static void handle(struct request *r)
{
    struct quotas all = {.r = r};
    describe_response response;
    enum kafka_error error;
    const char *why = wrong_filter(r, r->body, &error);
    if (why != NULL) {
        fail(r, error, why);
        return;
    }
    image_each_client_quota(r->image, r->arena, collect, &all);
    if (all.count > 0)
        qsort(all.all, (size_t)all.count, sizeof *all.all, by_entity_and_key);
    kafka_describe_client_quotas_response_init(&response);
    response.error_message = SLICE_EMPTY; /* as Kafka has it */
    response.entries = arena_calloc(r->arena, (size_t)all.count + 1, sizeof *response.entries);
    response.entries_count = 0;
    for (int32_t first = 0, end; first < all.count; first = end) {
        for (end = first + 1; end < all.count && compare_entities(all.all[first], all.all[end]) == 0;)
            end++;
        add_entry(&all, first, end, &response.entries[response.entries_count++]);
    }
    request_reply(r, &response);
}

const struct api_handler api_describe_client_quotas = {
    .key = KAFKA_API_DESCRIBE_CLIENT_QUOTAS, .version_min = 0, .version_max = 1, .handle = handle, .fail = fail};
