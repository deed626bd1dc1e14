/* base.h - the words that every other file is written with.
 *
 * Errors: a function that can fail returns 0 or a negative errno (-EBADMSG: bytes are wrong, -ENOSPC: a bound or the
 * disk is full, -EAGAIN: try later ...); a function whose failure is an answer to a Kafka client returns enum
 * kafka_error. Running out of memory ends the process with a message: every allocation from outside bytes is bounded
 * before it is made. Asserts stay on in release builds, and never meet bytes from a peer, a disk or a system call. */
#ifndef KARST_BASE_BASE_H
#define KARST_BASE_BASE_H

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define NODISCARD                     __attribute__((warn_unused_result))
#define NORETURN                      __attribute__((noreturn))
#define UNUSED                        __attribute__((unused))
#define PRINTF_LIKE(f, a)             __attribute__((format(printf, f, a)))
#define CLEANUP(f)                    __attribute__((cleanup(f)))
#define COUNTOF(a)                    (sizeof(a) / sizeof((a)[0]))
#define CONTAINER_OF(p, type, member) ((type *)(void *)((char *)(p)-offsetof(type, member)))

#define MIN(a, b)                                                                                                      \
    __extension__({                                                                                                    \
        __typeof__(a) min_a_ = (a);                                                                                    \
        __typeof__(b) min_b_ = (b);                                                                                    \
        min_a_ < min_b_ ? min_a_ : min_b_;                                                                             \
    })
#define MAX(a, b)                                                                                                      \
    __extension__({                                                                                                    \
        __typeof__(a) max_a_ = (a);                                                                                    \
        __typeof__(b) max_b_ = (b);                                                                                    \
        max_a_ > max_b_ ? max_a_ : max_b_;                                                                             \
    })

/* Hands a pointer over: the variable is NULL afterwards. */
#define TAKE_PTR(p)                                                                                                    \
    __extension__({                                                                                                    \
        __typeof__(p) take_p_ = (p);                                                                                   \
        (p) = NULL;                                                                                                    \
        take_p_;                                                                                                       \
    })

/* Ends the process: something that only a bug of ours can break is broken. */
NORETURN void base_bug(const char *file, int line, const char *what);
#define BUG(what) base_bug(__FILE__, __LINE__, what)
#define ASSERT(x) ((x) ? (void)0 : base_bug(__FILE__, __LINE__, #x))

/* Once, at the start of a process that moves payloads: glibc would give pieces of some 100 KiB and more back to the
 * system after each use, and half of the CPU time of bulk traffic would be page faults. */
void base_tune_heap(void);
void base_trim_heap(void);  /* what is free goes back to the system but for some; takes milliseconds */
uint64_t base_cpu_ms(void); /* that the process has used */

/* malloc and friends that never return NULL. The caller frees with free(). */
NODISCARD void *xmalloc(size_t size);
NODISCARD void *xcalloc(size_t count, size_t size);
NODISCARD void *xrealloc(void *p, size_t size);
NODISCARD char *xstrdup(const char *s);
NODISCARD char *xstrndup(const char *s, size_t n);
NODISCARD char *xasprintf(const char *format, ...) PRINTF_LIKE(1, 2);

#endif
