/* Links through shared memory: arena slices, files, large payloads, and peers that stall or die with them. */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "asks.h"
#include "libs/bus/local.h"

TestSuite(local, .init = asks_begin, .fini = peers_end, .timeout = 100);

/* ---- the arena ---- */

Test(local, slices_of_the_arena_are_read_where_they_lie)
{
    static struct ask asks[SLICES];
    pid_t peer = serve(1, NULL);
    struct caller *c = caller_with_arena();

    for (int i = 0; i < SLICES; i++)
        cr_assert(append_slice(c, &asks[i], 5000));
    cr_assert(run_until(c, all_ended, 5000));
    for (int i = 0; i < SLICES; i++)
        cr_assert_eq(asks[i].outcome, IS(OK));
    cr_expect_eq(shared->in_arena, 2 * SLICES, "each is looked at twice");
    cr_expect_eq(shared->torn, 0);
    cr_expect_eq(slices_used(), 0);
    caller_free(c);
    kill_peer(peer);
}

Test(local, without_a_companion_slices_travel_as_bytes)
{
    struct ask a;
    share = false;
    pid_t peer = serve(1, NULL);
    share = true;
    struct caller *c = caller_with_arena();

    cr_assert(append_slice(c, &a, 5000));
    cr_assert(run_until(c, all_ended, 5000));
    cr_expect_eq(a.outcome, IS(OK));
    cr_expect_eq(shared->in_arena, 0);
    cr_expect_eq(slices_used(), 0);
    caller_free(c);
    kill_peer(peer);
}

static bool slices_are_free(struct caller *c)
{
    (void)c;
    return slices_used() == 0;
}

/* The peer is stopped past every deadline: what was lent to it comes back when it is dead, or has let go, not before.
 */
static void stall(bool comes_back)
{
    struct ask first, early, late;
    pid_t peer = serve(1, NULL);
    struct caller *c = caller_with_arena();

    cr_assert(append_slice(c, &first, 5000));
    cr_assert(run_until(c, all_ended, 5000));
    shared->hold = 1;
    cr_assert(append_slice(c, &early, 200));
    cr_assert(append_slice(c, &late, 60000));
    run_for(c, 100);
    cr_assert_eq(shared->held, 2);
    kill(peer, SIGSTOP);
    run_for(c, 300);
    cr_expect_eq(early.outcome, IS(TIMEOUT));
    cr_expect_eq(slices_used(), 2);
    cr_assert(run_until(c, all_ended, 6000), "silence ends the session");
    cr_expect_eq(late.outcome, IS(UNKNOWN));
    run_for(c, 300);
    cr_expect_eq(slices_used(), 2, "the peer may still look at them");
    if (comes_back) {
        kill(peer, SIGCONT);
        run_for(c, 300);
        cr_expect_eq(slices_used(), 2, "it has not answered yet");
        __atomic_store_n(&shared->hold, 0, __ATOMIC_SEQ_CST);
    } else {
        kill_peer(peer);
    }
    cr_assert(run_until(c, slices_are_free, 2000));
    cr_expect_eq(shared->torn, 0);
    caller_free(c);
    if (comes_back)
        kill_peer(peer);
}

Test(local, a_stalled_peer_that_dies)
{
    stall(false);
}

Test(local, a_stalled_peer_that_comes_back)
{
    stall(true);
}

Test(local, peers_killed_at_any_time_with_slices_in_their_hands)
{
    static struct ask asks[SLICES];
    pid_t peer = serve(1, NULL);
    struct caller *c = caller_with_arena();

    srand(1);
    memset(asks, 0, sizeof asks);
    for (uint64_t life = 2; life < LIVES; life++) {
        for (int round = 0; round < 40; round++) {
            for (int i = 0; i < SLICES; i++)
                if (asks[i].caller == NULL || asks[i].ended)
                    (void)append_slice(c, &asks[i], 3000);
            run_for(c, (uint64_t)(rand() % 3));
        }
        kill_peer(peer);
        peer = serve(life, NULL);
    }
    cr_assert(run_until(c, all_ended, 6000));
    cr_assert(run_until(c, slices_are_free, 2000));
    cr_expect_eq(shared->torn, 0);
    cr_expect_gt(shared->in_arena, 100);
    caller_free(c);
    kill_peer(peer);
}

