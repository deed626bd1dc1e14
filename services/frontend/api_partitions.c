#include "services/frontend/api_partitions.h"

struct scatter_ctx {
    const struct api_layout *layout;
    void *response;
    void (*finish)(struct request *r, void *response);
};

static int32_t *count_behind(void *pointer_field)
{
    return (int32_t *)(void *)((char *)pointer_field + sizeof(void *));
}

static char *array_of(const void *object, size_t field)
{
    char *array;
    memcpy(&array, (const char *)object + field, sizeof array);
    return array;
}

static int32_t count_of(const void *object, size_t field)
{
    int32_t count;
    memcpy(&count, (const char *)object + field + sizeof(void *), sizeof count);
    return count;
}

/* A new array of count zeroed elements in a field of object. */
static char *set_array(struct request *r, void *object, size_t field, int32_t count, size_t element_size)
{
    char *array = arena_calloc(r->arena, (size_t)count, element_size);
    memcpy((char *)object + field, &array, sizeof array);
    *count_behind((char *)object + field) = count;
    return array;
}

static char *topic_at(const struct api_shape *s, const void *message, int32_t t)
{
    return array_of(message, s->topics) + (size_t)t * s->topic_size;
}

static char *partition_at(const struct api_shape *s, const char *topic, int32_t p)
{
    return array_of(topic, s->partitions) + (size_t)p * s->partition_size;
}

static struct slice name_of(const struct api_shape *s, const char *topic)
{
    struct slice name;
    memcpy(&name, topic + s->name, sizeof name);
    return name;
}

static int32_t index_of(const struct api_shape *s, const char *partition)
{
    int32_t index;
    memcpy(&index, partition + s->index, sizeof index);
    return index;
}

void *api_partitions_rows(struct request *r, const struct api_layout *layout, enum kafka_error error)
{
    const struct api_shape *q = &layout->request, *a = &layout->response;
    void *response = arena_alloc(r->arena, a->size);
    int32_t topics = count_of(r->body, q->topics);

    layout->init_response(response);
    set_array(r, response, a->topics, topics, a->topic_size);
    for (int32_t t = 0; t < topics; t++) {
        const char *from = topic_at(q, r->body, t);
        char *to = topic_at(a, response, t);
        struct slice name = name_of(q, from);
        int32_t partitions = count_of(from, q->partitions);
        memcpy(to + a->name, &name, sizeof name);
        set_array(r, to, a->partitions, partitions, a->partition_size);
        for (int32_t p = 0; p < partitions; p++)
            layout->init_row(partition_at(a, to, p), index_of(q, partition_at(q, from, p)), error);
    }
    return response;
}

void api_partitions_fail(struct request *r, const struct api_layout *layout, enum kafka_error error)
{
    request_reply(r, api_partitions_rows(r, layout, error));
}

/* The client's request with only these parts. */
static const void *build(struct request *r, void *ctx, const struct api_part *parts, size_t count)
{
    const struct scatter_ctx *c = ctx;
    const struct api_shape *q = &c->layout->request;
    char *m = arena_alloc(r->arena, q->size), *to = NULL;

    memcpy(m, r->body, q->size);
    set_array(r, m, q->topics, (int32_t)count, q->topic_size);
    *count_behind(m + q->topics) = 0;
    for (size_t i = 0; i < count; i++) {
        const char *from = topic_at(q, r->body, parts[i].a);
        if (i == 0 || parts[i].a != parts[i - 1].a) {
            to = topic_at(q, m, (*count_behind(m + q->topics))++);
            memcpy(to, from, q->topic_size);
            set_array(r, to, q->partitions, count_of(from, q->partitions), q->partition_size);
            *count_behind(to + q->partitions) = 0;
        }
        memcpy(partition_at(q, to, (*count_behind(to + q->partitions))++), partition_at(q, from, parts[i].b),
               q->partition_size);
    }
    return m;
}

/* The row at a position of what a node answered, when it is that partition's. Nodes answer in the order of the
 * question. */
static const char *row_at(const struct api_shape *a, const void *response, struct api_part at, struct slice topic,
                          int32_t partition)
{
    if (response == NULL || at.a >= count_of(response, a->topics))
        return NULL;
    const char *t = topic_at(a, response, at.a);
    if (at.b >= count_of(t, a->partitions) || !slice_eq(name_of(a, t), topic))
        return NULL;
    const char *row = partition_at(a, t, at.b);
    return index_of(a, row) == partition ? row : NULL;
}

static void take(struct request *r, void *ctx, const struct api_part *parts, size_t count, enum kafka_error error,
                 void *response)
{
    const struct scatter_ctx *c = ctx;
    const struct api_shape *q = &c->layout->request, *a = &c->layout->response;
    struct api_part pos = {0, 0};

    if (error == KERR_NONE || !c->layout->writes)
        error = error == KERR_NONE ? KERR_REQUEST_TIMED_OUT : KERR_NOT_LEADER_OR_FOLLOWER;
    else if (error != KERR_NOT_LEADER_OR_FOLLOWER)
        error = KERR_REQUEST_TIMED_OUT;
    for (size_t i = 0; i < count; i++) {
        pos = api_position(parts, i, pos);
        const char *topic = topic_at(q, r->body, parts[i].a);
        int32_t partition = index_of(q, partition_at(q, topic, parts[i].b));
        char *row = partition_at(a, topic_at(a, c->response, parts[i].a), parts[i].b);
        const char *got = row_at(a, response, pos, name_of(q, topic), partition);
        if (got != NULL)
            memcpy(row, got, a->partition_size);
        else
            c->layout->init_row(row, partition, error);
    }
}

static void finish(struct request *r, void *ctx)
{
    const struct scatter_ctx *c = ctx;
    c->finish(r, c->response);
}

void api_partitions_reply(struct request *r, void *response)
{
    request_reply(r, response);
}

void api_partitions_scatter(struct request *r, const struct api_layout *layout, void *response, uint32_t timeout_ms,
                            api_node_fn *node, void (*finish_fn)(struct request *r, void *response))
{
    const struct api_shape *q = &layout->request, *a = &layout->response;
    struct scatter_ctx *c = arena_alloc(r->arena, sizeof *c);
    struct api_scatter_ops *ops = arena_alloc(r->arena, sizeof *ops);
    int32_t topics = count_of(r->body, q->topics);
    size_t count = 0;

    *c = (struct scatter_ctx){layout, response, finish_fn};
    *ops = (struct api_scatter_ops){layout->api_key, build, take, finish};
    for (int32_t t = 0; t < topics; t++)
        count += (size_t)count_of(topic_at(q, r->body, t), q->partitions);
    struct api_scatter *s = api_scatter_new(r, ops, c, count);
    for (int32_t t = 0; t < topics; t++) {
        const char *topic = topic_at(q, r->body, t);
        for (int32_t p = 0; p < count_of(topic, q->partitions); p++) {
            struct api_part at = {t, p};
            int32_t id = node(r, name_of(q, topic), at, partition_at(a, topic_at(a, response, t), p));
            if (id >= 0)
                api_scatter_add(s, KARST__BUS__ROLE__ROLE_STORAGE, id, at);
        }
    }
    api_scatter_send(s, r->version, timeout_ms);
}
