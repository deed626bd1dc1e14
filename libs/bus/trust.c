/* trust.c - the files of trust.h. */
#include "libs/bus/trust.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

/* A line of the list. */
struct host {
    char name[TRUST_HOST_MAX + 1], key[TRUST_KEY_CHARS + 1];
    size_t machine; /* the same for all lines of one host: the number of one of them */
};

/* Ids of nodes that a line names, both ends included. */
struct range {
    size_t line;
    int32_t first, last;
};

struct trust {
    char public_key[TRUST_KEY_CHARS + 1], secret_key[TRUST_KEY_CHARS + 1];
    char *path; /* of the list */
    struct stat seen;
    struct host *hosts;
    struct range *ranges;
    size_t count, range_count;
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

/* An id at *at, which goes behind it; false: there is none. */
static bool read_id(char **at, int32_t *ret_id)
{
    char *end = *at;
    long id = isdigit((unsigned char)**at) ? strtol(*at, &end, 10) : -1;

    if (id < 0 || id > INT32_MAX)
        return false;
    *at = end;
    *ret_id = (int32_t)id;
    return true;
}

/* "3,7-9", of the line that comes next; false: it is no such thing. */
static bool add_nodes(struct trust *t, char *text)
{
    struct range r = {.line = t->count};

    do {
        if (!read_id(&text, &r.first))
            return false;
        r.last = r.first;
        if (*text == '-') {
            text++;
            if (!read_id(&text, &r.last) || r.last < r.first)
                return false;
        }
        if (t->range_count == TRUST_RANGES_MAX)
            return false;
        t->ranges[t->range_count++] = r;
    } while (*text++ == ',');
    return text[-1] == 0;
}

/* The last line is of the host of each earlier one that has its name or its key. */
static void join_machines(struct trust *t)
{
    struct host *h = &t->hosts[t->count - 1];

    for (size_t i = 0; i + 1 < t->count; i++) {
        size_t other = t->hosts[i].machine;
        if (other == h->machine || (strcmp(t->hosts[i].name, h->name) != 0 && strcmp(t->hosts[i].key, h->key) != 0))
            continue;
        for (size_t k = 0; k < t->count; k++)
            if (t->hosts[k].machine == other)
                t->hosts[k].machine = h->machine;
    }
}

/* A line of the list; false: it is none. */
static bool add_host(struct trust *t, char *line)
{
    char *host = next_word(&line);

    if (host == NULL)
        return true;
    char *key = next_word(&line), *nodes = next_word(&line);
    if (key == NULL || next_word(&line) != NULL || strlen(host) > TRUST_HOST_MAX || !is_key(key) ||
        t->count == TRUST_HOSTS_MAX || (nodes != NULL && !add_nodes(t, nodes)))
        return false;
    struct host *h = &t->hosts[t->count];
    strcpy(h->name, host);
    strcpy(h->key, key);
    h->machine = t->count++;
    join_machines(t);
    return true;
}

static int read_hosts(struct trust *t, char **ret_error)
{
    struct trust fresh = {.hosts = xcalloc(TRUST_HOSTS_MAX, sizeof(struct host)),
                          .ranges = xcalloc(TRUST_RANGES_MAX, sizeof(struct range))};
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
        *ret_error =
            xasprintf("%s:%d: HOST KEY [NODES] was expected, a key of %d characters, nodes like 3 or 3,7-9, at "
                      "most %d lines",
                      t->path, number, TRUST_KEY_CHARS, TRUST_HOSTS_MAX);
        r = -EBADMSG;
    }
    free(text);
    if (r == 0) {
        free(t->hosts);
        free(t->ranges);
        t->hosts = fresh.hosts;
        t->ranges = fresh.ranges;
        t->count = fresh.count;
        t->range_count = fresh.range_count;
    } else {
        free(fresh.hosts);
        free(fresh.ranges);
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
    free(t->ranges);
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

/* The number of a line of the host; t->count: it is not on the list. */
static size_t machine_of(const struct trust *t, const char *host)
{
    for (size_t i = 0; i < t->count; i++)
        if (strcmp(t->hosts[i].name, host) == 0)
            return t->hosts[i].machine;
    return t->count;
}

bool trust_is_same_host(const struct trust *t, const char *a, const char *b)
{
    size_t machine = machine_of(t, a);

    return machine < t->count && machine == machine_of(t, b);
}

static bool has_nodes(const struct trust *t, size_t machine)
{
    for (size_t i = 0; i < t->range_count; i++)
        if (t->hosts[t->ranges[i].line].machine == machine)
            return true;
    return false;
}

bool trust_carries(const struct trust *t, const char *host, int32_t node)
{
    size_t machine = machine_of(t, host);

    for (size_t i = 0; i < t->range_count; i++) {
        const struct range *r = &t->ranges[i];
        if (r->first <= node && node <= r->last && t->hosts[r->line].machine == machine)
            return true;
    }
    return machine < t->count && !has_nodes(t, machine) && trust_host_with(t, node) == NULL;
}

const char *trust_host_with(const struct trust *t, int32_t node)
{
    for (size_t i = 0; i < t->range_count; i++)
        if (t->ranges[i].first <= node && node <= t->ranges[i].last)
            return t->hosts[t->ranges[i].line].name;
    return NULL;
}

const char *trust_host_without_nodes(const struct trust *t)
{
    for (size_t i = 0; i < t->count; i++)
        if (!has_nodes(t, t->hosts[i].machine))
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
