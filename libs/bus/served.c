/* served.c - the served end of a link: one a connection, from a good Hello on. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>

#include "libs/bus/link_internal.h"
#include "libs/bus/version.h"

static struct served *find(struct link_core *l, uint64_t conn)
{
    struct served *s;

    HASH_FIND(hh, l->served, &conn, sizeof conn, s);
    return s;
}

static void head_init(const struct link_core *l, Karst__Bus__Batch *b, Karst__Bus__Peer *from, Karst__Bus__Peer *to)
{
    karst__bus__batch__init(b);
    karst__bus__peer__init(from);
    karst__bus__peer__init(to);
    from->role = l->options.role;
    from->id = l->options.id;
    from->incarnation = l->options.incarnation;
    b->from = from;
    b->to = to;
    b->metadata_offset = l->metadata_offset;
}

static void refuse(struct link_core *l, uint64_t conn, const Karst__Bus__Batch *to_what,
                   Karst__Bus__Refusal__Reason reason, const char *detail)
{
    Karst__Bus__Batch b;
    Karst__Bus__Peer from, to;
    Karst__Bus__Refusal refusal = KARST__BUS__REFUSAL__INIT;
    union { /* protobuf-c's strings are not const, packing only reads */
        const char *in;
        char *out;
    } text = {.in = detail};

    head_init(l, &b, &from, &to);
    if (to_what->from != NULL) {
        to.role = to_what->from->role;
        to.id = to_what->from->id;
        to.incarnation = to_what->from->incarnation;
    }
    refusal.reason = reason;
    refusal.detail = text.out;
    b.session = to_what->session;
    b.refusal = &refusal;
    link_send(l, conn, NULL, &b);
    link_close(l, conn);
}

void link_served_stage(struct link_core *l, struct served *s)
{
    if (s->out == NULL)
        s->out = link_outgoing_new(l);
    if (s->staged)
        return;
    s->staged = true;
    s->next_staged = l->staged_served;
    l->staged_served = s;
}

static void forget(struct link_core *l, struct served *s)
{
    struct rpc *r, *next;

    if (s->staged)
        LL_DELETE2(l->staged_served, s, next_staged);
    HASH_ITER (hh, s->rpcs, r, next)
        link_rpc_orphan(r);
    link_outgoing_free(l, s->out);
    HASH_DELETE(hh, l->served, s);
    free(s);
}

static void end(struct link_core *l, struct served *s)
{
    link_close(l, s->conn);
    forget(l, s);
}

void link_served_lost(struct link_core *l, uint64_t conn)
{
    struct served *s = find(l, conn);

    if (s != NULL)
        forget(l, s);
}

void link_served_end_all(struct link_core *l)
{
    struct served *s, *next;

    HASH_ITER (hh, l->served, s, next)
        end(l, s);
}

static void break_off(struct link_core *l, struct served *s, const Karst__Bus__Batch *b, const char *why)
{
    link_report(l, "role %d id %" PRId32 " broke the rules of its session: %s; it ends", (int)s->peer.role, s->peer.id,
                why);
    refuse(l, s->conn, b, KARST__BUS__REFUSAL__REASON__SESSION, why);
    forget(l, s);
}

void link_served_rubbish(struct link_core *l, uint64_t conn)
{
    struct served *s = find(l, conn);
    Karst__Bus__Batch b = KARST__BUS__BATCH__INIT;

    if (s == NULL)
        return;
    b.session = s->session;
    break_off(l, s, &b, "a message that is no Batch");
}

/* ---- Hello ---- */

static void refuse_version(struct link_core *l, uint64_t conn, const Karst__Bus__Batch *b)
{
    char text[96];

    snprintf(text, sizeof text,
             "no bus version in common: %" PRIu32 " to %" PRIu32 " here, %" PRIu32 " to %" PRIu32 " there",
             l->options.version_min, l->options.version_max, b->hello->bus_version_min, b->hello->bus_version_max);
    refuse(l, conn, b, KARST__BUS__REFUSAL__REASON__VERSION, text);
}

