/* test_addresses.c - where the coordinator of a group is said to be when brokers have moved to other front ends. */
#include "libs/base/bytes.h"
#include "tests/unit/frontend/world.h"

#include <criterion/criterion.h>

enum { STEADY_AGAIN_MS = 5 * 60 * 1000 + 1 };

TestSuite(addresses, .init = world_open, .fini = world_close);

static struct request request_now(void)
{
    struct request r = {.frontend = &world, .image = world.image};
    r.client.listener = world.listeners[0]->name;
    return r;
}

static int32_t coordinator_at(int32_t leader)
{
    struct request r = request_now();
    return request_coordinator_at(&r, leader);
}

/* The front end that clients find the broker at. */
static int32_t frontend_of(int32_t broker)
{
    struct request r = request_now();
    struct slice host;
    uint16_t port;
    cr_assert(request_broker_address(&r, broker, &host, &port, NULL));
    return (int32_t)strtol((const char *)host.data, NULL, 10);
}

/* As many front ends as it takes to have the two brokers at different ones; then time for all to be steady. */
static void part(void)
{
    world_now = 1000;
    for (int32_t id = 100; id == 100 || frontend_of(1) == frontend_of(2); id += 100)
        world_frontend(id, false);
    world_now += STEADY_AGAIN_MS;
    cr_assert_eq(coordinator_at(1), 1);
    cr_assert_eq(coordinator_at(2), 2);
}

Test(addresses, a_broker_that_has_moved_is_no_coordinator_for_a_while)
{
    part();
    world_frontend(frontend_of(1), true);
    cr_expect_eq(coordinator_at(1), 2); /* librdkafka would not leave the address that it has for 1 */
    cr_expect_eq(coordinator_at(2), 2);
    world_now += STEADY_AGAIN_MS;
    cr_expect_eq(coordinator_at(1), 1);
}

Test(addresses, where_all_have_moved_the_leader_is_named)
{
    part();
    world_frontend(900, false);
    while (frontend_of(1) != 900)
        world_frontend(frontend_of(1), true);
    while (frontend_of(2) != 900)
        world_frontend(frontend_of(2), true);
    cr_expect_eq(coordinator_at(1), 1);
    cr_expect_eq(coordinator_at(2), 2);
}

Test(addresses, front_ends_that_come_first_move_nobody)
{
    cr_expect_eq(coordinator_at(1), 1);
    world_frontend(100, false);
    cr_expect_eq(coordinator_at(1), 1);
    world_frontend(100, true);
    world_frontend(100, false);
    cr_expect_eq(coordinator_at(1), 1);
}
