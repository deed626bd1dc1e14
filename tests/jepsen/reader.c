/* reader.c - consumers by assign: some of the keys for a while, then others, the kept ones going on where they were;
 * and the last one, which reads everything. */
#include "tests/jepsen/consumer.h"

#define BACK 500 /* how far before its end a key that is new to a reader may be begun */

static void begin(struct consumer *c)
{
    rd_kafka_conf_t *conf = consumer_conf("jepsen-readers"); /* librdkafka wants a group; nothing is committed */
    conf_set(conf, "auto.offset.reset", "error");            /* an offset inside the log is never out of range */
    c->process = atomic_fetch_add(&processes, 1);
    consumer_begin(c, conf);
}

static void end(struct consumer *c)
{
    rd_kafka_consumer_close(c->rk);
    rd_kafka_destroy(c->rk);
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
    begin(&c);
    while (!atomic_load(&stopping)) {
        uint64_t until = UINT64_MAX;
        if (options.life_s > 0)
            until = now_ns() + (uint64_t)(1e9 * options.life_s * (double)(1 + random_below(&c.random, 100)) / 100);
        assign_some(&c);
        while (!atomic_load(&stopping) && now_ns() < until)
            poll_once(&c, 200);
    }
    end(&c);
    return NULL;
}

void final_read(void)
{
    struct consumer c = {0};
    int64_t from[KEYS_MAX] = {0}, ends[KEYS_MAX];
    uint64_t deadline = now_ns() + (uint64_t)(1e9 * options.final_s);
    begin(&c);
    uint64_t op = invoke(c.process, "final");
    ends_of_keys(c.rk, ends, deadline);
    assign(&c, from);
    while (!is_at_ends(c.position, ends) && now_ns() < deadline)
        poll_once(&c, 200);
    complete_reading(c.process, op, "final", c.position, ends);
    end(&c);
}
