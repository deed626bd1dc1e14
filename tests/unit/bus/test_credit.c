/* The credit of a link: what is in flight, what parks, what waits, and who takes more. */
#include <criterion/criterion.h>

#include "net.h"

static struct net net;

TestSuite(credit, .timeout = 20);

Test(credit, calls_in_flight_stay_within_the_credit)
{
    struct link_options few = {.credit_calls = 8};
    size_t calls[20];
    net_begin(&net, NULL, &few);
    for (int i = 0; i < 20; i++)
        calls[i] = net_call(&net, APPEND, 5000, 0);
    net_settle(&net);
    cr_assert_eq(net.rpc_count, 8);
    for (int done = 0; done < 20; done++) {
        net_answer(&net, 0);
        net_settle(&net);
        net_ended(&net, calls[done], IS(OK));
        cr_assert_leq(net.rpc_count, 8);
    }
    net_free(&net);
}

Test(credit, parked_calls_leave_credit_for_others)
{
    struct link_options few = {.credit_calls = 8};
    net_begin(&net, NULL, &few);
    for (int i = 0; i < 8; i++)
        (void)net_call(&net, READ, 5000, 0);
    net_settle(&net);
    cr_assert_eq(net.rpc_count, 6);
    size_t append = net_call(&net, APPEND, 5000, 0);
    net_settle(&net);
    cr_assert_eq(net.rpc_count, 7);
    net_answer(&net, 6);
    net_settle(&net);
    net_ended(&net, append, IS(OK));
    net_answer_all(&net);
    net_settle(&net);
    cr_assert_eq(net.rpc_count, 2);
    net_answer_all(&net);
    net_settle(&net);
    net_free(&net);
}

Test(credit, bytes_are_credit_too)
{
    struct link_options few = {.credit_bytes = 10000};
    net_begin(&net, NULL, &few);
    size_t big = net_call(&net, APPEND, 5000, 50000), small = net_call(&net, APPEND, 5000, 100);
    net_settle(&net);
    cr_assert_eq(net.rpc_count, 1, "one call may be larger than the credit, alone");
    net_finish(&net, big);
    net_finish(&net, small);
    net_free(&net);
}

/* Consumers park all the time: a large request that waited for all of them would keep every other one waiting. */
Test(credit, a_call_larger_than_the_credit_goes_beside_parked_ones)
{
    struct link_options few = {.credit_bytes = 10000};
    net_begin(&net, NULL, &few);
    size_t parked = net_call(&net, READ, 5000, 0);
    net_settle(&net);
    size_t small = net_call(&net, APPEND, 5000, 100);
    net_settle(&net);
    size_t big = net_call(&net, APPEND, 5000, 50000);
    net_settle(&net);
    cr_assert_eq(net.rpc_count, 2, "not beside another append");
    net_answer(&net, 1);
    net_settle(&net);
    net_ended(&net, small, IS(OK));
    cr_assert_eq(net.rpc_count, 2, "beside the parked read");
    net_finish(&net, big);
    net_ended(&net, parked, IS(OK));
    net_free(&net);
}

static void note_outcome(void *ctx, const struct bus_result *result)
{
    *(Karst__Bus__Outcome *)ctx = result->outcome;
}

/* A message of more frames than are allowed would end the session, and with it everybody else's calls. */
Test(credit, a_call_of_too_many_payloads_harms_nobody_else)
{
    Karst__Bus__AppendRequest append = KARST__BUS__APPEND_REQUEST__INIT;
    size_t count = LINK_CALL_PAYLOADS_MAX + 1;
    struct ref *payloads = xcalloc(count, sizeof *payloads);
    for (size_t i = 0; i < count; i++)
        payloads[i] = REF_EMPTY;
    struct bus_request request = {
        .kind = APPEND, .body = &append, .payloads = payloads, .payload_count = count, .timeout_ms = 1000};
    Karst__Bus__Outcome outcome = IS(OK);
    net_begin(&net, NULL, NULL);
    size_t other = net_call(&net, APPEND, 5000, 10);
    link_call(net.core[0], KARST__BUS__ROLE__ROLE_STORAGE, 1, &request, note_outcome, &outcome);
    net_settle(&net);
    cr_assert_eq(outcome, IS(NOT_SENT));
    net_finish(&net, other);
    free(payloads);
    net_free(&net);
}

Test(credit, what_waits_for_credit_is_bounded)
{
    struct link_options few = {.credit_calls = 4};
    net_begin(&net, &few, &few);
    net_settle(&net);
    size_t last = 0;
    for (int i = 0; i < 5; i++)
        last = net_call(&net, APPEND, 5000, 0);
    net_settle(&net);
    net_ended(&net, last, IS(NOT_SENT));
    net_free(&net);
}

Test(credit, who_passes_its_credit_loses_the_session)
{
    struct link_options few = {.credit_calls = 2};
    net_begin(&net, NULL, &few);
    size_t c = net_call(&net, APPEND, 5000, 0);
    net_settle(&net);
    Karst__Bus__Batch b = KARST__BUS__BATCH__INIT;
    Karst__Bus__AppendRequest append = KARST__BUS__APPEND_REQUEST__INIT;
    Karst__Bus__Call call = KARST__BUS__CALL__INIT, *calls[3] = {&call, &call, &call};
    b.session = 78;
    b.sequence = 3;
    call.body_case = APPEND;
    call.append = &append;
    call.remaining_ms = 1000;
    b.n_calls = 3;
    b.calls = calls;
    net_receive(&net, net.wires[0].conn[1], &b, NULL, 0);
    net_actions(&net, 1);
    cr_assert_eq(link_counts(net.core[1]).served, 0);
    net_settle(&net);
    net_ended(&net, c, IS(UNKNOWN));
    net_free(&net);
}
