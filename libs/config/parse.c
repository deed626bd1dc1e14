/* parse.c - numbers, lists, and the properties format of java.util.Properties.load. */
#include "libs/config/parse.h"

#include "libs/base/buf.h"
#include <stdio.h>

struct slice parse_trim(struct slice s)
{
    while (s.size && s.data[0] <= ' ') {
        s.data++;
        s.size--;
    }
    while (s.size && s.data[s.size - 1] <= ' ')
        s.size--;
    return s;
}

bool parse_int64(struct slice s, int64_t *ret_value)
{
    size_t i = 0;
    bool negative = s.size && s.data[0] == '-';
    uint64_t v = 0, limit = (uint64_t)INT64_MAX + (negative ? 1 : 0);
    if (s.size && (s.data[0] == '-' || s.data[0] == '+'))
        i = 1;
    if (i == s.size)
        return false;
    for (; i < s.size; i++) {
        if (s.data[i] < '0' || s.data[i] > '9')
            return false;
        uint64_t digit = (uint64_t)(s.data[i] - '0');
        if (v > (limit - digit) / 10)
            return false;
        v = v * 10 + digit;
    }
    *ret_value = (int64_t)(negative ? 0 - v : v);
    return true;
}

bool parse_double(struct slice s, double *ret_value)
{
    char text[64], *end;
    if (s.size == 0 || s.size >= sizeof(text))
        return false;
    for (size_t i = 0; i < s.size; i++)
        if (strchr("0123456789+-.eE", s.data[i]) == NULL || s.data[i] == 0)
            return false;
    memcpy(text, s.data, s.size);
    text[s.size] = 0;
    double v = strtod(text, &end);
    if (*end)
        return false;
    *ret_value = v;
    return true;
}

bool parse_bool(struct slice s, bool *ret_value)
{
    const char *text = (const char *)s.data;
    if (s.size == 4 && strncasecmp(text, "true", 4) == 0) {
        *ret_value = true;
        return true;
    }
    if (s.size == 5 && strncasecmp(text, "false", 5) == 0) {
        *ret_value = false;
        return true;
    }
    return false;
}

void parse_print_double(double v, char *to)
{
    char digits[32];
    int precision = 0;
    do { /* the fewest digits that mean this number */
        snprintf(digits, sizeof digits, "%.*e", precision, v);
    } while (strtod(digits, NULL) != v && ++precision < 17);
    char *e = strchr(digits, 'e');
    if (e == NULL) { /* only an overflow of "1e999" */
        snprintf(to, PARSE_DOUBLE_MAX, "%sInfinity", v < 0 ? "-" : "");
        return;
    }
    int exponent = atoi(e + 1);
    *e = 0;
    if (exponent >= -3 && exponent < 7)
        snprintf(to, PARSE_DOUBLE_MAX, "%.*f", MAX(precision - exponent, 1), v);
    else
        snprintf(to, PARSE_DOUBLE_MAX, "%s%sE%d", digits, precision == 0 ? ".0" : "", exponent);
}

bool parse_item(struct slice *list, struct slice *ret_item)
{
    if (list->size == 0)
        return false;
    const uint8_t *comma = memchr(list->data, ',', list->size);
    size_t n = comma ? (size_t)(comma - list->data) : list->size;
    *ret_item = parse_trim(slice_make(list->data, n));
    *list = comma ? slice_make(comma + 1, list->size - n - 1) : SLICE_NULL;
    return true;
}

static bool is_blank(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\f';
}
static bool is_end(uint8_t c)
{
    return c == '\n' || c == '\r';
}

static void skip_end(struct slice *text, int *line)
{
    if (text->size == 0)
        return;
    size_t n = text->size > 1 && text->data[0] == '\r' && text->data[1] == '\n' ? 2 : 1;
    *text = slice_make(text->data + n, text->size - n);
    (*line)++;
}

