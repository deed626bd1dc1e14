/* pmap.c - 32 ways a level by five bits of the hash; items stand in a node before its child nodes, each kind in bit
 * order. Below the last bits is a list of items of one hash. */
#include "libs/base/pmap.h"

#include <stdlib.h>

enum { BITS = 5, LAST_SHIFT = 30 };

struct pmap_node {
    uint32_t refs;         /* atomic */
    uint32_t items, nodes; /* a bit for each slot that is there; no bit is in both */
    uint32_t listed;       /* in a list: how many items; the bitmaps are 0 */
    void *slot[];
};

static uint32_t hash_of(struct slice key)
{
    uint64_t h = 0x9e3779b97f4a7c15u ^ key.size;
    size_t i = 0;
    for (; i + 8 <= key.size; i += 8) {
        uint64_t v;
        memcpy(&v, key.data + i, 8);
        h = (h ^ v) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    uint64_t tail = 0;
    for (; i < key.size; i++)
        tail = tail << 8 | key.data[i];
    h = (h ^ tail) * 0xc4ceb9fe1a85ec53u;
    h ^= h >> 33;
    return (uint32_t)(h * 0xff51afd7ed558ccdu >> 32);
}

static void ref_up(uint32_t *refs)
{
    __atomic_add_fetch(refs, 1, __ATOMIC_RELAXED);
}
static bool ref_down(uint32_t *refs)
{
    return __atomic_sub_fetch(refs, 1, __ATOMIC_ACQ_REL) == 0;
}
static bool ref_is_sole(const uint32_t *refs)
{
    return __atomic_load_n(refs, __ATOMIC_ACQUIRE) == 1;
}

void pmap_item_init(struct pmap_item *item, struct slice key, void (*free_fn)(struct pmap_item *))
{
    *item = (struct pmap_item){.refs = 1, .hash = hash_of(key), .key = key, .free = free_fn};
}

void pmap_item_retain(struct pmap_item *item)
{
    ref_up(&item->refs);
}

void pmap_item_release(struct pmap_item *item)
{
    if (item != NULL && ref_down(&item->refs))
        item->free(item);
}

/* ---- nodes ---- */

static size_t item_count(const struct pmap_node *n)
{
    return n->listed ? n->listed : (size_t)__builtin_popcount(n->items);
}
static size_t node_count(const struct pmap_node *n)
{
    return (size_t)__builtin_popcount(n->nodes);
}
static struct pmap_item *item_at(const struct pmap_node *n, size_t i)
{
    return n->slot[i];
}
static struct pmap_node *node_at(const struct pmap_node *n, size_t i)
{
    return n->slot[item_count(n) + i];
}
static uint32_t bit_of(uint32_t hash, unsigned shift)
{
    return 1u << (hash >> shift & 31);
}
static size_t index_of(uint32_t map, uint32_t bit)
{
    return (size_t)__builtin_popcount(map & (bit - 1));
}

static struct pmap_node *node_new(size_t slots)
{
    struct pmap_node *n = xmalloc(sizeof *n + slots * sizeof(void *));
    *n = (struct pmap_node){.refs = 1};
    return n;
}

static void node_release(struct pmap_node *n)
{
    if (n == NULL || !ref_down(&n->refs))
        return;
    for (size_t i = 0; i < item_count(n); i++)
        pmap_item_release(item_at(n, i));
    for (size_t i = 0; i < node_count(n); i++)
        node_release(node_at(n, i));
    free(n);
}

/* The same content for us alone; takes over our count of n. */
static struct pmap_node *node_own(struct pmap_node *n)
{
    if (ref_is_sole(&n->refs))
        return n;
    size_t items = item_count(n), nodes = node_count(n);
    struct pmap_node *copy = node_new(items + nodes);
    copy->items = n->items;
    copy->nodes = n->nodes;
    copy->listed = n->listed;
    for (size_t i = 0; i < items; i++) {
        copy->slot[i] = n->slot[i];
        pmap_item_retain(item_at(n, i));
    }
    for (size_t i = items; i < items + nodes; i++) {
        copy->slot[i] = n->slot[i];
        ref_up(&((struct pmap_node *)n->slot[i])->refs);
    }
    node_release(n);
    return copy;
}

static struct pmap_node *slot_insert(struct pmap_node *n, size_t at, void *what)
{
    size_t slots = item_count(n) + node_count(n);
    n = xrealloc(n, sizeof *n + (slots + 1) * sizeof(void *));
    memmove(&n->slot[at + 1], &n->slot[at], (slots - at) * sizeof(void *));
    n->slot[at] = what;
    return n;
}

static void slot_remove(struct pmap_node *n, size_t at)
{
    size_t slots = item_count(n) + node_count(n);
    memmove(&n->slot[at], &n->slot[at + 1], (slots - at - 1) * sizeof(void *));
}

/* A subtree of two items of different keys; takes over both counts. */
static struct pmap_node *node_of_two(struct pmap_item *a, struct pmap_item *b, unsigned shift)
{
    if (shift > LAST_SHIFT) {
        struct pmap_node *n = node_new(2);
        n->listed = 2;
        n->slot[0] = a;
        n->slot[1] = b;
        return n;
    }
    uint32_t bit_a = bit_of(a->hash, shift), bit_b = bit_of(b->hash, shift);
    struct pmap_node *n = node_new(2);
    if (bit_a == bit_b) {
        n->nodes = bit_a;
        n->slot[0] = node_of_two(a, b, shift + BITS);
    } else {
        n->items = bit_a | bit_b;
        n->slot[0] = bit_a < bit_b ? a : b;
        n->slot[1] = bit_a < bit_b ? b : a;
    }
    return n;
}

static bool is_key(const struct pmap_item *item, uint32_t hash, struct slice key)
{
    return item->hash == hash && item->key.size == key.size && memcmp(item->key.data, key.data, key.size) == 0;
}

static struct pmap_item *node_get(const struct pmap_node *n, unsigned shift, uint32_t hash, struct slice key)
{
    while (n != NULL && !n->listed) {
        uint32_t bit = bit_of(hash, shift);
        if (n->items & bit) {
            struct pmap_item *item = item_at(n, index_of(n->items, bit));
            return is_key(item, hash, key) ? item : NULL;
        }
        if (!(n->nodes & bit))
            return NULL;
        n = node_at(n, index_of(n->nodes, bit));
        shift += BITS;
    }
    for (size_t i = 0; n != NULL && i < n->listed; i++)
        if (is_key(item_at(n, i), hash, key))
            return item_at(n, i);
    return NULL;
}

static struct pmap_node *list_put(struct pmap_node *n, struct pmap_item *item, bool *ret_added)
{
    for (size_t i = 0; i < n->listed; i++)
        if (is_key(item_at(n, i), item->hash, item->key)) {
            pmap_item_release(item_at(n, i));
            n->slot[i] = item;
            return n;
        }
    n = slot_insert(n, n->listed, item);
    n->listed++;
    *ret_added = true;
    return n;
}

/* Takes over the counts of n and item. */
static struct pmap_node *node_put(struct pmap_node *n, unsigned shift, struct pmap_item *item, bool *ret_added)
{
    n = node_own(n);
    if (n->listed)
        return list_put(n, item, ret_added);
    uint32_t bit = bit_of(item->hash, shift);
    if (n->nodes & bit) {
        size_t at = item_count(n) + index_of(n->nodes, bit);
        n->slot[at] = node_put(n->slot[at], shift + BITS, item, ret_added);
        return n;
    }
    size_t at = index_of(n->items, bit);
    if (!(n->items & bit)) {
        n = slot_insert(n, at, item);
        n->items |= bit;
        *ret_added = true;
        return n;
    }
    struct pmap_item *there = item_at(n, at);
    if (is_key(there, item->hash, item->key)) {
        pmap_item_release(there);
        n->slot[at] = item;
        return n;
    }
    struct pmap_node *child = node_of_two(there, item, shift + BITS);
    *ret_added = true;
    slot_remove(n, at); /* an item less and a node more: the number of slots stays */
    n->items &= ~bit;
    size_t node_index = index_of(n->nodes, bit), slots = item_count(n) + node_count(n);
    at = item_count(n) + node_index;
    memmove(&n->slot[at + 1], &n->slot[at], (slots - at) * sizeof(void *));
    n->slot[at] = child;
    n->nodes |= bit;
    return n;
}

static struct pmap_node *list_remove(struct pmap_node *n, uint32_t hash, struct slice key)
{
    for (size_t i = 0; i < n->listed; i++)
        if (is_key(item_at(n, i), hash, key)) {
            pmap_item_release(item_at(n, i));
            slot_remove(n, i);
            n->listed--;
            break;
        }
    return n;
}

/* The key is there. Takes over the count of n. The result may hold a single item: the caller pulls it up. */
static struct pmap_node *node_remove(struct pmap_node *n, unsigned shift, uint32_t hash, struct slice key)
{
    n = node_own(n);
    if (n->listed)
        return list_remove(n, hash, key);
    uint32_t bit = bit_of(hash, shift);
    if (n->items & bit) {
        size_t at = index_of(n->items, bit);
        pmap_item_release(item_at(n, at));
        slot_remove(n, at);
        n->items &= ~bit;
        return n;
    }
    size_t at = item_count(n) + index_of(n->nodes, bit);
    struct pmap_node *child = node_remove(n->slot[at], shift + BITS, hash, key);
    n->slot[at] = child;
    if (item_count(child) != 1 || child->nodes != 0)
        return n;
    struct pmap_item *only = item_at(child, 0);
    free(child);
    slot_remove(n, at);
    n->nodes &= ~bit;
    at = index_of(n->items, bit);
    size_t slots = item_count(n) + node_count(n);
    memmove(&n->slot[at + 1], &n->slot[at], (slots - at) * sizeof(void *));
    n->slot[at] = only;
    n->items |= bit;
    return n;
}

/* ---- the map ---- */

struct pmap pmap_copy(const struct pmap *m)
{
    if (m->root != NULL)
        ref_up(&m->root->refs);
    return *m;
}

void pmap_clear(struct pmap *m)
{
    node_release(m->root);
    *m = (struct pmap){0};
}

struct pmap_item *pmap_get(const struct pmap *m, struct slice key)
{
    return node_get(m->root, 0, hash_of(key), key);
}

void pmap_put(struct pmap *m, struct pmap_item *item)
{
    bool added = false;
    if (m->root == NULL)
        m->root = node_new(0);
    m->root = node_put(m->root, 0, item, &added);
    m->count += added;
}

bool pmap_remove(struct pmap *m, struct slice key)
{
    uint32_t hash = hash_of(key);
    if (node_get(m->root, 0, hash, key) == NULL)
        return false;
    m->root = node_remove(m->root, 0, hash, key);
    if (--m->count == 0) {
        node_release(m->root);
        m->root = NULL;
    }
    return true;
}

static struct pmap_item *slot_edit(void **slot, pmap_clone_fn *clone)
{
    struct pmap_item *item = *slot;
    if (!ref_is_sole(&item->refs)) {
        struct pmap_item *copy = clone(item);
        pmap_item_release(item);
        *slot = item = copy;
    }
    return item;
}

struct pmap_item *pmap_edit(struct pmap *m, struct slice key, pmap_clone_fn *clone)
{
    uint32_t hash = hash_of(key);
    if (node_get(m->root, 0, hash, key) == NULL)
        return NULL;
    struct pmap_node **at = &m->root;
    for (unsigned shift = 0;; shift += BITS) {
        struct pmap_node *n = *at = node_own(*at);
        if (n->listed) {
            size_t i = 0;
            while (!is_key(item_at(n, i), hash, key))
                i++;
            return slot_edit(&n->slot[i], clone);
        }
        uint32_t bit = bit_of(hash, shift);
        if (n->items & bit)
            return slot_edit(&n->slot[index_of(n->items, bit)], clone);
        at = (struct pmap_node **)(void *)&n->slot[item_count(n) + index_of(n->nodes, bit)];
    }
}

static void node_each(const struct pmap_node *n, pmap_fn *fn, void *ctx)
{
    for (size_t i = 0; i < item_count(n); i++)
        fn(ctx, item_at(n, i));
    for (size_t i = 0; i < node_count(n); i++)
        node_each(node_at(n, i), fn, ctx);
}

void pmap_each(const struct pmap *m, pmap_fn *fn, void *ctx)
{
    if (m->root != NULL)
        node_each(m->root, fn, ctx);
}

/* ---- differences ---- */

/* What stands at one place of a trie: nothing, an item or a subtree. */
struct place {
    struct pmap_item *item;
    const struct pmap_node *node;
};

static struct place place_at(const struct pmap_node *n, uint32_t bit)
{
    if (n->items & bit)
        return (struct place){.item = item_at(n, index_of(n->items, bit))};
    if (n->nodes & bit)
        return (struct place){.node = node_at(n, index_of(n->nodes, bit))};
    return (struct place){0};
}

struct diff {
    pmap_diff_fn *fn;
    void *ctx;
    struct place other; /* what the visited items are held against */
    unsigned shift;
    bool reverse; /* the visited side is the newer one: report only what the other lacks */
};

static struct pmap_item *place_get(struct place p, unsigned shift, const struct pmap_item *like)
{
    if (p.item != NULL)
        return is_key(p.item, like->hash, like->key) ? p.item : NULL;
    return node_get(p.node, shift, like->hash, like->key);
}

static void diff_visit(void *ctx, struct pmap_item *item)
{
    struct diff *d = ctx;
    struct pmap_item *match = place_get(d->other, d->shift, item);
    if (d->reverse) {
        if (match == NULL)
            d->fn(d->ctx, NULL, item);
    } else if (match != item) {
        d->fn(d->ctx, item, match);
    }
}

static void place_each(struct place p, struct diff *d)
{
    if (p.item != NULL)
        diff_visit(d, p.item);
    else if (p.node != NULL)
        node_each(p.node, diff_visit, d);
}

static void diff_places(struct place a, struct place b, unsigned shift, pmap_diff_fn *fn, void *ctx)
{
    if (a.item == b.item && a.node == b.node)
        return;
    if (a.node != NULL && b.node != NULL && !a.node->listed && !b.node->listed) {
        for (uint32_t all = a.node->items | a.node->nodes | b.node->items | b.node->nodes; all != 0; all &= all - 1) {
            uint32_t bit = all & -all;
            diff_places(place_at(a.node, bit), place_at(b.node, bit), shift + BITS, fn, ctx);
        }
        return;
    }
    struct diff d = {.fn = fn, .ctx = ctx, .other = b, .shift = shift};
    place_each(a, &d);
    d.other = a;
    d.reverse = true;
    place_each(b, &d);
}

void pmap_diff(const struct pmap *before, const struct pmap *after, pmap_diff_fn *fn, void *ctx)
{
    diff_places((struct place){.node = before->root}, (struct place){.node = after->root}, 0, fn, ctx);
}
