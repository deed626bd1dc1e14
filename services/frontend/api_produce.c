/* api_produce.c - Produce 3-13: records from the client's frame to the storage nodes that lead their partitions, one
 * Append a node.
 *
 * Record bytes are not looked at beyond two bits of the first batch's header, and not copied: the payloads of the
 * Append are parts of the frame as it was read. Everything else about them is storage's to check.
 *
 * How an Append that did not come to an answer is told to the client. An Append is never sent twice by us.
 *   not sent, refused, overloaded: NOT_LEADER_OR_FOLLOWER. Nothing was written; any client asks for metadata and sends
 * again. link lost or no answer in time: REQUEST_TIMED_OUT. Java and librdkafka take it as "perhaps written" and send
 * the same sequence numbers again after retry.backoff.ms (100 ms), which storage answers with the first offset if it
 * had written them: an idempotent producer goes on as soon as storage is back. Closing the connection would cost
 * reconnect back-off and every other request on it. acks=0 has no answer: any failure closes the connection, which
 * makes the client ask for metadata (Kafka's own rule). */
#include "services/frontend/server.h"

#include "kafka/apis.h"
#include "kafka/produce.h"
#include "libs/base/bytes.h"
#include "libs/records/records.h"
#include "services/frontend/api_common.h"

typedef struct kafka_produce_request produce_request;
typedef struct kafka_produce_response produce_response;
typedef struct kafka_produce_response_partition_produce_response partition_response;

enum {
    LEADERS_TOLD_FROM = 10,
    ZSTD_FROM = 7,
    ID_FROM = 13,
    CODEC_ZSTD = 4,
    BATCH_LENGTH_MIN = 14,
    RECORDS_MAX_BYTES = 128 << 20, /* of one partition: what the bus carries in one piece (docs/bus.md) */
    ANSWER_SLACK_MS = 5000
};

struct part {
    partition_response *response;
    struct slice records;
    const struct image_topic *topic;
    const struct image_partition *partition;
};

/* All that goes to one storage node. */
struct append {
    struct produce *produce;
    int32_t node;
    struct part *parts; /* room for all parts of the request */
    size_t count;
    struct append *next;
};

struct produce {
    struct request *r;
    produce_response response;
    struct append *appends;
    size_t part_max;
    uint32_t calls;
    bool failed;
    bool leaders_changed; /* NodeEndpoints are wanted */
};

/* ---- the answer ---- */

static void set_error(struct produce *p, partition_response *out, enum kafka_error error)
{
    out->error_code = (int16_t)error;
    out->base_offset = -1;
    out->log_append_time_ms = -1;
    out->log_start_offset = -1;
    p->failed = true;
}

/* KIP-951: the newest of what storage says (epoch -1: nothing) and what we know. Kafka names a leader with each such
 * error, -1 while there is none. */
static void tell_leader(struct produce *p, const struct part *part, int32_t leader, int32_t epoch)
{
    partition_response *out = part->response;
    int32_t known, known_epoch;

    if (p->r->version < LEADERS_TOLD_FROM || out->error_code != KERR_NOT_LEADER_OR_FOLLOWER)
        return;
    api_newest_leader(p->r->frontend->image, part->topic->id, part->partition->partition, &known, &known_epoch);
    bool is_newer = leader < 0 || known_epoch > epoch;
    out->current_leader.leader_id = is_newer ? known : leader;
    out->current_leader.leader_epoch = is_newer ? known_epoch : epoch;
    p->leaders_changed = p->leaders_changed || out->current_leader.leader_id >= 0;
}

static bool is_named(const struct produce *p, int32_t broker)
{
    for (int32_t i = 0; i < p->response.responses_count; i++)
        for (int32_t j = 0; j < p->response.responses[i].partition_responses_count; j++)
            if (p->response.responses[i].partition_responses[j].current_leader.leader_id == broker)
                return true;
    return false;
}

/* Where the leaders named in the answer are. */
static void fill_endpoints(struct produce *p)
{
    struct request *r = p->r;
    int32_t count;
    const struct image_broker *const *brokers = image_brokers(r->image, &count);

    p->response.node_endpoints = arena_alloc(r->arena, (size_t)count * sizeof *p->response.node_endpoints);
    for (int32_t i = 0; i < count; i++) {
        struct kafka_produce_response_node_endpoint *e = &p->response.node_endpoints[p->response.node_endpoints_count];
        uint16_t port;
        if (!is_named(p, brokers[i]->id) || !request_broker_address(r, brokers[i]->id, &e->host, &port, &e->rack))
            continue;
        e->node_id = brokers[i]->id;
        e->port = port;
        p->response.node_endpoints_count++;
    }
}

