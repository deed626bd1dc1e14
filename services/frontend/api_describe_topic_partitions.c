/* api_describe_topic_partitions.c - DescribeTopicPartitions (75), version 0 (KIP-966): topics in the order of their
 * names, a limited number of partitions an answer, and a cursor that says where the next one goes on.
 *
 * Answered from the image alone. Memory: the partitions of the answer, at most max.request.partition.size.limit. */
#include "kafka/apis.h"
#include "kafka/describe_topic_partitions.h"
#include "libs/config/config.h"
#include "services/frontend/api_common.h"
#include <stdlib.h>

typedef struct kafka_describe_topic_partitions_response_describe_topic_partitions_response_topic topic_row;
typedef struct kafka_describe_topic_partitions_response_describe_topic_partitions_response_partition partition_row;

struct answer {
    struct request *r;
    struct kafka_describe_topic_partitions_response response;
    int32_t rows_max;
    int32_t remaining; /* partitions that still fit */
};

static void fail(struct request *r, enum kafka_error error, const char *message)
{
    (void)message; /* the response has no room for one */
    const struct kafka_describe_topic_partitions_request *q = r->body;
    struct kafka_describe_topic_partitions_response response;
    kafka_describe_topic_partitions_response_init(&response);
    response.topics = arena_calloc(r->arena, (size_t)q->topics_count, sizeof *response.topics);
    response.topics_count = q->topics_count;
    for (int32_t i = 0; i < q->topics_count; i++) {
        kafka_describe_topic_partitions_response_describe_topic_partitions_response_topic_init(&response.topics[i]);
        response.topics[i].error_code = (int16_t)error;
        response.topics[i].name = q->topics[i].name;
    }
    request_reply(r, &response);
}

static int32_t *copy_ids(struct request *r, const int32_t *ids, int32_t count)
{
    int32_t *copy = arena_calloc(r->arena, (size_t)count, sizeof *copy);
    if (count)
        memcpy(copy, ids, (size_t)count * sizeof *copy);
    return copy;
}

static void fill_partition(struct request *r, const struct image_partition *p, partition_row *row)
{
    kafka_describe_topic_partitions_response_describe_topic_partitions_response_partition_init(row);
    row->partition_index = p->partition;
    row->leader_id = p->leader >= 0 && image_broker_is_active(r->image, p->leader) ? p->leader : -1;
    row->leader_epoch = p->leader_epoch;
    row->replica_nodes = copy_ids(r, p->replicas, row->replica_nodes_count = p->replica_count);
    row->isr_nodes = copy_ids(r, p->isr, row->isr_nodes_count = p->isr_count);
    row->eligible_leader_replicas = copy_ids(r, p->elr, row->eligible_leader_replicas_count = p->elr_count);
    row->last_known_elr = copy_ids(r, p->last_known_elr, row->last_known_elr_count = p->last_known_elr_count);
    row->offline_replicas = arena_calloc(r->arena, (size_t)p->replica_count, sizeof *row->offline_replicas);
    for (int32_t i = 0; i < p->replica_count; i++) {
        const struct image_broker *b = image_broker(r->image, p->replicas[i]);
        if (b == NULL || b->fenced || !image_dir_is_online(b, p->directories[i]))
            row->offline_replicas[row->offline_replicas_count++] = p->replicas[i];
    }
}

static void set_cursor(struct answer *a, struct slice topic, int32_t partition)
{
    struct kafka_describe_topic_partitions_response_cursor *c = arena_alloc(a->r->arena, sizeof *c);
    c->topic_name = topic;
    c->partition_index = partition;
    a->response.next_cursor = c;
}

