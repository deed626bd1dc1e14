/* levels.h - which version of a record the finalized features ask for, and records made of what an image holds. What
 * the controller and snapshots both write. */
#ifndef KARST_METADATA_LEVELS_H
#define KARST_METADATA_LEVELS_H

#include "libs/metadata/image.h"
#include "libs/metadata/metarecord.h"

struct kafka_register_broker_record;
struct kafka_partition_record;
struct karst_service_record;

/* The features that Karst has, as Kafka 4.3.1 has them (apis.md): what a node registers as supported, and the level
 * that the formatter gives a new cluster (0: none; kraft.version is not a record but in the control records). In the
 * formatter's order. */
enum { METADATA_FEATURES = 7 };
struct metadata_feature {
    const char *name;
    int16_t min, max, initial;
};
extern const struct metadata_feature metadata_features[METADATA_FEATURES];

/* The version of a record at the image's metadata.version (Kafka's MetadataVersion.java: registerBrokerRecordVersion
 * and the like). */
int metadata_record_version(const struct image *i, enum metarecord_type type);

/* Messages of what an image holds. Arrays that need another shape come from the arena; the rest points into the image.
 */
void metadata_register_broker(const struct image *i, const struct image_broker *b, struct arena *arena,
                              struct kafka_register_broker_record *ret_m);
void metadata_partition(struct uuid topic_id, const struct image_partition *p, int version,
                        struct kafka_partition_record *ret_m);
void metadata_service_record(const struct image_service *s, struct arena *arena, struct karst_service_record *ret_m);

#endif
