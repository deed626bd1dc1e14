/* directory.c - the folders of log.dirs: identity, lock, failure, and which of them a new replica goes to.
 *
 *   log.dirs --directories_open--> in use --directory_failed--> offline, until the next start
 *
 * At the start as Kafka: a directory that cannot be read is offline and the others serve; one without meta.properties,
 * of another cluster or node, or with the id of another directory ends the start, for that is somebody's mistake. So
 * does the loss of all of them, or of the one with the metadata log, at any time (ReplicaManager.handleLogDirFailure).
 */
#include "libs/config/meta_properties.h"
#include "services/storage/storage.h"
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { STATUS_CONFIG = 78, STATUS_FAILED = 1 };

/* ---- identity and lock ---- */

static int check_identity(struct directory *d)
{
    struct storage *s = d->storage;
    struct meta_properties meta;
    char *error = NULL;
    int err = meta_properties_read(d->path, &meta, &error);
    if (err == -ENOENT) {
        log_error("%s has no meta.properties: is its disk mounted? A new directory has to be formatted first", d->path);
        return STATUS_CONFIG;
    }
    if (err != 0) {
        log_error("%s is offline: meta.properties: %s", d->path, error ? error : strerror(-err));
        free(error);
        d->failed = err;
        return 0;
    }
    if (strcmp(meta.cluster_id, service_cluster_id(s->service)) != 0) {
        log_error("%s belongs to the cluster %s, not to %s", d->path, meta.cluster_id, service_cluster_id(s->service));
        return STATUS_CONFIG;
    }
    if (meta.node_id != service_id(s->service)) {
        log_error("%s belongs to node %d, not to %d", d->path, meta.node_id, service_id(s->service));
        return STATUS_CONFIG;
    }
    struct directory *twin = directory_by_id(s, meta.directory_id);
    if (twin != NULL) {
        log_error("%s and %s have the same directory.id %s: one is the other, or a copy of it", twin->path, d->path,
                  uuid_to_text(meta.directory_id).s);
        return STATUS_CONFIG;
    }
    d->id = meta.directory_id;
    return 0;
}

static int take_lock(struct directory *d)
{
    int holder = 0;
    int err = logdir_lock(d->path, KARST__BUS__ROLE__ROLE_STORAGE, &d->lock_fd, &holder);
    if (err == -EWOULDBLOCK) {
        log_error("%s is in use by process %d: another storage node, or Kafka", d->path, holder);
        return STATUS_FAILED;
    }
    if (err < 0) {
        log_error("%s is offline: .lock: %s", d->path, strerror(-err));
        d->failed = err;
    }
    return 0;
}

/* Kafka refuses it (KafkaRaftServer.initializeLogDirs): it would not be the one that is read. */
static int check_no_metadata_log(struct directory *d)
{
    struct file_stat st;
    char *path = xasprintf("%s/__cluster_metadata-0", d->path);
    bool there = !d->has_metadata_log && file_stat(&file_system_real, path, &st) == 0;
    if (there)
        log_error("%s is a metadata log in a directory that is not the metadata's", path);
    free(path);
    return there ? STATUS_CONFIG : 0;
}

static int take_into_use(struct directory *d)
{
    int status = check_identity(d);
    if (status == 0 && d->failed == 0)
        status = check_no_metadata_log(d);
    if (status == 0 && d->failed == 0)
        status = take_lock(d);
    if (status != 0 || d->failed != 0)
        return status;
    int clean = logdir_take_clean(&file_system_real, d->path, &d->previous_epoch);
    if (clean < 0) {
        log_error("%s is offline: %s", d->path, strerror(-clean));
        d->failed = clean;
        return 0;
    }
    int failed_flush = logdir_had_failed_flush(&file_system_real, d->path);
    d->rewrite = failed_flush == 1;
    d->was_clean = clean == 1 && !d->rewrite; /* Kafka, too, takes for flushed what the kernel says is */
    d->failed = MIN(failed_flush, 0);
    if (d->rewrite)
        log_warn("%s: a flush failed in an earlier life: what was not flushed is written again", d->path);
    return 0;
}

/* ---- cordoned directories (KIP-1066) ---- */

static bool is_named(const struct config_list *list, const char *path)
{
    for (size_t i = 0; i < list->count; i++)
        if (strcmp(list->items[i], "*") == 0 || strcmp(list->items[i], path) == 0)
            return true;
    return false;
}

