/* The loop's turn, and the counts of payloads. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "libs/bus/ref.h"
#include "libs/loop/loop.h"

static struct loop *loop;
static char trace[64];
static size_t traced;

static void note(char c)
{
    if (traced < sizeof trace - 1)
        trace[traced++] = c;
}

static void on_serve(void *ctx)
{
    (void)ctx;
    note('s');
}

static void on_send(void *ctx)
{
    (void)ctx;
    note('>');
}

static void on_receive(void *ctx)
{
    (void)ctx;
    note('<');
}

static void on_commit(void *ctx)
{
    (void)ctx;
    note('c');
}

static void on_reply(void *ctx)
{
    (void)ctx;
    note('r');
}

static void on_stop(void *ctx)
{
    (void)ctx;
    note('.');
    loop_stop(loop);
}

static void begin(void)
{
    loop = loop_new();
}

static void end(void)
{
    loop = loop_free(loop);
}

TestSuite(loop, .init = begin, .fini = end, .timeout = 10);

Test(loop, phases_run_in_their_order)
{
    loop_hook(loop, LOOP_REPLY, on_reply, NULL);
    loop_hook(loop, LOOP_COMMIT, on_commit, NULL);
    loop_hook(loop, LOOP_RECEIVE, on_receive, NULL);
    loop_hook(loop, LOOP_SEND, on_send, NULL);
    loop_hook(loop, LOOP_SERVE, on_serve, NULL);
    struct loop_timer *t = loop_timer_start(loop, 0, 0, on_stop, NULL);
    loop_run(loop);
    loop_timer_stop(t);
    cr_assert_str_eq(trace, ".s><cr>");
}

Test(loop, a_stop_before_the_run_is_kept)
{
    loop_hook(loop, LOOP_SERVE, on_serve, NULL);
    loop_stop(loop);
    loop_run(loop);
    cr_assert_str_eq(trace, "");
}

static int turns;

static void on_turn(void *ctx)
{
    (void)ctx;
    if (++turns == 100)
        loop_stop(loop);
    else
        loop_again(loop);
}

Test(loop, again_keeps_the_poll_from_blocking)
{
    loop_hook(loop, LOOP_SERVE, on_turn, NULL);
    loop_again(loop);
    loop_run(loop);
    cr_assert_eq(turns, 100);
}

static struct loop_timer *own;

static void on_stop_itself(void *ctx)
{
    (void)ctx;
    own = loop_timer_stop(own);
    loop_stop(loop);
}

Test(loop, a_timer_may_stop_itself)
{
    own = loop_timer_start(loop, 1, 1, on_stop_itself, NULL);
    loop_run(loop);
    cr_assert_null(own);
}

static void *wake_from_outside(void *ctx)
{
    usleep(2000);
    loop_wake(ctx, on_stop, NULL);
    return NULL;
}

Test(loop, another_thread_wakes_it)
{
    pthread_t thread;

    cr_assert_eq(pthread_create(&thread, NULL, wake_from_outside, loop), 0);
    loop_run(loop);
    pthread_join(thread, NULL);
    cr_assert_str_eq(trace, ".");
}

static pthread_t worked_on;

static void on_work(void *ctx)
{
    (void)ctx;
    worked_on = pthread_self();
}

Test(loop, work_runs_elsewhere_and_is_done_here)
{
    loop_work(loop, on_work, on_stop, NULL);
    loop_run(loop);
    cr_assert_not(pthread_equal(worked_on, pthread_self()));
}

static void on_fd(void *ctx, int events)
{
    char c;

    cr_assert(events & LOOP_READABLE);
    cr_assert_eq(read(*(int *)ctx, &c, 1), 1);
    loop_stop(loop);
}

Test(loop, descriptors_are_watched)
{
    int fds[2];

    cr_assert_eq(pipe(fds), 0);
    struct loop_poll *p = loop_poll_start(loop, fds[0], LOOP_READABLE, on_fd, &fds[0]);
    cr_assert_eq(write(fds[1], "x", 1), 1);
    loop_run(loop);
    loop_poll_stop(p);
    close(fds[0]);
    close(fds[1]);
}

/* ---- payloads ---- */

static int freed;

static void count_free(struct ref_owner *o)
{
    (void)o;
    freed++;
}

Test(ref, the_last_count_frees)
{
    struct ref_owner owner;

    ref_owner_init(&owner, count_free);
    struct ref whole = ref_inline(SLICE_OF("0123456789"), &owner), part = ref_part(&whole, 2, 3);
    ref_owner_release(&owner);
    ref_release(&whole);
    cr_assert_eq(freed, 0);
    cr_assert(slice_eq_str(ref_bytes(&part), "234"));
    cr_assert_eq(part.size_bytes, 3);
    ref_release(&part);
    cr_assert_eq(freed, 1);
    cr_assert_eq(part.kind, REF_NONE);
    ref_release(&part);
    cr_assert_eq(freed, 1);
}

Test(ref, copies_and_taken_memory)
{
    struct ref copy = ref_copy(SLICE_OF("abc")), empty = ref_copy(SLICE_EMPTY), taken = ref_take(xstrdup("xyz"), 3);

    cr_assert(slice_eq_str(ref_bytes(&copy), "abc"));
    cr_assert_eq(empty.size_bytes, 0);
    cr_assert(slice_eq_str(ref_bytes(&taken), "xyz"));
    ref_retain(&taken);
    struct ref second = taken;
    ref_release(&taken);
    cr_assert(slice_eq_str(ref_bytes(&second), "xyz"));
    ref_release(&second);
    ref_release(&copy);
    ref_release(&empty);
}

enum { THREADS = 4, ROUNDS = 20000 };

static void *count_up_and_down(void *ctx)
{
    for (int i = 0; i < ROUNDS; i++) {
        struct ref *r = ctx;
        struct ref mine = *r;
        ref_retain(&mine);
        ref_release(&mine);
    }
    return NULL;
}

Test(ref, counts_are_safe_across_threads)
{
    struct ref_owner owner;
    pthread_t threads[THREADS];

    ref_owner_init(&owner, count_free);
    struct ref r = ref_inline(SLICE_OF("x"), &owner);
    ref_owner_release(&owner);
    for (int i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, count_up_and_down, &r), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    cr_assert_eq(freed, 0);
    ref_release(&r);
    cr_assert_eq(freed, 1);
}
