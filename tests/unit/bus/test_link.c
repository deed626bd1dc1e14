/* The rules of a link one by one. */
#include <criterion/criterion.h>

#include "net.h"

static struct net net;

TestSuite(link, .timeout = 20);

Test(link, a_call_is_executed_and_answered)
{
    net_begin(&net, NULL, NULL);
    size_t a = net_call(&net, APPEND, 1000, 100), r = net_call(&net, READ, 1000, 0);
    net_settle(&net);
    cr_assert_eq(net.rpc_count, 2);
    cr_assert_eq(net.calls[a].ended, 0);
    cr_assert_eq(rpc_payload_count(net.rpcs[0]), 1);
    struct ref kept = *rpc_payload(net.rpcs[0], 0);
    ref_retain(&kept);
    net_finish(&net, a);
    net_ended(&net, r, IS(OK));
    cr_assert_eq(net.calls[a].base_offset, (int64_t)a + 1000000);
    cr_assert(slice_eq_str(buf_slice(&net.calls[r].payload), "hello world"));
    cr_assert_eq(kept.size_bytes, 100);
    cr_assert_eq(kept.bytes.data[99], 0, "what was kept outlives the rpc");
    ref_release(&kept);
    cr_assert_eq(link_counts(net.core[0]).calls, 0);
    net_free(&net);
}

Test(link, done_never_runs_inside_call)
{
    net_begin(&net, NULL, NULL);
    link_goodbye(net.core[0]);
    size_t c = net_call(&net, APPEND, 1000, 0);
    cr_assert_eq(net.calls[c].ended, 0);
    net_settle(&net);
    net_ended(&net, c, IS(NOT_SENT));
    net_free(&net);
}

Test(link, an_unknown_peer_is_waited_for_until_the_deadline)
{
    net_init(&net, NULL, NULL);
    net_start(&net, 5);
    size_t late = net_call(&net, APPEND, 100, 0), found = net_call(&net, APPEND, 5000, 0);
    net_pass(&net, 200);
    net_ended(&net, late, IS(NOT_SENT));
    link_set_peer(net.core[0], KARST__BUS__ROLE__ROLE_STORAGE, 1, 5, "ipc:///there");
    net_settle(&net);
    net_finish(&net, found);
    cr_assert_eq(net.calls[late].executed, 0);
    net_free(&net);
}

Test(link, death_in_mid_request_is_an_unknown_outcome)
{
    net_begin(&net, NULL, NULL);
    size_t flying = net_call(&net, APPEND, 5000, 10);
    net_settle(&net);
    net_kill(&net);
    net_ended(&net, flying, IS(UNKNOWN));
    size_t next = net_call(&net, APPEND, 5000, 10);
    net_pass(&net, 100);
    cr_assert_eq(net.calls[next].ended, 0);
    net_start(&net, 6);
    net_pass(&net, 300);
    net_finish(&net, next);
    cr_assert_eq(net.calls[next].executed_by, 6);
    cr_assert_eq(net.calls[flying].executed_by, 5);
    net_free(&net);
}

/* ---- a call that is to leave soon, and may be answered late ---- */

enum { SEND_MS = 150 };

Test(link, what_has_left_in_time_may_be_answered_late)
{
    net_begin(&net, NULL, NULL);
    net.send_ms = SEND_MS;
    size_t answered = net_call(&net, READ, 2000, 0), never = net_call(&net, READ, 2000, 0);
    net_settle(&net);
    net_pass(&net, 1900);
    cr_assert_eq(net.calls[answered].ended + net.calls[never].ended, 0);
    net_answer(&net, 0);
    net_settle(&net);
    net_ended(&net, answered, IS(OK));
    net_pass(&net, 100);
    net_ended(&net, never, IS(TIMEOUT));
    net_answer_all(&net);
    net_free(&net);
}

Test(link, where_nobody_listens_it_says_so)
{
    net_begin(&net, NULL, NULL);
    net.send_ms = SEND_MS;
    net_kill(&net);
    size_t dead = net_call(&net, READ, 2000, 0);
    net_pass(&net, SEND_MS - 1);
    cr_assert_eq(net.calls[dead].ended, 0, "it may come back");
    net_pass(&net, 1);
    net_ended(&net, dead, IS(NOT_SENT));
    cr_assert(net.calls[dead].nobody);
    net_start(&net, 6);
    net_pass(&net, 300);
    size_t back = net_call(&net, READ, 2000, 0);
    net_settle(&net);
    net_kill(&net);
    net_ended(&net, back, IS(UNKNOWN));
    cr_assert_not(net.calls[back].nobody);
    net_free(&net);
}

