/* world_bus.c - calls between processes that die, over a network that holds up, breaks and loses: two front ends and a
 * group service call two storage nodes; every call carries a number of its own.
 *
 * Promises (link.h): a call ends exactly once; it is executed at most once, by the life of the process that it was
 * meant for; what ended as not sent, expired or overloaded was not and will not be executed; what ended well was
 * executed; bytes arrive as they left; when all is well again calls go through. */
#include "tests/sim/machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>

enum { SERVERS = 2, CALLERS = 3, PAYLOAD_MAX = 3000, HEALED_MS = 20000 };

/* What is known of a call, by its number. */
struct fact {
    int caller, server;
    uint64_t server_life; /* the one that executed it; 0: none */
    bool ended;
    Karst__Bus__Outcome outcome;
};

struct world;

struct node {
    struct world *world;
    Karst__Bus__Role role;
    int32_t id;
    int index;
    char name[32], address[48];
    struct process *process; /* NULL: down */
    struct bus *bus;
    uint64_t life;
    struct parked *parked;
    struct call *calls;
};

/* An rpc that its server has not answered. */
struct parked {
    struct node *node;
    struct rpc *rpc;
    struct loop_timer *timer;
    struct parked *prev, *next;
};

struct call {
    struct node *node;
    uint64_t number;
    struct call *prev, *next;
};

struct world {
    struct sim *sim;
    struct machine *machine;
    struct node servers[SERVERS], callers[CALLERS];
    struct fact *facts;
    size_t count, room;
    uint64_t lives;
    size_t open, well; /* calls without an end; calls that ended well */
};

static void start(struct node *n);

/* ---- servers ---- */

static void answer(struct parked *p)
{
    Karst__Bus__AppendReply body = KARST__BUS__APPEND_REPLY__INIT;
    rpc_reply(p->rpc, KARST__BUS__REPLY__BODY_APPEND, &body, rpc_payload(p->rpc, 0), 1, 0);
    loop_timer_stop(p->timer);
    DL_DELETE(p->node->parked, p);
    free(p);
}

static void on_answer_timer(void *ctx)
{
    answer(ctx);
}

static void on_gone(void *ctx, struct rpc *r)
{
    (void)ctx, (void)r;
    sim_cover("a caller went away from a parked call");
}

static void on_append(void *ctx, struct rpc *r)
{
    struct node *n = ctx;
    struct world *w = n->world;
    uint64_t number;
    if (rpc_payload_count(r) != 1 || ref_bytes(rpc_payload(r, 0)).size < 8)
        sim_fail(w->sim, "a payload did not arrive");
    struct slice bytes = ref_bytes(rpc_payload(r, 0));
    memcpy(&number, bytes.data, 8);
    if (number >= w->count)
        sim_fail(w->sim, "a call arrived that nobody made");
    for (size_t i = 8; i < bytes.size; i++)
        if (bytes.data[i] != (uint8_t)(number + i))
            sim_fail(w->sim, "the payload of call %llu is damaged", (unsigned long long)number);
    struct fact *f = &w->facts[number];
    if (f->server != n->index)
        sim_fail(w->sim, "call %llu was meant for another process", (unsigned long long)number);
    if (f->server_life)
        sim_fail(w->sim, "call %llu is executed a second time", (unsigned long long)number);
    if (f->ended &&
        (f->outcome == KARST__BUS__OUTCOME__OUTCOME_NOT_SENT || f->outcome == KARST__BUS__OUTCOME__OUTCOME_EXPIRED ||
         f->outcome == KARST__BUS__OUTCOME__OUTCOME_OVERLOADED))
        sim_fail(w->sim, "call %llu is executed after it ended as not sent", (unsigned long long)number);
    f->server_life = n->life;
    struct parked *p = xcalloc(1, sizeof *p);
    p->node = n;
    p->rpc = r;
    DL_APPEND(n->parked, p);
    if (sim_chance(w->sim, 700)) {
        answer(p);
        return;
    }
    rpc_on_gone(r, on_gone, n);
    p->timer = loop_timer_start(process_loop(n->process), sim_below(w->sim, 1500), 0, on_answer_timer, p);
}

/* ---- callers ---- */

