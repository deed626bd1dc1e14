/* net.c - connections between simulated processes: messages in order, late, held up, or cut off behind a prefix. */
#include "tests/sim/machine.h"

#include "libs/bus/bus_internal.h"

#include <stdlib.h>
#include <utlist.h>

enum direction { TO_SERVER, TO_CLIENT };

/* One connection. An end that is gone is NULL; freed when both are and nothing is under way. */
struct conn {
    struct net *net;
    struct bus *end[2]; /* indexed by the direction that leads there */
    const struct process *process[2];
    int place[2];
    uint64_t number[2];   /* what that end calls it */
    uint64_t ready_ms[2]; /* nothing arrives there before */
    size_t flying[2];
    bool broken; /* nothing more leaves */
    struct conn *prev, *next;
};

struct parcel {
    struct conn *conn;
    enum direction to;
    struct arrival *arrival;
    struct parcel *prev, *next;
    uint64_t event; /* 0: it waits for a cut to end */
    bool both_ways; /* needs both directions: a connection that is made */
};

struct listener {
    struct bus *bus;
    const struct process *process;
    char *address;
    Karst__Bus__Lane lane;
    struct listener *prev, *next;
};

struct net {
    struct machine *machine;
    struct sim *sim;
    struct machine_faults faults;
    struct listener *listeners;
    struct conn *conns;
    struct parcel *parcels;           /* under way, in the order they were sent */
    bool cut[PLACES_MAX][PLACES_MAX]; /* [from][to] */
    bool cuts;                        /* there was one: parcels may wait */
    uint32_t next_served;
};

struct net *net_new(struct machine *m, const struct machine_faults *faults)
{
    struct net *n = xcalloc(1, sizeof *n);
    n->machine = m;
    n->sim = machine_sim(m);
    n->faults = *faults;
    return n;
}

void arrival_free(struct arrival *a)
{
    for (size_t i = 0; i < a->frame_count; i++)
        ref_release(&a->frames[i]);
    buf_free(&a->frame0);
    free(a->frames);
    free(a);
}

static void drop_parcel(struct net *n, struct parcel *p)
{
    sim_cancel(n->sim, p->event);
    DL_DELETE(n->parcels, p);
    arrival_free(p->arrival);
    p->conn->flying[p->to]--;
    free(p);
}

/* Who is hit; NULL: it is gone. */
static const struct process *at_end(const struct conn *c, enum direction to)
{
    return c->end[to] ? c->process[to] : NULL;
}

static void free_if_over(struct conn *c)
{
    if (c->end[0] || c->end[1] || c->flying[0] || c->flying[1])
        return;
    DL_DELETE(c->net->conns, c);
    free(c);
}

struct net *net_free(struct net *n)
{
    while (n->parcels)
        drop_parcel(n, n->parcels);
    while (n->conns) {
        struct conn *c = n->conns;
        DL_DELETE(n->conns, c);
        free(c);
    }
    ASSERT(n->listeners == NULL);
    free(n);
    return NULL;
}

/* ---- messages ---- */

static void deliver(void *ctx)
{
    struct parcel *p = ctx;
    struct conn *c = p->conn;
    struct net *n = c->net;
    struct bus *to = c->end[p->to];
    DL_DELETE(n->parcels, p);
    c->flying[p->to]--;
    if (to == NULL) {
        arrival_free(p->arrival);
    } else {
        if (p->arrival->kind == ARRIVAL_LOST)
            c->end[p->to] = NULL;
        bus_arrive(to, p->arrival);
    }
    free(p);
    free_if_over(c);
}

/* What was sent over a link that is cut waits, and all behind it, as TCP sends it again until it gets through. */
static bool is_held(const struct conn *c, enum direction to, bool both_ways)
{
    const struct net *n = c->net;
    int there = c->place[to], here = c->place[to == TO_SERVER ? TO_CLIENT : TO_SERVER];
    const struct parcel *p;
    if (n->cut[here][there] || (both_ways && n->cut[there][here]))
        return true;
    DL_FOREACH (n->parcels, p)
        if (p->conn == c && p->to == to && p->event == 0)
            return true;
    return false;
}

static void schedule(struct parcel *p, uint64_t delay_ms)
{
    struct conn *c = p->conn;
    struct sim *s = c->net->sim;
    uint64_t now = sim_now_ms(s), at = MAX(now + delay_ms, c->ready_ms[p->to]);
    c->ready_ms[p->to] = at;
    p->event = sim_at(s, at - now, deliver, p);
}

