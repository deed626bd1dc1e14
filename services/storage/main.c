/* main.c - karst-storage: the partition logs of one node id.
 *
 * Started by   karst up, or anybody: karst-storage --config FILE --id NODE.ID. One a data directory.
 * Peers        front ends, group and txn services call it (Append, Read, and Kafka's own requests about logs); it calls
 * the controller. Keeps        every partition that the image assigns to its node id, in Kafka's files, in the folders
 * of log.dirs. Signals      SIGTERM, SIGINT: parked reads are answered, logs flushed and closed, checkpoints and the
 * clean-stop marker written, goodbye; a second one: at once, as kill -9. Shutdown     nothing new is taken -> parked
 * reads
 * -> batches being compressed anew, flushes, cold reads, a checkpoint under way -> interest sets and given files ->
 * logs -> checkpoints -> .kafka_cleanshutdown -> bus. A crash      loses nothing that was answered: it is in the page
 * cache. The next start checks what lies behind the recovery points.
 *
 * A turn: the bus delivers Appends, which are checked and staged -> LOOP_COMMIT: one pwritev a log, replies, and the
 * parked reads that have data now -> the bus sends all of it at once. */
#include "kafka/apis.h"
#include "services/storage/replication.h"
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#define FLUSH_TIMER_LEAST_MS ((uint64_t)100)
enum { MMAP_FROM_BYTES = 4 << 20, KEEP_FREE_BYTES = 8 << 20 };
enum { HOUSEKEEPING_MS = 10000, RETENTION_FIRST_MS = 30000, DRAIN_MS = 30000 };

/* ---- registration ---- */

static void on_register(void *ctx, Karst__Bus__RegisterRequest *request)
{
    struct storage *s = ctx;
    Karst__Bus__Listener **list = arena_alloc(s->arena, s->listeners.count * sizeof *list + 1);
    for (size_t i = 0; i < s->listeners.count; i++) {
        const struct config_listener *from = &s->listeners.items[i];
        list[i] = arena_alloc(s->arena, sizeof **list);
        karst__bus__listener__init(list[i]);
        list[i]->name = arena_str(s->arena, slice_str(from->name));
        list[i]->host = arena_str(s->arena, slice_str(*from->host ? from->host : "localhost"));
        list[i]->port = from->port;
        list[i]->security_protocol = from->security_protocol;
    }
    request->listeners = list;
    request->n_listeners = s->listeners.count;
    directories_register(s, request);
}

static void on_heartbeat(void *ctx, Karst__Bus__HeartbeatRequest *request)
{
    directories_heartbeat(ctx, request);
}

/* ---- timers ---- */

static void run_removal(void *ctx)
{
    log_removal_run(ctx);
}

static void end_removal(void *ctx)
{
    log_removal_end(ctx);
}

static void on_housekeeping(void *ctx)
{
    struct storage *s = ctx;
    struct log_removal *removal = NULL;
    for (struct replica *r = s->replicas; r != NULL; r = r->hh.next) {
        removal = log_removal_begin(r->log, loop_wall_ms(s->loop), removal);
        log_tick(r->log, loop_wall_ms(s->loop));
    }
    if (removal != NULL)
        loop_work(s->loop, run_removal, end_removal, removal);
    files_idle(s);
    interests_idle(s);
    opening_retry(s);
}

void storage_retain(struct replica *r)
{
    if (log_failed(r->log) != 0 || log_has_staged(r->log))
        return;
    r->retention_waits = r->cleaning != NULL;
    if (r->retention_waits)
        return;
    int64_t start = log_start(r->log);
    int n = log_retain(r->log, loop_wall_ms(r->storage->loop));
    files_check(r);
    if (n < 0 && n != -ENOSPC) /* on a full disk what is old stays until there is room for a new segment */
        directory_failed(r->dir, n);
    else if (n > 0)
        log_info("%s-%d: retention removed %d segments; the log starts at %lld", r->topic, r->key.partition, n,
                 (long long)log_start(r->log));
    if (log_start(r->log) != start) {
        read_wake(r);
        fetchers_look(r); /* a leader that does not know sends consumers here for what is gone (nearest.c) */
    }
    if (log_failed(r->log) == 0 && log_wants_flush(r->log))
        flush_want(r, FLUSH_LATER);
}

static void on_retention(void *ctx)
{
    struct storage *s = ctx;
    for (struct replica *r = s->replicas; r != NULL; r = r->hh.next)
        storage_retain(r);
}

