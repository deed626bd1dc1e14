/* pipeline.c - connections, bounds and time. */
#include "libs/pipeline/state.h"

#include <stdlib.h>

enum { SLOW_READER_STALLS = 12 };

struct pipeline *pipeline_new(const struct pipeline_options *options)
{
    ASSERT(options->frame_max_bytes >= 1 && options->conn_requests_max > 0 && options->overlaps != NULL);
    struct pipeline *p = xcalloc(1, sizeof *p);
    p->o = *options;
    return p;
}

struct pipeline *pipeline_free(struct pipeline *p)
{
    if (p == NULL)
        return NULL;
    while (p->all != NULL)
        pipeline_close(p, p->all->id);
    for (uint32_t i = 0; i < p->items.size; i++)
        if (p->items.slots[i].item != NULL) {
            item_discharge(p, p->items.slots[i].item, NULL);
            item_free(p, p->items.slots[i].item);
        }
    while (p->free_items != NULL) {
        struct item *i = p->free_items;
        p->free_items = i->next;
        free(i);
    }
    shared_drop(p);
    slots_free(&p->conns);
    slots_free(&p->items);
    free(p);
    return NULL;
}

bool pipeline_is_full(const struct pipeline *p)
{
    return p->conns.used >= p->o.connections_max;
}
uint32_t pipeline_connections(const struct pipeline *p)
{
    return p->conns.used;
}
uint64_t pipeline_input_used(const struct pipeline *p)
{
    return p->input_used;
}
bool pipeline_is_over(const struct pipeline *p)
{
    return p->is_over;
}
uint32_t pipeline_running(const struct pipeline *p)
{
    return p->running;
}

uint64_t pipeline_output_room(const struct pipeline *p)
{
    return p->output_used >= p->o.output_budget_bytes ? 0 : p->o.output_budget_bytes - p->output_used;
}

int pipeline_open(struct pipeline *p, const uint8_t ip[PIPELINE_IP_BYTES], int64_t per_ip_max, uint64_t now_ms,
                  uint64_t *ret_conn)
{
    if (p->draining)
        return -ESHUTDOWN;
    if (pipeline_is_full(p))
        return -EMFILE;
    struct address *address = NULL;
    HASH_FIND(hh, p->addresses, ip, PIPELINE_IP_BYTES, address);
    if ((address != NULL ? address->count : 0) >= (per_ip_max >= 0 ? (uint64_t)per_ip_max : p->o.per_ip_max))
        return -EUSERS;
    if (address == NULL) {
        address = xcalloc(1, sizeof *address);
        memcpy(address->ip, ip, PIPELINE_IP_BYTES);
        HASH_ADD(hh, p->addresses, ip, PIPELINE_IP_BYTES, address);
    }
    address->count++;
    p->now_ms = now_ms;
    struct conn *c = xcalloc(1, sizeof *c);
    c->address = address;
    c->quiet_since_ms = now_ms;
    c->id = slots_add(&p->conns, c);
    DL_APPEND(p->all, c);
    conn_attention(p, c);
    *ret_conn = c->id;
    return 0;
}

void pipeline_close(struct pipeline *p, uint64_t conn)
{
    struct conn *c = slots_get(&p->conns, conn);

    if (c == NULL)
        return;
    slots_remove(&p->conns, conn);
    DL_DELETE(p->all, c);
    if (c->in_attn)
        DL_DELETE2(p->attention, c, attn_prev, attn_next);
    if (c->in_ready)
        DL_DELETE2(p->ready, c, ready_prev, ready_next);
    if (c->in_starved)
        DL_DELETE2(p->starved, c, starved_prev, starved_next);
    if (p->favoured == c)
        p->favoured = NULL;
    items_drop(p, c);
    frame_drop(p, c);
    for (size_t i = 0; i < c->out_count; i++)
        ref_release(&c->out[c->out_first + i]);
    p->output_used -= c->out_memory;
    free(c->out);
    if (--c->address->count == 0) {
        HASH_DEL(p->addresses, c->address);
        free(c->address);
    }
    input_discharge(p, NULL, c->input_bytes);
    free(c);
}

