#include "libs/replica/throttle.h"

void throttle_record(struct throttle *t, uint64_t now_ms, uint64_t bytes)
{
    uint64_t window = now_ms / THROTTLE_WINDOW_MS;
    size_t i = window % THROTTLE_WINDOWS;
    if (t->window[i] != window) {
        t->window[i] = window;
        t->bytes[i] = 0;
    }
    t->bytes[i] += bytes;
}

bool throttle_exceeded(const struct throttle *t, uint64_t now_ms, int64_t bytes_per_second)
{
    uint64_t window = now_ms / THROTTLE_WINDOW_MS;
    double sum = 0;
    for (size_t i = 0; i < THROTTLE_WINDOWS; i++) {
        if (t->window[i] + THROTTLE_WINDOWS > window)
            sum += (double)t->bytes[i];
    }
    return sum > (double)bytes_per_second * (THROTTLE_WINDOWS - 1);
}

uint64_t throttle_next_ms(uint64_t now_ms)
{
    return (now_ms / THROTTLE_WINDOW_MS + 1) * THROTTLE_WINDOW_MS;
}

/* A decimal number at the beginning of s, which is taken off; -1: there is none. */
static int64_t take_number(struct slice *s)
{
    int64_t n = -1;
    while (s->size > 0 && s->data[0] >= '0' && s->data[0] <= '9' && n < INT32_MAX) {
        n = (n < 0 ? 0 : n) * 10 + (s->data[0] - '0');
        *s = slice_make(s->data + 1, s->size - 1);
    }
    return n;
}

bool throttle_names(struct slice list, int32_t partition, int32_t broker)
{
    while (list.size > 0) {
        if (list.data[0] == '*')
            return true;
        int64_t p = take_number(&list), b = -1;
        if (list.size > 0 && list.data[0] == ':') {
            list = slice_make(list.data + 1, list.size - 1);
            b = take_number(&list);
        }
        if (p == partition && b == broker)
            return true;
        while (list.size > 0 && list.data[0] != ',')
            list = slice_make(list.data + 1, list.size - 1);
        while (list.size > 0 && (list.data[0] == ',' || list.data[0] == ' '))
            list = slice_make(list.data + 1, list.size - 1);
    }
    return false;
}
