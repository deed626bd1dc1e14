/* caller.c - the caller's end of a link; the diagram is in link.h. */
#include <inttypes.h>
#include <stdlib.h>
#include <utlist.h>

#include "libs/bus/link_internal.h"
#include "libs/bus/version.h"

static void stage(struct link_core *l, struct caller *c)
{
    if (c->staged)
        return;
    c->staged = true;
    c->next_staged = l->staged_callers;
    l->staged_callers = c;
}

static struct caller *get_caller(struct link_core *l, struct peer *p, Karst__Bus__Lane lane)
{
    struct caller *c = p->lanes[lane];

    if (c != NULL)
        return c;
    c = xcalloc(1, sizeof *c);
    c->peer = p;
    c->lane = lane;
    c->granted = (struct credit){.calls = l->options.credit_calls, .bytes = l->options.credit_bytes};
    p->lanes[lane] = c;
    DL_APPEND(l->callers, c);
    return c;
}

/* One call may be larger than all credit. It goes alone, but for those that park: they may be there always. */
static bool has_room(const struct credit *used, const struct credit *granted, uint64_t cost)
{
    return used->calls < granted->calls && (used->calls == used->parked || used->bytes + cost <= granted->bytes);
}

static void credit_take(struct credit *k, const struct call *c)
{
    k->calls++;
    k->bytes += c->cost;
    k->parked += c->parks;
}

static void credit_give(struct credit *k, const struct call *c)
{
    k->calls--;
    k->bytes -= c->cost;
    k->parked -= c->parks;
}

void link_caller_call(struct link_core *l, struct peer *p, struct call *call, const struct kind *kind)
{
    struct caller *c = get_caller(l, p, kind->lane);

    call->link = c;
    call->parks = kind->parks;
    call->in_arena = kind->call_in_arena;
    call->reply_in_files = kind->reply_in_files;
    call->first_version = kind->first_version;
    if (call->first_version > l->level) {
        link_done(l, call, KARST__BUS__OUTCOME__OUTCOME_UNSUPPORTED);
        link_free_call(l, call);
        return;
    }
    if (l->closing || !has_room(&c->queued_use, &c->granted, call->cost) || call->packed.size > LINK_BODY_MAX ||
        call->payload_count > LINK_CALL_PAYLOADS_MAX) {
        link_done(l, call, KARST__BUS__OUTCOME__OUTCOME_NOT_SENT);
        link_free_call(l, call);
        return;
    }
    call->state = CALL_QUEUED;
    credit_take(&c->queued_use, call);
    if (call->parks)
        DL_APPEND(c->queued_parks, call);
    else
        DL_APPEND(c->queued, call);
    stage(l, c);
}

static void unqueue(struct caller *c, struct call *call)
{
    if (call->parks)
        DL_DELETE(c->queued_parks, call);
    else
        DL_DELETE(c->queued, call);
    credit_give(&c->queued_use, call);
}

static void add_cancel(struct link_core *l, struct caller *c, uint64_t id)
{
    if (c->cancel_count == c->cancel_capacity) {
        c->cancel_capacity = c->cancel_capacity ? 2 * c->cancel_capacity : 16;
        c->cancels = xrealloc(c->cancels, c->cancel_capacity * sizeof *c->cancels);
    }
    c->cancels[c->cancel_count++] = id;
    stage(l, c);
}

/* Timeout or cancel: the owner hears now; a call in flight holds its credit on. */
void link_caller_stop_call(struct link_core *l, struct call *call, Karst__Bus__Outcome outcome)
{
    struct caller *c = call->link;

    ASSERT(call->state != CALL_ENDED);
    link_done(l, call, outcome);
    if (call->state == CALL_QUEUED) {
        unqueue(c, call);
        link_free_call(l, call);
        return;
    }
    link_deadline_clear(l, &call->deadline);
    call->state = CALL_ENDED;
    add_cancel(l, c, call->id);
}

/* ---- connecting ---- */

/* A connection that fails in its handshake makes no sound: trying again soon finds a peer that has just come back. Over
 * tcp the adapter hears of it. */
static uint32_t connect_ms(const struct caller *c)
{
    uint32_t doublings = MIN(c->attempts, 4u);

    if (strncmp(c->peer->address, "tcp://", 6) == 0)
        return LINK_CONNECT_TCP_MS;
    return MIN((uint32_t)LINK_CONNECT_MIN_MS << doublings, (uint32_t)LINK_CONNECT_MAX_MS);
}

