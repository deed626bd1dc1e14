/* Two releases on one link: which version they speak, and what of a later one does not exist for the earlier. */
#include <criterion/criterion.h>

#include "libs/bus/version.h"
#include "net.h"

#define VOTERS KARST__BUS__CALL__BODY_KAFKA

static struct net net;

TestSuite(version, .timeout = 20);

static void begin(uint32_t caller_min, uint32_t caller_max, uint32_t served_min, uint32_t served_max)
{
    struct link_options caller = {.version_min = caller_min, .version_max = caller_max};
    struct link_options served = {.version_min = served_min, .version_max = served_max};

    net_begin(&net, &caller, &served);
}

static Karst__Bus__Outcome outcome_of(Karst__Bus__Call__BodyCase kind)
{
    size_t c = net_call(&net, kind, 5000, 0);

    net_settle(&net);
    net_answer_all(&net);
    net_settle(&net);
    cr_assert_eq(net.calls[c].ended, 1);
    return net.calls[c].outcome;
}

/* Lets one call out and says whether the message names its ends. */
static bool names_its_ends(int node)
{
    link_flush(net.core[node]);
    net_actions(&net, node);
    Karst__Bus__Batch *b = net_first(&net);
    bool named = b->from != NULL;
    cr_assert_eq(named, b->to != NULL);
    karst__bus__batch__free_unpacked(b, NULL);
    net_settle(&net);
    return named;
}

Test(version, this_build_speaks_its_release_and_the_one_before)
{
    cr_assert_eq(bus_version_max(), BUS_VERSION);
    cr_assert_eq(bus_version_min(), BUS_VERSION_BEFORE);
    cr_assert_eq(BUS_VERSION - BUS_VERSION_BEFORE, 1);
}

/* The highest that both know, from whichever end; version 1 names the ends in each message, 2 does not. */
Test(version, both_ends_speak_the_highest_that_both_know)
{
    static const struct {
        uint32_t caller_min, caller_max, served_min, served_max, spoken; /* 0: nothing */
    } of[] = {{1, 1, 1, 1, 1}, {1, 2, 1, 1, 1}, {1, 1, 1, 2, 1}, {1, 2, 1, 2, 2}, {1, 2, 2, 3, 2},
              {2, 3, 1, 2, 2}, {2, 3, 2, 3, 3}, {2, 3, 1, 1, 0}, {1, 1, 2, 3, 0}, {3, 3, 1, 2, 0}};

    for (size_t i = 0; i < COUNTOF(of); i++) {
        begin(of[i].caller_min, of[i].caller_max, of[i].served_min, of[i].served_max);
        cr_assert_eq(outcome_of(APPEND), of[i].spoken ? IS(OK) : IS(NOT_SENT), "pair %zu", i);
        cr_assert_eq(net.reports, of[i].spoken ? 0 : 1, "pair %zu: a refusal is said, once", i);
        if (of[i].spoken) {
            size_t c = net_call(&net, APPEND, 5000, 0);
            cr_assert_eq(names_its_ends(0), of[i].spoken < BUS_VERSION_NAMES_ONCE, "pair %zu", i);
            net_answer_all(&net);
            cr_assert_eq(names_its_ends(1), of[i].spoken < BUS_VERSION_NAMES_ONCE, "pair %zu", i);
            net_ended(&net, c, IS(OK));
        }
        net_free(&net);
    }
}

Test(version, a_refusal_says_what_each_speaks)
{
    begin(1, 1, 2, 3);
    (void)net_call(&net, APPEND, 5000, 0);
    for (int steps = 0; steps < 3 && net.packets == NULL; steps++) {
        link_flush(net.core[0]);
        net_actions(&net, 0);
    }
    cr_assert(net_deliver(&net)); /* the Hello */
    Karst__Bus__Batch *b = net_first(&net);
    cr_assert_not_null(b->refusal);
    cr_assert_eq(b->refusal->reason, KARST__BUS__REFUSAL__REASON__VERSION);
    cr_assert_str_eq(b->refusal->detail, "no bus version in common: 2 to 3 here, 1 to 1 there");
    karst__bus__batch__free_unpacked(b, NULL);
    net_settle(&net);
    net_free(&net);
}

/* The peer is replaced by the release before, and that by the later one: the next session is another, nothing else. */
Test(version, a_session_ends_with_its_version)
{
    begin(1, 2, 1, 2);
    cr_assert_eq(outcome_of(APPEND), IS(OK));
    for (uint64_t life = 6; life < 10; life++) {
        net_kill(&net);
        net.options[1].version_max = 2 - life % 2;
        net_start(&net, life);
        net_pass(&net, 300);
        cr_assert_eq(outcome_of(APPEND), IS(OK));
        size_t c = net_call(&net, APPEND, 5000, 0);
        cr_assert_eq(names_its_ends(0), life % 2 == 1);
        net_answer_all(&net);
        net_settle(&net);
        net_ended(&net, c, IS(OK));
    }
    net_free(&net);
}

