/* trust.h - who may be at the other end of a tcp connection: a pair of CURVE keys of our own, and the list of hosts
 * that the cluster consists of, with the public key of each.
 *
 *   key file    one line, the secret key: 40 characters of Z85, as zmq_curve_keypair gives it. Nobody but its owner may
 *               read it
 *   hosts file  a line a host, HOST KEY: as the others name it in addresses, and its public key. The same file on all
 *               hosts. A line that begins with '#' is a comment; a host may have several lines, while it changes its
 *               key. One that everybody can write is refused
 *
 * A caller connects to HOST only with a key that its own list has for HOST, whatever the metadata says; a served end
 * takes every key on its list. Who has one of these keys is believed to be the process that it says it is: a host of
 * the list can pass for any other. The list is read again when its file has changed; one that cannot be read leaves the
 * former in force.
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
    TRUST_FILE_BYTES_MAX = 1 << 18, /* of either file */
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

/* ---- for the command line ---- */

/* A new pair; the secret goes to path, which must not exist (mode 0600), the public one to ret_public. 0, or -errno
 * with *ret_error. */
NODISCARD int trust_make_key(const char *path, char ret_public[TRUST_KEY_CHARS + 1], char **ret_error);

#endif
