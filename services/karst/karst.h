/* karst.h - the rooms of the `karst` command: where a constellation keeps its sockets and locks, what it is started
 * with, and what is known of its processes. One thread. */
#ifndef KARST_KARST_KARST_H
#define KARST_KARST_KARST_H

#include "libs/base/uuid.h"
#include "libs/config/config.h"

/* Exit statuses, beside 0 and 1: those of sysexits.h that a script may want to tell apart. */
enum { STATUS_FAILED = 1, STATUS_NOT_RUNNING = 3, STATUS_USAGE = 64, STATUS_CONFIG = 78 };

enum { CONTROLLERS_MAX = 5, STORAGE_MAX = 16, FRONTENDS_MAX = 8 };

/* How many processes of a role there are; as asked for, 0: as many as there are folders of, and one front end; -1:
 * none.
 */
enum { NODES_NONE = -1 };
struct nodes {
    int controllers, storage, frontends;
    const struct node_files *files; /* of the nodes beside the first; NULL, or without any: they have folders */
};

/* Of nodes beside the first that are both broker and controller; the id of the first is node.id + 1, and so on. */
enum { NODE_FILES_MAX = CONTROLLERS_MAX - 1 };
struct node_files {
    struct config *configs[NODE_FILES_MAX];
    int locks[NODE_FILES_MAX]; /* of a data directory each; -1: none */
    int count;
};

struct up_options {
    const char *data, *listen, *config; /* as given; listen and config may be NULL */
    const char *node_files[NODE_FILES_MAX];
    int node_count;
    bool detach, first;
    const char *initial_controllers, *cluster_id; /* of format; may be NULL */
    struct nodes nodes;
};

int fail(int status, char *error); /* says it on stderr, frees it, and returns the status */
int up_main(const struct up_options *o);
int status_main(const char *data, bool json);
int down_main(const char *data);
int format_main(const struct up_options *o);
int key_main(const char *path);
int hosts_main(const char *out, char **hosts, int count);
/* process: "ROLE-ID", "ROLE" where there is one of it, NULL: all, one after the other. bin: the folder of the program
 * from now on, NULL: where it is. */
int restart_main(const char *data, const char *process, const char *bin);

#define CONTROL_SOCKET "control" /* in the run folder: control.c */

/* ------------------------------------------------------------------------------------------------------- rundir.c
 * BASE/karst-UID/HASH, mode 0700, HASH of the data directory's real path. BASE is $XDG_RUNTIME_DIR where that is
 * usable, else for users of the system /dev/shm, else /tmp. In memory where it can be: a socket's name is made under
 * its folder's lock, and on a disk that may wait for other writes, together with all who look for sockets there. Kept
 * short, for it goes into the addresses of unix sockets (108 bytes). */

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
/* No Kafka runs on the folder: 0, or -EBUSY with *ret_error. */
NODISCARD int datadir_refuse_kafka(const char *path, char **ret_error);
/* Nothing but what a format leaves behind is in it: 0, or -EEXIST with *ret_error. */
NODISCARD int datadir_check_empty(const char *path, char **ret_error);
/* Are log.dirs ours to use: free of a running Kafka, of one cluster and this node id, formatted (when all are empty
 * they are formatted now)? 0 with the cluster id, or -errno with *ret_error. */
struct datadir_identity {
    char cluster_id[64];
    bool formatted_now;
};
/* Those of log.dirs that are empty become directories of the cluster that the others are of: how many, or -errno with
 * *ret_error. */
NODISCARD int datadir_format(const struct config *c, char **ret_error);
/* Begins a cluster: log.dirs, all empty, become those of one of its first voters. cluster_id NULL: that of the
 * configuration; voters NULL: this controller alone. 0, or -errno with *ret_error. */
struct kraft_voters;
NODISCARD int datadir_form(const struct config *c, const char *cluster_id, const struct kraft_voters *voters,
                           struct datadir_identity *ret_identity, char **ret_error);
