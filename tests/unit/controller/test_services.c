/* test_services.c - lives of services: fencing, leaders, owners of coordinator partitions. */
#include "tests/unit/controller/help.h"

static struct help h;

static void open_it(void)
{
    help_open(&h);
}

static void close_it(void)
{
    help_close(&h);
}

TestSuite(services, .init = open_it, .fini = close_it);

static void expect_leader(const char *topic, int32_t leader, int32_t leader_epoch, int32_t isr, int32_t elr,
                          int32_t last_known)
{
    const struct image_partition *p = help_partition(&h, topic, 0);
    cr_assert_eq(p->leader, leader, "leader %d", p->leader);
    cr_assert_eq(p->leader_epoch, leader_epoch, "epoch %d", p->leader_epoch);
    cr_assert_eq(p->isr_count, isr, "isr %d", p->isr_count);
    cr_assert_eq(p->elr_count, elr, "elr %d", p->elr_count);
    cr_assert_eq(p->last_known_elr_count, last_known, "last known %d", p->last_known_elr_count);
}

/* What Kafka 4.3.1 writes for a broker that stops and starts again. */
Test(services, controlled_shutdown_and_return)
{
    int64_t epoch = help_storage(&h, 1, 11, -1);
    cr_assert_eq(help_create(&h, "t", 1, 1)->error_code, 0);
    expect_leader("t", 1, 0, 1, 0, 0);
    struct controller_heartbeat_answer a = help_beat(&h, STORAGE, 1, 11, epoch, true);
    cr_assert(a.should_shut_down);
    expect_leader("t", -1, 1, 0, 1, 1);
    const struct image_broker *b = image_broker(controller_image(h.c), 1);
    cr_assert(b->fenced && b->in_controlled_shutdown);
    help_storage(&h, 1, 12, epoch);
    expect_leader("t", 1, 2, 1, 0, 0);
    cr_assert_eq(help_partition(&h, "t", 0)->leader_recovery_state, 0);
}

/* The same for one that was killed: it is the last known leader, and recovers. */
Test(services, killed_and_returned)
{
    help_storage(&h, 1, 11, -1);
    help_create(&h, "t", 1, 1);
    help_register(&h, STORAGE, 1, 12, -1);
    expect_leader("t", -1, 1, 0, 0, 1);
    help_storage(&h, 1, 12, -1);
    expect_leader("t", 1, 2, 1, 0, 0);
    cr_assert_eq(help_partition(&h, "t", 0)->leader_recovery_state, 1);
}

Test(services, session_timeout_fences)
{
    int64_t epoch = help_storage(&h, 1, 11, -1);
    help_create(&h, "t", 1, 1);
    h.now_ms += 8000;
    help_beat(&h, STORAGE, 1, 11, epoch, false);
    h.now_ms += 8999;
    controller_tick(h.c, h.now_ms);
    help_take(&h);
    expect_leader("t", 1, 0, 1, 0, 0);
    h.now_ms += 1;
    controller_tick(h.c, h.now_ms);
    help_take(&h);
    expect_leader("t", -1, 1, 0, 1, 1);
    cr_assert(image_broker(controller_image(h.c), 1)->fenced);
    struct controller_heartbeat beat = {
        .role = STORAGE, .id = 1, .incarnation = 11, .epoch = epoch, .metadata_offset = 1000};
    struct controller_heartbeat_answer a;
    cr_assert_eq(controller_heartbeat(h.c, &beat, h.now_ms, &a), KERR_BROKER_ID_NOT_REGISTERED);
    cr_assert_eq(help_take(&h), 0);
}

static bool end_session(int32_t role, int32_t id, uint64_t incarnation)
{
    bool ended = controller_end_session(h.c, role, id, incarnation);
    help_take(&h);
    return ended;
}

