/* poll.c - one operation of a consumer, whatever gave it its keys. */
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
        atomic_fetch_add(&marks[key].delivered, 1);
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

unsigned poll_once(struct consumer *c, int wait_ms)
{
    struct found *f = xmalloc(sizeof *f);
    struct line l;
    uint64_t op = next_op();
    f->count = 0;
    f->error[0] = 0;
    line_begin(&l, c->process, op, "invoke", "poll", now_ns());
    fputs("null", l.out);
    line_end(&l);
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
