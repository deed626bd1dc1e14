/* client_produce.c - idempotent model producers. */
#include "tests/sim/clients.h"

#include "kafka/apis.h"
#include "kafka/init_producer_id.h"
#include "kafka/produce.h"
#include "libs/base/kafka_error.h"
#include "libs/records/records.h"
#include "tests/sim/cluster.h"

#include <stdlib.h>
#include <utlist.h>

enum { FLYING_MAX = 5, RECORDS_MAX = 5, STUCK_MAX = 300 };

/* A batch that is not acknowledged. */
struct unacked {
    struct producer *producer;
    uint64_t first; /* number of its first record */
    int32_t count, sequence;
    bool flying;
    struct unacked *prev, *next;
};

struct ack {
    uint64_t first;
    int32_t count;
    int64_t base_offset;
};

struct producer {
    struct clients *clients;
    struct sim *sim;
    int32_t index;
    struct kclient *client;
    int64_t id; /* -1: not known */
    int16_t epoch;
    int32_t next_sequence;
    uint64_t next_number;
    struct unacked *unacked; /* in order */
    size_t flying;
    bool rewind; /* when nothing flies any more all is sent again, in order */
    int stuck;   /* refusals in a row */
    struct ack *acks;
    size_t ack_count, ack_room;
    uint64_t event;
};

/* The first partition has two producers. */
int32_t producer_partition(int32_t index)
{
    return index < CLIENTS_PARTITIONS ? index : 0;
}

/* A snapshot at a roll holds the last batch of a producer, as Kafka's: of several that a crash let in unanswered in
 * front of it, the older ones are not known again as duplicates. With small segments that is no rarity. */
static size_t flying_most(const struct producer *p)
{
    return p->clients->compacted ? 1 : FLYING_MAX;
}

bool producer_is_done(const struct producer *p)
{
    return p->unacked == NULL && p->flying == 0;
}

uint64_t producer_sent(const struct producer *p)
{
    return p->next_number;
}

/* ---- identity ---- */

static void on_id(void *ctx, const void *response)
{
    struct producer *p = ctx;
    const struct kafka_init_producer_id_response *r = response;
    if (r == NULL)
        return;
    if (r->error_code == KERR_NONE) {
        p->id = r->producer_id;
        p->epoch = r->producer_epoch;
    } else if (!client_may_retry(r->error_code)) {
        sim_fail(p->sim, "InitProducerId: %s", kafka_error_name(r->error_code));
    }
}

static void ask_id(struct producer *p)
{
    struct kafka_init_producer_id_request q;
    kafka_init_producer_id_request_init(&q);
    q.transactional_id = SLICE_NULL;
    kclient_ask(p->client, KAFKA_API_INIT_PRODUCER_ID, (int16_t)sim_below(p->sim, 6), &q, on_id, p);
}

/* ---- batches ---- */

/* Not always in order: one that was written before its first answer was lost may be acknowledged as a duplicate while
 * the one in front of it, written too, is refused and sent again. */
static void note_ack(struct producer *p, struct unacked *u, int64_t base_offset)
{
    if (p->ack_count == p->ack_room)
        p->acks = xrealloc(p->acks, (p->ack_room = p->ack_room * 2 + 64) * sizeof *p->acks);
    if (base_offset >= 0) {
        p->acks[p->ack_count++] = (struct ack){u->first, u->count, base_offset};
        clients_check_committed(p->clients, producer_partition(p->index), base_offset + u->count - 1, "acknowledged");
    }
    p->stuck = 0;
    DL_DELETE(p->unacked, u);
    free(u);
}

static void on_produced(void *ctx, const void *response)
{
    struct unacked *u = ctx;
    struct producer *p = u->producer;
    const struct kafka_produce_response *r = response;
    u->flying = false;
    p->flying--;
    if (r == NULL) {
        p->rewind = true;
        return;
    }
    const struct kafka_produce_response_partition_produce_response *row = &r->responses[0].partition_responses[0];
    sim_note(p->sim, "producer %d sequence %d: %s at %lld", p->index, u->sequence, kafka_error_name(row->error_code),
             (long long)row->base_offset);
    if (row->error_code == KERR_NONE || row->error_code == KERR_DUPLICATE_SEQUENCE_NUMBER) {
        note_ack(p, u, row->base_offset);
        return;
    }
    sim_cover("a produce request was refused and sent again");
    p->rewind = true;
    /* Behind a batch that failed the next ones are out of order; alone it must not stay so. */
    if (!client_may_retry(row->error_code) && row->error_code != KERR_OUT_OF_ORDER_SEQUENCE_NUMBER)
        sim_fail(p->sim, "producer %d: %s", p->index, kafka_error_name(row->error_code));
    if (row->error_code == KERR_OUT_OF_ORDER_SEQUENCE_NUMBER && p->unacked == u && ++p->stuck > STUCK_MAX)
        sim_fail(p->sim, "producer %d: sequence %d stays out of order", p->index, u->sequence);
}

/* What a client's processor does is not looked at, and to compress bytes that are random takes most of it: gzip mostly
 * packs them as they are. */
