/* bench_bus.c - what a call costs between two processes of one machine, through shared memory and over ZeroMQ: round
 * trips, CPU of both, and bytes a second.
 *
 *   bench_bus [SECONDS [ring|zmq]]     each line runs so long, default 1; only over that
 *
 * The child serves Append and answers at once; the parent keeps N calls in flight. CPU is user and system time of all
 * threads of both. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "libs/bus/bus.h"

enum { PING_API_KEY = 2 }; /* any of Kafka's that a storage node serves on the control lane */

static const char cluster_id[] = "AAAAAAAAAAAAAAAAAAAAAA";

struct load {
    struct loop *loop;
    struct bus *bus;
    struct ref payload;
    size_t payload_count;
    uint64_t done, failed, in_flight;
    double until;
    bool stopping;
};

static double seconds_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double cpu_of(pid_t pid)
{
    clockid_t clock;
    struct timespec t = {0};

    if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &t) != 0)
        return 0;
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void serve_append(void *ctx, struct rpc *r)
{
    Karst__Bus__AppendReply reply = KARST__BUS__APPEND_REPLY__INIT;
    Karst__Bus__AppendResult result = KARST__BUS__APPEND_RESULT__INIT, *results[] = {&result};

    (void)ctx;
    result.base_offset = 123456789;
    result.log_append_time_ms = -1;
    reply.n_results = 1;
    reply.results = results;
    rpc_reply(r, KARST__BUS__REPLY__BODY_APPEND, &reply, NULL, 0, 0);
}

static void serve_ping(void *ctx, struct rpc *r);

static void serve(const char *address, bool share)
{
    struct loop *loop = loop_new();
    struct bus_options o = {.role = KARST__BUS__ROLE__ROLE_STORAGE,
                            .id = 1,
                            .incarnation = 11,
                            .cluster_id = cluster_id,
                            .address = address,
                            .share = share};
    struct bus *bus;

    if (bus_new(loop, &o, &bus) != 0)
        exit(1);
    bus_serve(bus, KARST__BUS__CALL__BODY_APPEND, serve_append, NULL);
    bus_serve_kafka(bus, PING_API_KEY, serve_ping, NULL);
    loop_run(loop);
    exit(0);
}

static void on_done(void *ctx, const struct bus_result *result);

static void call(struct load *load)
{
    static uint8_t topic_id[16];
    Karst__Bus__AppendRequest append = KARST__BUS__APPEND_REQUEST__INIT;
    Karst__Bus__AppendPartition part = KARST__BUS__APPEND_PARTITION__INIT, *parts[] = {&part};

    part.topic_id = (ProtobufCBinaryData){sizeof topic_id, topic_id};
    append.acks = -1;
    append.timeout_ms = 30000;
    append.n_partitions = 1;
    append.partitions = parts;
    struct bus_request request = {.kind = KARST__BUS__CALL__BODY_APPEND,
                                  .body = &append,
                                  .payloads = &load->payload,
                                  .payload_count = load->payload_count,
                                  .timeout_ms = 30000};
    load->in_flight++;
    bus_call(load->bus, KARST__BUS__ROLE__ROLE_STORAGE, 1, &request, on_done, load);
}

static void on_done(void *ctx, const struct bus_result *result)
{
    struct load *load = ctx;

    load->in_flight--;
    load->done++;
    load->failed += result->outcome != KARST__BUS__OUTCOME__OUTCOME_OK;
    if (!load->stopping && (load->done & 63) == 0 && seconds_now() >= load->until)
        load->stopping = true;
    if (!load->stopping)
        call(load);
    else if (load->in_flight == 0)
        loop_stop(load->loop);
}

/* A ping on the control lane, one in flight, beside megabytes on the bulk lane. */
struct ping {
    struct load *load;
    double sent_at, worst, sum;
    uint64_t count;
};

static void serve_ping(void *ctx, struct rpc *r)
{
    Karst__Bus__KafkaResponse reply = KARST__BUS__KAFKA_RESPONSE__INIT;

    (void)ctx;
    rpc_reply(r, KARST__BUS__REPLY__BODY_KAFKA, &reply, NULL, 0, 0);
}

static void send_ping(struct ping *p);

static void on_pong(void *ctx, const struct bus_result *result)
{
    struct ping *p = ctx;
    double took = seconds_now() - p->sent_at;

    if (result->outcome != KARST__BUS__OUTCOME__OUTCOME_OK)
        return;
    p->count++;
    p->sum += took;
    p->worst = MAX(p->worst, took);
    if (!p->load->stopping)
        send_ping(p);
}

