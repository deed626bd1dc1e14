/* reader.c - consumers by assign: some of the keys for a while, then others, the kept ones going on where they were;
 * and the last one, which reads everything. */
#include "tests/jepsen/consumer.h"

#define BACK 500 /* how far before its end a key that is new to a reader may be begun */

static rd_kafka_t *new_reader(unsigned process)
{
    rd_kafka_conf_t *conf = conf_new();
    conf_set(conf, "group.id", "jepsen-readers"); /* librdkafka wants one; nothing is committed */
    conf_set(conf, "enable.auto.commit", "false");
    conf_set(conf, "enable.auto.offset.store", "false");
    conf_set(conf, "auto.offset.reset", "error"); /* an offset inside the log is never out of range */
    conf_set(conf, "check.crcs", "true");
    conf_set(conf, "isolation.level", "read_committed");
    conf_set(conf, "fetch.wait.max.ms", "200");
    conf_set(conf, "fetch.error.backoff.ms", "50");
    return client_new(process, RD_KAFKA_CONSUMER, conf);
}

static void assign(struct consumer *c, const int64_t *from)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)keys());
    uint64_t op = next_op();
    struct line l;
    for (unsigned k = 0; k < keys(); k++) {
        if (from[k] >= 0)
            rd_kafka_topic_partition_list_add(list, topic_of(k), partition_of(k))->offset = from[k];
        c->position[k] = from[k];
    }
    line_begin(&l, c->process, op, "invoke", "assign", now_ns());
    write_partitions(&l, list, true);
    line_end(&l);
    rd_kafka_resp_err_t error = rd_kafka_assign(c->rk, list);
    line_begin(&l, c->process, op, error == 0 ? "ok" : "fail", "assign", now_ns());
    write_partitions(&l, list, true);
    if (error != 0)
        line_error(&l, rd_kafka_err2name(error));
    line_end(&l);
    rd_kafka_topic_partition_list_destroy(list);
}

/* About two thirds of the keys; all of them where lives do not end. */
static void assign_some(struct consumer *c)
{
    int64_t from[KEYS_MAX];
    for (unsigned k = 0; k < keys(); k++) {
        int64_t end = atomic_load(&known_end[k]);
        from[k] = -1;
        if (options.life_s > 0 && random_below(&c->random, 3) == 0)
            continue;
        from[k] = c->position[k];
        if (from[k] < 0)
            from[k] = options.life_s > 0 ? MAX(end - (int64_t)random_below(&c->random, BACK), 0) : end;
    }
    assign(c, from);
}

void *reader_run(void *number)
{
    struct consumer c = {.random = options.seed * 1000033 + (uintptr_t)number};
    c.process = atomic_fetch_add(&processes, 1);
    c.rk = new_reader(c.process);
    rd_kafka_poll_set_consumer(c.rk);
    memset(c.position, -1, sizeof c.position);
    while (!atomic_load(&stopping)) {
        uint64_t end = UINT64_MAX;
        if (options.life_s > 0)
            end = now_ns() + (uint64_t)(1e9 * options.life_s * (double)(1 + random_below(&c.random, 100)) / 100);
        assign_some(&c);
        while (!atomic_load(&stopping) && now_ns() < end)
            poll_once(&c, 200);
    }
    rd_kafka_consumer_close(c.rk);
    rd_kafka_destroy(c.rk);
    return NULL;
}

bool final_read(void)
{
    struct consumer c = {.process = atomic_fetch_add(&processes, 1)};
    int64_t from[KEYS_MAX] = {0}, end[KEYS_MAX] = {0};
    uint64_t deadline = now_ns() + (uint64_t)(1e9 * options.final_s), op = next_op();
    struct line l;
    line_begin(&l, c.process, op, "invoke", "final", now_ns());
    fputs("null", l.out);
    line_end(&l);
    c.rk = new_reader(c.process);
    rd_kafka_poll_set_consumer(c.rk);
    bool known = ends_of_keys(c.rk, end, deadline), whole = false;
    assign(&c, from);
    while (!whole && now_ns() < deadline) {
        poll_once(&c, 200);
        whole = known;
        for (unsigned k = 0; k < keys(); k++)
            whole = whole && c.position[k] >= end[k];
    }
    line_begin(&l, c.process, op, whole ? "ok" : "fail", "final", now_ns());
    unsigned told = 0;
    fputc('[', l.out);
    for (unsigned k = 0; k < keys(); k++) {
        if (!known || c.position[k] < end[k])
            fprintf(l.out, "%s%u", told++ == 0 ? "" : ",", k);
    }
    fputc(']', l.out);
    line_end(&l);
    rd_kafka_consumer_close(c.rk);
    rd_kafka_destroy(c.rk);
    return whole;
}
