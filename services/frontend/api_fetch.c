/* api_fetch.c - Fetch 4-18: what a client asks for, with its session (KIP-227), as Reads of the storage nodes that
 * lead.
 *
 * One Read a node, with all of its partitions. A node parks a Read that is short of min_bytes and answers it once:
 * data, an error, a change of what the session was told, or the end of max_wait. With one node, which is what clients'
 * own leader routing leads to, MaxBytes, MinBytes and MaxWaitMs are the node's to keep, exactly as Kafka's. With
 * several, each gets its share of MaxBytes and the whole MinBytes, and the first with data ends the wait: the others
 * have a few milliseconds more, as their data usually is there too, and are then asked for what they have.
 *
 * A Read is `pure`: when its link is lost it is asked again until the end of max_wait; then the partitions are answered
 * with NOT_LEADER_OR_FOLLOWER, on which every client refreshes its metadata and asks again. When another node leads
 * meanwhile, the Fetch is asked there. */
#include "services/frontend/api_common.h"
#include "services/frontend/fetch.h"

#include "kafka/apis.h"

#include <utlist.h>

enum {
    ID_FROM = 13,
    REPLICA_STATE_FROM = 15,
    SLACK_MS = 2000,
    RETRY_MS = 20,
    GRACE_MS = 5,
    HURRY_MS = 50,
    RELIEVE_FROM = 500,                           /* partitions: some 200 KB */
    SET_FROM = 8,                                 /* partitions: for fewer a set is not worth its keep */
    PART_BYTES = sizeof(struct fetch_part) + 128, /* of memory for one partition, what is sent to its node included */
};

static void send_read(struct fetch_read *read);
static void ask_for_all(struct fetch *f);
static void move(struct fetch *f);
static void ask_leaders(struct fetch *f);
static void send_reads(struct fetch *f);

/* ---- the end ---- */

static void finish(struct fetch *f)
{
    f->grace = loop_timer_stop(f->grace);
    fetch_release_room(f);
    DL_DELETE(f->r->frontend->parked, f);
    if (f->is_cancelled || request_is_gone(f->r)) {
        request_close(f->r);
        return;
    }
    for (uint32_t i = 0; i < f->count; i++)
        if (!f->parts[i].answered && f->kind != FETCH_INCREMENTAL)
            fetch_set_error(&f->parts[i], KERR_NOT_LEADER_OR_FOLLOWER);
    fetch_reply(f);
}

static void read_ended(struct fetch_read *read)
{
    struct fetch *f = read->fetch;

    if (--f->reads_left > 0)
        return;
    if (f->is_moving && !f->has_data && !f->is_cancelled && !f->is_relieved)
        move(f);
    else if (!f->is_cancelled && !f->is_relieved && fetch_is_misled(f))
        ask_leaders(f);
    else
        finish(f);
}

/* Ends what is still asked; done functions run later in the turn. */
static void stop_reads(struct fetch *f)
{
    for (struct fetch_read *read = f->reads, *next; read != NULL; read = next) {
        next = read->next;
        if (read->call != 0) {
            bus_cancel(f->r->frontend->bus, read->call);
        } else if (read->retry != NULL) {
            read->retry = loop_timer_stop(read->retry);
            bool last = f->reads_left == 1;
            read_ended(read);
            if (last)
                return;
        }
    }
}

static void on_gone(struct request *r UNUSED, void *ctx)
{
    struct fetch *f = ctx;

    f->is_cancelled = true;
    stop_reads(f);
}

void fetch_drain(struct frontend *frontend)
{
    struct fetch *f, *next;

    DL_FOREACH_SAFE(frontend->parked, f, next)
    {
        f->is_cancelled = true;
        stop_reads(f);
    }
}

void fetch_relieve(struct frontend *frontend)
{
    struct fetch *f, *largest = NULL;

    DL_FOREACH (frontend->parked, f)
        if (f->count >= RELIEVE_FROM && !f->is_relieved && (largest == NULL || f->count > largest->count))
            largest = f;
    if (largest == NULL)
        return;
    largest->is_relieved = true;
    stop_reads(largest);
}

/* What the other nodes have is usually there, too: they are asked for it once, without waiting. Who does not answer
 * that either is left out. */
static void on_grace_over(void *ctx)
{
    struct fetch *f = ctx;

    f->grace = loop_timer_stop(f->grace);
    if (f->is_hurried) {
        stop_reads(f);
        return;
    }
    f->is_hurried = true;
    f->wait_until_ms = 0;
    f->grace = loop_timer_start(f->r->frontend->loop, HURRY_MS, 0, on_grace_over, f);
    for (struct fetch_read *read = f->reads; read != NULL; read = read->next)
        read->is_hurried = read->call != 0;
    stop_reads(f);
}

