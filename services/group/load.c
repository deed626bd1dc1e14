/* load.c - reading a partition into the core when we become its owner, and again after an append whose end is not
 * known.
 *
 *   waiting (no leader, or LOADS_MAX others) -> reading from the log's start to the log end of the first answer
 *     -> waiting for the high watermark to reach that end -> LOADED
 *
 * The leader's image is at least as new as ours when it answers (the batch carries our metadata offset), so nobody but
 * us can append after the log end that it names. What was appended before but is not committed yet may still vanish
 * with the leader: hence the wait. Any error (no leader, a new leader, a broken link) starts the reading over a little
 * later: what the core believes comes from one whole reading of one leader's log. */
#include <stdlib.h>

#include "libs/base/kafka_error.h"
#include "libs/base/log.h"
#include "libs/records/records.h"
#include "services/group/group.h"

struct load {
    UT_hash_handle hh;
    struct group_service *g;
    int32_t partition, epoch, leader_epoch;
    uint64_t load;
    uint64_t call; /* under way; 0: none */
    struct loop_timer *retry;
    int64_t next_offset, end_offset; /* end_offset -1: not known yet */
    int64_t high_watermark;
    bool running, fed;
};

static void read_more(struct load *l);
static void start_waiting(struct group_service *g);

static void stop(struct load *l)
{
    struct group_service *g = l->g;
    if (l->running)
        g->loads_running--;
    l->running = false;
    l->retry = loop_timer_stop(l->retry);
}

static void load_free(struct load *l)
{
    struct group_service *g = l->g;
    stop(l);
    HASH_DEL(g->loads, l);
    if (l->call == 0) {
        free(l);
        return;
    }
    uint64_t call = l->call;
    l->g = NULL; /* the call still has us: on_done frees */
    bus_cancel(g->bus, call);
}

void load_drop(struct group_service *g, int32_t partition)
{
    struct load *l;
    HASH_FIND(hh, g->loads, &partition, sizeof partition, l);
    if (l == NULL)
        return;
    load_free(l);
    start_waiting(g);
}

static void on_retry(void *ctx)
{
    struct load *l = ctx;
    struct group_service *g = l->g;
    l->retry = loop_timer_stop(l->retry);
    if (!l->fed) {
        read_more(l);
        return;
    }
    /* The core has records of the broken reading: it drops them and asks for a new load. */
    struct groups_event reload = {.kind = GROUPS_EVENT_RELOAD, .partition = l->partition};
    load_free(l);
    group_step(g, &reload);
}

static void try_again(struct load *l, uint32_t delay_ms, const char *why)
{
    struct group_service *g = l->g;
    if (!g->load_trouble) /* one line for all that a dead storage node interrupts */
        log_warn("loading __consumer_offsets-%d: %s; trying again, also for the others", l->partition, why);
    g->load_trouble = true;
    l->next_offset = 0;
    l->end_offset = -1;
    l->high_watermark = -1;
    l->retry = loop_timer_start(g->loop, delay_ms, 0, on_retry, l);
}

/* ---- records ---- */

static int feed_batch(struct load *l, const struct batch *b, struct slice bytes)
{
    struct group_service *g = l->g;
    struct record_iter it;
    struct record r;
    struct buf scratch = {0};
    int result = record_iter_init(&it, b, bytes, &scratch, DECOMPRESS_MAX);
    size_t count = 0;
    struct groups_record *records = result == 0 ? xcalloc((size_t)b->record_count + 1, sizeof *records) : NULL;
    while (result == 0 && count < (size_t)b->record_count && (result = record_iter_next(&it, &r)) == 1) {
        records[count++] = (struct groups_record){
            .offset = r.offset,
            .producer_id = b->producer_id,
            .producer_epoch = b->producer_epoch,
            .transactional = batch_is_transactional(b),
            .control = batch_is_control(b),
            .key = r.key,
            .value = r.value,
        };
        result = 0;
    }
    if (result == 0 && count > 0) {
        l->fed = true;
        group_step(g, &(struct groups_event){.kind = GROUPS_EVENT_LOAD_RECORDS,
                                             .partition = l->partition,
                                             .epoch = l->epoch,
                                             .load = l->load,
                                             .records = records,
                                             .record_count = count});
    }
    free(records);
    buf_free(&scratch);
    return result;
}

/* The batches of one answer, up to the end that we read to. */
static int feed(struct load *l, struct slice bytes)
{
    struct batch b;
    struct slice whole;
    int result;
    while ((result = batch_next(&bytes, &b, &whole)) == 1) {
        if (!batch_crc_holds(&b, whole))
            return -EBADMSG;
        if (batch_last_offset(&b) < l->next_offset)
            continue;
        int bad = feed_batch(l, &b, whole);
        if (bad != 0)
            return bad;
        l->next_offset = batch_next_offset(&b);
    }
    return result == -ENODATA ? 0 : result; /* a batch cut short at the end comes with the next read */
}

static void finish(struct load *l)
{
    struct group_service *g = l->g;
    struct groups_event loaded = {
        .kind = GROUPS_EVENT_LOADED, .partition = l->partition, .epoch = l->epoch, .load = l->load};
    g->loaded_records += (uint64_t)l->end_offset;
    g->loaded_partitions++;
    load_free(l);
    group_step(g, &loaded);
    start_waiting(g);
}

