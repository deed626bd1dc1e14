/* api_offset_delete.c - OffsetDelete (47), version 0. Partitions that the image does not know are answered here; the
 * others go to the owner of the group, whose error for the whole, if any, is the whole answer. */
#include "kafka/apis.h"
#include "kafka/offset_delete.h"
#include "services/frontend/api_common.h"

typedef struct kafka_offset_delete_request delete_request;
typedef struct kafka_offset_delete_request_offset_delete_request_topic topic_q;
typedef struct kafka_offset_delete_response delete_response;
typedef struct kafka_offset_delete_response_offset_delete_response_topic topic_row;
typedef struct kafka_offset_delete_response_offset_delete_response_partition partition_row;

struct removal {
    delete_request message;
    delete_response response;
};

static void fail(struct request *r, enum kafka_error error, const char *message)
{
    (void)message; /* the response has no room for one */
    delete_response response;
    kafka_offset_delete_response_init(&response);
    response.error_code = (int16_t)error;
    request_reply(r, &response);
}

/* The known partitions of a topic go into the message; the others have their row at once. */
static void sort_topic(struct request *r, const topic_q *q, topic_row *row, delete_request *message)
{
    const struct image_topic *t = image_topic_by_name(r->image, q->name);
    topic_q *to = &message->topics[message->topics_count];
    row->name = to->name = q->name;
    row->partitions = arena_calloc(r->arena, (size_t)q->partitions_count, sizeof *row->partitions);
    to->partitions = arena_calloc(r->arena, (size_t)q->partitions_count, sizeof *to->partitions);
    to->partitions_count = 0;
    for (int32_t p = 0; p < q->partitions_count; p++) {
        int32_t partition = q->partitions[p].partition_index;
        if (t && image_partition(t, partition))
            to->partitions[to->partitions_count++] = q->partitions[p];
        else
            row->partitions[row->partitions_count++] = (partition_row){partition, KERR_UNKNOWN_TOPIC_OR_PARTITION};
    }
    if (to->partitions_count)
        message->topics_count++;
}

static void done(struct request *r, void *ctx, enum kafka_error error, void *body)
{
    struct removal *m = ctx;
    delete_response *got = body;
    if (error != KERR_NONE || got->error_code != KERR_NONE) {
        fail(r, error != KERR_NONE ? api_group_call_error(error) : (enum kafka_error)got->error_code, NULL);
        return;
    }
    for (int32_t t = 0; t < m->response.topics_count; t++) {
        topic_row *row = &m->response.topics[t];
        for (int32_t i = 0; i < got->topics_count; i++) {
            const topic_row *from = &got->topics[i];
            if (!slice_eq(from->name, row->name))
                continue;
            partition_row *both =
                arena_calloc(r->arena, (size_t)(row->partitions_count + from->partitions_count), sizeof *both);
            if (row->partitions_count)
                memcpy(both, row->partitions, (size_t)row->partitions_count * sizeof *both);
            if (from->partitions_count)
                memcpy(both + row->partitions_count, from->partitions, (size_t)from->partitions_count * sizeof *both);
            row->partitions = both;
            row->partitions_count += from->partitions_count;
            break;
        }
    }
    request_reply(r, &m->response);
}

static void handle(struct request *r)
{
    const delete_request *q = r->body;
    struct removal *m = arena_calloc(r->arena, 1, sizeof *m);
    m->message = *q;
    m->message.topics = arena_calloc(r->arena, (size_t)q->topics_count, sizeof *m->message.topics);
    m->message.topics_count = 0;
    kafka_offset_delete_response_init(&m->response);
    m->response.topics = arena_calloc(r->arena, (size_t)q->topics_count, sizeof *m->response.topics);
    m->response.topics_count = q->topics_count;
    for (int32_t t = 0; t < q->topics_count; t++)
        sort_topic(r, &q->topics[t], &m->response.topics[t], &m->message);
    int32_t service = -1;
    enum kafka_error error = api_group_owner(r->image, q->group_id, &service);
    if (m->message.topics_count == 0)
        request_reply(r, &m->response);
    else if (error != KERR_NONE)
        fail(r, error, NULL);
    else
        request_call(r, KARST__BUS__ROLE__ROLE_GROUP, service, KAFKA_API_OFFSET_DELETE, r->version, &m->message,
                     REQUEST_TIMEOUT_MS, done, m);
}

const struct api_handler api_offset_delete = {
    .key = KAFKA_API_OFFSET_DELETE, .version_min = 0, .version_max = 0, .handle = handle, .fail = fail};
