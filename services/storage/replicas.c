/* replicas.c - which partitions this node keeps: the metadata image says, the folders follow.
 *
 *   assigned --replica_open--> open --no longer assigned--> renamed to -delete --file.delete.delay.ms--> gone
 *
 * A folder that is there at the start and that the first image does not know is renamed to -stray and kept for people,
 * as Kafka does. */
#include "services/storage/replication.h"
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
        const struct unopened *u = unopened_find(&s->dirs[i], t->name, partition);
        if (u != NULL && u->state != UNOPENED_STAYS)
            return KERR_NOT_LEADER_OR_FOLLOWER; /* soon: opening.c */
        if (u != NULL)
            return KERR_KAFKA_STORAGE_ERROR;
    }
    return p->leader == service_id(s->service) ? KERR_KAFKA_STORAGE_ERROR : KERR_NOT_LEADER_OR_FOLLOWER;
}

int replica_flush_recovered(struct log *log)
{
    if (log_failed(log) != 0 || log_unflushed_messages(log) < log_config(log)->flush_messages)
        return 0;
    int err = log_flush(log);
    return err == -ENOSPC && log_failed(log) == 0 ? 0 : err;
}

/* What a full disk did not take when the log was opened, or the settings want only now: nobody reads, or follows,
 * before it is flushed. When the disk is full still, room.c tries again. */
static void flush_rest(struct replica *r)
{
    if (log_failed(r->log) == 0 && log_safe_end(r->log) < log_end(r->log))
        flush_want(r, FLUSH_NOW);
}

static void flush_recovered(struct replica *r)
{
    int err = r->flush == NULL ? replica_flush_recovered(r->log) : 0;
    if (err < 0)
        directory_failed(r->dir, err);
    else
        flush_rest(r);
}

struct uuid replica_random_id(void)
{
    struct uuid u = UUID_ZERO;
    if (getrandom(u.b, sizeof u.b, 0) != sizeof u.b)
        BUG("the kernel has no random bytes");
    return u;
}

/* A folder without partition.metadata is of no topic: it gets an id of its own, so that several have a place. */
static struct uuid topic_of(const struct log *log)
{
    return uuid_is_zero(log_topic_id(log)) ? replica_random_id() : log_topic_id(log);
}

static struct replica *add(const struct unopened *u, struct log *log)
{
    struct directory *d = u->dir;
    struct storage *s = d->storage;
    struct replica *r = xcalloc(1, sizeof *r);
    *r = (struct replica){.key = key_of(topic_of(log), u->partition),
                          .storage = s,
                          .dir = d,
                          .topic = xstrdup(u->topic),
                          .log = log,
                          .leader = -1,
                          .leader_epoch = -1,
                          .internal = is_internal(slice_str(u->topic)),
                          .clean_to = u->clean_to,
                          .point_on_disk = MAX(u->recovery_point, (int64_t)0)};
    HASH_ADD_BYHASHVALUE(hh, s->replicas, key, sizeof r->key, hash_of(&r->key), r);
    d->replica_count++;
    progress_soon(s);
    return r;
}

static void free_replica(struct replica *r)
{
    HASH_DEL(r->storage->replicas, r);
    r->dir->replica_count--;
    progress_soon(r->storage);
    log_abandon(r->log);
    free(r->topic);
    free(r);
}

