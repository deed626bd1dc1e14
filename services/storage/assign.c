/* assign.c - the controller is told in which directory a replica is (KIP-858, AssignReplicasToDirs), when the metadata
 * does not say so.
 *
 * One call at a time with all that is to be told; what the call did not settle goes with the next. Whatever the
 * metadata says, a replica is where its log is open: the image is only compared with it. */
#include "kafka/apis.h"
#include "kafka/assign_replicas_to_dirs.h"
#include "services/storage/storage.h"
#include <stdlib.h>

enum { REPLICAS_MAX = 2250, TIMEOUT_MS = 5000, AGAIN_MS = 500 };

typedef struct kafka_assign_replicas_to_dirs_request_directory_data dir_request;
typedef struct kafka_assign_replicas_to_dirs_request_topic_data topic_request;
typedef struct kafka_assign_replicas_to_dirs_request_partition_data partition_request;

/* A replica whose directory is to be told. */
struct assignment {
    struct replica_key key;
    struct uuid dir;
    bool sent; /* in the call under way, and not changed since */
    UT_hash_handle hh;
};

static struct assignment *find(struct storage *s, const struct replica_key *key)
{
    struct assignment *a;
    HASH_FIND(hh, s->assignments, key, sizeof *key, a);
    return a;
}

static void forget(struct storage *s, struct assignment *a)
{
    HASH_DEL(s->assignments, a);
    free(a);
}

void assign_tell(struct storage *s, const struct replica_key *key, struct uuid dir)
{
    struct assignment *a = find(s, key);
    if (a == NULL) {
        a = xcalloc(1, sizeof *a);
        memcpy(&a->key, key, sizeof a->key);
        HASH_ADD(hh, s->assignments, key, sizeof a->key, a);
    } else if (uuid_eq(a->dir, dir)) {
        return;
    }
    a->dir = dir;
    a->sent = false;
    loop_again(s->loop);
}

void assign_forget(struct storage *s, const struct replica_key *key)
{
    struct assignment *a = find(s, key);
    if (a != NULL)
        forget(s, a);
}

void assign_check(struct replica *r, const struct image_partition *p)
{
    struct storage *s = r->storage;
    struct uuid told = image_replica_dir(p, service_id(s->service));
    if (moves_is_told(r) || r->dir->failed != 0)
        return;
    if (!uuid_eq(told, r->dir->id))
        assign_tell(s, &r->key, r->dir->id);
    else if (find(s, &r->key) != NULL && !find(s, &r->key)->sent)
        assign_forget(s, &r->key);
}

/* ---- the call ---- */

/* Anything but a passing trouble is settled: the image will show what else there is to do. */
static bool is_settled(int16_t error)
{
    return error == KERR_NONE || error == KERR_UNKNOWN_TOPIC_ID || error == KERR_UNKNOWN_TOPIC_OR_PARTITION ||
           error == KERR_NOT_LEADER_OR_FOLLOWER;
}

static void take_partition(struct storage *s, struct uuid dir, struct uuid topic_id, int32_t partition, int16_t error)
{
    struct replica_key key;
    memset(&key, 0, sizeof key);
    key.topic_id = topic_id;
    key.partition = partition;
    struct assignment *a = find(s, &key);
    if (a == NULL || !a->sent || !uuid_eq(a->dir, dir) || !is_settled(error))
        return;
    forget(s, a);
    moves_on_assigned(s, &key, dir, error == KERR_NONE);
}

static int16_t take_answer(struct storage *s, const struct bus_result *result)
{
    struct kafka_assign_replicas_to_dirs_response r;
    struct arena *a = arena_new(0);
    int16_t error = KERR_UNKNOWN_SERVER_ERROR;
    if (result->outcome == KARST__BUS__OUTCOME__OUTCOME_OK &&
        bus_kafka_response(result, KAFKA_API_ASSIGN_REPLICAS_TO_DIRS, a, &r) == 0) {
        error = r.error_code;
        for (int32_t d = 0; d < r.directories_count; d++)
            for (int32_t t = 0; t < r.directories[d].topics_count; t++)
                for (int32_t p = 0; p < r.directories[d].topics[t].partitions_count; p++)
                    take_partition(s, r.directories[d].id, r.directories[d].topics[t].topic_id,
                                   r.directories[d].topics[t].partitions[p].partition_index,
                                   r.directories[d].topics[t].partitions[p].error_code);
    } else {
        service_controller_failed(s->service, service_controller(s->service));
    }
    arena_free(a);
    return error;
}

