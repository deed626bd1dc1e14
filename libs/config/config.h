/* config.h - a server.properties, and the value of a key where several places may set it.
 *
 * Precedence, as Kafka has it: the resource's own override (topic, group), then the dynamic value of this broker, then
 * that of all brokers, then the file, then the default. A key's synonyms (log.retention.ms, .minutes, .hours) are
 * looked at in their order within the file; a dynamic value of any of them goes before all of the file (ConfigHelper,
 * DynamicBrokerConfig).
 *
 * Threading: a struct config is built by one thread and constant afterwards; then any thread may read it. */
#ifndef KARST_CONFIG_CONFIG_H
#define KARST_CONFIG_CONFIG_H

#include "libs/base/arena.h"
#include "libs/config/keys.h"

struct config;

NODISCARD struct config *config_new(void);
struct config *config_free(struct config *c); /* takes NULL; returns NULL */

/* Adds the keys of a Java properties text (escapes, continuation lines, '=', ':' or white space; later wins) or file.
 * 0, or -EINVAL / -errno with *ret_error a sentence for the user, which the caller frees. */
NODISCARD int config_parse(struct config *c, struct slice text, char **ret_error);
NODISCARD int config_load(struct config *c, const char *path, char **ret_error);
/* Sets one key. No check; config_check comes after all is loaded. */
void config_set(struct config *c, const char *name, const char *value);

/* Checks each value by its key's type and range: 0, or -EINVAL with *ret_error naming key, value and what was expected.
 * warn (may be NULL) is called with a sentence for each key of Kafka's that is not honoured yet, each unknown and each
 * deprecated key. */
typedef void config_warn_fn(void *ctx, const char *sentence);
NODISCARD int config_check(const struct config *c, config_warn_fn *warn, void *ctx, char **ret_error);

/* What the file itself says: NULL when it does not hold the key. */
const char *config_raw(const struct config *c, const char *name);

/* The file's keys in the order of their first appearance, to write an effective server.properties. fn may not change c.
 */
typedef void config_each_fn(void *ctx, const char *name, const char *value);
void config_each(const struct config *c, config_each_fn *fn, void *ctx);
/* The text of a properties file of all keys, escaped; the caller frees. */
NODISCARD char *config_print(const struct config *c);

/* ------------------------------------------------------------------- broker keys: file, synonyms, default; karst.*
 * keys too The name must be in the table, and of that type, and not null: else it is a bug of ours. */
int32_t config_int(const struct config *c, const char *name);  /* int and short */
int64_t config_long(const struct config *c, const char *name); /* long, int, short */
double config_double(const struct config *c, const char *name);
bool config_bool(const struct config *c, const char *name);
const char *config_string(const struct config *c, const char *name); /* any type; NULL: null. Lives as long as c */
bool config_is_null(const struct config *c, const char *name);

/* The items of a list key, trimmed, in the arena. */
struct config_list {
    const char **items;
    size_t count;
};
struct config_list config_list(const struct config *c, const char *name, struct arena *a);

/* The same of a list that comes from elsewhere. */
struct config_list config_items(struct slice text, struct arena *a);

/* replica.selector.class is Kafka's RackAwareReplicaSelector: consumers read in their own rack (KIP-392). */
bool config_is_rack_aware(const struct config *c);

/* The data directories: log.dirs, else log.dir. One that is listed again counts once, as in Kafka. */
struct config_list config_log_dirs(const struct config *c, struct arena *a);
/* Where __cluster_metadata-0 is: metadata.log.dir, else the first of the data directories. */
const char *config_metadata_log_dir(const struct config *c, struct arena *a);

/* ------------------------------------------------------------------- keys that something dynamic may override
 * The caller's metadata image answers for the dynamic places. */
struct config_layers {
    /* The override of the key at that place (CONFIG_SOURCE_TOPIC, _GROUP, _CLIENT_METRICS, _BROKER, _DEFAULT_BROKER);
     * false: none. name is a topic key for CONFIG_SOURCE_TOPIC, a group key for _GROUP, a broker key for the two broker
     * places. */
    bool (*find)(void *ctx, enum config_source source, const char *name, struct slice *ret_value);
    void *ctx;
};

/* Values of topic keys ("retention.ms"); layers may be NULL: as without any dynamic value. A value that is of the wrong
 * form in the image (written by a later Kafka) counts as not set. */
int64_t config_topic_long(const struct config *c, const struct config_layers *layers, const char *name); /* long, int */
double config_topic_double(const struct config *c, const struct config_layers *layers, const char *name);
bool config_topic_bool(const struct config *c, const struct config_layers *layers, const char *name);
struct slice config_topic_string(const struct config *c, const struct config_layers *layers, const char *name,
                                 struct arena *a);
bool config_topic_list_has(const struct config *c, const struct config_layers *layers, const char *name,
                           const char *item);

/* The same for broker keys with their dynamic overrides, and for any scope. */
int64_t config_long_at(const struct config *c, enum config_scope scope, const struct config_layers *layers,
                       const char *name);
double config_double_at(const struct config *c, enum config_scope scope, const struct config_layers *layers,
                        const char *name);
struct slice config_string_at(const struct config *c, enum config_scope scope, const struct config_layers *layers,
                              const char *name, struct arena *a);

/* One key as DescribeConfigs answers it. Slices live as long as c, the layers' image and the arena. */
struct config_place {
    const char *name; /* the server's key name at that place */
    struct slice value;
    enum config_source source;
};
struct config_description {
    const struct config_key *key;
    struct slice value; /* null when sensitive */
    enum config_source source;
    bool is_default; /* version 0 of DescribeConfigs */
    bool read_only;
    const struct config_place *places; /* Synonyms, highest first */
    size_t place_count;
};
/* name is the resource's own key. */
struct config_description config_describe(const struct config *c, const struct config_key *key,
                                          const struct config_layers *layers, struct arena *a);

/* ------------------------------------------------------------------- listeners */
struct config_listener {
    const char *name; /* PLAINTEXT */
    const char *host; /* "" : all addresses */
    uint16_t port;
    int16_t security_protocol; /* Kafka's id; 0 PLAINTEXT */
};
struct config_listeners {
    struct config_listener *items;
    size_t count;
};
/* The client listeners of `listeners` (advertised == false) or `advertised.listeners`, which falls back to `listeners`;
 * those of controller.listener.names are left out. 0, or -EINVAL with *ret_error for the user (the caller frees it). */
NODISCARD int config_listeners(const struct config *c, bool advertised, struct arena *a,
                               struct config_listeners *ret_listeners, char **ret_error);
/* The same of those that controller.listener.names has, in the order of `listeners`. advertised: where others find
 * them: what advertised.listeners says of the name (KIP-853), else as it is in `listeners`. */
NODISCARD int config_controller_listeners(const struct config *c, bool advertised, struct arena *a,
                                          struct config_listeners *ret_listeners, char **ret_error);
/* "", 0.0.0.0, ::: where one listens on all addresses of the host, and nobody can connect to. */
bool config_host_is_any(const char *host);
/* "HOST:PORT", "[::1]:9092", a port from 1: 0 or -EINVAL. host has 256 bytes, and no brackets. */
NODISCARD int config_endpoint(const char *text, char *ret_host, uint16_t *ret_port);

#endif
