/* fetch_set.c - what a storage node keeps of a fetch session (an interest set, proto/bus/storage.proto), so that
 * neither side looks at all of the session with each Fetch.
 *
 *   none --a Fetch asks one node for all--> made --each Fetch names what its client has changed--> used
 *   made, used --any Read that is not answered as one of the set; new metadata; two Fetches at a time--> none
 *
 * What the node was told is what session_settle has settled; so a set of which that is not sure is given up, and the
 * next Read names all. The node forgets sets that nobody uses. */
#include "services/frontend/fetch.h"

#include <sys/random.h>

enum { SET_FROM = 8 }; /* partitions: for fewer a set is not worth its keep */

bool fetch_set_is_known(const struct fetch *f, struct session *s)
{
    struct session_interest *set = session_interest(s);

    if (set->busy || set->leaders_number != f->r->frontend->leaders_number)
        set->id = 0; /* two at a time; other leaders, perhaps */
    return set->id != 0;
}

size_t fetch_set_changes(struct session *s)
{
    size_t count = 0;

    for (struct session_partition *p = session_first_changed(s); p != NULL; p = session_next_changed(p))
        count++;
    return count;
}

bool fetch_set_use(struct fetch *f, struct session *s, const struct fetch_read *read)
{
    struct session_interest *set = session_interest(s);

    if (read->count < f->count) { /* new ones that are elsewhere */
        set->id = 0;
        return false;
    }
    f->set = SET_USED;
    f->set_id = set->id;
    set->busy = true;
    return true;
}

void fetch_set_make(struct fetch *f)
{
    struct frontend *frontend = f->r->frontend;
    struct session_interest *set = session_interest(session_find(frontend->sessions, f->session_id));
    uint64_t id = 0;

    set->id = 0;
    if (f->count < SET_FROM || set->refused || f->reads_count != 1 || f->reads->count < f->count)
        return;
    if (getrandom(&id, sizeof id, 0) != sizeof id || id == 0)
        return;
    *set = (struct session_interest){id, f->reads->node, frontend->leaders_number, true, false};
    f->set = SET_MADE;
    f->set_id = id;
}

void fetch_set_lost(struct fetch *f, bool is_refused)
{
    struct session *s = session_find(f->r->frontend->sessions, f->session_id);

    if (s == NULL || session_interest(s)->id != f->set_id)
        return;
    session_interest(s)->id = 0;
    session_interest(s)->refused = is_refused;
}

/* The names of places that have become free. */
static void fill_left(struct fetch *f, struct session *s, Karst__Bus__ReadRequest *body)
{
    size_t count;
    const uint32_t *left = session_left(s, &count);

    body->set_forgotten = arena_alloc(f->r->arena, count * sizeof *body->set_forgotten);
    body->n_set_forgotten = count;
    if (count > 0)
        memcpy(body->set_forgotten, left, count * sizeof *left);
}

void fetch_set_fill(struct fetch *f, Karst__Bus__ReadRequest *body)
{
    struct session *s = session_find(f->r->frontend->sessions, f->session_id);

    body->set_id = f->set_id;
    body->set_new = f->set == SET_MADE;
    if (f->set == SET_USED)
        fill_left(f, s, body);
    session_settle(s);
}

void fetch_set_take(struct fetch *f, const struct bus_result *result)
{
    const Karst__Bus__ReadReply *reply = result->reply->read;
    struct session *s = session_find(f->r->frontend->sessions, f->session_id);

    f->count = 0;
    if (s == NULL || session_interest(s)->id != f->set_id)
        return; /* the places may be others' by now */
    session_interest(s)->busy = false;
    f->parts = arena_calloc(f->r->arena, reply->n_results, sizeof *f->parts);
    for (size_t i = 0; i < reply->n_results; i++) {
        const struct session_partition *p = session_at(s, reply->results[i]->index);
        if (p == NULL)
            continue;
        struct fetch_part *part = &f->parts[f->count++];
        part->p = *p;
        part->p.key.topic = arena_dup(f->r->arena, p->key.topic);
        fetch_take_result(f, part, reply->results[i], result);
    }
}
