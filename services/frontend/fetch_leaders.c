/* fetch_leaders.c - does a parked Fetch wait at the nodes that it would be read from now? */
#include "services/frontend/fetch.h"

enum { ID_FROM = 13 };

static bool is_elsewhere(const struct fetch *f, const struct session_key *key, int32_t node)
{
    bool by_id = f->r->version >= ID_FROM;
    const struct image *newest = f->r->frontend->image;
    const struct image_topic *t =
        by_id ? image_topic_by_id(newest, key->topic_id) : image_topic_by_name(newest, key->topic);
    const struct image_partition *p = t != NULL ? image_partition(t, key->partition) : NULL;

    return p != NULL && p->leader >= 0 && fetch_node(f, newest, p) != node;
}

bool fetch_has_moved(const struct fetch *f)
{
    struct session *s = f->set != SET_NONE ? session_find(f->r->frontend->sessions, f->session_id) : NULL;

    if (s != NULL) {
        for (struct session_partition *p = session_first(s); p != NULL; p = session_next(p))
            if (is_elsewhere(f, &p->key, f->reads->node))
                return true;
        return false;
    }
    for (const struct fetch_read *read = f->reads; read != NULL; read = read->next)
        for (uint32_t i = 0; i < read->count && (read->call != 0 || read->retry != NULL); i++)
            if (is_elsewhere(f, &f->parts[read->parts[i]].p.key, read->node))
                return true;
    return false;
}
