/* directories.c - what the storage nodes have written of their log directories, for `karst status`
 * (services/storage/progress.c has the format). A file may be cut short or gone: what does not parse is left out. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "services/karst/karst.h"

struct row {
    char *fields[6];
    size_t count;
};

/* Splits "KIND A<tab>B..." in place; false: not of that kind, or of fewer fields. */
static bool split(char *line, const char *kind, size_t fields, struct row *ret)
{
    size_t n = strlen(kind);
    if (strncmp(line, kind, n) != 0 || line[n] != ' ')
        return false;
    *ret = (struct row){.fields = {line + n + 1}, .count = 1};
    for (char *p = line + n + 1; *p && *p != '\n'; p++) {
        if (*p != '\t')
            continue;
        *p = 0;
        if (ret->count == COUNTOF(ret->fields))
            return false;
        ret->fields[ret->count++] = p + 1;
    }
    char *end = strchr(ret->fields[ret->count - 1], '\n');
    if (end)
        *end = 0;
    return end && ret->count == fields;
}

static void print_json_text(const char *s)
{
    putchar('"');
    for (; *s; s++) {
        if (*s == '"' || *s == '\\')
            putchar('\\');
        putchar(*s);
    }
    putchar('"');
}

static void print_json_row(int node, const struct row *r, bool is_directory, bool first)
{
    char *const *f = r->fields;
    printf("%s{\"node\":%d,", first ? "" : ",", node);
    if (is_directory) {
        printf("\"path\":");
        print_json_text(f[0]);
        printf(",\"state\":\"%s\",\"logs_open\":%s,\"logs\":%s,\"checked_bytes\":%s,\"found_bytes\":%s", f[1], f[2],
               f[3], f[4], f[5]);
    } else {
        printf("\"partition\":");
        print_json_text(f[0]);
        printf(",\"path\":");
        print_json_text(f[1]);
        printf(",\"reason\":");
        print_json_text(f[2]);
    }
    printf("}");
}

static void print_row(const struct row *r, bool is_directory)
{
    char *const *f = r->fields;
    if (!is_directory)
        printf("not open: %s in %s: %s\n", f[0], f[1], f[2]);
    else if (strcmp(f[2], f[3]) == 0 || strcmp(f[1], "online") != 0)
        printf("directory %s: %s, %s of %s logs open\n", f[0], f[1], f[2], f[3]);
    else
        printf("directory %s: %s, %s of %s logs open, %s of %s bytes checked\n", f[0], f[1], f[2], f[3], f[4], f[5]);
}

/* The rows of a kind that one node has written; first: nothing was printed before. */
static bool print_node(const char *run_dir, int node, const char *kind, bool json, bool first)
{
    char *line = NULL, *path = xasprintf("%s/storage-%d.directories", run_dir, node);
    size_t capacity = 0;
    bool is_directory = strcmp(kind, "directory") == 0;
    struct row r;
    FILE *f = fopen(path, "re");
    while (f && getline(&line, &capacity, f) > 0) {
        if (!split(line, kind, is_directory ? 6 : 3, &r))
            continue;
        if (json)
            print_json_row(node, &r, is_directory, first);
        else
            print_row(&r, is_directory);
        first = false;
    }
    if (f)
        fclose(f);
    free(line);
    free(path);
    return first;
}

static void print_kind(const char *run_dir, const struct state *s, const char *kind, bool json)
{
    bool first = true;
    for (size_t i = 0; i < s->count; i++)
        if (strcmp(s->processes[i].role, "storage") == 0)
            first = print_node(run_dir, s->processes[i].id, kind, json, first);
}

void directories_print(const char *run_dir, const struct state *s, bool json)
{
    if (json)
        printf(",\"directories\":[");
    print_kind(run_dir, s, "directory", json);
    if (json)
        printf("],\"unopened\":[");
    print_kind(run_dir, s, "partition", json);
    if (json)
        printf("]");
}
