/* request.c - clients' requests into the core, and its answers back. All of them are pure pass-throughs: what a request
 * means, and what it costs, is in libs/groups. A parked request holds its rpc; the front end's credit bounds how many
 * there are. */
#include <stdlib.h>

#include "kafka/apis.h"
#include "services/group/group.h"

struct request {
    UT_hash_handle hh;
    uint64_t id;
    struct rpc *rpc;
};

static const int16_t served[] = {
    KAFKA_API_JOIN_GROUP,      KAFKA_API_SYNC_GROUP,    KAFKA_API_HEARTBEAT,     KAFKA_API_LEAVE_GROUP,
    KAFKA_API_OFFSET_COMMIT,   KAFKA_API_OFFSET_FETCH,  KAFKA_API_OFFSET_DELETE, KAFKA_API_LIST_GROUPS,
    KAFKA_API_DESCRIBE_GROUPS, KAFKA_API_DELETE_GROUPS,
};

/* Kafka shows a client's address as Java does: "/127.0.0.1". */
static struct slice host_of(struct rpc *rpc)
{
    const char *address = rpc_caller(rpc)->client_address;
    return slice_str(arena_printf(rpc_arena(rpc), "/%s", address != NULL ? address : ""));
}

static void on_request(void *ctx, struct rpc *rpc)
{
    struct group_service *g = ctx;
    const void *message = rpc_kafka_request(rpc);
    if (message == NULL)
        return; /* answered as malformed */
    struct request *r = xcalloc(1, sizeof *r);
    r->id = ++g->next_request;
    r->rpc = rpc;
    HASH_ADD(hh, g->requests, id, sizeof r->id, r);
    const Karst__Bus__KafkaRequest *kafka = rpc_call(rpc)->kafka;
    const char *client_id = rpc_caller(rpc)->client_id;
    struct groups_request request = {
        .id = r->id,
        .api_key = (int16_t)kafka->api_key,
        .api_version = (int16_t)kafka->api_version,
        .client_id = slice_str(client_id != NULL ? client_id : ""),
        .client_host = host_of(rpc),
        .message = message,
    };
    group_step(g, &(struct groups_event){.kind = GROUPS_EVENT_REQUEST, .request = &request});
}

void group_reply(struct group_service *g, const struct groups_action *a)
{
    struct request *r;
    HASH_FIND(hh, g->requests, &a->request, sizeof a->request, r);
    ASSERT(r != NULL); /* the core answers what it was given, once */
    rpc_reply_kafka(r->rpc, a->response, 0);
    HASH_DEL(g->requests, r);
    free(r);
}

void group_serve(struct group_service *g)
{
    for (size_t i = 0; i < COUNTOF(served); i++)
        bus_serve_kafka(g->bus, served[i], on_request, g);
}