static void begin_connect(struct link_core *l, struct caller *c)
{
    struct slot *s = link_push(l, LINK_CONNECT);

    c->conn = ++l->last_conn;
    c->session = l->options.incarnation + ++l->last_session;
    c->send_sequence = c->receive_sequence = 0;
    c->incarnation = c->peer->incarnation;
    c->version = 0;
    c->state = CALLER_CONNECTING;
    c->since_ms = l->now_ms;
    HASH_ADD(hh, l->callers_by_conn, conn, sizeof c->conn, c);
    s->action.conn = c->conn;
    s->action.lane = c->lane;
    s->action.role = c->peer->role;
    s->action.id = c->peer->id;
    s->text = xstrdup(c->peer->address);
    s->action.address = s->text;
    link_wake_by(l, l->now_ms + connect_ms(c));
}

static bool has_queued(const struct caller *c)
{
    return c->queued != NULL || c->queued_parks != NULL;
}

static void maybe_connect(struct link_core *l, struct caller *c)
{
    if (!has_queued(c) || c->peer->address == NULL || l->closing)
        return;
    if (l->now_ms >= c->retry_at_ms)
        begin_connect(l, c);
    else
        link_wake_by(l, c->retry_at_ms);
}

static void send_batch(struct link_core *l, struct caller *c, struct outgoing *o, Karst__Bus__Batch *b)
{
    Karst__Bus__Peer from = KARST__BUS__PEER__INIT, to = KARST__BUS__PEER__INIT;

    from.role = l->options.role;
    from.id = l->options.id;
    from.incarnation = l->options.incarnation;
    to.role = c->peer->role;
    to.id = c->peer->id;
    to.incarnation = c->incarnation;
    b->session = c->session;
    b->sequence = ++c->send_sequence;
    if (c->version < BUS_VERSION_NAMES_ONCE) {
        b->from = &from;
        b->to = &to;
    }
    b->metadata_offset = l->metadata_offset;
    c->sent_ms = l->now_ms;
    link_send(l, c->conn, o, b);
}

void link_caller_connected(struct link_core *l, struct caller *c)
{
    Karst__Bus__Batch b = KARST__BUS__BATCH__INIT;
    Karst__Bus__Hello hello = KARST__BUS__HELLO__INIT;

    hello.cluster_id = l->cluster_id;
    hello.bus_version_min = l->options.version_min;
    hello.bus_version_max = l->options.version_max;
    hello.lane = c->lane;
    b.hello = &hello;
    c->state = CALLER_HELLO;
    c->absent = false;
    c->since_ms = c->received_ms = l->now_ms;
    send_batch(l, c, NULL, &b);
    link_wake_by(l, l->now_ms + link_silent_ms(l));
}

/* The end of a session: what was in flight is executed or not, nobody here can know. */
static void end_in_flight(struct link_core *l, struct caller *c)
{
    struct outgoing *held = NULL;
    struct call *call, *next;

    DL_FOREACH_SAFE(c->sent, call, next)
    {
        DL_DELETE(c->sent, call);
        for (size_t i = 0; i < call->payload_count; i++) {
            if (held == NULL)
                held = link_outgoing_new(l);
            link_outgoing_hold(held, &call->payloads[i]);
        }
        call->payload_count = 0;
        if (call->state == CALL_SENT)
            link_done(l, call, KARST__BUS__OUTCOME__OUTCOME_UNKNOWN);
        link_free_call(l, call);
    }
    if (held != NULL)
        link_hold(l, c->conn, held);
    c->used = (struct credit){0};
    c->cancel_count = 0;
    c->heartbeat_due = false;
}

static void forget_conn(struct link_core *l, struct caller *c)
{
    HASH_DELETE(hh, l->callers_by_conn, c);
    end_in_flight(l, c);
    c->conn = 0;
    c->state = CALLER_DOWN;
}

void link_caller_end(struct link_core *l, struct caller *c, uint32_t backoff_ms)
{
    if (c->state != CALLER_DOWN) {
        uint64_t conn = c->conn;
        forget_conn(l, c);
        link_close(l, conn);
    }
    c->absent = false;
    c->retry_at_ms = l->now_ms + backoff_ms;
    stage(l, c);
}

static uint32_t next_backoff(struct caller *c)
{
    uint32_t ms = (uint32_t)LINK_BACKOFF_MIN_MS << MIN(c->attempts, 4u);

    c->attempts++;
    return MIN(ms, (uint32_t)LINK_BACKOFF_MAX_MS);
}

