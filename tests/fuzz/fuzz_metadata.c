// link: kraft metadata log records wire base
/* fuzz_metadata.c - any bytes as the metadata log. Byte 0 says how to take the rest:
 *   0  as record values (u16 size each), wrapped in batches whose CRC holds, on an image that has a few things in it
 * already 1  as whole batches   2  as a snapshot   3  as the JSON of quorum-state   4  as the value of a voters'
 * control record What comes out is used: queries, a snapshot of it, and that snapshot read back must give the same. */
#include <stdlib.h>

#include "kafka/partition_record.h"
#include "kafka/topic_record.h"
#include "libs/base/bytes.h"
#include "libs/kraft/kraft.h"
#include "libs/kraft/snapshot.h"
#include "libs/metadata/image.h"
#include "libs/metadata/metarecord.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void wrap(struct buf *out, int64_t offset, struct slice value)
{
    struct batch_options o = BATCH_OPTIONS;
    struct batch_builder b;
    o.base_offset = offset;
    o.leader_epoch = 1;
    batch_begin(&b, out, &o);
    batch_add(&b, 1, SLICE_NULL, value, NULL, 0);
    if (batch_end(&b) != 0)
        abort();
}

static void put(struct buf *out, int64_t offset, enum metarecord_type type, int version, const void *msg)
{
    struct buf value = {0};
    if (metarecord_write(&value, type, version, msg) != 0)
        abort();
    wrap(out, offset, buf_slice(&value));
    buf_free(&value);
}

/* A topic with an id that is easy to guess. */
static struct image *start(void)
{
    struct buf log = {0};
    struct image *empty = image_empty("cluster"), *i = NULL;
    struct kafka_topic_record t = {.name = SLICE_OF("t"), .topic_id = UUID_ZERO};
    int32_t one = 1;
    struct uuid dir = UUID_DIR_UNASSIGNED;
    struct kafka_partition_record p;
    kafka_partition_record_init(&p);
    p.partition_id = 0;
    p.replicas = p.isr = &one;
    p.replicas_count = p.isr_count = 1;
    p.leader = 1;
    p.directories = &dir;
    p.directories_count = 1;
    put(&log, 0, METARECORD_TOPIC, 0, &t);
    put(&log, 1, METARECORD_PARTITION, 1, &p);
    if (image_apply(empty, buf_slice(&log), &i, NULL) != 0)
        abort();
    image_release(empty);
    buf_free(&log);
    return i;
}

static void on_topic(void *ctx, const struct image_topic *before, const struct image_topic *after)
{
    *(int32_t *)ctx += (before ? before->partition_count : 0) + (after ? after->partition_count : 0);
}

static void use(const struct image *i)
{
    int32_t count, sum = 0;
    const struct image_topic *const *topics = image_topics(i, &count);
    for (int32_t n = 0; n < count; n++)
        if (image_topic_by_name(i, topics[n]->name) != topics[n] || image_topic_by_id(i, topics[n]->id) != topics[n])
            abort();
    image_brokers(i, &count);
    image_services(i, &count);
    image_diff(NULL, i, &(struct image_diff){.topic = on_topic, .ctx = &sum});
    if (image_in_transaction(i))
        return;
    struct buf b = {0};
    struct image *copy = NULL;
    kraft_snapshot_of(i, 1, &b);
    if (!kraft_snapshot_is_whole(buf_slice(&b)) ||
        image_load("cluster", buf_slice(&b), image_offset(i) + 1, -1, &copy) != 0 || !image_equal(i, copy))
        abort();
    image_release(copy);
    buf_free(&b);
}

static void as_records(struct slice rest)
{
    struct image *i = start(), *next;
    for (int64_t offset = 2; rest.size >= 2; offset++) {
        size_t size = get_u16(rest.data);
        size = size < rest.size - 2 ? size : rest.size - 2;
        struct buf batch = {0};
        wrap(&batch, offset, slice_make(rest.data + 2, size));
        rest = slice_make(rest.data + 2 + size, rest.size - 2 - size);
        if (image_apply(i, buf_slice(&batch), &next, NULL) == 0) {
            image_release(i);
            i = next;
        }
        buf_free(&batch);
    }
    use(i);
    image_release(i);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct kraft_quorum_state state;
    static struct kraft_voters voters;
    struct image *i = NULL, *empty;
    if (size < 1)
        return 0;
    struct slice rest = slice_make(data + 1, size - 1);
    switch (data[0] % 5) {
    case 0: as_records(rest); break;
    case 1:
        empty = image_empty("cluster");
        if (image_apply(empty, rest, &i, NULL) == 0)
            use(i);
        image_release(empty);
        break;
    case 2:
        (void)kraft_snapshot_is_whole(rest);
        if (image_load("cluster", rest, 100, -1, &i) == 0)
            use(i);
        break;
    case 3: (void)!kraft_quorum_state_decode(rest, &state); break;
    case 4: (void)!kraft_voters_decode(rest, &voters); break;
    }
    image_release(i);
    return 0;
}
