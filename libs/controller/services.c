/* services.c - who is there: registrations, heartbeats, and the end of sessions.
 *
 * A storage node is a Kafka broker (BrokerHeartbeatManager):
 *
 *   absent --register--> fenced --heartbeat with an image at its registration--> active
 *   active --session over--> fenced        fenced, active --unregister--> absent
 *   active --want_shutdown--> shutting down: leads nothing any more
 *   shutting down --all that are active have the log up to there--> fenced, and may go
 *
 * What it leads follows in the same batch (partition_change.c). A life that ended without controlled shutdown is
 * unclean: what it had may be lost, and it leaves the eligible replicas, too. Any other service is there from its
 * registration until its session ends; that of a front end outlives an orderly stop, too. */
#include <stdlib.h>

#include "kafka/broker_registration_change_record.h"
#include "kafka/no_op_record.h"
#include "kafka/register_broker_record.h"
#include "kafka/unregister_broker_record.h"
#include "karst/service_record.h"
#include "libs/base/bytes.h"
#include "libs/controller/internal.h"

/* The lowest versions that have what these changes carry; Kafka writes them so. */
enum { CHANGE_FENCED = 0, CHANGE_SHUTDOWN = 1, SESSIONS_MAX = 4096 };

/* Brokers have their addresses at front ends, and clients know these: they move when a front end has been away for so
 * long, not when it is started again. */
enum { FRONTEND_SESSION_MS = 30000 };

static const char *const too_many = "Too many services are registered.";

/* ---- sessions ---- */

struct session *controller_session(const struct controller *c, int32_t role, int32_t id)
{
    int32_t key[2] = {role, id};
    struct session *s;
    HASH_FIND(hh, c->sessions, key, sizeof key, s);
    return s;
}

static struct session *touch(struct controller *c, int32_t role, int32_t id, uint64_t incarnation, int64_t epoch,
                             uint64_t now_ms)
{
    struct session *s = controller_session(c, role, id);
    if (s == NULL) {
        s = xcalloc(1, sizeof *s);
        s->key[0] = role;
        s->key[1] = id;
        HASH_ADD(hh, c->sessions, key, sizeof s->key, s);
    }
    if (s->incarnation != incarnation || s->epoch != epoch) {
        s->offline = s->left_alone = false;
        s->full_dir_count = 0;
        s->metadata_offset = s->shutdown_offset = -1;
    }
    s->incarnation = incarnation;
    s->epoch = epoch;
    s->deadline_ms = now_ms + (role == ROLE_FRONTEND ? MAX(c->session_timeout_ms, (uint32_t)FRONTEND_SESSION_MS)
                                                     : c->session_timeout_ms);
    return s;
}

static void drop_session(struct controller *c, struct session *s)
{
    HASH_DEL(c->sessions, s);
    free(s->full_dirs);
    free(s);
}

void controller_free_sessions(struct controller *c)
{
    struct session *s, *next;
    HASH_ITER (hh, c->sessions, s, next)
        drop_session(c, s);
}

/* A new leader of the quorum has heard nobody yet: everybody gets a whole session. */
void controller_start_sessions(struct controller *c, uint64_t now_ms)
{
    int32_t count;
    controller_free_sessions(c);
    const struct image_service *const *services = image_services(c->image, &count);
    for (int32_t i = 0; i < count; i++)
        touch(c, services[i]->role, services[i]->id, services[i]->incarnation, services[i]->epoch, now_ms);
    const struct image_broker *const *brokers = image_brokers(c->image, &count);
    for (int32_t i = 0; i < count; i++)
        if (!brokers[i]->fenced && controller_session(c, ROLE_STORAGE, brokers[i]->id) == NULL)
            touch(c, ROLE_STORAGE, brokers[i]->id, 0, brokers[i]->epoch,
                  now_ms); /* Kafka's, or from a snapshot of Kafka's */
}

/* ---- leaving ---- */

static void put_fenced(struct controller *c, const struct image_broker *b, bool fenced)
{
    struct kafka_broker_registration_change_record m;
    kafka_broker_registration_change_record_init(&m);
    m.broker_id = b->id;
    m.broker_epoch = b->epoch;
    m.fenced = fenced ? 1 : -1;
    controller_put(c, METARECORD_BROKER_REGISTRATION_CHANGE, CHANGE_FENCED, &m);
}

