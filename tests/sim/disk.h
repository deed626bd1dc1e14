/* disk.h - a simulated disk behind the table of libs/log/file.h: what was not synced may be lost, torn or undone.
 *
 * Contents: a write reaches the page cache; fdatasync makes the file's bytes durable. disk_power_cut keeps, of each
 * sector (512 B) or page (4 KiB) that was written since, either the old or the new bytes, and a size between the two.
 * Names: creating, renaming and removing reach the cache; sync_dir makes what happened in that folder durable.
 * disk_power_cut undoes a random suffix of what was not, folder by folder.
 *
 * Faults are armed by count, so that a failing run is found again: disk_fail_after lets n calls that change something
 * through, then fails the next ones; disk_die_after stops the process there: from then on every call fails and nothing
 * changes, until disk_restart.
 *
 * Deterministic for its seed. Threading: one. */
#ifndef KARST_TESTS_SIM_DISK_H
#define KARST_TESTS_SIM_DISK_H

#include "libs/log/file.h"

struct disk;
struct process;

NODISCARD struct disk *disk_new(uint64_t seed);
struct disk *disk_free(struct disk *d); /* takes NULL, returns NULL */
struct file_system disk_fs(struct disk *d);

/* Bytes that all files together may take; 0: no limit. Beyond it writes are cut short, then fail with ENOSPC. */
void disk_set_capacity(struct disk *d, uint64_t bytes);
bool disk_is_full(const struct disk *d);
/* The n+1-th changing call from now, and the count - 1 behind it, fail with error (EIO, ENOSPC ...). A failed fdatasync
 * loses what it should have made durable: the pages count as clean and go back to the old bytes at a power cut, as
 * Linux does it. */
void disk_fail_after(struct disk *d, uint64_t n, uint64_t count, int error);
/* The same for writes, new files and new folders only: what takes room. What else is called counts and succeeds. */
void disk_fail_writes_after(struct disk *d, uint64_t n, uint64_t count, int error);
/* Every call counts and may fail, also those that only read (but for close). Off at first. */
void disk_count_all(struct disk *d, bool all);
/* No armed fault any more. */
void disk_disarm(struct disk *d);
/* A write that is cut short at a random byte, n calls from now. */
void disk_short_after(struct disk *d, uint64_t n);
/* The process dies before the n+1-th changing call from now. */
void disk_die_after(struct disk *d, uint64_t n);
bool disk_is_dead(const struct disk *d);
uint64_t disk_changes(const struct disk *d); /* calls that counted so far */

/* After a death: kill -9 keeps the page cache; a power cut does what the top of this file says. Open descriptors are
 * gone. */
void disk_restart(struct disk *d);
void disk_power_cut(struct disk *d);
/* An operator has unmounted it, as the log asks for where a failed flush could not be noted: what that flush has not
 * written is gone from the cache, too. */
void disk_remount(struct disk *d);

/* Descriptors are numbers from DISK_FD_FIRST on, which nothing else in this program uses. One may be passed to another
 * process: the number that comes back reads the same file, whatever becomes of its names, of the process that passed it
 * and of the disk's restart; the file as it is at that time, cut or written on. -EBADF, -EMFILE. */
enum { DISK_FD_FIRST = 1 << 16, DISK_FD_END = 1 << 20 };
int disk_pass(int fd, const struct process *to);
ssize_t disk_read_passed(int fd, void *p, size_t n, uint64_t at);
/* Closes a descriptor of either kind; all that were passed to a process, which is gone. */
int disk_close_fd(int fd);
void disk_close_passed(const struct process *of);
size_t disk_passed(const struct disk *d);         /* descriptors that are not closed */
size_t disk_passed_deleted(const struct disk *d); /* of those, of files that have no name */

/* A hash over all names and bytes of the cache, for traces. */
uint64_t disk_hash(const struct disk *d);
size_t disk_open_files(const struct disk *d);

#endif
