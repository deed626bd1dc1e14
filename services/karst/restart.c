/* restart.c - `karst restart`: one process after the other is replaced, by the program in another folder where that is
 * said, and waited for: until it serves, and a storage node until it is in sync again wherever it has a replica. So at
 * no time is more than one away, and what was acknowledged is held by as many as before when the next one goes.
 *
 * Controllers first, the one that leads last of them; then storage nodes, coordinators, front ends. */
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "kafka/metadata.h"
#include "libs/base/buf.h"
#include "libs/base/bytes.h"
#include "services/karst/karst.h"

enum {
    RESTART_WAIT_MS = 600000,
    SYNC_WAIT_MS = 600000,
    LOOK_MS = 100,
    ANSWER_S = 10,
    ANSWER_BYTES_MAX = 256 << 20,
    METADATA = 3, /* the API, in a version before the flexible ones */
    METADATA_VERSION = 8,
};

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static int fail(const char *label, const char *why)
{
    fprintf(stderr, "karst: %s: %s\n", label, why);
    return STATUS_FAILED;
}

/* ---- the supervisor ---- */

/* A socket, or -errno. */
static int open_control(const char *run_dir)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int n = snprintf(to.sun_path, sizeof to.sun_path, "%s/" CONTROL_SOCKET, run_dir);
    int fd = n < 0 || (size_t)n >= sizeof to.sun_path ? -1 : socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof to) == 0)
        return fd;
    int r = -errno;
    if (fd >= 0)
        close(fd);
    return r;
}

/* Its one line in ret_line, without the end, or -errno. */
static int ask_control(int fd, const char *request, char *ret_line, size_t size)
{
    uint64_t until = now_ms() + RESTART_WAIT_MS;
    size_t have = 0;
    if (send(fd, request, strlen(request), MSG_NOSIGNAL) != (ssize_t)strlen(request))
        return -EIO;
    while (have < size - 1 && (have == 0 || ret_line[have - 1] != '\n')) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        uint64_t now = now_ms();
        int ready = now < until ? poll(&p, 1, (int)(until - now)) : 0;
        ssize_t n = ready > 0 ? recv(fd, ret_line + have, size - 1 - have, 0) : 0;
        if (ready <= 0 || n <= 0)
            return ready == 0 ? -ETIMEDOUT : n == 0 ? -ECONNRESET : -errno;
        have += (size_t)n;
    }
    ret_line[have - 1] = 0;
    return 0;
}

static int restart_process(const char *run_dir, const struct state_process *p, const char *label, const char *bin)
{
    char line[8192];
    int fd = open_control(run_dir);
    if (fd < 0)
        return fail(label, strerror(-fd));
    char *request = xasprintf("restart %s %d %s\n", p->role, p->id, bin);
    int r = ask_control(fd, request, line, sizeof line);
    free(request);
    close(fd);
    if (r == -ETIMEDOUT)
        return fail(label, "it does not serve yet; its log says more");
    if (r != 0)
        return fail(label, strerror(-r));
    return strcmp(line, "ok") == 0 ? 0 : fail(label, line);
}

/* ---- in sync again ---- */

static bool receive(int fd, uint8_t *to, size_t size)
{
    for (size_t have = 0; have < size;) {
        ssize_t n = recv(fd, to + have, size - have, 0);
        if (n <= 0)
            return false;
        have += (size_t)n;
    }
    return true;
}

static int connect_to(const char *endpoint)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    const struct timeval patience = {.tv_sec = ANSWER_S};
    struct addrinfo *found = NULL;
    char host[256], service[8];
    uint16_t port;
    int fd = -1;
    if (config_endpoint(endpoint, host, &port) != 0)
        return -1;
    snprintf(service, sizeof service, "%u", port);
    if (getaddrinfo(host, service, &hints, &found) != 0)
        return -1;
    for (const struct addrinfo *a = found; a != NULL && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
        if (fd >= 0 && (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) != 0 ||
                        connect(fd, a->ai_addr, a->ai_addrlen) != 0)) {
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(found);
    return fd;
}

