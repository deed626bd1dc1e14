/* create_partitions.c - CreatePartitions (37). */
#include "kafka/create_partitions.h"

#include "libs/controller/internal.h"

typedef struct kafka_create_partitions_request_create_partitions_topic topic_request;

struct growing {
    struct controller *c;
    struct arena *arena;
    int64_t added; /* over the whole request */
};

static enum kafka_error place_assigned(struct growing *k, const topic_request *q, const struct image_topic *t,
                                       int32_t replicas, const char **ret_message)
{
    int32_t more = q->count - t->partition_count;
    if (q->assignments_count != more) {
        *ret_message = arena_printf(
            k->arena, "Attempted to add %d additional partition(s), but only %d assignment(s) were specified.", more,
            q->assignments_count);
        return KERR_INVALID_REPLICA_ASSIGNMENT;
    }
    for (int32_t i = 0; i < more; i++) {
        const int32_t *brokers = q->assignments[i].broker_ids;
        int32_t count = q->assignments[i].broker_ids_count;
        enum kafka_error error = controller_check_assignment(k->c, brokers, count, replicas, k->arena, ret_message);
        if (error == KERR_NONE)
            error = controller_place_at(k->c, t->id, t->partition_count + i, brokers, count, k->arena, ret_message);
        if (error != KERR_NONE)
            return error;
    }
    return KERR_NONE;
}

static enum kafka_error grow(struct growing *k, const topic_request *q, const char **ret_message)
{
    const struct image_topic *t = image_topic_by_name(k->c->image, q->name);
    if (t == NULL)
        return KERR_UNKNOWN_TOPIC_OR_PARTITION;
    if (q->count == t->partition_count) {
        *ret_message = arena_printf(k->arena, "Topic already has %d partition(s).", t->partition_count);
        return KERR_INVALID_PARTITIONS;
    }
    if (q->count < t->partition_count) {
        *ret_message =
            arena_printf(k->arena, "The topic " SLICE_F " currently has %d partition(s); %d would not be an increase.",
                         SLICE_A(t->name), t->partition_count, q->count);
        return KERR_INVALID_PARTITIONS;
    }
    k->added += q->count - t->partition_count;
    if (k->added > RECORDS_PER_REQUEST_MAX) {
        *ret_message = "Excessively large number of partitions per request.";
        return KERR_POLICY_VIOLATION;
    }
    int32_t replicas = image_partition(t, 0)->replica_count;
    if (q->assignments_count >= 0)
        return place_assigned(k, q, t, replicas, ret_message);
    return controller_place(k->c, t->id, t->partition_count, q->count - t->partition_count, replicas, k->arena,
                            ret_message);
}

static void answer(struct kafka_create_partitions_response *p, struct slice name, enum kafka_error error,
                   const char *message)
{
    struct kafka_create_partitions_response_create_partitions_topic_result *r = &p->results[p->results_count++];
    wire_init(&kafka_create_partitions_response_create_partitions_topic_result_type, r);
    r->name = name;
    r->error_code = (int16_t)error;
    r->error_message = slice_str(message);
}

void controller_create_partitions(struct controller *c, const struct kafka_create_partitions_request *q,
                                  struct arena *arena, struct kafka_create_partitions_response *ret_p)
{
    struct growing k = {.c = c, .arena = arena};
    struct name_set names;
    bool coordinated = false;
    kafka_create_partitions_response_init(ret_p);
    ret_p->results = arena_calloc(arena, (size_t)q->topics_count + 1, sizeof *ret_p->results);
    ret_p->results_count = 0;
    name_set_init(&names, arena, (size_t)q->topics_count);
    for (int32_t i = 0; i < q->topics_count; i++) {
        name_set_add(&names, q->topics[i].name, i);
        coordinated = coordinated || controller_is_coordinated(q->topics[i].name);
    }
    name_set_seal(&names);
    for (int32_t i = 0; i < q->topics_count; i++) {
        const char *message = NULL;
        struct controller_mark mark = controller_mark(c);
        int32_t first = i;
        if (name_set_find(&names, q->topics[i].name, &first) > 1) {
            if (first == i)
                answer(ret_p, q->topics[i].name, KERR_INVALID_REQUEST, "Duplicate topic name.");
            continue;
        }
        enum kafka_error error = grow(&k, &q->topics[i], &message);
        if (error != KERR_NONE || q->validate_only)
            controller_rewind(c, mark);
        answer(ret_p, q->topics[i].name, error, message);
    }
    if (coordinated && c->record_count > 0)
        controller_assign_owners_ahead(c);
}
