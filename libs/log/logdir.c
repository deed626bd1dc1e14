/* logdir.c - the files beside the partitions of a log directory. */
#include "libs/log/logdir.h"
#include "libs/base/buf.h"
#include "libs/log/text.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <uthash.h>

enum { SMALL_FILE_MAX_BYTES = 64 * 1024, CHECKPOINT_MAX_BYTES = 256 * 1024 * 1024 };

#define CLEAN_FILE        ".kafka_cleanshutdown"
#define FAILED_FLUSH_FILE ".karst_flush_failed"

static int slurp_in(const struct file_system *fs, const char *dir, const char *name, size_t max_bytes, char **ret_text,
                    size_t *ret_size)
{
    char *path = xasprintf("%s/%s", dir, name);
    int err = file_slurp(fs, path, max_bytes, ret_text, ret_size);
    free(path);
    return err == -EFBIG ? -EBADMSG : err;
}

/* "key=value" or "key: value", blanks around both dropped. */
static bool split_property(struct slice line, struct slice *ret_key, struct slice *ret_value)
{
    size_t i = 0;
    while (i < line.size && line.data[i] != '=' && line.data[i] != ':')
        i++;
    if (i == line.size)
        return false;
    struct slice key = slice_make(line.data, i), value = slice_make(line.data + i + 1, line.size - i - 1);
    if (!text_word(&key, ret_key))
        return false;
    if (!text_word(&value, ret_value))
        *ret_value = SLICE_EMPTY;
    return true;
}

int logdir_lock(const char *dir, int role, int *ret_fd, int *ret_holder)
{
    char *path = xasprintf("%s/.lock", dir);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    free(path);
    if (fd < 0)
        return -errno;
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = role, .l_len = 1};
    if (fcntl(fd, F_SETLK, &lock) == 0) {
        *ret_fd = fd;
        return 0;
    }
    int err = errno == EACCES || errno == EAGAIN ? -EWOULDBLOCK : -errno;
    if (ret_holder != NULL)
        *ret_holder = fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK ? lock.l_pid : 0;
    close(fd);
    return err;
}

int logdir_sync_file_system(int lock_fd)
{
    if (lock_fd < 0)
        return -EOPNOTSUPP;
    return syncfs(lock_fd) == 0 ? 0 : -errno;
}

/* ---- checkpoints ---- */

struct line {
    int64_t offset;
    char *key; /* "TOPIC PARTITION" */
    UT_hash_handle hh;
};

struct logdir_checkpoint {
    struct line *lines;
};

static char *make_key(struct slice topic, int32_t partition)
{
    return xasprintf(SLICE_F " %" PRId32, SLICE_A(topic), partition);
}

static int parse_line(struct logdir_checkpoint *t, struct slice line)
{
    struct slice topic, partition, offset;
    int64_t p, o;
    if (!text_word(&line, &topic) || !text_word(&line, &partition) || !text_word(&line, &offset) || line.size > 0)
        return -EBADMSG;
    if (topic.size > 255 || !text_int(partition, INT32_MAX, &p) || p < 0 || !text_int(offset, INT64_MAX, &o) || o < 0)
        return -EBADMSG;
    struct line *e = xcalloc(1, sizeof *e), *old;
    e->key = make_key(topic, (int32_t)p);
    e->offset = o;
    HASH_REPLACE(hh, t->lines, key[0], strlen(e->key), e, old);
    if (old != NULL) {
        free(old->key);
        free(old);
    }
    return 0;
}

int logdir_parse_checkpoint(struct slice text, struct logdir_checkpoint **ret_table)
{
    struct logdir_checkpoint *t = xcalloc(1, sizeof *t);
    struct slice line;
    int64_t version, count = 0;
    int err = 0;
    if (text.size > 0) {
        if (!text_line(&text, &line) || !text_int(line, INT32_MAX, &version) || version != 0)
            err = -EBADMSG;
        else if (!text_line(&text, &line) || !text_int(line, INT32_MAX, &count) || count < 0)
            err = -EBADMSG;
    }
    for (; err == 0 && count > 0; count--)
        err = text_line(&text, &line) ? parse_line(t, line) : -EBADMSG;
    if (err == 0 && text.size > 0)
        err = -EBADMSG;
    if (err < 0)
        logdir_checkpoint_free(t);
    else
        *ret_table = t;
    return err;
}

