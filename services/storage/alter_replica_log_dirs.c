/* alter_replica_log_dirs.c - Kafka request AlterReplicaLogDirs (34): replicas go to other directories. The checks and
 * their order are those of Kafka 4.3.1. A partition that is not here yet is made in the directory that was asked for,
 * although the answer is an error, as in Kafka. */
#include "kafka/alter_replica_log_dirs.h"
#include "services/storage/storage.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct kafka_alter_replica_log_dirs_request request;
typedef struct kafka_alter_replica_log_dirs_response_alter_replica_log_dir_topic_result topic_answer;
typedef struct kafka_alter_replica_log_dirs_response_alter_replica_log_dir_partition_result answer;

enum { PREFERRED_MAX = 10000, NAME_MAX_BYTES = 255 };

/* ---- where partitions that are to come shall go ---- */

struct preferred {
    UT_hash_handle hh;
    struct directory *dir;
    char *name; /* of the partition's folder */
};

static struct preferred *find_preferred(struct storage *s, const char *name)
{
    struct preferred *p = NULL;
    if (s->preferred != NULL)
        HASH_FIND_STR(s->preferred, name, p);
    return p;
}

static void forget(struct storage *s, struct preferred *p)
{
    HASH_DEL(s->preferred, p);
    free(p->name);
    free(p);
}

/* Beyond the bound the one that was asked for first is forgotten. */
static void prefer(struct storage *s, const char *name, struct directory *d)
{
    struct preferred *p = find_preferred(s, name);
    if (p == NULL) {
        if (HASH_COUNT(s->preferred) >= PREFERRED_MAX)
            forget(s, s->preferred);
        p = xcalloc(1, sizeof *p);
        p->name = xstrdup(name);
        HASH_ADD_KEYPTR(hh, s->preferred, p->name, strlen(p->name), p);
    }
    p->dir = d;
}

struct directory *preferred_take(struct storage *s, struct slice topic, int32_t partition)
{
    if (s->preferred == NULL)
        return NULL;
    char *name = xasprintf(SLICE_F "-%" PRId32, SLICE_A(topic), partition);
    struct preferred *p = find_preferred(s, name);
    struct directory *d = p != NULL && p->dir->failed == 0 ? p->dir : NULL;
    if (p != NULL)
        forget(s, p);
    free(name);
    return d;
}

void preferred_free(struct storage *s)
{
    while (s->preferred != NULL)
        forget(s, s->preferred);
}

/* ---- one replica ---- */

static enum kafka_error find_directory(struct storage *s, struct slice path, struct directory **ret_dir)
{
    struct directory *d = NULL;
    for (size_t i = 0; i < s->dir_count && d == NULL; i++)
        if (slice_eq_str(path, s->dirs[i].absolute))
            d = &s->dirs[i];
    if (d == NULL)
        return KERR_LOG_DIR_NOT_FOUND;
    *ret_dir = d;
    if (d->failed != 0)
        return KERR_KAFKA_STORAGE_ERROR;
    return d->cordoned ? KERR_INVALID_REPLICA_ASSIGNMENT : KERR_NONE;
}

static bool has_failed_directory(const struct storage *s)
{
    for (size_t i = 0; i < s->dir_count; i++)
        if (s->dirs[i].failed != 0)
            return true;
    return false;
}

static enum kafka_error missing(struct storage *s, const struct image_topic *t, struct slice topic, int32_t partition,
                                struct directory *d)
{
    const struct image_partition *p = t != NULL ? image_partition(t, partition) : NULL;
    if (p != NULL && replica_missing(s, t, partition) == KERR_KAFKA_STORAGE_ERROR)
        return KERR_KAFKA_STORAGE_ERROR;
    char *name = xasprintf(SLICE_F "-%" PRId32, SLICE_A(topic), partition);
    prefer(s, name, d);
    free(name);
    return p == NULL ? KERR_UNKNOWN_TOPIC_OR_PARTITION : KERR_REPLICA_NOT_AVAILABLE;
}

