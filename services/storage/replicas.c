/* replicas.c - which partitions this node keeps: the metadata image says, the folders follow.
 *
 *   assigned --replica_open--> open --no longer assigned--> renamed to -delete --file.delete.delay.ms--> gone
 *
 * A folder that is there at the start and that the first image does not know is renamed to -stray and kept for people,
 * as Kafka does. */
#include "services/storage/storage.h"
#include <stdlib.h>
#include <sys/random.h>

static bool is_internal(struct slice topic)
{
    return slice_eq_str(topic, "__consumer_offsets") || slice_eq_str(topic, "__transaction_state") ||
           slice_eq_str(topic, "__share_group_state");
}

/* Topic ids are random numbers: there is nothing to mix. */
static unsigned hash_of(const struct replica_key *key)
{
    uint32_t id;
    memcpy(&id, key->topic_id.b + 12, sizeof id);
    return id + (uint32_t)key->partition * 2654435761U;
}

static struct replica_key key_of(struct uuid topic_id, int32_t partition)
{
    struct replica_key key;
    memset(&key, 0, sizeof key);
    key.topic_id = topic_id;
    key.partition = partition;
    return key;
}

struct replica *replica_find(struct storage *s, struct uuid topic_id, int32_t partition)
{
    struct replica_key key = key_of(topic_id, partition);
    struct replica *r;
    HASH_FIND_BYHASHVALUE(hh, s->replicas, &key, sizeof key, hash_of(&key), r);
    return r;
}

struct replica *replica_by_name(struct storage *s, struct slice topic, int32_t partition)
{
    const struct image_topic *t = s->image != NULL ? image_topic_by_name(s->image, topic) : NULL;
    return t != NULL ? replica_find(s, t->id, partition) : NULL;
}

enum kafka_error replica_check_leader(const struct storage *s, const struct replica *r, int32_t epoch)
{
    if (r == NULL || !r->known)
        return KERR_UNKNOWN_TOPIC_OR_PARTITION;
    if (r->dir->failed != 0 || log_failed(r->log) != 0)
        return KERR_KAFKA_STORAGE_ERROR;
    if (epoch != -1 && epoch < r->leader_epoch) /* as Kafka: any other negative one is an old one */
        return KERR_FENCED_LEADER_EPOCH;
    if (epoch > r->leader_epoch)
        return KERR_UNKNOWN_LEADER_EPOCH;
    return r->leader == service_id(s->service) ? KERR_NONE : KERR_NOT_LEADER_OR_FOLLOWER;
}

enum kafka_error replica_look_up(struct storage *s, struct slice topic, int32_t partition, int32_t epoch,
                                 struct replica **ret_replica)
{
    const struct image_topic *t = s->image != NULL ? image_topic_by_name(s->image, topic) : NULL;
    struct replica *r = t != NULL ? replica_find(s, t->id, partition) : NULL;
    *ret_replica = r;
    return r != NULL ? replica_check_leader(s, r, epoch) : replica_missing(s, t, partition);
}

enum kafka_error replica_missing(struct storage *s, const struct image_topic *t, int32_t partition)
{
    const struct image_partition *p = t != NULL ? image_partition(t, partition) : NULL;
    if (p == NULL)
        return KERR_UNKNOWN_TOPIC_OR_PARTITION;
    for (size_t i = 0; i < s->dir_count; i++) {
        if (unopened_find(&s->dirs[i], t->name, partition) != NULL)
            return KERR_KAFKA_STORAGE_ERROR;
    }
    return p->leader == service_id(s->service) ? KERR_KAFKA_STORAGE_ERROR : KERR_NOT_LEADER_OR_FOLLOWER;
}

static void note(void *ctx UNUSED, int level, const char *text)
{
    log_write((enum log_level)level, "%s", text);
}

/* What recovery finds may be in the page cache only. Where flush.messages wants records flushed, nobody may be shown
 * one that a power cut could still take: a group coordinator would answer with a commit that is gone afterwards. */
