/* platform.h - what the real services ask of their machine, in the simulator: files (file_system_real is the disk of
 * the process that runs), random bytes, the configuration file, the identity of the data directory, log lines.
 * Threading: one. */
#ifndef KARST_TESTS_SIM_PLATFORM_H
#define KARST_TESTS_SIM_PLATFORM_H

#include "libs/base/uuid.h"
#include "tests/sim/machine.h"

#define PLATFORM_DIR "/data" /* the first of log.dirs of every process, each on its own disk */

/* What a process finds on its machine. */
struct platform_identity {
    int32_t node_id;          /* in meta.properties */
    struct uuid directory_id; /* of PLATFORM_DIR; the last byte of each further directory's counts up */
    const char *config;       /* what config_load gives for any path */
};
typedef const struct platform_identity *platform_identity_fn(const struct process *p);

/* of: for each process that reads its configuration or its directory; NULL: none does. */
void platform_start(struct sim *s, platform_identity_fn *of);
void platform_stop(void);

/* Whether data directories have their identity, meta.properties: false while they are formatted. */
void platform_set_formatted(bool is);

extern const char PLATFORM_CLUSTER_ID[];

#endif
