/* test_session.c - fetch sessions, by Kafka's rules (KIP-227). */
#include "libs/pipeline/session.h"

#include <criterion/criterion.h>

static struct session_partition part(const char *topic, int32_t partition, int64_t offset)
{
    return (struct session_partition){
        .key = {UUID_ZERO, slice_str(topic), partition}, .fetch_offset = offset, .max_bytes = 1000};
}

static struct session *make(struct session_cache *c, int32_t id, uint32_t partitions, uint64_t now)
{
    struct session *s;

    cr_assert_eq(session_create(c, id, false, false, partitions, now, &s), 0);
    for (uint32_t i = 0; i < partitions; i++) {
        struct session_partition p = part("t", (int32_t)i, 0);
        cr_assert_eq(session_put(c, s, &p), 0);
    }
    return s;
}

static struct session_outcome quiet(void)
{
    return (struct session_outcome){.high_watermark = 5, .log_start_offset = 0, .preferred_replica = -1};
}

Test(session, epochs)
{
    struct session_cache *c = session_cache_new(10, 1000);
    struct session *s = make(c, 7, 1, 0), *found;

    cr_assert_eq(session_use(c, 8, 1, false, &found), KERR_FETCH_SESSION_ID_NOT_FOUND);
    cr_assert_eq(session_use(c, 7, 2, false, &found), KERR_INVALID_FETCH_SESSION_EPOCH);
    cr_assert_eq(session_use(c, 7, 1, true, &found), KERR_FETCH_SESSION_TOPIC_ID_ERROR);
    cr_assert_eq(session_use(c, 7, 1, false, &found), KERR_NONE);
    cr_assert_eq(found, s);
    session_advance(c, s, 1);
    cr_assert_eq(session_use(c, 7, 1, false, &found), KERR_INVALID_FETCH_SESSION_EPOCH);
    cr_assert_eq(session_use(c, 7, 2, false, &found), KERR_NONE);
    session_close(c, 7);
    cr_assert_eq(session_use(c, 7, 2, false, &found), KERR_FETCH_SESSION_ID_NOT_FOUND);
    session_cache_free(c);
}

Test(session, ids_are_positive_and_free)
{
    struct session_cache *c = session_cache_new(10, 1000);
    struct session *s;

    make(c, 7, 0, 0);
    cr_assert_eq(session_create(c, 0, false, false, 1, 0, &s), -EAGAIN);
    cr_assert_eq(session_create(c, -3, false, false, 1, 0, &s), -EAGAIN);
    cr_assert_eq(session_create(c, 7, false, false, 1, 0, &s), -EAGAIN);
    session_cache_free(c);
}

Test(session, put_replaces_and_keeps_what_was_told)
{
    struct session_cache *c = session_cache_new(10, 1000);
    struct session *s = make(c, 1, 3, 0);
    struct session_partition p = part("t", 1, 42);
    struct session_outcome o = quiet();

    session_note(session_get(s, &p.key), &o);
    cr_assert_eq(session_put(c, s, &p), 0);
    cr_assert_eq(session_size(s), 3);
    cr_assert_eq(session_get(s, &p.key)->fetch_offset, 42);
    cr_assert_eq(session_get(s, &p.key)->known_high_watermark, 5);
    session_forget(c, s, &p.key);
    cr_assert_eq(session_size(s), 2);
    cr_assert_null(session_get(s, &p.key));
    session_forget(c, s, &p.key);
    session_cache_free(c);
}

Test(session, only_changes_are_told)
{
    struct session_cache *c = session_cache_new(10, 1000);
    struct session *s = make(c, 1, 2, 0);
    struct session_partition *p = session_first(s);
    struct session_outcome o = quiet();

    cr_assert(session_tell(s, p, &o), "nothing was told before");
    cr_assert_not(session_tell(s, p, &o));
    o.high_watermark = 6;
    cr_assert(session_tell(s, p, &o));
    o.log_start_offset = 1;
    cr_assert(session_tell(s, p, &o));
    cr_assert_not(session_tell(s, p, &o));
    o.error = KERR_OFFSET_OUT_OF_RANGE;
    cr_assert(session_tell(s, p, &o));
    cr_assert(session_tell(s, p, &o), "an error is repeated");
    o.error = KERR_NONE;
    cr_assert(session_tell(s, p, &o), "and its end is told");
    cr_assert_not(session_tell(s, p, &o));
    o.diverging = true;
    cr_assert(session_tell(s, p, &o));
    o.diverging = false;
    cr_assert(session_tell(s, p, &o));
    o.preferred_replica = 3;
    cr_assert(session_tell(s, p, &o));
    session_cache_free(c);
}