/* A way that takes longer than SEND_MS to shake hands, or a process that stands still behind its socket. */
Test(link, where_somebody_listens_and_is_slow_it_does_not_say_that_nobody_is_there)
{
    net_begin(&net, NULL, NULL);
    net.send_ms = SEND_MS;
    net_break(&net);
    net.stopped[1] = true;
    size_t slow = net_call(&net, READ, 2000, 0);
    net_pass(&net, SEND_MS);
    net_ended(&net, slow, IS(NOT_SENT));
    cr_assert_not(net.calls[slow].nobody);
    net.stopped[1] = false;
    net_settle(&net);
    size_t next = net_call(&net, READ, 2000, 0);
    net_settle(&net);
    net_finish(&net, next);
    net_free(&net);
}

Test(link, what_waits_for_credit_does_not_say_that_nobody_is_there)
{
    struct link_options few = {.credit_calls = 1};
    net_begin(&net, NULL, &few);
    size_t first = net_call(&net, APPEND, 5000, 0);
    net_settle(&net);
    net.send_ms = SEND_MS;
    size_t waits = net_call(&net, APPEND, 2000, 0), more = net_call(&net, APPEND, 2000, 0);
    net_pass(&net, SEND_MS);
    net_ended(&net, waits, IS(NOT_SENT));
    net_ended(&net, more, IS(NOT_SENT));
    cr_assert_not(net.calls[waits].nobody || net.calls[more].nobody);
    net_finish(&net, first);
    net_free(&net);
}

static const char *refuses_front_ends(void *ctx, uint64_t conn, const Karst__Bus__Peer *from)
{
    (void)conn;
    return *(const bool *)ctx && from->role == KARST__BUS__ROLE__ROLE_FRONTEND ? "it is another" : NULL;
}

/* Nothing of it is executed, it is told why, and tries again later: the list may have changed. */
Test(link, who_is_not_who_he_says_he_is_is_refused)
{
    static bool refuses = true;
    struct link_options served = {.trust = {&refuses, refuses_front_ends}};

    net_begin(&net, NULL, &served);
    size_t c = net_call(&net, APPEND, 5000, 10);
    net_settle(&net);
    net_ended(&net, c, IS(NOT_SENT));
    cr_assert_eq(link_counts(net.core[1]).impostors, 1);
    cr_assert_eq(link_counts(net.core[1]).served, 0);
    cr_assert_eq(net.reports, 1);
    refuses = false;
    c = net_call(&net, APPEND, 5000, 10);
    net_pass(&net, LINK_BACKOFF_REFUSED_MS);
    net_finish(&net, c);
    cr_assert_eq(net.calls[c].executed, 1);
    net_free(&net);
}

Test(link, a_call_is_only_for_the_life_that_is_known)
{
    net_begin(&net, NULL, NULL);
    link_set_peer(net.core[0], KARST__BUS__ROLE__ROLE_STORAGE, 1, 4, "ipc:///there");
    size_t old = net_call(&net, APPEND, 300, 0);
    net_pass(&net, 400);
    net_ended(&net, old, IS(NOT_SENT));
    cr_assert_eq(net.calls[old].executed, 0);
    size_t again = net_call(&net, APPEND, 1000, 0);
    net_pass(&net, 50);
    link_set_peer(net.core[0], KARST__BUS__ROLE__ROLE_STORAGE, 1, 5, "ipc:///there");
    net_settle(&net);
    net_finish(&net, again);
    net_free(&net);
}

Test(link, a_new_life_ends_the_old_session)
{
    net_begin(&net, NULL, NULL);
    size_t flying = net_call(&net, APPEND, 5000, 0);
    net_settle(&net);
    link_set_peer(net.core[0], KARST__BUS__ROLE__ROLE_STORAGE, 1, 6, "ipc:///there");
    net_settle(&net);
    net_ended(&net, flying, IS(UNKNOWN));
    net_free(&net);
}

