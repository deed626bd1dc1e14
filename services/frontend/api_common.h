/* api_common.h - what the handlers of several APIs share: the rule for topic names, who has a partition or a group, and
 * the scatter of one request over several services.
 *
 * Threading: the loop's thread. What is returned lives in the request's arena. */
#ifndef KARST_FRONTEND_API_COMMON_H
#define KARST_FRONTEND_API_COMMON_H

#include "libs/metadata/image.h"
#include "services/frontend/frontend.h"

#define TOPIC_OFFSETS      "__consumer_offsets"
#define TOPIC_TRANSACTIONS "__transaction_state"
#define TOPIC_SHARE_STATE  "__share_group_state"

/* What a set of authorized operations is when nobody asked, and what everybody may do without an authorizer (a bit per
 * AclOperation). */
enum {
    API_OPERATIONS_NOT_ASKED = INT32_MIN,
    API_OPERATIONS_CLUSTER = 8096,
    API_OPERATIONS_TOPIC = 3576,
    API_OPERATIONS_GROUP = 3400
};

/* Kafka's words for INVALID_REQUEST where it has no better ones. */
extern const char API_INVALID_REQUEST_TEXT[];

/* Kafka's rule for the name of a topic (Topic.validate): NULL when it is legal, else its words: "Topic name is invalid:
 * ...". */
const char *api_topic_name_problem(const struct request *r, struct slice name);
bool api_topic_is_internal(struct slice name);

/* Why a partition has no leader: KAFKA_STORAGE_ERROR when a directory of its replicas' nodes has failed (what the
 * broker itself answers in Kafka), else NOT_LEADER_OR_FOLLOWER. */
enum kafka_error api_leaderless(const struct image *image, const struct image_partition *p);

/* The leader of a partition. KERR_NONE, or UNKNOWN_TOPIC_OR_PARTITION, or api_leaderless while it has none. */
enum kafka_error api_partition_leader(const struct image *image, struct slice topic, int32_t partition,
                                      int32_t *ret_node);

/* Who leads by the newest image, for an answer that says that another one does (KIP-951); both -1: there is no such
 * partition any more. */
void api_newest_leader(const struct image *newest, struct uuid topic_id, int32_t partition, int32_t *ret_leader,
                       int32_t *ret_epoch);

/* The group service that owns the coordinator partition of a group. KERR_NONE, or COORDINATOR_NOT_AVAILABLE while the
 * topic or an owner is missing. */
enum kafka_error api_group_owner(const struct image *image, struct slice group_id, int32_t *ret_service);

/* What a group's client is told when a call did not end well: NOT_COORDINATOR when it was certainly not executed,
 * else COORDINATOR_NOT_AVAILABLE; both make it look for the coordinator and ask again. */
enum kafka_error api_group_call_error(enum kafka_error error);

/* A request's timeout as the bus wants it: 1 ms at least. */
uint32_t api_timeout(int32_t timeout_ms);

/* Text of the request's arena or of the program, as a slice; NULL gives null. */
static inline struct slice api_text(const char *s)
{
    return slice_str(s);
}

/* ---- scatter: parts of one request go to the services that have them, the answers come together ---- */

/* Which part of the client's request: topic and partition by their positions, or a group by its position (b is 0). */
struct api_part {
    int32_t a, b;
};

/* Where part i stands in the message that build made of parts, topic by topic; before: the position of part i - 1. */
struct api_part api_position(const struct api_part *parts, size_t i, struct api_part before);

struct api_scatter_ops {
    int16_t api_key;
    /* The request for one service: its parts in the order in which they were added. */
    const void *(*build)(struct request *r, void *ctx, const struct api_part *parts, size_t count);
    /* What came back for them; response is NULL when error is not KERR_NONE (see request_call). */
    void (*take)(struct request *r, void *ctx, const struct api_part *parts, size_t count, enum kafka_error error,
                 void *response);
    /* All has come: must end r. */
    void (*finish)(struct request *r, void *ctx);
};

struct api_scatter;
/* At most max_parts are added. */
struct api_scatter *api_scatter_new(struct request *r, const struct api_scatter_ops *ops, void *ctx, size_t max_parts);
void api_scatter_add(struct api_scatter *s, Karst__Bus__Role role, int32_t service, struct api_part part);
/* Sends one call a service; without any part finish runs at once. version: what the services see as the client's. */
void api_scatter_send(struct api_scatter *s, int16_t version, uint32_t timeout_ms);

#endif
