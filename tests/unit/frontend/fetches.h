/* fetches.h - Fetches of a client in the world of world.h, and what is replied to the Reads that come of them. */
#ifndef KARST_TESTS_UNIT_FRONTEND_FETCHES_H
#define KARST_TESTS_UNIT_FRONTEND_FETCHES_H

#include "kafka/fetch.h"
#include "tests/unit/frontend/world.h"

struct asked {
    int32_t partition;
    int64_t offset;
};

extern const char *fetches_rack; /* of the client */

void send_fetch(int16_t version, int32_t correlation, int32_t session, int32_t epoch, const struct asked *asked,
                int32_t count);
/* Each partition with high watermark hw, the first with records if there are any. */
void reply_reads(size_t call, int64_t hw, size_t count, const char *records);
void reply_read_with(size_t call, enum kafka_error error, uint32_t preferred); /* the only partition */
/* What the client has received: the answer of that correlation id, in the world's arena. */
const struct kafka_fetch_response *fetched(int16_t version, int32_t correlation);

#endif