int logdir_read_checkpoint(const struct file_system *fs, const char *dir, const char *name,
                           struct logdir_checkpoint **ret_table)
{
    char *text = NULL;
    size_t size = 0;
    int err = slurp_in(fs, dir, name, CHECKPOINT_MAX_BYTES, &text, &size);
    if (err == 0 || err == -ENOENT)
        err = logdir_parse_checkpoint(slice_make(text, size), ret_table);
    free(text);
    return err;
}

struct logdir_checkpoint *logdir_checkpoint_free(struct logdir_checkpoint *t)
{
    struct line *e, *next;
    if (t == NULL)
        return NULL;
    HASH_ITER (hh, t->lines, e, next) {
        HASH_DEL(t->lines, e);
        free(e->key);
        free(e);
    }
    free(t);
    return NULL;
}

size_t logdir_checkpoint_count(const struct logdir_checkpoint *t)
{
    return t ? HASH_COUNT(t->lines) : 0;
}

int64_t logdir_checkpoint_get(const struct logdir_checkpoint *t, struct slice topic, int32_t partition)
{
    if (t == NULL)
        return -1;
    char *key = make_key(topic, partition);
    struct line *e;
    HASH_FIND(hh, t->lines, key, strlen(key), e);
    free(key);
    return e ? e->offset : -1;
}

int logdir_write_checkpoint(const struct file_system *fs, const char *dir, const char *name,
                            const struct logdir_offset *offsets, size_t count)
{
    struct buf b = {0};
    buf_printf(&b, "0\n%zu\n", count);
    for (size_t i = 0; i < count; i++)
        buf_printf(&b, "%s %" PRId32 " %" PRId64 "\n", offsets[i].topic, offsets[i].partition, offsets[i].offset);
    int err = file_replace(fs, dir, name, b.data, b.size, true);
    buf_free(&b);
    return err;
}

/* ---- the clean-stop marker ---- */

static int64_t parse_broker_epoch(const char *text)
{
    const char *at = strstr(text, "\"brokerEpoch\"");
    int64_t epoch;
    if (at == NULL)
        return -1;
    at += strlen("\"brokerEpoch\"");
    at += strspn(at, " \t\n\r:");
    return text_int(slice_make(at, strspn(at, "-0123456789")), INT64_MAX, &epoch) ? epoch : -1;
}

int logdir_take_clean(const struct file_system *fs, const char *dir, int64_t *ret_broker_epoch)
{
    char *text;
    size_t size;
    int err = slurp_in(fs, dir, CLEAN_FILE, SMALL_FILE_MAX_BYTES, &text, &size);
    if (err == -ENOENT)
        return 0;
    int64_t epoch = err == 0 ? parse_broker_epoch(text) : -1;
    if (err == 0)
        free(text);
    if (err < 0 && err != -EBADMSG)
        return err;
    char *path = xasprintf("%s/" CLEAN_FILE, dir);
    err = file_unlink(fs, path);
    free(path);
    if (err < 0)
        return err;
    /* Gone for good before anything is written: a power cut must not bring it back. */
    err = file_sync_dir(fs, dir);
    *ret_broker_epoch = epoch;
    return err < 0 ? err : 1;
}

int logdir_write_clean(const struct file_system *fs, const char *dir, int64_t broker_epoch)
{
    char text[64];
    int n = snprintf(text, sizeof text, "{\"version\":0,\"brokerEpoch\":%" PRId64 "}", broker_epoch);
    return file_replace(fs, dir, CLEAN_FILE, text, (size_t)n, true);
}

int logdir_note_failed_flush(const struct file_system *fs, const char *dir)
{
    char *path = xasprintf("%s/" FAILED_FLUSH_FILE, dir);
    int fd = file_open(fs, path, O_RDWR | O_CREAT);
    free(path);
    file_close(fs, fd);
    return MIN(fd, 0);
}

