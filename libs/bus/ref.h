/* ref.h - a payload: bytes that travel beside a call. Callers see no difference between the kinds. This release makes
 * REF_INLINE; REF_ARENA and REF_FILE have their shape here so that adding them touches no caller that goes through
 * ref_bytes.
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
    uint64_t instance;       /* REF_FILE: one life of one segment; REF_ARENA: the arena */
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
/* Takes over malloc'ed memory. */
NODISCARD struct ref ref_take(void *data, size_t size);
/* A part of r, with a count of its own. */
NODISCARD struct ref ref_part(const struct ref *r, size_t at, size_t size);
void ref_retain(const struct ref *r);
void ref_release(struct ref *r); /* and sets it to REF_EMPTY */
/* The bytes of any kind that is readable in this process. */
struct slice ref_bytes(const struct ref *r);

#endif
