/* What peers do to each other over real sockets: die, come back, stall, flood, send rubbish, belong elsewhere. Each
 * test checks that every call ended once (caller_free), and that nobody executed what was not meant for him. */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

#include "peers.h"

static void begin(void)
{
    peers_begin();
}

TestSuite(sockets, .init = begin, .fini = peers_end, .timeout = 60);

static void meet(struct caller *c, uint64_t incarnation)
{
    bus_set_peer(c->bus, KARST__BUS__ROLE__ROLE_STORAGE, 1, incarnation, address);
}

static void ended(struct caller *c, int number, Karst__Bus__Outcome outcome)
{
    cr_assert_eq(c->calls[number].ended, 1);
    cr_assert_eq(c->calls[number].outcome, outcome, "call %d: outcome %d", number, (int)c->calls[number].outcome);
}

/* What the callers were told is what happened. */
static void check_executions(struct caller *c)
{
    for (int i = 0; i < c->count; i++) {
        uint64_t life = 0;
        int n = executions(i, &life);
        cr_assert_leq(n, 1, "call %d was executed %d times", i, n);
        if (c->calls[i].outcome == IS(OK))
            cr_assert_eq(n, 1, "call %d was answered and not executed", i);
        if (c->calls[i].outcome == IS(NOT_SENT))
            cr_assert_eq(n, 0, "call %d was executed and reported as not sent", i);
    }
}

Test(sockets, calls_of_all_sizes_are_answered)
{
    static const size_t sizes[] = {0, 1, 33, 511, 513, 4096, 8192, 65536, 1 << 20, 9 << 20};
    pid_t peer = serve(1, NULL);
    struct caller *c = caller_new(NULL);

    meet(c, 0);
    for (int round = 0; round < 3; round++)
        for (size_t i = 0; i < COUNTOF(sizes); i++)
            (void)call(c, round ? APPEND : READ, 20000, sizes[i]);
    cr_assert(run_until(c, all_ended, 20000));
    for (int i = 0; i < c->count; i++)
        ended(c, i, IS(OK));
    check_executions(c);
    caller_free(c);
    kill_peer(peer);
}

Test(sockets, a_call_made_before_its_peer_lives_is_executed)
{
    struct caller *c = caller_new(NULL);

    meet(c, 0);
    (void)call(c, APPEND, 10000, 10);
    run_for(c, 100);
    cr_assert_eq(c->ended, 0);
    pid_t peer = serve(1, NULL);
    cr_assert(run_until(c, all_ended, 1000));
    ended(c, 0, IS(OK));
    caller_free(c);
    kill_peer(peer);
}

static struct caller *watched;
static uint64_t watched_from_ms;
static bool answered_since(struct caller *c)
{
    return c->last_ok_ms > watched_from_ms;
}

/* A peer killed at random under load and started again: the load goes on by itself, and soon. */
Test(sockets, a_peer_that_dies_and_comes_back)
{
    struct caller *c = watched = caller_new(NULL);
    pid_t peer = serve(1, NULL);
    int unknown = 0;

    meet(c, 0);
    c->refill = true;
    for (int i = 0; i < 32; i++)
        (void)call(c, APPEND, 5000, i % 2 ? 2000 : 0);
    for (uint64_t life = 2; life < 12; life++) {
        run_for(c, 10 + life * 3);
        kill_peer(peer);
        peer = serve(life, NULL);
        watched_from_ms = loop_now_ms(c->loop);
        cr_assert(run_until(c, answered_since, 2000), "nothing answered within 2 s of the start of life %lu", life);
    }
    c->refill = false;
    cr_assert(run_until(c, all_ended, 6000));
    check_executions(c);
    for (int i = 0; i < c->count; i++) {
        cr_assert(c->calls[i].outcome == IS(OK) || c->calls[i].outcome == IS(UNKNOWN));
        unknown += c->calls[i].outcome == IS(UNKNOWN);
    }
    cr_assert_leq(unknown, 10 * 32);
    caller_free(c);
    kill_peer(peer);
}

Test(sockets, a_call_is_never_executed_by_another_life)
{
    struct caller *c = caller_new(NULL);
    pid_t peer = serve(1, NULL);

    meet(c, 1);
    (void)call(c, APPEND, 2000, 0);
    cr_assert(run_until(c, all_ended, 2000));
    ended(c, 0, IS(OK));
    kill_peer(peer);
    peer = serve(2, NULL);
    for (int i = 0; i < 10; i++)
        (void)call(c, APPEND, 400, 0);
    run_for(c, 600);
    cr_assert(all_ended(c));
    for (int i = 1; i <= 10; i++) {
        uint64_t life = 0;
        cr_assert_eq(executions(i, &life), 0);
        cr_assert_neq(c->calls[i].outcome, IS(OK));
    }
    meet(c, 2);
    int now = call(c, APPEND, 2000, 0);
    cr_assert(run_until(c, all_ended, 2000));
    ended(c, now, IS(OK));
    check_executions(c);
    caller_free(c);
    kill_peer(peer);
}

