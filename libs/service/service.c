/* service.c - the start and the end of a service. */
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utlist.h>

#include "libs/base/log.h"
#include "libs/config/meta_properties.h"
#include "libs/service/alive.h"
#include "libs/service/service_internal.h"

/* sysexits.h */
enum { STATUS_USAGE = 64, STATUS_CONFIG = 78, STATUS_FAILED = 1 };
enum { DRAIN_MS = 10000, TELL_MS = 500, LEAVE_MS = 5000 };

static const char *const role_names[] = {"none", "controller", "storage", "frontend", "group", "txn"};

const char *service_role_name(int32_t role)
{
    return role_names[role > 0 && role < (int32_t)COUNTOF(role_names) ? role : 0];
}

/* ---- arguments and configuration ---- */

static int usage(const char *program)
{
    fprintf(stderr, "usage: %s --config FILE --id N\n", program);
    return STATUS_USAGE;
}

static int read_arguments(int argc, char **argv, const char **ret_config, int32_t *ret_id)
{
    const char *config = NULL, *id = NULL;
    char *end = NULL;

    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--config") == 0)
            config = argv[i + 1];
        else if (strcmp(argv[i], "--id") == 0)
            id = argv[i + 1];
        else
            return usage(argv[0]);
    }
    long n = id ? strtol(id, &end, 10) : -1;
    if (argc != 5 || config == NULL || n < 0 || n > INT32_MAX || *end != '\0')
        return usage(argv[0]);
    *ret_config = config;
    *ret_id = (int32_t)n;
    return 0;
}

static int complain(char *error, const char *what)
{
    log_error("%s: %s", what, error ? error : "not readable");
    free(error);
    return STATUS_CONFIG;
}

/* The identity of the cluster is in the data directory; whoever starts us has formatted it. */
static int read_cluster_id(struct service *s)
{
    struct meta_properties meta;
    char *error = NULL;
    const char *dir = config_metadata_log_dir(s->config, s->arena);
    int failed = meta_properties_read(dir, &meta, &error);

    if (failed == -ENOENT) {
        log_error("%s is not formatted: it has no meta.properties", dir);
        return STATUS_CONFIG;
    }
    if (failed != 0)
        return complain(error, dir);
    snprintf(s->cluster_id, sizeof s->cluster_id, "%s", meta.cluster_id);
    return 0;
}

/* "ID@ADDRESS". */
static int add_controller(struct service *s, const char *text)
{
    char *at = NULL;
    long id = strtol(text, &at, 10);

    if (at == text || *at != '@' || id < 0 || id > INT32_MAX || s->controller_count == SERVICE_CONTROLLERS_MAX) {
        log_error("karst.controllers: %s is not ID@ADDRESS", text);
        return STATUS_CONFIG;
    }
    if (strncmp(at + 1, "tcp://", 6) == 0 && !s->networked) {
        log_error("karst.controllers: %s is on another host, and there are no keys for connections to other hosts: set "
                  "karst.bus.key.file and karst.bus.hosts.file",
                  text);
        return STATUS_CONFIG;
    }
    s->controller_addresses[s->controller_count] = at + 1;
    s->controllers[s->controller_count++] = (int32_t)id;
    bus_set_peer(s->bus, KARST__BUS__ROLE__ROLE_CONTROLLER, (int32_t)id, 0, at + 1);
    return 0;
}

static int read_config(struct service *s, const char *path)
{
    char *error = NULL;

    s->config = config_new();
    if (config_load(s->config, path, &error) != 0)
        return complain(error, path);
    if (config_check(s->config, NULL, NULL, &error) != 0)
        return complain(error, path);
    s->run_dir = config_string(s->config, "karst.run.dir");
    s->rack = config_string(s->config, "broker.rack");
    if (s->run_dir == NULL) {
        log_error("%s: karst.run.dir is not set", path);
        return STATUS_CONFIG;
    }
    return read_cluster_id(s);
}