static void skip_blanks(struct slice *text)
{
    while (text->size && is_blank(text->data[0])) {
        text->data++;
        text->size--;
    }
}

/* Skips blank lines and comments: text stands at a key afterwards, or at its end. */
static void skip_to_key(struct slice *text, int *line)
{
    for (;;) {
        skip_blanks(text);
        if (text->size == 0)
            return;
        if (text->data[0] == '#' || text->data[0] == '!')
            while (text->size && !is_end(text->data[0]))
                *text = slice_make(text->data + 1, text->size - 1);
        else if (!is_end(text->data[0]))
            return;
        skip_end(text, line);
    }
}

static void put_utf8(struct buf *b, unsigned c)
{
    if (c < 0x80) {
        buf_append(b, &(uint8_t){(uint8_t)c}, 1);
    } else if (c < 0x800) {
        buf_append(b, (uint8_t[]){(uint8_t)(0xc0 | c >> 6), (uint8_t)(0x80 | (c & 0x3f))}, 2);
    } else {
        buf_append(
            b, (uint8_t[]){(uint8_t)(0xe0 | c >> 12), (uint8_t)(0x80 | (c >> 6 & 0x3f)), (uint8_t)(0x80 | (c & 0x3f))},
            3);
    }
}

/* text stands behind "\u". */
static int take_unicode(struct slice *text, struct buf *b)
{
    unsigned c = 0;
    if (text->size < 4)
        return -EINVAL;
    for (int i = 0; i < 4; i++) {
        unsigned d = text->data[i];
        unsigned low = d | 0x20;
        if (d >= '0' && d <= '9')
            c = c * 16 + (d - '0');
        else if (low >= 'a' && low <= 'f')
            c = c * 16 + (low - 'a' + 10);
        else
            return -EINVAL;
    }
    *text = slice_make(text->data + 4, text->size - 4);
    put_utf8(b, c);
    return 0;
}

/* text stands behind a backslash: an escape, or the end of a line that goes on. */
static int take_escape(struct slice *text, int *line, struct buf *b)
{
    if (text->size == 0)
        return 0;
    uint8_t c = text->data[0];
    if (is_end(c)) {
        skip_end(text, line);
        skip_blanks(text);
        return 0;
    }
    *text = slice_make(text->data + 1, text->size - 1);
    switch (c) {
    case 'u': return take_unicode(text, b);
    case 't': c = '\t'; break;
    case 'n': c = '\n'; break;
    case 'r': c = '\r'; break;
    case 'f': c = '\f'; break;
    }
    buf_append(b, &c, 1);
    return 0;
}

/* Takes to the end of the line, or of the key. */
static int take_word(struct slice *text, int *line, bool key, struct buf *b)
{
    while (text->size && !is_end(text->data[0])) {
        uint8_t c = text->data[0];
        if (key && (c == '=' || c == ':' || is_blank(c)))
            return 0;
        *text = slice_make(text->data + 1, text->size - 1);
        if (c != '\\') {
            buf_append(b, &c, 1);
            continue;
        }
        int r = take_escape(text, line, b);
        if (r)
            return r;
    }
    return 0;
}

int parse_property(struct slice *text, int *line, char **ret_key, char **ret_value)
{
    struct buf key = {0}, value = {0};
    skip_to_key(text, line);
    if (text->size == 0)
        return 0;
    int r = take_word(text, line, true, &key);
    if (r == 0) {
        skip_blanks(text);
        if (text->size && (text->data[0] == '=' || text->data[0] == ':')) {
            *text = slice_make(text->data + 1, text->size - 1);
            skip_blanks(text);
        }
        r = take_word(text, line, false, &value);
    }
    skip_end(text, line);
    if (r) {
        buf_free(&key);
        buf_free(&value);
        return r;
    }
    buf_append(&key, "", 1);
    buf_append(&value, "", 1);
    *ret_key = (char *)key.data;
    *ret_value = (char *)value.data;
    return 1;
}