Test(sockets, a_peer_that_stalls)
{
    struct caller *c = caller_new(NULL);
    pid_t peer = serve(1, NULL);

    meet(c, 0);
    (void)call(c, APPEND, 2000, 0);
    cr_assert(run_until(c, all_ended, 2000));
    kill(peer, SIGSTOP);
    int early = call(c, APPEND, 200, 0), late = call(c, APPEND, 60000, 0);
    run_for(c, 400);
    ended(c, early, IS(TIMEOUT));
    cr_assert(run_until(c, all_ended, 6000), "silence ends the session");
    ended(c, late, IS(UNKNOWN));
    int after = call(c, APPEND, 10000, 0);
    run_for(c, 300);
    kill(peer, SIGCONT);
    cr_assert(run_until(c, all_ended, 8000));
    ended(c, after, IS(OK));
    check_executions(c);
    caller_free(c);
    kill_peer(peer);
}

/* The same over tcp: lanes are ports there. */
Test(sockets, peers_on_other_hosts)
{
    snprintf(address, sizeof address, "tcp://127.0.0.1:%d", 20000 + 8 * (getpid() % 1000));
    struct caller *c = caller_new(NULL);
    meet(c, 0);
    (void)call(c, APPEND, 10000, 100000);
    run_for(c, 150);
    pid_t peer = serve(1, NULL);
    cr_assert(run_until(c, all_ended, 2000));
    kill_peer(peer);
    run_for(c, 50);
    int lost = call(c, APPEND, 10000, 10);
    peer = serve(2, NULL);
    cr_assert(run_until(c, all_ended, 2000));
    ended(c, 0, IS(OK));
    ended(c, lost, IS(OK));
    check_executions(c);
    caller_free(c);
    kill_peer(peer);
}

static bool ended_some(struct caller *c)
{
    return c->ended > 0;
}

/* As much as the credit waits, as much is in flight; more is refused at once, and the peer never holds more than it
 * granted. */
Test(sockets, a_flood_stays_within_the_credit)
{
    struct serving few = {.cluster_id = "clusterclusterclusterc", .credit_calls = 100};
    struct caller *c = caller_new(NULL);

    shared->hold = 1;
    pid_t peer = serve(1, &few);
    meet(c, 0);
    (void)call(c, APPEND, 20000, 0);
    run_for(c, 100);
    for (int i = 0; i < 5000; i++)
        (void)call(c, APPEND, 20000, 1000);
    cr_assert(run_until(c, ended_some, 2000));
    run_for(c, 200);
    cr_assert_eq(shared->held, 100);
    __atomic_store_n(&shared->hold, 0, __ATOMIC_SEQ_CST);
    cr_assert(run_until(c, all_ended, 10000));
    cr_assert_leq(shared->held_most, 100);
    check_executions(c);
    int not_sent = 0;
    for (int i = 0; i < c->count; i++)
        not_sent += c->calls[i].outcome == IS(NOT_SENT);
    cr_assert_geq(not_sent, 5001 - 200);
    cr_assert_leq(not_sent, 5001 - 100);
    caller_free(c);
    kill_peer(peer);
}

Test(sockets, another_cluster_is_refused)
{
    struct serving other = {.cluster_id = "anotherclusteranotherc"};
    struct caller *c = caller_new(NULL);
    pid_t peer = serve(1, &other);

    meet(c, 0);
    (void)call(c, APPEND, 20000, 0);
    cr_assert(run_until(c, all_ended, 1000));
    ended(c, 0, IS(NOT_SENT));
    check_executions(c);
    caller_free(c);
    kill_peer(peer);
}

Test(sockets, a_twin_finds_the_address_taken)
{
    pid_t peer = serve(1, NULL);
    struct loop *loop = loop_new();
    struct bus_options o = {.role = KARST__BUS__ROLE__ROLE_STORAGE,
                            .id = 1,
                            .incarnation = 2,
                            .cluster_id = "clusterclusterclusterc",
                            .address = address};
    struct bus *bus = NULL;

    cr_assert_eq(bus_new(loop, &o, &bus), -EADDRINUSE);
    loop_free(loop);
    kill_peer(peer);
}

/* ---- strangers ---- */

static void *stranger_context, *stranger;

static void connect_stranger(void)
{
    char at[128];
    int zero = 0;

    snprintf(at, sizeof at, "%s.bulk", address);
    stranger_context = zmq_ctx_new();
    stranger = zmq_socket(stranger_context, ZMQ_DEALER);
    zmq_setsockopt(stranger, ZMQ_LINGER, &zero, sizeof zero);
    zmq_setsockopt(stranger, ZMQ_SNDHWM, &zero, sizeof zero);
    cr_assert_eq(zmq_connect(stranger, at), 0);
}