/* Evidence ends a session at once, where another of the role works. */
Test(services, evidence_fences)
{
    int64_t epoch = help_storage(&h, 1, 11, -1);
    help_create(&h, "t", 1, 1);
    cr_assert_not(end_session(STORAGE, 1, 11)); /* nobody would lead */
    help_storage(&h, 2, 21, -1);
    cr_assert_not(end_session(STORAGE, 1, 10)); /* of a former life */
    cr_assert_not(end_session(STORAGE, 3, 11));
    expect_leader("t", 1, 0, 1, 0, 0);
    cr_assert(end_session(STORAGE, 1, 11));
    cr_assert(image_broker(controller_image(h.c), 1)->fenced);
    cr_assert_null(image_service(controller_image(h.c), STORAGE, 1));
    expect_leader("t", -1, 1, 0, 1, 1);
    cr_assert_not(end_session(STORAGE, 1, 11));
    cr_assert_not(end_session(STORAGE, 2, 21)); /* the last one that works */
    struct controller_heartbeat beat = {
        .role = STORAGE, .id = 1, .incarnation = 11, .epoch = epoch, .metadata_offset = 1000};
    struct controller_heartbeat_answer a;
    cr_assert_eq(controller_heartbeat(h.c, &beat, h.now_ms, &a), KERR_BROKER_ID_NOT_REGISTERED);
    help_storage(&h, 1, 11, -1);
    expect_leader("t", 1, 2, 1, 0, 0);
}

static void on_host(int32_t role, int32_t id, uint64_t incarnation, const char *host)
{
    h.host = host;
    help_register(&h, role, id, incarnation, -1);
}

/* Nobody starts a front end again whose whole host is gone: its brokers' addresses move at once. */
Test(services, evidence_of_a_host)
{
    on_host(FRONTEND, 1, 31, "a");
    on_host(FRONTEND, 2, 32, "b");
    on_host(GROUP, 1, 41, "a");
    on_host(GROUP, 2, 42, "b");
    cr_assert_not(end_session(FRONTEND, 1, 31)); /* it alone: it is started again */
    cr_assert(end_session(GROUP, 1, 41));
    cr_assert_not(end_session(FRONTEND, 2, 32)); /* of another host */
    cr_assert(end_session(FRONTEND, 1, 31));
    cr_assert_null(image_service(controller_image(h.c), FRONTEND, 1));
    cr_assert_not(end_session(FRONTEND, 2, 32)); /* the last one */
}

/* Two at once: what is said of the second does not make the first forgotten. */
Test(services, evidence_of_two_hosts)
{
    const char *const hosts[] = {"a", "b", "c"};
    for (int32_t i = 0; i < 3; i++) {
        on_host(FRONTEND, i + 1, 31 + (uint64_t)i, hosts[i]);
        on_host(GROUP, i + 1, 41 + (uint64_t)i, hosts[i]);
    }
    cr_assert(end_session(GROUP, 1, 41) && end_session(GROUP, 2, 42));
    cr_assert(end_session(FRONTEND, 1, 31) && end_session(FRONTEND, 2, 32));
    cr_assert_not(end_session(FRONTEND, 3, 33));
}

/* Clients know the addresses of front ends: these outlive 30 s of silence, also behind an orderly stop. */
Test(services, front_end_is_waited_for)
{
    int64_t epoch = help_register(&h, FRONTEND, 1, 11, -1);
    h.now_ms += 10000;
    help_beat(&h, FRONTEND, 1, 11, epoch, false);
    cr_assert(help_beat(&h, FRONTEND, 1, 11, epoch, true).should_shut_down);
    h.now_ms += 29999;
    controller_tick(h.c, h.now_ms);
    help_take(&h);
    cr_assert_not_null(image_service(controller_image(h.c), FRONTEND, 1));
    help_register(&h, FRONTEND, 1, 12, -1);
    cr_assert_eq(image_service(controller_image(h.c), FRONTEND, 1)->incarnation, 12);
    h.now_ms += 30000;
    controller_tick(h.c, h.now_ms);
    help_take(&h);
    cr_assert_null(image_service(controller_image(h.c), FRONTEND, 1));
}

/* A fenced broker without its registration in its image stays fenced; asking for the log behind it is enough. */
Test(services, follow_unfences)
{
    int64_t epoch = help_register(&h, STORAGE, 1, 11, -1);
    controller_followed(h.c, STORAGE, 1, 11, epoch - 1);
    cr_assert_eq(help_take(&h), 0);
    controller_followed(h.c, STORAGE, 1, 12, epoch);
    cr_assert_eq(help_take(&h), 0);
    controller_followed(h.c, STORAGE, 1, 11, epoch);
    cr_assert_eq(help_take(&h), 1);
    cr_assert(image_broker_is_active(controller_image(h.c), 1));
}