static void build_request(struct buf *b)
{
    struct kafka_metadata_request m;
    uint8_t head[14] = {0};
    kafka_metadata_request_init(&m);
    m.topics_count = -1; /* all */
    m.allow_auto_topic_creation = false;
    put_u16(head + 4, METADATA);
    put_u16(head + 6, METADATA_VERSION);
    put_u16(head + 12, UINT16_MAX); /* no client id */
    buf_append(b, head, sizeof head);
    if (wire_encode(&kafka_metadata_request_type, METADATA_VERSION, &m, b) != 0)
        BUG("a Metadata request cannot be encoded");
    put_u32(b->data, (uint32_t)(b->size - 4));
}

/* All topics, as one front end knows them. */
static bool ask_metadata(const char *endpoint, struct arena *arena, struct kafka_metadata_response *ret)
{
    struct buf request CLEANUP(buf_free) = {0};
    uint8_t head[8];
    int fd = connect_to(endpoint);
    bool good = false;
    if (fd < 0)
        return false;
    build_request(&request);
    if (send(fd, request.data, request.size, MSG_NOSIGNAL) == (ssize_t)request.size && receive(fd, head, sizeof head)) {
        uint32_t size = get_u32(head);
        uint8_t *body = size >= 4 && size <= ANSWER_BYTES_MAX ? arena_try_alloc(arena, size) : NULL;
        good = body != NULL && receive(fd, body, size - 4) &&
               wire_decode(&kafka_metadata_response_type, METADATA_VERSION, slice_make(body, size - 4), arena, ret,
                           NULL) == 0;
    }
    close(fd);
    return good;
}

static bool names(const int32_t *ids, int32_t count, int32_t id)
{
    for (int32_t i = 0; i < count; i++)
        if (ids[i] == id)
            return true;
    return false;
}

/* Of how many partitions it has a replica that is not in sync, those on a disk that failed left out; -1: it is not
 * there yet. */
static int count_behind(const struct kafka_metadata_response *m, int32_t node)
{
    int behind = 0;
    bool there = false;
    for (int32_t i = 0; i < m->brokers_count; i++)
        there = there || m->brokers[i].node_id == node;
    for (int32_t t = 0; t < m->topics_count; t++)
        for (int32_t i = 0; i < m->topics[t].partitions_count; i++) {
            const struct kafka_metadata_response_metadata_response_partition *p = &m->topics[t].partitions[i];
            behind += names(p->replica_nodes, p->replica_nodes_count, node) &&
                      !names(p->isr_nodes, p->isr_nodes_count, node) &&
                      !names(p->offline_replicas, p->offline_replicas_count, node);
        }
    return there ? behind : -1;
}

/* -1: no front end says that it is there. */
static int look(const struct state *s, int32_t node)
{
    int behind = -1;
    for (size_t i = 0; i < s->count && behind < 0; i++) {
        struct arena *arena = arena_new(0);
        struct kafka_metadata_response m;
        if (strcmp(s->processes[i].role, "frontend") == 0 && ask_metadata(s->processes[i].endpoint, arena, &m))
            behind = count_behind(&m, node);
        arena_free(arena);
    }
    return behind;
}

static bool has_frontend(const struct state *s)
{
    for (size_t i = 0; i < s->count; i++)
        if (strcmp(s->processes[i].role, "frontend") == 0)
            return true;
    return false;
}