static void fence(struct controller *c, const struct image_broker *b)
{
    struct partition_change change = PARTITION_CHANGE;
    change.leaving = b->id;
    controller_change_all(c, &change);
    put_fenced(c, b, true);
}

static void put_gone(struct controller *c, int32_t role, int32_t id, uint64_t incarnation)
{
    struct karst_service_record m;
    karst_service_record_init(&m);
    m.role = (int8_t)role;
    m.id = id;
    m.incarnation = (int64_t)incarnation;
    m.host = m.version = SLICE_EMPTY;
    m.gone = true;
    controller_put_tag(c, METARECORD_TAG_SERVICE, &m);
}

static void end_session(struct controller *c, struct session *s)
{
    int32_t role = s->key[0], id = s->key[1];
    const struct image_broker *b = role == ROLE_STORAGE ? image_broker(c->image, id) : NULL;
    if (b != NULL && !b->fenced)
        fence(c, b);
    if (image_service(c->image, role, id) != NULL)
        put_gone(c, role, id, s->incarnation);
    drop_session(c, s);
    if (role == ROLE_GROUP || role == ROLE_TXN)
        controller_assign_owners_ahead(c);
}

/* Another of its role that works. */
static bool has_stand_in(const struct controller *c, int32_t role, int32_t id)
{
    int32_t count;
    const struct image_service *const *all = image_services(c->image, &count);
    for (int32_t i = 0; i < count; i++)
        if (all[i]->role == role && all[i]->id != id &&
            (role != ROLE_STORAGE || image_broker_is_active(c->image, all[i]->id)))
            return true;
    return false;
}

/* The front ends of the host may be all that is left of it. */
static void leave_frontends_alone(const struct controller *c, struct slice host)
{
    int32_t count;
    const struct image_service *const *all = image_services(c->image, &count);
    for (int32_t i = 0; host.size > 0 && i < count; i++) {
        struct session *s = all[i]->role == ROLE_FRONTEND && slice_eq(all[i]->host, host)
                                ? controller_session(c, ROLE_FRONTEND, all[i]->id)
                                : NULL;
        if (s != NULL)
            s->left_alone = true;
    }
}

/* Nothing is left of its host, some of which went by evidence, but for front ends: nobody there starts these again. */
static bool is_all_of_host(const struct controller *c, const struct session *frontend, struct slice host)
{
    int32_t count;
    const struct image_service *const *all = image_services(c->image, &count);
    if (!frontend->left_alone)
        return false;
    for (int32_t i = 0; i < count; i++)
        if (all[i]->role != ROLE_FRONTEND && slice_eq(all[i]->host, host))
            return false;
    return true;
}

bool controller_end_session(struct controller *c, int32_t role, int32_t id, uint64_t incarnation)
{
    const struct image_service *service = image_service(c->image, role, id);
    struct session *s = controller_session(c, role, id);
    if (s == NULL || service == NULL || service->incarnation != incarnation || s->incarnation != incarnation ||
        !has_stand_in(c, role, id) || (role == ROLE_FRONTEND && !is_all_of_host(c, s, service->host)))
        return false;
    if (role != ROLE_FRONTEND)
        leave_frontends_alone(c, service->host);
    end_session(c, s);
    return true;
}

/* One that is alive all the same registers again with its next heartbeat. */
enum kafka_error controller_unregister_broker(struct controller *c, int32_t id)
{
    const struct image_broker *b = image_broker(c->image, id);
    const struct image_service *service = image_service(c->image, ROLE_STORAGE, id);
    struct session *s = controller_session(c, ROLE_STORAGE, id);
    if (b == NULL)
        return KERR_BROKER_ID_NOT_REGISTERED;
    struct partition_change change = PARTITION_CHANGE;
    change.leaving = id;
    change.for_good = true;
    controller_change_all(c, &change);
    struct kafka_unregister_broker_record m = {.broker_id = id, .broker_epoch = b->epoch};
    controller_put(c, METARECORD_UNREGISTER_BROKER, 0, &m);
    if (service != NULL)
        put_gone(c, ROLE_STORAGE, id, service->incarnation);
    if (s != NULL)
        drop_session(c, s);
    return KERR_NONE;
}