void link_caller_lost(struct link_core *l, struct caller *c, bool absent)
{
    bool was_up = c->state >= CALLER_UP;

    forget_conn(l, c);
    c->absent = absent;
    c->retry_at_ms = l->now_ms + (was_up ? 0 : next_backoff(c));
    stage(l, c);
}

static void end_queued(struct link_core *l, struct caller *c)
{
    struct call *call, *next;

    DL_FOREACH_SAFE(c->queued, call, next)
    {
        link_caller_stop_call(l, call, KARST__BUS__OUTCOME__OUTCOME_NOT_SENT);
    }
    DL_FOREACH_SAFE(c->queued_parks, call, next)
    {
        link_caller_stop_call(l, call, KARST__BUS__OUTCOME__OUTCOME_NOT_SENT);
    }
}

void link_caller_reset_peer(struct link_core *l, struct peer *p, bool same_address)
{
    for (int lane = 0; lane < LINK_LANES; lane++) {
        struct caller *c = p->lanes[lane];
        if (c == NULL)
            continue;
        /* A session with the life that the peer is now known to have goes on. */
        bool goes_on =
            c->state >= CALLER_UP && same_address && (p->incarnation == 0 || c->incarnation == p->incarnation);
        c->attempts = 0;
        if (!goes_on)
            link_caller_end(l, c, 0);
        if (p->address == NULL) /* others do its work by now, whom its callers do not find as long as they wait */
            end_queued(l, c);
    }
}

void link_caller_shutdown(struct link_core *l, struct caller *c)
{
    end_queued(l, c);
    if (c->state == CALLER_UP) {
        Karst__Bus__Batch b = KARST__BUS__BATCH__INIT;
        b.goodbye = true;
        send_batch(l, c, NULL, &b);
        c->state = CALLER_DRAINING;
    }
}

/* ---- sending ---- */

static bool may_send(const struct caller *c, const struct call *call)
{
    return has_room(&c->used, &c->granted, call->cost) &&
           (!call->parks || c->used.parked < (c->granted.calls * 3 + 3) / 4);
}

/* What travels as bytes is the message's from here on. What the peer reads in the arena stays with the call (I6). */
static void keep_in_arena(struct call *call, bool in_arena)
{
    size_t kept = 0;

    for (size_t i = 0; i < call->payload_count; i++) {
        if (in_arena && call->payloads[i].kind == REF_ARENA)
            call->payloads[kept++] = call->payloads[i];
        else
            ref_release(&call->payloads[i]);
    }
    call->payload_count = kept;
}

static void add_call(struct link_core *l, struct caller *c, struct outgoing *o, struct call *call)
{
    bool in_arena = call->in_arena && link_shares(l, c->conn);

    unqueue(c, call);
    credit_take(&c->used, call);
    DL_APPEND(c->sent, call);
    call->state = CALL_SENT;
    if (call->deadline.at_ms != call->until_ms) {
        link_deadline_clear(l, &call->deadline);
        link_deadline_set(l, &call->deadline, call->until_ms);
    }
    link_outgoing_call(o, call->id, (uint32_t)(call->until_ms - l->now_ms), call->packed, call->payloads,
                       call->payload_count, in_arena);
    keep_in_arena(call, in_arena);
}

static void send_calls(struct link_core *l, struct caller *c, struct outgoing *o)
{
    Karst__Bus__Batch b = KARST__BUS__BATCH__INIT;

    b.n_cancels = c->cancel_count;
    b.cancels = c->cancels;
    if (c->heartbeat_due) {
        b.heartbeat = l->now_ms | 1; /* any number but 0 */
        c->heartbeat_ms = l->now_ms;
    }
    c->heartbeat_due = false;
    c->cancel_count = 0;
    send_batch(l, c, o, &b);
}

static void fill(struct link_core *l, struct caller *c, struct call **queue, struct outgoing **o)
{
    struct call *call;

    while ((call = *queue) != NULL && may_send(c, call)) {
        if (call->deadline.at_ms <= l->now_ms) {
            link_caller_stop_call(l, call, KARST__BUS__OUTCOME__OUTCOME_NOT_SENT);
            continue;
        }
        if (call->first_version > c->version) {
            link_caller_stop_call(l, call, KARST__BUS__OUTCOME__OUTCOME_UNSUPPORTED);
            continue;
        }
        if (*o == NULL)
            *o = link_outgoing_new(l);
        add_call(l, c, *o, call);
        if (link_outgoing_is_full(*o)) {
            send_calls(l, c, *o);
            *o = NULL;
        }
    }
}

