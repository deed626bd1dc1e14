/* Peers over tcp with keys: those that the lists name talk, all others are refused, and whoever is refused hurts nobody
 * else. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zmq.h>

#include "asks.h"
#include "libs/bus/trust.h"

enum { SERVED, CALLING, STRANGER, KEYS };
static const char cluster[] = "clusterclusterclusterc";
static char folder[32], public_keys[KEYS][TRUST_KEY_CHARS + 1];
static int port;

static const char *file_named(const char *name)
{
    static char paths[4][128];
    static int at;

    at = (at + 1) % 4;
    snprintf(paths[at], sizeof paths[at], "%s/%s", folder, name);
    return paths[at];
}

static const char *key_file(int who)
{
    static const char *const names[KEYS] = {"served", "calling", "stranger"};

    return file_named(names[who]);
}

/* HOST KEY for each; written beside and moved into place. */
static void write_list(const char *name, const char *const (*lines)[2], size_t count)
{
    FILE *f = fopen(file_named("new"), "w");

    cr_assert_not_null(f);
    for (size_t i = 0; i < count; i++)
        fprintf(f, "# a comment\n\n  %s\t%s\n", lines[i][0], lines[i][1]);
    fclose(f);
    cr_assert_eq(rename(file_named("new"), file_named(name)), 0);
}

static struct trust *open_trust(int who, const char *list)
{
    struct trust *t = NULL;
    char *error = NULL;

    cr_assert_eq(trust_open(key_file(who), file_named(list), &t, &error), 0, "%s", error);
    return t;
}

/* Both lists name the two that are meant to talk. */
static void write_lists(void)
{
    const char *const both[][2] = {{"127.0.0.1", public_keys[SERVED]}, {"caller", public_keys[CALLING]}};

    write_list("served-list", both, 2);
    write_list("calling-list", both, 2);
}

