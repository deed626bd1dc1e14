/* update_features.c - UpdateFeatures (57), all versions. Decided by libs/controller; answered when it is committed.
 * kraft.version is the quorum's: its core writes the voters down that were static so far (KIP-853). */
#include "kafka/update_features.h"
#include "kafka/apis.h"
#include "services/controller/quorum.h"

typedef struct kafka_update_features_response response_type;

/* Does it ask for dynamic voters where they are static? */
static bool upgrades_quorum(const struct quorum *q, const struct kafka_update_features_request *request)
{
    for (int32_t i = request->feature_updates_count; i-- > 0;)
        if (slice_eq_str(request->feature_updates[i].feature, "kraft.version"))
            return request->feature_updates[i].max_version_level > kraft_version(q->kraft);
    return false;
}

static void refuse(struct arena *a, response_type *p, enum kafka_error error, const char *why)
{
    p->error_code = (int16_t)error;
    p->results_count = 0;
    p->error_message = slice_str(
        arena_printf(a,
                     "The update failed for all features since the following feature had an error: Invalid update "
                     "version 1 for feature kraft.version.%s%s",
                     why != NULL ? " " : "", why != NULL ? why : ""));
}

void update_features_reply(struct rpc *rpc, void *response, enum kafka_error error, const char *text, int64_t offset)
{
    if (error != KERR_NONE)
        refuse(rpc_arena(rpc), response, error, text);
    rpc_reply_kafka(rpc, response, offset);
}

void update_features_on_call(void *ctx, struct rpc *rpc)
{
    struct quorum *q = ctx;
    if (quorum_refuses(q, rpc))
        return;
    const struct kafka_update_features_request *request = rpc_kafka_request(rpc);
    if (request == NULL)
        return;
    response_type *response = arena_alloc(rpc_arena(rpc), sizeof *response);
    const char *why = upgrades_quorum(q, request) ? kraft_upgrade_refusal(q->kraft) : NULL;
    kafka_update_features_response_init(response);
    if (why != NULL)
        refuse(rpc_arena(rpc), response, KERR_INVALID_UPDATE_VERSION, why);
    else
        controller_update_features(q->controller, request, (int16_t)rpc_call(rpc)->kafka->api_version, rpc_arena(rpc),
                                   response);
    if (response->error_code != KERR_NONE || request->validate_only || !upgrades_quorum(q, request)) {
        quorum_answer(q, rpc, KARST__BUS__REPLY__BODY_KAFKA, response);
        return;
    }
    quorum_record(q);
    struct kraft_message m = {.kind = KRAFT_UPGRADE, .from = -1, .leader = -1};
    quorum_ask_core(q, rpc, KAFKA_API_UPDATE_FEATURES, response, &m);
}
