/* api_list_partition_reassignments.c - ListPartitionReassignments (46), version 0: what the image says is being moved
 * from node to node. */
#include "kafka/apis.h"
#include "kafka/list_partition_reassignments.h"
#include "services/frontend/api_common.h"

typedef struct kafka_list_partition_reassignments_request list_request;
typedef struct kafka_list_partition_reassignments_response list_response;
typedef struct kafka_list_partition_reassignments_response_ongoing_topic_reassignment topic_row;
typedef struct kafka_list_partition_reassignments_response_ongoing_partition_reassignment partition_row;

static void fail(struct request *r, enum kafka_error error, const char *message)
{
    list_response response;
    kafka_list_partition_reassignments_response_init(&response);
    response.error_code = (int16_t)error;
    response.error_message = api_text(message);
    request_reply(r, &response);
}

static void add_partition(topic_row *row, const struct image_partition *p)
{
    if (p == NULL || (p->adding_count == 0 && p->removing_count == 0))
        return;
    partition_row *to = &row->partitions[row->partitions_count++];
    kafka_list_partition_reassignments_response_ongoing_partition_reassignment_init(to);
    to->partition_index = p->partition;
    to->replicas = (int32_t *)(uintptr_t)p->replicas;
    to->replicas_count = p->replica_count;
    to->adding_replicas = (int32_t *)(uintptr_t)p->adding;
    to->adding_replicas_count = p->adding_count;
    to->removing_replicas = (int32_t *)(uintptr_t)p->removing;
    to->removing_replicas_count = p->removing_count;
}

/* Those of a topic that are asked for; indexes NULL: all. A topic with none is left out. */
static void add_topic(struct request *r, list_response *response, const struct image_topic *t, const int32_t *indexes,
                      int32_t count)
{
    if (t == NULL)
        return;
    topic_row *row = &response->topics[response->topics_count];
    kafka_list_partition_reassignments_response_ongoing_topic_reassignment_init(row);
    row->name = t->name;
    row->partitions = arena_calloc(r->arena, (size_t)count + 1, sizeof *row->partitions);
    for (int32_t i = 0; i < count; i++)
        add_partition(row, image_partition(t, indexes != NULL ? indexes[i] : i));
    if (row->partitions_count > 0)
        response->topics_count++;
}

static void handle(struct request *r)
{
    const list_request *q = r->body;
    list_response response;
    int32_t count = 0;
    kafka_list_partition_reassignments_response_init(&response);
    response.error_message = SLICE_NULL;
    const struct image_topic *const *all = q->topics_count < 0 ? image_topics(r->image, &count) : NULL;
    response.topics = arena_calloc(r->arena, (size_t)MAX(count, q->topics_count) + 1, sizeof *response.topics);
    for (int32_t i = 0; i < count; i++)
        add_topic(r, &response, all[i], NULL, all[i]->partition_count);
    for (int32_t i = 0; i < q->topics_count; i++)
        add_topic(r, &response, image_topic_by_name(r->image, q->topics[i].name), q->topics[i].partition_indexes,
                  q->topics[i].partition_indexes_count);
    request_reply(r, &response);
}

const struct api_handler api_list_partition_reassignments = {.key = KAFKA_API_LIST_PARTITION_REASSIGNMENTS,
                                                             .version_min = 0,
                                                             .version_max = 0,
                                                             .at_controllers = true,
                                                             .handle = handle,
                                                             .fail = fail};
