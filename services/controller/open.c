/* open.c - from a data directory to a leader of the quorum: locks, newest snapshot, log, election. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#include "libs/base/log.h"
#include "libs/config/meta_properties.h"
#include "libs/log/logdir.h"
#include "services/controller/quorum.h"

enum { REPLAY_BYTES = 4 << 20, BOOTSTRAP_MAX = 1 << 20 };

static void on_note(void *ctx, int level, const char *text)
{
    (void)ctx;
    log_write((enum log_level)level, "%s", text);
}

static int complain(const char *where, const char *what, int error)
{
    log_error("%s: %s: %s", where, what, strerror(-error));
    return STATUS_STORAGE;
}

/* ---- the lock ---- */

static int lock(struct quorum *q)
{
    int holder = 0;
    int error = logdir_lock(q->log_dir, KARST__BUS__ROLE__ROLE_CONTROLLER, &q->lock_fd, &holder);
    if (error == -EWOULDBLOCK) {
        log_error("%s is in use by process %d, a Kafka or another controller", q->log_dir, holder);
        return STATUS_STORAGE;
    }
    return error == 0 ? 0 : complain(q->log_dir, "lock", error);
}

/* ---- what is on disk ---- */

static int load_snapshot(struct quorum *q)
{
    int64_t end = 0;
    int32_t epoch = 0;
    struct slice bytes = kraft_store_snapshot(q->store, &end, &epoch);
    const char *cluster_id = service_cluster_id(q->service);
    if (slice_is_null(bytes)) {
        q->committed = image_empty(cluster_id);
        return 0;
    }
    int error = image_load(cluster_id, bytes, end, epoch, &q->committed);
    kraft_store_forget(q->store);
    return error == 0 ? 0 : complain(q->log_dir, "the newest snapshot of the metadata log cannot be understood", error);
}

static int open_store(struct quorum *q)
{
    struct kraft_store_options o = {
        .fs = &file_system_real,
        .log_dir = q->log_dir,
        .segment_bytes = config_int(q->config, "metadata.log.segment.bytes"),
        .segment_ms = config_long(q->config, "metadata.log.segment.ms"),
        .now_wall_ms = loop_wall_ms(q->loop),
        .note = on_note,
    };
    char *message = NULL;
    if (kraft_store_open(&o, &q->store, &message) != 0) {
        log_error("%s", message);
        free(message);
        return STATUS_STORAGE;
    }
    return load_snapshot(q);
}

/* ---- the quorum ---- */

/* What the voters' record says of us: where a Kafka of this node id would serve its controller listeners. */
static void fill_self(const struct quorum *q, struct kraft_voter *v)
{
    struct arena *a = arena_new(0);
    struct config_listeners endpoints;
    quorum_endpoints(q, a, &endpoints);
    *v = (struct kraft_voter){.kraft_version_max = 1};
    for (size_t i = 0; i < endpoints.count && v->endpoint_count < KRAFT_ENDPOINTS_MAX; i++) {
        struct kraft_endpoint *e = &v->endpoints[v->endpoint_count++];
        snprintf(e->name, sizeof e->name, "%s", endpoints.items[i].name);
        snprintf(e->host, sizeof e->host, "%s", endpoints.items[i].host);
        e->port = endpoints.items[i].port;
    }
    arena_free(a);
}

/* controller.quorum.voters, ID@HOST:PORT ...: the voters of a static quorum, as Kafka had it before KIP-853. Their
 * directory ids are not known. -EINVAL: malformed, or too many. */
static int read_static_voters(const struct quorum *q, struct kraft_voters *v)
{
    struct arena *a = arena_new(0);
    struct config_list all = config_list(q->config, "controller.quorum.voters", a);
    struct config_list names = config_list(q->config, "controller.listener.names", a);
    int error = all.count > KRAFT_VOTERS_MAX ? -EINVAL : 0;
    for (size_t i = 0; i < all.count && error == 0; i++) {
        struct kraft_voter *one = &v->voter[v->count++];
        struct kraft_endpoint *e = &one->endpoints[0];
        char *at;
        long id = strtol(all.items[i], &at, 10);
        *one = (struct kraft_voter){.id = (int32_t)id, .endpoint_count = 1};
        snprintf(e->name, sizeof e->name, "%s", names.count > 0 ? names.items[0] : "");
        if (at == all.items[i] || *at != '@' || id < 0 || id > INT32_MAX ||
            config_endpoint(at + 1, e->host, &e->port) != 0)
            error = -EINVAL;
    }
    arena_free(a);
    return error;
}

