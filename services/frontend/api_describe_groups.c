/* api_describe_groups.c - DescribeGroups (15), versions 0-6: each group from the service that owns it. Up to version 5
 * a group that is not there is no error but a group in state Dead. */
#include "kafka/apis.h"
#include "kafka/describe_groups.h"
#include "services/frontend/api_common.h"

typedef struct kafka_describe_groups_request describe_request;
typedef struct kafka_describe_groups_response describe_response;
typedef struct kafka_describe_groups_response_described_group group_row;

enum { WITH_NOT_FOUND = 6 };

static void init_row(group_row *row, struct slice group_id, enum kafka_error error)
{
    kafka_describe_groups_response_described_group_init(row);
    row->group_id = group_id;
    row->error_code = (int16_t)error;
}

static void init_rows(struct request *r, const describe_request *q, describe_response *response, enum kafka_error error)
{
    kafka_describe_groups_response_init(response);
    response->groups = arena_calloc(r->arena, (size_t)q->groups_count, sizeof *response->groups);
    response->groups_count = q->groups_count;
    for (int32_t i = 0; i < q->groups_count; i++)
        init_row(&response->groups[i], q->groups[i], error);
}

static void fail(struct request *r, enum kafka_error error, const char *message)
{
    (void)message;
    describe_response response;
    init_rows(r, r->body, &response, error);
    request_reply(r, &response);
}

static const void *build(struct request *r, void *ctx, const struct api_part *parts, size_t count)
{
    (void)ctx;
    const describe_request *q = r->body;
    describe_request *m = arena_alloc(r->arena, sizeof *m);
    *m = *q;
    m->groups = arena_calloc(r->arena, count, sizeof *m->groups);
    m->groups_count = (int32_t)count;
    for (size_t i = 0; i < count; i++)
        m->groups[i] = q->groups[parts[i].a];
    return m;
}

static const group_row *find(const describe_response *response, struct slice group_id, size_t pos)
{
    if (pos < (size_t)response->groups_count && slice_eq(response->groups[pos].group_id, group_id))
        return &response->groups[pos];
    for (int32_t i = 0; i < response->groups_count; i++)
        if (slice_eq(response->groups[i].group_id, group_id))
            return &response->groups[i];
    return NULL;
}

static void take(struct request *r, void *ctx, const struct api_part *parts, size_t count, enum kafka_error error,
                 void *response)
{
    const describe_request *q = r->body;
    describe_response *all = ctx;
    for (size_t i = 0; i < count; i++) {
        group_row *row = &all->groups[parts[i].a];
        const group_row *got = error == KERR_NONE ? find(response, q->groups[parts[i].a], i) : NULL;
        if (got)
            *row = *got;
        else
            row->error_code = (int16_t)api_group_call_error(error);
    }
}

static void finish(struct request *r, void *ctx)
{
    const describe_request *q = r->body;
    describe_response *response = ctx;
    for (int32_t i = 0; i < response->groups_count; i++) {
        group_row *row = &response->groups[i];
        if (r->version < WITH_NOT_FOUND) {
            if (row->error_code == KERR_GROUP_ID_NOT_FOUND)
                row->error_code = KERR_NONE;
            row->error_message = SLICE_NULL;
        }
        row->authorized_operations = q->include_authorized_operations && row->error_code == KERR_NONE
                                         ? API_OPERATIONS_GROUP
                                         : API_OPERATIONS_NOT_ASKED;
    }
    request_reply(r, response);
}

static void handle(struct request *r)
{
    static const struct api_scatter_ops ops = {KAFKA_API_DESCRIBE_GROUPS, build, take, finish};
    const describe_request *q = r->body;
    describe_response *response = arena_alloc(r->arena, sizeof *response);
    init_rows(r, q, response, KERR_NONE);
    struct api_scatter *s = api_scatter_new(r, &ops, response, (size_t)q->groups_count);
    for (int32_t i = 0; i < q->groups_count; i++) {
        int32_t service = -1;
        response->groups[i].error_code = (int16_t)api_group_owner(r->image, q->groups[i], &service);
        if (response->groups[i].error_code == KERR_NONE)
            api_scatter_add(s, KARST__BUS__ROLE__ROLE_GROUP, service, (struct api_part){i, 0});
    }
    api_scatter_send(s, r->version, REQUEST_TIMEOUT_MS);
}

const struct api_handler api_describe_groups = {
    .key = KAFKA_API_DESCRIBE_GROUPS, .version_min = 0, .version_max = 6, .handle = handle, .fail = fail};