/* ---- Reads ---- */

static void on_retry(void *ctx)
{
    struct fetch_read *read = ctx;

    read->retry = loop_timer_stop(read->retry);
    send_read(read);
}

static void take_reply(struct fetch_read *read, const struct bus_result *result)
{
    struct fetch *f = read->fetch;
    const Karst__Bus__ReadReply *reply = result->reply->read;

    for (uint32_t i = 0; i < read->count; i++) {
        struct fetch_part *part = &f->parts[read->parts[i]];
        if (i < reply->n_results)
            fetch_take_result(f, part, reply->results[i], result);
        else
            fetch_set_error(part, KERR_UNKNOWN_SERVER_ERROR);
    }
}

static void set_errors(struct fetch_read *read, enum kafka_error error)
{
    for (uint32_t i = 0; i < read->count; i++)
        fetch_set_error(&read->fetch->parts[read->parts[i]], error);
}

static void on_read(void *ctx, const struct bus_result *result)
{
    struct fetch_read *read = ctx;
    struct fetch *f = read->fetch;
    struct frontend *frontend = f->r->frontend;

    read->call = 0;
    bool is_good =
        result->outcome == KARST__BUS__OUTCOME__OUTCOME_OK && result->reply->body_case == KARST__BUS__REPLY__BODY_READ;
    if (read->is_hurried && !is_good && !f->is_cancelled && !f->is_relieved) {
        read->is_hurried = false;
        send_read(read);
        return;
    }
    if (f->set != SET_NONE && !(is_good && !result->reply->read->set_unknown)) {
        bool is_refused = is_good && f->set == SET_MADE;
        fetch_set_lost(f, is_refused);
        if (!f->is_cancelled && !f->is_relieved && !f->is_moving &&
            result->outcome != KARST__BUS__OUTCOME__OUTCOME_CANCELLED) {
            ask_for_all(f);
            return;
        }
        f->count = 0; /* nothing to tell */
    } else if (f->set != SET_NONE) {
        fetch_set_take(f, result);
        f->is_moving = false; /* the node believes that the client is told */
    } else if (is_good) {
        take_reply(read, result);
    } else if (f->is_moving) {
        /* asked elsewhere, however this has ended */
    } else if (result->outcome != KARST__BUS__OUTCOME__OUTCOME_CANCELLED && !f->is_cancelled && !f->is_relieved &&
               (!fetch_chooses(f) || f->leaders_only) && loop_now_ms(frontend->loop) + RETRY_MS < f->wait_until_ms) {
        read->retry = loop_timer_start(frontend->loop, RETRY_MS, 0, on_retry, read);
        return;
    } else if (result->outcome != KARST__BUS__OUTCOME__OUTCOME_CANCELLED) {
        set_errors(read, KERR_NOT_LEADER_OR_FOLLOWER);
    }
    if (f->has_data && f->reads_left > 1 && f->grace == NULL)
        f->grace = loop_timer_start(frontend->loop, GRACE_MS, 0, on_grace_over, f);
    read_ended(read);
}

static void fill_partition(const struct fetch *f, const struct fetch_part *part, Karst__Bus__ReadPartition *to)
{
    bool told = f->kind == FETCH_INCREMENTAL;

    karst__bus__read_partition__init(to);
    to->topic_id = (ProtobufCBinaryData){16, (uint8_t *)(uintptr_t)part->topic->id.b};
    to->partition = part->p.key.partition;
    to->current_leader_epoch = part->p.leader_epoch;
    to->fetch_offset = part->p.fetch_offset;
    to->last_fetched_epoch = part->p.last_fetched_epoch;
    to->max_bytes = (uint32_t)MAX(part->p.max_bytes, 0);
    to->log_start_offset = -1;
    to->known_high_watermark = told ? part->p.known_high_watermark : -2;
    to->known_log_start_offset = told ? part->p.known_log_start_offset : -2;
    to->index = part->place;
}