void directories_on_config(struct storage *s)
{
    struct arena *a = arena_new(0);
    struct config_list list = config_items(settings_cordoned(s, a), a);
    bool changed = false;
    for (size_t i = 0; i < s->dir_count; i++) {
        bool cordoned = is_named(&list, s->dirs[i].path);
        changed = changed || cordoned != s->dirs[i].cordoned;
        s->dirs[i].cordoned = cordoned;
    }
    arena_free(a);
    if (changed)
        service_heartbeat_soon(s->service);
}

/* The file's own value, which nobody has checked. */
static int check_cordoned(const struct storage *s)
{
    struct config_list dirs = config_log_dirs(s->config, s->arena),
                       list = config_list(s->config, "cordoned.log.dirs", s->arena);
    for (size_t i = 0; i < list.count; i++) {
        bool found = list.count == 1 && strcmp(list.items[i], "*") == 0;
        for (size_t n = 0; n < dirs.count; n++)
            found = found || strcmp(list.items[i], dirs.items[n]) == 0;
        if (!found) {
            log_error("cordoned.log.dirs: %s is not in log.dirs", list.items[i]);
            return STATUS_CONFIG;
        }
    }
    return 0;
}

/* ---- the start ---- */

/* As Java's File.getAbsolutePath: from the root, without empty parts, links as they are. */
static char *absolute_path(const char *path)
{
    char *cwd = *path == '/' ? xstrdup("") : getcwd(NULL, 0);
    char *all = xasprintf("%s/%s", cwd != NULL ? cwd : "", path), *to = all;
    for (const char *from = all; *from != '\0'; from++)
        if (from[0] != '/' || (from[1] != '/' && from[1] != '\0'))
            *to++ = *from;
    *to = '\0';
    free(cwd);
    return all;
}

/* What is left of log.dirs, or why nothing can be done with it. */
static int check_enough(const struct storage *s)
{
    size_t live = 0;
    for (size_t i = 0; i < s->dir_count; i++) {
        live += s->dirs[i].failed == 0;
        if (s->dirs[i].failed != 0 && s->dirs[i].has_metadata_log) {
            log_error("%s is offline, and holds the metadata log: ending", s->dirs[i].path);
            return STATUS_FAILED;
        }
    }
    if (live == 0)
        log_error("no directory of log.dirs can be used: ending");
    return live == 0 ? STATUS_FAILED : 0;
}

int directories_open(struct storage *s)
{
    struct config_list list = config_log_dirs(s->config, s->arena);
    const char *metadata = config_metadata_log_dir(s->config, s->arena);
    int status = check_cordoned(s);
    s->dirs = xcalloc(list.count + 1, sizeof *s->dirs);
    s->offline_ids = arena_alloc(s->arena, 3 * (list.count + 1) * sizeof *s->offline_ids);
    for (size_t i = 0; i < list.count && status == 0; i++) {
        struct directory *d = &s->dirs[s->dir_count];
        *d = (struct directory){.storage = s,
                                .path = xstrdup(list.items[i]),
                                .lock_fd = -1,
                                .previous_epoch = -1,
                                .starts.lock = PTHREAD_MUTEX_INITIALIZER,
                                .marks.lock = PTHREAD_MUTEX_INITIALIZER,
                                .points.lock = PTHREAD_MUTEX_INITIALIZER,
                                .cleaned.lock = PTHREAD_MUTEX_INITIALIZER};
        d->absolute = absolute_path(d->path);
        d->has_metadata_log = strcmp(metadata, d->path) == 0;
        s->dir_count++;
        status = take_into_use(d);
    }
    for (size_t i = 0; i < s->dir_count && status == 0; i++) {
        struct directory *d = &s->dirs[i];
        d->failed = d->failed ? d->failed : directory_list(d);
        d->left = d->failed != 0;
    }
    return status == 0 ? check_enough(s) : status;
}

/* As Kafka (LogManager.readBrokerEpochFromCleanShutdownFiles): all of them, and all the same. */
static int64_t previous_epoch(const struct storage *s)
{
    int64_t epoch = s->dirs[0].previous_epoch;
    for (size_t i = 0; i < s->dir_count; i++) {
        const struct directory *d = &s->dirs[i];
        if (d->failed != 0 || !d->was_clean || d->previous_epoch != epoch)
            return -1;
    }
    return epoch;
}

