#include "libs/bus/version.h"

uint32_t bus_version_min(void)
{
    return BUS_VERSION_BEFORE;
}

/* The programs of the target `before` are this code as the release before would meet it: version.c alone is compiled
 * again, and all that came with BUS_VERSION stays unused. */
uint32_t bus_version_max(void)
{
#ifdef KARST_RELEASE_BEFORE
    return BUS_VERSION_BEFORE;
#else
    return BUS_VERSION;
#endif
}
