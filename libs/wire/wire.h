/* wire.h - Kafka's messages between C structs and bytes, at every version. One engine, driven by the tables that
 * tools/kafka_codegen.py makes from proto/kafka/ (its README has the notation).
 *
 * For a message NAME of the notation (FetchRequest, TopicRecord, OffsetCommitKey ...) the generated header
 * "kafka/<file>.h" has struct kafka_fetch_request                 fields in snake_case; nested structs
 * kafka_fetch_request_fetch_topic extern const struct wire_type kafka_fetch_request_type kafka_fetch_request_init(m)
 * every field at its default with these shapes: string, bytes, records: struct slice (null: data == NULL); uuid: struct
 * uuid; []T: T *x and int32_t x_count (null: -1); a struct that may be null: a pointer; any other struct: in place; the
 * rest: bool, int8_t ... double.
 *
 * Decoding copies no string and no record: slices point into the bytes, which must outlive the message; arrays and
 * nullable structs come from the arena. Every length is checked against what is left before memory is taken. Any
 * thread; nothing is kept between calls. */
#ifndef KARST_WIRE_WIRE_H
#define KARST_WIRE_WIRE_H

#include "libs/base/arena.h"
#include "libs/base/buf.h"
#include "libs/base/uuid.h"

struct wire_type;

/* The version-free shape on Karst's own bus: every field of every version, flexible, nothing tagged; the tag section at
 * the end of each struct is kept for later releases. Also for messages whose API is removed. */
enum { WIRE_VERSION_BUS = INT16_MAX };

/* Every field of *msg at its default. */
void wire_init(const struct wire_type *type, void *msg);

/* Reads bytes as a message of that version. 0, with *ret_used (may be NULL) the bytes taken, what is behind is not
 * looked at; or -EBADMSG  cut short, a length that lies, null where it may not be, bytes that are no such message
 *   -ENOSPC   it needs more memory than the arena's limit
 *   -EINVAL   the message has no such version */
NODISCARD int wire_decode(const struct wire_type *type, int version, struct slice bytes, struct arena *arena,
                          void *ret_msg, size_t *ret_used);

/* Appends the message at that version. 0, or with *out as it was:
 *   -EINVAL  the message has no such version; a field that is not ignorable has a value and the version lacks it; null
 * where the version does not allow it; a string over 32767 bytes */
NODISCARD int wire_encode(const struct wire_type *type, int version, const void *msg, struct buf *out);

/* The same, but the bytes of `records` fields are left out: each that is not null adds a splice, in order, to splices
 * (room for max; -ENOSPC beyond it). Sizes are those of the whole. slice.data may be any cookie: it is not read. */
struct wire_splice {
    size_t at; /* the records belong before this offset of what was appended to out */
    struct slice records;
};
NODISCARD int wire_encode_splice(const struct wire_type *type, int version, const void *msg, struct buf *out,
                                 struct wire_splice *splices, size_t max, size_t *ret_count);

/* One line of JSON for people and tests: field names as in the notation, bytes in hex, uuids in 22 characters. At
 * WIRE_VERSION_BUS every field; else those of the version. */
void wire_json(const struct wire_type *type, int version, const void *msg, struct buf *out);

const char *wire_name(const struct wire_type *type);
size_t wire_struct_size(const struct wire_type *type);
int wire_version_min(const struct wire_type *type); /* -1: no version is alive */
int wire_version_max(const struct wire_type *type);
bool wire_is_flexible(const struct wire_type *type, int version);

/* The table of APIs: "kafka/apis.h" has enum kafka_api { KAFKA_API_PRODUCE = 0, ... }. */
struct wire_api {
    int16_t key;
    const char *name;                 /* "Produce" */
    int16_t version_min, version_max; /* alive in Kafka 4.3.1; min > max: removed */
    bool latest_unstable;
    bool on_broker, on_controller; /* listeners */
    const struct wire_type *request, *response;
};
/* NULL for a key that is none. */
const struct wire_api *wire_api(int16_t key);
int16_t wire_api_count(void); /* keys are 0 .. count - 1 */

/* Header versions of an API at a version (request 1 or 2; response 0 or 1, ApiVersions always 0). */
int wire_request_header_version(const struct wire_api *api, int version);
int wire_response_header_version(const struct wire_api *api, int version);

/* By the name in the notation ("FetchRequest", "TopicRecord"); NULL: no such message. For tests and tools. */
const struct wire_type *wire_type_by_name(const char *name);

/* The type of a metadata record (kafka/metadata) by its id, or of a coordinator record's key or value; NULL: no such
 * type. */
const struct wire_type *wire_metadata_record(int id);
const struct wire_type *wire_group_record(int id, bool key);
const struct wire_type *wire_txn_record(int id, bool key);

#endif
