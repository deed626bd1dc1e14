// link: bus wire base k_bus_proto
/* What a peer may send to either end of a link. Each message of the input goes in as it is or, by a flag, with the
 * session, sequence and names that the core expects, so that calls, replies, payload numbers, cancels and heartbeats
 * behind them are reached. */
#include <stdlib.h>

#include "libs/base/buf.h"
#include "libs/bus/link.h"
#include "libs/bus/version.h"

enum { RPCS = 64, CALLS = 8, SERVED = 2 };

static struct rpc *rpcs[RPCS];
static size_t rpc_count;
static int ended[CALLS];

static void on_done(void *ctx, const struct bus_result *result)
{
    int *times = ctx;

    if (++*times > 1)
        BUG("a call ended twice");
    if (result->outcome == KARST__BUS__OUTCOME__OUTCOME_OK && result->reply == NULL)
        BUG("OK without a reply");
}

/* ---- a kernel that is shared: slices of an arena of 64 bytes ---- */

static uint8_t arena[64];

static bool shares(void *ctx, uint64_t conn)
{
    (void)ctx;
    (void)conn;
    return true;
}

static bool pass_file(void *ctx, uint64_t conn, struct ref_file *f)
{
    (void)ctx;
    (void)conn;
    (void)f;
    return false;
}

static int resolve(void *ctx, uint64_t conn, const Karst__Bus__Payload *p, struct ref *ret_ref)
{
    (void)ctx;
    (void)conn;
    if (p->reference_case != KARST__BUS__PAYLOAD__REFERENCE_ARENA || p->arena->offset > sizeof arena ||
        p->size_bytes > sizeof arena - p->arena->offset)
        return -EBADMSG;
    struct slice bytes = slice_make(arena + p->arena->offset, p->size_bytes);
    *ret_ref = (struct ref){REF_ARENA, NULL, bytes, p->arena->arena, p->arena->offset, p->size_bytes};
    return 0;
}

static void answer(struct rpc *r)
{
    Karst__Bus__ReadReply read = KARST__BUS__READ_REPLY__INIT;
    struct ref part = ref_copy(SLICE_OF("bytes"));

    (void)rpc_caller(r);
    for (size_t i = 0; i < rpc_payload_count(r); i++) {
        struct slice bytes = ref_bytes(rpc_payload(r, i));
        if (bytes.size > 0 && bytes.data[0] + bytes.data[bytes.size - 1] > 2 * UINT8_MAX)
            BUG("bytes that are none");
    }
    rpc_reply(r, KARST__BUS__REPLY__BODY_READ, &read, &part, 1, 3);
    ref_release(&part);
}

static void on_gone(void *ctx, struct rpc *r)
{
    (void)ctx;
    for (size_t i = 0; i < rpc_count; i++) {
        if (rpcs[i] != r)
            continue;
        rpcs[i] = rpcs[--rpc_count];
        rpc_fail(r, KARST__BUS__OUTCOME__OUTCOME_CANCELLED);
        return;
    }
}

static void keep(struct rpc *r)
{
    if (rpc_count == RPCS || (rpc_call(r)->correlation_id & 1)) {
        answer(r);
        return;
    }
    rpc_on_gone(r, on_gone, NULL);
    rpcs[rpc_count++] = r;
}

/* The connection that the caller's end asked for last, and what it says on it. */
static uint64_t caller_conn, caller_session;

static void note_session(const struct link_action *a)
{
    if (a->conn != caller_conn)
        return;
    Karst__Bus__Batch *b = karst__bus__batch__unpack(NULL, a->head.size, a->head.data);
    if (b == NULL)
        BUG("we sent what cannot be read");
    caller_session = b->session;
    karst__bus__batch__free_unpacked(b, NULL);
}

static void act(struct link_core *l)
{
    struct link_action a;

    while (link_next(l, &a)) {
        switch (a.kind) {
        case LINK_CONNECT:
            caller_conn = a.conn;
            link_connected(l, a.conn);
            break;
        case LINK_SEND: note_session(&a); break;
        case LINK_EXECUTE: keep(a.rpc); break;
        case LINK_GONE: a.gone_fn(a.ctx, a.rpc); break;
        case LINK_DONE: a.done(a.ctx, &a.result); break;
        case LINK_CLOSE:
        case LINK_HOLD:
        case LINK_REPORT: break;
        }
    }
    link_check(l);
}

static uint64_t sequences[2];
static uint32_t version; /* of the bus, on both sessions */