/* ---- registration ---- */

/* Two nodes with one directory: a copied disk. */
static bool is_dir_of_another(const struct controller *c, int32_t id, struct uuid dir)
{
    int32_t count;
    const struct image_broker *const *all = image_brokers(c->image, &count);
    for (int32_t i = 0; i < count; i++)
        for (int32_t n = 0; n < all[i]->log_dir_count; n++)
            if (all[i]->id != id && uuid_eq(all[i]->log_dirs[n], dir))
                return true;
    return false;
}

/* A life that has none of the directories of the one before is no next life of it: the lock on them does not keep twins
 * out, and the first stays as long as it is heard of. */
static bool is_twin(const struct controller *c, const struct controller_registration *r)
{
    const struct image_broker *old = r->role == ROLE_STORAGE ? image_broker(c->image, r->id) : NULL;
    const struct session *s = controller_session(c, r->role, r->id);
    if (old == NULL || old->fenced || s == NULL || s->incarnation == r->incarnation || old->log_dir_count == 0)
        return false;
    for (int32_t i = 0; i < r->log_dir_count; i++)
        for (int32_t n = 0; n < old->log_dir_count; n++)
            if (uuid_eq(r->log_dirs[i], old->log_dirs[n]))
                return false;
    return true;
}

/* The features of a registration; one that names none is of a build that has what this one has. */
static struct image_feature *features_of(const struct controller *c, const struct controller_registration *r,
                                         int32_t *ret_count)
{
    *ret_count = r->feature_count > 0 ? r->feature_count : METADATA_FEATURES;
    struct image_feature *f = arena_calloc(c->scratch, (size_t)*ret_count, sizeof *f);
    for (int32_t i = 0; i < *ret_count; i++)
        f[i] = r->feature_count > 0 ? r->features[i]
                                    : (struct image_feature){slice_str(metadata_features[i].name),
                                                             metadata_features[i].min, metadata_features[i].max};
    return f;
}

/* In Kafka's words; NULL: it understands all that is finalized. */
static const char *not_understood(const struct controller *c, const struct controller_registration *r)
{
    int32_t finalized_count, count;
    const struct image_feature *finalized = image_features(c->image, &finalized_count);
    const struct image_feature *has = features_of(c, r, &count);
    for (int32_t i = 0; i < finalized_count; i++) {
        struct image_feature range = {.min = 0, .max = 0};
        for (int32_t n = 0; n < count; n++)
            if (slice_eq(has[n].name, finalized[i].name))
                range = has[n];
        if (finalized[i].max < range.min || finalized[i].max > range.max)
            return arena_printf(
                c->scratch,
                "Unable to register because the broker does not support finalized version %d of " SLICE_F
                ". The broker wants a version between %d and %d, inclusive.",
                finalized[i].max, SLICE_A(finalized[i].name), range.min, range.max);
    }
    return NULL;
}

static enum kafka_error check_registration(const struct controller *c, const struct controller_registration *r,
                                           const char **ret_message)
{
    *ret_message = NULL;
    if (r->role <= ROLE_CONTROLLER || r->role > ROLE_MAX || r->id < 0 || r->address_count < 1)
        *ret_message = "A registration needs a role, an id that is not negative, and an address.";
    else if (r->role == ROLE_STORAGE && r->log_dir_count < 1)
        *ret_message = "No directories specified in request";
    else if (controller_session(c, r->role, r->id) == NULL && HASH_COUNT(c->sessions) >= SESSIONS_MAX)
        *ret_message = too_many;
    for (int32_t i = 0; r->role == ROLE_STORAGE && i < r->log_dir_count && *ret_message == NULL; i++) {
        if (uuid_is_zero(r->log_dirs[i]) || uuid_eq(r->log_dirs[i], UUID_DIR_UNASSIGNED) ||
            uuid_eq(r->log_dirs[i], UUID_DIR_LOST))
            *ret_message = "Reserved directory ID in request";
        else if (is_dir_of_another(c, r->id, r->log_dirs[i]))
            *ret_message = "Another broker is already registered with a directory of the request";
        for (int32_t n = 0; n < i && *ret_message == NULL; n++)
            if (uuid_eq(r->log_dirs[n], r->log_dirs[i]))
                *ret_message = "Duplicate directory ID in request";
    }
    if (*ret_message != NULL)
        return KERR_INVALID_REGISTRATION;
    *ret_message = not_understood(c, r);
    if (*ret_message != NULL)
        return KERR_UNSUPPORTED_VERSION;
    if (!is_twin(c, r))
        return KERR_NONE;
    *ret_message = "Another broker is registered with that broker id.";
    return KERR_DUPLICATE_BROKER_REGISTRATION;
}