Test(services, three_nodes)
{
    int64_t first = help_storage(&h, 1, 11, -1);
    int64_t second = help_storage(&h, 2, 21, -1);
    int64_t third = help_storage(&h, 3, 31, -1);
    cr_assert_eq(help_create(&h, "t", 30, 3)->error_code, 0);
    int32_t leads[4] = {0};
    for (int32_t n = 0; n < 30; n++) {
        const struct image_partition *p = help_partition(&h, "t", n);
        cr_assert(p->replica_count == 3 && p->isr_count == 3 && p->replicas[0] == p->leader);
        leads[p->leader]++;
    }
    cr_assert(leads[1] == 10 && leads[2] == 10 && leads[3] == 10);
    cr_assert_not(help_beat(&h, STORAGE, 2, 21, second, true).should_shut_down);
    help_beat(&h, STORAGE, 1, 11, first, false);
    cr_assert_not(help_beat(&h, STORAGE, 2, 21, second, true).should_shut_down);
    cr_assert_eq(help_create(&h, "v", 1, 3)->error_code, KERR_INVALID_REPLICATION_FACTOR); /* it leaves */
    help_beat(&h, STORAGE, 3, 31, third, false);
    cr_assert(help_beat(&h, STORAGE, 2, 21, second, true).should_shut_down);
    cr_assert(image_broker(controller_image(h.c), 2)->fenced);
    for (int32_t n = 0; n < 30; n++) {
        const struct image_partition *p = help_partition(&h, "t", n);
        cr_assert(p->isr_count == 2 && p->elr_count == 0 && p->leader != 2 && p->leader > 0);
        cr_assert_eq(p->leader_epoch, p->replicas[0] == 2);
    }
    cr_assert_eq(help_create(&h, "u", 1, 3)->error_code, 0); /* fenced brokers count, but are not in sync */
    cr_assert_eq(help_partition(&h, "u", 0)->isr_count, 2);
}

Test(services, registration_is_idempotent_and_checked)
{
    int64_t epoch = help_register(&h, GROUP, 1, 5, -1);
    int64_t end = image_offset(controller_image(h.c));
    cr_assert_eq(help_register(&h, GROUP, 1, 5, -1), epoch);
    cr_assert_eq(image_offset(controller_image(h.c)), end);
    cr_assert_gt(help_register(&h, GROUP, 1, 6, -1), epoch);
    struct controller_registration r = {.role = STORAGE, .id = 1};
    const char *message;
    cr_assert_eq(controller_register(h.c, &r, 0, &epoch, &message), KERR_INVALID_REGISTRATION);
    struct controller_heartbeat beat = {.role = GROUP, .id = 1, .incarnation = 5};
    struct controller_heartbeat_answer a;
    cr_assert_eq(controller_heartbeat(h.c, &beat, 0, &a), KERR_BROKER_ID_NOT_REGISTERED);
    beat.incarnation = 6;
    cr_assert_eq(controller_heartbeat(h.c, &beat, 0, &a), KERR_STALE_BROKER_EPOCH);
}

/* The lowest that one of them speaks; it is in the log, so that all see the same at an offset. */
Test(services, the_level_of_the_bus_is_that_of_the_oldest)
{
    cr_assert_eq(image_bus_level(controller_image(h.c)), 0, "nobody is there");
    help_register(&h, FRONTEND, 1, 11, -1);
    cr_assert_eq(image_bus_level(controller_image(h.c)), 1, "a build that does not say knows but the first");
    h.bus_version = 3;
    help_register(&h, FRONTEND, 1, 12, -1);
    help_storage(&h, 1, 21, -1);
    cr_assert_eq(image_bus_level(controller_image(h.c)), 3);
    h.bus_version = 2;
    help_register(&h, GROUP, 1, 31, -1);
    cr_assert_eq(image_bus_level(controller_image(h.c)), 2, "it falls when an older one comes");
    int64_t second = help_storage(&h, 2, 41, -1);
    struct image *replayed = help_replay(&h);
    cr_assert_eq(image_bus_level(replayed), 2);
    image_release(replayed);
    h.bus_version = 3;
    help_register(&h, GROUP, 1, 32, -1);
    cr_assert_eq(image_bus_level(controller_image(h.c)), 2);
    help_beat(&h, STORAGE, 2, 41, second, true);
    cr_assert_eq(image_bus_level(controller_image(h.c)), 2, "one that is away for a while may come back as it was");
    help_storage(&h, 2, 42, second);
    cr_assert_eq(image_bus_level(controller_image(h.c)), 3);
}