void replicas_free(struct storage *s)
{
    struct replica *r, *next;
    HASH_ITER (hh, s->replicas, r, next) {
        flush_forget(r);
        replication_leave(r);
        read_forget(r);
        cleaner_forget(r);
        files_drop(r);
        free_replica(r);
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

/* Whoever waits for it is answered, and nobody points to it any more. */
static void detach(struct replica *r)
{
    if (r->touched)
        turn_commit(r->storage); /* what was staged for it in this turn is still written and answered */
    read_wake_all(r);
    prepare_forget(r);
    append_on_flushed(r, -ECANCELED);
    replication_leave(r);
    read_forget(r);
    flush_forget(r);
    cleaner_forget(r);
    moves_leave(r);
    files_drop(r);
}

void replica_leave(struct replica *r)
{
    char *path = NULL;
    int64_t delay = log_config(r->log)->file_delete_delay_ms;
    detach(r);
    int err = log_delete(TAKE_PTR(r->log), replica_random_id(), &path);
    if (err < 0) {
        log_error("%s-%d: cannot be removed: %s", r->topic, r->key.partition, strerror(-err));
        directory_failed(r->dir, err);
    } else {
        directory_remove_later(r->dir, path, delay);
    }
    r->dir->names_gone = true;
    free_replica(r);
}

void replica_drop(struct replica *r)
{
    detach(r);
    free_replica(r);
}

/* ---- the image ---- */

static bool is_assigned(const struct storage *s, const struct image_partition *p)
{
    return p != NULL && image_lists(p->replicas, p->replica_count, service_id(s->service));
}

/* Until this life's registration is in the image, nothing is led or followed: a leader epoch of before is the former
 * life's, whose log a power cut may have shortened. Other records at the same offsets, in the same epoch, nobody could
 * tell from those that a follower has. The registration ends that epoch. */
static void set_leader(struct replica *r, const struct image_partition *p)
{
    bool changed = r->leader != p->leader || r->leader_epoch != p->leader_epoch;
    r->known = true;
    if (!service_is_ready(r->storage->service))
        return;
    r->leader = p->leader;
    r->leader_epoch = p->leader_epoch;
    if (log_failed(r->log) != 0)
        return;
    replication_take(r, p);
    if (changed)
        read_wake_all(r);
}

static void set_aside(struct replica *r)
{
    char *path = NULL;
    detach(r);
    int err = log_delete(TAKE_PTR(r->log), replica_random_id(), &path);
    if (err == 0) {
        char *stray = xasprintf("%.*s-stray", (int)(strlen(path) - strlen("-delete")), path);
        err = file_rename(&file_system_real, path, stray);
        log_warn("%s-%d is not in the cluster's metadata: set aside as %s", r->topic, r->key.partition, stray);
        free(stray);
    }
    if (err < 0)
        log_error("%s-%d: cannot be set aside: %s", r->topic, r->key.partition, strerror(-err));
    free(path);
    r->dir->names_gone = true;
    free_replica(r);
}

/* ---- partitions whose logs are not open ---- */

/* Two folders of one partition, in two directories: a copy, or a move that was cut short. The metadata may say which
 * one it is; when it does not, neither is served, for one of them lacks what was acknowledged. (Kafka does not start.)
 */
static struct unopened *find_unopened(struct storage *s, const struct image_topic *t, const struct image_partition *p)
{
    struct unopened *found = NULL, *u;
    bool twins = false;
    for (size_t i = 0; i < s->dir_count; i++) {
        u = unopened_find(&s->dirs[i], t->name, p->partition);
        twins = twins || (u != NULL && found != NULL);
        found = found != NULL ? found : u;
    }
    if (!twins)
        return found;
    struct directory *right = directory_by_id(s, image_replica_dir(p, service_id(s->service)));
    for (size_t i = 0; i < s->dir_count; i++) {
        u = unopened_find(&s->dirs[i], t->name, p->partition);
        if (u == NULL || u->dir == right)
            found = u != NULL ? u : found;
        else if (u->state == UNOPENED_WAITS && u->dir->failed == 0) {
            unopened_stay(u, -ENOTUNIQ, NULL);
            log_error("%s/%s: not opened: another log directory holds the same partition%s", u->dir->path, u->name,
                      right != NULL ? "" : ", and the metadata does not say which of them it is");
        }
    }
    u = right != NULL ? unopened_find(right, t->name, p->partition) : NULL;
    return u != NULL ? u : found;
}

/* Before this life's registration is in the image, that may be older than what the directories hold: then what is
 * missing is not made yet, for an open log may be of a later topic of the name, or of none (replicas_on_ready). */
static void open_or_make(struct storage *s, const struct image_topic *t, const struct image_partition *p, bool is_new)
{
    const char *why = NULL;
    struct unopened *u = find_unopened(s, t, p);
    if (u != NULL && !damaged_set_aside(u, t, p)) {
        u->topic_id = t->id;
        (void)damaged_begin_again(u);
        return; /* or it comes by itself */
    }
    if (!service_is_ready(s->service))
        return;
    if (futures_take(s, t, p->partition, &why))
        return;
    struct directory *d = why == NULL ? directory_for(s, p, is_new, &why) : NULL;
    struct directory *wished = preferred_take(s, t->name, p->partition);
    if (wished != NULL && d != NULL && uuid_eq(image_replica_dir(p, service_id(s->service)), UUID_DIR_UNASSIGNED))
        d = wished;
    if (d == NULL) {
        log_error(SLICE_F "-%d is not made: %s", SLICE_A(t->name), p->partition, why);
        return;
    }
    u = unopened_add(d, t->name, p->partition);
    u->is_new = true;
    u->topic_id = t->id;
    opening_ask(u);
}

/* The image of now decides what becomes of a log that was opened. assigned: the id of the topic that was ours when it
 * was last said. */
static void settle(struct replica *r, struct uuid assigned)
{
    struct storage *s = r->storage;
    const struct image_topic *t = image_topic_by_name(s->image, slice_str(r->topic));
    const struct image_partition *p = t != NULL ? image_partition(t, r->key.partition) : NULL;
    bool is_ours = is_assigned(s, p);
    if (is_ours && uuid_eq(t->id, r->key.topic_id)) {
        set_leader(r, p);
        assign_check(r, p);
        futures_on_opened(r);
        return;
    }
    /* Of no topic it is when a power cut took partition.metadata before anything in the folder was flushed
     * (LogManager.isStrayReplica). */
    if (!uuid_is_zero(assigned) && uuid_eq(assigned, r->key.topic_id))
        replica_leave(r); /* the topic was deleted meanwhile */
    else if (service_is_ready(s->service))
        set_aside(r);
    if (is_ours && s->may_open)
        open_or_make(s, t, p, false);
}

void replica_opened(struct unopened *u, struct log *log)
{
    struct storage *s = u->dir->storage;
    struct uuid assigned = u->topic_id;
    if (replica_find(s, log_topic_id(log), u->partition) != NULL) {
        log_abandon(log);
        replica_not_opened(u, -ENOTUNIQ, NULL);
        return;
    }
    log_take(log);
    struct replica *r = add(u, log);
    unopened_remove(u);
    struct log_config config;
    settings_of_topic(s, r->topic, &config); /* they may have changed meanwhile */
    log_set_config(r->log, &config);
    replication_configure(r, &config);
    s->settings_changed = s->settings_changed || (uint64_t)config.flush_ms < s->flush_least_ms;
    flush_rest(r);
    settle(r, assigned);
}

/* The folder of a new partition may still hold an older topic of the same name, which was deleted while we were away.
 */
static bool set_older_aside(struct unopened *u)
{
    for (struct replica *r = u->dir->storage->replicas; r != NULL; r = r->hh.next) {
        if (r->known || r->dir != u->dir || r->key.partition != u->partition || strcmp(r->topic, u->topic) != 0)
            continue;
        set_aside(r);
        return true;
    }
    return false;
}

/* What is wrong with one folder, as opposed to the directory. */
static bool is_of_the_partition(const struct unopened *u, int err)
{
    return err == -EBADMSG || err == -EEXIST || err == -ENOTUNIQ || err == -ENOTDIR || err == -EISDIR ||
           err == -ELOOP || (!u->is_new && (err == -EACCES || err == -EPERM)) || unopened_may_pass(err);
}

/* The image says what else can be done with it. */
static bool is_mended(struct unopened *u)
{
    struct storage *s = u->dir->storage;
    const struct image_topic *t = image_topic_by_name(s->image, slice_str(u->topic));
    const struct image_partition *p = t != NULL ? image_partition(t, u->partition) : NULL;
    if (!is_assigned(s, p))
        return false;
    u->topic_id = t->id;
    if (!damaged_set_aside(u, t, p))
        return damaged_begin_again(u);
    open_or_make(s, t, p, false);
    return true;
}

void replica_not_opened(struct unopened *u, int err, char *why)
{
    struct directory *d = u->dir;
    if (err == -ENOTDIR && !u->is_new) {
        log_warn("%s/%s is no folder: ignored", d->path, u->name);
        unopened_remove(u);
        free(why);
        return;
    }
    if (err == -EEXIST && u->is_new && set_older_aside(u)) {
        unopened_wait(u);
        opening_ask(u);
        free(why);
        return;
    }
    bool local = is_of_the_partition(u, err);
    unopened_stay(u, local ? err : 0, why);
    if (is_mended(u))
        return;
    log_error("%s/%s: cannot be opened: %s", d->path, u->name, local ? unopened_reason(u) : strerror(-err));
    if (!local)
        directory_failed(d, err);
    if (!d->opening)
        progress_write(d->storage);
}

/* A topic is deleted whose files could not be opened: they go, if they are its. */
static void remove_unopened(struct storage *s, const struct image_topic *t, int32_t partition)
{
    for (size_t i = 0; i < s->dir_count; i++) {
        struct directory *d = &s->dirs[i];
        struct unopened *u = d->failed == 0 ? unopened_find(d, t->name, partition) : NULL;
        if (u == NULL || u->state != UNOPENED_STAYS)
            continue;
        struct uuid id;
        char *path = xasprintf("%s/%s", d->path, u->name);
        char *to = logdir_beside(path, replica_random_id(), "delete");
        if (logdir_read_partition_metadata(&file_system_real, path, &id) == 0 && uuid_eq(id, t->id) &&
            file_rename(&file_system_real, path, to) == 0) {
            log_warn("%s: its topic is deleted, and so are these files, which could not be opened", path);
            directory_remove_later(d, TAKE_PTR(to), 0);
            unopened_remove(u);
            d->names_gone = true;
            progress_write(s);
        }
        free(path);
        free(to);
    }
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
        else if (after == NULL)
            remove_unopened(s, c->topic, partition);
        return;
    }
    if (r != NULL) {
        set_leader(r, after);
        assign_check(r, after);
    } else if (!s->offline) {
        open_or_make(s, c->topic, after, before == NULL);
    }
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
        replication_configure(r, &config);
        if (!config.cleanup_compact)
            cleaner_abort(r);
        flush_recovered(r);
    }
    if (type == IMAGE_BROKER) {
        directories_on_config(s);
        replication_on_rates(s);
    }
}

