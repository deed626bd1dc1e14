/* replication.c - a replica beside others: the core of libs/replica decides, this does. */
#include "services/storage/replication.h"
#include <stdlib.h>

static bool broker_of(void *ctx, int32_t id, struct replica_broker *ret_broker)
{
    const struct storage *s = ctx;
    const struct image_broker *b = image_broker(s->image, id);
    if (b == NULL)
        return false;
    *ret_broker = (struct replica_broker){b->epoch, b->fenced, b->in_controlled_shutdown};
    return true;
}

static struct replica_log log_now(const struct replica *r)
{
    return (struct replica_log){.start = log_start(r->log),
                                .end = log_end(r->log),
                                .high_watermark = log_high_watermark(r->log),
                                .safe_end = log_safe_end(r->log),
                                .latest_epoch = log_latest_epoch(r->log)};
}

/* ---- what the core wants done ---- */

static void run(struct replica *r, struct replica_event e, struct slice records);

/* Batch by batch, so that segments are rolled where the leader rolled them. */
static enum kafka_error stage_batches(struct replica *r, struct slice records)
{
    struct batch b;
    while (records.size > 0) {
        if (batch_read_header(records, &b) != 0 || b.size > records.size)
            break; /* torn: the rest comes with the next Read */
        struct log_append a = {.bytes = records.data,
                               .size = b.size,
                               .origin = LOG_FROM_LEADER,
                               .now_wall_ms = loop_wall_ms(r->storage->loop)};
        enum kafka_error error = log_stage(r->log, &a);
        if (error == KERR_KAFKA_STORAGE_ERROR && log_failed(r->log) == 0) {
            room_is_missing(r); /* for the segment that it begins */
            return KERR_UNKNOWN_SERVER_ERROR;
        }
        if (error != KERR_NONE) {
            log_error("%s-%d: what its leader %d sent for offset %lld is not taken: %s", r->topic, r->key.partition,
                      r->leader, (long long)log_end(r->log), a.message != NULL ? a.message : kafka_error_name(error));
            free(a.record_errors);
            return error;
        }
        records = slice_make(records.data + b.size, records.size - b.size);
    }
    return log_has_staged(r->log) ? KERR_NONE : KERR_CORRUPT_MESSAGE;
}

static void append_as_follower(struct replica *r, struct slice records)
{
    if (r->follower_throttled)
        throttle_record(&r->storage->follower_throttle, loop_now_ms(r->storage->loop), records.size);
    enum kafka_error error = stage_batches(r, records);
    int err = log_commit(r->log);
    if (err == -ENOSPC)
        room_is_missing(r);
    if (log_failed(r->log) != 0)
        directory_failed(r->dir, log_failed(r->log));
    if (err < 0)
        error = log_failed(r->log) != 0 ? KERR_KAFKA_STORAGE_ERROR : KERR_UNKNOWN_SERVER_ERROR; /* again, when full */
    if (log_failed(r->log) == 0 && log_safe_end(r->log) < log_end(r->log))
        flush_want(r, FLUSH_NOW);
    else if (log_failed(r->log) == 0 && log_wants_flush(r->log))
        flush_want(r, FLUSH_LATER);
    run(r, (struct replica_event){.kind = REPLICA_WRITTEN, .error = error}, SLICE_EMPTY);
}

static void cut(struct replica *r, enum replica_action_kind kind, int64_t offset)
{
    int64_t end = log_end(r->log), mark = log_high_watermark(r->log);
    /* A cut writes, too, and what fails in the middle of one takes the directory offline. The leader says the same
     * again where it knows by epochs; one without is made now, or never. */
    if (kind == REPLICA_DO_TRUNCATE && r->dir->room.missing && log_latest_epoch(r->log) >= 0) {
        run(r, (struct replica_event){.kind = REPLICA_CUT, .error = KERR_UNKNOWN_SERVER_ERROR}, SLICE_EMPTY);
        return;
    }
    int err = kind == REPLICA_DO_TRUNCATE ? log_truncate(r->log, offset)
                                          : log_restart_at(r->log, offset, loop_wall_ms(r->storage->loop));
    files_check(r);
    if (err < 0)
        directory_failed(r->dir, err);
    else if (end > log_end(r->log) || kind == REPLICA_DO_RESTART)
        log_info("%s-%d: cut from offset %lld to %lld, as its leader %d has it in epoch %d%s", r->topic,
                 r->key.partition, (long long)end, (long long)log_end(r->log), r->leader, r->leader_epoch,
                 log_end(r->log) < mark ? "; that is below the high watermark" : "");
    checkpoints_cut(r);
    run(r, (struct replica_event){.kind = REPLICA_CUT, .error = err < 0 ? KERR_KAFKA_STORAGE_ERROR : KERR_NONE},
        SLICE_EMPTY);
}

