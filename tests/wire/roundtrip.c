/* roundtrip.c - our side of the comparison with Kafka's own classes (run.sh). A line is "FOLDER NAME VERSION HEX".
 *
 *   wire_roundtrip list           "FOLDER NAME" of every message that Kafka has a class for
 *   wire_roundtrip defaults       "NAME STRUCT.FIELD VALUE" of every field of these, in lower case: what wire_init
 * gives wire_roundtrip write SEED     lines of random messages until every field of every version was set, default and
 * null wire_roundtrip read           reads such lines from stdin, which come grouped by message and version, and writes
 * each again
 *
 * On stdout, for read: "differs NAME VERSION WHY" for each line that differs, and a count. Exit 1 when one differs, or
 * when the values did not reach every field. */
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "libs/wire/table.h"
#include "tests/wire/fill.h"

enum { LEAST = 8, MOST = 2000, LINE_MAX_BYTES = 4 << 20 };

static const char *const folders[WIRE_FOLDERS] = {"api",         "header", "data",    "metadata", "group",
                                                  "transaction", "share",  "storage", "raft",     "karst"};

static bool has_class(const struct wire_type *t)
{
    return t->folder != WIRE_FOLDER_KARST && wire_version_min(t) >= 0;
}

static unsigned message_count(void)
{
    return wire_folder_start[WIRE_FOLDERS];
}

static void print_line(const struct wire_type *t, int version, struct slice bytes)
{
    printf("%s %s %d ", folders[t->folder], wire_name(t), version);
    for (size_t i = 0; i < bytes.size; i++)
        printf("%02x", bytes.data[i]);
    putchar('\n');
}

/* What the cover lacks goes to stderr. */
static size_t report_missing(const struct cover *c, const struct wire_type *t, int version)
{
    struct buf text = {0};
    size_t missing = cover_missing(c, t, version, &text);
    fprintf(stderr, SLICE_F, SLICE_A(buf_slice(&text)));
    buf_free(&text);
    return missing;
}

static bool is_covered(const struct cover *c, const struct wire_type *t, int version)
{
    struct buf text = {0};
    size_t missing = cover_missing(c, t, version, &text);
    buf_free(&text);
    return missing == 0;
}

static size_t write_version(const struct wire_type *t, int version, uint64_t *state, struct arena *arena,
                            struct cover *c)
{
    cover_clear(c);
    for (int i = 0; i < MOST && (i < LEAST || !is_covered(c, t, version)); i++) {
        struct buf out = {0};
        arena_reset(arena);
        void *msg = arena_alloc(arena, wire_struct_size(t));
        if (i == 0)
            wire_init(t, msg);
        else
            fill_message(state, t, version, arena, msg);
        int e = wire_encode(t, version, msg, &out);
        if (e == 0) {
            cover_note(c, t, version, msg);
            print_line(t, version, buf_slice(&out));
        } else if (i > 0) { /* a default may be null where the version does not allow it */
            fprintf(stderr, "%s %d: cannot be encoded: %s\n", wire_name(t), version, strerror(-e));
            exit(1);
        }
        buf_free(&out);
    }
    return report_missing(c, t, version);
}

static int write_all(uint64_t seed)
{
    struct arena *arena = arena_new(0);
    struct cover c = cover_new();
    size_t missing = 0;
    for (unsigned i = 0; i < message_count(); i++) {
        const struct wire_type *t = wire_messages[i];
        for (int v = wire_version_min(t); has_class(t) && v <= wire_version_max(t); v++)
            missing += write_version(t, v, &seed, arena, &c);
    }
    cover_free(&c);
    arena_free(arena);
    return missing ? 1 : 0;
}

static size_t unhex(const char *text, uint8_t *to)
{
    size_t n = 0;
    for (unsigned byte; sscanf(text + 2 * n, "%2x", &byte) == 1; n++)
        to[n] = (uint8_t)byte;
    return n;
}

/* NULL, or why the message is not read and written to the same bytes. */
static const char *reread(const struct wire_type *t, int version, struct slice bytes, struct arena *arena,
                          struct cover *c)
{
    struct buf again = {0}, bus = {0};
    const char *why = NULL;
    size_t used = 0;
    void *msg = arena_alloc(arena, wire_struct_size(t)), *from_bus = arena_alloc(arena, wire_struct_size(t));
    if (wire_decode(t, version, bytes, arena, msg, &used) < 0)
        why = "cannot be read";
    else if (used != bytes.size)
        why = "not read to its end";
    else if (wire_encode(t, version, msg, &again) < 0)
        why = "cannot be written";
    else if (!slice_eq(bytes, buf_slice(&again)))
        why = "written otherwise";
    else if (wire_encode(t, WIRE_VERSION_BUS, msg, &bus) < 0 ||
             wire_decode(t, WIRE_VERSION_BUS, buf_slice(&bus), arena, from_bus, NULL) < 0)
        why = "does not pass the bus";
    else {
        again.size = 0;
        if (wire_encode(t, version, from_bus, &again) < 0 || !slice_eq(bytes, buf_slice(&again)))
            why = "changed by the bus";
        cover_note(c, t, version, msg);
    }
    buf_free(&again);
    buf_free(&bus);
    return why;
}

