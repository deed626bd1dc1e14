/* tcp.h - simulated client connections: socket calls of the front end (renamed to sim_* in its object, CMakeLists.txt)
 * on one side, model clients on the other. Bytes keep their order and arrive in other pieces than they left, late, or
 * not at all when the connection breaks or the front end dies. Threading: one. */
#ifndef KARST_TESTS_SIM_TCP_H
#define KARST_TESTS_SIM_TCP_H

#include "tests/sim/machine.h"

struct tcp;
struct tcp_client;

/* breaks: per thousand writes. */
NODISCARD struct tcp *tcp_new(struct machine *m, uint64_t breaks);
struct tcp *tcp_free(struct tcp *t); /* every client is closed; takes NULL, returns NULL */
void tcp_heal(struct tcp *t);
/* The sockets of a process that is gone. */
void tcp_forget(struct tcp *t, struct process *p);

typedef void tcp_bytes_fn(void *ctx, struct slice bytes);
/* NULL: nobody listens there. on_closed runs at most once, never after tcp_close. */
struct tcp_client *tcp_connect(struct tcp *t, uint16_t port, tcp_bytes_fn *on_bytes, sim_fn *on_closed, void *ctx);
void tcp_write(struct tcp_client *c, struct slice bytes);
/* process_life of the server that it connected to. */
uint64_t tcp_life(const struct tcp_client *c);
struct tcp_client *tcp_close(struct tcp_client *c); /* takes NULL; returns NULL */

#endif
