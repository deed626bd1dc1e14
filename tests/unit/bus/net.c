#include "net.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdlib.h>
#include <utlist.h>

static const char cluster[] = "clusterclusterclusterc";

enum { ADD_RAFT_VOTER = 80 };
enum { ARENA_ID = 4711, SLICE_AT = 128, FILE_AT = 65536, FILE_BYTES = 100000 };

static void never_freed(struct ref_owner *o)
{
    (void)o;
    BUG("the net's own count was given back");
}

static bool may_share(void *ctx, uint64_t conn)
{
    (void)conn;
    return ((struct net *)ctx)->shares;
}

static bool pass_file(void *ctx, uint64_t conn, struct ref_file *f)
{
    struct net *n = ctx;

    (void)conn;
    ref_owner_retain(&f->owner);
    n->passed[n->passed_count++] = f;
    return true;
}

static int resolve(void *ctx, uint64_t conn, const Karst__Bus__Payload *p, struct ref *ret_ref)
{
    struct net *n = ctx;

    (void)conn;
    if (p->reference_case == KARST__BUS__PAYLOAD__REFERENCE_ARENA) {
        if (p->arena->arena != ARENA_ID || p->arena->offset > sizeof n->arena ||
            p->size_bytes > sizeof n->arena - p->arena->offset)
            return -EBADMSG;
        struct slice bytes = slice_make(n->arena + p->arena->offset, p->size_bytes);
        *ret_ref = (struct ref){REF_ARENA, NULL, bytes, ARENA_ID, p->arena->offset, p->size_bytes};
        return 0;
    }
    for (size_t i = 0; i < n->passed_count; i++)
        if (n->passed[i]->instance == p->file->instance) {
            *ret_ref = ref_of_file(n->passed[i], p->file->position, p->size_bytes);
            return 0;
        }
    return -EBADMSG;
}

void net_share(struct net *n)
{
    n->shares = true;
}

static void hold(struct net *n, const struct link_action *a)
{
    for (size_t i = 0; i < a->frame_count; i++) {
        ref_retain(&a->frames[i]);
        n->held[n->held_count++] = a->frames[i];
    }
}

void net_hang_up(struct net *n)
{
    while (n->held_count > 0)
        ref_release(&n->held[--n->held_count]);
}

size_t net_slices(const struct net *n)
{
    return (size_t)n->arena_owner.count - 1;
}

void net_init(struct net *n, const struct link_options *caller, const struct link_options *served)
{
    memset(n, 0, sizeof *n);
    n->now = 1000;
    if (caller)
        n->options[0] = *caller;
    if (served)
        n->options[1] = *served;
    n->options[0].role = KARST__BUS__ROLE__ROLE_FRONTEND;
    n->options[1].role = KARST__BUS__ROLE__ROLE_STORAGE;
    for (int i = 0; i < 2; i++) {
        n->options[i].id = 1;
        if (n->options[i].cluster_id == NULL)
            n->options[i].cluster_id = cluster;
    }
    n->options[0].incarnation = 77;
    for (int i = 0; i < 2; i++)
        n->options[i].sharing = (struct link_sharing){n, may_share, pass_file, resolve};
    ref_owner_init(&n->arena_owner, never_freed);
    n->core[0] = link_new(&n->options[0], n->now);
}

void net_drop(struct net *n, struct packet *p)
{
    DL_DELETE(n->packets, p);
    buf_free(&p->frame0);
    for (size_t i = 0; i < p->frame_count; i++)
        ref_release(&p->frames[i]);
    free(p->frames);
    free(p);
}

static void lose(struct net *n, size_t wire, int node)
{
    uint64_t conn = n->wires[wire].conn[node];

    n->wires[wire].conn[node] = 0;
    if (conn != 0 && n->core[node] != NULL && node == 0)
        link_lost(n->core[node], conn);
}

void net_break(struct net *n)
{
    while (n->packets != NULL)
        net_drop(n, n->packets);
    for (size_t i = 0; i < n->wire_count; i++) {
        lose(n, i, 0);
        lose(n, i, 1);
    }
    net_actions(n, 0);
}