static void move_start(struct replica *r, int64_t offset)
{
    int err = log_delete_before(r->log, offset);
    if (err < 0 && err != -ERANGE)
        directory_failed(r->dir, err);
}

static void act(struct replica *r, const struct replica_action *a, struct slice records)
{
    if (log_failed(r->log) != 0)
        return;
    switch (a->kind) {
    case REPLICA_DO_LEAD:
        if (a->leader_epoch > log_latest_epoch(r->log))
            log_assign_epoch(r->log, a->leader_epoch);
        break;
    case REPLICA_DO_FOLLOW: fetchers_follow(r, a->leader); break;
    case REPLICA_DO_REST: fetchers_forget(r); break;
    case REPLICA_DO_END_WAITS: acks_end(r, KERR_NOT_LEADER_OR_FOLLOWER); break;
    case REPLICA_DO_HIGH_WATERMARK:
        log_set_high_watermark(r->log, a->offset);
        acks_on_high_watermark(r);
        read_wake(r);
        break;
    case REPLICA_DO_ALTER: isr_ask(r, a); break;
    case REPLICA_DO_APPEND: append_as_follower(r, records); break;
    case REPLICA_DO_TRUNCATE:
    case REPLICA_DO_RESTART: cut(r, a->kind, a->offset); break;
    case REPLICA_DO_LOG_START: move_start(r, a->offset); break;
    }
}

static void run(struct replica *r, struct replica_event e, struct slice records)
{
    struct replica_actions out;
    e.now_ms = loop_now_ms(r->storage->loop);
    e.log = log_now(r);
    replica_step(r->core, &e, &out);
    for (size_t i = 0; i < out.count; i++)
        act(r, &out.at[i], records);
    if (replica_role(r->core) == REPLICA_FOLLOWER)
        fetchers_look(r);
}

/* ---- roles ---- */

static void configure_core(struct replica *r)
{
    const struct config *c = r->storage->config;
    replica_configure(r->core, r->min_isr, (uint64_t)config_long(c, "replica.lag.time.max.ms"),
                      (uint64_t)config_int(c, "replica.fetch.backoff.ms"));
}

static bool is_named(const struct replica *r, const char *key)
{
    const struct storage *s = r->storage;
    struct slice list = image_config(s->image, IMAGE_TOPIC, slice_str(r->topic), key);
    return throttle_names(list, r->key.partition, service_id(s->service));
}

void replication_on_rates(struct storage *s)
{
    s->leader_rate = settings_of_node(s, "leader.replication.throttled.rate", INT64_MAX);
    s->follower_rate = settings_of_node(s, "follower.replication.throttled.rate", INT64_MAX);
}

bool replication_throttles(const struct replica *r, int32_t follower)
{
    struct storage *s = r->storage;
    return r->leader_throttled && r->core != NULL && !replica_is_in_sync(r->core, follower) &&
           throttle_exceeded(&s->leader_throttle, loop_now_ms(s->loop), s->leader_rate);
}

void replication_given(struct replica *r, int32_t follower, size_t bytes)
{
    if (!r->leader_throttled)
        return;
    throttle_record(&r->storage->leader_throttle, loop_now_ms(r->storage->loop), bytes);
    peers_given(r->storage, follower);
}

void replication_configure(struct replica *r, const struct log_config *config)
{
    r->min_isr = config->min_insync_replicas;
    r->leader_throttled = is_named(r, "leader.replication.throttled.replicas");
    r->follower_throttled = is_named(r, "follower.replication.throttled.replicas");
    if (r->core == NULL)
        return;
    configure_core(r);
    run(r, (struct replica_event){.kind = REPLICA_CONFIGURED}, SLICE_EMPTY);
}

static void make_core(struct replica *r)
{
    struct storage *s = r->storage;
    const struct replica_env env = {
        .node_id = service_id(s->service), .ctx = s, .broker = broker_of, .last_read_ms = peers_last_read_ms};
    r->core = replica_new(&env);
    configure_core(r);
    log_hold_high_watermark(r->log, true);
}

/* Nobody else keeps it: what is in the log is all there is. */
static void be_alone(struct replica *r, const struct image_partition *p)
{
    if (r->core != NULL)
        replication_leave(r);
    log_hold_high_watermark(r->log, false);
    if (p->leader == service_id(r->storage->service) && p->leader_epoch > log_latest_epoch(r->log))
        log_assign_epoch(r->log, p->leader_epoch);
}

