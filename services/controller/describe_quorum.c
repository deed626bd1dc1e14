/* describe_quorum.c - DescribeQuorum (55), all versions: who votes, who follows, and how far they are. The leader
 * answers. */
#include "kafka/describe_quorum.h"
#include "services/controller/quorum.h"

enum { STATUS_MAX = 64 };

typedef struct kafka_describe_quorum_response_replica_state replica_row;
typedef struct kafka_describe_quorum_response_partition_data partition_row;
typedef struct kafka_describe_quorum_response_node node_row;

static void fill_replicas(const struct quorum *q, struct arena *a, partition_row *p)
{
    struct kraft_peer_status *all = arena_calloc(a, STATUS_MAX, sizeof *all);
    size_t n = kraft_describe(q->kraft, loop_wall_ms(q->loop), all, STATUS_MAX);
    p->current_voters = arena_calloc(a, n, sizeof *p->current_voters);
    p->observers = arena_calloc(a, n, sizeof *p->observers);
    for (size_t i = 0; i < n; i++) {
        replica_row *row =
            all[i].is_voter ? &p->current_voters[p->current_voters_count++] : &p->observers[p->observers_count++];
        *row = (replica_row){.replica_id = all[i].id,
                             .replica_directory_id = all[i].directory_id,
                             .log_end_offset = all[i].log_end,
                             .last_fetch_timestamp = all[i].last_fetch_ms,
                             .last_caught_up_timestamp = all[i].last_caught_up_ms};
    }
}

static void fill_partition(const struct quorum *q, struct arena *a, partition_row *p)
{
    p->leader_id = kraft_leader(q->kraft);
    p->leader_epoch = kraft_epoch(q->kraft);
    p->high_watermark = kraft_high_watermark(q->kraft);
    fill_replicas(q, a, p);
}

static void fill_nodes(const struct quorum *q, struct arena *a, struct kafka_describe_quorum_response *response)
{
    const struct kraft_voters *v = kraft_voters(q->kraft);
    response->nodes = arena_calloc(a, (size_t)v->count, sizeof *response->nodes);
    for (int32_t i = 0; i < v->count; i++) {
        const struct kraft_voter *from = &v->voter[i];
        node_row *row = &response->nodes[response->nodes_count++];
        row->node_id = from->id;
        row->listeners = arena_calloc(a, (size_t)from->endpoint_count, sizeof *row->listeners);
        for (int32_t n = 0; n < from->endpoint_count; n++)
            row->listeners[row->listeners_count++] = (struct kafka_describe_quorum_response_listener){
                .name = slice_str(arena_printf(a, "%s", from->endpoints[n].name)),
                .host = slice_str(arena_printf(a, "%s", from->endpoints[n].host)),
                .port = from->endpoints[n].port};
    }
}

void describe_quorum_on_call(void *ctx, struct rpc *rpc)
{
    struct quorum *q = ctx;
    struct arena *a = rpc_arena(rpc);
    if (quorum_refuses(q, rpc))
        return;
    const struct kafka_describe_quorum_request *request = rpc_kafka_request(rpc);
    if (request == NULL)
        return;
    struct kafka_describe_quorum_response *response = arena_alloc(a, sizeof *response);
    kafka_describe_quorum_response_init(response);
    bool is_metadata = request->topics_count == 1 && request->topics[0].partitions_count == 1 &&
                       slice_eq_str(request->topics[0].topic_name, "__cluster_metadata") &&
                       request->topics[0].partitions[0].partition_index == 0;
    response->topics_count = is_metadata ? 1 : 0;
    response->topics = arena_calloc(a, 1, sizeof *response->topics);
    if (!is_metadata) {
        response->error_code = KERR_UNKNOWN_TOPIC_OR_PARTITION;
    } else {
        response->topics[0].topic_name = SLICE_OF("__cluster_metadata");
        response->topics[0].partitions = arena_calloc(a, 1, sizeof *response->topics[0].partitions);
        response->topics[0].partitions_count = 1;
        kafka_describe_quorum_response_partition_data_init(&response->topics[0].partitions[0]);
        fill_partition(q, a, &response->topics[0].partitions[0]);
        fill_nodes(q, a, response);
    }
    quorum_answer(q, rpc, KARST__BUS__REPLY__BODY_KAFKA, response);
}
