/* alter_configs.h - one resource of an IncrementalAlterConfigs, and the rules of the kinds of resources. Internal to
 * this folder. */
#ifndef KARST_CONTROLLER_ALTER_CONFIGS_H
#define KARST_CONTROLLER_ALTER_CONFIGS_H

#include "kafka/incremental_alter_configs.h"
#include "libs/controller/internal.h"

enum { OP_SET = 0, OP_DELETE = 1, OP_APPEND = 2, OP_SUBTRACT = 3 };

struct altering {
    struct controller *c;
    struct arena *arena;
    const struct kafka_incremental_alter_configs_request_alter_configs_resource *q;
    enum config_scope scope;
    struct slice *values;        /* one a config of the request: what it becomes; null: deleted */
    struct config_entry *merged; /* all overrides of the resource as they become */
    size_t merged_count;
};

/* The key, with a broker's listener.name.NAME. prefix left out. NULL: not known. */
const struct config_key *alter_find_key(const struct altering *k, struct slice name);

/* May these keys of a broker be changed while it runs? Before values are made. */
NODISCARD enum kafka_error alter_check_broker(const struct altering *k, const char **ret_message);
NODISCARD enum kafka_error alter_check_broker_values(const struct altering *k, const char **ret_message);
/* alter_broker.c: what is wrong with the broker's configuration as it would become, in the arena; NULL: nothing. */
NODISCARD const char *alter_broker_conflict(const struct altering *k);
NODISCARD enum kafka_error alter_check_group_values(const struct altering *k, const char **ret_message);
NODISCARD enum kafka_error alter_check_metrics_values(const struct altering *k, const char **ret_message);

#endif