static void send(struct conn *c, enum direction to, struct arrival *a, uint64_t delay_ms)
{
    struct net *n = c->net;
    struct parcel *p = xcalloc(1, sizeof *p);
    bool both_ways = a->kind == ARRIVAL_CONNECTED;
    a->conn = c->number[to];
    *p = (struct parcel){.conn = c, .to = to, .arrival = a, .both_ways = both_ways};
    if (n->cuts && is_held(c, to, both_ways))
        machine_fault(n->machine, at_end(c, to), "a message waited at a cut");
    else
        schedule(p, delay_ms);
    c->flying[to]++;
    DL_APPEND(n->parcels, p);
}

static void send_lost(struct conn *c, enum direction to, uint64_t delay_ms)
{
    struct arrival *a = xcalloc(1, sizeof *a);
    a->kind = ARRIVAL_LOST;
    send(c, to, a, delay_ms);
}

/* Keeps a prefix of what is under way to one end. */
static void cut_suffix(struct conn *c, enum direction to)
{
    struct parcel *p, *next;
    size_t kept = (size_t)sim_below(c->net->sim, c->flying[to] + 1);
    DL_FOREACH_SAFE(c->net->parcels, p, next)
    {
        if (p->conn != c || p->to != to)
            continue;
        if (kept > 0) {
            kept--;
            continue;
        }
        drop_parcel(c->net, p);
        machine_fault(c->net->machine, at_end(c, to), "a message was lost with its connection");
    }
}

static void break_conn(struct conn *c)
{
    struct net *n = c->net;
    if (c->broken)
        return;
    c->broken = true;
    for (int to = 0; to < 2; to++) {
        cut_suffix(c, (enum direction)to);
        if (c->end[to] == NULL)
            continue;
        if (n->faults.breaks && sim_chance(n->sim, 100)) {
            machine_fault(n->machine, at_end(c, (enum direction)to), "an end never heard that its connection broke");
            continue;
        }
        send_lost(c, (enum direction)to, sim_below(n->sim, 50));
    }
    free_if_over(c);
}

/* ---- cuts ---- */

static bool waits_and_may_go(const struct parcel *p)
{
    const struct conn *c = p->conn;
    int there = c->place[p->to], here = c->place[p->to == TO_SERVER ? TO_CLIENT : TO_SERVER];
    return p->event == 0 && !c->net->cut[here][there] && !(p->both_ways && c->net->cut[there][here]);
}

/* A connection on which something waited goes on, or it breaks behind some of it. */
static void go_on(struct net *n)
{
    struct parcel *p;
    struct conn *c, *next;
    DL_FOREACH_SAFE(n->conns, c, next)
    {
        bool waits = false;
        DL_FOREACH (n->parcels, p)
            waits |= p->conn == c && waits_and_may_go(p);
        if (waits && !c->broken && sim_chance(n->sim, 300)) {
            machine_fault(n->machine, at_end(c, TO_SERVER), "a connection broke at the end of a cut");
            break_conn(c);
        }
    }
    DL_FOREACH (n->parcels, p)
        if (waits_and_may_go(p))
            schedule(p, sim_below(n->sim, 30));
}

void net_cut(struct net *n, int from, int to, bool is)
{
    ASSERT(from < PLACES_MAX && to < PLACES_MAX);
    if (from == to || n->cut[from][to] == is)
        return;
    n->cut[from][to] = is;
    n->cuts = true;
    if (!is)
        go_on(n);
}

void net_heal(struct net *n)
{
    struct conn *c;
    n->faults = (struct machine_faults){0};
    DL_FOREACH (n->conns, c)
        c->ready_ms[0] = c->ready_ms[1] = 0;
    memset(n->cut, 0, sizeof n->cut);
    go_on(n);
}

static struct conn *find(struct net *n, struct bus *b, uint64_t number, enum direction *ret_to)
{
    struct conn *c;
    DL_FOREACH (n->conns, c)
        for (int from = 0; from < 2; from++)
            if (c->end[from] == b && c->number[from] == number) {
                *ret_to = from == TO_SERVER ? TO_CLIENT : TO_SERVER;
                return c;
            }
    return NULL;
}

static uint64_t message_delay(struct net *n, struct conn *c, enum direction to)
{
    if (sim_chance(n->sim, n->faults.stall)) {
        machine_fault(n->machine, at_end(c, to), "one direction of a connection stood still");
        c->ready_ms[to] = sim_now_ms(n->sim) + 200 + sim_below(n->sim, 6000);
    }
    if (sim_chance(n->sim, n->faults.late)) {
        machine_fault(n->machine, at_end(c, to), "a message was late");
        return sim_below(n->sim, 800);
    }
    return sim_below(n->sim, 3);
}

