/* disk_content.h - the bytes of a simulated file, in pages that what is in the cache and what is durable share as long
 * as they are the same: making a file durable, and a power cut, cost what was written since. Threading: one. */
#ifndef KARST_TESTS_SIM_DISK_CONTENT_H
#define KARST_TESTS_SIM_DISK_CONTENT_H

#include "libs/base/base.h"

enum { SECTOR = 512, PAGE = 4096, PAGE_SECTORS = PAGE / SECTOR };

struct page;

/* Zero-initialised: no bytes. Those of a page behind the size are 0. */
struct content {
    struct page **pages; /* NULL: zeros */
    uint64_t room;       /* of pages */
    uint64_t size;       /* bytes */
};

void content_free(struct content *c);
/* New bytes are zeros. */
void content_resize(struct content *c, uint64_t size);
/* Copies n bytes; behind the end they are zeros. */
void content_read(const struct content *c, uint64_t at, void *to, uint64_t n);
/* at + n is at most the size. */
void content_write(struct content *c, uint64_t at, const void *from, uint64_t n);

static inline uint64_t content_pages(uint64_t size)
{
    return (size + PAGE - 1) / PAGE;
}

/* Is it one page for both, so that its bytes are the same? Other pages may still have the same bytes. */
bool content_shares(const struct content *a, const struct content *b, uint64_t page);
/* From here on to has that page of from, which both have room for by their sizes. */
void content_share(struct content *to, const struct content *from, uint64_t page);
/* Copies sectors of that page, bit i the i-th, from one to the other. */
void content_mix(struct content *to, const struct content *from, uint64_t page, uint32_t sectors);

#endif
