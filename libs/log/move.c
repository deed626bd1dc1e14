/* move.c - see move.h. */
#include "libs/log/move.h"
#include "libs/log/clean.h"
#include "libs/log/internal.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { COPY_STEP = 1 << 18, NEAR_BYTES = 1 << 19 };

/* A segment as far as it is copied. */
struct copied {
    int64_t base;
    uint64_t bytes;
    bool closed; /* with its indexes, flushed; it gets no more */
};

/* What a step does; written by begin, read by run. */
struct step {
    int64_t base, next; /* next: base of the segment behind it; -1: it is the active one */
    uint64_t from, to;  /* bytes of its records */
    bool fresh;         /* the first of all: the folder is emptied, and gets what is there once */
    bool closes, settles;
    int64_t end;   /* what is before it is flushed when a step settles */
    int64_t *gone; /* bases of copied segments that the log has no more */
    size_t gone_count;
    uint64_t index_to, time_to; /* bytes of the active segment's indexes */
    int err;
    bool target; /* err is of the copy's side */
};

struct log_move {
    struct log *log; /* NULL: it is gone, or in its new folder */
    const struct file_system *fs;
    char *folder, *target, *source;
    struct copied *copied; /* by base */
    size_t count, capacity;
    bool started, running;
    unsigned truncations;
    struct step step;
    uint64_t index_bytes, time_bytes; /* of the active segment's indexes */
    bool settled;                     /* flushed up to: */
    int64_t flushed;
    uint64_t bytes;
    int64_t reached;
};

struct log_move *log_move_new(struct log *l, const char *folder, const char *target)
{
    struct log_move *m = xcalloc(1, sizeof *m);
    ASSERT(l->move == NULL);
    l->move = m;
    m->log = l;
    if (l->clean != NULL)
        log_clean_stop(l->clean);
    m->folder = xstrdup(folder);
    m->target = xstrdup(target);
    return m;
}

struct log_move *log_move_free(struct log_move *m)
{
    if (m == NULL)
        return NULL;
    ASSERT(!m->running);
    log_move_cancel(m);
    free(m->step.gone);
    free(m->copied);
    free(m->source);
    free(m->folder);
    free(m->target);
    free(m);
    return NULL;
}

void log_move_detach(struct log *l)
{
    if (l->move != NULL)
        l->move->log = NULL;
    l->move = NULL;
}

void log_move_cancel(struct log_move *m)
{
    if (m->log != NULL)
        log_move_detach(m->log);
}

uint64_t log_move_bytes(const struct log_move *m)
{
    return m->bytes;
}

int64_t log_move_reached(const struct log_move *m)
{
    return m->reached;
}

const char *log_move_folder(const struct log_move *m)
{
    return m->folder;
}

/* ---- what is next ---- */

static struct copied *find_copied(const struct log_move *m, int64_t base)
{
    for (size_t i = m->count; i > 0; i--)
        if (m->copied[i - 1].base == base)
            return &m->copied[i - 1];
    return NULL;
}

static void start_anew(struct log_move *m, const struct log *l)
{
    m->fs = l->fs;
    m->count = 0;
    m->bytes = 0;
    m->reached = l->start;
    m->truncations = l->truncations;
    m->settled = false;
    m->index_bytes = m->time_bytes = 0;
    free(m->source);
    m->source = xstrdup(l->dir);
    m->step.fresh = true;
}

/* Retention goes on meanwhile: what it removed leaves the copy, too. */
static void note_gone(struct log_move *m, const struct log *l)
{
    size_t n = 0;
    while (n < m->count && m->copied[n].base < l->segments[0]->base)
        n++;
    if (n == 0)
        return;
    m->step.gone = xmalloc(n * sizeof *m->step.gone);
    m->step.gone_count = n;
    for (size_t i = 0; i < n; i++) {
        m->step.gone[i] = m->copied[i].base;
        m->bytes -= m->copied[i].bytes;
    }
    m->count -= n;
    memmove(m->copied, m->copied + n, m->count * sizeof *m->copied);
}

static void add_copied(struct log_move *m, int64_t base)
{
    if (m->count == m->capacity) {
        m->capacity = m->capacity ? 2 * m->capacity : 8;
        m->copied = xrealloc(m->copied, m->capacity * sizeof *m->copied);
    }
    m->copied[m->count++] = (struct copied){.base = base};
    m->index_bytes = m->time_bytes = 0;
    m->settled = false;
}

