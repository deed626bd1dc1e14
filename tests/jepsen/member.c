/* member.c - consumers by subscribe, all in one group. Each commits what it was given every commit_ms, without waiting,
 * and asks at each assignment what is committed. A life ends after some seconds (options.life_s): three of four leave
 * the group, the fourth is gone without a word. */
#include <stdlib.h>

#include "tests/jepsen/consumer.h"

#define SESSION_MS "6000" /* the least that a broker takes by default */

struct member {
    struct consumer c; /* first */
    int64_t committed[KEYS_MAX];
    uint64_t commit_op; /* under way; 0: none */
};

static _Thread_local struct member *self; /* librdkafka's callbacks run in the member's own thread */

static void note_rebalance(struct member *m, const char *what, const rd_kafka_topic_partition_list_t *list)
{
    char *text;
    size_t size;
    struct line l = {.out = open_memstream(&text, &size)};
    fprintf(l.out, "%s%s[\"%s\",", m->c.rebalances == NULL ? "" : m->c.rebalances, m->c.rebalances == NULL ? "" : ",",
            what);
    write_partitions(&l, list, false);
    fputc(']', l.out);
    fclose(l.out);
    free(m->c.rebalances);
    m->c.rebalances = text;
}

/* What the coordinator says; an answer must not be before a commit that it had acknowledged by then. */
static void ask_committed(struct member *m, const rd_kafka_topic_partition_list_t *list)
{
    rd_kafka_topic_partition_list_t *asked = rd_kafka_topic_partition_list_copy(list);
    uint64_t op = next_op();
    struct line l;
    line_begin(&l, m->c.process, op, "invoke", "committed", now_ns());
    write_partitions(&l, asked, false);
    line_end(&l);
    rd_kafka_resp_err_t error = rd_kafka_committed(m->c.rk, asked, 5000);
    for (int i = 0; i < asked->cnt && error == 0; i++)
        error = asked->elems[i].err;
    line_begin(&l, m->c.process, op, error == 0 ? "ok" : "fail", "committed", now_ns());
    write_partitions(&l, asked, true);
    if (error != 0)
        line_error(&l, rd_kafka_err2name(error));
    line_end(&l);
    rd_kafka_topic_partition_list_destroy(asked);
}

static void on_rebalance(rd_kafka_t *rk, rd_kafka_resp_err_t error, rd_kafka_topic_partition_list_t *list, void *opaque)
{
    struct member *m = self;
    bool given = error == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
    bool little = strcmp(rd_kafka_rebalance_protocol(rk), "COOPERATIVE") == 0;
    (void)opaque;
    note_rebalance(m, given ? "given" : rd_kafka_assignment_lost(rk) ? "lost" : "taken", list);
    for (int i = 0; i < list->cnt; i++) {
        unsigned key = key_of(list->elems[i].topic, list->elems[i].partition);
        m->c.position[key] = m->committed[key] = -1;
    }
    if (given && list->cnt > 0 && rk == m->c.rk)
        ask_committed(m, list);
    if (little && given)
        rd_kafka_error_destroy(rd_kafka_incremental_assign(rk, list));
    else if (little)
        rd_kafka_error_destroy(rd_kafka_incremental_unassign(rk, list));
    else
        rd_kafka_assign(rk, given ? list : NULL);
}

/* Errors after which the offsets are certainly not stored. */
static bool refused(rd_kafka_resp_err_t error)
{
    return error == RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION || error == RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID ||
           error == RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS || error == RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID;
}

static void on_commit(rd_kafka_t *rk, rd_kafka_resp_err_t error, rd_kafka_topic_partition_list_t *list, void *opaque)
{
    struct member *m = self;
    struct line l;
    (void)rk;
    (void)opaque;
    if (m->commit_op == 0)
        return;
    for (int i = 0; list != NULL && i < list->cnt && error == 0; i++)
        error = list->elems[i].err;
    line_begin(&l, m->c.process, m->commit_op,
               error == 0       ? "ok"
               : refused(error) ? "fail"
                                : "info",
               "commit", now_ns());
    if (list != NULL)
        write_partitions(&l, list, true);
    else
        fputs("null", l.out);
    if (error != 0)
        line_error(&l, rd_kafka_err2name(error));
    line_end(&l);
    m->commit_op = 0;
}

