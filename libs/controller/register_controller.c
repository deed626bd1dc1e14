/* register_controller.c - ControllerRegistration (70, KIP-919): a life of a controller says where it is found and which
 * levels of the features its build understands. Nothing depends on it but what tools are told, and UpdateFeatures. */
#include "kafka/controller_registration.h"
#include "kafka/register_controller_record.h"
#include "libs/controller/internal.h"

enum { ENTRIES_MAX = 64 };

static bool is_known(const struct controller *c, const struct kafka_controller_registration_request *q,
                     struct arena *arena)
{
    const struct kafka_register_controller_record *old = image_controller(c->image, q->controller_id, arena);
    return old != NULL && uuid_eq(old->incarnation_id, q->incarnation_id);
}

enum kafka_error controller_register_controller(struct controller *c,
                                                const struct kafka_controller_registration_request *q,
                                                struct arena *arena, const char **ret_message)
{
    struct kafka_register_controller_record m;
    *ret_message = NULL;
    if (image_feature_level(c->image, "metadata.version") < METADATA_VERSION_CONTROLLERS) {
        *ret_message = "The current MetadataVersion is too old to support controller registrations.";
        return KERR_UNSUPPORTED_VERSION;
    }
    if (q->controller_id < 0 || q->listeners_count > ENTRIES_MAX || q->features_count > ENTRIES_MAX) {
        *ret_message = "The registration has an id below 0, or too many listeners or features.";
        return KERR_INVALID_REGISTRATION;
    }
    if (is_known(c, q, arena))
        return KERR_NONE;
    kafka_register_controller_record_init(&m);
    m.controller_id = q->controller_id;
    m.incarnation_id = q->incarnation_id;
    m.end_points = arena_calloc(arena, (size_t)q->listeners_count + 1, sizeof *m.end_points);
    m.features = arena_calloc(arena, (size_t)q->features_count + 1, sizeof *m.features);
    for (; m.end_points_count < q->listeners_count; m.end_points_count++) {
        const struct kafka_controller_registration_request_listener *l = &q->listeners[m.end_points_count];
        m.end_points[m.end_points_count] = (struct kafka_register_controller_record_controller_endpoint){
            .name = l->name, .host = l->host, .port = l->port, .security_protocol = l->security_protocol};
    }
    for (; m.features_count < q->features_count; m.features_count++) {
        const struct kafka_controller_registration_request_feature *f = &q->features[m.features_count];
        m.features[m.features_count] = (struct kafka_register_controller_record_controller_feature){
            .name = f->name,
            .min_supported_version = f->min_supported_version,
            .max_supported_version = f->max_supported_version};
    }
    if (controller_put(c, METARECORD_REGISTER_CONTROLLER, 0, &m))
        return KERR_NONE;
    *ret_message = "The registration has a text that is too long.";
    return KERR_INVALID_REGISTRATION;
}
