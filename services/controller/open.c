/* open.c - from a data directory to a leader of the quorum: locks, newest snapshot, log, election. */
#include <inttypes.h>
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

static int replay_log(struct quorum *q)
{
    struct buf b CLEANUP(buf_free) = {0};
    while (image_offset(q->committed) + 1 < kraft_store_end(q->store)) {
        struct image *next;
        int64_t bad = -1;
        b.size = 0;
        int error =
            kraft_store_read(q->store, image_offset(q->committed) + 1, kraft_store_end(q->store), REPLAY_BYTES, &b);
        if (error != 0 || b.size == 0)
            return complain(q->log_dir, "read the metadata log", error != 0 ? error : -EBADMSG);
        error = image_apply(q->committed, buf_slice(&b), &next, &bad);
        if (error != 0) {
            log_error("%s: the metadata log cannot be understood at offset %" PRId64, q->log_dir, bad);
            return STATUS_STORAGE;
        }
        image_release(q->committed);
        q->committed = next;
    }
    return 0;
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
    int status = load_snapshot(q);
    return status != 0 ? status : replay_log(q);
}

/* ---- the quorum ---- */

/* A log without voters in it is of a cluster with a static quorum (controller.quorum.voters): this node is its only
 * voter. */
static int find_voters(struct quorum *q, const struct meta_properties *meta, struct kraft_options *o)
{
    struct slice value = image_voters(q->committed);
    o->kraft_version = image_kraft_version(q->committed);
    if (!slice_is_null(value))
        return kraft_voters_decode(value, &o->voters) == 0
                   ? 0
                   : complain(q->log_dir, "the voters in the metadata log", -EBADMSG);
    o->voters.count = 1;
    o->voters.voter[0] = (struct kraft_voter){.id = meta->node_id, .directory_id = meta->directory_id};
    return 0;
}

static int make_kraft(struct quorum *q, const struct meta_properties *meta)
{
    struct kraft_options *o = xcalloc(1, sizeof *o);
    *o = (struct kraft_options){
        .node_id = meta->node_id,
        .directory_id = meta->directory_id,
        .state = {.leader_id = -1, .voted_id = -1},
        .log_end = kraft_store_end(q->store),
        .last_epoch = kraft_store_last_epoch(q->store),
        .log_has_voters = kraft_store_end(q->store) > 0,
    };
    kraft_store_state(q->store, &o->state);
    int status = find_voters(q, meta, o);
    int error = status == 0 ? kraft_new(o, &q->kraft) : 0;
    if (error == -ENOTSUP)
        log_error("%s: the metadata log has %d voters; this release runs one controller", q->log_dir, o->voters.count);
    else if (error != 0)
        log_error("%s: node %d is not the voter of the metadata log", q->log_dir, meta->node_id);
    free(o);
    return status != 0 ? status : error != 0 ? STATUS_CONFIG : 0;
}

/* The features that the formatter chose; NULL: there is no such file. They count only while the log is empty. */
static struct image *read_bootstrap(const struct quorum *q)
{
    char *path = xasprintf("%s/bootstrap.checkpoint", q->log_dir), *data = NULL;
    struct image *image = NULL;
    size_t size = 0;
    if (kraft_store_end(q->store) == 0 && file_slurp(&file_system_real, path, BOOTSTRAP_MAX, &data, &size) == 0 &&
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
    struct image *bootstrap = read_bootstrap(q);
    int status = quorum_become_leader(q, bootstrap);
    image_release(bootstrap);
    return status;
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
    int status = lock(q);
    if (status == 0)
        status = open_store(q);
    if (status == 0)
        status = make_kraft(q, &meta);
    if (status == 0)
        status = make_controller(q);
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