static void finish(struct produce *p)
{
    const produce_request *q = p->r->body;

    if (q->acks == 0 && p->failed) {
        request_close(p->r);
    } else if (q->acks == 0) {
        request_finish(p->r);
    } else {
        if (p->leaders_changed)
            fill_endpoints(p);
        request_reply(p->r, &p->response);
    }
}

static void take_record_errors(struct request *r, const Karst__Bus__AppendResult *from, partition_response *out)
{
    out->record_errors = arena_calloc(r->arena, from->n_record_errors, sizeof *out->record_errors);
    out->record_errors_count = (int32_t)from->n_record_errors;
    for (size_t i = 0; i < from->n_record_errors; i++) {
        const char *message = from->record_errors[i]->message;
        out->record_errors[i].batch_index = from->record_errors[i]->batch_index;
        out->record_errors[i].batch_index_error_message =
            *message ? slice_str(arena_str(r->arena, slice_str(message))) : SLICE_NULL;
    }
}

/* Kafka answers LogStartOffset with errors that the log itself found, and -1 with these. */
static bool hides_log_start(int32_t error)
{
    return error == KERR_CORRUPT_MESSAGE || error == KERR_UNKNOWN_TOPIC_OR_PARTITION ||
           error == KERR_NOT_LEADER_OR_FOLLOWER || error == KERR_MESSAGE_TOO_LARGE ||
           error == KERR_RECORD_LIST_TOO_LARGE || error == KERR_KAFKA_STORAGE_ERROR;
}

static void take_result(struct produce *p, const Karst__Bus__AppendResult *from, const struct part *part)
{
    partition_response *out = part->response;

    out->error_code = (int16_t)from->error;
    out->base_offset = from->base_offset;
    out->log_append_time_ms = from->log_append_time_ms;
    out->log_start_offset = hides_log_start(from->error) ? -1 : from->log_start_offset;
    if (from->error == KERR_NONE)
        return;
    p->failed = true;
    if (from->n_record_errors > 0) { /* else Kafka has no words either */
        out->error_message = slice_str(arena_str(p->r->arena, slice_str(from->error_message)));
        take_record_errors(p->r, from, out);
    }
    tell_leader(p, part, from->leader_id, from->leader_epoch);
}

static enum kafka_error error_of(Karst__Bus__Outcome outcome)
{
    switch (outcome) {
    case KARST__BUS__OUTCOME__OUTCOME_NOT_SENT:
    case KARST__BUS__OUTCOME__OUTCOME_EXPIRED:
    case KARST__BUS__OUTCOME__OUTCOME_OVERLOADED:
    case KARST__BUS__OUTCOME__OUTCOME_UNSUPPORTED: return KERR_NOT_LEADER_OR_FOLLOWER;
    case KARST__BUS__OUTCOME__OUTCOME_UNKNOWN:
    case KARST__BUS__OUTCOME__OUTCOME_TIMEOUT:
    case KARST__BUS__OUTCOME__OUTCOME_CANCELLED: return KERR_REQUEST_TIMED_OUT;
    default: return KERR_UNKNOWN_SERVER_ERROR;
    }
}

static void on_appended(void *ctx, const struct bus_result *result)
{
    struct append *a = ctx;
    struct produce *p = a->produce;
    const Karst__Bus__AppendReply *reply =
        result->outcome == KARST__BUS__OUTCOME__OUTCOME_OK && result->reply->body_case == KARST__BUS__REPLY__BODY_APPEND
            ? result->reply->append
            : NULL;

    for (size_t i = 0; i < a->count; i++) {
        if (reply != NULL && i < reply->n_results) {
            take_result(p, reply->results[i], &a->parts[i]);
            continue;
        }
        set_error(p, a->parts[i].response, reply != NULL ? KERR_UNKNOWN_SERVER_ERROR : error_of(result->outcome));
        tell_leader(p, &a->parts[i], -1, -1);
    }
    if (--p->calls == 0)
        finish(p);
}

/* ---- the Appends ---- */

