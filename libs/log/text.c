/* text.c - lines, words and numbers. */
#include "libs/log/text.h"

bool text_line(struct slice *rest, struct slice *ret_line)
{
    if (rest->size == 0)
        return false;
    const uint8_t *end = memchr(rest->data, '\n', rest->size);
    size_t n = end ? (size_t)(end - rest->data) : rest->size, used = end ? n + 1 : n;
    *ret_line = slice_make(rest->data, n > 0 && rest->data[n - 1] == '\r' ? n - 1 : n);
    *rest = slice_make(rest->data + used, rest->size - used);
    return true;
}

bool text_word(struct slice *rest, struct slice *ret_word)
{
    while (rest->size > 0 && (rest->data[0] == ' ' || rest->data[0] == '\t'))
        *rest = slice_make(rest->data + 1, rest->size - 1);
    size_t n = 0;
    while (n < rest->size && rest->data[n] != ' ' && rest->data[n] != '\t')
        n++;
    *ret_word = slice_make(rest->data, n);
    *rest = slice_make(rest->data + n, rest->size - n);
    return n > 0;
}

bool text_int(struct slice word, int64_t max, int64_t *ret_value)
{
    bool negative = word.size > 0 && word.data[0] == '-';
    size_t i = negative ? 1 : 0;
    int64_t v = 0;
    if (i == word.size)
        return false;
    for (; i < word.size; i++) {
        int digit = word.data[i] - '0';
        if (digit < 0 || digit > 9 || v > (max - digit) / 10)
            return false;
        v = v * 10 + digit;
    }
    *ret_value = negative ? -v : v;
    return true;
}