static void send_read(struct fetch_read *read)
{
    struct fetch *f = read->fetch;
    struct frontend *frontend = f->r->frontend;
    Karst__Bus__ReadRequest body = KARST__BUS__READ_REQUEST__INIT;
    Karst__Bus__ReadPartition *partitions = arena_alloc(f->r->arena, read->count * sizeof *partitions);
    Karst__Bus__ReadPartition **list = arena_alloc(f->r->arena, read->count * sizeof *list);
    uint64_t now = loop_now_ms(frontend->loop);

    for (uint32_t i = 0; i < read->count; i++) {
        fill_partition(f, &f->parts[read->parts[i]], &partitions[i]);
        list[i] = &partitions[i];
    }
    body.n_partitions = read->count;
    body.partitions = list;
    body.max_wait_ms = f->wait_until_ms > now ? (uint32_t)(f->wait_until_ms - now) : 0;
    body.min_bytes = f->min_bytes;
    body.max_bytes = f->max_bytes / f->reads_count;
    body.read_committed = f->read_committed;
    body.replica_id = -1;
    body.of_follower = f->rack[0] != 0;
    body.rack = (char *)(uintptr_t)(fetch_chooses(f) ? "" : f->rack);
    if (f->set != SET_NONE)
        fetch_set_fill(f, &body);
    const struct bus_request call = {
        .kind = KARST__BUS__CALL__BODY_READ,
        .body = &body,
        .timeout_ms = MIN(body.max_wait_ms, (uint32_t)INT32_MAX - SLACK_MS) + SLACK_MS,
    };
    read->call = bus_call(frontend->bus, KARST__BUS__ROLE__ROLE_STORAGE, read->node, &call, on_read, read);
}

static struct fetch_read *read_of(struct fetch *f, int32_t node)
{
    struct fetch_read *read;

    for (read = f->reads; read != NULL; read = read->next)
        if (read->node == node)
            return read;
    read = arena_alloc(f->r->arena, sizeof *read);
    *read = (struct fetch_read){
        .fetch = f, .node = node, .parts = arena_alloc(f->r->arena, f->count * sizeof *read->parts), .next = f->reads};
    f->reads = read;
    f->reads_count++;
    return read;
}

/* ---- what is asked ---- */

/* Finds the partition in the image; false: it is answered with the error. */
static bool find_partition(struct fetch *f, struct fetch_part *part)
{
    const struct request *r = f->r;
    bool by_id = r->version >= ID_FROM;

    part->topic =
        by_id ? image_topic_by_id(r->image, part->p.key.topic_id) : image_topic_by_name(r->image, part->p.key.topic);
    part->partition = part->topic != NULL ? image_partition(part->topic, part->p.key.partition) : NULL;
    if (part->partition != NULL)
        return true;
    fetch_set_error(part, by_id && part->topic == NULL ? KERR_UNKNOWN_TOPIC_ID : KERR_UNKNOWN_TOPIC_OR_PARTITION);
    return false;
}

static void resolve(struct fetch *f, uint32_t i)
{
    struct fetch_part *part = &f->parts[i];

    if (!find_partition(f, part))
        return;
    if (part->partition->leader < 0) {
        fetch_set_error(part, api_leaderless(f->r->image, part->partition));
        return;
    }
    struct fetch_read *read = read_of(f, fetch_node(f, f->r->image, part->partition));
    read->parts[read->count++] = i;
}

/* Room for the partitions, which the client's input is charged with until the answer. */
static void make_parts(struct fetch *f, size_t count)
{
    f->parts = arena_calloc(f->r->arena, count, sizeof *f->parts);
    if (!request_is_gone(f->r))
        pipeline_charge(f->r->frontend->pipeline, running_of(f->r)->id, count * PART_BYTES);
}

static void add_part(struct fetch *f, const struct session_partition *p)
{
    struct fetch_part *part = &f->parts[f->count++];

    part->p = *p;
    part->p.key.topic = arena_dup(f->r->arena, p->key.topic); /* the session may be evicted meanwhile */
    part->place = session_place(p);
}

static void add_remembered(struct fetch *f, struct session *s)
{
    make_parts(f, session_size(s));
    for (struct session_partition *p = session_first(s); p != NULL; p = session_next(p))
        add_part(f, p);
}

/* ---- sets: what a node keeps of a session, so that neither side looks at all of it each time ---- */

/* Names what has changed, if a node has the session's set. False: nothing has happened. */
static bool use_set(struct fetch *f)
{
    struct session *s = session_find(f->r->frontend->sessions, f->session_id);

    if (!fetch_set_is_known(f, s))
        return false;
    make_parts(f, fetch_set_changes(s));
    for (struct session_partition *p = session_first_changed(s); p != NULL; p = session_next_changed(p))
        add_part(f, p);
    struct fetch_read *read = read_of(f, session_interest(s)->node);
    for (uint32_t i = 0; i < f->count; i++)
        resolve(f, i);
    return fetch_set_use(f, s, read);
}