static void flush_recovered(struct replica *r)
{
    if (r->flush != NULL || log_failed(r->log) != 0 ||
        log_unflushed_messages(r->log) < log_config(r->log)->flush_messages)
        return;
    int err = log_flush(r->log);
    if (err < 0)
        directory_failed(r->dir, err);
}

static const char *why_not_opened(int err)
{
    return err == -EBADMSG    ? "its files are damaged"
           : err == -EEXIST   ? "it is of another topic of the same name"
           : err == -ENOTUNIQ ? "another folder holds the same partition"
                              : strerror(-err);
}

int replica_open(struct directory *d, struct slice topic, struct uuid topic_id, int32_t partition,
                 const struct unopened *lines)
{
    struct storage *s = d->storage;
    struct replica *r = xcalloc(1, sizeof *r);
    r->storage = s;
    r->dir = d;
    r->topic = slice_dup_str(topic);
    r->leader = r->leader_epoch = -1;
    r->internal = is_internal(topic);
    r->clean_to = lines != NULL ? lines->clean_to : -1;
    r->point_on_disk = lines != NULL ? MAX(lines->recovery_point, (int64_t)0) : 0;
    char *dir = xasprintf("%s/%s-%d", d->path, r->topic, (int)partition);
    struct log_options o = {
        .fs = &file_system_real,
        .dir = dir,
        .topic_id = topic_id,
        .clean = lines != NULL && d->was_clean,
        .recovery_point = lines != NULL ? MAX(lines->recovery_point, (int64_t)0) : 0,
        .log_start_offset = lines != NULL ? MAX(lines->log_start, (int64_t)0) : 0,
        .compacted_to = lines != NULL ? lines->clean_to : -1,
        .now_wall_ms = loop_wall_ms(s->loop),
        .note = note,
        .pool = s->pool,
    };
    settings_of_topic(s, r->topic, &o.config);
    s->settings_changed = true;
    if (getrandom(&o.jitter_seed, sizeof o.jitter_seed, 0) < 0)
        o.jitter_seed = (uint64_t)o.now_wall_ms;
    int err = log_open(&o, &r->log);
    if (err == 0 && replica_find(s, log_topic_id(r->log), partition) != NULL) {
        r->log = log_abandon(r->log);
        err = -ENOTUNIQ;
    }
    if (err < 0) {
        log_error("%s: cannot be opened: %s", dir, why_not_opened(err));
        free(r->topic);
        free(r);
    } else {
        r->key = key_of(log_topic_id(r->log), partition);
        HASH_ADD_BYHASHVALUE(hh, s->replicas, key, sizeof r->key, hash_of(&r->key), r);
        d->replica_count++;
        flush_recovered(r);
    }
    free(dir);
    return err;
}

static void replica_free(struct replica *r)
{
    HASH_DEL(r->storage->replicas, r);
    r->dir->replica_count--;
    log_abandon(r->log);
    free(r->topic);
    free(r);
}

void replicas_free(struct storage *s)
{
    struct replica *r, *next;
    HASH_ITER (hh, s->replicas, r, next) {
        flush_forget(r);
        read_forget(r);
        cleaner_forget(r);
        files_drop(r);
        replica_free(r);
    }
}

void replica_touch(struct replica *r)
{
    if (r->touched)
        return;
    r->touched = true;
    r->next_touched = r->storage->touched;
    r->storage->touched = r;
}

/* ---- leaving ---- */

static struct uuid random_uuid(void)
{
    struct uuid u = UUID_ZERO;
    if (getrandom(u.b, sizeof u.b, 0) != sizeof u.b)
        BUG("the kernel has no random bytes");
    return u;
}

/* Whoever waits for it is answered, and nobody points to it any more. */
static void detach(struct replica *r)
{
    if (r->touched)
        turn_commit(r->storage); /* what was staged for it in this turn is still written and answered */
    read_wake_all(r);
    append_on_flushed(r, -ECANCELED);
    read_forget(r);
    flush_forget(r);
    cleaner_forget(r);
    files_drop(r);
}

