/* platform.h - what the real services ask of their machine, in the simulator: files (file_system_real is the disk of
 * the process that runs), random bytes, the configuration file, the identity of the data directory, log lines.
 * Threading: one. */
#ifndef KARST_TESTS_SIM_PLATFORM_H
#define KARST_TESTS_SIM_PLATFORM_H

#include "tests/sim/machine.h"

#define PLATFORM_DIR "/data" /* log.dirs of every process, each on its own disk */

/* What config_load gives: other for the path PLATFORM_OTHER_CONFIG, else text. They must live as long as processes
 * start. */
#define PLATFORM_OTHER_CONFIG "other.properties"
void platform_set_config(struct sim *s, struct slice text, struct slice other);

/* Whether data directories have their identity, meta.properties: false while they are formatted. */
void platform_set_formatted(bool is);

extern const char PLATFORM_CLUSTER_ID[];

#endif
