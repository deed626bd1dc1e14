/* Companions that lie, keep silent or leave in the middle: of the peer that is called, and of those who call. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "asks.h"
#include "libs/bus/local.h"
#include "libs/bus/passing.h"

TestSuite(strangers, .init = asks_begin, .fini = peers_end, .timeout = 100);

static struct sockaddr_un companion(void)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};

    snprintf(at.sun_path, sizeof at.sun_path, "%s.local", address + 6);
    return at;
}

static int knock(void)
{
    struct sockaddr_un at = companion();
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    cr_assert_eq(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
    return fd;
}

static void is_refused(int fd)
{
    char answer[64];

    cr_expect_leq(recv(fd, answer, sizeof answer, 0), 0);
    close(fd);
}

static const struct local_hello good = {.magic = LOCAL_MAGIC,
                                        .version = LOCAL_VERSION,
                                        .lane = KARST__BUS__LANE__LANE_BULK,
                                        .to_served = 65536,
                                        .to_caller = 65536};
enum { GOOD_AREA = LOCAL_HEADER_BYTES + 2 * 65536 };

static void hello_with(int fd, const struct local_hello *h, size_t size, const int *fds, size_t count)
{
    cr_assert_eq(passing_send(fd, h, size, fds, count), 0);
}

static void wrong_hellos(void)
{
    int area = passing_memory_new("area", GOOD_AREA), small = passing_memory_new("area", GOOD_AREA - 1);
    int unsealed = memfd_create("area", MFD_CLOEXEC | MFD_ALLOW_SEALING), null = open("/dev/null", O_RDWR);
    int bell = eventfd(0, 0), pipes[2];

    cr_assert_eq(ftruncate(unsealed, GOOD_AREA), 0);
    cr_assert_eq(pipe(pipes), 0);
    const struct {
        struct local_hello h;
        size_t size;
        int fds[4];
        size_t count;
    } wrong[] = {
        {good, 10, {area, bell, bell}, 3},
        {good, sizeof good, {0}, 0},
        {good, sizeof good, {area, bell}, 2},
        {good, sizeof good, {area, bell, bell, bell}, 4},
        {good, sizeof good, {small, bell, bell}, 3},
        {good, sizeof good, {unsealed, bell, bell}, 3},
        {good, sizeof good, {null, bell, bell}, 3},
        {good, sizeof good, {area, null, bell}, 3},
        {good, sizeof good, {area, bell, pipes[1]}, 3},
        {{.magic = "KARSTBUT", .version = 1, .lane = 3, .to_served = 65536, .to_caller = 65536},
         sizeof good,
         {area, bell, bell},
         3},
        {{.magic = LOCAL_MAGIC, .version = 2, .lane = 3, .to_served = 65536, .to_caller = 65536},
         sizeof good,
         {area, bell, bell},
         3},
        {{.magic = LOCAL_MAGIC, .version = 1, .lane = 4, .to_served = 65536, .to_caller = 65536},
         sizeof good,
         {area, bell, bell},
         3},
        {{.magic = LOCAL_MAGIC, .version = 1, .lane = 3, .to_served = 65537, .to_caller = 65536},
         sizeof good,
         {area, bell, bell},
         3},
        {{.magic = LOCAL_MAGIC, .version = 1, .lane = 3, .to_served = 65536, .to_caller = 1u << 31},
         sizeof good,
         {area, bell, bell},
         3},
        {{.magic = LOCAL_MAGIC, .version = 1, .lane = 3, .to_served = 65536, .to_caller = 65536, .arena_id = 1},
         sizeof good,
         {area, bell, bell, area},
         4},
        {{.magic = LOCAL_MAGIC,
          .version = 1,
          .lane = 3,
          .to_served = 65536,
          .to_caller = 65536,
          .arena_id = 1,
          .arena_size = UINT64_C(1) << 40},
         sizeof good,
         {area, bell, bell, area},
         4},
    };
    for (size_t i = 0; i < COUNTOF(wrong); i++) {
        int fd = knock();
        hello_with(fd, &wrong[i].h, wrong[i].size, wrong[i].fds, wrong[i].count);
        is_refused(fd);
    }
    int all[] = {area, small, unsealed, null, bell, pipes[0], pipes[1]};
    passing_close(all, COUNTOF(all));
}

/* A connection that the peer takes for one of ours; its area is left mapped. */
static int connect_well(struct ring_shared **ret_positions)
{
    int fd = knock(), area = passing_memory_new("area", GOOD_AREA), bell = eventfd(0, 0);
    int fds[] = {area, bell, bell};
    struct local_note ok;

    hello_with(fd, &good, sizeof good, fds, 3);
    cr_assert_eq(recv(fd, &ok, sizeof ok, 0), sizeof ok);
    cr_assert_eq(ok.kind, LOCAL_NOTE_OK);
    *ret_positions = mmap(NULL, GOOD_AREA, PROT_READ | PROT_WRITE, MAP_SHARED, area, 0);
    cr_assert_neq(*ret_positions, MAP_FAILED);
    uint64_t once = 1;
    cr_assert_eq(write(bell, &once, sizeof once), sizeof once);
    passing_close(fds, 2);
    return fd;
}