/* What waits for one that is gone is told so at once: another may have its work. */
Test(link, a_peer_that_is_gone_keeps_nobody_waiting)
{
    net_begin(&net, NULL, NULL);
    link_set_peer(net.core[0], KARST__BUS__ROLE__ROLE_STORAGE, 1, 4, "ipc:///there"); /* a life that never answers */
    size_t waiting = net_call(&net, APPEND, 5000, 0);
    net_pass(&net, 50);
    link_set_peer(net.core[0], KARST__BUS__ROLE__ROLE_STORAGE, 1, 0, NULL);
    net_settle(&net);
    net_ended(&net, waiting, IS(NOT_SENT));
    cr_assert_eq(net.calls[waiting].executed, 0);
    size_t later = net_call(&net, APPEND, 1000, 0); /* it may come back */
    net_pass(&net, 50);
    link_set_peer(net.core[0], KARST__BUS__ROLE__ROLE_STORAGE, 1, 5, "ipc:///there");
    net_settle(&net);
    net_finish(&net, later);
    net_free(&net);
}

Test(link, another_cluster_is_refused_at_once)
{
    struct link_options other = {.cluster_id = "anotherclusteranotherc"};
    net_begin(&net, NULL, &other);
    size_t c = net_call(&net, APPEND, 5000, 0);
    net_settle(&net);
    net_ended(&net, c, IS(NOT_SENT));
    cr_assert_eq(net.calls[c].executed, 0);
    cr_assert_eq(net.reports, 1);
    net_free(&net);
}

Test(link, another_name_is_refused)
{
    net_init(&net, NULL, NULL);
    net.options[1].id = 2;
    net_start(&net, 5);
    link_set_peer(net.core[0], KARST__BUS__ROLE__ROLE_STORAGE, 1, 0, "ipc:///there");
    size_t c = net_call(&net, APPEND, 5000, 0);
    net_settle(&net);
    net_ended(&net, c, IS(NOT_SENT));
    cr_assert_eq(net.calls[c].executed, 0);
    net_free(&net);
}

/* Each restart refuses for a moment who has not heard of it: an operator has nothing to do then. */
Test(link, a_later_life_is_said_only_when_it_stays_unknown)
{
    net_init(&net, NULL, NULL);
    net_start(&net, 5);
    link_set_peer(net.core[0], KARST__BUS__ROLE__ROLE_STORAGE, 1, 4, "ipc:///there");
    size_t c = net_call(&net, APPEND, 60000, 0);
    net_pass(&net, 2000);
    cr_assert_eq(net.reports, 0);
    net_pass(&net, 20000);
    cr_assert_eq(net.reports, 1, "once, as nobody tells us of the later life");
    cr_assert_eq(net.calls[c].ended + net.calls[c].executed, 0);
    link_set_peer(net.core[0], KARST__BUS__ROLE__ROLE_STORAGE, 1, 5, "ipc:///there");
    net_settle(&net);
    net_finish(&net, c);
    net_free(&net);
}

Test(link, a_missing_message_ends_the_session)
{
    net_begin(&net, NULL, NULL);
    size_t first = net_call(&net, APPEND, 5000, 0);
    net_settle(&net);
    size_t lost = net_call(&net, APPEND, 5000, 0);
    link_flush(net.core[0]);
    net_actions(&net, 0);
    cr_assert_not_null(net.packets);
    net_drop(&net, net.packets);
    size_t behind = net_call(&net, APPEND, 5000, 0);
    net_settle(&net);
    net_ended(&net, first, IS(UNKNOWN));
    net_ended(&net, lost, IS(UNKNOWN));
    net_ended(&net, behind, IS(UNKNOWN));
    cr_assert_eq(net.calls[behind].executed, 0, "nothing behind a gap is executed");
    cr_assert_eq(net.gone, 1);
    net_answer_all(&net);
    size_t fresh = net_call(&net, APPEND, 5000, 0);
    net_pass(&net, 100);
    net_finish(&net, fresh);
    net_free(&net);
}

static struct packet *copy_of(const struct packet *p)
{
    struct packet *q = xcalloc(1, sizeof *q);

    q->to = p->to;
    q->wire = p->wire;
    buf_append(&q->frame0, p->frame0.data, p->frame0.size);
    return q;
}