void net_start(struct net *n, uint64_t incarnation)
{
    n->options[1].incarnation = n->life = incarnation;
    n->core[1] = link_new(&n->options[1], n->now);
}

void net_begin(struct net *n, const struct link_options *caller, const struct link_options *served)
{
    net_init(n, caller, served);
    net_start(n, 5);
    link_set_peer(n->core[0], KARST__BUS__ROLE__ROLE_STORAGE, 1, 0, "ipc:///there");
}

void net_kill(struct net *n)
{
    n->life = 0;
    n->rpc_count = 0;
    n->core[1] = link_free(n->core[1]);
    net_break(n);
}

void net_free(struct net *n)
{
    if (n->core[1] != NULL)
        net_kill(n);
    link_shutdown(n->core[0]);
    net_actions(n, 0);
    for (size_t i = 0; i < n->call_count; i++) {
        if (n->calls[i].ended != 1)
            BUG("a call did not end exactly once");
        if (n->calls[i].executed > 1)
            BUG("a call was executed twice");
        buf_free(&n->calls[i].payload);
    }
    n->core[0] = link_free(n->core[0]);
    while (n->packets != NULL)
        net_drop(n, n->packets);
    net_hang_up(n);
    if (net_slices(n) != 0)
        BUG("a slice of the arena is held for ever");
    while (n->passed_count > 0)
        ref_owner_release(&n->passed[--n->passed_count]->owner);
}

static void on_done(void *ctx, const struct bus_result *result)
{
    struct seen_call *c = ctx;

    c->ended++;
    c->outcome = result->outcome;
    c->nobody = result->nobody;
    if (result->outcome != KARST__BUS__OUTCOME__OUTCOME_OK)
        return;
    if (result->reply->body_case == KARST__BUS__REPLY__BODY_APPEND && result->reply->append->n_results == 1)
        c->base_offset = result->reply->append->results[0]->base_offset;
    for (size_t i = 0; i < result->payload_count; i++)
        if (result->payloads[i].kind == REF_FILE)
            c->file_bytes += result->payloads[i].size_bytes;
        else
            buf_append(&c->payload, result->payloads[i].bytes.data, result->payloads[i].bytes.size);
}

static struct ref slice_of_arena(struct net *n, size_t size)
{
    ref_owner_retain(&n->arena_owner);
    return (struct ref){REF_ARENA, &n->arena_owner, slice_make(n->arena + SLICE_AT, size), ARENA_ID, SLICE_AT, size};
}

/* The call's number rides in its first field of numbers, so that who executes it can say which it was. */
size_t net_call(struct net *n, Karst__Bus__Call__BodyCase kind, uint32_t timeout_ms, size_t payload_bytes)
{
    struct seen_call *c = &n->calls[n->call_count];
    Karst__Bus__AppendRequest append = KARST__BUS__APPEND_REQUEST__INIT;
    Karst__Bus__ReadRequest read = KARST__BUS__READ_REQUEST__INIT;
    Karst__Bus__KafkaRequest voters = KARST__BUS__KAFKA_REQUEST__INIT;
    struct ref payload =
        n->shares ? slice_of_arena(n, payload_bytes) : ref_take(xcalloc(1, payload_bytes), payload_bytes);
    struct bus_request request = {.kind = kind,
                                  .payloads = &payload,
                                  .payload_count = payload_bytes > 0,
                                  .timeout_ms = timeout_ms,
                                  .send_ms = n->send_ms};

    ASSERT(n->call_count < CALLS);
    append.timeout_ms = read.max_bytes = (uint32_t)n->call_count;
    voters.api_key = ADD_RAFT_VOTER;
    voters.api_version = (int32_t)n->call_count;
    request.body = kind == KARST__BUS__CALL__BODY_APPEND  ? (const void *)&append
                   : kind == KARST__BUS__CALL__BODY_KAFKA ? (const void *)&voters
                                                          : &read;
    c->net = n;
    c->id = link_call(n->core[0], KARST__BUS__ROLE__ROLE_STORAGE, 1, &request, on_done, c);
    ref_release(&payload);
    return n->call_count++;
}

static void on_gone(void *ctx, struct rpc *r)
{
    (void)r;
    ((struct net *)ctx)->gone++;
}

