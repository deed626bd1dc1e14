/* producer.c - idempotent producers with acks=all. Each sends operations of 1 to SENDS_MAX values, often several to one
 * key, at a rate of its own, with up to in_flight operations under way. A life ends after some seconds
 * (options.life_s), one of three in the middle of what it does, or with a fatal error; then another begins, with a new
 * producer id. */
#include <stdlib.h>

#include "tests/jepsen/jepsen.h"

struct producer;

struct send {
    struct producer *p;
    uint64_t op;
    unsigned count, done;
    struct {
        unsigned key;
        uint64_t number;
        int64_t offset;
        enum { WAITING, ACKED, FAILED, UNKNOWN } status;
    } value[SENDS_MAX];
    char error[TEXT_MAX];
    struct send *previous, *next; /* in the producer's list of those under way */
};

struct producer {
    rd_kafka_t *rk;
    unsigned process, under_way;
    struct send head; /* of a ring */
    uint64_t random;
    bool fatal;
};

/* Which value of which operation a record is. */
struct tag {
    struct send *send;
    unsigned index;
};

static const char *type_of(const struct send *s)
{
    unsigned acked = 0, failed = 0;
    for (unsigned i = 0; i < s->count; i++) {
        acked += s->value[i].status == ACKED;
        failed += s->value[i].status == FAILED;
    }
    return acked == s->count ? "ok" : failed == s->count ? "fail" : "info";
}

static void send_end(struct send *s)
{
    struct line l;
    line_begin(&l, s->p->process, s->op, type_of(s), "send", now_ns());
    for (unsigned i = 0; i < s->count; i++) {
        fprintf(l.out, "%c[%u,%lu,", i == 0 ? '[' : ',', s->value[i].key, s->value[i].number);
        if (s->value[i].status == ACKED)
            fprintf(l.out, "%ld]", s->value[i].offset);
        else
            fprintf(l.out, "null,\"%s\"]", s->value[i].status == FAILED ? "fail" : "info");
    }
    fputc(']', l.out);
    if (s->error[0] != 0)
        line_error(&l, s->error);
    line_end(&l);
    s->previous->next = s->next;
    s->next->previous = s->previous;
    s->p->under_way--;
    free(s);
}

static void value_done(struct send *s, unsigned i, const rd_kafka_message_t *m)
{
    if (m->err == 0) {
        s->value[i].status = ACKED;
        s->value[i].offset = m->offset;
        atomic_store(&marks[s->value[i].key].acked_ns, now_ns());
        return;
    }
    s->value[i].status = rd_kafka_message_status(m) == RD_KAFKA_MSG_STATUS_NOT_PERSISTED ? FAILED : UNKNOWN;
    snprintf(s->error, sizeof s->error, "%s", rd_kafka_err2name(m->err));
}

static void on_report(rd_kafka_t *rk, const rd_kafka_message_t *m, void *opaque)
{
    struct tag *tag = m->_private;
    struct send *s = tag->send;
    (void)rk;
    (void)opaque;
    value_done(s, tag->index, m);
    free(tag);
    if (++s->done == s->count)
        send_end(s);
}

static atomic_ullong next_value[KEYS_MAX];

