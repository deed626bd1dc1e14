/* produce.c - producers of librdkafka in an open loop.
 *
 *   sender threads (each with its share of the instances and of the rate) -> librdkafka -> delivery reports -> one
 * thread that notes them
 *
 * A record's opaque is the time it was due; 0 marks the record that each instance sends first, before the clock starts,
 * so that connections are there. Which instance has reports is told through a pipe, since no thread can wait for
 * thousands of queues. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "libs/base/bytes.h"
#include "tests/bench/load/client.h"

#define FULL_SLEEP_US 200
#define HELLO_S       60
#define REPORTS_S     60
#define SETTLE_US     1000000 /* for readers to have their first fetch waiting */

struct client {
    rd_kafka_t *rk;
    rd_kafka_topic_t *topic;
    rd_kafka_queue_t *reports;
};

struct producing {
    const struct load_options *options;
    struct client *clients;
    const uint8_t *payload;
    int pipe[2];
    atomic_bool stop;
    _Atomic uint64_t hello, done; /* reports so far: of first records, of others */
    rd_kafka_resp_err_t refused;  /* by librdkafka itself */
    uint64_t last_us;             /* below: of the report thread, until it is joined */
    struct load_result *result;
};

struct sender {
    pthread_t thread;
    struct producing *all;
    struct schedule schedule;
    uint64_t first, count; /* its instances */
    uint64_t sent, seed;
    rd_kafka_resp_err_t error;
    uint8_t *stamped; /* the record to send when there are readers */
};

static void note_reports(struct producing *pr, rd_kafka_event_t *event)
{
    uint64_t now_us = load_now_us(), hello = 0, done = 0;
    struct load_result *r = pr->result;
    for (const rd_kafka_message_t *m; (m = rd_kafka_event_message_next(event)) != NULL;) {
        uint64_t due_us = (uint64_t)(uintptr_t)m->_private;
        if (m->err != RD_KAFKA_RESP_ERR_NO_ERROR)
            load_fail(r, "not delivered: %s", rd_kafka_err2str(m->err));
        if (due_us == 0) {
            hello++;
            continue;
        }
        done++;
        if (m->err != RD_KAFKA_RESP_ERR_NO_ERROR)
            continue;
        hist_note(&r->acked, now_us > due_us ? now_us - due_us : 0);
        r->records++;
        r->bytes += m->len;
    }
    pr->last_us = now_us;
    pr->hello += hello;
    pr->done += done;
}

static void drain(struct producing *pr, struct client *c, int wait_ms)
{
    for (rd_kafka_event_t *event; (event = rd_kafka_queue_poll(c->reports, wait_ms)) != NULL; wait_ms = 0) {
        if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_DR)
            note_reports(pr, event);
        rd_kafka_event_destroy(event);
    }
}

static void *reports_main(void *argument)
{
    struct producing *pr = argument;
    uint32_t ready[1024];
    while (!pr->stop) {
        if (pr->options->producers == 1) {
            drain(pr, &pr->clients[0], 50);
            continue;
        }
        struct pollfd wait = {pr->pipe[0], POLLIN, 0};
        if (poll(&wait, 1, 50) <= 0)
            continue;
        ssize_t n = read(pr->pipe[0], ready, sizeof ready);
        for (ssize_t i = 0; i < n / (ssize_t)sizeof ready[0]; i++)
            drain(pr, &pr->clients[ready[i]], 0);
    }
    return NULL;
}

static int send_record(struct sender *s, struct client *c, uint64_t due_us)
{
    const struct load_options *o = s->all->options;
    const uint8_t *value = payload_at(s->all->payload, o->size, s->seed + s->sent);
    char key[24];
    size_t key_size = 0;
    if (o->consumers > 0) {
        memcpy(s->stamped, value, o->size);
        put_u64(s->stamped, due_us);
        value = s->stamped;
    }
    if (o->keys > 0) /* a multiplicative hash: keys in no order, and all used alike */
        key_size = (size_t)snprintf(key, sizeof key, "key-%010lu", (s->seed + s->sent) * 0x9e3779b97f4a7c15u % o->keys);
    return rd_kafka_produce(c->topic, RD_KAFKA_PARTITION_UA, RD_KAFKA_MSG_F_COPY, (void *)(uintptr_t)value, o->size,
                            key_size > 0 ? key : NULL, key_size, (void *)(uintptr_t)due_us);
}

/* One due record to the next of its instances that takes it: 0; -EAGAIN: all are full; -EIO: refused. */
static int send_next(struct sender *s, uint64_t due_us)
{
    for (uint64_t tried = 0; tried < s->count; tried++) {
        if (send_record(s, &s->all->clients[s->first + (s->sent + tried) % s->count], due_us) == 0) {
            s->sent++;
            return 0;
        }
        if (rd_kafka_last_error() != RD_KAFKA_RESP_ERR__QUEUE_FULL) {
            s->error = rd_kafka_last_error();
            return -EIO;
        }
    }
    return -EAGAIN;
}

