/* replicawatch.c - see replicawatch.h. */
#include "tests/sim/replicawatch.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>

#include "libs/log/log.h"
#include "libs/replica/replica.h"
#include "tests/sim/heap.h"

enum { FOLDER = 64, NODE = 24 };

/* From there on, up to the next one, it was committed in that epoch. */
struct committed {
    int64_t from;
    int32_t epoch;
};

struct led {
    int32_t epoch;
    char node[NODE];
    uint64_t life; /* process_life */
    int64_t end;   /* what it committed */
};

struct watched_partition {
    char folder[FOLDER], topic[FOLDER];
    int32_t partition;
    int64_t end;   /* committed up to here */
    int64_t start; /* the latest start of a replica's log */
    struct committed *epochs;
    size_t epoch_count;
    struct led *led;
    size_t led_count;
    struct watched_partition *next;
};

struct watched_core {
    const struct replica_core *core;
    const struct process *process;
    struct log *log; /* NULL: not known yet */
    struct watched_partition *of;
    int32_t id; /* of the node */
    bool behind;
    struct watched_core *next;
};

struct replicawatch {
    struct sim *sim;
    const struct metawatch *meta;
    struct watched_partition *partitions;
    struct watched_core *cores;
    int cuts;
};

static struct replicawatch *the_watch;

struct replicawatch *replicawatch_new(struct sim *s, const struct metawatch *meta)
{
    struct replicawatch *w = xcalloc(1, sizeof *w);
    w->sim = s;
    w->meta = meta;
    the_watch = w;
    return w;
}

struct replicawatch *replicawatch_free(struct replicawatch *w)
{
    if (w == NULL)
        return NULL;
    the_watch = NULL;
    while (w->cores) {
        struct watched_core *c = w->cores;
        LL_DELETE(w->cores, c);
        free(c);
    }
    while (w->partitions) {
        struct watched_partition *p = w->partitions;
        LL_DELETE(w->partitions, p);
        free(p->epochs);
        free(p->led);
        free(p);
    }
    free(w);
    return NULL;
}

void replicawatch_life(struct replicawatch *w, const struct process *p)
{
    struct watched_core *c, *next;
    LL_FOREACH_SAFE(w->cores, c, next)
    {
        if (c->process != p)
            continue;
        LL_DELETE(w->cores, c);
        free(c);
    }
}

/* ---- who is who ---- */

static struct watched_core *find(const struct replica_core *core)
{
    struct watched_core *c;
    if (the_watch == NULL)
        return NULL;
    LL_FOREACH (the_watch->cores, c)
        if (c->core == core)
            return c;
    return NULL;
}

static struct watched_partition *partition_in(const struct replicawatch *w, const char *folder)
{
    struct watched_partition *p;
    LL_FOREACH (w->partitions, p)
        if (strcmp(p->folder, folder) == 0)
            return p;
    return NULL;
}

static struct watched_partition *partition_of(struct replicawatch *w, const char *dir)
{
    const char *slash = strrchr(dir, '/'), *folder = slash ? slash + 1 : dir;
    struct watched_partition *p = partition_in(w, folder);
    if (p != NULL)
        return p;
    p = xcalloc(1, sizeof *p);
    snprintf(p->folder, sizeof p->folder, "%s", folder);
    snprintf(p->topic, sizeof p->topic, "%s", folder);
    char *dash = strrchr(p->topic, '-');
    if (dash == NULL)
        sim_fail(w->sim, "%s is the folder of no partition", folder);
    *dash = '\0';
    p->partition = (int32_t)strtol(dash + 1, NULL, 10);
    LL_PREPEND(w->partitions, p);
    return p;
}

static const char *name_of(const struct watched_core *c)
{
    return process_name(c->process);
}

static bool is_watched(const struct watched_core *c)
{
    return c != NULL && c->of != NULL && !process_is_ghost(c->process) && log_failed(c->log) == 0;
}

