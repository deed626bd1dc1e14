/* trust.c - the files of trust.h. */
#include "libs/bus/trust.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

struct host {
    char name[TRUST_HOST_MAX + 1], key[TRUST_KEY_CHARS + 1];
};

struct trust {
    char public_key[TRUST_KEY_CHARS + 1], secret_key[TRUST_KEY_CHARS + 1];
    char *path; /* of the list */
    struct stat seen;
    struct host *hosts;
    size_t count;
};

/* ---- reading ---- */

/* The whole file as text, in *ret_text (the caller frees), and what it was. */
static int read_text(const char *path, char **ret_text, struct stat *ret_stat, char **ret_error)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC), r = fd < 0 ? -errno : 0;
    char *text = xcalloc(1, TRUST_FILE_BYTES_MAX + 1);
    ssize_t n = 0, size = 0;

    if (r == 0 && fstat(fd, ret_stat) != 0)
        r = -errno;
    while (r == 0 && size <= TRUST_FILE_BYTES_MAX &&
           (n = read(fd, text + size, (size_t)(TRUST_FILE_BYTES_MAX + 1 - size))) > 0)
        size += n;
    if (r == 0 && n < 0)
        r = -errno;
    if (r == 0 && size > TRUST_FILE_BYTES_MAX)
        r = -EFBIG;
    if (fd >= 0)
        close(fd);
    if (r == 0) {
        text[size] = 0;
        *ret_text = text;
        return 0;
    }
    free(text);
    *ret_error = xasprintf("%s: %s", path, strerror(-r));
    return r;
}

/* Whether it is Z85 of a key. */
static bool is_key(const char *text)
{
    uint8_t bytes[TRUST_KEY_BYTES];

    return strlen(text) == TRUST_KEY_CHARS && zmq_z85_decode(bytes, text) != NULL;
}

static char *next_line(char **at)
{
    char *line = *at, *end = line + strcspn(line, "\n");

    if (*line == 0)
        return NULL;
    *at = *end ? end + 1 : end;
    *end = 0;
    return line;
}

/* Cuts the word at *at off, NUL behind it; NULL: there is none. */
static char *next_word(char **at)
{
    char *word = *at;

    while (isspace((unsigned char)*word))
        word++;
    char *end = word;
    while (*end && !isspace((unsigned char)*end))
        end++;
    *at = *end ? end + 1 : end;
    *end = 0;
    return *word ? word : NULL;
}

static int read_key(struct trust *t, const char *path, char **ret_error)
{
    struct stat st;
    char *text = NULL, *rest;
    int r = read_text(path, &text, &st, ret_error);

    if (r != 0)
        return r;
    if ((st.st_mode & 077) != 0) {
        *ret_error = xasprintf("%s can be read by others than its owner: chmod 600 it", path);
        r = -EPERM;
    }
    rest = text;
    char *key = next_word(&rest);
    if (r == 0 && (key == NULL || !is_key(key) || next_word(&rest) != NULL)) {
        *ret_error = xasprintf("%s is no key: a line of %d characters was expected, as karst key writes it", path,
                               TRUST_KEY_CHARS);
        r = -EBADMSG;
    }
    if (r == 0)
        strcpy(t->secret_key, key);
    if (r == 0 && zmq_curve_public(t->public_key, t->secret_key) != 0) {
        *ret_error = xasprintf("%s: ZeroMQ cannot use the key: %s", path, zmq_strerror(errno));
        r = -EBADMSG;
    }
    explicit_bzero(text, strlen(text));
    free(text);
    return r;
}

/* A line of the list; false: it is none. */
static bool add_host(struct trust *t, char *line)
{
    char *host = next_word(&line);

    if (host == NULL)
        return true;
    char *key = next_word(&line);
    if (key == NULL || next_word(&line) != NULL || strlen(host) > TRUST_HOST_MAX || !is_key(key) ||
        t->count == TRUST_HOSTS_MAX)
        return false;
    struct host *h = &t->hosts[t->count++];
    strcpy(h->name, host);
    strcpy(h->key, key);
    return true;
}

