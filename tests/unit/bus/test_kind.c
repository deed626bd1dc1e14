/* What docs/bus.md says of the kinds of calls. */
#include <criterion/criterion.h>

#include "libs/bus/kind.h"

#define KIND(k)   KARST__BUS__CALL__BODY_##k
#define LANE(l)   KARST__BUS__LANE__LANE_##l
#define ROLE(r)   KARST__BUS__ROLE__ROLE_##r
#define MAY(k, r) ((link_kind_of(KIND(k), 0)->senders & 1u << ROLE(r)) != 0)

Test(kind, an_append_is_never_sent_twice)
{
    cr_assert_eq(bus_kind_retry(KIND(APPEND), 0), BUS_RETRY_NEVER);
    cr_assert_eq(bus_kind_retry(KIND(READ), 0), BUS_RETRY_PURE);
    cr_assert_eq(bus_kind_retry(KIND(REGISTER), 0), BUS_RETRY_KEYED);
    cr_assert_eq(bus_kind_retry(KIND(KAFKA), 2), BUS_RETRY_PURE);   /* ListOffsets */
    cr_assert_eq(bus_kind_retry(KIND(KAFKA), 19), BUS_RETRY_NEVER); /* CreateTopics */
    cr_assert_eq(bus_kind_retry(KIND(KAFKA), -1), BUS_RETRY_NEVER);
    cr_assert_eq(bus_kind_retry((Karst__Bus__Call__BodyCase)99, 0), BUS_RETRY_NEVER);
}

Test(kind, each_has_its_lane_and_senders)
{
    cr_assert_eq(link_kind_of(KIND(APPEND), 0)->lane, LANE(BULK));
    cr_assert_eq(link_kind_of(KIND(FOLLOW), 0)->lane, LANE(CONTROL));
    cr_assert_eq(link_kind_of(KIND(KAFKA), 11)->lane, LANE(COORDINATOR)); /* JoinGroup */
    cr_assert_eq(link_kind_of(KIND(KAFKA), 19)->lane, LANE(CONTROL));
    cr_assert(MAY(APPEND, FRONTEND) && MAY(APPEND, GROUP) && MAY(APPEND, TXN));
    cr_assert_not(MAY(APPEND, STORAGE) || MAY(APPEND, CONTROLLER));
    cr_assert(MAY(QUORUM, CONTROLLER));
    cr_assert_not(MAY(QUORUM, FRONTEND));
    cr_assert(MAY(PING, CONTROLLER));
    cr_assert_not(MAY(PING, STORAGE));
    cr_assert_null(link_kind_of(KIND(_NOT_SET), 0));
}

Test(kind, a_role_listens_where_it_is_called)
{
    cr_assert_eq(link_kind_lanes_served(ROLE(STORAGE)), 1u << LANE(CONTROL) | 1u << LANE(REPLICA) | 1u << LANE(BULK));
    cr_assert_eq(link_kind_lanes_served(ROLE(CONTROLLER)), 1u << LANE(CONTROL));
    cr_assert_eq(link_kind_lanes_served(ROLE(GROUP)), 1u << LANE(CONTROL) | 1u << LANE(COORDINATOR));
    cr_assert_eq(link_kind_lanes_served(ROLE(FRONTEND)), 1u << LANE(CONTROL));
}
