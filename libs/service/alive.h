/* alive.h - what a service and its supervisor (karst up) know of each other beside signals: where descriptor 0 is a
 * pipe, the service's loop writes a byte to it each SERVICE_ALIVE_MS, so that the supervisor sees it stand still. */
#ifndef KARST_SERVICE_ALIVE_H
#define KARST_SERVICE_ALIVE_H

enum { SERVICE_ALIVE_MS = 500 };

#endif
