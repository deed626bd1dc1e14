/* pipeline.h - what a front end does between the bytes of its clients' sockets and its API handlers: frames, the order
 * of answers, bounds, back-pressure, idle time. Pure core: no socket, clock or thread. The adapter
 * (services/frontend/listener.c, or the simulator) brings bytes, times and answers, and carries out what pipeline_next
 * and pipeline_attention say.
 *
 *   bytes --pipeline_received--> frames --pipeline_next--> running requests --pipeline_answer--> output
 * --pipeline_output--> bytes
 *
 * A frame is an int32 length and that many bytes (apis.md). Length < 8 (no room for a request header) or above
 * frame_max_bytes: the connection is closed without an answer, as Kafka does.
 *
 * A request of a connection:
 *   queued --pipeline_next--> running --pipeline_answer--> answered --all before it answered--> output
 * --pipeline_written--> gone
 *
 * I1  answers leave a connection in the order of its requests, each whole and at most once.
 * I2  a request runs only when all earlier ones of its connection are answered and at most output_resume_bytes of their
 * answers wait for the client; or when overlaps(key) holds and all that run on the connection have the same key.
 * I3  bytes held of what clients sent (frames begun, queued or running, whole pieces of 64 KiB that frames lie in) stay
 * at or under input_budget_bytes, beyond one read and, so that somebody always gets on, one frame.
 * I4  a connection that is not told to read has no room to: pipeline_input answers 0. I5  ids are never used twice.
 *
 * Threading: the owning loop's thread only; ref counts of buffers may be given back by any thread. */
#ifndef KARST_PIPELINE_PIPELINE_H
#define KARST_PIPELINE_PIPELINE_H

#include "libs/bus/ref.h"

#include <sys/uio.h>

struct pipeline;

enum { PIPELINE_FRAME_MIN = 8, PIPELINE_IP_BYTES = 16 };

/* Memory to read to, with one count of owner. */
struct pipeline_buffer {
    struct ref_owner *owner;
    uint8_t *data;
    size_t capacity;
};

struct pipeline_options {
    uint32_t frame_max_bytes;     /* socket.request.max.bytes */
    uint64_t input_budget_bytes;  /* queued.max.request.bytes, or a default of the caller's; all connections together */
    uint64_t output_budget_bytes; /* answers not yet written, all connections; see pipeline_output_room */
    uint32_t conn_requests_max;   /* frames of one connection that are queued or running; then its socket is not read */
    uint64_t conn_input_max_bytes; /* the same in bytes; one frame above it is let in */
    uint64_t output_resume_bytes;  /* I2 */
    uint32_t connections_max;      /* max.connections */
    uint32_t per_ip_max;           /* max.connections.per.ip */
    uint64_t idle_ms; /* connections.max.idle.ms; 0: never. A client that does not take its answer is idle too */
    /* While the input budget is used up, a frame that does not grow for so long ends its connection. While more than
     * half of the output budget is used, so does output of which nothing is taken for so long, or that is not all taken
     * in 12 times that. */
    uint64_t stall_ms;
    bool (*overlaps)(int16_t api_key); /* I2 */
    /* Memory of the caller's for pieces and large frames, at least size bytes; false: no room, the heap serves. NULL:
     * always the heap. It has alloc_bytes in all, and takes memory only where it is written. */
    bool (*alloc)(void *alloc_ctx, size_t size, struct pipeline_buffer *ret_buffer);
    void *alloc_ctx;
    uint64_t alloc_bytes;
};

NODISCARD struct pipeline *pipeline_new(const struct pipeline_options *options);
/* Connections and requests are forgotten. Takes NULL, returns NULL. */
struct pipeline *pipeline_free(struct pipeline *p);

/* ---- connections ---- */

/* A client has connected; ip is its IPv6 or IPv4-mapped address. per_ip_max: -1, or the override for this address
 * (max.connections.per.ip.overrides). 0 with *ret_conn; or
 *   -EUSERS  too many of this address: close it, as Kafka does
 *   -EMFILE  connections_max is reached: do not accept (pipeline_is_full), Kafka lets them wait
 *   -ESHUTDOWN draining */
