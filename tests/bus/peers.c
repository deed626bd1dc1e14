#include "peers.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

struct shared *shared;
char address[64];
int32_t caller_id = 1;
bool share;
const char *served_tcp;
struct trust *served_trust, *calling_trust;

enum { HELD_MAX = 65536, LOOK_MS = 5 };

void peers_begin(void)
{
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(shared, MAP_FAILED);
    snprintf(address, sizeof address, "ipc:///tmp/test-bus-%d", (int)getpid());
    const char *shared_memory = getenv("KARST_TEST_SHARED");
    share = shared_memory == NULL || strcmp(shared_memory, "no") != 0;
}

void peers_end(void)
{
    static const char *const lanes[] = {"control", "bulk", "local"};

    for (size_t i = 0; i < COUNTOF(lanes); i++) {
        char path[128];
        snprintf(path, sizeof path, "%s.%s", address + 6, lanes[i]);
        unlink(path);
    }
}

bool arena_is_whole(struct slice bytes)
{
    for (size_t i = 4; i < bytes.size; i++)
        if (bytes.data[i] != bytes.data[0])
            return false;
    return true;
}

/* ---- the peer ---- */

enum { FILES = 1000 };

struct server {
    uint64_t life;
    struct ref_file *files[FILES];
    struct rpc *held[HELD_MAX];
    int held_count;
};

static struct ref_file *file_of(struct server *s, uint32_t number)
{
    static uint8_t bytes[FILE_POSITION + FILE_BYTES];

    if (s->files[number] != NULL)
        return s->files[number];
    int fd = memfd_create("file", MFD_CLOEXEC);
    memset(bytes, (int)number, sizeof bytes);
    if (write(fd, bytes, sizeof bytes) != sizeof bytes)
        _exit(4);
    s->files[number] = ref_file_new(fd, number);
    return s->files[number];
}

static void answer_with_file(struct server *s, struct rpc *r, const Karst__Bus__ReadRequest *read)
{
    Karst__Bus__ReadReply reply = KARST__BUS__READ_REPLY__INIT;
    struct ref_file *f = file_of(s, read->max_wait_ms % FILES);
    bool passed = rpc_share_file(r, f);
    struct ref part = passed ? ref_of_file(f, FILE_POSITION, FILE_BYTES) : REF_EMPTY;

    if (!passed) {
        void *bytes = xmalloc(FILE_BYTES);
        if (pread(f->fd, bytes, FILE_BYTES, FILE_POSITION) != FILE_BYTES)
            _exit(5);
        part = ref_take(bytes, FILE_BYTES);
    }
    rpc_reply(r, KARST__BUS__REPLY__BODY_READ, &reply, &part, 1, 0);
    ref_release(&part);
    if (read->min_bytes == 0)
        return;
    f->retired = true;
    s->files[read->max_wait_ms % FILES] = NULL;
    ref_owner_release(&f->owner);
}

static void check_arena(struct rpc *r)
{
    const struct ref *p = rpc_payload_count(r) > 0 ? rpc_payload(r, 0) : NULL;

    if (p == NULL || p->kind != REF_ARENA)
        return;
    __atomic_add_fetch(&shared->in_arena, 1, __ATOMIC_SEQ_CST);
    if (!arena_is_whole(p->bytes))
        __atomic_add_fetch(&shared->torn, 1, __ATOMIC_SEQ_CST);
}

static void answer(struct rpc *r)
{
    check_arena(r);
    struct ref echo[1];
    size_t count = MIN(rpc_payload_count(r), (size_t)1);

    if (count > 0)
        echo[0] = *rpc_payload(r, 0);
    if (rpc_call(r)->body_case == KARST__BUS__CALL__BODY_APPEND) {
        Karst__Bus__AppendReply reply = KARST__BUS__APPEND_REPLY__INIT;
        rpc_reply(r, KARST__BUS__REPLY__BODY_APPEND, &reply, echo, count, 0);
    } else {
        Karst__Bus__ReadReply reply = KARST__BUS__READ_REPLY__INIT;
        rpc_reply(r, KARST__BUS__REPLY__BODY_READ, &reply, echo, count, 0);
    }
}

