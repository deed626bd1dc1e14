#include "libs/base/uuid.h"

#include <stdio.h>

static const char ALPHABET[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

struct uuid_text uuid_to_text(struct uuid u)
{
    struct uuid_text t;
    size_t n = 0;

    for (size_t i = 0; i < 15; i += 3) {
        uint32_t v = (uint32_t)u.b[i] << 16 | (uint32_t)u.b[i + 1] << 8 | u.b[i + 2];
        for (int shift = 18; shift >= 0; shift -= 6)
            t.s[n++] = ALPHABET[v >> shift & 63];
    }
    t.s[n++] = ALPHABET[u.b[15] >> 2];
    t.s[n++] = ALPHABET[(u.b[15] & 3) << 4];
    t.s[n] = '\0';
    return t;
}

int uuid_parse(struct slice text, struct uuid *ret_uuid)
{
    struct uuid u = UUID_ZERO;
    uint32_t bits = 0;
    int have = 0;
    size_t n = 0;

    if (text.size != UUID_TEXT)
        return -EINVAL;
    for (size_t i = 0; i < text.size; i++) {
        const char *at = text.data[i] ? strchr(ALPHABET, text.data[i]) : NULL;
        if (at == NULL)
            return -EINVAL;
        bits = bits << 6 | (uint32_t)(at - ALPHABET);
        have += 6;
        if (have >= 8 && n < 16) {
            have -= 8;
            u.b[n++] = (uint8_t)(bits >> have);
        }
    }
    *ret_uuid = u;
    return 0;
}

int uuid_from_random(const uint8_t random[16], struct uuid *ret_uuid)
{
    struct uuid u;

    memcpy(u.b, random, 16);
    u.b[6] = (uint8_t)((u.b[6] & 0x0f) | 0x40);
    u.b[8] = (uint8_t)((u.b[8] & 0x3f) | 0x80);
    if (uuid_to_text(u).s[0] == '-')
        return -EAGAIN;
    *ret_uuid = u;
    return 0;
}

void uuid_to_dashed(struct uuid u, char out[37])
{
    size_t n = 0;

    for (size_t i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            out[n++] = '-';
        n += (size_t)snprintf(out + n, 37 - n, "%02x", u.b[i]);
    }
}
