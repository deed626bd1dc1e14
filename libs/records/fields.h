/* fields.h - inside libs/records: the fields of one record that lies in one piece. */
#ifndef KARST_RECORDS_FIELDS_H
#define KARST_RECORDS_FIELDS_H

#include "libs/base/bytes.h"
#include "libs/records/records.h"

struct record_fields {
    int64_t time_delta;
    int32_t offset_delta;
    struct slice key, value;
    int32_t header_count;
    struct slice headers; /* encoded */
};

static inline int64_t record_timestamp(const struct batch *b, int64_t time_delta)
{
    return b->attributes & BATCH_ATTR_LOG_APPEND_TIME ? b->max_timestamp
                                                      : (int64_t)((uint64_t)b->base_timestamp + (uint64_t)time_delta);
}

/* A varint length and that many bytes; -1 is null when null_allowed. */
static inline bool record_read_bytes(const uint8_t **at, const uint8_t *end, bool null_allowed, struct slice *ret)
{
    int32_t size;
    size_t n = get_varint32(*at, end, &size);
    if (n == 0)
        return false;
    *at += n;
    if (size < 0) {
        *ret = SLICE_NULL;
        return size == -1 && null_allowed;
    }
    if (size > end - *at)
        return false;
    *ret = slice_make(*at, (size_t)size);
    *at += size;
    return true;
}

/* The record from p, behind its length, to end. False: it is none. */
static inline bool record_read_fields(const uint8_t *p, const uint8_t *end, struct record_fields *r)
{
    size_t n;
    if (p == end)
        return false;
    p++; /* attributes: unused */
    if ((n = get_varint64(p, end, &r->time_delta)) == 0)
        return false;
    p += n;
    if ((n = get_varint32(p, end, &r->offset_delta)) == 0)
        return false;
    p += n;
    if (!record_read_bytes(&p, end, true, &r->key) || !record_read_bytes(&p, end, true, &r->value))
        return false;
    if ((n = get_varint32(p, end, &r->header_count)) == 0 || r->header_count < 0 || r->header_count > end - p)
        return false;
    p += n;
    r->headers = slice_make(p, (size_t)(end - p));
    struct slice key, value;
    for (int32_t i = 0; i < r->header_count; i++) {
        if (!record_read_bytes(&p, end, false, &key) || !record_read_bytes(&p, end, true, &value))
            return false;
    }
    return p == end;
}

#endif
