/* main.c - karst-load: puts load on a Kafka-compatible server and prints one JSON line about it.
 *
 *   produce   clients of librdkafka, open loop; --consumers N read at the tail
 *   consume   N readers of librdkafka, from the beginning to the end
 *   wire      Produce requests made beforehand, over plain sockets: what librdkafka is too slow for
 *   fetch     Fetch requests over plain sockets, whose answers are checked but not kept
 *   idle      connections that say hello and then nothing
 *
 * Topics must be there. Exit status: 0; 1 with errors in the result; 64 for wrong usage.
 * Signals: SIGPIPE is ignored; SIGINT and SIGTERM end it without a result, but `idle` with one. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "tests/bench/load/load.h"

static const char usage[] =
    "usage: karst-load produce|consume|wire|fetch|idle --bootstrap HOST:PORT --topic NAME [OPTION...]\n"
    "  --size BYTES          of a record's value, at least 16 (100)\n"
    "  --compressible        text instead of random bytes\n"
    "  --codec NAME          none, gzip, snappy, lz4, zstd (none)\n"
    "  --acks 0|1|all        (all)\n"
    "  --rate N              records a second over all producers; 0: as fast as possible (0)\n"
    "  --seconds S           how long to send, or to hold idle connections (10)\n"
    "  --records N           how many to send or to read at most; 0: no limit (0)\n"
    "  --producers N         client instances (1)\n"
    "  --threads N           that send (2, at most one a producer)\n"
    "  --linger-ms MS        (5)\n"
    "  --batch-records N     records a batch at most; in wire: exactly (10000; wire: 1)\n"
    "  --keys N              records have keys, N different ones; 0: none (0)\n"
    "  --partitions N        of the topic (1)\n"
    "  --consumers N         produce: at the tail, each reads everything (0); consume: (1)\n"
    "  --lag S               produce: how long the tail may take at the end (10)\n"
    "  --connections N       wire, fetch, idle (1)\n"
    "  --depth N             wire: requests in flight a connection (1)\n"
    "  --fetch-bytes N       fetch: at most, of a partition (1048576)\n"
    "  --set KEY=VALUE       of librdkafka\n";

enum { TEXT, COUNT, REAL, FLAG, SET };

static const struct {
    const char *name;
    int kind;
    size_t offset;
    double low, high;
} option_table[] = {
    {"bootstrap", TEXT, offsetof(struct load_options, bootstrap), 0, 0},
    {"topic", TEXT, offsetof(struct load_options, topic), 0, 0},
    {"size", COUNT, offsetof(struct load_options, size), LOAD_STAMP_BYTES, LOAD_RECORD_MAX},
    {"compressible", FLAG, offsetof(struct load_options, compressible), 0, 0},
    {"codec", TEXT, offsetof(struct load_options, codec), 0, 0},
    {"acks", TEXT, offsetof(struct load_options, acks), 0, 0},
    {"rate", REAL, offsetof(struct load_options, rate), 0, 1e8},
    {"seconds", REAL, offsetof(struct load_options, seconds), 0, 86400},
    {"records", COUNT, offsetof(struct load_options, records), 0, 1e12},
    {"producers", COUNT, offsetof(struct load_options, producers), 1, LOAD_PRODUCERS_MAX},
    {"threads", COUNT, offsetof(struct load_options, threads), 1, LOAD_THREADS_MAX},
    {"linger-ms", REAL, offsetof(struct load_options, linger_ms), 0, 60000},
    {"batch-records", COUNT, offsetof(struct load_options, batch_records), 1, 100000},
    {"keys", COUNT, offsetof(struct load_options, keys), 0, 1e9},
    {"partitions", COUNT, offsetof(struct load_options, partitions), 1, LOAD_PARTITIONS_MAX},
    {"consumers", COUNT, offsetof(struct load_options, consumers), 0, LOAD_CONSUMERS_MAX},
    {"lag", REAL, offsetof(struct load_options, lag_s), 0, 3600},
    {"connections", COUNT, offsetof(struct load_options, connections), 1, LOAD_CONNECTIONS_MAX},
    {"depth", COUNT, offsetof(struct load_options, depth), 1, LOAD_DEPTH_MAX},
    {"fetch-bytes", COUNT, offsetof(struct load_options, fetch_bytes), 1, 1 << 30},
    {"set", SET, 0, 0, 0},
};
#define OPTIONS (sizeof option_table / sizeof option_table[0])

static _Noreturn void wrong(const char *format, ...) PRINTF_LIKE(1, 2);
static _Noreturn void wrong(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("karst-load: ", stderr);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n%s", usage);
    va_end(arguments);
    exit(64);
}

static void take(struct load_options *o, size_t i, const char *text)
{
    void *field = (char *)o + option_table[i].offset;
    if (option_table[i].kind == FLAG) {
        *(bool *)field = true;
        return;
    }
    if (option_table[i].kind == TEXT) {
        *(const char **)field = text;
        return;
    }
    if (option_table[i].kind == SET) {
        if (o->set_count == sizeof o->set / sizeof o->set[0] || strchr(text, '=') == NULL)
            wrong("--set %s: not KEY=VALUE, or one too many", text);
        o->set[o->set_count++] = text;
        return;
    }
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end != 0 || !(v >= option_table[i].low && v <= option_table[i].high))
        wrong("--%s %s: must be %g to %g", option_table[i].name, text, option_table[i].low, option_table[i].high);
    if (option_table[i].kind == COUNT)
        *(uint64_t *)field = (uint64_t)v;
    else
        *(double *)field = v;
}

static void parse(int argc, char **argv, struct load_options *o)
{
    static const char *const modes[] = {"produce", "consume", "wire", "fetch", "idle"};
    struct option table[OPTIONS + 1] = {0};
    for (size_t i = 0; i < OPTIONS; i++)
        table[i] = (struct option){option_table[i].name, option_table[i].kind == FLAG ? no_argument : required_argument,
                                   NULL, (int)i};
    unsigned mode = 0;
    while (argc >= 2 && mode < COUNTOF(modes) && strcmp(argv[1], modes[mode]) != 0)
        mode++;
    if (argc < 2 || mode == COUNTOF(modes))
        wrong("no mode");
    *o = (struct load_options){.mode = (enum load_mode)mode,
                               .codec = "none",
                               .acks = "all",
                               .size = 100,
                               .producers = 1,
                               .threads = 2,
                               .seconds = 10,
                               .linger_ms = 5,
                               .partitions = 1,
                               .connections = 1,
                               .depth = 1,
                               .fetch_bytes = 1 << 20,
                               .lag_s = 10};
    o->batch_records = o->mode == LOAD_WIRE ? 1 : 10000;
    o->consumers = o->mode == LOAD_CONSUME ? 1 : 0;
    for (int i; (i = getopt_long(argc - 1, argv + 1, "", table, NULL)) != -1;) {
        if (i < 0 || (size_t)i >= OPTIONS)
            wrong("no such option");
        take(o, (size_t)i, optarg);
    }
    if (optind != argc - 1 || o->bootstrap == NULL || (o->topic == NULL && o->mode != LOAD_IDLE))
        wrong("--bootstrap and --topic are needed, and nothing but options");
    if (o->threads > o->producers)
        o->threads = o->producers;
}

void load_fail(struct load_result *r, const char *format, ...)
{
    r->errors++;
    if (r->errors > 1)
        return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(r->error, sizeof r->error, format, arguments);
    va_end(arguments);
    for (char *c = r->error; *c != 0; c++) { /* it goes into a JSON string */
        if (*c == '"' || *c == '\\' || (unsigned char)*c < ' ')
            *c = '\'';
    }
}