static void end_stranger(void)
{
    zmq_close(stranger);
    zmq_ctx_term(stranger_context);
}

static void send_batch(const Karst__Bus__Batch *b)
{
    size_t size = karst__bus__batch__get_packed_size(b);
    uint8_t *bytes = xmalloc(size);

    karst__bus__batch__pack(b, bytes);
    cr_assert_geq(zmq_send(stranger, bytes, size, 0), 0);
    free(bytes);
}

static void throw_bytes(void)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    char rubbish[5000];

    snprintf(to.sun_path, sizeof to.sun_path, "%s.bulk", address + 6);
    for (int i = 0; i < 50; i++) {
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        for (size_t j = 0; j < sizeof rubbish; j++)
            rubbish[j] = (char)rand();
        if (connect(fd, (struct sockaddr *)&to, sizeof to) == 0)
            (void)!send(fd, rubbish, (size_t)rand() % sizeof rubbish, MSG_NOSIGNAL);
        close(fd);
    }
}

static void throw_messages(void)
{
    char rubbish[500];

    for (int i = 0; i < 3000; i++) {
        for (size_t j = 0; j < sizeof rubbish; j++)
            rubbish[j] = (char)rand();
        int frames = rand() % 3;
        for (int f = 0; f < frames; f++)
            zmq_send(stranger, rubbish, (size_t)rand() % sizeof rubbish, ZMQ_SNDMORE);
        zmq_send(stranger, rubbish, (size_t)rand() % sizeof rubbish, 0);
    }
}

Test(sockets, rubbish_harms_nobody_else)
{
    struct caller *c = caller_new(NULL);
    pid_t peer = serve(1, NULL);

    meet(c, 0);
    c->refill = true;
    for (int i = 0; i < 4; i++)
        (void)call(c, APPEND, 5000, 100);
    connect_stranger();
    for (int i = 0; i < 5; i++) {
        throw_bytes();
        throw_messages();
        run_for(c, 50);
    }
    c->refill = false;
    cr_assert(run_until(c, all_ended, 5000));
    for (int i = 0; i < c->count; i++)
        ended(c, i, IS(OK));
    check_executions(c);
    cr_assert_eq(waitpid(peer, NULL, WNOHANG), 0, "the peer has died of it");
    cr_assert_lt(resident_bytes(peer), (size_t)64 << 20);
    end_stranger();
    caller_free(c);
    kill_peer(peer);
}

/* A stranger with a good Hello that then sends calls without end and reads nothing. */
Test(sockets, a_flood_of_calls_ends_the_flooders_session)
{
    struct serving few = {.cluster_id = "clusterclusterclusterc", .credit_calls = 10};
    Karst__Bus__Batch b = KARST__BUS__BATCH__INIT;
    Karst__Bus__Peer from = KARST__BUS__PEER__INIT, to = KARST__BUS__PEER__INIT;
    Karst__Bus__Hello hello = KARST__BUS__HELLO__INIT;
    Karst__Bus__Call one = KARST__BUS__CALL__INIT, *calls[5] = {&one, &one, &one, &one, &one};
    Karst__Bus__ReadRequest read = KARST__BUS__READ_REQUEST__INIT;
    char cluster[] = "clusterclusterclusterc";

    shared->hold = 1;
    pid_t peer = serve(1, &few);
    struct caller *c = caller_new(NULL);
    connect_stranger();
    from.role = KARST__BUS__ROLE__ROLE_FRONTEND;
    from.id = 9;
    from.incarnation = 9;
    to.role = KARST__BUS__ROLE__ROLE_STORAGE;
    to.id = 1;
    hello.cluster_id = cluster;
    hello.bus_version_min = hello.bus_version_max = 1;
    hello.lane = KARST__BUS__LANE__LANE_BULK;
    b.session = 1;
    b.sequence = 1;
    b.from = &from;
    b.to = &to;
    b.hello = &hello;
    send_batch(&b);
    b.hello = NULL;
    to.incarnation = 1;
    one.remaining_ms = 60000;
    one.body_case = READ;
    one.read = &read;
    read.max_bytes = UINT32_MAX;
    b.n_calls = 5;
    b.calls = calls;
    for (int i = 0; i < 20000; i++) {
        b.sequence++;
        send_batch(&b);
    }
    meet(c, 0);
    __atomic_store_n(&shared->hold, 0, __ATOMIC_SEQ_CST);
    for (int i = 0; i < 5; i++)
        (void)call(c, APPEND, 10000, 100);
    cr_assert(run_until(c, all_ended, 10000));
    for (int i = 0; i < c->count; i++)
        ended(c, i, IS(OK));
    cr_assert_leq(shared->held_most, 10);
    cr_assert_lt(resident_bytes(peer), (size_t)64 << 20);
    end_stranger();
    caller_free(c);
    kill_peer(peer);
}
