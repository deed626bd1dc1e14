/* test_pmap.c - the map that keeps its old versions, held against plain arrays. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "libs/base/pmap.h"

enum { KEYS = 2000, STEPS = 20000, MANY = 200000 };

struct item {
    struct pmap_item item;
    uint32_t key;
    int value;
};

static int alive;

static void item_free(struct pmap_item *i)
{
    alive--;
    free(CONTAINER_OF(i, struct item, item));
}

static struct item *item_new(uint32_t key, int value)
{
    struct item *i = xmalloc(sizeof *i);
    i->key = key;
    i->value = value;
    pmap_item_init(&i->item, slice_make(&i->key, sizeof i->key), item_free);
    alive++;
    return i;
}

static struct pmap_item *item_clone(const struct pmap_item *item)
{
    const struct item *old = (const struct item *)(const void *)item;
    return &item_new(old->key, old->value)->item;
}

static int value_of(const struct pmap *m, uint32_t key)
{
    struct pmap_item *i = pmap_get(m, slice_make(&key, sizeof key));
    return i ? CONTAINER_OF(i, struct item, item)->value : -1;
}

static void check(const struct pmap *m, const int *expected)
{
    size_t count = 0;
    for (uint32_t k = 0; k < KEYS; k++) {
        cr_assert_eq(value_of(m, k), expected[k], "key %u", k);
        count += expected[k] >= 0;
    }
    cr_assert_eq(m->count, count);
}

struct diff_check {
    const int *before, *after;
    int seen;
};

static void on_diff(void *ctx, struct pmap_item *before, struct pmap_item *after)
{
    struct diff_check *d = ctx;
    uint32_t key = CONTAINER_OF(before ? before : after, struct item, item)->key;
    cr_assert_eq(before ? CONTAINER_OF(before, struct item, item)->value : -1, d->before[key]);
    cr_assert_eq(after ? CONTAINER_OF(after, struct item, item)->value : -1, d->after[key]);
    d->seen++;
}

static void check_diff(const struct pmap *a, const int *before, const struct pmap *b, const int *after)
{
    struct diff_check d = {before, after, 0};
    int expected = 0;
    for (uint32_t k = 0; k < KEYS; k++)
        expected += before[k] != after[k];
    pmap_diff(a, b, on_diff, &d);
    cr_assert_geq(d.seen, expected); /* something replaced by an equal one is reported, too */
}

Test(pmap, old_versions_stay)
{
    struct pmap now = {0}, old = {0};
    int expected[KEYS], expected_old[KEYS];
    memset(expected, -1, sizeof expected);
    memset(expected_old, -1, sizeof expected_old);
    srand(7);
    for (int step = 0; step < STEPS; step++) {
        uint32_t key = (uint32_t)rand() % KEYS;
        int what = rand() % 3;
        if (what == 0) {
            cr_assert_eq(pmap_remove(&now, slice_make(&key, sizeof key)), expected[key] >= 0);
            expected[key] = -1;
        } else if (what == 1) {
            pmap_put(&now, &item_new(key, step)->item);
            expected[key] = step;
        } else {
            struct pmap_item *i = pmap_edit(&now, slice_make(&key, sizeof key), item_clone);
            cr_assert_eq(i != NULL, expected[key] >= 0);
            if (i != NULL)
                CONTAINER_OF(i, struct item, item)->value = expected[key] = step;
        }
        if (step % 997 == 0) {
            check(&now, expected);
            check(&old, expected_old);
            check_diff(&old, expected_old, &now, expected);
            pmap_clear(&old);
            old = pmap_copy(&now);
            memcpy(expected_old, expected, sizeof expected);
        }
    }
    pmap_clear(&old);
    check(&now, expected);
    pmap_clear(&now);
    cr_assert_eq(alive, 0);
}

static void note(void *ctx, struct pmap_item *item)
{
    uint32_t **at = ctx;
    *(*at)++ = CONTAINER_OF(item, struct item, item)->key;
}

/* With so many keys several share all 32 bits of the hash. */
Test(pmap, many_keys_and_equal_hashes)
{
    struct pmap m = {0};
    for (uint32_t k = 0; k < MANY; k++)
        pmap_put(&m, &item_new(k, (int)k)->item);
    cr_assert_eq(m.count, MANY);
    uint32_t *keys = xmalloc(MANY * sizeof *keys), *at = keys;
    pmap_each(&m, note, &at);
    cr_assert_eq(at - keys, MANY);
    int twins = 0;
    for (uint32_t k = 0; k < MANY; k++) {
        cr_assert_eq(value_of(&m, k), (int)k);
        if (k > 0)
            twins += pmap_get(&m, slice_make(&keys[k], 4))->hash == pmap_get(&m, slice_make(&keys[k - 1], 4))->hash;
    }
    cr_assert_gt(twins, 0);
    for (uint32_t k = 0; k < MANY; k++)
        cr_assert(pmap_remove(&m, slice_make(&keys[k], sizeof keys[k])));
    cr_assert_eq(m.count, 0);
    cr_assert_null(m.root);
    free(keys);
}

/* The order of a map is that of its content, not of its history. */
Test(pmap, order_does_not_depend_on_history)
{
    struct pmap a = {0}, b = {0};
    for (uint32_t k = 0; k < KEYS; k++)
        pmap_put(&a, &item_new(k, 0)->item);
    for (uint32_t k = 2 * KEYS; k-- > 0;)
        pmap_put(&b, &item_new(k, 0)->item);
    for (uint32_t k = KEYS; k < 2 * KEYS; k++)
        cr_assert(pmap_remove(&b, slice_make(&k, sizeof k)));
    uint32_t x[KEYS], y[KEYS], *at = x;
    pmap_each(&a, note, &at);
    at = y;
    pmap_each(&b, note, &at);
    cr_assert_arr_eq(x, y, sizeof x);
    pmap_clear(&a);
    pmap_clear(&b);
    cr_assert_eq(alive, 0);
}
