/* machine.h - simulated processes and the network between them: loop.h and bus.h in virtual time, over the real link
 * core and really encoded bytes, so that code written against a loop and a bus runs here unchanged. loop.c and bus.c of
 * tests/sim define the functions of libs/loop/loop.h and libs/bus/bus.h; the libraries' own adapters are not linked.
 *
 * A connection keeps the order of its messages, as ZeroMQ does. Faults, each counted by sim_cover:
 *   a message is late, alone or with all behind it on one direction (a one-way cut that heals)
 *   a connection breaks: of what is under way each direction keeps a prefix; each end hears of it later, or never
 *   a process dies before any action that others could see: a message, a connection, a change on its disk
 *
 * A process that is to die goes on to the end of its turn as a ghost: nothing that it does has an effect. Then on_death
 * runs, from the simulator, and must give back what the process was made of and call process_free. Threading: one. */
#ifndef KARST_TESTS_SIM_MACHINE_H
#define KARST_TESTS_SIM_MACHINE_H

#include "libs/base/buf.h"
#include "libs/bus/bus.h"
#include "libs/bus/link.h"
#include "tests/sim/disk.h"
#include "tests/sim/sim.h"

struct machine;
struct process;

struct machine_faults {
    uint64_t late, stall, breaks; /* per thousand messages */
    uint64_t doubled;             /* the same: it arrives twice, which ends its session */
    uint64_t refuse;              /* per thousand connections */
    uint64_t deaths;              /* per million actions of a process */
    uint64_t stalls;              /* the same, of a real program: it stands still there, as SIGSTOP does it */
};

NODISCARD struct machine *machine_new(struct sim *s, const struct machine_faults *faults);
struct machine *machine_free(struct machine *m); /* every process is gone; takes NULL, returns NULL */
struct sim *machine_sim(struct machine *m);
/* From here on nothing fails any more, and what is stalled goes on: to see that everything gets well again. */
void machine_heal(struct machine *m);

/* What is sent from one place to another waits from now on, with all behind it, until the cut ends; then it arrives, or
 * its connection breaks behind some of it. Of what the processes share on one machine nothing is cut. */
void machine_cut(struct machine *m, int from, int to, bool is);

/* Counts a fault that hits p (NULL: nobody of them). fn runs before it, to say by sim_state what p is, and after it. */
typedef void machine_fault_fn(void *ctx, const struct process *p, bool is_hit);
void machine_on_fault(struct machine *m, machine_fault_fn *fn, void *ctx);
void machine_fault(struct machine *m, const struct process *p, const char *what);

/* Runs for each call that is about to be executed, in whatever process; for checks. */
typedef void machine_watch_fn(void *ctx, struct process *p, const struct rpc *rpc);
void machine_watch(struct machine *m, machine_watch_fn *fn, void *ctx);

/* A process with a loop and, if it has one, a disk of its own. Its code runs inside process_enter and process_leave
 * only: then its memory is its own (heap.h). */
NODISCARD struct process *process_new(struct machine *m, const char *name, struct disk *disk, sim_fn *on_death,
                                      void *ctx);
/* As kill -9 leaves it: no callback of a loop, bus or call runs any more, and its memory is gone. */
struct process *process_free(struct process *p);

/* Starts the real main() of a program on a stack of its own, up to its loop_run; its turns run from then on. When main
 * returns, or it calls _exit, on_death runs as for a death; process_status gives its status, -1 of a process that was
 * killed.
 * Arguments are copied. */
void process_exec(struct process *p, int (*program)(int argc, char **argv), int argc, const char *const *argv);
int process_status(const struct process *p);
bool process_was_killed(const struct process *p);
/* SIGTERM: loop_raise. */
void process_terminate(struct process *p);

struct loop *process_loop(struct process *p);
struct machine *process_machine(struct process *p);
struct disk *process_disk(struct process *p);
const char *process_name(const struct process *p);
/* Another one for each process that ever was on the machine. */
uint64_t process_life(const struct process *p);
void *process_ctx(const struct process *p); /* of on_death */
/* Where it runs: what machine_cut cuts. 0 at first. */
enum { PLACES_MAX = 32 };
void process_set_place(struct process *p, int place);
int process_place(const struct process *p);
/* Its wall clock is so much ahead of the others'. */
void process_set_wall_ahead(struct process *p, int64_t ms);
int64_t process_wall_ahead(const struct process *p);
bool process_is_ghost(const struct process *p);
/* Dies now, or, from inside its own turn, at the end of it. */
void process_kill(struct process *p);
/* SIGSTOP, and SIGCONT so much later: what should run meanwhile runs then. What others may see of it stays: its
 * connections, and what it mapped. */
void process_stall(struct process *p, uint64_t ms);
/* Inside a turn: perhaps others run for a moment, as on another processor. No fault: also when all is well. */
void process_yield(struct process *p, uint64_t per_thousand);
/* A process that may not be killed by chance (model clients), or may again. */
void process_protect(struct process *p, bool is);
/* The process is about to do something that others can see: false when it is dead, or dies here. A real program may
 * stand still in here, in the middle of its turn. */
bool process_acts(struct process *p);

/* The process whose code runs; NULL: the simulator's own. process_enter returns the one before, for process_leave. */
struct process *process_current(void);
struct process *process_enter(struct process *p);
void process_leave(struct process *before);

/* ---- between loop.c, bus.c and net.c ---- */

struct loop *loop_of_process(struct process *p);
struct process *process_of_loop(const struct loop *l);
void loop_ask_turn(struct loop *l);
/* A signal that loop_signal asked for is heard by the next turn, however long the process stands still; of another one
 * the process dies. */
void loop_raise(struct loop *l, int signal_number);
/* loop_run: the coroutine of p runs what process_run gives it, until p's loop has stopped. */
void process_wait(struct process *p);
void process_go_on(struct process *p);
/* Runs fn on p's stack, as p. What stands still inside goes on later; nothing may follow that waits for its end. */
void process_run(struct process *p, sim_fn *fn, void *ctx);
/* While p stands still: true, and when to look again. */
bool process_is_stalled(const struct process *p, uint64_t *ret_wait_ms);
struct loop *loop_drop(struct loop *l); /* frees without running anything */
/* At the end of each turn of p. */
void process_turn_ended(struct process *p);
void process_set_loop(struct process *p, struct loop *l);

enum arrival_kind { ARRIVAL_CONNECTED, ARRIVAL_LOST, ARRIVAL_MESSAGE };
struct arrival {
    enum arrival_kind kind;
    uint64_t conn;
    struct buf frame0;
    struct ref *frames;
    size_t frame_count;
    struct arrival *next;
};
/* Takes a over. */
void bus_arrive(struct bus *b, struct arrival *a);
void arrival_free(struct arrival *a);

struct net;
struct net *machine_net(struct machine *m);
void machine_saw(struct machine *m, struct process *p, const struct rpc *rpc);
NODISCARD struct net *net_new(struct machine *m, const struct machine_faults *faults);
struct net *net_free(struct net *n);
void net_heal(struct net *n);
void net_cut(struct net *n, int from, int to, bool is);
void net_listen(struct net *n, struct bus *b, const char *address, Karst__Bus__Lane lane);
void net_unlisten(struct net *n, struct bus *b, Karst__Bus__Lane lane);
void net_connect(struct net *n, struct bus *b, uint64_t conn, const char *address, Karst__Bus__Lane lane);
void net_send(struct net *n, struct bus *b, const struct link_action *message);
void net_close(struct net *n, struct bus *b, uint64_t conn);
/* The process is gone: its connections break, its addresses are free. */
void net_forget(struct net *n, const struct process *p);

#endif
