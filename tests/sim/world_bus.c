/* world_bus.c - calls between processes that die and stand still, over a network that holds up, breaks and loses: two
 * front ends and a group service call two storage nodes; every call carries a number of its own. In half of the seeds
 * they share a machine: front ends pass slices of their arena, storage nodes pass files (world_bus_files.c).
 *
 * Promises (link.h): a call ends exactly once; it is executed at most once, by the life of the process that it was
 * meant for; what ended as not sent, expired or overloaded was not and will not be executed; what ended well was
 * executed; bytes arrive as they left, and stay so as long as the handler has the call, whatever became of its caller's
 * deadline or session; a reader of a file gets the bytes that it was promised or fewer; when all is well again calls go
 * through, and nobody holds a slice or a file that is deleted. */
#include "tests/sim/world_bus.h"

#include "libs/shm/shm_arena.h"
#include "tests/sim/kernel.h"
#include "tests/sim/platform.h"

#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>

static void start(struct node *n);

/* ---- servers ---- */

static void check_payload(const struct world *w, const struct rpc *r, uint64_t number, const char *when)
{
    struct slice bytes = ref_bytes(rpc_payload(r, 0));
    if (memcmp(bytes.data, &number, 8) != 0)
        sim_fail(w->sim, "the payload of call %llu is another's %s", (unsigned long long)number, when);
    for (size_t i = 8; i < bytes.size; i++)
        if (bytes.data[i] != (uint8_t)(number + i))
            sim_fail(w->sim, "the payload of call %llu is damaged %s", (unsigned long long)number, when);
}

