/* link.c - events in, actions out; the table of calls. */
#include "libs/bus/link.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>

#include "libs/bus/link_internal.h"
#include "libs/bus/version.h"

enum { CREDIT_CALLS = 16384, CREDIT_BYTES = 128 << 20, HEARTBEAT_MS = 500 };

struct link_core *link_new(const struct link_options *options, uint64_t now_ms)
{
    struct link_core *l = xcalloc(1, sizeof *l);

    ASSERT(options->incarnation != 0 && options->cluster_id != NULL);
    l->options = *options;
    l->cluster_id = xstrdup(options->cluster_id);
    l->options.cluster_id = l->cluster_id;
    if (l->options.credit_calls == 0)
        l->options.credit_calls = CREDIT_CALLS;
    if (l->options.credit_bytes == 0)
        l->options.credit_bytes = CREDIT_BYTES;
    if (l->options.heartbeat_ms == 0)
        l->options.heartbeat_ms = HEARTBEAT_MS;
    if (l->options.version_min == 0)
        l->options.version_min = bus_version_min();
    if (l->options.version_max == 0)
        l->options.version_max = bus_version_max();
    l->level = l->options.version_min;
    l->now_ms = now_ms;
    l->wake_ms = UINT64_MAX;
    l->metadata_offset = -1;
    return l;
}

static void free_slot(struct link_core *l, struct slot *s)
{
    link_outgoing_free(l, s->outgoing);
    for (size_t i = 0; i < s->action.result.payload_count; i++)
        ref_release(&s->payloads[i]);
    if (s->message != NULL)
        link_message_release(l, s->message);
    free(s->text);
    *s = (struct slot){0};
}

static void free_pools(struct link_core *l)
{
    while (l->rpc_pool != NULL) {
        struct rpc *r = l->rpc_pool;
        l->rpc_pool = r->next;
        free(r);
    }
    while (l->message_pool != NULL) {
        struct message *m = l->message_pool;
        l->message_pool = m->next;
        free(m);
    }
    while (l->outgoing_pool != NULL) {
        struct outgoing *o = l->outgoing_pool;
        l->outgoing_pool = o->next;
        buf_free(&o->head);
        buf_free(&o->body);
        free(o->frames);
        free(o);
    }
    while (l->arena_pooled > 0)
        arena_free(l->arena_pool[--l->arena_pooled]);
}

struct link_core *link_free(struct link_core *l)
{
    struct peer *p, *next_peer;
    struct caller *c, *next_caller;

    if (l == NULL)
        return NULL;
    link_served_end_all(l);
    while (l->all_rpcs != NULL)
        link_rpc_free(l->all_rpcs);
    DL_FOREACH_SAFE(l->callers, c, next_caller)
    link_caller_free(l, c);
    HASH_ITER (hh, l->peers, p, next_peer) {
        HASH_DELETE(hh, l->peers, p);
        free(p->address);
        free(p);
    }
    free_slot(l, &l->current);
    for (; l->action_count > 0; l->action_count--) {
        free_slot(l, &l->actions[l->action_first]);
        l->action_first = (l->action_first + 1) % l->action_capacity;
    }
    free_pools(l);
    free(l->actions);
    free(l->calls);
    free(l->free_slots);
    free(l->heap);
    free(l->cluster_id);
    free(l);
    return NULL;
}

/* ---- actions ---- */

struct slot *link_push(struct link_core *l, enum link_action_kind kind)
{
    if (l->action_count == l->action_capacity) {
        size_t capacity = l->action_capacity ? 2 * l->action_capacity : 64;
        struct slot *grown = xcalloc(capacity, sizeof *grown);
        for (size_t i = 0; i < l->action_count; i++)
            grown[i] = l->actions[(l->action_first + i) % l->action_capacity];
        free(l->actions);
        l->actions = grown;
        l->action_first = 0;
        l->action_capacity = capacity;
    }
    struct slot *s = &l->actions[(l->action_first + l->action_count++) % l->action_capacity];
    *s = (struct slot){.action.kind = kind};
    return s;
}

void link_report(struct link_core *l, const char *format, ...)
{
    struct slot *s = link_push(l, LINK_REPORT);
    va_list arguments;

    va_start(arguments, format);
    if (vasprintf(&s->text, format, arguments) < 0)
        BUG("out of memory");
    va_end(arguments);
    s->action.text = s->text;
}