/* Without a set, after all. */
static void ask_for_all(struct fetch *f)
{
    struct session *s = session_find(f->r->frontend->sessions, f->session_id);

    f->set = SET_NONE;
    f->reads = NULL;
    f->reads_count = f->reads_left = 0;
    f->count = 0;
    if (s != NULL) {
        add_remembered(f, s);
        for (uint32_t i = 0; i < f->count; i++)
            resolve(f, i);
    }
    send_reads(f);
}

/* All is resolved: Reads are sent, or there is nothing to wait for. */
static void send_reads(struct fetch *f)
{
    if (f->reads == NULL) {
        finish(f);
        return;
    }
    f->reads_left = f->reads_count;
    for (struct fetch_read *read = f->reads; read != NULL; read = read->next)
        send_read(read);
}

/* ---- other leaders ----
 *
 * Reads that are parked at a node which leads no more are asked of the one that does. Whether the client may read there
 * with the epoch that it knows is that node's to say, as Kafka's does. */

void fetch_leaders_changed(struct frontend *frontend)
{
    struct fetch *f, *next;

    DL_FOREACH_SAFE(frontend->parked, f, next)
    {
        if (f->is_cancelled || f->is_relieved || f->is_moving || f->has_data || !fetch_has_moved(f))
            continue;
        f->is_moving = true;
        stop_reads(f);
    }
}

static void move(struct fetch *f)
{
    struct request *r = f->r;

    f->is_moving = false;
    image_release(r->image);
    r->image = image_retain(r->frontend->image);
    if (f->kind == FETCH_INCREMENTAL) {
        ask_for_all(f);
        return;
    }
    f->reads = NULL;
    f->reads_count = 0;
    for (uint32_t i = 0; i < f->count; i++) {
        f->parts[i].answered = false;
        resolve(f, i);
    }
    send_reads(f);
}

/* A follower that was chosen here cannot answer: all is asked of the leaders. */
static void ask_leaders(struct fetch *f)
{
    f->leaders_only = true;
    f->has_data = f->is_hurried = false;
    f->grace = loop_timer_stop(f->grace);
    move(f);
}

static void start(struct fetch *f)
{
    const struct request *r = f->r;
    const fetch_request *q = r->body;
    struct frontend *frontend = r->frontend;

    f->read_committed = q->isolation_level == 1;
    if (fetch_knows_racks(frontend))
        f->rack = arena_str(r->arena, q->rack_id);
    fetch_reserve_room(f, (uint64_t)MAX(MIN(q->max_bytes, frontend->fetch_max_bytes), 0));
    f->min_bytes = MIN((uint32_t)MAX(q->min_bytes, 0), f->max_bytes);
    f->wait_until_ms = r->arrived_ms + (uint64_t)MAX(q->max_wait_ms, 0);
    DL_APPEND(frontend->parked, f);
    request_on_gone(f->r, on_gone, f);
    if (f->kind == FETCH_INCREMENTAL && !fetch_chooses(f) && use_set(f)) {
        send_reads(f);
        return;
    }
    if (f->kind == FETCH_INCREMENTAL) {
        f->reads = NULL;
        f->reads_count = f->count = 0;
        add_remembered(f, session_find(frontend->sessions, f->session_id));
    }
    for (uint32_t i = 0; i < f->count; i++)
        resolve(f, i);
    if (f->kind == FETCH_INCREMENTAL && !fetch_chooses(f))
        fetch_set_make(f);
    send_reads(f);
}

static struct session_partition partition_of(const struct request *r, const struct kafka_fetch_request_fetch_topic *t,
                                             const struct kafka_fetch_request_fetch_partition *p)
{
    bool by_id = r->version >= ID_FROM;

    return (struct session_partition){
        .key = {by_id ? t->topic_id : UUID_ZERO, by_id ? SLICE_NULL : t->topic, p->partition},
        .fetch_offset = p->fetch_offset,
        .log_start_offset = p->log_start_offset,
        .max_bytes = p->partition_max_bytes,
        .leader_epoch = p->current_leader_epoch,
        .last_fetched_epoch = p->last_fetched_epoch,
        .known_high_watermark = -1,
        .known_log_start_offset = -1,
    };
}

