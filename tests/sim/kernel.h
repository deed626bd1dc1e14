/* kernel.h - what one machine's kernel keeps for libs/bus/local*.c and libs/shm: unix sockets that carry descriptors
 * (libs/bus/passing.h is implemented here), eventfds, memory of memfd_create and its mappings. The system calls
 * themselves come here by --wrap (CMakeLists.txt); descriptors that are not the simulator's go on to the real ones.
 *
 * As in Linux: what is sent on a socket is with the peer at once, and stays readable when the sender has closed or
 * died; a peer that closes with something unread resets; descriptors under way live as long as the message. A process
 * that dies closes everything; one that stands still closes nothing. News of a descriptor come late (poll.h).
 *
 * A process that is to die goes on as a ghost: its system calls change nothing, and its mappings become copies.
 *
 * A block of an arena that is given back is filled with garbage at once: who still reads it reads that.
 * Threading: one. */
#ifndef KARST_TESTS_SIM_KERNEL_H
#define KARST_TESTS_SIM_KERNEL_H

#include "libs/base/base.h"

struct machine;
struct process;

struct kernel_faults {
    uint64_t late;   /* per thousand news of a descriptor */
    uint64_t refuse; /* per thousand connections, and messages with descriptors */
};
void kernel_set_faults(const struct kernel_faults *faults);

bool kernel_is_fd(int fd);
void kernel_detach(const struct process *p); /* what p writes from here on is seen by nobody */
void kernel_forget(const struct process *p); /* p is gone */
void kernel_free(void);                      /* every process is gone: names of sockets as well */

size_t kernel_descriptors(const struct process *p);
/* Blocks of p's arena that are not given back, and how long the oldest has been out. */
size_t kernel_blocks(struct process *p, uint64_t *ret_oldest_ms);

/* tcp.c */
bool tcp_is_fd(int fd);
int tcp_close_fd(int fd);

#endif