void directories_register(struct storage *s, Karst__Bus__RegisterRequest *request)
{
    ProtobufCBinaryData *dirs = arena_alloc(s->arena, s->dir_count * sizeof *dirs);
    char **paths = arena_alloc(s->arena, s->dir_count * sizeof *paths);
    request->log_dirs = dirs;
    request->log_dir_paths = paths;
    for (size_t i = 0; i < s->dir_count; i++) {
        paths[request->n_log_dir_paths++] = s->dirs[i].path;
        if (!uuid_is_zero(s->dirs[i].id))
            dirs[request->n_log_dirs++] = (ProtobufCBinaryData){sizeof s->dirs[i].id.b, s->dirs[i].id.b};
    }
    request->previous_broker_epoch = previous_epoch(s);
}

/* ---- failure ---- */

static void on_not_told(void *ctx)
{
    struct directory *d = ctx;
    d->tell_timer = loop_timer_stop(d->tell_timer);
    log_error("the controller could not be told within log.dir.failure.timeout.ms that %s is offline: ending", d->path);
    d->storage->offline = true;
    loop_again(d->storage->loop);
}

static bool is_enough(const struct storage *s)
{
    for (size_t i = 0; i < s->dir_count; i++) {
        if (s->dirs[i].failed == 0)
            return true;
    }
    return false;
}

void directory_note_failure(const struct directory *d)
{
    int err = logdir_note_failed_flush(&file_system_real, d->path);
    if (err < 0)
        log_warn("%s: its failure cannot be noted there (%s): unmount it before the next start, so that nothing is "
                 "believed that is in memory only",
                 d->path, strerror(-err));
}

void directory_failed(struct directory *d, int err)
{
    struct storage *s = d->storage;
    if (d->failed != 0)
        return;
    d->failed = err;
    s->dirs_failed = true;
    directory_note_failure(d);
    if (d->has_metadata_log || !is_enough(s)) {
        s->offline = true;
        log_error("%s is offline: %s. It %s: ending", d->path, strerror(-err),
                  d->has_metadata_log && s->dir_count > 1 ? "holds the metadata log" : "is the last log directory");
    } else {
        log_error(
            "%s is offline: %s. Its %zu partitions answer KAFKA_STORAGE_ERROR until it is mended and karst-storage "
            "started again",
            d->path, strerror(-err), d->replica_count);
        d->tell_timer = loop_timer_start(s->loop, (uint64_t)config_long(s->config, "log.dir.failure.timeout.ms"), 0,
                                         on_not_told, d);
    }
    loop_again(s->loop); /* the rest waits for the next turn: we may be in the middle of anything */
}

static void leave(struct directory *d)
{
    struct replica *r, *next;
    HASH_ITER (hh, d->storage->replicas, r, next) {
        if (r->dir != d)
            continue;
        unopened_stay(unopened_add(d, slice_str(r->topic), r->key.partition), 0, NULL);
        replica_drop(r);
    }
    while (d->waiting != NULL)
        unopened_stay(d->waiting, 0, NULL);
    d->left = true;
}

void directories_turn(void *ctx)
{
    struct storage *s = ctx;
    room_turn(s);
    if (!s->dirs_failed || s->offline)
        return;
    s->dirs_failed = false;
    for (size_t i = 0; i < s->dir_count; i++) {
        if (s->dirs[i].failed == 0 || s->dirs[i].left)
            continue;
        leave(&s->dirs[i]);
        moves_directory_failed(&s->dirs[i]);
    }
    service_heartbeat_soon(s->service);
    progress_write(s);
}

void directories_heartbeat(struct storage *s, Karst__Bus__HeartbeatRequest *request)
{
    ProtobufCBinaryData *dirs = s->offline_ids; /* until it has left */
    request->offline_log_dirs = dirs;
    request->cordoned_log_dirs = dirs + s->dir_count;
    request->full_log_dirs = dirs + 2 * s->dir_count;
    for (size_t i = 0; i < s->dir_count; i++) {
        struct directory *d = &s->dirs[i];
        d->telling = d->failed != 0 && !uuid_is_zero(d->id);
        if (d->telling)
            dirs[request->n_offline_log_dirs++] = (ProtobufCBinaryData){sizeof d->id.b, d->id.b};
        if (d->cordoned && !uuid_is_zero(d->id))
            request->cordoned_log_dirs[request->n_cordoned_log_dirs++] = (ProtobufCBinaryData){sizeof d->id.b, d->id.b};
        d->room.telling = d->room.missing && d->failed == 0;
        if (d->room.telling)
            request->full_log_dirs[request->n_full_log_dirs++] = (ProtobufCBinaryData){sizeof d->id.b, d->id.b};
    }
}

