/* poll.h - loop_poll_* of libs/loop/loop.h over the simulated descriptors: sockets of clients (tcp.c), companions and
 * bells (kernel.c). Level-triggered; news of a descriptor may come late. */
#ifndef KARST_TESTS_SIM_POLL_H
#define KARST_TESTS_SIM_POLL_H

#include "tests/sim/machine.h"

/* What is true of fd now, of LOOP_READABLE and LOOP_WRITABLE. */
int tcp_ready(int fd);
int kernel_ready(int fd);

/* Something of fd has changed; who polls it hears so much later. */
void poll_poke(int fd, uint64_t delay_ms);
/* fd is closed: nobody hears of it any more. */
void poll_forget(int fd);

#endif