static void on_call(void *ctx, struct rpc *r)
{
    struct server *s = ctx;
    const Karst__Bus__Call *call = rpc_call(r);
    uint32_t number =
        call->body_case == KARST__BUS__CALL__BODY_APPEND ? call->append->timeout_ms : call->read->max_bytes;

    if (number < CALLS)
        shared->executed[s->life][number]++;
    check_arena(r);
    if (call->body_case == KARST__BUS__CALL__BODY_READ && call->read->max_wait_ms > 0) {
        answer_with_file(s, r, call->read);
        return;
    }
    if (__atomic_load_n(&shared->hold, __ATOMIC_SEQ_CST) && s->held_count < HELD_MAX) {
        s->held[s->held_count++] = r;
        __atomic_store_n(&shared->held, s->held_count, __ATOMIC_SEQ_CST);
        if (s->held_count > shared->held_most)
            shared->held_most = s->held_count;
    } else {
        answer(r);
    }
}

static void on_look(void *ctx)
{
    struct server *s = ctx;

    if (__atomic_load_n(&shared->hold, __ATOMIC_SEQ_CST))
        return;
    for (int i = 0; i < s->held_count; i++)
        answer(s->held[i]);
    s->held_count = 0;
    __atomic_store_n(&shared->held, 0, __ATOMIC_SEQ_CST);
}

static void run_server(uint64_t incarnation, const struct serving *serving)
{
    static struct server s;
    struct loop *loop = loop_new();
    struct bus *bus;
    struct bus_options o = {.role = KARST__BUS__ROLE__ROLE_STORAGE,
                            .id = 1,
                            .incarnation = incarnation,
                            .cluster_id = serving->cluster_id,
                            .credit_calls = serving->credit_calls,
                            .address = address,
                            .tcp_address = served_tcp,
                            .trust = served_trust,
                            .unencrypted = served_trust == NULL,
                            .heartbeat_ms = HEARTBEAT_MS,
                            .share = share};

    s.life = incarnation;
    if (bus_new(loop, &o, &bus) != 0)
        _exit(3);
    bus_serve(bus, KARST__BUS__CALL__BODY_APPEND, on_call, &s);
    bus_serve(bus, KARST__BUS__CALL__BODY_READ, on_call, &s);
    struct loop_timer *t UNUSED = loop_timer_start(loop, LOOK_MS, LOOK_MS, on_look, &s);
    __atomic_store_n(&shared->listening[incarnation], 1, __ATOMIC_SEQ_CST);
    loop_run(loop);
    _exit(0);
}

pid_t serve(uint64_t incarnation, const struct serving *serving)
{
    static const struct serving usual = {.cluster_id = "clusterclusterclusterc"};
    pid_t pid = fork();

    cr_assert_geq(pid, 0);
    cr_assert_lt(incarnation, LIVES);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        run_server(incarnation, serving ? serving : &usual);
    }
    while (!__atomic_load_n(&shared->listening[incarnation], __ATOMIC_SEQ_CST) && waitpid(pid, NULL, WNOHANG) == 0)
        usleep(500);
    return pid;
}

