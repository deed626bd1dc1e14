// link: log records base
/* fuzz_append.c - what a client may append: any batch under any topic's rules. What is taken can be read by everyone,
 * keeps to the rules, and is no larger than they say; a refusal names its reason. The first bytes choose the rules, the
 * rest is the batch, with its CRC put right, or the fuzzer would never get in. */
#include "libs/base/bytes.h"
#include "libs/log/check.h"
#include <stdlib.h>

enum { RULES = 4, MAX_MESSAGE = 4096, EVERYTHING = 64 * MAX_MESSAGE };
static const int64_t now_ms = 1700000000000;

static struct log_config rules_of(const uint8_t *data)
{
    struct log_config c;
    log_config_init(&c);
    c.max_message_bytes = MAX_MESSAGE;
    c.compression = data[0] % 6 - 1;
    if (c.compression == COMPRESS_GZIP)
        c.compression_level = 1 + data[1] % 9;
    else if (c.compression == COMPRESS_LZ4 || c.compression == COMPRESS_ZSTD)
        c.compression_level = 1 + data[1] % 6;
    c.cleanup_compact = data[2] & 1;
    c.log_append_time = data[2] & 2;
    if (data[2] & 4)
        c.message_timestamp_before_max_ms = 3600000;
    if (data[2] & 8)
        c.message_timestamp_after_max_ms = INT64_MAX;
    return c;
}

/* Every record, as a consumer reads it. typed: the client claimed LogAppendTime, which Kafka takes off, as far as the
 * batch's one time is good; what stood behind it then shows. */
static void read_back(const struct log_config *c, const struct batch *b, struct slice bytes, bool typed)
{
    struct buf scratch = {0};
    struct record_iter it;
    struct record r;
    int32_t count = 0;
    ASSERT(record_iter_init(&it, b, bytes, &scratch, EVERYTHING) == 0);
    while (record_iter_next(&it, &r) == 1) {
        ASSERT(!c->cleanup_compact || !slice_is_null(r.key));
        ASSERT(typed || c->log_append_time || r.timestamp == RECORDS_NO_TIMESTAMP ||
               r.timestamp >= now_ms - c->message_timestamp_before_max_ms);
        count++;
    }
    ASSERT(count == b->record_count && count == b->last_offset_delta + 1 && it.at == it.end);
    buf_free(&scratch);
}

static void append(struct check *c, uint8_t *bytes, size_t size)
{
    struct batch b;
    put_u32(bytes + BATCH_LENGTH, (uint32_t)size - BATCH_LENGTH_OVERHEAD);
    bytes[BATCH_MAGIC] = RECORDS_MAGIC;
    put_u32(bytes + BATCH_CRC, bytes_crc32c(0, bytes + BATCH_ATTRIBUTES, size - BATCH_ATTRIBUTES));
    ASSERT(batch_parse_header(slice_make(bytes, size), &b) == 0);
    enum kafka_error error = check_header(c, &b);
    if (error == KERR_NONE)
        error = check_body(c, &b, bytes, slice_make(bytes, size));
    if (error != KERR_NONE) {
        ASSERT(c->append->message != NULL && error != KERR_UNKNOWN_SERVER_ERROR);
        return;
    }
    ASSERT(c->append->record_error_count == 0);
    bool typed = b.attributes & BATCH_ATTR_LOG_APPEND_TIME;
    struct slice out = c->made != NULL ? buf_slice(c->made) : slice_make(bytes, size);
    ASSERT(c->made == NULL || c->restamp);
    if (c->restamp) {
        struct buf copy = {0};
        buf_append(&copy, out.data, out.size);
        batch_set_times(copy.data, buf_slice(&copy), c->config->log_append_time, c->max_timestamp);
        ASSERT(batch_read_header(buf_slice(&copy), &b) == 0 && batch_crc_holds(&b, buf_slice(&copy)));
        read_back(c->config, &b, buf_slice(&copy), typed);
        buf_free(&copy);
    } else {
        read_back(c->config, &b, out, typed);
    }
    ASSERT(out.size <= MAX_MESSAGE);
    ASSERT(c->config->compression < 0 || batch_codec(&b) == c->config->compression);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct check_tools tools;
    if (size < RULES + BATCH_HEADER_SIZE)
        return 0;
    struct log_config config = rules_of(data);
    struct log_append a = {.origin = LOG_FROM_CLIENT, .now_wall_ms = now_ms};
    struct check c = {.config = &config, .partition = "topic-0", .append = &a, .tools = &tools};
    uint8_t *bytes = xmalloc(size - RULES);
    memcpy(bytes, data + RULES, size - RULES);
    append(&c, bytes, size - RULES);
    free(a.record_errors);
    free(bytes);
    return 0;
}
