/* snapshot.c - snapshots as bytes. */
#include "libs/kraft/snapshot.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "kafka/kraft_version_record.h"
#include "kafka/snapshot_footer_record.h"
#include "kafka/snapshot_header_record.h"
#include "libs/wire/wire.h"

enum { BATCH_BYTES_MAX = 512 << 10 };

static void begin_batch(struct kraft_snapshot *s, int16_t attributes)
{
    s->options.attributes = attributes;
    batch_begin(&s->batch, s->out, &s->options);
    s->open = true;
}

static void end_batch(struct kraft_snapshot *s)
{
    if (!s->open)
        return;
    s->options.base_offset += batch_builder_count(&s->batch);
    int error = batch_end(&s->batch);
    ASSERT(error == 0);
    s->open = false;
}

static void add_control(struct kraft_snapshot *s, enum control_type type, const struct wire_type *message,
                        const void *m)
{
    struct buf value CLEANUP(buf_free) = {0};
    int error = wire_encode(message, 0, m, &value);
    ASSERT(error == 0);
    batch_add_control(&s->batch, s->now_ms, (int16_t)type, buf_slice(&value));
}

void kraft_snapshot_begin(struct kraft_snapshot *s, struct buf *out, int32_t epoch, int64_t now_ms, int64_t last_log_ms,
                          int16_t kraft_version, struct slice voters)
{
    *s = (struct kraft_snapshot){.out = out, .options = BATCH_OPTIONS, .now_ms = now_ms};
    s->options.leader_epoch = epoch;
    begin_batch(s, BATCH_ATTR_CONTROL);
    struct kafka_snapshot_header_record header = {.last_contained_log_timestamp = last_log_ms};
    add_control(s, CONTROL_SNAPSHOT_HEADER, &kafka_snapshot_header_record_type, &header);
    if (!slice_is_null(voters)) {
        struct kafka_kraft_version_record version = {.kraft_version = kraft_version};
        add_control(s, CONTROL_KRAFT_VERSION, &kafka_kraft_version_record_type, &version);
        batch_add_control(&s->batch, now_ms, CONTROL_KRAFT_VOTERS, voters);
    }
    end_batch(s);
}

void kraft_snapshot_add(struct kraft_snapshot *s, struct slice record_value)
{
    if (s->open && batch_builder_size(&s->batch) + record_value.size > BATCH_BYTES_MAX)
        end_batch(s);
    if (!s->open)
        begin_batch(s, 0);
    batch_add(&s->batch, s->now_ms, SLICE_NULL, record_value, NULL, 0);
}

void kraft_snapshot_end(struct kraft_snapshot *s)
{
    end_batch(s);
    begin_batch(s, BATCH_ATTR_CONTROL);
    struct kafka_snapshot_footer_record footer = {0};
    add_control(s, CONTROL_SNAPSHOT_FOOTER, &kafka_snapshot_footer_record_type, &footer);
    end_batch(s);
}

static void add_value(void *ctx, struct slice record_value)
{
    kraft_snapshot_add(ctx, record_value);
}

void kraft_snapshot_of(const struct image *i, int64_t now_ms, struct buf *out)
{
    struct kraft_snapshot s;
    kraft_snapshot_begin(&s, out, image_epoch(i), now_ms, image_timestamp_ms(i), image_kraft_version(i),
                         image_voters(i));
    image_each_record(i, add_value, &s);
    kraft_snapshot_end(&s);
}

/* The type of the first record of a control batch; -1: it is none. */
static int first_control(const struct batch *b, struct slice bytes)
{
    struct buf scratch CLEANUP(buf_free) = {0};
    struct record_iter it;
    struct record r;
    if (!batch_is_control(b) || record_iter_init(&it, b, bytes, &scratch, BATCH_BYTES_MAX) != 0 ||
        record_iter_next(&it, &r) != 1)
        return -1;
    return control_type_of(r.key);
}

bool kraft_snapshot_is_whole(struct slice bytes)
{
    struct batch b;
    struct slice one;
    int more, first = -1, last = -1;
    for (bool start = true; (more = batch_next(&bytes, &b, &one)) == 1; start = false) {
        if (!batch_crc_holds(&b, one))
            return false;
        last = first_control(&b, one);
        first = start ? last : first;
    }
    return more == 0 && first == CONTROL_SNAPSHOT_HEADER && last == CONTROL_SNAPSHOT_FOOTER;
}

void kraft_snapshot_name(int64_t end_offset, int32_t epoch, char out[KRAFT_SNAPSHOT_NAME])
{
    snprintf(out, KRAFT_SNAPSHOT_NAME, "%020" PRId64 "-%010d.checkpoint", end_offset, epoch);
}

static bool all_digits(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (s[i] < '0' || s[i] > '9')
            return false;
    return true;
}

bool kraft_snapshot_parse_name(const char *name, int64_t *ret_end_offset, int32_t *ret_epoch)
{
    if (strlen(name) != 42 || name[20] != '-' || strcmp(name + 31, ".checkpoint") != 0 || !all_digits(name, 20) ||
        !all_digits(name + 21, 10))
        return false;
    errno = 0;
    long long offset = strtoll(name, NULL, 10), epoch = strtoll(name + 21, NULL, 10);
    if (errno != 0 || epoch > INT32_MAX)
        return false;
    *ret_end_offset = offset;
    *ret_epoch = (int32_t)epoch;
    return true;
}