static bool next_gone(struct link_core *l, struct link_action *ret_action)
{
    while (l->gone != NULL) {
        struct rpc *r = l->gone;
        DL_DELETE2(l->gone, r, gone_prev, gone_next);
        r->gone_staged = false;
        if (r->gone_fn == NULL)
            continue;
        *ret_action = (struct link_action){.kind = LINK_GONE, .rpc = r, .gone_fn = r->gone_fn, .ctx = r->gone_ctx};
        return true;
    }
    return false;
}

/* Whether the action is still to be carried out; an rpc whose caller has gone meanwhile is never executed. */
static bool is_wanted(const struct slot *s)
{
    if (s->action.kind != LINK_EXECUTE)
        return true;
    struct rpc *r = s->action.rpc;
    if (r->gone) {
        rpc_fail(r, KARST__BUS__OUTCOME__OUTCOME_CANCELLED);
        return false;
    }
    r->state = RPC_EXECUTING;
    return true;
}

bool link_next(struct link_core *l, struct link_action *ret_action)
{
    if (l->has_current)
        free_slot(l, &l->current);
    l->has_current = false;
    if (next_gone(l, ret_action))
        return true;
    while (l->action_count > 0) {
        struct slot s = l->actions[l->action_first];
        l->action_first = (l->action_first + 1) % l->action_capacity;
        l->action_count--;
        if (!is_wanted(&s))
            continue;
        l->current = s;
        l->has_current = true;
        *ret_action = s.action;
        return true;
    }
    return false;
}

bool link_shares(const struct link_core *l, uint64_t conn)
{
    const struct link_sharing *s = &l->options.sharing;

    return s->shares != NULL && s->shares(s->ctx, conn);
}

void link_close(struct link_core *l, uint64_t conn)
{
    link_push(l, LINK_CLOSE)->action.conn = conn;
}

void link_hold(struct link_core *l, uint64_t conn, struct outgoing *o)
{
    struct slot *s = link_push(l, LINK_HOLD);

    s->outgoing = o;
    s->action.conn = conn;
    s->action.frames = o->frames;
    s->action.frame_count = o->frame_count;
}

void link_done(struct link_core *l, const struct call *c, Karst__Bus__Outcome outcome)
{
    struct slot *s = link_push(l, LINK_DONE);

    ASSERT(outcome != KARST__BUS__OUTCOME__OUTCOME_OK);
    s->action.done = c->done;
    s->action.ctx = c->ctx;
    s->action.result.outcome = outcome;
    s->action.result.nobody = outcome == KARST__BUS__OUTCOME__OUTCOME_NOT_SENT && c->link->absent;
}

/* The reply's kind is that of the call: their numbers in the two oneofs are the same. */
static bool reply_fits(const struct call *c, const Karst__Bus__Reply *reply)
{
    return (int)reply->body_case == (int)c->kind;
}

void link_done_reply(struct link_core *l, const struct call *c, struct message *m, const Karst__Bus__Reply *reply)
{
    struct ref *payloads = NULL;

    if (reply->outcome != KARST__BUS__OUTCOME__OUTCOME_OK) {
        link_done(l, c, reply->outcome);
        return;
    }
    if (reply->n_payloads > 0)
        payloads = arena_try_alloc(m->arena, reply->n_payloads * sizeof *payloads);
    if (!reply_fits(c, reply) || (reply->n_payloads > 0 && payloads == NULL) ||
        link_message_payloads(l, c->link->conn, m, reply->n_payloads, reply->payloads,
                              c->reply_in_files ? KARST__BUS__PAYLOAD__REFERENCE_FILE
                                                : KARST__BUS__PAYLOAD__REFERENCE__NOT_SET,
                              payloads) < 0) {
        link_report(l, "a reply that cannot be read, kind %d to a call of kind %d", (int)reply->body_case,
                    (int)c->kind);
        link_done(l, c, KARST__BUS__OUTCOME__OUTCOME_MALFORMED);
        return;
    }
    struct slot *s = link_push(l, LINK_DONE);
    m->count++;
    s->message = m;
    s->payloads = payloads;
    s->action.done = c->done;
    s->action.ctx = c->ctx;
    s->action.result = (struct bus_result){.outcome = KARST__BUS__OUTCOME__OUTCOME_OK,
                                           .reply = reply,
                                           .payloads = payloads,
                                           .payload_count = reply->n_payloads};
}

