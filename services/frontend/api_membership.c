/* api_membership.c - JoinGroup (11), SyncGroup (14), Heartbeat (12), LeaveGroup (13): the classic group protocol. Each
 * request goes to the group service that owns the group's coordinator partition; what differs by version is its wire
 * shape:
 *
 *   JoinGroup 0   has no rebalance timeout: the session timeout counts      JoinGroup < 7   has "" for no protocol name
 *   LeaveGroup < 3   one member, whose error is the answer's; the service sees the list of version 3 */
#include "kafka/apis.h"
#include "kafka/heartbeat.h"
#include "kafka/join_group.h"
#include "kafka/leave_group.h"
#include "kafka/sync_group.h"
#include "services/frontend/api_common.h"

/* How long a join may stay at the coordinator beyond the rebalance timeout that ends it there, and a sync that waits
 * for the leader, whose rebalance timeout is not known here. */
enum { JOIN_SLACK_MS = 10000, SYNC_TIMEOUT_MS = 30 * 60 * 1000 };

/* The service to ask about a group; -1 with r answered. */
static int32_t route(struct request *r, struct slice group_id)
{
    int32_t service = -1;
    enum kafka_error error = group_id.size == 0 ? KERR_INVALID_GROUP_ID : api_group_owner(r->image, group_id, &service);
    if (error == KERR_NONE)
        return service;
    request_reply_error(r, error, NULL);
    return -1;
}

/* ---- JoinGroup ---- */

static void join_fail(struct request *r, enum kafka_error error, const char *message)
{
    (void)message; /* the responses of this family have no room for one */
    const struct kafka_join_group_request *q = r->body;
    struct kafka_join_group_response response;
    kafka_join_group_response_init(&response);
    response.error_code = (int16_t)error;
    response.protocol_name = r->version >= 7 ? SLICE_NULL : SLICE_EMPTY;
    response.member_id = q->member_id;
    request_reply(r, &response);
}

static void join_done(struct request *r, void *ctx, enum kafka_error error, void *body)
{
    (void)ctx;
    struct kafka_join_group_response *response = body;
    if (error != KERR_NONE) {
        join_fail(r, api_group_call_error(error), NULL);
        return;
    }
    if (r->version < 7 && slice_is_null(response->protocol_name))
        response->protocol_name = SLICE_EMPTY;
    if (r->version < 9)
        response->skip_assignment = false;
    request_reply(r, response);
}

static void join_handle(struct request *r)
{
    const struct kafka_join_group_request *q = r->body;
    int32_t service = route(r, q->group_id);
    if (service < 0)
        return;
    struct kafka_join_group_request message = *q;
    if (r->version == 0)
        message.rebalance_timeout_ms = q->session_timeout_ms;
    uint32_t wait_ms = (uint32_t)MAX(message.rebalance_timeout_ms, 0);
    wait_ms = MIN(wait_ms, (uint32_t)INT32_MAX - JOIN_SLACK_MS) + JOIN_SLACK_MS;
    request_call(r, KARST__BUS__ROLE__ROLE_GROUP, service, KAFKA_API_JOIN_GROUP, r->version, &message, wait_ms,
                 join_done, NULL);
}

const struct api_handler api_join_group = {
    .key = KAFKA_API_JOIN_GROUP, .version_min = 0, .version_max = 9, .handle = join_handle, .fail = join_fail};

/* ---- SyncGroup ---- */

enum { SYNC_WITH_PROTOCOL = 5 };

static void sync_fail(struct request *r, enum kafka_error error, const char *message)
{
    (void)message;
    struct kafka_sync_group_response response;
    kafka_sync_group_response_init(&response);
    response.error_code = (int16_t)error;
    request_reply(r, &response);
}

static void sync_done(struct request *r, void *ctx, enum kafka_error error, void *response)
{
    (void)ctx;
    if (error != KERR_NONE)
        sync_fail(r, api_group_call_error(error), NULL);
    else
        request_reply(r, response);
}