void conn_attention(struct pipeline *p, struct conn *c)
{
    if (c->in_attn)
        return;
    c->in_attn = true;
    DL_APPEND2(p->attention, c, attn_prev, attn_next);
}

void conn_fail(struct pipeline *p, struct conn *c, const char *reason)
{
    c->failed = c->input_closed = true;
    c->reason = reason;
    conn_attention(p, c);
}

void conn_close_input(struct pipeline *p, struct conn *c, const char *reason)
{
    if (c->input_closed)
        return;
    c->input_closed = true;
    c->reason = reason;
    conn_attention(p, c);
}

bool conn_may_read(const struct pipeline *p, const struct conn *c)
{
    return !c->input_closed && c->waiting < p->o.conn_requests_max &&
           c->input_bytes <= p->o.conn_input_max_bytes + c->frame.used && !c->in_starved;
}

bool pipeline_attention(struct pipeline *p, struct pipeline_attention *ret_attention)
{
    struct conn *c = p->attention;

    if (c == NULL)
        return false;
    DL_DELETE2(p->attention, c, attn_prev, attn_next);
    c->in_attn = false;
    *ret_attention = (struct pipeline_attention){
        .conn = c->id,
        .read = conn_may_read(p, c),
        .write = c->out_count > 0,
        .close = c->failed || (c->input_closed && c->first == NULL && c->out_count == 0),
        .reason = c->reason,
    };
    return true;
}

/* ---- the input budget ---- */

/* Over the budget and nothing is there whose answer would free some: one connection may go on with its frame. */
static void favour(struct pipeline *p)
{
    if (!p->is_over || p->favoured != NULL || p->waiting > 0)
        return;
    struct conn *c;
    DL_FOREACH2(p->starved, c, starved_next)
    {
        if (c->frame.owner == NULL)
            continue;
        p->favoured = c;
        DL_DELETE2(p->starved, c, starved_prev, starved_next);
        c->in_starved = false;
        conn_attention(p, c);
        return;
    }
}

void input_charge(struct pipeline *p, struct conn *c, uint64_t bytes)
{
    if (c != NULL)
        c->input_bytes += bytes;
    p->input_used += bytes;
    if (p->input_used >= p->o.input_budget_bytes)
        p->is_over = true;
}

void input_discharge(struct pipeline *p, struct conn *c, uint64_t bytes)
{
    if (c != NULL)
        c->input_bytes -= bytes;
    p->input_used -= bytes;
    /* An eighth must be free before all are asked again, else each freed byte would wake everybody. */
    if (p->is_over && p->input_used <= p->o.input_budget_bytes - p->o.input_budget_bytes / 8) {
        p->is_over = false;
        p->favoured = NULL;
        while (p->starved != NULL) {
            struct conn *s = p->starved;
            DL_DELETE2(p->starved, s, starved_prev, starved_next);
            s->in_starved = false;
            conn_attention(p, s);
        }
    }
    favour(p);
}

/* ---- time ---- */

/* More than half of what answers may take is waiting for clients. */
static bool is_output_short(const struct pipeline *p)
{
    return p->output_used > p->o.output_budget_bytes / 2;
}

static bool is_stalled_reader(const struct pipeline *p, const struct conn *c)
{
    return c->out_count > 0 && (p->now_ms - c->wrote_ms >= p->o.stall_ms ||
                                p->now_ms - c->out_since_ms >= p->o.stall_ms * SLOW_READER_STALLS);
}

static void close_stalled(struct pipeline *p)
{
    bool output_short = is_output_short(p);
    struct conn *c;

    p->checked_ms = p->now_ms;
    DL_FOREACH (p->all, c) {
        if (p->is_over && c->frame.owner != NULL && !c->in_starved && !c->failed &&
            p->now_ms - c->frame_grew_ms >= p->o.stall_ms)
            conn_fail(p, c, "a request was begun and not finished, and memory is short");
        if (output_short && !c->failed && is_stalled_reader(p, c))
            conn_fail(p, c, "its answers are not read, and memory is short");
    }
    favour(p);
}