void link_send(struct link_core *l, uint64_t conn, struct outgoing *o, const Karst__Bus__Batch *head)
{
    if (o == NULL)
        o = link_outgoing_new(l);
    size_t size = karst__bus__batch__get_packed_size(head);
    o->head.size = 0;
    karst__bus__batch__pack(head, buf_grow(&o->head, size));
    struct slot *s = link_push(l, LINK_SEND);
    s->outgoing = o;
    s->action.conn = conn;
    s->action.head = buf_slice(&o->head);
    s->action.tail = buf_slice(&o->body);
    s->action.frames = o->frames;
    s->action.frame_count = o->frame_count;
}

/* ---- time ---- */

uint32_t link_silent_ms(const struct link_core *l)
{
    return l->options.heartbeat_ms * LINK_SILENT_HEARTBEATS;
}

void link_clock(struct link_core *l, uint64_t now_ms)
{
    if (now_ms > l->now_ms)
        l->now_ms = now_ms;
}

void link_wake_by(struct link_core *l, uint64_t at_ms)
{
    l->wake_ms = MIN(l->wake_ms, at_ms);
}

uint64_t link_wake_ms(const struct link_core *l)
{
    return l->wake_ms;
}

static void expire(struct link_core *l, struct deadline *d)
{
    link_deadline_clear(l, d);
    if (d->is_rpc) {
        rpc_fail(CONTAINER_OF(d, struct rpc, deadline), KARST__BUS__OUTCOME__OUTCOME_EXPIRED);
        return;
    }
    struct call *c = CONTAINER_OF(d, struct call, deadline);
    link_caller_stop_call(
        l, c, c->state == CALL_QUEUED ? KARST__BUS__OUTCOME__OUTCOME_NOT_SENT : KARST__BUS__OUTCOME__OUTCOME_TIMEOUT);
}

/* We, not our peers, were silent when a tick comes much later than it was asked for (SIGSTOP, a stalled machine): what
 * they sent meanwhile has not been looked at yet. Their silence counts from now. */
static void forgive_own_stall(struct link_core *l)
{
    struct served *s, *next;
    struct caller *c;

    if (l->wake_ms == UINT64_MAX || l->now_ms < l->wake_ms + l->options.heartbeat_ms)
        return;
    HASH_ITER (hh, l->served, s, next)
        s->received_ms = l->now_ms;
    DL_FOREACH (l->callers, c)
        c->received_ms = l->now_ms;
}

void link_tick(struct link_core *l)
{
    struct caller *c;

    forgive_own_stall(l);
    l->wake_ms = UINT64_MAX;
    while (l->heap_count > 0 && l->heap[1]->at_ms <= l->now_ms)
        expire(l, l->heap[1]);
    link_served_unpark(l); /* what waited behind an expired one */
    if (l->heap_count > 0)
        link_wake_by(l, l->heap[1]->at_ms);
    DL_FOREACH (l->callers, c)
        link_wake_by(l, link_caller_tick(l, c));
    link_served_tick(l, &l->wake_ms);
}

/* ---- calls ---- */

static uint32_t take_slot(struct link_core *l)
{
    if (l->free_slot_count == 0) {
        size_t capacity = l->call_capacity ? 2 * l->call_capacity : 64;
        l->calls = xrealloc(l->calls, capacity * sizeof(struct call *));
        l->free_slots = xrealloc(l->free_slots, capacity * sizeof *l->free_slots);
        for (size_t i = capacity; i-- > l->call_capacity;) {
            l->calls[i] = NULL;
            l->free_slots[l->free_slot_count++] = (uint32_t)i;
        }
        l->call_capacity = capacity;
    }
    return l->free_slots[--l->free_slot_count];
}

static struct call *find_call(struct link_core *l, uint64_t id)
{
    size_t slot = id & (CALLS_MAX - 1);
    struct call *c = slot < l->call_capacity ? l->calls[slot] : NULL;