static void on_again(void *ctx)
{
    struct storage *s = ctx;
    s->assign_timer = loop_timer_stop(s->assign_timer);
    loop_again(s->loop);
}

static void on_answer(void *ctx, const struct bus_result *result)
{
    struct storage *s = ctx;
    s->assigning = false;
    if (s->drained)
        return;
    int16_t error = take_answer(s, result);
    bool left = false;
    for (struct assignment *a = s->assignments; a != NULL; a = a->hh.next) {
        left = left || a->sent;
        a->sent = false;
    }
    if (error != KERR_NONE || left)
        s->assign_timer = loop_timer_start(s->loop, AGAIN_MS, 0, on_again, s);
    loop_again(s->loop);
}

static int by_place(const void *a, const void *b)
{
    struct assignment *const *x = a, *const *y = b;
    int c = memcmp(&(*x)->dir, &(*y)->dir, sizeof(struct uuid));
    c = c ? c : memcmp(&(*x)->key.topic_id, &(*y)->key.topic_id, sizeof(struct uuid));
    return c ? c : ((*x)->key.partition > (*y)->key.partition) - ((*x)->key.partition < (*y)->key.partition);
}

/* Sorted, they are runs of directories, of topics in them, and of partitions in those. */
static void add(struct kafka_assign_replicas_to_dirs_request *q, const struct assignment *a, topic_request *topics,
                partition_request *partitions, size_t i)
{
    dir_request *d = q->directories_count > 0 ? &q->directories[q->directories_count - 1] : NULL;
    if (d == NULL || !uuid_eq(d->id, a->dir)) {
        d = &q->directories[q->directories_count++];
        *d = (dir_request){.id = a->dir, .topics = &topics[i]};
    }
    topic_request *t = d->topics_count > 0 ? &d->topics[d->topics_count - 1] : NULL;
    if (t == NULL || !uuid_eq(t->topic_id, a->key.topic_id)) {
        t = &d->topics[d->topics_count++];
        *t = (topic_request){.topic_id = a->key.topic_id, .partitions = &partitions[i]};
    }
    partitions[i].partition_index = a->key.partition;
    t->partitions_count++;
}

void assign_turn(void *ctx)
{
    struct storage *s = ctx;
    if (s->assignments == NULL || s->assigning || s->assign_timer != NULL || s->drained || s->offline ||
        !service_is_ready(s->service))
        return;
    struct arena *arena = arena_new(0);
    size_t count = 0, most = MIN((size_t)HASH_COUNT(s->assignments), (size_t)REPLICAS_MAX);
    struct assignment **list = arena_calloc(arena, most, sizeof(struct assignment *));
    for (struct assignment *a = s->assignments; a != NULL && count < most; a = a->hh.next) {
        a->sent = true;
        list[count++] = a;
    }
    qsort(list, count, sizeof *list, by_place);
    struct kafka_assign_replicas_to_dirs_request q;
    kafka_assign_replicas_to_dirs_request_init(&q);
    q.broker_id = service_id(s->service);
    q.broker_epoch = service_epoch(s->service);
    q.directories = arena_calloc(arena, count, sizeof *q.directories);
    topic_request *topics = arena_calloc(arena, count, sizeof *topics);
    partition_request *partitions = arena_calloc(arena, count, sizeof *partitions);
    for (size_t i = 0; i < count; i++)
        add(&q, list[i], topics, partitions, i);
    s->assigning = true;
    bus_call_kafka(s->bus, KARST__BUS__ROLE__ROLE_CONTROLLER, service_controller(s->service),
                   KAFKA_API_ASSIGN_REPLICAS_TO_DIRS, 0, &q, NULL, TIMEOUT_MS, on_answer, s);
    arena_free(arena);
}

void assign_free(struct storage *s)
{
    struct assignment *a, *next;
    s->assign_timer = loop_timer_stop(s->assign_timer);
    HASH_ITER (hh, s->assignments, a, next)
        forget(s, a);
}