/* What counts until the log behind the snapshot names voters. None: of a controller that is to join others. Else the
 * quorum is static, of this node alone when the configuration names nobody. */
static int find_voters(struct quorum *q, const struct meta_properties *meta, struct kraft_options *o)
{
    struct slice value = image_voters(q->committed);
    o->kraft_version = image_kraft_version(q->committed);
    if (!slice_is_null(value))
        return kraft_voters_decode(value, &o->voters) == 0
                   ? 0
                   : complain(q->log_dir, "the voters in the metadata log", -EBADMSG);
    if (o->auto_join && kraft_store_start(q->store) == 0)
        return 0;
    if (read_static_voters(q, &o->voters) != 0) {
        log_error("controller.quorum.voters: ID@HOST:PORT was expected, of %d controllers at most", KRAFT_VOTERS_MAX);
        return STATUS_CONFIG;
    }
    if (o->voters.count > 0)
        return 0;
    o->voters.count = 1;
    o->voters.voter[0] = (struct kraft_voter){.id = meta->node_id, .directory_id = meta->directory_id};
    return 0;
}

/* Of several controllers whose logs name no voters each would lead alone. */
static int check_static(const struct quorum *q, size_t controllers)
{
    const struct kraft_voters *v = kraft_voters(q->kraft);
    if (kraft_version(q->kraft) > 0 || v->count != 1 || controllers < 2)
        return 0;
    log_error("%s: the metadata log has static voters (kraft.version 0), and controller.quorum.voters does not name "
              "several. A controller that was alone runs alone until: kafka-features.sh upgrade --feature "
              "kraft.version=1",
              q->log_dir);
    return STATUS_CONFIG;
}

/* Voters that the configuration does not name cannot be reached: with too many of them nobody is ever elected. */
static int check_voters(const struct quorum *q, const int32_t *others, size_t count)
{
    const struct kraft_voters *v = kraft_voters(q->kraft);
    int32_t known = 0;
    for (int32_t i = 0; i < v->count; i++) {
        bool named = v->voter[i].id == service_id(q->service);
        for (size_t j = 0; j < count; j++)
            named = named || others[j] == v->voter[i].id;
        known += named;
        if (!named)
            log_warn("karst.controllers does not name node %d, a voter of the metadata log", v->voter[i].id);
    }
    if (v->count == 0 || known > v->count / 2)
        return 0;
    log_error("%s: the metadata log has %d voters, and karst.controllers names %d of them: no leader can be elected",
              q->log_dir, v->count, known);
    return STATUS_CONFIG;
}

bool quorum_has_joined(const struct quorum *q)
{
    char *path = xasprintf("%s/" QUORUM_JOINED_FILE, q->log_dir);
    bool there = access(path, F_OK) == 0;
    free(path);
    return there;
}

static void fill_times(const struct quorum *q, struct kraft_options *o)
{
    o->election_ms = (uint32_t)config_int(q->config, "controller.quorum.election.timeout.ms");
    o->fetch_ms = (uint32_t)config_int(q->config, "controller.quorum.fetch.timeout.ms");
    o->backoff_max_ms = (uint32_t)config_int(q->config, "controller.quorum.election.backoff.max.ms");
    o->retry_ms = (uint32_t)config_int(q->config, "controller.quorum.retry.backoff.ms");
    o->request_ms = (uint32_t)config_int(q->config, "controller.quorum.request.timeout.ms");
    o->fetch_bytes = (uint32_t)config_int(q->config, "controller.quorum.fetch.max.bytes");
    o->snapshot_bytes = (uint32_t)config_int(q->config, "controller.quorum.fetch.snapshot.max.bytes");
    o->now_ms = loop_now_ms(q->loop);
}

/* The voters that the log names behind the snapshot: all of it is read once. */
static int replay(struct quorum *q)
{
    struct buf b CLEANUP(buf_free) = {0};
    int64_t at = image_offset(q->committed) + 1, end = kraft_store_end(q->store);
    while (at < end) {
        b.size = 0;
        int error = kraft_store_read(q->store, at, end, REPLAY_BYTES, &b);
        struct slice rest = buf_slice(&b);
        struct batch batch;
        if (error == 0 && b.size == 0)
            error = -EBADMSG;
        if (error == 0)
            error = kraft_replay(q->kraft, rest);
        if (error != 0)
            return complain(q->log_dir, "read the metadata log", error);
        while (batch_next(&rest, &batch, NULL) == 1)
            at = batch_next_offset(&batch);
    }
    return 0;
}