Test(link, a_doubled_message_is_not_executed_twice)
{
    net_begin(&net, NULL, NULL);
    size_t c = net_call(&net, APPEND, 5000, 0);
    net_settle(&net);
    net_answer_all(&net);
    net_settle(&net);
    size_t twice = net_call(&net, APPEND, 5000, 0);
    link_flush(net.core[0]);
    net_actions(&net, 0);
    struct packet *again = copy_of(net.packets);
    net.packets->next = again;
    again->prev = net.packets;
    net.packets->prev = again;
    net_settle(&net);
    net_ended(&net, c, IS(OK));
    cr_assert_eq(net.calls[twice].executed, 1);
    net_ended(&net, twice, IS(UNKNOWN));
    net_free(&net);
}

Test(link, a_timeout_is_told_to_both_ends_and_holds_its_credit)
{
    net_begin(&net, NULL, NULL);
    size_t c = net_call(&net, APPEND, 100, 0);
    net_settle(&net);
    cr_assert_eq(net.rpc_count, 1);
    uint64_t deadline = rpc_deadline_ms(net.rpcs[0]);
    cr_assert_eq(deadline, net.now + 100);
    net_pass(&net, 200);
    net_ended(&net, c, IS(TIMEOUT));
    cr_assert_eq(net.gone, 1);
    cr_assert_eq(link_counts(net.core[0]).calls_in_flight, 1);
    net_answer_all(&net);
    net_settle(&net);
    cr_assert_eq(link_counts(net.core[0]).calls, 0);
    net_free(&net);
}

Test(link, a_cancel_ends_the_call_now)
{
    net_begin(&net, NULL, NULL);
    size_t c = net_call(&net, READ, 5000, 0), queued = net_call(&net, READ, 5000, 0);
    link_cancel(net.core[0], net.calls[queued].id);
    net_settle(&net);
    net_ended(&net, queued, IS(CANCELLED));
    cr_assert_eq(net.calls[queued].executed, 0);
    link_cancel(net.core[0], net.calls[c].id);
    link_cancel(net.core[0], net.calls[c].id);
    net_settle(&net);
    net_ended(&net, c, IS(CANCELLED));
    cr_assert_eq(net.gone, 1);
    net_answer_all(&net);
    net_settle(&net);
    link_cancel(net.core[0], net.calls[c].id);
    cr_assert_eq(link_counts(net.core[0]).calls, 0);
    net_free(&net);
}

Test(link, a_call_waits_for_the_senders_metadata)
{
    net_begin(&net, NULL, NULL);
    link_set_metadata_offset(net.core[0], 10);
    size_t a = net_call(&net, APPEND, 1000, 0), b = net_call(&net, APPEND, 100, 0);
    net_settle(&net);
    cr_assert_eq(net.rpc_count, 0);
    net_pass(&net, 150);
    cr_assert_eq(net.calls[b].ended, 1);
    cr_assert_neq(net.calls[b].outcome, IS(OK));
    link_set_metadata_offset(net.core[1], 9);
    net_settle(&net);
    cr_assert_eq(net.rpc_count, 0);
    link_set_metadata_offset(net.core[1], 10);
    net_settle(&net);
    cr_assert_eq(net.rpc_count, 1);
    net_finish(&net, a);
    cr_assert_eq(net.calls[b].executed, 0);
    net_free(&net);
}

Test(link, an_idle_link_stays_up)
{
    net_begin(&net, NULL, NULL);
    size_t c = net_call(&net, READ, 60000, 0);
    net_pass(&net, 20000);
    cr_assert_eq(net.calls[c].ended, 0);
    cr_assert_eq(net.wire_count, 1);
    net_finish(&net, c);
    net_free(&net);
}

Test(link, silence_ends_the_session)
{
    net_begin(&net, NULL, NULL);
    size_t c = net_call(&net, READ, 60000, 0);
    net_settle(&net);
    net.stopped[1] = true;
    net_pass(&net, 2900);
    cr_assert_eq(net.calls[c].ended, 0);
    net_pass(&net, 700);
    net_ended(&net, c, IS(UNKNOWN));
    net.stopped[1] = false;
    net_pass(&net, 100);
    cr_assert_eq(net.calls[c].executed, 1);
    net_answer_all(&net);
    net_free(&net);
}

Test(link, a_silent_caller_is_given_up)
{
    net_begin(&net, NULL, NULL);
    size_t c = net_call(&net, READ, 60000, 0);
    net_settle(&net);
    net.stopped[0] = true;
    net_pass(&net, 3500);
    cr_assert_eq(net.gone, 1);
    cr_assert_eq(link_counts(net.core[1]).served, 0);
    net_answer_all(&net);
    net.stopped[0] = false;
    net_pass(&net, 1000);
    net_ended(&net, c, IS(UNKNOWN));
    size_t next = net_call(&net, APPEND, 5000, 0);
    net_pass(&net, 300);
    net_finish(&net, next);
    net_free(&net);
}