/* One topic by its name, from partition first on. False when the answer is full. */
static bool add_topic(struct answer *a, struct slice name, int32_t first)
{
    if (a->remaining <= 0 || a->response.topics_count == a->rows_max) {
        set_cursor(a, name, 0);
        return false;
    }
    struct request *r = a->r;
    topic_row *row = &a->response.topics[a->response.topics_count++];
    kafka_describe_topic_partitions_response_describe_topic_partitions_response_topic_init(row);
    row->name = name;
    row->topic_authorized_operations = API_OPERATIONS_TOPIC;
    const struct image_topic *t = image_topic_by_name(r->image, name);
    if (t == NULL) {
        row->error_code =
            api_topic_name_problem(r, name) ? KERR_INVALID_TOPIC_EXCEPTION : KERR_UNKNOWN_TOPIC_OR_PARTITION;
        return true;
    }
    row->topic_id = t->id;
    row->is_internal = api_topic_is_internal(name);
    int32_t count = first < t->partition_count ? MIN(t->partition_count - first, a->remaining) : 0;
    row->partitions = arena_calloc(r->arena, (size_t)count, sizeof *row->partitions);
    row->partitions_count = count;
    for (int32_t i = 0; i < count; i++)
        fill_partition(r, image_partition(t, first + i), &row->partitions[i]);
    a->remaining -= count;
    if (count > 0 && first + count < t->partition_count) {
        set_cursor(a, name, first + count);
        return false;
    }
    return true;
}

static int compare_names(const void *a, const void *b)
{
    return slice_cmp(*(const struct slice *)a, *(const struct slice *)b);
}

/* The asked names, sorted, each once. */
static int32_t sorted_names(struct request *r, const struct kafka_describe_topic_partitions_request *q,
                            struct slice **ret_names)
{
    struct slice *names = arena_calloc(r->arena, (size_t)q->topics_count, sizeof *names);
    for (int32_t i = 0; i < q->topics_count; i++)
        names[i] = q->topics[i].name;
    qsort(names, (size_t)q->topics_count, sizeof *names, compare_names);
    int32_t count = 0;
    for (int32_t i = 0; i < q->topics_count; i++)
        if (count == 0 || !slice_eq(names[count - 1], names[i]))
            names[count++] = names[i];
    *ret_names = names;
    return count;
}

static bool has_name(const struct slice *names, int32_t count, struct slice name)
{
    return count > 0 && bsearch(&name, names, (size_t)count, sizeof *names, compare_names) != NULL;
}

/* Where a topic starts: at the cursor's partition when it is the cursor's topic. */
static int32_t first_partition(const struct kafka_describe_topic_partitions_request *q, struct slice name)
{
    return q->cursor && slice_eq(q->cursor->topic_name, name) ? q->cursor->partition_index : 0;
}

static void add_asked(struct answer *a, const struct kafka_describe_topic_partitions_request *q,
                      const struct slice *names, int32_t count)
{
    for (int32_t i = 0; i < count; i++)
        if (q->cursor == NULL || slice_cmp(names[i], q->cursor->topic_name) >= 0)
            if (!add_topic(a, names[i], first_partition(q, names[i])))
                return;
}

static void add_all(struct answer *a, const struct kafka_describe_topic_partitions_request *q)
{
    int32_t count;
    const struct image_topic *const *topics = image_topics(a->r->image, &count);
    int32_t from = q->cursor ? image_topics_from(a->r->image, q->cursor->topic_name) : 0;
    for (int32_t i = from; i < count; i++)
        if (!add_topic(a, topics[i]->name, first_partition(q, topics[i]->name)))
            return;
}

static void handle(struct request *r)
{
    const struct kafka_describe_topic_partitions_request *q = r->body;
    struct slice *names;
    int32_t name_count = sorted_names(r, q, &names);
    bool all = name_count == 0;
    if (q->cursor &&
        (q->cursor->partition_index < 0 || (!all && !has_name(names, name_count, q->cursor->topic_name)))) {
        fail(r, KERR_INVALID_REQUEST, NULL);
        return;
    }
    struct answer a = {.r = r};
    kafka_describe_topic_partitions_response_init(&a.response);
    int32_t limit = config_int(frontend_config(r->frontend), "max.request.partition.size.limit");
    a.remaining = MAX(MIN(limit, q->response_partition_limit), 1);
    /* A topic has a partition at least, so that all topics need no more rows than partitions fit. */
    a.rows_max = all ? MIN(a.remaining + 1, image_topic_count(r->image)) : name_count;
    a.response.topics = arena_calloc(r->arena, (size_t)a.rows_max, sizeof *a.response.topics);
    if (all)
        add_all(&a, q);
    else
        add_asked(&a, q, names, name_count);
    request_reply(r, &a.response);
}

const struct api_handler api_describe_topic_partitions = {
    .key = KAFKA_API_DESCRIBE_TOPIC_PARTITIONS, .version_min = 0, .version_max = 0, .handle = handle, .fail = fail};
