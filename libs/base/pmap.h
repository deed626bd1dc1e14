/* pmap.h - a map that keeps its old versions: a hash trie (CHAMP) of counted nodes and items.
 *
 * A struct pmap is a small value. pmap_copy makes a second version in O(1); pmap_put and pmap_remove then copy only the
 * path to what changes, and not even that where nobody else holds a node. Iteration order follows the hashes of the
 * keys: the same content gives the same order, whatever way it came about (but for keys of one 32-bit hash).
 *
 * I1  a node or item with more than one count is never written.
 * I2  a node below the root holds two items or more in its subtree.
 * Threading: counts are atomic; a version may be read by any thread while other versions change. Changing one is for
 * its owner. */
#ifndef KARST_BASE_PMAP_H
#define KARST_BASE_PMAP_H

#include "libs/base/slice.h"

/* First member of what a map holds. The key points into the item itself and never changes. */
struct pmap_item {
    uint32_t refs; /* atomic */
    uint32_t hash;
    struct slice key;
    void (*free)(struct pmap_item *item); /* the last count is gone */
};

struct pmap_node;
struct pmap { /* zero-initialised is empty */
    struct pmap_node *root;
    size_t count;
};

void pmap_item_init(struct pmap_item *item, struct slice key, void (*free_fn)(struct pmap_item *)); /* count 1 */
void pmap_item_retain(struct pmap_item *item);
void pmap_item_release(struct pmap_item *item); /* takes NULL */

struct pmap pmap_copy(const struct pmap *m);
void pmap_clear(struct pmap *m);

struct pmap_item *pmap_get(const struct pmap *m, struct slice key); /* NULL: not there. No count is taken */
void pmap_put(struct pmap *m, struct pmap_item *item); /* takes over a count; replaces the item of its key */
bool pmap_remove(struct pmap *m, struct slice key);    /* false: not there */

/* The item of key, for writing in place until the next pmap_copy of m: what another version holds, too, is replaced by
 * its clone (count 1) first. The clone's key must be equal. NULL: not there. */
typedef struct pmap_item *pmap_clone_fn(const struct pmap_item *item);
struct pmap_item *pmap_edit(struct pmap *m, struct slice key, pmap_clone_fn *clone);

/* fn may not change the map. */
typedef void pmap_fn(void *ctx, struct pmap_item *item);
void pmap_each(const struct pmap *m, pmap_fn *fn, void *ctx);

/* Each key whose item is another object in the two maps, one of them NULL where it is missing. Costs what differs. */
typedef void pmap_diff_fn(void *ctx, struct pmap_item *before, struct pmap_item *after);
void pmap_diff(const struct pmap *before, const struct pmap *after, pmap_diff_fn *fn, void *ctx);

#endif
