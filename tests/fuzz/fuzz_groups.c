// link: groups wire base
/* Any bytes as the records of a partition of __consumer_offsets: loaded, checked, then used and dropped. A record is a
 * flags byte (null key, null value, transactional, control, producer), the key's size, the value's size, and the bytes.
 */
#include "libs/groups/groups.h"

#include "kafka/apis.h"
#include "kafka/list_groups.h"
#include "kafka/offset_fetch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void random_bytes(void *ctx, uint8_t out[16])
{
    (void)ctx;
    memset(out, 0x55, 16);
}

static bool by_name(void *ctx, struct slice name, struct uuid *ret_id, int32_t *ret_partitions)
{
    (void)ctx, (void)name;
    *ret_id = UUID_ZERO;
    *ret_partitions = 1;
    return true;
}

static bool by_id(void *ctx, struct uuid id, struct slice *ret_name, int32_t *ret_partitions)
{
    (void)ctx, (void)id, (void)ret_name, (void)ret_partitions;
    return false;
}

static struct slice take(const uint8_t **at, const uint8_t *end, size_t n)
{
    size_t left = (size_t)(end - *at);
    struct slice s = slice_make(*at, n < left ? n : left);
    *at += s.size;
    return s;
}

static void load(struct groups *g, uint64_t number, const uint8_t *at, const uint8_t *end)
{
    struct groups_out out;
    struct groups_now now = {.mono_ms = 1, .wall_ms = 1};
    for (int64_t offset = 0; end - at >= 3; offset++) {
        uint8_t flags = at[0];
        size_t key_size = at[1], value_size = at[2];
        at += 3;
        struct groups_record r = {.offset = offset,
                                  .producer_id = flags >> 4,
                                  .transactional = (flags & 4) != 0,
                                  .control = (flags & 8) != 0};
        r.key = take(&at, end, key_size);
        r.value = take(&at, end, value_size);
        if (flags & 1)
            r.key = SLICE_NULL;
        if (flags & 2)
            r.value = SLICE_NULL;
        groups_step(
            g,
            &(struct groups_event){.kind = GROUPS_EVENT_LOAD_RECORDS, .load = number, .records = &r, .record_count = 1},
            now, &out);
    }
    groups_step(g, &(struct groups_event){.kind = GROUPS_EVENT_LOADED, .load = number}, now, &out);
    groups_check(g);
}

static void ask(struct groups *g, int16_t api, int16_t version, const void *message)
{
    struct groups_out out;
    struct groups_request q = {.id = 1,
                               .api_key = api,
                               .api_version = version,
                               .client_id = SLICE_EMPTY,
                               .client_host = SLICE_EMPTY,
                               .message = message};
    groups_step(g, &(struct groups_event){.kind = GROUPS_EVENT_REQUEST, .request = &q},
                (struct groups_now){.mono_ms = 1, .wall_ms = 1}, &out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct groups_config config;
    struct groups_env env = {.random = random_bytes, .topic_by_name = by_name, .topic_by_id = by_id};
    struct groups_out out;
    groups_config_init(&config);
    struct groups *g = groups_new(&config, &env);
    groups_set_partition_count(g, 1);
    groups_step(g, &(struct groups_event){.kind = GROUPS_EVENT_ACQUIRE, .epoch = 1}, (struct groups_now){.mono_ms = 1},
                &out);
    load(g, out.actions[0].load, data, data + size);
    struct kafka_list_groups_request list = {0};
    ask(g, KAFKA_API_LIST_GROUPS, 5, &list);
    struct kafka_offset_fetch_request fetch = {.group_id = SLICE_OF("g"), .topics_count = -1};
    ask(g, KAFKA_API_OFFSET_FETCH, 7, &fetch);
    /* Far in the future every timer has fired and every retention is over. */
    for (int i = 0; i < 3; i++) {
        struct groups_now later = {.mono_ms = groups_deadline_ms(g), .wall_ms = INT64_MAX / 2};
        groups_step(g, &(struct groups_event){.kind = GROUPS_EVENT_TIME}, later, &out);
        groups_check(g);
    }
    groups_step(g, &(struct groups_event){.kind = GROUPS_EVENT_RELEASE}, (struct groups_now){.mono_ms = 2}, &out);
    groups_free(g);
    return 0;
}
