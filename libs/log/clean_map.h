/* clean_map.h - inside libs/log: key -> offset of its last record, for one cleaning (what Kafka's SkimpyOffsetMap is).
 *
 * Keys are kept as keyed 128-bit hashes (SipHash-2-4 with a secret of the process): nobody can choose two keys that
 * fall together, and by chance 10^9 keys do so with a probability below 10^-20. 24 bytes an entry, as in Kafka.
 * Threading: one at a time, whoever cleans. */
#ifndef KARST_LOG_CLEAN_MAP_H
#define KARST_LOG_CLEAN_MAP_H

#include "libs/base/slice.h"

enum { CLEAN_MAP_ENTRY = 24, CLEAN_SEED = 16 };

struct clean_map;

/* A map of that many entries, of which load (0 .. 1) are to be used. NULL: no memory. */
NODISCARD struct clean_map *clean_map_new(uint64_t slots, double load, const uint8_t seed[CLEAN_SEED]);
struct clean_map *clean_map_free(struct clean_map *m); /* takes NULL; returns NULL */

uint64_t clean_map_count(const struct clean_map *m);
/* How many more keys it is to take. */
uint64_t clean_map_room(const struct clean_map *m);
/* Makes room for at least n more keys. 0 or -ENOMEM. */
NODISCARD int clean_map_reserve(struct clean_map *m, uint64_t n);
/* Notes the offset of a key; a key that is there gets the new offset. There must be an unused entry. */
void clean_map_put(struct clean_map *m, struct slice key, int64_t offset);
/* -1: the key is not there. */
int64_t clean_map_get(const struct clean_map *m, struct slice key);

#endif
