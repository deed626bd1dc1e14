/* main.c - karst-controller: the metadata log, and everything that is decided in it.
 *
 * Started by   karst up, or anybody: karst-controller --config FILE --id NODE.ID. One a data directory; several are one
 * quorum (libs/kraft/kraft.h).
 * Peers        every service calls the one that leads: Register, Heartbeat, Follow, and Kafka's requests that front
 * ends and the txn service pass on. Controllers call each other: Quorum; and all they know: Ping. Keeps
 * DIR/__cluster_metadata-0, in Kafka's formats: log, snapshots, quorum-state; and RUN_DIR/controller-ID.quorum for
 * karst status. Signals      SIGTERM, SIGINT: a leader resigns, parked calls are answered, the log is flushed and
 * closed, goodbye; a second one: at once, as kill -9. Shutdown     resign -> followers -> answers -> log -> bus. A
 * crash      loses nothing that was answered: an answer leaves when a majority of the voters has flushed its records.
 * Services keep working on the images they have, and follow the next leader; sessions start anew with it, so that
 * nobody is fenced for the time it was away.
 *
 * A turn: the bus delivers requests, the core decides them one by one on an image that is ahead of the disk ->
 * LOOP_COMMIT: one write and one flush for all of them; once they are committed (alone: at once) the image is
 * published, answers and new batches leave. */
#include "kafka/apis.h"
#include "libs/base/log.h"
#include "services/controller/quorum.h"

static void on_drain(void *ctx)
{
    struct quorum *q = ctx;
    quorum_commit(q);
    if (!q->failed)
        quorum_step(q, &(struct kraft_event){.kind = KRAFT_RESIGN});
    q->ended = true;
    quorum_deactivate(q);
    service_drained(q->service);
}

static void serve(struct quorum *q)
{
    bus_serve(q->bus, KARST__BUS__CALL__BODY_REGISTER, register_on_call, q);
    bus_serve(q->bus, KARST__BUS__CALL__BODY_HEARTBEAT, heartbeat_on_call, q);
    bus_serve(q->bus, KARST__BUS__CALL__BODY_FOLLOW, follow_on_call, q);
    bus_serve(q->bus, KARST__BUS__CALL__BODY_QUORUM, quorum_on_call, q);
    bus_serve(q->bus, KARST__BUS__CALL__BODY_PING, ping_on_call, q);
    bus_serve_kafka(q->bus, KAFKA_API_CREATE_TOPICS, create_topics_on_call, q);
    bus_serve_kafka(q->bus, KAFKA_API_DELETE_TOPICS, delete_topics_on_call, q);
    bus_serve_kafka(q->bus, KAFKA_API_CREATE_PARTITIONS, create_partitions_on_call, q);
    bus_serve_kafka(q->bus, KAFKA_API_INCREMENTAL_ALTER_CONFIGS, incremental_alter_configs_on_call, q);
    bus_serve_kafka(q->bus, KAFKA_API_ALTER_PARTITION_REASSIGNMENTS, alter_partition_reassignments_on_call, q);
    bus_serve_kafka(q->bus, KAFKA_API_ELECT_LEADERS, elect_leaders_on_call, q);
    bus_serve_kafka(q->bus, KAFKA_API_UPDATE_FEATURES, update_features_on_call, q);
    bus_serve_kafka(q->bus, KAFKA_API_ALTER_CLIENT_QUOTAS, alter_client_quotas_on_call, q);
    bus_serve_kafka(q->bus, KAFKA_API_ALTER_USER_SCRAM_CREDENTIALS, alter_user_scram_credentials_on_call, q);
    bus_serve_kafka(q->bus, KAFKA_API_ALTER_PARTITION, alter_partition_on_call, q);
    bus_serve_kafka(q->bus, KAFKA_API_ASSIGN_REPLICAS_TO_DIRS, assign_replicas_to_dirs_on_call, q);
    bus_serve_kafka(q->bus, KAFKA_API_UNREGISTER_BROKER, unregister_broker_on_call, q);
    bus_serve_kafka(q->bus, KAFKA_API_CONTROLLER_REGISTRATION, controller_registration_on_call, q);
    bus_serve_kafka(q->bus, KAFKA_API_ADD_RAFT_VOTER, add_raft_voter_on_call, q);
    bus_serve_kafka(q->bus, KAFKA_API_REMOVE_RAFT_VOTER, remove_raft_voter_on_call, q);
    bus_serve_kafka(q->bus, KAFKA_API_DESCRIBE_QUORUM, describe_quorum_on_call, q);
    bus_serve_kafka(q->bus, KAFKA_API_ALLOCATE_PRODUCER_IDS, allocate_producer_ids_on_call, q);
}

int main(int argc, char **argv)
{
    struct quorum q = {.lock_fd = -1, .last = REF_EMPTY};
    struct service_options options = {
        .role = KARST__BUS__ROLE__ROLE_CONTROLLER, .ctx = &q, .on_image = watching_on_image, .on_drain = on_drain};
    int status = service_open(argc, argv, &options, &q.service);
    if (status != 0)
        return status;
    q.loop = service_loop(q.service);
    q.bus = service_bus(q.service);
    q.config = service_config(q.service);
    status = quorum_open(&q);
    if (status == 0) {
        serve(&q);
        loop_hook(q.loop, LOOP_COMMIT, quorum_commit, &q);
        status = service_run(q.service);
    }
    quorum_deactivate(&q);
    quorum_end_calls(&q);
    watching_stop(&q);
    quorum_close(&q);
    q.service = service_close(q.service);
    return status;
}
