/* api_find_coordinator.c - FindCoordinator (10), versions 0-6: the leader of the partition of __consumer_offsets that a
 * group's id falls on (but see request_coordinator_at); from version 4 on for many groups. When the topic is not there
 * it is created, and the client is told to ask again.
 *
 * Transactional ids are refused with UNSUPPORTED_VERSION and a text, which ends the client's attempts: this release has
 * no transactions. So is the share coordinator, which only brokers ask for. */
#include "kafka/apis.h"
#include "kafka/find_coordinator.h"
#include "services/frontend/api_common.h"

typedef struct kafka_find_coordinator_response find_response;
typedef struct kafka_find_coordinator_response_coordinator coordinator_row;

enum { KEY_GROUP = 0, KEY_TRANSACTION = 1, KEY_SHARE = 2, WITH_LIST = 4 };

static const char NO_TRANSACTIONS[] = "Transactions are not supported by this version of Karst";
static const char NO_SHARE_GROUPS[] = "Share groups are not supported by this version of Karst";

static void init_row(coordinator_row *row, struct slice key, enum kafka_error error, const char *message)
{
    kafka_find_coordinator_response_coordinator_init(row);
    row->key = key;
    row->node_id = -1;
    row->port = -1;
    row->error_code = (int16_t)error;
    row->error_message = api_text(message);
}

/* The keys of a request of any version. */
static const struct slice *keys_of(const struct request *r, int32_t *ret_count)
{
    const struct kafka_find_coordinator_request *q = r->body;
    *ret_count = r->version >= WITH_LIST ? q->coordinator_keys_count : 1;
    return r->version >= WITH_LIST ? q->coordinator_keys : &q->key;
}

/* Rows of the newest shape leave in the shape of r->version. Up to version 3 success has the text "NONE" (Kafka's
 * oddity). */
static void reply_rows(struct request *r, coordinator_row *rows, int32_t count)
{
    find_response response;
    kafka_find_coordinator_response_init(&response);
    if (r->version >= WITH_LIST) {
        response.coordinators = rows;
        response.coordinators_count = count;
    } else {
        response.error_code = rows[0].error_code;
        response.error_message = rows[0].error_code == KERR_NONE ? SLICE_OF("NONE") : rows[0].error_message;
        response.node_id = rows[0].node_id;
        response.host = rows[0].host;
        response.port = rows[0].port;
    }
    request_reply(r, &response);
}

static void fail(struct request *r, enum kafka_error error, const char *message)
{
    int32_t count;
    const struct slice *keys = keys_of(r, &count);
    coordinator_row *rows = arena_calloc(r->arena, (size_t)count, sizeof *rows);
    for (int32_t i = 0; i < count; i++)
        init_row(&rows[i], keys[i], error, message ? message : "");
    reply_rows(r, rows, count);
}

static void fill_row(struct request *r, const struct image *image, coordinator_row *row)
{
    const struct image_topic *t = image_topic_by_name(image, SLICE_OF(TOPIC_OFFSETS));
    int32_t leader = -1;
    struct slice host;
    uint16_t port;
    if (t && t->partition_count > 0)
        (void)api_partition_leader(image, t->name, slice_coordinator_partition(row->key, t->partition_count), &leader);
    int32_t id = leader >= 0 ? request_coordinator_at(r, leader) : -1;
    if (id < 0 || !request_broker_address(r, id, &host, &port, NULL)) {
        row->error_code = KERR_COORDINATOR_NOT_AVAILABLE;
        return;
    }
    row->node_id = id;
    row->host = host;
    row->port = port;
}

static void answer_groups(struct request *r, const struct image *image)
{
    int32_t count;
    const struct slice *keys = keys_of(r, &count);
    coordinator_row *rows = arena_calloc(r->arena, (size_t)count, sizeof *rows);
    for (int32_t i = 0; i < count; i++) {
        init_row(&rows[i], keys[i], KERR_NONE, "");
        fill_row(r, image, &rows[i]);
    }
    reply_rows(r, rows, count);
}

/* GROUP:TOPICID:PARTITION, none of them empty (SharePartitionKey). */
static bool is_share_key(struct slice key)
{
    const uint8_t *end = key.data + key.size, *partition = end, *id;
    while (partition > key.data && partition[-1] != ':')
        partition--;
    id = partition > key.data ? partition - 1 : key.data;
    while (id > key.data && id[-1] != ':')
        id--;
    if (id <= key.data + 1 || partition == end || end - partition > 9)
        return false;
    struct uuid ignored;
    for (const uint8_t *p = partition; p < end; p++)
        if (*p < '0' || *p > '9')
            return false;
    return uuid_parse(slice_make(id, (size_t)(partition - 1 - id)), &ignored) == 0;
}

static void answer_share(struct request *r)
{
    int32_t count;
    const struct slice *keys = keys_of(r, &count);
    coordinator_row *rows = arena_calloc(r->arena, (size_t)count, sizeof *rows);
    for (int32_t i = 0; i < count; i++) {
        bool good = is_share_key(keys[i]);
        init_row(&rows[i], keys[i], good ? KERR_UNSUPPORTED_VERSION : KERR_INVALID_REQUEST,
                 good ? NO_SHARE_GROUPS : "");
    }
    reply_rows(r, rows, count);
}

static void handle(struct request *r)
{
    const struct kafka_find_coordinator_request *q = r->body;
    if (q->key_type == KEY_TRANSACTION)
        fail(r, KERR_UNSUPPORTED_VERSION, NO_TRANSACTIONS);
    else if (q->key_type == KEY_SHARE)
        answer_share(r);
    else if (q->key_type != KEY_GROUP)
        fail(r, KERR_INVALID_REQUEST, API_INVALID_REQUEST_TEXT);
    else {
        if (image_topic_by_name(r->image, SLICE_OF(TOPIC_OFFSETS)) == NULL)
            frontend_auto_create(r->frontend, SLICE_OF(TOPIC_OFFSETS));
        answer_groups(r, r->image);
    }
}

const struct api_handler api_find_coordinator = {
    .key = KAFKA_API_FIND_COORDINATOR, .version_min = 0, .version_max = 6, .handle = handle, .fail = fail};
