/* initial.c - the voters of a quorum that is formed at once: `karst format --initial-controllers`, as kafka-storage has
 * it. Each node is formatted with the same list. */
#include <stdio.h>
#include <stdlib.h>

#include "libs/config/meta_properties.h"
#include "libs/kraft/kraft.h"
#include "services/karst/karst.h"

/* ID@HOST:PORT:DIRECTORY */
static bool parse_one(const char *text, const char *listener, struct kraft_voter *ret)
{
    char *end, *address;
    const char *at = strchr(text, '@'), *colon = strrchr(text, ':');
    long id = strtol(text, &end, 10);
    *ret = (struct kraft_voter){.id = (int32_t)id, .endpoint_count = 1, .kraft_version_max = 1};
    if (at == NULL || at == text || end != at || id < 0 || id > INT32_MAX || colon < at ||
        uuid_parse(slice_str(colon + 1), &ret->directory_id) != 0 || uuid_is_zero(ret->directory_id))
        return false;
    address = xasprintf("%.*s", (int)(colon - at - 1), at + 1);
    bool good =
        config_endpoint(address, ret->endpoints[0].host, &ret->endpoints[0].port) == 0 && *ret->endpoints[0].host != 0;
    snprintf(ret->endpoints[0].name, sizeof ret->endpoints[0].name, "%s", listener);
    free(address);
    return good;
}

static bool is_twice(const struct kraft_voters *v, int32_t at)
{
    for (int32_t i = 0; i < at; i++)
        if (v->voter[i].id == v->voter[at].id || uuid_eq(v->voter[i].directory_id, v->voter[at].directory_id))
            return true;
    return false;
}

static int parse(const struct config *c, const char *list, struct kraft_voters *ret, char **ret_error)
{
    struct arena *a = arena_new(0);
    struct config_list names = config_list(c, "controller.listener.names", a);
    char *copy = arena_str(a, slice_str(list)), *rest = copy, *one;
    int32_t node = config_int(c, "node.id");
    bool has_node = false;
    while (*ret_error == NULL && (one = strsep(&rest, ",")) != NULL) {
        struct kraft_voter *v = &ret->voter[ret->count];
        if (ret->count == CONTROLLERS_MAX)
            *ret_error = xasprintf("--initial-controllers: more than %d of them", CONTROLLERS_MAX);
        else if (!parse_one(one, names.count > 0 ? names.items[0] : "CONTROLLER", v))
            *ret_error = xasprintf("--initial-controllers: ID@HOST:PORT:DIRECTORY was expected, not %s", one);
        else if (is_twice(ret, ret->count++))
            *ret_error = xasprintf("--initial-controllers: %s has an id or a directory twice", one);
        else
            has_node = has_node || v->id == node;
    }
    if (*ret_error == NULL && !has_node)
        *ret_error = xasprintf("--initial-controllers does not name node %d, whose directory is formatted", node);
    arena_free(a);
    return *ret_error != NULL ? -EINVAL : 0;
}

int initial_format(const struct config *c, const char *list, const char *cluster_id,
                   struct datadir_identity *ret_identity, char **ret_error)
{
    struct kraft_voters *voters = xcalloc(1, sizeof *voters);
    int r = parse(c, list, voters, ret_error);
    if (r == 0 && (cluster_id == NULL || *cluster_id == 0 ||
                   strlen(cluster_id) >= sizeof((struct meta_properties){0}).cluster_id)) {
        *ret_error = xstrdup("--initial-controllers needs --cluster-id, the same for all of them");
        r = -EINVAL;
    }
    if (r == 0)
        r = datadir_form(c, cluster_id, voters, ret_identity, ret_error);
    free(voters);
    return r;
}