static int open_bus(struct service *s)
{
    int status = service_network_open(s);

    if (status != 0)
        return status;
    s->address =
        arena_printf(s->arena, "ipc://%s/%s-%" PRId32, s->run_dir, service_role_name((int32_t)s->options.role), s->id);
    struct bus_options o = {.role = s->options.role,
                            .id = s->id,
                            .incarnation = s->incarnation,
                            .cluster_id = s->cluster_id,
                            .address = s->address,
                            .tcp_address = s->tcp_listen,
                            .trust = s->trust,
                            .unencrypted = s->networked && s->trust == NULL,
                            .share = config_bool(s->config, "karst.bus.shared")};
    int failed = bus_new(s->loop, &o, &s->bus);
    if (failed != 0) {
        log_error("cannot listen on %s%s%s: %s", s->address, s->tcp_listen ? " or the lanes above " : "",
                  s->tcp_listen ? s->tcp_listen : "", strerror(-failed));
        return STATUS_FAILED;
    }
    struct config_list list = config_list(s->config, "karst.controllers", s->arena);
    for (size_t i = 0; i < list.count; i++)
        if (add_controller(s, list.items[i]) != 0)
            return STATUS_CONFIG;
    if (s->controller_count == 0) {
        log_error("karst.controllers names no controller");
        return STATUS_CONFIG;
    }
    return 0;
}

/* ---- signals, drain, end ---- */

/* Ends with the supervisor that asked for it. It may have died before prctl: then our parent is another already. */
static int tie_to_parent(void)
{
    const char *parent = getenv("KARST_PARENT_PID");

    if (parent == NULL)
        return 0;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (strtol(parent, NULL, 10) == (long)getppid())
        return 0;
    log_error("the supervisor that started us is gone");
    return STATUS_FAILED;
}

static void stop(void *ctx)
{
    struct service *s = ctx;

    if (s->stopping)
        return;
    s->stopping = true;
    s->stop_timer = loop_timer_stop(s->stop_timer);
    bus_goodbye(s->bus);
    loop_stop(s->loop);
}

static void on_drain_over(void *ctx)
{
    struct service *s = ctx;

    log_warn("the drain took longer than %u ms; what is left is cut off", s->options.drain_ms);
    s->drained = true;
    stop(s);
}

static void drain(struct service *s)
{
    s->drain_timer = loop_timer_start(s->loop, s->options.drain_ms, 0, on_drain_over, s);
    if (s->options.on_drain != NULL)
        s->options.on_drain(s->options.ctx);
    else
        service_drained(s);
}

void service_left(void *ctx)
{
    struct service *s = ctx;

    if (!s->leaving)
        return;
    s->leaving = false;
    s->leave_timer = loop_timer_stop(s->leave_timer);
    s->leave_again = loop_timer_stop(s->leave_again);
    drain(s);
}

/* A storage node stops leading first, while it still works (Kafka's controlled shutdown). With
 * controlled.shutdown.enable=false it says nothing: the controller finds out. */
static void begin_drain(struct service *s)
{
    bool is_storage = s->options.role == KARST__BUS__ROLE__ROLE_STORAGE;

    s->draining = true;
    s->silently = is_storage && !config_bool(s->config, "controlled.shutdown.enable");
    s->leaving = s->joined && s->registered && is_storage && !s->silently;
    if (s->leaving)
        s->leave_timer = loop_timer_start(s->loop, LEAVE_MS, 0, service_left, s);
    if (s->joined)
        service_member_drain(s);
    if (!s->leaving)
        drain(s);
}

static void on_signal(void *ctx)
{
    struct service *s = ctx;

    if (s->draining) {
        log_warn("a second signal: ending at once");
        _exit(STATUS_FAILED);
    }
    begin_drain(s);
}

/* The last that the controller hears from us is that we go, so that nobody waits for our session to time out. */
void service_stop_when_told(struct service *s)
{
    if (s->drained && service_member_is_told(s))
        stop(s);
}

void service_drained(struct service *s)
{
    if (s->drained)
        return;
    s->drained = true;
    if (!s->stopping)
        s->stop_timer = loop_timer_start(s->loop, TELL_MS, 0, stop, s);
    service_stop_when_told(s);
}

void service_fail(struct service *s, int status)
{
    if (s->exit_status == 0)
        s->exit_status = status;
    if (!s->draining)
        begin_drain(s);
}

/* ---- open, run, close ---- */

static void on_alive(void *ctx)
{
    (void)ctx;
    (void)!write(STDIN_FILENO, "", 1); /* what nobody reads for long is not needed: the pipe is full of the same */
}

static void tell_alive(struct service *s)
{
    struct stat st;

    if (getenv("KARST_PARENT_PID") == NULL || fstat(STDIN_FILENO, &st) != 0 || !S_ISFIFO(st.st_mode) ||
        (fcntl(STDIN_FILENO, F_GETFL) & O_ACCMODE) != O_WRONLY ||
        fcntl(STDIN_FILENO, F_SETFL, O_WRONLY | O_NONBLOCK) != 0)
        return;
    s->alive_timer = loop_timer_start(s->loop, 0, SERVICE_ALIVE_MS, on_alive, s);
}

