#include "tests/sim/disk_content.h"

#include <stdlib.h>

struct page {
    uint32_t holders;
    uint8_t bytes[PAGE];
};

static struct page *page_of(const struct content *c, uint64_t page)
{
    return page < c->room ? c->pages[page] : NULL;
}

static void release(struct page *p)
{
    if (p != NULL && --p->holders == 0)
        free(p);
}

static void set(struct content *c, uint64_t page, struct page *p)
{
    struct page *before = c->pages[page];
    if (p != NULL)
        p->holders++;
    c->pages[page] = p;
    release(before);
}

/* The bytes of a page, to write to: nobody else's. */
static uint8_t *own(struct content *c, uint64_t page)
{
    struct page *p = c->pages[page];
    if (p != NULL && p->holders == 1)
        return p->bytes;
    struct page *copy = xmalloc(sizeof *copy);
    copy->holders = 0;
    if (p != NULL)
        memcpy(copy->bytes, p->bytes, PAGE);
    else
        memset(copy->bytes, 0, PAGE);
    set(c, page, copy);
    return copy->bytes;
}

void content_free(struct content *c)
{
    for (uint64_t i = 0; i < c->room; i++)
        release(c->pages[i]);
    free(c->pages);
    *c = (struct content){0};
}

static void make_room(struct content *c, uint64_t pages)
{
    if (pages <= c->room)
        return;
    pages = MAX(pages, c->room * 2);
    c->pages = xrealloc(c->pages, pages * sizeof *c->pages);
    memset(c->pages + c->room, 0, (pages - c->room) * sizeof *c->pages);
    c->room = pages;
}

void content_resize(struct content *c, uint64_t size)
{
    uint64_t kept = content_pages(size);
    for (uint64_t i = kept; i < content_pages(c->size); i++)
        set(c, i, NULL);
    if (size < c->size && size % PAGE != 0 && c->pages[kept - 1] != NULL)
        memset(own(c, kept - 1) + size % PAGE, 0, PAGE - size % PAGE);
    make_room(c, kept);
    c->size = size;
}

void content_read(const struct content *c, uint64_t at, void *to, uint64_t n)
{
    for (uint64_t done = 0, k; done < n; done += k) {
        uint64_t in_page = (at + done) % PAGE;
        const struct page *p = page_of(c, (at + done) / PAGE);
        k = MIN(n - done, PAGE - in_page);
        if (p != NULL)
            memcpy((uint8_t *)to + done, p->bytes + in_page, k);
        else
            memset((uint8_t *)to + done, 0, k);
    }
}

void content_write(struct content *c, uint64_t at, const void *from, uint64_t n)
{
    ASSERT(at + n <= c->size);
    for (uint64_t done = 0, k; done < n; done += k) {
        uint64_t in_page = (at + done) % PAGE;
        k = MIN(n - done, PAGE - in_page);
        memcpy(own(c, (at + done) / PAGE) + in_page, (const uint8_t *)from + done, k);
    }
}

bool content_shares(const struct content *a, const struct content *b, uint64_t page)
{
    return page_of(a, page) == page_of(b, page);
}

void content_share(struct content *to, const struct content *from, uint64_t page)
{
    set(to, page, page_of(from, page));
}

void content_mix(struct content *to, const struct content *from, uint64_t page, uint32_t sectors)
{
    const struct page *source = page_of(from, page);
    uint8_t *bytes = own(to, page);
    for (size_t i = 0; i < PAGE_SECTORS; i++) {
        if (!(sectors >> i & 1))
            continue;
        if (source != NULL)
            memcpy(bytes + i * SECTOR, source->bytes + i * SECTOR, SECTOR);
        else
            memset(bytes + i * SECTOR, 0, SECTOR);
    }
}