static void send_append(struct append *a)
{
    struct request *r = a->produce->r;
    const produce_request *q = r->body;
    Karst__Bus__AppendRequest body = KARST__BUS__APPEND_REQUEST__INIT;
    Karst__Bus__AppendPartition *partitions = arena_alloc(r->arena, a->count * sizeof *partitions);
    Karst__Bus__AppendPartition **list = arena_alloc(r->arena, a->count * sizeof *list);
    struct ref *payloads = arena_alloc(r->arena, a->count * sizeof *payloads);

    for (size_t i = 0; i < a->count; i++) {
        const struct part *part = &a->parts[i];
        karst__bus__append_partition__init(&partitions[i]);
        partitions[i].topic_id = (ProtobufCBinaryData){16, (uint8_t *)(uintptr_t)part->topic->id.b};
        partitions[i].partition = part->partition->partition;
        partitions[i].leader_epoch = part->partition->leader_epoch;
        list[i] = &partitions[i];
        payloads[i] = request_frame_ref(r, part->records);
    }
    body.n_partitions = a->count;
    body.partitions = list;
    body.acks = q->acks;
    body.timeout_ms = (uint32_t)MAX(q->timeout_ms, 0);
    const struct bus_request call = {
        .kind = KARST__BUS__CALL__BODY_APPEND,
        .body = &body,
        .payloads = payloads,
        .payload_count = a->count,
        .timeout_ms = MIN(body.timeout_ms, (uint32_t)INT32_MAX - ANSWER_SLACK_MS) + ANSWER_SLACK_MS,
    };
    bus_call(r->frontend->bus, KARST__BUS__ROLE__ROLE_STORAGE, a->node, &call, on_appended, a);
    for (size_t i = 0; i < a->count; i++)
        ref_release(&payloads[i]);
}

static struct append *append_to(struct produce *p, int32_t node)
{
    struct append *a;

    for (a = p->appends; a != NULL; a = a->next)
        if (a->node == node)
            return a;
    a = arena_alloc(p->r->arena, sizeof *a);
    *a = (struct append){.produce = p,
                         .node = node,
                         .parts = arena_alloc(p->r->arena, p->part_max * sizeof *a->parts),
                         .next = p->appends};
    p->appends = a;
    return a;
}

/* ---- checks that need the client's version or the image ---- */

/* The next batch, whatever its header says beyond its size: what is wrong with it is storage's to tell. */
static bool take_batch(struct slice *rest, struct batch *batch)
{
    if (batch_parse_header(*rest, batch) < 0 || batch->size > rest->size)
        return false;
    *rest = slice_make(rest->data + batch->size, rest->size - batch->size);
    return true;
}

/* What Kafka's broker looks at before its log does (ProduceRequest.validateRecords): one whole batch of magic 2, of a
 * codec that the version knows. Null records Kafka 4.3.1 never answers. */
static enum kafka_error check_records(const struct request *r, struct slice records)
{
    struct batch batch;
    struct slice rest = records;

    if (records.size > RECORDS_MAX_BYTES)
        return KERR_MESSAGE_TOO_LARGE;
    if (!take_batch(&rest, &batch))
        return KERR_INVALID_RECORD;
    if (r->version < ZSTD_FROM && batch_codec(&batch) == CODEC_ZSTD)
        return KERR_UNSUPPORTED_COMPRESSION_TYPE;
    return take_batch(&rest, &batch) ? KERR_INVALID_RECORD : KERR_NONE;
}

static bool is_transactional(struct slice records)
{
    struct batch batch;

    /* What is no whole batch is storage's to refuse. */
    return batch_parse_header(records, &batch) == 0 && batch.size <= records.size && batch_is_transactional(&batch);
}

static void add_part(struct produce *p, const struct image_topic *topic, enum kafka_error topic_error,
                     const struct kafka_produce_request_partition_produce_data *in, partition_response *out)
{
    enum kafka_error error = topic_error;
    const struct image_partition *partition = topic != NULL ? image_partition(topic, in->index) : NULL;

    kafka_produce_response_partition_produce_response_init(out);
    out->index = in->index;
    if (error == KERR_NONE && partition == NULL)
        error = KERR_UNKNOWN_TOPIC_OR_PARTITION;
    if (error == KERR_NONE && is_transactional(in->records))
        error = KERR_INVALID_PRODUCER_ID_MAPPING; /* no transactional id is known: InitProducerId refuses them */
    if (error == KERR_NONE)
        error = check_records(p->r, in->records);
    if (error == KERR_NONE && partition->leader < 0)
        error = api_leaderless(p->r->image, partition);
    struct part part = {out, in->records, topic, partition};
    if (error != KERR_NONE) {
        set_error(p, out, error);
        tell_leader(p, &part, -1, -1);
        return;
    }
    struct append *a = append_to(p, partition->leader);
    a->parts[a->count++] = part;
}

static const struct image_topic *find_topic(const struct request *r,
                                            const struct kafka_produce_request_topic_produce_data *t,
                                            enum kafka_error *ret_error)
{
    bool by_id = r->version >= ID_FROM;
    const struct image_topic *topic =
        by_id ? image_topic_by_id(r->image, t->topic_id) : image_topic_by_name(r->image, t->name);

    *ret_error = KERR_NONE;
    if (topic == NULL)
        *ret_error = by_id ? KERR_UNKNOWN_TOPIC_ID : KERR_UNKNOWN_TOPIC_OR_PARTITION;
    else if (api_topic_is_internal(topic->name))
        *ret_error = KERR_INVALID_TOPIC_EXCEPTION;
    return topic;
}