static void send_ping(struct ping *p)
{
    Karst__Bus__KafkaRequest body = KARST__BUS__KAFKA_REQUEST__INIT;
    struct bus_request request = {.kind = KARST__BUS__CALL__BODY_KAFKA, .body = &body, .timeout_ms = 30000};

    body.api_key = PING_API_KEY;
    p->sent_at = seconds_now();
    bus_call(p->load->bus, KARST__BUS__ROLE__ROLE_STORAGE, 1, &request, on_pong, p);
}

static void on_end(void *ctx)
{
    ((struct load *)ctx)->stopping = true;
}

static void run(struct load *load, pid_t child, size_t in_flight, size_t payload_bytes, double seconds)
{
    load->payload_count = payload_bytes > 0;
    if (payload_bytes > 0)
        load->payload = ref_take(xcalloc(1, payload_bytes), payload_bytes);
    load->done = load->failed = 0;
    load->stopping = false;
    double start = seconds_now(), cpu = cpu_of(child) + cpu_of(getpid());
    load->until = start + seconds;
    struct loop_timer *timer = loop_timer_start(load->loop, (uint64_t)(seconds * 1000), 0, on_end, load);
    for (size_t i = 0; i < in_flight; i++)
        call(load);
    loop_run(load->loop);
    double took = seconds_now() - start, used = cpu_of(child) + cpu_of(getpid()) - cpu;
    double n = (double)load->done;
    printf("%9zu %11zu %12.0f %10.1f %12.2f %10.0f\n", in_flight, payload_bytes, n / took,
           took / n * 1e6 * (double)in_flight, used / n * 1e6, n * (double)payload_bytes / took / 1e6);
    fflush(stdout);
    if (load->failed > 0)
        printf("%llu calls failed\n", (unsigned long long)load->failed);
    loop_timer_stop(timer);
    ref_release(&load->payload);
}

static void remove_sockets(const char *address)
{
    static const char *const names[] = {"control", "coordinator", "replica", "bulk", "local"};

    for (size_t i = 0; i < COUNTOF(names); i++) {
        char path[128];
        snprintf(path, sizeof path, "%s.%s", address + 6, names[i]);
        unlink(path);
    }
}

static void run_lines(struct load *load, pid_t child, double seconds)
{
    static const struct {
        size_t in_flight, bytes;
    } lines[] = {{1, 0},    {8, 0},     {64, 0},    {256, 0},   {1, 100},    {8, 100},
                 {64, 100}, {16, 4096}, {1, 65536}, {8, 65536}, {64, 65536}, {4, 1 << 20}};

    printf("in flight payload B  round trips/s latency us CPU us/call       MB/s\n");
    for (size_t i = 0; i < COUNTOF(lines); i++)
        run(load, child, lines[i].in_flight, lines[i].bytes, seconds);
    struct ping ping = {.load = load};
    send_ping(&ping);
    run(load, child, 8, 1 << 20, seconds);
    printf("a ping on the control lane beside that line: %.2f ms on average, %.2f ms at most\n",
           ping.sum / (double)MAX(ping.count, (uint64_t)1) * 1e3, ping.worst * 1e3);
}

static void measure(double seconds, bool share)
{
    struct load load = {0};
    char address[64], listening[80];
    struct bus_options o = {
        .role = KARST__BUS__ROLE__ROLE_FRONTEND, .id = 1, .incarnation = 22, .cluster_id = cluster_id, .share = share};

    snprintf(address, sizeof address, "ipc:///tmp/bench-bus-%d", (int)getpid());
    pid_t child = fork();
    if (child == 0)
        serve(address, share);
    snprintf(listening, sizeof listening, "%s.bulk", address + 6);
    while (access(listening, F_OK) != 0)
        usleep(1000);
    load.loop = loop_new();
    if (bus_new(load.loop, &o, &load.bus) != 0)
        exit(1);
    bus_set_peer(load.bus, KARST__BUS__ROLE__ROLE_STORAGE, 1, 0, address);
    double start = seconds_now();
    load.stopping = true;
    call(&load);
    loop_run(load.loop);
    printf("%s; first call, connection included: %.1f ms\n", share ? "shared memory" : "ZeroMQ",
           (seconds_now() - start) * 1e3);
    run_lines(&load, child, seconds);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    bus_free(load.bus);
    loop_free(load.loop);
    remove_sockets(address);
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? strtod(argv[1], NULL) : 1;
    const char *only = argc > 2 ? argv[2] : "";

    base_tune_heap();
    if (strcmp(only, "zmq") != 0)
        measure(seconds, true);
    if (strcmp(only, "ring") != 0)
        measure(seconds, false);
    return 0;
}