static void tell_rubbish(void)
{
    char rubbish[5000];
    struct ring_shared *positions;

    memset(rubbish, 'x', sizeof rubbish);
    for (int i = 0; i < 20; i++) {
        int fd = connect_well(&positions);
        switch (i % 5) {
        case 0: cr_expect_geq(send(fd, rubbish, sizeof rubbish, MSG_NOSIGNAL), 0); break;
        case 1: {
            struct local_note note = {.kind = LOCAL_NOTE_FILE, .instance = 1};
            int some = open("/dev/null", O_RDONLY);
            cr_expect_eq(passing_send(fd, &note, sizeof note, &some, 1), 0);
            close(some);
            break;
        }
        case 2:
            __atomic_store_n(&positions[0].tail, UINT64_MAX, __ATOMIC_SEQ_CST);
            cr_expect_geq(send(fd, rubbish, 1, MSG_NOSIGNAL), 0);
            break;
        case 3:
            memset((uint8_t *)positions + LOCAL_HEADER_BYTES, 0xff, 65536);
            __atomic_store_n(&positions[0].tail, 65536, __ATOMIC_SEQ_CST);
            cr_expect_geq(send(fd, rubbish, 1, MSG_NOSIGNAL), 0);
            break;
        case 4: shutdown(fd, SHUT_WR); break;
        }
        is_refused(fd);
        munmap(positions, GOOD_AREA);
    }
}

Test(strangers, wrong_hellos_and_rubbish_hurt_nobody)
{
    pid_t peer = watched = serve(1, NULL);
    struct caller *c = caller_with_arena();
    struct ask a;

    cr_assert(append_slice(c, &a, 5000));
    cr_assert(run_until(c, all_ended, 5000));
    fds_before = open_fds(peer);
    for (int i = 0; i < 50; i++)
        close(knock());
    wrong_hellos();
    tell_rubbish();
    cr_assert(append_slice(c, &a, 5000));
    cr_assert(run_until(c, all_ended, 5000));
    cr_expect_eq(a.outcome, IS(OK));
    cr_assert(run_until(c, fds_are_back, 2000), "%zu, %zu before", open_fds(peer), fds_before);
    cr_assert_eq(waitpid(peer, NULL, WNOHANG), 0, "the peer has died of it");
    caller_free(c);
    kill_peer(peer);
}

Test(strangers, who_says_nothing_is_let_go)
{
    pid_t peer = watched = serve(1, NULL);
    struct caller *c = caller_with_arena();
    struct ask a;
    int fds[LOCAL_HALF_OPEN_MAX + 10];

    fds_before = open_fds(peer) + 6; /* and the caller's */
    for (size_t i = 0; i < COUNTOF(fds); i++)
        fds[i] = knock();
    run_for(c, 100);
    cr_assert(append_slice(c, &a, 5000)); /* over ZeroMQ, since nobody else is let in now */
    cr_assert(run_until(c, all_ended, 1000));
    cr_expect_eq(a.outcome, IS(OK));
    cr_assert(run_until(c, fds_are_back, LOCAL_HANDSHAKE_MS + 2000));
    for (size_t i = 0; i < COUNTOF(fds); i++)
        is_refused(fds[i]);
    caller_free(c);
    kill_peer(peer);
}

/* ---- false servers: the caller goes over ZeroMQ, at once ---- */

static pid_t serve_falsely(void (*treat)(int fd))
{
    struct sockaddr_un at = companion();
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    cr_assert_eq(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    cr_assert_eq(listen(fd, 10), 0);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;)
            treat(accept(fd, NULL, NULL));
    }
    close(fd);
    return pid;
}

static void close_at_once(int fd)
{
    close(fd);
}

static void close_after_the_hello(int fd)
{
    char hello[100];

    (void)!recv(fd, hello, sizeof hello, 0);
    close(fd);
}

static void answer_rubbish(int fd)
{
    char hello[100];

    (void)!recv(fd, hello, sizeof hello, 0);
    (void)!send(fd, hello, 24, MSG_NOSIGNAL);
    usleep(1000);
    close(fd);
}