static void print_latency(const char *name, const struct hist *h)
{
    printf(", \"%s\": {\"count\": %lu, \"p50_us\": %lu, \"p99_us\": %lu, \"p999_us\": %lu, \"max_us\": %lu}", name,
           h->count, hist_quantile(h, 0.5), hist_quantile(h, 0.99), hist_quantile(h, 0.999), h->max_us);
}

static void print_result(const struct load_result *r)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double cpu_s = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
                   (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
    printf("{\"records\": %lu, \"bytes\": %lu, \"seconds\": %.6f, \"errors\": %lu, \"error\": \"%s\", "
           "\"client_cpu_s\": %.3f",
           r->records, r->bytes, r->seconds, r->errors, r->error, cpu_s);
    if (r->acked.count > 0)
        print_latency("acked", &r->acked);
    if (r->consume_seconds > 0)
        printf(", \"consumed\": %lu, \"consumed_bytes\": %lu, \"consume_seconds\": %.6f", r->consumed,
               r->consumed_bytes, r->consume_seconds);
    if (r->arrived.count > 0)
        print_latency("arrived", &r->arrived);
    printf("}\n");
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static struct load_result result; /* zeroed, and too large for a stack */
    struct load_options options;
    parse(argc, argv, &options);
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_TIMERSLACK, 1000UL, 0UL, 0UL, 0UL); /* ns: sleeps end on time; threads inherit it */
    switch (options.mode) {
    case LOAD_PRODUCE: produce_run(&options, &result); break;
    case LOAD_CONSUME: consume_run(&options, &result); break;
    case LOAD_WIRE: wire_run(&options, &result); break;
    case LOAD_FETCH: fetch_run(&options, &result); break;
    case LOAD_IDLE: idle_run(&options, &result); break;
    }
    print_result(&result);
    _exit(result.errors == 0
              ? 0
              : 1); /* client instances are left to the kernel: destroying thousands takes longer than the load */
}