static void commit(struct member *m)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)keys());
    struct line l;
    for (unsigned k = 0; k < keys(); k++) {
        if (m->c.position[k] > m->committed[k])
            rd_kafka_topic_partition_list_add(list, topic_of(k), partition_of(k))->offset = m->c.position[k];
        m->committed[k] = m->c.position[k];
    }
    if (list->cnt > 0) {
        m->commit_op = next_op();
        line_begin(&l, m->c.process, m->commit_op, "invoke", "commit", now_ns());
        write_partitions(&l, list, true);
        line_end(&l);
        rd_kafka_resp_err_t error = rd_kafka_commit(m->c.rk, list, 1);
        if (error != 0)
            on_commit(m->c.rk, error, list, NULL);
    }
    rd_kafka_topic_partition_list_destroy(list);
}

static void write_subscription(const struct member *m, uint64_t op, const char *type)
{
    struct line l;
    line_begin(&l, m->c.process, op, type, "subscribe", now_ns());
    fputs("\"jepsen\"", l.out);
    line_end(&l);
}

static void subscribe(struct member *m)
{
    rd_kafka_conf_t *conf = consumer_conf("jepsen");
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)options.topic_count);
    conf_set(conf, "auto.offset.reset", "earliest");
    conf_set(conf, "session.timeout.ms", SESSION_MS);
    conf_set(conf, "heartbeat.interval.ms", "500");
    rd_kafka_conf_set_rebalance_cb(conf, on_rebalance);
    rd_kafka_conf_set_offset_commit_cb(conf, on_commit);
    m->c.process = atomic_fetch_add(&processes, 1);
    consumer_begin(&m->c, conf);
    memset(m->committed, -1, sizeof m->committed);
    m->commit_op = 0;
    for (uint64_t t = 0; t < options.topic_count; t++)
        rd_kafka_topic_partition_list_add(list, options.topics[t], RD_KAFKA_PARTITION_UA);
    uint64_t op = next_op();
    write_subscription(m, op, "invoke");
    if (rd_kafka_subscribe(m->c.rk, list) != 0)
        BUG("librdkafka refuses a subscription of ours");
    write_subscription(m, op, "ok");
    rd_kafka_topic_partition_list_destroy(list);
}

static void leave(struct member *m, bool politely)
{
    struct line l;
    if (politely)
        rd_kafka_consumer_close(m->c.rk);
    if (m->commit_op != 0) {
        line_begin(&l, m->c.process, m->commit_op, "info", "commit", now_ns());
        fputs("null", l.out);
        line_end(&l);
        m->commit_op = 0;
    }
    rd_kafka_destroy_flags(m->c.rk, politely ? 0 : RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
    m->c.rk = NULL;
    free(TAKE_PTR(m->c.rebalances));
}

void *member_run(void *number)
{
    struct member m = {.c = {.in_group = true, .random = options.seed * 1000037 + (uintptr_t)number}};
    self = &m;
    while (!atomic_load(&drained)) {
        uint64_t end = UINT64_MAX, next = now_ns();
        if (options.life_s > 0)
            end = next + (uint64_t)(1e9 * options.life_s * (double)(30 + random_below(&m.c.random, 200)) / 100);
        subscribe(&m);
        while (!atomic_load(&drained) && (now_ns() < end || atomic_load(&stopping))) {
            poll_once(&m.c, 100);
            if (m.commit_op == 0 && now_ns() >= next) {
                commit(&m);
                next = now_ns() + (uint64_t)(1e6 * options.commit_ms);
            }
        }
        leave(&m, atomic_load(&drained) || random_below(&m.c.random, 4) != 0);
    }
    return NULL;
}

void group_drain(void)
{
    unsigned process = atomic_fetch_add(&processes, 1);
    uint64_t deadline = now_ns() + (uint64_t)(1e9 * options.final_s), op = invoke(process, "drain");
    int64_t at[KEYS_MAX] = {0}, ends[KEYS_MAX];
    rd_kafka_t *rk = client_new(process, RD_KAFKA_PRODUCER, conf_new()); /* only asks where the keys end */
    ends_of_keys(rk, ends, deadline);
    rd_kafka_destroy(rk);
    while (!is_at_ends(at, ends) && now_ns() < deadline) {
        for (unsigned k = 0; k < keys(); k++)
            at[k] = atomic_load(&group_end[k]);
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    }
    complete_reading(process, op, "drain", at, ends);
}
