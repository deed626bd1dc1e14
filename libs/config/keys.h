/* keys.h - Kafka's table of configuration keys: name, type, default, range, update mode, synonyms, and whether Karst
 * honours it.
 *
 * The table is generated at build time (tools/config_codegen.py) from proto/kafka/config.tsv, which holds what
 * Kafka 4.3.1's own classes say, from proto/karst/config.tsv (keys of our own, all named karst.*) and from
 * proto/karst/honoured.txt. It is constant; any thread may read it. */
#ifndef KARST_CONFIG_KEYS_H
#define KARST_CONFIG_KEYS_H

#include "libs/base/slice.h"

/* Which resource a key belongs to. The same name may occur in two scopes (compression.type). */
enum config_scope {
    CONFIG_BROKER,
    CONFIG_TOPIC,
    CONFIG_GROUP,
    CONFIG_CLIENT_METRICS,
    CONFIG_USER,        /* SCRAM-* */
    CONFIG_CLIENT_USER, /* quotas of a user or client id */
    CONFIG_IP,
    CONFIG_BROKER_QUOTA, /* dynamic broker keys that no file may hold */
    CONFIG_KARST,        /* our own, in server.properties only */
    CONFIG_SCOPES
};

/* Kafka's ConfigType numbers, as DescribeConfigs answers them. */
enum config_type {
    CONFIG_TYPE_BOOLEAN = 1,
    CONFIG_TYPE_STRING = 2,
    CONFIG_TYPE_INT = 3,
    CONFIG_TYPE_SHORT = 4,
    CONFIG_TYPE_LONG = 5,
    CONFIG_TYPE_DOUBLE = 6,
    CONFIG_TYPE_LIST = 7,
    CONFIG_TYPE_CLASS = 8,
    CONFIG_TYPE_PASSWORD = 9
};

/* Kafka's ConfigSource numbers; a lower number wins. */
enum config_source {
    CONFIG_SOURCE_TOPIC = 1,
    CONFIG_SOURCE_BROKER = 2,         /* dynamic, of one broker */
    CONFIG_SOURCE_DEFAULT_BROKER = 3, /* dynamic, of all brokers */
    CONFIG_SOURCE_STATIC = 4,         /* server.properties */
    CONFIG_SOURCE_DEFAULT = 5,
    CONFIG_SOURCE_CLIENT_METRICS = 7,
    CONFIG_SOURCE_GROUP = 8
};

enum config_update { CONFIG_READ_ONLY, CONFIG_PER_BROKER, CONFIG_CLUSTER_WIDE, CONFIG_PER_RESOURCE };

/* What a value must satisfy beyond its type. */
enum config_rule {
    CONFIG_ANY,
    CONFIG_RANGE,         /* min <= v <= max */
    CONFIG_RANGE_OR,      /* the same, or v == other */
    CONFIG_ONE_OF,        /* a string of choices; each item of a list */
    CONFIG_ONE_OF_NOCASE, /* the same without regard to case */
    CONFIG_THROTTLED,     /* "*", or PARTITION:BROKER items */
    CONFIG_OFFSET_RESET   /* latest, earliest or by_duration:ISO8601 */
};

/* A key that stands in when another is not set. The value counts factor times (hours for milliseconds: 3600000). */
struct config_synonym {
    const char *name;
    int64_t factor;
};

struct config_key {
    const char *name;
    const char *default_value;             /* as text; NULL: null */
    const char *valid;                     /* the rule as Kafka prints it; "" when there is none */
    const char *const *choices;            /* of CONFIG_ONE_OF*, NULL-terminated, else NULL */
    const struct config_synonym *synonyms; /* highest first, ended by a NULL name; NULL when there is none */
    double min, max, other;
    enum config_scope scope;
    enum config_type type;
    enum config_rule rule;
    enum config_update update;
    bool required; /* has no default */
    bool internal; /* accepted, never listed to clients */
    bool deprecated;
    bool sensitive;
    bool honoured; /* Karst does what the key says */
};

/* The key, or NULL. name without a listener prefix. */
const struct config_key *config_key_find(enum config_scope scope, const char *name);
const struct config_key *config_key_find_slice(enum config_scope scope, struct slice name);

/* All keys of a scope in the order of their names; *ret_count of them. */
const struct config_key *config_keys(enum config_scope scope, size_t *ret_count);

/* A line of text on the key, as DescribeConfigs gives with IncludeDocumentation. Never NULL. */
const char *config_key_text(const struct config_key *key);

/* Is value acceptable to the key's type and range? NULL when it is, else Kafka's words, which the caller frees:
 * "Invalid value x for configuration retention.ms: Not a number of type LONG". A null slice is Kafka's null. */
NODISCARD char *config_key_validate(const struct config_key *key, struct slice value);

/* A whole set of overrides of one topic, as CreateTopics and AlterConfigs would leave it: names known, each value
 * valid, and values that contradict each other. NULL when fine, else the text for INVALID_CONFIG (40), which the caller
 * frees. */
struct config_entry {
    struct slice name, value;
};
NODISCARD char *config_topic_validate(const struct config_entry *entries, size_t count);

#endif
