#include "libs/base/bytes.h"

#include <isa-l/crc.h>

uint32_t bytes_crc32c(uint32_t crc, const void *p, size_t n)
{
    /* isa-l's CRC-32C takes and gives the register uninverted, reads only, and counts in int. */
    union {
        const void *in;
        unsigned char *out;
    } at = {.in = p};
    uint32_t reg = ~crc;

    while (n > 0) {
        int part = n > 1 << 30 ? 1 << 30 : (int)n;
        reg = crc32_iscsi(at.out, part, reg);
        at.out += part;
        n -= (size_t)part;
    }
    return ~reg;
}

uint32_t bytes_crc32(const void *p, size_t n)
{
    return crc32_gzip_refl(0, p, n);
}