NODISCARD int pipeline_open(struct pipeline *p, const uint8_t ip[PIPELINE_IP_BYTES], int64_t per_ip_max,
                            uint64_t now_ms, uint64_t *ret_conn);
bool pipeline_is_full(const struct pipeline *p);
uint32_t pipeline_connections(const struct pipeline *p);

/* Room for the next bytes: 1 or 2 vectors, or 0 when the connection is not to be read now. Used up by
 * pipeline_received, which must come before any other call. */
NODISCARD int pipeline_input(struct pipeline *p, uint64_t conn, struct iovec room[2]);
/* size bytes were put there. */
void pipeline_received(struct pipeline *p, uint64_t conn, size_t size, uint64_t now_ms);

/* A part of a file. Its bytes take no memory here: they count for I2 and not for output_budget_bytes. */
struct pipeline_file {
    int fd; /* until pipeline_written has taken the whole of it */
    uint64_t position, size_bytes;
};
/* What is ready to be written: at most max vectors, and behind these, if ret_file->size_bytes is not 0, a part of a
 * file. 0 vectors and no file: nothing. */
NODISCARD int pipeline_output(struct pipeline *p, uint64_t conn, struct iovec *out, int max,
                              struct pipeline_file *ret_file);
/* size bytes of these, file included, were taken. */
void pipeline_written(struct pipeline *p, uint64_t conn, size_t size, uint64_t now_ms);

/* The socket is gone or is being closed: everything of conn is dropped; requests that run are reported by
 * pipeline_gone. */
void pipeline_close(struct pipeline *p, uint64_t conn);

/* What the adapter has to do about a connection whose state changed since it last asked. False: no more. */
struct pipeline_attention {
    uint64_t conn;
    bool read;          /* watch for bytes */
    bool write;         /* there is output */
    bool close;         /* nothing more will be read or written: close the socket, then pipeline_close */
    const char *reason; /* of close; static; NULL: in good order */
};
NODISCARD bool pipeline_attention(struct pipeline *p, struct pipeline_attention *ret_attention);

/* Time has come to pipeline_next_ms: closes idle and stalled connections. */
void pipeline_tick(struct pipeline *p, uint64_t now_ms);
/* When pipeline_tick has something to look at; UINT64_MAX: never. */
uint64_t pipeline_next_ms(const struct pipeline *p);

/* No new connections, no more reading; each connection closes once what was wholly received is answered and written. */
void pipeline_drain(struct pipeline *p);

/* ---- requests ---- */

struct pipeline_request {
    uint64_t id;
    uint64_t conn;
    struct slice frame; /* without the length; lives until the answer; longer with a count of owner */
    struct ref_owner *owner;
    int16_t api_key, api_version;
    int32_t correlation_id;
};
/* The next request that may run, connections taking turns. False: none. */
NODISCARD bool pipeline_next(struct pipeline *p, struct pipeline_request *ret_request);

/* A running request holds so many bytes beside its frame (decoded structs): they count as input until the answer. */
void pipeline_charge(struct pipeline *p, uint64_t request, uint64_t bytes);

enum pipeline_end { PIPELINE_ANSWERED, PIPELINE_NO_ANSWER, PIPELINE_CLOSE };
/* Ends a running request: ANSWERED with the pieces of the whole frame, length included (takes over their counts);
 * NO_ANSWER: nothing is sent; CLOSE: the connection is closed after the answers before this one. An unknown id is a
 * bug. */
void pipeline_answer(struct pipeline *p, uint64_t request, enum pipeline_end end, struct ref *pieces, size_t count);

/* A running request whose client has gone, once each; it must still be answered. False: none. */
NODISCARD bool pipeline_gone(struct pipeline *p, uint64_t *ret_request);

/* How many bytes of answers fit under output_budget_bytes now: handlers with large answers stay below it. */
uint64_t pipeline_output_room(const struct pipeline *p);
uint64_t pipeline_input_used(const struct pipeline *p);
bool pipeline_is_over(
    const struct pipeline *p); /* the input budget is used up: nobody is read until answers free some */
uint32_t pipeline_running(const struct pipeline *p);

/* Proves the invariants; for tests and the simulator. */
void pipeline_check(const struct pipeline *p);

#endif
