/* keys.c - look-ups in the key table and Kafka's validation of a value, in Kafka's words (ConfigDef,
 * LogConfig.validate). */
#include "libs/config/keys.h"

#include "libs/base/buf.h"
#include "libs/config/parse.h"
#include "libs/config/table.h"
#include <stdio.h>

const struct config_key *config_keys(enum config_scope scope, size_t *ret_count)
{
    ASSERT(scope < CONFIG_SCOPES);
    size_t start = scope == CONFIG_BROKER ? 0 : config_table_ends[scope - 1];
    *ret_count = config_table_ends[scope] - start;
    return config_table + start;
}

const struct config_key *config_key_find_slice(enum config_scope scope, struct slice name)
{
    size_t count, low = 0;
    const struct config_key *keys = config_keys(scope, &count);
    while (low < count) {
        size_t middle = low + (count - low) / 2;
        int c = slice_cmp(slice_str(keys[middle].name), name);
        if (c == 0)
            return &keys[middle];
        if (c < 0)
            low = middle + 1;
        else
            count = middle;
    }
    return NULL;
}

const struct config_key *config_key_find(enum config_scope scope, const char *name)
{
    return config_key_find_slice(scope, slice_str(name));
}

const char *config_key_text(const struct config_key *key)
{
    const char *text = config_table_texts[key - config_table];
    return text ? text : "Described in the documentation of Apache Kafka 4.3. Karst does not honour it yet.";
}

static char *invalid(const struct config_key *key, struct slice value, const char *why)
{
    if (slice_is_null(value))
        value = slice_str("null");
    return xasprintf("Invalid value " SLICE_F " for configuration %s: %s", SLICE_A(value), key->name, why);
}

static char *invalid_free(const struct config_key *key, struct slice value, char *why)
{
    char *text = invalid(key, value, why);
    free(why);
    return text;
}

/* number as Java prints it: of a value that is no number the text is shown as it came, of others the number. */
static char *check_range(const struct config_key *key, const char *shown, double number)
{
    struct slice value = slice_str(shown);
    if (key->rule == CONFIG_RANGE_OR) {
        if (number == key->other || (number >= key->min && number <= key->max))
            return NULL;
        return invalid_free(
            key, value,
            xasprintf("Value must be between %.15g and %.15g or equal to %.15g", key->min, key->max, key->other));
    }
    if (key->rule == CONFIG_RANGE && number < key->min)
        return invalid_free(key, value, xasprintf("Value must be at least %.15g", key->min));
    if (key->rule == CONFIG_RANGE && number > key->max)
        return invalid_free(key, value, xasprintf("Value must be no more than %.15g", key->max));
    return NULL;
}

static char *check_integer(const struct config_key *key, struct slice value)
{
    int64_t number;
    char shown[24];
    int64_t max = key->type == CONFIG_TYPE_INT ? INT32_MAX : key->type == CONFIG_TYPE_SHORT ? INT16_MAX : INT64_MAX;
    if (!parse_int64(parse_trim(value), &number) || number > max || number < -max - 1) {
        const char *name = key->type == CONFIG_TYPE_INT ? "INT" : key->type == CONFIG_TYPE_SHORT ? "SHORT" : "LONG";
        return invalid_free(key, value, xasprintf("Not a number of type %s", name));
    }
    snprintf(shown, sizeof shown, "%lld", (long long)number);
    return check_range(key, shown, (double)number);
}

static bool is_choice(const struct config_key *key, struct slice value)
{
    for (const char *const *choice = key->choices; *choice; choice++)
        if (strlen(*choice) == value.size &&
            (key->rule == CONFIG_ONE_OF_NOCASE ? strncasecmp(*choice, (const char *)value.data, value.size) == 0
                                               : memcmp(*choice, value.data, value.size) == 0))
            return true;
    return false;
}

static char *check_choice(const struct config_key *key, struct slice value)
{
    if (is_choice(key, value))
        return NULL;
    struct buf b = {0};
    buf_printf(&b, "String must be one of%s: ", key->rule == CONFIG_ONE_OF_NOCASE ? " (case insensitive)" : "");
    for (const char *const *choice = key->choices; *choice; choice++)
        buf_printf(&b, "%s%s", choice == key->choices ? "" : ", ", *choice);
    buf_append(&b, "", 1);
    return invalid_free(key, value, (char *)b.data);
}

