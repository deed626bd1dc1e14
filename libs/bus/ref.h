/* ref.h - a payload: bytes that travel beside a call.
 *
 *   REF_INLINE  bytes in this process's memory; they travel as they are
 *   REF_ARENA   a slice of a shared arena: bytes that another process of this kernel may read where they lie. Between
 *               processes that share nothing they travel like inline ones. A receiver cannot write them, and who has
 *               sent them can: what must not change between a check and its use is copied first
 *   REF_FILE    a slice of one life of one file: a descriptor, not bytes
 *
 * A ref counts its owner: who holds a ref holds one count, ref_retain adds one, ref_release gives one back. Counts are
 * atomic, as ZeroMQ's I/O thread releases what it has sent. */
#ifndef KARST_BUS_REF_H
#define KARST_BUS_REF_H

#include "libs/base/slice.h"

enum ref_kind { REF_NONE, REF_INLINE, REF_ARENA, REF_FILE };

/* What keeps the bytes alive. free is called once, by whichever thread drops the last count. Embed it in your own
 * struct. */
struct ref_owner {
    int32_t count; /* atomic */
    void (*free)(struct ref_owner *owner);
};

struct ref {
    enum ref_kind kind;
    struct ref_owner *owner; /* NULL: the bytes are static, or an arena's that outlives the use */
    struct slice bytes;      /* REF_INLINE, REF_ARENA: readable now */
    uint64_t instance;       /* REF_FILE: one life of one file; REF_ARENA: the arena */
    uint64_t position;       /* REF_FILE, REF_ARENA */
    uint64_t size_bytes;     /* of every kind */
};

#define REF_EMPTY ((struct ref){.kind = REF_NONE})

void ref_owner_init(struct ref_owner *o, void (*free_fn)(struct ref_owner *o)); /* count 1 */
void ref_owner_retain(struct ref_owner *o);
void ref_owner_release(struct ref_owner *o); /* takes NULL */

/* An inline ref on bytes of owner; takes one count of its own. */
NODISCARD struct ref ref_inline(struct slice bytes, struct ref_owner *owner);
/* An inline ref on a copy. */
NODISCARD struct ref ref_copy(struct slice bytes);
/* An inline ref on fresh memory, to be filled in. */
NODISCARD struct ref ref_new(size_t size, uint8_t **ret_data);
/* Takes over malloc'ed memory. */
NODISCARD struct ref ref_take(void *data, size_t size);
/* A part of r, with a count of its own. */
NODISCARD struct ref ref_part(const struct ref *r, size_t at, size_t size);
void ref_retain(const struct ref *r);
void ref_release(struct ref *r); /* and sets it to REF_EMPTY */
/* The bytes of any kind but REF_FILE. */
struct slice ref_bytes(const struct ref *r);

/* One life of one file. What it holds is never overwritten: who replaces or cuts the file makes a new one. */
struct ref_file {
    struct ref_owner owner; /* the last release closes fd */
    int fd;
    uint64_t instance; /* not 0, and used once in the life of the process that made it */
    bool retired;      /* the maker has removed or replaced the file: who was given it is told to let go */
};
struct ref_file *ref_file_new(int fd, uint64_t instance); /* takes over fd; count 1 */
/* Takes a count of its own. */
NODISCARD struct ref ref_of_file(struct ref_file *f, uint64_t position, uint64_t size_bytes);
int ref_fd(const struct ref *r); /* of a REF_FILE, as long as r is held */

#endif
