/* passing.h - descriptors over a unix socket, and what is checked of those that a peer gave. No function blocks; each
 * closes what it does not hand over. */
#ifndef KARST_BUS_PASSING_H
#define KARST_BUS_PASSING_H

#include <sys/types.h>

#include "libs/base/base.h"

enum { PASSING_FDS = 4 }; /* that any message of ours carries */

/* 0, -EAGAIN (the peer does not read), or another -errno. */
NODISCARD int passing_send(int socket_fd, const void *bytes, size_t size, const int *fds, size_t fd_count);
/* One message. Its size; 0: the peer has hung up; -EAGAIN: there is none; -EBADMSG: longer than size, or with more than
 * PASSING_FDS descriptors; -EMFILE: we have no room for its descriptors; or another -errno. Descriptors, close-on-exec,
 * are the caller's. */
NODISCARD ssize_t passing_receive(int socket_fd, void *bytes, size_t size, int fds[PASSING_FDS], size_t *ret_fd_count);
void passing_close(const int *fds, size_t count);

/* Anonymous memory of that size for two processes, sealed against any change of its size. */
NODISCARD int passing_memory_new(const char *name, size_t size); /* a descriptor, or -errno */
/* Memory that cannot shrink below size, so that reading its mapping cannot fault for want of it. */
bool passing_is_memory(int fd, size_t size);
bool passing_is_eventfd(int fd);
bool passing_is_same_user(int socket_fd); /* at the other end */

#endif
