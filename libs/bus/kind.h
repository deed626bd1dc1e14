/* kind.h - what is declared of each kind of call: its lane, who may send it, since when, what may be done after an
 * unknown outcome. */
#ifndef KARST_BUS_KIND_H
#define KARST_BUS_KIND_H

#include "libs/bus/call.h"

struct kind {
    Karst__Bus__Lane lane;
    uint32_t senders;       /* bits 1 << Role */
    uint32_t first_version; /* of the bus */
    enum bus_retry retry;
    bool parks;          /* the receiver may keep it until something happens */
    bool waits;          /* not executed on an image older than the sender's */
    bool call_in_arena;  /* its handler reads payloads that the sender may change under it */
    bool reply_in_files; /* its callers take files for payloads */
};

/* NULL: no such kind. */
const struct kind *link_kind_of(Karst__Bus__Call__BodyCase kind, int32_t api_key);

/* Bits 1 << Lane: the lanes on which a role is called. */
uint32_t link_kind_lanes_served(Karst__Bus__Role role);

const char *link_role_name(Karst__Bus__Role role); /* "STORAGE"; "?": it is none */

#endif