void link_caller_flush(struct link_core *l, struct caller *c)
{
    struct outgoing *o = NULL;

    if (c->state == CALLER_DOWN) {
        maybe_connect(l, c);
        return;
    }
    if (c->state < CALLER_UP)
        return;
    if (c->state == CALLER_UP) {
        fill(l, c, &c->queued, &o);
        fill(l, c, &c->queued_parks, &o);
    }
    if (o != NULL || c->cancel_count > 0 || c->heartbeat_due)
        send_calls(l, c, o);
    if (c->state == CALLER_DRAINING && c->used.calls == 0)
        link_caller_end(l, c, LINK_BACKOFF_MIN_MS);
}

/* ---- receiving ---- */

void link_caller_rubbish(struct link_core *l, struct caller *c)
{
    link_report(l, "%s %" PRId32 " sent a message that is no Batch; its session ends", link_role_name(c->peer->role),
                c->peer->id);
    link_caller_end(l, c, next_backoff(c));
}

/* A peer that was started again refuses who has not heard of its new life yet, and one that goes refuses all: neither
 * is news, unless it stays so. */
static bool is_news(struct caller *c, Karst__Bus__Refusal__Reason reason)
{
    bool passes = reason == KARST__BUS__REFUSAL__REASON__INCARNATION || reason == KARST__BUS__REFUSAL__REASON__FULL;

    c->refusals++;
    if (c->refusal_reported || (passes && c->refusals < LINK_PASSING_REFUSALS))
        return false;
    c->refusal_reported = true;
    return true;
}

static void on_refusal(struct link_core *l, struct caller *c, const Karst__Bus__Refusal *r)
{
    const ProtobufCEnumValue *v =
        protobuf_c_enum_descriptor_get_value(&karst__bus__refusal__reason__descriptor, (int)r->reason);
    bool hard = r->reason == KARST__BUS__REFUSAL__REASON__CLUSTER ||
                r->reason == KARST__BUS__REFUSAL__REASON__VERSION || r->reason == KARST__BUS__REFUSAL__REASON__ROLE ||
                r->reason == KARST__BUS__REFUSAL__REASON__LANE || r->reason == KARST__BUS__REFUSAL__REASON__HOST;

    if (is_news(c, r->reason))
        link_report(l, "%s %" PRId32 " at %s refuses us: %s, %.200s", link_role_name(c->peer->role), c->peer->id,
                    c->peer->address ? c->peer->address : "?", v ? v->name : "?", r->detail);
    link_caller_end(l, c, hard ? LINK_BACKOFF_REFUSED_MS : c->state >= CALLER_UP ? 0 : next_backoff(c));
    if (hard)
        end_queued(l, c);
}

static bool is_ours(const struct link_core *l, const struct caller *c, const Karst__Bus__Batch *b)
{
    if (b->session != c->session)
        return false;
    if (b->from == NULL || b->to == NULL)
        return b->from == NULL && b->to == NULL && c->version >= BUS_VERSION_NAMES_ONCE;
    return b->from->role == c->peer->role && b->from->id == c->peer->id &&
           (c->version == 0 || b->from->incarnation == c->incarnation) && b->to->role == l->options.role &&
           b->to->id == l->options.id && b->to->incarnation == l->options.incarnation;
}

static bool on_welcome(struct link_core *l, struct caller *c, const Karst__Bus__Batch *b)
{
    const Karst__Bus__Welcome *w = b->welcome;

    if (w == NULL || w->credit_calls == 0 || w->bus_version < l->options.version_min ||
        w->bus_version > l->options.version_max || b->from->incarnation == 0)
        return false;
    if (c->incarnation != 0 && c->incarnation != b->from->incarnation)
        return false;
    c->incarnation = b->from->incarnation;
    c->version = w->bus_version;
    c->granted = (struct credit){.calls = MIN(w->credit_calls, (uint32_t)CALLS_MAX / 4), .bytes = w->credit_bytes};
    c->state = CALLER_UP;
    c->attempts = 0;
    c->refusals = 0;
    c->refusal_reported = false;
    c->heartbeat_ms = l->now_ms;
    return true;
}