    return c != NULL && c->id == id ? c : NULL;
}

void link_free_call(struct link_core *l, struct call *c)
{
    uint32_t slot = (uint32_t)(c->id & (CALLS_MAX - 1));

    link_deadline_clear(l, &c->deadline);
    for (size_t i = 0; i < c->payload_count; i++)
        ref_release(&c->payloads[i]);
    l->calls[slot] = NULL;
    l->free_slots[l->free_slot_count++] = slot;
    free(c);
}

static struct call *new_call(struct link_core *l, const struct bus_request *request)
{
    union { /* packing only reads through the pointers of the oneof */
        const void *in;
        Karst__Bus__KafkaRequest *out;
    } body = {.in = request->body};
    union {
        const Karst__Bus__Caller *in;
        Karst__Bus__Caller *out;
    } caller = {.in = request->caller};
    Karst__Bus__Call call = KARST__BUS__CALL__INIT;

    call.body_case = request->kind;
    call.kafka = body.out;
    call.caller = caller.out;
    size_t packed = karst__bus__call__get_packed_size(&call);
    size_t refs = request->payload_count * sizeof(struct ref);
    struct call *c = xmalloc(sizeof *c + refs + packed);
    uint8_t *behind = (uint8_t *)(c + 1);
    *c = (struct call){.kind = request->kind, .payloads = (struct ref *)(void *)behind};
    karst__bus__call__pack(&call, behind + refs);
    c->packed = slice_make(behind + refs, packed);
    c->cost = LINK_CALL_OVERHEAD;
    c->payload_count = request->payload_count;
    for (size_t i = 0; i < request->payload_count; i++) {
        ref_retain(&request->payloads[i]);
        c->payloads[i] = request->payloads[i];
        c->cost += request->payloads[i].size_bytes;
    }
    uint32_t slot = take_slot(l);
    ASSERT(slot < CALLS_MAX);
    c->id = ++l->last_call << CALL_SLOT_BITS | slot;
    l->calls[slot] = c;
    return c;
}

static uint64_t peer_key(Karst__Bus__Role role, int32_t id)
{
    return (uint64_t)role << 32 | (uint32_t)id;
}

static struct peer *get_peer(struct link_core *l, Karst__Bus__Role role, int32_t id)
{
    uint64_t key = peer_key(role, id);
    struct peer *p;

    HASH_FIND(hh, l->peers, &key, sizeof key, p);
    if (p != NULL)
        return p;
    p = xcalloc(1, sizeof *p);
    p->key = key;
    p->role = role;
    p->id = id;
    HASH_ADD(hh, l->peers, key, sizeof p->key, p);
    return p;
}

uint64_t link_call(struct link_core *l, Karst__Bus__Role role, int32_t id, const struct bus_request *request,
                   bus_done_fn *done, void *ctx)
{
    int32_t api_key = 0;

    ASSERT(request->body != NULL && request->timeout_ms > 0);
    if (request->kind == KARST__BUS__CALL__BODY_KAFKA)
        api_key = ((const Karst__Bus__KafkaRequest *)request->body)->api_key;
    const struct kind *kind = link_kind_of(request->kind, api_key);
    ASSERT(kind != NULL);
    struct call *c = new_call(l, request);
    uint64_t call_id = c->id;
    c->done = done;
    c->ctx = ctx;
    c->until_ms = l->now_ms + request->timeout_ms;
    link_deadline_set(l, &c->deadline,
                      request->send_ms > 0 ? MIN(l->now_ms + request->send_ms, c->until_ms) : c->until_ms);
    link_caller_call(l, get_peer(l, role, id), c, kind);
    return call_id;
}

void link_cancel(struct link_core *l, uint64_t call_id)
{
    struct call *c = find_call(l, call_id);

    if (c != NULL && c->state != CALL_ENDED)
        link_caller_stop_call(l, c, KARST__BUS__OUTCOME__OUTCOME_CANCELLED);
}

/* ---- peers, connections, messages ---- */

