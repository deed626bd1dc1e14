/* local_files.c - what travels beside the bytes of a local connection: the caller's arena, which the served end reads
 * where it lies, and files of the served end, by descriptor. Both only where the caller has lent an arena: a process
 * without one expects bytes.
 *
 * A file is passed once. The served end keeps at most LOCAL_FILES_MAX of them passed; the one used longest ago makes
 * room, and a file that its maker has retired leaves at the next heartbeat. The peer is told at the end of a turn, with
 * the position in the ring behind which no message names it, so that what is still on its way stays readable. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utlist.h>

#include "libs/base/log.h"
#include "libs/bus/local.h"
#include "libs/bus/passing.h"

enum {
    SPARE = 32,                /* of LOCAL_FILES_MAX: as many new files in one turn find room */
    NO_DESCRIPTORS_MS = 10000, /* that long nothing is shared after we ran out of them */
};

/* Of address space that a peer may make us map. */
#define ARENA_BYTES_MAX (UINT64_C(1) << 36)

bool local_shares(void *bus, uint64_t conn)
{
    const struct local *l = local_find(bus, conn);

    return l != NULL && l->shares;
}

/* ---- the arena ---- */

static void free_view(struct ref_owner *o)
{
    struct local_view *v = CONTAINER_OF(o, struct local_view, owner);
    union { /* munmap's argument is not const */
        const uint8_t *in;
        void *out;
    } data = {.in = v->data};

    munmap(data.out, v->size);
    if (v->companion >= 0)
        close(v->companion); /* after the mapping: the peer may write there again now */
    free(v);
}

int local_view_new(struct local *l, int fd, const struct local_hello *h)
{
    void *data = MAP_FAILED;
    int failed = -EBADMSG;

    if (h->arena_size > 0 && h->arena_size <= ARENA_BYTES_MAX && passing_is_memory(fd, h->arena_size)) {
        data = mmap(NULL, h->arena_size, PROT_READ, MAP_SHARED, fd, 0);
        failed = -errno;
    }
    close(fd);
    if (data == MAP_FAILED)
        return failed;
    struct local_view *v = xcalloc(1, sizeof *v);
    ref_owner_init(&v->owner, free_view);
    v->data = data;
    v->size = h->arena_size;
    v->id = h->arena_id;
    v->companion = -1;
    l->view = v;
    l->shares = true;
    return 0;
}

bool local_view_leave(struct local *l)
{
    struct local_view *v = TAKE_PTR(l->view);
    struct local_note ended = {.kind = LOCAL_NOTE_ENDED};
    bool is_read = __atomic_load_n(&v->owner.count, __ATOMIC_ACQUIRE) > 1;

    if (is_read) {
        if (!l->hung_up) /* if it cannot be told, the silence on the link will */
            (void)!passing_send(l->companion, &ended, sizeof ended, NULL, 0);
        v->companion = l->companion;
    }
    ref_owner_release(&v->owner);
    return is_read;
}

static int resolve_arena(struct local *l, const Karst__Bus__Payload *p, struct ref *ret_ref)
{
    const struct local_view *v = l->view;
    uint64_t at = p->arena->offset, size = p->size_bytes;

    if (v == NULL || p->arena->arena != v->id || at > v->size || size > v->size - at)
        return -EBADMSG;
    *ret_ref = (struct ref){.kind = REF_ARENA,
                            .owner = &l->view->owner,
                            .bytes = {v->data + at, size},
                            .instance = v->id,
                            .position = at,
                            .size_bytes = size};
    ref_retain(ret_ref);
    return 0;
}

/* ---- files, at both ends ---- */

static struct local_file *find_file(struct local *l, uint64_t instance)
{
    struct local_file *f;

    HASH_FIND(hh, l->files, &instance, sizeof instance, f);
    return f;
}

/* Takes over a count of file. */
static void add_file(struct local *l, uint64_t instance, struct ref_file *file)
{
    struct local_file *f = xcalloc(1, sizeof *f);

    f->instance = instance;
    f->file = file;
    HASH_ADD(hh, l->files, instance, sizeof f->instance, f);
    DL_APPEND(l->files_by_use, f);
}

static void remove_file(struct local *l, struct local_file *f)
{
    HASH_DELETE(hh, l->files, f);
    DL_DELETE(l->files_by_use, f);
    ref_owner_release(&f->file->owner);
    free(f);
}

void local_files_clear(struct local *l)
{
    while (l->files_by_use != NULL)
        remove_file(l, l->files_by_use);
}

/* ---- files, at the served end ---- */

static void let_go(struct local *l, struct local_file *f)
{
    f->leaving = true;
    l->files_leave = true;
}

/* Whether there is room for one more now. When it becomes scarce, the one used longest ago makes room for a later one.
 */
static bool make_room(struct local *l)
{
    struct local_file *f;

    if (HASH_COUNT(l->files) >= LOCAL_FILES_MAX - SPARE) {
        DL_FOREACH (l->files_by_use, f) {
            if (!f->leaving) {
                let_go(l, f);
                break;
            }
        }
    }
    return HASH_COUNT(l->files) < LOCAL_FILES_MAX;
}

bool local_pass_file(void *bus, uint64_t conn, struct ref_file *file)
{
    struct local *l = local_find(bus, conn);
    struct local_note note = {.kind = LOCAL_NOTE_FILE, .instance = file->instance};

    if (l == NULL || l->state != LOCAL_OPEN || !l->shares)
        return false;
    struct local_file *f = find_file(l, file->instance);
    if (f != NULL) {
        f->leaving = false; /* it is used again before it has left */
        DL_DELETE(l->files_by_use, f);
        DL_APPEND(l->files_by_use, f);
        return true;
    }
    if (!make_room(l) || passing_send(l->companion, &note, sizeof note, &file->fd, 1) < 0)
        return false;
    ref_owner_retain(&file->owner);
    add_file(l, file->instance, file);
    return true;
}

