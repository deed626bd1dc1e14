/* fetch_reply.c - the answer of a Fetch out of what the nodes have said. Records go from the bus to the socket as they
 * are: bytes of a message, or a part of a file that goes to the client with sendfile. */
#include "services/frontend/api_common.h"
#include "services/frontend/fetch.h"

#include <sys/random.h>

enum { ENDPOINTS_FROM = 16, ID_FROM = 13, CREATE_TRIES = 8 };

void fetch_set_error(struct fetch_part *part, enum kafka_error error)
{
    kafka_fetch_response_partition_data_init(&part->data);
    part->data.partition_index = part->p.key.partition;
    part->data.error_code = (int16_t)error;
    part->data.high_watermark = -1;
    part->data.records = SLICE_EMPTY;
    part->records = REF_EMPTY;
    part->answered = true;
}

static void take_aborted(struct fetch *f, const Karst__Bus__ReadResult *from, partition_data *to)
{
    to->aborted_transactions_count = f->read_committed ? (int32_t)from->n_aborted : -1;
    if (!f->read_committed)
        return;
    to->aborted_transactions = arena_alloc(f->r->arena, from->n_aborted * sizeof *to->aborted_transactions);
    for (size_t i = 0; i < from->n_aborted; i++) {
        to->aborted_transactions[i].producer_id = from->aborted[i]->producer_id;
        to->aborted_transactions[i].first_offset = from->aborted[i]->first_offset;
    }
}

/* What storage knows of the leader, which is told with errors alone (tell_leader). */
static void take_leader(const Karst__Bus__ReadResult *from, partition_data *to)
{
    if (from->leader_id < 0)
        return;
    to->current_leader.leader_id = from->leader_id;
    to->current_leader.leader_epoch = from->leader_epoch;
}

/* That an offset is out of range makes a client begin somewhere else: only those may say it who know who leads. Else it
 * asks again, as of a leader that was replaced. */
static enum kafka_error error_of(const struct fetch *f, const Karst__Bus__ReadResult *from)
{
    enum kafka_error error = (enum kafka_error)from->error;
    return error == KERR_OFFSET_OUT_OF_RANGE && !service_is_current(f->r->frontend->service)
               ? KERR_NOT_LEADER_OR_FOLLOWER
               : error;
}

void fetch_take_result(struct fetch *f, struct fetch_part *part, const Karst__Bus__ReadResult *from,
                       const struct bus_result *result)
{
    fetch_set_error(part, error_of(f, from));
    part->data.high_watermark = from->high_watermark;
    part->data.last_stable_offset = from->last_stable_offset;
    part->data.log_start_offset = from->log_start_offset;
    part->data.preferred_read_replica = (int32_t)from->preferred_replica - 1;
    take_aborted(f, from, &part->data);
    take_leader(from, &part->data);
    if (from->diverging_epoch >= 0) {
        part->data.diverging_epoch.epoch = from->diverging_epoch;
        part->data.diverging_epoch.end_offset = from->diverging_end_offset;
    }
    if (from->payload < 0 || (size_t)from->payload >= result->payload_count)
        return;
    const struct ref *records = &result->payloads[from->payload];
    if (records->kind != REF_FILE && records->size_bytes > FETCH_ROOM_MIN_BYTES &&
        records->size_bytes > pipeline_output_room(f->r->frontend->pipeline))
        return; /* others do not read their answers; the client asks again */
    part->records = *records;
    request_keep(f->r, &part->records);
    part->data.records = slice_make("", part->records.size_bytes);
    f->has_data = f->has_data || part->records.size_bytes > 0;
}

/* ---- sessions ---- */

static struct session_outcome outcome_of(const struct fetch_part *part)
{
    return (struct session_outcome){
        .error = (enum kafka_error)part->data.error_code,
        .high_watermark = part->data.high_watermark,
        .log_start_offset = part->data.log_start_offset,
        .records_bytes = part->records.size_bytes,
        .diverging = part->data.diverging_epoch.epoch >= 0,
        .preferred_replica = part->data.preferred_read_replica,
    };
}

static struct session *create_session(struct fetch *f)
{
    struct frontend *fe = f->r->frontend;
    struct session *s;

    for (int i = 0; i < CREATE_TRIES; i++) {
        int32_t id;
        if (getrandom(&id, sizeof id, 0) != sizeof id)
            return NULL;
        int e = session_create(fe->sessions, id & INT32_MAX, f->r->version >= ID_FROM, false, f->count,
                               loop_now_ms(fe->loop), &s);
        if (e == 0)
            return s;
        if (e != -EAGAIN)
            return NULL;
    }
    return NULL;
}

/* 0: the client goes on without a session. */
static int32_t make_session(struct fetch *f)
{
    struct session_cache *cache = f->r->frontend->sessions;
    struct session *s = f->count <= FETCH_SESSION_PARTITIONS_MAX ? create_session(f) : NULL;

    if (s == NULL)
        return 0;
    for (uint32_t i = 0; i < f->count; i++) {
        struct fetch_part *part = &f->parts[i];
        struct session_outcome outcome = outcome_of(part);
        if (session_put(cache, s, &part->p) < 0) {
            session_close(cache, session_id(s));
            return 0;
        }
        session_note(session_get(s, &part->p.key), &outcome);
    }
    return session_id(s);
}

