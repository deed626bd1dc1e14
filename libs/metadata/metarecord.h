/* metarecord.h - one value of the metadata log: uvarint frame version 1, uvarint type, uvarint version, body
 * (records.md).
 *
 * Karst's own facts are tagged fields of a NoOpRecord (type 20), from tag 10000: Kafka skips them, and its snapshots
 * drop them. One NoOpRecord carries one of them. Any thread. */
#ifndef KARST_METADATA_METARECORD_H
#define KARST_METADATA_METARECORD_H

#include "libs/wire/wire.h"

/* Kafka's types: the numbers after the names in proto/kafka/metadata. */
enum metarecord_type {
    METARECORD_REGISTER_BROKER = 0,
    METARECORD_UNREGISTER_BROKER = 1,
    METARECORD_TOPIC = 2,
    METARECORD_PARTITION = 3,
    METARECORD_CONFIG = 4,
    METARECORD_PARTITION_CHANGE = 5,
    METARECORD_FENCE_BROKER = 7,
    METARECORD_UNFENCE_BROKER = 8,
    METARECORD_REMOVE_TOPIC = 9,
    METARECORD_DELEGATION_TOKEN = 10,
    METARECORD_USER_SCRAM_CREDENTIAL = 11,
    METARECORD_FEATURE_LEVEL = 12,
    METARECORD_CLIENT_QUOTA = 14,
    METARECORD_PRODUCER_IDS = 15,
    METARECORD_BROKER_REGISTRATION_CHANGE = 17,
    METARECORD_ACCESS_CONTROL_ENTRY = 18,
    METARECORD_REMOVE_ACCESS_CONTROL_ENTRY = 19,
    METARECORD_NO_OP = 20,
    METARECORD_ZK_MIGRATION_STATE = 21,
    METARECORD_REMOVE_USER_SCRAM_CREDENTIAL = 22,
    METARECORD_BEGIN_TRANSACTION = 23,
    METARECORD_END_TRANSACTION = 24,
    METARECORD_ABORT_TRANSACTION = 25,
    METARECORD_REMOVE_DELEGATION_TOKEN = 26,
    METARECORD_REGISTER_CONTROLLER = 27,
    METARECORD_CLEAR_ELR = 28,
};

/* Tags in a NoOpRecord. */
enum { METARECORD_TAG_SERVICE = 10000, METARECORD_TAG_COORDINATOR = 10001 };

/* The levels of metadata.version from which a record has what we write (apis.md). */
enum {
    METADATA_VERSION_CONTROLLERS = 15, /* RegisterControllerRecord */
    METADATA_VERSION_DIRECTORIES = 17,
    METADATA_VERSION_ELR = 23,
    METADATA_VERSION_LATEST = 30
};

struct metarecord {
    uint32_t type;
    int version;
    struct slice body;
};

/* 0 or -EBADMSG: no such frame. The type may still be unknown. */
NODISCARD int metarecord_parse(struct slice value, struct metarecord *ret_record);

/* Decodes the body of its type into a message in the arena: 0, or -EBADMSG for an unknown type or version and for bytes
 * that are no such message. */
NODISCARD int metarecord_decode(const struct metarecord *r, struct arena *arena, void **ret_msg);

/* Appends a framed record. 0, or -EINVAL with *out as it was: the message does not fit the version (a string over 32767
 * bytes). */
NODISCARD int metarecord_write(struct buf *out, enum metarecord_type type, int version, const void *msg);
/* The same of a NoOpRecord with one tagged field that holds msg, version 0 of the type of the tag. */
NODISCARD int metarecord_write_tag(struct buf *out, uint32_t tag, const void *msg);

/* Walks the tagged fields of a NoOpRecord's body; start with at 0. 1 with the next one, 0 at the end, -EBADMSG. */
NODISCARD int metarecord_tag_next(struct slice body, size_t *at, uint32_t *left, uint32_t *ret_tag,
                                  struct slice *ret_value);

#endif
