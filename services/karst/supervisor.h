/* supervisor.h - shared by the rooms of the supervisor alone: processes, their output, and the probe.
 *
 *   waiting --process_start--> running --it died--> waiting (back-off)
 *                              running --it died, as so often before--> down, when another of its role runs; else the
 *                                                                       supervisor gives up
 *   down --DOWN_RETRY_MS--> running
 *                              running --the supervisor stops it--> stopping --it ended--> stopped
 *                              running --karst restart--> stopping --it ended--> running (control.c)
 */
#ifndef KARST_KARST_SUPERVISOR_H
#define KARST_KARST_SUPERVISOR_H

#include "libs/base/log.h"
#include "services/karst/karst.h"

#include <uv.h> /* last: its MIN and MAX are those of sys/param.h */

enum process_state { PROCESS_WAITING, PROCESS_RUNNING, PROCESS_DOWN, PROCESS_STOPPING, PROCESS_STOPPED };
enum { PROCESS_DEATHS_MAX = 10, PROCESS_DEATHS_WINDOW_MS = 60000 };

struct supervisor;

struct process {
    struct supervisor *supervisor;
    const char *role;
    char label[24];     /* in the log: the role, and the id when there are several of it */
    int id, stop_stage; /* stages stop one after the other, the lowest first */
    char *bin;          /* the folder of its program */
    enum process_state state;
    bool ready, in_sync;  /* this life has said that it serves; a storage node, that it is in sync */
    int bus_version;      /* and what it speaks; 0: not said */
    uv_process_t *handle; /* NULL: no process */
    uv_timer_t retry;
    uint64_t started_ms, deaths_ms[PROCESS_DEATHS_MAX];
    size_t deaths;  /* in all; the last of them in deaths_ms, by the remainder */
    unsigned quick; /* deaths in a row, each soon after its start */
    int restarts;
    uv_timer_t alive_timer; /* alive.c, all that follows: */
    int alive_fd;           /* -1: it is not watched */
    bool has_spoken;        /* in this life */
    uint64_t silent_ms, alive_at_ms;
    bool was_down; /* and has not lived long since: its next death is no news */
};

struct supervisor {
    uv_loop_t loop;
    struct supervisor_options *options;
    char *bin; /* the folder of our program, and at first of the others */
    struct control *control;
    struct ready *ready_socket;
    struct process processes[STATE_PROCESSES_MAX];
    size_t count;
    uv_signal_t signals[3];
    uv_timer_t stage_timer;
    struct output_sink *sink;
    struct probe *probe;
    uint64_t started_ms;
    int stage; /* of stopping; -1: not stopping */
    int status;
    bool ready;
};

/* process.c: starting, dying, back-off. */
void process_init(struct process *p, struct supervisor *s, const char *role, int id, int stop_stage);
void process_start(struct process *p);
NODISCARD bool process_try(struct process *p); /* the same; false: it does not start, and nothing is done */
bool process_is_frontend(const struct process *p);
int process_place(const struct process *p);                /* the how-manieth of its role on this host, from 0 on */
bool process_has_twin(const struct process *p);            /* another of its role runs, or will soon */
void process_signal(struct process *p, int signal_number); /* nothing when there is no process */
void process_close(struct process *p);                     /* its timer; the process has ended */

/* control.c: `karst restart`. */
struct control;
NODISCARD struct control *control_start(struct supervisor *s);
void control_stop(struct control *c); /* frees it, later; takes NULL */
/* A process has ended so (while nothing is stopped). True: it was to be replaced, and another has been started. */
bool control_ended(struct control *c, struct process *p, const char *how);
void control_told(struct control *c, struct process *p); /* p->ready or p->in_sync is new */

/* ready.c: what processes say of themselves. */
struct ready;
NODISCARD struct ready *ready_start(struct supervisor *s); /* NULL, after a line in the log: nobody will be heard */
void ready_stop(struct ready *r);                          /* frees it, later; takes NULL */

/* alive.c: one that stands still. Its end of the pipe for a new life of it, or -1; to be closed after the spawn. */
void alive_init(struct process *p);
NODISCARD int alive_open(struct process *p);
void alive_close(struct process *p);

/* supervisor.c: what a process tells. */
uint64_t process_stop_ms(const struct process *p);         /* how long its end may take before it is killed */
void supervisor_changed(struct supervisor *s);             /* the state file is written */
void supervisor_give_up(struct supervisor *s, int status); /* stops everything, in order */
void supervisor_process_ended(struct supervisor *s);       /* of a process that was stopped */
void supervisor_say(struct supervisor *s, enum log_level level, const char *format, ...) PRINTF_LIKE(3, 4);

/* output.c: lines of the processes, with the label in front, on stderr or in RUN_DIR/karst.log. */
struct output_sink;
NODISCARD struct output_sink *output_sink_new(const char *run_dir, bool to_file);
void output_sink_quiet(struct output_sink *k); /* from now on to the file alone */
struct output_sink *output_sink_free(struct output_sink *k);
void output_line(struct output_sink *k, const char *label, const char *text, size_t n);
/* Forwards what comes on fd until its end; takes fd. */
void output_follow(struct output_sink *k, uv_loop_t *loop, const char *label, int fd);

/* probe.c: asks the listen address for Metadata until a broker is named in the answer. */
struct probe;
typedef void probe_done_fn(void *ctx);
NODISCARD struct probe *probe_start(uv_loop_t *loop, const char *host, uint16_t port, probe_done_fn *done, void *ctx);
void probe_stop(struct probe *p); /* frees it, later; takes NULL */

#endif
