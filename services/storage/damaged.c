/* damaged.c - partitions whose logs were refused for their damage, and what may still become of them.
 *
 *   STAYS --damaged_set_aside--> -stray, and made anew
 *     |----damaged_begin_again--> WAITS, under the topic's id
 *
 * partition.metadata becomes durable with the first flush. Until then a power cut may tear it, and nobody can say whose
 * the folder is: of the partition, or of an older topic of the same name, whose records must not be taken for this
 * one's. (Kafka's directory goes offline with such a file, or its process ends; a folder that has lost the file it sets
 * aside.) */
#include "services/storage/storage.h"
#include <stdlib.h>

/* It was refused, and what becomes of it is known: from an image with this life's registration. */
static bool is_damaged(const struct unopened *u)
{
    const struct storage *s = u->dir->storage;
    return u->state == UNOPENED_STAYS && u->err == -EBADMSG && u->dir->failed == 0 && !s->draining &&
           service_is_ready(s->service);
}

static bool others_have_all(const struct storage *s, const struct image_partition *p)
{
    int32_t id = service_id(s->service);
    return p->isr_count > 0 && !image_lists(p->isr, p->isr_count, id) && !image_lists(p->elr, p->elr_count, id);
}

bool damaged_set_aside(struct unopened *u, const struct image_topic *t, const struct image_partition *p)
{
    struct directory *d = u->dir;
    struct uuid id;
    if (!is_damaged(u))
        return false;
    char *path = xasprintf("%s/%s", d->path, u->name);
    char *to = logdir_beside(path, replica_random_id(), "stray");
    int err = logdir_read_partition_metadata(&file_system_real, path, &id);
    bool older = err == 0 && !uuid_eq(id, t->id), torn = err == -EBADMSG && others_have_all(d->storage, p);
    bool gone = (older || torn) && file_rename(&file_system_real, path, to) == 0;
    if (gone) {
        log_warn("%s %s: set aside as %s", path,
                 older ? "is of an older topic, and could not be opened"
                       : "has a damaged partition.metadata, and other nodes have its records",
                 to);
        unopened_remove(u);
        d->names_gone = true;
        progress_soon(d->storage);
    }
    free(path);
    free(to);
    return gone;
}

bool damaged_begin_again(struct unopened *u)
{
    if (!is_damaged(u) || u->is_new || uuid_is_zero(u->topic_id) || u->recovery_point > 0)
        return false;
    u->is_new = true;
    unopened_wait(u);
    opening_ask(u);
    return true;
}