static void sync_handle(struct request *r)
{
    const struct kafka_sync_group_request *q = r->body;
    if (r->version >= SYNC_WITH_PROTOCOL && (slice_is_null(q->protocol_type) || slice_is_null(q->protocol_name))) {
        sync_fail(r, KERR_INCONSISTENT_GROUP_PROTOCOL, NULL); /* KIP-559: Kafka looks at these first */
        return;
    }
    int32_t service = route(r, q->group_id);
    if (service >= 0)
        request_call(r, KARST__BUS__ROLE__ROLE_GROUP, service, KAFKA_API_SYNC_GROUP, r->version, q, SYNC_TIMEOUT_MS,
                     sync_done, NULL);
}

const struct api_handler api_sync_group = {
    .key = KAFKA_API_SYNC_GROUP, .version_min = 0, .version_max = 5, .handle = sync_handle, .fail = sync_fail};

/* ---- Heartbeat ---- */

static void heartbeat_fail(struct request *r, enum kafka_error error, const char *message)
{
    (void)message;
    struct kafka_heartbeat_response response;
    kafka_heartbeat_response_init(&response);
    response.error_code = (int16_t)error;
    request_reply(r, &response);
}

static void heartbeat_done(struct request *r, void *ctx, enum kafka_error error, void *response)
{
    (void)ctx;
    if (error != KERR_NONE)
        heartbeat_fail(r, api_group_call_error(error), NULL);
    else
        request_reply(r, response);
}

static void heartbeat_handle(struct request *r)
{
    const struct kafka_heartbeat_request *q = r->body;
    int32_t service = route(r, q->group_id);
    if (service >= 0)
        request_call(r, KARST__BUS__ROLE__ROLE_GROUP, service, KAFKA_API_HEARTBEAT, r->version, q, REQUEST_TIMEOUT_MS,
                     heartbeat_done, NULL);
}

const struct api_handler api_heartbeat = {
    .key = KAFKA_API_HEARTBEAT, .version_min = 0, .version_max = 4, .handle = heartbeat_handle, .fail = heartbeat_fail};

/* ---- LeaveGroup ---- */

enum { LEAVE_WITH_MEMBERS = 3 };

static void leave_fail(struct request *r, enum kafka_error error, const char *message)
{
    (void)message;
    struct kafka_leave_group_response response;
    kafka_leave_group_response_init(&response);
    response.error_code = (int16_t)error;
    request_reply(r, &response);
}

static void leave_done(struct request *r, void *ctx, enum kafka_error error, void *body)
{
    (void)ctx;
    struct kafka_leave_group_response *response = body;
    if (error != KERR_NONE) {
        leave_fail(r, api_group_call_error(error), NULL);
        return;
    }
    if (r->version < LEAVE_WITH_MEMBERS) {
        if (response->error_code == KERR_NONE && response->members_count > 0)
            response->error_code = response->members[0].error_code;
        response->members_count = 0;
    }
    request_reply(r, response);
}

static void leave_handle(struct request *r)
{
    const struct kafka_leave_group_request *q = r->body;
    int32_t service = route(r, q->group_id);
    if (service < 0)
        return;
    struct kafka_leave_group_request message = *q;
    int16_t version = r->version < LEAVE_WITH_MEMBERS ? LEAVE_WITH_MEMBERS : r->version;
    if (r->version < LEAVE_WITH_MEMBERS) {
        message.members = arena_alloc(r->arena, sizeof *message.members);
        message.members_count = 1;
        kafka_leave_group_request_member_identity_init(&message.members[0]);
        message.members[0].member_id = q->member_id;
        message.member_id = SLICE_EMPTY;
    }
    request_call(r, KARST__BUS__ROLE__ROLE_GROUP, service, KAFKA_API_LEAVE_GROUP, version, &message, REQUEST_TIMEOUT_MS,
                 leave_done, NULL);
}

const struct api_handler api_leave_group = {
    .key = KAFKA_API_LEAVE_GROUP, .version_min = 0, .version_max = 5, .handle = leave_handle, .fail = leave_fail};