/* Kafka names a life by a uuid, Karst by 64 random bits: the uuid says the same. */
static struct uuid incarnation_uuid(uint64_t incarnation)
{
    struct uuid u;
    uint8_t bytes[16];
    put_u64(bytes, incarnation);
    put_u64(bytes + 8, ~incarnation);
    while (uuid_from_random(bytes, &u) != 0)
        bytes[0]++;
    return u;
}

/* What an earlier life of the broker leads is led by nobody until the new one is ready. One that was silent for too
 * long and registers again is no other life: it has lost nothing. */
static void end_former_life(struct controller *c, const struct controller_registration *r)
{
    const struct image_broker *old = image_broker(c->image, r->id);
    if (old == NULL)
        return;
    bool same_life = uuid_eq(old->incarnation, incarnation_uuid(r->incarnation));
    bool unclean = !same_life && r->previous_epoch != old->epoch;
    struct partition_change change = PARTITION_CHANGE;
    change.leaving = r->id;
    change.unclean = unclean;
    if (!old->fenced || unclean)
        controller_change_all(c, &change);
}

static bool put_broker(struct controller *c, const struct controller_registration *r, struct arena *arena,
                       int64_t *ret_epoch)
{
    int32_t feature_count;
    struct image_feature *features = features_of(c, r, &feature_count);
    *ret_epoch = controller_next_offset(c);
    struct image_broker b = {
        .id = r->id,
        .incarnation = incarnation_uuid(r->incarnation),
        .epoch = *ret_epoch,
        .fenced = true,
        .rack = r->rack.size > 0 ? r->rack : SLICE_NULL,
        .endpoints = r->listeners,
        .endpoint_count = r->listener_count,
        .features = features,
        .feature_count = feature_count,
        .log_dirs = r->log_dirs,
        .log_dir_count = r->log_dir_count,
    };
    struct kafka_register_broker_record m;
    metadata_register_broker(c->image, &b, arena, &m);
    return controller_put(c, METARECORD_REGISTER_BROKER, metadata_record_version(c->image, METARECORD_REGISTER_BROKER),
                          &m);
}

static bool put_service(struct controller *c, const struct controller_registration *r, int64_t epoch,
                        struct arena *arena)
{
    struct image_service s = {
        .role = r->role,
        .id = r->id,
        .incarnation = r->incarnation,
        .epoch = epoch,
        .host = slice_is_null(r->host) ? SLICE_EMPTY : r->host,
        .rack = r->rack.size > 0 ? r->rack : SLICE_NULL,
        .version = slice_is_null(r->version) ? SLICE_EMPTY : r->version,
        .addresses = r->addresses,
        .address_count = r->address_count,
        .listeners = r->listeners,
        .listener_count = r->listener_count,
        .log_dirs = r->log_dir_paths,
        .log_dir_count = r->log_dir_path_count,
        .bus_version = r->bus_version > 0 ? r->bus_version : 1,
    };
    struct karst_service_record m;
    metadata_service_record(&s, arena, &m);
    return controller_put_tag(c, METARECORD_TAG_SERVICE, &m);
}

