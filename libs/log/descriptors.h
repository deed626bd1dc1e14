/* descriptors.h - inside libs/log: the open files of all logs of a pool. Each is opened when it is needed; there are at
 * most so many, and the one that was not used for longest is closed for the next.
 *
 * I1  a descriptor of the list is open, the list is in the order of use, and has at most max of them.
 * A descriptor that was just given stays open while fewer than DESCRIPTORS_LEAST others are asked for: as long as any
 * of our functions works with it.
 * Threading: a list belongs to one thread. A file that another thread works with (of a log that is being opened, or
 * that compaction writes) is in no list. */
#ifndef KARST_LOG_DESCRIPTORS_H
#define KARST_LOG_DESCRIPTORS_H

#include "libs/log/file.h"

enum { DESCRIPTORS_LEAST = 16, DESCRIPTORS_DEFAULT = 1024 };

struct descriptor {
    int fd; /* -1: not open */
    struct descriptors *list;
    struct descriptor *prev, *next; /* of the list, while it is open */
};

struct descriptors {
    const struct file_system *fs;
    struct descriptor *first; /* unused for longest */
    size_t count, max;
};

#define DESCRIPTOR_CLOSED ((struct descriptor){.fd = -1})

/* The open descriptor, used just now; or -errno. */
NODISCARD int descriptor_open(struct descriptor *d, const struct file_system *fs, const char *path, int flags);
/* Takes over a descriptor; the one before is closed. */
void descriptor_set(struct descriptor *d, const struct file_system *fs, int fd);
void descriptor_close(struct descriptor *d, const struct file_system *fs);
/* From here on it is of the list; NULL: of none. */
void descriptor_join(struct descriptor *d, const struct file_system *fs, struct descriptors *list);

#endif