static void start_timers(struct storage *s)
{
    const struct config *c = s->config;
    uint64_t retention = (uint64_t)config_long(c, "log.retention.check.interval.ms");
    uint64_t marks = (uint64_t)config_long(c, "replica.high.watermark.checkpoint.interval.ms");
    uint64_t points = (uint64_t)config_int(c, "log.flush.offset.checkpoint.interval.ms");
    uint64_t starts = (uint64_t)config_int(c, "log.flush.start.offset.checkpoint.interval.ms");
    uint64_t lag = (uint64_t)config_long(c, "replica.lag.time.max.ms") / 2;
    uint64_t first = RETENTION_FIRST_MS, least = 1;
    s->retention = loop_timer_start(s->loop, MIN(first, retention), retention, on_retention, s);
    s->housekeeping = loop_timer_start(s->loop, HOUSEKEEPING_MS, HOUSEKEEPING_MS, on_housekeeping, s);
    s->marks_timer = loop_timer_start(s->loop, marks, marks, checkpoints_on_marks, s);
    s->points_timer = loop_timer_start(s->loop, MAX(points, least), MAX(points, least), marks_on_timer, s);
    s->lag_timer = loop_timer_start(s->loop, MAX(lag, least), MAX(lag, least), replication_on_timer, s);
    s->starts_timer = loop_timer_start(s->loop, MAX(starts, least), MAX(starts, least), checkpoints_on_starts, s);
}

/* flush.ms is looked at as often as the smallest of them asks for; not at all when no topic has one. */
void storage_arm_flush_timer(struct storage *s)
{
    uint64_t least = INT64_MAX;
    s->settings_changed = false;
    for (const struct replica *r = s->replicas; r != NULL; r = r->hh.next) {
        uint64_t ms = (uint64_t)log_config(r->log)->flush_ms;
        least = MIN(least, ms);
    }
    s->flush_least_ms = least;
    s->flush_timer = loop_timer_stop(s->flush_timer);
    if (least != INT64_MAX && !s->draining)
        s->flush_timer = loop_timer_start(s->loop, MAX(least, FLUSH_TIMER_LEAST_MS), MAX(least, FLUSH_TIMER_LEAST_MS),
                                          flush_on_timer, s);
}

static void stop_timers(struct storage *s)
{
    s->retention = loop_timer_stop(s->retention);
    s->housekeeping = loop_timer_stop(s->housekeeping);
    s->marks_timer = loop_timer_stop(s->marks_timer);
    s->points_timer = loop_timer_stop(s->points_timer);
    s->starts_timer = loop_timer_stop(s->starts_timer);
    s->flush_timer = loop_timer_stop(s->flush_timer);
    s->parked_timer = loop_timer_stop(s->parked_timer);
    s->lag_timer = loop_timer_stop(s->lag_timer);
    fetchers_stop(s);
    peers_stop(s);
    isr_free(s);
    acks_free(s);
    cleaner_stop(s->cleaner);
    for (size_t i = 0; i < s->dir_count; i++) {
        s->dirs[i].tell_timer = loop_timer_stop(s->dirs[i].tell_timer);
        room_stop(&s->dirs[i]);
    }
}

/* ---- drain ---- */

static void try_drained(void *ctx)
{
    struct storage *s = ctx;
    if (s->offline && !s->draining)
        service_fail(s->service, EXIT_FAILURE);
    if (!s->draining || s->drained || s->flushes > 0 || s->look_ups > 0 || s->preparing > 0 ||
        checkpoints_under_way(s) || opening_under_way(s) || s->cold != NULL || cleaner_is_busy(s->cleaner) ||
        !moves_drained(s))
        return;
    s->drained = true;
    read_end(s);
    directories_close(s);
    service_drained(s->service);
}

static void on_drain(void *ctx)
{
    struct storage *s = ctx;
    s->draining = true;
    opening_stop(s);
    stop_timers(s);
    read_answer_all(s);
    acks_end_all(s);
    deletions_look(s, true);
    /* What is staged in this turn is committed and answered before the first hook of a turn finds nothing left. */
    loop_again(s->loop);
}

/* ---- start ---- */

/* Of the slow pool, before its first use: what is opened must not keep flushes and cold reads from it. */
static void size_slow_pool(const struct storage *s)
{
    enum { OTHER_THREADS = 4, THREADS_MAX = 256 };
    char text[32];
    long long threads = OTHER_THREADS + config_int(s->config, "log.cleaner.threads") +
                        (long long)s->dir_count * config_int(s->config, "num.recovery.threads.per.data.dir");
    snprintf(text, sizeof text, "%lld", MIN(threads, (long long)THREADS_MAX));
    setenv("UV_THREADPOOL_SIZE", text, 1);
}

/* What logs may hold open at once; files.c has its own bound, and flushes theirs (flush.c). */
static size_t raise_descriptor_limit(void)
{
    enum { MOST = 1024, SHARE = 2 };
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return MOST;
    if (limit.rlim_cur < limit.rlim_max) {
        struct rlimit raised = {limit.rlim_max, limit.rlim_max};
        if (setrlimit(RLIMIT_NOFILE, &raised) == 0)
            limit = raised;
    }
    return (size_t)MIN(limit.rlim_cur / SHARE, (rlim_t)MOST);
}