/* True: he is not who he says he is, and is told so. */
static bool is_impostor(struct link_core *l, uint64_t conn, const Karst__Bus__Batch *b)
{
    const struct link_trust *t = &l->options.trust;
    const char *why = t->refuses != NULL ? t->refuses(t->ctx, conn, b->from) : NULL;

    if (why == NULL)
        return false;
    l->impostors++;
    refuse(l, conn, b, KARST__BUS__REFUSAL__REASON__HOST, why);
    return true;
}

static bool check_hello(struct link_core *l, uint64_t conn, const Karst__Bus__Batch *b)
{
    const Karst__Bus__Hello *h = b->hello;
    const struct link_options *o = &l->options;

    if (strcmp(h->cluster_id, l->cluster_id) != 0)
        refuse(l, conn, b, KARST__BUS__REFUSAL__REASON__CLUSTER, l->cluster_id);
    else if (h->bus_version_min > o->version_max || h->bus_version_max < o->version_min)
        refuse_version(l, conn, b);
    else if (b->from == NULL || b->from->incarnation == 0 || b->to == NULL || b->to->role != o->role ||
             b->to->id != o->id)
        refuse(l, conn, b, KARST__BUS__REFUSAL__REASON__ROLE, "another role or id listens here");
    else if (is_impostor(l, conn, b))
        return false;
    else if (b->to->incarnation != 0 && b->to->incarnation != o->incarnation)
        refuse(l, conn, b, KARST__BUS__REFUSAL__REASON__INCARNATION, "replaced by a later life");
    else if (h->lane != link_conn_lane(conn))
        refuse(l, conn, b, KARST__BUS__REFUSAL__REASON__LANE, "another lane listens here");
    else if (l->closing || HASH_COUNT(l->served) >= LINK_SERVED_MAX)
        refuse(l, conn, b, KARST__BUS__REFUSAL__REASON__FULL, l->closing ? "going away" : "too many links");
    else
        return true;
    return false;
}

/* A peer has one link a lane: its newer one tells that the older is dead, also when that was of an earlier life. What
 * of it is still under way must not run behind the calls of the new one: a commit of a front end that died would take
 * back a later one. */
static void end_older(struct link_core *l, const Karst__Bus__Batch *b, Karst__Bus__Lane lane)
{
    struct served *s, *next;

    HASH_ITER (hh, l->served, s, next) {
        if (s->peer.role == b->from->role && s->peer.id == b->from->id && link_conn_lane(s->conn) == lane)
            end(l, s);
    }
}

static void on_hello(struct link_core *l, uint64_t conn, const Karst__Bus__Batch *b)
{
    if (b->sequence != 1 || !check_hello(l, conn, b))
        return;
    end_older(l, b, link_conn_lane(conn));
    struct served *s = xcalloc(1, sizeof *s);
    s->conn = conn;
    s->session = b->session;
    karst__bus__peer__init(&s->peer);
    s->peer.role = b->from->role;
    s->peer.id = b->from->id;
    s->peer.incarnation = b->from->incarnation;
    s->version = MIN(b->hello->bus_version_max, l->options.version_max);
    s->receive_sequence = 1;
    s->received_ms = l->now_ms;
    s->welcome = true;
    HASH_ADD(hh, l->served, conn, sizeof s->conn, s);
    link_served_stage(l, s);
    link_wake_by(l, l->now_ms + link_silent_ms(l));
}

/* A session that we do not have: it ended while the peer was away. It is told once; who goes on gets no further answer.
 */
static void refuse_unknown(struct link_core *l, uint64_t conn, const Karst__Bus__Batch *b)
{
    for (size_t i = 0; i < COUNTOF(l->refused); i++)
        if (l->refused[i] == conn)
            return;
    l->refused[l->refused_at++ % COUNTOF(l->refused)] = conn;
    refuse(l, conn, b, KARST__BUS__REFUSAL__REASON__SESSION, "no such session");
}

/* ---- calls ---- */

