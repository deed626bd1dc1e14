/* test_fetch_nearest.c - Fetches of consumers in their rack (KIP-392): the leader names the replica, and the client is
 * read for there. */
#include "tests/unit/frontend/fetches.h"

#include <criterion/criterion.h>

#include "libs/bus/version.h"

TestSuite(fetch_nearest, .init = world_open, .fini = world_close);

static const struct kafka_fetch_response_partition_data *fetched_one(int16_t version, int32_t correlation)
{
    return &fetched(version, correlation)->responses[0].partitions[0];
}

static const Karst__Bus__ReadRequest *read_to(size_t call, int32_t node)
{
    cr_assert_eq(world_call_count, call + 1);
    cr_assert_eq(world_calls[call].peer, node);
    return world_calls[call].body;
}

Test(fetch_nearest, the_leader_names_the_replica_and_a_client_that_was_sent_is_read_for_there)
{
    static const struct asked one[] = {{0, 5}};

    world.rack_aware = true;
    fetches_rack = "rack 2";
    world_come_by(1);
    send_fetch(12, 1, 0, -1, one, 1);
    cr_assert_str_eq(read_to(0, 1)->rack, "rack 2");
    reply_read_with(0, KERR_NONE, 2 + 1);
    cr_assert_eq(fetched_one(12, 1)->preferred_read_replica, 2);
    world_come_by(2);
    send_fetch(12, 2, 0, -1, one, 1);
    cr_assert(read_to(1, 2)->of_follower);
    reply_reads(1, 9, 1, "data");
    const struct kafka_fetch_response_partition_data *p = fetched_one(12, 2);
    cr_assert(slice_eq_str(p->records, "data") && p->preferred_read_replica == -1);
    send_fetch(12, 3, 0, -1, one, 1);
    (void)read_to(2, 2);
    reply_read_with(2, KERR_OFFSET_OUT_OF_RANGE, 0);
    cr_assert_eq(fetched_one(12, 3)->error_code, KERR_OFFSET_OUT_OF_RANGE, "the client knows where it was sent");
}

Test(fetch_nearest, who_was_not_sent_reads_from_the_leader)
{
    static const struct asked one[] = {{0, 5}};
    static const struct {
        const char *rack;
        bool is_aware;
    } clients[] = {{"rack 1", true}, {"", true}, {"rack 3", true}, {"rack 2", false}};

    world_come_by(2);
    for (size_t i = 0; i < COUNTOF(clients); i++) {
        world.rack_aware = clients[i].is_aware;
        fetches_rack = clients[i].rack;
        send_fetch(12, (int32_t)i + 1, 0, -1, one, 1);
        (void)read_to(i, 1);
        reply_reads(i, 9, 1, "data");
        cr_assert_eq(fetched_one(12, (int32_t)i + 1)->error_code, KERR_NONE);
    }
}

/* It would send back to the leader who was sent to it. */
Test(fetch_nearest, with_a_process_of_the_release_before_all_read_from_the_leader)
{
    static const struct asked one[] = {{0, 5}};

    world.rack_aware = true;
    fetches_rack = "rack 2";
    world_level = BUS_VERSION_FOLLOWER_READS - 1;
    for (int32_t broker = 1; broker <= 2; broker++) {
        world_come_by(broker);
        send_fetch(12, broker, 0, -1, one, 1);
        const Karst__Bus__ReadRequest *q = read_to((size_t)broker - 1, 1);
        cr_assert(!q->of_follower && q->rack[0] == 0, "nobody is sent anywhere");
        reply_reads((size_t)broker - 1, 9, 1, "data");
        cr_assert(slice_eq_str(fetched_one(12, broker)->records, "data"));
    }
}

/* The client would take the error of a follower that it knows nothing of for the leader's. */
Test(fetch_nearest, at_one_address_the_leader_is_asked_where_the_follower_cannot_answer)
{
    static const struct asked one[] = {{0, 5}};

    world.rack_aware = true;
    fetches_rack = "rack 2";
    send_fetch(12, 1, 0, -1, one, 1);
    const Karst__Bus__ReadRequest *q = read_to(0, 2);
    cr_assert(q->of_follower && q->rack[0] == 0, "nobody can be sent anywhere");
    reply_read_with(0, KERR_OFFSET_OUT_OF_RANGE, 0);
    (void)read_to(1, 1);
    reply_reads(1, 9, 1, "data");
    cr_assert(slice_eq_str(fetched_one(12, 1)->records, "data"));
    send_fetch(12, 2, 0, -1, one, 1);
    (void)read_to(2, 2);
    world_end_call(2, KARST__BUS__OUTCOME__OUTCOME_NOT_SENT); /* it is dead: at once */
    (void)read_to(3, 1);
    reply_read_with(3, KERR_OFFSET_OUT_OF_RANGE, 0);
    cr_assert_eq(fetched_one(12, 2)->error_code, KERR_OFFSET_OUT_OF_RANGE, "that is the leader's word");
}

Test(fetch_nearest, a_set_at_a_follower_goes_with_what_it_is_asked_for)
{
    static const struct asked eight[] = {{0, 1}, {1, 1}, {4, 1}, {5, 1}, {6, 1}, {7, 1}, {8, 1}, {9, 1}};

    world.rack_aware = true;
    fetches_rack = "rack 2";
    world_come_by(2);
    send_fetch(13, 1, 0, 0, eight, 8);
    (void)read_to(0, 2);
    reply_reads(0, 9, 8, NULL);
    int32_t session = fetched(13, 1)->session_id;
    send_fetch(13, 2, session, 1, NULL, 0);
    const Karst__Bus__ReadRequest *q = read_to(1, 2);
    cr_assert(q->set_new && q->of_follower && q->n_partitions == 8);
    world_lead(0, 2); /* it leads one of them now: all stay where they are */
    cr_assert(!world_calls[1].cancelled);
}

Test(fetch_nearest, who_is_cut_off_tells_no_client_to_begin_elsewhere)
{
    static const struct asked one[] = {{0, 5}};

    world_is_cut = true;
    send_fetch(12, 1, 0, -1, one, 1);
    reply_read_with(0, KERR_OFFSET_OUT_OF_RANGE, 0);
    cr_expect_eq(fetched_one(12, 1)->error_code, KERR_NOT_LEADER_OR_FOLLOWER, "the leader may be another");
    world_is_cut = false;
    send_fetch(12, 2, 0, -1, one, 1);
    reply_read_with(1, KERR_OFFSET_OUT_OF_RANGE, 0);
    cr_expect_eq(fetched_one(12, 2)->error_code, KERR_OFFSET_OUT_OF_RANGE);
}