/* ---- what is committed ---- */

static int32_t committed_epoch(const struct watched_partition *p, int64_t offset)
{
    for (size_t i = p->epoch_count; i > 0; i--)
        if (p->epochs[i - 1].from <= offset)
            return p->epochs[i - 1].epoch;
    return -1;
}

static void commit(struct watched_core *c, int64_t to)
{
    struct watched_partition *p = c->of;
    for (int64_t at = p->end; at < to; at++) {
        int32_t epoch = log_epoch_of_offset(c->log, at);
        if (p->epoch_count > 0 && p->epochs[p->epoch_count - 1].epoch == epoch)
            continue;
        p->epochs = xrealloc(p->epochs, (p->epoch_count + 1) * sizeof *p->epochs);
        p->epochs[p->epoch_count++] = (struct committed){at, epoch};
    }
    p->end = MAX(p->end, to);
}

/* Logs that have a record of one epoch at one offset have all before it in common. */
static void has_all(const struct watched_core *c, int64_t end, const char *who)
{
    const struct replicawatch *w = the_watch;
    if (end <= log_start(c->log))
        return;
    if (log_end(c->log) < end)
        sim_fail(w->sim, "%s of %s, %s, ends at %" PRId64 ", and %" PRId64 " is committed", who, c->of->folder,
                 name_of(c), log_end(c->log), end);
    int32_t own = log_epoch_of_offset(c->log, end - 1), theirs = committed_epoch(c->of, end - 1);
    if (own != theirs)
        sim_fail(w->sim, "%s of %s, %s, has offset %" PRId64 " of epoch %d, and that of epoch %d is committed", who,
                 c->of->folder, name_of(c), end - 1, own, theirs);
}

/* R4 */
static void check_members(struct replicawatch *w, struct watched_partition *p)
{
    const struct seen_partition *seen = metawatch_partition(w->meta, p->topic, p->partition);
    struct watched_core *c;
    LL_FOREACH (w->cores, c)
        if (is_watched(c) && c->of == p && seen != NULL && seen_partition_in_sync(seen, c->id))
            has_all(c, p->end, "a member of the ISR");
}

/* What those before it committed: one that hears of its epoch when that is over may lack what came later. */
static int64_t committed_before(const struct watched_partition *p, int32_t epoch)
{
    int64_t end = 0;
    for (size_t i = 0; i < p->led_count; i++)
        if (p->led[i].epoch < epoch)
            end = MAX(end, p->led[i].end);
    return end;
}

/* R1 */
static struct led *leads(struct watched_core *c, int32_t epoch)
{
    struct watched_partition *p = c->of;
    uint64_t life = process_life(c->process);
    for (size_t i = 0; i < p->led_count; i++) {
        struct led *l = &p->led[i];
        if (l->epoch != epoch)
            continue;
        if (l->life != life)
            sim_fail(the_watch->sim, "%s and %s%s both lead %s in epoch %d", l->node, name_of(c),
                     strcmp(l->node, name_of(c)) == 0 ? ", in another life," : "", p->folder, epoch);
        return l;
    }
    p->led = xrealloc(p->led, (p->led_count + 1) * sizeof *p->led);
    struct led *l = &p->led[p->led_count++];
    *l = (struct led){.epoch = epoch, .life = life};
    snprintf(l->node, sizeof l->node, "%s", name_of(c));
    sim_cover("a replica began to lead");
    return l;
}

/* ---- a step ---- */

