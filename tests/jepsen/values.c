#include "tests/jepsen/jepsen.h"

uint64_t random_next(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

unsigned key_of(const char *topic, int32_t partition)
{
    for (unsigned t = 0; t < options.topic_count; t++) {
        if (strcmp(options.topics[t], topic) == 0 && partition >= 0 && (uint64_t)partition < options.partitions)
            return (unsigned)(t * options.partitions) + (unsigned)partition;
    }
    return KEYS_MAX;
}

/* "KEY:NUMBER:" and then bytes that follow from both. */
size_t value_write(unsigned key, uint64_t number, char *bytes)
{
    uint64_t state = (uint64_t)key << 40 ^ number;
    size_t at = (size_t)snprintf(bytes, 40, "%u:%lu:", key, number), size = 40 + random_below(&state, 160);
    if (random_below(&state, 64) == 0)
        size = 40 + random_below(&state, VALUE_BYTES - 40);
    for (; at < size; at++)
        bytes[at] = (char)('a' + random_below(&state, 26));
    return size;
}

int64_t value_read(unsigned key, const void *bytes, size_t size)
{
    char head[41] = {0}, expected[VALUE_BYTES];
    unsigned named;
    uint64_t number;
    memcpy(head, bytes, MIN(size, sizeof head - 1));
    if (sscanf(head, "%u:%lu:", &named, &number) != 2 || named != key || number > INT64_MAX)
        return -1;
    if (value_write(key, number, expected) != size || memcmp(bytes, expected, size) != 0)
        return -1;
    return (int64_t)number;
}
