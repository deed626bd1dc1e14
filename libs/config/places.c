/* places.c - precedence of the places that may set a key, and its description for DescribeConfigs. */
#include "libs/config/places.h"

#include "libs/config/parse.h"

static bool in_layer(const struct config_layers *layers, enum config_source source, const char *name,
                     struct slice *ret_value)
{
    return layers && layers->find(layers->ctx, source, name, ret_value);
}

static enum config_source own_source(enum config_scope scope)
{
    return scope == CONFIG_TOPIC            ? CONFIG_SOURCE_TOPIC
           : scope == CONFIG_GROUP          ? CONFIG_SOURCE_GROUP
           : scope == CONFIG_CLIENT_METRICS ? CONFIG_SOURCE_CLIENT_METRICS
                                            : CONFIG_SOURCE_DEFAULT;
}

/* The file's value; node.id and its old name stand for each other. */
static const char *static_value(const struct config *c, const char *name)
{
    const char *value = config_raw(c, name);
    if (value == NULL && strcmp(name, "node.id") == 0)
        value = config_raw(c, "broker.id");
    if (value == NULL && strcmp(name, "broker.id") == 0)
        value = config_raw(c, "node.id");
    return value;
}

/* A broker key by itself: dynamic of this broker, of all brokers, file. */
static bool set_on_server(const struct config *c, const char *name, const struct config_layers *layers,
                          struct placed *ret)
{
    const enum config_source dynamic[] = {CONFIG_SOURCE_BROKER, CONFIG_SOURCE_DEFAULT_BROKER};
    for (size_t i = 0; i < COUNTOF(dynamic); i++)
        if (in_layer(layers, dynamic[i], name, &ret->value)) {
            ret->source = dynamic[i];
            return true;
        }
    const char *value = static_value(c, name);
    ret->value = slice_str(value);
    ret->source = CONFIG_SOURCE_STATIC;
    return value != NULL;
}

static struct placed default_of(const struct config_key *key)
{
    return (struct placed){slice_str(key->default_value), CONFIG_SOURCE_DEFAULT, 1};
}

/* A value that this key cannot have counts as not set: it was written by a later release. */
static bool usable(const struct config_key *key, struct slice value)
{
    char *error = config_key_validate(key, value);
    free(error);
    return error == NULL;
}

static bool is_of_server(const struct config_key *key)
{
    return key->scope == CONFIG_BROKER || key->scope == CONFIG_BROKER_QUOTA;
}

struct placed places_value(const struct config *c, const struct config_key *key, const struct config_layers *layers)
{
    struct placed p = {.factor = 1, .source = own_source(key->scope)};
    if (p.source != CONFIG_SOURCE_DEFAULT && in_layer(layers, p.source, key->name, &p.value) && usable(key, p.value))
        return p;
    if (key->synonyms == NULL)
        return (is_of_server(key) || key->scope == CONFIG_KARST) && set_on_server(c, key->name, layers, &p)
                   ? p
                   : default_of(key);
    for (const struct config_synonym *s = key->synonyms; s->name; s++) {
        /* The synonyms of a broker key have other units: for its own value only its own name counts. */
        if (key->scope == CONFIG_BROKER && strcmp(s->name, key->name) != 0)
            continue;
        const struct config_key *server = config_key_find(CONFIG_BROKER, s->name);
        if (set_on_server(c, s->name, layers, &p) && usable(server, p.value)) {
            p.factor = s->factor;
            return p;
        }
    }
    return default_of(key);
}

static bool long_of(struct placed p, int64_t *ret_value)
{
    int64_t v;
    if (slice_is_null(p.value) || !parse_int64(parse_trim(p.value), &v))
        return false;
    if (p.factor != 1) /* hours: any negative number means without limit; beyond the range is without limit too */
        v = v < 0 ? -1 : v > INT64_MAX / p.factor ? INT64_MAX : v * p.factor;
    *ret_value = v;
    return true;
}