static void send_message(struct net *n, struct conn *c, enum direction to, const struct link_action *m)
{
    struct arrival *a = xcalloc(1, sizeof *a);
    a->kind = ARRIVAL_MESSAGE;
    buf_append(&a->frame0, m->head.data, m->head.size);
    buf_append(&a->frame0, m->tail.data, m->tail.size);
    a->frame_count = m->frame_count;
    a->frames = xcalloc(m->frame_count, sizeof *a->frames);
    for (size_t i = 0; i < m->frame_count; i++)
        a->frames[i] = ref_copy(ref_bytes(&m->frames[i]));
    send(c, to, a, message_delay(n, c, to));
}

void net_send(struct net *n, struct bus *b, const struct link_action *m)
{
    enum direction to;
    struct conn *c = find(n, b, m->conn, &to);
    if (c == NULL || c->broken)
        return;
    send_message(n, c, to, m);
    if (sim_chance(n->sim, n->faults.doubled)) {
        machine_fault(n->machine, at_end(c, to), "a message arrived twice");
        send_message(n, c, to, m);
    }
    if (sim_chance(n->sim, n->faults.breaks)) {
        machine_fault(n->machine, at_end(c, to), "a connection broke");
        break_conn(c);
    }
}

/* ---- connections ---- */

void net_listen(struct net *n, struct bus *b, const char *address, Karst__Bus__Lane lane)
{
    struct listener *l = xcalloc(1, sizeof *l);
    *l = (struct listener){.bus = b, .process = process_of_loop(b->loop), .address = xstrdup(address), .lane = lane};
    DL_APPEND(n->listeners, l);
}

static void drop_listener(struct net *n, struct listener *l)
{
    DL_DELETE(n->listeners, l);
    free(l->address);
    free(l);
}

void net_unlisten(struct net *n, struct bus *b, Karst__Bus__Lane lane)
{
    struct listener *l, *next;
    DL_FOREACH_SAFE(n->listeners, l, next)
    {
        if (l->bus == b && l->lane == lane)
            drop_listener(n, l);
    }
}

void net_connect(struct net *n, struct bus *b, uint64_t number, const char *address, Karst__Bus__Lane lane)
{
    struct listener *l;
    DL_FOREACH (n->listeners, l)
        if (strcmp(l->address, address) == 0 && l->lane == lane)
            break;
    struct conn *c = xcalloc(1, sizeof *c);
    c->net = n;
    c->end[TO_CLIENT] = b;
    c->process[TO_CLIENT] = process_of_loop(b->loop);
    c->place[TO_CLIENT] = c->place[TO_SERVER] = process_place(c->process[TO_CLIENT]);
    c->number[TO_CLIENT] = number;
    DL_APPEND(n->conns, c);
    if (l == NULL || sim_chance(n->sim, n->faults.refuse)) {
        c->broken = true;
        send_lost(c, TO_CLIENT, sim_below(n->sim, 5));
        return;
    }
    c->end[TO_SERVER] = l->bus;
    c->process[TO_SERVER] = l->process;
    c->place[TO_SERVER] = process_place(l->process);
    c->number[TO_SERVER] = link_conn_served(lane, ++n->next_served);
    struct arrival *a = xcalloc(1, sizeof *a);
    a->kind = ARRIVAL_CONNECTED;
    send(c, TO_CLIENT, a, sim_below(n->sim, 5));
}

void net_close(struct net *n, struct bus *b, uint64_t number)
{
    enum direction to;
    struct conn *c = find(n, b, number, &to);
    if (c == NULL)
        return;
    c->end[to == TO_SERVER ? TO_CLIENT : TO_SERVER] = NULL;
    if (c->broken)
        free_if_over(c);
    else
        break_conn(c);
}

void net_forget(struct net *n, const struct process *p)
{
    struct listener *l, *next_listener;
    struct conn *c, *next;
    DL_FOREACH_SAFE(n->listeners, l, next_listener)
    {
        if (l->process == p)
            drop_listener(n, l);
    }
    DL_FOREACH_SAFE(n->conns, c, next)
    {
        for (int end = 0; end < 2; end++)
            if (c->process[end] == p)
                c->end[end] = NULL;
        if (c->end[0] == NULL || c->end[1] == NULL) {
            if (c->broken)
                free_if_over(c);
            else
                break_conn(c);
        }
    }
}
