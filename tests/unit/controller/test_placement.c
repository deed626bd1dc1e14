/* test_placement.c - where the partitions of a topic go, as Kafka's StripedReplicaPlacer puts them. */
#include "tests/unit/controller/help.h"

enum { BROKERS = 6, PARTITIONS = 60 };

static struct help h;
static int64_t epochs[BROKERS + 1];

/* Brokers 1 to 6 in the racks a, b, c, a, b, c. */
static void open_it(void)
{
    static const char *const racks[] = {"a", "b", "c"};
    help_open(&h);
    for (int32_t id = 1; id <= BROKERS; id++) {
        h.rack = slice_str(racks[(id - 1) % 3]);
        epochs[id] = help_storage(&h, id, 10, -1);
    }
}

static void close_it(void)
{
    help_close(&h);
}

TestSuite(placement, .init = open_it, .fini = close_it);

static bool share_rack(int32_t a, int32_t b)
{
    return a % 3 == b % 3;
}

Test(placement, each_rack_has_a_replica)
{
    int32_t leads[BROKERS + 1] = {0}, holds[BROKERS + 1] = {0};
    bool followed[BROKERS + 1][BROKERS + 1] = {{0}};
    cr_assert_eq(help_create(&h, "t", PARTITIONS, 3)->error_code, 0);
    for (int32_t n = 0; n < PARTITIONS; n++) {
        const struct image_partition *p = help_partition(&h, "t", n);
        const int32_t *r = p->replicas;
        cr_assert(p->replica_count == 3 && p->isr_count == 3 && p->leader == r[0]);
        cr_assert(!share_rack(r[0], r[1]) && !share_rack(r[0], r[2]) && !share_rack(r[1], r[2]));
        leads[r[0]]++;
        for (int32_t i = 0; i < 3; i++)
            holds[r[i]]++;
        followed[r[0]][r[1]] = followed[r[0]][r[2]] = true;
    }
    for (int32_t id = 1; id <= BROKERS; id++) {
        int32_t followers = 0;
        for (int32_t other = 1; other <= BROKERS; other++)
            followers += followed[id][other];
        cr_assert_eq(leads[id], PARTITIONS / BROKERS, "%d leads %d", id, leads[id]);
        cr_assert_eq(holds[id], PARTITIONS / 2, "%d holds %d", id, holds[id]);
        cr_assert_geq(followers, 3, "the leaders of %d fall to %d others", id, followers);
    }
}

Test(placement, more_replicas_than_racks)
{
    cr_assert_eq(help_create(&h, "t", 12, 6)->error_code, 0);
    for (int32_t n = 0; n < 12; n++) {
        int32_t seen = 0;
        for (int32_t i = 0; i < 6; i++)
            seen |= 1 << help_partition(&h, "t", n)->replicas[i];
        cr_assert_eq(seen, 0x7e);
    }
    const struct kafka_create_topics_response_creatable_topic_result *r = help_create(&h, "u", 1, 7);
    cr_assert_eq(r->error_code, KERR_INVALID_REPLICATION_FACTOR);
    cr_assert(slice_eq_str(r->error_message,
                           "Unable to replicate the partition 7 time(s): The target replication factor of 7 cannot be "
                           "reached because only 6 broker(s) are registered or some brokers have all their log "
                           "directories cordoned."));
}

/* Fenced ones come last, even before the rack of another replica is used, and never lead. */
Test(placement, fenced_brokers_come_last)
{
    for (int n = 0; n < 3; n++) {
        h.now_ms += 4000;
        for (int32_t id = 1; id <= BROKERS; id++)
            if (id % 3 != 0)
                help_beat(&h, STORAGE, id, 10, epochs[id], false);
    }
    for (int n = 0; n < 2; n++) {
        controller_tick(h.c, h.now_ms);
        help_take(&h);
    }
    cr_assert_eq(help_create(&h, "t", 12, 2)->error_code, 0);
    for (int32_t n = 0; n < 12; n++) {
        const struct image_partition *p = help_partition(&h, "t", n);
        cr_assert(p->leader % 3 != 0 && p->leader == p->replicas[0]);
    }
    cr_assert_eq(help_create(&h, "u", 6, 6)->error_code, 0);
    for (int32_t n = 0; n < 6; n++)
        cr_assert_eq(help_partition(&h, "u", n)->isr_count, 4);
}

Test(placement, one_that_stops_gets_nothing)
{
    help_create(&h, "all", 6, 1);
    cr_assert_not(help_beat(&h, STORAGE, 1, 10, epochs[1], true).should_shut_down);
    cr_assert_eq(help_create(&h, "t", 30, 5)->error_code, 0);
    for (int32_t n = 0; n < 30; n++)
        for (int32_t i = 0; i < 5; i++)
            cr_assert_neq(help_partition(&h, "t", n)->replicas[i], 1);
    cr_assert_eq(help_create(&h, "u", 1, 6)->error_code, KERR_INVALID_REPLICATION_FACTOR);
}