/* The first segment that is not whole in the copy. Those before it are, as they are copied in their order. */
static size_t next_segment(const struct log_move *m, const struct log *l)
{
    if (m->count == 0)
        return 0;
    const struct copied *last = &m->copied[m->count - 1];
    size_t i = log_segment_at(l, last->base);
    return last->closed ? MIN(i + 1, l->segment_count - 1) : i;
}

int log_move_begin(struct log_move *m, size_t max_bytes)
{
    struct step *st = &m->step;
    struct log *l = m->log;
    ASSERT(!m->running && l != NULL && max_bytes > 0);
    if (l->failed != 0)
        return -EIO;
    if (l->clean != NULL)
        return -EBUSY;
    *st = (struct step){0};
    if (!m->started || m->truncations != l->truncations)
        start_anew(m, l);
    m->started = true;
    note_gone(m, l);
    size_t i = next_segment(m, l);
    struct segment *s = l->segments[i];
    bool active = i + 1 == l->segment_count;
    if (find_copied(m, s->base) == NULL)
        add_copied(m, s->base);
    const struct copied *c = find_copied(m, s->base);
    st->base = s->base;
    st->next = active ? -1 : l->segments[i + 1]->base;
    st->from = c->bytes;
    st->to = c->bytes + MIN(s->size_bytes - c->bytes, (uint64_t)max_bytes);
    st->closes = !active && st->to == s->size_bytes;
    st->settles = active && s->size_bytes - st->to <= NEAR_BYTES;
    st->end = st->to == s->size_bytes ? l->end : s->base; /* what is behind `to` is not in the copy yet */
    int err = 0;
    if (st->settles) {
        err = index_write(&s->offsets);
        if (err == 0)
            err = index_write(&s->times);
        st->index_to = (uint64_t)s->offsets.in_file * INDEX_OFFSET_ENTRY;
        st->time_to = (uint64_t)s->times.in_file * INDEX_TIME_ENTRY;
    }
    if (err < 0) {
        free(st->gone);
        *st = (struct step){0};
        return err == -ENOSPC ? err : log_fail(l, err, "writing an index");
    }
    m->running = true;
    return 0;
}

/* ---- copying ---- */

static int write_side(struct log_move *m, int err)
{
    if (err < 0)
        m->step.target = true;
    return err;
}

static int copy_range(struct log_move *m, int from, int to, uint64_t start, uint64_t end)
{
    uint8_t *bytes = xmalloc(COPY_STEP);
    int err = 0;
    for (uint64_t at = start; err == 0 && at < end; at += COPY_STEP) {
        size_t n = (size_t)MIN(end - at, (uint64_t)COPY_STEP);
        err = file_read_all(m->fs, from, bytes, n, at);
        err = err == -ENODATA ? -EIO : err;
        if (err == 0)
            err = write_side(m, file_write(m->fs, to, bytes, n, at));
    }
    free(bytes);
    return err;
}

/* Bytes start .. end of a file, or up to its size (end UINT64_MAX); the copy gets the file's own length. -ENOENT: there
 * is no such file. */
static int copy_file(struct log_move *m, const char *name, uint64_t start, uint64_t end, bool flush)
{
    char *source = xasprintf("%s/%s", m->source, name), *copy = xasprintf("%s/%s", m->folder, name);
    struct file_stat st = {0};
    int to = -1, from = file_open(m->fs, source, O_RDONLY), err = from < 0 ? from : file_fstat(m->fs, from, &st);
    if (err == 0) {
        to = file_open(m->fs, copy, O_RDWR | O_CREAT);
        err = write_side(m, to < 0 ? to : 0);
    }
    bool all = end == UINT64_MAX;
    if (err == 0)
        err = copy_range(m, from, to, start, all ? st.size_bytes : end);
    if (err == 0)
        err = write_side(m, file_ftruncate(m->fs, to, all ? st.size_bytes : MAX(st.size_bytes, end)));
    if (err == 0 && flush)
        err = write_side(m, file_fdatasync(m->fs, to));
    file_close(m->fs, from);
    file_close(m->fs, to);
    free(source);
    free(copy);
    return err;
}

static int copy_side(struct log_move *m, int64_t base, const char *kind, bool needed)
{
    char name[64];
    snprintf(name, sizeof name, "%020" PRId64 ".%s", base, kind);
    int err = copy_file(m, name, 0, UINT64_MAX, true);
    return err == -ENOENT && !needed ? 0 : err;
}

static int copy_part(struct log_move *m, int64_t base, const char *kind, uint64_t from, uint64_t to, bool flush)
{
    char name[64];
    snprintf(name, sizeof name, "%020" PRId64 ".%s", base, kind);
    return copy_file(m, name, from, to, flush);
}