static void make_response(struct request *r, produce_response *response)
{
    const produce_request *q = r->body;

    kafka_produce_response_init(response);
    response->responses = arena_alloc(r->arena, (size_t)q->topic_data_count * sizeof *response->responses);
    response->responses_count = q->topic_data_count;
    for (int32_t i = 0; i < q->topic_data_count; i++) {
        const struct kafka_produce_request_topic_produce_data *in = &q->topic_data[i];
        struct kafka_produce_response_topic_produce_response *out = &response->responses[i];
        out->name = in->name;
        out->topic_id = in->topic_id;
        out->partition_responses =
            arena_alloc(r->arena, (size_t)in->partition_data_count * sizeof *out->partition_responses);
        out->partition_responses_count = in->partition_data_count;
    }
}

static void fail(struct request *r, enum kafka_error error, const char *message)
{
    const produce_request *q = r->body;
    struct produce p = {.r = r};

    make_response(r, &p.response);
    for (int32_t i = 0; i < q->topic_data_count; i++)
        for (int32_t j = 0; j < q->topic_data[i].partition_data_count; j++) {
            partition_response *out = &p.response.responses[i].partition_responses[j];
            kafka_produce_response_partition_produce_response_init(out);
            out->index = q->topic_data[i].partition_data[j].index;
            set_error(&p, out, error);
            out->error_message = slice_str(message);
        }
    p.failed = true;
    finish(&p);
}

/* Bytes that Kafka's reader of batches throws on, in its order (ByteBufferLogInputStream); too few bytes are no batch,
 * which is another error, and storage's. */
static const char *find_rubbish(const struct request *r, struct slice records)
{
    if (records.size < BATCH_LENGTH_OVERHEAD)
        return NULL;
    int32_t length = get_i32(records.data + BATCH_LENGTH);
    if (length < BATCH_LENGTH_MIN)
        return arena_printf(r->arena, "Record size %d is less than the minimum record overhead (%d)", length,
                            BATCH_LENGTH_MIN);
    if (records.size <= BATCH_MAGIC || records.data[BATCH_MAGIC] <= RECORDS_MAGIC)
        return NULL;
    return arena_printf(r->arena, "Invalid magic found in record: %d", (int8_t)records.data[BATCH_MAGIC]);
}

/* The error of the request as a whole, before any partition is looked at. */
static enum kafka_error check_request(const struct request *r, size_t *ret_parts, const char **ret_message)
{
    const produce_request *q = r->body;
    bool transactional = false;

    *ret_parts = 0;
    *ret_message = NULL;
    for (int32_t i = 0; i < q->topic_data_count; i++) {
        const struct kafka_produce_request_topic_produce_data *t = &q->topic_data[i];
        *ret_parts += (size_t)t->partition_data_count;
        for (int32_t j = 0; j < t->partition_data_count; j++) {
            transactional = transactional || is_transactional(t->partition_data[j].records);
            if (*ret_message == NULL)
                *ret_message = find_rubbish(r, t->partition_data[j].records);
        }
    }
    if (*ret_message != NULL)
        return KERR_CORRUPT_MESSAGE;
    if (transactional && slice_is_null(q->transactional_id))
        return KERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED;
    return q->acks < -1 || q->acks > 1 ? KERR_INVALID_REQUIRED_ACKS : KERR_NONE;
}

static void handle(struct request *r)
{
    const produce_request *q = r->body;
    struct produce *p = arena_calloc(r->arena, 1, sizeof *p);
    const char *message;
    enum kafka_error error = check_request(r, &p->part_max, &message);

    if (error != KERR_NONE) {
        fail(r, error, message);
        return;
    }
    p->r = r;
    make_response(r, &p->response);
    for (int32_t i = 0; i < q->topic_data_count; i++) {
        const struct image_topic *topic = find_topic(r, &q->topic_data[i], &error);
        for (int32_t j = 0; j < q->topic_data[i].partition_data_count; j++)
            add_part(p, topic, error, &q->topic_data[i].partition_data[j],
                     &p->response.responses[i].partition_responses[j]);
    }
    if (p->appends == NULL) {
        finish(p);
        return;
    }
    for (struct append *a = p->appends; a != NULL; a = a->next)
        p->calls++;
    for (struct append *a = p->appends; a != NULL; a = a->next)
        send_append(a);
}

/* Old librdkafka insists on version 0 being listed; Kafka lists it and closes the connection of who sends 0 to 2
 * (apis.md). */
const struct api_handler api_produce = {.key = KAFKA_API_PRODUCE,
                                        .version_min = 3,
                                        .version_max = 13,
                                        .listed_min = 0,
                                        .listed_lower = true,
                                        .overlaps = true,
                                        .handle = handle,
                                        .fail = fail};