/* Only here it is over with the payload: its caller may long be gone. */
static void answer(struct parked *p)
{
    check_payload(p->node->world, p->rpc, p->number, "before the answer");
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

void bus_world_executed(struct node *n, uint64_t number)
{
    struct world *w = n->world;
    if (number >= w->count)
        sim_fail(w->sim, "a call arrived that nobody made");
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
    check_payload(w, r, number, "on its arrival");
    if (rpc_payload(r, 0)->kind == REF_ARENA)
        sim_cover("a slice arrived");
    bus_world_executed(n, number);
    struct parked *p = xcalloc(1, sizeof *p);
    p->node = n;
    p->rpc = r;
    p->number = number;
    DL_APPEND(n->parked, p);
    if (w->calm || sim_chance(w->sim, 700)) {
        answer(p);
        return;
    }
    rpc_on_gone(r, on_gone, n);
    p->timer = loop_timer_start(process_loop(n->process), sim_below(w->sim, 1500), 0, on_answer_timer, p);
}

/* ---- callers ---- */

static void check_echo(struct world *w, uint64_t number, const struct bus_result *result)
{
    struct slice bytes = result->payload_count == 1 ? ref_bytes(&result->payloads[0]) : SLICE_EMPTY;
    if (bytes.size < 8 || memcmp(bytes.data, &number, 8) != 0)
        sim_fail(w->sim, "call %llu got the answer of another", (unsigned long long)number);
    for (size_t i = 8; i < bytes.size; i++)
        if (bytes.data[i] != (uint8_t)(number + i))
            sim_fail(w->sim, "the answer to call %llu is damaged", (unsigned long long)number);
}

static void on_done(void *ctx, const struct bus_result *result)
{
    struct call *c = ctx;
    struct world *w = c->node->world;
    struct fact *f = &w->facts[c->number];
    if (process_is_ghost(c->node->process))
        return; /* on_death ends it */
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
    if (ok && c->is_read)
        files_take(c->node, result);
    else if (ok)
        check_echo(w, c->number, result);
    if (result->outcome == KARST__BUS__OUTCOME__OUTCOME_MALFORMED)
        sim_fail(w->sim, "call %llu or its answer could not be read", (unsigned long long)c->number);
    if (w->calm && (!ok || sim_now_ms(w->sim) > f->made_ms + CALM_MS))
        sim_fail(w->sim, "call %llu ended as %d after %llu ms, while all is well", (unsigned long long)c->number,
                 (int)result->outcome, (unsigned long long)(sim_now_ms(w->sim) - f->made_ms));
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

static void fill(uint8_t *bytes, size_t size, uint64_t number)
{
    for (size_t i = 8; i < size; i++)
        bytes[i] = (uint8_t)(number + i);
    memcpy(bytes, &number, 8);
}

/* In the front end's arena, as long as that has room, or anywhere. */
static struct ref make_payload(struct node *n, uint64_t number)
{
    struct sim *s = n->world->sim;
    size_t size = 8 + (size_t)sim_below(s, sim_chance(s, 50) ? 20 * PAYLOAD_MAX : PAYLOAD_MAX);
    struct shm_block *b = n->arena && sim_chance(s, 800) ? shm_arena_alloc(n->arena, size) : NULL;
    uint8_t *bytes = b ? b->data : xmalloc(size);
    fill(bytes, size, number);
    if (b == NULL)
        return ref_take(bytes, size);
    uint64_t position = shm_arena_position(n->arena, bytes);
    return (struct ref){REF_ARENA, &b->owner, slice_make(bytes, size), shm_arena_id(n->arena), position, size};
}

static uint64_t send_append(struct call *c, int server, uint32_t timeout_ms)
{
    struct node *n = c->node;
    struct ref payload = make_payload(n, c->number);
    Karst__Bus__AppendRequest body = KARST__BUS__APPEND_REQUEST__INIT;
    struct bus_request request = {.kind = KARST__BUS__CALL__BODY_APPEND,
                                  .body = &body,
                                  .payloads = &payload,
                                  .payload_count = 1,
                                  .timeout_ms = timeout_ms};
    uint64_t id = bus_call(n->bus, KARST__BUS__ROLE__ROLE_STORAGE, server + 1, &request, on_done, c);
    ref_release(&payload);
    return id;
}

static uint64_t send_read(struct call *c, int server, uint32_t timeout_ms)
{
    struct node *n = c->node;
    Karst__Bus__ReadRequest body = KARST__BUS__READ_REQUEST__INIT;
    struct bus_request request = {.kind = KARST__BUS__CALL__BODY_READ, .body = &body, .timeout_ms = timeout_ms};
    body.max_bytes = (uint32_t)c->number;
    return bus_call(n->bus, KARST__BUS__ROLE__ROLE_STORAGE, server + 1, &request, on_done, c);
}

static void make_call(struct node *n)
{
    struct world *w = n->world;
    if (w->count == w->room)
        w->facts = xrealloc(w->facts, (w->room = w->room * 2 + 256) * sizeof *w->facts);
    uint64_t number = w->count++;
    int server = (int)sim_below(w->sim, SERVERS);
    uint32_t timeout_ms = 1 + (uint32_t)sim_below(w->sim, 4000);
    w->facts[number] = (struct fact){.caller = n->index, .server = server, .made_ms = sim_now_ms(w->sim)};
    if (w->calm)
        timeout_ms = 4000;
    w->open++;
    struct process *before = process_enter(n->process);
    struct call *c = xmalloc(sizeof *c);
    *c = (struct call){.node = n, .number = number, .is_read = sim_chance(w->sim, 250)};
    DL_APPEND(n->calls, c);
    uint64_t id = c->is_read ? send_read(c, server, timeout_ms) : send_append(c, server, timeout_ms);
    if (!w->calm && sim_chance(w->sim, 30)) {
        sim_cover("a call was cancelled at once");
        bus_cancel(n->bus, id);
    }
    loop_ask_turn(process_loop(n->process));
    process_leave(before);
}

/* ---- lives ---- */

/* Does its code run, from its loop on? */
static bool is_awake(const struct node *n)
{
    uint64_t ms;
    return n->process && n->bus && !process_is_ghost(n->process) && !process_is_stalled(n->process, &ms);
}

static void tell(struct node *n, struct node *server)
{
    if (!is_awake(n))
        return;
    struct process *before = process_enter(n->process);
    bus_set_peer(n->bus, server->role, server->id, server->life, server->address);
    loop_ask_turn(process_loop(n->process));
    process_leave(before);
}

static void restart(void *ctx)
{
    struct node *n = ctx;
    if (n->process == NULL)
        start(n);
}

/* What it had is of its own heap, which goes with it. */
static void forget(struct node *n)
{
    n->calls = NULL;
    n->parked = NULL;
    n->arena = NULL;
    files_forget(n);
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

static struct node *starting; /* main has no room for it */

static int node_main(int argc, char **argv)
{
    struct node *n = starting;
    struct bus_options o = {.role = n->role,
                            .id = n->id,
                            .incarnation = n->life,
                            .cluster_id = "0123456789012345678901",
                            .address = n->address[0] ? n->address : NULL,
                            .credit_calls = 64,
                            .credit_bytes = 100000,
                            .share = n->world->shares};
    struct bus *b;
    int error = 0;
    (void)argc, (void)argv;
    if (bus_new(process_loop(n->process), &o, &b))
        sim_fail(n->world->sim, "no bus");
    if (n->role == KARST__BUS__ROLE__ROLE_FRONTEND) {
        n->arena = shm_arena_new(n->life, ARENA_BYTES, &error);
        bus_set_arena(b, shm_arena_fd(n->arena), n->life, shm_arena_size(n->arena));
    }
    bus_serve(b, KARST__BUS__CALL__BODY_APPEND, on_append, n);
    bus_serve(b, KARST__BUS__CALL__BODY_READ, files_on_read, n);
    if (n->disk)
        files_start(n);
    n->bus = b;
    loop_run(process_loop(n->process));
    return 0;
}

static void start(struct node *n)
{
    struct world *w = n->world;
    n->process = process_new(w->machine, n->name, n->disk, on_death, n);
    n->life = ++w->lives;
    starting = n;
    process_exec(n->process, node_main, 0, NULL);
    sim_note(w->sim, "%s lives, %llu", n->name, (unsigned long long)n->life);
    for (int i = 0; i < SERVERS; i++)
        if (n->role != KARST__BUS__ROLE__ROLE_STORAGE)
            tell(n, &w->servers[i]);
    for (int i = 0; i < CALLERS; i++)
        if (n->role == KARST__BUS__ROLE__ROLE_STORAGE && sim_chance(w->sim, 800)) /* others learn it late */
            tell(&w->callers[i], n);
}

static void stall_one(struct world *w)
{
    struct node *n =
        sim_chance(w->sim, 700) ? &w->servers[sim_below(w->sim, SERVERS)] : &w->callers[sim_below(w->sim, CALLERS)];
    if (n->process)
        process_stall(n->process, 1 + sim_below(w->sim, sim_chance(w->sim, 500) ? 1500 : 9000));
}

static void step(struct world *w)
{
    struct node *n = &w->callers[sim_below(w->sim, CALLERS)];
    if (is_awake(n))
        for (uint64_t i = 1 + sim_below(w->sim, 5); i > 0; i--)
            make_call(n);
    if (sim_chance(w->sim, 30))
        for (int i = 0; i < SERVERS; i++)
            tell(n, &w->servers[i]);
    if (sim_chance(w->sim, 10))
        stall_one(w);
    sim_until(w->sim, sim_now_ms(w->sim) + sim_below(w->sim, 60));
}

/* When all is well: n, not in the middle of a turn, where nobody else's calls may come. */
static struct node *at_rest(struct node *n)
{
    for (int i = 0; i < 1000 && !is_awake(n); i++)
        sim_until(n->world->sim, sim_now_ms(n->world->sim) + 1);
    if (!is_awake(n))
        sim_fail(n->world->sim, "%s does not come back", n->name);
    return n;
}

/* Nothing is held for ever. */
static void check_held(struct world *w)
{
    enum { DESCRIPTORS_MAX = 2 + SERVERS * 3 }; /* a companion and two bells a connection, the arena, the listener */
    uint64_t oldest_ms;
    for (int i = 0; i < CALLERS; i++) {
        size_t blocks = kernel_blocks(w->callers[i].process, &oldest_ms);
        if (blocks)
            sim_fail(w->sim, "%s holds %zu slices of its arena for ever", w->callers[i].name, blocks);
        if (kernel_descriptors(w->callers[i].process) > DESCRIPTORS_MAX)
            sim_fail(w->sim, "%s holds %zu descriptors", w->callers[i].name, kernel_descriptors(w->callers[i].process));
    }
    for (int i = 0; i < SERVERS; i++)
        files_end(at_rest(&w->servers[i]));
    sim_until(w->sim, sim_now_ms(w->sim) + 1000);
    for (int i = 0; i < SERVERS; i++)
        if (disk_passed(w->servers[i].disk) || disk_open_files(w->servers[i].disk))
            sim_fail(w->sim, "%zu descriptors that %s passed are held for ever, and %zu of its own",
                     disk_passed(w->servers[i].disk), w->servers[i].name, disk_open_files(w->servers[i].disk));
}

/* No faults any more: what is open ends, and new calls go through. */
static void heal(struct world *w)
{
    machine_heal(w->machine);
    sim_until(w->sim, sim_now_ms(w->sim) + HEALED_MS);
    for (size_t i = 0; i < w->count; i++)
        if (!w->facts[i].ended)
            sim_fail(w->sim, "%zu calls have not ended, the first is %zu, of %s to %s", w->open, i,
                     w->callers[w->facts[i].caller].name, w->servers[w->facts[i].server].name);
    for (int i = 0; i < CALLERS; i++)
        for (int j = 0; j < SERVERS; j++)
            tell(at_rest(&w->callers[i]), &w->servers[j]);
    sim_until(w->sim, sim_now_ms(w->sim) + 1000);
    for (int i = 0; i < CALLERS * SERVERS * 3; i++) /* connections are made */
        make_call(at_rest(&w->callers[i % CALLERS]));
    sim_until(w->sim, sim_now_ms(w->sim) + HEALED_MS);
    w->calm = true;
    for (size_t i = 0; i < 120; i++) { /* some close together, some alone: a bell that was missed is heard of late */
        make_call(at_rest(&w->callers[i % CALLERS]));
        sim_until(w->sim, sim_now_ms(w->sim) + (i < 40 ? 30 : 450));
    }
    sim_until(w->sim, sim_now_ms(w->sim) + HEALED_MS);
    if (w->open)
        sim_fail(w->sim, "%zu calls have not ended after all was well", w->open);
    check_held(w);
}

static void init(struct node *n, struct world *w, Karst__Bus__Role role, int index, const char *name)
{
    *n = (struct node){.world = w, .role = role, .id = index + 1, .index = index};
    snprintf(n->name, sizeof n->name, "%s-%d", name, index + 1);
    if (role != KARST__BUS__ROLE__ROLE_FRONTEND)
        snprintf(n->address, sizeof n->address, "ipc:///run/%s-%d", name, index + 1);
    if (role == KARST__BUS__ROLE__ROLE_STORAGE)
        n->disk = disk_new(sim_random(w->sim));
}

static void run(struct sim *sim, uint64_t steps)
{
    struct machine_faults faults = {.late = 20, .stall = 3, .breaks = 4, .doubled = 1, .refuse = 50};
    faults.deaths = (const uint64_t[]){100, 1500, 8000}[sim_below(sim, 3)];
    faults.stalls = (const uint64_t[]){0, 50, 500}[sim_below(sim, 3)];
    struct world w = {.sim = sim, .machine = machine_new(sim, &faults), .shares = sim_chance(sim, 500)};
    platform_start(sim, NULL);
    sim_note(sim, w.shares ? "memory and files are shared" : "nothing is shared");
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
    for (int i = 0; i < SERVERS; i++) {
        forget(&w.servers[i]);
        w.servers[i].disk = disk_free(w.servers[i].disk);
    }
    for (int i = 0; i < CALLERS; i++)
        forget(&w.callers[i]);
    machine_free(w.machine);
    platform_stop();
    free(w.facts);
}

const struct sim_world world_bus = {"bus", run, 80};
