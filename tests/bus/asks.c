#include "asks.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "libs/bus/passing.h"

static struct slice_state {
    struct ref_owner owner;
    bool used;
} slices[SLICES];
static uint8_t *arena;
static int arena_fd;

void asks_begin(void)
{
    peers_begin();
    share = true;
    arena_fd = passing_memory_new("test-arena", ARENA_BYTES);
    cr_assert_geq(arena_fd, 0);
    arena = mmap(NULL, ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, arena_fd, 0);
    cr_assert_neq(arena, MAP_FAILED);
}

void meet(struct caller *c)
{
    bus_set_peer(c->bus, KARST__BUS__ROLE__ROLE_STORAGE, 1, 0, address);
}

struct caller *caller_with_arena(void)
{
    struct caller *c = caller_new(NULL);

    bus_set_arena(c->bus, arena_fd, 77, ARENA_BYTES);
    meet(c);
    return c;
}

size_t open_fds(pid_t pid)
{
    char path[64];
    size_t n = 0;

    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *d = opendir(path);
    cr_assert_not_null(d);
    while (readdir(d) != NULL)
        n++;
    closedir(d);
    return n;
}

/* ---- calls with references ---- */

static void free_slice(struct ref_owner *o)
{
    struct slice_state *s = CONTAINER_OF(o, struct slice_state, owner);

    uint8_t *p = arena + (s - slices) * SLICE_BYTES;
    for (size_t i = 0; i < SLICE_BYTES; i++)
        p[i] = (uint8_t)i; /* who still reads it sees that it is torn */
    s->used = false;
}

int slices_used(void)
{
    int n = 0;

    for (int i = 0; i < SLICES; i++)
        n += slices[i].used;
    return n;
}

static void on_asked(void *ctx, const struct bus_result *result)
{
    struct ask *a = ctx;

    a->ended++;
    a->caller->ended++;
    a->outcome = result->outcome;
    if (result->outcome != IS(OK) || a->number == 0)
        return;
    cr_assert_eq(result->payload_count, 1);
    const struct ref *r = &result->payloads[0];
    uint8_t bytes[FILE_BYTES];
    a->in_file = r->kind == REF_FILE;
    if (a->in_file)
        cr_assert_eq(pread(ref_fd(r), bytes, FILE_BYTES, (off_t)r->position), FILE_BYTES);
    else
        memcpy(bytes, ref_bytes(r).data, FILE_BYTES);
    for (size_t i = 0; i < FILE_BYTES; i++)
        cr_assert_eq(bytes[i], (uint8_t)a->number);
}

static void begin_ask(struct caller *c, struct ask *a)
{
    *a = (struct ask){.caller = c};
    c->calls[c->count++].ended = 1; /* counted here, not by peers.c */
}

/* An Append of a slice; false: all are in use. */
bool append_slice(struct caller *c, struct ask *a, uint32_t timeout_ms)
{
    Karst__Bus__AppendRequest append = KARST__BUS__APPEND_REQUEST__INIT;
    size_t i = 0;

    while (i < SLICES && slices[i].used)
        i++;
    if (i == SLICES)
        return false;
    begin_ask(c, a);
    slices[i].used = true;
    ref_owner_init(&slices[i].owner, free_slice);
    uint8_t *p = arena + i * SLICE_BYTES;
    memset(p, c->count, SLICE_BYTES);
    struct ref r = {.kind = REF_ARENA,
                    .owner = &slices[i].owner,
                    .bytes = {p, SLICE_BYTES},
                    .instance = 77,
                    .position = i * SLICE_BYTES,
                    .size_bytes = SLICE_BYTES};
    append.timeout_ms = CALLS;
    struct bus_request request = {
        .kind = APPEND, .body = &append, .payloads = &r, .payload_count = 1, .timeout_ms = timeout_ms};
    bus_call(c->bus, KARST__BUS__ROLE__ROLE_STORAGE, 1, &request, on_asked, a);
    ref_release(&r);
    return true;
}

void read_file(struct caller *c, struct ask *a, uint32_t number, bool retire)
{
    Karst__Bus__ReadRequest read = KARST__BUS__READ_REQUEST__INIT;
    struct bus_request request = {.kind = READ, .body = &read, .timeout_ms = 10000};

    begin_ask(c, a);
    a->number = number;
    read.max_bytes = CALLS;
    read.max_wait_ms = number;
    read.min_bytes = retire;
    bus_call(c->bus, KARST__BUS__ROLE__ROLE_STORAGE, 1, &request, on_asked, a);
}

size_t fds_before;
pid_t watched;
bool fds_are_back(struct caller *c)
{
    (void)c;
    return open_fds(watched) <= fds_before;
}

size_t own_fds;
bool own_fds_are_back(struct caller *c)
{
    (void)c;
    return open_fds(getpid()) <= own_fds;
}
