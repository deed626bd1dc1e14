/* log_mover.c - see log_mover.h. */
#include "tests/sim/log_mover.h"

#include <stdio.h>

static const char *const dirs[] = {"/data", "/data2"};

void mover_init(struct log_mover *m, struct sim *s, struct disk *d)
{
    *m = (struct log_mover){.sim = s, .disk = d, .fs = disk_fs(d)};
    for (int i = 0; i < 2; i++)
        if (file_mkdir(&m->fs, dirs[i]))
            sim_fail(s, "no folder");
    (void)file_sync_dir(&m->fs, "");
}

const char *mover_dir(const struct log_mover *m)
{
    return m->at == 0 ? "/data/topic-0" : "/data2/topic-0";
}

static void name(const struct log_mover *m, int dir, const char *what, char out[MOVER_PATH])
{
    snprintf(out, MOVER_PATH, "%s/topic-0.%032x-%s", dirs[dir], m->count, what);
}

static void end(struct log_mover *m)
{
    m->move = log_move_free(m->move);
    m->runs = false;
}

static void give_up(struct log_mover *m, struct log *l, const char *why, int err)
{
    sim_note(m->sim, "the move is given up: %s %d", why, err);
    sim_cover("a move to another directory was given up");
    log_move_cancel(m->move);
    end(m);
    if (!disk_is_dead(m->disk) && log_failed(l) == 0)
        (void)!file_remove_tree(&m->fs, m->folder);
}

static void finish(struct log_mover *m, struct log *l)
{
    char doomed[MOVER_PATH];
    bool target;
    name(m, m->at, "delete", doomed);
    if (sim_chance(m->sim, 200)) /* between the names is where a death hurts */
        disk_die_after(m->disk, sim_below(m->sim, 40));
    int err = log_move_finish(m->move, doomed, &target);
    if (err == -EAGAIN)
        return;
    if (err != 0) {
        give_up(m, l, "finish", err);
        return;
    }
    m->at = 1 - m->at;
    sim_note(m->sim, "the log is in %s now", mover_dir(m));
    sim_cover("a log moved to another directory");
    end(m);
    (void)!file_remove_tree(&m->fs, doomed);
}

static void begin(struct log_mover *m, struct log *l)
{
    char target[MOVER_PATH];
    m->count++;
    name(m, 1 - m->at, "future", m->folder);
    snprintf(target, sizeof target, "%s/topic-0", dirs[1 - m->at]);
    m->move = log_move_new(l, m->folder, target);
    sim_note(m->sim, "a move to %s begins", target);
}

/* Between two steps of the move, and while one runs, the log is written as ever. */
void mover_step(struct log_mover *m, struct log *l)
{
    enum { STEP_BYTES = 60000 };
    uint64_t bytes;
    bool target;
    if (m->move == NULL) {
        if (sim_chance(m->sim, 200))
            begin(m, l);
        return;
    }
    if (m->runs) {
        m->runs = false;
        log_move_run(m->move);
        int err = log_move_end(m->move, &target, &bytes);
        if (err != 0 && err != -ESTALE)
            give_up(m, l, "a step", err);
        return;
    }
    if (sim_chance(m->sim, 20)) {
        give_up(m, l, "cancelled", 0);
        return;
    }
    if (log_move_is_near(m->move)) {
        finish(m, l);
        return;
    }
    int err = log_move_begin(m->move, 500 + sim_below(m->sim, STEP_BYTES));
    if (err == 0)
        m->runs = true;
    else if (err != -EBUSY)
        give_up(m, l, "a step begins", err);
}

/* A step that runs ends first, as a stop waits for it; a disk that is dead takes nothing of it. */
void mover_stop(struct log_mover *m)
{
    uint64_t bytes;
    bool target;
    if (m->runs) {
        log_move_run(m->move);
        (void)!log_move_end(m->move, &target, &bytes);
    }
    end(m);
}

struct found {
    struct log_mover *m;
    int dir;
    bool whole;
    char future[MOVER_PATH];
    char doomed[2][MOVER_PATH];
    int doomed_count;
};

/* A copy that was given up may be there still, where a disk failed or lost power: the last one counts. */
static bool is_later(const struct found *f, const char *entry)
{
    const char *known = strrchr(f->future, '/');
    return known == NULL || strcmp(known + 1, entry) < 0;
}

static void on_name(void *arg, const char *entry)
{
    struct found *f = arg;
    const char *dash = strrchr(entry, '-');
    if (strcmp(entry, "topic-0") == 0)
        f->whole = true;
    else if (dash != NULL && strcmp(dash, "-future") == 0 && is_later(f, entry))
        snprintf(f->future, sizeof f->future, "%s/%s", dirs[f->dir], entry);
    else if (f->doomed_count < 2)
        snprintf(f->doomed[f->doomed_count++], MOVER_PATH, "%s/%s", dirs[f->dir], entry);
}

/* As the storage node: the names that are found are made durable; then the one folder of the partition's name; where
 * there is none, the copy gets it. */
void mover_find(struct log_mover *m, bool flushed)
{
    struct found f[2] = {{.m = m, .dir = 0}, {.m = m, .dir = 1}};
    for (int i = 0; i < 2; i++)
        if (file_sync_dir(&m->fs, dirs[i]) || file_list(&m->fs, dirs[i], on_name, &f[i]))
            sim_fail(m->sim, "the directory %s cannot be read", dirs[i]);
    if (f[0].whole && f[1].whole)
        sim_fail(m->sim, "both directories hold the log");
    for (int i = 0; i < 2; i++) {
        if (f[i].whole)
            m->at = i;
        for (int n = 0; n < f[i].doomed_count; n++)
            (void)!file_remove_tree(&m->fs, f[i].doomed[n]);
    }
    bool first = f[1].future[0] == '\0' || (f[0].future[0] != '\0' && is_later(&f[1], strrchr(f[0].future, '/') + 1));
    for (int n = 0; n < 2; n++) {
        int i = (n == 0) == first ? 0 : 1;
        if (f[i].future[0] == '\0')
            continue;
        if (f[0].whole || f[1].whole) {
            sim_cover("a start found the copy of a move");
            (void)!file_remove_tree(&m->fs, f[i].future);
            continue;
        }
        m->at = i;
        if (file_rename(&m->fs, f[i].future, mover_dir(m)) != 0 || file_sync_dir(&m->fs, dirs[i]) != 0)
            sim_fail(m->sim, "the copy cannot be taken");
        f[i].whole = true;
        sim_cover("a start took the copy of a move");
    }
    if (!f[0].whole && !f[1].whole && flushed)
        sim_fail(m->sim, "neither directory holds the log");
}
