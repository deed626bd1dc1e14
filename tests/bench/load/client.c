#include "tests/bench/load/client.h"

#include <stdio.h>
#include <stdlib.h>

/* Records that may wait in all producers together; beyond, a sender waits for its client. */
#define QUEUED_RECORDS 200000
#define QUEUED_KIB     (256 << 10)

static void set(rd_kafka_conf_t *conf, const char *key, const char *value)
{
    char error[200];
    if (rd_kafka_conf_set(conf, key, value, error, sizeof error) == RD_KAFKA_CONF_OK)
        return;
    fprintf(stderr, "karst-load: %s=%s: %s\n", key, value, error);
    exit(64);
}

static void set_number(rd_kafka_conf_t *conf, const char *key, double value)
{
    char text[32];
    snprintf(text, sizeof text, "%.10g", value);
    set(conf, key, text);
}

static void set_producer(rd_kafka_conf_t *conf, const struct load_options *o)
{
    uint64_t queued = QUEUED_RECORDS / o->producers;
    set(conf, "acks", o->acks);
    set(conf, "compression.codec", o->codec);
    set_number(conf, "linger.ms", o->linger_ms);
    set_number(conf, "batch.num.messages", (double)o->batch_records);
    set_number(conf, "queue.buffering.max.messages", (double)queued);
    set_number(conf, "queue.buffering.max.kbytes", QUEUED_KIB);
    rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_DR);
}

rd_kafka_t *client_new(const struct load_options *o, rd_kafka_type_t type, rd_kafka_topic_t **ret_topic)
{
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    char error[200];
    set(conf, "client.id", "karst-load");
    set(conf, "bootstrap.servers", o->bootstrap);
    set(conf, "broker.address.family", "v4");
    set(conf, "socket.nagle.disable", "true"); /* or the latencies are those of TCP's patience */
    if (type == RD_KAFKA_PRODUCER)
        set_producer(conf, o);
    else
        set(conf, "enable.partition.eof", "true");
    for (uint64_t i = 0; i < o->set_count; i++) {
        char *key = xstrdup(o->set[i]), *equals = strchr(key, '=');
        *equals = 0;
        set(conf, key, equals + 1);
        free(key);
    }
    rd_kafka_t *rk = rd_kafka_new(type, conf, error, sizeof error);
    if (rk == NULL) {
        fprintf(stderr, "karst-load: %s\n", error);
        exit(64);
    }
    *ret_topic = rd_kafka_topic_new(rk, o->topic, NULL);
    return rk;
}