/* The batch with the names that the core expects, or NULL: it is no batch. */
static void receive_fixed(struct link_core *l, bool to_caller, struct slice bytes, struct ref *frames,
                          size_t frame_count)
{
    Karst__Bus__Batch *b = karst__bus__batch__unpack(NULL, bytes.size, bytes.data);
    Karst__Bus__Peer us = KARST__BUS__PEER__INIT, peer = KARST__BUS__PEER__INIT, *from, *to;
    uint64_t conn = to_caller ? caller_conn : link_conn_served(KARST__BUS__LANE__LANE_BULK, SERVED);
    uint8_t *out;

    if (b == NULL) {
        link_receive(l, conn, bytes, frames, frame_count);
        return;
    }
    us.role = KARST__BUS__ROLE__ROLE_STORAGE;
    us.id = 1;
    us.incarnation = 5;
    peer.role = to_caller ? KARST__BUS__ROLE__ROLE_CONTROLLER : KARST__BUS__ROLE__ROLE_FRONTEND;
    peer.id = 2;
    peer.incarnation = 6;
    from = b->from;
    to = b->to;
    bool named = version < BUS_VERSION_NAMES_ONCE || b->hello != NULL || b->welcome != NULL;
    b->from = named ? &peer : NULL;
    b->to = named ? &us : NULL;
    b->session = to_caller ? caller_session : 42;
    b->sequence = ++sequences[to_caller];
    size_t size = karst__bus__batch__get_packed_size(b);
    out = xmalloc(size);
    karst__bus__batch__pack(b, out);
    link_receive(l, conn, slice_make(out, size), frames, frame_count);
    free(out);
    b->from = from;
    b->to = to;
    karst__bus__batch__free_unpacked(b, NULL);
}

static void say_hello(struct link_core *l)
{
    static char cluster[] = "c";
    static uint8_t bytes[64];
    Karst__Bus__Batch b = KARST__BUS__BATCH__INIT;
    Karst__Bus__Hello hello = KARST__BUS__HELLO__INIT;
    Karst__Bus__Welcome welcome = KARST__BUS__WELCOME__INIT;

    hello.cluster_id = cluster;
    hello.bus_version_min = hello.bus_version_max = version;
    hello.lane = KARST__BUS__LANE__LANE_BULK;
    b.hello = &hello;
    receive_fixed(l, false, slice_make(bytes, karst__bus__batch__pack(&b, bytes)), NULL, 0);
    b.hello = NULL;
    welcome.bus_version = version;
    welcome.credit_calls = 100;
    welcome.credit_bytes = 1 << 20;
    b.welcome = &welcome;
    receive_fixed(l, true, slice_make(bytes, karst__bus__batch__pack(&b, bytes)), NULL, 0);
    act(l);
    link_flush(l);
    act(l);
}

static void make_calls(struct link_core *l)
{
    for (size_t i = 0; i < CALLS; i++) {
        Karst__Bus__HeartbeatRequest heartbeat = KARST__BUS__HEARTBEAT_REQUEST__INIT;
        Karst__Bus__FollowRequest follow = KARST__BUS__FOLLOW_REQUEST__INIT;
        struct bus_request request = {.kind = KARST__BUS__CALL__BODY_HEARTBEAT, .body = &heartbeat, .timeout_ms = 500};
        if (i % 2) {
            request.kind = KARST__BUS__CALL__BODY_FOLLOW;
            request.body = &follow;
        }
        ended[i] = 0;
        link_call(l, KARST__BUS__ROLE__ROLE_CONTROLLER, 2, &request, on_done, &ended[i]);
    }
    link_flush(l);
    act(l);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct link_options o = {.role = KARST__BUS__ROLE__ROLE_STORAGE,
                             .id = 1,
                             .incarnation = 5,
                             .cluster_id = "c",
                             .credit_calls = 32,
                             .credit_bytes = 4096,
                             .sharing = {NULL, shares, pass_file, resolve}};
    struct link_core *l = link_new(&o, 1);
    uint64_t now = 1;

    rpc_count = 0;
    sequences[0] = sequences[1] = 0;
    version = size % 2 ? BUS_VERSION : BUS_VERSION_BEFORE;
    link_set_peer(l, KARST__BUS__ROLE__ROLE_CONTROLLER, 2, 0, "ipc:///x");
    make_calls(l);
    say_hello(l);
    for (size_t at = 0; at + 3 <= size;) {
        uint8_t flags = data[at];
        size_t want = (size_t)data[at + 1] << 8 | data[at + 2], n = MIN(want, size - at - 3);
        struct slice bytes = {data + at + 3, n};
        struct ref frames[3];
        size_t frame_count = flags >> 6;
        for (size_t i = 0; i < frame_count; i++)
            frames[i] = ref_copy(slice_make(bytes.data, MIN(n, i * 2)));
        if (flags & 1)
            receive_fixed(l, flags & 2, bytes, frames, frame_count);
        else
            link_receive(l, (flags & 2) ? caller_conn : link_conn_served(KARST__BUS__LANE__LANE_BULK, flags >> 4),
                         bytes, frames, frame_count);
        act(l);
        now += flags >> 2 & 3 ? 1 : 300;
        link_clock(l, now);
        link_tick(l);
        link_set_metadata_offset(l, flags & 16 ? (int64_t)now : 0);
        if (rpc_count > 0 && (flags & 32))
            answer(rpcs[--rpc_count]);
        link_flush(l);
        act(l);
        at += 3 + n;
    }
    while (rpc_count > 0)
        answer(rpcs[--rpc_count]);
    link_shutdown(l);
    act(l);
    for (size_t i = 0; i < CALLS; i++)
        if (ended[i] != 1)
            BUG("a call did not end");
    link_free(l);
    return 0;
}