void replication_take(struct replica *r, const struct image_partition *p)
{
    const struct replica_state state = {.leader = p->leader,
                                        .leader_epoch = p->leader_epoch,
                                        .partition_epoch = p->partition_epoch,
                                        .replicas = p->replicas,
                                        .isr = p->isr,
                                        .replica_count = p->replica_count,
                                        .isr_count = p->isr_count};
    if (r->touched)              /* by a batch that was there already, too, of which nothing is staged */
        turn_commit(r->storage); /* what was taken under the leader of before is answered as such */
    if (p->replica_count == 1 && p->replicas[0] == service_id(r->storage->service)) {
        be_alone(r, p);
        return;
    }
    if (r->core == NULL)
        make_core(r);
    run(r, (struct replica_event){.kind = REPLICA_STATE, .state = &state}, SLICE_EMPTY);
}

void replication_leave(struct replica *r)
{
    if (r->core == NULL)
        return;
    fetchers_forget(r);
    isr_forget(r);
    acks_end(r, KERR_NOT_LEADER_OR_FOLLOWER);
    r->core = replica_free(r->core);
}

/* ---- a leader ---- */

void replication_appended(struct replica *r)
{
    if (r->core != NULL)
        run(r, (struct replica_event){.kind = REPLICA_APPENDED}, SLICE_EMPTY);
}

void replication_flushed(struct replica *r)
{
    if (r->core != NULL && log_failed(r->log) == 0)
        run(r, (struct replica_event){.kind = REPLICA_APPENDED}, SLICE_EMPTY);
}

void replication_fetched(struct replica *r, int32_t id, int64_t broker_epoch, const Karst__Bus__ReadPartition *q)
{
    if (r->core == NULL)
        return;
    run(r,
        (struct replica_event){.kind = REPLICA_FETCHED,
                               .follower = id,
                               .broker_epoch = broker_epoch,
                               .offset = q->fetch_offset,
                               .log_start = q->log_start_offset,
                               .watched = true,
                               .no_room = q->no_room},
        SLICE_EMPTY);
}

void replication_unwatched(struct replica *r, int32_t id)
{
    if (r->core != NULL)
        run(r, (struct replica_event){.kind = REPLICA_UNWATCHED, .follower = id}, SLICE_EMPTY);
}

void replication_altered(struct replica *r, const struct replication_answer *a)
{
    if (r->core == NULL)
        return;
    run(r,
        (struct replica_event){.kind = REPLICA_ALTERED,
                               .id = a->id,
                               .error = a->error,
                               .leader_epoch = a->leader_epoch,
                               .partition_epoch = a->partition_epoch,
                               .isr = a->isr,
                               .isr_count = a->isr_count},
        SLICE_EMPTY);
}

void replication_on_timer(void *ctx)
{
    struct storage *s = ctx;
    for (struct replica *r = s->replicas; r != NULL; r = r->hh.next) {
        if (r->core != NULL && replica_role(r->core) == REPLICA_LEADER && log_failed(r->log) == 0)
            run(r, (struct replica_event){.kind = REPLICA_TICK}, SLICE_EMPTY);
    }
}

/* ---- a follower ---- */

void replication_told(struct replica *r, uint64_t past, int64_t offset, const Karst__Bus__ReadResult *result,
                      struct slice records)
{
    struct replica_event e = {.kind = REPLICA_TOLD,
                              .id = past,
                              .offset = offset,
                              .error = result->error,
                              .leader_start = result->log_start_offset,
                              .leader_end = result->log_end_offset,
                              .leader_high_watermark = result->high_watermark,
                              .diverging_epoch = result->diverging_epoch,
                              .diverging_end = result->diverging_end_offset,
                              .own_epoch = -1,
                              .own_end = -1};
    struct batch b;
    if (e.diverging_epoch >= 0)
        log_end_of_epoch(r->log, e.diverging_epoch, &e.own_epoch, &e.own_end);
    if (records.size > 0 && batch_read_header(records, &b) == 0 && b.size <= records.size) {
        e.has_records = true;
        e.first_offset = b.base_offset;
        e.last_offset = batch_last_offset(&b);
    } else if (records.size > 0) {
        e.error = KERR_CORRUPT_MESSAGE;
    }
    run(r, e, records);
}

void replication_tick(struct replica *r)
{
    run(r, (struct replica_event){.kind = REPLICA_TICK}, SLICE_EMPTY);
}
