/* api_api_versions.c - ApiVersions 0-4: what the table of handlers says, and the features of the image (apis.md). */
#include "services/frontend/frontend.h"

#include "kafka/api_versions.h"
#include "kafka/apis.h"
#include "libs/metadata/image.h"

#include <ctype.h>

/* What Kafka 4.3.1 supports; kraft.version has its own place in the image. */
static const struct {
    const char *name;
    int16_t min, max;
} supported[] = {
    {"eligible.leader.replicas.version", 0, 1},
    {"group.version", 0, 1},
    {"kraft.version", 0, 1},
    {"metadata.version", 7, 30},
    {"share.version", 0, 1},
    {"streams.version", 0, 1},
    {"transaction.version", 0, 2},
};

/* [a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])? */
static bool is_software_name(struct slice s)
{
    if (s.size == 0 || !isalnum(s.data[0]) || !isalnum(s.data[s.size - 1]))
        return false;
    for (size_t i = 0; i < s.size; i++)
        if (!isalnum(s.data[i]) && s.data[i] != '-' && s.data[i] != '.')
            return false;
    return true;
}

static void fail(struct request *r, enum kafka_error error, const char *message UNUSED)
{
    struct kafka_api_versions_response response;

    kafka_api_versions_response_init(&response);
    response.error_code = (int16_t)error;
    request_reply(r, &response);
}

static void list_apis(struct request *r, struct kafka_api_versions_response *response)
{
    size_t count = api_handler_count();

    response->api_keys = arena_alloc(r->arena, count * sizeof *response->api_keys);
    for (size_t i = 0; i < count; i++) {
        const struct api_handler *h = api_handler_at(i);
        struct kafka_api_versions_response_api_version *row = &response->api_keys[response->api_keys_count];
        if (r->client.controller_id >= 0 && !h->at_controllers)
            continue;
        row->api_key = h->key;
        row->min_version = h->listed_lower ? h->listed_min : h->version_min;
        row->max_version = h->version_max;
        response->api_keys_count++;
    }
}

/* Version 3 leaves out what has a minimum of 0, as old Java clients refuse it. */
static void list_supported(struct request *r, struct kafka_api_versions_response *response)
{
    response->supported_features = arena_alloc(r->arena, COUNTOF(supported) * sizeof *response->supported_features);
    for (size_t i = 0; i < COUNTOF(supported); i++) {
        if (r->version == 3 && supported[i].min == 0)
            continue;
        struct kafka_api_versions_response_supported_feature_key *k =
            &response->supported_features[response->supported_features_count++];
        k->name = slice_str(supported[i].name);
        k->min_version = supported[i].min;
        k->max_version = supported[i].max;
    }
}

static void add_finalized(struct kafka_api_versions_response *response, struct slice name, int16_t level)
{
    struct kafka_api_versions_response_finalized_feature_key *k =
        &response->finalized_features[response->finalized_features_count++];

    k->name = name;
    k->max_version_level = k->min_version_level = level;
}

static void list_finalized(struct request *r, struct kafka_api_versions_response *response)
{
    int32_t count;
    const struct image_feature *features = image_features(r->image, &count);
    int16_t kraft = image_kraft_version(r->image);

    response->finalized_features_epoch = image_offset(r->image);
    response->finalized_features = arena_alloc(r->arena, (size_t)(count + 1) * sizeof *response->finalized_features);
    for (int32_t i = 0; i < count; i++)
        add_finalized(response, features[i].name, features[i].max);
    if (kraft > 0)
        add_finalized(response, SLICE_OF("kraft.version"), kraft);
}

static void handle(struct request *r)
{
    const struct kafka_api_versions_request *q = r->body;
    struct kafka_api_versions_response response;

    if (r->version >= 3 &&
        (!is_software_name(q->client_software_name) || !is_software_name(q->client_software_version))) {
        fail(r, KERR_INVALID_REQUEST, NULL);
        return;
    }
    kafka_api_versions_response_init(&response);
    list_apis(r, &response);
    if (r->version >= 3) {
        list_supported(r, &response);
        list_finalized(r, &response);
    }
    request_reply(r, &response);
}

const struct api_handler api_api_versions = {.key = KAFKA_API_API_VERSIONS,
                                             .version_min = 0,
                                             .version_max = 4,
                                             .at_controllers = true,
                                             .handle = handle,
                                             .fail = fail};