void replica_leave(struct replica *r)
{
    char *path = NULL;
    int64_t delay = log_config(r->log)->file_delete_delay_ms;
    detach(r);
    int err = log_delete(TAKE_PTR(r->log), random_uuid(), &path);
    if (err < 0) {
        log_error("%s-%d: cannot be removed: %s", r->topic, r->key.partition, strerror(-err));
        directory_failed(r->dir, err);
    } else {
        directory_remove_later(r->dir, path, delay);
    }
    replica_free(r);
}

void replica_drop(struct replica *r)
{
    detach(r);
    replica_free(r);
}

/* ---- the image ---- */

static bool is_assigned(const struct storage *s, const struct image_partition *p)
{
    for (int32_t i = 0; p != NULL && i < p->replica_count; i++) {
        if (p->replicas[i] == service_id(s->service))
            return true;
    }
    return false;
}

static void set_leader(struct replica *r, const struct image_partition *p)
{
    struct storage *s = r->storage;
    bool changed = r->leader != p->leader || r->leader_epoch != p->leader_epoch;
    r->known = true;
    r->leader = p->leader;
    r->leader_epoch = p->leader_epoch;
    if (!changed || log_failed(r->log) != 0)
        return;
    if (p->leader == service_id(s->service) && p->leader_epoch > log_latest_epoch(r->log) && !log_has_staged(r->log)) {
        int err = log_assign_epoch(r->log, p->leader_epoch);
        if (err < 0)
            directory_failed(r->dir, err);
    }
    read_wake_all(r);
}

static void set_aside(struct replica *r)
{
    char *path = NULL;
    detach(r);
    int err = log_delete(TAKE_PTR(r->log), random_uuid(), &path);
    if (err == 0) {
        char *stray = xasprintf("%.*s-stray", (int)(strlen(path) - strlen("-delete")), path);
        err = file_rename(&file_system_real, path, stray);
        log_warn("%s-%d is not in the cluster's metadata: set aside as %s", r->topic, r->key.partition, stray);
        free(stray);
    }
    if (err < 0)
        log_error("%s-%d: cannot be set aside: %s", r->topic, r->key.partition, strerror(-err));
    free(path);
    replica_free(r);
}

/* A folder without partition.metadata: a power cut took that file before anything in the folder was flushed (Kafka's
 * LogManager.isStrayReplica). It was opened under no topic's id and must not be opened a second time as the partition.
 */
static void set_nameless_aside(struct storage *s, const struct image_topic *t, int32_t partition)
{
    struct replica *r, *next;
    if (service_is_ready(s->service))
        return; /* strays are set aside by then */
    HASH_ITER (hh, s->replicas, r, next) {
        if (uuid_is_zero(r->key.topic_id) && r->key.partition == partition && slice_eq(t->name, slice_str(r->topic)))
            set_aside(r);
    }
}

/* What the start refused to open stays closed: opened as new, its damage would be cut away. But where nothing was ever
 * flushed there is nothing to keep, and a power cut may have torn no more than partition.metadata, which is written
 * again from the image. What is in a directory that has failed stays there. */
static bool may_open(struct storage *s, const struct image_topic *t, int32_t partition)
{
    for (size_t i = 0; i < s->dir_count; i++) {
        struct directory *d = &s->dirs[i];
        struct unopened *u = unopened_find(d, t->name, partition);
        if (u == NULL)
            continue;
        if (d->failed != 0 || u->recovery_point > 0 || u->log_start > 0)
            return false;
        unopened_remove(d, u);
    }
    return true;
}

/* The folder of a new partition may still hold an older topic of the same name, which was deleted while we were away.
 */
