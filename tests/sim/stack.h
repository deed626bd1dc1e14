/* stack.h - code that runs on a stack of its own, left and entered again without a system call. Threading: one. */
#ifndef KARST_TESTS_SIM_STACK_H
#define KARST_TESTS_SIM_STACK_H

#include "libs/base/base.h"

struct stack;

/* fn begins with the first stack_enter, and must not return. */
NODISCARD struct stack *stack_new(void (*fn)(void *ctx), void *ctx);
/* Not from inside. What was on it never goes on. Takes NULL, returns NULL. */
struct stack *stack_free(struct stack *s);
/* Runs what is on it, from where it was left, until it leaves. One may be entered from inside another. */
void stack_enter(struct stack *s);
/* From inside: back to where it was entered. */
void stack_leave(struct stack *s);

#endif
