/* api_offset_commit.c - OffsetCommit (8), versions 2-10. Partitions that the image does not know are answered here (3;
 * from version 10 on, where topics come by id, 100 for an unknown id); the others go to the owner of the group with
 * both name and id. */
#include "kafka/apis.h"
#include "kafka/offset_commit.h"
#include "services/frontend/api_common.h"

typedef struct kafka_offset_commit_request commit_request;
typedef struct kafka_offset_commit_request_offset_commit_request_topic topic_q;
typedef struct kafka_offset_commit_response commit_response;
typedef struct kafka_offset_commit_response_offset_commit_response_topic topic_row;
typedef struct kafka_offset_commit_response_offset_commit_response_partition partition_row;

enum { WITH_IDS = 10, ASKED = INT16_MIN }; /* ASKED: an error code that is to come from the owner */

struct commit {
    commit_request message;
    commit_response response;
};

static void init_rows(struct request *r, const commit_request *q, commit_response *response, enum kafka_error error)
{
    kafka_offset_commit_response_init(response);
    response->topics = arena_calloc(r->arena, (size_t)q->topics_count, sizeof *response->topics);
    response->topics_count = q->topics_count;
    for (int32_t t = 0; t < q->topics_count; t++) {
        topic_row *row = &response->topics[t];
        row->name = q->topics[t].name;
        row->topic_id = q->topics[t].topic_id;
        row->partitions_count = q->topics[t].partitions_count;
        row->partitions = arena_calloc(r->arena, (size_t)row->partitions_count, sizeof *row->partitions);
        for (int32_t p = 0; p < row->partitions_count; p++)
            row->partitions[p] = (partition_row){q->topics[t].partitions[p].partition_index, (int16_t)error};
    }
}

static void fail(struct request *r, enum kafka_error error, const char *message)
{
    (void)message; /* the response has no room for one */
    commit_response response;
    init_rows(r, r->body, &response, error);
    request_reply(r, &response);
}

/* The known partitions of a topic go into the message, the others get their error. */
static void sort_topic(struct request *r, const topic_q *q, topic_row *row, commit_request *message)
{
    const struct image_topic *t =
        r->version >= WITH_IDS ? image_topic_by_id(r->image, q->topic_id) : image_topic_by_name(r->image, q->name);
    topic_q *to = &message->topics[message->topics_count];
    *to = *q;
    to->partitions = arena_calloc(r->arena, (size_t)q->partitions_count, sizeof *to->partitions);
    to->partitions_count = 0;
    for (int32_t p = 0; p < q->partitions_count; p++) {
        if (t == NULL)
            row->partitions[p].error_code =
                r->version >= WITH_IDS ? KERR_UNKNOWN_TOPIC_ID : KERR_UNKNOWN_TOPIC_OR_PARTITION;
        else if (image_partition(t, q->partitions[p].partition_index) == NULL)
            row->partitions[p].error_code = KERR_UNKNOWN_TOPIC_OR_PARTITION;
        else {
            row->partitions[p].error_code = ASKED;
            to->partitions[to->partitions_count++] = q->partitions[p];
        }
    }
    if (to->partitions_count == 0)
        return;
    to->name = t->name;
    to->topic_id = t->id;
    message->topics_count++;
}

static bool is_topic(const topic_row *row, const topic_q *q)
{
    return row->name.size ? slice_eq(row->name, q->name) : uuid_eq(row->topic_id, q->topic_id);
}

/* The asked rows of a topic take what the owner says of them, in their order; what it leaves out was not committed. */
static void take_topic(const commit_request *message, const commit_response *got, const topic_q *q, topic_row *row,
                       int32_t sent)
{
    const topic_row *from = NULL;
    if (got && sent < got->topics_count && is_topic(&got->topics[sent], &message->topics[sent]))
        from = &got->topics[sent];
    for (int32_t i = 0; got && i < got->topics_count && from == NULL; i++)
        if (is_topic(&got->topics[i], &message->topics[sent]))
            from = &got->topics[i];
    for (int32_t p = 0, next = 0; p < row->partitions_count; p++) {
        if (row->partitions[p].error_code != ASKED)
            continue;
        int32_t partition = q->partitions[p].partition_index;
        row->partitions[p].error_code = KERR_UNKNOWN_SERVER_ERROR;
        if (from && next < from->partitions_count && from->partitions[next].partition_index == partition)
            row->partitions[p].error_code = from->partitions[next].error_code;
        else
            for (int32_t i = 0; from && i < from->partitions_count; i++)
                if (from->partitions[i].partition_index == partition)
                    row->partitions[p].error_code = from->partitions[i].error_code;
        next++;
    }
}

static void done(struct request *r, void *ctx, enum kafka_error error, void *response)
{
    const commit_request *q = r->body;
    struct commit *c = ctx;
    int32_t sent = 0;
    for (int32_t t = 0; t < q->topics_count; t++) {
        topic_row *row = &c->response.topics[t];
        bool asked = false;
        for (int32_t p = 0; p < row->partitions_count; p++) {
            asked = asked || row->partitions[p].error_code == ASKED;
            if (error != KERR_NONE && row->partitions[p].error_code == ASKED)
                row->partitions[p].error_code = (int16_t)api_group_call_error(error);
        }
        if (asked && error == KERR_NONE)
            take_topic(&c->message, response, &q->topics[t], row, sent++);
    }
    request_reply(r, &c->response);
}

static void handle(struct request *r)
{
    const commit_request *q = r->body;
    struct commit *c = arena_calloc(r->arena, 1, sizeof *c);
    c->message = *q;
    c->message.topics = arena_calloc(r->arena, (size_t)q->topics_count, sizeof *c->message.topics);
    c->message.topics_count = 0;
    init_rows(r, q, &c->response, KERR_NONE);
    for (int32_t t = 0; t < q->topics_count; t++)
        sort_topic(r, &q->topics[t], &c->response.topics[t], &c->message);
    if (c->message.topics_count == 0) {
        request_reply(r, &c->response);
        return;
    }
    int32_t service = -1;
    enum kafka_error error = api_group_owner(r->image, q->group_id, &service);
    if (error != KERR_NONE)
        fail(r, error, NULL);
    else
        request_call(r, KARST__BUS__ROLE__ROLE_GROUP, service, KAFKA_API_OFFSET_COMMIT, r->version, &c->message,
                     REQUEST_TIMEOUT_MS, done, c);
}

const struct api_handler api_offset_commit = {
    .key = KAFKA_API_OFFSET_COMMIT, .version_min = 2, .version_max = 10, .handle = handle, .fail = fail};