static size_t number_of(const Karst__Bus__Call *call)
{
    if (call->body_case == KARST__BUS__CALL__BODY_KAFKA)
        return (size_t)call->kafka->api_version;
    return call->body_case == KARST__BUS__CALL__BODY_APPEND ? call->append->timeout_ms : call->read->max_bytes;
}

static void execute(struct net *n, struct rpc *r)
{
    size_t i = number_of(rpc_call(r));

    ASSERT(i < n->call_count);
    n->calls[i].executed++;
    n->calls[i].executed_by = n->life;
    rpc_on_gone(r, on_gone, n);
    n->rpcs[n->rpc_count] = r;
    n->rpc_of[n->rpc_count++] = i;
}

void net_answer(struct net *n, size_t i)
{
    struct rpc *r = n->rpcs[i];
    size_t which = n->rpc_of[i];

    for (size_t j = i + 1; j < n->rpc_count; j++) {
        n->rpcs[j - 1] = n->rpcs[j];
        n->rpc_of[j - 1] = n->rpc_of[j];
    }
    n->rpc_count--;
    if (rpc_call(r)->body_case == KARST__BUS__CALL__BODY_APPEND) {
        Karst__Bus__AppendReply reply = KARST__BUS__APPEND_REPLY__INIT;
        Karst__Bus__AppendResult result = KARST__BUS__APPEND_RESULT__INIT, *results[] = {&result};
        result.base_offset = (int64_t)which + 1000000;
        reply.n_results = 1;
        reply.results = results;
        rpc_reply(r, KARST__BUS__REPLY__BODY_APPEND, &reply, NULL, 0, 0);
    } else if (rpc_call(r)->body_case == KARST__BUS__CALL__BODY_KAFKA) {
        Karst__Bus__KafkaResponse reply = KARST__BUS__KAFKA_RESPONSE__INIT;
        rpc_reply(r, KARST__BUS__REPLY__BODY_KAFKA, &reply, NULL, 0, 0);
    } else {
        Karst__Bus__ReadReply reply = KARST__BUS__READ_REPLY__INIT;
        struct ref parts[2] = {ref_copy(SLICE_OF("hello ")), ref_copy(SLICE_OF("world"))};
        struct ref_file *f = ref_file_new(open("/dev/null", O_RDONLY | O_CLOEXEC), n->call_count);
        if (rpc_share_file(r, f)) {
            ref_release(&parts[1]);
            parts[1] = ref_of_file(f, FILE_AT, FILE_BYTES);
        }
        ref_owner_release(&f->owner);
        rpc_reply(r, KARST__BUS__REPLY__BODY_READ, &reply, parts, 2, 0);
        ref_release(&parts[0]);
        ref_release(&parts[1]);
    }
}

void net_answer_all(struct net *n)
{
    while (n->rpc_count > 0)
        net_answer(n, 0);
}

static void connect_wire(struct net *n, const struct link_action *a)
{
    if (n->core[1] == NULL) {
        link_absent(n->core[0], a->conn);
        return;
    }
    ASSERT(n->wire_count < WIRES);
    n->wires[n->wire_count] = (struct wire){{a->conn, link_conn_served(a->lane, (uint32_t)n->wire_count + 1)}, n->life};
    n->wire_count++;
    link_connected(n->core[0], a->conn);
}

static void send_packet(struct net *n, int node, const struct link_action *a)
{
    size_t w = 0;

    while (w < n->wire_count && n->wires[w].conn[node] != a->conn)
        w++;
    if (w == n->wire_count || n->wires[w].conn[!node] == 0) {
        link_lost(n->core[node], a->conn);
        return;
    }
    struct packet *p = xcalloc(1, sizeof *p);
    p->to = !node;
    p->wire = w;
    buf_append(&p->frame0, a->head.data, a->head.size);
    buf_append(&p->frame0, a->tail.data, a->tail.size);
    p->frames = xcalloc(a->frame_count, sizeof *p->frames);
    for (size_t i = 0; i < a->frame_count; i++)
        p->frames[i] = ref_copy(ref_bytes(&a->frames[i]));
    p->frame_count = a->frame_count;
    DL_APPEND(n->packets, p);
}