static uint64_t silence(Karst__Bus__Call__BodyCase kind)
{
    return link_silence_ms(net.core[0], KARST__BUS__ROLE__ROLE_STORAGE, 1, kind, net.now);
}

Test(link, it_says_since_when_a_peer_is_silent)
{
    net_begin(&net, NULL, NULL);
    cr_expect_eq(silence(READ), UINT64_MAX, "no link is open");
    (void)net_call(&net, READ, 60000, 0);
    net_settle(&net);
    cr_expect_eq(silence(READ), 0);
    cr_expect_eq(silence(KARST__BUS__CALL__BODY_REPLICA_READ), UINT64_MAX, "another lane");
    for (int i = 0; i < 20; i++) {
        net_pass(&net, 300);
        cr_expect_leq(silence(READ), 1000, "heartbeats are answered");
    }
    net.stopped[1] = true;
    net_pass(&net, 1500);
    cr_expect_geq(silence(READ), 1500 - 50);
    net_pass(&net, 2000);
    cr_expect_eq(silence(READ), UINT64_MAX, "given up");
    net.stopped[1] = false;
    net_answer_all(&net);
    net_free(&net);
}

Test(link, our_own_stall_is_not_the_peers_silence)
{
    net_begin(&net, NULL, NULL);
    size_t c = net_call(&net, READ, 60000, 0);
    net_settle(&net);
    net.now += 10000;
    link_clock(net.core[0], net.now);
    link_clock(net.core[1], net.now);
    link_tick(net.core[0]);
    link_tick(net.core[1]);
    net_settle(&net);
    cr_assert_eq(net.calls[c].ended, 0);
    net_pass(&net, 5000);
    net_finish(&net, c);
    net_free(&net);
}

Test(link, goodbye_lets_calls_finish_and_sends_no_new_one)
{
    net_begin(&net, NULL, NULL);
    size_t c = net_call(&net, APPEND, 5000, 0);
    net_settle(&net);
    link_goodbye(net.core[1]);
    net_settle(&net);
    size_t later = net_call(&net, APPEND, 5000, 0);
    net_settle(&net);
    cr_assert_eq(net.rpc_count, 1);
    net_finish(&net, c);
    net_kill(&net);
    net_start(&net, 6);
    net_pass(&net, 500);
    net_finish(&net, later);
    cr_assert_eq(net.calls[later].executed_by, 6);
    net_free(&net);
}

Test(link, rubbish_ends_only_its_own_session)
{
    net_begin(&net, NULL, NULL);
    size_t c = net_call(&net, APPEND, 5000, 0), r = net_call(&net, READ, 5000, 0);
    net_settle(&net);
    uint64_t stranger = link_conn_served(KARST__BUS__LANE__LANE_BULK, 4711);
    link_receive(net.core[1], stranger, SLICE_OF("\xff\xff\xff\xff rubbish"), NULL, 0);
    link_receive(net.core[1], stranger, SLICE_EMPTY, NULL, 0);
    net_actions(&net, 1);
    cr_assert_eq(net.calls[c].ended, 0);
    cr_assert_eq(link_counts(net.core[1]).served, 1);
    link_receive(net.core[0], net.wires[0].conn[0], SLICE_OF("\xff\xff\xff\xff"), NULL, 0);
    net_settle(&net);
    net_ended(&net, c, IS(UNKNOWN));
    net_ended(&net, r, IS(UNKNOWN));
    net_answer_all(&net);
    net_free(&net);
}

/* A batch of the session with one call made by hand. */
static void receive_call(Karst__Bus__Call *call, struct ref *frames, size_t frame_count, uint64_t sequence)
{
    Karst__Bus__Batch b = KARST__BUS__BATCH__INIT;

    b.session = 78;
    b.sequence = sequence;
    b.n_calls = 1;
    b.calls = &call;
    net_receive(&net, net.wires[0].conn[1], &b, frames, frame_count);
    link_flush(net.core[1]);
    net_actions(&net, 1);
}