static const struct config_key *need_key(enum config_scope scope, const char *name)
{
    const struct config_key *key = config_key_find(scope, name);
    if (key == NULL)
        base_bug(__FILE__, __LINE__, name);
    return key;
}

int64_t config_long_at(const struct config *c, enum config_scope scope, const struct config_layers *layers,
                       const char *name)
{
    int64_t v;
    const struct config_key *key = need_key(scope, name);
    if (long_of(places_value(c, key, layers), &v) || long_of(default_of(key), &v))
        return v;
    base_bug(__FILE__, __LINE__, name); /* null: the caller must ask config_is_null first */
}

int64_t config_topic_long(const struct config *c, const struct config_layers *layers, const char *name)
{
    return config_long_at(c, CONFIG_TOPIC, layers, name);
}

double config_topic_double(const struct config *c, const struct config_layers *layers, const char *name)
{
    return config_double_at(c, CONFIG_TOPIC, layers, name);
}

double config_double_at(const struct config *c, enum config_scope scope, const struct config_layers *layers,
                        const char *name)
{
    double v = 0;
    const struct config_key *key = need_key(scope, name);
    if (!parse_double(parse_trim(places_value(c, key, layers).value), &v) &&
        !parse_double(slice_str(key->default_value), &v))
        base_bug(__FILE__, __LINE__, name);
    return v;
}

bool config_topic_bool(const struct config *c, const struct config_layers *layers, const char *name)
{
    bool v = false;
    const struct config_key *key = need_key(CONFIG_TOPIC, name);
    if (!parse_bool(parse_trim(places_value(c, key, layers).value), &v) &&
        !parse_bool(slice_str(key->default_value), &v))
        base_bug(__FILE__, __LINE__, name);
    return v;
}

/* As Kafka prints a parsed value: numbers plain, items joined by a comma, the rest as it is. */
static struct slice shown(const struct config_key *key, struct placed p, struct arena *a)
{
    int64_t number;
    double real;
    char printed[PARSE_DOUBLE_MAX];
    if (slice_is_null(p.value))
        return p.value;
    struct slice text = parse_trim(p.value), item;
    switch (key->type) {
    case CONFIG_TYPE_INT:
    case CONFIG_TYPE_SHORT:
    case CONFIG_TYPE_LONG: return long_of(p, &number) ? slice_str(arena_printf(a, "%lld", (long long)number)) : text;
    case CONFIG_TYPE_BOOLEAN: return slice_str(text.size == 4 ? "true" : "false");
    case CONFIG_TYPE_LIST: {
        const char *joined = "";
        while (parse_item(&text, &item))
            joined = arena_printf(a, "%s%s" SLICE_F, joined, *joined ? "," : "", SLICE_A(item));
        return slice_str(joined);
    }
    case CONFIG_TYPE_DOUBLE:
        if (!parse_double(text, &real))
            return text;
        parse_print_double(real, printed);
        return slice_str(arena_str(a, slice_str(printed)));
    case CONFIG_TYPE_STRING:
    case CONFIG_TYPE_CLASS:
    case CONFIG_TYPE_PASSWORD: return text;
    }
    BUG("a key of no type");
}

struct slice config_string_at(const struct config *c, enum config_scope scope, const struct config_layers *layers,
                              const char *name, struct arena *a)
{
    const struct config_key *key = need_key(scope, name);
    return shown(key, places_value(c, key, layers), a);
}

struct slice config_topic_string(const struct config *c, const struct config_layers *layers, const char *name,
                                 struct arena *a)
{
    return config_string_at(c, CONFIG_TOPIC, layers, name, a);
}

bool config_topic_list_has(const struct config *c, const struct config_layers *layers, const char *name,
                           const char *item)
{
    struct slice text = parse_trim(places_value(c, need_key(CONFIG_TOPIC, name), layers).value), found;
    while (parse_item(&text, &found))
        if (slice_eq_str(found, item))
            return true;
    return false;
}

/* ---------------------------------------------------------------------------------------------------------------
 * describing */

