/* What links do where both ends share a kernel: slices of an arena and files instead of bytes. */
#include <criterion/criterion.h>

#include "net.h"

static struct net net;

static void begin(bool shares)
{
    net_begin(&net, NULL, NULL);
    if (shares)
        net_share(&net);
}

TestSuite(sharing, .timeout = 20);

Test(sharing, a_slice_travels_as_a_reference_and_is_held_until_the_reply)
{
    begin(true);
    size_t a = net_call(&net, APPEND, 1000, 300);
    net_settle(&net);
    const struct ref *r = rpc_payload(net.rpcs[0], 0);
    cr_assert_eq(r->kind, REF_ARENA);
    cr_assert_eq(r->size_bytes, 300);
    cr_assert_eq(r->bytes.data, net.arena + r->position);
    cr_assert_eq(net_slices(&net), 1);
    net_answer_all(&net);
    net_settle(&net);
    cr_assert_eq(net.calls[a].outcome, IS(OK));
    cr_assert_eq(net_slices(&net), 0);
    net_free(&net);
}

Test(sharing, a_slice_travels_as_bytes_where_nothing_is_shared)
{
    begin(false);
    net.shares = true;
    size_t a = net_call(&net, APPEND, 1000, 300);
    net.shares = false;
    net_settle(&net);
    cr_assert_eq(rpc_payload(net.rpcs[0], 0)->kind, REF_INLINE);
    cr_assert_eq(rpc_payload(net.rpcs[0], 0)->size_bytes, 300);
    cr_assert_eq(net_slices(&net), 0, "the bytes have left");
    net_answer_all(&net);
    net_settle(&net);
    cr_assert_eq(net.calls[a].outcome, IS(OK));
    net_free(&net);
}

Test(sharing, no_deadline_gives_a_slice_back)
{
    begin(true);
    size_t a = net_call(&net, APPEND, 50, 300);
    net_settle(&net);
    net_pass(&net, 60);
    net_settle(&net);
    cr_assert_eq(net.calls[a].ended, 1);
    cr_assert_eq(net.calls[a].outcome, IS(TIMEOUT));
    cr_assert_eq(net_slices(&net), 1, "the peer may still read it");
    net_answer_all(&net);
    net_settle(&net);
    cr_assert_eq(net_slices(&net), 0);
    net_free(&net);
}

Test(sharing, the_end_of_a_session_gives_a_slice_back_only_when_the_peer_has_hung_up)
{
    begin(true);
    size_t a = net_call(&net, APPEND, 1000, 300), b = net_call(&net, APPEND, 1000, 200);
    net_settle(&net);
    net_break(&net);
    cr_assert_eq(net.calls[a].outcome, IS(UNKNOWN));
    cr_assert_eq(net.calls[b].outcome, IS(UNKNOWN));
    cr_assert_eq(net.held_count, 2);
    cr_assert_eq(net_slices(&net), 2);
    net_hang_up(&net);
    cr_assert_eq(net_slices(&net), 0);
    net_free(&net);
}

Test(sharing, a_silent_peer_keeps_its_slices)
{
    begin(true);
    size_t a = net_call(&net, APPEND, 60000, 300);
    net_settle(&net);
    net.stopped[1] = true;
    for (int i = 0; i < 100; i++) {
        net_pass(&net, 100);
        net_settle(&net);
    }
    cr_assert_eq(net.calls[a].outcome, IS(UNKNOWN));
    cr_assert_eq(net_slices(&net), 1);
    cr_assert_eq(net.held_count, 1);
    net_free(&net);
}

Test(sharing, a_slice_that_never_left_is_given_back_at_once)
{
    begin(true);
    net.stopped[1] = true;
    size_t a = net_call(&net, APPEND, 50, 300);
    for (int i = 0; i < 20; i++) {
        net_pass(&net, 10);
        net_settle(&net);
    }
    cr_assert_eq(net.calls[a].outcome, IS(NOT_SENT));
    cr_assert_eq(net_slices(&net), 0);
    net_free(&net);
}

Test(sharing, a_reply_names_a_file)
{
    begin(true);
    size_t r = net_call(&net, READ, 1000, 0);
    net_settle(&net);
    net_answer_all(&net);
    net_settle(&net);
    cr_assert_eq(net.calls[r].outcome, IS(OK));
    cr_assert(slice_eq_str(buf_slice(&net.calls[r].payload), "hello "));
    cr_assert_eq(net.calls[r].file_bytes, 100000);
    cr_assert_eq(net.passed_count, 1);
    net_free(&net);
}

Test(sharing, a_reply_that_names_an_unknown_file_is_malformed)
{
    begin(true);
    size_t r = net_call(&net, READ, 1000, 0);
    net_settle(&net);
    net_answer_all(&net);
    net_actions(&net, 1);
    link_flush(net.core[1]);
    net_actions(&net, 1);
    net.passed[0]->instance += 100;
    net_settle(&net);
    cr_assert_eq(net.calls[r].outcome, IS(MALFORMED));
    net_free(&net);
}

Test(sharing, a_slice_is_refused_where_nothing_is_shared)
{
    begin(true);
    size_t first = net_call(&net, APPEND, 1000, 0);
    net_settle(&net);
    net_answer_all(&net);
    net_settle(&net);
    size_t a = net_call(&net, APPEND, 1000, 300);
    link_flush(net.core[0]);
    net_actions(&net, 0);
    net.shares = false;
    net_settle(&net);
    cr_assert_eq(net.calls[first].outcome, IS(OK));
    cr_assert_eq(net.calls[a].outcome, IS(MALFORMED));
    cr_assert_eq(net.calls[a].executed, 0);
    net_free(&net);
}
