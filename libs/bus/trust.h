/* trust.h - who may be at the other end of a tcp connection: a pair of CURVE keys of our own, and the list of hosts
 * that the cluster consists of, with the public key of each.
 *
 *   key file    one line, the secret key: 40 characters of Z85, as zmq_curve_keypair gives it. Nobody but its owner may
 *               read it
 *   hosts file  a line a host, HOST KEY [NODES]: as the others name it in addresses, its public key, and the ids of the
 *               nodes that run there, "3" or "3,7-9". The same file on all hosts. A line that begins with '#' is a
 *               comment. Lines of one name, or of one key, are of one host: while it changes its key, say. One that
 *               everybody can write is refused
 *
 * A caller connects to HOST only with a key that its own list has for HOST, whatever the metadata says; a served end
 * takes every key on its list. Either believes the other to be a process of a node that its host carries
 * (trust_carries), and of no other: a host cannot pass for another. The list is read again when its file has changed;
 * one that cannot be read leaves the former in force.
 *
 * Does blocking I/O on two small files. Threading: the loop's thread only. */
#ifndef KARST_BUS_TRUST_H
#define KARST_BUS_TRUST_H

#include "libs/base/base.h"

enum {
    TRUST_KEY_CHARS = 40,
    TRUST_KEY_BYTES = 32,
    TRUST_HOST_MAX = 255,
    TRUST_HOSTS_MAX = 1024,         /* lines; a longer list is refused */
    TRUST_RANGES_MAX = 4096,        /* of node ids, in the whole list */
    TRUST_FILE_BYTES_MAX = 1 << 18, /* of either file */
    TRUST_FRONTENDS_A_NODE = 100,   /* front ends of node N have the ids from 100 N on, all other processes N */
};

struct trust;

/* 0, or -errno with *ret_error, a sentence that names the file (the caller frees): -EPERM: others can read the key,
 * or write the list, -EBADMSG: no key, or no list, -EOPNOTSUPP: this ZeroMQ has no CURVE. */
NODISCARD int trust_open(const char *key_file, const char *hosts_file, struct trust **ret_trust, char **ret_error);
struct trust *trust_free(struct trust *t); /* takes NULL; returns NULL */

const char *trust_public_key(const struct trust *t);
const char *trust_secret_key(const struct trust *t);

/* Reads the list again if its file has changed since. 0, or -errno with *ret_error: the former list stays, and its
 * file is not looked at again before it changes once more. */
NODISCARD int trust_refresh(struct trust *t, char **ret_error);
/* The first key that the list has for the host; NULL: none. */
const char *trust_key_of(const struct trust *t, const char *host);
/* The host that has this public key (TRUST_KEY_CHARS); NULL: nobody. */
const char *trust_host_of(const struct trust *t, const char *key);
/* Whether two names are of one host of the list. */
bool trust_is_same_host(const struct trust *t, const char *a, const char *b);
/* Whether the node may run on the host: the list names it there, or names no node there and this one nowhere. */
bool trust_carries(const struct trust *t, const char *host, int32_t node);
/* A host for which the list names the node; NULL: none. */
const char *trust_host_with(const struct trust *t, int32_t node);
/* A host for which the list names no node; NULL: none. */
const char *trust_host_without_nodes(const struct trust *t);

/* ---- for the command line ---- */

/* A new pair; the secret goes to path, which must not exist (mode 0600), the public one to ret_public. 0, or -errno
 * with *ret_error. */
NODISCARD int trust_make_key(const char *path, char ret_public[TRUST_KEY_CHARS + 1], char **ret_error);

#endif
