/* api_list_groups.c - ListGroups (16), versions 0-5: every owner of a partition of __consumer_offsets is asked, filters
 * are its to apply. As clients ask every broker and put the answers together, a connection that stands for a broker
 * lists the groups whose coordinator that broker is. */
#include "kafka/apis.h"
#include "kafka/list_groups.h"
#include "services/frontend/api_common.h"

typedef struct kafka_list_groups_response list_response;
typedef struct kafka_list_groups_response_listed_group group_row;

/* Grows by doubling in the arena. */
struct list {
    list_response response;
    int32_t capacity;
};

static void fail(struct request *r, enum kafka_error error, const char *message)
{
    (void)message; /* the response has no room for one */
    list_response response;
    kafka_list_groups_response_init(&response);
    response.error_code = (int16_t)error;
    request_reply(r, &response);
}

static const void *build(struct request *r, void *ctx, const struct api_part *parts, size_t count)
{
    (void)ctx, (void)parts, (void)count;
    return r->body;
}

static bool is_coordinated_here(const struct request *r, struct slice group_id)
{
    const struct image_topic *t = image_topic_by_name(r->image, SLICE_OF(TOPIC_OFFSETS));
    int32_t leader = -1;
    if (r->client.broker_id < 0 || t == NULL || t->partition_count == 0)
        return true;
    (void)api_partition_leader(r->image, t->name, slice_coordinator_partition(group_id, t->partition_count), &leader);
    return leader == r->client.broker_id;
}

static void add_group(struct request *r, struct list *l, const group_row *row)
{
    list_response *all = &l->response;
    all->groups = arena_grow(r->arena, all->groups, (size_t)all->groups_count, &l->capacity, sizeof *all->groups);
    all->groups[all->groups_count++] = *row;
}

static void take(struct request *r, void *ctx, const struct api_part *parts, size_t count, enum kafka_error error,
                 void *body)
{
    (void)parts, (void)count;
    struct list *l = ctx;
    const list_response *got = body;
    if (error != KERR_NONE || got->error_code != KERR_NONE) {
        l->response.error_code = error == KERR_NONE ? got->error_code : (int16_t)api_group_call_error(error);
        return;
    }
    for (int32_t i = 0; i < got->groups_count; i++)
        if (is_coordinated_here(r, got->groups[i].group_id))
            add_group(r, l, &got->groups[i]);
}

static void finish(struct request *r, void *ctx)
{
    struct list *l = ctx;
    if (l->response.error_code != KERR_NONE)
        fail(r, (enum kafka_error)l->response.error_code, NULL);
    else
        request_reply(r, &l->response);
}

static void handle(struct request *r)
{
    static const struct api_scatter_ops ops = {KAFKA_API_LIST_GROUPS, build, take, finish};
    const struct image_topic *t = image_topic_by_name(r->image, SLICE_OF(TOPIC_OFFSETS));
    int32_t partitions = t ? t->partition_count : 0;
    struct list *l = arena_calloc(r->arena, 1, sizeof *l);
    kafka_list_groups_response_init(&l->response);
    struct api_scatter *s = api_scatter_new(r, &ops, l, (size_t)partitions);
    for (int32_t p = 0; p < partitions; p++) {
        const struct image_owner *o = image_owner(r->image, t->id, p);
        if (o == NULL || o->id < 0) {
            fail(r, KERR_COORDINATOR_NOT_AVAILABLE, NULL);
            return;
        }
        api_scatter_add(s, KARST__BUS__ROLE__ROLE_GROUP, o->id, (struct api_part){p, 0});
    }
    api_scatter_send(s, r->version, REQUEST_TIMEOUT_MS);
}

const struct api_handler api_list_groups = {
    .key = KAFKA_API_LIST_GROUPS, .version_min = 0, .version_max = 5, .handle = handle, .fail = fail};