static int read_all(void)
{
    static char line[LINE_MAX_BYTES], name[128];
    static uint8_t bytes[LINE_MAX_BYTES / 2];
    struct arena *arena = arena_new(0);
    struct cover c = cover_new();
    const struct wire_type *t = NULL;
    size_t lines = 0, wrong = 0, groups = 0;
    int version = -1, at = 0, of = 0;
    while (fgets(line, sizeof line, stdin) != NULL && sscanf(line, "%*s %127s %d %n", name, &of, &at) == 2) {
        const struct wire_type *now = wire_type_by_name(name);
        if (now != t || of != version) {
            wrong += t != NULL ? report_missing(&c, t, version) : 0;
            cover_clear(&c);
            groups++;
        }
        t = now;
        version = of;
        const char *why =
            t == NULL ? "no such message" : reread(t, version, slice_make(bytes, unhex(line + at, bytes)), arena, &c);
        if (why != NULL)
            printf("differs %s %d %s: %s", name, version, why, line + at);
        wrong += why != NULL;
        lines++;
        arena_reset(arena);
    }
    wrong += t != NULL ? report_missing(&c, t, version) : 0;
    printf("%zu lines of %zu versions of messages\n", lines, groups);
    cover_free(&c);
    arena_free(arena);
    return wrong || lines == 0 ? 1 : 0;
}

/* As Reread.java prints the same: numbers as they are, null, or empty. */
static void print_default(const struct wire_field *f, const char *p)
{
    const void *v = p;
    if (f->flags & WIRE_ARRAY) {
        printf("%s\n", wire_count(p) < 0 ? "null" : "empty");
        return;
    }
    switch ((enum wire_kind)f->kind) {
    case WIRE_BOOL: printf("%s\n", *(const bool *)v ? "true" : "false"); return;
    case WIRE_INT8: printf("%d\n", *(const int8_t *)v); return;
    case WIRE_INT16: printf("%d\n", *(const int16_t *)v); return;
    case WIRE_UINT16: printf("%u\n", *(const uint16_t *)v); return;
    case WIRE_INT32: printf("%" PRId32 "\n", *(const int32_t *)v); return;
    case WIRE_UINT32: printf("%" PRIu32 "\n", *(const uint32_t *)v); return;
    case WIRE_INT64: printf("%" PRId64 "\n", *(const int64_t *)v); return;
    case WIRE_FLOAT64: printf("%.1f\n", *(const double *)v); return;
    case WIRE_UUID: printf("%s\n", uuid_is_zero(*(const struct uuid *)v) ? "empty" : "set"); return;
    case WIRE_STRING:
    case WIRE_BYTES:
    case WIRE_RECORDS: printf("%s\n", ((const struct slice *)v)->data == NULL ? "null" : "empty"); return;
    case WIRE_STRUCT: printf("empty\n"); return;
    case WIRE_POINTER: printf("%s\n", *(const void *const *)v == NULL ? "null" : "empty"); return;
    }
}

static void print_lower(const char *text)
{
    for (; *text; text++)
        putchar(tolower((unsigned char)*text));
}

static void print_defaults(const struct wire_type *t, const struct wire_struct *s)
{
    const struct wire_field *f = wire_fields + s->fields;
    for (unsigned i = 0; i < s->all; i++, f++) {
        uint64_t value[2]; /* room for any one field */
        if (f->kind >= WIRE_STRUCT)
            print_defaults(t, &wire_structs[f->sub]);
        printf("%s ", wire_name(t));
        print_lower(wire_names + s->name);
        putchar('.');
        print_lower(wire_names + f->name);
        putchar(' ');
        if (f->kind != WIRE_STRUCT || f->flags & WIRE_ARRAY)
            wire_set_default(f, value);
        print_default(f, (const char *)value);
    }
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "list") == 0) {
        for (unsigned i = 0; i < message_count(); i++)
            if (has_class(wire_messages[i]))
                printf("%s %s\n", folders[wire_messages[i]->folder], wire_name(wire_messages[i]));
        return 0;
    }
    if (argc == 2 && strcmp(argv[1], "defaults") == 0) {
        for (unsigned i = 0; i < message_count(); i++)
            if (has_class(wire_messages[i]))
                print_defaults(wire_messages[i], &wire_structs[wire_messages[i]->index]);
        return 0;
    }
    if (argc == 3 && strcmp(argv[1], "write") == 0)
        return write_all(strtoull(argv[2], NULL, 10));
    if (argc == 2 && strcmp(argv[1], "read") == 0)
        return read_all();
    fprintf(stderr, "usage: wire_roundtrip list | defaults | write SEED | read\n");
    return 64;
}