void directories_on_heartbeat_taken(void *ctx)
{
    struct storage *s = ctx;
    for (size_t i = 0; i < s->dir_count; i++) {
        struct directory *d = &s->dirs[i];
        room_on_told(d);
        if (!d->telling || d->told)
            continue;
        d->told = true;
        d->tell_timer = loop_timer_stop(d->tell_timer);
    }
}

/* ---- where replicas go ---- */

struct directory *directory_by_id(struct storage *s, struct uuid id)
{
    for (size_t i = 0; i < s->dir_count && !uuid_is_zero(id); i++) {
        if (s->dirs[i].failed == 0 && uuid_eq(s->dirs[i].id, id))
            return &s->dirs[i];
    }
    return NULL;
}

/* A cordoned one only where there is no other, a full one rather than that. */
static int reluctance(const struct directory *d)
{
    return 2 * d->cordoned + d->room.missing;
}

/* The one with the fewest replicas, as Kafka (LogManager.nextLogDirs). The controller lets a partition come here when
 * all are cordoned only where somebody names this node by hand: then they all count. */
static struct directory *emptiest(struct storage *s)
{
    struct directory *best = NULL;
    size_t least = SIZE_MAX;
    for (size_t i = 0; i < s->dir_count; i++) {
        struct directory *d = &s->dirs[i];
        size_t n = d->replica_count + HASH_COUNT(d->unopened);
        if (d->failed != 0 || (best != NULL && reluctance(d) > reluctance(best)))
            continue;
        if (best != NULL && reluctance(d) == reluctance(best) && n >= least)
            continue;
        best = d;
        least = n;
    }
    return best;
}

static bool has_failed(const struct storage *s)
{
    for (size_t i = 0; i < s->dir_count; i++) {
        if (s->dirs[i].failed != 0)
            return true;
    }
    return false;
}

struct directory *directory_for(struct storage *s, const struct image_partition *p, bool is_new, const char **ret_why)
{
    struct directory *d = directory_by_id(s, image_replica_dir(p, service_id(s->service)));
    if (d != NULL)
        return d;
    /* As Kafka: what is not new may lie in a directory that is offline now, and would begin again, empty. */
    if (!is_new && has_failed(s)) {
        *ret_why = "it may lie in a directory that is offline";
        return NULL;
    }
    d = emptiest(s);
    if (d == NULL)
        *ret_why = "every directory is offline";
    return d;
}

/* ---- folders of deleted topics ---- */

static void remove_work(void *ctx)
{
    struct removal *r = ctx;
    int err = file_remove_tree(&file_system_real, r->path);
    if (err < 0)
        log_warn("%s: cannot be removed: %s; the next start tries again", r->path, strerror(-err));
}

static void remove_done(void *ctx)
{
    struct removal *r = ctx;
    DL_DELETE(r->dir->removals, r);
    free(r->path);
    free(r);
}

static void on_removal_due(void *ctx)
{
    struct removal *r = ctx;
    r->timer = loop_timer_stop(r->timer);
    loop_work(r->dir->storage->loop, remove_work, remove_done, r);
}

void directory_remove_later(struct directory *d, char *path, int64_t delay_ms)
{
    struct removal *r = xcalloc(1, sizeof *r);
    r->dir = d;
    r->path = path;
    DL_APPEND(d->removals, r);
    r->timer = loop_timer_start(d->storage->loop, (uint64_t)delay_ms, 0, on_removal_due, r);
}

/* ---- the end ---- */

static void release(struct directory *d)
{
    struct removal *r, *next;
    DL_FOREACH_SAFE(d->removals, r, next)
    {
        /* What is not yet due is found at the next start, by its name. */
        DL_DELETE(d->removals, r);
        free(r->path);
        free(r);
    }
    struct unopened *u, *next_unopened;
    HASH_ITER (hh, d->unopened, u, next_unopened)
        unopened_remove(u);
    if (d->lock_fd >= 0)
        close(d->lock_fd);
    free(d->path);
    free(d->absolute);
}

void directories_free(struct storage *s)
{
    for (size_t i = 0; i < s->dir_count; i++)
        release(&s->dirs[i]);
    free(s->dirs);
}