Test(version, a_kind_waits_for_the_level_of_the_cluster)
{
    begin(1, 2, 1, 2);
    cr_assert_eq(outcome_of(VOTERS), IS(UNSUPPORTED), "nothing is known of the others yet");
    for (uint32_t level = 0; level <= 1; level++) { /* 0: nobody is registered yet, or any more */
        link_set_level(net.core[0], level);
        cr_assert_eq(outcome_of(VOTERS), IS(UNSUPPORTED));
        cr_assert_eq(outcome_of(APPEND), IS(OK), "what version 1 has goes on");
    }
    link_set_level(net.core[0], 2);
    cr_assert_eq(outcome_of(VOTERS), IS(OK));
    link_set_level(net.core[0], 1); /* a process of the release before has come */
    cr_assert_eq(outcome_of(VOTERS), IS(UNSUPPORTED));
    net_free(&net);
}

/* A peer that is older than the level says: it has just been taken back, and the image does not know yet. */
Test(version, a_kind_that_the_link_has_not_is_not_sent)
{
    begin(1, 2, 1, 1);
    link_set_level(net.core[0], 2);
    size_t voters = net_call(&net, VOTERS, 5000, 0);
    net_settle(&net);
    net_ended(&net, voters, IS(UNSUPPORTED));
    cr_assert_eq(net.calls[voters].executed, 0);
    cr_assert_eq(link_counts(net.core[0]).calls, 0);
    cr_assert_eq(outcome_of(APPEND), IS(OK));
    net_free(&net);
}

/* Whatever its caller thinks: what is not in the session's version is not served. */
Test(version, a_kind_that_the_link_has_not_is_not_served)
{
    Karst__Bus__Batch b = KARST__BUS__BATCH__INIT;
    Karst__Bus__Hello hello = KARST__BUS__HELLO__INIT;
    Karst__Bus__KafkaRequest request = KARST__BUS__KAFKA_REQUEST__INIT;
    Karst__Bus__Call call = KARST__BUS__CALL__INIT, *calls[] = {&call};
    char cluster[] = "clusterclusterclusterc";

    begin(1, 2, 1, 2);
    uint64_t conn = link_conn_served(KARST__BUS__LANE__LANE_CONTROL, 9);
    net.wires[net.wire_count++] = (struct wire){{4711, conn}, net.life};
    hello.cluster_id = cluster;
    hello.bus_version_min = hello.bus_version_max = 1;
    b.session = b.sequence = 1;
    b.hello = &hello;
    net_receive(&net, conn, &b, NULL, 0);
    b.hello = NULL;
    b.sequence = 2;
    request.api_key = 80;
    call.correlation_id = 3;
    call.remaining_ms = 1000;
    call.body_case = VOTERS;
    call.kafka = &request;
    b.n_calls = 1;
    b.calls = calls;
    net_receive(&net, conn, &b, NULL, 0);
    link_flush(net.core[1]);
    net_actions(&net, 1);
    cr_assert_eq(net.rpc_count, 0);
    Karst__Bus__Batch *answer = net_first(&net);
    cr_assert(answer->welcome != NULL && answer->welcome->bus_version == 1);
    cr_assert_eq(answer->n_replies, 1);
    cr_assert_eq(answer->replies[0]->outcome, IS(UNSUPPORTED));
    karst__bus__batch__free_unpacked(answer, NULL);
    net_drop(&net, net.packets);
    net_free(&net);
}

/* A peer of version 2 may leave the names out; one of version 1 that does so is no peer of ours. */
Test(version, names_are_left_out_from_version_2_on_only)
{
    for (uint32_t version = 1; version <= 2; version++) {
        Karst__Bus__Batch b = KARST__BUS__BATCH__INIT;
        uint8_t bytes[64];
        begin(version, version, 1, 2);
        cr_assert_eq(outcome_of(APPEND), IS(OK));
        b.session = 78;
        b.sequence = 3;
        b.heartbeat = 1;
        link_receive(net.core[1], net.wires[0].conn[1], slice_make(bytes, karst__bus__batch__pack(&b, bytes)), NULL, 0);
        cr_assert_eq(link_counts(net.core[1]).served, version - 1);
        net_free(&net);
    }
}