int logdir_had_failed_flush(const struct file_system *fs, const char *dir)
{
    struct file_stat st;
    char *path = xasprintf("%s/" FAILED_FLUSH_FILE, dir);
    int err = file_stat(fs, path, &st);
    free(path);
    return err == -ENOENT ? 0 : err < 0 ? err : 1;
}

int logdir_forget_failed_flush(const struct file_system *fs, const char *dir)
{
    char *path = xasprintf("%s/" FAILED_FLUSH_FILE, dir);
    int err = file_unlink(fs, path);
    free(path);
    return err == -ENOENT ? 0 : err;
}

/* ---- names ---- */

static bool strip_suffix(struct slice *name, const char *suffix)
{
    size_t n = strlen(suffix);
    if (name->size < n || memcmp(name->data + name->size - n, suffix, n) != 0)
        return false;
    name->size -= n;
    return true;
}

static bool parse_partition(struct slice name, struct slice *ret_topic, int32_t *ret_partition)
{
    size_t dash = name.size;
    while (dash > 0 && name.data[dash - 1] != '-')
        dash--;
    int64_t partition;
    if (dash < 2 || !text_int(slice_make(name.data + dash, name.size - dash), INT32_MAX, &partition) || partition < 0)
        return false;
    *ret_topic = slice_make(name.data, dash - 1);
    *ret_partition = (int32_t)partition;
    return true;
}

enum logdir_kind logdir_parse_name(const char *name, struct slice *ret_topic, int32_t *ret_partition)
{
    struct slice s = slice_str(name);
    enum logdir_kind kind = strip_suffix(&s, "-delete")   ? LOGDIR_DELETED
                            : strip_suffix(&s, "-future") ? LOGDIR_FUTURE
                            : strip_suffix(&s, "-stray")  ? LOGDIR_STRAY
                                                          : LOGDIR_PARTITION;
    if (kind != LOGDIR_PARTITION) {
        /* ".UUID": 32 hex digits. Without it the name is just a topic that ends so: "x-delete-0" has its partition
         * behind. */
        if (s.size < 34 || s.data[s.size - 33] != '.')
            return LOGDIR_OTHER;
        s.size -= 33;
    }
    return parse_partition(s, ret_topic, ret_partition) ? kind : LOGDIR_OTHER;
}

char *logdir_beside(const char *partition_dir, struct uuid unique, const char *kind)
{
    char hex[33];
    for (size_t i = 0; i < 16; i++)
        snprintf(hex + 2 * i, 3, "%02x", unique.b[i]);
    const char *slash = strrchr(partition_dir, '/');
    const char *name = slash ? slash + 1 : partition_dir, *dash = strrchr(name, '-');
    /* What reads it wants TOPIC-PARTITION.UUID-KIND: the topic is what is cut. */
    size_t tail = strlen(".-") + strlen(kind) + 32 + (dash ? strlen(dash) : 0),
           topic = dash ? (size_t)(dash - name) : strlen(name);
    topic = MIN(topic, (size_t)255 - tail);
    return xasprintf("%.*s%.*s%s.%s-%s", (int)(name - partition_dir), partition_dir, (int)topic, name, dash ? dash : "",
                     hex, kind);
}

int logdir_read_partition_metadata(const struct file_system *fs, const char *partition_dir, struct uuid *ret_topic_id)
{
    char *text;
    size_t size;
    int err = slurp_in(fs, partition_dir, "partition.metadata", SMALL_FILE_MAX_BYTES, &text, &size);
    if (err < 0)
        return err;
    struct slice rest = slice_make(text, size), line, key, value;
    err = -EBADMSG;
    while (text_line(&rest, &line)) {
        if (split_property(line, &key, &value) && slice_eq_str(key, "topic_id"))
            err = uuid_parse(value, ret_topic_id) == 0 ? 0 : -EBADMSG;
    }
    free(text);
    return err;
}
