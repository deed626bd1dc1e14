/* raft.c - the core of the quorum in this process: its events, and what it wants done: quorum-state, the log, the other
 * controllers.
 *
 * A step of the core leaves actions, done here in their order; what follows of them (the log is flushed, records are
 * committed) is the next step, never a step inside one. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>

#include "libs/base/log.h"
#include "services/controller/quorum.h"

/* ---- requests of other controllers ---- */

/* One that the core has; its number is the event's id. In the arena of the rpc. */
struct quorum_call {
    struct rpc *rpc;
    uint64_t id;
    int16_t api_key; /* of a tool's request; -1: another controller's */
    void *response;  /* of UpdateFeatures, as it is when nothing fails */
    struct quorum_call *prev, *next;
};

static struct quorum_call *find_call(struct quorum *q, uint64_t id)
{
    struct quorum_call *c;
    DL_FOREACH (q->calls, c)
        if (c->id == id)
            return c;
    return NULL;
}

static void on_gone(void *ctx, struct rpc *rpc)
{
    struct quorum *q = ctx;
    struct quorum_call *c;
    DL_FOREACH (q->calls, c) {
        if (c->rpc != rpc || q->failed || q->ended)
            continue;
        quorum_step(q, &(struct kraft_event){.kind = KRAFT_GONE, .id = c->id});
        return;
    }
}

void quorum_ask_core(struct quorum *q, struct rpc *rpc, int16_t api_key, void *response, const struct kraft_message *m)
{
    struct quorum_call *c = arena_calloc(rpc_arena(rpc), 1, sizeof *c);
    c->rpc = rpc;
    c->response = response;
    c->api_key = api_key;
    c->id = ++q->last_call;
    DL_APPEND(q->calls, c);
    rpc_on_gone(rpc, on_gone, q);
    quorum_step(q, &(struct kraft_event){.kind = KRAFT_REQUEST, .id = c->id, .message = m});
}

void quorum_on_call(void *ctx, struct rpc *rpc)
{
    struct quorum *q = ctx;
    struct kraft_message m;
    if (q->failed || q->ended) {
        rpc_fail(rpc, KARST__BUS__OUTCOME__OUTCOME_OVERLOADED);
        return;
    }
    if (!quorum_message_unpack(rpc_arena(rpc), rpc_call(rpc)->quorum->message, &m) || m.from != rpc_from(rpc)->id) {
        rpc_fail(rpc, KARST__BUS__OUTCOME__OUTCOME_MALFORMED);
        return;
    }
    quorum_ask_core(q, rpc, -1, NULL, &m);
}

/* The bytes of a Fetch or FetchSnapshot that the core lets the other have. */
static void add_bytes(struct quorum *q, const struct kraft_action *a, struct kraft_message *m, struct ref *ret_payload)
{
    struct buf b = {0};
    if (m->kind == KRAFT_FETCH && m->max_bytes > 0) {
        if (kraft_store_read(q->store, m->offset, a->offset, m->max_bytes, &b) != 0 || b.size == 0)
            m->error = KERR_UNKNOWN_SERVER_ERROR;
    } else if (m->kind == KRAFT_FETCH_SNAPSHOT) {
        int64_t end = -1;
        int32_t epoch = -1;
        struct slice all = kraft_store_snapshot(q->store, &end, &epoch);
        if (slice_is_null(all) || end != m->snapshot_end || epoch != m->snapshot_epoch) {
            m->error = KERR_SNAPSHOT_NOT_FOUND;
        } else if (m->position < 0 || (size_t)m->position >= all.size) {
            m->error = KERR_POSITION_OUT_OF_RANGE;
        } else {
            size_t left = all.size - (size_t)m->position;
            m->size = (int64_t)all.size;
            buf_append(&b, all.data + m->position, MIN(left, (size_t)m->max_bytes));
            if (left <= m->max_bytes)
                kraft_store_forget(q->store);
        }
    }
    if (b.size > 0)
        *ret_payload = ref_take(b.data, b.size);
    else
        buf_free(&b);
}

