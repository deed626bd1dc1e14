/* karst.h - the rooms of the `karst` command: where a constellation keeps its sockets and locks, what it is started
 * with, and what is known of its processes. One thread. */
#ifndef KARST_KARST_KARST_H
#define KARST_KARST_KARST_H

#include "libs/config/config.h"

/* Exit statuses, beside 0 and 1: those of sysexits.h that a script may want to tell apart. */
enum { STATUS_FAILED = 1, STATUS_NOT_RUNNING = 3, STATUS_USAGE = 64, STATUS_CONFIG = 78 };

struct up_options {
    const char *data, *listen, *config; /* as given; listen and config may be NULL */
    bool detach;
    int controllers; /* how many; 0: as many as there are */
};

int up_main(const struct up_options *o);
int status_main(const char *data, bool json);
int down_main(const char *data);
int format_main(const struct up_options *o);

/* "HOST:PORT", "[::1]:9092": 0 or -EINVAL. host has 256 bytes. */
NODISCARD int endpoint_parse(const char *text, char *ret_host, uint16_t *ret_port);

/* ------------------------------------------------------------------------------------------------------- rundir.c
 * BASE/karst-UID/HASH, mode 0700, HASH of the data directory's real path. BASE is $XDG_RUNTIME_DIR where that is
 * usable, else /run/user/UID, else /tmp. Kept short, for it goes into the addresses of unix sockets (108 bytes). */

/* Makes it. 0 with *ret_path (the caller frees), or -errno with *ret_error. A symbolic link, or a folder of somebody
 * else, is refused. */
NODISCARD int rundir_make(const char *data, char **ret_path, char **ret_error);
/* The one whose constellation runs, whatever the environment was that started it: 0 with *ret_path, or -ENOENT. */
NODISCARD int rundir_find(const char *data, char **ret_path);
/* Held by the running `karst up`: a file descriptor, or -EWOULDBLOCK, -errno. Goes over to children of fork. */
NODISCARD int rundir_lock(const char *path);
/* Takes away what a stopped constellation leaves there; the log stays. */
void rundir_clean(const char *path);

/* ------------------------------------------------------------------------------------------------------- datadir.c */

/* The real path of the data directory, made when it is missing. 0, or -errno with *ret_error. */
NODISCARD int datadir_open(const char *path, char **ret_path, char **ret_error);
/* Excludes a second `karst up`. A file descriptor that goes over to children of fork; -EWOULDBLOCK, -errno. */
NODISCARD int datadir_lock(const char *path);
/* Are log.dirs ours to use: free of a running Kafka, of one cluster and this node id, formatted (when all are empty
 * they are formatted now)? 0 with the cluster id, or -errno with *ret_error. */
struct datadir_identity {
    char cluster_id[64];
    bool formatted_now;
};
/* Those of log.dirs that are empty become directories of the cluster that the others are of: how many, or -errno with
 * *ret_error. */
NODISCARD int datadir_format(const struct config *c, char **ret_error);
NODISCARD int datadir_prepare(const struct config *c, struct datadir_identity *ret_identity, char **ret_error);

/* ------------------------------------------------------------------------------------------------------- effective.c
 */

/* What all services are started with: the user's file, what the options say, and what one node on one machine needs.
 * Warnings go to the log. 0 with *ret_config, or -EINVAL with *ret_error. */
NODISCARD int effective_load(const struct up_options *o, const char *data, struct config **ret_config,
                             char **ret_error);
void effective_add_run_dir(struct config *c, const char *run_dir, int controllers);
/* Writes it to RUN_DIR/server.properties: 0 or -errno. */
NODISCARD int effective_write(const struct config *c, const char *run_dir);
/* The host and port that a client on this machine connects to. */
void effective_address(const struct config *c, char *ret_host, uint16_t *ret_port);
/* What `advertised.listeners` or `listeners` tells clients: "HOST:PORT"; the caller frees. */
NODISCARD char *effective_bootstrap(const struct config *c);

/* ------------------------------------------------------------------------------------------------------- state.c
 * RUN_DIR/state: what `karst status` and `karst down` know of a running constellation. Written anew at each change, by
 * rename. */
enum { CONTROLLERS_MAX = 5, STATE_PROCESSES_MAX = 4 + CONTROLLERS_MAX };

struct state_process {
    char role[16], state[16], endpoint[256];
    int id, pid, restarts;
};
struct state {
    int supervisor; /* process id */
    struct state_process processes[STATE_PROCESSES_MAX];
    size_t count;
};
NODISCARD int state_write(const char *run_dir, const struct state *s);
NODISCARD int state_read(const char *run_dir, struct state *ret_state);

/* ------------------------------------------------------------------------------------------------------- controllers.c
 * Several controllers on one machine: the first is the node's own, the others have folders beside the data directory,
 * DIR.controllers/ID, ids from node.id + 1 on. They join the quorum of the first. */

/* How many there are to run: wanted, or 0: as many as have folders. Folders that are missing are made. -errno with
 * *ret_error, -EINVAL for fewer than there are. */
NODISCARD int controllers_prepare(const struct config *c, const char *data, const char *cluster_id, int wanted,
                                  int *ret_count, char **ret_error);
/* RUN_DIR/controller-ID.properties for those beside the first: 0 or -errno. */
NODISCARD int controllers_write(const struct config *c, const char *data, const char *run_dir, int count);
/* Who leads: lines, or a member of a JSON object. */
void controllers_print(const char *run_dir, const struct state *s, bool json);

/* ------------------------------------------------------------------------------------------------------- directories.c
 */
/* The log directories of the storage node, and the partitions that it could not open: lines, or two members of a JSON
 * object. */
void directories_print(const char *run_dir, int storage_id, bool json);

/* ------------------------------------------------------------------------------------------------------- supervisor.c
 */
enum { LISTENERS_MAX = 16 };
struct supervisor_options {
    const struct config *config;
    const char *run_dir;
    const char *data;
    int controllers;
    bool detached;
    int ports[LISTENERS_MAX]; /* listening, in the order of `listeners`: the front end inherits them; closed at the stop
                               */
    size_t port_count;
    int ready_fd; /* detached: a byte 1 and then text when it answers; closed otherwise. -1: none */
};
/* Runs the constellation until it is stopped; the exit status. */
int supervisor_run(struct supervisor_options *o);

#endif
