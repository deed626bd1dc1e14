/* bytes.h - integers in bytes: big-endian, and varints. Reading varints is bounded: 5 or 10 bytes. */
#ifndef KARST_BASE_BYTES_H
#define KARST_BASE_BYTES_H

#include "libs/base/slice.h"

static inline uint16_t get_u16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}
static inline uint32_t get_u32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return __builtin_bswap32(v);
}
static inline uint64_t get_u64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, 8);
    return __builtin_bswap64(v);
}
static inline int16_t get_i16(const uint8_t *p)
{
    return (int16_t)get_u16(p);
}
static inline int32_t get_i32(const uint8_t *p)
{
    return (int32_t)get_u32(p);
}
static inline int64_t get_i64(const uint8_t *p)
{
    return (int64_t)get_u64(p);
}

static inline void put_u16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}
static inline void put_u32(uint8_t *p, uint32_t v)
{
    v = __builtin_bswap32(v);
    memcpy(p, &v, 4);
}
static inline void put_u64(uint8_t *p, uint64_t v)
{
    v = __builtin_bswap64(v);
    memcpy(p, &v, 8);
}
static inline void put_i16(uint8_t *p, int16_t v)
{
    put_u16(p, (uint16_t)v);
}
static inline void put_i32(uint8_t *p, int32_t v)
{
    put_u32(p, (uint32_t)v);
}
static inline void put_i64(uint8_t *p, int64_t v)
{
    put_u64(p, (uint64_t)v);
}

/* Copies bytes that another process may change meanwhile: each is read once, and what follows sees the copy alone (the
 * barrier keeps the compiler from reading the source again). */
static inline void bytes_take(uint8_t *to, const uint8_t *from, size_t n)
{
    if (n > 0)
        memcpy(to, from, n);
    __asm__ volatile("" : : "r"(to) : "memory");
}

/* Reads an unsigned varint at p, at most to end. The bytes taken, or 0 when cut short or longer than 5 (10) bytes or
 * out of range. Each byte is loaded once: p may lie in memory that another process writes to. */
static inline size_t get_uvarint32(const uint8_t *p, const uint8_t *end, uint32_t *ret_v)
{
    if (p >= end)
        return 0;
    uint8_t c = __atomic_load_n(p, __ATOMIC_RELAXED);
    uint32_t v = c & 0x7f;
    size_t i = 1;
    for (; c >= 0x80; i++) {
        if (i == 5 || p + i >= end)
            return 0;
        c = __atomic_load_n(p + i, __ATOMIC_RELAXED);
        if (i == 4 && c > 0x0f)
            return 0;
        v |= (uint32_t)(c & 0x7f) << (7 * i);
    }
    *ret_v = v;
    return i;
}
static inline size_t get_uvarint64(const uint8_t *p, const uint8_t *end, uint64_t *ret_v)
{
    if (p >= end)
        return 0;
    uint8_t c = __atomic_load_n(p, __ATOMIC_RELAXED);
    uint64_t v = c & 0x7f;
    size_t i = 1;
    for (; c >= 0x80; i++) {
        if (i == 10 || p + i >= end)
            return 0;
        c = __atomic_load_n(p + i, __ATOMIC_RELAXED);
        if (i == 9 && c > 1)
            return 0;
        v |= (uint64_t)(c & 0x7f) << (7 * i);
    }
    *ret_v = v;
    return i;
}
/* The same for zigzag: varint and varlong of records. */
static inline size_t get_varint32(const uint8_t *p, const uint8_t *end, int32_t *ret_v)
{
    uint32_t u;
    size_t n = get_uvarint32(p, end, &u);
    if (n)
        *ret_v = (int32_t)(u >> 1) ^ -(int32_t)(u & 1);
    return n;
}
static inline size_t get_varint64(const uint8_t *p, const uint8_t *end, int64_t *ret_v)
{
    uint64_t u;
    size_t n = get_uvarint64(p, end, &u);
    if (n)
        *ret_v = (int64_t)(u >> 1) ^ -(int64_t)(u & 1);
    return n;
}

/* Write at p, which has room for 5 (10) bytes; the bytes written. */
static inline size_t put_uvarint64(uint8_t *p, uint64_t v)
{
    size_t n = 0;
    while (v > 0x7f) {
        p[n++] = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    p[n++] = (uint8_t)v;
    return n;
}
static inline size_t put_uvarint32(uint8_t *p, uint32_t v)
{
    return put_uvarint64(p, v);
}
static inline size_t put_varint64(uint8_t *p, int64_t v)
{
    return put_uvarint64(p, ((uint64_t)v << 1) ^ (uint64_t)(v >> 63));
}
static inline size_t put_varint32(uint8_t *p, int32_t v)
{
    return put_uvarint64(p, ((uint32_t)v << 1) ^ (uint32_t)(v >> 31));
}
static inline size_t size_uvarint64(uint64_t v)
{
    size_t n = 1;
    while (v > 0x7f) {
        v >>= 7;
        n++;
    }
    return n;
}

/* CRC-32C (Castagnoli) of the bytes, going on from crc (0 at the start). */
uint32_t bytes_crc32c(uint32_t crc, const void *p, size_t n);
/* CRC-32 (gzip's) of the bytes: Kafka's message formats before 0.11. */
uint32_t bytes_crc32(const void *p, size_t n);

#endif