static void count_owned(int32_t partitions, int32_t *owned, int32_t *epochs)
{
    const struct image_topic *t = image_topic_by_name(controller_image(h.c), SLICE_OF("__consumer_offsets"));
    for (int32_t p = 0; p < partitions; p++) {
        const struct image_owner *o = image_owner(controller_image(h.c), t->id, p);
        cr_assert_not_null(o);
        const struct image_service *s = image_service(controller_image(h.c), GROUP, o->id);
        cr_assert(s != NULL && s->incarnation == o->incarnation);
        owned[o->id]++;
        epochs[p] = o->coordinator_epoch;
    }
}

/* Every partition has a live owner; what need not move does not; each change raises the epoch. */
Test(services, owners)
{
    int32_t owned[4] = {0}, epochs[50], before[50];
    help_storage(&h, 1, 11, -1);
    help_register(&h, GROUP, 1, 5, -1);
    cr_assert_eq(help_create(&h, "__consumer_offsets", 50, 1)->error_code, 0);
    count_owned(50, owned, before);
    cr_assert_eq(owned[1], 50);
    int64_t second = help_register(&h, GROUP, 2, 6, -1);
    memset(owned, 0, sizeof owned);
    count_owned(50, owned, epochs);
    cr_assert(owned[1] == 25 && owned[2] == 25);
    int32_t moved = 0;
    for (int n = 0; n < 50; n++)
        moved += epochs[n] == before[n] + 1;
    cr_assert_eq(moved, 25);
    help_register(&h, GROUP, 1, 7, -1); /* a new life of the first: its 25 get a new epoch */
    memset(owned, 0, sizeof owned);
    memcpy(before, epochs, sizeof before);
    count_owned(50, owned, epochs);
    moved = 0;
    for (int n = 0; n < 50; n++)
        moved += epochs[n] == before[n] + 1;
    cr_assert(moved == 25 && owned[1] == 25 && owned[2] == 25);
    help_beat(&h, GROUP, 2, 6, second, true);
    memset(owned, 0, sizeof owned);
    count_owned(50, owned, epochs);
    cr_assert_eq(owned[1], 50);
}

/* A node whose disk failed leads nothing any more, however alive it is, until its next life. */
Test(services, failed_directory_fences)
{
    struct uuid dir = {{77, 1}};
    int64_t epoch = help_storage(&h, 1, 11, -1);
    help_create(&h, "t", 1, 1);
    struct controller_heartbeat beat = {.role = STORAGE,
                                        .id = 1,
                                        .incarnation = 11,
                                        .epoch = epoch,
                                        .metadata_offset = 1000,
                                        .offline_dirs = &dir,
                                        .offline_dir_count = 1};
    struct controller_heartbeat_answer a;
    cr_assert_eq(controller_heartbeat(h.c, &beat, h.now_ms, &a), KERR_NONE);
    cr_assert(a.is_fenced);
    cr_assert_eq(help_take(&h), 2);
    expect_leader("t", -1, 1, 0, 1, 1);
    controller_followed(h.c, STORAGE, 1, 11, 1000);
    cr_assert_eq(help_take(&h), 0);
    cr_assert(help_beat(&h, STORAGE, 1, 11, epoch, false).is_fenced);
    help_storage(&h, 1, 12, -1);
    expect_leader("t", 1, 2, 1, 0, 0);
}

Test(services, idle_log_moves)
{
    uint64_t next = controller_tick(h.c, h.now_ms);
    cr_assert_eq(help_take(&h), 0);
    cr_assert_eq(next, h.now_ms + 500);
    for (int n = 0; n < 5; n++) {
        h.now_ms = next;
        next = controller_tick(h.c, h.now_ms);
        cr_assert_eq(help_take(&h), 1);
        cr_assert_eq(next, h.now_ms + 500);
    }
}