static void take_result(struct load *l, const Karst__Bus__ReadResult *r, const struct bus_result *result)
{
    if (r->error == KERR_OFFSET_OUT_OF_RANGE && r->log_start_offset > l->next_offset && !l->fed) {
        l->next_offset = r->log_start_offset;
        read_more(l);
        return;
    }
    if (r->error != KERR_NONE) {
        try_again(l, LOAD_RETRY_MS, kafka_error_name(r->error));
        return;
    }
    if (l->end_offset < 0)
        l->end_offset = r->log_end_offset;
    l->high_watermark = r->high_watermark;
    int64_t before = l->next_offset;
    bool has_bytes = r->payload >= 0 && (size_t)r->payload < result->payload_count;
    int bad = has_bytes ? feed(l, ref_bytes(&result->payloads[r->payload])) : 0;
    if (bad != 0) {
        try_again(l, LOAD_BAD_RETRY_MS, "records that cannot be read");
        return;
    }
    if (l->next_offset >= l->end_offset && l->high_watermark >= l->end_offset)
        finish(l);
    else if (l->next_offset == before && l->next_offset < l->end_offset)
        try_again(l, LOAD_RETRY_MS, "nothing where the log should go on");
    else
        read_more(l);
}

static void on_done(void *ctx, const struct bus_result *result)
{
    struct load *l = ctx;
    l->call = 0;
    if (l->g == NULL) {
        free(l); /* dropped meanwhile */
        return;
    }
    const Karst__Bus__ReadReply *reply = NULL;
    if (result->outcome == KARST__BUS__OUTCOME__OUTCOME_OK)
        reply = result->reply->read;
    if (reply == NULL || reply->n_results != 1)
        try_again(l, LOAD_RETRY_MS, "no answer from the storage node");
    else
        take_result(l, reply->results[0], result);
}

/* ---- asking ---- */

static void read_more(struct load *l)
{
    struct group_service *g = l->g;
    int32_t leader, leader_epoch;
    if (!group_leader(g, l->partition, &leader, &leader_epoch)) {
        if (l->fed)
            try_again(l, LOAD_RETRY_MS, "the partition has no leader");
        else
            stop(l); /* goes on when the image names one */
        return;
    }
    if (l->end_offset >= 0 && leader_epoch != l->leader_epoch) {
        try_again(l, LOAD_RETRY_MS, "another node leads the partition now"); /* its log may differ */
        return;
    }
    l->leader_epoch = leader_epoch;
    bool at_end = l->end_offset >= 0 && l->next_offset >= l->end_offset;
    Karst__Bus__ReadPartition partition = KARST__BUS__READ_PARTITION__INIT;
    partition.topic_id = (ProtobufCBinaryData){.len = sizeof g->topic_id.b, .data = g->topic_id.b};
    partition.partition = l->partition;
    partition.current_leader_epoch = leader_epoch;
    partition.fetch_offset = l->next_offset;
    partition.last_fetched_epoch = -1;
    partition.max_bytes = LOAD_READ_BYTES;
    partition.log_start_offset = -1;
    partition.known_high_watermark = at_end ? l->high_watermark : -2;
    partition.known_log_start_offset = -2;
    Karst__Bus__ReadPartition *partitions[] = {&partition};
    Karst__Bus__ReadRequest body = KARST__BUS__READ_REQUEST__INIT;
    body.partitions = partitions;
    body.n_partitions = 1;
    body.max_wait_ms = at_end ? LOAD_WAIT_MS : 0;
    body.min_bytes = at_end ? 1 : 0;
    body.max_bytes = LOAD_READ_BYTES;
    body.replica_id = -3;
    l->call = bus_call(
        g->bus, KARST__BUS__ROLE__ROLE_STORAGE, leader,
        &(struct bus_request){.kind = KARST__BUS__CALL__BODY_READ, .body = &body, .timeout_ms = LOAD_TIMEOUT_MS},
        on_done, l);
}

/* One line for all that were loaded together. */
static void all_loaded(struct group_service *g)
{
    if (g->loaded_partitions > 0)
        log_info("loaded %u partitions of __consumer_offsets up to %llu offsets in all: %zu groups",
                 g->loaded_partitions, (unsigned long long)g->loaded_records, groups_count(g->core));
    g->loaded_partitions = 0;
    g->loaded_records = 0;
    g->load_trouble = false;
}

static void start_waiting(struct group_service *g)
{
    int32_t leader, leader_epoch;
    for (struct load *l = g->loads; l != NULL && g->loads_running < LOADS_MAX; l = l->hh.next) {
        if (l->running || !group_leader(g, l->partition, &leader, &leader_epoch))
            continue;
        l->running = true;
        g->loads_running++;
        read_more(l);
    }
    if (g->loads == NULL)
        all_loaded(g);
}

void load_on_image(struct group_service *g)
{
    start_waiting(g);
}

void load_start(struct group_service *g, const struct groups_action *a)
{
    load_drop(g, a->partition);
    struct load *l = xcalloc(1, sizeof *l);
    l->g = g;
    l->partition = a->partition;
    l->epoch = a->epoch;
    l->load = a->load;
    l->end_offset = -1;
    l->high_watermark = -1;
    HASH_ADD(hh, g->loads, partition, sizeof l->partition, l);
    start_waiting(g);
}
