#include <stdlib.h>

#include "tests/jepsen/jepsen.h"

static void wrong(const char *what, const char *why)
{
    fprintf(stderr, "karst-jepsen: %s: %s\n", what, why);
    exit(64);
}

void conf_set(rd_kafka_conf_t *conf, const char *key, const char *value)
{
    char error[200];
    if (rd_kafka_conf_set(conf, key, value, error, sizeof error) != RD_KAFKA_CONF_OK)
        wrong(key, error);
}

void conf_set_number(rd_kafka_conf_t *conf, const char *key, double value)
{
    char text[32];
    snprintf(text, sizeof text, "%.10g", value);
    conf_set(conf, key, text);
}

/* An error of an instance as a whole is no operation's; a fatal one is judged by the checker. */
static void on_error(rd_kafka_t *rk, int error, const char *reason, void *opaque)
{
    struct line l;
    (void)opaque;
    bool fatal = error == RD_KAFKA_RESP_ERR__FATAL;
    char text[TEXT_MAX];
    if (fatal)
        rd_kafka_fatal_error(rk, text, sizeof text);
    line_begin(&l, (unsigned)(uintptr_t)rd_kafka_opaque(rk), 0, "info", fatal ? "fatal" : "client", now_ns());
    fprintf(l.out, "\"%s\"", rd_kafka_err2name((rd_kafka_resp_err_t)error));
    line_error(&l, fatal ? text : reason);
    line_end(&l);
}

static void on_log(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
    struct line l;
    line_begin(&l, (unsigned)(uintptr_t)rd_kafka_opaque(rk), 0, "info", "log", now_ns());
    fprintf(l.out, "[%d,\"%s\"]", level, facility);
    line_error(&l, text);
    line_end(&l);
}

rd_kafka_conf_t *conf_new(void)
{
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    conf_set(conf, "bootstrap.servers", options.bootstrap);
    conf_set(conf, "broker.address.family", "v4");
    conf_set(conf, "socket.nagle.disable", "true");
    conf_set(conf, "log_level", "4");
    /* A client that comes back soon, so that the pauses are the server's. */
    conf_set(conf, "reconnect.backoff.ms", "20");
    conf_set(conf, "reconnect.backoff.max.ms", "200");
    conf_set(conf, "topic.metadata.refresh.fast.interval.ms", "50");
    rd_kafka_conf_set_error_cb(conf, on_error);
    rd_kafka_conf_set_log_cb(conf, on_log);
    return conf;
}

rd_kafka_t *client_new(unsigned process, rd_kafka_type_t type, rd_kafka_conf_t *conf)
{
    char error[200], id[32];
    snprintf(id, sizeof id, "jepsen-%u", process);
    conf_set(conf, "client.id", id);
    for (uint64_t i = 0; i < options.set_count; i++) {
        char *key = xstrdup(options.set[i]), *equals = strchr(key, '=');
        *equals = 0;
        /* What only the other kind of client knows is not for this one. */
        if (rd_kafka_conf_set(conf, key, equals + 1, error, sizeof error) == RD_KAFKA_CONF_INVALID)
            wrong(options.set[i], error);
        free(key);
    }
    rd_kafka_conf_set_opaque(conf, (void *)(uintptr_t)process);
    rd_kafka_t *rk = rd_kafka_new(type, conf, error, sizeof error);
    if (rk == NULL)
        wrong("a new client", error);
    return rk;
}

void ends_of_keys(rd_kafka_t *rk, int64_t *ret_ends, uint64_t deadline_ns)
{
    for (unsigned k = 0; k < keys(); k++) {
        int64_t low, high;
        ret_ends[k] = INT64_MAX;
        while (ret_ends[k] == INT64_MAX && now_ns() < deadline_ns) {
            if (rd_kafka_query_watermark_offsets(rk, topic_of(k), partition_of(k), &low, &high, 5000) == 0)
                ret_ends[k] = high;
            else
                nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
        }
    }
}