struct snapshots {
    char **names;
    size_t count, capacity;
};

static void note_snapshot(void *arg, const char *name)
{
    struct snapshots *s = arg;
    size_t n = strlen(name);
    if (n < 9 || strcmp(name + n - 9, ".snapshot") != 0)
        return;
    if (s->count == s->capacity) {
        s->capacity = s->capacity ? 2 * s->capacity : 8;
        s->names = xrealloc(s->names, s->capacity * sizeof *s->names);
    }
    s->names[s->count++] = xstrdup(name);
}

/* What is there once, or was written before the move began. A snapshot may go under us: a roll makes the next. */
static int copy_first(struct log_move *m)
{
    struct snapshots s = {0};
    int err = write_side(m, file_remove_tree(m->fs, m->folder));
    if (err == 0)
        err = write_side(m, file_mkdir(m->fs, m->folder));
    if (err == 0)
        err = copy_file(m, "partition.metadata", 0, UINT64_MAX, true);
    if (err == -ENOENT)
        err = 0; /* a log that has no topic id */
    if (err == 0)
        err = file_list(m->fs, m->source, note_snapshot, &s);
    for (size_t i = 0; i < s.count; i++) {
        if (err == 0)
            err = copy_file(m, s.names[i], 0, UINT64_MAX, true);
        err = err == -ENOENT ? 0 : err;
        free(s.names[i]);
    }
    free(s.names);
    return err;
}

static int remove_gone(struct log_move *m)
{
    static const char *const kinds[] = {"log", "index", "timeindex", "txnindex", "snapshot"};
    for (size_t i = 0; i < m->step.gone_count; i++)
        for (size_t k = 0; k < COUNTOF(kinds); k++) {
            char *path = xasprintf("%s/%020" PRId64 ".%s", m->folder, m->step.gone[i], kinds[k]);
            int err = file_unlink(m->fs, path);
            free(path);
            if (err < 0 && err != -ENOENT)
                return write_side(m, err);
        }
    return 0;
}

static int close_segment(struct log_move *m)
{
    const struct step *st = &m->step;
    int err = copy_side(m, st->base, "index", true);
    if (err == 0)
        err = copy_side(m, st->base, "timeindex", true);
    if (err == 0)
        err = copy_side(m, st->base, "txnindex", false);
    return err == 0 ? copy_side(m, st->next, "snapshot", false) : err;
}

static int settle(struct log_move *m)
{
    const struct step *st = &m->step;
    int err = copy_part(m, st->base, "index", m->index_bytes, MAX(st->index_to, m->index_bytes), true);
    if (err == 0)
        err = copy_part(m, st->base, "timeindex", m->time_bytes, MAX(st->time_to, m->time_bytes), true);
    return err == 0 ? write_side(m, file_sync_dir(m->fs, m->folder)) : err;
}

void log_move_run(struct log_move *m)
{
    struct step *st = &m->step;
    int err = st->fresh ? copy_first(m) : remove_gone(m);
    if (err == 0)
        err = copy_part(m, st->base, "log", st->from, st->to, st->closes || st->settles);
    if (err == 0 && st->closes)
        err = close_segment(m);
    if (err == 0 && st->settles)
        err = settle(m);
    st->err = err;
}

/* An offset at or before the first that is not copied. */
static int64_t offset_at(const struct log *l, int64_t base, uint64_t bytes)
{
    size_t i = log_segment_at(l, base);
    struct segment *s = l->segments[i];
    if (s->base != base)
        return base;
    if (bytes >= s->size_bytes)
        return i + 1 < l->segment_count ? l->segments[i + 1]->base : l->end;
    return base;
}

int log_move_end(struct log_move *m, bool *ret_target, uint64_t *ret_bytes)
{
    const struct log *l = m->log;
    struct step *st = &m->step;
    struct copied *c = find_copied(m, st->base);
    int err = st->err;
    ASSERT(m->running && c != NULL);
    m->running = false;
    free(st->gone);
    st->gone = NULL;
    *ret_target = st->target;
    *ret_bytes = err == 0 ? st->to - st->from : 0;
    if (err == -ENOENT && !st->target)
        err = -ESTALE;
    if (st->fresh && err < 0)
        m->started = false; /* begin anew */
    if (err < 0 || l == NULL)
        return err;
    m->bytes += st->to - st->from;
    c->bytes = st->to;
    c->closed = st->closes;
    if (st->settles) {
        m->settled = true;
        m->flushed = st->end;
        m->index_bytes = st->index_to;
        m->time_bytes = st->time_to;
    }
    m->reached = MAX(m->reached, offset_at(l, st->base, st->to));
    return 0;
}