/* "[a, b]", as Java prints a list. */
static char *print_list(struct slice value)
{
    struct buf b = {0};
    struct slice item;
    buf_append(&b, "[", 1);
    for (bool first = true; parse_item(&value, &item); first = false)
        buf_printf(&b, "%s" SLICE_F, first ? "" : ", ", SLICE_A(item));
    buf_append(&b, "]", 2);
    return (char *)b.data;
}

static bool is_throttled(struct slice item)
{
    const uint8_t *colon = memchr(item.data, ':', item.size);
    int64_t number;
    if (colon == NULL)
        return false;
    size_t left = (size_t)(colon - item.data);
    return parse_int64(slice_make(item.data, left), &number) && number >= 0 &&
           parse_int64(slice_make(colon + 1, item.size - left - 1), &number) && number >= 0;
}

static char *check_throttled(const struct config_key *key, struct slice value)
{
    struct slice all = value, item;
    bool good = slice_eq_str(parse_trim(value), "*");
    for (; !good && parse_item(&all, &item);)
        if (!is_throttled(item)) {
            char *shown = print_list(value);
            char *why = xasprintf("%s must be the literal '*' or a list of replicas in the following format: %s",
                                  key->name, key->valid);
            char *text = invalid_free(key, slice_str(shown), why);
            free(shown);
            return text;
        }
    return NULL;
}

static char *check_list(const struct config_key *key, struct slice value)
{
    struct slice item;
    bool open = value.size > 0 && value.data[value.size - 1] == ','; /* an empty item, which is not iterated over */
    if (key->rule == CONFIG_THROTTLED)
        return check_throttled(key, value);
    if (key->choices == NULL)
        return NULL;
    while (parse_item(&value, &item)) {
        if (item.size == 0 || (open && value.size == 0))
            return xasprintf("Configuration '%s' values must not be empty.", key->name);
        char *text = check_choice(key, item);
        if (text)
            return text;
    }
    return NULL;
}

/* PnDTnHnMn.nS, not negative, of at least one part (java.time.Duration.parse). */
static bool is_duration(const char *p, const char *end)
{
    bool part = false, time = false;
    if (p == end || (*p++ | 0x20) != 'p')
        return false;
    while (p < end) {
        if (!time && (*p | 0x20) == 't') {
            time = true;
            part = false;
            p++;
            continue;
        }
        const char *digits = p;
        while (p < end && ((*p >= '0' && *p <= '9') || *p == '.'))
            p++;
        if (p == digits || p == end || strchr(time ? "hHmMsS" : "dD", *p++) == NULL)
            return false;
        part = true;
    }
    return part;
}

static char *check_offset_reset(const struct config_key *key, struct slice value)
{
    static const char prefix[] = "by_duration:";
    size_t n = sizeof(prefix) - 1;
    const char *text = (const char *)value.data;
    if (slice_eq_str(value, "latest") || slice_eq_str(value, "earliest"))
        return NULL;
    if (value.size > n && memcmp(text, prefix, n) == 0 && is_duration(text + n, text + value.size))
        return NULL;
    return invalid_free(key, value,
                        xasprintf("Invalid value `" SLICE_F
                                  "` for configuration %s. The value must be either 'earliest', 'latest' "
                                  "or of the format 'by_duration:<PnDTnHnMn.nS>'.",
                                  SLICE_A(value), key->name));
}

static char *check_string(const struct config_key *key, struct slice value)
{
    if (key->rule == CONFIG_OFFSET_RESET)
        return check_offset_reset(key, value);
    return key->choices ? check_choice(key, value) : NULL;
}

static char *check_double(const struct config_key *key, struct slice value)
{
    double number;
    char shown[PARSE_DOUBLE_MAX];
    if (!parse_double(parse_trim(value), &number))
        return invalid(key, value, "Not a number of type DOUBLE");
    parse_print_double(number, shown);
    return check_range(key, shown, number);
}

