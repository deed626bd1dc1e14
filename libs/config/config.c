/* config.c - server.properties: loading, checking, and the plain values of broker keys. */
#include "libs/config/config.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>
#include <uthash.h>

#include "libs/base/buf.h"
#include "libs/config/parse.h"
#include "libs/config/places.h"

#define SELECTOR_KEY "replica.selector.class"
#define RACK_AWARE   "org.apache.kafka.common.replica.RackAwareReplicaSelector"

enum { FILE_BYTES_MAX = 1 << 20 };

struct entry {
    char *name, *value;
    UT_hash_handle hh;
};

struct config {
    struct entry *entries; /* by name; iterates in the order of their first appearance */
};

struct config *config_new(void)
{
    return xcalloc(1, sizeof(struct config));
}

struct config *config_free(struct config *c)
{
    struct entry *e, *next;
    if (c == NULL)
        return NULL;
    HASH_ITER (hh, c->entries, e, next) {
        HASH_DEL(c->entries, e);
        free(e->name);
        free(e->value);
        free(e);
    }
    free(c);
    return NULL;
}

static struct entry *find(const struct config *c, const char *name)
{
    struct entry *e;
    HASH_FIND_STR(c->entries, name, e);
    return e;
}

void config_set(struct config *c, const char *name, const char *value)
{
    struct entry *e = find(c, name);
    if (e == NULL) {
        e = xcalloc(1, sizeof(*e));
        e->name = xstrdup(name);
        HASH_ADD_KEYPTR(hh, c->entries, e->name, strlen(e->name), e);
    }
    free(e->value);
    e->value = xstrdup(value);
}

int config_parse(struct config *c, struct slice text, char **ret_error)
{
    int line = 0, r;
    char *name, *value;
    if (text.size && memchr(text.data, 0, text.size)) {
        *ret_error = xasprintf("a zero byte is in it: not a properties file");
        return -EINVAL;
    }
    while ((r = parse_property(&text, &line, &name, &value)) > 0) {
        config_set(c, name, value);
        free(name);
        free(value);
    }
    if (r < 0)
        *ret_error = xasprintf("line %d: malformed \\uXXXX: four hexadecimal digits were expected", line);
    return r;
}

static int read_all(const char *path, struct buf *b)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int r = 0;
    for (;;) {
        buf_reserve(b, 4096);
        ssize_t n = read(fd, b->data + b->size, 4096);
        if (n < 0)
            r = -errno;
        else if (b->size + (size_t)n > FILE_BYTES_MAX)
            r = -EFBIG;
        if (n <= 0 || r)
            break;
        b->size += (size_t)n;
    }
    close(fd);
    return r;
}

int config_load(struct config *c, const char *path, char **ret_error)
{
    struct buf b = {0};
    char *why = NULL;
    int r = read_all(path, &b);
    if (r)
        *ret_error = xasprintf("cannot read %s: %s", path, strerror(-r));
    else if ((r = config_parse(c, buf_slice(&b), &why)) != 0)
        *ret_error = xasprintf("%s: %s", path, why);
    free(why);
    buf_free(&b);
    return r;
}

const char *config_raw(const struct config *c, const char *name)
{
    const struct entry *e = find(c, name);
    return e ? e->value : NULL;
}

void config_each(const struct config *c, config_each_fn *fn, void *ctx)
{
    for (const struct entry *e = c->entries; e; e = e->hh.next)
        fn(ctx, e->name, e->value);
}

static void print_escaped(struct buf *b, const char *s, bool key)
{
    for (bool first = true; *s; s++, first = false) {
        char c = *s;
        const char *plain = c == '\n' ? "\\n" : c == '\r' ? "\\r" : c == '\t' ? "\\t" : c == '\f' ? "\\f" : NULL;
        if (plain) {
            buf_append(b, plain, 2);
            continue;
        }
        if (c == '\\' || (c == ' ' && (key || first)) || (key && strchr("=:#!", c)))
            buf_append(b, "\\", 1);
        buf_append(b, &c, 1);
    }
}

char *config_print(const struct config *c)
{
    struct buf b = {0};
    for (const struct entry *e = c->entries; e; e = e->hh.next) {
        print_escaped(&b, e->name, true);
        buf_append(&b, "=", 1);
        print_escaped(&b, e->value, false);
        buf_append(&b, "\n", 1);
    }
    buf_append(&b, "", 1);
    return (char *)b.data;
}

/* ----------------------------------------------------------------------------------------------------------------
 * checking */

/* "listener.name.NAME.KEY" is KEY of one listener. */
static const char *without_listener(const char *name)
{
    static const char prefix[] = "listener.name.";
    if (strncmp(name, prefix, sizeof(prefix) - 1) != 0)
        return name;
    const char *dot = strchr(name + sizeof(prefix) - 1, '.');
    return dot ? dot + 1 : name;
}

static const struct config_key *key_of_file(const char *name)
{
    const struct config_key *key = config_key_find(CONFIG_BROKER, without_listener(name));
    return key ? key : config_key_find(CONFIG_KARST, name);
}

/* The edits that make b of a, or more than 2. */
static size_t distance(const char *a, const char *b)
{
    size_t n = strlen(b), row[128];
    if (n >= COUNTOF(row))
        return 3;
    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (size_t i = 1; a[i - 1]; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            size_t change = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            size_t grow = MIN(row[j], row[j - 1]) + 1;
            row[j] = MIN(change, grow);
        }
    }
    return row[n];
}