static void raised(struct watched_core *c, const struct replica_event *e, const struct replica_action *a)
{
    struct replicawatch *w = the_watch;
    if (a->offset <= e->log.high_watermark || a->offset > log_end(c->log))
        sim_fail(w->sim,
                 "%s moves the high watermark of %s from %" PRId64 " to %" PRId64 ", and the log ends at %" PRId64,
                 name_of(c), c->of->folder, e->log.high_watermark, a->offset, log_end(c->log));
    if (replica_role(c->core) != REPLICA_LEADER) {
        if (a->offset > c->of->end)
            sim_fail(w->sim, "%s, a follower of %s, takes %" PRId64 " for committed, and %" PRId64 " is", name_of(c),
                     c->of->folder, a->offset, c->of->end);
        return;
    }
    commit(c, a->offset);
    leads(c, replica_leader_epoch(c->core))->end = a->offset;
    check_members(w, c->of);
    sim_cover("a leader committed records");
}

/* R6 */
static void cut(struct watched_core *c, int64_t offset)
{
    struct replicawatch *w = the_watch;
    const struct watched_partition *p = c->of;
    sim_cover(offset < log_high_watermark(c->log) ? "a follower cut its log below its high watermark"
                                                  : "a follower cut its log");
    w->cuts++;
    if (offset < MIN(p->end, log_end(c->log)) && offset >= log_start(c->log) &&
        log_epoch_of_offset(c->log, offset) == committed_epoch(p, offset))
        sim_fail(w->sim, "%s cuts %s at %" PRId64 ", which it had, and which is committed up to %" PRId64, name_of(c),
                 p->folder, offset, p->end);
}

/* The core of the partition on a node, in its present life; NULL: it is not there. */
static struct watched_core *core_on(const struct watched_core *c, int32_t id)
{
    struct watched_core *other;
    LL_FOREACH (the_watch->cores, other)
        if (is_watched(other) && other->of == c->of && other->id == id)
            return other;
    return NULL;
}

static bool shares(const struct watched_core *a, const struct watched_core *b, int64_t end)
{
    if (end <= log_start(a->log) || end <= log_start(b->log))
        return true;
    return log_end(a->log) >= end && log_end(b->log) >= end &&
           log_epoch_of_offset(a->log, end - 1) == log_epoch_of_offset(b->log, end - 1);
}

/* R7; of a leader that is gone nothing can be said. */
static void appended(const struct watched_core *c)
{
    const struct watched_partition *p = c->of;
    int32_t epoch = replica_leader_epoch(c->core);
    const struct watched_core *leader = core_on(c, replica_leader(c->core));
    bool led = false;
    for (size_t i = 0; i < p->led_count; i++)
        led |= p->led[i].epoch == epoch;
    if (!led)
        sim_fail(the_watch->sim, "%s has appended to %s in epoch %d, in which nobody has led yet", name_of(c),
                 p->folder, epoch);
    if (leader == NULL || replica_role(leader->core) != REPLICA_LEADER || replica_leader_epoch(leader->core) != epoch)
        return;
    if (!shares(leader, c, log_end(c->log)))
        sim_fail(the_watch->sim, "%s has appended to %s up to %" PRId64 " in epoch %d what its leader %s does not have",
                 name_of(c), p->folder, log_end(c->log), epoch, name_of(leader));
    sim_cover("a follower had what its leader has");
}

/* R8; a follower may have heard of a newer epoch since, and then cut its log, or have begun another life. */
static void counted(const struct watched_core *c, const struct replica_event *e)
{
    const struct watched_core *f = core_on(c, e->follower);
    const struct seen_broker *b = metawatch_broker(the_watch->meta, e->follower);
    int32_t epoch = replica_leader_epoch(c->core);
    if (f == NULL || replica_role(f->core) != REPLICA_FOLLOWER || b == NULL || b->epoch != e->broker_epoch)
        return;
    if (replica_leader_epoch(f->core) < epoch)
        sim_fail(the_watch->sim, "%s, which leads %s in epoch %d, counts what %s has said in epoch %d", name_of(c),
                 c->of->folder, epoch, name_of(f), replica_leader_epoch(f->core));
    if (replica_leader_epoch(f->core) == epoch && !shares(c, f, e->offset))
        sim_fail(the_watch->sim, "%s, which leads %s in epoch %d, counts up to %" PRId64 " what %s does not have",
                 name_of(c), c->of->folder, epoch, e->offset, name_of(f));
}