static void *sender_main(void *argument)
{
    struct sender *s = argument;
    uint64_t due_us;
    for (unsigned turn = 0;; turn++) {
        uint64_t now_us = load_now_us();
        for (unsigned i = 0; i < 64 && schedule_next(&s->schedule, now_us, &due_us); i++) {
            int err = send_next(s, due_us);
            if (err == -EIO)
                return NULL;
            if (err != 0) {
                load_sleep_until(now_us + FULL_SLEEP_US);
                break;
            }
            schedule_take(&s->schedule);
        }
        if (schedule_next(&s->schedule, load_now_us(), &due_us))
            continue;
        if (due_us == UINT64_MAX)
            return NULL;
        load_sleep_until(due_us);
    }
}

static void clients_start(struct producing *pr)
{
    const struct load_options *o = pr->options;
    if (pipe2(pr->pipe, O_CLOEXEC | O_NONBLOCK) != 0)
        BUG("no pipe");
    for (uint32_t i = 0; i < o->producers; i++) {
        struct client *c = &pr->clients[i];
        c->rk = client_new(o, RD_KAFKA_PRODUCER, &c->topic);
        c->reports = rd_kafka_queue_get_main(c->rk);
        if (o->producers > 1)
            rd_kafka_queue_io_event_enable(c->reports, pr->pipe[1], &i, sizeof i);
    }
}

/* A record of each instance, acknowledged before the clock starts. */
static void clients_greet(struct producing *pr)
{
    for (uint64_t i = 0; i < pr->options->producers; i++) {
        if (rd_kafka_produce(pr->clients[i].topic, RD_KAFKA_PARTITION_UA, RD_KAFKA_MSG_F_COPY,
                             (void *)(uintptr_t)pr->payload, pr->options->size, NULL, 0, NULL) != 0)
            BUG("a new client takes no record");
    }
    uint64_t deadline_us = load_now_us() + HELLO_S * 1000000;
    while (pr->hello < pr->options->producers && load_now_us() < deadline_us)
        load_sleep_until(load_now_us() + 1000);
}

static uint64_t senders_run(struct producing *pr, uint64_t start_us)
{
    const struct load_options *o = pr->options;
    struct sender *senders = xcalloc(o->threads, sizeof *senders);
    uint64_t first = 0, sent = 0;
    for (uint64_t i = 0; i < o->threads; i++) {
        struct sender *s = &senders[i];
        s->all = pr;
        s->first = first;
        s->count = o->producers * (i + 1) / o->threads - first;
        s->seed = i << 40;
        s->stamped = xmalloc(o->size);
        first += s->count;
        double share = (double)s->count / (double)o->producers;
        uint64_t limit = o->records > 0 ? (uint64_t)((double)o->records * share + 0.5) : 0;
        schedule_begin(&s->schedule, start_us, o->seconds, o->rate * share, limit);
        if (pthread_create(&s->thread, NULL, sender_main, s) != 0)
            BUG("no thread");
    }
    for (uint64_t i = 0; i < o->threads; i++) {
        pthread_join(senders[i].thread, NULL);
        sent += senders[i].sent;
        if (senders[i].error != RD_KAFKA_RESP_ERR_NO_ERROR)
            pr->refused = senders[i].error;
        free(senders[i].stamped);
    }
    free(senders);
    return sent;
}

void produce_run(const struct load_options *o, struct load_result *r)
{
    struct producing pr = {.options = o, .result = r, .payload = payload_make(o->compressible, o->size)};
    struct readers *readers = NULL;
    pthread_t reports;
    pr.clients = xcalloc(o->producers, sizeof *pr.clients);
    clients_start(&pr);
    if (pthread_create(&reports, NULL, reports_main, &pr) != 0)
        BUG("no thread");
    clients_greet(&pr);
    if (o->consumers > 0 && (readers = readers_start(o, true, r)) != NULL)
        load_sleep_until(load_now_us() + SETTLE_US);

    uint64_t start_us = load_now_us();
    uint64_t sent = senders_run(&pr, start_us), deadline_us = load_now_us() + REPORTS_S * 1000000;
    while (pr.done < sent && load_now_us() < deadline_us)
        load_sleep_until(load_now_us() + 1000);
    pr.stop = true;
    pthread_join(reports, NULL);
    if (pr.refused != RD_KAFKA_RESP_ERR_NO_ERROR)
        load_fail(r, "a record was refused: %s", rd_kafka_err2str(pr.refused));
    if (pr.done < sent || pr.hello < o->producers)
        load_fail(r, "%lu of %lu records without a report", sent - pr.done, sent);
    r->seconds = (double)(MAX(pr.last_us, start_us) - start_us) / 1e6;
    if (readers != NULL)
        readers_finish(readers, r->records, o->lag_s, r);
}
