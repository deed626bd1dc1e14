#include "libs/bus/kind.h"

#define ROLE(r) (UINT32_C(1) << KARST__BUS__ROLE__ROLE_##r)
#define LANE(x) KARST__BUS__LANE__LANE_##x

enum {
    COORDINATORS = ROLE(GROUP) | ROLE(TXN),
    EVERYBODY = ROLE(CONTROLLER) | ROLE(STORAGE) | ROLE(FRONTEND) | ROLE(GROUP) | ROLE(TXN),
};

static const struct kind append = {LANE(BULK), ROLE(FRONTEND) | COORDINATORS, 1, BUS_RETRY_NEVER, false, true, true,
                                   false};
static const struct kind read_records = {
    LANE(BULK), ROLE(FRONTEND) | COORDINATORS, 1, BUS_RETRY_PURE, true, true, false, true};
/* Copies: a follower writes what it gets to a file of its own. */
static const struct kind replica_read = {LANE(REPLICA), ROLE(STORAGE), 1, BUS_RETRY_PURE, true, true, false, false};
static const struct kind register_service = {LANE(CONTROL), EVERYBODY, 1, BUS_RETRY_KEYED, false, false, false, false};
static const struct kind heartbeat = {LANE(CONTROL), EVERYBODY, 1, BUS_RETRY_PURE, false, false, false, false};
static const struct kind follow = {LANE(CONTROL), EVERYBODY, 1, BUS_RETRY_PURE, true, false, false, false};
static const struct kind quorum = {LANE(CONTROL), ROLE(CONTROLLER), 1, BUS_RETRY_PURE, true, false, false, false};
static const struct kind ping = {LANE(CONTROL), ROLE(CONTROLLER), 2, BUS_RETRY_PURE, false, false, false, false};

/* Kafka's requests: those of coordinators on their lane, all others are cold and go on the control lane. */
enum { KEY_JOIN_GROUP = 11, KEY_SYNC_GROUP = 14 };

static const struct kind kafka_pure = {LANE(CONTROL), EVERYBODY, 1, BUS_RETRY_PURE, false, true, false, false};
static const struct kind kafka_never = {LANE(CONTROL), EVERYBODY, 1, BUS_RETRY_NEVER, false, true, false, false};
/* The quorum's members do not change while two releases run. */
static const struct kind kafka_voters = {LANE(CONTROL), EVERYBODY, 2, BUS_RETRY_NEVER, false, true, false, false};
static const struct kind coordinator_pure = {
    LANE(COORDINATOR), EVERYBODY, 1, BUS_RETRY_PURE, false, true, false, false};
static const struct kind coordinator_never = {
    LANE(COORDINATOR), EVERYBODY, 1, BUS_RETRY_NEVER, false, true, false, false};
static const struct kind coordinator_parked = {
    LANE(COORDINATOR), EVERYBODY, 1, BUS_RETRY_NEVER, true, true, false, false};

/* By Kafka's API key (proto/kafka); what only reads is pure. */
static const struct kind *kafka_kind(int32_t api_key)
{
    switch (api_key) {
    case KEY_JOIN_GROUP:
    case KEY_SYNC_GROUP: return &coordinator_parked;
    case 9:  /* OffsetFetch */
    case 15: /* DescribeGroups */
    case 16: /* ListGroups */ return &coordinator_pure;
    case 8:  /* OffsetCommit */
    case 12: /* Heartbeat */
    case 13: /* LeaveGroup */
    case 22: /* InitProducerId */
    case 42: /* DeleteGroups */
    case 47: /* OffsetDelete */ return &coordinator_never;
    case 2:  /* ListOffsets */
    case 23: /* OffsetForLeaderEpoch */
    case 35: /* DescribeLogDirs */
    case 55: /* DescribeQuorum */
    case 61: /* DescribeProducers */ return &kafka_pure;
    case 80: /* AddRaftVoter */
    case 81: /* RemoveRaftVoter */ return &kafka_voters;
    default: return api_key >= 0 && api_key <= INT16_MAX ? &kafka_never : NULL;
    }
}

const struct kind *link_kind_of(Karst__Bus__Call__BodyCase kind, int32_t api_key)
{
    switch (kind) {
    case KARST__BUS__CALL__BODY_KAFKA: return kafka_kind(api_key);
    case KARST__BUS__CALL__BODY_APPEND: return &append;
    case KARST__BUS__CALL__BODY_READ: return &read_records;
    case KARST__BUS__CALL__BODY_REPLICA_READ: return &replica_read;
    case KARST__BUS__CALL__BODY_REGISTER: return &register_service;
    case KARST__BUS__CALL__BODY_HEARTBEAT: return &heartbeat;
    case KARST__BUS__CALL__BODY_FOLLOW: return &follow;
    case KARST__BUS__CALL__BODY_QUORUM: return &quorum;
    case KARST__BUS__CALL__BODY_PING: return &ping;
    case KARST__BUS__CALL__BODY__NOT_SET:
    case _KARST__BUS__CALL__BODY__CASE_IS_INT_SIZE: break;
    }
    return NULL;
}

uint32_t link_kind_lanes_served(Karst__Bus__Role role)
{
    switch (role) {
    case KARST__BUS__ROLE__ROLE_CONTROLLER:
    case KARST__BUS__ROLE__ROLE_FRONTEND: return 1u << LANE(CONTROL);
    case KARST__BUS__ROLE__ROLE_STORAGE: return 1u << LANE(CONTROL) | 1u << LANE(REPLICA) | 1u << LANE(BULK);
    case KARST__BUS__ROLE__ROLE_GROUP:
    case KARST__BUS__ROLE__ROLE_TXN: return 1u << LANE(CONTROL) | 1u << LANE(COORDINATOR);
    case KARST__BUS__ROLE__ROLE_NONE:
    case _KARST__BUS__ROLE_IS_INT_SIZE: break;
    }
    return 0;
}

enum bus_retry bus_kind_retry(Karst__Bus__Call__BodyCase kind, int32_t api_key)
{
    const struct kind *k = link_kind_of(kind, api_key);

    return k ? k->retry : BUS_RETRY_NEVER;
}

const char *link_role_name(Karst__Bus__Role role)
{
    const ProtobufCEnumValue *v = protobuf_c_enum_descriptor_get_value(&karst__bus__role__descriptor, (int)role);

    return v ? v->name + sizeof "ROLE_" - 1 : "?";
}
