#include "libs/bus/ref.h"

#include <stdlib.h>
#include <unistd.h>

void ref_owner_init(struct ref_owner *o, void (*free_fn)(struct ref_owner *o))
{
    o->count = 1;
    o->free = free_fn;
}

void ref_owner_retain(struct ref_owner *o)
{
    int32_t before = __atomic_fetch_add(&o->count, 1, __ATOMIC_RELAXED);
    ASSERT(before > 0);
}

void ref_owner_release(struct ref_owner *o)
{
    if (o == NULL)
        return;
    int32_t before = __atomic_fetch_sub(&o->count, 1, __ATOMIC_ACQ_REL);
    ASSERT(before > 0);
    if (before == 1)
        o->free(o);
}

struct ref ref_inline(struct slice bytes, struct ref_owner *owner)
{
    if (owner != NULL)
        ref_owner_retain(owner);
    return (struct ref){.kind = REF_INLINE, .owner = owner, .bytes = bytes, .size_bytes = bytes.size};
}

/* The copy and its count in one piece of memory. */
struct copied {
    struct ref_owner owner;
    uint8_t data[];
};

static void free_copied(struct ref_owner *o)
{
    free(CONTAINER_OF(o, struct copied, owner));
}

struct ref ref_new(size_t size, uint8_t **ret_data)
{
    struct copied *c = xmalloc(sizeof *c + size);

    ref_owner_init(&c->owner, free_copied);
    *ret_data = c->data;
    return (struct ref){.kind = REF_INLINE, .owner = &c->owner, .bytes = {c->data, size}, .size_bytes = size};
}

struct ref ref_copy(struct slice bytes)
{
    uint8_t *data;
    struct ref r = ref_new(bytes.size, &data);

    if (bytes.size)
        memcpy(data, bytes.data, bytes.size);
    return r;
}

struct taken {
    struct ref_owner owner;
    void *data;
};

static void free_taken(struct ref_owner *o)
{
    struct taken *t = CONTAINER_OF(o, struct taken, owner);

    free(t->data);
    free(t);
}

struct ref ref_take(void *data, size_t size)
{
    struct taken *t = xmalloc(sizeof *t);

    ref_owner_init(&t->owner, free_taken);
    t->data = data;
    return (struct ref){.kind = REF_INLINE, .owner = &t->owner, .bytes = {data ? data : "", size}, .size_bytes = size};
}

struct ref ref_part(const struct ref *r, size_t at, size_t size)
{
    struct ref part = *r;

    ASSERT(at <= r->size_bytes && size <= r->size_bytes - at);
    ref_retain(r);
    if (part.bytes.data != NULL)
        part.bytes = (struct slice){r->bytes.data + at, size};
    part.position += at;
    part.size_bytes = size;
    return part;
}

void ref_retain(const struct ref *r)
{
    if (r->owner != NULL)
        ref_owner_retain(r->owner);
}

void ref_release(struct ref *r)
{
    struct ref_owner *owner = r->owner;

    *r = REF_EMPTY;
    ref_owner_release(owner);
}

struct slice ref_bytes(const struct ref *r)
{
    ASSERT(r->kind == REF_INLINE || r->kind == REF_ARENA);
    return r->bytes;
}

static void free_file(struct ref_owner *o)
{
    struct ref_file *f = CONTAINER_OF(o, struct ref_file, owner);

    close(f->fd);
    free(f);
}

struct ref_file *ref_file_new(int fd, uint64_t instance)
{
    struct ref_file *f = xmalloc(sizeof *f);

    ASSERT(instance != 0);
    *f = (struct ref_file){.fd = fd, .instance = instance};
    ref_owner_init(&f->owner, free_file);
    return f;
}

struct ref ref_of_file(struct ref_file *f, uint64_t position, uint64_t size_bytes)
{
    ref_owner_retain(&f->owner);
    return (struct ref){
        .kind = REF_FILE, .owner = &f->owner, .instance = f->instance, .position = position, .size_bytes = size_bytes};
}

int ref_fd(const struct ref *r)
{
    ASSERT(r->kind == REF_FILE);
    return CONTAINER_OF(r->owner, struct ref_file, owner)->fd;
}
