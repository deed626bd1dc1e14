/* main.c - karst-jepsen: writes values to partitions of a Kafka-compatible server and reads them, in all the ways that
 * clients do, and keeps a history of it for checker.py (the format: jepsen.h).
 *
 * Started by scripts/jepsen and scripts/kills. On stdin it takes lines: `marks` prints one JSON line, when something of
 * each key last got through; `stop`, or the end of stdin, ends the sending, lets the groups read to the end, reads
 * everything once more, and ends the program. Topics must be there. Exit status: 0, also when something could not be
 * read (the history says so); 64 for wrong usage. */
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "tests/jepsen/jepsen.h"

static const char usage[] =
    "usage: karst-jepsen --bootstrap HOST:PORT[,...] --topic NAME [--topic NAME...] --history FILE [OPTION...]\n"
    "  --partitions N    of each topic (4)\n"
    "  --producers N     (3)\n"
    "  --readers N       consumers by assign (2)\n"
    "  --members N       consumers by subscribe, in one group (3)\n"
    "  --rate N          values a second, over all producers (300)\n"
    "  --in-flight N     operations of a producer (50)\n"
    "  --message-ms N    how long librdkafka tries to send a value (600000)\n"
    "  --life S          of a producer, a member, an assignment, on average; 0: they do not end (0)\n"
    "  --commit-ms MS    between commits of a member (100)\n"
    "  --final S         how long the last reads may take (90)\n"
    "  --seed N          (1)\n"
    "  --set KEY=VALUE   of librdkafka\n";

struct jepsen_options options = {.partitions = 4,
                                 .producers = 3,
                                 .readers = 2,
                                 .members = 3,
                                 .rate = 300,
                                 .in_flight = 50,
                                 .message_ms = 600000,
                                 .commit_ms = 100,
                                 .final_s = 90,
                                 .seed = 1};
atomic_bool stopping, drained;
atomic_uint processes;

static NORETURN void wrong(const char *what)
{
    fprintf(stderr, "karst-jepsen: %s\n%s", what, usage);
    exit(64);
}

static const struct {
    const char *name;
    uint64_t *count; /* or */
    double *real;    /* or neither: a text */
    double low, high;
} option_table[] = {
    {"bootstrap", NULL, NULL, 0, 0},
    {"history", NULL, NULL, 0, 0},
    {"topic", NULL, NULL, 0, 0},
    {"set", NULL, NULL, 0, 0},
    {"partitions", &options.partitions, NULL, 1, KEYS_MAX},
    {"producers", &options.producers, NULL, 1, 16},
    {"readers", &options.readers, NULL, 0, 16},
    {"members", &options.members, NULL, 0, 16},
    {"in-flight", &options.in_flight, NULL, 1, 10000},
    {"message-ms", &options.message_ms, NULL, 100, 3600000},
    {"seed", &options.seed, NULL, 0, 1e15},
    {"rate", NULL, &options.rate, 1, 1e5},
    {"life", NULL, &options.life_s, 0, 3600},
    {"commit-ms", NULL, &options.commit_ms, 1, 60000},
    {"final", NULL, &options.final_s, 1, 3600},
};

static void take_text(const char *name, const char *text)
{
    if (strcmp(name, "bootstrap") == 0)
        options.bootstrap = text;
    else if (strcmp(name, "history") == 0)
        options.history = text;
    else if (strcmp(name, "topic") == 0 && options.topic_count < TOPICS_MAX)
        options.topics[options.topic_count++] = text;
    else if (strcmp(name, "set") == 0 && options.set_count < COUNTOF(options.set) && strchr(text, '=') != NULL)
        options.set[options.set_count++] = text;
    else
        wrong("one topic or --set too many, or one that is no KEY=VALUE");
}

static void parse(int argc, char **argv)
{
    struct option table[COUNTOF(option_table) + 1] = {0};
    for (size_t i = 0; i < COUNTOF(option_table); i++)
        table[i] = (struct option){option_table[i].name, required_argument, NULL, (int)i};
    for (int i; (i = getopt_long(argc, argv, "", table, NULL)) != -1;) {
        if (i < 0 || (size_t)i >= COUNTOF(option_table))
            wrong("no such option");
        if (option_table[i].count == NULL && option_table[i].real == NULL) {
            take_text(option_table[i].name, optarg);
            continue;
        }
        char *end;
        double v = strtod(optarg, &end);
        if (end == optarg || *end != 0 || !(v >= option_table[i].low && v <= option_table[i].high))
            wrong(option_table[i].name);
        if (option_table[i].count != NULL)
            *option_table[i].count = (uint64_t)v;
        else
            *option_table[i].real = v;
    }
    if (optind != argc || options.bootstrap == NULL || options.history == NULL || options.topic_count == 0)
        wrong("--bootstrap, --history and --topic are needed, and nothing but options");
    if (keys() > KEYS_MAX)
        wrong("more than 64 partitions in all");
}

static void write_keys(void)
{
    struct line l;
    line_begin(&l, atomic_fetch_add(&processes, 1), 0, "info", "keys", now_ns());
    for (unsigned k = 0; k < keys(); k++)
        fprintf(l.out, "%c\"%s-%d\"", k == 0 ? '[' : ',', topic_of(k), partition_of(k));
    fputc(']', l.out);
    line_end(&l);
}

static void print_marks(void)
{
    printf("[");
    for (unsigned k = 0; k < keys(); k++) {
        struct marks *m = &marks[k];
        printf("%s{\"acked_ns\":%llu,\"delivered_ns\":%llu}", k == 0 ? "" : ",", atomic_load(&m->acked_ns),
               atomic_load(&m->delivered_ns));
    }
    printf("]\n");
    fflush(stdout);
}

/* Until somebody says stop, or is gone. */
static void obey(void)
{
    char text[64];
    while (fgets(text, sizeof text, stdin) != NULL && strcmp(text, "stop\n") != 0) {
        if (strcmp(text, "marks\n") == 0)
            print_marks();
        history_flush();
    }
}

int main(int argc, char **argv)
{
    pthread_t producer[16], reader[16], member[16];
    parse(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    history_open();
    write_keys();
    for (uintptr_t i = 0; i < options.producers; i++)
        pthread_create(&producer[i], NULL, producer_run, (void *)i);
    for (uintptr_t i = 0; i < options.readers; i++)
        pthread_create(&reader[i], NULL, reader_run, (void *)i);
    for (uintptr_t i = 0; i < options.members; i++)
        pthread_create(&member[i], NULL, member_run, (void *)i);
    obey();
    atomic_store(&stopping, true);
    for (uintptr_t i = 0; i < options.producers; i++)
        pthread_join(producer[i], NULL);
    for (uintptr_t i = 0; i < options.readers; i++)
        pthread_join(reader[i], NULL);
    if (options.members > 0)
        group_drain();
    atomic_store(&drained, true);
    for (uintptr_t i = 0; i < options.members; i++)
        pthread_join(member[i], NULL);
    final_read();
    history_close();
    return 0;
}