static void add_asked(struct fetch *f)
{
    const fetch_request *q = f->r->body;
    size_t count = 0;

    for (int32_t i = 0; i < q->topics_count; i++)
        count += (size_t)q->topics[i].partitions_count;
    make_parts(f, count);
    for (int32_t i = 0; i < q->topics_count; i++)
        for (int32_t j = 0; j < q->topics[i].partitions_count; j++)
            f->parts[f->count++].p = partition_of(f->r, &q->topics[i], &q->topics[i].partitions[j]);
}

/* What the client changes in its session. -ENOSPC: it, or all of them, are full. */
static int update_session(struct fetch *f, struct session *s)
{
    const fetch_request *q = f->r->body;
    struct session_cache *cache = f->r->frontend->sessions;
    bool by_id = f->r->version >= ID_FROM;

    for (int32_t i = 0; i < q->topics_count; i++)
        for (int32_t j = 0; j < q->topics[i].partitions_count; j++) {
            struct session_partition p = partition_of(f->r, &q->topics[i], &q->topics[i].partitions[j]);
            int e = session_put(cache, s, &p);
            if (e < 0)
                return e;
        }
    for (int32_t i = 0; i < q->forgotten_topics_data_count; i++) {
        const struct kafka_fetch_request_forgotten_topic *t = &q->forgotten_topics_data[i];
        for (int32_t j = 0; j < t->partitions_count; j++) {
            const struct session_key key = {by_id ? t->topic_id : UUID_ZERO, by_id ? SLICE_NULL : t->topic,
                                            t->partitions[j]};
            session_forget(cache, s, &key);
        }
    }
    return session_size(s) > FETCH_SESSION_PARTITIONS_MAX ? -ENOSPC : 0;
}

static enum kafka_error use_session(struct fetch *f)
{
    const fetch_request *q = f->r->body;
    struct frontend *frontend = f->r->frontend;
    struct session *s;
    enum kafka_error error =
        session_use(frontend->sessions, q->session_id, q->session_epoch, f->r->version >= ID_FROM, &s);

    if (error != KERR_NONE)
        return error;
    if (update_session(f, s) < 0) {
        session_close(frontend->sessions, q->session_id);
        return KERR_FETCH_SESSION_ID_NOT_FOUND; /* on which the client asks for all in one full Fetch */
    }
    if (session_size(s) == 0) {
        session_close(frontend->sessions, q->session_id);
        f->kind = FETCH_SESSIONLESS;
        return KERR_NONE;
    }
    session_advance(frontend->sessions, s, loop_now_ms(frontend->loop));
    f->kind = FETCH_INCREMENTAL;
    f->session_id = q->session_id;
    return KERR_NONE;
}

/* Brokers that replicate use the bus; who names a replica here is none of ours. */
static bool is_replica(const struct request *r)
{
    const fetch_request *q = r->body;

    return (r->version >= REPLICA_STATE_FROM ? q->replica_state.replica_id : q->replica_id) >= 0;
}

static struct fetch *new_fetch(struct request *r)
{
    struct fetch *f = arena_calloc(r->arena, 1, sizeof *f);

    f->r = r;
    f->rack = "";
    return f;
}

static void fail(struct request *r, enum kafka_error error, const char *message UNUSED)
{
    struct fetch *f = new_fetch(r);

    add_asked(f);
    for (uint32_t i = 0; i < f->count; i++)
        fetch_set_error(&f->parts[i], error);
    fetch_reply(f);
}

static void refuse_replica(struct request *r)
{
    struct fetch *f = new_fetch(r);

    f->is_replica = true;
    add_asked(f);
    for (uint32_t i = 0; i < f->count; i++) {
        struct fetch_part *part = &f->parts[i];
        if (!find_partition(f, part))
            continue;
        fetch_set_error(part, KERR_NOT_LEADER_OR_FOLLOWER);
        part->data.aborted_transactions_count = -1;
    }
    fetch_reply(f);
}

static void handle(struct request *r)
{
    const fetch_request *q = r->body;
    struct fetch *f = new_fetch(r);

    if (is_replica(r)) {
        refuse_replica(r);
        return;
    }
    if (q->session_epoch != 0 && q->session_epoch != -1) {
        enum kafka_error error = use_session(f);
        if (error != KERR_NONE) {
            fetch_reply_refused(r, error);
            return;
        }
    } else {
        session_close(r->frontend->sessions, q->session_id);
        f->kind = q->session_epoch == 0 ? FETCH_NEW_SESSION : FETCH_SESSIONLESS;
        add_asked(f);
    }
    start(f);
}

const struct api_handler api_fetch = {
    .key = KAFKA_API_FETCH, .version_min = 4, .version_max = 18, .handle = handle, .fail = fail};