static bool on_reply(struct link_core *l, struct caller *c, struct message *m, const Karst__Bus__Reply *reply)
{
    uint64_t id = reply->correlation_id;
    size_t slot = id & (CALLS_MAX - 1);
    struct call *call = slot < l->call_capacity ? l->calls[slot] : NULL;

    if (call == NULL || call->id != id || call->link != c || call->state == CALL_QUEUED)
        return false;
    if (call->state == CALL_SENT)
        link_done_reply(l, call, m, reply);
    DL_DELETE(c->sent, call);
    credit_give(&c->used, call);
    link_free_call(l, call);
    return true;
}

static bool on_batch(struct link_core *l, struct caller *c, struct message *m)
{
    const Karst__Bus__Batch *b = m->batch;

    if (b->sequence != c->receive_sequence + 1)
        return false;
    c->receive_sequence++;
    if (c->state == CALLER_HELLO && !on_welcome(l, c, b))
        return false;
    for (size_t i = 0; i < b->n_replies; i++)
        if (!on_reply(l, c, m, b->replies[i]))
            return false;
    if (b->goodbye && c->state == CALLER_UP)
        c->state = CALLER_DRAINING;
    if (has_queued(c) || c->state == CALLER_DRAINING)
        stage(l, c);
    return true;
}

void link_caller_receive(struct link_core *l, struct caller *c, struct message *m)
{
    const Karst__Bus__Batch *b = m->batch;

    if (c->state >= CALLER_HELLO && b->session == c->session &&
        b->refusal != NULL) { /* perhaps by another than we look for */
        on_refusal(l, c, b->refusal);
        return;
    }
    if (c->state < CALLER_HELLO || !is_ours(l, c, b)) {
        link_report(l, "%s %" PRId32 " sent a message that is not for us; its session ends",
                    link_role_name(c->peer->role), c->peer->id);
        link_caller_end(l, c, next_backoff(c));
        return;
    }
    c->received_ms = l->now_ms;
    if (!on_batch(l, c, m)) {
        link_report(l, "%s %" PRId32 " broke the rules of the session; it ends", link_role_name(c->peer->role),
                    c->peer->id);
        link_caller_end(l, c, next_backoff(c));
    }
}

/* ---- time ---- */

/* Silence on an open link is asked about by a heartbeat, and ended after six of them. */
static uint64_t tick_open(struct link_core *l, struct caller *c)
{
    uint64_t heartbeat = l->options.heartbeat_ms, silent = link_silent_ms(l);

    if (l->now_ms >= c->received_ms + silent) {
        link_report(l, "%s %" PRId32 " has been silent for %u ms; its session ends", link_role_name(c->peer->role),
                    c->peer->id, link_silent_ms(l));
        link_caller_end(l, c, next_backoff(c));
        return c->retry_at_ms;
    }
    uint64_t due = MAX(c->heartbeat_ms, MIN(c->sent_ms, c->received_ms)) + heartbeat;
    if (l->now_ms >= due) {
        c->heartbeat_due = true;
        stage(l, c);
        due = l->now_ms + heartbeat;
    }
    return MIN(due, c->received_ms + silent);
}

uint64_t link_caller_tick(struct link_core *l, struct caller *c)
{
    uint64_t until;

    switch (c->state) {
    case CALLER_DOWN:
        if (!has_queued(c) || c->peer->address == NULL)
            return UINT64_MAX;
        if (l->now_ms < c->retry_at_ms)
            return c->retry_at_ms;
        stage(l, c);
        return UINT64_MAX;
    case CALLER_CONNECTING:
    case CALLER_HELLO:
        until = c->since_ms + (c->state == CALLER_HELLO ? link_silent_ms(l) : connect_ms(c));
        if (l->now_ms < until)
            return until;
        link_caller_end(l, c, next_backoff(c));
        return c->retry_at_ms;
    case CALLER_UP:
    case CALLER_DRAINING: return tick_open(l, c);
    }
    BUG("a caller in no state");
}

void link_caller_free(struct link_core *l, struct caller *c)
{
    if (c->state != CALLER_DOWN)
        HASH_DELETE(hh, l->callers_by_conn, c);
    struct call *lists[] = {c->queued, c->queued_parks, c->sent};
    for (size_t i = 0; i < COUNTOF(lists); i++) {
        struct call *call, *next;
        DL_FOREACH_SAFE(lists[i], call, next)
        link_free_call(l, call);
    }
    DL_DELETE(l->callers, c);
    free(c->cancels);
    free(c);
}
