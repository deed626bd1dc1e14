/* kafka_error.h - the error codes of Kafka's protocol, and what a client does about each. */
#ifndef KARST_BASE_KAFKA_ERROR_H
#define KARST_BASE_KAFKA_ERROR_H

#include "libs/base/base.h"

/* X(code, name, retry): retry is NO, YES (ask again), METADATA (refresh metadata first) or COORDINATOR (look it up
 * again). */
#define KAFKA_ERRORS(X)                                                                                                \
    X(-1, UNKNOWN_SERVER_ERROR, NO)                                                                                    \
    X(0, NONE, NO)                                                                                                     \
    X(1, OFFSET_OUT_OF_RANGE, NO)                                                                                      \
    X(2, CORRUPT_MESSAGE, YES)                                                                                         \
    X(3, UNKNOWN_TOPIC_OR_PARTITION, METADATA)                                                                         \
    X(4, INVALID_FETCH_SIZE, NO)                                                                                       \
    X(5, LEADER_NOT_AVAILABLE, METADATA)                                                                               \
    X(6, NOT_LEADER_OR_FOLLOWER, METADATA)                                                                             \
    X(7, REQUEST_TIMED_OUT, YES)                                                                                       \
    X(8, BROKER_NOT_AVAILABLE, NO)                                                                                     \
    X(9, REPLICA_NOT_AVAILABLE, METADATA)                                                                              \
    X(10, MESSAGE_TOO_LARGE, NO)                                                                                       \
    X(11, STALE_CONTROLLER_EPOCH, NO)                                                                                  \
    X(12, OFFSET_METADATA_TOO_LARGE, NO)                                                                               \
    X(13, NETWORK_EXCEPTION, METADATA)                                                                                 \
    X(14, COORDINATOR_LOAD_IN_PROGRESS, YES)                                                                           \
    X(15, COORDINATOR_NOT_AVAILABLE, COORDINATOR)                                                                      \
    X(16, NOT_COORDINATOR, COORDINATOR)                                                                                \
    X(17, INVALID_TOPIC_EXCEPTION, NO)                                                                                 \
    X(18, RECORD_LIST_TOO_LARGE, NO)                                                                                   \
    X(19, NOT_ENOUGH_REPLICAS, YES)                                                                                    \
    X(20, NOT_ENOUGH_REPLICAS_AFTER_APPEND, YES)                                                                       \
    X(21, INVALID_REQUIRED_ACKS, NO)                                                                                   \
    X(22, ILLEGAL_GENERATION, NO)                                                                                      \
    X(23, INCONSISTENT_GROUP_PROTOCOL, NO)                                                                             \
    X(24, INVALID_GROUP_ID, NO)                                                                                        \
    X(25, UNKNOWN_MEMBER_ID, NO)                                                                                       \
    X(26, INVALID_SESSION_TIMEOUT, NO)                                                                                 \
    X(27, REBALANCE_IN_PROGRESS, NO)                                                                                   \
    X(28, INVALID_COMMIT_OFFSET_SIZE, NO)                                                                              \
    X(29, TOPIC_AUTHORIZATION_FAILED, NO)                                                                              \
    X(30, GROUP_AUTHORIZATION_FAILED, NO)                                                                              \
    X(31, CLUSTER_AUTHORIZATION_FAILED, NO)                                                                            \
    X(32, INVALID_TIMESTAMP, NO)                                                                                       \
    X(33, UNSUPPORTED_SASL_MECHANISM, NO)                                                                              \
    X(34, ILLEGAL_SASL_STATE, NO)                                                                                      \
    X(35, UNSUPPORTED_VERSION, NO)                                                                                     \
    X(36, TOPIC_ALREADY_EXISTS, NO)                                                                                    \
    X(37, INVALID_PARTITIONS, NO)                                                                                      \
    X(38, INVALID_REPLICATION_FACTOR, NO)                                                                              \
    X(39, INVALID_REPLICA_ASSIGNMENT, NO)                                                                              \
    X(40, INVALID_CONFIG, NO)                                                                                          \
    X(41, NOT_CONTROLLER, YES)                                                                                         \
    X(42, INVALID_REQUEST, NO)                                                                                         \
    X(43, UNSUPPORTED_FOR_MESSAGE_FORMAT, NO)                                                                          \
    X(44, POLICY_VIOLATION, NO)                                                                                        \
    X(45, OUT_OF_ORDER_SEQUENCE_NUMBER, NO)                                                                            \
    X(46, DUPLICATE_SEQUENCE_NUMBER, NO)                                                                               \
    X(47, INVALID_PRODUCER_EPOCH, NO)                                                                                  \
    X(48, INVALID_TXN_STATE, NO)                                                                                       \
    X(49, INVALID_PRODUCER_ID_MAPPING, NO)                                                                             \
    X(50, INVALID_TRANSACTION_TIMEOUT, NO)                                                                             \
    X(51, CONCURRENT_TRANSACTIONS, YES)                                                                                \
    X(52, TRANSACTION_COORDINATOR_FENCED, NO)                                                                          \
    X(53, TRANSACTIONAL_ID_AUTHORIZATION_FAILED, NO)                                                                   \
    X(54, SECURITY_DISABLED, NO)                                                                                       \
    X(55, OPERATION_NOT_ATTEMPTED, NO)                                                                                 \
    X(56, KAFKA_STORAGE_ERROR, METADATA)                                                                               \
    X(57, LOG_DIR_NOT_FOUND, NO)                                                                                       \
    X(58, SASL_AUTHENTICATION_FAILED, NO)                                                                              \
    X(59, UNKNOWN_PRODUCER_ID, NO)                                                                                     \
    X(60, REASSIGNMENT_IN_PROGRESS, NO)                                                                                \
    X(61, DELEGATION_TOKEN_AUTH_DISABLED, NO)                                                                          \
    X(62, DELEGATION_TOKEN_NOT_FOUND, NO)                                                                              \
    X(63, DELEGATION_TOKEN_OWNER_MISMATCH, NO)                                                                         \
    X(64, DELEGATION_TOKEN_REQUEST_NOT_ALLOWED, NO)                                                                    \
    X(65, DELEGATION_TOKEN_AUTHORIZATION_FAILED, NO)                                                                   \
    X(66, DELEGATION_TOKEN_EXPIRED, NO)                                                                                \
    X(67, INVALID_PRINCIPAL_TYPE, NO)                                                                                  \
    X(68, NON_EMPTY_GROUP, NO)                                                                                         \
    X(69, GROUP_ID_NOT_FOUND, NO)                                                                                      \
    X(70, FETCH_SESSION_ID_NOT_FOUND, YES)                                                                             \
    X(71, INVALID_FETCH_SESSION_EPOCH, YES)                                                                            \
    X(72, LISTENER_NOT_FOUND, METADATA)                                                                                \
    X(73, TOPIC_DELETION_DISABLED, NO)                                                                                 \
    X(74, FENCED_LEADER_EPOCH, METADATA)                                                                               \
    X(75, UNKNOWN_LEADER_EPOCH, YES)                                                                                   \
    X(76, UNSUPPORTED_COMPRESSION_TYPE, NO)                                                                            \
    X(77, STALE_BROKER_EPOCH, NO)                                                                                      \
    X(78, OFFSET_NOT_AVAILABLE, YES)                                                                                   \
    X(79, MEMBER_ID_REQUIRED, NO)                                                                                      \
    X(80, PREFERRED_LEADER_NOT_AVAILABLE, METADATA)                                                                    \
    X(81, GROUP_MAX_SIZE_REACHED, NO)                                                                                  \
    X(82, FENCED_INSTANCE_ID, NO)                                                                                      \
    X(83, ELIGIBLE_LEADERS_NOT_AVAILABLE, METADATA)                                                                    \
    X(84, ELECTION_NOT_NEEDED, METADATA)                                                                               \
    X(85, NO_REASSIGNMENT_IN_PROGRESS, NO)                                                                             \
    X(86, GROUP_SUBSCRIBED_TO_TOPIC, NO)                                                                               \
    X(87, INVALID_RECORD, NO)                                                                                          \
    X(88, UNSTABLE_OFFSET_COMMIT, YES)                                                                                 \
    X(89, THROTTLING_QUOTA_EXCEEDED, YES)                                                                              \
    X(90, PRODUCER_FENCED, NO)                                                                                         \
    X(91, RESOURCE_NOT_FOUND, NO)                                                                                      \
    X(92, DUPLICATE_RESOURCE, NO)                                                                                      \
    X(93, UNACCEPTABLE_CREDENTIAL, NO)                                                                                 \
    X(94, INCONSISTENT_VOTER_SET, NO)                                                                                  \
    X(95, INVALID_UPDATE_VERSION, NO)                                                                                  \
    X(96, FEATURE_UPDATE_FAILED, NO)                                                                                   \
    X(97, PRINCIPAL_DESERIALIZATION_FAILURE, NO)                                                                       \
    X(98, SNAPSHOT_NOT_FOUND, NO)                                                                                      \
    X(99, POSITION_OUT_OF_RANGE, NO)                                                                                   \
    X(100, UNKNOWN_TOPIC_ID, METADATA)                                                                                 \
    X(101, DUPLICATE_BROKER_REGISTRATION, NO)                                                                          \
    X(102, BROKER_ID_NOT_REGISTERED, NO)                                                                               \
    X(103, INCONSISTENT_TOPIC_ID, METADATA)                                                                            \
    X(104, INCONSISTENT_CLUSTER_ID, NO)                                                                                \
    X(105, TRANSACTIONAL_ID_NOT_FOUND, NO)                                                                             \
    X(106, FETCH_SESSION_TOPIC_ID_ERROR, YES)                                                                          \
    X(107, INELIGIBLE_REPLICA, NO)                                                                                     \
    X(108, NEW_LEADER_ELECTED, NO)                                                                                     \
    X(109, OFFSET_MOVED_TO_TIERED_STORAGE, NO)                                                                         \
    X(110, FENCED_MEMBER_EPOCH, NO)                                                                                    \
    X(111, UNRELEASED_INSTANCE_ID, NO)                                                                                 \
    X(112, UNSUPPORTED_ASSIGNOR, NO)                                                                                   \
    X(113, STALE_MEMBER_EPOCH, NO)                                                                                     \
    X(114, MISMATCHED_ENDPOINT_TYPE, NO)                                                                               \
    X(115, UNSUPPORTED_ENDPOINT_TYPE, NO)                                                                              \
    X(116, UNKNOWN_CONTROLLER_ID, NO)                                                                                  \
    X(117, UNKNOWN_SUBSCRIPTION_ID, NO)                                                                                \
    X(118, TELEMETRY_TOO_LARGE, NO)                                                                                    \
    X(119, INVALID_REGISTRATION, NO)                                                                                   \
    X(120, TRANSACTION_ABORTABLE, NO)                                                                                  \
    X(121, INVALID_RECORD_STATE, NO)                                                                                   \
    X(122, SHARE_SESSION_NOT_FOUND, YES)                                                                               \
    X(123, INVALID_SHARE_SESSION_EPOCH, YES)                                                                           \
    X(124, FENCED_STATE_EPOCH, NO)                                                                                     \
    X(125, INVALID_VOTER_KEY, NO)                                                                                      \
    X(126, DUPLICATE_VOTER, NO)                                                                                        \
    X(127, VOTER_NOT_FOUND, NO)                                                                                        \
    X(128, INVALID_REGULAR_EXPRESSION, NO)                                                                             \
    X(129, REBOOTSTRAP_REQUIRED, NO)                                                                                   \
    X(130, STREAMS_INVALID_TOPOLOGY, NO)                                                                               \
    X(131, STREAMS_INVALID_TOPOLOGY_EPOCH, NO)                                                                         \
    X(132, STREAMS_TOPOLOGY_FENCED, NO)                                                                                \
    X(133, SHARE_SESSION_LIMIT_REACHED, YES)

enum kafka_error {
#define X(code, name, retry) KERR_##name = code,
    KAFKA_ERRORS(X)
#undef X
};

/* "UNKNOWN_TOPIC_OR_PARTITION"; "UNKNOWN_SERVER_ERROR" for a code that is none. */
const char *kafka_error_name(int code);
bool kafka_error_retriable(int code);

/* The error that a client is given for a failed system call or a library's -errno (KERR_KAFKA_STORAGE_ERROR for what
 * the disk did, KERR_CORRUPT_MESSAGE for -EBADMSG, KERR_REQUEST_TIMED_OUT for -ETIMEDOUT ...). */
enum kafka_error kafka_error_of_errno(int negative_errno);

#endif
