/* describe_log_dirs.c - Kafka request DescribeLogDirs (35): this node's folders and the sizes of what is in them. */
#include "kafka/describe_log_dirs.h"
#include "services/storage/storage.h"
#include <stdlib.h>
#include <sys/statvfs.h>

typedef struct kafka_describe_log_dirs_request request;
typedef struct kafka_describe_log_dirs_response_describe_log_dirs_result dir_answer;
typedef struct kafka_describe_log_dirs_response_describe_log_dirs_topic topic_answer;
typedef struct kafka_describe_log_dirs_response_describe_log_dirs_partition answer;

static int by_topic(const void *a, const void *b)
{
    struct replica *const *x = a, *const *y = b;
    int c = strcmp((*x)->topic, (*y)->topic);
    return c ? c : ((*x)->key.partition > (*y)->key.partition) - ((*x)->key.partition < (*y)->key.partition);
}

/* The replicas that are asked for, in order and each once: those of all topics, or by their names. */
static const struct replica **list_wanted(struct storage *s, const request *q, struct arena *a, size_t *ret_count)
{
    size_t most = HASH_COUNT(s->replicas), n = 0, kept = 0;
    for (int32_t t = 0; t < q->topics_count; t++)
        most = MAX(most, n += (size_t)q->topics[t].partitions_count);
    const struct replica **list = arena_alloc(a, (most + 1) * sizeof *list);
    n = 0;
    for (const struct replica *r = s->replicas; r != NULL && q->topics_count < 0; r = r->hh.next)
        list[n++] = r;
    for (int32_t t = 0; t < q->topics_count; t++) {
        for (int32_t p = 0; p < q->topics[t].partitions_count; p++) {
            const struct replica *r = replica_by_name(s, q->topics[t].topic, q->topics[t].partitions[p]);
            if (r != NULL)
                list[n++] = r;
        }
    }
    qsort(list, n, sizeof *list, by_topic);
    for (size_t i = 0; i < n; i++) {
        if (list[i]->known && (kept == 0 || list[kept - 1] != list[i]))
            list[kept++] = list[i];
    }
    *ret_count = kept;
    return list;
}

/* The row of a replica in the directory, or of its copy on the way there; false: neither. */
static bool fill_row(const struct directory *d, const struct replica *r, answer *row)
{
    row->partition_index = r->key.partition;
    if (r->dir == d) {
        row->partition_size = (int64_t)log_size_bytes(r->log);
        row->offset_lag = MAX(log_high_watermark(r->log) - log_end(r->log), (int64_t)0); /* as Kafka: never behind */
        return true;
    }
    if (moves_target(r) != d)
        return false;
    moves_describe(r, &row->partition_size, &row->offset_lag);
    row->is_future_key = true;
    return true;
}

static topic_answer *topic_of(dir_answer *to, struct slice name, answer *row)
{
    topic_answer *t = to->topics_count > 0 ? &to->topics[to->topics_count - 1] : NULL;
    if (t == NULL || !slice_eq(t->name, name)) {
        t = &to->topics[to->topics_count++];
        t->name = name;
        t->partitions = row;
    }
    return t;
}

static bool is_asked_for(const request *q, const struct unopened *u)
{
    for (int32_t t = 0; t < q->topics_count; t++) {
        for (int32_t p = 0; p < q->topics[t].partitions_count; p++) {
            if (q->topics[t].partitions[p] == u->partition && slice_eq_str(q->topics[t].topic, u->topic))
                return true;
        }
    }
    return q->topics_count < 0;
}

/* Ours by the metadata, and damaged: it takes its room on the disk, and nobody knows how far behind it is. A topic of
 * which others are open may come twice. */
static void fill_damaged(const struct directory *d, const request *q, answer *row, dir_answer *to)
{
    for (const struct unopened *u = d->unopened; u != NULL; u = u->hh.next) {
        if (u->state != UNOPENED_STAYS || u->err == 0 || uuid_is_zero(u->topic_id) || !is_asked_for(q, u))
            continue;
        *row = (answer){.partition_index = u->partition, .partition_size = u->size_bytes, .offset_lag = -1};
        topic_of(to, slice_str(u->topic), row++)->partitions_count++;
    }
}

static void fill_topics(const struct directory *d, const struct replica **list, size_t n, const request *q,
                        struct arena *a, dir_answer *to)
{
    size_t most = n + HASH_COUNT(d->unopened);
    answer *row = arena_calloc(a, most + 1, sizeof *row);
    to->topics = arena_calloc(a, most + 1, sizeof *to->topics);
    for (size_t i = 0; i < n; i++) {
        if (fill_row(d, list[i], row))
            topic_of(to, slice_str(list[i]->topic), row++)->partitions_count++;
    }
    fill_damaged(d, q, row, to);
}

static void fill_directory(const struct directory *d, const struct replica **list, size_t n, const request *q,
                           struct arena *a, dir_answer *to)
{
    struct statvfs disk;
    kafka_describe_log_dirs_response_describe_log_dirs_result_init(to);
    to->log_dir = slice_str(d->absolute);
    to->is_cordoned = d->cordoned;
    to->error_code = d->failed ? KERR_KAFKA_STORAGE_ERROR : KERR_NONE;
    if (d->failed)
        return;
    fill_topics(d, list, n, q, a, to);
    if (statvfs(d->path, &disk) == 0) {
        to->total_bytes = (int64_t)(disk.f_blocks * disk.f_frsize);
        to->usable_bytes = (int64_t)(disk.f_bavail * disk.f_frsize);
    }
}

void describe_log_dirs_on_call(void *ctx, struct rpc *rpc)
{
    struct storage *s = ctx;
    const request *q = rpc_kafka_request(rpc);
    if (q == NULL)
        return;
    size_t n;
    struct arena *a = rpc_arena(rpc);
    const struct replica **list = list_wanted(s, q, a, &n);
    struct kafka_describe_log_dirs_response response;
    kafka_describe_log_dirs_response_init(&response);
    response.results = arena_calloc(a, s->dir_count, sizeof *response.results);
    response.results_count = (int32_t)s->dir_count;
    for (size_t i = 0; i < s->dir_count; i++)
        fill_directory(&s->dirs[i], list, n, q, a, &response.results[i]);
    rpc_reply_kafka(rpc, &response, 0);
}
