/* room.c - directories whose disk is full.
 *
 *   has room --room_is_missing: an append failed with ENOSPC--> full
 *   full --on_look: the disk has room, and no append has failed for a while--> has room
 *
 * Each heartbeat names those that are full, and the controller has what is in them led by others that are in sync
 * (libs/controller/log_dirs.c). Leaders hear it with our Reads, and wait for nobody who cannot come in sync
 * (libs/replica). Here nothing changes: who leads on, as there are no others, takes what fits, and a
 * follower goes on asking, as only so it hears what it may delete. When there is room again followers ask to be in
 * sync as ever.
 *
 * I1  while a directory that is in use is full, its timer runs, until the process drains. */
#include "services/storage/replication.h"
#include <sys/statvfs.h>

/* A disk that is full again soon after, or that refuses although it counts free blocks, must not move leaders to and
 * fro: each time it stays full for twice as long. */
enum { TELL_MS = 10000, LOOK_MS = 250, LEAST_MS = 500, MOST_MS = 64000, SOON_MS = 60000 };

/* Full until so much is free, or this part of a small disk. What a log asks for ahead of its end (docs/storage.md) is
 * less. */
enum { FREE_BYTES = 16 << 20, FREE_PART = 16, FREE_NAMES = 16 };

static bool has_room(const struct directory *d)
{
    struct statvfs disk;
    if (statvfs(d->path, &disk) != 0)
        return false;
    uint64_t whole = (uint64_t)disk.f_blocks * disk.f_frsize, left = (uint64_t)disk.f_bavail * disk.f_frsize;
    bool names = disk.f_files == 0 || disk.f_favail >= FREE_NAMES; /* 0: made as they are needed */
    return names && left > 0 && left >= MIN((uint64_t)FREE_BYTES, whole / FREE_PART);
}

/* A full disk did not take what has to be there before a flush (log_flush): followers wait for that with their Reads,
 * consumers for the high watermark. */
static void flush_again(struct directory *d)
{
    for (struct replica *r = d->storage->replicas; r != NULL; r = r->hh.next) {
        if (r->dir == d && log_failed(r->log) == 0 && log_safe_end(r->log) < log_end(r->log))
            flush_want(r, FLUSH_NOW);
    }
}

static void on_look(void *ctx)
{
    struct directory *d = ctx;
    struct room *room = &d->room;
    uint64_t now = loop_now_ms(d->storage->loop);
    if (d->failed != 0) {
        room_stop(d);
        return;
    }
    if (now < room->until_ms || !has_room(d))
        return;
    room_stop(d);
    room->missing = false;
    room->came_ms = now;
    log_info("%s has room again: its replicas come back in sync", d->path);
    flush_again(d);
    service_heartbeat_soon(d->storage->service);
}

static void begin(struct directory *d, uint64_t now_ms)
{
    struct room *room = &d->room;
    bool soon = room->came_ms != 0 && now_ms - room->came_ms < SOON_MS;
    room->missing = true;
    room->least_ms = soon ? MIN(2 * room->least_ms, (uint64_t)MOST_MS) : LEAST_MS;
    room->told_ms = 0;
    room->timer = loop_timer_start(d->storage->loop, LOOK_MS, LOOK_MS, on_look, d);
    d->storage->dirs_full = true;
    loop_again(d->storage->loop); /* the rest waits for the next turn: we may be in the middle of anything */
}

void room_is_missing(const struct replica *r)
{
    struct directory *d = r->dir;
    uint64_t now = loop_now_ms(d->storage->loop);
    if (d->failed != 0 || d->storage->draining)
        return;
    if (!d->room.missing)
        begin(d, now);
    d->room.until_ms = now + d->room.least_ms;
    if (d->room.told_ms != 0 && now - d->room.told_ms < TELL_MS)
        return;
    d->room.told_ms = now;
    log_error("%s is full: others that are in sync lead what is in it, other appends are refused until there is room, "
              "now one to %s-%d",
              d->path, r->topic, r->key.partition);
}

void room_turn(struct storage *s)
{
    if (!s->dirs_full)
        return;
    s->dirs_full = false;
    for (struct replica *r = s->replicas; r != NULL; r = r->hh.next) {
        if (r->dir->room.missing)
            fetchers_say_again(r);
    }
    if (service_is_ready(s->service))
        service_heartbeat_soon(s->service);
}

/* The leaders asked in vain for what was in sync by its offsets: they ask again when it reads. */
void room_on_told(struct directory *d)
{
    bool news = d->room.known && !d->room.telling;
    d->room.known = d->room.telling;
    for (struct replica *r = d->storage->replicas; news && r != NULL; r = r->hh.next) {
        if (r->dir == d)
            fetchers_say_again(r);
    }
}

void room_stop(struct directory *d)
{
    d->room.timer = loop_timer_stop(d->room.timer);
}
