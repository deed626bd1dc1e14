/* clean_txns.c - see clean_txns.h. */
#include "libs/log/clean_txns.h"
#include "libs/base/bytes.h"
#include <stdlib.h>
#include <uthash.h>

struct clean_abort {
    int64_t producer_id, first, last, last_stable;
};

/* A transaction that the cleaner is within. */
struct open_txn {
    int64_t producer_id;
    const struct clean_abort *abort; /* NULL: it was committed */
    bool seen;                       /* a batch of it is left */
    UT_hash_handle hh;
};

struct clean_txns {
    const struct clean_aborts *aborts;
    size_t next; /* the first abort that no batch has reached yet */
    int64_t from;
    struct open_txn *aborted, *committed;
};

int clean_aborts_add(struct clean_aborts *a, struct slice bytes)
{
    for (size_t at = 0; at + TXN_ENTRY <= bytes.size; at += TXN_ENTRY) {
        const uint8_t *e = bytes.data + at;
        if (get_i16(e) != 0)
            return -EBADMSG;
        if (a->count == a->capacity) {
            a->capacity = a->capacity ? 2 * a->capacity : 16;
            a->at = xrealloc(a->at, a->capacity * sizeof *a->at);
        }
        a->at[a->count++] = (struct clean_abort){get_i64(e + 2), get_i64(e + 10), get_i64(e + 18), get_i64(e + 26)};
    }
    return bytes.size % TXN_ENTRY == 0 ? 0 : -EBADMSG;
}

static int by_first(const void *a, const void *b)
{
    const struct clean_abort *x = a, *y = b;
    return x->first != y->first ? (x->first > y->first) - (x->first < y->first)
                                : (x->last > y->last) - (x->last < y->last);
}

void clean_aborts_sort(struct clean_aborts *a)
{
    if (a->count > 0)
        qsort(a->at, a->count, sizeof *a->at, by_first);
}

void clean_aborts_free(struct clean_aborts *a)
{
    free(a->at);
    *a = (struct clean_aborts){0};
}

struct clean_txns *clean_txns_new(const struct clean_aborts *aborts, int64_t from)
{
    struct clean_txns *t = xcalloc(1, sizeof *t);
    t->aborts = aborts;
    t->from = from;
    return t;
}

static void free_all(struct open_txn **table)
{
    struct open_txn *o, *next;
    HASH_ITER (hh, *table, o, next) {
        HASH_DEL(*table, o);
        free(o);
    }
}

struct clean_txns *clean_txns_free(struct clean_txns *t)
{
    if (t == NULL)
        return NULL;
    free_all(&t->aborted);
    free_all(&t->committed);
    free(t);
    return NULL;
}

static struct open_txn *find(struct open_txn *table, int64_t producer_id)
{
    struct open_txn *o;
    HASH_FIND(hh, table, &producer_id, sizeof producer_id, o);
    return o;
}

static void add(struct open_txn **table, int64_t producer_id, const struct clean_abort *abort)
{
    if (find(*table, producer_id) != NULL)
        return;
    struct open_txn *o = xcalloc(1, sizeof *o);
    o->producer_id = producer_id;
    o->abort = abort;
    HASH_ADD(hh, *table, producer_id, sizeof o->producer_id, o);
}

/* Transactions that begin at or before offset are entered. */
static void enter(struct clean_txns *t, int64_t offset)
{
    for (; t->next < t->aborts->count && t->aborts->at[t->next].first <= offset; t->next++) {
        const struct clean_abort *a = &t->aborts->at[t->next];
        if (a->last >= t->from)
            add(&t->aborted, a->producer_id, a);
    }
}

bool clean_txns_on_batch(struct clean_txns *t, const struct batch *b)
{
    enter(t, batch_last_offset(b));
    if (!batch_is_transactional(b))
        return false;
    struct open_txn *o = find(t->aborted, b->producer_id);
    if (o != NULL)
        o->seen = true;
    else
        add(&t->committed, b->producer_id, NULL);
    return o != NULL;
}

static void keep(const struct clean_abort *a, struct buf *index)
{
    uint8_t *e = buf_grow(index, TXN_ENTRY);
    put_i16(e, 0);
    put_i64(e + 2, a->producer_id);
    put_i64(e + 10, a->first);
    put_i64(e + 18, a->last);
    put_i64(e + 26, a->last_stable);
}

bool clean_txns_on_control(struct clean_txns *t, const struct batch *b, int type, struct buf *index)
{
    enter(t, batch_last_offset(b));
    if (type < 0)
        return true;
    if (type != CONTROL_ABORT && type != CONTROL_COMMIT)
        return false;
    struct open_txn **table = type == CONTROL_ABORT ? &t->aborted : &t->committed;
    struct open_txn *o = find(*table, b->producer_id);
    if (o == NULL)
        return true;
    bool seen = o->seen || type == CONTROL_COMMIT;
    if (seen && o->abort != NULL && index != NULL)
        keep(o->abort, index);
    HASH_DEL(*table, o);
    free(o);
    return !seen;
}