NODISCARD int datadir_prepare(const struct config *c, struct datadir_identity *ret_identity, char **ret_error);
NODISCARD int datadir_make_uuid(struct uuid *ret_uuid); /* 0 or -EIO */

/* ------------------------------------------------------------------------------------------------------- initial.c
 * The log directories, all empty, become those of a voter of a new cluster, whose voters the list names:
 * ID@HOST:PORT:DIRECTORY,... 0, or -errno with *ret_error. */
NODISCARD int initial_format(const struct config *c, const char *list, const char *cluster_id,
                             struct datadir_identity *ret_identity, char **ret_error);

/* ------------------------------------------------------------------------------------------------------- effective.c
 */

/* What all services are started with: the user's file, what the options say, and what one node on one machine needs.
 * Warnings go to the log. 0 with *ret_config, or -EINVAL with *ret_error. */
NODISCARD int effective_load(const struct up_options *o, const char *data, struct config **ret_config,
                             char **ret_error);
bool effective_has_role(const struct config *c, const char *role); /* of process.roles */
/* What depends on how many nodes run, and where. */
void effective_add_run_dir(struct config *c, const char *run_dir, const struct nodes *n);
/* Writes it to RUN_DIR/server.properties: 0 or -errno. */
NODISCARD int effective_write(const struct config *c, const char *run_dir);
/* The host and port that a client on this machine connects to. */
void effective_address(const struct config *c, char *ret_host, uint16_t *ret_port);
/* Is NAME://HOST:PORT one of controller.listener.names? */
bool effective_is_controller_listener(const struct config *c, const char *item);
/* What `advertised.listeners` or `listeners` tells clients: "HOST:PORT"; the caller frees. */
NODISCARD char *effective_bootstrap(const struct config *c);

/* ------------------------------------------------------------------------------------------------------- network.c */

/* Is this host one of several that are a constellation together? Each then has its own `karst up`, with a
 * karst.bus.listen of its own and the karst.cluster.id and karst.controllers of all. */
bool network_is_used(const struct config *c);
/* Checks what such a host needs; key files that the file names lie beside it, on any host. 0, or -EINVAL with
 * *ret_error. */
NODISCARD int network_apply(struct config *c, const char *file, char **ret_error);
/* What is to run here fits the roles of this host, and what karst.controllers says of it: 0, or -EINVAL with
 * *ret_error.
 */
NODISCARD int network_check_nodes(const struct config *c, const struct nodes *n, char **ret_error);
/* karst.controllers with those of other hosts behind ours, which are given by their unix sockets. */
const char *network_controllers(const struct config *c, const struct nodes *n, const char *ours, struct arena *a);

/* ------------------------------------------------------------------------------------------------------- state.c
 * RUN_DIR/state: what `karst status` and `karst down` know of a running constellation. Written anew at each change, by
 * rename. */
enum { STATE_PROCESSES_MAX = 2 + CONTROLLERS_MAX + STORAGE_MAX + FRONTENDS_MAX };

struct state_process {
    char role[16], state[16], endpoint[256];
    int id, pid, restarts, bus_version; /* bus_version: the highest that it speaks; 0: it does not serve yet */
};
struct state {
    int supervisor; /* process id */
    struct state_process processes[STATE_PROCESSES_MAX];
    size_t count;
};
NODISCARD int state_write(const char *run_dir, const struct state *s);
NODISCARD int state_read(const char *run_dir, struct state *ret_state);
/* The running constellation of a data directory, or -ENOENT. With 0 the caller frees *ret_run_dir. */
NODISCARD int state_find(const char *data, struct state *ret_state, char **ret_run_dir);

/* ------------------------------------------------------------------------------------------------------- nodes.c
 * Several controllers and storage nodes on one machine: the first of either is the node's own, the others have folders
 * beside the data directory, DIR.controllers/ID and DIR.storage/ID, ids from node.id + 1 on. The controllers join the
 * quorum of the first. */

