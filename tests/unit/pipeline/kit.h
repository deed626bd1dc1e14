/* kit.h - what the tests of the pipeline share: a client's bytes, answers, memory as an arena would give it. */
#ifndef KARST_TESTS_PIPELINE_KIT_H
#define KARST_TESTS_PIPELINE_KIT_H

#include "libs/base/buf.h"
#include "libs/pipeline/pipeline.h"

enum { KEY_PRODUCE = 0, KEY_OTHER = 3 }; /* KEY_PRODUCE overlaps */

extern const uint8_t KIT_IP_A[16], KIT_IP_B[16];

struct pipeline_options options(void);
uint64_t open_conn(struct pipeline *p);
/* A frame of an API with a correlation id, padded to size bytes. */
void put_frame(struct buf *b, int16_t key, int32_t correlation, uint32_t size);
/* Offers bytes in pieces of at most chunk, as long as the connection reads. The bytes taken. */
size_t feed(struct pipeline *p, uint64_t conn, const struct buf *b, size_t chunk, uint64_t now);
void answer(struct pipeline *p, uint64_t id, const char *text);
/* Everything that may be written now, up to a file. */
void take_output(struct pipeline *p, uint64_t conn, size_t chunk, char *out);
struct pipeline_attention attention_of(struct pipeline *p, uint64_t conn);

/* room bytes of memory, given in whole pages. */
struct kit_memory {
    size_t room, taken, given, refused;
};
void kit_use(struct pipeline_options *o, struct kit_memory *m);
bool kit_is_given(const struct pipeline_request *r); /* Does its frame lie there? */

#endif