static const char *nearest(const char *name)
{
    size_t count;
    const struct config_key *keys = config_keys(CONFIG_BROKER, &count);
    for (size_t wrong = 1; wrong <= 2; wrong++)
        for (size_t i = 0; i < count; i++)
            if (distance(name, keys[i].name) <= wrong)
                return keys[i].name;
    return NULL;
}

static char *warning_of(const char *name, const struct config_key *key)
{
    if (key == NULL) {
        if (config_key_find(CONFIG_BROKER_QUOTA, name))
            return xasprintf("%s can only be set dynamically; the file's value is ignored", name);
        const char *meant = nearest(name);
        return meant ? xasprintf("unknown configuration key %s; did you mean %s?", name, meant)
                     : xasprintf("unknown configuration key %s", name);
    }
    if (!key->honoured)
        return xasprintf("%s is not honoured yet by Karst; its value has no effect", name);
    return key->deprecated ? xasprintf("%s is deprecated in Kafka", name) : NULL;
}

/* What Kafka checks when a KafkaConfig is made, of the keys that Karst honours. */
static char *check_retention(const char *name, const char *value)
{
    int64_t number;
    if (strcmp(name, "log.retention.ms") && strcmp(name, "log.retention.minutes") &&
        strcmp(name, "log.retention.hours"))
        return NULL;
    if (!parse_int64(parse_trim(slice_str(value)), &number) || number == -1 || number >= 1)
        return NULL;
    return xasprintf("Invalid value %s for configuration %s: must be unlimited (-1) or, greater than or equal to 1",
                     value, name);
}

/* A class of the user's own cannot be loaded here, and without it consumers would read elsewhere than he has said. */
static char *check_selector(const char *name, const char *value)
{
    if (strcmp(name, SELECTOR_KEY) != 0 || strcmp(value, RACK_AWARE) == 0)
        return NULL;
    return xasprintf("Invalid value %s for configuration %s: it must be %s, or not be set", value, name, RACK_AWARE);
}

bool config_is_rack_aware(const struct config *c)
{
    return !config_is_null(c, SELECTOR_KEY) && strcmp(config_string(c, SELECTOR_KEY), RACK_AWARE) == 0;
}

int config_check(const struct config *c, config_warn_fn *warn, void *ctx, char **ret_error)
{
    for (const struct entry *e = c->entries; e; e = e->hh.next) {
        const struct config_key *key = key_of_file(e->name);
        char *error = key ? config_key_validate(key, slice_str(e->value)) : NULL;
        if (error == NULL)
            error = check_retention(e->name, e->value);
        if (error == NULL)
            error = check_selector(e->name, e->value);
        if (error) {
            *ret_error = error;
            return -EINVAL;
        }
        char *sentence = warn ? warning_of(e->name, key) : NULL;
        if (sentence)
            warn(ctx, sentence);
        free(sentence);
    }
    return 0;
}

/* ------------------------------------------------------------------------------------------------------------------
 * values */

int32_t config_int(const struct config *c, const char *name)
{
    int64_t v = config_long(c, name);
    ASSERT(v >= INT32_MIN && v <= INT32_MAX);
    return (int32_t)v;
}

static const struct config_key *key_named(const char *name)
{
    const struct config_key *key = config_key_find(CONFIG_BROKER, name);
    if (key == NULL)
        key = config_key_find(CONFIG_KARST, name);
    if (key == NULL)
        base_bug(__FILE__, __LINE__, name);
    return key;
}

int64_t config_long(const struct config *c, const char *name)
{
    return config_long_at(c, key_named(name)->scope, NULL, name);
}

double config_double(const struct config *c, const char *name)
{
    double v = 0;
    struct slice text = parse_trim(places_value(c, key_named(name), NULL).value);
    if (!parse_double(text, &v))
        base_bug(__FILE__, __LINE__, name);
    return v;
}

bool config_bool(const struct config *c, const char *name)
{
    bool v = false;
    struct slice text = parse_trim(places_value(c, key_named(name), NULL).value);
    if (!parse_bool(text, &v))
        base_bug(__FILE__, __LINE__, name);
    return v;
}

const char *config_string(const struct config *c, const char *name)
{
    return (const char *)places_value(c, key_named(name), NULL).value.data;
}

bool config_is_null(const struct config *c, const char *name)
{
    return config_string(c, name) == NULL;
}

struct config_list config_items(struct slice text, struct arena *a)
{
    struct config_list list = {0};
    struct slice rest = parse_trim(text), item;
    size_t most = 1;
    for (size_t i = 0; i < rest.size; i++)
        most += rest.data[i] == ',';
    list.items = arena_calloc(a, most, sizeof(*list.items));
    while (parse_item(&rest, &item))
        list.items[list.count++] = arena_str(a, item);
    return list;
}

struct config_list config_list(const struct config *c, const char *name, struct arena *a)
{
    return config_items(places_value(c, key_named(name), NULL).value, a);
}

struct config_list config_log_dirs(const struct config *c, struct arena *a)
{
    struct config_list list = config_list(c, "log.dirs", a);
    if (list.count == 0)
        list = config_list(c, "log.dir", a);
    size_t kept = 0;
    for (size_t i = 0; i < list.count; i++) {
        bool again = false;
        for (size_t k = 0; k < kept; k++)
            again = again || strcmp(list.items[k], list.items[i]) == 0;
        if (!again)
            list.items[kept++] = list.items[i];
    }
    list.count = kept;
    return list;
}

const char *config_metadata_log_dir(const struct config *c, struct arena *a)
{
    if (!config_is_null(c, "metadata.log.dir"))
        return config_string(c, "metadata.log.dir");
    struct config_list list = config_log_dirs(c, a);
    return list.count ? list.items[0] : "";
}
