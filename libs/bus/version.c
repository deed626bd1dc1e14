#include "libs/bus/version.h"

/* The programs of the target `before` are this code as the release before would meet it: version.c alone is compiled
 * again, and all that came with BUS_VERSION stays unused. */
#ifdef KARST_RELEASE_BEFORE
const uint32_t bus_version_max = BUS_VERSION_BEFORE;
#else
const uint32_t bus_version_max = BUS_VERSION;
#endif
const uint32_t bus_version_min = BUS_VERSION_BEFORE;
