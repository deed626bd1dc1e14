/* socket.h - plain connections to a server, and the few requests that karst-load writes itself. */
#ifndef KARST_BENCH_SOCKET_H
#define KARST_BENCH_SOCKET_H

#include <netinet/in.h>

#include "libs/base/buf.h"
#include "tests/bench/load/load.h"

/* HOST:PORT, HOST an IPv4 address or a name that has one. Ends the process with status 64 when it is neither. */
struct sockaddr_in socket_address(const char *bootstrap);

/* A connected, blocking socket without Nagle's delay; -1 with an error noted. */
int socket_connect(const struct sockaddr_in *address, struct load_result *r);

/* ApiVersions 0 and Metadata 1 of the topic (NULL: of none), each answered. False with an error noted. Blocking, at
 * most 30 s. */
bool socket_greet(int fd, const char *topic, struct load_result *r);

/* A Produce 9 request with one batch of o->batch_records records for one partition, length prefix included.
 * Offsets in it of what changes from one to the next, all before head_size: */
struct produce_frame {
    struct buf bytes;
    size_t correlation_at, partition_at, head_size;
};
void produce_frame_make(const struct load_options *o, struct produce_frame *ret_frame);

/* A Fetch 11 request for these partitions from these offsets, o->fetch_bytes of each at most; *b is overwritten. */
void fetch_request_make(struct buf *b, const struct load_options *o, const uint32_t *partitions, const int64_t *offsets,
                        uint64_t count);

/* The error code of a Produce 9 response (from behind its length) for the one partition; -1: not readable. */
int produce_answer_error(const uint8_t *p, size_t size, int32_t *ret_correlation);

#endif