static void call_until_killed(void)
{
    static struct ask asks[SLICES];

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    caller_id = 2;
    memset(asks, 0, sizeof asks);
    struct caller *c = caller_with_arena();
    for (;;) {
        for (int i = 0; i < SLICES; i++)
            if ((asks[i].caller == NULL || asks[i].ended) && c->count < CALLS - 1)
                (void)append_slice(c, &asks[i], 3000);
        run_for(c, 1);
    }
}

Test(local, callers_killed_at_any_time)
{
    struct ask a;
    pid_t peer = watched = serve(1, NULL);
    struct caller *c = caller_with_arena();

    cr_assert(append_slice(c, &a, 5000));
    cr_assert(run_until(c, all_ended, 5000));
    fds_before = open_fds(peer);
    for (int i = 0; i < 40; i++) {
        pid_t other = fork();
        if (other == 0)
            call_until_killed();
        usleep((useconds_t)(1000 + i * 700));
        kill_peer(other);
        cr_assert(append_slice(c, &a, 5000));
        cr_assert(run_until(c, all_ended, 5000));
        cr_assert_eq(a.outcome, IS(OK));
    }
    cr_assert(run_until(c, fds_are_back, 5000), "%zu descriptors, %zu before", open_fds(peer), fds_before);
    cr_expect_eq(shared->torn, 0);
    caller_free(c);
    kill_peer(peer);
}

/* ---- files ---- */

Test(local, files_are_passed_once_and_let_go)
{
    static struct ask asks[900];
    pid_t peer = watched = serve(1, NULL);
    struct caller *c = caller_with_arena();
    int in_files = 0;

    read_file(c, &asks[0], 1, false);
    cr_assert(run_until(c, all_ended, 5000));
    cr_expect(asks[0].in_file);
    size_t fds = open_fds(getpid());
    for (int i = 0; i < 50; i++)
        read_file(c, &asks[i], 1, false);
    cr_assert(run_until(c, all_ended, 5000));
    cr_expect_eq(open_fds(getpid()), fds, "the same file takes no second descriptor");
    for (uint32_t i = 1; i < COUNTOF(asks); i++) {
        read_file(c, &asks[i], i, false);
        if (i % 7 == 0)
            cr_assert(run_until(c, all_ended, 5000));
    }
    cr_assert(run_until(c, all_ended, 5000));
    for (size_t i = 1; i < COUNTOF(asks); i++) {
        cr_assert_eq(asks[i].outcome, IS(OK), "file %zu: %d", i, (int)asks[i].outcome);
        in_files += asks[i].in_file;
    }
    cr_expect_gt(in_files, 600, "%d of %zu", in_files, COUNTOF(asks));
    cr_expect_leq(open_fds(getpid()), fds + LOCAL_FILES_MAX + 8);
    caller_free(c);
    kill_peer(peer);
}

Test(local, retired_files_free_their_space)
{
    static struct ask asks[100];
    pid_t peer = watched = serve(1, NULL);
    struct caller *c = caller_with_arena();

    read_file(c, &asks[0], 1, false);
    cr_assert(run_until(c, all_ended, 5000));
    own_fds = open_fds(getpid());
    fds_before = open_fds(peer);
    for (uint32_t i = 2; i < COUNTOF(asks); i++)
        read_file(c, &asks[i], i, true);
    cr_assert(run_until(c, all_ended, 5000));
    cr_expect_gt(open_fds(getpid()), own_fds + 50);
    cr_assert(run_until(c, own_fds_are_back, 3000), "%zu, %zu before", open_fds(getpid()), own_fds);
    cr_expect(fds_are_back(c));
    for (uint32_t i = 2; i < COUNTOF(asks); i++)
        cr_expect(asks[i].in_file && asks[i].outcome == IS(OK));
    caller_free(c);
    kill_peer(peer);
}