void pipeline_tick(struct pipeline *p, uint64_t now_ms)
{
    p->now_ms = now_ms;
    if ((p->is_over || is_output_short(p)) && now_ms - p->checked_ms >= p->o.stall_ms / 4)
        close_stalled(p);
    while (p->o.idle_ms > 0 && p->all != NULL && now_ms - p->all->quiet_since_ms >= p->o.idle_ms) {
        struct conn *c = p->all;
        DL_DELETE(p->all, c);
        DL_APPEND(p->all, c);
        c->quiet_since_ms = now_ms;
        /* Answers may be parts of files, which nobody else can give up while they wait. */
        if (c->waiting == 0 || c->out_count > 0)
            conn_fail(p, c, "idle");
    }
}

uint64_t pipeline_next_ms(const struct pipeline *p)
{
    uint64_t next = UINT64_MAX;

    if (p->o.idle_ms > 0 && p->all != NULL)
        next = p->all->quiet_since_ms + p->o.idle_ms;
    if (p->is_over || is_output_short(p))
        next = MIN(next, p->checked_ms + p->o.stall_ms / 4);
    return next;
}

void pipeline_drain(struct pipeline *p)
{
    struct conn *c;

    p->draining = true;
    DL_FOREACH (p->all, c) {
        conn_close_input(p, c, NULL);
    }
}

/* ---- proof ---- */

/* What the process is charged for i, beside its piece. */
static uint64_t own_bytes(const struct item *i)
{
    return i->charged - (i->piece != NULL ? i->frame.size : 0);
}

/* What the process is charged for c's input, pieces not counted. */
static uint64_t check_input(const struct conn *c)
{
    uint64_t input = c->frame.used, own = c->frame.used;
    uint32_t waiting = 0, running = 0;
    bool seen_start = c->start == NULL;

    for (const struct item *i = c->first; i != NULL; i = i->next) {
        ASSERT(i->conn == c);
        seen_start = seen_start || i == c->start;
        ASSERT((i->state == ITEM_QUEUED) == (c->start != NULL && seen_start));
        waiting += i->state != ITEM_ENDED;
        running += i->state == ITEM_RUNNING;
        input += i->state != ITEM_ENDED ? i->charged : 0;
        own += i->state != ITEM_ENDED ? own_bytes(i) : 0;
    }
    ASSERT(c->first == NULL || c->first->state != ITEM_ENDED); /* I1: what may leave has left */
    ASSERT(input == c->input_bytes && waiting == c->waiting && running == c->running);
    return own;
}

static void check_output(const struct conn *c)
{
    uint64_t out = 0, memory = 0;

    for (size_t i = 0; i < c->out_count; i++) {
        const struct ref *r = &c->out[c->out_first + i];
        uint64_t left = r->size_bytes - (i == 0 ? c->out_at : 0);
        ASSERT(left > 0);
        out += left;
        memory += r->kind != REF_FILE ? left : 0;
    }
    ASSERT(out == c->out_bytes && memory == c->out_memory);
}

void pipeline_check(const struct pipeline *p)
{
    uint64_t output = 0, held = 0, claimed = 0;
    uint32_t running = 0;
    const struct conn *c;
    const struct piece *piece;

    DL_FOREACH (p->all, c) {
        ASSERT(slots_get(&p->conns, c->id) == c);
        check_output(c);
        held += check_input(c);
        output += c->out_memory;
        claimed += c->frame_claim;
        for (const struct item *i = c->first; i != NULL; i = i->next)
            output += i->state == ITEM_ENDED ? i->answer_bytes : 0;
    }
    ASSERT(output == p->output_used && claimed == p->claimed);
    for (uint32_t i = 0; i < p->items.size; i++) {
        const struct item *item = p->items.slots[i].item;
        if (item == NULL)
            continue;
        running++;
        ASSERT(item->state == ITEM_RUNNING);
        held += item->conn == NULL ? own_bytes(item) : 0;
    }
    DL_FOREACH (p->pieces, piece) {
        ASSERT(piece == p->shared || piece->items > 0);
        held += piece->items > 0 ? piece->input.capacity : 0;
    }
    ASSERT(running == p->running && held == p->input_used);
    ASSERT(!p->is_over || p->input_used > 0);
}