static int wait_in_sync(const struct state *s, const struct state_process *p, const char *label)
{
    if (!has_frontend(s)) {
        printf("%s: no front end runs here that would know when it is in sync again\n", label);
        return 0;
    }
    uint64_t until = now_ms() + SYNC_WAIT_MS;
    const struct timespec pause = {.tv_nsec = LOOK_MS * 1000000L};
    int behind;
    while ((behind = look(s, p->id)) != 0 && now_ms() < until)
        nanosleep(&pause, NULL);
    if (behind == 0)
        return 0;
    char *why = behind < 0 ? xstrdup("it runs, and clients are not told of it yet")
                           : xasprintf("it runs, and %d of its replicas are not in sync yet", behind);
    int status = fail(label, why);
    free(why);
    return status;
}

/* ---- which, and in which order ---- */

static bool leads_quorum(const char *run_dir, const struct state_process *p)
{
    char *path = xasprintf("%s/controller-%d.quorum", run_dir, p->id), role[32] = "";
    FILE *f = strcmp(p->role, "controller") == 0 ? fopen(path, "re") : NULL;
    bool leads = f != NULL && fscanf(f, "%31s", role) == 1 && strcmp(role, "leader") == 0;
    if (f != NULL)
        fclose(f);
    free(path);
    return leads;
}

static int one(const struct state *s, const char *run_dir, const struct state_process *p, const char *bin)
{
    char label[32];
    uint64_t started = now_ms();
    snprintf(label, sizeof label, "%s-%d", p->role, p->id);
    int status = restart_process(run_dir, p, label, bin);
    if (status == 0 && strcmp(p->role, "storage") == 0)
        status = wait_in_sync(s, p, label);
    if (status != 0)
        return status;
    uint64_t took = now_ms() - started;
    printf("%s serves again after %llu.%03llu s\n", label, (unsigned long long)took / 1000,
           (unsigned long long)took % 1000);
    fflush(stdout);
    return 0;
}

static int all(const struct state *s, const char *run_dir, const char *bin)
{
    static const char *const roles[] = {"controller", "controller", "storage", "group", "txn", "frontend"};
    bool leads[STATE_PROCESSES_MAX]; /* as it is before the first is restarted: then another leads */
    int status = 0;
    for (size_t i = 0; i < s->count; i++)
        leads[i] = leads_quorum(run_dir, &s->processes[i]);
    for (size_t r = 0; r < COUNTOF(roles); r++)
        for (size_t i = 0; i < s->count && status == 0; i++)
            if (strcmp(s->processes[i].role, roles[r]) == 0 && (r > 1 || leads[i] == (r == 1)))
                status = one(s, run_dir, &s->processes[i], bin);
    return status;
}

/* "storage-2"; "storage" where there is but one. NULL: none of that name. */
static const struct state_process *named(const struct state *s, const char *name)
{
    const struct state_process *found = NULL;
    char label[32];
    for (size_t i = 0; i < s->count; i++) {
        const struct state_process *p = &s->processes[i];
        snprintf(label, sizeof label, "%s-%d", p->role, p->id);
        if (strcmp(label, name) == 0)
            return p;
        if (strcmp(p->role, name) != 0)
            continue;
        if (found != NULL)
            return NULL;
        found = p;
    }
    return found;
}

int restart_main(const char *data, const char *process, const char *bin)
{
    struct state s;
    char *run_dir = NULL, *folder = bin ? realpath(bin, NULL) : xstrdup("");
    int r = state_find(data, &s, &run_dir), status;
    const struct state_process *p = r == 0 && process ? named(&s, process) : NULL;
    if (r == -ENOENT) {
        fprintf(stderr, "karst: nothing runs on %s\n", data);
        status = STATUS_NOT_RUNNING;
    } else if (r != 0) {
        status = fail(data, strerror(-r));
    } else if (folder == NULL) {
        status = fail(bin, "there is no such folder");
    } else if (process != NULL && p == NULL) {
        status = fail(process, "there is no such process, or several: karst status shows ROLE and ID, for ROLE-ID");
    } else {
        status = p ? one(&s, run_dir, p, folder) : all(&s, run_dir, folder);
    }
    free(folder);
    free(run_dir);
    return status;
}