static void serve(struct storage *s)
{
    bus_serve(s->bus, KARST__BUS__CALL__BODY_APPEND, append_on_call, s);
    bus_serve(s->bus, KARST__BUS__CALL__BODY_READ, read_on_call, s);
    bus_serve(s->bus, KARST__BUS__CALL__BODY_REPLICA_READ, read_on_call, s);
    bus_serve_kafka(s->bus, KAFKA_API_LIST_OFFSETS, list_offsets_on_call, s);
    bus_serve_kafka(s->bus, KAFKA_API_OFFSET_FOR_LEADER_EPOCH, offset_for_leader_epoch_on_call, s);
    bus_serve_kafka(s->bus, KAFKA_API_DELETE_RECORDS, delete_records_on_call, s);
    bus_serve_kafka(s->bus, KAFKA_API_ALTER_REPLICA_LOG_DIRS, alter_replica_log_dirs_on_call, s);
    bus_serve_kafka(s->bus, KAFKA_API_DESCRIBE_CONFIGS, describe_configs_on_call, s);
    bus_serve_kafka(s->bus, KAFKA_API_DESCRIBE_LOG_DIRS, describe_log_dirs_on_call, s);
    bus_serve_kafka(s->bus, KAFKA_API_DESCRIBE_PRODUCERS, describe_producers_on_call, s);
}

static int open_state(struct storage *s)
{
    char *error = NULL;
    s->loop = service_loop(s->service);
    s->bus = service_bus(s->service);
    s->config = service_config(s->service);
    s->rack_aware = config_is_rack_aware(s->config);
    s->arena = arena_new(0);
    s->pool = log_pool_new();
    s->flush_least_ms = (uint64_t)INT64_MAX; /* none has one */
    s->read_arena = arena_new(0);
    log_pool_bound_descriptors(s->pool, raise_descriptor_limit());
    /* Records of a megabyte come and go with every call: the heap keeps room for some instead of asking the kernel for
     * fresh pages. */
    mallopt(M_MMAP_THRESHOLD, MMAP_FROM_BYTES);
    mallopt(M_TRIM_THRESHOLD, KEEP_FREE_BYTES);
    if (config_listeners(s->config, true, s->arena, &s->listeners, &error) != 0) {
        log_error("%s", error);
        free(error);
        return 78;
    }
    int status = directories_open(s);
    if (status != 0)
        return status;
    size_slow_pool(s);
    serve(s);
    loop_hook(s->loop, LOOP_SERVE, directories_turn, s);
    loop_hook(s->loop, LOOP_SERVE, turn_begin, s);
    loop_hook(s->loop, LOOP_COMMIT, turn_commit, s);
    loop_hook(s->loop, LOOP_COMMIT, moves_turn, s);
    loop_hook(s->loop, LOOP_COMMIT, flush_start, s);
    loop_hook(s->loop, LOOP_COMMIT, assign_turn, s);
    loop_hook(s->loop, LOOP_COMMIT, isr_turn, s);
    loop_hook(s->loop, LOOP_COMMIT, fetchers_turn, s);
    loop_hook(s->loop, LOOP_COMMIT, try_drained, s);
    s->cleaner = cleaner_open(s);
    start_timers(s);
    return 0;
}

static void close_state(struct storage *s)
{
    moves_free(s);
    assign_free(s);
    futures_free(s);
    preferred_free(s);
    read_free(s); /* sets and given files name replicas */
    replicas_free(s);
    fetchers_free(s);
    peers_free(s);
    s->cleaner = cleaner_free(s->cleaner);
    prepare_free(s);
    append_free(s);
    s->read_arena = arena_free(s->read_arena);
    s->pool = log_pool_free(s->pool);
    directories_free(s);
    s->image = image_release(s->image);
    buf_free(&s->scratch);
    s->arena = arena_free(s->arena);
}

int main(int argc, char **argv)
{
    struct storage s = {0};
    struct service_options options = {.role = KARST__BUS__ROLE__ROLE_STORAGE,
                                      .ctx = &s,
                                      .drain_ms = DRAIN_MS,
                                      .on_register = on_register,
                                      .on_heartbeat = on_heartbeat,
                                      .on_heartbeat_taken = directories_on_heartbeat_taken,
                                      .on_image = replicas_on_image,
                                      .on_ready = replicas_on_ready,
                                      .on_drain = on_drain};
    int status = service_open(argc, argv, &options, &s.service);
    if (status != 0)
        return status;
    status = open_state(&s);
    if (status == 0) {
        service_join(s.service);
        status = service_run(s.service);
    }
    stop_timers(&s);
    s.service = service_close(s.service);
    close_state(&s);
    return status;
}