/* The id of the first process of a role on this host. Nodes count from node.id on. On one host front ends and
 * coordinators count from 1; of several hosts each has a coordinator of its node's id, and front ends from 100 times
 * that on. */
int nodes_first_id(const struct config *c, const char *role);
/* Where nothing is asked for: as many as there are; no fewer than 0 of each afterwards. */
void nodes_count(const struct config *c, const char *data, struct nodes *n);
/* Folders that are missing are made. 0, or -errno with *ret_error, -EINVAL for fewer than there are folders. */
NODISCARD int nodes_prepare(const struct config *c, const char *data, const char *cluster_id, const struct nodes *n,
                            char **ret_error);
/* Writes the configuration of those beside the first, front ends too, to the run folder: 0 or -errno. */
NODISCARD int nodes_write(const struct config *c, const char *data, const char *run_dir, const struct nodes *n);
/* The file that a process is started with; the caller frees. */
NODISCARD char *nodes_config(const struct config *c, const char *run_dir, const char *role, int id);

/* ------------------------------------------------------------------------------------------------------- node_files.c
 */

/* Reads and checks the files of `--node`, in any order, and locks a directory of each: 0, or -errno with *ret_error.
 * *ret_files is to be freed in either case. */
NODISCARD int node_files_load(const struct up_options *o, const struct config *first, struct node_files *ret_files,
                              char **ret_error);
void node_files_free(struct node_files *f);
/* Their directories are of the cluster, and nobody else uses them: 0, or -errno with *ret_error. Nothing is formatted,
 * but log directories that are empty beside a formatted one are refused as ever. */
NODISCARD int node_files_prepare(const struct node_files *f, const char *cluster_id, char **ret_error);
/* After effective_add_run_dir of the first. */
void node_files_add_run_dir(const struct node_files *f, const struct config *first);

/* ------------------------------------------------------------------------------------------------------- ports.c
 * The listening ports of the front ends: for each of `listeners` its own, and with several storage nodes one for each
 * broker id of this host, that many above (those of other hosts are opened by the front ends, as they come). The second
 * front end's are 100 above the first's, and so on. Then those of the controllers: a controller listener's own for
 * node.id, the next ones for the others; all front ends have them. */
enum { LISTENERS_MAX = 16 };
struct ports {
    int *fds;
    size_t count;
};
/* Opens all of a front end, the first (0), the second (1) ...: 0, or -errno with *ret_error. What was opened is in
 * *ports all the same. */
NODISCARD int ports_open(const struct config *c, const struct nodes *n, int place, struct ports *ports,
                         char **ret_error);
/* Those of the controllers, behind all others: the first front end's, and shared with the rest of n->frontends. */
NODISCARD int ports_open_controllers(const struct config *c, const struct nodes *n, struct ports ports[],
                                     char **ret_error);
void ports_close(struct ports *ports);
/* The environment of the front end that inherits them from descriptor 3 on. */
void ports_tell(const struct config *c, const struct nodes *n, const struct ports *ports);
int ports_shift(int place);
/* A key of listeners with clients' ports, or those of controllers, shifted; the caller frees. */
NODISCARD char *ports_shifted(const struct config *c, const char *key, bool of_controllers, int shift);

/* ------------------------------------------------------------------------------------------------------- directories.c
 */
/* The log directories of the storage nodes, and the partitions that they could not open: lines, or two members of a
 * JSON object. */
void directories_print(const char *run_dir, const struct state *s, bool json);

/* ------------------------------------------------------------------------------------------------------- supervisor.c
 */
struct supervisor_options {
    const struct config *config;
    const char *run_dir;
    const char *data;
    struct nodes nodes;
    bool detached;
    struct ports ports[FRONTENDS_MAX]; /* listening, until the stop */
    int ready_fd; /* detached: a byte 1 and then text when it answers; closed otherwise. -1: none */
};
/* Runs the constellation until it is stopped; the exit status. */
int supervisor_run(struct supervisor_options *o);

#endif
