/* groupwatch.c - see groupwatch.h. */
#include "tests/sim/groupwatch.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>

#include "libs/base/kafka_error.h"
#include "libs/groups/groups.h"
#include "tests/sim/heap.h"

/* What one life of a coordinator has of a partition. */
struct watched_shard {
    const struct process *process;
    int32_t partition, epoch;
    uint64_t load, append; /* under way */
    size_t appending;      /* records of it */
    int64_t end;           /* of the log, as it knows it; -1: it has read nothing yet */
    bool loaded;
    struct watched_shard *next;
};

struct groupwatch {
    struct sim *sim;
    const struct replicawatch *committed;
    struct watched_shard *shards;
};

static struct groupwatch *the_watch;

struct groupwatch *groupwatch_new(struct sim *s, const struct replicawatch *committed)
{
    struct groupwatch *w = xcalloc(1, sizeof *w);
    w->sim = s;
    w->committed = committed;
    the_watch = w;
    return w;
}

static void forget(struct groupwatch *w, const struct process *p)
{
    struct watched_shard *s, *next;
    LL_FOREACH_SAFE(w->shards, s, next)
    {
        if (p != NULL && s->process != p)
            continue;
        LL_DELETE(w->shards, s);
        free(s);
    }
}

struct groupwatch *groupwatch_free(struct groupwatch *w)
{
    if (w == NULL)
        return NULL;
    the_watch = NULL;
    forget(w, NULL);
    free(w);
    return NULL;
}

void groupwatch_life(struct groupwatch *w, const struct process *p)
{
    forget(w, p);
}

static struct watched_shard *shard_of(struct groupwatch *w, const struct process *p, int32_t partition)
{
    struct watched_shard *s;
    LL_FOREACH (w->shards, s)
        if (s->process == p && s->partition == partition)
            return s;
    s = xcalloc(1, sizeof *s);
    *s = (struct watched_shard){.process = p, .partition = partition, .end = -1};
    LL_PREPEND(w->shards, s);
    return s;
}

static int64_t committed_end(const struct groupwatch *w, int32_t partition)
{
    char folder[40];
    snprintf(folder, sizeof folder, "__consumer_offsets-%d", partition);
    return replicawatch_committed(w->committed, folder);
}

static bool is_followed(const struct groupwatch *w, const struct watched_shard *s)
{
    const struct watched_shard *other;
    LL_FOREACH (w->shards, other)
        if (other->partition == s->partition && other->loaded && other->epoch > s->epoch)
            return true;
    return false;
}

static void compare(struct groupwatch *w, const struct watched_shard *s, const char *what)
{
    int64_t end = committed_end(w, s->partition);
    if (end < 0 || is_followed(w, s))
        return;
    if (s->end != end)
        sim_fail(w->sim,
                 "%s, coordinator of __consumer_offsets-%d in epoch %d, has %s up to %" PRId64 ", and %" PRId64
                 " is committed",
                 process_name(s->process), s->partition, s->epoch, what, s->end, end);
    sim_cover("a coordinator knew all that is committed");
}

static void loaded(struct groupwatch *w, const struct groups *g, struct watched_shard *s)
{
    bool is_loaded = false;
    if (!groups_owns(g, s->partition, &s->epoch, &is_loaded) || !is_loaded)
        return;
    s->loaded = true;
    s->end = MAX(s->end, (int64_t)0);
    compare(w, s, "loaded");
}

static void stepped(struct groupwatch *w, const struct process *p, const struct groups *g, const struct groups_event *e,
                    const struct groups_out *out)
{
    struct watched_shard *s = shard_of(w, p, e->partition);
    if (e->kind == GROUPS_EVENT_LOAD_RECORDS && e->load == s->load && e->record_count > 0) {
        s->end = e->records[e->record_count - 1].offset + 1;
    } else if (e->kind == GROUPS_EVENT_LOADED && e->load == s->load) {
        loaded(w, g, s);
    } else if (e->kind == GROUPS_EVENT_RELEASE) {
        s->loaded = false;
    } else if (e->kind == GROUPS_EVENT_APPENDED && e->error == KERR_NONE && e->append == s->append && s->loaded) {
        s->end += (int64_t)s->appending;
        compare(w, s, "appended");
    }
    for (size_t i = 0; i < out->count; i++) {
        const struct groups_action *a = &out->actions[i];
        if (a->kind == GROUPS_ACTION_REPLY)
            continue;
        s = shard_of(w, p, a->partition);
        if (a->kind == GROUPS_ACTION_APPEND) {
            s->append = a->append;
            s->appending = a->record_count;
        } else {
            s->load = a->load;
            s->end = -1;
            s->loaded = false;
        }
    }
}

void __real_groups_step(struct groups *g, const struct groups_event *event, struct groups_now now,
                        struct groups_out *ret_out);
void __wrap_groups_step(struct groups *g, const struct groups_event *event, struct groups_now now,
                        struct groups_out *ret_out);
void __wrap_groups_step(struct groups *g, const struct groups_event *event, struct groups_now now,
                        struct groups_out *ret_out)
{
    const struct process *p = process_current();
    __real_groups_step(g, event, now, ret_out);
    if (the_watch == NULL || p == NULL || process_is_ghost(p))
        return;
    uint32_t owner = heap_enter(0);
    stepped(the_watch, p, g, event, ret_out);
    (void)heap_enter(owner);
}
