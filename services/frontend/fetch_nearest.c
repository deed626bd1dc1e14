/* fetch_nearest.c - which replica a Fetch is read from (KIP-392).
 *
 * The leader chooses: it alone knows how far the others are (services/storage/nearest.c). It tells the client, which
 * then asks by the chosen broker's address, and a Read goes to that node. Where all brokers are at one address
 * (karst.one.address) a client would not know the difference: the choice is made here, of those in sync, and where the
 * one that was chosen answers with an error the leader is asked before the client hears of it, which knows of no
 * follower and would begin elsewhere in the log.
 *
 * A client that asks a broker outside of its rack is none that was sent there, but one whose metadata is old: it reads
 * from the leader as ever. */
#include "libs/bus/version.h"
#include "services/frontend/fetch.h"

/* A node of the release before sends who asks it as a follower to the leader, which would send him back: as long as
 * there is one, all read from the leaders. */
bool fetch_knows_racks(const struct frontend *frontend)
{
    return frontend->rack_aware && bus_level(frontend->bus) >= BUS_VERSION_FOLLOWER_READS;
}

static bool is_near(const struct fetch *f, const struct image *image, int32_t id)
{
    const struct image_broker *b = image_broker(image, id);

    return b != NULL && image_broker_is_active(image, id) && slice_eq_str(b->rack, f->rack);
}

bool fetch_chooses(const struct fetch *f)
{
    return f->rack[0] != 0 && !f->r->frontend->has_broker_ports;
}

int32_t fetch_node(const struct fetch *f, const struct image *image, const struct image_partition *p)
{
    int32_t asked = f->r->client.broker_id;

    if (p->leader < 0 || f->rack[0] == 0 || f->leaders_only || is_near(f, image, p->leader))
        return p->leader;
    if (!fetch_chooses(f))
        return image_lists(p->replicas, p->replica_count, asked) && is_near(f, image, asked) ? asked : p->leader;
    for (int32_t i = 0; i < p->replica_count; i++)
        if (image_lists(p->isr, p->isr_count, p->replicas[i]) && is_near(f, image, p->replicas[i]))
            return p->replicas[i];
    return p->leader;
}

bool fetch_is_misled(const struct fetch *f)
{
    if (!fetch_chooses(f) || f->leaders_only)
        return false;
    for (uint32_t i = 0; i < f->count; i++) {
        const struct fetch_part *part = &f->parts[i];
        if (part->partition != NULL && part->data.error_code != KERR_NONE &&
            fetch_node(f, f->r->image, part->partition) != part->partition->leader)
            return true;
    }
    return false;
}