Test(local, a_caller_without_an_arena_gets_bytes)
{
    struct ask a;
    pid_t peer = serve(1, NULL);
    struct caller *c = caller_new(NULL);

    meet(c);
    read_file(c, &a, 5, false);
    cr_assert(run_until(c, all_ended, 5000));
    cr_expect_eq(a.outcome, IS(OK));
    cr_expect(!a.in_file);
    caller_free(c);
    kill_peer(peer);
}

/* ---- much ---- */

Test(local, payloads_far_larger_than_the_ring)
{
    static const size_t sizes[] = {1 << 20, 64 << 20, 3, 300000, 64 << 20, (1 << 20) + 1};
    pid_t peer = serve(1, NULL);
    struct caller *c = caller_new(NULL);

    meet(c);
    for (size_t i = 0; i < COUNTOF(sizes); i++) {
        (void)call(c, APPEND, 30000, sizes[i]);
        if (i % 3 == 2) /* more at once would pass the credit */
            cr_assert(run_until(c, all_ended, 30000));
    }
    for (int i = 0; i < c->count; i++)
        cr_assert_eq(c->calls[i].outcome, IS(OK), "call %d: %d", i, (int)c->calls[i].outcome);
    caller_free(c);
    kill_peer(peer);
}

/* The ring is full for a while: everything waits, nothing is lost, and it goes on by itself. */
Test(local, a_reader_that_stands_still_for_a_while)
{
    pid_t peer = serve(1, NULL);
    struct caller *c = caller_new(NULL);

    meet(c);
    (void)call(c, APPEND, 5000, 10);
    cr_assert(run_until(c, all_ended, 5000));
    for (int round = 0; round < 5; round++) {
        kill(peer, SIGSTOP);
        for (int i = 0; i < 300; i++)
            (void)call(c, APPEND, 20000, (size_t)(i * 50));
        run_for(c, 100);
        kill(peer, SIGCONT);
        cr_assert(run_until(c, all_ended, 10000));
    }
    for (int i = 0; i < c->count; i++)
        cr_assert_eq(c->calls[i].outcome, IS(OK), "call %d: %d", i, (int)c->calls[i].outcome);
    caller_free(c);
    kill_peer(peer);
}

Test(local, a_thousand_connections_leave_nothing_behind)
{
    pid_t peer = watched = serve(1, NULL);
    struct caller *c = caller_with_arena();
    struct ask a;

    for (int i = 0; i < 1000; i++) {
        meet(c);
        cr_assert(append_slice(c, &a, 5000));
        cr_assert(run_until(c, all_ended, 5000));
        cr_assert_eq(a.outcome, IS(OK));
        if (i == 1) {
            own_fds = open_fds(getpid());
            fds_before = open_fds(peer);
        }
        bus_set_peer(c->bus, KARST__BUS__ROLE__ROLE_STORAGE, 1, 0, NULL);
    }
    meet(c);
    cr_assert(append_slice(c, &a, 5000));
    cr_assert(run_until(c, all_ended, 5000));
    cr_assert(run_until(c, own_fds_are_back, 2000), "%zu, %zu before", open_fds(getpid()), own_fds);
    cr_assert(run_until(c, fds_are_back, 2000), "%zu, %zu before", open_fds(peer), fds_before);
    caller_free(c);
    kill_peer(peer);
}

/* What a process says last arrives, also when the ring is too small for it. */
Test(local, the_last_replies_of_a_process_that_ends_arrive)
{
    int pipes[2];
    cr_assert_eq(pipe(pipes), 0);
    pid_t peer = serve(1, NULL);
    pid_t other = fork();
    if (other == 0) {
        struct caller *c = caller_new(NULL);
        meet(c);
        (void)call(c, APPEND, 5000, 10);
        (void)run_until(c, all_ended, 5000);
        for (int i = 0; i < 3; i++)
            (void)call(c, APPEND, 5000, 100000);
        bus_free(c->bus); /* sends what is staged, and does not wait for answers */
        _exit(0);
    }
    waitpid(other, NULL, 0);
    uint64_t life = 0;
    for (int i = 0; i < 200 && executions(3, &life) == 0; i++)
        usleep(10000);
    for (int i = 0; i <= 3; i++)
        cr_expect_eq(executions(i, &life), 1, "call %d", i);
    kill_peer(peer);
}
