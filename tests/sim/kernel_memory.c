/* kernel_memory.c - see kernel.h: memory that processes share, and whose blocks are whose. */
#include "tests/sim/kernel_internal.h"

#include "libs/bus/passing.h"
#include "libs/shm/shm_arena.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <utlist.h>

struct mapping {
    const struct process *process;
    struct kfile *file; /* with a count */
    void *data;
    size_t size;
    int protection;
    struct mapping *prev, *next;
};

/* A block of an arena that is in use. */
struct block {
    struct ref_owner *key;
    void (*free)(struct ref_owner *owner);
    const struct process *process;
    uint64_t since_ms;
    UT_hash_handle hh;
};

static struct mapping *mappings;
static struct block *blocks;

int __real_close(int fd);
int __real_memfd_create(const char *name, unsigned flags);
int __wrap_memfd_create(const char *name, unsigned flags);
int __real_ftruncate(int fd, off_t size);
int __wrap_ftruncate(int fd, off_t size);
int __real_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, ...);
int __real_fallocate(int fd, int mode, off_t offset, off_t size);
int __wrap_fallocate(int fd, int mode, off_t offset, off_t size);
void *__real_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset);
int __real_munmap(void *at, size_t size);
int __wrap_munmap(void *at, size_t size);

/* ---- memory ---- */

int __wrap_memfd_create(const char *name, unsigned flags)
{
    struct process *p = process_current(), *before = process_enter(NULL);
    struct kfile *f = kernel_file_new(KFILE_MEMORY);
    f->memory_fd = __real_memfd_create(name, flags);
    if (f->memory_fd < 0)
        BUG("no memory to share");
    int fd = kernel_open(p, f);
    process_leave(before);
    return fd;
}

void kernel_memory_free(struct kfile *f)
{
    __real_close(f->memory_fd);
}

int __wrap_ftruncate(int fd, off_t size)
{
    if (!kernel_is_fd(fd))
        return __real_ftruncate(fd, size);
    kernel_file_of(fd)->size = (size_t)size;
    return __real_ftruncate(kernel_file_of(fd)->memory_fd, size);
}

/* F_SETFL of bells, and seals, which nobody breaks here. */
int __wrap_fcntl(int fd, int command, ...)
{
    va_list arguments;
    va_start(arguments, command);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    return kernel_is_fd(fd) ? 0 : __real_fcntl(fd, command, argument);
}

int __wrap_fallocate(int fd, int mode, off_t offset, off_t size)
{
    if (!kernel_is_fd(fd))
        return __real_fallocate(fd, mode, offset, size);
    struct process *before, *p = kernel_enter(&before);
    int failed = p ? __real_fallocate(kernel_file_of(fd)->memory_fd, mode, offset, size) : 0;
    process_leave(before);
    return failed;
}

int passing_memory_new(const char *name, size_t size)
{
    int fd = __wrap_memfd_create(name, MFD_CLOEXEC);
    return __wrap_ftruncate(fd, (off_t)size) == 0 ? fd : -errno;
}

bool passing_is_memory(int fd, size_t size)
{
    return kernel_is_fd(fd) && kernel_file_of(fd)->kind == KFILE_MEMORY && kernel_file_of(fd)->size >= size;
}

/* ---- mappings ---- */

void *__wrap_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
    if (!kernel_is_fd(fd))
        return __real_mmap(at, size, protection, flags, fd, offset);
    struct process *p = process_current(), *before = process_enter(NULL);
    struct kfile *f = kernel_file_of(fd);
    struct mapping *m = xcalloc(1, sizeof *m);
    if (process_is_ghost(p))
        flags = MAP_PRIVATE | MAP_NORESERVE;
    *m = (struct mapping){.process = p, .file = f, .size = size, .protection = protection};
    m->data = __real_mmap(at, size, protection, flags, f->memory_fd, offset);
    if (m->data == MAP_FAILED)
        BUG("no address space for memory that is shared");
    f->count++;
    DL_APPEND(mappings, m);
    process_leave(before);
    return m->data;
}

static void unmap(struct mapping *m)
{
    __real_munmap(m->data, m->size);
    DL_DELETE(mappings, m);
    kernel_file_release(m->file);
    free(m);
}

int __wrap_munmap(void *at, size_t size)
{
    struct mapping *m;
    DL_FOREACH (mappings, m)
        if (m->data == at)
            break;
    if (m == NULL)
        return __real_munmap(at, size);
    struct process *before = process_enter(NULL);
    unmap(m);
    process_leave(before);
    return 0;
}

void kernel_detach(const struct process *p)
{
    struct mapping *m;
    DL_FOREACH (mappings, m)
        if (m->process == p && __real_mmap(m->data, m->size, m->protection, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE,
                                           m->file->memory_fd, 0) == MAP_FAILED)
            BUG("memory cannot be detached");
}

void kernel_memory_forget(const struct process *p)
{
    struct mapping *m, *next;
    struct block *b, *next_block;
    HASH_ITER (hh, blocks, b, next_block) {
        if (b->process != p)
            continue;
        HASH_DEL(blocks, b);
        free(b);
    }
    DL_FOREACH_SAFE(mappings, m, next)
    {
        if (m->process == p)
            unmap(m);
    }
}

/* ---- blocks of arenas ---- */

struct shm_block *__real_shm_arena_alloc(struct shm_arena *a, size_t size);
struct shm_block *__wrap_shm_arena_alloc(struct shm_arena *a, size_t size);

enum { GIVEN_BACK = 0xdb, NEW = 0xda };

static void give_back(struct ref_owner *owner)
{
    struct shm_block *block = CONTAINER_OF(owner, struct shm_block, owner);
    struct process *before = process_enter(NULL);
    struct block *b;
    HASH_FIND_PTR(blocks, &owner, b);
    ASSERT(b != NULL);
    memset(block->data, GIVEN_BACK, block->capacity);
    void (*real)(struct ref_owner *) = b->free;
    HASH_DEL(blocks, b);
    free(b);
    process_leave(before);
    real(owner);
}

struct shm_block *__wrap_shm_arena_alloc(struct shm_arena *a, size_t size)
{
    struct shm_block *block = __real_shm_arena_alloc(a, size);
    if (block == NULL) {
        sim_fault("an arena had no room");
        return NULL;
    }
    struct process *p = process_current(), *before = process_enter(NULL);
    struct block *b = xcalloc(1, sizeof *b);
    *b = (struct block){.key = &block->owner, .free = block->owner.free, .process = p};
    b->since_ms = sim_now_ms(machine_sim(process_machine(p)));
    HASH_ADD_PTR(blocks, key, b);
    block->owner.free = give_back;
    memset(block->data, NEW, block->capacity);
    process_leave(before);
    return block;
}

size_t kernel_blocks(struct process *p, uint64_t *ret_oldest_ms)
{
    struct block *b, *next;
    size_t count = 0;
    uint64_t now = sim_now_ms(machine_sim(process_machine(p))), since = now;
    HASH_ITER (hh, blocks, b, next) {
        if (b->process != p)
            continue;
        count++;
        since = MIN(since, b->since_ms);
    }
    *ret_oldest_ms = now - since;
    return count;
}