static int make_kraft(struct quorum *q, const struct meta_properties *meta)
{
    struct kraft_options *o = xcalloc(1, sizeof *o);
    struct kraft_epoch_start *epochs = NULL;
    int32_t others[SERVICE_CONTROLLERS_MAX];
    *o = (struct kraft_options){
        .node_id = meta->node_id,
        .directory_id = meta->directory_id,
        .state = {.leader_id = -1, .voted_id = -1},
        .log_start = kraft_store_start(q->store),
        .log_end = kraft_store_end(q->store),
        .snapshot_end = -1,
        .others = others,
        .other_count = service_controllers(q->service, others),
    };
    (void)kraft_store_has_snapshot(q->store, &o->snapshot_end, &o->snapshot_epoch);
    o->log_has_voters = o->snapshot_end > 0;
    kraft_store_epochs(q->store, &epochs, &o->epoch_count);
    o->epochs = epochs;
    fill_times(q, o);
    fill_self(q, &o->self);
    o->update_self = config_bool(q->config, "karst.quorum.update.voter");
    o->auto_join = config_bool(q->config, "controller.quorum.auto.join.enable");
    kraft_store_state(q->store, &o->state);
    int status = find_voters(q, meta, o);
    o->auto_join = o->auto_join && !quorum_has_joined(q);
    if (status == 0 && getrandom(&o->seed, sizeof o->seed, 0) != (ssize_t)sizeof o->seed)
        status = complain("getrandom", "read", -errno);
    if (status == 0 && kraft_new(o, &q->kraft) != 0)
        status = complain(q->log_dir, "the voters or epochs of the metadata log", -EBADMSG);
    free(epochs);
    free(o);
    if (status == 0)
        status = replay(q);
    if (status == 0)
        status = check_static(q, service_controllers(q->service, others));
    return status == 0 ? check_voters(q, others, service_controllers(q->service, others)) : status;
}

/* The features that the formatter chose; they count only while the log has none. */
struct image *quorum_read_bootstrap(const struct quorum *q)
{
    char *path = xasprintf("%s/bootstrap.checkpoint", q->log_dir), *data = NULL;
    struct image *image = NULL;
    size_t size = 0;
    int32_t count = 0;
    (void)image_features(q->committed, &count);
    if (count == 0 && file_slurp(&file_system_real, path, BOOTSTRAP_MAX, &data, &size) == 0 &&
        image_load(service_cluster_id(q->service), slice_make(data, size), 0, -1, &image) != 0)
        log_warn("%s cannot be understood; the cluster gets the features of this release", path);
    free(data);
    free(path);
    return image;
}

static int make_controller(struct quorum *q)
{
    struct controller_options o = {.config = q->config, .node_id = service_id(q->service)};
    if (getrandom(o.seed, sizeof o.seed, 0) != (ssize_t)sizeof o.seed)
        return complain("getrandom", "read", -errno);
    q->controller = controller_new(&o);
    return 0;
}

/* Alone, it leads and decides when this returns; else the others are asked from here on. */
static int start(struct quorum *q)
{
    quorum_step(q, &(struct kraft_event){.kind = KRAFT_TICK});
    quorum_commit(q); /* the leader change */
    quorum_commit(q); /* the first records of a new cluster */
    return q->failed ? STATUS_STORAGE : 0;
}

int quorum_open(struct quorum *q)
{
    struct meta_properties meta;
    struct arena *a = arena_new(0);
    char *message = NULL;
    q->log_dir = xstrdup(config_metadata_log_dir(q->config, a));
    arena_free(a);
    if (meta_properties_read(q->log_dir, &meta, &message) != 0) {
        log_error("%s: %s", q->log_dir, message ? message : "it is not formatted");
        free(message);
        return STATUS_CONFIG;
    }
    if (meta.node_id != service_id(q->service)) {
        log_error("%s belongs to node %d, not to %d", q->log_dir, meta.node_id, service_id(q->service));
        return STATUS_CONFIG;
    }
    q->directory_id = meta.directory_id;
    int status = lock(q);
    if (status == 0)
        status = open_store(q);
    if (status == 0)
        status = make_kraft(q, &meta);
    if (status == 0)
        status = make_controller(q);
    if (status == 0)
        status = start(q);
    return status;
}

void quorum_close(struct quorum *q)
{
    int error = kraft_store_close(q->store, loop_wall_ms(q->loop));
    if (error != 0)
        log_warn("%s: close the metadata log: %s", q->log_dir, strerror(-error));
    q->store = NULL;
    q->kraft = kraft_free(q->kraft);
    q->controller = controller_free(q->controller);
    q->committed = image_release(q->committed);
    ref_release(&q->last);
    if (q->lock_fd >= 0)
        close(q->lock_fd);
    free(q->log_dir);
}