static void do_reply(struct quorum *q, const struct kraft_action *a)
{
    struct quorum_call *c = find_call(q, a->id);
    struct kraft_message m = a->message;
    struct ref payload = REF_EMPTY;
    if (c == NULL) {
        return;
    }
    struct rpc *rpc = c->rpc; /* c is in its arena */
    int16_t api_key = c->api_key;
    void *response = c->response;
    DL_DELETE(q->calls, c);
    if (response != NULL) {
        update_features_reply(rpc, response, m.error, m.text, kraft_high_watermark(q->kraft) - 1);
        return;
    }
    if (api_key >= 0) {
        change_voters_reply(rpc, api_key, m.error, m.text);
        return;
    }
    if (m.error == KERR_NONE && m.diverging_end < 0)
        add_bytes(q, a, &m, &payload);
    Karst__Bus__QuorumReply body = KARST__BUS__QUORUM_REPLY__INIT;
    body.message = quorum_message_pack(rpc_arena(rpc), &m);
    rpc_reply(rpc, KARST__BUS__REPLY__BODY_QUORUM, &body, &payload, payload.kind != REF_NONE ? 1 : 0, 0);
    ref_release(&payload);
}

/* ---- requests to them ---- */

struct asked {
    struct quorum *quorum;
    uint64_t id;
};

static void tell_answer(const struct kraft_message *m)
{
    const char *error = kafka_error_name((int)m->error);
    if (m->kind == KRAFT_ADD_VOTER)
        log_info("asked to become a voter: %s", error);
    else if (m->kind == KRAFT_REMOVE_VOTER)
        log_info("asked to remove the voter that had this id and another directory: %s", error);
    else if (m->error != KERR_NONE)
        log_warn("the leader does not change what the voters' record says of this controller: %s; it is asked each "
                 "second",
                 error);
}

static void on_answer(void *ctx, const struct bus_result *result)
{
    struct asked *asked = ctx;
    struct quorum *q = asked->quorum;
    struct kraft_event e = {.kind = KRAFT_FAILED, .id = asked->id};
    struct kraft_message m;
    struct arena *arena = arena_new(0);
    free(asked);
    if (result->outcome == KARST__BUS__OUTCOME__OUTCOME_OK &&
        quorum_message_unpack(arena, result->reply->quorum->message, &m)) {
        e.kind = KRAFT_RESPONSE;
        e.message = &m;
        if (result->payload_count > 0)
            m.bytes = ref_bytes(&result->payloads[0]);
        if (kraft_is_news(&q->told_answer, &m))
            tell_answer(&m);
    }
    if (!q->failed && !q->ended)
        quorum_step(q, &e);
    arena_free(arena);
}

static void do_send(struct quorum *q, const struct kraft_action *a)
{
    Karst__Bus__QuorumRequest body = KARST__BUS__QUORUM_REQUEST__INIT;
    struct arena *arena = arena_new(0);
    struct asked *asked = xcalloc(1, sizeof *asked);
    *asked = (struct asked){q, a->id};
    body.message = quorum_message_pack(arena, &a->message);
    struct bus_request request = {
        .kind = KARST__BUS__CALL__BODY_QUORUM, .body = &body, .timeout_ms = a->timeout_ms + a->message.wait_ms};
    (void)bus_call(q->bus, KARST__BUS__ROLE__ROLE_CONTROLLER, a->to, &request, on_answer, asked);
    arena_free(arena);
}

/* ---- actions ---- */

static int do_append(struct quorum *q, const struct kraft_action *a)
{
    int error = kraft_store_stage(q->store, a->bytes, loop_wall_ms(q->loop));
    if (error == 0 && q->active) /* voters: the core's own batch behind our decisions */
        quorum_observe(q, a->bytes);
    return error;
}

static int do_action(struct quorum *q, const struct kraft_action *a)
{
    switch (a->kind) {
    case KRAFT_DO_SAVE: return kraft_store_save_state(q->store, &a->state);
    case KRAFT_DO_APPEND: return do_append(q, a);
    case KRAFT_DO_TRUNCATE:
        log_info("the metadata log is cut to offset %" PRId64 ": the leader has other records there", a->offset);
        return kraft_store_truncate(q->store, a->offset);
    case KRAFT_DO_INSTALL:
        log_info("snapshot of the metadata up to offset %" PRId64 " taken from the leader", a->offset - 1);
        q->installed = true;
        return kraft_store_install(q->store, a->offset, a->epoch, a->bytes, loop_wall_ms(q->loop));
    case KRAFT_DO_SEND: do_send(q, a); return 0;
    case KRAFT_DO_REPLY: do_reply(q, a); return 0;
    case KRAFT_DO_LEAD: return 0;
    case KRAFT_DO_UNLEAD: quorum_deactivate(q); return 0;
    case KRAFT_DO_COMMIT: q->moved = true; return 0;
    case KRAFT_DO_HALT: log_error("%s: %s", q->log_dir, a->text); return -EBADMSG;
    }
    BUG("the quorum wants something else");
}

