/* clean_map.c - open addressing, probed in sequence; see clean_map.h. */
#include "libs/log/clean_map.h"
#include <stdlib.h>

struct entry {
    uint64_t hash[2];
    uint64_t next_offset; /* offset + 1; 0: unused */
};
static_assert(sizeof(struct entry) == CLEAN_MAP_ENTRY, "an entry of the offset map");

struct clean_map {
    struct entry *entries;
    uint64_t slots, count, max;
    double load;
    uint64_t secret[2];
};

/* ---- SipHash-2-4, 128 bits out (Aumasson, Bernstein) ---- */

struct sip {
    uint64_t v0, v1, v2, v3;
};

static inline uint64_t rotl(uint64_t x, int n)
{
    return x << n | x >> (64 - n);
}

static inline void sip_round(struct sip *s)
{
    s->v0 += s->v1;
    s->v1 = rotl(s->v1, 13) ^ s->v0;
    s->v0 = rotl(s->v0, 32);
    s->v2 += s->v3;
    s->v3 = rotl(s->v3, 16) ^ s->v2;
    s->v0 += s->v3;
    s->v3 = rotl(s->v3, 21) ^ s->v0;
    s->v2 += s->v1;
    s->v1 = rotl(s->v1, 17) ^ s->v2;
    s->v2 = rotl(s->v2, 32);
}

static inline void sip_word(struct sip *s, uint64_t m)
{
    s->v3 ^= m;
    sip_round(s);
    sip_round(s);
    s->v0 ^= m;
}

static inline uint64_t sip_end(struct sip *s)
{
    for (int i = 0; i < 4; i++)
        sip_round(s);
    return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

static void hash_key(const struct clean_map *m, struct slice key, uint64_t ret_hash[2])
{
    struct sip s = {
        m->secret[0] ^ 0x736f6d6570736575U,
        m->secret[1] ^ 0x646f72616e646f6dU ^ 0xee,
        m->secret[0] ^ 0x6c7967656e657261U,
        m->secret[1] ^ 0x7465646279746573U,
    };
    size_t at = 0;
    uint64_t word;
    for (; at + 8 <= key.size; at += 8) {
        memcpy(&word, key.data + at, 8);
        sip_word(&s, word);
    }
    word = 0;
    if (at < key.size)
        memcpy(&word, key.data + at, key.size - at);
    sip_word(&s, word | (uint64_t)key.size << 56);
    s.v2 ^= 0xee;
    ret_hash[0] = sip_end(&s);
    s.v1 ^= 0xdd;
    ret_hash[1] = sip_end(&s);
}

/* ---- the table ---- */

static struct entry *find(const struct clean_map *m, const uint64_t hash[2])
{
    uint64_t at = (uint64_t)((unsigned __int128)hash[0] * m->slots >> 64);
    for (;;) {
        struct entry *e = &m->entries[at];
        if (e->next_offset == 0 || (e->hash[0] == hash[0] && e->hash[1] == hash[1]))
            return e;
        at = at + 1 < m->slots ? at + 1 : 0;
    }
}

static int make_table(struct clean_map *m, uint64_t slots)
{
    ASSERT(slots >= 2);
    struct entry *entries = slots <= SIZE_MAX / sizeof *entries ? calloc((size_t)slots, sizeof *entries) : NULL;
    if (entries == NULL)
        return -ENOMEM;
    m->entries = entries;
    m->slots = slots;
    /* One entry at least stays unused, which ends every search. */
    m->max = MIN((uint64_t)((double)slots * m->load), slots - 1);
    return 0;
}

struct clean_map *clean_map_new(uint64_t slots, double load, const uint8_t seed[CLEAN_SEED])
{
    struct clean_map *m = xcalloc(1, sizeof *m);
    m->load = load;
    memcpy(m->secret, seed, sizeof m->secret);
    if (make_table(m, MAX(slots, (uint64_t)2)) < 0)
        return clean_map_free(m);
    return m;
}

struct clean_map *clean_map_free(struct clean_map *m)
{
    if (m != NULL)
        free(m->entries);
    free(m);
    return NULL;
}

uint64_t clean_map_count(const struct clean_map *m)
{
    return m->count;
}

uint64_t clean_map_room(const struct clean_map *m)
{
    return m->count < m->max ? m->max - m->count : 0;
}

int clean_map_reserve(struct clean_map *m, uint64_t n)
{
    if (clean_map_room(m) >= n)
        return 0;
    struct entry *old = m->entries;
    uint64_t old_slots = m->slots;
    int err = make_table(m, (uint64_t)((double)(m->count + n) / MAX(m->load, 0.05)) + 3);
    if (err < 0)
        return err;
    for (uint64_t i = 0; i < old_slots; i++) {
        if (old[i].next_offset != 0)
            *find(m, old[i].hash) = old[i];
    }
    free(old);
    return 0;
}

void clean_map_put(struct clean_map *m, struct slice key, int64_t offset)
{
    uint64_t hash[2];
    hash_key(m, key, hash);
    struct entry *e = find(m, hash);
    if (e->next_offset == 0) {
        ASSERT(m->count + 1 < m->slots);
        e->hash[0] = hash[0];
        e->hash[1] = hash[1];
        m->count++;
    }
    e->next_offset = (uint64_t)offset + 1;
}

int64_t clean_map_get(const struct clean_map *m, struct slice key)
{
    uint64_t hash[2];
    hash_key(m, key, hash);
    return (int64_t)find(m, hash)->next_offset - 1;
}