static int level_of(int codec, const struct unacked *u)
{
    enum { AS_THEY_ARE = 0 };
    return codec == COMPRESS_GZIP && u->sequence % 8 != 0 ? AS_THEY_ARE : COMPRESS_LEVEL_DEFAULT;
}

static void send_batch(struct producer *p, struct unacked *u)
{
    struct buf bytes = {0};
    struct batch_builder b;
    struct batch_options o = BATCH_OPTIONS;
    o.producer_id = p->id;
    o.producer_epoch = p->epoch;
    o.base_sequence = u->sequence;
    o.codec = (int)sim_below(p->sim, COMPRESS_ZSTD); /* old versions of Produce take no zstd */
    o.writer = p->clients->writer;
    o.level = level_of(o.codec, u);
    batch_begin(&b, &bytes, &o);
    struct buf value = {0};
    for (int32_t i = 0; i < u->count; i++) {
        client_value(&value, p->index, u->first + (uint64_t)i);
        /* A key that no other record has: where the topic is compacted, all of them stay. */
        batch_add(&b, sim_wall_ms(p->sim), slice_make(value.data, sizeof(struct seen)), buf_slice(&value), NULL, 0);
    }
    buf_free(&value);
    if (batch_end(&b))
        sim_fail(p->sim, "a batch cannot be built");
    struct kafka_produce_request q;
    struct kafka_produce_request_topic_produce_data t;
    struct kafka_produce_request_partition_produce_data d;
    kafka_produce_request_init(&q);
    kafka_produce_request_topic_produce_data_init(&t);
    kafka_produce_request_partition_produce_data_init(&d);
    d.index = producer_partition(p->index);
    d.records = buf_slice(&bytes);
    t.name = SLICE_OF(CLIENTS_TOPIC);
    t.partition_data = &d;
    t.partition_data_count = 1;
    q.acks = -1;
    q.timeout_ms = 5000;
    q.topic_data = &t;
    q.topic_data_count = 1;
    u->flying = true;
    p->flying++;
    kclient_ask(p->client, KAFKA_API_PRODUCE, (int16_t)(3 + sim_below(p->sim, 10)), &q, on_produced, u);
    buf_free(&bytes);
}

static void make_batch(struct producer *p)
{
    struct unacked *u = xcalloc(1, sizeof *u);
    *u = (struct unacked){.producer = p, .first = p->next_number, .sequence = p->next_sequence};
    u->count = 1 + (int32_t)sim_below(p->sim, RECORDS_MAX);
    p->next_number += (uint64_t)u->count;
    p->next_sequence = records_sequence_add(p->next_sequence, u->count);
    DL_APPEND(p->unacked, u);
    send_batch(p, u);
}

static void send_again(struct producer *p)
{
    struct unacked *u;
    sim_cover("batches were sent again");
    p->rewind = false;
    DL_FOREACH (p->unacked, u)
        if (p->flying < flying_most(p))
            send_batch(p, u);
        else
            p->rewind = true;
}

static void tick(void *ctx)
{
    struct producer *p = ctx;
    p->event = sim_at(p->sim, 5 + sim_below(p->sim, 60), tick, p);
    if (!p->clients->has_topic || !kclient_connect(p->client, client_port(p->clients)))
        return;
    if (p->id < 0) {
        if (kclient_waiting(p->client) == 0)
            ask_id(p);
    } else if (p->rewind) {
        if (p->flying == 0)
            send_again(p);
    } else if (!p->clients->finishing) {
        /* A log takes any sequence from a producer that it does not know, as Kafka's: the first batch goes alone. */
        size_t flying_max = p->ack_count ? flying_most(p) : 1;
        while (p->flying < flying_max && sim_chance(p->sim, 600))
            make_batch(p);
    }
}

struct producer *producer_new(struct clients *c, int32_t index)
{
    static const char *const names[] = {"producer-0", "producer-1", "producer-2"};
    struct producer *p = xcalloc(1, sizeof *p);
    *p = (struct producer){.clients = c, .sim = c->sim, .index = index, .id = -1};
    p->client = kclient_new(c->tcp, c->sim, names[index]);
    p->event = sim_at(c->sim, 0, tick, p);
    return p;
}

struct producer *producer_free(struct producer *p)
{
    struct unacked *u, *next;
    sim_cancel(p->sim, p->event);
    kclient_free(p->client);
    DL_FOREACH_SAFE(p->unacked, u, next)
    {
        DL_DELETE(p->unacked, u);
        free(u);
    }
    free(p->acks);
    free(p);
    return NULL;
}

void producer_check(const struct producer *p, const struct consumer *consumer)
{
    for (size_t i = 0; i < p->ack_count; i++)
        for (int32_t k = 0; k < p->acks[i].count; k++) {
            const struct seen *s = consumer_at(consumer, producer_partition(p->index), p->acks[i].base_offset + k);
            if (s == NULL || s->producer != p->index || s->number != p->acks[i].first + (uint64_t)k)
                sim_fail(p->sim,
                         "record %llu of producer %d was acknowledged at offset %lld, there is %s (producer %d, %lld)",
                         (unsigned long long)p->acks[i].first + (unsigned long long)k, p->index,
                         (long long)p->acks[i].base_offset + k, s ? "another" : "nothing yet", s ? s->producer : -1,
                         s ? (long long)s->number : -1);
        }
}