enum { PLACES_MAX = 16 };

struct places {
    struct config_place items[PLACES_MAX];
    size_t count;
};

static void add_place(struct places *all, const char *name, struct slice value, enum config_source source)
{
    ASSERT(all->count < PLACES_MAX);
    all->items[all->count++] = (struct config_place){name, value, source};
}

static void server_places(const struct config *c, const struct config_key *key, const struct config_layers *layers,
                          enum config_source source, struct places *all)
{
    struct slice value = SLICE_NULL;
    switch (source) {
    case CONFIG_SOURCE_BROKER:
    case CONFIG_SOURCE_DEFAULT_BROKER:
        if (!in_layer(layers, source, key->name, &value))
            return;
        break;
    case CONFIG_SOURCE_STATIC: value = slice_str(static_value(c, key->name)); break;
    case CONFIG_SOURCE_DEFAULT: /* Kafka describes no default of a key that can only be dynamic */
        value = key->scope == CONFIG_BROKER ? slice_str(key->default_value) : SLICE_NULL;
        break;
    case CONFIG_SOURCE_TOPIC:
    case CONFIG_SOURCE_GROUP:
    case CONFIG_SOURCE_CLIENT_METRICS: BUG("not a place of the server's");
    }
    if (!slice_is_null(value))
        add_place(all, key->name, value, source);
}

/* ConfigHelper.configSynonyms: place by place, in each the key's synonyms in order; what stands before the key itself
 * is left out. */
static void list_server_places(const struct config *c, const struct config_key *key, const struct config_layers *layers,
                               struct places *all)
{
    const enum config_source sources[] = {CONFIG_SOURCE_BROKER, CONFIG_SOURCE_DEFAULT_BROKER, CONFIG_SOURCE_STATIC,
                                          CONFIG_SOURCE_DEFAULT};
    struct places found = {0};
    for (size_t i = 0; i < COUNTOF(sources); i++) {
        if (key->synonyms == NULL)
            server_places(c, key, layers, sources[i], &found);
        for (const struct config_synonym *s = key->synonyms; s && s->name; s++)
            server_places(c, need_key(CONFIG_BROKER, s->name), layers, sources[i], &found);
    }
    size_t i = 0;
    while (i < found.count && strcmp(found.items[i].name, key->name) != 0)
        i++;
    for (; i < found.count; i++)
        add_place(all, found.items[i].name, found.items[i].value, found.items[i].source);
}

struct config_description config_describe(const struct config *c, const struct config_key *key,
                                          const struct config_layers *layers, struct arena *a)
{
    struct places all = {0};
    struct placed p = places_value(c, key, layers);
    enum config_source own = own_source(key->scope);
    struct slice value = shown(key, p, a), override;
    if (own != CONFIG_SOURCE_DEFAULT && in_layer(layers, own, key->name, &override))
        add_place(&all, key->name, value, own);
    if (is_of_server(key))
        list_server_places(c, key, layers, &all);
    else if (key->synonyms)
        list_server_places(c, need_key(CONFIG_BROKER, key->synonyms[0].name), layers, &all);
    else if (key->scope == CONFIG_GROUP && key->default_value) /* what no server key stands behind names itself */
        add_place(&all, key->name, slice_str(key->default_value), CONFIG_SOURCE_DEFAULT);
    for (size_t i = 0; key->sensitive && i < all.count; i++)
        all.items[i].value = SLICE_NULL;
    struct config_place *places = arena_calloc(a, all.count + 1, sizeof(*places));
    memcpy(places, all.items, all.count * sizeof(*places));
    enum config_source source = all.count ? places[0].source : CONFIG_SOURCE_DEFAULT;
    return (struct config_description){
        .key = key,
        .value = key->sensitive ? SLICE_NULL : value,
        .source = source,
        .is_default = source == CONFIG_SOURCE_DEFAULT,
        .read_only = key->update == CONFIG_READ_ONLY,
        .places = places,
        .place_count = all.count,
    };
}
