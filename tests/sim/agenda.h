/* agenda.h - what is to run, and when, in virtual time. Threading: one. */
#ifndef KARST_TESTS_SIM_AGENDA_H
#define KARST_TESTS_SIM_AGENDA_H

#include "libs/base/base.h"

struct agenda;

struct agenda_entry {
    uint64_t at_ms;
    void (*fn)(void *ctx);
    void *ctx;
};

NODISCARD struct agenda *agenda_new(void);
struct agenda *agenda_free(struct agenda *a); /* takes NULL, returns NULL */
/* at_ms is not before the last one that was taken. Returns an id, never 0. */
uint64_t agenda_add(struct agenda *a, const struct agenda_entry *e);
void agenda_cancel(struct agenda *a, uint64_t id); /* 0 and ids that were taken are ignored */
/* Takes the first one up to that time; those of one instant in the order they were added. */
bool agenda_take(struct agenda *a, uint64_t until_ms, struct agenda_entry *ret_entry);

#endif