static void on_done(void *ctx, const struct bus_result *result)
{
    struct call *c = ctx;
    struct world *w = c->node->world;
    struct fact *f = &w->facts[c->number];
    if (f->ended)
        sim_fail(w->sim, "call %llu ended twice", (unsigned long long)c->number);
    f->ended = true;
    f->outcome = result->outcome;
    bool ok = result->outcome == KARST__BUS__OUTCOME__OUTCOME_OK;
    if (ok && f->server_life == 0)
        sim_fail(w->sim, "call %llu ended well, nobody executed it", (unsigned long long)c->number);
    if (f->server_life && (result->outcome == KARST__BUS__OUTCOME__OUTCOME_NOT_SENT ||
                           result->outcome == KARST__BUS__OUTCOME__OUTCOME_EXPIRED ||
                           result->outcome == KARST__BUS__OUTCOME__OUTCOME_OVERLOADED))
        sim_fail(w->sim, "call %llu ended as not sent, but was executed", (unsigned long long)c->number);
    uint64_t number;
    if (ok &&
        (result->payload_count != 1 || (memcpy(&number, ref_bytes(&result->payloads[0]).data, 8), number != c->number)))
        sim_fail(w->sim, "call %llu got the answer of another", (unsigned long long)c->number);
    w->open--;
    w->well += ok;
    static const char *const names[] = {"ok",          "not sent",  "unknown",    "timeout",  "expired",
                                        "unsupported", "malformed", "overloaded", "cancelled"};
    sim_note(w->sim, "call %llu: %s", (unsigned long long)c->number, names[result->outcome]);
    DL_DELETE(c->node->calls, c);
    sim_cover(ok                                                        ? "a call ended well"
              : result->outcome == KARST__BUS__OUTCOME__OUTCOME_UNKNOWN ? "a call ended as unknown"
                                                                        : "a call ended otherwise");
    free(c);
}

static void make_call(struct node *n)
{
    struct world *w = n->world;
    if (w->count == w->room)
        w->facts = xrealloc(w->facts, (w->room = w->room * 2 + 256) * sizeof *w->facts);
    uint64_t number = w->count++;
    int server = (int)sim_below(w->sim, SERVERS);
    w->facts[number] = (struct fact){.caller = n->index, .server = server};
    uint8_t bytes[PAYLOAD_MAX];
    size_t size = 8 + (size_t)sim_below(w->sim, PAYLOAD_MAX - 8);
    for (size_t i = 8; i < size; i++)
        bytes[i] = (uint8_t)(number + i);
    memcpy(bytes, &number, 8);
    struct ref payload = ref_copy(slice_make(bytes, size));
    Karst__Bus__AppendRequest body = KARST__BUS__APPEND_REQUEST__INIT;
    struct bus_request request = {.kind = KARST__BUS__CALL__BODY_APPEND,
                                  .body = &body,
                                  .payloads = &payload,
                                  .payload_count = 1,
                                  .timeout_ms = 1 + (uint32_t)sim_below(w->sim, 4000)};
    struct call *c = xmalloc(sizeof *c);
    *c = (struct call){.node = n, .number = number};
    DL_APPEND(n->calls, c);
    w->open++;
    uint64_t id = bus_call(n->bus, KARST__BUS__ROLE__ROLE_STORAGE, server + 1, &request, on_done, c);
    ref_release(&payload);
    if (sim_chance(w->sim, 30)) {
        sim_cover("a call was cancelled at once");
        bus_cancel(n->bus, id);
    }
}

/* ---- lives ---- */

static void tell(struct node *n, struct node *server)
{
    if (n->process && !process_is_ghost(n->process))
        bus_set_peer(n->bus, server->role, server->id, server->life, server->address);
}

static void restart(void *ctx)
{
    struct node *n = ctx;
    if (n->process == NULL)
        start(n);
}

static void forget(struct node *n)
{
    while (n->calls) {
        struct call *c = n->calls;
        DL_DELETE(n->calls, c);
        free(c);
    }
    while (n->parked) {
        struct parked *p = n->parked;
        DL_DELETE(n->parked, p);
        free(p);
    }
    n->process = process_free(n->process);
    n->bus = NULL;
}

/* Its calls end with it: nobody is left to hear of them. */
static void on_death(void *ctx)
{
    struct node *n = ctx;
    struct world *w = n->world;
    forget(n);
    for (size_t i = 0; i < w->count; i++)
        if (n->role != KARST__BUS__ROLE__ROLE_STORAGE && w->facts[i].caller == n->index && !w->facts[i].ended) {
            w->facts[i].ended = true;
            w->facts[i].outcome = KARST__BUS__OUTCOME__OUTCOME_UNKNOWN;
            w->open--;
        }
    sim_at(w->sim, sim_below(w->sim, 2000), restart, n);
}