char *config_key_validate(const struct config_key *key, struct slice value)
{
    bool flag;
    if (slice_is_null(value))
        return key->default_value || key->required ? invalid(key, value, "Value must be non-null") : NULL;
    struct slice trimmed = parse_trim(value); /* Kafka trims every value first */
    switch (key->type) {
    case CONFIG_TYPE_BOOLEAN:
        return parse_bool(trimmed, &flag) ? NULL : invalid(key, value, "Expected value to be either true or false");
    case CONFIG_TYPE_INT:
    case CONFIG_TYPE_SHORT:
    case CONFIG_TYPE_LONG: return check_integer(key, value);
    case CONFIG_TYPE_DOUBLE: return check_double(key, value);
    case CONFIG_TYPE_LIST: return check_list(key, trimmed);
    case CONFIG_TYPE_STRING: return check_string(key, trimmed);
    case CONFIG_TYPE_CLASS:
    case CONFIG_TYPE_PASSWORD: return NULL;
    }
    BUG("a key of no type");
}

static int64_t entry_long(const struct config_entry *entries, size_t count, const char *name)
{
    int64_t number = 0;
    struct slice value = slice_str(config_key_find(CONFIG_TOPIC, name)->default_value);
    for (size_t i = 0; i < count; i++)
        if (slice_eq_str(entries[i].name, name))
            value = entries[i].value;
    return parse_int64(parse_trim(value), &number) ? number : 0;
}

/* In the order in which Kafka's LogConfig defines its keys: of several values that are wrong the first is named. */
static const char *const topic_keys[] = {
    "segment.bytes",
    "segment.ms",
    "segment.jitter.ms",
    "segment.index.bytes",
    "flush.messages",
    "flush.ms",
    "retention.bytes",
    "retention.ms",
    "max.message.bytes",
    "index.interval.bytes",
    "delete.retention.ms",
    "min.compaction.lag.ms",
    "max.compaction.lag.ms",
    "file.delete.delay.ms",
    "min.cleanable.dirty.ratio",
    "cleanup.policy",
    "unclean.leader.election.enable",
    "min.insync.replicas",
    "compression.type",
    "compression.gzip.level",
    "compression.lz4.level",
    "compression.zstd.level",
    "preallocate",
    "message.timestamp.type",
    "message.timestamp.before.max.ms",
    "message.timestamp.after.max.ms",
    "leader.replication.throttled.replicas",
    "follower.replication.throttled.replicas",
    "remote.storage.enable",
    "local.retention.ms",
    "local.retention.bytes",
    "remote.log.copy.disable",
    "remote.log.delete.on.disable",
    "internal.segment.bytes",
};

static const struct config_entry *find_entry(const struct config_entry *entries, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (slice_eq_str(entries[i].name, name))
            return &entries[i];
    return NULL;
}

/* Keys of tiered storage may be set to what they are anyway, as tools do that write all keys of a topic. */
static char *check_tiered(const struct config_key *key, struct slice value)
{
    static const char *const tiered[] = {"local.retention.ms", "local.retention.bytes", "remote.log.copy.disable",
                                         "remote.log.delete.on.disable"};
    for (size_t i = 0; i < COUNTOF(tiered); i++)
        if (strcmp(key->name, tiered[i]) == 0 && !slice_eq_str(parse_trim(value), key->default_value))
            return invalid_free(key, value,
                                xasprintf("Karst has no tiered storage yet: nothing but the default %s is possible",
                                          key->default_value));
    return NULL;
}

char *config_topic_validate(const struct config_entry *entries, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (config_key_find_slice(CONFIG_TOPIC, entries[i].name) == NULL)
            return xasprintf("Unknown topic config name: " SLICE_F, SLICE_A(entries[i].name));
    for (size_t i = 0; i < COUNTOF(topic_keys); i++) {
        const struct config_key *key = config_key_find(CONFIG_TOPIC, topic_keys[i]);
        const struct config_entry *entry = find_entry(entries, count, topic_keys[i]);
        char *text = entry != NULL ? config_key_validate(key, entry->value) : NULL;
        if (text == NULL && entry != NULL)
            text = check_tiered(key, entry->value);
        if (text != NULL)
            return text;
    }
    int64_t min = entry_long(entries, count, "min.compaction.lag.ms");
    int64_t max = entry_long(entries, count, "max.compaction.lag.ms");
    if (min > max)
        return xasprintf("conflict topic config setting min.compaction.lag.ms (%lld) > max.compaction.lag.ms (%lld)",
                         (long long)min, (long long)max);
    return NULL;
}