static void send_begin(struct producer *p)
{
    struct send *s = xcalloc(1, sizeof *s);
    struct line l;
    unsigned key = (unsigned)random_below(&p->random, keys());
    *s = (struct send){.p = p, .op = next_op(), .count = 1 + (unsigned)random_below(&p->random, SENDS_MAX)};
    line_begin(&l, p->process, s->op, "invoke", "send", now_ns());
    for (unsigned i = 0; i < s->count; i++) {
        if (random_below(&p->random, 3) == 0)
            key = (unsigned)random_below(&p->random, keys());
        s->value[i].key = key;
        s->value[i].number = atomic_fetch_add(&next_value[key], 1);
        fprintf(l.out, "%c[%u,%lu]", i == 0 ? '[' : ',', key, s->value[i].number);
    }
    fputc(']', l.out);
    line_end(&l);
    s->next = &p->head;
    s->previous = p->head.previous;
    s->previous->next = s->next->previous = s;
    p->under_way++;
    unsigned count = s->count; /* a report may end the operation only in poll, but s is not ours for ever */
    for (unsigned i = 0; i < count; i++) {
        char bytes[VALUE_BYTES];
        struct tag *tag = xmalloc(sizeof *tag);
        *tag = (struct tag){s, i};
        size_t size = value_write(s->value[i].key, s->value[i].number, bytes);
        rd_kafka_resp_err_t error =
            rd_kafka_producev(p->rk, RD_KAFKA_V_TOPIC(topic_of(s->value[i].key)),
                              RD_KAFKA_V_PARTITION(partition_of(s->value[i].key)), RD_KAFKA_V_VALUE(bytes, size),
                              RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_OPAQUE(tag), RD_KAFKA_V_END);
        if (error == 0)
            continue;
        s->value[i].status = FAILED; /* it never left this process */
        snprintf(s->error, sizeof s->error, "%s", rd_kafka_err2name(error));
        free(tag);
        p->fatal |= error == RD_KAFKA_RESP_ERR__FATAL;
        if (++s->done == s->count)
            send_end(s);
    }
}

static void life_begin(struct producer *p)
{
    rd_kafka_conf_t *conf = conf_new();
    conf_set(conf, "enable.idempotence", "true");
    conf_set(conf, "acks", "all");
    conf_set(conf, "linger.ms", "0");
    conf_set(conf, "retry.backoff.ms", "20");
    conf_set_number(conf, "message.timeout.ms", (double)options.message_ms);
    conf_set_number(conf, "batch.num.messages", 10); /* many small batches, up to five of a key in flight */
    rd_kafka_conf_set_dr_msg_cb(conf, on_report);
    p->process = atomic_fetch_add(&processes, 1);
    p->rk = client_new(p->process, RD_KAFKA_PRODUCER, conf);
    p->fatal = false;
}

/* In peace: all that is under way is reported first, for which the flush waits as long as a message may take. Otherwise
 * nobody learns what became of it. */
static void life_end(struct producer *p, bool in_peace)
{
    if (in_peace)
        rd_kafka_flush(p->rk, (int)options.message_ms + 5000);
    rd_kafka_purge(p->rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
    rd_kafka_flush(p->rk, 5000);
    while (p->head.next != &p->head) {
        struct send *s = p->head.next;
        for (unsigned i = 0; i < s->count; i++) {
            if (s->value[i].status == WAITING)
                s->value[i].status = UNKNOWN;
        }
        send_end(s);
    }
    rd_kafka_destroy(p->rk);
}

void *producer_run(void *number)
{
    struct producer p = {.random = options.seed * 1000003 + (uintptr_t)number};
    double interval_ns = 1e9 * (double)options.producers * (SENDS_MAX + 1) / 2 / options.rate;
    p.head.next = p.head.previous = &p.head;
    while (!atomic_load(&stopping)) {
        uint64_t due = now_ns(), end = UINT64_MAX;
        if (options.life_s > 0)
            end = due + (uint64_t)(1e9 * options.life_s * (0.2 + 1.6 * (double)random_below(&p.random, 1000) / 1000));
        life_begin(&p);
        while (!atomic_load(&stopping) && !p.fatal && now_ns() < end) {
            uint64_t now = now_ns();
            if (now >= due && p.under_way < options.in_flight) {
                send_begin(&p);
                due = MAX(due, now - MIN(now, (uint64_t)1000000000)) + (uint64_t)interval_ns;
            }
            now = now_ns();
            rd_kafka_poll(p.rk, now >= due && p.under_way < options.in_flight ? 0
                                : due > now                                   ? (int)MIN((due - now) / 1000000, 20u)
                                                                              : 5);
            if (rd_kafka_fatal_error(p.rk, NULL, 0) != 0)
                p.fatal = true;
        }
        life_end(&p, atomic_load(&stopping) || random_below(&p.random, 3) != 0);
    }
    return NULL;
}