uint64_t link_silence_ms(const struct link_core *l, Karst__Bus__Role role, int32_t id, Karst__Bus__Call__BodyCase kind,
                         uint64_t now_ms)
{
    uint64_t key = peer_key(role, id);
    struct peer *p;

    HASH_FIND(hh, l->peers, &key, sizeof key, p);
    const struct caller *c = p != NULL ? p->lanes[link_kind_of(kind, -1)->lane] : NULL;
    return c != NULL && c->state >= CALLER_UP ? now_ms - MIN(now_ms, c->received_ms) : UINT64_MAX;
}

const char *link_peer_address(const struct link_core *l, Karst__Bus__Role role, int32_t id)
{
    uint64_t key = peer_key(role, id);
    struct peer *p;

    HASH_FIND(hh, l->peers, &key, sizeof key, p);
    return p != NULL ? p->address : NULL;
}

void link_set_peer(struct link_core *l, Karst__Bus__Role role, int32_t id, uint64_t incarnation, const char *address)
{
    struct peer *p = get_peer(l, role, id);
    bool same_address =
        (address == NULL) == (p->address == NULL) && (address == NULL || strcmp(address, p->address) == 0);

    if (same_address && incarnation == p->incarnation)
        return;
    if (!same_address) {
        free(p->address);
        p->address = address ? xstrdup(address) : NULL;
    }
    p->incarnation = incarnation;
    link_caller_reset_peer(l, p, same_address);
}

void link_set_metadata_offset(struct link_core *l, int64_t offset)
{
    if (offset <= l->metadata_offset)
        return;
    l->metadata_offset = offset;
    link_served_unpark(l);
}

void link_set_level(struct link_core *l, uint32_t version)
{
    l->level = MAX(version, l->options.version_min);
}

static struct caller *find_conn(struct link_core *l, uint64_t conn)
{
    struct caller *c;

    HASH_FIND(hh, l->callers_by_conn, &conn, sizeof conn, c);
    return c;
}

void link_connected(struct link_core *l, uint64_t conn)
{
    struct caller *c = find_conn(l, conn);

    if (c != NULL && c->state == CALLER_CONNECTING)
        link_caller_connected(l, c);
}

void link_lost(struct link_core *l, uint64_t conn)
{
    struct caller *c = find_conn(l, conn);

    if (conn & LINK_CONN_SERVED)
        link_served_lost(l, conn);
    else if (c != NULL)
        link_caller_lost(l, c, false);
}

void link_absent(struct link_core *l, uint64_t conn)
{
    struct caller *c = find_conn(l, conn);

    if (c != NULL && c->state == CALLER_CONNECTING)
        link_caller_lost(l, c, true);
    else
        link_lost(l, conn);
}

void link_receive(struct link_core *l, uint64_t conn, struct slice frame0, struct ref *frames, size_t frame_count)
{
    struct message *m = link_message_read(l, frame0, frames, frame_count);
    struct caller *c = find_conn(l, conn);

    if (conn & LINK_CONN_SERVED) {
        if (m != NULL)
            link_served_receive(l, conn, m);
        else
            link_served_rubbish(l, conn);
    } else if (c != NULL) {
        if (m != NULL)
            link_caller_receive(l, c, m);
        else
            link_caller_rubbish(l, c);
    }
    if (m != NULL)
        link_message_release(l, m);
}

bool link_is_staged(const struct link_core *l)
{
    return l->staged_callers != NULL || l->staged_served != NULL;
}

void link_flush(struct link_core *l)
{
    struct caller *c = TAKE_PTR(l->staged_callers), *next_caller;
    struct served *s = TAKE_PTR(l->staged_served), *next_served;

    for (; c != NULL; c = next_caller) {
        next_caller = c->next_staged;
        c->staged = false;
        link_caller_flush(l, c);
    }
    for (; s != NULL; s = next_served) {
        next_served = s->next_staged;
        s->staged = false;
        link_served_flush(l, s);
    }
}

void link_goodbye(struct link_core *l)
{
    struct caller *c;

    l->closing = true;
    DL_FOREACH (l->callers, c)
        link_caller_shutdown(l, c);
    link_served_goodbye(l);
}

void link_shutdown(struct link_core *l)
{
    struct caller *c;

    l->closing = true;
    DL_FOREACH (l->callers, c) {
        link_caller_shutdown(l, c);
        link_caller_end(l, c, 0);
    }
    link_served_end_all(l);
}
