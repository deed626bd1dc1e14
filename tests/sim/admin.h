/* admin.h - a model administrator: topics made, grown, configured and deleted, and blocks of producer ids taken, at
 * whatever controller leads, over the bus as a front end does it. One request at a time.
 *
 *   A1  what is answered as done is in the committed log at that moment, and stays (metawatch.h)
 *   A2  what is answered as done, and was not undone since, is there in the end; a configuration is the last one, or
 *       one that was asked for later and never answered
 *   A3  no block of producer ids is given twice
 *
 * Threading: one. */
#ifndef KARST_TESTS_SIM_ADMIN_H
#define KARST_TESTS_SIM_ADMIN_H

#include "tests/sim/cluster.h"
#include "tests/sim/metawatch.h"

struct admin;

/* number: several have topics of their own. */
NODISCARD struct admin *admin_new(struct cluster *c, const struct metawatch *w, int number);
struct admin *admin_free(struct admin *a); /* takes NULL, returns NULL */
/* How many requests were answered as done. */
uint64_t admin_done(const struct admin *a);
/* When nothing fails any more and all is quiet: A2. */
void admin_check(const struct admin *a);

#endif