static enum kafka_error move_one(struct storage *s, struct slice path, struct slice topic, int32_t partition)
{
    struct directory *d = NULL;
    char number[16];
    int digits = snprintf(number, sizeof number, "-%" PRId32, partition);
    if (topic.size + (size_t)digits + strlen(".-future") + 32 > NAME_MAX_BYTES)
        return KERR_INVALID_TOPIC_EXCEPTION;
    enum kafka_error error = find_directory(s, path, &d);
    if (error != KERR_NONE)
        return error;
    const struct image_topic *t = s->image != NULL ? image_topic_by_name(s->image, topic) : NULL;
    struct replica *r = t != NULL ? replica_find(s, t->id, partition) : NULL;
    if (r == NULL || !r->known)
        return missing(s, t, topic, partition, d);
    if (r->dir->failed != 0 || log_failed(r->log) != 0)
        return KERR_KAFKA_STORAGE_ERROR;
    if (moves_target(r) == d)
        return KERR_NONE;
    moves_cancel(r);
    if (r->dir == d)
        return KERR_NONE;
    /* As Kafka: a copy of it may be in the directory that is offline. */
    if (has_failed_directory(s))
        return KERR_KAFKA_STORAGE_ERROR;
    moves_start(r, d, NULL);
    return KERR_NONE;
}

/* ---- the request ---- */

static topic_answer *answer_of(struct kafka_alter_replica_log_dirs_response *response, struct slice topic)
{
    for (int32_t i = 0; i < response->results_count; i++)
        if (slice_eq(response->results[i].topic_name, topic))
            return &response->results[i];
    topic_answer *to = &response->results[response->results_count++];
    wire_init(&kafka_alter_replica_log_dirs_response_alter_replica_log_dir_topic_result_type, to);
    to->topic_name = topic;
    return to;
}

/* How many partitions of the topic the request names, over all directories. */
static size_t count_named(const request *q, struct slice topic)
{
    size_t n = 0;
    for (int32_t d = 0; d < q->dirs_count; d++)
        for (int32_t t = 0; t < q->dirs[d].topics_count; t++)
            if (slice_eq(q->dirs[d].topics[t].name, topic))
                n += (size_t)q->dirs[d].topics[t].partitions_count;
    return n;
}

/* A partition that is named twice goes where it is named last; it has one row. */
static answer *row_of(topic_answer *to, int32_t partition)
{
    for (int32_t i = 0; i < to->partitions_count; i++)
        if (to->partitions[i].partition_index == partition)
            return &to->partitions[i];
    answer *row = &to->partitions[to->partitions_count++];
    wire_init(&kafka_alter_replica_log_dirs_response_alter_replica_log_dir_partition_result_type, row);
    row->partition_index = partition;
    return row;
}

void alter_replica_log_dirs_on_call(void *ctx, struct rpc *rpc)
{
    struct storage *s = ctx;
    const request *q = rpc_kafka_request(rpc);
    if (q == NULL)
        return;
    if (s->draining) {
        rpc_fail(rpc, KARST__BUS__OUTCOME__OUTCOME_OVERLOADED);
        return;
    }
    turn_commit(s); /* a move begins between writes */
    struct arena *a = rpc_arena(rpc);
    struct kafka_alter_replica_log_dirs_response response;
    size_t most = 0;
    kafka_alter_replica_log_dirs_response_init(&response);
    for (int32_t d = 0; d < q->dirs_count; d++)
        most += (size_t)q->dirs[d].topics_count;
    response.results = arena_calloc(a, most + 1, sizeof *response.results);
    for (int32_t d = 0; d < q->dirs_count; d++)
        for (int32_t t = 0; t < q->dirs[d].topics_count; t++) {
            struct slice topic = q->dirs[d].topics[t].name;
            topic_answer *to = answer_of(&response, topic);
            if (to->partitions == NULL)
                to->partitions = arena_calloc(a, count_named(q, topic) + 1, sizeof *to->partitions);
            for (int32_t p = 0; p < q->dirs[d].topics[t].partitions_count; p++) {
                int32_t partition = q->dirs[d].topics[t].partitions[p];
                row_of(to, partition)->error_code = (int16_t)move_one(s, q->dirs[d].path, topic, partition);
            }
        }
    rpc_reply_kafka(rpc, &response, 0);
}
