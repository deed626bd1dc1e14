#include <pthread.h>
#include <stdlib.h>

#include "tests/jepsen/jepsen.h"

static FILE *history;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_ullong ops = 1;

struct marks marks[KEYS_MAX];

uint64_t next_op(void)
{
    return atomic_fetch_add(&ops, 1);
}

void history_open(void)
{
    history = fopen(options.history, "w");
    if (history == NULL) {
        fprintf(stderr, "karst-jepsen: %s: %s\n", options.history, strerror(errno));
        exit(64);
    }
    setvbuf(history, NULL, _IOFBF, 1 << 20);
}

void history_flush(void)
{
    pthread_mutex_lock(&lock);
    fflush(history);
    pthread_mutex_unlock(&lock);
}

void history_close(void)
{
    pthread_mutex_lock(&lock);
    if (fclose(history) != 0) {
        fprintf(stderr, "karst-jepsen: %s: %s\n", options.history, strerror(errno));
        exit(1);
    }
    history = NULL;
    pthread_mutex_unlock(&lock);
}

void line_begin(struct line *l, unsigned process, uint64_t op, const char *type, const char *f, uint64_t time_ns)
{
    l->out = open_memstream(&l->text, &l->size);
    fprintf(l->out, "{\"time\":%lu,\"process\":%u", time_ns, process);
    if (op != 0)
        fprintf(l->out, ",\"op\":%lu", op);
    fprintf(l->out, ",\"type\":\"%s\",\"f\":\"%s\",\"value\":", type, f);
}

uint64_t invoke(unsigned process, const char *f)
{
    struct line l;
    uint64_t op = next_op();
    line_begin(&l, process, op, "invoke", f, now_ns());
    fputs("null", l.out);
    line_end(&l);
    return op;
}

void line_error(struct line *l, const char *text)
{
    fputs(",\"error\":\"", l->out);
    for (size_t i = 0; text[i] != 0 && i < TEXT_MAX; i++)
        fputc(text[i] == '"' || text[i] == '\\' || (unsigned char)text[i] < ' ' ? '\'' : text[i], l->out);
    fputc('"', l->out);
}

void line_end(struct line *l)
{
    fputs("}\n", l->out);
    fclose(l->out);
    pthread_mutex_lock(&lock);
    if (history != NULL) /* a client's last words may come after the end */
        fwrite(l->text, 1, l->size, history);
    pthread_mutex_unlock(&lock);
    free(l->text);
}