static int open_all(struct service *s, int argc, char **argv)
{
    const char *config_path;
    int failed = read_arguments(argc, argv, &config_path, &s->id);

    if (failed == 0)
        failed = tie_to_parent();
    if (failed == 0)
        failed = read_config(s, config_path);
    if (failed != 0)
        return failed;
    while (s->incarnation == 0)
        if (getrandom(&s->incarnation, sizeof s->incarnation, 0) != (ssize_t)sizeof s->incarnation)
            return STATUS_FAILED;
    if (gethostname(s->host, sizeof s->host - 1) != 0)
        snprintf(s->host, sizeof s->host, "localhost");
    signal(SIGPIPE, SIG_IGN);
    s->loop = loop_new();
    failed = open_bus(s);
    if (failed != 0)
        return failed;
    loop_signal(s->loop, SIGTERM, on_signal, s);
    loop_signal(s->loop, SIGINT, on_signal, s);
    tell_alive(s);
    return 0;
}

int service_open(int argc, char **argv, const struct service_options *options, struct service **ret_service)
{
    struct service *s = xcalloc(1, sizeof *s);

    base_tune_heap();
    s->options = *options;
    if (s->options.drain_ms == 0)
        s->options.drain_ms = DRAIN_MS;
    s->arena = arena_new(0);
    s->epoch = s->registered_offset = -1;
    s->led_by = s->silent = s->told_epoch = -1;
    s->looked_offset = -1;
    int status = open_all(s, argc, argv);
    if (status != 0) {
        service_close(s);
        return status;
    }
    *ret_service = s;
    return 0;
}

void service_set_ctx(struct service *s, void *ctx)
{
    s->options.ctx = ctx;
}

void service_join(struct service *s)
{
    ASSERT(!s->joined);
    s->joined = true;
    service_follow_start(s);
    service_member_start(s);
}

int service_run(struct service *s)
{
    loop_run(s->loop);
    bus_shutdown(s->bus); /* while what calls of the service point to is still there */
    return s->exit_status;
}

struct service *service_close(struct service *s)
{
    struct waiter *w, *next;

    if (s == NULL)
        return NULL;
    if (s->joined) {
        service_follow_stop(s);
        service_member_stop(s);
    }
    s->joined = false; /* what bus_free still ends is of no interest any more */
    s->bus = bus_free(s->bus);
    service_network_close(s);
    s->drain_timer = loop_timer_stop(s->drain_timer);
    s->leave_timer = loop_timer_stop(s->leave_timer);
    s->stop_timer = loop_timer_stop(s->stop_timer);
    s->alive_timer = loop_timer_stop(s->alive_timer);
    s->loop = loop_free(s->loop);
    DL_FOREACH_SAFE(s->waiters, w, next) free(w);
    s->image = image_release(s->image);
    s->config = config_free(s->config);
    s->arena = arena_free(s->arena);
    free(s);
    return NULL;
}

/* ---- what a service asks ---- */

struct loop *service_loop(struct service *s)
{
    return s->loop;
}

struct bus *service_bus(struct service *s)
{
    return s->bus;
}

const struct config *service_config(const struct service *s)
{
    return s->config;
}

const char *service_cluster_id(const struct service *s)
{
    return s->cluster_id;
}

const char *service_run_dir(const struct service *s)
{
    return s->run_dir;
}

int32_t service_id(const struct service *s)
{
    return s->id;
}

uint64_t service_incarnation(const struct service *s)
{
    return s->incarnation;
}

int64_t service_epoch(const struct service *s)
{
    return s->epoch;
}

bool service_is_ready(const struct service *s)
{
    return s->ready;
}

bool service_is_draining(const struct service *s)
{
    return s->draining;
}

int32_t service_controller(const struct service *s)
{
    return s->controllers[s->controller_at];
}

size_t service_controllers(const struct service *s, int32_t ret_ids[SERVICE_CONTROLLERS_MAX])
{
    memcpy(ret_ids, s->controllers, s->controller_count * sizeof s->controllers[0]);
    return s->controller_count;
}

void service_controller_failed(struct service *s, int32_t id)
{
    if (!s->controller_found && s->controllers[s->controller_at] == id)
        s->controller_at = (s->controller_at + 1) % s->controller_count;
}