static int read_hosts(struct trust *t, char **ret_error)
{
    struct trust fresh = {.hosts = xcalloc(TRUST_HOSTS_MAX, sizeof(struct host))};
    char *text = NULL, *line;
    int number = 0, r = read_text(t->path, &text, &t->seen, ret_error);

    if (r == 0 && (t->seen.st_mode & S_IWOTH) != 0) {
        *ret_error = xasprintf("%s can be written by everybody, who would say whom we let in: chmod 644 it", t->path);
        r = -EPERM;
    }
    for (char *rest = text; r == 0 && (line = next_line(&rest)) != NULL;) {
        number++;
        if (line[strspn(line, " \t")] == '#' || add_host(&fresh, line)) /* keys have that character, too */
            continue;
        *ret_error = xasprintf("%s:%d: HOST KEY was expected, a key of %d characters, at most %d lines", t->path,
                               number, TRUST_KEY_CHARS, TRUST_HOSTS_MAX);
        r = -EBADMSG;
    }
    free(text);
    if (r == 0) {
        free(t->hosts);
        t->hosts = fresh.hosts;
        t->count = fresh.count;
    } else {
        free(fresh.hosts);
    }
    return r;
}

/* ---- the list ---- */

int trust_open(const char *key_file, const char *hosts_file, struct trust **ret_trust, char **ret_error)
{
    if (!zmq_has("curve")) {
        *ret_error = xstrdup("the ZeroMQ library of this machine is built without CURVE");
        return -EOPNOTSUPP;
    }
    struct trust *t = xcalloc(1, sizeof *t);
    t->path = xstrdup(hosts_file);
    int r = read_key(t, key_file, ret_error);
    if (r == 0)
        r = read_hosts(t, ret_error);
    if (r == 0)
        *ret_trust = t;
    else
        trust_free(t);
    return r;
}

struct trust *trust_free(struct trust *t)
{
    if (t == NULL)
        return NULL;
    explicit_bzero(t->secret_key, sizeof t->secret_key);
    free(t->hosts);
    free(t->path);
    free(t);
    return NULL;
}

const char *trust_public_key(const struct trust *t)
{
    return t->public_key;
}

const char *trust_secret_key(const struct trust *t)
{
    return t->secret_key;
}

static bool has_changed(const struct stat *a, const struct stat *b)
{
    return a->st_ino != b->st_ino || a->st_dev != b->st_dev || a->st_size != b->st_size ||
           a->st_ctim.tv_sec != b->st_ctim.tv_sec || a->st_ctim.tv_nsec != b->st_ctim.tv_nsec; /* of its mode, too */
}

int trust_refresh(struct trust *t, char **ret_error)
{
    struct stat now = {0};

    if (stat(t->path, &now) != 0)
        now = (struct stat){0}; /* read_hosts says why, once */
    if (!has_changed(&now, &t->seen))
        return 0;
    int r = read_hosts(t, ret_error);
    t->seen = now;
    return r;
}

const char *trust_key_of(const struct trust *t, const char *host)
{
    for (size_t i = 0; i < t->count; i++)
        if (strcmp(t->hosts[i].name, host) == 0)
            return t->hosts[i].key;
    return NULL;
}

const char *trust_host_of(const struct trust *t, const char *key)
{
    for (size_t i = 0; i < t->count; i++)
        if (strcmp(t->hosts[i].key, key) == 0)
            return t->hosts[i].name;
    return NULL;
}

/* ---- making ---- */

int trust_make_key(const char *path, char ret_public[TRUST_KEY_CHARS + 1], char **ret_error)
{
    char secret[TRUST_KEY_CHARS + 2];

    if (zmq_curve_keypair(ret_public, secret) != 0) {
        *ret_error = xstrdup("the ZeroMQ library of this machine is built without CURVE");
        return -EOPNOTSUPP;
    }
    strcat(secret, "\n");
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    int r = fd < 0 ? -errno : 0;
    if (r == 0 && write(fd, secret, strlen(secret)) != (ssize_t)strlen(secret))
        r = -EIO;
    if (fd >= 0 && (fsync(fd) != 0 || close(fd) != 0) && r == 0)
        r = -errno;
    explicit_bzero(secret, sizeof secret);
    if (r == -EEXIST)
        *ret_error = xasprintf("%s is there already", path);
    else if (r != 0)
        *ret_error = xasprintf("%s: %s", path, strerror(-r));
    return r;
}