void local_files_retire(struct local *l)
{
    struct local_file *f;

    DL_FOREACH (l->files_by_use, f)
        if (f->file->retired && !f->leaving)
            let_go(l, f);
}

/* Every message of this turn has its place in the ring by now. */
void local_files_leave(struct local *l)
{
    struct local_file *f, *next;

    l->files_leave = false;
    DL_FOREACH_SAFE(l->files_by_use, f, next)
    {
        struct local_note note = {.kind = LOCAL_NOTE_DROP, .instance = f->instance, .position = l->out.position};
        if (!f->leaving)
            continue;
        if (passing_send(l->companion, &note, sizeof note, NULL, 0) == 0)
            remove_file(l, f);
        else
            f->leaving = false; /* the peer reads nothing now: another time */
    }
}

/* ---- files, at the caller ---- */

static const char *on_file(struct local *l, const struct local_note *note, int fd)
{
    struct local_file *f = find_file(l, note->instance);
    struct stat st;

    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || note->instance == 0 ||
        (f == NULL && HASH_COUNT(l->files) >= 2 * LOCAL_FILES_MAX)) {
        close(fd);
        return "the peer passed what is no file, or too many";
    }
    if (f != NULL) { /* dropped, and passed again before its last message was read */
        f->leaving = false;
        close(fd);
    } else {
        add_file(l, note->instance, ref_file_new(fd, note->instance));
    }
    return NULL;
}

static const char *on_drop(struct local *l, const struct local_note *note)
{
    struct local_file *f = find_file(l, note->instance);

    if (f == NULL)
        return "the peer dropped a file that it never passed";
    f->leaving = true;
    f->drop_at = note->position;
    l->files_leave = true;
    return NULL;
}

static const char *on_note(struct local *l, const struct local_note *note, const int *fds, size_t fd_count)
{
    bool is_caller = !(l->conn & LINK_CONN_SERVED);

    if (is_caller && note->kind == LOCAL_NOTE_FILE && fd_count == 1)
        return on_file(l, note, fds[0]);
    passing_close(fds, fd_count);
    if (is_caller && note->kind == LOCAL_NOTE_DROP && fd_count == 0)
        return on_drop(l, note);
    if (is_caller && note->kind == LOCAL_NOTE_ENDED && fd_count == 0) {
        l->ended = true;
        return NULL;
    }
    return "the peer's companion said what nobody understands";
}

void local_read_notes(struct local *l)
{
    while (!l->hung_up) {
        struct local_note note;
        int fds[PASSING_FDS];
        size_t fd_count = 0;
        ssize_t n = passing_receive(l->companion, &note, sizeof note, fds, &fd_count);
        if (n == -EAGAIN)
            break;
        if (n == -EMFILE) {
            l->wrong = "no descriptors are left for the files of the peer";
            l->bus->locals->share_again_ms = loop_now_ms(l->bus->loop) + NO_DESCRIPTORS_MS;
        } else if (n == -EBADMSG) {
            l->wrong = "the peer's companion said what nobody understands";
        } else if (n == 0 || n == -ECONNRESET) {
            l->hung_up = true;
        } else if (n < 0) {
            l->wrong = "its companion cannot be read";
            break;
        } else if (n != (ssize_t)sizeof note) {
            passing_close(fds, fd_count);
            l->wrong = "the peer's companion said what nobody understands";
        } else {
            const char *wrong = on_note(l, &note, fds, fd_count);
            l->wrong = wrong ? wrong : l->wrong;
        }
    }
}

void local_files_dropped(struct local *l)
{
    struct local_file *f, *next;
    bool some = false;

    if (!l->files_leave || (l->conn & LINK_CONN_SERVED))
        return;
    DL_FOREACH_SAFE(l->files_by_use, f, next)
    {
        if (f->leaving && l->reader.head >= f->drop_at)
            remove_file(l, f);
        else
            some |= f->leaving;
    }
    l->files_leave = some;
}

static int resolve_file(struct local *l, const Karst__Bus__Payload *p, struct ref *ret_ref)
{
    struct local_file *f = find_file(l, p->file->instance);

    if (f == NULL) { /* its descriptor was sent before the message; we have not looked there yet */
        local_read_notes(l);
        f = find_file(l, p->file->instance);
    }
    if (f == NULL || p->file->position > INT64_MAX || p->size_bytes > INT64_MAX - p->file->position)
        return -EBADMSG;
    *ret_ref = ref_of_file(f->file, p->file->position, p->size_bytes);
    return 0;
}

int local_resolve(void *bus, uint64_t conn, const Karst__Bus__Payload *p, struct ref *ret_ref)
{
    struct local *l = local_find(bus, conn);
    bool is_served = conn & LINK_CONN_SERVED;

    if (l == NULL || l->state != LOCAL_OPEN || !l->shares)
        return -EBADMSG;
    if (p->reference_case == KARST__BUS__PAYLOAD__REFERENCE_ARENA && is_served)
        return resolve_arena(l, p, ret_ref);
    if (p->reference_case == KARST__BUS__PAYLOAD__REFERENCE_FILE && !is_served)
        return resolve_file(l, p, ret_ref);
    return -EBADMSG;
}