static int open_over_older(struct directory *d, const struct image_topic *t, int32_t partition)
{
    int err = replica_open(d, t->name, t->id, partition, NULL);
    for (struct replica *r = d->storage->replicas; err == -EEXIST && r != NULL; r = r->hh.next) {
        if (r->known || r->dir != d || r->key.partition != partition || !slice_eq(t->name, slice_str(r->topic)))
            continue;
        set_aside(r);
        return replica_open(d, t->name, t->id, partition, NULL);
    }
    return err;
}

static bool open_new(struct storage *s, const struct image_topic *t, const struct image_partition *p, bool is_new)
{
    const char *why = NULL;
    if (!may_open(s, t, p->partition))
        return false;
    set_nameless_aside(s, t, p->partition);
    struct directory *d = directory_for(s, p, is_new, &why);
    if (d == NULL) {
        log_error(SLICE_F "-%d is not made: %s", SLICE_A(t->name), p->partition, why);
        return false;
    }
    int err = open_over_older(d, t, p->partition);
    if (err < 0 && err != -EBADMSG && err != -EEXIST)
        directory_failed(d, err);
    return err == 0;
}

struct topic_change {
    struct storage *storage;
    const struct image_topic *topic; /* the newer one, or the one that is gone */
};

static void on_partition(void *ctx, const struct image_partition *before, const struct image_partition *after)
{
    const struct topic_change *c = ctx;
    struct storage *s = c->storage;
    int32_t partition = after != NULL ? after->partition : before->partition;
    struct replica *r = replica_find(s, c->topic->id, partition);
    if (!is_assigned(s, after)) {
        if (r != NULL)
            replica_leave(r);
        return;
    }
    bool is_new = before == NULL && service_is_ready(s->service);
    if (r == NULL && !s->offline && open_new(s, c->topic, after, is_new))
        r = replica_find(s, c->topic->id, partition);
    if (r != NULL)
        set_leader(r, after);
}

static void on_topic(void *ctx, const struct image_topic *before, const struct image_topic *after)
{
    struct topic_change c = {ctx, after != NULL ? after : before};
    if (before != NULL && after != NULL && !uuid_eq(before->id, after->id)) {
        struct topic_change gone = {ctx, before};
        image_diff_partitions(before, NULL, on_partition, &gone);
        before = NULL;
    }
    image_diff_partitions(before, after, on_partition, &c);
}

static void on_config(void *ctx, enum image_resource type, struct slice name)
{
    struct storage *s = ctx;
    if (type != IMAGE_TOPIC && type != IMAGE_BROKER)
        return;
    s->settings_changed = true;
    for (struct replica *r = s->replicas; r != NULL; r = r->hh.next) {
        if (type == IMAGE_TOPIC && !slice_eq(name, slice_str(r->topic)))
            continue;
        struct log_config config;
        settings_of_topic(s, r->topic, &config);
        log_set_config(r->log, &config);
        if (!config.cleanup_compact)
            cleaner_abort(r);
        flush_recovered(r); /* at the start a topic's own keys are known only now */
    }
}

static void set_strays_aside(struct storage *s)
{
    struct replica *r, *next;
    HASH_ITER (hh, s->replicas, r, next) {
        if (!r->known)
            set_aside(r);
    }
}

void replicas_on_image(void *ctx, const struct image *old_image, const struct image *new_image)
{
    struct storage *s = ctx;
    struct image *was = s->image;
    s->image = image_retain(new_image);
    if (!s->drained) {
        const struct image_diff diff = {.topic = on_topic, .config = on_config, .ctx = s};
        image_diff(old_image, new_image, &diff);
    }
    if (old_image == NULL)
        on_config(s, IMAGE_BROKER, SLICE_EMPTY);
    if (s->settings_changed && !s->drained)
        storage_arm_flush_timer(s);
    s->settings_changed = false;
    image_release(was);
}

/* The first image may be older than the last life's: what is stray is known when this life's registration is in the
 * image. */
void replicas_on_ready(void *ctx)
{
    set_strays_aside(ctx);
}