/* Is the part in the answer? */
static bool is_told(struct session *s, struct fetch_part *part)
{
    struct session_outcome outcome = outcome_of(part);
    struct session_partition *p = s != NULL ? session_get(s, &part->p.key) : NULL;

    /* The session or the partition has gone meanwhile: what was read is told; the client's next Fetch is told the rest.
     */
    return p == NULL || session_tell(s, p, &outcome);
}

/* ---- the message ---- */

struct builder {
    struct fetch *f;
    fetch_response response;
    partition_data *partitions;
    struct ref *refs;
    size_t count;
    bool has_leaders;
};

/* KIP-951: the newest of what storage has said and what we know. Kafka names a leader with each such error, -1 while
 * there is none, and never else. True: there is one to be found. */
static bool tell_leader(const struct request *r, const struct session_key *key, partition_data *data)
{
    int32_t known, known_epoch;
    bool is_wanted = data->error_code == KERR_NOT_LEADER_OR_FOLLOWER || data->error_code == KERR_FENCED_LEADER_EPOCH;

    if (!is_wanted || r->version < ENDPOINTS_FROM) {
        data->current_leader.leader_id = data->current_leader.leader_epoch = -1;
        return false;
    }
    api_newest_leader(r->frontend->image, key->topic_id, key->partition, &known, &known_epoch);
    if (data->current_leader.leader_id < 0 || known_epoch > data->current_leader.leader_epoch) {
        data->current_leader.leader_id = known;
        data->current_leader.leader_epoch = known_epoch;
    }
    return data->current_leader.leader_id >= 0;
}

/* Parts that follow each other and are of one topic share its entry. */
static void add_part(struct builder *b, const struct fetch_part *part)
{
    struct kafka_fetch_response_fetchable_topic_response *t =
        b->response.responses_count > 0 ? &b->response.responses[b->response.responses_count - 1] : NULL;
    const struct session_key *k = &part->p.key;

    if (t == NULL || !uuid_eq(t->topic_id, k->topic_id) ||
        !slice_eq(t->topic, slice_is_null(k->topic) ? SLICE_EMPTY : k->topic)) {
        t = &b->response.responses[b->response.responses_count++];
        t->topic = slice_is_null(k->topic) ? SLICE_EMPTY : k->topic;
        t->topic_id = k->topic_id;
        t->partitions = &b->partitions[b->count];
        t->partitions_count = 0;
    }
    b->partitions[b->count] = part->data;
    if (part->data.error_code != KERR_NONE || part->data.current_leader.leader_id >= 0)
        b->has_leaders = tell_leader(b->f->r, k, &b->partitions[b->count]) || b->has_leaders;
    b->refs[b->count++] = part->records;
    t->partitions_count++;
}

static bool is_named(const struct builder *b, int32_t broker)
{
    for (size_t i = 0; i < b->count; i++)
        if (b->partitions[i].current_leader.leader_id == broker)
            return true;
    return false;
}

static void fill_endpoints(struct builder *b)
{
    struct request *r = b->f->r;
    int32_t count;
    const struct image_broker *const *brokers = image_brokers(r->image, &count);

    b->response.node_endpoints = arena_alloc(r->arena, (size_t)count * sizeof *b->response.node_endpoints);
    for (int32_t i = 0; i < count; i++) {
        struct kafka_fetch_response_node_endpoint *e = &b->response.node_endpoints[b->response.node_endpoints_count];
        uint16_t port;
        if (!is_named(b, brokers[i]->id) || !request_broker_address(r, brokers[i]->id, &e->host, &port, &e->rack))
            continue;
        e->node_id = brokers[i]->id;
        e->port = port;
        b->response.node_endpoints_count++;
    }
}

void fetch_reply(struct fetch *f)
{
    struct request *r = f->r;
    struct builder b = {.f = f};
    struct session *session = f->kind == FETCH_INCREMENTAL ? session_find(r->frontend->sessions, f->session_id) : NULL;

    kafka_fetch_response_init(&b.response);
    b.response.responses = arena_alloc(r->arena, f->count * sizeof *b.response.responses);
    b.partitions = arena_alloc(r->arena, f->count * sizeof *b.partitions);
    b.refs = arena_alloc(r->arena, f->count * sizeof *b.refs);
    for (uint32_t i = 0; i < f->count; i++)
        if (f->kind != FETCH_INCREMENTAL || (f->parts[i].answered && is_told(session, &f->parts[i])))
            add_part(&b, &f->parts[i]);
    b.response.session_id = f->kind == FETCH_NEW_SESSION ? make_session(f) : f->session_id;
    if (b.has_leaders && !f->is_replica)
        fill_endpoints(&b);
    request_reply_refs(r, &b.response, b.refs, b.count);
}

void fetch_reply_refused(struct request *r, enum kafka_error error)
{
    fetch_response response;

    kafka_fetch_response_init(&response);
    response.error_code = (int16_t)error;
    request_reply(r, &response);
}