enum kafka_error controller_register(struct controller *c, const struct controller_registration *r, uint64_t now_ms,
                                     int64_t *ret_epoch, const char **ret_message)
{
    enum kafka_error error = check_registration(c, r, ret_message);
    if (error != KERR_NONE)
        return error;
    const struct image_service *old = image_service(c->image, r->role, r->id);
    const struct image_broker *broker = r->role == ROLE_STORAGE ? image_broker(c->image, r->id) : NULL;
    bool same_life = old != NULL && old->incarnation == r->incarnation &&
                     (r->role != ROLE_STORAGE || (broker != NULL && broker->epoch == old->epoch));
    if (same_life) {
        *ret_epoch = old->epoch;
        touch(c, r->role, r->id, r->incarnation, old->epoch, now_ms);
        return KERR_NONE;
    }
    struct controller_mark mark = controller_mark(c);
    int64_t epoch;
    bool fits;
    if (r->role == ROLE_STORAGE) {
        end_former_life(c, r);
        fits = put_broker(c, r, c->scratch, &epoch) && put_service(c, r, epoch, c->scratch);
    } else {
        epoch = controller_next_offset(c);
        fits = put_service(c, r, epoch, c->scratch);
    }
    if (!fits) {
        controller_rewind(c, mark);
        *ret_message = "A name or address is longer than 32767 bytes.";
        return KERR_INVALID_REGISTRATION;
    }
    touch(c, r->role, r->id, r->incarnation, epoch, now_ms);
    if (r->role == ROLE_GROUP || r->role == ROLE_TXN)
        controller_assign_owners_ahead(c);
    *ret_epoch = epoch;
    return KERR_NONE;
}

/* ---- heartbeats ---- */

static void unfence(struct controller *c, const struct image_broker *b)
{
    struct partition_change change = PARTITION_CHANGE;
    change.coming_back = b->id;
    put_fenced(c, b, false);
    controller_change_all(c, &change);
}

static bool leads_anything(const struct controller *c, int32_t broker)
{
    int32_t count;
    const struct image_topic *const *topics = image_topics(c->image, &count);
    for (int32_t i = 0; i < count; i++)
        for (int32_t n = 0; n < topics[i]->partition_count; n++)
            if (image_partition(topics[i], n)->leader == broker)
                return true;
    return false;
}

/* How far the log has come at all storage nodes that are active, but for one; INT64_MAX: there are no others. */
static int64_t lowest_active_offset(const struct controller *c, int32_t but)
{
    int64_t lowest = INT64_MAX;
    for (const struct session *s = c->sessions; s != NULL; s = s->hh.next)
        if (s->key[0] == ROLE_STORAGE && s->key[1] != but && image_broker_is_active(c->image, s->key[1]))
            lowest = MIN(lowest, s->metadata_offset);
    return lowest;
}

static void begin_shutdown(struct controller *c, const struct image_broker *b)
{
    struct partition_change change = PARTITION_CHANGE;
    change.leaving = b->id;
    struct kafka_broker_registration_change_record m;
    kafka_broker_registration_change_record_init(&m);
    m.broker_id = b->id;
    m.broker_epoch = b->epoch;
    m.in_controlled_shutdown = 1;
    controller_put(c, METARECORD_BROKER_REGISTRATION_CHANGE, CHANGE_SHUTDOWN, &m);
    controller_change_all(c, &change);
}

/* It goes on serving reads until those who lead in its place know that they do. With nobody else active there is nobody
 * to wait for: all in one batch. */
static void shut_down(struct controller *c, const struct image_broker *b, struct session *s,
                      struct controller_heartbeat_answer *ret_answer)
{
    int64_t others = lowest_active_offset(c, b->id);
    if (!b->fenced && !b->in_controlled_shutdown && leads_anything(c, b->id)) {
        begin_shutdown(c, b);
        s->shutdown_offset = controller_next_offset(c) - 1;
        if (others == INT64_MAX)
            put_fenced(c, b, true);
    } else if (!b->fenced && others >= s->shutdown_offset) {
        fence(c, b);
    }
    ret_answer->should_shut_down = b->fenced || others >= s->shutdown_offset;
    ret_answer->is_fenced = ret_answer->should_shut_down;
}

static bool has_dir(const struct uuid *dirs, int32_t count, struct uuid id)
{
    for (int32_t i = 0; i < count; i++)
        if (uuid_eq(dirs[i], id))
            return true;
    return false;
}

static bool has_all_failed(const struct image_broker *b, const struct controller_heartbeat *h)
{
    for (int32_t i = 0; i < b->log_dir_count; i++)
        if (!has_dir(h->offline_dirs, h->offline_dir_count, b->log_dirs[i]))
            return false;
    return b->log_dir_count > 0;
}

