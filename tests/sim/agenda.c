/* agenda.c - see agenda.h: a wheel of rows, one a millisecond of the next four seconds, which nearly everything is
 * added to and taken from without a comparison; a heap for what comes later. */
#include "tests/sim/agenda.h"

#include <stdlib.h>

enum { WHEEL_MS = 4096, WORD_BITS = 64, WORDS = WHEEL_MS / WORD_BITS };
#define NO_SLOT UINT32_MAX

/* What an entry does, where its id finds it: the slot, and above it how often that was used. */
struct slot {
    void (*fn)(void *ctx); /* NULL: cancelled */
    void *ctx;
    uint32_t use, next; /* in its row, or of the free ones */
};

struct later {
    uint64_t at_ms, number; /* in the order they were added */
    uint32_t slot;
};

struct row {
    uint32_t first, last;
};

struct agenda {
    struct slot *slots;
    size_t slot_room;
    uint32_t free_slot;
    uint64_t from_ms; /* the wheel's rows are of from_ms to from_ms + WHEEL_MS - 1 */
    struct row rows[WHEEL_MS];
    uint64_t in_use[WORDS]; /* a bit a row */
    size_t near_count;
    struct later *later; /* a heap by time, then number */
    size_t later_count, later_room;
    uint64_t last_number;
};

struct agenda *agenda_new(void)
{
    struct agenda *a = xcalloc(1, sizeof *a);
    a->free_slot = NO_SLOT;
    return a;
}

struct agenda *agenda_free(struct agenda *a)
{
    if (a != NULL) {
        free(a->slots);
        free(a->later);
    }
    free(a);
    return NULL;
}

static void more_slots(struct agenda *a)
{
    size_t room = a->slot_room * 2 + 64;
    a->slots = xrealloc(a->slots, room * sizeof *a->slots);
    for (size_t i = room; i > a->slot_room; i--) {
        a->slots[i - 1] = (struct slot){.use = 1, .next = a->free_slot};
        a->free_slot = (uint32_t)(i - 1);
    }
    a->slot_room = room;
}

/* ---- the wheel ---- */

static void put_near(struct agenda *a, uint64_t at_ms, uint32_t slot)
{
    uint64_t i = at_ms % WHEEL_MS, bit = UINT64_C(1) << i % WORD_BITS;
    struct row *r = &a->rows[i];
    a->slots[slot].next = NO_SLOT;
    if (a->in_use[i / WORD_BITS] & bit)
        a->slots[r->last].next = slot;
    else
        r->first = slot;
    r->last = slot;
    a->in_use[i / WORD_BITS] |= bit;
    a->near_count++;
}

/* The first row that has something, of those from from_ms on, all around; there is one. */
static uint64_t first_near(const struct agenda *a)
{
    uint64_t word = a->from_ms / WORD_BITS, bits = a->in_use[word % WORDS] & UINT64_MAX << a->from_ms % WORD_BITS;
    while (bits == 0)
        bits = a->in_use[++word % WORDS];
    return word * WORD_BITS + (uint64_t)__builtin_ctzll(bits);
}

static uint32_t take_near(struct agenda *a, uint64_t at_ms)
{
    uint64_t i = at_ms % WHEEL_MS;
    uint32_t slot = a->rows[i].first;
    a->rows[i].first = a->slots[slot].next;
    if (a->rows[i].first == NO_SLOT)
        a->in_use[i / WORD_BITS] &= ~(UINT64_C(1) << i % WORD_BITS);
    a->near_count--;
    return slot;
}

/* ---- what comes later ---- */

static bool earlier(const struct later *a, const struct later *b)
{
    return a->at_ms != b->at_ms ? a->at_ms < b->at_ms : a->number < b->number;
}

static void swap(struct later *a, struct later *b)
{
    struct later t = *a;
    *a = *b;
    *b = t;
}

static void put_later(struct agenda *a, uint64_t at_ms, uint32_t slot)
{
    if (a->later_count == a->later_room)
        a->later = xrealloc(a->later, (a->later_room = a->later_room * 2 + 64) * sizeof *a->later);
    size_t i = a->later_count++;
    a->later[i] = (struct later){at_ms, ++a->last_number, slot};
    for (; i > 0 && earlier(&a->later[i], &a->later[(i - 1) / 2]); i = (i - 1) / 2)
        swap(&a->later[i], &a->later[(i - 1) / 2]);
}

static struct later take_later(struct agenda *a)
{
    struct later first = a->later[0];
    a->later[0] = a->later[--a->later_count];
    for (size_t i = 0, least = 0;; i = least) {
        for (size_t child = 2 * i + 1; child <= 2 * i + 2 && child < a->later_count; child++)
            if (earlier(&a->later[child], &a->later[least]))
                least = child;
        if (least == i)
            return first;
        swap(&a->later[i], &a->later[least]);
    }
}

/* The wheel goes on to that time. What comes into its reach goes to its rows before anything is added to them. */
static void turn_to(struct agenda *a, uint64_t ms)
{
    a->from_ms = ms;
    while (a->later_count > 0 && a->later[0].at_ms < ms + WHEEL_MS) {
        struct later l = take_later(a);
        put_near(a, l.at_ms, l.slot);
    }
}

/* ---- together ---- */

uint64_t agenda_add(struct agenda *a, const struct agenda_entry *e)
{
    ASSERT(e->at_ms >= a->from_ms);
    if (a->free_slot == NO_SLOT)
        more_slots(a);
    uint32_t at = a->free_slot;
    struct slot *slot = &a->slots[at];
    a->free_slot = slot->next;
    slot->fn = e->fn;
    slot->ctx = e->ctx;
    if (e->at_ms < a->from_ms + WHEEL_MS)
        put_near(a, e->at_ms, at);
    else
        put_later(a, e->at_ms, at);
    return (uint64_t)slot->use << 32 | at;
}

void agenda_cancel(struct agenda *a, uint64_t id)
{
    uint32_t at = (uint32_t)id;
    if (id != 0 && at < a->slot_room && a->slots[at].use == id >> 32)
        a->slots[at].fn = NULL;
}

bool agenda_take(struct agenda *a, uint64_t until_ms, struct agenda_entry *ret_entry)
{
    while (a->near_count > 0 || a->later_count > 0) {
        uint64_t at_ms = a->near_count > 0 ? first_near(a) : a->later[0].at_ms;
        if (at_ms > until_ms)
            return false;
        if (at_ms > a->from_ms)
            turn_to(a, at_ms);
        uint32_t at = take_near(a, at_ms);
        struct slot *slot = &a->slots[at], taken = *slot;
        slot->use++;
        slot->next = a->free_slot;
        a->free_slot = at;
        if (taken.fn == NULL)
            continue;
        *ret_entry = (struct agenda_entry){at_ms, taken.fn, taken.ctx};
        return true;
    }
    return false;
}