static void execute(struct link_core *l, struct rpc *r)
{
    r->state = RPC_DUE;
    link_push(l, LINK_EXECUTE)->action.rpc = r;
}

static void wait_for_metadata(struct link_core *l, struct served *s, struct rpc *r, int64_t offset)
{
    r->state = RPC_WAITING;
    r->metadata_offset = offset;
    DL_APPEND2(s->waiting, r, wait_prev, wait_next);
    link_deadline_set(l, &r->deadline, r->deadline.at_ms);
}

void link_served_unpark(struct link_core *l)
{
    for (struct served *s = l->served; s != NULL; s = s->hh.next) {
        struct rpc *r;
        while ((r = s->waiting) != NULL && r->metadata_offset <= l->metadata_offset) {
            link_deadline_clear(l, &r->deadline);
            DL_DELETE2(s->waiting, r, wait_prev, wait_next);
            execute(l, r);
        }
    }
}

static const struct kind *kind_allowed(const struct served *s, const Karst__Bus__Call *call)
{
    int32_t api_key = call->body_case == KARST__BUS__CALL__BODY_KAFKA ? call->kafka->api_key : 0;
    const struct kind *k = link_kind_of(call->body_case, api_key);

    if (k == NULL || k->first_version > s->version || (unsigned)s->peer.role >= 32 ||
        !(k->senders & 1u << s->peer.role) || k->lane != link_conn_lane(s->conn))
        return NULL;
    return k;
}

static int take_payloads(struct rpc *r, const struct kind *k)
{
    const Karst__Bus__Call *call = r->call;
    int failed = 0;

    if (call->n_payloads == 0)
        return 0;
    r->payloads = arena_try_alloc(r->message->arena, call->n_payloads * sizeof *r->payloads);
    if (r->payloads == NULL)
        return -ENOSPC;
    failed = link_message_payloads(r->core, r->link->conn, r->message, call->n_payloads, call->payloads,
                                   k != NULL && k->call_in_arena ? KARST__BUS__PAYLOAD__REFERENCE_ARENA
                                                                 : KARST__BUS__PAYLOAD__REFERENCE__NOT_SET,
                                   r->payloads);
    if (failed == 0)
        r->payload_count = call->n_payloads;
    return failed;
}

static uint64_t call_cost(const Karst__Bus__Call *call)
{
    uint64_t cost = LINK_CALL_OVERHEAD;

    for (size_t i = 0; i < call->n_payloads; i++)
        cost += MIN(call->payloads[i]->size_bytes, (uint64_t)1 << 40);
    return cost;
}

/* false: it passes the credit that we gave. */
static bool on_call(struct link_core *l, struct served *s, struct message *m, const Karst__Bus__Call *call)
{
    uint64_t cost = call_cost(call);

    if (s->rpc_count >= l->options.credit_calls ||
        (s->rpc_count > s->rpc_parked && s->rpc_bytes + cost > l->options.credit_bytes))
        return false;
    struct rpc *r = link_rpc_new(l, s, m, call);
    const struct kind *k = kind_allowed(s, call);
    r->cost = cost;
    r->parks = k != NULL && k->parks;
    r->reply_in_files = k != NULL && k->reply_in_files;
    s->rpc_bytes += cost;
    s->rpc_parked += r->parks;
    r->deadline.at_ms = l->now_ms + call->remaining_ms;
    if (take_payloads(r, k) < 0)
        rpc_fail(r, KARST__BUS__OUTCOME__OUTCOME_MALFORMED);
    else if (k == NULL)
        rpc_fail(r, KARST__BUS__OUTCOME__OUTCOME_UNSUPPORTED);
    else if (call->remaining_ms == 0)
        rpc_fail(r, KARST__BUS__OUTCOME__OUTCOME_EXPIRED);
    else if (k->waits && (s->waiting != NULL || m->batch->metadata_offset > l->metadata_offset))
        wait_for_metadata(l, s, r, m->batch->metadata_offset);
    else
        execute(l, r);
    return true;
}