/* It may join an ISR now that it could not before. */
static void on_broker(void *ctx, const struct image_broker *before UNUSED, const struct image_broker *after UNUSED)
{
    struct storage *s = ctx;
    s->brokers_changed = true;
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
    s->made_now = 0;
    if (!s->drained) {
        const struct image_diff diff = {.topic = on_topic, .config = on_config, .broker = on_broker, .ctx = s};
        image_diff(old_image, new_image, &diff);
        if (s->brokers_changed)
            replication_on_timer(s);
        s->brokers_changed = false;
    }
    if (old_image == NULL)
        on_config(s, IMAGE_BROKER, SLICE_EMPTY);
    if (!s->draining)
        opening_begin(s);
    if (s->settings_changed && !s->drained)
        storage_arm_flush_timer(s);
    image_release(was);
}

static void take_up(void *ctx, const struct image_topic *t)
{
    struct storage *s = ctx;
    for (int32_t i = 0; i < t->partition_count; i++) {
        const struct image_partition *p = image_partition(t, i);
        struct replica *r = is_assigned(s, p) ? replica_find(s, t->id, i) : NULL;
        if (r != NULL)
            set_leader(r, p);
        else if (is_assigned(s, p) && !s->offline)
            open_or_make(s, t, p, false);
    }
}

/* The first image may be older than the last life's: who leads, what is stray, and what is missing, is known when this
 * life's registration is in the image. */
void replicas_on_ready(void *ctx)
{
    struct storage *s = ctx;
    set_strays_aside(s);
    s->made_now = 0;
    if (!s->drained)
        image_each_topic(s->image, take_up, s);
    futures_on_ready(s);
}
