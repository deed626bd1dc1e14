/* api_delete_groups.c - DeleteGroups (42), versions 0-2: each group at the service that owns it. A group that is named
 * twice is answered once. */
#include "kafka/apis.h"
#include "kafka/delete_groups.h"
#include "services/frontend/api_common.h"
#include <stdlib.h>

typedef struct kafka_delete_groups_request delete_request;
typedef struct kafka_delete_groups_response delete_response;
typedef struct kafka_delete_groups_response_deletable_group_result group_row;

static int compare_rows(const void *a, const void *b)
{
    return slice_cmp(((const group_row *)a)->group_id, ((const group_row *)b)->group_id);
}

/* A row for each group, sorted. */
static void init_rows(struct request *r, const delete_request *q, delete_response *response, enum kafka_error error)
{
    kafka_delete_groups_response_init(response);
    group_row *rows = arena_calloc(r->arena, (size_t)q->groups_names_count, sizeof *rows);
    for (int32_t i = 0; i < q->groups_names_count; i++)
        rows[i] = (group_row){.group_id = q->groups_names[i], .error_code = (int16_t)error};
    qsort(rows, (size_t)q->groups_names_count, sizeof *rows, compare_rows);
    int32_t count = 0;
    for (int32_t i = 0; i < q->groups_names_count; i++)
        if (count == 0 || !slice_eq(rows[count - 1].group_id, rows[i].group_id))
            rows[count++] = rows[i];
    response->results = rows;
    response->results_count = count;
}

static void fail(struct request *r, enum kafka_error error, const char *message)
{
    (void)message; /* the response has no room for one */
    delete_response response;
    init_rows(r, r->body, &response, error);
    request_reply(r, &response);
}

static const void *build(struct request *r, void *ctx, const struct api_part *parts, size_t count)
{
    const delete_response *all = ctx;
    delete_request *m = arena_alloc(r->arena, sizeof *m);
    kafka_delete_groups_request_init(m);
    m->groups_names = arena_calloc(r->arena, count, sizeof *m->groups_names);
    m->groups_names_count = (int32_t)count;
    for (size_t i = 0; i < count; i++)
        m->groups_names[i] = all->results[parts[i].a].group_id;
    return m;
}

static const group_row *find(const delete_response *response, struct slice group_id, size_t pos)
{
    if (pos < (size_t)response->results_count && slice_eq(response->results[pos].group_id, group_id))
        return &response->results[pos];
    for (int32_t i = 0; i < response->results_count; i++)
        if (slice_eq(response->results[i].group_id, group_id))
            return &response->results[i];
    return NULL;
}

static void take(struct request *r, void *ctx, const struct api_part *parts, size_t count, enum kafka_error error,
                 void *response)
{
    (void)r;
    delete_response *all = ctx;
    for (size_t i = 0; i < count; i++) {
        group_row *row = &all->results[parts[i].a];
        const group_row *got = error == KERR_NONE ? find(response, row->group_id, i) : NULL;
        row->error_code = got ? got->error_code : (int16_t)api_group_call_error(error);
    }
}

static void finish(struct request *r, void *ctx)
{
    request_reply(r, ctx);
}

static void handle(struct request *r)
{
    static const struct api_scatter_ops ops = {KAFKA_API_DELETE_GROUPS, build, take, finish};
    delete_response *response = arena_alloc(r->arena, sizeof *response);
    init_rows(r, r->body, response, KERR_NONE);
    struct api_scatter *s = api_scatter_new(r, &ops, response, (size_t)response->results_count);
    for (int32_t i = 0; i < response->results_count; i++) {
        group_row *row = &response->results[i];
        int32_t service = -1;
        row->error_code = (int16_t)api_group_owner(r->image, row->group_id, &service);
        if (row->error_code == KERR_NONE)
            api_scatter_add(s, KARST__BUS__ROLE__ROLE_GROUP, service, (struct api_part){i, 0});
    }
    api_scatter_send(s, r->version, REQUEST_TIMEOUT_MS);
}

const struct api_handler api_delete_groups = {
    .key = KAFKA_API_DELETE_GROUPS, .version_min = 0, .version_max = 2, .handle = handle, .fail = fail};