static Karst__Bus__Outcome answer_on_wire(void)
{
    Karst__Bus__Batch *b = net_first(&net);
    cr_assert_eq(b->n_replies, 1);
    Karst__Bus__Outcome o = b->replies[0]->outcome;
    karst__bus__batch__free_unpacked(b, NULL);
    net_drop(&net, net.packets);
    return o;
}

Test(link, calls_that_cannot_be_served_are_answered)
{
    net_begin(&net, NULL, NULL);
    size_t c = net_call(&net, APPEND, 60000, 0);
    net_settle(&net);
    net_finish(&net, c);

    Karst__Bus__Call call = KARST__BUS__CALL__INIT;
    Karst__Bus__AppendRequest append = KARST__BUS__APPEND_REQUEST__INIT;
    Karst__Bus__QuorumRequest quorum = KARST__BUS__QUORUM_REQUEST__INIT;
    Karst__Bus__KafkaRequest kafka = KARST__BUS__KAFKA_REQUEST__INIT;
    Karst__Bus__Payload payload = KARST__BUS__PAYLOAD__INIT, *payloads[2] = {&payload, &payload};
    call.correlation_id = 1;
    call.remaining_ms = 1000;

    receive_call(&call, NULL, 0, 3); /* no body that this release knows */
    cr_assert_eq(answer_on_wire(), IS(UNSUPPORTED));
    call.body_case = KARST__BUS__CALL__BODY_QUORUM; /* not from a front end, and not on this lane */
    call.quorum = &quorum;
    receive_call(&call, NULL, 0, 4);
    cr_assert_eq(answer_on_wire(), IS(UNSUPPORTED));
    call.body_case = KARST__BUS__CALL__BODY_KAFKA;
    call.kafka = &kafka;
    kafka.api_key = -7;
    receive_call(&call, NULL, 0, 5);
    cr_assert_eq(answer_on_wire(), IS(UNSUPPORTED));
    call.body_case = APPEND;
    call.append = &append;
    call.remaining_ms = 0;
    receive_call(&call, NULL, 0, 6);
    cr_assert_eq(answer_on_wire(), IS(EXPIRED));
    call.remaining_ms = 1000;
    call.n_payloads = 2;
    call.payloads = payloads;
    payload.reference_case = KARST__BUS__PAYLOAD__REFERENCE_INLINE_FRAME;
    payload.inline_frame = 1;
    payload.size_bytes = 3;
    struct ref frame = ref_copy(SLICE_OF("abc"));
    receive_call(&call, &frame, 1, 7); /* one frame named twice */
    cr_assert_eq(answer_on_wire(), IS(MALFORMED));
    call.n_payloads = 1;
    payload.size_bytes = 4;
    frame = ref_copy(SLICE_OF("abc"));
    receive_call(&call, &frame, 1, 8); /* of another size than it says */
    cr_assert_eq(answer_on_wire(), IS(MALFORMED));
    Karst__Bus__FileSlice file = KARST__BUS__FILE_SLICE__INIT;
    payload.reference_case = KARST__BUS__PAYLOAD__REFERENCE_FILE;
    payload.file = &file;
    receive_call(&call, NULL, 0, 9); /* a kind that this release does not read */
    cr_assert_eq(answer_on_wire(), IS(MALFORMED));
    cr_assert_eq(net.rpc_count, 0);
    cr_assert_eq(link_counts(net.core[1]).rpcs, 0);
    net_free(&net);
}

Test(link, a_handler_may_answer_when_everybody_is_gone)
{
    net_begin(&net, NULL, NULL);
    size_t c = net_call(&net, APPEND, 5000, 100);
    net_settle(&net);
    link_shutdown(net.core[1]);
    net_actions(&net, 1);
    cr_assert_eq(net.gone, 1);
    net_answer_all(&net);
    cr_assert_eq(link_counts(net.core[1]).rpcs, 0);
    net_break(&net);
    net_ended(&net, c, IS(UNKNOWN));
    net_free(&net);
}

Test(link, large_batches_leave_in_several_messages)
{
    net_begin(&net, NULL, NULL);
    size_t first = net.call_count;
    for (int i = 0; i < 1500; i++)
        (void)net_call(&net, APPEND, 5000, 20000);
    net_settle(&net);
    cr_assert_eq(net.rpc_count, 1500);
    net_answer_all(&net);
    net_settle(&net);
    for (size_t i = first; i < net.call_count; i++)
        net_ended(&net, i, IS(OK));
    net_free(&net);
}
