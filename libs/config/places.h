/* places.h - in which place a key is set, for libs/config alone. */
#ifndef KARST_CONFIG_PLACES_H
#define KARST_CONFIG_PLACES_H

#include "libs/config/config.h"

struct placed {
    struct slice value; /* null: null everywhere, or no default */
    enum config_source source;
    int64_t factor; /* the value counts so many times */
};

/* The value by precedence and synonyms. The slice lives as long as c and the layers' image. */
struct placed places_value(const struct config *c, const struct config_key *key, const struct config_layers *layers);

#endif
