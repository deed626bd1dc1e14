/* delete_topics.c - DeleteTopics (20). Versions up to 5 name topics only; 6 has names or ids. */
#include "kafka/delete_topics.h"

#include "kafka/remove_topic_record.h"
#include "libs/controller/internal.h"

typedef struct kafka_delete_topics_response_deletable_topic_result topic_result;

/* One entry of the request, in the shape of version 6. */
struct wanted {
    struct slice name; /* null: by id */
    struct uuid id;
};

struct deleting {
    struct controller *c;
    struct arena *arena;
    struct kafka_delete_topics_response *p;
    struct wanted *wanted;
    int32_t count;
    struct name_set names, ids;
};

static void answer(struct deleting *k, struct slice name, struct uuid id, enum kafka_error error, const char *message)
{
    topic_result *r = &k->p->responses[k->p->responses_count++];
    wire_init(&kafka_delete_topics_response_deletable_topic_result_type, r);
    r->name = arena_dup(k->arena, name); /* the image that has it may be gone when the answer leaves */
    r->topic_id = id;
    r->error_code = (int16_t)error;
    r->error_message = slice_str(message);
}

static struct slice id_slice(const struct uuid *id)
{
    return slice_make(id->b, sizeof id->b);
}

static bool is_repeated(const struct deleting *k, int32_t at, bool *ret_is_first)
{
    const struct wanted *w = &k->wanted[at];
    int32_t first = at;
    bool by_name = !slice_is_null(w->name);
    int32_t times = name_set_find(by_name ? &k->names : &k->ids, by_name ? w->name : id_slice(&w->id), &first);
    *ret_is_first = first == at;
    return times > 1;
}

static void delete_topic(struct deleting *k, const struct image_topic *t)
{
    struct kafka_remove_topic_record m = {.topic_id = t->id};
    controller_put(k->c, METARECORD_REMOVE_TOPIC, 0, &m);
    answer(k, t->name, t->id, KERR_NONE, NULL);
}

/* A topic that is asked for by name and by id is refused once, under its name. */
static void delete_by_id(struct deleting *k, const struct wanted *w)
{
    const struct image_topic *t = image_topic_by_id(k->c->image, w->id);
    if (t == NULL)
        answer(k, SLICE_NULL, w->id, KERR_UNKNOWN_TOPIC_ID, "This server does not host this topic ID.");
    else if (name_set_find(&k->names, t->name, NULL) > 0)
        answer(k, t->name, t->id, KERR_INVALID_REQUEST,
               "The provided topic name maps to an ID that was already supplied.");
    else
        delete_topic(k, t);
}

static void delete_by_name(struct deleting *k, const struct wanted *w)
{
    const struct image_topic *t = image_topic_by_name(k->c->image, w->name);
    if (t == NULL)
        answer(k, w->name, UUID_ZERO, KERR_UNKNOWN_TOPIC_OR_PARTITION,
               "This server does not host this topic-partition.");
    else if (name_set_find(&k->ids, id_slice(&t->id), NULL) == 0)
        delete_topic(k, t);
}

static void delete_one(struct deleting *k, int32_t at)
{
    const struct wanted *w = &k->wanted[at];
    bool first, by_name = !slice_is_null(w->name);
    if (!by_name && uuid_is_zero(w->id)) {
        answer(k, SLICE_NULL, UUID_ZERO, KERR_INVALID_REQUEST, "Neither topic name nor id were specified.");
    } else if (by_name && !uuid_is_zero(w->id)) {
        answer(k, w->name, w->id, KERR_INVALID_REQUEST, "You may not specify both topic name and topic id.");
    } else if (is_repeated(k, at, &first)) {
        if (first)
            answer(k, w->name, w->id, KERR_INVALID_REQUEST, by_name ? "Duplicate topic name." : "Duplicate topic id.");
    } else if (by_name) {
        delete_by_name(k, w);
    } else {
        delete_by_id(k, w);
    }
}

static void take_request(struct deleting *k, const struct kafka_delete_topics_request *q, int16_t version,
                         struct arena *arena)
{
    int32_t names = MAX(q->topic_names_count, 0), topics = MAX(q->topics_count, 0);
    k->wanted = arena_calloc(arena, (size_t)names + (size_t)topics + 1, sizeof *k->wanted);
    for (int32_t i = 0; version < 6 && i < names; i++)
        k->wanted[k->count++].name = q->topic_names[i];
    for (int32_t i = 0; version >= 6 && i < topics; i++)
        k->wanted[k->count++] = (struct wanted){q->topics[i].name, q->topics[i].topic_id};
    name_set_init(&k->names, arena, (size_t)k->count);
    name_set_init(&k->ids, arena, (size_t)k->count);
    for (int32_t i = 0; i < k->count; i++) {
        if (slice_is_null(k->wanted[i].name))
            name_set_add(&k->ids, id_slice(&k->wanted[i].id), i);
        else if (uuid_is_zero(k->wanted[i].id)) /* with an id as well it is refused, and does not count */
            name_set_add(&k->names, k->wanted[i].name, i);
    }
    name_set_seal(&k->names);
    name_set_seal(&k->ids);
}

void controller_delete_topics(struct controller *c, const struct kafka_delete_topics_request *q, int16_t version,
                              struct arena *arena, struct kafka_delete_topics_response *ret_p)
{
    struct deleting k = {.c = c, .arena = arena, .p = ret_p};
    take_request(&k, q, version, arena);
    kafka_delete_topics_response_init(ret_p);
    ret_p->responses = arena_calloc(arena, (size_t)k.count + 1, sizeof *ret_p->responses);
    ret_p->responses_count = 0;
    bool enabled = config_bool(c->config, "delete.topic.enable");
    for (int32_t i = 0; i < k.count; i++) {
        if (enabled)
            delete_one(&k, i);
        else
            answer(&k, k.wanted[i].name, k.wanted[i].id,
                   version < 3 ? KERR_INVALID_REQUEST : KERR_TOPIC_DELETION_DISABLED, "Topic deletion is disabled.");
    }
}