static void stepped(struct watched_core *c, const struct replica_event *e, const struct replica_actions *out)
{
    if (e->kind == REPLICA_WRITTEN && e->error == KERR_NONE && replica_role(c->core) == REPLICA_FOLLOWER)
        appended(c);
    if (e->kind == REPLICA_FETCHED && replica_role(c->core) == REPLICA_LEADER)
        counted(c, e);
    for (size_t i = 0; i < out->count; i++) {
        const struct replica_action *a = &out->at[i];
        if (a->kind == REPLICA_DO_ALTER) {
            sim_cover("a leader asked for another ISR");
        } else if (a->kind == REPLICA_DO_LEAD) {
            (void)leads(c, a->leader_epoch);
            has_all(c, committed_before(c->of, a->leader_epoch), "the new leader");
        } else if (a->kind == REPLICA_DO_HIGH_WATERMARK) {
            raised(c, e, a);
        } else if (a->kind == REPLICA_DO_TRUNCATE) {
            cut(c, a->offset);
        } else if (a->kind == REPLICA_DO_RESTART) {
            sim_cover("a follower began anew");
        }
    }
    c->behind = replica_role(c->core) == REPLICA_FOLLOWER && replica_lag(c->core, log_end(c->log)) > 0;
}

/* ---- what is called: what is kept here is no process's memory ---- */

struct replica_core *__real_replica_new(const struct replica_env *env);
struct replica_core *__wrap_replica_new(const struct replica_env *env);
struct replica_core *__wrap_replica_new(const struct replica_env *env)
{
    struct replica_core *core = __real_replica_new(env);
    struct process *p = process_current();
    if (the_watch == NULL || p == NULL)
        return core;
    uint32_t owner = heap_enter(0);
    struct watched_core *c = xcalloc(1, sizeof *c);
    *c = (struct watched_core){.core = core, .process = p, .id = env->node_id};
    LL_PREPEND(the_watch->cores, c);
    (void)heap_enter(owner);
    return core;
}

struct replica_core *__real_replica_free(struct replica_core *core);
struct replica_core *__wrap_replica_free(struct replica_core *core);
struct replica_core *__wrap_replica_free(struct replica_core *core)
{
    struct watched_core *c = core != NULL ? find(core) : NULL;
    if (c != NULL) {
        uint32_t owner = heap_enter(0);
        LL_DELETE(the_watch->cores, c);
        free(c);
        (void)heap_enter(owner);
    }
    return __real_replica_free(core);
}

/* A new core's log is the next one of its process that is held. */
void __real_log_hold_high_watermark(struct log *l, bool hold);
void __wrap_log_hold_high_watermark(struct log *l, bool hold);
void __wrap_log_hold_high_watermark(struct log *l, bool hold)
{
    const struct process *p = process_current();
    struct watched_core *c = NULL;
    if (the_watch != NULL && p != NULL && hold)
        LL_FOREACH (the_watch->cores, c)
            if (c->process == p && c->log == NULL)
                break;
    if (c != NULL) {
        uint32_t owner = heap_enter(0);
        c->log = l;
        c->of = partition_of(the_watch, log_dir(l));
        (void)heap_enter(owner);
    }
    __real_log_hold_high_watermark(l, hold);
}

void __real_replica_step(struct replica_core *core, const struct replica_event *e, struct replica_actions *out);
void __wrap_replica_step(struct replica_core *core, const struct replica_event *e, struct replica_actions *out);
void __wrap_replica_step(struct replica_core *core, const struct replica_event *e, struct replica_actions *out)
{
    __real_replica_step(core, e, out);
    struct watched_core *c = find(core);
    if (!is_watched(c))
        return;
    replica_check(core, &e->log);
    uint32_t owner = heap_enter(0);
    stepped(c, e, out);
    (void)heap_enter(owner);
}