static void goes_over_zmq(void (*treat)(int fd))
{
    share = false;
    pid_t peer = serve(1, NULL);
    share = true;
    pid_t false_peer = serve_falsely(treat);
    struct caller *c = caller_with_arena();
    struct ask a;

    for (int i = 0; i < 20; i++) {
        meet(c);
        cr_assert(append_slice(c, &a, 5000));
        cr_assert(run_until(c, all_ended, 500));
        cr_expect_eq(a.outcome, IS(OK));
        if (i == 0)
            own_fds = open_fds(getpid());
        bus_set_peer(c->bus, KARST__BUS__ROLE__ROLE_STORAGE, 1, 0, NULL);
    }
    cr_expect_eq(shared->in_arena, 0);
    cr_assert(run_until(c, own_fds_are_back, 2000), "nothing is left of the attempts");
    caller_free(c);
    kill_peer(false_peer);
    kill_peer(peer);
}

Test(strangers, a_companion_that_closes_at_once)
{
    goes_over_zmq(close_at_once);
}

Test(strangers, a_companion_that_closes_after_the_hello)
{
    goes_over_zmq(close_after_the_hello);
}

Test(strangers, a_companion_that_answers_rubbish)
{
    goes_over_zmq(answer_rubbish);
}

/* Opened, then: a peer whose notes and positions are wrong. The caller ends it and tries again. */
static void answer_and_lie(int fd)
{
    static int times;
    struct local_hello h;
    struct local_note note = {.kind = LOCAL_NOTE_OK, .version = LOCAL_VERSION};
    int fds[PASSING_FDS];
    size_t count = 0;

    while (passing_receive(fd, &h, sizeof h, fds, &count) == -EAGAIN)
        usleep(100);
    struct ring_shared *positions = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fds[0], 0);
    (void)!passing_send(fd, &note, sizeof note, NULL, 0);
    usleep(5000);
    note = (struct local_note){.kind = LOCAL_NOTE_FILE, .instance = 1};
    switch (times++ % 5) {
    case 0: __atomic_store_n(&positions[1].tail, UINT64_C(1) << 62, __ATOMIC_SEQ_CST); break;
    case 1: __atomic_store_n(&positions[0].head, UINT64_C(1) << 62, __ATOMIC_SEQ_CST); break;
    case 2: note.kind = 99; break;
    case 3: note.kind = LOCAL_NOTE_DROP; break;
    case 4: break;
    }
    (void)!passing_send(fd, &note, sizeof note, &fds[0], times % 2 == 1);
    uint64_t once = 1;
    (void)!write(fds[2], &once, sizeof once);
    usleep(20000);
    munmap(positions, 4096);
    passing_close(fds, count);
    close(fd);
}

Test(strangers, a_companion_that_lies)
{
    share = false;
    pid_t peer = serve(1, NULL);
    share = true;
    pid_t false_peer = serve_falsely(answer_and_lie);
    struct caller *c = caller_with_arena();
    struct ask a;

    own_fds = open_fds(getpid()) + 10; /* and ZeroMQ's */
    cr_assert(append_slice(c, &a, 3000));
    cr_assert(run_until(c, all_ended, 5000));
    cr_expect_eq(a.outcome, IS(NOT_SENT));
    kill_peer(false_peer);
    cr_assert(append_slice(c, &a, 5000));
    cr_assert(run_until(c, all_ended, 5000));
    cr_expect_eq(a.outcome, IS(OK), "with the false one gone, ZeroMQ is found");
    cr_assert_leq(open_fds(getpid()), own_fds);
    caller_free(c);
    kill_peer(peer);
}

Test(strangers, a_twin_is_found_by_its_companion)
{
    pid_t peer = serve(1, NULL);
    struct loop *loop = loop_new();
    struct bus *bus = NULL;
    struct bus_options o = {.role = KARST__BUS__ROLE__ROLE_STORAGE,
                            .id = 1,
                            .incarnation = 2,
                            .cluster_id = "clusterclusterclusterc",
                            .address = address,
                            .share = true};

    cr_assert_eq(bus_new(loop, &o, &bus), -EADDRINUSE);
    struct caller *c = caller_with_arena();
    struct ask a;
    cr_assert(append_slice(c, &a, 5000));
    cr_assert(run_until(c, all_ended, 5000));
    cr_expect_eq(a.outcome, IS(OK), "the first one's address still works");
    cr_expect_gt(shared->in_arena, 0);
    caller_free(c);
    loop_free(loop);
    kill_peer(peer);
}
