/* api_list_offsets.c - ListOffsets (2), versions 1-11: each partition's question goes to the storage node that leads
 * it.
 *
 * Special times have versions: -3 (highest timestamp) from 7, -4 (local log start) from 8, -5 (tiered) from 9, -6
 * (first not tiered) from 11; any other negative one, and one of these before its version, is UNSUPPORTED_VERSION. A
 * partition that is asked for twice is answered once, with INVALID_REQUEST. */
#include "kafka/apis.h"
#include "kafka/list_offsets.h"
#include "services/frontend/api_partitions.h"
#include <stdlib.h>

typedef struct kafka_list_offsets_request list_request;
typedef struct kafka_list_offsets_request_list_offsets_topic topic_q;
typedef struct kafka_list_offsets_request_list_offsets_partition partition_q;
typedef struct kafka_list_offsets_response list_response;
typedef struct kafka_list_offsets_response_list_offsets_topic_response topic_row;
typedef struct kafka_list_offsets_response_list_offsets_partition_response partition_row;

static void init_response(void *response)
{
    kafka_list_offsets_response_init(response);
}

static void init_row(void *to, int32_t partition, enum kafka_error error)
{
    partition_row *row = to;
    kafka_list_offsets_response_list_offsets_partition_response_init(row);
    row->partition_index = partition;
    row->error_code = (int16_t)error;
}

static const struct api_layout layout = {
    .api_key = KAFKA_API_LIST_OFFSETS,
    .request = API_SHAPE(list_request, topic_q, name, partitions, partition_q, offsetof(partition_q, partition_index)),
    .response =
        API_SHAPE(list_response, topic_row, name, partitions, partition_row, offsetof(partition_row, partition_index)),
    .init_response = init_response,
    .init_row = init_row,
};

static void fail(struct request *r, enum kafka_error error, const char *message)
{
    (void)message; /* the response has no room for one */
    api_partitions_fail(r, &layout, error);
}

static bool is_time_known(int16_t version, int64_t timestamp)
{
    static const int16_t since[] = {1, 1, 7, 8, 9, 11}; /* of -1, -2 ... */
    return timestamp >= 0 || (timestamp >= -(int64_t)COUNTOF(since) && version >= since[-timestamp - 1]);
}

/* ---- partitions that are asked for twice ---- */

struct place {
    struct slice topic;
    int32_t partition;
    struct api_part at;
};

static int compare_places(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    int c = slice_cmp(x->topic, y->topic);
    if (c == 0)
        c = (x->partition > y->partition) - (x->partition < y->partition);
    if (c == 0)
        c = x->at.a != y->at.a ? (x->at.a > y->at.a) - (x->at.a < y->at.a) : (x->at.b > y->at.b) - (x->at.b < y->at.b);
    return c;
}

enum { DUPLICATE = INT16_MAX }; /* in error_code: a later time of a partition, left out of the answer */

static void mark_duplicates(struct request *r, const list_request *q, list_response *response)
{
    size_t count = 0;
    for (int32_t t = 0; t < q->topics_count; t++)
        count += (size_t)q->topics[t].partitions_count;
    struct place *places = arena_calloc(r->arena, count, sizeof *places);
    size_t n = 0;
    for (int32_t t = 0; t < q->topics_count; t++)
        for (int32_t p = 0; p < q->topics[t].partitions_count; p++)
            places[n++] = (struct place){q->topics[t].name, q->topics[t].partitions[p].partition_index, {t, p}};
    qsort(places, n, sizeof *places, compare_places);
    for (size_t i = 1, first = 0; i < n; i++) {
        if (places[i].partition != places[first].partition || !slice_eq(places[i].topic, places[first].topic)) {
            first = i;
            continue;
        }
        response->topics[places[first].at.a].partitions[places[first].at.b].error_code = KERR_INVALID_REQUEST;
        response->topics[places[i].at.a].partitions[places[i].at.b].error_code = DUPLICATE;
    }
}

static void drop_duplicates(list_response *response)
{
    for (int32_t t = 0; t < response->topics_count; t++) {
        topic_row *row = &response->topics[t];
        int32_t kept = 0;
        for (int32_t p = 0; p < row->partitions_count; p++)
            if (row->partitions[p].error_code != DUPLICATE)
                row->partitions[kept++] = row->partitions[p];
        row->partitions_count = kept;
    }
}

static void finish(struct request *r, void *response)
{
    drop_duplicates(response);
    request_reply(r, response);
}

static int32_t node_of(struct request *r, struct slice topic, struct api_part at, void *to)
{
    const list_request *q = r->body;
    partition_row *row = to;
    int32_t node = -1;
    if (row->error_code == KERR_NONE && !is_time_known(r->version, q->topics[at.a].partitions[at.b].timestamp))
        row->error_code = KERR_UNSUPPORTED_VERSION;
    if (row->error_code == KERR_NONE)
        row->error_code = (int16_t)api_partition_leader(r->image, topic, row->partition_index, &node);
    return row->error_code == KERR_NONE ? node : -1;
}

static void handle(struct request *r)
{
    const list_request *q = r->body;
    if (q->isolation_level != 0 && q->isolation_level != 1) {
        fail(r, KERR_INVALID_REQUEST, NULL);
        return;
    }
    list_response *response = api_partitions_rows(r, &layout, KERR_NONE);
    mark_duplicates(r, q, response);
    bool has_timeout = r->version >= 10 && q->timeout_ms > 0;
    api_partitions_scatter(r, &layout, response, has_timeout ? (uint32_t)q->timeout_ms : REQUEST_TIMEOUT_MS, node_of,
                           finish);
}

const struct api_handler api_list_offsets = {
    .key = KAFKA_API_LIST_OFFSETS, .version_min = 1, .version_max = 11, .handle = handle, .fail = fail};