void net_actions(struct net *n, int node)
{
    struct link_action a;

    while (n->core[node] != NULL && link_next(n->core[node], &a)) {
        switch (a.kind) {
        case LINK_CONNECT: connect_wire(n, &a); break;
        case LINK_CLOSE:
            for (size_t w = 0; w < n->wire_count; w++)
                if (n->wires[w].conn[node] == a.conn)
                    n->wires[w].conn[node] = 0;
            break;
        case LINK_SEND: send_packet(n, node, &a); break;
        case LINK_HOLD: hold(n, &a); break;
        case LINK_EXECUTE: execute(n, a.rpc); break;
        case LINK_GONE: a.gone_fn(a.ctx, a.rpc); break;
        case LINK_DONE: a.done(a.ctx, &a.result); break;
        case LINK_REPORT: n->reports++; break;
        }
    }
    if (n->core[node] != NULL)
        link_check(n->core[node]);
}

bool net_deliver(struct net *n)
{
    struct packet *p = n->packets;

    while (p != NULL && n->stopped[p->to])
        p = p->next;
    if (p == NULL)
        return false;
    uint64_t conn = n->wires[p->wire].conn[p->to];
    if (conn != 0 && n->core[p->to] != NULL) {
        link_receive(n->core[p->to], conn, buf_slice(&p->frame0), p->frames, p->frame_count);
        p->frame_count = 0;
        net_actions(n, p->to);
    }
    net_drop(n, p);
    return true;
}

static bool flush(struct net *n)
{
    bool moved = false;

    for (int i = 0; i < 2; i++) {
        if (n->core[i] == NULL || n->stopped[i] || !link_is_staged(n->core[i]))
            continue;
        link_flush(n->core[i]);
        net_actions(n, i);
        moved = true;
    }
    return moved;
}

void net_settle(struct net *n)
{
    for (int i = 0; i < 2; i++)
        net_actions(n, i);
    while (flush(n) || net_deliver(n))
        ;
}

void net_pass(struct net *n, uint64_t ms)
{
    for (uint64_t end = n->now + ms; n->now < end;) {
        n->now += MIN((uint64_t)10, end - n->now);
        for (int i = 0; i < 2; i++) {
            if (n->core[i] == NULL || n->stopped[i])
                continue;
            link_clock(n->core[i], n->now);
            if (link_wake_ms(n->core[i]) <= n->now)
                link_tick(n->core[i]);
        }
        net_settle(n);
    }
}

void net_ended(const struct net *n, size_t i, Karst__Bus__Outcome outcome)
{
    cr_assert_eq(n->calls[i].ended, 1, "call %zu ended %d times", i, n->calls[i].ended);
    cr_assert_eq(n->calls[i].outcome, outcome, "call %zu: outcome %d", i, (int)n->calls[i].outcome);
}

void net_finish(struct net *n, size_t i)
{
    net_answer_all(n);
    net_settle(n);
    net_ended(n, i, KARST__BUS__OUTCOME__OUTCOME_OK);
}

Karst__Bus__Batch *net_first(const struct net *n)
{
    cr_assert_not_null(n->packets);
    const struct buf *frame0 = &n->packets->frame0;
    Karst__Bus__Batch *b = karst__bus__batch__unpack(NULL, frame0->size, frame0->data);
    cr_assert_not_null(b);
    return b;
}

void net_receive(struct net *n, uint64_t conn, Karst__Bus__Batch *b, struct ref *frames, size_t frame_count)
{
    Karst__Bus__Peer ends[2] = {KARST__BUS__PEER__INIT, KARST__BUS__PEER__INIT};
    uint8_t bytes[1024];

    for (int i = 0; i < 2; i++) {
        ends[i].role = n->options[i].role;
        ends[i].id = n->options[i].id;
        ends[i].incarnation = n->options[i].incarnation;
    }
    b->from = &ends[0];
    b->to = &ends[1];
    ASSERT(karst__bus__batch__get_packed_size(b) <= sizeof bytes);
    size_t size = karst__bus__batch__pack(b, bytes);
    link_receive(n->core[1], conn, slice_make(bytes, size), frames, frame_count);
    b->from = b->to = NULL;
}