static void begin(void)
{
    char *error = NULL;

    peers_begin();
    port = 20000 + 8 * (getpid() % 1000);
    snprintf(address, sizeof address, "tcp://127.0.0.1:%d", port);
    snprintf(folder, sizeof folder, "/tmp/test-keys-XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
    for (int i = 0; i < KEYS; i++)
        cr_assert_eq(trust_make_key(key_file(i), public_keys[i], &error), 0, "%s", error);
    write_lists();
    served_trust = open_trust(SERVED, "served-list");
    calling_trust = open_trust(CALLING, "calling-list");
}

static void end(void)
{
    char command[128];

    trust_free(served_trust);
    trust_free(calling_trust);
    snprintf(command, sizeof command, "rm -r %s", folder);
    cr_assert_eq(system(command), 0);
    peers_end();
}

TestSuite(keys, .init = begin, .fini = end, .timeout = 60);

static struct caller *caller_with(struct trust *t)
{
    struct caller *c;

    calling_trust = t;
    c = caller_new(NULL);
    meet(c);
    return c;
}

static void is_refused(struct caller *c)
{
    int number = call(c, APPEND, 700, 100);

    cr_assert(run_until(c, all_ended, 10000));
    cr_assert_eq(c->calls[number].outcome, IS(NOT_SENT), "outcome %d", (int)c->calls[number].outcome);
}

static void is_answered(struct caller *c)
{
    int number = call(c, APPEND, 10000, 100000);

    cr_assert(run_until(c, all_ended, 12000));
    cr_assert_eq(c->calls[number].outcome, IS(OK), "outcome %d", (int)c->calls[number].outcome);
}

Test(keys, peers_on_the_lists_talk_and_find_each_other_again)
{
    struct caller *c = caller_with(calling_trust);

    for (uint64_t life = 1; life <= 3; life++) {
        pid_t peer = serve(life, NULL);
        int number = call(c, APPEND, 10000, 100);
        cr_assert(run_until(c, all_ended, 12000));
        Karst__Bus__Outcome outcome = c->calls[number].outcome;
        cr_assert(outcome == IS(OK) || (life > 1 && outcome == IS(UNKNOWN)), "on the way to the former life it may be");
        is_answered(c);
        kill_peer(peer);
    }
    caller_free(c);
}

Test(keys, who_is_not_on_the_list_is_refused_until_he_is)
{
    const char *const three[][2] = {
        {"127.0.0.1", public_keys[SERVED]}, {"caller", public_keys[CALLING]}, {"other", public_keys[STRANGER]}};
    struct trust *known = calling_trust, *stranger = open_trust(STRANGER, "calling-list");
    pid_t peer = serve(1, NULL);
    struct caller *c = caller_with(stranger), *good = caller_with(known);

    is_refused(c);
    is_answered(good);
    write_list("served-list", three, 3);
    is_answered(c);
    write_lists(); /* who is in stays in */
    is_answered(c);
    caller_free(good);
    caller_free(c);
    kill_peer(peer);
    trust_free(stranger);
}

Test(keys, a_host_with_another_key_than_the_list_has_is_not_talked_to)
{
    const char *const wrong[][2] = {{"127.0.0.1", public_keys[STRANGER]}}, *const none[][2] = {
                                                                               {"elsewhere", public_keys[SERVED]}};
    pid_t peer = serve(1, NULL);
    struct caller *c = caller_with(calling_trust);

    write_list("calling-list", wrong, 1);
    is_refused(c);
    write_list("calling-list", none, 1);
    is_refused(c);
    write_lists();
    is_answered(c);
    caller_free(c);
    kill_peer(peer);
}

/* Front ends of node N have the ids from 100 N on. */
Test(keys, a_host_is_believed_to_be_its_own_nodes_alone)
{
    char with_nodes[2][TRUST_KEY_CHARS + 8];
    const char *const list[][2] = {{"127.0.0.1", with_nodes[0]}, {"caller", with_nodes[1]}};
    struct trust *known = calling_trust;
    pid_t peer = serve(1, NULL);

    snprintf(with_nodes[0], sizeof with_nodes[0], "%s 1", public_keys[SERVED]);
    snprintf(with_nodes[1], sizeof with_nodes[1], "%s 2,4-5", public_keys[CALLING]);
    write_list("served-list", list, 2);
    write_list("calling-list", list, 2);
    static const struct {
        int32_t id;
        bool is_its_own;
    } of[] = {{201, true}, {508, true}, {101, false}, {301, false}, {2, false}};
    for (size_t i = 0; i < COUNTOF(of); i++) {
        caller_id = of[i].id;
        struct caller *c = caller_with(known);
        (of[i].is_its_own ? is_answered : is_refused)(c);
        caller_free(c);
    }
    caller_id = 201;
    snprintf(with_nodes[0], sizeof with_nodes[0], "%s 7", public_keys[SERVED]);
    write_list("calling-list", list, 2);
    struct caller *c = caller_with(known);
    is_refused(c); /* by the caller itself: node 1 is not there */
    snprintf(with_nodes[0], sizeof with_nodes[0], "%s 1,7", public_keys[SERVED]);
    write_list("calling-list", list, 2);
    is_answered(c);
    caller_free(c);
    kill_peer(peer);
}

Test(keys, a_plain_peer_is_refused_on_either_side)
{
    struct trust *served = served_trust, *calling = calling_trust;
    pid_t peer = serve(1, NULL);
    struct caller *c = caller_with(NULL);

    is_refused(c);
    caller_free(c);
    kill_peer(peer);
    served_trust = NULL;
    peer = serve(2, NULL);
    c = caller_with(calling);
    is_refused(c);
    caller_free(c);
    kill_peer(peer);
    served_trust = served;
    calling_trust = calling;
}

Test(keys, tcp_without_keys_is_refused)
{
    struct loop *loop = loop_new();
    struct bus *b;
    struct bus_options o = {.role = KARST__BUS__ROLE__ROLE_STORAGE,
                            .id = 1,
                            .incarnation = 1,
                            .cluster_id = cluster,
                            .tcp_address = address};

    cr_assert_eq(bus_new(loop, &o, &b), -EPERM);
    loop_free(loop);
}

/* Connections over tcp and over ipc are numbered each by their own socket: neither answers the other's. */
Test(keys, peers_by_either_address_are_told_apart)
{
    enum { CALLERS = 20 };
    char tcp[sizeof address];
    struct trust *known = calling_trust;
    struct caller *callers[CALLERS];

    snprintf(tcp, sizeof tcp, "%s", address);
    snprintf(address, sizeof address, "ipc://%s/peer", folder);
    served_tcp = tcp;
    share = false;
    pid_t peer = serve(1, NULL);
    for (int i = 0; i < CALLERS; i++) {
        caller_id = 1 + i;
        calling_trust = known;
        callers[i] = caller_new(NULL);
        bus_set_peer(callers[i]->bus, KARST__BUS__ROLE__ROLE_STORAGE, 1, 1, i % 2 ? tcp : address);
        is_answered(callers[i]);
    }
    for (int i = 0; i < CALLERS; i++)
        is_answered(callers[i]);
    for (int i = 0; i < CALLERS; i++)
        caller_free(callers[i]);
    kill_peer(peer);
    served_tcp = NULL;
}

/* ---- a crowd at the door ---- */

static int knock(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)(port + KARST__BUS__LANE__LANE_BULK)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    cr_assert_eq(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
    return fd;
}

static bool are_closed(const int *fds, size_t count)
{
    char bytes[256];

    for (size_t i = 0; i < count; i++) {
        ssize_t n;
        while ((n = recv(fds[i], bytes, sizeof bytes, MSG_DONTWAIT)) > 0)
            ;
        if (n < 0 && errno == EAGAIN)
            return false;
    }
    return true;
}

/* Silence, rubbish, and the beginning of a good greeting. */
Test(keys, a_crowd_of_bad_handshakes_keeps_nobody_waiting)
{
    enum { CROWD = 300 };
    static const char greeting[64] = "\xff\0\0\0\0\0\0\0\1\x7f\3\1CURVE";
    int fds[CROWD];
    pid_t peer = serve(1, NULL);
    struct caller *c = caller_with(calling_trust);

    is_answered(c);
    for (int i = 0; i < CROWD; i++) {
        fds[i] = knock();
        if (i % 3 == 1)
            cr_assert_eq(send(fds[i], "GET / HTTP/1.1\r\n\r\n", 18, MSG_NOSIGNAL), 18);
        else if (i % 3 == 2)
            cr_assert_eq(send(fds[i], greeting, sizeof greeting, MSG_NOSIGNAL), sizeof greeting);
        if (i % 50 == 0)
            is_answered(c);
    }
    caller_id = 2;
    struct caller *late = caller_with(calling_trust);
    is_answered(late);
    for (int i = 0; i < 200 && !are_closed(fds, CROWD); i++)
        run_for(c, 100);
    cr_assert(are_closed(fds, CROWD), "who shows no key is shown out");
    is_answered(c);
    for (int i = 0; i < CROWD; i++)
        close(fds[i]);
    caller_free(late);
    caller_free(c);
    kill_peer(peer);
}
