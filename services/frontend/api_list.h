/* api_list.h - every API that this front end serves, by rising key: X(NAME) stands for `const struct api_handler
 * api_NAME`. */
#ifndef KARST_FRONTEND_API_LIST_H
#define KARST_FRONTEND_API_LIST_H

#define FRONTEND_APIS(X)                                                                                               \
    X(produce)                                                                                                         \
    X(fetch)                                                                                                           \
    X(list_offsets)                                                                                                    \
    X(metadata)                                                                                                        \
    X(offset_commit)                                                                                                   \
    X(offset_fetch)                                                                                                    \
    X(find_coordinator)                                                                                                \
    X(join_group)                                                                                                      \
    X(heartbeat)                                                                                                       \
    X(leave_group)                                                                                                     \
    X(sync_group)                                                                                                      \
    X(describe_groups)                                                                                                 \
    X(list_groups)                                                                                                     \
    X(api_versions)                                                                                                    \
    X(create_topics)                                                                                                   \
    X(delete_topics)                                                                                                   \
    X(delete_records)                                                                                                  \
    X(init_producer_id)                                                                                                \
    X(offset_for_leader_epoch)                                                                                         \
    X(describe_configs)                                                                                                \
    X(alter_replica_log_dirs)                                                                                          \
    X(describe_log_dirs)                                                                                               \
    X(create_partitions)                                                                                               \
    X(delete_groups)                                                                                                   \
    X(elect_leaders)                                                                                                   \
    X(incremental_alter_configs)                                                                                       \
    X(alter_partition_reassignments)                                                                                   \
    X(list_partition_reassignments)                                                                                    \
    X(offset_delete)                                                                                                   \
    X(describe_client_quotas)                                                                                          \
    X(alter_client_quotas)                                                                                             \
    X(describe_user_scram_credentials)                                                                                 \
    X(alter_user_scram_credentials)                                                                                    \
    X(describe_quorum)                                                                                                 \
    X(update_features)                                                                                                 \
    X(describe_cluster)                                                                                                \
    X(describe_producers)                                                                                              \
    X(unregister_broker)                                                                                               \
    X(describe_topic_partitions)                                                                                       \
    X(add_raft_voter)                                                                                                  \
    X(remove_raft_voter)

#endif