enum kafka_error __real_replica_acknowledge(const struct replica_core *core);
enum kafka_error __wrap_replica_acknowledge(const struct replica_core *core);
enum kafka_error __wrap_replica_acknowledge(const struct replica_core *core)
{
    struct watched_core *c = find(core);
    if (is_watched(c)) {
        uint32_t owner = heap_enter(0);
        if (replica_role(core) != REPLICA_LEADER)
            sim_fail(the_watch->sim, "%s, which does not lead %s in epoch %d, takes an append for committed",
                     name_of(c), c->of->folder, replica_leader_epoch(core));
        (void)leads(c, replica_leader_epoch(core));
        (void)heap_enter(owner);
    }
    return __real_replica_acknowledge(core);
}

/* ---- what others ask ---- */

void replicawatch_check(struct replicawatch *w)
{
    struct watched_partition *p;
    struct watched_core *c;
    LL_FOREACH (w->cores, c)
        if (is_watched(c))
            c->of->start = MAX(c->of->start, log_start(c->log));
    LL_FOREACH (w->partitions, p)
        check_members(w, p);
}

int64_t replicawatch_start(const struct replicawatch *w, const char *folder)
{
    const struct watched_partition *p = partition_in(w, folder);
    return p ? p->start : 0;
}

int64_t replicawatch_committed(const struct replicawatch *w, const char *folder)
{
    const struct watched_partition *p = partition_in(w, folder);
    return p ? p->end : -1;
}

int64_t replicawatch_committed_in(const struct replicawatch *w, const char *folder, int32_t epoch)
{
    const struct watched_partition *p = partition_in(w, folder);
    return p ? committed_before(p, epoch + 1) : -1;
}

bool replicawatch_led(const struct replicawatch *w, const char *folder, int32_t epoch)
{
    const struct watched_partition *p = partition_in(w, folder);
    bool led = p == NULL || p->led_count == 0;
    for (size_t i = 0; p != NULL && i < p->led_count; i++)
        led |= p->led[i].epoch >= epoch;
    return led;
}

static bool works_at(const struct replicawatch *w, const struct watched_partition *p, int32_t id)
{
    const struct watched_core *c;
    LL_FOREACH (w->cores, c)
        if (is_watched(c) && c->of == p && c->id == id)
            return replica_role(c->core) != REPLICA_IDLE;
    return false;
}

bool replicawatch_in_sync_now(const struct replicawatch *w)
{
    const struct watched_partition *p;
    LL_FOREACH (w->partitions, p) {
        const struct seen_partition *seen = metawatch_partition(w->meta, p->topic, p->partition);
        for (int i = 0; seen != NULL && i < seen->isr_count; i++)
            if (!works_at(w, p, seen->isr[i]))
                return false;
    }
    return true;
}

struct replica_states replicawatch_states(struct replicawatch *w)
{
    struct replica_states s = {.cuts = w->cuts};
    const struct watched_core *c;
    LL_FOREACH (w->cores, c)
        s.followers_behind += is_watched(c) && c->behind;
    w->cuts = 0;
    return s;
}

static enum replica_part part_of(const struct watched_core *c)
{
    if (c->of == NULL)
        return REPLICA_PART_NONE;
    if (replica_role(c->core) == REPLICA_LEADER)
        return REPLICA_PART_LEADER;
    if (c->behind)
        return REPLICA_PART_BEHIND;
    return replica_role(c->core) == REPLICA_FOLLOWER ? REPLICA_PART_FOLLOWER : REPLICA_PART_NONE;
}

enum replica_part replicawatch_part_of(const struct replicawatch *w, const struct process *p)
{
    enum replica_part part = REPLICA_PART_NONE;
    const struct watched_core *c;
    LL_FOREACH (w->cores, c)
        if (c->process == p)
            part = MAX(part, part_of(c));
    return part;
}