/* ---- the change of names ---- */

bool log_move_is_near(const struct log_move *m)
{
    const struct log *l = m->log;
    if (l == NULL)
        return false;
    const struct copied *c = m->count > 0 ? &m->copied[m->count - 1] : NULL;
    const struct segment *s = log_active(l);
    return !m->running && m->settled && m->truncations == l->truncations && c != NULL && c->base == s->base &&
           m->copied[0].base == l->segments[0]->base && m->count == l->segment_count &&
           s->size_bytes - c->bytes <= NEAR_BYTES;
}

/* What was appended since the last step, and what is small and changes. */
static int copy_rest(struct log_move *m, struct log *l)
{
    struct segment *s = log_active(l);
    struct copied *c = find_copied(m, s->base);
    bool flush = l->recovery_point > m->flushed;
    int err = index_write(&s->offsets);
    if (err == 0)
        err = index_write(&s->times);
    if (err == 0)
        err = copy_part(m, s->base, "log", c->bytes, s->size_bytes, flush);
    if (err == 0)
        err = copy_part(m, s->base, "index", m->index_bytes, (uint64_t)s->offsets.in_file * INDEX_OFFSET_ENTRY, flush);
    if (err == 0)
        err = copy_part(m, s->base, "timeindex", m->time_bytes, (uint64_t)s->times.in_file * INDEX_TIME_ENTRY, flush);
    if (err == 0)
        err = copy_side(m, s->base, "txnindex", false);
    if (err == 0)
        err = write_side(m, epochs_store(&l->epochs, l->fs, m->folder, true));
    l->epochs.dirty = true; /* it is the old folder's that may lack something, should the move end here */
    return err;
}

static int sync_parent(const struct file_system *fs, const char *path)
{
    const char *slash = strrchr(path, '/');
    char *parent = slash != NULL ? xstrndup(path, (size_t)(slash - path)) : xstrdup(".");
    int err = file_sync_dir(fs, parent);
    free(parent);
    return err;
}

/* The old name goes first: a start that finds neither knows that the copy is whole. So the copy's own has to be durable
 * before. */
static int change_names(struct log_move *m, struct log *l, const char *doomed)
{
    int err = write_side(m, sync_parent(m->fs, m->folder));
    if (err == 0)
        err = file_rename(m->fs, l->dir, doomed);
    if (err < 0)
        return err;
    err = sync_parent(m->fs, doomed);
    if (err == 0) {
        err = write_side(m, file_rename(m->fs, m->folder, m->target));
        if (err == 0) {
            err = write_side(m, sync_parent(m->fs, m->target));
            if (err == 0)
                return 0;
            (void)file_rename(m->fs, m->target, m->folder);
            (void)sync_parent(m->fs,
                              m->target); /* before the old name is there again: a power cut must not show both */
        }
    }
    int back = file_rename(m->fs, doomed, l->dir);
    if (back < 0)
        log_fail(l, back, "taking a move back");
    return err;
}

/* Nothing says of the copies of the active segment's indexes that they are flushed, and a mark's snapshot may not be
 * among what was copied: the next flush and the next mark see to it. */
static void rehome(struct log *l, const char *dir)
{
    for (size_t i = 0; i < l->segment_count; i++)
        segment_rehome(l->segments[i], dir);
    log_active(l)->offsets.dirty = log_active(l)->times.dirty = true;
    l->mark_base = l->snapshot_offset = -1;
    l->marked = false;
    l->truncations++; /* a flush that is under way is of the old files */
    /* What waits for its removal goes with the old folder. */
    log_removal_end(l->doomed);
    l->doomed = NULL;
    free(l->dir);
    l->dir = xstrdup(dir);
    l->dir_dirty = true;
}

int log_move_finish(struct log_move *m, const char *doomed, bool *ret_target)
{
    struct log *l = m->log;
    ASSERT(l != NULL && !log_has_staged(l));
    *ret_target = false;
    if (l->failed != 0)
        return -EIO;
    if (!log_move_is_near(m))
        return -EAGAIN;
    m->step = (struct step){0};
    int err = copy_rest(m, l);
    if (err == 0)
        err = change_names(m, l, doomed);
    *ret_target = m->step.target;
    if (err < 0)
        return err;
    rehome(l, m->target);
    log_move_detach(l);
    return 0;
}