void kill_peer(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

/* ---- the caller ---- */

struct caller *caller_new(const char *cluster_id)
{
    struct caller *c = xcalloc(1, sizeof *c);
    struct bus_options o = {.role = KARST__BUS__ROLE__ROLE_FRONTEND,
                            .id = caller_id,
                            .incarnation = 1 + (uint64_t)getpid(),
                            .cluster_id = cluster_id ? cluster_id : "clusterclusterclusterc",
                            .trust = calling_trust,
                            .unencrypted = calling_trust == NULL,
                            .heartbeat_ms = HEARTBEAT_MS,
                            .share = share};

    c->loop = loop_new();
    cr_assert_eq(bus_new(c->loop, &o, &c->bus), 0);
    return c;
}

struct caller *caller_free(struct caller *c)
{
    c->refill = false;
    c->bus = bus_free(c->bus);
    cr_assert_eq(c->ended, c->count, "%d calls, %d ended", c->count, c->ended);
    for (int i = 0; i < c->count; i++)
        cr_assert_eq(c->calls[i].ended, 1, "call %d ended %d times", i, c->calls[i].ended);
    c->loop = loop_free(c->loop);
    free(c);
    return NULL;
}

struct pending {
    struct caller *caller;
    int number;
    size_t payload_bytes;
};

static void on_done(void *ctx, const struct bus_result *result)
{
    struct pending *p = ctx;
    struct caller *c = p->caller;

    c->calls[p->number].ended++;
    c->calls[p->number].outcome = result->outcome;
    c->ended++;
    if (result->outcome == KARST__BUS__OUTCOME__OUTCOME_OK) {
        c->last_ok_ms = loop_now_ms(c->loop);
        cr_assert_eq(result->payload_count, p->payload_bytes > 0);
        size_t same = 0;
        while (same < p->payload_bytes && result->payloads[0].bytes.data[same] == (uint8_t)(p->number + (int)same))
            same++;
        cr_assert_eq(same, p->payload_bytes);
    }
    if (c->refill && c->count < CALLS)
        (void)call(c, KARST__BUS__CALL__BODY_APPEND, 5000, p->payload_bytes);
    free(p);
}

int call(struct caller *c, Karst__Bus__Call__BodyCase kind, uint32_t timeout_ms, size_t payload_bytes)
{
    Karst__Bus__AppendRequest append = KARST__BUS__APPEND_REQUEST__INIT;
    Karst__Bus__ReadRequest read = KARST__BUS__READ_REQUEST__INIT;
    struct pending *p = xcalloc(1, sizeof *p);
    uint8_t *bytes = xmalloc(payload_bytes);

    cr_assert_lt(c->count, CALLS);
    *p = (struct pending){c, c->count++, payload_bytes};
    for (size_t i = 0; i < payload_bytes; i++)
        bytes[i] = (uint8_t)(p->number + (int)i);
    struct ref payload = ref_take(bytes, payload_bytes);
    append.timeout_ms = read.max_bytes = (uint32_t)p->number;
    struct bus_request request = {.kind = kind,
                                  .body = kind == KARST__BUS__CALL__BODY_APPEND ? (const void *)&append : &read,
                                  .payloads = &payload,
                                  .payload_count = payload_bytes > 0,
                                  .timeout_ms = timeout_ms};
    c->calls[p->number].bus_id = bus_call(c->bus, KARST__BUS__ROLE__ROLE_STORAGE, 1, &request, on_done, p);
    ref_release(&payload);
    return p->number;
}

struct wait {
    struct caller *caller;
    condition *met;
    bool is_met, over;
};

static void on_look_again(void *ctx)
{
    struct wait *w = ctx;

    if (w->met != NULL && w->met(w->caller))
        w->is_met = true;
    if (w->is_met)
        loop_stop(w->caller->loop);
}

static void on_over(void *ctx)
{
    struct wait *w = ctx;

    w->over = true;
    loop_stop(w->caller->loop);
}

bool run_until(struct caller *c, condition *met, uint64_t ms)
{
    struct wait w = {.caller = c, .met = met};
    struct loop_timer *over = loop_timer_start(c->loop, ms, 0, on_over, &w);
    struct loop_timer *look = loop_timer_start(c->loop, 2, 2, on_look_again, &w);

    loop_hook(c->loop, LOOP_REPLY, on_look_again, &w);
    loop_run(c->loop);
    loop_unhook(c->loop, LOOP_REPLY, on_look_again, &w);
    loop_timer_stop(over);
    loop_timer_stop(look);
    return w.is_met;
}

void run_for(struct caller *c, uint64_t ms)
{
    (void)run_until(c, NULL, ms);
}

bool all_ended(struct caller *c)
{
    return c->ended == c->count;
}

size_t resident_bytes(pid_t pid)
{
    char path[64];
    size_t pages = 0;

    snprintf(path, sizeof path, "/proc/%d/statm", (int)pid);
    FILE *f = fopen(path, "r");
    cr_assert_not_null(f);
    cr_assert_eq(fscanf(f, "%*s %zu", &pages), 1);
    fclose(f);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

int executions(int call_number, uint64_t *ret_life)
{
    int n = 0;

    for (uint64_t life = 0; life < LIVES; life++) {
        n += shared->executed[life][call_number];
        if (shared->executed[life][call_number])
            *ret_life = life;
    }
    return n;
}
