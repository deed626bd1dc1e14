/* poll.c - what consumers do, whatever gave them their keys. */
#include <stdlib.h>

#include "tests/jepsen/consumer.h"

#define RECORDS_MAX 500

struct record {
    int64_t offset, number;
};

/* What an operation found, by key and in the order in which it came. */
struct found {
    struct record record[RECORDS_MAX];
    unsigned key[RECORDS_MAX], count;
    char error[TEXT_MAX];
};

atomic_llong known_end[KEYS_MAX], group_end[KEYS_MAX];

void raise_to(atomic_llong *end, int64_t offset)
{
    long long seen = atomic_load(end);
    while (seen < offset && !atomic_compare_exchange_weak(end, &seen, offset)) {
    }
}

static void take(struct found *f, const rd_kafka_message_t *m, struct consumer *c)
{
    unsigned key = m->rkt != NULL ? key_of(rd_kafka_topic_name(m->rkt), m->partition) : KEYS_MAX;
    if (m->err != 0) {
        size_t at = strlen(f->error);
        snprintf(f->error + at, sizeof f->error - at, "%s ", rd_kafka_err2name(m->err));
        return;
    }
    if (key == KEYS_MAX)
        return;
    f->key[f->count] = key;
    f->record[f->count++] = (struct record){m->offset, value_read(key, m->payload, m->len)};
    c->position[key] = m->offset + 1;
    raise_to(&known_end[key], m->offset + 1);
    if (c->in_group) {
        raise_to(&group_end[key], m->offset + 1);
        atomic_store(&marks[key].delivered_ns, now_ns());
    }
}

static void write_key(struct line *l, const struct found *f, unsigned key, bool first)
{
    bool begun = false;
    for (unsigned i = 0; i < f->count; i++) {
        if (f->key[i] != key)
            continue;
        if (!begun)
            fprintf(l->out, "%s[%u,[", first ? "" : ",", key);
        fprintf(l->out, "%s[%ld,%ld]", begun ? "," : "", f->record[i].offset, f->record[i].number);
        begun = true;
    }
    if (begun)
        fputs("]]", l->out);
}

static void write_found(struct line *l, const struct found *f)
{
    uint64_t seen = 0; /* a bit a key */
    static_assert(KEYS_MAX <= 64, "one word");
    fputc('[', l->out);
    for (unsigned i = 0; i < f->count; i++) {
        if (seen >> f->key[i] & 1)
            continue;
        write_key(l, f, f->key[i], seen == 0);
        seen |= (uint64_t)1 << f->key[i];
    }
    fputc(']', l->out);
}

rd_kafka_conf_t *consumer_conf(const char *group)
{
    rd_kafka_conf_t *conf = conf_new();
    conf_set(conf, "group.id", group);
    conf_set(conf, "enable.auto.commit", "false");
    conf_set(conf, "enable.auto.offset.store", "false");
    conf_set(conf, "check.crcs", "true");
    conf_set(conf, "fetch.wait.max.ms", "200");
    conf_set(conf, "fetch.error.backoff.ms", "50");
    return conf;
}

void consumer_begin(struct consumer *c, rd_kafka_conf_t *conf)
{
    c->rk = client_new(c->process, RD_KAFKA_CONSUMER, conf);
    rd_kafka_poll_set_consumer(c->rk);
    memset(c->position, -1, sizeof c->position);
}

unsigned poll_once(struct consumer *c, int wait_ms)
{
    struct found *f = xmalloc(sizeof *f);
    struct line l;
    uint64_t op = invoke(c->process, "poll");
    f->count = 0;
    f->error[0] = 0;
    for (rd_kafka_message_t *m; f->count < RECORDS_MAX && (m = rd_kafka_consumer_poll(c->rk, wait_ms)) != NULL;) {
        take(f, m, c);
        rd_kafka_message_destroy(m);
        wait_ms = 0; /* what is there already goes with it */
    }
    line_begin(&l, c->process, op, "ok", "poll", now_ns());
    write_found(&l, f);
    if (c->rebalances != NULL) {
        fprintf(l.out, ",\"rebalances\":[%s]", c->rebalances);
        free(TAKE_PTR(c->rebalances));
    }
    if (f->error[0] != 0)
        line_error(&l, f->error);
    line_end(&l);
    unsigned count = f->count;
    free(f);
    return count;
}

bool is_at_ends(const int64_t *at, const int64_t *ends)
{
    for (unsigned k = 0; k < keys(); k++) {
        if (at[k] < ends[k])
            return false;
    }
    return true;
}

void complete_reading(unsigned process, uint64_t op, const char *f, const int64_t *at, const int64_t *ends)
{
    bool whole = is_at_ends(at, ends), first = true;
    struct line l;
    line_begin(&l, process, op, whole ? "ok" : "fail", f, now_ns());
    fputc('[', l.out);
    for (unsigned k = 0; k < keys(); k++) {
        if (at[k] < ends[k]) {
            fprintf(l.out, "%s%u", first ? "" : ",", k);
            first = false;
        }
    }
    fputc(']', l.out);
    line_end(&l);
}

void write_partitions(struct line *l, const rd_kafka_topic_partition_list_t *list, bool with_offsets)
{
    fputc('[', l->out);
    for (int i = 0; i < list->cnt; i++) {
        const rd_kafka_topic_partition_t *p = &list->elems[i];
        unsigned key = key_of(p->topic, p->partition);
        if (with_offsets)
            fprintf(l->out, "%s[%u,%ld]", i == 0 ? "" : ",", key, p->offset < 0 ? -1 : p->offset);
        else
            fprintf(l->out, "%s%u", i == 0 ? "" : ",", key);
    }
    fputc(']', l->out);
}