static void on_timer(void *ctx)
{
    struct quorum *q = ctx;
    if (!q->failed && !q->ended)
        quorum_step(q, &(struct kraft_event){.kind = KRAFT_TICK});
}

static void arm(struct quorum *q)
{
    uint64_t at = kraft_deadline(q->kraft), now = loop_now_ms(q->loop);
    uint64_t delay = at > now ? MIN(at - now, (uint64_t)60000) : 1;
    if (at == q->raft_due && at > now && q->raft_timer != NULL)
        return;
    q->raft_due = at;
    if (q->raft_timer == NULL)
        q->raft_timer = loop_timer_start(q->loop, delay, 60000, on_timer, q);
    else
        loop_timer_again(q->raft_timer, delay);
}

static void write_status(const struct quorum *q)
{
    struct buf b CLEANUP(buf_free) = {0};
    char name[64];
    snprintf(name, sizeof name, "controller-%" PRId32 ".quorum", service_id(q->service));
    buf_printf(&b, "%s %d %d\n", q->told_voter ? kraft_role_name(q->told_role) : "observer", q->told_epoch,
               q->told_leader);
    int error = file_replace(&file_system_real, service_run_dir(q->service), name, b.data, b.size, false);
    if (error != 0)
        log_warn("%s/%s: %s: karst status will not know", service_run_dir(q->service), name, strerror(-error));
}

/* A directory joins by itself once: one whose controller was removed from the quorum stays out of it. */
static void note_joined(struct quorum *q)
{
    static const char text[] = "This controller has been a voter: it joins the quorum by itself no more.\n";
    if (q->noted_joined || !kraft_is_voter_for_good(q->kraft))
        return;
    q->noted_joined = true;
    if (!config_bool(q->config, "controller.quorum.auto.join.enable") || quorum_has_joined(q))
        return;
    int error = file_replace(&file_system_real, q->log_dir, QUORUM_JOINED_FILE, text, sizeof text - 1, true);
    if (error != 0)
        log_warn("%s/" QUORUM_JOINED_FILE ": %s", q->log_dir, strerror(-error));
}

/* For the log, and what karst status shows. */
static void tell_role(struct quorum *q)
{
    enum kraft_role role = kraft_role(q->kraft);
    int32_t epoch = kraft_epoch(q->kraft), leader = kraft_leader(q->kraft);
    bool voter = kraft_is_voter(q->kraft);
    if (q->told && role == q->told_role && epoch == q->told_epoch && leader == q->told_leader && voter == q->told_voter)
        return;
    q->told = true;
    q->told_role = role;
    q->told_epoch = epoch;
    q->told_leader = leader;
    q->told_voter = voter;
    if (kraft_voters(q->kraft)->count > 1)
        log_info("%s of the metadata quorum in epoch %d, leader %d", voter ? kraft_role_name(role) : "observer", epoch,
                 leader);
    write_status(q);
}

void quorum_step(struct quorum *q, const struct kraft_event *event)
{
    struct kraft_event e = *event;
    e.now_ms = loop_now_ms(q->loop);
    e.now_wall_ms = loop_wall_ms(q->loop);
    struct kraft_actions actions = kraft_step(q->kraft, &e);
    for (size_t i = 0; i < actions.count; i++) {
        int error = do_action(q, &actions.action[i]);
        if (error != 0) {
            quorum_fail(q, "keep the metadata log", error);
            return;
        }
    }
    tell_role(q);
    note_joined(q);
    arm(q);
    if (q->moved)
        quorum_publish(q);
}

void quorum_end_calls(struct quorum *q)
{
    while (q->calls != NULL) {
        struct rpc *rpc = q->calls->rpc;
        DL_DELETE(q->calls, q->calls);
        rpc_fail(rpc, KARST__BUS__OUTCOME__OUTCOME_UNKNOWN);
    }
    q->raft_timer = loop_timer_stop(q->raft_timer);
    q->registration_timer = loop_timer_stop(q->registration_timer);
}