Test(session, records_move_a_partition_to_the_end)
{
    struct session_cache *c = session_cache_new(10, 1000);
    struct session *s = make(c, 1, 3, 0);
    struct session_outcome o = quiet();

    o.records_bytes = 10;
    cr_assert(session_tell(s, session_first(s), &o));
    struct session_partition *p = session_first(s);
    cr_assert_eq(p->key.partition, 1);
    p = session_next(p);
    cr_assert_eq(p->key.partition, 2);
    p = session_next(p);
    cr_assert_eq(p->key.partition, 0);
    cr_assert_null(session_next(p));
    session_cache_free(c);
}

Test(session, eviction)
{
    struct session_cache *c = session_cache_new(2, 1000);
    struct session *s;

    make(c, 1, 5, 0);
    make(c, 2, 3, 0);
    cr_assert_eq(session_create(c, 3, false, false, 100, 500, &s), -ENOSPC, "nobody is old enough");
    session_advance(c, session_find(c, 1), 900);
    session_advance(c, session_find(c, 2), 950);
    cr_assert_eq(session_create(c, 3, false, false, 3, 1500, &s), 0, "2 is as small and has the lower id");
    cr_assert_null(session_find(c, 2));
    cr_assert_eq(session_create(c, 4, false, false, 2, 1600, &s), -ENOSPC, "smaller than all that may go");
    cr_assert_eq(session_create(c, 4, false, false, 1, 1901, &s), 0, "1 was unused for too long");
    cr_assert_null(session_find(c, 1));
    cr_assert_eq(session_cache_count(c), 2);
    session_cache_free(c);
}

Test(session, followers_stay)
{
    struct session_cache *c = session_cache_new(1, 1000);
    struct session *s;

    cr_assert_eq(session_create(c, 1, false, true, 1, 0, &s), 0);
    session_advance(c, s, 1500);
    cr_assert_eq(session_create(c, 2, false, false, 100, 2000, &s), -ENOSPC);
    cr_assert_eq(session_create(c, 2, false, true, 100, 2000, &s), 0);
    session_cache_free(c);
}

Test(session, no_slots)
{
    struct session_cache *c = session_cache_new(0, 1000);
    struct session *s;

    cr_assert_eq(session_create(c, 1, false, false, 1, 0, &s), -ENOSPC);
    session_cache_free(c);
}

Test(session, names_and_ids_do_not_mix)
{
    struct session_cache *c = session_cache_new(10, 1000);
    struct session *s;
    struct session_partition a = part("a", 0, 1), b = part("b", 0, 2),
                             id = {.key = {{{1}}, SLICE_NULL, 0}, .fetch_offset = 3};

    cr_assert_eq(session_create(c, 1, false, false, 2, 0, &s), 0);
    cr_assert_eq(session_put(c, s, &a), 0);
    cr_assert_eq(session_put(c, s, &b), 0);
    cr_assert_eq(session_put(c, s, &id), 0);
    cr_assert_eq(session_get(s, &a.key)->fetch_offset, 1);
    cr_assert_eq(session_get(s, &b.key)->fetch_offset, 2);
    cr_assert_eq(session_get(s, &id.key)->fetch_offset, 3);
    cr_assert(slice_is_null(session_get(s, &id.key)->key.topic));
    cr_assert(slice_eq_str(session_get(s, &b.key)->key.topic, "b"));
    session_cache_free(c);
}

/* Places are a partition's own, changes and places left are told once. */
Test(session, places_and_changes)
{
    struct session_cache *c = session_cache_new(10, 1000);
    struct session *s = make(c, 7, 100, 0);
    struct session_partition p = part("t", 33, 9);
    const struct session_key gone = part("t", 50, 0).key, other = part("t", 51, 0).key;
    uint32_t seen = 0;
    size_t left;

    for (struct session_partition *i = session_first(s); i != NULL; i = session_next(i), seen++)
        cr_assert_eq(session_at(s, session_place(i)), i);
    cr_assert_eq(seen, 100);
    cr_assert_null(session_at(s, 100000));
    session_settle(s);
    cr_assert_null(session_first_changed(s));
    session_interest(s)->id = 5;
    cr_assert_eq(session_put(c, s, &p), 0);
    cr_assert_eq(session_put(c, s, &p), 0);
    cr_assert_eq(session_first_changed(s)->fetch_offset, 9);
    cr_assert_null(session_next_changed(session_first_changed(s)));
    uint32_t place = session_place(session_get(s, &gone));
    session_forget(c, s, &gone);
    cr_assert_null(session_at(s, place));
    cr_assert_eq(session_left(s, &left)[0], place);
    cr_assert_eq(left, 1);
    p = part("new", 1, 4);
    cr_assert_eq(session_put(c, s, &p), 0);
    cr_assert_eq(session_place(session_get(s, &p.key)), place, "the lowest that is free");
    session_forget(c, s, &p.key);
    session_settle(s);
    session_left(s, &left);
    cr_assert(left == 0 && session_first_changed(s) == NULL && session_interest(s)->id == 5);
    session_interest(s)->id = 0;
    session_forget(c, s, &other);
    session_left(s, &left);
    cr_assert_eq(left, 0, "there is nobody to tell");
    session_cache_free(c);
}