static void on_cancels(struct served *s, const Karst__Bus__Batch *b)
{
    for (size_t i = 0; i < b->n_cancels; i++) {
        struct rpc *r;
        HASH_FIND(hh, s->rpcs, &b->cancels[i], sizeof b->cancels[i], r);
        if (r != NULL)
            link_rpc_cancel(r);
    }
}

static const char *check_batch(const struct link_core *l, const struct served *s, const Karst__Bus__Batch *b)
{
    if (b->session != s->session)
        return "another session on its connection";
    if (b->sequence != s->receive_sequence + 1)
        return "messages are missing";
    bool named = s->version < BUS_VERSION_NAMES_ONCE || b->from != NULL || b->to != NULL;
    if (named && (b->from == NULL || b->from->role != s->peer.role || b->from->id != s->peer.id ||
                  b->from->incarnation != s->peer.incarnation))
        return "another sender on its connection";
    if (named && (b->to == NULL || b->to->role != l->options.role || b->to->id != l->options.id ||
                  b->to->incarnation != l->options.incarnation))
        return "not for this life";
    if (b->n_replies > 0)
        return "replies to calls that nobody made";
    return NULL;
}

void link_served_receive(struct link_core *l, uint64_t conn, struct message *m)
{
    const Karst__Bus__Batch *b = m->batch;
    struct served *s = find(l, conn);

    if (s == NULL) {
        if (b->hello != NULL)
            on_hello(l, conn, b);
        else
            refuse_unknown(l, conn, b);
        return;
    }
    const char *wrong = check_batch(l, s, b);
    if (wrong != NULL) {
        break_off(l, s, b, wrong);
        return;
    }
    s->receive_sequence++;
    s->received_ms = l->now_ms;
    for (size_t i = 0; i < b->n_calls; i++) {
        if (!on_call(l, s, m, b->calls[i])) {
            break_off(l, s, b, "more calls than its credit");
            return;
        }
    }
    on_cancels(s, b);
    s->heartbeat_reply = b->heartbeat ? b->heartbeat : s->heartbeat_reply;
    s->peer_goodbye |= b->goodbye;
    if (s->heartbeat_reply != 0)
        link_served_stage(l, s);
}

/* ---- sending and time ---- */

void link_served_flush(struct link_core *l, struct served *s)
{
    Karst__Bus__Batch b;
    Karst__Bus__Peer from, to;
    Karst__Bus__Welcome welcome = KARST__BUS__WELCOME__INIT;

    ASSERT(s->out != NULL);
    if (s->out->body.size == 0 && !s->welcome && !s->goodbye && s->heartbeat_reply == 0)
        return;
    head_init(l, &b, &from, &to);
    to = s->peer;
    if (s->version >= BUS_VERSION_NAMES_ONCE && !s->welcome)
        b.from = b.to = NULL;
    b.session = s->session;
    b.sequence = ++s->send_sequence;
    b.heartbeat_reply = s->heartbeat_reply;
    b.goodbye = s->goodbye;
    if (s->welcome) {
        welcome.bus_version = s->version;
        welcome.credit_calls = l->options.credit_calls;
        welcome.credit_bytes = l->options.credit_bytes;
        b.welcome = &welcome;
    }
    s->welcome = s->goodbye = false;
    s->heartbeat_reply = 0;
    link_send(l, s->conn, s->out, &b);
    s->out = s->staged ? link_outgoing_new(l) : NULL;
}

void link_served_goodbye(struct link_core *l)
{
    for (struct served *s = l->served; s != NULL; s = s->hh.next) {
        s->goodbye = true;
        link_served_stage(l, s);
    }
}

void link_served_tick(struct link_core *l, uint64_t *wake_ms)
{
    struct served *s, *next;

    HASH_ITER (hh, l->served, s, next) {
        uint64_t until = s->received_ms + link_silent_ms(l);
        if (l->now_ms >= until || (s->peer_goodbye && s->rpc_count == 0 && !s->staged))
            end(l, s);
        else
            *wake_ms = MIN(*wake_ms, until);
    }
}