static void start(struct node *n)
{
    struct world *w = n->world;
    n->process = process_new(w->machine, n->name, NULL, on_death, n);
    n->life = ++w->lives;
    struct bus_options o = {.role = n->role,
                            .id = n->id,
                            .incarnation = n->life,
                            .cluster_id = "0123456789012345678901",
                            .address = n->address[0] ? n->address : NULL,
                            .credit_calls = 64,
                            .credit_bytes = 100000};
    struct process *before = process_enter(n->process);
    if (bus_new(process_loop(n->process), &o, &n->bus))
        sim_fail(w->sim, "no bus");
    process_leave(before);
    bus_serve(n->bus, KARST__BUS__CALL__BODY_APPEND, on_append, n);
    sim_note(w->sim, "%s lives, %llu", n->name, (unsigned long long)n->life);
    for (int i = 0; i < SERVERS; i++)
        if (n->role != KARST__BUS__ROLE__ROLE_STORAGE)
            tell(n, &w->servers[i]);
    for (int i = 0; i < CALLERS; i++)
        if (n->role == KARST__BUS__ROLE__ROLE_STORAGE && sim_chance(w->sim, 800)) /* others learn it late */
            tell(&w->callers[i], n);
}

static void step(struct world *w)
{
    struct node *n = &w->callers[sim_below(w->sim, CALLERS)];
    if (n->process && !process_is_ghost(n->process))
        for (uint64_t i = 1 + sim_below(w->sim, 5); i > 0; i--)
            make_call(n);
    if (sim_chance(w->sim, 30))
        for (int i = 0; i < SERVERS; i++)
            tell(n, &w->servers[i]);
    uint64_t until = sim_now_ms(w->sim) + sim_below(w->sim, 60);
    sim_until(w->sim, until);
}

/* No faults any more: what is open ends, and new calls go through. */
static void heal(struct world *w)
{
    machine_heal(w->machine);
    sim_until(w->sim, sim_now_ms(w->sim) + HEALED_MS);
    if (w->open)
        sim_fail(w->sim, "%zu calls have not ended", w->open);
    for (int i = 0; i < CALLERS; i++)
        for (int j = 0; j < SERVERS; j++)
            tell(&w->callers[i], &w->servers[j]);
    size_t before = w->well, calls = 0;
    for (; calls < 60; calls++) {
        make_call(&w->callers[calls % CALLERS]);
        sim_until(w->sim, sim_now_ms(w->sim) + 30);
    }
    sim_until(w->sim, sim_now_ms(w->sim) + HEALED_MS);
    if (w->open || w->well < before + calls / 3)
        sim_fail(w->sim, "only %zu of %zu calls went through after all was well", w->well - before, calls);
}

static void init(struct node *n, struct world *w, Karst__Bus__Role role, int index, const char *name)
{
    *n = (struct node){.world = w, .role = role, .id = index + 1, .index = index};
    snprintf(n->name, sizeof n->name, "%s-%d", name, index + 1);
    if (role != KARST__BUS__ROLE__ROLE_FRONTEND)
        snprintf(n->address, sizeof n->address, "sim://%s-%d", name, index + 1);
}

static void run(struct sim *sim, uint64_t steps)
{
    struct machine_faults faults = {.late = 20, .stall = 3, .breaks = 4, .doubled = 1, .refuse = 50, .deaths = 400};
    struct world w = {.sim = sim, .machine = machine_new(sim, &faults)};
    for (int i = 0; i < SERVERS; i++)
        init(&w.servers[i], &w, KARST__BUS__ROLE__ROLE_STORAGE, i, "storage");
    for (int i = 0; i < CALLERS; i++)
        init(&w.callers[i], &w, i < 2 ? KARST__BUS__ROLE__ROLE_FRONTEND : KARST__BUS__ROLE__ROLE_GROUP, i,
             i < 2 ? "frontend" : "group");
    for (int i = 0; i < SERVERS; i++)
        start(&w.servers[i]);
    for (int i = 0; i < CALLERS; i++)
        start(&w.callers[i]);
    for (uint64_t i = 0; i < steps; i++)
        step(&w);
    heal(&w);
    for (int i = 0; i < SERVERS; i++)
        forget(&w.servers[i]);
    for (int i = 0; i < CALLERS; i++)
        forget(&w.callers[i]);
    machine_free(w.machine);
    free(w.facts);
}

const struct sim_world world_bus = {"bus", run};
