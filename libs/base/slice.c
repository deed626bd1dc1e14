#include "libs/base/slice.h"

char *slice_dup_str(struct slice s)
{
    return s.data ? xstrndup((const char *)s.data, s.size) : NULL;
}

/* One code point of UTF-8 at s->data[*at]; malformed bytes stand for themselves. */
static uint32_t next_code_point(struct slice s, size_t *at)
{
    const uint8_t *p = s.data + *at;
    size_t left = s.size - *at;
    uint32_t c = p[0];
    size_t extra = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : c >= 0xc0 ? 1 : 0;

    if (extra == 0 || extra >= left) {
        *at += 1;
        return c;
    }
    c &= 0x3fu >> extra;
    for (size_t i = 1; i <= extra; i++)
        c = c << 6 | (p[i] & 0x3fu);
    *at += extra + 1;
    return c;
}

int32_t slice_java_hash(struct slice s)
{
    uint32_t h = 0;

    for (size_t at = 0; at < s.size;) {
        uint32_t c = next_code_point(s, &at);
        if (c >= 0x10000) {
            h = 31 * h + (0xd800 + ((c - 0x10000) >> 10));
            c = 0xdc00 + ((c - 0x10000) & 0x3ff);
        }
        h = 31 * h + c;
    }
    return (int32_t)h;
}

int32_t slice_coordinator_partition(struct slice key, int32_t count)
{
    int32_t h = slice_java_hash(key);

    ASSERT(count > 0);
    return h == INT32_MIN ? 0 : (h < 0 ? -h : h) % count;
}
