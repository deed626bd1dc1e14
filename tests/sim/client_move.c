/* client_move.c - an administrator who moves partitions between storage nodes, changes his mind, and asks for preferred
 * leaders, while they are written to and read. */
#include "tests/sim/clients.h"

#include "kafka/alter_partition_reassignments.h"
#include "kafka/apis.h"
#include "kafka/elect_leaders.h"
#include "libs/base/kafka_error.h"
#include "tests/sim/cluster.h"

#include <stdlib.h>

enum { STORAGES_MAX = 16 };

struct mover {
    struct clients *clients;
    struct sim *sim;
    struct kclient *client;
    int32_t storages;
    uint64_t event;
};

/* A node that is to get it may be away, what is to be called off may be over, and a request may have been executed
 * whose answer was lost. */
static bool is_expected(int16_t error)
{
    return client_may_retry(error) || error == KERR_NO_REASSIGNMENT_IN_PROGRESS ||
           error == KERR_INVALID_REPLICA_ASSIGNMENT || error == KERR_ELECTION_NOT_NEEDED ||
           error == KERR_PREFERRED_LEADER_NOT_AVAILABLE;
}

static void on_moved(void *ctx, const void *response)
{
    struct mover *m = ctx;
    const struct kafka_alter_partition_reassignments_response *r = response;
    if (r == NULL)
        return;
    int16_t error = r->error_code != KERR_NONE || r->responses_count == 0 ? r->error_code
                                                                          : r->responses[0].partitions[0].error_code;
    sim_note(m->sim, "reassignment: %s", kafka_error_name(error));
    if (!is_expected(error))
        sim_fail(m->sim, "AlterPartitionReassignments: %s", kafka_error_name(error));
    if (error == KERR_NONE)
        sim_cover("a reassignment was taken");
}

/* As many other replicas, drawn by chance. */
static int32_t draw(struct mover *m, int32_t *ids)
{
    for (int32_t i = 0; i < m->storages; i++)
        ids[i] = i + 1;
    for (int32_t i = 0; i < m->clients->replicas; i++) {
        int32_t j = i + (int32_t)sim_below(m->sim, (uint64_t)(m->storages - i)), id = ids[i];
        ids[i] = ids[j];
        ids[j] = id;
    }
    return m->clients->replicas;
}

static void move(struct mover *m, bool cancel)
{
    int32_t ids[STORAGES_MAX];
    struct kafka_alter_partition_reassignments_request q;
    struct kafka_alter_partition_reassignments_request_reassignable_topic t;
    struct kafka_alter_partition_reassignments_request_reassignable_partition p;
    kafka_alter_partition_reassignments_request_init(&q);
    kafka_alter_partition_reassignments_request_reassignable_topic_init(&t);
    kafka_alter_partition_reassignments_request_reassignable_partition_init(&p);
    p.partition_index = (int32_t)sim_below(m->sim, CLIENTS_PARTITIONS);
    if (!cancel) {
        p.replicas = ids;
        p.replicas_count = draw(m, ids);
    }
    t.name = SLICE_OF(CLIENTS_TOPIC);
    t.partitions = &p;
    t.partitions_count = 1;
    q.topics = &t;
    q.topics_count = 1;
    q.timeout_ms = 5000;
    kclient_ask(m->client, KAFKA_API_ALTER_PARTITION_REASSIGNMENTS, 0, &q, on_moved, m);
}

static void on_elected(void *ctx, const void *response)
{
    struct mover *m = ctx;
    const struct kafka_elect_leaders_response *r = response;
    if (r == NULL)
        return;
    if (!is_expected(r->error_code))
        sim_fail(m->sim, "ElectLeaders: %s", kafka_error_name(r->error_code));
    for (int32_t i = 0; i < r->replica_election_results_count; i++) {
        int16_t error = r->replica_election_results[i].partition_result[0].error_code;
        if (!is_expected(error))
            sim_fail(m->sim, "ElectLeaders: %s", kafka_error_name(error));
        if (error == KERR_NONE)
            sim_cover("a preferred leader was elected");
    }
}

static void elect(struct mover *m)
{
    int32_t partition = (int32_t)sim_below(m->sim, CLIENTS_PARTITIONS);
    struct kafka_elect_leaders_request q;
    struct kafka_elect_leaders_request_topic_partitions t = {SLICE_OF(CLIENTS_TOPIC), &partition, 1};
    kafka_elect_leaders_request_init(&q);
    q.topic_partitions = &t;
    q.topic_partitions_count = 1;
    q.timeout_ms = 5000;
    kclient_ask(m->client, KAFKA_API_ELECT_LEADERS, (int16_t)sim_below(m->sim, 3), &q, on_elected, m);
}

static void tick(void *ctx)
{
    struct mover *m = ctx;
    m->event = sim_at(m->sim, 200 + sim_below(m->sim, 2500), tick, m);
    if (m->clients->finishing || !m->clients->has_topic || !kclient_connect(m->client, client_port(m->clients)) ||
        kclient_waiting(m->client))
        return;
    if (sim_chance(m->sim, 300))
        elect(m);
    else
        move(m, sim_chance(m->sim, 200));
}

struct mover *mover_new(struct clients *c, int32_t storages)
{
    struct mover *m = xcalloc(1, sizeof *m);
    ASSERT(storages <= STORAGES_MAX);
    *m = (struct mover){.clients = c, .sim = c->sim, .storages = storages};
    m->client = kclient_new(c->tcp, c->sim, "mover");
    m->event = sim_at(c->sim, 0, tick, m);
    return m;
}

struct mover *mover_free(struct mover *m)
{
    if (m == NULL)
        return NULL;
    sim_cancel(m->sim, m->event);
    kclient_free(m->client);
    free(m);
    return NULL;
}
