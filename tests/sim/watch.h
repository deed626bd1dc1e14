/* watch.h - what a simulated cluster's own messages must never show: two owners of a coordinator partition in one
 * epoch, records of one that the next was not told of, or two metadata logs. Threading: one. */
#ifndef KARST_TESTS_SIM_WATCH_H
#define KARST_TESTS_SIM_WATCH_H

#include "tests/sim/metawatch.h"

struct watch;

/* Watches every call of m, and follows the metadata log from its start with a process of its own, again and again. */
NODISCARD struct watch *watch_new(struct machine *m, const struct metawatch *meta, int controllers);
struct watch *watch_free(struct watch *w); /* takes NULL, returns NULL */
/* At the end: has followed what the controller has, and a second reading of the log gives the same image. */
bool watch_is_done(const struct watch *w);
void watch_check(struct watch *w);

#endif
