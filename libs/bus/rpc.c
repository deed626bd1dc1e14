/* rpc.c - the handler's end of a call.
 *
 *   waiting (for metadata) -> due (LINK_EXECUTE staged) -> executing (the handler has it) -> answered: freed */
#include <stdlib.h>
#include <utlist.h>

#include "libs/bus/link_internal.h"

enum { RPC_ARENA_BYTES = 256 << 20 };

struct rpc *link_rpc_new(struct link_core *l, struct served *s, struct message *m, const Karst__Bus__Call *call)
{
    struct rpc *r = l->rpc_pool;

    if (r != NULL) {
        l->rpc_pool = r->next;
        l->rpc_pooled--;
    } else {
        r = xmalloc(sizeof *r);
    }
    *r = (struct rpc){.core = l, .link = s, .correlation_id = call->correlation_id, .state = RPC_DUE, .call = call};
    r->from = s->peer;
    r->message = m;
    m->count++;
    r->deadline.is_rpc = true;
    HASH_ADD(hh, s->rpcs, correlation_id, sizeof r->correlation_id, r);
    DL_APPEND(l->all_rpcs, r);
    s->rpc_count++;
    l->rpc_total++;
    return r;
}

static void forget_gone(struct rpc *r)
{
    if (!r->gone_staged)
        return;
    DL_DELETE2(r->core->gone, r, gone_prev, gone_next);
    r->gone_staged = false;
}

static void stop_waiting(struct rpc *r)
{
    if (r->state != RPC_WAITING)
        return;
    link_deadline_clear(r->core, &r->deadline);
    DL_DELETE2(r->link->waiting, r, wait_prev, wait_next);
    r->state = RPC_DUE;
}

static void unlink_rpc(struct rpc *r)
{
    struct served *s = r->link;

    stop_waiting(r);
    HASH_DELETE(hh, s->rpcs, r);
    s->rpc_count--;
    s->rpc_parked -= r->parks;
    s->rpc_bytes -= r->cost;
    r->link = NULL;
}

void link_rpc_free(struct rpc *r)
{
    struct link_core *l = r->core;

    forget_gone(r);
    DL_DELETE(l->all_rpcs, r);
    for (size_t i = 0; i < r->payload_count; i++)
        ref_release(&r->payloads[i]);
    link_message_release(l, r->message);
    arena_free(r->arena);
    l->rpc_total--;
    if (l->rpc_pooled == POOL_MAX) {
        free(r);
        return;
    }
    r->next = l->rpc_pool;
    l->rpc_pool = r;
    l->rpc_pooled++;
}

static void stage_gone(struct rpc *r)
{
    r->gone = true;
    if (r->state != RPC_EXECUTING || r->gone_staged)
        return;
    DL_APPEND2(r->core->gone, r, gone_prev, gone_next);
    r->gone_staged = true;
}

void link_rpc_orphan(struct rpc *r)
{
    bool was_waiting = r->state == RPC_WAITING;
    bool was_gone = r->gone;

    unlink_rpc(r);
    if (was_waiting)
        link_rpc_free(r);
    else if (!was_gone)
        stage_gone(r);
}

void link_rpc_cancel(struct rpc *r)
{
    if (r->state == RPC_WAITING)
        rpc_fail(r, KARST__BUS__OUTCOME__OUTCOME_CANCELLED);
    else if (!r->gone)
        stage_gone(r);
}

/* ---- what handlers see ---- */

const Karst__Bus__Call *rpc_call(const struct rpc *r)
{
    return r->call;
}

struct arena *rpc_arena(struct rpc *r)
{
    if (r->arena == NULL)
        r->arena = arena_new(RPC_ARENA_BYTES);
    return r->arena;
}

size_t rpc_payload_count(const struct rpc *r)
{
    return r->payload_count;
}

const struct ref *rpc_payload(const struct rpc *r, size_t i)
{
    ASSERT(i < r->payload_count);
    return &r->payloads[i];
}

const Karst__Bus__Peer *rpc_from(const struct rpc *r)
{
    return &r->from;
}

const Karst__Bus__Caller *rpc_caller(const struct rpc *r)
{
    static const Karst__Bus__Caller nobody = KARST__BUS__CALLER__INIT;

    return r->call->caller ? r->call->caller : &nobody;
}

uint64_t rpc_deadline_ms(const struct rpc *r)
{
    return r->deadline.at_ms;
}

void rpc_on_gone(struct rpc *r, bus_handler_fn *fn, void *ctx)
{
    r->gone_fn = fn;
    r->gone_ctx = ctx;
}

static void answered(struct rpc *r, struct served *s)
{
    unlink_rpc(r);
    if (link_outgoing_is_full(s->out))
        link_served_flush(r->core, s);
    link_rpc_free(r);
}

void rpc_reply(struct rpc *r, Karst__Bus__Reply__BodyCase kind, const void *body, const struct ref *payloads,
               size_t payload_count, int64_t metadata_offset)
{
    struct served *s = r->link;

    ASSERT(body != NULL);
    if (r->gone) { /* nobody waits for it; the caller's link still wants its credit back */
        rpc_fail(r, KARST__BUS__OUTCOME__OUTCOME_CANCELLED);
        return;
    }
    link_served_stage(r->core, s);
    if (link_outgoing_reply(s->out, r->correlation_id, KARST__BUS__OUTCOME__OUTCOME_OK, metadata_offset, kind, body,
                            payloads, payload_count))
        answered(r, s);
    else
        rpc_fail(r, KARST__BUS__OUTCOME__OUTCOME_UNKNOWN); /* too large to be told; it was done all the same */
}

bool rpc_shares_files(const struct rpc *r)
{
    return r->link != NULL && !r->gone && r->reply_in_files && link_shares(r->core, r->link->conn);
}

bool rpc_share_file(struct rpc *r, struct ref_file *f)
{
    const struct link_sharing *sharing = &r->core->options.sharing;

    return rpc_shares_files(r) && sharing->pass_file(sharing->ctx, r->link->conn, f);
}

void rpc_fail(struct rpc *r, Karst__Bus__Outcome outcome)
{
    struct served *s = r->link;

    ASSERT(outcome != KARST__BUS__OUTCOME__OUTCOME_OK);
    if (s == NULL) {
        link_rpc_free(r);
        return;
    }
    link_served_stage(r->core, s);
    if (!link_outgoing_reply(s->out, r->correlation_id, outcome, 0, KARST__BUS__REPLY__BODY__NOT_SET, NULL, NULL, 0))
        BUG("a reply without a body is too large");
    answered(r, s);
}