static void storage_heartbeat(struct controller *c, const struct controller_heartbeat *h, struct session *s,
                              struct controller_heartbeat_answer *ret_answer)
{
    const struct image_broker *b = image_broker(c->image, h->id);
    s->metadata_offset = MAX(s->metadata_offset, h->metadata_offset);
    if (h->want_shutdown) {
        shut_down(c, b, s, ret_answer);
        return;
    }
    s->offline = s->offline || has_all_failed(b, h);
    if (s->offline && !b->fenced)
        fence(c, b);
    /* What is decided below looks at the directories that are left: the next beat or Follow goes on from there. */
    bool news = !s->offline && controller_fail_dirs(c, b, h);
    bool caught_up = h->metadata_offset >= b->epoch && !b->in_controlled_shutdown && !s->offline && !news;
    if (b->fenced && caught_up)
        unfence(c, b);
    controller_cordon_dirs(c, b, h);
    controller_note_full_dirs(s, h);
    if (!b->fenced && caught_up)
        controller_leave_full_dirs(c, b, s);
    ret_answer->is_fenced = s->offline || (b->fenced && !caught_up);
}

enum kafka_error controller_heartbeat(struct controller *c, const struct controller_heartbeat *h, uint64_t now_ms,
                                      struct controller_heartbeat_answer *ret_answer)
{
    struct session *s = controller_session(c, h->role, h->id);
    const struct image_service *service = image_service(c->image, h->role, h->id);
    const struct image_broker *b = h->role == ROLE_STORAGE ? image_broker(c->image, h->id) : NULL;
    *ret_answer = (struct controller_heartbeat_answer){0};
    if (service == NULL || service->incarnation != h->incarnation || (h->role == ROLE_STORAGE && b == NULL))
        return KERR_BROKER_ID_NOT_REGISTERED;
    if (service->epoch != h->epoch || (b != NULL && b->epoch != h->epoch))
        return KERR_STALE_BROKER_EPOCH;
    if (h->want_shutdown && h->role != ROLE_STORAGE) {
        ret_answer->should_shut_down = true;
        if (s != NULL && h->role != ROLE_FRONTEND)
            end_session(c, s);
        return KERR_NONE;
    }
    s = touch(c, h->role, h->id, h->incarnation, h->epoch, now_ms);
    if (h->role == ROLE_STORAGE)
        storage_heartbeat(c, h, s, ret_answer);
    return KERR_NONE;
}

void controller_followed(struct controller *c, int32_t role, int32_t id, uint64_t incarnation, int64_t metadata_offset)
{
    const struct image_service *service = image_service(c->image, role, id);
    const struct image_broker *b = role == ROLE_STORAGE ? image_broker(c->image, id) : NULL;
    struct session *s = controller_session(c, role, id);
    if (b == NULL || service == NULL || s == NULL || service->incarnation != incarnation || service->epoch != b->epoch)
        return;
    s->metadata_offset = MAX(s->metadata_offset, metadata_offset);
    if (b->fenced && !b->in_controlled_shutdown && !s->offline && metadata_offset >= b->epoch)
        unfence(c, b);
}

/* ---- time ---- */

/* One at a time: the records of one end are in the image before the next is decided. */
static uint64_t end_sessions(struct controller *c, uint64_t now_ms)
{
    uint64_t next = UINT64_MAX;
    struct session *s, *after;
    HASH_ITER (hh, c->sessions, s, after) {
        if (s->deadline_ms <= now_ms && c->record_count == 0)
            end_session(c, s);
        else
            next = MIN(next, MAX(s->deadline_ms, now_ms + 1));
    }
    return next;
}

uint64_t controller_tick(struct controller *c, uint64_t now_ms)
{
    uint64_t next = end_sessions(c, now_ms);
    next = MIN(next, controller_elect_when_due(c, now_ms));
    if (c->idle_ms == 0)
        return next;
    if (controller_next_offset(c) != c->idle_offset) {
        c->idle_offset = controller_next_offset(c);
        c->idle_since_ms = now_ms;
    }
    if (now_ms >= c->idle_since_ms + c->idle_ms) {
        struct kafka_no_op_record m;
        memset(&m, 0, sizeof m);
        controller_put(c, METARECORD_NO_OP, 0, &m);
        c->idle_offset = controller_next_offset(c);
        c->idle_since_ms = now_ms;
    }
    return MIN(next, c->idle_since_ms + c->idle_ms);
}
