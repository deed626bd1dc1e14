/* seeded.h - inputs that begin as valid files: now and then a mutation starts from one of the fuzzer's own. */
#ifndef KARST_TESTS_FUZZ_SEEDED_H
#define KARST_TESTS_FUZZ_SEEDED_H

#include "libs/base/buf.h"

/* An input that holds valid files; which says which. */
static void make_seed(unsigned which, struct buf *out);

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    enum { EVERY = 50 };
    if (size <= 1 || seed % EVERY == 0) {
        struct buf b = {0};
        make_seed(seed / EVERY, &b);
        size = MIN(b.size, max_size);
        memcpy(data, b.data, size);
        buf_free(&b);
    }
    return LLVMFuzzerMutate(data, size, max_size);
}

#endif
