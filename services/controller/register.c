/* register.c - bus request Register: one life of a service makes itself known. */
#include "services/controller/quorum.h"

enum { ENDPOINTS_MAX = 64, LISTENERS_MAX = 64, LOG_DIRS_MAX = 1024, FEATURES_MAX = 256 };

static struct slice text(const char *s)
{
    return s ? slice_str(s) : SLICE_EMPTY;
}

static bool take_dirs(const Karst__Bus__RegisterRequest *m, struct arena *a, struct controller_registration *r)
{
    struct uuid *dirs = arena_calloc(a, m->n_log_dirs + 1, sizeof *dirs);
    for (size_t i = 0; i < m->n_log_dirs; i++) {
        if (m->log_dirs[i].len != sizeof dirs->b)
            return false;
        memcpy(dirs[i].b, m->log_dirs[i].data, sizeof dirs->b);
    }
    r->log_dirs = dirs;
    r->log_dir_count = (int32_t)m->n_log_dirs;
    struct slice *paths = arena_calloc(a, m->n_log_dir_paths + 1, sizeof *paths);
    for (size_t i = 0; i < m->n_log_dir_paths; i++)
        paths[i] = text(m->log_dir_paths[i]);
    r->log_dir_paths = paths;
    r->log_dir_path_count = (int32_t)m->n_log_dir_paths;
    return true;
}

static bool take_endpoints(const Karst__Bus__RegisterRequest *m, struct arena *a, struct controller_registration *r)
{
    struct slice *addresses = arena_calloc(a, m->n_endpoints + 1, sizeof *addresses);
    struct image_endpoint *listeners = arena_calloc(a, m->n_listeners + 1, sizeof *listeners);
    for (size_t i = 0; i < m->n_endpoints; i++)
        addresses[i] = text(m->endpoints[i]->address);
    for (size_t i = 0; i < m->n_listeners; i++) {
        const Karst__Bus__Listener *l = m->listeners[i];
        if (l->port > UINT16_MAX || l->security_protocol < 0 || l->security_protocol > INT16_MAX)
            return false;
        listeners[i] =
            (struct image_endpoint){text(l->name), text(l->host), (uint16_t)l->port, (int16_t)l->security_protocol};
    }
    r->addresses = addresses;
    r->address_count = (int32_t)m->n_endpoints;
    r->listeners = listeners;
    r->listener_count = (int32_t)m->n_listeners;
    return true;
}

static bool take_features(const Karst__Bus__RegisterRequest *m, struct arena *a, struct controller_registration *r)
{
    struct image_feature *features = arena_calloc(a, m->n_features + 1, sizeof *features);
    for (size_t i = 0; i < m->n_features; i++) {
        const Karst__Bus__FeatureRange *f = m->features[i];
        if (f->min < 0 || f->min > f->max || f->max > INT16_MAX)
            return false;
        features[i] = (struct image_feature){text(f->name), (int16_t)f->min, (int16_t)f->max};
    }
    r->features = features;
    r->feature_count = (int32_t)m->n_features;
    return true;
}

static bool take_request(const Karst__Bus__RegisterRequest *m, struct arena *a, struct controller_registration *r)
{
    *r = (struct controller_registration){
        .role = m->role,
        .id = m->id,
        .incarnation = m->incarnation,
        .host = text(m->host),
        .rack = text(m->rack),
        .version = text(m->karst_version),
        .previous_epoch = m->previous_broker_epoch,
        .bus_version = (int16_t)MIN(m->bus_version, (uint32_t)INT16_MAX),
    };
    return m->n_endpoints <= ENDPOINTS_MAX && m->n_listeners <= LISTENERS_MAX && m->n_log_dirs <= LOG_DIRS_MAX &&
           m->n_log_dir_paths <= LOG_DIRS_MAX && take_dirs(m, a, r) && take_endpoints(m, a, r) &&
           m->n_features <= FEATURES_MAX && take_features(m, a, r);
}

void register_on_call(void *ctx, struct rpc *rpc)
{
    struct quorum *q = ctx;
    if (quorum_refuses(q, rpc))
        return;
    watching_heard(q, rpc);
    const Karst__Bus__RegisterRequest *m = rpc_call(rpc)->register_;
    const Karst__Bus__Peer *from = rpc_from(rpc);
    struct controller_registration r;
    Karst__Bus__RegisterReply *body = arena_alloc(rpc_arena(rpc), sizeof *body);
    karst__bus__register_reply__init(body);
    const char *message = "The registration is not of who sent it, or malformed.";
    enum kafka_error error = KERR_INVALID_REGISTRATION;
    if ((int32_t)from->role == m->role && from->id == m->id && from->incarnation == m->incarnation &&
        take_request(m, rpc_arena(rpc), &r))
        error = controller_register(q->controller, &r, loop_now_ms(q->loop), &body->epoch, &message);
    body->error = error;
    if (error != KERR_NONE)
        body->error_message = arena_str(rpc_arena(rpc), slice_str(message));
    quorum_record(q);
    body->metadata_offset = image_offset(controller_image(q->controller));
    quorum_answer(q, rpc, KARST__BUS__REPLY__BODY_REGISTER, body);
}
