/* stack.c - see stack.h. swapcontext begins a stack; from then on the compiler's own jumps go to and fro: swapcontext
 * saves the mask of signals, which is two system calls each time and the same mask here. */
#include "tests/sim/stack.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

enum { STACK_BYTES = 2 << 20, JUMP_WORDS = 5 };

struct stack {
    void *memory;
    void (*fn)(void *ctx);
    void *ctx;
    ucontext_t first, starter; /* where it begins; starter is left for good */
    bool began;
    void *inside[JUMP_WORDS], *outside[JUMP_WORDS];
    struct stack *next; /* of those that are free */
};

static struct stack *free_stacks;
static struct stack *beginning;

static struct stack *make(void)
{
    struct stack *s = xcalloc(1, sizeof *s);
    s->memory = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (s->memory == MAP_FAILED)
        BUG("no stack for a simulated process");
    return s;
}

struct stack *stack_new(void (*fn)(void *ctx), void *ctx)
{
    struct stack *s = free_stacks;
    if (s != NULL)
        free_stacks = s->next;
    else
        s = make();
    s->fn = fn;
    s->ctx = ctx;
    s->began = false;
    return s;
}

struct stack *stack_free(struct stack *s)
{
    if (s == NULL)
        return NULL;
    s->next = free_stacks;
    free_stacks = s;
    return NULL;
}

/* A function of its own: what saves a place may not be what jumps from it. */
static NORETURN __attribute__((noinline)) void leap(void **to)
{
    __builtin_longjmp(to, 1);
}

static __attribute__((noinline)) void jump(void **from, void **to)
{
    if (__builtin_setjmp(from) == 0)
        leap(to);
}

static void begin(void)
{
    struct stack *s = beginning;
    s->fn(s->ctx);
    BUG("what has a stack of its own has returned");
}

static __attribute__((noinline)) void start(struct stack *s)
{
    if (__builtin_setjmp(s->outside) != 0)
        return;
    (void)swapcontext(&s->starter, &s->first);
    BUG("a stack was left by its starter");
}

void stack_enter(struct stack *s)
{
    if (s->began) {
        jump(s->outside, s->inside);
        return;
    }
    if (getcontext(&s->first) != 0)
        BUG("no context for a stack");
    s->first.uc_stack.ss_sp = s->memory;
    s->first.uc_stack.ss_size = STACK_BYTES;
    s->first.uc_link = NULL;
    makecontext(&s->first, begin, 0);
    s->began = true;
    beginning = s;
    start(s);
}

void stack_leave(struct stack *s)
{
    jump(s->inside, s->outside);
}
