#include "tests/bench/load/load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAYLOAD_BYTES ((uint64_t)8 << 20)

static uint64_t random_next(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u); /* splitmix64 */
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Lines as services log them: the same names and words again and again, numbers that differ. */
static void fill_text(uint8_t *p, uint64_t size)
{
    static const char *const words[] = {"order",    "payment",   "shipped", "accepted",
                                        "customer", "warehouse", "retry",   "timeout"};
    uint64_t state = 1, at = 0;
    while (at < size) {
        uint64_t r = random_next(&state);
        char line[200];
        int n = snprintf(
            line, sizeof line,
            "{\"service\":\"%s\",\"event\":\"%s\",\"level\":\"info\",\"id\":%u,\"took_ms\":%u,\"user\":\"u%05u\"}\n",
            words[r & 7], words[r >> 3 & 7], (unsigned)(r >> 8 & 0xfffff), (unsigned)(r >> 28 & 0x3ff),
            (unsigned)(r >> 40 & 0xffff));
        uint64_t take = (uint64_t)n < size - at ? (uint64_t)n : size - at;
        memcpy(p + at, line, take);
        at += take;
    }
}

const uint8_t *payload_make(bool compressible, uint64_t size)
{
    uint64_t bytes = PAYLOAD_BYTES + size, state = 42;
    uint8_t *p = xmalloc(bytes);
    if (compressible) {
        fill_text(p, bytes);
        return p;
    }
    for (uint64_t at = 0; at < bytes; at += 8) {
        uint64_t r = random_next(&state);
        memcpy(p + at, &r, bytes - at < 8 ? bytes - at : 8);
    }
    return p;
}

/* A stride that shares no divisor with the size: the records of a second round do not repeat those of the first. */
const uint8_t *payload_at(const uint8_t *payload, uint64_t size, uint64_t index)
{
    return payload + index * (size | 1) % PAYLOAD_BYTES;
}
