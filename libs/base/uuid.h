/* uuid.h - Kafka's 16-byte ids and their 22 characters (URL-safe base64 without padding). */
#ifndef KARST_BASE_UUID_H
#define KARST_BASE_UUID_H

#include "libs/base/slice.h"

struct uuid {
    uint8_t b[16];
};

enum { UUID_TEXT = 22 };

#define UUID_ZERO           ((struct uuid){{0}})
#define UUID_METADATA_TOPIC ((struct uuid){{[15] = 1}}) /* also a directory's UNASSIGNED */
#define UUID_DIR_MIGRATING  UUID_ZERO
#define UUID_DIR_UNASSIGNED ((struct uuid){{[15] = 1}})
#define UUID_DIR_LOST       ((struct uuid){{[15] = 2}})

static inline bool uuid_eq(struct uuid a, struct uuid b)
{
    return memcmp(a.b, b.b, 16) == 0;
}
static inline bool uuid_is_zero(struct uuid a)
{
    return uuid_eq(a, UUID_ZERO);
}

struct uuid_text {
    char s[UUID_TEXT + 1];
};

struct uuid_text uuid_to_text(struct uuid u);                       /* .s is terminated */
NODISCARD int uuid_parse(struct slice text, struct uuid *ret_uuid); /* 0 or -EINVAL */

/* A version 4 UUID of 16 random bytes, as Kafka makes them: none of the reserved ids, no '-' at the start of the text.
 * The caller brings the randomness; -EAGAIN asks for other bytes. */
NODISCARD int uuid_from_random(const uint8_t random[16], struct uuid *ret_uuid);

/* The usual 36-character form with dashes, for member ids. out has room for 37. */
void uuid_to_dashed(struct uuid u, char out[37]);

#endif
