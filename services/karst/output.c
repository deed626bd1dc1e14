/* output.c - forwarding of log lines. A line longer than the buffer is cut into several; the file is kept under 2 x
 * FILE_BYTES_MAX. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "services/karst/supervisor.h"

enum { LINE_BYTES_MAX = 8192, FILE_BYTES_MAX = 16 << 20 };

struct output_sink {
    char *path; /* NULL: no file */
    int fd;
    size_t size;
    bool on_stderr;
};

struct follower {
    uv_pipe_t pipe;
    struct output_sink *sink;
    const char *label;
    size_t size;
    char line[LINE_BYTES_MAX];
};

static void open_file(struct output_sink *k)
{
    struct stat st;
    k->fd = open(k->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    k->size = k->fd >= 0 && fstat(k->fd, &st) == 0 ? (size_t)st.st_size : 0;
}

struct output_sink *output_sink_new(const char *run_dir, bool to_file)
{
    struct output_sink *k = xcalloc(1, sizeof(*k));
    k->fd = -1;
    k->on_stderr = true;
    if (to_file) {
        k->path = xasprintf("%s/karst.log", run_dir);
        open_file(k);
    }
    return k;
}

void output_sink_quiet(struct output_sink *k)
{
    k->on_stderr = false;
}

struct output_sink *output_sink_free(struct output_sink *k)
{
    if (k == NULL)
        return NULL;
    if (k->fd >= 0)
        close(k->fd);
    free(k->path);
    free(k);
    return NULL;
}

static void rotate(struct output_sink *k)
{
    char *old = xasprintf("%s.1", k->path);
    close(k->fd);
    rename(k->path, old);
    open_file(k);
    free(old);
}

void output_line(struct output_sink *k, const char *label, const char *text, size_t n)
{
    char line[LINE_BYTES_MAX + 32];
    size_t size = (size_t)snprintf(line, 32, "%-10s ", label);
    memcpy(line + size, text, n);
    size += n;
    line[size++] = '\n';
    /* Whether anybody reads it is not ours to decide: a failed write is ignored. */
    if (k->on_stderr && write(STDERR_FILENO, line, size) < 0)
        k->on_stderr = k->fd < 0;
    if (k->fd < 0)
        return;
    if (k->size + size > FILE_BYTES_MAX)
        rotate(k);
    if (k->fd >= 0 && write(k->fd, line, size) > 0)
        k->size += size;
}

static void on_closed(uv_handle_t *h)
{
    free(h->data);
}

static void on_room(uv_handle_t *h, size_t suggested UNUSED, uv_buf_t *ret)
{
    struct follower *f = h->data;
    *ret = uv_buf_init(f->line + f->size, (unsigned)(LINE_BYTES_MAX - f->size));
}

/* Hands out the whole lines; all of it when it is full, or at the end. */
static void flush_lines(struct follower *f, bool all)
{
    size_t start = 0;
    for (;;) {
        char *end = memchr(f->line + start, '\n', f->size - start);
        if (end == NULL)
            break;
        output_line(f->sink, f->label, f->line + start, (size_t)(end - f->line) - start);
        start = (size_t)(end - f->line) + 1;
    }
    if ((all || (start == 0 && f->size == LINE_BYTES_MAX)) && f->size > start) {
        output_line(f->sink, f->label, f->line + start, f->size - start);
        start = f->size;
    }
    memmove(f->line, f->line + start, f->size - start);
    f->size -= start;
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *b UNUSED)
{
    struct follower *f = stream->data;
    if (n > 0)
        f->size += (size_t)n;
    flush_lines(f, n < 0);
    if (n < 0)
        uv_close((uv_handle_t *)stream, on_closed);
}

void output_follow(struct output_sink *k, uv_loop_t *loop, const char *label, int fd)
{
    struct follower *f = xmalloc(sizeof(*f));
    f->sink = k;
    f->label = label;
    f->size = 0;
    uv_pipe_init(loop, &f->pipe, 0);
    f->pipe.data = f;
    if (uv_pipe_open(&f->pipe, fd) != 0)
        BUG("a new pipe cannot be read");
    uv_read_start((uv_stream_t *)&f->pipe, on_room, on_read);
}
