/* kernel_internal.h - what kernel.c (descriptors, sockets, bells) and kernel_memory.c share. */
#ifndef KARST_TESTS_SIM_KERNEL_INTERNAL_H
#define KARST_TESTS_SIM_KERNEL_INTERNAL_H

#include <uthash.h>

#include "tests/sim/kernel.h"
#include "tests/sim/machine.h"

enum { KERNEL_FD_FIRST = 1 << 24 };

enum kfile_kind { KFILE_SOCKET, KFILE_LISTENER, KFILE_EVENT, KFILE_MEMORY };

struct message;
struct descriptor;

/* What a descriptor stands for; descriptors and messages under way have a count. */
struct kfile {
    enum kfile_kind kind;
    size_t count;
    struct descriptor *descriptors; /* those that stand for it */
    /* KFILE_SOCKET */
    struct kfile *peer; /* NULL: none, or closed */
    struct message *queue;
    bool ended, reset, shut; /* the peer sends no more; it closed unread; we send no more */
    /* KFILE_LISTENER */
    struct kfile **accepting;
    size_t accepting_count;
    /* KFILE_EVENT */
    uint64_t times;
    /* KFILE_MEMORY */
    int memory_fd; /* a real one */
    size_t size;
};

struct kfile *kernel_file_of(int fd);
struct kfile *kernel_file_new(enum kfile_kind kind);
void kernel_file_release(struct kfile *f);
int kernel_open(struct process *p, struct kfile *f);
struct process *kernel_enter(struct process **ret_before);

void kernel_memory_free(struct kfile *f);
void kernel_memory_forget(const struct process *p);

#endif
