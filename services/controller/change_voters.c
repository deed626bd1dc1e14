/* change_voters.c - AddRaftVoter (80) and RemoveRaftVoter (81), all versions (KIP-853): the core of the quorum decides,
 * and answers when the new set is committed. */
#include <stdio.h>

#include "kafka/add_raft_voter.h"
#include "kafka/apis.h"
#include "kafka/remove_raft_voter.h"
#include "services/controller/quorum.h"

static bool copy_text(char *to, struct slice s)
{
    if (s.size > KRAFT_NAME_MAX)
        return false;
    snprintf(to, KRAFT_NAME_MAX + 1, "%.*s", (int)s.size, (const char *)s.data);
    return true;
}

static bool take_added(const struct kafka_add_raft_voter_request *m, struct kraft_voter *v)
{
    *v = (struct kraft_voter){.id = m->voter_id, .directory_id = m->voter_directory_id, .kraft_version_max = 1};
    if (m->voter_id < 0 || m->listeners_count > KRAFT_ENDPOINTS_MAX || m->listeners_count < 1)
        return false;
    for (; v->endpoint_count < m->listeners_count; v->endpoint_count++) {
        struct kraft_endpoint *e = &v->endpoints[v->endpoint_count];
        e->port = m->listeners[v->endpoint_count].port;
        if (!copy_text(e->name, m->listeners[v->endpoint_count].name) ||
            !copy_text(e->host, m->listeners[v->endpoint_count].host))
            return false;
    }
    return true;
}

void change_voters_reply(struct rpc *rpc, int16_t api_key, enum kafka_error error, const char *text)
{
    struct slice message = text != NULL ? slice_str(text) : SLICE_NULL;
    if (api_key == KAFKA_API_ADD_RAFT_VOTER) {
        struct kafka_add_raft_voter_response response = {.error_code = (int16_t)error, .error_message = message};
        rpc_reply_kafka(rpc, &response, 0);
    } else {
        struct kafka_remove_raft_voter_response response = {.error_code = (int16_t)error, .error_message = message};
        rpc_reply_kafka(rpc, &response, 0);
    }
}

static bool is_other_cluster(const struct quorum *q, struct slice id)
{
    return !slice_is_null(id) && !slice_eq_str(id, service_cluster_id(q->service));
}

static void ask_core(struct quorum *q, struct rpc *rpc, int16_t api_key, enum kraft_message_kind kind,
                     const struct kraft_voter *v)
{
    struct kraft_message m = {.kind = kind, .from = -1, .leader = -1, .voter = v};
    quorum_record(q);
    quorum_ask_core(q, rpc, api_key, NULL, &m);
}

void add_raft_voter_on_call(void *ctx, struct rpc *rpc)
{
    struct quorum *q = ctx;
    if (quorum_refuses(q, rpc))
        return;
    const struct kafka_add_raft_voter_request *m = rpc_kafka_request(rpc);
    if (m == NULL)
        return;
    struct kraft_voter *v = arena_calloc(rpc_arena(rpc), 1, sizeof *v);
    if (is_other_cluster(q, m->cluster_id))
        change_voters_reply(rpc, KAFKA_API_ADD_RAFT_VOTER, KERR_INCONSISTENT_CLUSTER_ID, NULL);
    else if (!take_added(m, v))
        change_voters_reply(rpc, KAFKA_API_ADD_RAFT_VOTER, KERR_INVALID_REQUEST,
                            "The voter's id or listeners are not valid.");
    else
        ask_core(q, rpc, KAFKA_API_ADD_RAFT_VOTER, KRAFT_ADD_VOTER, v);
}

void remove_raft_voter_on_call(void *ctx, struct rpc *rpc)
{
    struct quorum *q = ctx;
    if (quorum_refuses(q, rpc))
        return;
    const struct kafka_remove_raft_voter_request *m = rpc_kafka_request(rpc);
    if (m == NULL)
        return;
    struct kraft_voter *v = arena_calloc(rpc_arena(rpc), 1, sizeof *v);
    *v = (struct kraft_voter){.id = m->voter_id, .directory_id = m->voter_directory_id};
    if (is_other_cluster(q, m->cluster_id))
        change_voters_reply(rpc, KAFKA_API_REMOVE_RAFT_VOTER, KERR_INCONSISTENT_CLUSTER_ID, NULL);
    else
        ask_core(q, rpc, KAFKA_API_REMOVE_RAFT_VOTER, KRAFT_REMOVE_VOTER, v);
}
